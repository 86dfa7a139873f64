//! The CIB as it would be: changed in memory only, for the scheduler to be asked about.

use super::Cib;
use crate::xml;
use roxmltree::Node;

impl Cib {
    /// The CIB without the elements that have these ids.
    #[must_use]
    pub fn without(&self, ids: &[String]) -> Self {
        let ranges = self.with(|document| {
            let named = |node: &Node| node.attribute("id").is_some_and(|id| ids.iter().any(|wanted| wanted == id));
            // One in another goes with it.
            let found = document.descendants().filter(|node| named(node) && !node.ancestors().skip(1).any(|parent| named(&parent)));
            found.map(|node| node.range()).collect::<Vec<_>>()
        });
        self.edited(ranges.into_iter().map(|range| (range, String::new())).collect())
    }

    /// The CIB as it would be if these resources had this provider, and the nodes had always known them so.
    #[must_use]
    pub fn with_provider(&self, resources: &[String], provider: &str) -> Self {
        let ranges = self.with(|document| {
            let named = document.descendants().filter(|node| {
                ["primitive", "lrm_resource"].iter().any(|tag| node.has_tag_name(*tag))
                    && node.attribute("id").is_some_and(|id| resources.iter().any(|wanted| wanted == id))
            });
            named.filter_map(|node| node.attribute_node("provider")).map(|attribute| attribute.range_value()).collect::<Vec<_>>()
        });
        self.edited(ranges.into_iter().map(|range| (range, provider.to_owned())).collect())
    }

    /// The CIB as it would be if a resource had this meta attribute, whatever else is said of it.
    #[must_use]
    pub fn with_meta(&self, resource: &str, name: &str, value: &str) -> Self {
        let set = format!(
            "<meta_attributes id=\"kvmha-would-have\" score=\"INFINITY\"><nvpair id=\"kvmha-would-have-{name}\" name=\"{name}\" value=\"{value}\"/>\
             </meta_attributes>"
        );
        self.with_child(&set, |node| node.has_tag_name("primitive") && node.attribute("id") == Some(resource))
    }

    /// The CIB as it would be with this resource, an element, which `node` has found running.
    #[must_use]
    pub fn with_guest(&self, id: &str, primitive: &str, node: &str) -> Self {
        let there = |entry: &Node| {
            let state = entry.ancestors().find(|parent| parent.has_tag_name("node_state"));
            entry.has_tag_name("lrm_resources") && state.and_then(|state| state.attribute("uname")) == Some(node)
        };
        let found = format!(
            "<lrm_resource id=\"{id}\" class=\"ocf\" provider=\"kvmha\" type=\"VirtualDomain\">{}</lrm_resource>",
            self.monitor(id)
        );
        self.with_child(primitive, |node| node.has_tag_name("resources")).with_child(&found, there)
    }

    /// With one more child in the first element that is meant.
    fn with_child(&self, child: &str, is_meant: impl Fn(&Node) -> bool) -> Self {
        let Some(range) = self.with(|document| document.descendants().find(is_meant).map(|node| node.range())) else { return self.clone() };
        let old = self.text.get(range.clone()).unwrap_or_default();
        let tag = old.trim_start_matches('<').split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
        let new = match old.strip_suffix("/>") {
            Some(open) => format!("{open}>{child}</{tag}>"),
            None => old.rsplit_once("</").map_or(old.to_owned(), |(inner, end)| format!("{inner}{child}</{end}")),
        };
        self.edited(vec![(range, new)])
    }

    /// What a node remembers of a recurring monitor that finds a resource running.
    fn monitor(&self, resource: &str) -> String {
        let features = self.with(|document| document.root_element().attribute("crm_feature_set").map(str::to_owned));
        let features = features.unwrap_or("3.16.2".to_owned());
        let key = "1:1:0:00000000-0000-0000-0000-000000000000";
        format!(
            "<lrm_rsc_op id=\"{resource}_monitor_10000\" operation_key=\"{resource}_monitor_10000\" operation=\"monitor\" \
             crm_feature_set=\"{features}\" transition-key=\"{key}\" transition-magic=\"0:0;{key}\" call-id=\"1\" rc-code=\"0\" \
             op-status=\"0\" interval=\"10000\"/>"
        )
    }

    /// The CIB as it would be if all nodes had forgotten what they know of a resource, and its failures, and `node`, if any, had then found it
    /// running.
    ///
    /// There it is known by a recurring monitor: what is remembered of any other operation is compared with the parameters by a digest, and
    /// without one Pacemaker would restart the resource (`pcmk__check_action_config`, pacemaker 2.1.5).
    #[must_use]
    pub fn as_found(&self, resource: &str, node: Option<&str>) -> Self {
        let monitor = self.monitor(resource);
        let edits = self.with(|document| {
            let mut edits = Vec::new();
            for entry in
                document.descendants().filter(|entry| entry.has_tag_name("lrm_resource") && entry.attribute("id") == Some(resource))
            {
                let state = entry.ancestors().find(|parent| parent.has_tag_name("node_state"));
                let place = state.and_then(|state| state.attribute("uname"));
                if node.is_none() || place != node {
                    edits.push((entry.range(), String::new()));
                    continue;
                }
                let operations = entry.children().filter(Node::is_element).map(|operation| operation.range());
                edits.extend(operations.enumerate().map(|(at, range)| (range, if at == 0 { monitor.clone() } else { String::new() })));
            }
            let counts = ["fail-count", "last-failure"].map(|word| format!("{word}-{resource}#"));
            let attributes = document.descendants().filter(|entry| entry.has_tag_name("transient_attributes"));
            let counters = attributes
                .flat_map(|entry| entry.descendants())
                .filter(|pair| pair.attribute("name").is_some_and(|name| counts.iter().any(|count| name.starts_with(count.as_str()))));
            edits.extend(counters.map(|pair| (pair.range(), String::new())));
            edits
        });
        self.edited(edits)
    }

    /// The CIB as it would be if these resources were each kept from that node.
    #[must_use]
    pub fn with_bans<'a>(&self, bans: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let named = bans.into_iter().enumerate().map(|(at, (resource, node))| (format!("kvmha-would-be-not-{at}"), resource, node));
        self.with_locations(named, "-INFINITY")
    }

    /// The CIB as it would be if this resource were drawn to that node, by a constraint that is called `id`.
    #[must_use]
    pub fn with_preference(&self, id: &str, resource: &str, node: &str) -> Self {
        self.with_locations([(id.to_owned(), resource, node)], "INFINITY")
    }

    /// With constraints on where resources may be: name, resource, node.
    fn with_locations<'a>(&self, locations: impl IntoIterator<Item = (String, &'a str, &'a str)>, score: &str) -> Self {
        let mut document = xml::Document::new(None);
        document.element("constraints", &[], |constraints| {
            for (id, resource, node) in locations {
                constraints.empty("rsc_location", &[("id", &id), ("rsc", resource), ("node", node), ("score", score)]);
            }
        });
        let written = String::from_utf8_lossy(&document.finish()).into_owned();
        let added = written.split_once("<constraints>").and_then(|(_, rest)| rest.split_once("</constraints>")).map(|(inner, _)| inner);
        let range = self.with(|document| document.descendants().find(|node| node.has_tag_name("constraints")).map(|node| node.range()));
        let (Some(added), Some(range)) = (added, range) else { return self.clone() };
        let old = self.text.get(range.clone()).unwrap_or_default();
        let inner = old.split_once('>').and_then(|(_, rest)| rest.rsplit_once("</")).map_or("", |(inner, _)| inner).to_owned();
        self.edited(vec![(range, format!("<constraints>{inner}{added}</constraints>"))])
    }

    fn edited(&self, mut edits: Vec<(std::ops::Range<usize>, String)>) -> Self {
        let mut text = self.text.clone();
        edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        for (range, new) in edits {
            text.replace_range(range, &new);
        }
        Self { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::Document;

    #[test]
    fn a_preference_that_is_not_there() {
        let cib = Cib::parse("<cib><configuration><constraints/></configuration></cib>".to_owned()).unwrap();
        let drawn = cib.with_preference("cli-prefer-web1", "web1", "n2");
        assert_eq!(drawn.moves_left(), [("web1".to_owned(), "cli-prefer-web1".to_owned())]);
        assert!(drawn.text().contains("score=\"INFINITY\""), "{}", drawn.text());
        assert!(!drawn.without(&["cli-prefer-web1".to_owned()]).has("cli-prefer-web1"));
    }

    #[test]
    fn what_is_said_of_a_resource_in_memory_only() {
        for text in ["<primitive id='web1'/>", "<primitive id='web1'><operations/></primitive>", "<primitive id='web1'></primitive>"] {
            let cib = Cib::parse(format!("<cib><resources><primitive id='web'/>{text}</resources></cib>")).unwrap();
            let held = cib.with_meta("web1", "maintenance", "true");
            let meta: Vec<_> = held.primitives().into_iter().map(|primitive| primitive.meta.get("maintenance").cloned()).collect();
            assert_eq!(meta, [None, Some("true".to_owned())], "{}", held.text());
            assert_eq!(cib.with_meta("web2", "maintenance", "true").text(), cib.text());
        }
    }

    #[test]
    fn a_guest_that_is_not_there_yet() {
        let text = "<cib crm_feature_set='3.16.1'><configuration><resources/></configuration><status><node_state uname='n1'><lrm><lrm_resources/></lrm></node_state>\
            <node_state uname='n2'><lrm><lrm_resources><lrm_resource id='a'/></lrm_resources></lrm></node_state></status></cib>";
        let cib = Cib::parse(text.to_owned()).unwrap().with_guest("web1", "<primitive id='web1'/>", "n2");
        assert_eq!(cib.primitives().len(), 1);
        let [ran] = &cib.ran()[..] else { panic!("{}", cib.text()) };
        assert_eq!((ran.node.as_str(), ran.key.as_str()), ("n2", "web1_monitor_10000"));
        Document::parse(cib.text()).unwrap();
    }

    #[test]
    fn a_failure_that_is_forgotten() {
        let text = "<cib crm_feature_set='3.16.2'><status><node_state id='1' uname='n1'><lrm><lrm_resources><lrm_resource id='web1'>\
            <lrm_rsc_op id='web1_last_failure_0' operation='migrate_to' rc-code='1'/><lrm_rsc_op id='web1_last_0' operation='migrate_to' rc-code='1'/>\
            </lrm_resource><lrm_resource id='web10'><lrm_rsc_op id='web10_last_failure_0' operation='stop'/></lrm_resource></lrm_resources></lrm>\
            <transient_attributes><instance_attributes><nvpair id='a' name='fail-count-web1#migrate_to_0' value='1'/>\
            <nvpair id='b' name='last-failure-web1#migrate_to_0' value='1'/><nvpair id='c' name='fail-count-web10#stop_0' value='1'/>\
            </instance_attributes></transient_attributes></node_state><node_state id='2' uname='n2'><lrm><lrm_resources><lrm_resource id='web1'>\
            <lrm_rsc_op id='web1_last_0' operation='stop' rc-code='0'/></lrm_resource></lrm_resources></lrm></node_state></status></cib>";
        let found = Cib::parse(text.to_owned()).unwrap().as_found("web1", Some("n1"));
        let ran: Vec<_> = found.ran().into_iter().map(|ran| (ran.node, ran.resource, ran.key, ran.code)).collect();
        assert_eq!(ran, [("n1".to_owned(), "web1".to_owned(), "web1_monitor_10000".to_owned(), 0)]);
        assert!(found.has("web10_last_failure_0") && found.has("c") && !found.has("a") && !found.has("b"), "{}", found.text());
        Document::parse(found.text()).unwrap();
    }

    #[test]
    fn bans_that_are_not_there() {
        let bans = |constraints: &str| {
            let text = format!("<cib><configuration><resources/>{constraints}</configuration></cib>");
            let cib = Cib::parse(text).unwrap().with_bans([("web1", "n1"), ("web1", "n2")]);
            let document = Document::parse(cib.text()).unwrap();
            let found = document.descendants().filter(|node| node.has_tag_name("rsc_location"));
            found
                .map(|node| [node.attribute("node"), node.attribute("score")].map(|word| word.unwrap_or_default().to_owned()).join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(bans("<constraints/>"), ["n1 -INFINITY", "n2 -INFINITY"]);
        assert_eq!(bans("<constraints></constraints>").len(), 2);
        assert_eq!(
            bans("<constraints><rsc_location id='a' rsc='x' node='n3' score='1'/></constraints>"),
            ["n3 1", "n1 -INFINITY", "n2 -INFINITY"]
        );
    }
}
