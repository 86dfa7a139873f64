//! What a round has asked for is taken back: a node that died, and a part of the cluster that was not heard, take the end of a request
//! with them.

use crate::play::{LIMIT, Play, target_role};
use anyhow::{Result, ensure};
use lab::cib::Requests;
use lab::history::{FaultKind, Request};
use lab::process::wait_until;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

/// Between two looks at what is still in force.
const LOOK: Duration = Duration::from_secs(1);
/// So often a guest is given back.
const TRIES: u32 = 3;

impl Play<'_> {
    fn requests(&self) -> Result<Requests> {
        Requests::parse(&self.stage.check("cibadmin --query")?)
    }

    /// Nodes leave standby, and guests are to run. What the losing part of a cluster has taken is lost when the parts have found together,
    /// though it was said to be done.
    pub fn take_back(&self) -> Result<()> {
        self.until_gone("a request", |requests| {
            for node in &requests.standby {
                self.ask(Request::Harmless, node, &format!("{node} online again"), &format!("crm_standby --node {node} --delete"));
            }
            for guest in &requests.stopped {
                self.ask(Request::Start, guest, &format!("start {guest} again"), &target_role(guest, "Started"));
            }
            requests.standby.is_empty() && requests.stopped.is_empty()
        })
    }

    /// Gives guests back to Pacemaker that a `kvmha migrate` has kept from it and died with its node: the next one does. It is asked for the
    /// node on which the guest is, so that it moves nothing.
    pub fn give_back(&self) -> Result<()> {
        for _ in 0..TRIES {
            let requests = self.requests()?;
            for guest in requests.held_by("migrate") {
                let seen = self.stage.wait(|seen| seen.dc.is_some())?;
                let found = seen.resources.iter().find(|one| one.id == *guest).and_then(|one| one.nodes.first().cloned());
                let place = found.map_or_else(|| self.stage.speaker(), Ok)?;
                let line = format!("kvmha migrate {guest} {place} --plain --timeout 60");
                // It has Pacemaker look for the guest anew.
                self.recorder.operation(Request::Forget, guest, &line, || self.migrate(&place, guest, &line));
            }
        }
        Ok(())
    }

    /// Takes away what draws guests to nodes. A `kvmha migrate` that came to its end has done so itself.
    pub fn release(&self) -> Result<()> {
        let drawn = std::mem::take(&mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner));
        // It may have been done in the part of the cluster that lost.
        let parted = self.recorder.since_rest(|kind| matches!(kind, FaultKind::NodeLost | FaultKind::NoQuorum));
        let mut said = BTreeSet::new();
        self.until_gone("a constraint", |requests| {
            for (guest, id) in &requests.constraints {
                if !parted && !drawn.contains(guest) && said.insert(id.clone()) {
                    self.leave(format!("the constraint {id} at {:.0} s, with nothing asked for that leaves one", self.recorder.now()));
                }
                self.ask(Request::Harmless, guest, &format!("release {guest}"), &format!("crm_resource --clear --resource {guest}"));
            }
            requests.constraints.is_empty()
        })
    }

    /// What is kept from Pacemaker for good.
    pub fn kept(&self) -> Result<Vec<String>> {
        let requests = self.requests()?;
        let kept = ["adopt", "migrate"].into_iter().flat_map(|command| requests.held_by(command).map(move |guest| (guest, command)));
        Ok(kept.map(|(guest, command)| format!("the meta attributes of {guest} by kvmha {command}")).collect())
    }

    /// Asks again until it is gone: `gone` says whether, by what is in force, and asks for what is not.
    fn until_gone(&self, what: &str, mut gone: impl FnMut(&Requests) -> bool) -> Result<()> {
        let mut last = Ok(());
        let all = wait_until(LIMIT, LOOK, || match self.requests() {
            Ok(requests) => gone(&requests),
            Err(error) => {
                last = Err(error);
                false
            }
        });
        ensure!(all, "{what} is still in force after {} s{}", LIMIT.as_secs(), last.err().map(|e| format!(": {e:#}")).unwrap_or_default());
        Ok(())
    }
}
