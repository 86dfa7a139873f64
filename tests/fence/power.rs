//! Off and on of guests in all their states.

use crate::stage::{FROM, Guest, PATIENCE, SOON, Says, Way, fence};
use anyhow::{Result, ensure};
use lab::Lab;
use std::thread;
use std::time::Duration;

/// A transient guest comes back: by reboot, and by an `on` after an `off`.
pub fn transient(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "transient")?;
    let first = guest.run("node1")?;
    guest.fence("reboot", &[])?.says(0, "Success: Rebooted\n")?;
    let second = guest.booted(Some(first))?;
    guest.lives("node1")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    // It is known here now, so that it is no wrong name.
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n")?;
    guest.fence("status", &[])?.says(2, "Status: OFF\n")?;
    let modes = lab.check(FROM, &["sh", "-c", "stat -c %a /run/kvmha/fence /run/kvmha/fence/*"], SOON)?;
    ensure!(modes == "700\n600\n", "others can read what was kept: {modes}");
    guest.fence("on", &[])?.says(0, "Success: Powered ON\n")?;
    guest.booted(Some(second))?;
    guest.lives("node1")
}

/// A persistent guest is started where it is defined; autostart does not bring it back.
pub fn persistent(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "persistent")?;
    guest.define("node2")?;
    guest.virsh("node2", &["autostart"])?;
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n")?;
    guest.fence("on", &[])?.says(0, "Success: Powered ON\n")?;
    guest.booted(None)?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    guest.fence("reboot", &[("method", "cycle")])?.says(0, "Success: Rebooted\n")?;
    guest.lives("node2")
}

/// Several plugs: off when all are, on when any is.
pub fn several(lab: &Lab) -> Result<()> {
    let (one, two) = (Guest::new(lab, "one")?, Guest::new(lab, "two")?);
    one.run("node1")?;
    two.run("node2")?;
    let call = |action| fence(lab, Way::Lines, &[("action", action), ("plug", "one,two")]);
    call("off")?.says(0, "Success: Powered OFF\n")?;
    one.is_off()?;
    two.is_off()?;
    call("status")?.says(2, "Status: OFF\n")?;
    one.run("node2")?;
    call("status")?.says(0, "Status: ON\n")?;
    fence(lab, Way::Lines, &[("action", "off"), ("plug", "one,nobody")])?.fails(&["nobody"])?;
    one.is_off()
}

/// A paused guest is on.
pub fn paused(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "paused")?;
    guest.run("node1")?;
    guest.virsh("node1", &["suspend"])?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// An emulator that does not answer (SIGSTOP) is ended by libvirt after its 10 s of patience.
pub fn emulator_stopped(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "stopped")?;
    guest.run("node1")?;
    lab.freeze("node1", "guest:stopped")?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// One that was asked to shut down and does not is on, and is not asked by the agent.
pub fn guest_that_does_not_listen(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "deaf")?;
    guest.run("node2")?;
    guest.virsh("node2", &["shutdown"])?;
    thread::sleep(Duration::from_millis(500));
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    guest.fence("off", &[])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// `power_wait` is waited, and the guest is off all the while.
pub fn waits(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "waits")?;
    guest.run("node1")?;
    let output = guest.fence("off", &[("power_wait", "2")])?.says(0, "Success: Powered OFF\n")?;
    ensure!(output.time >= Duration::from_secs(2) && output.time < PATIENCE, "{output:?}");
    guest.is_off()
}
