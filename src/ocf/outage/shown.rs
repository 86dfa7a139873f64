//! What an outage shows in the cluster: node attributes, for a person and for the other nodes.

use super::LOOKING;
use crate::cluster;
use crate::cluster::cib::{Cib, Part};
use crate::deadline::{Deadline, unix_time};
use crate::log;
use crate::ocf::Call;
use std::collections::BTreeSet;

/// In how many seconds a guest is given up once at most, on whatever node.
pub(super) const ONCE_IN: u64 = 600;

/// How the node attribute begins that says when a resource was relocated from there; then comes the resource.
const ATTRIBUTE: &str = "kvmha-relocated-";

impl Call {
    /// Sets the node attribute `kvmha-outage-RESOURCE` to `text`, or takes it away. (Of several monitors with the same code Pacemaker keeps
    /// only the first one's reason.) Returns whether that worked; `true` without a cluster.
    pub(super) fn show_outage(&self, text: Option<&str>) -> bool {
        let (Some(node), Some(instance)) = (&self.environment.node, &self.environment.instance) else { return true };
        let deadline: Deadline = self.deadline.share(LOOKING, 4);
        let set = cluster::set_attribute(node, &format!("kvmha-outage-{instance}"), text, &deadline);
        set.inspect_err(|trouble| log::warning(format_args!("the outage cannot be shown: {trouble}"))).is_ok()
    }

    /// Takes away what says in the cluster that this resource was relocated, once that keeps it nowhere any more.
    pub(super) fn forget_relocations(&self, deadline: &Deadline) {
        let Some(resource) = &self.environment.instance else { return };
        let (name, now) = (attribute(resource), unix_time());
        let Ok(cib) = Cib::query_part(Part::Status, deadline) else { return };
        let old = |time: &str| time.parse::<u64>().is_ok_and(|time| now.abs_diff(time) >= ONCE_IN);
        for (node, ..) in cib.transient(&name).into_iter().filter(|(_, known, time)| *known == name && old(time)) {
            let _ = cluster::set_attribute(&node, &name, None, deadline);
        }
    }
}

/// The node attribute that says when this resource was relocated from there, in seconds since 1970.
pub(super) fn attribute(resource: &str) -> String {
    format!("{ATTRIBUTE}{resource}")
}

/// Whether it was relocated from any node within [`ONCE_IN`], as far as the nodes' clocks agree.
pub(super) fn is_lately(cib: &Cib, resource: &str, now: u64) -> bool {
    let name = attribute(resource);
    let times = cib.transient(&name).into_iter().filter(|(_, known, _)| *known == name).filter_map(|(.., time)| time.parse::<u64>().ok());
    times.max().is_some_and(|time| now.abs_diff(time) < ONCE_IN)
}

/// The resources that are on their way from a node, each with the node: they were given up there within [`ONCE_IN`], by the word of the cluster
/// or by what this node (`here`) knows before the cluster does. Where they go is no place for another one then.
pub(super) fn leaving<'a>(cib: &Cib, here: &str, given_up: impl Iterator<Item = &'a str>, now: u64) -> BTreeSet<(String, String)> {
    let known: BTreeSet<String> = cib.primitives().into_iter().map(|resource| resource.id).collect();
    let noted = cib.transient(ATTRIBUTE).into_iter().filter_map(|(node, name, time)| {
        let lately = time.parse::<u64>().is_ok_and(|time| now.abs_diff(time) < ONCE_IN);
        lately.then(|| Some((name.strip_prefix(ATTRIBUTE)?.to_owned(), node)))?
    });
    let all = noted.chain(given_up.map(|resource| (resource.to_owned(), here.to_owned())));
    // A constraint of a resource that is not there makes the whole CIB a wrong one.
    all.filter(|(resource, _)| known.contains(resource)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_while() {
        let text = |value: &str| {
            let pair = |name: &str| format!("<nvpair id='{name}' name='{name}' value='{value}'/>");
            let pairs = [pair("kvmha-relocated-vm1"), pair("kvmha-relocated-vm10"), pair("kvmha-outage-vm1")].concat();
            format!("<cib><status><node_state uname='n1'><transient_attributes>{pairs}</transient_attributes></node_state></status></cib>")
        };
        let lately = |value: &str, resource: &str| is_lately(&Cib::parse(text(value)).unwrap(), resource, 10_000);
        assert!(lately("9900", "vm1") && lately("10100", "vm1"), "a clock may be ahead");
        assert!(!lately("9000", "vm1") && !lately("", "vm1") && !lately("9900", "vm2") && !lately("9900", "vm"));
    }

    #[test]
    fn others_that_are_on_their_way() {
        let attribute = |name: &str, value: &str| format!("<nvpair id='{name}' name='kvmha-relocated-{name}' value='{value}'/>");
        let pairs = [attribute("vm1", "9900"), attribute("vm2", "9000"), attribute("gone", "9900"), attribute("vm3", "")].concat();
        let resources: String = ["vm1", "vm2", "vm3", "vm4"].iter().map(|id| format!("<primitive id='{id}'/>")).collect();
        let cib = Cib::parse(format!(
            "<cib><configuration><resources>{resources}</resources></configuration><status><node_state uname='n1'>\
             <transient_attributes>{pairs}</transient_attributes></node_state></status></cib>"
        ));
        let leaving = leaving(&cib.unwrap(), "n2", ["vm4", "old"].into_iter(), 10_000);
        let pair = |resource: &str, node: &str| (resource.to_owned(), node.to_owned());
        assert_eq!(leaving.into_iter().collect::<Vec<_>>(), [pair("vm1", "n1"), pair("vm4", "n2")]);
    }
}
