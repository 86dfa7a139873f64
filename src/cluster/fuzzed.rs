//! Entries of the fuzzing: what Pacemaker's tools say.
#![allow(clippy::unwrap_used, reason = "as in a test")]

use super::cib::Cib;
use super::fencing::{self, Since};
use super::{forgotten, scheduler, utilization, view};
use crate::fuzzed::{is_xml, text};
use std::time::Duration;

/// The cluster's configuration, read and changed.
pub fn cib(data: &[u8]) {
    text(data, |text| {
        utilization::parse(text);
        let Ok(cib) = Cib::parse(text.to_owned()) else { return };
        let resources = cib.resources();
        assert_eq!(resources.len(), cib.primitives().len());
        let ids: Vec<String> = resources.iter().map(|resource| resource.id.clone()).collect();
        for id in &ids {
            assert!(cib.resource(id).is_some());
            drop((cib.histories(id), cib.value(id), cib.is_movable(id)));
        }
        drop((cib.option("maintenance-mode"), cib.transient("kvmha-"), cib.moves_left(), cib.ran(), cib.has_history("node1")));
        let adopted = cib.with_provider(&ids, "kvmha");
        assert!(is_xml(adopted.text()));
        assert_eq!(adopted.primitives().len(), resources.len());
        for id in &ids {
            assert!(is_xml(cib.with_meta(id, "maintenance", "true").text()));
        }
        // The root can have an id too; an empty text is no XML.
        let less = cib.without(&ids);
        assert!(less.text().is_empty() || is_xml(less.text()));
    });
}

/// `crm_mon`: the cluster as it is, and the record of a node's fencing.
pub fn crm_mon(data: &[u8]) {
    /// In seconds since 1970.
    const NOW: u64 = 1_800_000_000;
    text(data, |text| {
        if let Some(view) = view::parse(text) {
            assert!(view.online().count() <= view.nodes.len());
            view.failures.iter().for_each(|failure| assert!(!failure.is_move_of("web1") || failure.is_of("web1")));
        }
        if fencing::last_fenced(text, "node2").is_some() {
            assert!(text.contains("success") || text.contains('&'));
        }
        for seen in [None, Some(NOW - 60)] {
            let within = Duration::from_secs(600);
            if let Ok(off) = fencing::judge(text, "node2", Since { seen, within }, false, NOW) {
                assert!(off + within.as_secs() >= NOW && seen.is_none_or(|seen| off > seen));
                // No proof without an event that says so, unless its words are written as references.
                assert!(text.contains("success") && text.contains("\"off\"") || text.contains(['&', '\'']));
            }
        }
    });
}

/// What Pacemaker would do: the list of it, or the graph.
pub fn crm_simulate(data: &[u8]) {
    text(data, |text| {
        for step in forgotten::at_once(text, "web1").into_iter().flatten() {
            assert_ne!(step.operation, scheduler::Operation::Monitor);
        }
        for step in scheduler::parse(text).into_iter().flatten() {
            assert!(!step.to_string().is_empty());
        }
    });
}
