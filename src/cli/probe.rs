//! The probe by which a guest is found running: Pacemaker did not expect that, keeps it as a failure, and has to forget it.
//!
//! Pacemaker keeps a probe that finds what it did not expect as a failed operation, and one without the digest that tells which parameters can
//! be reloaded (`pcmk__create_history_xml` and `build_operation_update`, pacemaker 2.1.5). It stays in the memory of the node's controller, and
//! the next change of any parameter would restart the guest because of it ("agent doesn't support reload" of `pcmk__check_action_config`),
//! though the agent can reload. Each refresh of a guest that runs leads to one. Pacemaker itself forgets it when it expires as a failure that
//! counts.

use crate::cluster;
use crate::cluster::cib::{Change, Cib};
use crate::deadline::{Deadline, now};
use anyhow::{Context, ensure};
use std::time::Duration;

/// How long a change may take.
const CHANGE: Duration = Duration::from_secs(20);

/// How often the cluster is looked at.
const POLL: Duration = Duration::from_millis(150);

/// How long Pacemaker may take to forget a failure that has expired. It takes a second or two, on a busy cluster longer.
const FORGETTING: Duration = Duration::from_secs(60);

/// After how long it is reminded: only a change makes the scheduler look again before its next recheck (15 min by default).
const REMINDING: Duration = Duration::from_secs(10);

/// A guest that was found running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Find {
    pub(super) resource: String,
    /// Where: its controller has to forget it.
    pub(super) node: String,
    /// The set of meta attributes of the resource by which it is made to expire; whoever makes the find forgotten deletes it.
    pub(super) set: String,
}

impl Find {
    /// The find of `resource` on `node` that is still kept there, if there is one, to be made to expire by the set called `set`.
    pub(super) fn kept(cib: &Cib, resource: &str, node: &str, set: String) -> Option<Self> {
        let find = Self { resource: resource.to_owned(), node: node.to_owned(), set };
        find.is_kept(cib).then_some(find)
    }

    fn is_kept(&self, cib: &Cib) -> bool {
        cib.histories(&self.resource).iter().any(|one| one.node == self.node && one.find)
    }

    /// Makes it a failure that has expired.
    ///
    /// # Errors
    /// It may count: see [`Find::uncount`].
    pub(super) fn expire(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let Self { resource, set, .. } = self;
        Change::meta(resource, set, &[("timeout", "failure-timeout", "1s")]).persist(&deadline.within(CHANGE))?;
        // The time first: a failure without one would be a fresh one.
        ensure!(Cib::query(&deadline.within(CHANGE))?.has(&format!("{set}-timeout")), "the meta attributes {set} were not set");
        for name in self.counters() {
            cluster::set_attribute(&self.node, &name, Some("1"), &deadline.within(CHANGE))?;
        }
        Ok(())
    }

    /// The attributes by which Pacemaker counts failures of a probe: the time of the last one in seconds since 1970, and how many. Any past
    /// time and any number have expired.
    fn counters(&self) -> [String; 2] {
        ["last-failure", "fail-count"].map(|word| format!("{word}-{}#monitor_0", self.resource))
    }

    /// Waits until Pacemaker has forgotten it; whether it has.
    ///
    /// # Errors
    /// It may count: see [`Find::uncount`].
    pub(super) fn forget(&self, deadline: &Deadline) -> anyhow::Result<bool> {
        let patience = deadline.within(FORGETTING);
        let (mut reminded, mut times) = (now(), 1);
        let forgotten = loop {
            if Cib::query(&deadline.within(CHANGE)).is_ok_and(|cib| !self.is_kept(&cib)) {
                break true;
            }
            if !patience.pause(POLL) {
                break false;
            }
            if now() - reminded >= REMINDING {
                (reminded, times) = (now(), times + 1);
                for name in self.counters() {
                    let _ = cluster::set_attribute(&self.node, &name, Some(&times.to_string()), &deadline.within(CHANGE));
                }
            }
        };
        // Pacemaker takes them away with what it forgets, which may have been right before a reminder. Without a time after which they
        // expire they would count.
        self.uncount()?;
        Ok(forgotten)
    }

    /// Takes the failure back that was made to expire: once the set with its time is gone, it would count.
    ///
    /// # Errors
    /// It counts as soon as the set is gone.
    pub(super) fn uncount(&self) -> anyhow::Result<()> {
        let deadline = Deadline::after(CHANGE);
        for name in self.counters() {
            let left = || {
                let (node, resource) = (&self.node, &self.resource);
                format!("the attribute {name} of {node} is left, and counts: crm_resource --refresh --force --resource {resource}")
            };
            let is_left = |cib: &Cib| cib.transient(&name).iter().any(|(node, found, _)| *node == self.node && *found == name);
            if Cib::query(&deadline).is_ok_and(|cib| !is_left(&cib)) {
                continue;
            }
            cluster::set_attribute(&self.node, &name, None, &Deadline::after(CHANGE)).with_context(left)?;
            // It is brought into the CIB later than it is asked for.
            while !Cib::query(&deadline).is_ok_and(|cib| !is_left(&cib)) {
                ensure!(deadline.pause(POLL), left());
            }
        }
        Ok(())
    }
}

/// The set of meta attributes by which a find is made to expire that nothing else is done with.
pub(super) fn set_id(resource: &str) -> String {
    format!("{resource}-kvmha-repair")
}

/// Has Pacemaker forget a find, in a set of its own ([`set_id`]), which is gone afterwards.
///
/// # Errors
/// It is not forgotten, or the set is left.
pub(super) fn forget(find: &Find) -> anyhow::Result<()> {
    let deadline = Deadline::after(FORGETTING + 2 * CHANGE);
    let forgotten = find.expire(&deadline).and_then(|()| find.forget(&deadline));
    if let Err(error) = &forgotten {
        // As long as something may count the time after which it does not has to stay: the next run deletes it.
        find.uncount().with_context(|| format!("{error:#}"))?;
    }
    let set = &find.set;
    Change::without("meta_attributes", set).persist(&Deadline::after(CHANGE))?;
    ensure!(!Cib::query(&Deadline::after(CHANGE))?.has(set), "the meta attributes {set} were not deleted");
    ensure!(forgotten?, "Pacemaker has not forgotten it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The history of web1 on node1: these operations, as number, kind of entry, operation, code.
    fn cib(operations: &[(u32, &str, &str, i32)]) -> Cib {
        let operation = |(call, entry, operation, code): &(u32, &str, &str, i32)| {
            let interval = if *entry == "monitor_10000" { 10000 } else { 0 };
            format!(
                "<lrm_rsc_op id='web1_{entry}' operation='{operation}' call-id='{call}' rc-code='{code}' op-status='0' interval='{interval}'/>"
            )
        };
        Cib::parse(format!(
            "<cib><status><node_state uname='node1'><lrm><lrm_resources><lrm_resource id='web1'>{}</lrm_resource></lrm_resources></lrm>\
             </node_state></status></cib>",
            operations.iter().map(operation).collect::<String>()
        ))
        .unwrap()
    }

    #[test]
    fn a_find_counts_until_the_guest_is_started_or_moved() {
        let kept = |operations: &[(u32, &str, &str, i32)], node: &str| Find::kept(&cib(operations), "web1", node, set_id("web1")).is_some();
        let found = [(9, "last_failure_0", "monitor", 0), (9, "last_0", "monitor", 0), (11, "monitor_10000", "monitor", 0)];
        assert!(kept(&found, "node1"));
        assert!(!kept(&found, "node2"));
        // A stop that failed is compared with nothing.
        assert!(kept(&[(9, "last_failure_0", "monitor", 0), (12, "last_0", "stop", 1)], "node1"));
        for (after, later) in [("start", 12), ("migrate_from", 12)] {
            assert!(!kept(&[(9, "last_failure_0", "monitor", 0), (later, "last_0", after, 0)], "node1"), "{after}");
        }
        assert!(kept(&[(9, "last_failure_0", "monitor", 0), (7, "last_0", "start", 0)], "node1"), "before");
        assert!(!kept(&[(9, "last_failure_0", "monitor", 1)], "node1"), "it could not tell");
        assert!(!kept(&[(9, "last_failure_0", "migrate_to", 1), (5, "last_0", "monitor", 0)], "node1"), "another failure");
        assert!(!kept(&[(9, "last_0", "monitor", 0)], "node1") && !kept(&[], "node1"));
    }
}
