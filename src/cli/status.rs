//! `kvmha status`: every guest of the cluster, where it is and how it is.

use super::overview::{Guest, Move, Overview};
use super::print;
use super::table::{Colour, Paint, moment};
use crate::deadline::Deadline;
use crate::log;
use clap::Args;
use std::io::{self, IsTerminal};
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "The code is 0 if Pacemaker answered, whatever state the guests are in; 1 if not.\n\nExamples:\n  kvmha status\n  \
        kvmha status --watch\n  kvmha status --json | jq -r '.guests[] | select(.failed) | .resource'")]
pub(super) struct Arguments {
    /// Print JSON; with --watch an object a line
    #[arg(long)]
    json: bool,
    /// Look again every so many seconds (every 2 if no number is given), until it is interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// 0: this is how it is. 1: Pacemaker cannot be asked on this node.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let Some(seconds) = arguments.watch else {
        let overview = Overview::take()?;
        let text = if arguments.json { format!("{}\n", serde_json::to_string_pretty(&overview)?) } else { show(&overview) };
        print(&text);
        return Ok(0);
    };
    let clear = if io::stdout().is_terminal() && !arguments.json { "\x1b[H\x1b[2J" } else { "" };
    loop {
        let text = match Overview::take() {
            Ok(overview) if arguments.json => format!("{}\n", serde_json::to_string(&overview)?),
            Ok(overview) => format!("{clear}{}\n", show(&overview)),
            // It may come back. Something is printed too, or it would not be noticed that nobody reads any more.
            Err(error) if arguments.json => format!("{}\n", serde_json::json!({ "error": format!("{error:#}") })),
            Err(error) => {
                log::complain(&format!("{error:#}"));
                "\n".to_owned()
            }
        };
        if !print(&text) {
            return Ok(0);
        }
        let pause = Duration::from_secs(seconds);
        let _ = Deadline::after(pause).pause(pause);
    }
}

fn show(overview: &Overview) -> String {
    let head = ["RESOURCE", "NODE", "ROLE", "STATE", "SINCE (UTC)", "LAST MOVE", "LAST FAILURE"];
    let mut text = Paint::of_stdout().table(&head, overview.guests.iter().map(row).collect());
    if overview.guests.is_empty() {
        "There is no guest in this cluster.\n".clone_into(&mut text);
    }
    if !overview.quorum {
        text.push_str(if overview.ignores_quorum {
            "This partition has no quorum, and guests are started all the same: no-quorum-policy=ignore.\n"
        } else {
            "This partition has no quorum: nothing is started here.\n"
        });
    }
    if overview.maintenance {
        text.push_str("The cluster is in maintenance mode: nothing is started, stopped or monitored.\n");
    }
    let away: Vec<&str> = overview.nodes.iter().filter(|node| !node.online).map(|node| node.name.as_str()).collect();
    if !away.is_empty() {
        text.push_str(&format!("Not in the cluster: {}\n", away.join(", ")));
    }
    let unknown = overview.guests.iter().flat_map(|guest| guest.unknown.iter().map(move |text| format!("{}: {text}\n", guest.resource)));
    text.extend(unknown);
    text
}

fn row(guest: &Guest) -> (Colour, Vec<String>) {
    let dash = || "-".to_owned();
    let mut role = guest.role.clone();
    let pending = guest.pending.as_deref().filter(|word| *word != guest.role);
    for word in [pending, (!guest.managed).then_some("unmanaged"), guest.failed.then_some("failed")].into_iter().flatten() {
        role.push_str(&format!(", {word}"));
    }
    // Where Pacemaker sees it nothing has to be added; everywhere else it has.
    let expected = |node: &String| guest.nodes.len() == 1 && guest.nodes.first() == Some(node);
    let states =
        guest.copies.iter().map(|copy| if expected(&copy.node) { copy.state.clone() } else { format!("{} on {}", copy.state, copy.node) });
    let states: Vec<String> = states.collect();
    let failure = guest.last_failure.as_ref().map(|failed| {
        let at = failed.at.map(|at| format!("{} ", moment(at))).unwrap_or_default();
        let action = failed.action.strip_prefix(&format!("{}_", guest.resource)).unwrap_or(&failed.action);
        format!("{at}{action} on {}: {}", failed.node, failed.reason)
    });
    let amiss =
        guest.failed || guest.copies.len() > 1 || !guest.nodes.is_empty() && guest.copies.iter().any(|copy| copy.runs == Some(false));
    let colour = match (amiss, failure.is_some() || !guest.unknown.is_empty() || !guest.managed) {
        (true, _) => Colour::Red,
        (false, true) => Colour::Yellow,
        (false, false) => Colour::Plain,
    };
    let row = vec![
        guest.resource.clone(),
        if guest.nodes.is_empty() { dash() } else { guest.nodes.join(",") },
        role,
        if states.is_empty() { dash() } else { states.join("; ") },
        guest.since.map_or_else(dash, moment),
        guest.last_move.as_ref().map_or_else(dash, say_move),
        failure.unwrap_or_else(dash),
    ];
    (colour, row)
}

fn say_move(last: &Move) -> String {
    let pause = last.pause_ms.map(|pause| format!(", pause {pause} ms")).unwrap_or_default();
    let what = if last.moved { "moved" } else { "not moved" };
    let at = last.ended.map(|ended| format!("{} ", moment(ended))).unwrap_or_default();
    format!("{at}{what} from {} to {}{pause}", last.from, last.to)
}
