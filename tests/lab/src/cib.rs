//! What commands have left in the cluster's configuration: requests that are still in force; and what nodes have run at a time that has not come yet.

use anyhow::{Context, Result};
use roxmltree::{Document, Node};

/// By name, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Nodes that are in standby.
    pub standby: Vec<String>,
    /// Guests that are not to run.
    pub stopped: Vec<String>,
    /// Sets of meta attributes that a command of `kvmha` has put there for the time it works.
    pub sets: Vec<Set>,
    /// Constraints that `crm_resource` has put there, and of which guest each is.
    pub constraints: Vec<(String, String)>,
}

/// A set of meta attributes by which a command of `kvmha` keeps Pacemaker from a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The guest.
    pub guest: String,
    /// The command: `migrate`, `adopt`, `repair`.
    pub command: String,
}

impl Set {
    /// Its id in the configuration.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-kvmha-{}", self.guest, self.command)
    }
}

impl Requests {
    /// Reads the answer of `cibadmin --query`.
    pub fn parse(text: &str) -> Result<Self> {
        let document = Document::parse(text).context("cibadmin's answer is no XML")?;
        let all = |tag: &'static str| document.descendants().filter(move |element| element.has_tag_name(tag));
        let word = |element: Node<'_, '_>, name: &str| element.attribute(name).unwrap_or_default().to_owned();
        let set = |id: &str| {
            let (guest, command) = id.rsplit_once("-kvmha-")?;
            Some(Set { guest: guest.to_owned(), command: command.to_owned() })
        };
        Ok(Self {
            standby: all("node")
                .filter(|node| value(*node, "standby").is_some_and(|value| value != "off"))
                .map(|node| word(node, "uname"))
                .collect(),
            stopped: all("primitive")
                .filter(|primitive| value(*primitive, "target-role") == Some("Stopped"))
                .map(|primitive| word(primitive, "id"))
                .collect(),
            sets: all("meta_attributes").filter_map(|one| set(one.attribute("id")?)).collect(),
            constraints: all("rsc_location")
                .filter(|one| one.attribute("id").is_some_and(|id| id.starts_with("cli-")))
                .map(|one| (word(one, "rsc"), word(one, "id")))
                .collect(),
        })
    }

    /// The guests that a command keeps Pacemaker from.
    pub fn held_by<'a>(&'a self, command: &'a str) -> impl Iterator<Item = &'a str> {
        self.sets.iter().filter(move |set| set.command == command).map(|set| set.guest.as_str())
    }
}

/// The resources of which a node has run something later than `now` (seconds since 1970), by the answer of `cibadmin --query`: its clock was
/// ahead. Each with the node.
pub fn from_the_future(text: &str, now: u64) -> Result<Vec<(String, String)>> {
    let document = Document::parse(text).context("cibadmin's answer is no XML")?;
    let mut found = Vec::new();
    for state in document.descendants().filter(|element| element.has_tag_name("node_state")) {
        for resource in state.descendants().filter(|element| element.has_tag_name("lrm_resource")) {
            let times = resource.children().filter_map(|run| run.attribute("last-rc-change")?.parse::<u64>().ok());
            if times.max().is_some_and(|last| last > now) {
                found.push((
                    resource.attribute("id").unwrap_or_default().to_owned(),
                    state.attribute("uname").unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    Ok(found)
}

/// The value of an attribute in any set of attributes of an element.
fn value<'a>(element: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let mut pairs = element.descendants().filter(|pair| pair.has_tag_name("nvpair"));
    pairs.find(|pair| pair.attribute("name") == Some(name))?.attribute("value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIB: &str = r#"<cib><configuration>
        <nodes>
          <node id="1" uname="node1"><instance_attributes id="nodes-1">
            <nvpair id="nodes-1-standby" name="standby" value="on"/></instance_attributes></node>
          <node id="2" uname="node2"><instance_attributes id="nodes-2">
            <nvpair id="nodes-2-standby" name="standby" value="off"/></instance_attributes></node>
          <node id="3" uname="node3"/>
        </nodes>
        <resources>
          <primitive id="vm1" class="ocf" provider="kvmha" type="VirtualDomain">
            <meta_attributes id="vm1-meta_attributes"><nvpair id="a" name="target-role" value="Stopped"/></meta_attributes>
            <meta_attributes id="vm1-kvmha-migrate" score="INFINITY"><nvpair id="b" name="is-managed" value="false"/></meta_attributes>
          </primitive>
          <primitive id="vm2" class="ocf" provider="heartbeat" type="VirtualDomain">
            <meta_attributes id="vm2-meta_attributes"><nvpair id="c" name="target-role" value="Started"/></meta_attributes>
            <meta_attributes id="vm2-kvmha-adopt" score="INFINITY"><nvpair id="d" name="maintenance" value="true"/></meta_attributes>
          </primitive>
        </resources>
        <constraints>
          <rsc_location id="cli-prefer-vm2" rsc="vm2" role="Started"><rule id="cli-prefer-rule-vm2"/></rsc_location>
          <rsc_location id="of-the-operator" rsc="vm1" node="node1" score="50"/>
        </constraints>
      </configuration>
      <status><node_state id="1" uname="node1"><transient_attributes id="1"><instance_attributes id="status-1">
        <nvpair id="e" name="standby" value="on"/></instance_attributes></transient_attributes></node_state></status></cib>"#;

    #[test]
    fn what_is_still_in_force() {
        let set = |guest: &str, command: &str| Set { guest: guest.to_owned(), command: command.to_owned() };
        let requests = Requests::parse(CIB).unwrap();
        assert_eq!((&requests.standby[..], &requests.stopped[..]), (&["node1".to_owned()][..], &["vm1".to_owned()][..]));
        assert_eq!(requests.sets, [set("vm1", "migrate"), set("vm2", "adopt")]);
        assert_eq!(requests.held_by("migrate").collect::<Vec<_>>(), ["vm1"]);
        assert_eq!(requests.sets[1].id(), "vm2-kvmha-adopt");
        assert_eq!(requests.constraints, [("vm2".to_owned(), "cli-prefer-vm2".to_owned())]);
    }

    #[test]
    fn what_was_run_in_the_future() {
        let ran = |resource: &str, time: u64| {
            format!(
                "<lrm_resource id='{resource}'><lrm_rsc_op id='{resource}_last_0' last-rc-change='{time}'/><lrm_rsc_op id='x'/></lrm_resource>"
            )
        };
        let state =
            |node: &str, ran: &str| format!("<node_state uname='{node}'><lrm><lrm_resources>{ran}</lrm_resources></lrm></node_state>");
        let [ahead, right] = [state("node3", &(ran("vm1", 99) + &ran("vm2", 3_700))), state("node1", &ran("vm2", 100))];
        let text = format!("<cib><status>{ahead}{right}</status></cib>");
        assert_eq!(from_the_future(&text, 100).unwrap(), [("vm2".to_owned(), "node3".to_owned())]);
        assert!(from_the_future("crm_mon: not connected", 100).is_err());
    }

    #[test]
    fn nothing_is_in_force_in_a_new_cluster() {
        let requests = Requests::parse("<cib><configuration><nodes/><resources/><constraints/></configuration></cib>").unwrap();
        assert_eq!(requests, Requests::default());
        assert!(Requests::parse("crm_mon: not connected").is_err());
    }
}
