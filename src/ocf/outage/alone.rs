//! The proof that no other node has a guest, before one that stands still here is let go on.
//!
//! Who lost the guest to another node may not know it: fenced by a switch or a storage array instead of a power switch, or in the other half
//! of a cluster of two, where either half has quorum. So it takes more than a partition that agrees: every node that the cluster knows has
//! to say that it does not have the guest, or be known to be down, by fencing or because it left in good order.
//!
//! That none has it now is not enough: one may have had it and ended it, and then the disks are newer than this guest's memory. It is fencing
//! that rules this out, as nobody starts the guest elsewhere before this node was fenced, and fencing that leaves the guest alive (a switch, a
//! storage array) makes Pacemaker on this node end: so the guest has to be younger than the Pacemaker that calls. Without fencing there is no
//! such proof, however well the nodes see each other now.

use super::instead;
use crate::cluster::view::View;
use crate::deadline::Deadline;
use crate::domain::definition::Identity;
use crate::domain::elsewhere::{self, Host};
use crate::domain::evidence;
use crate::ocf::{Call, route};

impl Call {
    /// Sees to it that no other node has the guest or could have it, and that Pacemaker wants this resource here.
    ///
    /// # Errors
    /// A sentence that stays the same as long as its cause does.
    pub(super) fn alone(&self, identity: &Identity, deadline: &Deadline) -> Result<(), String> {
        let (Some(here), Some(resource)) = (&self.environment.node, &self.environment.instance) else {
            return Err("Pacemaker has not called this".into());
        };
        if !self.reaches_others() {
            return Err("the other nodes cannot be asked for it, migration_transport is not set".into());
        }
        let emulator = evidence::find(identity, None, deadline).ok().and_then(|found| found.first().map(|emulator| emulator.start));
        if !is_since(emulator, evidence::start_of_caller()) {
            return Err("Pacemaker was started here after the guest, which another node may have run before that".into());
        }
        let view = || View::query(deadline).map_err(instead("Pacemaker does not say how the cluster is"));
        let nodes = to_ask(&view()?, here, resource)?;
        let hosts =
            nodes.iter().map(|node| Host { uri: route::remote(self, node), name: node.clone(), patience: deadline.left() }).collect();
        elsewhere::nowhere(identity, hosts, deadline)?;
        // While they were asked this node may have lost the others.
        if to_ask(&view()?, here, resource)? != nodes {
            return Err("nodes have come or gone while they were asked".into());
        }
        Ok(())
    }
}

/// Whether an emulator was started under the Pacemaker that calls; times in clock ticks since boot.
fn is_since(emulator: Option<u64>, caller: Option<u64>) -> bool {
    emulator.zip(caller).is_some_and(|(emulator, caller)| emulator >= caller)
}

/// The nodes that have to be asked whether they have a guest.
///
/// # Errors
/// No answer of theirs would be a proof.
fn to_ask(view: &View, here: &str, resource: &str) -> Result<Vec<String>, String> {
    is_here(view, here, resource)?;
    let others = || view.nodes.iter().filter(|node| node.name != here);
    if let Some(node) = others().find(|node| node.unsettled) {
        return Err(format!("{} is not known to be down", node.name));
    }
    if !view.fencing && others().next().is_some() {
        return Err("without fencing another node may have run it in the meantime".into());
    }
    Ok(others().filter(|node| node.online).map(|node| node.name.clone()).collect())
}

/// Whether Pacemaker has this resource here, by its own word, and acts on it.
///
/// # Errors
/// Why not.
pub(super) fn is_here(view: &View, here: &str, resource: &str) -> Result<(), String> {
    if !view.quorum {
        return Err("this part of the cluster has no quorum".into());
    }
    if !view.online().any(|node| node == here) {
        return Err(format!("Pacemaker does not say that {here} is online"));
    }
    let placed = view.resource(resource).ok_or_else(|| format!("Pacemaker does not know {resource}"))?;
    if !placed.managed || view.maintenance {
        return Err(format!("Pacemaker does not manage {resource}"));
    }
    if placed.nodes != [here] {
        return Err(format!("Pacemaker does not say that {resource} is here alone"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{Member, Placed};

    fn node(name: &str, online: bool, unsettled: bool) -> Member {
        Member { name: name.into(), online, unsettled, standby: false, remote: false }
    }

    fn cluster(nodes: Vec<Member>) -> View {
        let vm1 = Placed {
            id: "vm1".into(),
            agent: String::new(),
            role: "Started".into(),
            managed: true,
            failed: false,
            blocked: false,
            pending: None,
            nodes: vec!["node1".into()],
        };
        View { controller: None, quorum: true, maintenance: false, fencing: true, nodes, resources: vec![vm1], failures: Vec::new() }
    }

    #[test]
    fn a_guest_that_is_older_than_pacemaker_here() {
        assert!(is_since(Some(2), Some(1)) && is_since(Some(1), Some(1)));
        assert!(!is_since(Some(1), Some(2)) && !is_since(None, Some(1)) && !is_since(Some(1), None));
        assert!(evidence::start_of_caller().is_some());
    }

    #[test]
    fn who_has_to_be_asked() {
        let both = cluster(vec![node("node1", true, false), node("node2", true, false), node("node3", false, false)]);
        assert_eq!(to_ask(&both, "node1", "vm1"), Ok(vec!["node2".to_owned()]), "one that is down for certain is not asked");
        let one = View { fencing: false, ..cluster(vec![node("node1", true, false)]) };
        assert_eq!(to_ask(&one, "node1", "vm1"), Ok(Vec::new()), "a cluster of one");
    }

    #[test]
    fn what_is_no_proof() {
        let (one, other) = (node("node1", true, false), node("node2", true, false));
        let refused = |view: &View, end: &str| {
            let text = to_ask(view, "node1", "vm1").unwrap_err();
            assert!(text.ends_with(end), "{text}");
        };
        // Two nodes, cut apart: each has quorum, and has yet to fence the other.
        refused(&cluster(vec![one.clone(), node("node2", false, true)]), "node2 is not known to be down");
        for there in [true, false] {
            refused(&View { fencing: false, ..cluster(vec![one.clone(), node("node2", there, false)]) }, "in the meantime");
        }
        refused(&View { quorum: false, ..cluster(vec![one.clone(), other.clone()]) }, "no quorum");
        refused(&View { maintenance: true, ..cluster(vec![one.clone(), other.clone()]) }, "does not manage vm1");
        refused(&cluster(vec![node("node1", false, false), other.clone()]), "node1 is online");
        refused(&View { resources: Vec::new(), ..cluster(vec![one.clone()]) }, "does not know vm1");
        let mut view = cluster(vec![one, other]);
        for nodes in [&["node2"][..], &["node1", "node2"], &[]] {
            view.resources[0].nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
            refused(&view, "vm1 is here alone");
        }
        view.resources[0].managed = false;
        refused(&view, "does not manage vm1");
    }
}
