//! A cluster that is at rest, in which nobody does anything while a resource is changed.

use super::mark::set_id;
use crate::cluster::cib::Cib;
use crate::cluster::scheduler::{self, Operation, Step};
use crate::cluster::view::{self, View};
use crate::deadline::Deadline;
use anyhow::{bail, ensure};
use std::time::Duration;

/// How often a cluster that is not quiet is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// Whether a step leaves all guests alone: it looks, or forgets a failure.
pub(super) fn is_harmless(step: &Step) -> bool {
    step.operation == Operation::ClearFailcount || step.resource.is_some() && step.operation == Operation::Monitor
}

/// Waits until the cluster is quiet: nobody carries anything out, and nothing is left to be done.
///
/// # Errors
/// At the deadline: what keeps it from being quiet.
pub(super) fn quiet(deadline: &Deadline) -> anyhow::Result<View> {
    quiet_but_for(&[], deadline)
}

/// Like [`quiet`], but Pacemaker may still have to look for these resources, which are in maintenance.
///
/// Maintenance cancels their recurring monitors. Where a node remembered nothing else of one, as after a find that was forgotten and an
/// election, Pacemaker no longer knows where it is: its scheduler would look. But the controller takes that the monitor is gone from the
/// history for the end of its own request, and asks the scheduler only at the next change or recheck (`process_op_deletion` and
/// `confirm_cancel_action`, the same in pacemaker 2.1.5 and 3.0.0): to wait for it is in vain.
///
/// # Errors
/// At the deadline: what keeps it from being quiet.
pub(super) fn quiet_but_for(resources: &[String], deadline: &Deadline) -> anyhow::Result<View> {
    let mut last = None;
    loop {
        match is_quiet(resources, deadline) {
            Ok(view) => return Ok(view),
            Err(error) if !deadline.pause(POLL) => {
                // What was said before the time was up tells more than that it was up.
                return Err(last.unwrap_or(error).context("the cluster is not quiet, nothing is done now"));
            }
            Err(error) => last = Some(error),
        }
    }
}

fn is_quiet(but_for: &[String], deadline: &Deadline) -> anyhow::Result<View> {
    let view = View::query(deadline)?;
    let Some(controller) = &view.controller else { bail!("there is no controller") };
    ensure!(view.quorum, "this partition has no quorum");
    ensure!(!view.maintenance, "the cluster is in maintenance mode");
    if let Some(node) = view.nodes.iter().find(|node| node.unsettled) {
        bail!("node {} is coming, or has to be fenced", node.name);
    }
    ensure!(view::is_idle(controller, deadline)?, "Pacemaker is at work");
    if let Some(step) = scheduler::plan(deadline)?.iter().find(|step| !may_stay(step, but_for)) {
        bail!("Pacemaker is about to {step}");
    }
    Ok(view)
}

/// Whether a step need not be waited for: it only looks for one of these, or forgets a failure that has expired since the scheduler looked last,
/// which a controller at rest does not know before the next change, or `cluster-recheck-interval` (15 min).
fn may_stay(step: &Step, resources: &[String]) -> bool {
    let looks = step.operation == Operation::Monitor && step.resource.as_ref().is_some_and(|resource| resources.contains(resource));
    looks || step.operation == Operation::ClearFailcount
}

/// The resources that a run has put into maintenance and not taken out.
pub(super) fn in_maintenance(cib: &Cib) -> Vec<String> {
    let put = |id: &String| cib.value(&format!("{}-maintenance", set_id(id))).as_deref() == Some("true");
    cib.primitives().into_iter().map(|primitive| primitive.id).filter(put).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_quiet_cluster_may_have_yet_to_do() {
        let cib = Cib::parse(
            "<cib><configuration><resources><primitive id='web1'><meta_attributes id='web1-kvmha-adopt'>\
             <nvpair id='web1-kvmha-adopt-maintenance' name='maintenance' value='true'/></meta_attributes></primitive>\
             <primitive id='web2'><meta_attributes id='web2-meta'><nvpair id='web2-meta-maintenance' name='maintenance' value='true'/>\
             </meta_attributes></primitive></resources></configuration></cib>"
                .to_owned(),
        )
        .unwrap();
        let apart = in_maintenance(&cib);
        assert_eq!(apart, ["web1"]);
        let step = |resource: Option<&str>, operation: &str| Step {
            resource: resource.map(Into::into),
            operation: operation.into(),
            node: "node2".into(),
        };
        assert!(may_stay(&step(Some("web1"), "monitor"), &apart));
        let others =
            [(Some("web1"), "stop"), (Some("web1"), "cancel"), (Some("web1"), "start"), (Some("web2"), "monitor"), (None, "fence")];
        assert!(others.iter().all(|(resource, operation)| !may_stay(&step(*resource, operation), &apart)));
        assert!(!may_stay(&step(Some("web1"), "monitor"), &[]));
        assert!(may_stay(&step(None, "clear_failcount"), &[]), "a failure that has expired");
    }
}
