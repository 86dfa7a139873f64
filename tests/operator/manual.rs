//! The manual, word by word: blocks that are marked `sh tested` are run, a line after the other, as a reader would.

use crate::seen::kvmha;
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::placed::{Guest, OPERATIONS, until};
use lab::scene::{LIMIT, Stage};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

const TWO_NODES: &str = include_str!("../../docs/two-node.md");
const METRICS: &str = include_str!("../../docs/metrics.md");
const CHANGING: &str = include_str!("../../docs/from-virtualdomain.md");
const README: &str = include_str!("../../README.md");
const MOVING: &str = include_str!("../../docs/migration.md");

/// The lines of the marked blocks.
fn lines(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh tested\n").skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block);
    blocks.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// What the pages for every day say of a guest that another agent has had before: it is changed to this one, moved by each page, and boots once.
pub fn the_other_pages(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::files(&stage, "web1")?;
    guest.give("ocf:heartbeat:VirtualDomain", "", OPERATIONS)?;
    guest.runs(1)?;
    for (name, page, moves) in [("from-virtualdomain.md", CHANGING, false), ("README.md", README, true), ("migration.md", MOVING, true)] {
        let (first, second) = (guest.node()?, guest.other_node()?);
        let all = lines(page);
        ensure!(!all.is_empty(), "{name} has no command");
        for line in all {
            let line = fitted(line, &first, &second).replace("--output FILE", "--output /run/kvmha.prom");
            // From where the guest is: kvmha check looks from there.
            stage.lab.check(&first, &["sh", "-c", &line], LIMIT).with_context(|| format!("{name} says: {line}"))?;
            stage.settle()?;
        }
        ensure!(moves == (guest.node()? == second), "{name}: it was on {first} and is on {}", guest.node()?);
    }
    let agent = stage.check("crm_resource --resource web1 --query-xml-raw")?;
    ensure!(agent.contains("provider=\"kvmha\""), "it was not changed: {agent}");
    guest.goes_on()?;
    stage.no_failures()?;
    guest.end(1).map(drop)
}

/// The lab's third node is no obstacle: node1 is where the guest was placed, node2 another. Its nodes have no ssh, and its storage is one that
/// libvirt does not know to be shared.
fn fitted(line: &str, first: &str, second: &str) -> String {
    let line = line.replace("node1", "\0").replace("node2", second).replace('\0', first);
    line.replace("migration_transport=ssh", "migration_transport=tcp migrate_options=--unsafe")
}

fn follow(stage: &Stage, line: &str) -> Result<()> {
    let node = stage.speaker()?;
    stage.lab.check(&node, &["sh", "-c", line], LIMIT).map(drop).with_context(|| format!("the manual says: {line}"))?;
    stage.settle()
}

/// The Debian package that the guide is followed with (`KVMHA_PACKAGE`); without one the program of this build is there already.
pub fn package() -> Option<PathBuf> {
    std::env::var_os("KVMHA_PACKAGE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The guide's installation, in each node, beside the file.
fn install(lab: &Lab, package: &Path, line: &str) -> Result<()> {
    let name = package.file_name().context("KVMHA_PACKAGE is no file")?;
    let file = lab.layout().shared().join(name);
    fs::copy(package, &file).with_context(|| format!("KVMHA_PACKAGE: {}", package.display()))?;
    for node in lab.node_names() {
        ensure!(lab.exec(&node, &["kvmha", "-V"], LIMIT)?.code != Some(0), "{node} has kvmha already");
        // The image of a container may leave manuals out.
        let line = format!("rm -f /etc/dpkg/dpkg.cfg.d/*; cd /srv/vms && {line}");
        lab.check(&node, &["sh", "-c", &line], LIMIT).with_context(|| format!("the manual says: {line}"))?;
        lab.check(&node, &["kvmha", "-V"], LIMIT)?;
    }
    Ok(fs::remove_file(file)?)
}

/// From the installation to a guest that fails over.
pub fn the_two_node_guide(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let mut rest = lines(TWO_NODES);
    // On nodes whose cluster is there; what the guide does with that before is done right after.
    let installation = rest.remove(rest.iter().position(|line| line.starts_with("apt install ")).context("nothing is installed")?);
    if let Some(package) = package() {
        install(lab, &package, installation)?;
    }
    let guest = Guest::files(&stage, "web1")?;
    let at = rest.iter().position(|line| line.starts_with("pcs resource create web1")).context("the guide makes no resource")?;
    let (before, after) = rest.split_at(at + 1);
    ensure!(after.len() > 5, "the guide tries nothing");
    for line in before {
        follow(&stage, &fitted(line, "node1", "node2"))?;
    }
    let first = guest.runs(1)?;
    let second = guest.other_node()?;
    for line in after {
        let line = fitted(line, &first, &second);
        // What is asked where the guest is, as the page says.
        if ["kvmha check", "kvmha migrate"].iter().any(|word| line.starts_with(word)) {
            stage.lab.check(&guest.node()?, &["sh", "-c", &line], LIMIT).with_context(|| format!("the manual says: {line}"))?;
            stage.settle()?;
        } else {
            follow(&stage, &line)?;
        }
    }
    ensure!(guest.node()? != second, "it is still on {second}, which was emptied");
    guest.goes_on()?;
    for line in lines(METRICS) {
        follow(&stage, line)?;
    }
    // "Pull the plug of the node it runs on."
    ensure!(TWO_NODES.contains("pull the plug of the node it runs on"), "the guide does not say what all of it is for");
    let (node, left, pulled) = (guest.node()?, guest.other_node()?, Instant::now());
    lab.power_off(&node)?;
    until("the doctor misses it", || kvmha(lab, &left, "doctor --quiet").is_ok_and(|said| said.stdout.contains(&format!("{node} is "))))?;
    guest.boots_anew(pulled)?;
    stage.wait(|seen| seen.runs_on("web1").is_some_and(|now| now != node)).context("it does not fail over")?;
    stage.all_online()?;
    guest.runs(2)?;
    guest.end(2).map(drop)
}
