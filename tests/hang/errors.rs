//! Storage that fails: what the guest's error policy makes of it, and what is said then.

use crate::stage::{HERE, Resource, soon};
use crate::storage::{self, Faulty};
use anyhow::{Result, ensure};
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use std::time::Duration;

/// `EIO`.
const FAILED: StorageFault = StorageFault::Error(Reach::Writes, 5);

fn guest<'a>(lab: &'a Lab, name: &str, policy: &str) -> Result<Resource<'a>> {
    let guest = storage::guest(lab, name)?;
    guest.edit(|text| text.replace("cache='none'", &format!("cache='none' error_policy='{policy}'")))?;
    Ok(guest)
}

/// The guest is stopped when a write fails, and stays so when the storage is back: `pause_policy` says what monitor makes of it.
pub fn stop(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "halts", "stop")?;
    let boot = guest.boot(HERE)?;
    let failed = Faulty::begin(lab, HERE, FAILED)?;
    soon("the guest is paused", || guest.virsh(HERE, "domstate", &["--reason"]).is_ok_and(|state| state == "paused (I/O error)"))?;
    let said = ["halts is paused (I/O error)"];
    for round in ["failing", "back"] {
        guest.call(HERE, "recurring", 20)?.says(190, &said)?;
        guest.with("pause_policy", "degraded").call(HERE, "recurring", 20)?.says(190, &said)?;
        guest.with("pause_policy", "fail").call(HERE, "recurring", 20)?.says(1, &said)?;
        guest.with("pause_policy", "ignore").call(HERE, "recurring", 20)?.is(0)?;
        // A wrong word is no reason to call the guest failed.
        guest.with("pause_policy", "panic").call(HERE, "recurring", 20)?.says(190, &said)?;
        for policy in ["degraded", "fail", "ignore"] {
            guest.with("pause_policy", policy).call(HERE, "monitor", 20)?.is(0)?;
            guest.with("pause_policy", policy).call(HERE, "status", 20)?.is(0)?;
        }
        guest.call(HERE, "start", 20)?.is(0)?;
        if round == "failing" {
            lab.storage(HERE, StorageFault::None)?;
        }
    }
    guest.virsh(HERE, "resume", &[])?;
    guest.beats(boot)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    lab.storage(HERE, FAILED)?;
    soon("the guest is paused again", || guest.virsh(HERE, "domstate", &[]).is_ok_and(|state| state == "paused"))?;
    guest.end(HERE, 120)?.at_once(Duration::from_secs(60))?;
    drop(failed);
    Ok(())
}

/// The guest is told of the error and runs on: it is there, and what it makes of it is its own affair.
pub fn report(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "told", "report")?;
    let boot = guest.boot(HERE)?;
    let failed = Faulty::begin(lab, HERE, FAILED)?;
    let before = guest.ring()?.newest.sequence;
    // It says once a second how many of its writes have failed.
    let counts = || {
        guest.console(HERE).is_ok_and(|said| said.lines().rev().any(|line| line.contains(" errors ") && !line.trim_end().ends_with(" 0")))
    };
    soon("the guest sees errors", counts)?;
    for action in ["recurring", "monitor", "status"] {
        guest.call(HERE, action, 20)?.is(0)?;
    }
    ensure!(guest.ring()?.newest.sequence <= before + 1, "the storage does not fail");
    drop(failed);
    guest.beats(boot)?;
    ensure!(guest.ring()?.newest.errors > 0, "the guest has seen no error");
    guest.end(HERE, 60)?;
    Ok(())
}
