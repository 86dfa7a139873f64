//! What Pacemaker sees: `crm_mon`, and whether its controller is at rest.

use super::tool::{self, Trouble};
use crate::deadline::Deadline;
use roxmltree::Document;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it is a member and its daemons answer.
    pub online: bool,
    /// Whether it is only on its way in, or has to be fenced.
    pub unsettled: bool,
    /// Whether it is in standby: it is to run nothing.
    pub standby: bool,
    /// Whether it is a host without corosync (Pacemaker Remote).
    pub remote: bool,
}

/// A resource as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name.
    pub id: String,
    /// Its agent.
    pub agent: String,
    /// `Started`, `Stopped` ..., or, while something is done with it, what.
    pub role: String,
    /// Whether Pacemaker acts on it.
    pub managed: bool,
    /// Whether it is failed, or blocked.
    pub failed: bool,
    /// Whether Pacemaker leaves it alone because an action failed and it may do nothing about that.
    pub blocked: bool,
    /// What is being done with it: `Migrating`, `Starting`... See [`is_look`].
    pub pending: Option<String>,
    /// Where it is.
    pub nodes: Vec<String>,
}

/// An action that has failed and was not cleaned up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Resource, operation and interval: `web1_monitor_10000`.
    pub key: String,
    /// Where.
    pub node: String,
    /// Its number on that node.
    pub call: String,
    /// The agent's exit reason, or what became of it.
    pub reason: String,
}

/// What Pacemaker does with a guest, as it stands in the names of what was done.
const OPERATIONS: &[&str] = &["start", "stop", "monitor", "migrate_to", "migrate_from", "reload", "reload-agent"];

impl Failure {
    /// Whether it is an action of this resource.
    #[must_use]
    pub fn is_of(&self, resource: &str) -> bool {
        // A resource may be called like another one and more.
        let parts = self.key.strip_prefix(resource).and_then(|rest| rest.strip_prefix('_')?.rsplit_once('_'));
        parts.is_some_and(|(operation, _)| OPERATIONS.contains(&operation))
    }

    /// Whether it is a move of this resource.
    #[must_use]
    pub fn is_move_of(&self, resource: &str) -> bool {
        self.begins(resource, "_migrate_")
    }

    /// Whether it is a stop of this resource.
    #[must_use]
    pub fn is_stop_of(&self, resource: &str) -> bool {
        self.begins(resource, "_stop_")
    }

    fn begins(&self, resource: &str, operation: &str) -> bool {
        self.is_of(resource) && self.key.strip_prefix(resource).is_some_and(|rest| rest.starts_with(operation))
    }
}

/// Whether what is being done with a resource is a recurring monitor, which changes nothing. It may stand there for as long as nobody
/// cleans up: Pacemaker 2.1 notes one as begun, and the note stays if it is cancelled, by a stop, before it was ever carried out.
#[must_use]
pub fn is_look(pending: &str) -> bool {
    pending == "Monitoring"
}

/// What is being done with a resource. Pacemaker 2.1 and 3.0 say in `pending` that it is monitored, and all else in the place of the role
/// (`native_pending_state` in its `lib/pengine/native.c`).
fn pending(said: &str, role: &str) -> Option<String> {
    const ROLES: &[&str] = &["Starting", "Stopping", "Migrating", "Promoting", "Demoting"];
    let word = if ROLES.contains(&role) { role } else { said };
    (!word.is_empty()).then(|| word.to_owned())
}

/// The cluster at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The designated controller.
    pub controller: Option<String>,
    /// Whether this partition has quorum.
    pub quorum: bool,
    /// Whether the whole cluster is in maintenance mode.
    pub maintenance: bool,
    /// Whether nodes are fenced (`stonith-enabled`).
    pub fencing: bool,
    /// The hosts. Guests that are nodes themselves (`remote-node`) are left out: they run no guests, and nobody fences them by a device.
    pub nodes: Vec<Member>,
    /// The resources.
    pub resources: Vec<Placed>,
    /// The failed actions.
    pub failures: Vec<Failure>,
}

impl View {
    /// Asks for it.
    ///
    /// # Errors
    /// Pacemaker does not run here, or gives no answer.
    pub fn query(deadline: &Deadline) -> Result<Self, Trouble> {
        let text = tool::run("crm_mon", &["--one-shot", "--inactive", "--output-as=xml"], deadline)?;
        parse(&text).ok_or_else(|| Trouble::Nonsense("crm_mon: what it says is not understood".into()))
    }

    /// A resource.
    #[must_use]
    pub fn resource(&self, id: &str) -> Option<&Placed> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    /// A node as Pacemaker spells it: for its tools another case is another node.
    #[must_use]
    pub fn spelled(&self, node: &str) -> Option<&str> {
        let named = |same: &dyn Fn(&str) -> bool| self.nodes.iter().map(|member| member.name.as_str()).find(|name| same(name));
        named(&|name| name == node).or_else(|| named(&|name| name.eq_ignore_ascii_case(node)))
    }

    /// The names of the nodes that are members.
    pub fn online(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|node| node.online && !node.unsettled).map(|node| node.name.as_str())
    }
}

/// Whether the controller carries nothing out.
///
/// # Errors
/// It gives no answer.
pub fn is_idle(controller: &str, deadline: &Deadline) -> Result<bool, Trouble> {
    Ok(tool::run("crmadmin", &["--status", controller, "--output-as=xml"], deadline)?.contains("state=\"S_IDLE\""))
}

pub(crate) fn parse(text: &str) -> Option<View> {
    let document = Document::parse(text).ok()?;
    let all = |tag: &'static str| document.descendants().filter(move |node| node.has_tag_name(tag));
    let flag = |node: &roxmltree::Node, name: &str| node.attribute(name) == Some("true");
    let word = |node: &roxmltree::Node, name: &str| node.attribute(name).unwrap_or_default().to_owned();
    let controller = all("current_dc").next()?;
    Some(View {
        controller: flag(&controller, "present").then(|| word(&controller, "name")),
        quorum: flag(&controller, "with_quorum"),
        maintenance: all("cluster_options").any(|options| flag(&options, "maintenance-mode")),
        fencing: all("cluster_options").any(|options| flag(&options, "stonith-enabled")),
        nodes: all("node")
            .filter(|node| node.has_attribute("online") && !node.has_attribute("id_as_resource"))
            .map(|node| Member {
                name: word(&node, "name"),
                online: flag(&node, "online"),
                unsettled: flag(&node, "pending") || flag(&node, "unclean"),
                standby: flag(&node, "standby") || flag(&node, "standby_onfail"),
                remote: node.attribute("type") == Some("remote"),
            })
            .collect(),
        resources: all("resource")
            .map(|resource| Placed {
                id: word(&resource, "id"),
                agent: word(&resource, "resource_agent"),
                role: word(&resource, "role"),
                managed: flag(&resource, "managed"),
                failed: flag(&resource, "failed") || flag(&resource, "blocked"),
                blocked: flag(&resource, "blocked"),
                pending: pending(&word(&resource, "pending"), &word(&resource, "role")),
                nodes: resource.children().filter(|child| child.has_tag_name("node")).map(|node| word(&node, "name")).collect(),
            })
            .collect(),
        failures: all("failure")
            .map(|failure| {
                let said = ["exitreason", "exitstatus", "status"].iter().filter_map(|name| failure.attribute(*name));
                Failure {
                    key: word(&failure, "op_key"),
                    node: word(&failure, "node"),
                    call: word(&failure, "call"),
                    reason: said.into_iter().find(|text| !text.is_empty()).unwrap_or("failed").to_owned(),
                }
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_answers_of_crm_mon() {
        let sample = "<r><summary><current_dc present='true' name='node3' with_quorum='true'/></summary><nodes><node name='node1' online='true' pending='false'/></nodes>\
            <resources><resource id='vm1' resource_agent='ocf:kvmha:VirtualDomain' role='Started'><node name='node1' id='1'/></resource></resources></r>";
        crate::mangled::texts(&[sample], 4000, |text| parse(text).is_some());
    }

    #[test]
    fn what_crm_mon_says() {
        let text = r#"<r><summary><current_dc present="true" name="node3" with_quorum="true"/><cluster_options stonith-enabled="true" maintenance-mode="false"/></summary>
            <nodes><node name="node1" online="true" pending="false" unclean="false"/><node name="node2" online="false" standby="true" pending="false" unclean="true"/>
            <node name="web1" online="true" pending="false" unclean="false" type="remote" id_as_resource="vm1"/></nodes>
            <resources><resource id="vm1" resource_agent="ocf:kvmha:VirtualDomain" role="Started" blocked="false" managed="true" failed="false"><node name="node1" id="1"/></resource></resources></r>"#;
        let view = parse(text).unwrap();
        assert_eq!((view.controller.as_deref(), view.quorum, view.maintenance), (Some("node3"), true, false));
        assert!(view.fencing);
        assert_eq!(view.online().collect::<Vec<_>>(), ["node1"]);
        assert_eq!((view.spelled("NODE2"), view.spelled("node1"), view.spelled("node3")), (Some("node2"), Some("node1"), None));
        assert!(view.nodes[1].unsettled && view.nodes[1].standby && !view.nodes[0].standby);
        let vm1 = view.resource("vm1").unwrap();
        assert_eq!((vm1.role.as_str(), vm1.managed, vm1.failed, vm1.nodes.as_slice()), ("Started", true, false, &["node1".to_owned()][..]));
        assert_eq!(parse("<r/>"), None);
    }

    #[test]
    fn what_has_failed() {
        let text = r#"<r><summary><current_dc present="false"/></summary><resources><resource id="web1" role="Migrating" blocked="true"/></resources>
            <failures><failure op_key="web1_migrate_to_0" node="node1" exitstatus="error" exitreason="web1 still runs here" call="7"/>
            <failure op_key="web1_monitor_10000" node="node1" exitstatus="Timed Out" exitreason=""/><failure op_key="web10_migrate_to_0" node="node1"/>
            <failure op_key="web1_b_stop_0" node="node1"/><failure op_key="web2_stop_0" node="node1"/></failures></r>"#;
        let view = parse(text).unwrap();
        assert_eq!(view.resources[0].pending.as_deref(), Some("Migrating"));
        assert_eq!(pending("Monitoring", "Started").as_deref(), Some("Monitoring"));
        assert_eq!((pending("", "Started"), pending("", "Unknown")), (None, None));
        assert!(view.resources[0].blocked && view.controller.is_none());
        let of = view.failures.iter().filter(|failure| failure.is_of("web1")).map(|failure| failure.reason.as_str());
        assert_eq!(of.collect::<Vec<_>>(), ["web1 still runs here", "Timed Out"]);
        assert_eq!(view.failures.iter().filter(|failure| failure.is_move_of("web1")).count(), 1);
        let stops = |id| view.failures.iter().filter(|failure| failure.is_stop_of(id)).count();
        assert_eq!((stops("web1"), stops("web2")), (0, 1));
    }
}
