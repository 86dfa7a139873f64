//! Whether corosync counts right, by this node's own `corosync.conf`.

use super::{Found, Patient};
use std::fs;

const FILE: &str = "/etc/corosync/corosync.conf";

/// What matters of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    nodes: usize,
    two_node: bool,
    /// `None`: not said.
    wait_for_all: Option<bool>,
    provider: bool,
    /// A quorum device gives votes of its own.
    device: bool,
}

/// Quorum now, and the settings by which it will be lost.
pub(super) fn quorum(patient: &Patient, found: &mut Found) {
    lost(patient, found);
    match fs::read_to_string(FILE) {
        Ok(text) => judge(&read(&text), found),
        Err(error) => found.warning(format!("{FILE} cannot be read: {error}"), "run it as root on a node of the cluster"),
    }
}

fn lost(patient: &Patient, found: &mut Found) {
    if !patient.view.quorum {
        let what = if patient.cib.ignores_quorum() {
            "guests are started all the same, by no-quorum-policy=ignore, and may run elsewhere too"
        } else {
            "nothing is started here"
        };
        found
            .problem(format!("this partition has no quorum: {what}"), "bring the other nodes back; corosync-quorumtool -s shows the votes");
    }
}

fn judge(settings: &Settings, found: &mut Found) {
    if !settings.provider {
        found.problem(
            "corosync counts no votes: every part of a cluster that is torn apart takes itself for the whole",
            "provider: corosync_votequorum in the section quorum of corosync.conf, on every node",
        );
    }
    match (settings.nodes, settings.two_node) {
        (2, false) if !settings.device => found.warning(
            "two nodes without two_node: when one is lost the other has no quorum, and runs nothing",
            "two_node: 1 in the section quorum of corosync.conf on both nodes, then corosync-cfgtool -R on one; or a quorum device",
        ),
        (2, true) if settings.wait_for_all == Some(false) => found.problem(
            "two_node without wait_for_all: a node that starts alone fences the other, and takes over its guests",
            "remove wait_for_all: 0 from corosync.conf on both nodes: two_node sets it by itself, from corosync's next start on",
        ),
        (nodes, true) if nodes > 2 => found.problem(
            format!("two_node: 1 with {nodes} nodes: a single node takes itself for a cluster with quorum"),
            "remove two_node from the section quorum of corosync.conf on every node, then corosync-cfgtool -R on one",
        ),
        _ => {}
    }
}

/// Sections in braces, a setting a line.
fn read(text: &str) -> Settings {
    let mut settings = Settings::default();
    let mut sections: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_suffix('{') {
            sections.push(name.trim());
            match &sections[..] {
                ["nodelist", "node"] => settings.nodes += 1,
                ["quorum", "device"] => settings.device = true,
                _ => {}
            }
        } else if line == "}" {
            sections.pop();
        } else if let (["quorum"], Some((name, value))) = (&sections[..], line.split_once(':')) {
            match (name.trim(), value.trim()) {
                ("two_node", value) => settings.two_node = value == "1",
                ("wait_for_all", value) => settings.wait_for_all = Some(value == "1"),
                ("provider", value) => settings.provider = value == "corosync_votequorum",
                _ => {}
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::tests::{found, patient};

    #[test]
    fn what_is_done_without_quorum() {
        let said = |options: &[(&str, &str)]| found(lost, &patient(3, false, options, ""));
        assert!(said(&[])[0].0.contains("nothing is started here"));
        let ignored = said(&[("no-quorum-policy", "ignore")]);
        assert!(ignored[0].0.contains("no-quorum-policy=ignore") && !ignored[0].0.contains("nothing is started"), "{ignored:?}");
        assert_eq!(found(lost, &patient(3, true, &[], "")), []);
    }

    /// The texts; no remedy may name what cannot do it, or destroys the cluster.
    fn judged(nodes: usize, quorum: &str) -> String {
        let nodes = "node {\n name: x\n}\n".repeat(nodes);
        let settings = read(&format!("# two_node: 1\nquorum {{\n  provider: corosync_votequorum\n{quorum}\n}}\nnodelist {{\n{nodes}}}\n"));
        let mut found = Found::default();
        judge(&settings, &mut found);
        for (_, _, remedy) in &found.0 {
            assert!(["cluster setup", "pcs quorum"].iter().all(|wrong| !remedy.contains(wrong)), "{remedy}");
        }
        found.0.into_iter().map(|(_, text, _)| text).collect()
    }

    #[test]
    fn two_nodes_and_more() {
        assert_eq!(judged(3, ""), "");
        assert_eq!(judged(2, "two_node: 1"), "");
        assert_eq!(judged(2, "device {\nmodel: net\n}"), "");
        assert!(judged(2, "").contains("without two_node"));
        assert!(judged(2, "two_node: 1\nwait_for_all: 0").contains("without wait_for_all"));
        assert!(judged(3, "two_node: 1").contains("with 3 nodes"));
        assert!(judged(3, "provider: none").contains("no votes"));
    }
}
