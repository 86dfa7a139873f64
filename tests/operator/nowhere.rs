//! A guest that has failed and runs nowhere, which Pacemaker leaves alone: what `kvmha doctor` advises has it started again.

use crate::seen::{json, kvmha, says};
use anyhow::{Context, Result, ensure};
use lab::guest::on_hanging;
use lab::placed::{Guest, OPERATIONS, until};
use lab::process::wait_until;
use lab::promised;
use lab::scene::{LIMIT, Stage};
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use std::fs;
use std::time::{Duration, Instant};

/// For so long no beat may have come, and a write is on its way then.
const QUIET: Duration = Duration::from_secs(2);

/// What the doctor says about its failures, as a person reads it.
fn advised(lab: &Lab, node: &str) -> Result<String> {
    let answer = json(lab, node, "doctor --json")?;
    let of_it = |finding: &&serde_json::Value| finding["check"] == "failures";
    let finding = answer["findings"].as_array().and_then(|all| all.iter().find(of_it)).context("the doctor finds no failure")?;
    Ok(finding["remedy"].as_str().unwrap_or_default().to_owned())
}

/// The doctor's remedy, which names the node where it is to be carried out if that matters; the guest then runs for the second time.
fn follow(lab: &Lab, guest: &Guest, node: &str) -> Result<()> {
    let remedy = advised(lab, node)?;
    ensure!(remedy.starts_with("kvmha where vm1, then kvmha repair vm1 --yes"), "{remedy}");
    let node = remedy.split_once("--yes, on ").map_or(node, |(_, named)| named);
    says(&kvmha(lab, node, "where vm1")?, 1, &["vm1 was found nowhere"])?;
    let said = ["have Pacemaker forget the failure of vm1", "runs nowhere", "starts it on", "--yes"];
    says(&kvmha(lab, node, "repair vm1")?, 1, &said)?;
    guest.is_nowhere()?;
    says(&kvmha(lab, node, "repair vm1 --yes")?, 0, &["done: have Pacemaker forget the failure of vm1"])?;
    guest.runs(2)?;
    guest.stage.no_failures()?;
    says(&kvmha(lab, &guest.node()?, "repair vm1 --yes")?, 0, &["nothing to repair"])
}

/// A stop that failed, for the storage hung, and is blocked: nothing while the emulator lives or a node is silent. The guest has come by a move.
pub fn after_a_stop_that_failed(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::files(&stage, "vm1")?;
    lab.guest_edit("vm1", on_hanging)?;
    let operations = OPERATIONS.replace("op stop timeout=90s", "op stop timeout=25s on-fail=block");
    guest.give("ocf:kvmha:VirtualDomain", "", &operations)?;
    guest.runs(1)?;
    guest.move_to(&guest.other_node()?)?;
    stage.settle()?;
    guest.clear()?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    lab.storage(&node, StorageFault::Hold(Reach::Everything))?;
    let hung = (|| {
        let beats = || guest.watcher.snapshot().beats.len();
        let mut quiet = (beats(), Instant::now());
        until("it does not write any more", || {
            if beats() != quiet.0 {
                quiet = (beats(), Instant::now());
            }
            quiet.1.elapsed() > QUIET
        })?;
        stage.check("pcs resource disable vm1")?;
        let reason = stage.failure("vm1", "stop_0")?;
        ensure!(reason.contains("uninterruptible"), "{reason}");
        stage.check("pcs resource enable vm1")?;
        stage.settle()?;
        for any in [&node, &other] {
            let said = kvmha(lab, any, "repair vm1 --yes")?;
            ensure!(!said.stdout.contains("have Pacemaker forget"), "its emulator lives: {said:?}");
            says(&said, 1, &["by hand: ", &node])?;
        }
        // Its libvirt forgets it, and lists nothing any more.
        lab.kill(&node, "libvirtd")?;
        fs::remove_file(lab.path_in(&node, "/run/libvirt/qemu/vm1.xml")?)?;
        lab.start(&node, "libvirtd")?;
        lab.wait_libvirt(&node)?;
        let said = kvmha(lab, &other, "where vm1")?;
        promised!(said.code != Some(1), "it lives, and is said to be nowhere: {said:?}");
        says(&said, 2, &[&format!("vm1 was found nowhere; whether it is on {node} can only be told there")])?;
        says(&kvmha(lab, &other, "repair vm1 --yes")?, 1, &[&format!("by hand: run kvmha repair vm1 on {node}")])?;
        says(&kvmha(lab, &node, "where vm1")?, 0, &[&format!("vm1 is on {node}")])
    })();
    lab.storage(&node, StorageFault::None)?;
    hung?;
    let ended = || lab.processes(&node, "guest:vm1").is_ok_and(|left| left.is_empty());
    ensure!(wait_until(LIMIT, Duration::from_millis(50), ended), "its emulator does not end");
    says(&kvmha(lab, &other, "doctor --quiet")?, 1, &["vm1 is blocked"])?;
    // A node that says nothing may have it.
    lab.kill(&other, "libvirtd")?;
    let unsure = kvmha(lab, &node, "repair vm1 --yes");
    lab.start(&other, "libvirtd")?;
    lab.wait_libvirt(&other)?;
    let unsure = unsure?;
    says(&unsure, 1, &[&format!("by hand: {other} cannot be asked")])?;
    promised!(!unsure.stdout.contains("have Pacemaker forget"), "a node was not asked: {unsure:?}");
    let probes = || Ok::<_, anyhow::Error>(stage.log(&node)?.matches("Result of probe operation for vm1").count());
    let before = probes()?;
    follow(lab, &guest, &other)?;
    ensure!(probes()? > before, "the agent was not asked whether it lives where its stop failed");
    promised!(stage.fences() == 0, "a node was fenced");
    guest.end(2).map(drop)
}

/// Starts that failed on every node, for its disk was away.
pub fn after_starts_that_failed(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let nodes = lab.node_names();
    stage.check("pcs resource disable vm1")?;
    stage.settle()?;
    let (image, away) = (lab.guest_image("vm1"), lab.guest_image("vm1").with_extension("away"));
    fs::rename(&image, &away)?;
    stage.check("pcs resource enable vm1")?;
    let failed = stage.wait(|seen| seen.failures.iter().filter(|failure| failure.operation == "vm1_start_0").count() == nodes.len());
    fs::rename(&away, &image)?;
    failed.context("it is not tried on every node")?;
    stage.settle()?;
    guest.is_nowhere()?;
    follow(lab, &guest, &nodes[0])?;
    guest.end(2).map(drop)
}
