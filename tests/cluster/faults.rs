//! Nodes that are lost, and a guest that ends by itself.

use anyhow::{Context, Result, ensure};
use lab::layout::Network;
use lab::placed::{Guest, OPERATIONS, until};
use lab::promised;
use lab::scene::{LIMIT, Stage};
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

/// A node is fenced, starts again without the cluster's daemons, and there somebody, or libvirt, starts the guest: nobody else starts it. A node
/// that has been up all the time, as one that a switch has cut off, keeps nobody from taking over: then it is QEMU's lock that does.
///
/// All nodes share this machine's `/proc/stat`; one that was just started has a file of its own there.
pub fn started_again(stage: &Stage) -> Result<String> {
    // A start waits for a lock as long as it can.
    let operations = OPERATIONS.replace("start timeout=90s", "start timeout=30s");
    let (guest, lab) = (Guest::placed_with(stage, "vm1", "", &operations)?, &stage.lab);
    let node = guest.node()?;
    stage.check("pcs resource disable vm1")?;
    stage.wait(|seen| seen.runs_on("vm1").is_none())?;
    stage.settle()?;
    let speaker = lab.node_names().into_iter().find(|other| *other != node).context("there is no other node")?;
    let on = |node: &str, script: &str| lab.check(node, &["sh", "-ec", script], LIMIT);
    on(&speaker, &format!("stonith_admin --fence {node}"))?;
    // The daemons of the cluster begin with the node, and must not join.
    lab.cut(&node, Network::Cluster)?;
    lab.power_on(&node)?;
    until("Pacemaker runs, and is killed", || lab.kill(&node, "pacemakerd").is_ok())?;
    lab.kill(&node, "corosync")?;
    lab.heal(&node, Network::Cluster)?;
    lab.wait_libvirt(&node)?;
    on(&node, "virsh -q create /srv/vms/vm1.xml")?;
    guest.boots_anew(Instant::now())?;

    on(&node, "printf 'cpu  1 0 1 500 0 0 0 0 0 0\ncpu0 1 0 1 500 0 0 0 0 0 0\n' >/run/stat; mount --bind /run/stat /proc/stat")?;
    let refused = format!("vm1 is on {node}, running");
    let start = || {
        stage.check("pcs resource enable vm1")?;
        let reason = stage.failure("vm1", "start_0")?;
        promised!(guest.is_on(&node).is_ok(), "it is not on {node} alone");
        stage.settle()?;
        stage.check("pcs resource disable vm1")?;
        stage.check("crm_resource --cleanup --resource vm1")?;
        stage.settle()?;
        Ok(reason)
    };
    // A node that has left is asked for a second only, in which a busy machine may not answer.
    let mut reasons = Vec::new();
    while !reasons.last().is_some_and(|reason: &String| reason.contains(&refused)) {
        ensure!(reasons.len() < 4, "{node} does not count, which was started again: {reasons:?}");
        reasons.push(start()?);
    }
    on(&node, "umount /proc/stat")?;
    let reason = start()?;
    ensure!(!reason.contains(&refused), "{node} counts, which has been up all the time: {reason}");
    guest.goes_on()?;
    on(&node, "virsh -q destroy vm1")?;
    lab.power_off(&node)?;
    lab.power_on(&node)?;
    stage.all_online()?;
    stage.check("pcs resource enable vm1")?;
    guest.runs(3)?;
    guest.end(3)?;
    Ok(String::new())
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
