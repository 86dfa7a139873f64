//! The same storage on both nodes: guests move, with the strictest check too, and nothing is left behind.

use anyhow::{Result, ensure};
use lab::Lab;
use lab::process::wait_until;
use lab::stage::{HERE, PATIENCE, Resource, SOON, THERE};
use std::fs;
use std::time::Duration;

/// A resource whose guest moves only if every disk is proven to be the same.
pub fn strict<'a>(guest: &Resource<'a>) -> Resource<'a> {
    loose(guest).with("migration_storage_check", "proven")
}

/// A resource whose guest may move.
pub fn loose<'a>(guest: &Resource<'a>) -> Resource<'a> {
    guest.with("migration_transport", "tcp").with("migrate_options", "--unsafe")
}

/// Moves a guest from here to there: the same boot, and gone here.
pub fn moves(guest: &Resource, boot: Option<u64>) -> Result<()> {
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    let mut answer = guest.call_with(HERE, "migrate_to", 90, &target)?;
    // On a machine that is very busy a question may come back too late, and then nothing is proven.
    for _ in 0..3 {
        if answer.code == 1
            && answer.reason.as_deref().is_some_and(|reason| reason.contains("no answer in time") || reason.contains("not answer"))
        {
            answer = guest.call_with(HERE, "migrate_to", 90, &target)?;
        }
    }
    answer.is(0)?;
    guest.call_with(THERE, "migrate_from", 60, &target)?.is(0)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.absent(HERE)?;
    ensure!(guest.lives(THERE), "{} is not on {THERE}", guest.name);
    boot.map_or(Ok(()), |boot| guest.beats(boot))
}

/// The other node, which has lost its power, is there again.
pub fn comes_back(lab: &Lab) -> Result<()> {
    lab.power_on(THERE)?;
    lab.wait_libvirt(THERE)?;
    // Its cards have new addresses, and this node would go on with the old ones for a while.
    lab.check(HERE, &["ip", "neigh", "flush", "all"], SOON)?;
    let uri = format!("qemu+tcp://{THERE}/system");
    let reached = || lab.exec(HERE, &["virsh", "-q", "-c", &uri, "version"], SOON).is_ok_and(|output| output.ok());
    ensure!(wait_until(PATIENCE, Duration::from_millis(100), reached), "{THERE} is not reached from {HERE}");
    Ok(())
}

/// No folder of the proof's is left where all nodes see it, no pool on a node.
pub fn nothing_left(lab: &Lab) -> Result<()> {
    for entry in fs::read_dir(lab.layout().shared())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(!name.contains("proof"), "{name} is left");
    }
    for node in lab.node_names() {
        let pools = lab.check(&node, &["virsh", "-q", "pool-list", "--all", "--name"], SOON)?;
        ensure!(!pools.contains("proof"), "pools are left on {node}: {pools}");
    }
    Ok(())
}

/// A folder that both nodes have.
pub fn folder(lab: &Lab) -> Result<()> {
    let guest = strict(&Resource::new(lab, "shared")?);
    let boot = guest.boot(HERE)?;
    moves(&guest, Some(boot))?;
    nothing_left(lab)?;
    guest.end(THERE, 60)?;
    Ok(())
}

/// A link on each node's own disk that leads to such a folder: what the link says decides as well.
pub fn link(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "linked")?;
    guest.edit(|text| text.replace("<source file='/srv/vms/", "<source file='/srv/names/"))?;
    for node in [HERE, THERE] {
        lab.check(node, &["ln", "-sfn", "/srv/vms", "/srv/names"], SOON)?;
    }
    let guest = strict(&guest);
    guest.begin(HERE)?;
    moves(&guest, None)?;
    nothing_left(lab)
}

/// A FUSE file system, which each node has mounted for itself.
pub fn fuse(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "fused")?;
    guest.edit(|text| text.replace("<source file='/srv/vms/", "<source file='/srv/hang/"))?;
    let guest = strict(&guest);
    guest.begin(HERE)?;
    moves(&guest, None)?;
    nothing_left(lab)
}
