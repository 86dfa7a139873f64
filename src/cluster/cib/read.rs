//! What stands in the CIB, and how one element of it is read.

use roxmltree::Node;
use std::collections::BTreeMap;

/// A resource as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Primitive {
    /// Its name.
    pub id: String,
    /// `ocf:heartbeat:VirtualDomain`: class, provider and type; what comes from a template is not in it.
    pub agent: String,
    /// The template it is made from.
    pub template: Option<String>,
    /// `clone` or `bundle`, if it is part of one.
    pub multiple: Option<String>,
    /// Its parameters, of all sets; the first set wins.
    pub parameters: BTreeMap<String, String>,
    /// Its meta attributes, likewise.
    pub meta: BTreeMap<String, String>,
    /// Its operations.
    pub operations: Vec<Operation>,
}

/// An operation as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// `start`, `monitor` ...
    pub name: String,
    /// Its interval, as it is written.
    pub interval: String,
    /// All that is said of it: `id`, `timeout`, `on-fail`, `enabled` ...
    pub settings: BTreeMap<String, String>,
}

/// An operation that a node has run, the last of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The node.
    pub node: String,
    /// The resource.
    pub resource: String,
    /// Resource, operation and interval: `web1_monitor_10000`.
    pub key: String,
    /// `start`, `monitor` ...
    pub operation: String,
    /// Its number on that node.
    pub call: String,
    /// The agent's exit code.
    pub code: i32,
    /// When it had this result first, in seconds since 1970 by that node's clock.
    pub at: Option<u64>,
}

/// What a node's executor remembers of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The node.
    pub node: String,
    /// The agent that was called there.
    pub agent: String,
    /// What the probe said, when it has ended: its exit code.
    pub probe: Option<i32>,
    /// The exit reason of the probe.
    pub reason: String,
    /// Whether a probe that found the resource running is kept as failed, since that was not expected, and it was neither started nor moved
    /// there since.
    pub find: bool,
}

fn agent(node: Node) -> String {
    let parts = ["class", "provider", "type"].map(|name| node.attribute(name));
    parts.into_iter().flatten().collect::<Vec<_>>().join(":")
}

/// A name-value pair, if it has both.
pub(super) fn pair(node: Node) -> Option<(String, String)> {
    Some((node.attribute("name")?.to_owned(), node.attribute("value")?.to_owned()))
}

/// The name-value pairs of the sets called `tag` of an element.
pub(super) fn sets(node: Node, tag: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let sets = node.children().filter(|child| child.has_tag_name(tag));
    for (name, value) in sets.flat_map(|set| set.children()).filter(|child| child.has_tag_name("nvpair")).filter_map(pair) {
        found.entry(name).or_insert(value);
    }
    found
}

fn operation(node: Node) -> Operation {
    let word = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
    // The attributes of the element itself win (Pacemaker's `unpack_operation`).
    let mut settings = sets(node, "meta_attributes");
    settings.extend(node.attributes().map(|attribute| (attribute.name().to_owned(), attribute.value().to_owned())));
    Operation { name: word("name"), interval: word("interval"), settings }
}

/// What a `lrm_rsc_op` says.
pub(super) fn ran(node: Node) -> Option<Ran> {
    let word = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
    let state = node.ancestors().find(|parent| parent.has_tag_name("node_state"))?;
    Some(Ran {
        node: state.attribute("uname")?.to_owned(),
        resource: node.parent()?.attribute("id")?.to_owned(),
        key: word("operation_key"),
        operation: word("operation"),
        call: word("call-id"),
        code: node.attribute("rc-code")?.parse().ok()?,
        at: node.attribute("last-rc-change").and_then(|text| text.parse().ok()),
    })
}

/// A `primitive`, or a `template`.
pub(super) fn primitive(node: Node) -> Primitive {
    let multiple = node.ancestors().find(|parent| ["clone", "master", "bundle"].iter().any(|tag| parent.has_tag_name(*tag)));
    Primitive {
        id: node.attribute("id").unwrap_or_default().to_owned(),
        agent: agent(node),
        template: node.attribute("template").map(Into::into),
        multiple: multiple.map(|parent| parent.tag_name().name().to_owned()),
        parameters: sets(node, "instance_attributes"),
        meta: sets(node, "meta_attributes"),
        operations: node
            .children()
            .filter(|child| child.has_tag_name("operations"))
            .flat_map(|list| list.children())
            .filter(|child| child.has_tag_name("op"))
            .map(operation)
            .collect(),
    }
}

/// What a `lrm_resource` says.
pub(super) fn history(node: Node) -> Option<History> {
    let state = node.ancestors().find(|parent| parent.has_tag_name("node_state"))?;
    let mut probes = node.children().filter(|op| op.attribute("operation") == Some("monitor") && op.attribute("interval") == Some("0"));
    // Pending: op-status -1, and 193 for a code (`PCMK_OCF_UNKNOWN`).
    let ended = probes.rfind(|op| op.attribute("op-status").is_some_and(|status| status != "-1"));
    let call = |op: &Node| op.attribute("call-id").and_then(|call| call.parse::<i64>().ok());
    let began = |op: &Node| matches!(op.attribute("operation"), Some("start" | "migrate_from"));
    let find = node.children().find(|op| {
        let kept = op.attribute("id").is_some_and(|id| id.ends_with("_last_failure_0"));
        kept && op.attribute("operation") == Some("monitor")
            && op.attribute("interval") == Some("0")
            && op.attribute("rc-code") == Some("0")
    });
    Some(History {
        node: state.attribute("uname")?.to_owned(),
        agent: agent(node),
        probe: ended.and_then(|op| op.attribute("rc-code")?.parse().ok()).filter(|code| *code != 193),
        reason: ended.and_then(|op| op.attribute("exit-reason")).unwrap_or_default().to_owned(),
        find: find.is_some_and(|find| !node.children().any(|op| began(&op) && call(&op) > call(&find))),
    })
}
