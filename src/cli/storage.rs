//! `kvmha storage`: what is under a guest, what proves which thing it is, and whether another node has the same.

use super::overview::is_guest;
use super::table::table;
use super::{Given, print};
use crate::cluster::cib::{Cib, Primitive};
use crate::deadline::{Deadline, Task};
use crate::domain::migration::preflight::shared;
use crate::domain::{Connection, Definition};
use crate::ocf::Asked;
use crate::storage::{Finding, Same, Sight, finding, hazards};
use clap::Args;
use serde::Serialize;
use std::time::Duration;

/// How long all of it may take.
const TIME: Duration = Duration::from_secs(20);

/// So many guests are looked at side by side when all are.
const AT_ONCE: usize = 8;

#[derive(Args)]
#[command(after_help = "The code is 0 if each disk is there and answers, and is not another one on the node that was asked; 1 if not.\n\n\
        Examples:\n  kvmha storage\n  \
kvmha storage web1\n  kvmha storage web1 --to node2\n  kvmha storage /srv/vms/web1.xml --to node2 --set migration_transport=tls")]
pub(super) struct Arguments {
    /// A resource of the cluster, or the path of a definition (with a slash); all guests of the cluster if not given
    #[arg(value_name = "RESOURCE|CONFIG")]
    what: Option<String>,
    /// A parameter of the agent, instead of the resource's own
    #[arg(long = "set", value_name = "NAME=VALUE", requires = "what")]
    set: Vec<String>,
    /// A node that is asked whether it has the same
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is under a guest.
struct Seen {
    guest: String,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Answer<'a> {
    guest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    storage: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    kind: Option<&'static str>,
    identity: Option<String>,
    hazards: Vec<String>,
}

/// One of all guests: what it is called in the cluster, and why it could not be looked at.
#[derive(Serialize)]
struct OfAll<'a> {
    resource: &'a str,
    #[serde(flatten)]
    answer: Option<Answer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// 0: each disk is there and answers, and is not another one on the node that was asked. 1: not so.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let to = arguments.to.as_deref();
    let Some(what) = &arguments.what else { return all(to, arguments.json) };
    let deadline = Deadline::after(TIME);
    let given = Given { what: what.clone(), set: arguments.set.clone() };
    let seen = examine(&given.asked(to.unwrap_or_default(), deadline)?, to, &deadline)?;
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&answer(&seen, to))?));
    } else {
        print(&table(&head(to), rows(&seen, to)));
        print(&notes(&seen));
    }
    Ok(u8::from(is_bad(&seen)))
}

/// All guests of the cluster; one that cannot be looked at is bad too.
fn all(to: Option<&str>, json: bool) -> anyhow::Result<u8> {
    let guests: Vec<Primitive> = Cib::query(&Deadline::after(TIME))?.resources().into_iter().filter(is_guest).collect();
    let mut seen = Vec::new();
    for some in guests.chunks(AT_ONCE) {
        let deadline = Deadline::after(TIME);
        let look = |guest: &Primitive| {
            let (guest, to) = (guest.clone(), to.map(str::to_owned));
            Task::start(move || {
                let asked = Asked::new(Some(&guest.id), &guest.parameters, to.as_deref().unwrap_or_default(), deadline);
                examine(&asked.map_err(anyhow::Error::msg)?, to.as_deref(), &deadline)
            })
        };
        let tasks: Vec<_> = some.iter().map(look).collect();
        // What ends at its own deadline says what it waited for.
        let end = Deadline::after(TIME + Duration::from_secs(2));
        seen.extend(tasks.into_iter().map(|task| task.wait(&end).unwrap_or_else(|| Err(anyhow::anyhow!("no answer in time")))));
    }
    let seen: Vec<(&str, Result<Seen, String>)> =
        guests.iter().map(|guest| guest.id.as_str()).zip(seen.into_iter().map(|seen| seen.map_err(|error| format!("{error:#}")))).collect();
    if json {
        let of = |(resource, seen): &'_ (&'_ str, Result<Seen, String>)| {
            serde_json::to_value(OfAll {
                resource,
                answer: seen.as_ref().ok().map(|seen| answer(seen, to)),
                error: seen.as_ref().err().map(String::as_str),
            })
        };
        let guests = seen.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        print(&format!("{}\n", serde_json::to_string_pretty(&serde_json::json!({ "guests": guests }))?));
    } else if seen.is_empty() {
        print("There is no guest in this cluster.\n");
    } else {
        let of = |(resource, seen): &(&str, Result<Seen, String>)| {
            let with_name = |row: Vec<String>| [vec![(*resource).to_owned()], row].concat();
            seen.as_ref().map(|seen| rows(seen, to).into_iter().map(with_name).collect()).unwrap_or_default()
        };
        let rows: Vec<Vec<String>> = seen.iter().flat_map(|one| -> Vec<Vec<String>> { of(one) }).collect();
        print(&table(&[vec!["GUEST".to_owned()], head(to)].concat(), rows));
        for (resource, seen) in &seen {
            match seen {
                Ok(seen) => print(&notes(seen).lines().map(|line| format!("{resource}: {line}\n")).collect::<String>()),
                Err(text) => print(&format!("{resource}: {text}\n")),
            };
        }
    }
    Ok(u8::from(seen.iter().any(|(_, seen)| seen.as_ref().map_or(true, is_bad))))
}

/// Looks at what is under a guest, here and on the node that is asked.
fn examine(asked: &Asked, to: Option<&str>, deadline: &Deadline) -> anyhow::Result<Seen> {
    let config = asked.definition().map_err(anyhow::Error::msg)?;
    let guest = config.identity.name.clone();
    let here = Connection::open(&asked.hypervisor().to_string(), deadline);
    // What runs may have another disk in it than its file says. Without libvirt the file and the kernel have to do.
    let running = here.as_ref().ok().and_then(|here| Definition::running(here, &guest, deadline).ok().flatten());
    let definition = running.unwrap_or(config);
    let mut findings = finding::look(
        &definition.xml,
        &|pool, volume| here.as_ref().map_err(|error| error.text.clone())?.volume(pool, volume, deadline),
        deadline,
    );
    if let Some(node) = to {
        let plan = asked.plan().map_err(anyhow::Error::msg)?;
        let there = Connection::open(&plan.remote, deadline).map_err(|error| anyhow::anyhow!("{node}: {error}"))?;
        shared::compare(&mut findings, &there, &plan, deadline);
    }
    Ok(Seen { guest, findings })
}

fn answer<'a>(seen: &'a Seen, to: Option<&'a str>) -> Answer<'a> {
    Answer { guest: &seen.guest, to, storage: seen.findings.iter().map(entry).collect() }
}

fn entry(finding: &Finding) -> Entry<'_> {
    let kind = finding.kind().and_then(|kind| kind.row()).map(|row| row.name);
    Entry { finding, kind, identity: finding.token(), hazards: hazards::seen(finding) }
}

fn is_bad(seen: &Seen) -> bool {
    seen.findings.iter().filter(|finding| finding.item.matters()).any(|finding| {
        matches!(finding.sight, Some(Sight::Silent | Sight::Missing(_) | Sight::Untold(_)))
            || matches!(finding.same, Some(Same::Different(_)))
    })
}

fn head(to: Option<&str>) -> Vec<String> {
    let place = to.map(|node| format!("ON {}", node.to_uppercase()));
    ["DISK", "WHERE", "KIND", "IDENTITY", "ANSWERS"].map(str::to_owned).into_iter().chain(place).collect()
}

fn rows(seen: &Seen, to: Option<&str>) -> Vec<Vec<String>> {
    let row = |finding: &Finding| {
        let Finding { item, .. } = finding;
        let mut row = vec![
            item.name.clone(),
            item.source.to_string(),
            finding.kind().map_or_else(|| "-".to_owned(), |kind| kind.to_string()),
            finding.token().unwrap_or_else(|| "-".to_owned()),
            answers(finding).to_owned(),
        ];
        row.extend(to.map(|_| word(finding.same.as_ref()).to_owned()));
        row
    };
    seen.findings.iter().map(row).collect()
}

/// What is to be said about single disks, a line each.
fn notes(seen: &Seen) -> String {
    let mut text = String::new();
    for finding in &seen.findings {
        let missing = match &finding.sight {
            Some(Sight::Missing(why) | Sight::Untold(why)) => Some(why.clone()),
            _ => None,
        };
        let same = match &finding.same {
            Some(Same::Alike(why) | Same::Different(why) | Same::Unknown(why)) => Some(why.clone()),
            _ => None,
        };
        for note in missing.into_iter().chain(same).chain(hazards::seen(finding)) {
            text.push_str(&format!("{}: {note}\n", finding.item.name));
        }
    }
    text
}

fn answers(finding: &Finding) -> &'static str {
    match finding.sight {
        Some(Sight::Facts(_)) => "yes",
        Some(Sight::Missing(_)) => "no",
        Some(Sight::Silent) => "hangs",
        Some(Sight::Untold(_)) => "unknown",
        // The emulator's own connection is not to be had from outside.
        None => "-",
    }
}

fn word(same: Option<&Same>) -> &'static str {
    match same {
        Some(Same::Proven(_)) => "the same",
        Some(Same::Alike(_)) => "alike",
        Some(Same::Different(_)) => "ANOTHER",
        Some(Same::Unknown(_)) | None => "unknown",
    }
}
