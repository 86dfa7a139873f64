//! Pacemaker's own tools, run with a deadline. Everything here is optional: where Pacemaker is not, there is no answer.

pub mod cib;
pub mod fencing;
pub mod foresight;
pub mod forgotten;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod moment;
pub mod resource;
pub mod scheduler;
pub mod tool;
pub mod utilization;
pub mod view;

use crate::deadline::{Deadline, Task};
use crate::log;
use view::View;

/// The id of the resource that has this instance: those of a clone are called `ID:NUMBER`.
#[must_use]
pub fn resource_of(instance: &str) -> &str {
    instance.split_once(':').map_or(instance, |(id, _)| id)
}

/// This node's name in the cluster.
///
/// # Errors
/// Pacemaker does not run here.
pub fn own_name(deadline: &Deadline) -> Result<String, tool::Trouble> {
    Ok(tool::run("crm_node", &["--name"], deadline)?.trim().to_owned())
}

/// A boolean of Pacemaker's, in any case (`crm_str_to_boolean` in its `lib/common/strings.c`). `None` for a word that is neither: what holds then is
/// for each place of Pacemaker's to say.
#[must_use]
pub fn boolean(word: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is(&["true", "on", "yes", "y", "1"]) {
        return Some(true);
    }
    is(&["false", "off", "no", "n", "0"]).then_some(false)
}

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

/// Sets an attribute of this node that every node can read as long as this one is in the cluster, and that is not written to the CIB: nothing is
/// recomputed for it. `None` removes it.
///
/// # Errors
/// It was not changed.
pub fn set_private(name: &str, value: Option<&str>, deadline: &Deadline) -> Result<(), tool::Trouble> {
    let mut words = vec!["--name", name, "--private"];
    words.extend(value.map_or(vec!["--delete"], |value| vec!["--update", value]));
    tool::run("attrd_updater", &words, deadline).map(drop)
}

/// The values that the nodes have of an attribute, with the nodes' names; none if no node has it.
///
/// # Errors
/// They are not known.
pub fn attribute(name: &str, deadline: &Deadline) -> Result<Vec<(String, String)>, tool::Trouble> {
    match tool::run("attrd_updater", &["--name", name, "--query", "--all"], deadline) {
        Ok(text) => parse_values(&text),
        Err(tool::Trouble::Failed(code, _)) if NO_VALUES.contains(&code) => Ok(Vec::new()),
        Err(trouble) => Err(trouble),
    }
}

/// The codes of `attrd_updater` for an attribute that no node has ever had: `CRM_EX_CONFIG`, from `pcmk_rc_schema_validation` of Pacemaker
/// 2.1.5 to 3.0 ("attribute does not exist" in `tools/attrd_updater.c`, seen with 2.1.5), and `CRM_EX_NOSUCH`, from the `ENXIO` of 2.1.0.
const NO_VALUES: [i32; 2] = [78, 105];

/// Of each line `name="…" host="NODE" value="VALUE"` (`do_query` in Pacemaker's `tools/attrd_updater.c`). What was removed has an empty value.
fn parse_values(text: &str) -> Result<Vec<(String, String)>, tool::Trouble> {
    let value = |line: &str| {
        let (node, value) = line.split_once(" host=\"")?.1.split_once("\" value=\"")?;
        Some((node.to_owned(), value.strip_suffix('"')?.to_owned()))
    };
    let values: Option<Vec<_>> = text.lines().filter(|line| !line.trim().is_empty()).map(value).collect();
    let values = values.ok_or_else(|| tool::Trouble::Nonsense(format!("attrd_updater: what it says is not understood: {text:?}")))?;
    Ok(values.into_iter().filter(|(_, value)| !value.is_empty()).collect())
}

/// A node of the cluster as the controller of this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether it is in this node's partition of the cluster. One that is not may be off, or have left in good order and run on.
    pub member: bool,
}

/// The nodes that have been in the cluster since Pacemaker was started here, this one included (`crm_node --list`), and the Pacemaker Remote nodes,
/// which corosync does not know (`crm_mon`); or none if Pacemaker does not say.
#[must_use]
pub fn peers(deadline: &Deadline) -> Vec<Peer> {
    #[cfg(test)]
    if crate::simulation::is_on() {
        return crate::simulation::world(|world| world.peers.clone());
    }
    let limit = *deadline;
    // Side by side: each start waits for this.
    let view = Task::start(move || View::query(&limit));
    let known = known(deadline);
    match view.wait(deadline) {
        Some(Ok(view)) => with_remotes(known, &view),
        Some(Err(trouble)) => {
            log::debug(|| trouble.to_string());
            known
        }
        None => known,
    }
}

/// The nodes that the controller knows, and those that stand in the configuration only because they have no corosync.
fn with_remotes(mut known: Vec<Peer>, view: &View) -> Vec<Peer> {
    for node in view.nodes.iter().filter(|node| node.remote) {
        if !known.iter().any(|peer| peer.name.eq_ignore_ascii_case(&node.name)) {
            known.push(Peer { name: node.name.clone(), member: node.online });
        }
    }
    known
}

fn known(deadline: &Deadline) -> Vec<Peer> {
    match tool::run("crm_node", &["--list"], deadline) {
        Ok(text) => parse_peers(&text),
        Err(trouble) => {
            log::debug(|| trouble.to_string());
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
    fn booleans_as_pacemaker_reads_them() {
        assert_eq!(["true", "ON", "Yes", "y", "1"].map(boolean), [Some(true); 5]);
        assert_eq!(["False", "off", "no", "N", "0"].map(boolean), [Some(false); 5]);
        // Some that the agent's own parameters take.
        assert_eq!(["ja", "nein", "f", "t", "", "2", " true"].map(boolean), [None; 7]);
    }

    #[test]
    fn peers_that_are_members_and_those_that_are_lost() {
        let peer = |name: &str, member| Peer { name: name.into(), member };
        let text = "1 node1 member\n2 node2 lost\n3 node3 \n4 node4\n\n";
        assert_eq!(parse_peers(text), [peer("node1", true), peer("node2", false), peer("node3", false), peer("node4", false)]);
    }

    #[test]
    fn values_of_an_attribute() {
        let value = |node: &str, value: &str| (node.to_owned(), value.to_owned());
        let text = "name=\"a\" host=\"node1\" value=\"x y,z\"\nname=\"a\" host=\"node2\" value=\"\"\n";
        assert_eq!(parse_values(text), Ok(vec![value("node1", "x y,z")]));
        assert_eq!(parse_values(""), Ok(Vec::new()));
        for text in ["no", "name=\"a\" host=\"node1\"", "name=\"a\" host=\"node1\" value=\"x"] {
            assert!(parse_values(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_without_corosync_are_peers_too() {
        let text = r#"<r><summary><current_dc present="true" name="node1" with_quorum="true"/></summary><nodes>
            <node name="node1" id="1" online="true" pending="false" unclean="false" type="member"/>
            <node name="node4" id="4" online="false" pending="false" unclean="false" type="member"/>
            <node name="host7" id="host7" online="true" pending="false" unclean="false" type="remote"/>
            <node name="host8" id="host8" online="false" pending="false" unclean="true" type="remote"/>
            <node name="web1" id="web1" online="true" pending="false" unclean="false" type="remote" id_as_resource="vm1"/>
            <node name="10.0.0.1" id="9" online="true" type="ping"/></nodes></r>"#;
        let view = view::parse(text).unwrap();
        let peer = |name: &str, member| Peer { name: name.into(), member };
        let corosync = [peer("node1", true), peer("node2", false)];
        let all = [&corosync[..], &[peer("host7", true), peer("host8", false)]].concat();
        assert_eq!(with_remotes(corosync.to_vec(), &view), all);
        assert_eq!(with_remotes(all.clone(), &view), all, "a node is asked once");
        assert_eq!(with_remotes(Vec::new(), &view), all[2..]);
    }
}
