//! `kvmha doctor`: is this cluster, seen from this node, fit for guests? Each finding comes with its remedy.

mod cluster;
mod hosts;
mod plugs;
mod power;
mod quorum;
mod resources;
mod selinux;
mod storage;

use super::overview::is_guest;
use super::print;
use super::table::{Colour, Paint};
use super::waiting::Waiting;
use crate::cluster::cib::{Cib, Primitive};
use crate::cluster::own_name;
use crate::cluster::view::View;
use crate::deadline::Deadline;
use crate::domain::Definition;
use crate::ocf::Asked;
use crate::storage::Finding;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// For Pacemaker's tools, all of them.
const PACEMAKER: Duration = Duration::from_secs(30);
/// For the definitions, which may be on storage that hangs.
const DEFINITIONS: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(
    after_help = "The code is 0 if nothing was found, 1 if something was. What is looked at is the cluster's configuration, this node's own files and \
storage, and what other nodes' libvirts say: run it on every node. To ask them for a disk that is on a local file system here, a folder lies beside it for a moment.\n\nExamples:\n  kvmha doctor\n  kvmha doctor --quiet\n  kvmha doctor --json | jq -r '.findings[].remedy'"
)]
pub(super) struct Arguments {
    /// Only what was found
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// It works, until something happens.
    Warning,
    /// Guests are, or will be, in danger or not available.
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
struct Ailment {
    check: &'static str,
    level: Level,
    text: String,
    remedy: String,
}

/// What is found by one check.
#[derive(Default)]
struct Found(Vec<(Level, String, String)>);

impl Found {
    fn warning(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.0.push((Level::Warning, text.into(), remedy.into()));
    }

    fn problem(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.0.push((Level::Problem, text.into(), remedy.into()));
    }
}

/// One check.
struct Check {
    name: &'static str,
    /// What it means that nothing was found.
    ok: &'static str,
    look: fn(&Patient, &mut Found),
}

/// All checks, in the order in which they are shown.
const CHECKS: &[Check] = &[
    Check { name: "members", ok: "all nodes are in the cluster", look: cluster::members },
    Check { name: "fencing", ok: "every node can be fenced", look: cluster::fencing },
    Check { name: "fence_kvmha", ok: "no device takes one node for another", look: plugs::configured },
    Check { name: "plugs of fence_kvmha", ok: "asked from this node: those of all nodes that are online are on", look: plugs::asked },
    Check { name: "record of fencing", ok: "says off, or nothing goes by it", look: cluster::record },
    Check { name: "quorum", ok: "there is quorum, and corosync counts right", look: quorum::quorum },
    Check { name: "without quorum", ok: "a part of the cluster without quorum runs nothing new", look: cluster::policy },
    Check { name: "maintenance", ok: "Pacemaker looks after all guests", look: cluster::maintenance },
    Check { name: "names", ok: "the names of all nodes can be resolved", look: cluster::names },
    Check { name: "clocks", ok: "no clock is seen to be wrong", look: cluster::clocks },
    Check { name: "moves at once", ok: "they are limited, or few", look: cluster::limit },
    Check { name: "failures", ok: "no guest has failed", look: cluster::failures },
    Check { name: "parameters", ok: "the agent takes all of them", look: resources::parameters },
    Check { name: "one resource each", ok: "no guest is two resources", look: resources::twice },
    Check { name: "definitions", ok: "this node can read all of them", look: resources::definitions },
    Check { name: "monitor", ok: "all guests are monitored", look: resources::monitor },
    Check { name: "timeouts", ok: "as advised, or longer", look: resources::timeouts },
    Check { name: "on-fail", ok: "no failure is ignored", look: resources::on_fail },
    Check { name: "live migration", ok: "all guests can be moved", look: resources::migration },
    Check { name: "stickiness", ok: "guests stay where they are", look: resources::stickiness },
    Check { name: "constraints", ok: "no move has left one", look: resources::constraints },
    Check { name: "disk locks", ok: "something keeps a second emulator from each disk", look: resources::locks },
    Check { name: "disks", ok: "guests run on those that their definitions name", look: hosts::disks },
    Check { name: "storage", ok: "nothing of it will hurt a guest, as far as this node sees", look: storage::storage },
    Check { name: "SELinux", ok: "keeps no emulator from its disks", look: selinux::booleans },
    Check { name: "libvirt", ok: "all that can be asked answer", look: hosts::reach },
    Check { name: "versions", ok: "the same everywhere, without a defect that matters here", look: hosts::versions },
    Check { name: "emulator's user", ok: "the same numbers everywhere", look: hosts::owner },
    Check { name: "autostart", ok: "no libvirt starts a guest of the cluster by itself", look: hosts::autostart },
    Check { name: "libvirt-guests", ok: "does not start guests of the cluster", look: power::libvirt_guests },
    Check { name: "auto_shutdown", ok: "libvirt leaves guests to Pacemaker when the host goes down", look: power::auto_shutdown },
    Check { name: "shutdown order", ok: "Pacemaker is done before libvirt ends", look: power::order },
];

/// A guest as it is configured.
struct Case {
    resource: Primitive,
    asked: Result<Asked, String>,
    definition: Result<Definition, String>,
    /// What is under it, as this node sees it.
    storage: Option<Vec<Finding>>,
}

impl Case {
    fn id(&self) -> &str {
        &self.resource.id
    }
}

/// What the checks look at.
struct Patient {
    here: String,
    view: View,
    cib: Cib,
    guests: Vec<Case>,
    hosts: Vec<hosts::Host>,
}

impl Patient {
    fn examine(waiting: &Waiting) -> anyhow::Result<Self> {
        waiting.on("Pacemaker");
        let pacemaker = Deadline::after(PACEMAKER);
        let (here, view, cib) = (own_name(&pacemaker)?, View::query(&pacemaker)?, Cib::query(&pacemaker)?);
        waiting.on("the definitions of the guests");
        let mut guests = cases(&cib, Deadline::after(DEFINITIONS));
        waiting.on("libvirt of the nodes");
        let hosts = hosts::ask(&here, &view, &guests);
        waiting.on("the guests' disks");
        storage::look(&mut guests);
        Ok(Self { here, view, cib, guests, hosts })
    }
}

fn cases(cib: &Cib, reading: Deadline) -> Vec<Case> {
    let cases = cib.resources().into_iter().filter(is_guest).map(|resource| {
        let asked = Asked::new(Some(&resource.id), &resource.parameters, "", reading);
        let definition = asked.as_ref().map_err(Clone::clone).and_then(Asked::definition);
        Case { resource, asked, definition, storage: None }
    });
    cases.collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    node: &'a str,
    healthy: bool,
    findings: &'a [Ailment],
}

/// 0: nothing was found. 1: something was, or Pacemaker cannot be asked.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let waiting = Waiting::new();
    let patient = Patient::examine(&waiting)?;
    let mut findings = Vec::new();
    let mut rows = Vec::new();
    for check in CHECKS {
        let mut found = Found::default();
        waiting.on(&format!("the check of {}", check.name));
        (check.look)(&patient, &mut found);
        if found.0.is_empty() && !arguments.quiet {
            rows.push((Colour::Plain, vec![check.name.to_owned(), "ok".to_owned(), check.ok.to_owned()]));
        }
        for (level, text, remedy) in found.0 {
            let colour = if level == Level::Problem { Colour::Red } else { Colour::Yellow };
            rows.push((colour, vec![check.name.to_owned(), level.to_string(), text.clone()]));
            rows.push((Colour::Plain, vec![String::new(), String::new(), format!("-> {remedy}")]));
            findings.push(Ailment { check: check.name, level, text, remedy });
        }
    }
    drop(waiting);
    let healthy = findings.is_empty();
    if arguments.json {
        let answer = Answer { node: &patient.here, healthy, findings: &findings };
        print(&format!("{}\n", serde_json::to_string_pretty(&answer)?));
    } else if !rows.is_empty() {
        print(&Paint::of_stdout().table(&["CHECK", "RESULT", "WHAT"], rows));
    }
    Ok(u8::from(!healthy))
}

/// A time as Pacemaker writes it, in seconds, rounded down: `90`, `90s`, `90000ms`, `2min`, `1h`, `PT1M30S`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(period) = text.strip_prefix("PT") {
        let (mut total, mut number) = (0, String::new());
        for letter in period.chars() {
            let unit = match letter {
                'H' => 3600,
                'M' => 60,
                'S' => 1,
                digit => {
                    number.push(digit);
                    continue;
                }
            };
            total = number.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(total)?;
            number.clear();
        }
        return number.is_empty().then_some(total);
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "" | "s" | "sec" => Some(number),
        "ms" | "msec" => Some(number / 1000),
        "us" | "usec" => Some(number / 1_000_000),
        "m" | "min" => number.checked_mul(60),
        "h" | "hr" => number.checked_mul(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::Member;

    /// A cluster of so many nodes, of which nothing is asked, with these options and resources.
    pub(super) fn patient(nodes: usize, quorum: bool, options: &[(&str, &str)], resources: &str) -> Patient {
        let options: String = options.iter().map(|(name, value)| format!("<nvpair id='{name}' name='{name}' value='{value}'/>")).collect();
        let cib = Cib::parse(format!(
            "<cib><configuration><crm_config><cluster_property_set id='o'>{options}</cluster_property_set></crm_config>\
             <resources>{resources}</resources></configuration></cib>"
        ));
        let cib = cib.unwrap();
        let member = |number| Member { name: format!("node{number}"), online: true, unsettled: false, remote: false, standby: false };
        let (nodes, resources, failures) = ((1..=nodes).map(member).collect(), Vec::new(), Vec::new());
        let view = View { controller: None, quorum, maintenance: false, fencing: true, nodes, resources, failures };
        let guests = cases(&cib, Deadline::after(DEFINITIONS));
        Patient { here: "node1".to_owned(), view, cib, guests, hosts: Vec::new() }
    }

    /// What a check finds, and the remedies.
    pub(super) fn found(look: fn(&Patient, &mut Found), patient: &Patient) -> Vec<(String, String)> {
        let mut found = Found::default();
        look(patient, &mut found);
        found.0.into_iter().map(|(_, text, remedy)| (text, remedy)).collect()
    }

    #[test]
    fn times_as_pacemaker_writes_them() {
        let all = ["90", "90s", "90000ms", "2min", "2m", "1h", "PT1M30S", "PT2H", "x", "5 apples", "PT5"].map(seconds);
        let some = [90, 90, 90, 120, 120, 3600, 90, 7200].map(Some);
        assert_eq!(all[..8], some);
        assert_eq!(all[8..], [None, None, None]);
        // More seconds than can be counted.
        assert_eq!(["9999999999999999999h", "PT9999999999999999999H", "PT18446744073709551615S1S"].map(seconds), [None, None, None]);
    }

    #[test]
    fn checks_have_names_of_their_own() {
        for (at, check) in CHECKS.iter().enumerate() {
            assert!(CHECKS.iter().skip(at + 1).all(|other| other.name != check.name), "{}", check.name);
        }
    }
}
