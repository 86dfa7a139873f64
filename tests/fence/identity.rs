//! Which guest is meant, and where: the false answers of `fence_virsh` and `fence_virt`.

use crate::stage::{Guest, SOON, Says};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use std::fs;

/// A name that nobody knows is a mistake, unless the operator says that it is "off".
pub fn absent(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "nobody")?;
    for action in ["status", "off", "reboot", "on"] {
        guest.fence(action, &[])?.fails(&["nobody"])?;
    }
    guest.fence("off", &[("missing_as_off", "1")])?.says(0, "Success: Already OFF\n")?;
    guest.fence("status", &[("missing_as_off", "yes")])?.says(2, "Status: OFF\n")?;
    // Off is what counts; on cannot be.
    let output = guest.fence("reboot", &[("missing_as_off", "1")])?;
    output.says(0, "Success: Rebooted\n").map(drop)
}

/// libvirt's names have case, and a guest that runs is not off because the plug was written in other letters.
pub fn other_letters(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "letters")?;
    guest.run("node2")?;
    let wrong = [("plug", "Letters"), ("missing_as_off", "1")];
    for action in ["off", "status"] {
        guest.fence(action, &wrong)?.fails(&["Letters", "node2", "letters"])?;
    }
    guest.lives("node2")?;
    // A guest of its own that has such a name is known by its UUID.
    guest.fence("off", &[wrong.as_slice(), &[("uuid_map", &format!("Letters:{OTHER}"))]].concat())?.says(0, "Success: Already OFF\n")?;
    guest.lives("node2")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n").map(drop)
}

/// `missing_as_off=false` does not switch it on, as it does with fence_virsh 4.12.
pub fn missing_as_off_is_read_by_its_value(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "nobody")?;
    for word in ["false", "0", "No", "off"] {
        guest.fence("off", &[("missing_as_off", word)])?.fails(&["no host knows"])?;
    }
    Ok(())
}

const OTHER: &str = "11111111-2222-4333-8444-555555555555";

/// A guest's definition, and the UUID in it.
fn definition(lab: &Lab, name: &str) -> Result<(String, String)> {
    let text = fs::read_to_string(lab.guest_definition(name))?;
    let uuid = text.split("<uuid>").nth(1).and_then(|rest| rest.split('<').next()).context("no UUID")?.to_owned();
    Ok((text, uuid))
}

/// Defines another guest of the same name on a node.
fn double(lab: &Lab, guest: &Guest<'_>, node: &str) -> Result<String> {
    let (text, uuid) = definition(lab, guest.name)?;
    fs::write(lab.guest_definition("double"), text.replace(&uuid, OTHER))?;
    lab.check(node, &["virsh", "-q", "define", "/srv/vms/double.xml"], SOON)?;
    Ok(uuid)
}

/// Two guests of one name: neither is touched by its name, each can be named by its UUID.
pub fn same_name_two_guests(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "twin")?;
    guest.run("node1")?;
    let uuid = double(lab, &guest, "node2")?;
    for action in ["status", "off", "reboot", "on"] {
        guest.fence(action, &[])?.fails(&[OTHER, &uuid])?;
    }
    guest.lives("node1")?;
    guest.fence("status", &[("plug", OTHER)])?.says(2, "Status: OFF\n")?;
    guest.fence("off", &[("plug", &uuid.to_uppercase())])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// A guest whose name reads as a UUID: by its name it is neither off nor ended, by its UUID it is.
pub fn name_that_reads_as_a_uuid(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, OTHER)?;
    guest.run("node2")?;
    let uuid = guest.virsh("node2", &["domuuid"])?.trim().to_owned();
    for (action, missing) in [("off", "1"), ("off", "0"), ("status", "1"), ("on", "1")] {
        guest.fence(action, &[("missing_as_off", missing)])?.fails(&[OTHER, &uuid, "is read as a UUID"])?;
    }
    guest.lives("node2")?;
    guest.fence("off", &[("plug", &uuid)])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// A copied definition: another guest on another host, with the UUID of this one. It is not ended in the place of this one, which is not off
/// as long as it may be this one under another name.
pub fn same_uuid_two_guests(lab: &Lab) -> Result<()> {
    let (guest, other) = (Guest::new(lab, "model")?, Guest::new(lab, "copied")?);
    let (text, own) = definition(lab, other.name)?;
    let (_, uuid) = definition(lab, guest.name)?;
    fs::write(lab.guest_definition(other.name), text.replace(&own, &uuid))?;
    guest.run("node1")?;
    other.run("node2")?;
    for _ in 0..2 {
        guest.fence("off", &[("missing_as_off", "1"), ("uuid_map", &format!("model:{uuid}"))])?.fails(&["model", "node2", "copied"])?;
    }
    guest.fence("off", &[])?.fails(&["model", "node2", "copied"])?;
    other.lives("node2")?;
    // A copy that only lies there is in nobody's way: the node would be ended and stay unfenced for Pacemaker.
    other.virsh("node2", &["destroy"])?;
    other.define("node2")?;
    guest.run("node1")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// A pinned UUID: another guest of that name is refused, also where the pinned one is nowhere.
pub fn pinned(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "pinned")?;
    guest.run("node1")?;
    let wrong = format!("pinned:{OTHER}");
    let output = guest.fence("off", &[("uuid_map", &wrong), ("missing_as_off", "1")])?.fails(&["pinned", OTHER, "correct uuid_map"])?;
    ensure!(!output.stderr.contains("pin it"), "it is pinned: {output:?}");
    guest.lives("node1")?;
    let right = format!("other:{OTHER};pinned:{}", guest.virsh("node1", &["domuuid"])?.trim());
    guest.fence("off", &[("uuid_map", &right)])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// Defined and off on one host, running on another: not "already off", as the nearest host alone would say.
pub fn elsewhere_than_defined(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "moved")?;
    guest.define("node1")?;
    guest.define("node3")?;
    guest.run("node2")?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    guest.fence("on", &[])?.says(0, "Success: Powered ON\n")?;
    guest.lives("node1")
}
