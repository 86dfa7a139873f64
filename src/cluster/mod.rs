//! Pacemaker's own tools, run with a deadline. Everything here is optional: where Pacemaker is not, there is no answer.

pub mod cib;
pub mod fencing;
pub mod foresight;
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

/// A node of the cluster as the controller of this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether it is in this node's partition of the cluster. One that is not may be off, or have left in good order and run on.
    pub member: bool,
}

/// The nodes that have been in the cluster since Pacemaker was started here, this one included (`crm_node --list`), or none if Pacemaker does
/// not say. Pacemaker Remote nodes are not among them: who has joined is the membership of corosync.
#[must_use]
pub fn peers(deadline: &Deadline) -> Vec<Peer> {
    match program::run("crm_node", &["--list"], deadline) {
        Ok(finished) if matches!(finished.outcome, Outcome::Exited(0)) => parse_peers(&String::from_utf8_lossy(&finished.stdout)),
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

/// Of each line: number, name, `member` or `lost`.
fn parse_peers(text: &str) -> Vec<Peer> {
    let peer = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some(Peer { name: words.next()?.to_owned(), member: words.next() == Some("member") })
    };
    text.lines().filter_map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_are_members_and_those_that_are_lost() {
        let peer = |name: &str, member| Peer { name: name.into(), member };
        let text = "1 node1 member\n2 node2 lost\n3 node3 \n4 node4\n\n";
        assert_eq!(parse_peers(text), [peer("node1", true), peer("node2", false), peer("node3", false), peer("node4", false)]);
    }
}
