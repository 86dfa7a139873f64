//! The meta-data document, from the tables of parameters and actions, in two renderings.
//!
//! OCF 1.0 is what `ra-api-1.dtd` allows, which ocf-tester checks: no `reloadable`, `unique-group`, `reload-agent`. OCF 1.1 is
//! what Pacemaker and pcs understand, and they need it: without `reloadable` every change of a parameter restarts the guest.

use super::Call;
use super::actions::ACTIONS;
use super::environment::Version;
use super::exit::Failure;
use super::table::rows;
use crate::parameter::{Change, Kind, Parameter, Sharing};
use crate::xml::Document;
use std::io::{self, Write};

/// What the agent is, in one line.
pub(super) const SHORT: &str = "Manages KVM guests through libvirt: start, stop, live migration, and the truth about them";

/// What it is for.
pub(super) const LONG: &str = "Places, fails over and live-migrates a KVM guest on shared storage. Takes the parameters of ocf:heartbeat:VirtualDomain. \
A guest is reported stopped only when its emulator's process is proven gone, and a libvirt daemon that is down or hangs costs no guest its \
life: monitor and stop then work from the process. Every action ends before its timeout with a reason.";

/// Prints the document that the caller understands.
pub(super) fn print(call: &Call) -> Result<(), Failure> {
    // A reader that goes away before the end is no error of ours.
    let _ = io::stdout().write_all(&document(call.environment.version));
    Ok(())
}

/// The document.
#[must_use]
pub fn document(version: Version) -> Vec<u8> {
    let (text, doctype) = match version {
        Version::V1_0 => ("1.0", Some("resource-agent SYSTEM \"ra-api-1.dtd\"")),
        Version::V1_1 => ("1.1", None),
    };
    let mut document = Document::new(doctype);
    document.element("resource-agent", &[("name", "VirtualDomain"), ("version", env!("CARGO_PKG_VERSION"))], |agent| {
        agent.text("version", &[], text);
        agent.text("longdesc", &[("lang", "en")], LONG);
        agent.text("shortdesc", &[("lang", "en")], SHORT);
        agent.element("parameters", &[], |parameters| {
            for row in rows() {
                parameter(parameters, row, version);
            }
        });
        agent.element("actions", &[], |actions| {
            for row in ACTIONS.iter().filter(|row| row.since_1_0 || version == Version::V1_1) {
                let timeout = format!("{}s", row.timeout);
                match row.interval.map(|interval| format!("{interval}s")) {
                    Some(interval) => {
                        actions.empty("action", &[("name", row.word), ("depth", "0"), ("timeout", &timeout), ("interval", &interval)]);
                    }
                    None => actions.empty("action", &[("name", row.word), ("timeout", &timeout)]),
                }
            }
        });
    });
    document.finish()
}

fn parameter<T>(parameters: &mut Document, row: &Parameter<T>, version: Version) {
    let flag = |value: bool| if value { "1" } else { "0" };
    let (unique, required) = (row.sharing == Sharing::Unique, flag(row.required));
    let mut attributes = vec![("name", row.name)];
    match version {
        Version::V1_0 => attributes.extend([("unique", flag(unique)), ("required", required)]),
        Version::V1_1 => {
            if unique {
                attributes.push(("unique-group", row.name));
            }
            attributes.extend([("required", required), ("reloadable", flag(row.change == Change::Reloads))]);
        }
    }
    parameters.element("parameter", &attributes, |parameter| {
        parameter.text("longdesc", &[("lang", "en")], row.long);
        parameter.text("shortdesc", &[("lang", "en")], row.short);
        let (kind, words) = match row.kind {
            Kind::Text => ("string", None),
            Kind::Integer { .. } | Kind::Seconds { .. } => ("integer", None),
            Kind::Boolean => ("boolean", None),
            // OCF 1.0 has no choices; the text names them.
            Kind::Select(words) => {
                (if version == Version::V1_0 { "string" } else { "select" }, Some(words).filter(|_| version != Version::V1_0))
            }
        };
        let mut attributes = vec![("type", kind)];
        attributes.extend(row.default.map(|default| ("default", default)));
        match words {
            Some(words) => parameter.element("content", &attributes, |content| {
                for word in words {
                    content.empty("option", &[("value", word)]);
                }
            }),
            None => parameter.empty("content", &attributes),
        }
    });
}
