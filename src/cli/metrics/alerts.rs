//! The alerts of `docs/metrics.md` against what is rendered for a guest in trouble: each state raises those that it should, and no other.

use super::super::overview::{Copy, Guest, Node, Overview};
use super::render;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// The expressions of the page that are about our metrics, in their order.
fn alerts() -> Vec<&'static str> {
    let (_, section) = PAGE.split_once("\n## Alerts\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(expression, _)| expression);
    rows.filter(|expression| expression.contains("kvmha_")).collect()
}

/// The samples of a selector: `NAME` or `NAME{label="value"}`.
fn select<'a>(selector: &str, text: &'a str) -> Vec<(BTreeMap<&'a str, &'a str>, f64)> {
    let (name, wanted) = selector.split_once('{').unwrap_or((selector, ""));
    let labels = |text: &'a str| text.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('=')).collect::<BTreeMap<_, _>>();
    let wanted: Vec<(&str, &str)> = wanted.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('=')).collect();
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, ""));
        (found == name).then(|| (labels(rest), value.parse().unwrap()))
    });
    samples.filter(|(labels, _)| wanted.iter().all(|(label, value)| labels.get(label) == Some(value))).collect()
}

/// Whether an expression is true of one node's metrics: a selector or `max by (…) (…)` or `sum by (…) (…)`, compared with a number.
fn fires(expression: &str, text: &str) -> bool {
    let (left, equal, limit) = match (expression.split_once(" == "), expression.split_once(" > ")) {
        (Some((left, right)), None) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        _ => panic!("{expression}"),
    };
    let limit: f64 = limit.parse().unwrap();
    let values: Vec<f64> = match left.split_once(" by (") {
        None => select(left, text).into_iter().map(|(_, value)| value).collect(),
        Some((how, rest)) => {
            let (by, selector) = rest.split_once(") (").unwrap();
            let mut groups: BTreeMap<Vec<Option<&str>>, Vec<f64>> = BTreeMap::new();
            for (labels, value) in select(selector.trim_end_matches(')'), text) {
                groups.entry(by.split(", ").map(|label| labels.get(label).copied()).collect()).or_default().push(value);
            }
            let fold: fn(Vec<f64>) -> f64 = match how {
                "max" => |values| values.into_iter().fold(f64::MIN, f64::max),
                "sum" => |values| values.into_iter().sum(),
                _ => panic!("{expression}"),
            };
            groups.into_values().map(fold).collect()
        }
    };
    values.iter().any(|value| if equal { (value - limit).abs() < 1e-9 } else { *value > limit })
}

/// A guest that Pacemaker has on these nodes, with copies there, of which it is known whether they run.
fn guest(nodes: &[&str], copies: &[(&str, bool)]) -> Guest {
    Guest {
        resource: "web1".into(),
        agent: String::new(),
        guest: None,
        nodes: nodes.iter().map(ToString::to_string).collect(),
        role: if nodes.is_empty() { "Stopped" } else { "Started" }.into(),
        pending: None,
        managed: true,
        failed: false,
        copies: copies.iter().map(|(node, runs)| Copy { node: (*node).into(), state: String::new(), runs: Some(*runs) }).collect(),
        unknown: Vec::new(),
        since: None,
        last_move: None,
        last_failure: None,
    }
}

fn overview(guest: Guest) -> Overview {
    let well = Guest { resource: "web2".into(), ..self::guest(&["node2"], &[("node2", true)]) };
    let node = |name: &str| Node { name: name.into(), online: true };
    Overview {
        here: "node1".into(),
        quorum: true,
        ignores_quorum: false,
        maintenance: false,
        nodes: vec![node("node1"), node("node2")],
        guests: vec![well, guest],
    }
}

#[test]
fn each_trouble_raises_its_alert() {
    let raised = |overview: Option<&Overview>| {
        let text = render(overview, &[]);
        alerts().into_iter().filter(|expression| fires(expression, &text)).collect::<Vec<_>>()
    };
    let of = |guest: Guest| raised(Some(&overview(guest)));
    let stands = "max by (instance, resource) (kvmha_guest_running) == 0";
    let twice = "sum by (instance, resource) (kvmha_guest_running) > 1";
    assert_eq!(of(guest(&["node1"], &[("node1", true)])), [""; 0], "it is well");
    assert_eq!(of(guest(&["node1"], &[("node1", false)])), [stands], "paused, which Pacemaker takes for well");
    assert_eq!(of(guest(&[], &[])), ["kvmha_guest_started{node=\"\"} == 0"], "all starts have failed");
    assert_eq!(of(guest(&["node1"], &[("node1", true), ("node2", true)])), [twice, "kvmha_guest_copies > 1"]);
    // Another copy waits for its memory for as long as the move takes.
    assert_eq!(of(guest(&["node1"], &[("node1", true), ("node2", false)])), ["kvmha_guest_copies > 1"], "it is moved");
    assert_eq!(of(Guest { failed: true, ..guest(&["node1"], &[("node1", true)]) }), ["kvmha_guest_failed == 1"]);
    assert_eq!(raised(None), ["kvmha_up == 0"]);
    let alone = Overview { quorum: false, ..overview(guest(&["node1"], &[("node1", true)])) };
    assert_eq!(raised(Some(&alone)), ["kvmha_cluster_quorum == 0"]);
}
