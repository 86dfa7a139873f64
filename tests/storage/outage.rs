//! Storage that fails under a guest in a cluster, and what `outage_policy` makes of it.

use crate::guest::{Guest, until};
use crate::stage::{LIMIT, Stage};
use anyhow::{Context, Result, ensure};
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use std::fs;

/// `EIO`, whatever is asked.
const OUT: StorageFault = StorageFault::Error(Reach::Everything, 5);

const OPERATIONS: &str =
    "op start timeout=90s op stop timeout=90s op monitor interval=2s timeout=30s op migrate_to timeout=120s op migrate_from timeout=60s";

/// A guest whose disk lies on the storage that can fail, and that stops at an error.
fn placed<'a>(stage: &'a Stage, name: &'static str, parameters: &str) -> Result<Guest<'a>> {
    let guest = Guest::files(stage, name)?;
    let path = stage.lab.guest_definition(name);
    let text = fs::read_to_string(&path)?.replace("<source file='/srv/vms/", "<source file='/srv/hang/");
    fs::write(&path, text.replace("cache='none'", "cache='none' error_policy='stop'"))?;
    guest.give("ocf:kvmha:VirtualDomain", parameters, OPERATIONS)?;
    guest.runs(1)?;
    Ok(guest)
}

fn is_paused(lab: &Lab, node: &str, name: &str) -> bool {
    lab.exec(node, &["virsh", "-q", "domstate", "--reason", name], LIMIT).is_ok_and(|output| output.stdout.contains("paused (I/O error)"))
}

/// What the node attribute says of the outage.
fn shown(stage: &Stage, name: &str, text: &str) -> bool {
    stage.run(&format!("attrd_updater --query --all --name kvmha-outage-{name}")).is_ok_and(|output| output.stdout.contains(text))
}

/// The guest goes on where it is when its storage is back, and not before every other node has said that it does not have it.
pub fn it_goes_on(lab: &Lab) -> Result<()> {
    let stage = Stage { lab: Lab::open(lab.name(), None)? };
    let guest = placed(&stage, "vm1", "outage_policy=resume")?;
    let (home, other) = (guest.node()?, guest.other_node()?);
    lab.storage(&home, OUT)?;
    until("it is paused", || is_paused(lab, &home, "vm1"))?;
    until("the outage is shown", || shown(&stage, "vm1", "cannot be read"))?;
    lab.freeze(&other, "libvirtd")?;
    lab.storage(&home, StorageFault::None)?;
    let waits = || shown(&stage, "vm1", &format!("it is not let go on: {other} does not say whether it runs vm1"));
    let waited = until("the node that does not answer is named", waits);
    let paused = is_paused(lab, &home, "vm1");
    lab.thaw(&other, "libvirtd")?;
    waited?;
    ensure!(paused, "it was let go on though {other} did not say that it does not have it");
    guest.goes_on()?;
    until("the outage is over", || !shown(&stage, "vm1", "vm1 is"))?;
    stage.settle()?;
    guest.is_on(&home)?;
    ensure!(stage.fences() == 0, "a node was fenced");
    guest.end(1).map(drop)
}

/// `stop`: after the delay it is started where its disk can be read.
pub fn it_is_given_up(lab: &Lab) -> Result<()> {
    let stage = Stage { lab: Lab::open(lab.name(), None)? };
    let guest = placed(&stage, "vm1", "outage_policy=stop outage_delay=3")?;
    let home = guest.node()?;
    lab.storage(&home, OUT)?;
    stage.wait(|seen| seen.runs_on("vm1").is_some_and(|node| node != home)).context("it is not given up")?;
    lab.storage(&home, StorageFault::None)?;
    guest.goes_on()?;
    ensure!(stage.log(&home)?.contains("vda (/srv/hang/vm1.img) cannot be read: i/o error (outage_policy=stop)"), "another reason");
    ensure!(stage.fences() == 0, "a node was fenced");
    guest.end(2).map(drop)
}

/// After each scenario, whatever became of it: the storage answers.
pub fn heal(lab: &Lab) -> Result<()> {
    lab.node_names().iter().try_for_each(|node| lab.storage(node, StorageFault::None))
}
