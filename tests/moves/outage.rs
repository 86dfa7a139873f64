//! Storage that fails under a guest in a cluster, and what `outage_policy` makes of it.

use anyhow::{Context, Result, bail, ensure};
use lab::guest::{on_hanging, stopping_at_errors};
use lab::placed::{Guest, until};
use lab::promised;
use lab::scene::{LIMIT, Stage};
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// `EIO`, whatever is asked.
const OUT: StorageFault = StorageFault::Error(Reach::Everything, 5);

/// A monitor every second, which may not take longer than is advised.
const OPERATIONS: &str =
    "op start timeout=90s op stop timeout=90s op monitor interval=1s timeout=30s op migrate_to timeout=120s op migrate_from timeout=60s";

/// For how long a guest has to stay as it is: monitors enough to give it up.
const MONITORS: Duration = Duration::from_secs(5);

/// A guest whose disk lies on the storage that can fail, and that stops at an error.
fn placed<'a>(stage: &'a Stage, name: &'static str, parameters: &str) -> Result<Guest<'a>> {
    placed_as(stage, name, parameters, str::to_owned)
}

/// As [`placed`], with more changes of the definition.
fn placed_as<'a>(stage: &'a Stage, name: &'static str, parameters: &str, change: impl Fn(&str) -> String) -> Result<Guest<'a>> {
    let guest = Guest::files(stage, name)?;
    stage.lab.guest_edit(name, |text| change(&stopping_at_errors(&on_hanging(text))))?;
    guest.give("ocf:kvmha:VirtualDomain", parameters, OPERATIONS)?;
    guest.runs(1)?;
    Ok(guest)
}

/// What the node attribute says of the outage.
fn shown(stage: &Stage, name: &str, text: &str) -> bool {
    stage.run(&format!("attrd_updater --query --all --name kvmha-outage-{name}")).is_ok_and(|output| output.stdout.contains(text))
}

/// The guest goes on where it is when its storage is back, and not before every other node has said that it does not have it.
pub fn it_goes_on(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = placed(&stage, "vm1", "outage_policy=resume")?;
    let (home, other) = (guest.node()?, guest.other_node()?);
    lab.storage(&home, OUT)?;
    until("it is paused", || guest.paused_by_an_error(&home))?;
    until("the outage is shown", || shown(&stage, "vm1", "cannot be read"))?;
    lab.freeze(&other, "libvirtd")?;
    lab.storage(&home, StorageFault::None)?;
    let waits = || shown(&stage, "vm1", &format!("it is not let go on: {other} does not say whether it runs vm1"));
    let waited = until("the node that does not answer is named", waits);
    let paused = guest.paused_by_an_error(&home);
    lab.thaw(&other, "libvirtd")?;
    waited?;
    ensure!(paused, "it was let go on though {other} did not say that it does not have it");
    guest.goes_on()?;
    until("the outage is over", || !shown(&stage, "vm1", "vm1 is"))?;
    stage.settle()?;
    guest.is_on(&home)?;
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(1).map(drop)
}

/// `stop`: after the delay it is started where its disk can be read.
pub fn it_is_given_up(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = placed(&stage, "vm1", "outage_policy=stop outage_delay=3")?;
    let home = guest.node()?;
    lab.storage(&home, OUT)?;
    stage.wait(|seen| seen.runs_on("vm1").is_some_and(|node| node != home)).context("it is not given up")?;
    lab.storage(&home, StorageFault::None)?;
    guest.goes_on()?;
    ensure!(stage.log(&home)?.contains("vda (/srv/hang/vm1.img) cannot be read: i/o error (outage_policy=stop)"), "another reason");
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(2).map(drop)
}

/// What a start or a monitor of the guest left beside its disk: the names of the folders with a word.
fn marks(lab: &Lab) -> Result<Vec<String>> {
    let folder = lab.layout().shared();
    let names = fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.contains("kvmha-mark") && folder.join(name).join("word").is_file()).collect())
}

/// Waits for one word, which is not `before`.
fn mark(lab: &Lab, before: &str) -> Result<String> {
    let mut found = Vec::new();
    until("one word lies there, and another than before", || {
        found = marks(lab).unwrap_or_default();
        found.len() == 1 && found[0] != before
    })?;
    found.pop().context("no word")
}

/// `relocate`: another node reads the disk, and the guest is started there, not here again, though the storage is back here before; and not
/// twice in a row.
pub fn it_is_relocated(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    // A second disk, whose storage is not out anywhere, must not keep it here.
    let folder = lab.layout().shared().join("second");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("vm1.img"), vec![0; 1 << 20])?;
    let guest = placed_as(&stage, "vm1", "outage_policy=relocate outage_delay=3", |text| {
        let disk = "<driver name='qemu' type='raw' cache='none'/><source file='/srv/vms/second/vm1.img'/><target dev='vdb' bus='virtio'/>";
        text.replace("</devices>", &format!("<disk type='file' device='disk'>{disk}</disk></devices>"))
    })?;
    let home = guest.node()?;
    let first = mark(lab, "")?;
    // What a question has left that was given up: the daemon there has made the pool after all.
    for node in lab.node_names().iter().filter(|node| **node != home) {
        let (name, place) = (format!("{first}-word"), format!("/srv/hang/{first}"));
        lab.check(node, &["virsh", "pool-create-as", &name, "dir", "--target", &place], LIMIT)?;
    }
    lab.storage(&home, OUT)?;
    let seen = stage.wait(|seen| seen.runs_on("vm1").is_some_and(|node| node != home)).context("it is not relocated")?;
    let second = seen.runs_on("vm1").unwrap_or_default().to_owned();
    guest.goes_on()?;
    guest.boots(2)?;
    let log = stage.log(&home)?;
    ensure!(log.contains("vda (/srv/hang/vm1.img) cannot be read: i/o error (outage_policy=relocate, node"), "another reason");
    // Pacemaker tries where it was, and has to be told.
    ensure!(log.contains("start of vm1 refused: vda (/srv/hang/vm1.img) cannot be read: i/o error"), "it was not refused on {home}");
    mark(lab, &first)?;
    // The first node has it back, and is no place for it all the same.
    lab.storage(&home, StorageFault::None)?;
    stage.check("crm_resource --cleanup")?;
    stage.settle()?;
    guest.is_on(&second)?;
    lab.storage(&second, OUT)?;
    until("it stays", || shown(&stage, "vm1", "it stays here: it was relocated less than 10 min ago"))?;
    stays(&stage, &guest, &second)?;
    lab.storage(&second, StorageFault::None)?;
    guest.goes_on()?;
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(2)?;
    ensure!(marks(lab)?.is_empty(), "words are left beside its disk");
    let left = fs::read_dir(&folder)?.flatten().count();
    ensure!(left == 1, "words are left beside its second disk");
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// `relocate`, of a block device: another node sees the device that has the WWID. The names are links to loop devices, one of each node's own
/// over the storage that can fail.
pub fn its_device_is_relocated(lab: &Lab) -> Result<()> {
    const WWID: &str = "/dev/disk/by-id/wwn-0x6b766d6800000001";
    let stage = Stage::of(lab);
    let guest = Guest::files(&stage, "vm3")?;
    lab.guest_edit("vm3", |text| {
        let text = text.replace("<disk type='file'", "<disk type='block'");
        stopping_at_errors(&text.replace("<source file='/srv/vms/vm3.img'/>", &format!("<source dev='{WWID}'/>")))
    })?;
    for node in lab.node_names() {
        let words = format!("mkdir -p /dev/disk/by-id && ln -sfn $(losetup --find --show /srv/hang/vm3.img) {WWID}");
        lab.check(&node, &["sh", "-c", &words], LIMIT)?;
    }
    let outcome = (|| {
        guest.give("ocf:kvmha:VirtualDomain", "outage_policy=relocate outage_delay=3", OPERATIONS)?;
        let home = guest.runs(1)?;
        mark(lab, "")?;
        lab.storage(&home, OUT)?;
        stage.wait(|seen| seen.runs_on("vm3").is_some_and(|node| node != home)).context("it is not relocated")?;
        lab.storage(&home, StorageFault::None)?;
        guest.goes_on()?;
        let log = stage.log(&home)?;
        ensure!(log.contains(&format!("vda ({WWID}) cannot be read: i/o error (outage_policy=relocate, node")), "another reason");
        promised!(stage.fences() == 0, "a node was fenced");
        guest.end(2).map(drop)
    })();
    heal(lab)?;
    for node in lab.node_names() {
        // The kernel takes it away when its last user has closed it.
        lab.check(&node, &["sh", "-c", &format!("losetup --detach $(readlink {WWID}); rm {WWID}")], LIMIT)?;
    }
    outcome
}

/// `relocate`: nobody reads the disk, and then nobody can be asked: it stays where it is, paused, and goes when another node reads it.
pub fn it_holds_still(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    // Not that of another scenario: the cluster remembers when that was relocated.
    let guest = placed(&stage, "vm2", "outage_policy=relocate outage_delay=3")?;
    let home = guest.node()?;
    mark(lab, "")?;
    let others: Vec<String> = lab.node_names().into_iter().filter(|node| *node != home).collect();
    lab.node_names().iter().try_for_each(|node| lab.storage(node, OUT))?;
    for node in &others {
        let why = format!("{node} is not known to read vda (/srv/hang/vm2.img): its folder cannot be read there");
        until("the other nodes are asked", || shown(&stage, "vm2", &why))?;
    }
    stays(&stage, &guest, &home)?;
    others.iter().try_for_each(|node| lab.freeze(node, "libvirtd"))?;
    let outcome = (|| {
        others.iter().try_for_each(|node| lab.storage(node, StorageFault::None))?;
        until("nobody can be asked", || others.iter().all(|node| shown(&stage, "vm2", &format!("{node} is not reached"))))?;
        stays(&stage, &guest, &home)
    })();
    others.iter().try_for_each(|node| lab.thaw(node, "libvirtd"))?;
    outcome?;
    stage.wait(|seen| seen.runs_on("vm2").is_some_and(|node| node != home)).context("it is not relocated")?;
    lab.storage(&home, StorageFault::None)?;
    guest.goes_on()?;
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(2).map(drop)
}

/// `relocate`: a node whose storage hangs is asked once, not by each monitor, and keeps the guest from no other node.
pub fn a_node_that_hangs_is_left_alone(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = placed(&stage, "vm4", "outage_policy=relocate outage_delay=3")?;
    let home = guest.node()?;
    mark(lab, "")?;
    let others: Vec<String> = lab.node_names().into_iter().filter(|node| *node != home).collect();
    let [hangs, other] = &others[..] else { bail!("three nodes are needed") };
    lab.storage(hangs, StorageFault::Hold(Reach::Everything))?;
    lab.storage(other, OUT)?;
    lab.storage(&home, OUT)?;
    until("the node is asked", || shown(&stage, "vm4", &format!("{hangs} gives no answer about its disks")))?;
    stays(&stage, &guest, &home)?;
    let asked = stage.log(&home)?.matches("it is not asked again for 10 min").count();
    ensure!(asked == 1, "{hangs} was asked {asked} times");
    lab.storage(other, StorageFault::None)?;
    stage.wait(|seen| seen.runs_on("vm4") == Some(other)).context("it is not relocated")?;
    heal(lab)?;
    guest.goes_on()?;
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(2).map(drop)
}

/// `relocate`: a start waits for storage that does not answer: while that fails over no node is ruled out.
pub fn its_start_waits(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = placed(&stage, "vm5", "outage_policy=relocate")?;
    stage.check("pcs resource disable vm5")?;
    stage.wait(|seen| seen.runs_on("vm5").is_none()).context("it is not stopped")?;
    stage.settle()?;
    lab.node_names().iter().try_for_each(|node| lab.storage(node, StorageFault::Hold(Reach::Everything)))?;
    stage.check("pcs resource enable vm5")?;
    let waits = "vda (/srv/hang/vm5.img) does not answer, the start waits for it";
    until("the start waits", || lab.node_names().iter().any(|node| stage.log(node).is_ok_and(|log| log.contains(waits))))?;
    heal(lab)?;
    guest.runs(2)?;
    let seen = stage.wait(|seen| seen.dc.is_some())?;
    ensure!(seen.failures.is_empty(), "failed actions: {:?}", seen.failures);
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(2).map(drop)
}

/// It is paused on this node for some monitors, and Pacemaker sees no failure.
fn stays(stage: &Stage, guest: &Guest, node: &str) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < MONITORS {
        ensure!(guest.paused_by_an_error(node), "{} is not paused on {node} any more", guest.name);
        let seen = stage.wait(|seen| seen.dc.is_some())?;
        ensure!(seen.failures.iter().all(|failure| failure.code == "190"), "failed actions: {:?}", seen.failures);
        ensure!(seen.runs_on(guest.name) == Some(node), "{} is not seen on {node}: {:?}", guest.name, seen.resources);
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// After each scenario, whatever became of it: the storage answers.
pub fn heal(lab: &Lab) -> Result<()> {
    lab.node_names().iter().try_for_each(|node| lab.storage(node, StorageFault::None))
}
