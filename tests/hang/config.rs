//! The definition, or a monitor script, lies on storage that hangs.

use crate::stage::{HERE, Resource, together};
use crate::storage::{Faulty, left_behind, nothing_stays};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::process::replace;
use lab::promised;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

/// What is said of it.
const NO_ANSWER: &str = "its storage does not answer";

/// A resource whose definition is on the storage that can hang; its disk is not.
fn resource<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    Ok(Resource::empty(lab, name)?.with("config", &format!("/srv/hang/{name}.xml")))
}

/// Every action has its answer in time, from the state file where there is one.
pub fn all_actions(lab: &Lab) -> Result<()> {
    let (runs, absent) = (resource(lab, "runs")?.with("force_stop", "true"), resource(lab, "absent")?);
    runs.begin(HERE)?;
    let held = Faulty::hold(lab, HERE)?;
    let level = [("OCF_CHECK_LEVEL", "10")];
    type Task<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;
    let mut calls: Vec<Task> = Vec::new();
    for action in ["recurring", "monitor", "status"] {
        let runs = &runs;
        calls.push(Box::new(move || runs.call(HERE, action, 10)?.is(0).map(drop)));
    }
    // No state file, no guest named like it, and no emulator that is not another resource's: that is proof.
    calls.push(Box::new(|| absent.call(HERE, "monitor", 10)?.is(7).map(drop)));
    calls.push(Box::new(|| absent.call(HERE, "start", 10)?.says(1, &["/srv/hang/absent.xml", NO_ANSWER]).map(drop)));
    calls.push(Box::new(|| absent.call(HERE, "recurring", 10)?.says(1, &["/srv/hang/absent.xml", NO_ANSWER]).map(drop)));
    calls.push(Box::new(|| absent.call(HERE, "migrate_from", 10)?.is(1).map(drop)));
    calls.push(Box::new(|| absent.call(HERE, "validate-all", 10)?.is(0).map(drop)));
    calls.push(Box::new(|| absent.call_with(HERE, "validate-all", 10, &level)?.says(1, &[NO_ANSWER]).map(drop)));
    calls.push(Box::new(|| absent.call(HERE, "reload-agent", 10)?.is(0).map(drop)));
    together(calls)?;
    absent.call(HERE, "stop", 10)?.is(0)?;
    absent.absent(HERE)?;
    runs.end(HERE, 20)?;
    // An emulator that nobody is known to have may be this one's, under a name that only the definition tells.
    let stranger = Resource::empty(lab, "stranger")?;
    lab.check(HERE, &["virsh", "create", "/srv/vms/stranger.xml"], crate::stage::SOON)?;
    absent.call(HERE, "monitor", 10)?.says(1, &["/srv/hang/absent.xml", NO_ANSWER])?;
    absent.call(HERE, "stop", 10)?.says(1, &["/srv/hang/absent.xml", NO_ANSWER])?;
    promised!(stranger.lives(HERE), "the stranger was ended");
    drop(held);
    nothing_stays(lab, HERE)?;
    absent.call(HERE, "monitor", 20)?.is(7)?;
    absent.begin(HERE)?;
    Ok(())
}

/// The storage answers again while a probe and a stop wait for it: they can tell then, and have not failed before.
pub fn answers_again(lab: &Lab) -> Result<()> {
    let (probed, stopped) = (resource(lab, "probed")?, resource(lab, "ended")?);
    let stranger = Resource::empty(lab, "stranger")?;
    lab.check(HERE, &["virsh", "create", "/srv/vms/stranger.xml"], crate::stage::SOON)?;
    let held = Faulty::hold(lab, HERE)?;
    thread::scope(|scope| -> Result<()> {
        let calls = [(&probed, "monitor", 7), (&stopped, "stop", 0)];
        let calls = calls.map(|(resource, action, code)| (scope.spawn(move || resource.call(HERE, action, 40)), action, code));
        thread::sleep(Duration::from_secs(15));
        let over = calls.iter().find(|(call, ..)| call.is_finished()).map(|(_, action, _)| *action);
        drop(held);
        for (call, _, code) in calls {
            call.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(code)?;
        }
        ensure!(over.is_none(), "{over:?} did not wait");
        Ok(())
    })?;
    promised!(stranger.lives(HERE), "the stranger was ended");
    nothing_stays(lab, HERE)
}

/// As [`answers_again`], for a start, which leaves time for what comes after it.
pub fn answers_a_start_again(lab: &Lab) -> Result<()> {
    let guest = resource(lab, "awaited")?.with("force_stop", "true");
    let held = Faulty::hold(lab, HERE)?;
    thread::scope(|scope| -> Result<()> {
        let call = scope.spawn(|| guest.call(HERE, "start", 40));
        thread::sleep(Duration::from_secs(15));
        let over = call.is_finished();
        drop(held);
        call.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0)?;
        ensure!(!over, "it did not wait");
        Ok(())
    })?;
    promised!(guest.lives(HERE), "it does not run");
    guest.end(HERE, 20)?;
    nothing_stays(lab, HERE)
}

/// However often a file is asked for, at most one process waits for it, and the answer is there in time.
pub fn stuck_readers(lab: &Lab) -> Result<()> {
    let absent = resource(lab, "asked")?;
    let held = Faulty::hold(lab, HERE)?;
    for round in 1..=4 {
        absent.call(HERE, "start", 8)?.says(1, &["/srv/hang/asked.xml", NO_ANSWER])?;
        absent.call(HERE, "monitor", 8)?.is(7)?;
        let left = left_behind(lab, HERE)?;
        ensure!(left == 1, "round {round}: {left} processes wait for one file");
    }
    drop(held);
    nothing_stays(lab, HERE)?;
    absent.begin(HERE)?;
    Ok(())
}

/// A monitor script on storage that hangs, and one that itself waits for such storage: each monitor fails in time, and however often it is
/// asked, at most one of each script waits.
pub fn stuck_scripts(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "checked")?.with("force_stop", "true");
    guest.begin(HERE)?;
    for name in ["there", "looks"] {
        let file = lab.layout().shared().join(name);
        replace(&file, "#!/bin/sh\ncat /srv/hang/checked.xml >/dev/null\n")?;
        fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    }
    for (script, program) in [("/srv/hang/there", "kvmha"), ("/srv/vms/looks", "cat")] {
        let guest = guest.with("monitor_scripts", script);
        guest.call(HERE, "recurring", 20)?.is(0)?;
        let held = Faulty::hold(lab, HERE)?;
        for round in 1..=3 {
            guest.call(HERE, "recurring", 5)?.says(1, &[script, "did not end in time"])?;
            let left = lab.processes(HERE, program)?.len();
            ensure!(left == 1, "round {round}: {left} processes of {script} wait");
        }
        drop(held);
        nothing_stays(lab, HERE)?;
        guest.call(HERE, "recurring", 20)?.is(0)?;
    }
    guest.end(HERE, 20)?;
    Ok(())
}
