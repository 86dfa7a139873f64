//! Conditions of the definition. It lies on storage that is shared, so it is the same at the target of a move.

use crate::play::{Lane, Play};
use anyhow::Result;
use lab::stage::{Resource, SOON};
use lab::storage::{Fault, Reach};
use std::fs;
use std::os::unix::fs::symlink;

pub fn missing_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    spoilt(lane, lane.runs(name)?, |path| fs::remove_file(path))
}

pub fn missing_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    spoilt(lane, lane.absent(name)?, |path| fs::remove_file(path))
}

/// Moved here by hand, under names that say nothing.
pub fn missing_came<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let mut guest = lane.absent(name)?.with("config", "/srv/vms/not-there.xml");
    let (definition, here) = (format!("/srv/vms/{}.xml", guest.instance), format!("qemu+tcp://{}/system", lane.here));
    lane.lab.check(&lane.there, &["virsh", "-q", "create", &definition], SOON)?;
    guest.virsh(&lane.there, "migrate", &["--live", "--p2p", "--unsafe", &here])?;
    // For all that is known here it is another's.
    (guest.instance, guest.name) = ("alias".to_owned(), "alias".to_owned());
    Ok(Play::new(guest))
}

/// Restored by a person, as `libvirt-guests` does at boot, under names that say nothing.
pub fn missing_restored<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let mut guest = lane.absent(name)?.with("config", "/srv/vms/not-there.xml");
    let (definition, saved) = (format!("/srv/vms/{}.xml", guest.instance), format!("/srv/vms/{}.save", guest.instance));
    lane.lab.check(&lane.here, &["virsh", "-q", "create", &definition], SOON)?;
    guest.virsh(&lane.here, "save", &[&saved])?;
    lane.lab.check(&lane.here, &["virsh", "-q", "restore", &saved], SOON)?;
    (guest.instance, guest.name) = ("alias".to_owned(), "alias".to_owned());
    Ok(Play::new(guest))
}

pub fn unreadable_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    spoilt(lane, lane.runs(name)?, loops)
}

pub fn unreadable_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    spoilt(lane, lane.absent(name)?, loops)
}

/// Permissions are nothing to root; a link to itself is to anybody.
fn loops(path: &std::path::Path) -> std::io::Result<()> {
    fs::remove_file(path)?;
    symlink(path.file_name().unwrap_or_default(), path)
}

pub fn unparsable_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    spoilt(lane, lane.runs(name)?, |path| fs::write(path, "<domain><name>cut off"))
}

pub fn unparsable_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    spoilt(lane, lane.absent(name)?, |path| fs::write(path, "<domain><name>cut off"))
}

fn spoilt<'a>(lane: &Lane<'a>, guest: Resource<'a>, spoil: fn(&std::path::Path) -> std::io::Result<()>) -> Result<Play<'a>> {
    spoil(&lane.lab.guest_definition(&guest.instance))?;
    Ok(Play::new(guest))
}

pub fn hung_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    hung(lane, lane.started(hanging(&lane.absent(name)?))?)
}

pub fn hung_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    hung(lane, hanging(&lane.absent(name)?))
}

/// The same guest; its definition is reached by way of the file system that can hang.
fn hanging<'a>(guest: &Resource<'a>) -> Resource<'a> {
    guest.with("config", &format!("/srv/hang/{}.xml", guest.instance))
}

/// From now on the node's storage does not answer.
pub fn hung<'a>(lane: &Lane<'a>, guest: Resource<'a>) -> Result<Play<'a>> {
    lane.lab.storage(&lane.here, Fault::Hold(Reach::Everything))?;
    let (lab, here) = (lane.lab, lane.here.clone());
    Ok(Play::new(guest).undo(move || drop(lab.storage(&here, Fault::None))))
}

pub fn renamed_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    rename(&guest)?;
    Ok(Play::new(guest))
}

pub fn renamed_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let mut guest = lane.absent(name)?;
    rename(&guest)?;
    guest.name = "another".to_owned();
    Ok(Play::new(guest))
}

/// The definition is another guest's from now on, UUID included.
fn rename(guest: &Resource) -> Result<()> {
    let uuid = uuid(&fs::read_to_string(guest.lab.guest_definition(&guest.instance))?);
    let old = format!("<name>{}<", guest.name);
    guest.edit(|text| text.replace(&old, "<name>another<").replace(&uuid, "00000000-1111-4222-8333-444444444444"))
}

fn uuid(text: &str) -> String {
    text.split_once("<uuid>").and_then(|(_, rest)| rest.split_once('<')).map(|(uuid, _)| uuid.to_owned()).unwrap_or_default()
}
