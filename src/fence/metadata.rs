//! The metadata document, from the table of options and the list of actions. Its form is fence-agents' `lib/metadata.rng`; Pacemaker's
//! fencer and pcs read it. Nothing is contacted for it.

use super::action::{ACTIONS, Action};
use super::options::Row;
use super::table::TABLE;
use crate::parameter::Kind;
use crate::xml::Document;

/// One line about the agent.
pub(super) const SHORT: &str = "Fence agent for cluster nodes that are KVM guests, on all hosts where they could run";

/// The manual's text.
pub(super) const LONG: &str = "fence_kvmha fences cluster nodes that are KVM guests, through libvirt, without a shell on the hosts. Give it \
every host on which the guest could run (uri, or ip): off succeeds only if the guest was ended where it was found, and every other host was \
reachable and said that it does not run it, again until that is stable. A host that cannot be asked is a failure: what is not known is not \
off. Paused, crashed, sleeping and shutting down guests are on. A migration in flight is called off first. For transient guests (as \
VirtualDomain makes them) set missing_as_off=1, since no host knows them once they are off, and, if another cluster starts them again, \
pcmk_reboot_action=off.";

/// The document.
#[must_use]
pub fn document() -> Vec<u8> {
    let mut document = Document::new(None);
    document.element("resource-agent", &[("name", "fence_kvmha"), ("shortdesc", SHORT)], |agent| {
        agent.text("longdesc", &[], LONG);
        agent.text("vendor-url", &[], "https://libvirt.org");
        agent.element("parameters", &[], |parameters| {
            for row in TABLE.iter().filter(|row| row.advertised) {
                // The older name first, as fencing.py does.
                if let Some(old) = row.obsoletes {
                    parameter(parameters, row, old, &[("deprecated", "1")]);
                }
                match row.obsoletes {
                    Some(old) => parameter(parameters, row, row.parameter.name, &[("obsoletes", old)]),
                    None => parameter(parameters, row, row.parameter.name, &[]),
                }
            }
        });
        agent.element("actions", &[], |actions| {
            // What is for a person alone is none of Pacemaker's.
            for row in ACTIONS.iter().filter(|row| row.action != Action::Tell) {
                // automatic="1" would be unfencing: Pacemaker would start the guest when its node joins.
                match row.word {
                    "on" => actions.empty("action", &[("name", "on"), ("automatic", "0")]),
                    word => actions.empty("action", &[("name", word)]),
                }
            }
        });
    });
    document.finish()
}

fn parameter(parameters: &mut Document, row: &Row, name: &str, more: &[(&str, &str)]) {
    // The API wants an action; it has a default all the same, and Pacemaker sets it.
    let required = if name == "action" { "1" } else { "0" };
    let attributes = [&[("name", name), ("unique", "0"), ("required", required)], more].concat();
    parameters.element("parameter", &attributes, |parameter| {
        parameter.empty("getopt", &[("mixed", &mixed(row))]);
        let kind = match row.parameter.kind {
            Kind::Seconds { .. } => "second",
            Kind::Integer { .. } => "integer",
            Kind::Boolean => "boolean",
            Kind::Select(_) => "select",
            Kind::Text => "string",
        };
        let mut attributes = vec![("type", kind)];
        attributes.extend(row.parameter.default.map(|default| ("default", default)));
        match row.parameter.kind {
            Kind::Select(words) => parameter.element("content", &attributes, |content| {
                for word in words {
                    content.empty("option", &[("value", word)]);
                }
            }),
            _ => parameter.empty("content", &attributes),
        }
        parameter.text("shortdesc", &[("lang", "en")], row.parameter.short);
    });
}

/// How the option is written on the command line: `-n, --plug=[guest]`.
fn mixed(row: &Row) -> String {
    let letter = row.letter.map(|letter| format!("-{letter}, ")).unwrap_or_default();
    let value = if row.value.is_empty() { String::new() } else { format!("=[{}]", row.value) };
    format!("{letter}--{}{value}", row.long())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pacemaker_looks_for() {
        let text = String::from_utf8(document()).unwrap();
        let tree = roxmltree::Document::parse(&text).unwrap();
        let find = |tag: &str, name: &str| {
            tree.descendants().find(|node| node.has_tag_name(tag) && node.attribute("name") == Some(name)).map(|node| node.range())
        };
        for name in ["action", "plug", "port", "uri", "missing_as_off"] {
            assert!(find("parameter", name).is_some(), "{name}");
        }
        assert!(find("parameter", "nodename").is_none());
        for name in ["on", "off", "reboot", "status", "monitor", "list", "list-status", "metadata", "manpage", "validate-all"] {
            assert!(find("action", name).is_some(), "{name}");
        }
        assert!(text.contains(r#"<action name="on" automatic="0"/>"#));
        assert!(text.contains(r#"<parameter name="plug" unique="0" required="0" obsoletes="port">"#));
        assert!(text.contains(r#"<getopt mixed="-n, --plug=[guest]"/>"#));
    }
}
