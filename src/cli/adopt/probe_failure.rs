//! The probe by which the new agent finds the guest running: Pacemaker did not expect that, keeps it as a failure, and has to forget it.

use super::journey::{CHANGE, Journey, POLL, set_id};
use super::{Provider, tell};
use crate::cluster;
use crate::cluster::cib::Cib;
use crate::deadline::Deadline;
use anyhow::Context;
use std::time::{Duration, Instant};

/// How long Pacemaker may take to forget a failure that has expired. It takes a second or two, on a busy cluster longer.
const FORGETTING: Duration = Duration::from_secs(60);

/// After how long it is reminded: only a change makes the scheduler look again before its next recheck (15 min by default).
const REMINDING: Duration = Duration::from_secs(10);

impl Journey {
    /// The node whose controller has to forget that failure, if one has to: only this agent can reload.
    pub(super) fn node_to_forget<'a>(&self, node: Option<&'a str>) -> Option<&'a str> {
        node.filter(|_| self.goal == Provider::Kvmha)
    }

    /// Makes the probe that found the guest a failure that has expired.
    ///
    /// Pacemaker keeps a probe that finds what it did not expect as a failed operation, and one without the digest that tells which
    /// parameters can be reloaded (`pcmk__create_history_xml` and `build_operation_update`, pacemaker 2.1.5). It stays in the memory of the
    /// node's controller, and the next change of any parameter would restart the guest because of it, though the agent can reload.
    /// Pacemaker itself forgets it when it expires as a failure that counts.
    pub(super) fn expire_probe_failure(&self, node: &str, deadline: &Deadline) -> anyhow::Result<()> {
        let (resource, set) = (&self.resource, set_id(&self.resource));
        let xml = format!(
            "<primitive id=\"{resource}\"><meta_attributes id=\"{set}\">\
             <nvpair id=\"{set}-timeout\" name=\"failure-timeout\" value=\"1s\"/></meta_attributes></primitive>"
        );
        self.modify(&["--modify", "--allow-create", "--scope", "resources", "--xml-text", &xml], deadline)?;
        // The time first: a failure without one would be a fresh one.
        for name in self.counters() {
            cluster::set_attribute(node, &name, Some("1"), &deadline.within(CHANGE))?;
        }
        Ok(())
    }

    /// The attributes by which Pacemaker counts failures of a probe: the time of the last one in seconds since 1970, and how many. Any past
    /// time and any number have expired.
    fn counters(&self) -> [String; 2] {
        ["last-failure", "fail-count"].map(|word| format!("{word}-{}#monitor_0", self.resource))
    }

    /// Ends the maintenance itself, and waits until Pacemaker has forgotten that it did not expect to find the guest.
    pub(super) fn forget_probe_failure(&self, node: &str, deadline: &Deadline) -> anyhow::Result<()> {
        let resource = &self.resource;
        self.modify(&["--delete", "--xml-text", &format!("<nvpair id=\"{}-maintenance\"/>", set_id(resource))], deadline)?;
        let patience = deadline.within(FORGETTING);
        let (mut reminded, mut times) = (Instant::now(), 1);
        let forgotten = loop {
            let seen = Cib::query(&deadline.within(CHANGE));
            if seen.is_ok_and(|cib| !cib.histories(resource).iter().any(|one| one.node == node && one.failed)) {
                break true;
            }
            if !patience.pause(POLL) {
                break false;
            }
            if reminded.elapsed() >= REMINDING {
                (reminded, times) = (Instant::now(), times + 1);
                for name in self.counters() {
                    let _ = cluster::set_attribute(node, &name, Some(&times.to_string()), &deadline.within(CHANGE));
                }
            }
        };
        // Pacemaker takes them away with what it forgets, which may have been right before a reminder. Without a time after which they
        // expire they would count.
        if !forgotten || times > 1 {
            self.uncount(node)?;
        }
        if !forgotten {
            tell(&format!("{resource}: until it is moved or started the next time, changing one of its parameters restarts it"));
        }
        Ok(())
    }

    /// Takes the failure back that was made to expire: once the set with its time is gone, it would count.
    pub(super) fn uncount(&self, node: &str) -> anyhow::Result<()> {
        for name in self.counters() {
            cluster::set_attribute(node, &name, None, &Deadline::after(CHANGE)).with_context(|| {
                format!("the attribute {name} of {node} is left, and counts: crm_resource --refresh --resource {}", self.resource)
            })?;
        }
        Ok(())
    }
}
