//! One resource: how it is configured, and what Pacemaker says of it at a moment.

use super::cib::{Cib, Part, Primitive};
use super::view::{self, Failure, View};
use crate::deadline::Deadline;

/// Reads a resource's configuration (`cibadmin --query`), with what it has from its template.
///
/// # Errors
/// Pacemaker does not answer, or has no such resource.
pub fn read(id: &str, deadline: &Deadline) -> Result<Primitive, String> {
    let cib = Cib::query_part(Part::Resources, deadline).map_err(|trouble| trouble.to_string())?;
    cib.resource(id).ok_or_else(|| format!("there is no resource {id}"))
}

/// What Pacemaker says of a resource at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The nodes on which it is active.
    pub nodes: Vec<String>,
    /// What is being done with it: `Migrating`, `Starting`...
    pub pending: Option<String>,
    /// Its failed moves.
    pub failed_moves: Vec<Failure>,
    /// How many of its actions have failed, moves included.
    pub failures: usize,
    /// The designated controller.
    pub controller: Option<String>,
}

impl Placement {
    /// Whether something is being done with it that may change where it is.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.pending.as_deref().is_some_and(|what| !view::is_look(what))
    }
}

/// Asks what Pacemaker says of a resource (`crm_mon`).
///
/// # Errors
/// Pacemaker does not answer, or has no such resource.
pub fn look(id: &str, deadline: &Deadline) -> Result<Placement, String> {
    let view = View::query(deadline).map_err(|trouble| trouble.to_string())?;
    let placed = view.resource(id).ok_or_else(|| format!("Pacemaker has no resource {id}"))?;
    Ok(Placement {
        nodes: placed.nodes.clone(),
        pending: placed.pending.clone(),
        failures: view.failures.iter().filter(|failure| failure.is_of(id)).count(),
        failed_moves: view.failures.iter().filter(|failure| failure.is_move_of(id)).cloned().collect(),
        controller: view.controller.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_changes_nothing() {
        let sight = |pending: Option<&str>| Placement { pending: pending.map(Into::into), ..Placement::default() };
        assert!(sight(Some("Migrating")).is_changing() && sight(Some("Starting")).is_changing());
        assert!(!sight(Some("Monitoring")).is_changing() && !sight(None).is_changing());
    }
}
