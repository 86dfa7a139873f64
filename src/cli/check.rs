//! `kvmha check`: whether a guest can be moved, said before it is.

use super::table::table;
use super::{Given, print};
use crate::deadline::Deadline;
use crate::domain::migration::preflight::{self, Check, Subject, Verdict};
use crate::domain::{Connection, Definition};
use clap::Args;
use serde::Serialize;
use std::time::Duration;

/// How long all of it may take.
const TIME: Duration = Duration::from_secs(20);

#[derive(Args)]
#[command(
    after_help = "The code is 0 if nothing is in the way of the move, warnings aside; 1 if something is, or it cannot be told.\n\nExamples:\n  kvmha check web1 --to node2\n  kvmha check /srv/vms/web1.xml --to node2 --set migration_transport=tls"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    given: Given,
    /// The node it is to be moved to
    #[arg(long, value_name = "NODE")]
    to: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    guest: &'a str,
    to: &'a str,
    verdict: Verdict,
    checks: &'a [Check],
}

/// 0: it can be moved, as far as can be told. 1: it cannot.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let deadline = Deadline::after(TIME);
    let asked = arguments.given.asked(&arguments.to, deadline)?;
    let plan = asked.plan().map_err(anyhow::Error::msg)?;
    let here = Connection::open(&asked.hypervisor().to_string(), &deadline)?;
    // The guest that runs is what would be moved; one that does not run here would be started from its file.
    let config = asked.definition();
    let name = match &config {
        Ok(definition) => definition.identity.name.clone(),
        Err(text) => anyhow::bail!("{text}"),
    };
    let running = Definition::running(&here, &name, &deadline)?;
    let note = running.is_none().then(|| format!("{name} does not run here; its definition was looked at\n"));
    let definition = match running {
        Some(definition) => definition,
        None => config.map_err(anyhow::Error::msg)?,
    };
    let checks = preflight::run(&Subject { identity: &definition.identity, definition: &definition, here: &here }, &plan, &deadline);
    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    if arguments.json {
        let answer = Answer { guest: &name, to: &plan.target, verdict, checks: &checks };
        print(&format!("{}\n", serde_json::to_string_pretty(&answer)?));
    } else {
        let rows = checks.iter().map(|check| vec![check.name.into(), check.verdict.to_string(), text(check)]).collect();
        print(&table(&["CHECK", "VERDICT", "WHAT"], rows));
        print(&note.unwrap_or_default());
    }
    Ok(u8::from(verdict == Verdict::Refuse))
}

fn text(check: &Check) -> String {
    if check.advice.is_empty() { check.text.clone() } else { format!("{} ({})", check.text, check.advice) }
}
