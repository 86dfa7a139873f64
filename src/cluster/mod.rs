//! Pacemaker's own tools, run with a deadline. Everything here is optional: where Pacemaker is not, there is no answer.

pub mod cib;
pub mod fencing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub mod resource;
pub mod scheduler;
pub mod tool;
pub mod utilization;
pub mod view;

use crate::deadline::Deadline;
use crate::log;
use crate::program::{self, Outcome};

/// Sets a transient attribute of a node, or removes it (`attrd_updater`).
///
/// # Errors
/// It was not changed.
pub fn set_attribute(node: &str, name: &str, value: Option<&str>, deadline: &Deadline) -> Result<(), tool::Trouble> {
    let words = match value {
        Some(value) => vec!["--name", name, "--update", value, "--node", node],
        None => vec!["--name", name, "--delete", "--node", node],
    };
    tool::run("attrd_updater", &words, deadline).map(drop)
}

/// The names of the nodes in this node's partition of the cluster, this one included (`crm_node --partition`), or none if
/// Pacemaker does not say.
#[must_use]
pub fn partition(deadline: &Deadline) -> Vec<String> {
    match program::run("crm_node", &["--partition"], deadline) {
        Ok(finished) if matches!(finished.outcome, Outcome::Exited(0)) => {
            String::from_utf8_lossy(&finished.stdout).split_whitespace().map(Into::into).collect()
        }
        Ok(finished) => {
            log::debug(|| format!("crm_node: {:?}: {}", finished.outcome, String::from_utf8_lossy(&finished.stderr)));
            Vec::new()
        }
        Err(error) => {
            log::debug(|| format!("crm_node: {error}"));
            Vec::new()
        }
    }
}
