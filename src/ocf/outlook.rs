//! Where a guest could be moved to, kept as node attributes that a constraint can use (`migration_check_interval`).
//!
//! What is a matter of the guest here alone is left out, such as a backup that is under way: every other node would have the same answer,
//! and it would be wrong where the guest is recovered.
//!
//! It costs what `kvmha check` costs, for each other node; so it is off unless wanted, and what was seen is noted beside the state file. A
//! service to the placement, as the utilization is: nothing that goes wrong here is the guest's, or makes an action fail.

use super::actions::Action;
use super::{Call, route};
use crate::cluster;
use crate::deadline::{Deadline, seconds_since_boot};
use crate::domain::definition::Identity;
use crate::domain::migration::preflight::{self, Subject};
use crate::domain::record;
use crate::domain::subnet::Unfound;
use crate::domain::{Connection, Definition};
use crate::domain::{Kind, Result};
use crate::log;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// Over how many seconds the first looks of all guests of a node are spread.
const SPREAD: i64 = 60;

/// How long all of it may take, and never more than half of the time.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is kept for writing the attributes.
const WRITING: Duration = Duration::from_secs(1);

/// Of each node, why a move to it would fail; `None` if nothing is in the way.
type Outlook = BTreeMap<String, Option<String>>;

/// What was found last.
#[derive(Default, Serialize, Deserialize)]
struct Note {
    /// When the look began, in seconds since boot.
    at: i64,
    outlook: Outlook,
}

impl Note {
    /// Whether it is time for another look. One that lies ahead is of another boot.
    fn is_due(&self, interval: i64, now: i64) -> bool {
        !(0..interval).contains(&(now - self.at))
    }
}

/// What a look at a node has shown.
#[derive(Debug)]
enum Look {
    /// Nothing is in the way of a move there.
    Free,
    /// What is in the way.
    Obstacle(String),
    /// It cannot be told.
    Untold,
}

impl Call {
    /// Looks at the other nodes, if it is time to, and keeps what was found.
    pub(super) fn update_outlook(&self) {
        let interval = i64::try_from(self.parameters.migration_check_interval).unwrap_or(i64::MAX);
        let (Some(node), Some(instance)) = (&self.environment.node, &self.environment.instance) else { return };
        if interval == 0 || self.action != Action::Monitor || !self.reaches_others() {
            return;
        }
        let note = self.shelf().get::<Note>(record::Slot::Outlook);
        let now = seconds_since_boot();
        let Some(note) = note else {
            // Here nothing is in the way. Guests that a node has got at once are looked at one after the other.
            let wait = instance.bytes().fold(0, |sum, byte| sum + i64::from(byte)) % SPREAD.min(interval);
            self.keep_outlook(node, "ok", &self.deadline.within(WRITING));
            return self.note_outlook(&Note { at: now - interval + wait, outlook: Outlook::new() });
        };
        if !note.is_due(interval, now) {
            return;
        }
        let before = note.outlook;
        // First, so that a look that is late does not make the next monitor late too.
        self.note_outlook(&Note { at: now, outlook: before.clone() });
        let Some(record) = self.record() else { return };
        let deadline = self.deadline.share(PATIENCE, 2);
        let outlook = match self.look_out(&record.identity(), node, &deadline.before(WRITING)) {
            Ok(outlook) => outlook,
            Err(error) => return log::debug(|| format!("where {} could be moved to: {error}", record.name)),
        };
        for (node, obstacle) in &outlook {
            let word = if obstacle.is_some() { "refuse" } else { "ok" };
            self.keep_outlook(node, word, &deadline);
            match obstacle {
                obstacle if before.get(node) == Some(obstacle) => {}
                Some(text) => log::warning(format_args!("{} could not be moved to {node}: {text}", record.name)),
                None => log::info(format_args!("nothing on {node} is in the way of a move of {}", record.name)),
            }
        }
        self.note_outlook(&Note { at: now, outlook });
    }

    fn keep_outlook(&self, node: &str, word: &str, deadline: &Deadline) {
        let name = format!("kvmha-check-{}", self.environment.instance.as_deref().unwrap_or_default());
        if let Err(trouble) = cluster::set_attribute(node, &name, Some(word), deadline) {
            log::debug(|| trouble.to_string());
        }
    }

    fn note_outlook(&self, note: &Note) {
        self.shelf().put(record::Slot::Outlook, note);
    }

    /// Looks at all nodes of this partition at once; those that give no answer in time are left out. Where the guest is, nothing is in the way.
    fn look_out(&self, identity: &Identity, here: &str, deadline: &Deadline) -> Result<Outlook> {
        let connection = Connection::open(&self.parameters.hypervisor.to_string(), deadline)?;
        let Some(definition) = Definition::running(&connection, &identity.name, deadline)? else { return Ok(Outlook::new()) };
        let subject = Subject { identity, definition: &definition, here: &connection };
        let nodes: Vec<String> = cluster::peers(deadline).into_iter().filter(|peer| peer.member).map(|peer| peer.name).collect();
        thread::scope(|scope| {
            // A thread that cannot be made is no reason to fail.
            let subject = &subject;
            let others = nodes.iter().filter(|node| *node != here);
            let looks = others.filter_map(|node| {
                let look = thread::Builder::new().spawn_scoped(scope, move || self.obstacle(subject, node, deadline));
                Some((node, look.ok()?))
            });
            let looks: Vec<_> = looks.collect();
            let seen = looks.into_iter().filter_map(|(node, look)| match look.join().ok()? {
                Look::Free => Some((node.clone(), None)),
                Look::Obstacle(text) => Some((node.clone(), Some(text))),
                Look::Untold => None,
            });
            Ok(seen.chain([(here.to_owned(), None)]).collect())
        })
    }

    /// What is in the way of a move to `node`.
    fn obstacle(&self, subject: &Subject, node: &str, deadline: &Deadline) -> Look {
        let plan = match route::plan_for(self, node, deadline) {
            Ok(plan) => plan,
            Err(unfound) => return unplanned(unfound),
        };
        match Connection::open(&plan.remote, deadline) {
            Err(error) if error.kind == Kind::Unresponsive => Look::Untold,
            Err(error) => Look::Obstacle(format!("target: {error}")),
            Ok(there) => preflight::of_target(subject, &plan, &there, deadline).map_or(Look::Free, Look::Obstacle),
        }
    }
}

/// What is in the way where a move cannot be planned. A name server that is slow or fails does so for all nodes, and says nothing of any.
fn unplanned(unfound: Unfound) -> Look {
    if unfound.is_unresolved { Look::Untold } else { Look::Obstacle(unfound.text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subnet::{Subnet, address_by};
    use std::io;

    /// By a clock that is made up, for a look that has 4 s.
    #[test]
    fn a_name_server_that_is_slow_or_fails_is_no_obstacle() {
        let said = |seconds: u64, is_well: bool, network: &str| {
            let network = Subnet::parse(network).unwrap();
            let find = move || {
                let resolve = move |_: &str| {
                    let _ = Deadline::after(Duration::from_secs(60)).pause(Duration::from_secs(seconds));
                    if is_well { Ok(vec!["10.0.0.2".parse().unwrap()]) } else { Err(io::Error::other("no name server answers")) }
                };
                let found = address_by(resolve, "node2", network, &Deadline::after(Duration::from_secs(4)));
                format!("{:?}", found.map_err(unplanned))
            };
            let world = || crate::simulation::hosts::World::new(&["qemu:///system"], false);
            crate::simulation::explore(0, world, find, |_, _| Ok(())).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(said(2, true, "10.0.0.0/8"), ["Ok(10.0.0.2)"]);
        assert_eq!(said(6, true, "10.0.0.0/8"), ["Err(Untold)"]);
        assert_eq!(said(2, false, "10.0.0.0/8"), ["Err(Untold)"]);
        assert_eq!(said(2, true, "10.1.0.0/16"), ["Err(Obstacle(\"the name node2 has no address in 10.1.0.0/16\"))"]);
    }

    #[test]
    fn when_it_is_time_to_look() {
        let note = Note { at: 1000, ..Note::default() };
        assert!(!note.is_due(300, 1000) && !note.is_due(300, 1299));
        assert!(note.is_due(300, 1300));
        // The clock began anew.
        assert!(note.is_due(300, 10));
    }
}
