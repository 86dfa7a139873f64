//! libvirt's daemon frozen, killed, restarted: every action ends in time, and a healthy guest is seen and left alone.

use crate::stage::{Frozen, HERE, Resource, THERE, gone, soon, together};
use anyhow::{Result, bail, ensure};
use lab::Lab;
use lab::promised;
use nix::sys::signal::Signal;
use std::thread;
use std::time::{Duration, Instant};

/// The timeouts under which everything is tried.
const TIMES: [u64; 2] = [10, 30];

const TARGET: (&str, &str) = ("OCF_RESKEY_CRM_meta_migrate_target", THERE);

/// All actions at once, while libvirt is out of order: each says the truth, in time.
fn all_actions(lab: &Lab, trouble: impl FnOnce() -> Result<()>) -> Result<()> {
    let runs = [Resource::new(lab, "runs10")?, Resource::deaf(lab, "runs30")?];
    let absent = [Resource::empty(lab, "absent10")?, Resource::empty(lab, "absent30")?];
    let boots = [runs[0].boot(HERE)?, runs[1].boot(HERE)?];
    trouble()?;
    type Task<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;
    let mut calls: Vec<Task> = Vec::new();
    for (index, seconds) in TIMES.into_iter().enumerate() {
        let (runs, absent) = (&runs[index], &absent[index]);
        for action in ["recurring", "monitor", "status"] {
            calls.push(Box::new(move || runs.call(HERE, action, seconds)?.is(0).map(drop)));
            calls.push(Box::new(move || absent.call(HERE, action, seconds)?.is(7).map(drop)));
        }
        calls.push(Box::new(move || {
            absent.call(HERE, "start", seconds)?.says(1, &[&absent.name, "libvirt"])?;
            absent.absent(HERE)
        }));
        calls.push(Box::new(move || {
            let runs = runs.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
            runs.call_with(HERE, "migrate_to", seconds, &[TARGET])?.says(1, &[&runs.name, "libvirt"]).map(drop)
        }));
        calls.push(Box::new(move || absent.call(HERE, "migrate_from", seconds)?.says(1, &[&absent.name]).map(drop)));
        calls.push(Box::new(move || {
            absent.call_with(HERE, "validate-all", seconds, &[("OCF_CHECK_LEVEL", "10")])?.says(1, &["libvirt"]).map(drop)
        }));
        calls.push(Box::new(move || absent.call(HERE, "validate-all", seconds)?.is(0).map(drop)));
    }
    together(calls)?;
    for (runs, boot) in runs.iter().zip(boots) {
        runs.beats(boot)?;
    }
    let mut stops: Vec<Task> = Vec::new();
    for (index, seconds) in TIMES.into_iter().enumerate() {
        let (runs, absent) = (&runs[index], &absent[index]);
        stops.push(Box::new(move || runs.end(HERE, seconds).map(drop)));
        // Its start has failed before libvirt heard of it: nothing is to be feared of it.
        stops.push(Box::new(move || absent.call(HERE, "stop", seconds)?.is(0).map(drop)));
    }
    together(stops)
}

/// The daemon is there and does not answer.
pub fn frozen(lab: &Lab) -> Result<()> {
    let mut thawing = None;
    all_actions(lab, || {
        thawing = Some(Frozen::libvirt(lab, HERE)?);
        Ok(())
    })
}

/// The daemon is not there.
pub fn killed(lab: &Lab) -> Result<()> {
    all_actions(lab, || lab.kill(HERE, "libvirtd"))
}

/// The daemon is restarted, again and again, as by an upgrade: monitor says 0 all the time.
pub fn restarted(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "steady")?;
    let boot = guest.boot(HERE)?;
    thread::scope(|scope| -> Result<()> {
        let restarts = scope.spawn(|| -> Result<()> {
            for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
                let daemons = lab.processes(HERE, "libvirtd")?;
                crate::stage::signal(&daemons, signal)?;
                soon("libvirtd is gone", || daemons.iter().all(|daemon| !daemon.alive()))?;
                thread::sleep(Duration::from_millis(500));
                lab.start(HERE, "libvirtd")?;
                thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        });
        let mut monitors = 0;
        while !restarts.is_finished() {
            guest.call(HERE, "recurring", 20)?.is(0)?;
            monitors += 1;
        }
        ensure!(monitors > 5, "only {monitors} monitors");
        restarts.join().unwrap_or_else(|_| bail!("panicked"))
    })?;
    guest.beats(boot)?;
    guest.end(HERE, 60)?;
    Ok(())
}

/// A start meets a daemon that is on its way up: it waits for it.
pub fn start_while_it_restarts(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "patient")?;
    lab.kill(HERE, "libvirtd")?;
    thread::scope(|scope| -> Result<()> {
        let start = scope.spawn(|| guest.call(HERE, "start", 60));
        thread::sleep(Duration::from_secs(2));
        lab.start(HERE, "libvirtd")?;
        start.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0)?;
        Ok(())
    })?;
    promised!(guest.lives(HERE), "start said 0, but nothing runs");
    guest.with("force_stop", "true").end(HERE, 30)?;
    Ok(())
}

/// The daemon freezes in the middle of a stop, after the request: with a guest that obeys, and with one that does not.
pub fn frozen_in_mid_stop(lab: &Lab) -> Result<()> {
    for (guest, seconds) in [(Resource::deaf(lab, "mid-deaf")?, 15), (Resource::new(lab, "mid-good")?, 15)] {
        guest.boot(HERE)?;
        let emulators = guest.emulators(HERE)?;
        thread::scope(|scope| -> Result<()> {
            let stop = scope.spawn(|| guest.call(HERE, "stop", seconds));
            let obeys = guest.instance == "mid-good";
            let asked = || obeys && guest.console(HERE).is_ok_and(|said| said.contains("power button"));
            let begin = Instant::now();
            while !asked() && begin.elapsed() < Duration::from_secs(2) {
                thread::sleep(Duration::from_millis(5));
            }
            let _frozen = Frozen::libvirt(lab, HERE)?;
            stop.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0)?;
            promised!(emulators.iter().all(|emulator| gone(*emulator)), "stop said 0, but the emulator is left");
            guest.absent(HERE)
        })?;
    }
    Ok(())
}
