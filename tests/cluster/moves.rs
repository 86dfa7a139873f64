//! Live migrations: those that work, and those that do not.

use anyhow::{Context, Result, ensure};
use lab::placed::{Guest, until};
use lab::process::{arguments, wait_until};
use lab::promised;
use lab::scene::{LIMIT, Stage};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const MOVES: usize = 20;

/// Twenty moves back and forth: one boot, every beat on the disk.
pub fn twenty(stage: &Stage) -> Result<String> {
    let guest = Guest::placed(stage, "vm1")?;
    let nodes = [guest.other_node()?, guest.node()?];
    let mut moves = Vec::new();
    for node in nodes.iter().cycle().take(MOVES) {
        moves.push(guest.move_to(node)?);
        stage.settle()?;
        guest.goes_on()?;
        guest.is_on(node)?;
        stage.no_failures()?;
    }
    let watch = guest.end(1)?;
    let total = moves.iter().map(|(begin, end)| (*end - *begin).as_secs_f64()).collect();
    let pause = moves.iter().map(|(begin, end)| watch.pause_between(*begin, *end)).collect();
    let (total, pause) = (median_and_worst(total), median_and_worst(pause));
    Ok(format!(
        "request to shown: median {:.2} s, worst {:.2} s; pause: median {:.0} ms, worst {:.0} ms",
        total.0, total.1, pause.0, pause.1
    ))
}

fn median_and_worst(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
}

/// A node that is to have no resources gives the guest away without a restart.
pub fn standby(stage: &Stage) -> Result<String> {
    let guest = Guest::placed(stage, "vm1")?;
    let node = guest.node()?;
    stage.check(&format!("pcs node standby {node}"))?;
    leaves(&guest, &node)?;
    stage.check(&format!("pcs node unstandby {node}"))?;
    stage.settle()?;
    stage.no_failures()?;
    guest.end(1)?;
    Ok(String::new())
}

/// Pacemaker on the node is asked to end, as a service manager does at shutdown.
pub fn shutdown(stage: &Stage) -> Result<String> {
    let (guest, fences) = (Guest::placed(stage, "vm1")?, stage.fences());
    let node = guest.node()?;
    let daemons = stage.lab.processes(&node, "pacemakerd")?;
    ensure!(daemons.iter().all(|daemon| daemon.signal(Signal::SIGTERM)) && daemons.len() == 1, "pacemakerd of {node}: {daemons:?}");
    until("pacemakerd ends", || !daemons.iter().any(lab::process::Identity::alive))?;
    leaves(&guest, &node)?;
    stage.lab.start(&node, "pacemakerd")?;
    stage.all_online()?;
    stage.no_failures()?;
    promised!(stage.fences() == fences, "a node was fenced");
    guest.end(1)?;
    Ok(String::new())
}

/// The guest gets off the node in its one boot.
fn leaves(guest: &Guest<'_>, node: &str) -> Result<()> {
    guest.stage.wait(|seen| seen.runs_on(guest.name).is_some_and(|now| now != node)).context("it stays")?;
    let now = guest.runs(1)?;
    ensure!(now != node, "it is on {node} again");
    Ok(())
}

/// Nobody answers at the target's libvirt port.
pub fn target_dead(stage: &Stage) -> Result<String> {
    fails(stage, |target| stage.lab.kill(target, "libvirtd"), |target| stage.lab.start(target, "libvirtd"))
}

/// The target's libvirtd takes the connection and says nothing.
pub fn target_frozen(stage: &Stage) -> Result<String> {
    fails(stage, |target| stage.lab.freeze(target, "libvirtd"), |target| stage.lab.thaw(target, "libvirtd"))
}

/// Timeouts that do not make the suite wait for what is bound to fail.
const SHORT: &str =
    "op start timeout=30s op stop timeout=40s op monitor interval=10s timeout=30s op migrate_to timeout=30s op migrate_from timeout=30s";

/// A move that cannot work: the agent says so in time, and that the guest still runs. Then Pacemaker stops it and starts it, by default
/// (`migrate_to` has no code for "not moved, but well").
fn fails(stage: &Stage, fault: impl Fn(&str) -> Result<()>, mend: impl Fn(&str) -> Result<()>) -> Result<String> {
    let (guest, fences) = (Guest::placed_with(stage, "vm1", "", SHORT)?, stage.fences());
    let (source, target) = (guest.node()?, guest.other_node()?);
    fault(&target)?;
    let begin = Instant::now();
    guest.request_move(&target)?;
    stage.failure(guest.name, "migrate_to_0")?;
    let told = begin.elapsed().as_secs_f64();
    // Pacemaker does not keep the exit reason of a migrate_to in the CIB (2.1.5); the log has it.
    let log = stage.log(&source)?;
    let said = format!("VirtualDomain({})", guest.name);
    let reason = log.lines().rev().find_map(|line| line.split_once(&said)?.1.split_once("ERROR: ")).map_or("", |(_, reason)| reason);
    guest.boots_anew(begin)?;
    let node = guest.runs(2)?;
    let gap = guest.watcher.snapshot().worst_gap().map_or(0.0, |gap| gap.wall_ms / 1e3);
    mend(&target)?;
    // What was asked of its daemon meanwhile, and nobody wants any more, must not come to life now.
    std::thread::sleep(Duration::from_secs(3));
    guest.is_on(&node)?;
    guest.clear()?;
    guest.end(2)?;
    promised!(stage.fences() == fences, "a node was fenced; the reason of migrate_to was: {reason}");
    ensure!(reason.contains("not moved to") && reason.contains(&target), "migrate_to gave no reason of its own: {reason:?}");
    ensure!(reason.contains("still runs"), "the reason does not say that the guest still runs: {reason}");
    Ok(format!("failed after {told:.1} s; then {gap:.1} s without the guest, and it runs on {node} (source {source}, target {target})"))
}

/// Nobody is left who could call the move off, and Pacemaker takes it for failed while it goes on.
pub fn agent_killed(stage: &Stage) -> Result<String> {
    // Slow enough to be met in the middle.
    let guest = Guest::placed_with(stage, "vm1", "migration_speed=2", lab::placed::OPERATIONS)?;
    let (node, target, fences) = (guest.node()?, guest.other_node()?, stage.fences());
    guest.request_move(&target)?;
    let mut killed = None;
    wait_until(LIMIT, Duration::from_millis(5), || {
        let agents = stage.lab.processes(&node, "kvmha").unwrap_or_default();
        let mover = agents.into_iter().find(|agent| arguments(agent.pid).iter().any(|word| word == "migrate_to"));
        // Under way: the target's emulator is there.
        let coming = stage.lab.processes(&target, "guest:vm1").is_ok_and(|found| !found.is_empty());
        if let Some(mover) = mover.filter(|_| coming) {
            std::thread::sleep(Duration::from_millis(500));
            killed = Some(mover.signal(Signal::SIGKILL));
        }
        killed.is_some()
    });
    ensure!(killed == Some(true), "migrate_to was not met in the middle: {killed:?}");
    let begin = Instant::now();
    stage.failure("vm1", "migrate_to_0")?;
    stage.settle()?;
    // Moved after all or started anew: both are right, as long as it is one guest. If it boots it takes some seconds to say so.
    ensure!(guest.watcher.wait_beat(LIMIT), "it does not write to its disk any more");
    let boots = guest.watcher.snapshot().boots().len();
    let now = guest.runs(boots)?;
    promised!(boots <= 2, "it was started {boots} times");
    promised!(stage.fences() == fences, "a node was fenced");
    let note = format!("{:.1} s later it runs on {now} in boot {boots} (target {target})", begin.elapsed().as_secs_f64());
    guest.clear()?;
    guest.end(boots)?;
    Ok(note)
}

/// Where it could be moved to is an attribute of each node, and follows what becomes of the node.
pub fn outlook(stage: &Stage) -> Result<String> {
    let operations = "op start timeout=90s op stop timeout=90s op monitor interval=3s timeout=30s";
    let guest = Guest::placed_with(stage, "vm1", "migration_check_interval=3", operations)?;
    let (home, other) = (guest.node()?, guest.other_node()?);
    let value = |node: &str| -> Result<String> {
        let said = stage.check(&format!("attrd_updater --query --name kvmha-check-vm1 --node {node}"))?;
        Ok(said.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned())
    };
    let all = |wanted: &str| {
        let is = |node: &str, wanted: &str| value(node).is_ok_and(|word| word == wanted);
        until(&format!("{other} has {wanted}, and {home} ok"), || is(&other, wanted) && is(&home, "ok"))
    };
    all("ok")?;
    // What would keep it from being moved there is what migrate_to would say.
    stage.lab.kill(&other, "libvirtd")?;
    all("refuse")?;
    ensure!(stage.log(&home)?.contains(&format!("vm1 could not be moved to {other}: target: connection to")), "the log has no reason");
    stage.lab.start(&other, "libvirtd")?;
    all("ok")?;
    // A constraint can use it, and it keeps nobody from going where it says ok.
    stage.check("pcs constraint location vm1 rule score=50 kvmha-check-vm1 eq ok")?;
    guest.move_to(&other)?;
    guest.runs(1)?;
    until("the new home has ok", || value(&other).is_ok_and(|word| word == "ok"))?;
    stage.no_failures()?;
    guest.clear()?;
    guest.end(1)?;
    Ok(String::new())
}
