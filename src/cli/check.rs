//! `kvmha check`: whether a guest can be moved, said before it is.

use super::table::table;
use super::{Given, print};
use crate::cluster::cib::Cib;
use crate::cluster::foresight::{Foreseen, Move, Objection};
use crate::cluster::tool::Trouble;
use crate::cluster::view::View;
use crate::deadline::Deadline;
use crate::domain::migration::preflight::{self, Check, Subject, Verdict};
use crate::domain::{Connection, Definition};
use clap::Args;
use serde::Serialize;
use std::time::Duration;

/// How long all of it may take.
const TIME: Duration = Duration::from_secs(20);

/// What is done about that.
const UNFORESEEN: &str = "ask again when the cluster is at rest: crm_resource --wait";

/// How long Pacemaker may take to say what it would do.
const PACEMAKER: Duration = Duration::from_secs(30);

#[derive(Args)]
#[command(
    after_help = "The code is 0 if nothing would make the move fail: there may be warnings, also of what cannot be told and is no reason for \
        the move to be refused. It is 1 if something would, or if Pacemaker cannot be asked what it would do: kvmha migrate asks for nothing \
        then.\n\nExamples:\n  kvmha check web1 --to node2\n  kvmha check /srv/vms/web1.xml --to node2 --set migration_transport=tls"
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
    /// Whether it runs on this host: if not, its definition was looked at, and this host's files and networks.
    runs_here: bool,
    verdict: Verdict,
    checks: &'a [Check],
}

/// 0: it can be moved, as far as can be told. 1: it cannot, or `kvmha migrate` would not ask for it.
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
    let runs_here = running.is_some();
    let note = (!runs_here).then(|| format!("{name} does not run here; its definition was looked at\n"));
    let definition = match running {
        Some(definition) => definition,
        None => config.map_err(anyhow::Error::msg)?,
    };
    let mut checks = preflight::run(&Subject { identity: &definition.identity, definition: &definition, here: &here }, &plan, &deadline);
    if !arguments.given.what.contains('/') {
        checks.extend(foreseen(&arguments.given.what, &plan.target));
    }
    let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    if arguments.json {
        let answer = Answer { guest: &name, to: &plan.target, runs_here, verdict, checks: &checks };
        print(&format!("{}\n", serde_json::to_string_pretty(&answer)?));
    } else {
        let rows = checks.iter().map(|check| vec![check.name.into(), check.verdict.to_string(), text(check)]).collect();
        print(&table(&["CHECK", "VERDICT", "WHAT"], rows));
        print(&note.unwrap_or_default());
    }
    Ok(u8::from(verdict == Verdict::Refuse))
}

/// What Pacemaker would do, if it has the guest somewhere else: a move of the agent's may do and still cost a restart.
fn foreseen(id: &str, target: &str) -> Option<Check> {
    let deadline = Deadline::after(PACEMAKER);
    let asked = || -> Result<Option<Foreseen>, Trouble> {
        let (view, cib) = (View::query(&deadline)?, Cib::query(&deadline)?);
        let (Some(placed), Some(target)) = (view.resource(id), view.spelled(target)) else { return Ok(None) };
        match &placed.nodes[..] {
            [source] if source != target => Move { id, source, target }.foresee(&cib, &deadline).map(Some),
            _ => Ok(None),
        }
    };
    judge(asked())
}

fn judge(foreseen: Result<Option<Foreseen>, Trouble>) -> Option<Check> {
    let check = |verdict, text: String, advice| Some(Check { name: "pacemaker", verdict, text, advice });
    match foreseen {
        Ok(None) => None,
        Ok(Some(Foreseen { objection: Some(Objection { text, advice }), .. })) => check(Verdict::Refuse, text, advice),
        Ok(Some(Foreseen { along, .. })) if along.is_empty() => check(Verdict::Ok, "would move it live, and leave it there".to_owned(), ""),
        Ok(Some(Foreseen { along, .. })) => check(Verdict::Warning, format!("Pacemaker would move {} too", along.join(", ")), ""),
        // It may answer the move with a restart.
        Err(trouble) => check(Verdict::Refuse, format!("what Pacemaker would do cannot be foreseen: {trouble}"), UNFORESEEN),
    }
}

fn text(check: &Check) -> String {
    if check.advice.is_empty() { check.text.clone() } else { format!("{} ({})", check.text, check.advice) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pacemaker_does_not_say_is_no_permission() {
        let said = |foreseen| judge(foreseen).map(|check| check.verdict);
        assert_eq!(said(Err(Trouble::Silent("crm_simulate did not end in time".to_owned()))), Some(Verdict::Refuse));
        assert_eq!(said(Ok(Some(Foreseen::default()))), Some(Verdict::Ok));
        assert_eq!(said(Ok(Some(Foreseen { objection: None, along: vec!["db".to_owned()] }))), Some(Verdict::Warning));
        assert_eq!(said(Ok(None)), None, "it is not anywhere else than there");
    }
}
