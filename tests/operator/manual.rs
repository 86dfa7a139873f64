//! The pages for every day, word by word: each line is run as it stands, one after the other, as a reader would.

use crate::commands::{OTHERS, commands};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::placed::{Guest, OPERATIONS};
use lab::scene::{LIMIT, Stage};

/// What the pages say of a guest that another agent has had before: it is changed to this one, moved by each page, and boots once.
pub fn the_other_pages(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::files(&stage, "web1")?;
    guest.give("ocf:heartbeat:VirtualDomain", "", OPERATIONS)?;
    guest.runs(1)?;
    for (name, page) in OTHERS {
        let (first, second) = (guest.node()?, guest.other_node()?);
        let all = commands(page);
        ensure!(!all.is_empty(), "{name} has no command");
        let moves = all.iter().any(|line| line.starts_with("kvmha migrate "));
        for line in all {
            let line = named(&line, &first, &second).replace("--output FILE", "--output /run/kvmha.prom");
            // From where the guest is: kvmha check looks from there.
            types(lab, &first, &line)?;
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

/// The line with the names exchanged, if the guest is on node2: to the pages node1 is where it is, and node2 another.
pub fn named(line: &str, first: &str, second: &str) -> String {
    line.replace("node1", "\0").replace("node2", second).replace('\0', first)
}

/// A reader types a line at a node, and it succeeds; what it says.
pub fn types(lab: &Lab, node: &str, line: &str) -> Result<String> {
    lab.check(node, &["sh", "-c", line], LIMIT).with_context(|| format!("the manual says: {line}"))
}
