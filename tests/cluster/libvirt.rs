//! A libvirt daemon that hangs or dies under healthy guests, a definition that is lost: no reason to take a guest's life, nor the node's power.

use anyhow::{Context, Result, ensure};
use lab::placed::{Guest, OPERATIONS};
use lab::promised;
use lab::scene::Stage;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Of the daemon, not of the guests. Six intervals of the monitor.
const OUTAGE: Duration = Duration::from_secs(60);
/// All on one node.
const GUESTS: [&str; 5] = ["vm1", "vm2", "vm3", "vm4", "vm5"];
/// So long after the end of the fault that the monitor has run again.
const AFTERWARDS: Duration = Duration::from_secs(12);

pub fn frozen(stage: &Stage) -> Result<String> {
    survives(stage, |node| stage.lab.freeze(node, "libvirtd"), |node| stage.lab.thaw(node, "libvirtd"))
}

pub fn killed(stage: &Stage) -> Result<String> {
    survives(stage, |node| stage.lab.kill(node, "libvirtd"), |node| stage.lab.start(node, "libvirtd"))
}

fn survives(stage: &Stage, fault: impl Fn(&str) -> Result<()>, mend: impl Fn(&str) -> Result<()>) -> Result<String> {
    const TOLD: &str = "libvirt cannot be asked";
    let first = Guest::placed(stage, GUESTS[0])?;
    let (node, mut guests) = (first.node()?, vec![first]);
    for name in &GUESTS[1..] {
        let guest = Guest::files(stage, name)?;
        guest.give("ocf:kvmha:VirtualDomain", "", OPERATIONS)?;
        // One that is moved while its kernel boots may hang under TCG.
        guest.runs(1)?;
        stage.check(&format!("pcs constraint location {name} prefers {node}"))?;
        guests.push(guest);
    }
    for guest in &guests {
        ensure!(guest.runs(1)? == node, "{} is not on {node}", guest.name);
    }
    let fences = stage.fences();
    let warned = || stage.log(&node).map(|log| log.matches(TOLD).count());
    let before = warned()?;
    fault(&node)?;
    let end = Instant::now() + OUTAGE;
    while Instant::now() < end {
        sleep(Duration::from_secs(2));
        stage.no_failures()?;
    }
    let warnings = warned()? - before;
    mend(&node)?;
    sleep(AFTERWARDS);
    stage.no_failures()?;
    // Otherwise nothing was tried.
    ensure!(warnings >= GUESTS.len(), "only {warnings} monitors have met the fault");
    promised!(stage.fences() == fences, "{node} was fenced");
    for guest in guests {
        ensure!(guest.runs(1)? == node, "{} is somewhere else", guest.name);
        guest.end(1)?;
    }
    Ok(format!("{warnings} monitors without libvirt, {} guests", GUESTS.len()))
}

/// The folder of the definitions is gone while the guest runs: monitor goes on, and a move does not run it twice, whatever becomes of it.
pub fn config_lost(stage: &Stage) -> Result<String> {
    let (guest, fences) = (Guest::placed(stage, "vm1")?, stage.fences());
    let (node, target) = (guest.node()?, guest.other_node()?);
    let file = stage.lab.guest_definition("vm1");
    let hidden = file.with_extension("away");
    fs::rename(&file, &hidden)?;
    // More than an interval of the monitor.
    sleep(AFTERWARDS);
    stage.no_failures()?;
    ensure!(guest.runs(1)? == node, "it is somewhere else");
    guest.request_move(&target)?;
    stage.settle()?;
    guest.goes_on()?;
    guest.boots(1)?;
    let now = guest.node()?;
    guest.is_on(&now)?;
    fs::rename(&hidden, &file)?;
    promised!(stage.fences() == fences, "a node was fenced");
    guest.clear()?;
    guest.end(1)?;
    Ok(if now == target { "it was moved".to_owned() } else { format!("it stayed on {now}") })
}

/// Stop without libvirt: the agent ends the emulator itself, and proves it gone.
pub fn stopped_frozen(stage: &Stage) -> Result<String> {
    let (guest, fences) = (Guest::placed(stage, "vm1")?, stage.fences());
    let node = guest.node()?;
    stage.lab.freeze(&node, "libvirtd")?;
    let begin = Instant::now();
    stage.check("pcs resource disable vm1")?;
    stage.wait(|seen| seen.resources.iter().any(|resource| resource.id == "vm1" && resource.role == "Stopped"))?;
    let time = begin.elapsed();
    guest.is_nowhere()?;
    stage.settle()?;
    stage.no_failures()?;
    promised!(stage.fences() == fences, "{node} was fenced");
    stage.lab.thaw(&node, "libvirtd")?;
    // It hears of the emulator's end only now, and must not think of anything else.
    sleep(Duration::from_secs(3));
    guest.is_nowhere()?;
    stage.check("pcs resource enable vm1")?;
    guest.runs(2)?;
    stage.no_failures()?;
    guest.end(2)?;
    Ok(format!("stopped after {:.1} s", time.as_secs_f64()))
}

/// A daemon that is still busy with the start of a guest, of which there is no emulator yet, when the agent's time is up. What nobody wants
/// any more must not come to life after stop has said that there is nothing: by then the guest runs elsewhere.
pub fn start_in_flight(stage: &Stage) -> Result<String> {
    const BUSY: Duration = Duration::from_secs(40);
    // libvirt runs this before it starts an emulator. The first start hangs, on whichever node it is.
    let hook = format!(
        "printf '#!/bin/sh\\nif [ \"$2\" = prepare ] && mkdir /srv/vms/first 2>/dev/null; then sleep {}; fi\\n' >/etc/libvirt/hooks/qemu",
        BUSY.as_secs()
    );
    let install = format!("mkdir -p /etc/libvirt/hooks && {hook} && chmod 755 /etc/libvirt/hooks/qemu");
    everywhere(stage, &install)?;
    let guest = Guest::files(stage, "vm1")?;
    let (begin, fences) = (Instant::now(), stage.fences());
    guest.give("ocf:kvmha:VirtualDomain", "", "op start timeout=15s op stop timeout=20s op monitor interval=10s timeout=30s")?;
    let node = stage.wait(|seen| seen.failures.iter().any(|failure| failure.operation == "vm1_start_0"))?;
    let node = node.failures.first().map(|failure| failure.node.clone()).context("no failure")?;
    ensure!(guest.watcher.wait(lab::scene::LIMIT, |watch| !watch.beats.is_empty()), "it is not started elsewhere");
    let now = guest.runs(1)?;
    let number = stage.lab.number(&node)?;
    let launches = || {
        let log = fs::read_to_string(stage.lab.layout().on_disk(number, "/var/log/libvirt/qemu/vm1.log")).unwrap_or_default();
        log.matches("starting up libvirt version").count()
    };
    let before = launches();
    while begin.elapsed() < BUSY + Duration::from_secs(15) {
        sleep(Duration::from_millis(200));
        let after = launches();
        // In the lab QEMU's lock on the image ends such a copy; most network disks have no such lock.
        promised!(now == node || after == before, "it runs on {now}, and libvirtd on {node} has launched an emulator of it");
    }
    guest.is_on(&now)?;
    guest.end(1)?;
    fs::remove_dir(stage.lab.layout().shared().join("first"))?;
    stage.all_online()?;
    everywhere(stage, "rm /etc/libvirt/hooks/qemu")?;
    // Fencing is right when stop cannot prove anything.
    Ok(format!("the start hung on {node}, which was fenced {} times, runs on {now}", stage.fences() - fences))
}

/// Changes the configuration of libvirt on all nodes; the daemons look for hooks when they start.
fn everywhere(stage: &Stage, script: &str) -> Result<()> {
    for node in stage.lab.node_names() {
        stage.lab.check(&node, &["sh", "-c", script], Duration::from_secs(20))?;
        stage.lab.restart(&node, "libvirtd")?;
    }
    Ok(())
}
