//! Nodes that are lost, and a guest that ends by itself.

use anyhow::{Result, ensure};
use lab::layout::Network;
use lab::placed::Guest;
use lab::promised;
use lab::scene::Stage;
use std::time::{Duration, Instant};

/// The node under the guest loses its power.
pub fn power(stage: &Stage) -> Result<String> {
    lost(stage, |node| stage.lab.power_off(node), |_| Ok(()))
}

/// The node under the guest cannot be reached any more, while the guest on it runs and writes on until the node is fenced.
pub fn network(stage: &Stage) -> Result<String> {
    lost(stage, |node| stage.lab.cut(node, Network::Cluster), |node| stage.lab.heal(node, Network::Cluster))
}

fn lost(stage: &Stage, fault: impl Fn(&str) -> Result<()>, mend: impl Fn(&str) -> Result<()>) -> Result<String> {
    let (guest, fences) = (Guest::placed(stage, "vm1")?, stage.fences());
    let node = guest.node()?;
    let before = stage.lab.node_process(stage.lab.number(&node)?);
    let begin = Instant::now();
    fault(&node)?;
    let time = guest.boots_anew(begin)?;
    promised!(stage.fences() > fences, "{node} was not fenced before the guest was started again");
    let after = stage.lab.node_process(stage.lab.number(&node)?);
    ensure!(before != after, "{node} was never off");
    mend(&node)?;
    stage.all_online()?;
    let now = guest.runs(2)?;
    ensure!(now != node, "it is on {node} again");
    promised!(stage.fences() == fences + 1, "fenced {} times", stage.fences() - fences);
    guest.end(2)?;
    Ok(format!("{:.1} s from the fault to the first beat of the new boot", time.as_secs_f64()))
}

/// Somebody shuts the guest down behind Pacemaker's back.
pub fn guest_ends(stage: &Stage) -> Result<String> {
    let (guest, fences) = (Guest::placed(stage, "vm1")?, stage.fences());
    let node = guest.node()?;
    let begin = Instant::now();
    stage.lab.check(&node, &["virsh", "-q", "-c", "qemu:///system", "shutdown", "vm1"], Duration::from_secs(20))?;
    let time = guest.boots_anew(begin)?;
    guest.runs(2)?;
    let reason = stage.failure("vm1", "monitor_10000")?;
    ensure!(reason.contains("code 7"), "monitor should have said that it does not run: {reason}");
    promised!(stage.fences() == fences, "a node was fenced");
    guest.end(2)?;
    Ok(format!("{:.1} s from the request to the first beat of the new boot (monitor interval 10 s)", time.as_secs_f64()))
}
