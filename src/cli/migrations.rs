//! `kvmha migrations`: what became of the moves from this host.

use super::print;
use super::table::{moment, table};
use crate::domain::migration::history::{self, Entry};
use crate::ocf::HISTORY;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "The code is 0, also if there is none; 1 if the records cannot be read: only root may.\n\nExamples:\n  \
        kvmha migrations\n  kvmha migrations web1 --json | jq 'map(.pause_ms) | max'")]
pub(super) struct Arguments {
    /// Only those of this guest
    guest: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the records are
    #[arg(long, value_name = "FOLDER", default_value = HISTORY)]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let wanted = |entry: &Entry| arguments.guest.as_ref().is_none_or(|guest| *guest == entry.guest);
    let entries = history::read(&arguments.folder).with_context(|| arguments.folder.display().to_string())?;
    let entries: Vec<Entry> = entries.into_iter().filter(wanted).collect();
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&entries)?));
        return Ok(0);
    }
    if entries.is_empty() {
        print("No move from this node is on record.\n");
        return Ok(0);
    }
    let head = ["ENDED (UTC)", "GUEST", "TO", "RESULT", "SECONDS", "PAUSE MS", "MIB", "PASSES", "DIRTIED MIB/S", "THROTTLE %", "REASON"];
    print(&table(&head, entries.iter().map(row).collect()));
    Ok(0)
}

fn row(entry: &Entry) -> Vec<String> {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let mib = |value: Option<u64>| number(value.map(|bytes| bytes / (1024 * 1024)));
    let course = &entry.course;
    vec![
        moment(entry.ended),
        entry.guest.clone(),
        entry.to.clone(),
        if entry.moved { "moved" } else { "failed" }.to_owned(),
        format!("{}.{:02}", entry.total_ms / 1000, entry.total_ms % 1000 / 10),
        number(course.pause_ms),
        mib(course.bytes),
        number(course.passes),
        mib(course.dirtied),
        number(course.throttle),
        entry.reason.clone(),
    ]
}
