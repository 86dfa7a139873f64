//! Guests that change their memory faster than the line takes it, and the line itself. The guest counts every page that is not as it left it:
//! what it wrote before a move is there after it.

use crate::stage::{Answer, HERE, PATIENCE, Resource, SOON, THERE, soon};
use anyhow::{Context, Result, ensure};
use lab::node::Terminal;
use lab::process::wait_until;
use lab::promised;
use lab::{GuestOptions, Lab, Watcher};
use std::process::Stdio;
use std::time::Duration;

/// The memory that is changed all the time, in MiB. All of it is sent in two to three seconds.
const BUSY: u32 = 24;
const RATE: &str = "80mbit";

const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";

/// The line from the source, made slow until this is dropped.
struct Slow<'a>(&'a Lab);

impl<'a> Slow<'a> {
    fn line(lab: &'a Lab) -> Result<Self> {
        let words = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", RATE, "burst", "256k", "latency", "100ms"];
        lab.check(HERE, &words, SOON)?;
        Ok(Self(lab))
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        let _ = self.0.exec(HERE, &["tc", "qdisc", "del", "dev", "eth0", "root"], SOON);
    }
}

/// A guest that is busy, on its way to be moved.
fn busy<'a>(lab: &'a Lab, name: &str, policy: &str) -> Result<(Resource<'a>, u64)> {
    busy_and_beating(lab, name, policy, GuestOptions::default().beat)
}

fn busy_and_beating<'a>(lab: &'a Lab, name: &str, policy: &str, beat: Duration) -> Result<(Resource<'a>, u64)> {
    lab.guest_create(name, &GuestOptions { memory: 80 + BUSY, busy: BUSY, beat, ..GuestOptions::default() })?;
    let guest = Resource::unmade(lab, name, &format!("/srv/vms/{name}.xml"))
        .with("migration_transport", "tcp")
        .with("migrate_options", "--unsafe")
        .with("migration_policy", policy);
    let boot = guest.boot(HERE)?;
    Ok((guest, boot))
}

fn migrate_to(guest: &Resource, seconds: u64) -> Result<Answer> {
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    guest.call_with(HERE, "migrate_to", seconds, &target)
}

fn arrived(guest: &Resource, boot: u64) -> Result<()> {
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.absent(HERE)?;
    unhurt(guest, boot)
}

/// It beats, and every page is as it was left.
fn unhurt(guest: &Resource, boot: u64) -> Result<()> {
    guest.beats(boot)?;
    let errors = guest.ring()?.newest.errors;
    ensure!(errors == 0, "{errors} pages are not as the guest left them");
    Ok(())
}

/// By the default policy it arrives; the incumbent does not move it in any.
pub fn converges(lab: &Lab) -> Result<()> {
    let (guest, boot) = busy(lab, "eager", "")?;
    let slow = Slow::line(lab)?;
    // Pacemaker would kill it at its timeout, stop the guest and start it again.
    let mut words = guest.words(HERE, "migrate_to", 25, &[("OCF_RESKEY_CRM_meta_migrate_target", THERE)]);
    let agent = words.iter_mut().rev().nth(1).context("no agent")?;
    *agent = agent.replace("/kvmha/", "/heartbeat/");
    words.splice(0..0, ["timeout", "--signal=KILL", "25"].map(str::to_owned));
    let output = lab.exec(HERE, &words, Duration::from_secs(60))?;
    ensure!(output.code != Some(0), "the incumbent has moved it: {output:?}");
    soon("it is not half there any more", || !guest.lives(THERE))?;
    unhurt(&guest, boot)?;
    migrate_to(&guest, 60)?.is(0)?;
    drop(slow);
    arrived(&guest, boot)?;
    let listed = lab.check(HERE, &["kvmha", "migrations", "eager", "--json"], SOON)?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    ensure!(listed[0]["passes"].as_u64().is_some_and(|passes| passes > 2), "{listed}");
    Ok(())
}

/// By the gentle policy it is left where it is, in time and unhurt, and the reason has the numbers.
pub fn gentle_stays(lab: &Lab) -> Result<()> {
    let (guest, boot) = busy(lab, "stayer", "gentle")?;
    let _slow = Slow::line(lab)?;
    migrate_to(&guest, 30)?.says(1, &["stayer still runs here", "called off", "dirties"])?;
    guest.absent(THERE)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    unhurt(&guest, boot)
}

/// By post-copy it arrives, with all of its memory.
pub fn postcopy_arrives(lab: &Lab) -> Result<()> {
    let (guest, boot) = busy(lab, "jumper", "postcopy")?;
    let slow = Slow::line(lab)?;
    migrate_to(&guest, 60)?.is(0)?;
    drop(slow);
    arrived(&guest, boot)?;
    let listed = lab.check(HERE, &["kvmha", "migrations", "jumper", "--json"], SOON)?;
    ensure!(listed.contains("\"postcopy\": true"), "{listed}");
    Ok(())
}

/// An emulator at the target that may not do post-copy, as no user but root may by Linux's default, takes the guest without.
pub fn postcopy_not_allowed(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "modest")?
        .with("migration_transport", "tcp")
        .with("migrate_options", "--unsafe")
        .with("migration_policy", "postcopy");
    let allowed = lab.check(THERE, &["cat", "/proc/sys/vm/unprivileged_userfaultfd"], SOON)?;
    let boot = guest.boot(HERE)?;
    lab.check(THERE, &["chmod", "666", "/srv/vms/modest.img"], SOON)?;
    let _not_root = lab.reconfigure_file(THERE, QEMU_CONF, &[("user", "\"nobody\""), ("group", "\"nogroup\"")])?;
    migrate_to(&guest, 60)?.is(0)?;
    let log = lab.check(HERE, &["cat", "/var/log/messages"], SOON)?;
    ensure!(allowed.trim() == "1" || log.contains("trying without post-copy"), "{log}");
    arrived(&guest, boot)?;
    guest.end(THERE, 60).map(drop)
}

/// Calls the move and, as soon as the guest runs at the target, does something.
fn in_postcopy(guest: &Resource, seconds: u64, act: impl FnOnce() -> Result<()>) -> Result<Answer> {
    std::thread::scope(|scope| -> Result<Answer> {
        let call = scope.spawn(|| migrate_to(guest, seconds));
        let reached = wait_until(PATIENCE, Duration::from_millis(20), || {
            guest.virsh(THERE, "domstate", &["--reason"]).is_ok_and(|state| state.contains("running (post-copy)"))
        });
        let acted = if reached { act() } else { Ok(()) };
        let answer = call.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(reached, "post-copy did not begin: {answer:?}");
        acted?;
        Ok(answer)
    })
}

/// So often a broken post-copy is tried to be resumed. Whether it can be is QEMU's affair: an emulator whose main thread waits for a page of the
/// guest's (in userfault, with QEMU's big lock) takes no new connection, and then nobody can resume it. QEMU 7.2 with emulated CPUs does that
/// nearly each time.
const TRIES: u32 = 2;

/// With this in the environment it has to be resumed: for emulators that can.
const MUST: &str = "KVMHA_POSTCOPY_RESUMES";

/// A broken post-copy: `moves` has a move broken, and says what the agent answers that resumes it. It is resumed and the memory is whole; or
/// that it is not is said, with both halves, and stop ends them.
fn resumed_or_said(lab: &Lab, name: &str, moves: impl Fn(&Resource) -> Result<Answer>) -> Result<()> {
    for number in 1..=TRIES {
        let (guest, boot) = busy_and_beating(lab, &format!("{name}{number}"), "postcopy", Duration::from_secs(1))?;
        let slow = Slow::line(lab)?;
        let answer = moves(&guest)?;
        drop(slow);
        if answer.code == 0 {
            return arrived(&guest, boot);
        }
        // It is where the truth says, and stop ends both halves.
        answer.says(1, &["is half here, paused (post-copy failed)", "half on node2"])?;
        for node in [THERE, HERE] {
            guest.call(node, "stop", 60)?.is(0)?;
            guest.absent(node)?;
        }
    }
    ensure!(std::env::var_os(MUST).is_none(), "none of {TRIES} was resumed");
    println!("\n    none of {TRIES} was resumed, each said so: this emulator's target takes no new connection ({MUST}=1 wants it resumed)");
    Ok(())
}

/// The memory's connection is lost in post-copy while both emulators live: it is made again, and the guest arrives with all of its memory; where
/// the emulator does not take a new one, that is said.
pub fn postcopy_resumed_or_said(lab: &Lab) -> Result<()> {
    resumed_or_said(lab, "mended", |guest| {
        let answer = in_postcopy(guest, 60, || guest.virsh(HERE, "domjobabort", &["--postcopy"]).map(|_| ()))?;
        if answer.code == 0 {
            let (log, said) =
                (lab.check(HERE, &["cat", "/var/log/messages"], SOON)?, format!("{} to {THERE} has stopped half done", guest.name));
            ensure!(log.contains(&said), "it was not interrupted: {log}");
        }
        Ok(answer)
    })
}

/// A move that has lost its connection in post-copy, and nobody who looks after it: the next migrate_to resumes it, or says why not.
pub fn postcopy_resumed_by_the_next_or_said(lab: &Lab) -> Result<()> {
    resumed_or_said(lab, "taken", |guest| {
        let uri = format!("qemu+tcp://{THERE}/system");
        let words = ["virsh", "migrate", "--live", "--p2p", "--unsafe", "--postcopy", &guest.name, &uri];
        let mut moving = lab.enter(HERE, &words, Terminal::None)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        soon("the move can be turned into post-copy", || guest.virsh(HERE, "migrate-postcopy", &[]).is_ok())?;
        soon("it runs at the target", || {
            guest.virsh(THERE, "domstate", &["--reason"]).is_ok_and(|state| state.contains("running (post-copy)"))
        })?;
        guest.virsh(HERE, "domjobabort", &["--postcopy"])?;
        ensure!(!moving.wait()?.success(), "it was not interrupted");
        migrate_to(guest, 60)
    })
}

/// The source's emulator ends in post-copy: nobody says that the guest has moved, stop does not say that it is gone while it is not, and in
/// the end one copy runs.
pub fn postcopy_breaks(lab: &Lab) -> Result<()> {
    let (guest, _) = busy(lab, "broken", "postcopy")?;
    let watcher = Watcher::start(&lab.guest_image("broken"))?;
    let slow = Slow::line(lab)?;
    // The emulator that has what the other one needs.
    let answer = in_postcopy(&guest, 40, || lab.kill(HERE, "guest:broken"))?;
    drop(slow);
    ensure!(answer.code == 1, "code {}", answer.code);
    let monitor = guest.call(THERE, "recurring", 20)?;
    promised!(monitor.code != 0 || !guest.lives(THERE), "a guest without all of its memory is healthy: {monitor:?}");
    for node in [THERE, HERE] {
        guest.call(node, "stop", 60)?.is(0)?;
        guest.absent(node)?;
    }
    let boot = guest.boot(THERE)?;
    guest.beats(boot)?;
    promised!(watcher.stop().two_writers.is_none(), "it ran twice");
    Ok(())
}

/// The memory goes over the network that is asked for, and over no other.
pub fn network_by_address(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "routed")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    let boot = guest.boot(HERE)?;
    let target = guest.with("migration_network", "10.99.0.0/24");
    migrate_to(&target, 20)?.says(1, &["migration_network", THERE, "no address in 10.99.0.0/24"])?;
    guest.beats(boot)?;
    lab.check(HERE, &["sh", "-c", "echo 10.77.1.2 node2 >>/etc/hosts"], SOON)?;
    let sent = |interface: &str| -> Result<u64> {
        let path = format!("/sys/class/net/{interface}/statistics/tx_bytes");
        let table = lab.check(HERE, &["cat", "/proc/net/dev"], SOON)?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")).map(str::to_owned)).context(path)?;
        Ok(line.split_whitespace().nth(8).context("no column")?.parse()?)
    };
    let before = [sent("eth0")?, sent("eth1")?];
    let answer = migrate_to(&guest.with("migration_network", "10.77.1.0/24"), 60);
    lab.check(HERE, &["sh", "-c", "grep -v '^10.77.1.2 node2$' /etc/hosts >/run/hosts; cat /run/hosts >/etc/hosts"], SOON)?;
    answer?.is(0)?;
    let [cluster, storage] = [sent("eth0")? - before[0], sent("eth1")? - before[1]];
    ensure!(storage > 10 * 1024 * 1024 && cluster < storage / 10, "{cluster} bytes over the cluster's network, {storage} over the other");
    arrived(&guest, boot)
}
