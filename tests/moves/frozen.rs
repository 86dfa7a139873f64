//! Storage that stands still under the guests of a whole cluster, in all nodes at once, and goes on: nobody is to notice but the guests.

use anyhow::{Context, Result, ensure};
use lab::guest::{on_hanging, stopping_at_errors};
use lab::layout::Network;
use lab::placed::{Guest, until};
use lab::promised;
use lab::scene::Stage;
use lab::servers::{self, Server};
use lab::storage::Reach;
use lab::suite::number;
use lab::{Lab, StorageFault};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// For how many seconds, unless this environment variable says otherwise.
const SECONDS: (&str, u64) = ("KVMHA_FROZEN", 15);

/// A monitor that waited for the storage would be late long before that goes on.
const OPERATIONS: &str =
    "op start timeout=90s op stop timeout=90s op monitor interval=2s timeout=10s op migrate_to timeout=120s op migrate_from timeout=60s";

/// Where the servers run, besides guests.
const STORE: u32 = 3;
const SERVERS: &str = "node3";

/// The guests, what their disks are, and what is to become of them in an outage.
const GUESTS: [(&str, Disk, &str); 5] = [
    ("vm1", Disk::File, "outage_policy=wait"),
    ("vm2", Disk::File, "outage_policy=resume"),
    ("vm3", Disk::File, "outage_policy=stop outage_delay=3"),
    ("vm4", Disk::Nbd, "outage_policy=stop outage_delay=3"),
    ("vm5", Disk::Iscsi, "outage_policy=resume"),
];

/// A watcher on a busy machine may see a beat that late.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq)]
enum Disk {
    /// On the file system that can hang, and so is the definition.
    File,
    Nbd,
    Iscsi,
}

/// The files of a guest, its resource, and the server if it has one.
fn placed<'a>(stage: &'a Stage, (name, disk, parameters): (&'static str, Disk, &str)) -> Result<(Guest<'a>, Option<Server<'a>>)> {
    let (lab, address, image) = (&stage.lab, Network::Storage.address(STORE), format!("/srv/vms/{name}.img"));
    let guest = Guest::files(stage, name)?;
    let path = lab.guest_definition(name);
    let text = stopping_at_errors(&fs::read_to_string(&path)?);
    let on_network = |protocol: &str, export: &str, port| servers::on_network(&text, name, protocol, export, &address, Some(port));
    let (text, server) = match disk {
        Disk::File => (on_hanging(&text), None),
        Disk::Nbd => (on_network("nbd", name, 10809), Some(servers::nbd(lab, SERVERS, &image, name, &address)?)),
        Disk::Iscsi => (on_network("iscsi", &format!("{}/1", servers::TARGET), 3260), Some(servers::iscsi(lab, SERVERS, &image)?)),
    };
    fs::write(&path, text)?;
    let folder = if disk == Disk::File { "/srv/hang" } else { "/srv/vms" };
    let agent = "ocf:kvmha:VirtualDomain";
    stage.check(&format!("pcs resource create {name} {agent} config={folder}/{name}.xml {parameters} {OPERATIONS}"))?;
    Ok((guest, server))
}

/// Five guests whose storage is not there for a quarter of a minute, each monitored every two seconds: Pacemaker sees them run where they are all
/// the time, no monitor fails or is late, nothing piles up, and then they go on.
pub fn five_guests(lab: &Lab) -> Result<()> {
    let stop = |stores: &[Server]| {
        lab.node_names().iter().try_for_each(|node| lab.storage(node, StorageFault::Hold(Reach::Everything)))?;
        stores.iter().try_for_each(Server::freeze)
    };
    let go_on = |stores: &[Server]| {
        crate::outage::heal(lab)?;
        stores.iter().try_for_each(Server::thaw)
    };
    stand_still(lab, &GUESTS, stop, go_on)
}

/// As [`five_guests`], of the guests whose disks are on servers: these go on, and the network to them is cut. None of the guests is where the servers
/// are.
pub fn servers_cut(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    stage.check(&format!("pcs node standby {SERVERS}"))?;
    stage.settle()?;
    let rows: Vec<_> = GUESTS.into_iter().filter(|(_, disk, _)| *disk != Disk::File).collect();
    stand_still(lab, &rows, |_| lab.cut(SERVERS, Network::Storage), |_| lab.heal(SERVERS, Network::Storage))
}

/// After each scenario, whatever became of it: the servers are reached, and their node takes guests.
pub fn heal(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    lab.heal(SERVERS, Network::Storage)?;
    stage.check(&format!("crm_standby --node {SERVERS} --delete")).map(drop)
}

/// What guests and cluster do while the storage stands still: from `stop`, and until `go_on`.
fn stand_still(
    lab: &Lab,
    rows: &[(&'static str, Disk, &str)],
    stop: impl Fn(&[Server]) -> Result<()>,
    go_on: impl Fn(&[Server]) -> Result<()>,
) -> Result<()> {
    let stage = Stage::of(lab);
    let seconds = number(SECONDS.0)?.unwrap_or(SECONDS.1);
    let mut guests = Vec::new();
    let mut stores = Vec::new();
    for row in rows {
        let (guest, server) = placed(&stage, *row)?;
        guests.push(guest);
        stores.extend(server);
    }
    let homes = guests.iter().map(|guest| guest.runs(1)).collect::<Result<Vec<_>>>()?;
    let beats = || guests.iter().map(|guest| guest.watcher.snapshot().beats.len()).collect::<Vec<_>>();

    stop(&stores)?;
    let frozen = Instant::now();
    let mut quiet = (beats(), Instant::now());
    until("no guest writes any more", || {
        let now = beats();
        if now != quiet.0 {
            quiet = (now, Instant::now());
        }
        quiet.1.elapsed() > QUIET
    })?;
    let outcome = frozen_for(&stage, &guests, &homes, frozen, Duration::from_secs(seconds));
    let still = quiet.0 == beats();
    go_on(&stores)?;
    let most = outcome?;
    ensure!(still, "a guest wrote to storage that stands still: this is not what this test is about");

    guests.iter().try_for_each(Guest::goes_on)?;
    until("what waited for the storage has ended", || {
        lab.node_names().iter().all(|node| lab.processes(node, "kvmha").is_ok_and(|left| left.is_empty()))
    })?;
    stage.settle()?;
    for (guest, home) in guests.iter().zip(&homes) {
        ensure!(guest.node()? == *home, "{} is not where it was", guest.name);
        guest.is_on(home)?;
    }
    stage.no_failures()?;
    promised!(stage.fences() == 0, "a node was fenced");
    print!("{seconds} s, at most {most} processes of the agent ... ");
    // All at once: one after the other takes longer than everything before.
    stage.check(&format!("pcs resource disable {}", guests.iter().map(|guest| guest.name).collect::<Vec<_>>().join(" ")))?;
    stage.settle()?;
    guests.into_iter().try_for_each(|guest| guest.end(1).map(drop))
}

/// Looks at the cluster as long as the storage stands still; the greatest number of processes of the agent.
fn frozen_for(stage: &Stage, guests: &[Guest], homes: &[String], since: Instant, time: Duration) -> Result<usize> {
    // Of each guest: a monitor, its child, and one that an earlier monitor has left waiting.
    let (allowed, mut most, mut next) = (3 * guests.len(), 0, Instant::now());
    while since.elapsed() < time {
        let counted = stage.lab.node_names().into_iter().map(|node| Ok(stage.lab.processes(&node, "kvmha")?.len()));
        most = most.max(counted.sum::<Result<usize>>()?);
        ensure!(most <= allowed, "{most} processes of the agent, {allowed} are allowed");
        // A monitor is over in a moment: it takes many looks to see one.
        thread::sleep(Duration::from_millis(5));
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + Duration::from_secs(1);
        as_before(stage, guests, homes).with_context(|| format!("{:.0} s after the storage stood still", since.elapsed().as_secs_f64()))?;
    }
    Ok(most)
}

/// Pacemaker sees each guest run on its node, every node in the cluster, and no action that failed.
fn as_before(stage: &Stage, guests: &[Guest], homes: &[String]) -> Result<()> {
    let seen = stage.wait(|seen| seen.dc.is_some())?;
    ensure!(seen.online() == stage.lab.nodes() as usize, "nodes are missing: {:?}", seen.nodes);
    ensure!(seen.failures.is_empty(), "failed actions: {:?}", seen.failures);
    for (guest, home) in guests.iter().zip(homes) {
        ensure!(seen.runs_on(guest.name) == Some(home.as_str()), "{} is to be seen running on {home}: {:?}", guest.name, seen.resources);
    }
    Ok(())
}
