//! The cluster's configuration and what it remembers of each node, as `cibadmin` gives it.

mod change;
mod edit;
mod meta;
mod part;
mod place;
mod read;
mod rule;

use super::tool::{self, Trouble};
use crate::deadline::Deadline;
pub use change::Change;
pub use part::Part;
pub use read::{History, Operation, Primitive, Ran};
use read::{history, pair, primitive, ran};
use roxmltree::{Document, Node};
pub use rule::Asker;
use std::collections::BTreeMap;

/// The CIB at a moment.
#[derive(Clone, Debug)]
pub struct Cib {
    text: String,
}

impl Cib {
    /// Asks for it.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn query(deadline: &Deadline) -> Result<Self, Trouble> {
        Self::parse(tool::run("cibadmin", &["--query"], deadline)?)
    }

    /// Understands `text`.
    ///
    /// # Errors
    /// It is no XML.
    pub fn parse(text: String) -> Result<Self, Trouble> {
        match Document::parse(&text).map(drop) {
            Ok(()) => Ok(Self { text }),
            Err(error) => Err(Trouble::Nonsense(format!("cibadmin: what it says is no XML: {error}"))),
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn with<T: Default>(&self, read: impl FnOnce(&Document) -> T) -> T {
        // It was parsed before, so it can be again.
        Document::parse(&self.text).map(|document| read(&document)).unwrap_or_default()
    }

    /// All resources, in the order of the configuration.
    #[must_use]
    pub fn primitives(&self) -> Vec<Primitive> {
        self.with(|document| {
            let resources = document.descendants().filter(|node| node.has_tag_name("resources"));
            resources.flat_map(|node| node.descendants()).filter(|node| node.has_tag_name("primitive")).map(primitive).collect()
        })
    }

    /// A resource with what it has from its template, if it is made from one. Rules are not evaluated: the first value of a name counts.
    #[must_use]
    pub fn resource(&self, id: &str) -> Option<Primitive> {
        self.resources().into_iter().find(|resource| resource.id == id)
    }

    /// All resources as [`Cib::resource`] gives them.
    #[must_use]
    pub fn resources(&self) -> Vec<Primitive> {
        let templates: Vec<Primitive> =
            self.with(|document| document.descendants().filter(|node| node.has_tag_name("template")).map(primitive).collect());
        let mut resources = self.primitives();
        for resource in &mut resources {
            let name = resource.template.as_ref();
            let Some(template) = templates.iter().find(|template| Some(&template.id) == name) else { continue };
            if resource.agent.is_empty() {
                resource.agent.clone_from(&template.agent);
            }
            let add = |to: &mut BTreeMap<String, String>, from: &BTreeMap<String, String>| {
                for (name, value) in from {
                    to.entry(name.clone()).or_insert_with(|| value.clone());
                }
            };
            add(&mut resource.parameters, &template.parameters);
            add(&mut resource.meta, &template.meta);
            for operation in &template.operations {
                let same = |own: &Operation| own.name == operation.name && own.interval == operation.interval;
                if !resource.operations.iter().any(same) {
                    resource.operations.push(operation.clone());
                }
            }
        }
        resources
    }

    /// The value of an option of the whole cluster (`crm_config`).
    #[must_use]
    pub fn option(&self, name: &str) -> Option<String> {
        self.pairs("crm_config").remove(name)
    }

    /// Whether what runs here is looked after, and more is started, also without quorum.
    #[must_use]
    pub fn ignores_quorum(&self) -> bool {
        self.option("no-quorum-policy").as_deref() == Some("ignore")
    }

    /// All name-value pairs of the sets below an element, for instance `crm_config`, that count without a rule; the first of a name wins.
    #[must_use]
    pub fn pairs(&self, element: &str) -> BTreeMap<String, String> {
        self.pairs_if(element, |set| rule::rules(set).next().is_none())
    }

    /// The transient attributes of the nodes whose names begin with `prefix`: node, name, value.
    #[must_use]
    pub fn transient(&self, prefix: &str) -> Vec<(String, String, String)> {
        self.with(|document| {
            let attributes = document.descendants().filter(|node| node.has_tag_name("transient_attributes"));
            let pairs = attributes.flat_map(|node| node.descendants()).filter(|node| node.has_tag_name("nvpair"));
            let named = |node: Node| {
                let state = node.ancestors().find(|parent| parent.has_tag_name("node_state"))?;
                let (name, value) = pair(node)?;
                name.starts_with(prefix).then(|| Some((state.attribute("uname")?.to_owned(), name, value)))?
            };
            pairs.filter_map(named).collect()
        })
    }

    /// The constraints on where resources may be that `crm_resource --move` and `--ban` leave: resource, and the constraint's name.
    #[must_use]
    pub fn moves_left(&self) -> Vec<(String, String)> {
        self.with(|document| {
            let constraints = document.descendants().filter(|node| node.has_tag_name("rsc_location"));
            let named = constraints.filter_map(|node| Some((node.attribute("rsc")?.to_owned(), node.attribute("id")?.to_owned())));
            named.filter(|(_, id)| id.starts_with("cli-")).collect()
        })
    }

    /// What the nodes have run.
    #[must_use]
    pub fn ran(&self) -> Vec<Ran> {
        self.with(|document| document.descendants().filter(|node| node.has_tag_name("lrm_rsc_op")).filter_map(ran).collect())
    }

    /// What the nodes remember of a resource.
    #[must_use]
    pub fn histories(&self, resource: &str) -> Vec<History> {
        self.with(|document| {
            let entries = document.descendants().filter(|node| node.has_tag_name("lrm_resource") && node.attribute("id") == Some(resource));
            entries.filter_map(history).collect()
        })
    }

    /// Whether a resource has never run anywhere, for all that the nodes remember: its probes found nothing, its starts were refused for its
    /// configuration, and it was stopped. `false` where nothing of it is remembered.
    #[must_use]
    pub fn never_ran(&self, resource: &str) -> bool {
        self.with(|document| {
            let is_its = |node: &Node| node.attribute("id").is_some_and(|id| super::resource_of(id) == resource);
            let entries = document.descendants().filter(|node| node.has_tag_name("lrm_resource") && is_its(node));
            let mut ran = entries.flat_map(|entry| entry.descendants()).filter(|node| node.has_tag_name("lrm_rsc_op")).peekable();
            let says_nothing = |node: Node| match (node.attribute("operation"), node.attribute("rc-code")) {
                (Some("monitor"), code) => code == Some("7"),
                (Some("start"), code) => code == Some("5"),
                (operation, _) => operation == Some("stop"),
            };
            ran.peek().is_some() && ran.all(says_nothing)
        })
    }

    /// Whether an operation of the executor of `node` is remembered, of any resource.
    #[must_use]
    pub fn has_history(&self, node: &str) -> bool {
        self.with(|document| {
            let states = document.descendants().filter(|state| {
                state.has_tag_name("node_state") && state.attribute("uname").is_some_and(|name| name.eq_ignore_ascii_case(node))
            });
            states.flat_map(|state| state.descendants()).any(|entry| entry.has_tag_name("lrm_rsc_op"))
        })
    }

    /// Whether there is an element with this id.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.with(|document| document.descendants().any(|node| node.attribute("id") == Some(id)))
    }

    /// The value of the name-value pair with this id.
    #[must_use]
    pub fn value(&self, id: &str) -> Option<String> {
        self.with(|document| {
            let pair = document.descendants().find(|node| node.attribute("id") == Some(id));
            pair.and_then(|pair| pair.attribute("value")).map(Into::into)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) const TEXT: &str = r#"<cib><configuration><resources>
        <primitive id="web1" class="ocf" provider="heartbeat" type="VirtualDomain">
          <meta_attributes id="web1-kvmha-adopt"><nvpair id="x" name="maintenance" value="true"/></meta_attributes>
          <instance_attributes id="a"><nvpair id="a1" name="config" value="/srv/a&amp;b.xml"/></instance_attributes></primitive>
        <clone id="c"><primitive id="web2" class="ocf" provider="heartbeat" type="VirtualDomain"/></clone>
        <primitive id="web3" template="t"/></resources></configuration><status>
        <node_state id="1" uname="node1"><lrm><lrm_resources><lrm_resource id="web1" type="VirtualDomain" class="ocf" provider="heartbeat">
          <lrm_rsc_op id="o" operation="monitor" interval="0" rc-code="7" op-status="0" exit-reason=""/></lrm_resource></lrm_resources></lrm></node_state>
        <node_state id="2" uname="node2"><lrm><lrm_resources><lrm_resource id="web1" type="VirtualDomain" class="ocf" provider="heartbeat">
          <lrm_rsc_op id="p" operation="monitor" interval="0" rc-code="193" op-status="-1"/></lrm_resource></lrm_resources></lrm></node_state>
        </status></cib>"#;

    #[test]
    fn resources_and_what_nodes_remember() {
        let cib = Cib::parse(TEXT.to_owned()).unwrap();
        let found = cib.primitives();
        assert_eq!(found.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["web1", "web2", "web3"]);
        assert_eq!((found[0].agent.as_str(), found[0].multiple.as_deref()), ("ocf:heartbeat:VirtualDomain", None));
        assert_eq!(found[0].parameters.get("config").map(String::as_str), Some("/srv/a&b.xml"));
        assert_eq!((found[1].multiple.as_deref(), found[2].template.as_deref()), (Some("clone"), Some("t")));
        let histories = cib.histories("web1");
        assert_eq!(histories.iter().map(|one| (one.node.as_str(), one.probe)).collect::<Vec<_>>(), [("node1", Some(7)), ("node2", None)]);
        assert!(cib.has_history("NODE2") && !cib.has_history("node3"));
        let fenced = r#"<cib><status><node_state id="2" uname="node2" crmd="offline"/></status></cib>"#;
        assert!(!Cib::parse(fenced.to_owned()).unwrap().has_history("node2"));
        assert_eq!(cib.value("x").as_deref(), Some("true"));
    }

    #[test]
    fn a_primitive_with_a_template() {
        let text = r#"<cib><configuration><crm_config><cluster_property_set id="o"><nvpair id="o1" name="no-quorum-policy" value="freeze"/></cluster_property_set></crm_config><resources>
            <template id="vm" class="ocf" provider="kvmha" type="VirtualDomain"><instance_attributes id="a">
              <nvpair id="b" name="migration_transport" value="tls"/><nvpair id="c" name="hypervisor" value="qemu:///x"/></instance_attributes>
              <operations><op id="p" name="monitor" interval="10s" timeout="30s"/><op id="q" name="stop" interval="0s" timeout="9s"/></operations></template>
            <group id="g"><primitive id="web1" template="vm"><instance_attributes id="d"><nvpair id="e" name="config" value="/srv/web1.xml"/>
              <nvpair id="f" name="hypervisor" value="qemu:///system"/></instance_attributes>
              <operations><op id="r" name="stop" interval="0s"><meta_attributes id="s"><nvpair id="t" name="timeout" value="90s"/></meta_attributes></op></operations>
              <meta_attributes id="m"><nvpair id="n" name="allow-migrate" value="true"/></meta_attributes></primitive></group></resources>
            <constraints><rsc_location id="cli-ban-web1-on-node2" rsc="web1"/><rsc_location id="own" rsc="web1"/></constraints></configuration></cib>"#;
        let cib = Cib::parse(text.to_owned()).unwrap();
        let web1 = cib.resource("web1").unwrap();
        let get = |name: &str| web1.parameters.get(name).map(String::as_str);
        assert_eq!(
            (get("config"), get("hypervisor"), get("migration_transport")),
            (Some("/srv/web1.xml"), Some("qemu:///system"), Some("tls"))
        );
        assert_eq!((web1.agent.as_str(), web1.meta.get("allow-migrate").map(String::as_str)), ("ocf:kvmha:VirtualDomain", Some("true")));
        let timeouts = web1.operations.iter().map(|operation| (operation.name.as_str(), operation.settings["timeout"].as_str()));
        assert_eq!(timeouts.collect::<Vec<_>>(), [("stop", "90s"), ("monitor", "30s")]);
        assert_eq!(cib.resource("web2"), None);
        assert_eq!(cib.primitives()[0].agent, "", "as it is written");
        assert_eq!(cib.option("no-quorum-policy").as_deref(), Some("freeze"));
        assert_eq!(cib.moves_left(), [("web1".to_owned(), "cli-ban-web1-on-node2".to_owned())]);
    }

    #[test]
    fn an_operation_s_own_attributes_win() {
        let text = r#"<cib><configuration><resources><primitive id="web1"><operations><op id="o" name="stop" interval="0s" timeout="5s">
            <meta_attributes id="m"><nvpair id="n" name="timeout" value="90s"/><nvpair id="p" name="on-fail" value="block"/></meta_attributes>
            </op></operations></primitive></resources></configuration></cib>"#;
        let [web1] = &Cib::parse(text.to_owned()).unwrap().primitives()[..] else { panic!() };
        let get = |name: &str| web1.operations[0].settings.get(name).map(String::as_str);
        assert_eq!((get("id"), get("timeout"), get("on-fail")), (Some("o"), Some("5s"), Some("block")));
    }

    #[test]
    fn what_nodes_have_run_and_their_attributes() {
        let text = r#"<cib><status><node_state id="1" uname="node1"><transient_attributes id="1"><instance_attributes id="s">
            <nvpair id="x" name="kvmha-move-web1" value="moved to=node2"/><nvpair id="y" name="fail-count" value="1"/></instance_attributes></transient_attributes>
            <lrm id="1"><lrm_resources><lrm_resource id="web1"><lrm_rsc_op id="web1_last_0" operation_key="web1_start_0" operation="start"
            call-id="12" rc-code="0" last-rc-change="1700000000"/></lrm_resource></lrm_resources></lrm></node_state></status></cib>"#;
        let cib = Cib::parse(text.to_owned()).unwrap();
        assert_eq!(cib.transient("kvmha-move-"), [("node1".to_owned(), "kvmha-move-web1".to_owned(), "moved to=node2".to_owned())]);
        let [ran] = &cib.ran()[..] else { panic!() };
        assert_eq!(ran.resource, "web1");
        assert_eq!((ran.node.as_str(), ran.operation.as_str(), ran.call.as_str(), ran.at), ("node1", "start", "12", Some(1_700_000_000)));
    }

    #[test]
    fn what_has_never_run() {
        let never = |operations: &[(&str, &str)]| {
            let text = |(operation, code): &(&str, &str)| format!("<lrm_rsc_op operation='{operation}' rc-code='{code}'/>");
            let all: String = operations.iter().map(text).collect();
            let other = "<lrm_resource id='web10'><lrm_rsc_op operation='start' rc-code='0'/></lrm_resource>";
            Cib::parse(format!("<cib><status><lrm_resource id='web1:0'>{all}</lrm_resource>{other}</status></cib>"))
                .unwrap()
                .never_ran("web1")
        };
        let refused = [("monitor", "7"), ("start", "5"), ("stop", "0"), ("stop", "193")];
        assert!(never(&refused) && !never(&[]));
        for more in [
            ("monitor", "0"),
            ("monitor", "193"),
            ("start", "0"),
            ("start", "193"),
            ("start", "1"),
            ("migrate_from", "1"),
            ("migrate_to", "0"),
        ] {
            assert!(!never(&[&refused[..], &[more]].concat()), "{more:?}");
        }
    }

    #[test]
    fn edited_in_memory() {
        let cib = Cib::parse(TEXT.to_owned()).unwrap();
        let other = cib.with_provider(&["web1".to_owned()], "kvmha").without(&["web1-kvmha-adopt".to_owned()]);
        assert_eq!(other.primitives()[0].agent, "ocf:kvmha:VirtualDomain");
        assert_eq!(other.primitives()[1].agent, "ocf:heartbeat:VirtualDomain");
        assert!(other.histories("web1").iter().all(|one| one.agent == "ocf:kvmha:VirtualDomain"));
        assert!(cib.has("web1-kvmha-adopt") && !other.has("web1-kvmha-adopt"));
        let both = cib.without(&["web1".to_owned(), "web1-kvmha-adopt".to_owned()]);
        assert_eq!(both.text(), cib.without(&["web1".to_owned()]).text(), "one in the other");
        assert!(Cib::parse("no xml".to_owned()).is_err());
    }
}
