//! How a resource is after a way that was not gone to its end.

use super::mark::set_id;
use crate::cluster::cib::Cib;
use crate::cluster::tool::Trouble;
use crate::deadline::Deadline;

/// How a resource is.
pub(super) struct Standing {
    agent: String,
    maintenance: bool,
    /// Something of a run is in the CIB.
    marked: bool,
}

impl Standing {
    /// How it is now.
    ///
    /// # Errors
    /// The CIB cannot be read.
    pub(super) fn of(resource: &str, deadline: &Deadline) -> Result<Self, Trouble> {
        let (cib, set) = (Cib::query(deadline)?, set_id(resource));
        Ok(Self {
            agent: cib.primitives().into_iter().find(|one| one.id == resource).map_or("gone".into(), |one| one.agent),
            maintenance: cib.value(&format!("{set}-maintenance")).as_deref() == Some("true"),
            marked: cib.has(&set),
        })
    }

    /// For the person, after a way that was not gone to its end.
    pub(super) fn text(&self, resource: &str, before: &str) -> String {
        let agent = &self.agent;
        let as_before = if agent == before { " as before" } else { "" };
        let set = set_id(resource);
        match (self.maintenance, self.marked) {
            (true, _) => format!(
                "{resource} is {agent}{as_before} and stays in maintenance, so that nothing stops it; run the command again when the cluster \
                 is well"
            ),
            (false, true) => format!(
                "{resource} is {agent}{as_before}, and not in maintenance; its meta attributes {set} are left, run the command again"
            ),
            (false, false) => format!("{resource} is {agent}{as_before}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_was_left() {
        let text = |maintenance, marked, agent: &str| {
            Standing { agent: agent.into(), maintenance, marked }.text("web1", "ocf:heartbeat:VirtualDomain")
        };
        assert_eq!(text(false, false, "ocf:heartbeat:VirtualDomain"), "web1 is ocf:heartbeat:VirtualDomain as before");
        assert!(text(true, true, "ocf:kvmha:VirtualDomain").starts_with("web1 is ocf:kvmha:VirtualDomain and stays in maintenance"));
        let left = text(false, true, "ocf:kvmha:VirtualDomain");
        assert!(left.contains("not in maintenance; its meta attributes web1-kvmha-adopt are left"), "{left}");
    }
}
