//! The move while it is under way: how far it is, and how it ends.

use super::super::progress::Show;
use super::{LOOK, PATIENCE, PERSISTENCE, QUESTION, crm_resource, look, persist};
use crate::cluster::resource::Placement;
use crate::cluster::tool::{self, Trouble};
use crate::cluster::view::{self, Failure};
use crate::deadline::{Deadline, Task, now};
use crate::domain::connection::{Connection, Guest};
use crate::domain::ffi::Job;
use anyhow::Context;
use std::time::Duration;

/// How often the job is asked for.
const GLANCE: Duration = Duration::from_millis(250);

/// How it ended.
pub(super) enum Ending {
    /// It is on the node, and nothing is done with it any more.
    Moved,
    /// A move of it has failed: why.
    Failed(String),
    /// It may be under way still: why nobody waits for it any longer.
    Unknown(String),
}

pub(super) struct Mover<'a> {
    pub(super) id: &'a str,
    pub(super) node: &'a str,
    pub(super) name: String,
    pub(super) libvirt: Connection,
    /// Failed moves that were known before.
    pub(super) failures: Vec<Failure>,
}

impl Mover<'_> {
    /// Asks Pacemaker for it, for `seconds` at most.
    pub(super) fn ask(&self, seconds: u64) -> Result<(), Trouble> {
        let words = ["--move", "--resource", self.id, "--node", self.node, "--lifetime", &format!("PT{seconds}S")];
        tool::run("crm_resource", &words, &Deadline::after(QUESTION)).map(drop)
    }

    pub(super) fn watch(&self, interrupt: &Task<bool>, plain: bool, deadline: &Deadline) -> Ending {
        let show = Show::new(plain, self.id, self.node);
        let ending = self.follow(&show, interrupt, deadline);
        show.clear();
        ending
    }

    fn follow(&self, show: &Show, interrupt: &Task<bool>, deadline: &Deadline) -> Ending {
        // When Pacemaker was last asked, when it last answered, and when something was last seen being done.
        let (mut asked, mut heard, mut active) = (now(), now(), now());
        loop {
            if interrupt.wait(&Deadline::after(GLANCE)).is_some() {
                return Ending::Unknown("interrupted".to_owned());
            }
            if deadline.expired() {
                return Ending::Unknown("the time is over".to_owned());
            }
            if let Some(job) = self.job() {
                active = now();
                show.progress(&job);
            }
            if now() - asked < LOOK {
                continue;
            }
            asked = now();
            let seen = match look(self.id) {
                Ok(seen) => seen,
                Err(error) if now() - heard > PERSISTENCE => return Ending::Unknown(format!("{error:#}")),
                // On a busy node an answer may not come in time: that says nothing of the move.
                Err(_) => {
                    active = now();
                    continue;
                }
            };
            heard = now();
            if let Some(reason) = new_failure(&seen, &self.failures) {
                return Ending::Failed(reason);
            }
            if seen.is_changing() || !is_at_rest(&seen) {
                active = now();
            }
            if seen.nodes == [self.node] && !seen.is_changing() {
                return Ending::Moved;
            }
            // Also after it was begun: somebody else may have asked for something else meanwhile.
            if now() - active > PATIENCE {
                let place = if seen.nodes.is_empty() { "stopped".to_owned() } else { format!("on {}", seen.nodes.join(", ")) };
                return Ending::Unknown(format!("Pacemaker leaves it {place} (crm_simulate --live-check --show-scores tells why)"));
            }
        }
    }

    pub(super) fn guest(&self) -> Option<Guest> {
        self.libvirt.guest(&self.name, &Deadline::after(Duration::from_secs(2))).ok()?
    }

    /// The move's job at the source.
    pub(super) fn job(&self) -> Option<Job> {
        let job = self.guest()?.job(&Deadline::after(Duration::from_secs(2))).ok()?;
        job.filter(Job::is_outgoing_migration)
    }

    /// Takes away what [`Mover::ask`] has left.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        persist(&Deadline::after(PERSISTENCE), || crm_resource(self.id, &["--clear", "--node", self.node]))
            .with_context(|| format!("its constraint is left: crm_resource --clear --resource {} --node {}", self.id, self.node))
    }
}

/// Why a move has failed since `known` was all that had. A failure that nobody cleans up is replaced by the next one, so that their number says
/// nothing.
fn new_failure(seen: &Placement, known: &[Failure]) -> Option<String> {
    let is_known = |failure: &&Failure| {
        known.iter().any(|known| (&known.key, &known.node, &known.call) == (&failure.key, &failure.node, &failure.call))
    };
    // A move that failed is listed for both nodes, for one of them without a reason.
    let new = seen.failed_moves.iter().filter(|failure| !is_known(failure));
    new.map(|failure| format!("{}: {}", failure.node, failure.reason)).max_by_key(String::len)
}

/// Whether Pacemaker has nothing under way: a move is begun only when all has ended that was begun before (`te_graph_trigger` in its
/// `daemons/controld/controld_te_utils.c`). No answer says nothing.
fn is_at_rest(seen: &Placement) -> bool {
    seen.controller.as_deref().is_some_and(|controller| view::is_idle(controller, &Deadline::after(QUESTION)).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_has_taken_the_place_of_another_is_a_new_one() {
        let failure = |node: &str, call: &str, reason: &str| Failure {
            key: "web1_migrate_to_0".to_owned(),
            node: node.to_owned(),
            call: call.to_owned(),
            reason: reason.to_owned(),
        };
        let sight = |failed_moves: Vec<Failure>| Placement { failed_moves, ..Placement::default() };
        let known = [failure("node1", "7", "no route")];
        assert_eq!(new_failure(&sight(known.to_vec()), &known), None);
        assert_eq!(new_failure(&sight(Vec::new()), &known), None, "cleaned up");
        assert_eq!(
            new_failure(&sight(vec![failure("node1", "9", "lan is not active")]), &known).as_deref(),
            Some("node1: lan is not active")
        );
        let both = vec![failure("node1", "7", "no route"), failure("node2", "7", "e"), failure("node2", "8", "the longer one")];
        assert_eq!(new_failure(&sight(both), &known).as_deref(), Some("node2: the longer one"));
    }
}
