//! Other data by the same name on the two nodes: no move goes there, the reason names the disk, and the guest runs on where it was.

use crate::same::{loose, moves, nothing_left};
use anyhow::Result;
use lab::Lab;
use lab::promised;
use lab::stage::{Agent, HERE, Resource, SOON, THERE};
use lab::storage::{Fault, Reach};

/// The move is refused for the disk, and the guest was not touched. It is the check that keeps it: without it the guest moves.
pub fn refused(guest: &Resource, says: &[&str]) -> Result<()> {
    if Agent::under_test()? == Agent::Theirs {
        return theirs(guest);
    }
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    let before = guest.emulators(HERE)?;
    guest.call_with(HERE, "migrate_to", 60, &target)?.says(1, &["still runs here, not moved to", "storage: vda"])?.says(1, says)?;
    promised!(guest.emulators(HERE)? == before && !before.is_empty(), "the guest was touched");
    guest.absent(THERE)?;
    nothing_left(guest.lab)?;
    moves(&guest.with("migration_storage_check", "off"), None)
}

/// What the incumbent does in the same case is shown.
fn theirs(guest: &Resource) -> Result<()> {
    let guest = Resource { agent: Agent::Theirs, ..guest.clone() };
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    let answer = guest.call_with(HERE, "migrate_to", 60, &target)?;
    println!("ocf:heartbeat:VirtualDomain: migrate_to {}, the guest runs on {THERE}: {}", answer.code, guest.lives(THERE));
    Ok(())
}

/// A folder of each node's own, with an image of the same name in it.
pub fn folder(lab: &Lab) -> Result<()> {
    let guest = own_images(lab, "apart")?;
    guest.begin(HERE)?;
    refused(&guest, &["/srv/own/apart.img", "another folder"])
}

/// Pools of the same name, each node's own.
pub fn pool(lab: &Lab) -> Result<()> {
    let guest = own_images(lab, "pooled")?;
    guest.edit(|text| {
        text.replace("<disk type='file'", "<disk type='volume'")
            .replace("<source file='/srv/own/pooled.img'/>", "<source pool='vms' volume='pooled.img'/>")
    })?;
    for node in [HERE, THERE] {
        lab.check(node, &["virsh", "pool-create-as", "vms", "dir", "--target", "/srv/own"], SOON)?;
    }
    guest.begin(HERE)?;
    let outcome = refused(&guest, &["vms/pooled.img", "another folder"]);
    for node in [HERE, THERE] {
        lab.check(node, &["virsh", "pool-destroy", "vms"], SOON)?;
    }
    outcome
}

/// As [`pool`], while the definition there is on storage that hangs: what is known of the disk is not lost over that.
pub fn definition_hangs(lab: &Lab) -> Result<()> {
    let guest = own_images(lab, "waits")?.with("config", "/srv/hang/waits.xml");
    guest.begin(HERE)?;
    lab.storage(THERE, Fault::Hold(Reach::Everything))?;
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    let answer = guest.call_with(HERE, "migrate_to", 60, &target);
    lab.storage(THERE, Fault::None)?;
    answer?.says(1, &["still runs here, not moved to", "storage: vda", "/srv/own/waits.img", "another folder"])?;
    promised!(guest.lives(HERE), "the guest was touched");
    guest.absent(THERE)
}

/// A guest whose image is in a folder that each node has for itself.
fn own_images<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let guest = Resource::empty(lab, name)?;
    guest.edit(|text| text.replace("<source file='/srv/vms/", "<source file='/srv/own/"))?;
    for node in [HERE, THERE] {
        let image = format!("mkdir -p /srv/own; truncate -s 1M /srv/own/{name}.img; echo {node} | dd of=/srv/own/{name}.img conv=notrunc");
        lab.check(node, &["sh", "-c", &image], SOON)?;
    }
    Ok(loose(&guest))
}
