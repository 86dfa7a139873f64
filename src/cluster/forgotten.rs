//! The moment at which Pacemaker does not know where a resource is: a refresh deletes what the nodes remember of it, and they have not answered yet.
//!
//! To Pacemaker it runs nowhere then, also in maintenance. What has to be where it is is stopped at once, and what runs in a guest that is a node
//! itself (`remote-node`) is started elsewhere: it runs twice. Only what waits for the answers of all nodes, as in a group, does not come: that of
//! the node where the resource is is not the one that was expected, so that everything is planned anew (`process_graph_event` in Pacemaker's
//! `daemons/controld/controld_te_events.c`).

use super::cib::Cib;
use super::scheduler::{self, Operation, Step};
use super::tool::Trouble;
use crate::deadline::Deadline;
use roxmltree::{Document, Node};
use std::collections::{BTreeMap, BTreeSet};

/// What Pacemaker would do to other resources if the nodes were asked anew where this one is, and what to do about it: a sentence; nothing if it
/// would only look.
///
/// # Errors
/// The scheduler cannot be asked.
pub fn harm(cib: &Cib, id: &str, deadline: &Deadline) -> Result<Option<String>, Trouble> {
    let graph = scheduler::graph_for(&cib.as_found(id, None), deadline)?;
    let steps = at_once(&graph, id).ok_or_else(|| Trouble::Nonsense("crm_simulate: its graph is not understood".into()))?;
    if steps.is_empty() {
        return Ok(None);
    }
    let before = scheduler::plan_for(cib, deadline)?;
    Ok(said(id, &steps.into_iter().filter(|step| !before.contains(step)).collect::<Vec<_>>()))
}

fn said(id: &str, steps: &[Step]) -> Option<String> {
    if steps.is_empty() {
        return None;
    }
    let what = steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let others: BTreeSet<&str> = steps.iter().filter_map(|step| step.resource.as_deref()).filter(|other| *other != id).collect();
    let mut text = format!("Pacemaker would {what} before the nodes have answered where {id} is");
    if !others.is_empty() {
        let set = |other: &&str| format!("crm_resource --resource {other} --meta --set-parameter is-managed --parameter-value false");
        let commands = others.iter().map(set).collect::<Vec<_>>().join("; ");
        text.push_str(&format!(": first {commands}; and afterwards the same with --delete-parameter is-managed"));
    }
    Some(text)
}

/// What one of the transition's actions is, and the numbers of those that it waits for.
struct Action<'a, 'b> {
    node: Node<'a, 'b>,
    waits: Vec<&'a str>,
}

/// What a transition does before the nodes have answered the probes of a resource.
pub(super) fn at_once(text: &str, id: &str) -> Option<Vec<Step>> {
    let document = Document::parse(text).ok()?;
    let graph = document.root_element();
    if !graph.has_tag_name("transition_graph") {
        return None;
    }
    let mut actions = BTreeMap::new();
    for synapse in graph.children().filter(|child| child.has_tag_name("synapse")) {
        let below = |tag: &'static str| synapse.children().filter(move |child| child.has_tag_name(tag)).flat_map(|child| child.children());
        let triggers = below("inputs").filter(|child| child.has_tag_name("trigger")).flat_map(|trigger| trigger.children());
        let waits: Vec<&str> = triggers.filter_map(|action| action.attribute("id")).collect();
        for node in below("action_set").filter(Node::is_element) {
            actions.insert(node.attribute("id")?, Action { node, waits: waits.clone() });
        }
    }
    let probe = format!("{id}_monitor_0");
    let probes: Vec<&str> =
        actions.iter().filter(|(_, action)| action.node.attribute("operation_key") == Some(&probe)).map(|(number, _)| *number).collect();
    let waits_for_all = |number: &str| {
        let (mut before, mut left) = (BTreeSet::new(), vec![number]);
        while let Some(next) = left.pop() {
            let waits = actions.get(next).map(|action| &action.waits[..]).unwrap_or_default();
            left.extend(waits.iter().filter(|wait| before.insert(**wait)));
        }
        !probes.is_empty() && probes.iter().all(|probe| before.contains(probe))
    };
    let done = actions.iter().filter(|(number, _)| !waits_for_all(number)).filter_map(|(_, action)| step(action.node));
    Some(done.filter(|step| !is_harmless(&step.operation)).collect())
}

/// Whether it changes nothing of what runs.
fn is_harmless(operation: &Operation) -> bool {
    matches!(operation, Operation::Monitor | Operation::Cancel | Operation::ClearFailcount | Operation::Notify)
}

fn step(action: Node) -> Option<Step> {
    if action.has_tag_name("pseudo_event") {
        return None;
    }
    let resource = action.children().find(|child| child.has_tag_name("primitive")).and_then(|primitive| primitive.attribute("id"));
    let operation = match action.attribute("operation").unwrap_or_default() {
        "stonith" => Operation::Fence,
        word => word.into(),
    };
    Some(Step { resource: resource.map(str::to_owned), operation, node: action.attribute("on_node").unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transition, of lines: number, operation key, node, numbers of what it waits for. What has no node is nothing that is done.
    fn graph(lines: &[(&str, &str, &str, &[&str])]) -> String {
        let synapse = |(number, key, node, waits): &(&str, &str, &str, &[&str])| {
            let (resource, operation) = key.rsplit_once('_').unwrap().0.rsplit_once('_').unwrap();
            let tag = if node.is_empty() { "pseudo_event" } else { "rsc_op" };
            let inputs: String = waits.iter().map(|wait| format!("<trigger><rsc_op id='{wait}'/></trigger>")).collect();
            format!(
                "<synapse><action_set><{tag} id='{number}' operation='{operation}' operation_key='{key}' on_node='{node}'>\
                 <primitive id='{resource}'/><attributes/></{tag}></action_set><inputs>{inputs}</inputs></synapse>"
            )
        };
        format!("<transition_graph transition_id='0'>{}</transition_graph>", lines.iter().map(synapse).collect::<String>())
    }

    fn harmed(lines: &[(&str, &str, &str, &[&str])]) -> Vec<String> {
        at_once(&graph(lines), "web1").unwrap().iter().map(ToString::to_string).collect()
    }

    const PROBES: [(&str, &str, &str, &[&str]); 2] = [("4", "web1_monitor_0", "node2", &[]), ("3", "web1_monitor_0", "node1", &[])];

    /// As crm_simulate 2.1.5 has it for `app with web1`, with an order or without.
    #[test]
    fn what_has_to_be_where_the_guest_is_is_stopped_at_once() {
        assert_eq!(harmed(&[PROBES[0], PROBES[1], ("5", "app_stop_0", "node1", &[])]), ["stop app on node1"]);
        // With another one that needs it.
        let chain = [PROBES[0], PROBES[1], ("5", "app_stop_0", "node1", &["6"]), ("6", "db_stop_0", "node1", &[])];
        assert_eq!(harmed(&chain), ["stop app on node1", "stop db on node1"]);
    }

    #[test]
    fn what_runs_in_the_guest_is_started_elsewhere() {
        let inside = [PROBES[0], PROBES[1], ("6", "svc_start_0", "node1", &[]), ("7", "svc_monitor_10000", "node1", &["6"])];
        assert_eq!(harmed(&inside), ["start svc on node1"]);
    }

    #[test]
    fn what_waits_for_the_answers_does_not_come() {
        // In a group.
        let group = [
            ("9", "g_stopped_0", "", &["3", "4", "5", "8"][..]),
            ("8", "g_stop_0", "", &[]),
            PROBES[0],
            PROBES[1],
            ("5", "app_stop_0", "node1", &["3", "4", "8"]),
        ];
        assert_eq!(harmed(&group), [""; 0]);
        // Behind its own start, as far as Pacemaker manages it.
        let start = [PROBES[0], PROBES[1], ("5", "web1_start_0", "node1", &["3", "4"]), ("6", "app_start_0", "node1", &["5"])];
        assert_eq!(harmed(&start), [""; 0]);
        let one = [PROBES[0], PROBES[1], ("5", "app_stop_0", "node1", &["4"])];
        assert_eq!(harmed(&one), ["stop app on node1"], "the guest may be on the other one");
        assert_eq!(harmed(&[("5", "app_stop_0", "node1", &[])]), ["stop app on node1"], "nobody is asked");
        assert_eq!(harmed(&PROBES), [""; 0]);
    }

    #[test]
    fn what_is_said_can_be_typed() {
        let step =
            |resource: Option<&str>| Step { resource: resource.map(str::to_owned), operation: Operation::Stop, node: "node1".to_owned() };
        let text = said("web1", &[step(Some("app"))]).unwrap();
        assert!(
            text.starts_with("Pacemaker would stop app on node1 before the nodes have answered where web1 is: first crm_resource"),
            "{text}"
        );
        assert!(text.contains("crm_resource --resource app --meta --set-parameter is-managed --parameter-value false;"), "{text}");
        assert!(said("web1", &[step(None)]).is_some_and(|text| text.ends_with("where web1 is")));
        assert_eq!(said("web1", &[]), None);
    }

    #[test]
    fn mangled_graphs() {
        let sample = graph(&[PROBES[0], PROBES[1], ("5", "app_stop_0", "node1", &["3"])]);
        crate::mangled::texts(&[&sample], 4000, |text| at_once(text, "web1").is_some());
        assert_eq!(at_once("<r/>", "web1"), None);
    }
}
