//! Whether a move will work, said before the guest is touched.
//!
//! libvirt has no dry run. What can be asked of the two daemons is asked, all at once; what they do not answer is a warning. A refusal
//! is only what would surely make the move fail, or harm the guest.

mod certificate;
mod config;
mod folders;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub(super) mod job;
pub mod marks;
mod needs;
mod reader;
mod safe;
pub mod shared;
mod target;
mod tls;
mod way;

pub use way::names_port;

use super::plan::Plan;
use super::side::There;
use crate::deadline::Deadline;
use crate::domain::connection::Connection;
use crate::domain::definition::{Definition, Identity};
use needs::Needs;
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use target::{Matter, Target};

/// How long all questions together may take, and never more than half of the time.
const TIME: Duration = Duration::from_secs(10);

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is in the way.
    Ok,
    /// Something may be in the way, or cannot be told.
    Warning,
    /// The move would fail, or do harm.
    Refuse,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Refuse => "refuse",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub name: &'static str,
    /// What follows.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What a person can do about it; empty if there is nothing to do.
    pub advice: &'static str,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, text: text.into(), advice: "" }
    }

    fn warning(name: &'static str, text: impl Into<String>, advice: &'static str) -> Self {
        Self { name, verdict: Verdict::Warning, text: text.into(), advice }
    }

    fn refuse(name: &'static str, text: impl Into<String>, advice: &'static str) -> Self {
        Self { name, verdict: Verdict::Refuse, text: text.into(), advice }
    }
}

/// What the target has answered.
pub(super) struct Answers {
    pub(super) checks: Vec<Check>,
    /// Whether it has said that its place for a guest of this name and UUID is free.
    pub(super) free: bool,
}

/// The guest that is to move.
pub struct Subject<'a> {
    /// Which it is.
    pub identity: &'a Identity,
    /// Its definition: the running guest's, if it runs.
    pub definition: &'a Definition,
    /// This host's libvirt.
    pub here: &'a Connection,
}

/// Looks at all of it.
#[must_use]
pub fn run(subject: &Subject, plan: &Plan, deadline: &Deadline) -> Vec<Check> {
    let mut there = There::new(&plan.remote);
    match there.connection(deadline) {
        Ok(connection) => {
            let Answers { mut checks, .. } = with(subject, plan, &connection, deadline);
            // A move is not in the way of these, and its log is not the place for them.
            checks.extend(shared::hazards(&subject.definition.xml, subject.here, deadline));
            checks
        }
        Err(error) => vec![Check::refuse(
            "target",
            error.text,
            "libvirt there must run, listen for this transport and take this host; see migration_transport and remoteuri",
        )],
    }
}

/// Like [`run`], over a connection to the target that stands, and without what is no matter of the move.
pub(super) fn with(subject: &Subject, plan: &Plan, there: &Connection, deadline: &Deadline) -> Answers {
    let target = target(subject, plan, there);
    let needs = &target.needs;
    let mut checks: Vec<Check> = needs
        .blockers
        .iter()
        .map(|(text, advice)| Check::refuse("devices", text, advice))
        .chain(needs.doubts.iter().map(|(text, advice)| Check::warning("devices", text, advice)))
        .collect();
    if checks.is_empty() {
        checks.push(Check::ok("devices", "none that is bound to this host"));
    }
    let mut answers = target.ask(|_| true, &deadline.share(TIME, 2));
    answers.checks.extend(checks);
    answers
}

/// What would keep the guest from being started there: of these questions those that are no matter of a move alone.
#[must_use]
pub fn of_start(subject: &Subject, plan: &Plan, there: &Connection, deadline: &Deadline) -> Option<String> {
    refused(target(subject, plan, there).ask(|matter| matter == Matter::Start, deadline))
}

/// What would keep the guest from being moved to that target: without what is a matter of the guest here alone, which says nothing about a host.
#[must_use]
pub fn of_target(subject: &Subject, plan: &Plan, there: &Connection, deadline: &Deadline) -> Option<String> {
    refused(target(subject, plan, there).ask(|matter| matter != Matter::Guest, &deadline.share(TIME, 2)))
}

/// The first refusal.
fn refused(answers: Answers) -> Option<String> {
    let first = answers.checks.into_iter().find(|check| check.verdict == Verdict::Refuse);
    first.map(|check| format!("{}: {}", check.name, check.text))
}

fn target(subject: &Subject, plan: &Plan, there: &Connection) -> Target {
    Target {
        there: there.clone(),
        here: subject.here.clone(),
        identity: subject.identity.clone(),
        plan: plan.clone(),
        needs: Needs::of(&subject.definition.xml, subject.definition.platform()),
        xml: subject.definition.xml.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ffi;
    use std::fs;

    /// Two hosts of libvirt's test driver, which needs no daemon, and has no snapshots but those that are made here.
    #[test]
    fn what_is_wrong_with_the_guest_here_says_nothing_about_another_host() {
        let folder = tempfile::tempdir().unwrap();
        let deadline = Deadline::after(Duration::from_secs(20));
        let open = |name: &str, domain: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("<node>{domain}</node>")).unwrap();
            Connection::open(&format!("test://{}", path.display()), &deadline)
        };
        let guest = "<domain type='test'><name>web1</name><memory>1024</memory><os><type>hvm</type></os></domain>";
        // Without the library there is nothing to ask.
        if ffi::load().is_err() {
            return;
        }
        let here = open("here", guest).unwrap();
        let there = open("there", "").unwrap();
        let snapshot = |domain: &virt::domain::Domain| Ok(domain.create_snapshot_xml("<domainsnapshot/>", 0).map(drop)?);
        let web1 = here.guest("web1", &deadline).unwrap().unwrap();
        // That driver does not say whether one that runs has a job.
        web1.call("ending", &deadline, |domain| Ok(domain.destroy()?)).unwrap();
        web1.call("making a snapshot of", &deadline, snapshot).unwrap();
        let definition = Definition::running(&here, "web1", &deadline).unwrap().unwrap();
        let subject = Subject { identity: &definition.identity, definition: &definition, here: &here };
        let plan = Plan::to(there.uri());
        let all = with(&subject, &plan, &there, &deadline).checks;
        let refusals: Vec<&str> = all.iter().filter(|check| check.verdict == Verdict::Refuse).map(|check| check.name).collect();
        assert_eq!(refusals, ["job"], "{all:?}");
        assert_eq!(of_target(&subject, &plan, &there, &deadline), None);
    }
}
