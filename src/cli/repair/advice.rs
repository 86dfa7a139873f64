//! What is said to a person: what is amiss and not for this program to do.

use super::has_to_be_refreshed;
use crate::cli::outlook;
use crate::cli::whereabouts::Whereabouts;

/// What Pacemaker would do if what it keeps were taken away.
#[derive(Default)]
pub(super) struct Outlook {
    /// What to do about the constraints that a move by hand has left.
    pub(super) clear: Option<String>,
    /// Why its failures are not forgotten.
    pub(super) refresh: Option<String>,
}

impl Outlook {
    pub(super) fn take(found: &Whereabouts) -> Self {
        let (Some(view), Some(cib), Some(id)) = (&found.view, &found.cib, &found.resource) else { return Self::default() };
        let failed = found.here().filter(|here| has_to_be_refreshed(found, here));
        Self {
            clear: outlook::clearing(view, cib, id, &found.constraints),
            refresh: failed.and_then(|here| outlook::refreshing(view, cib, id, &here.node)),
        }
    }
}

/// What is amiss and not for this program to do.
pub(super) fn advice(found: &Whereabouts, outlook: &Outlook) -> Vec<String> {
    let name = &found.guest;
    let mut advice = Vec::new();
    if let Some(pending) = &found.pending {
        advice.push(format!("wait: Pacemaker is at work with it ({pending})"));
    }
    let running: Vec<&str> = found.places.iter().filter(|place| place.runs).map(|place| place.node.as_str()).collect();
    if running.len() > 1 {
        advice.push(format!(
            "{name} runs on {}: its disks may be damaged already. Run this on each of them: a move that failed may have held the older copy, which only \
             its own node can see. Else decide which copy is right, and end the other at once: virsh destroy {name}",
            running.join(" and ")
        ));
    }
    // It may have run where nothing of it is any more, and its disks have gone on then.
    if running.is_empty() && !found.is_unsure() && found.here().is_some_and(|here| here.held) {
        let how = found
            .resource
            .as_ref()
            .map(|id| format!(": crm_resource --refresh --force --resource {id}; crm_resource --restart --resource {id}"));
        advice.push(format!(
            "{name} is held on this node. Do not let it go on, its memory may be older than its disks, but stop it and start it anew{}",
            how.unwrap_or_default()
        ));
    }
    for place in found.places.iter().filter(|place| !place.here && place.copy == Some(true) && !place.runs && !running.is_empty()) {
        advice.push(format!("run kvmha repair {name} on {}: a copy stands still there", place.node));
    }
    for place in found.places.iter().filter(|place| place.copy.is_none()) {
        let why = place.trouble.as_deref().unwrap_or("no answer");
        advice.push(format!("{} cannot be asked: bring its libvirt back, or turn it off ({why})", place.node));
    }
    for end in found.here().map(|here| &here.unproven[..]).unwrap_or_default() {
        advice.push(format!(
            "turn the host of {} off, for nobody has seen {name} end there; then rm {}, and run fence_kvmha -o tell",
            end.host,
            end.file.display()
        ));
    }
    advice.extend(outlook.clear.iter().map(|clear| {
        let left = found.constraints.join(", ");
        format!("{clear}; as long as it is there Pacemaker goes on trying to move it ({left})")
    }));
    advice.extend(outlook.refresh.clone());
    for place in found.places.iter().filter(|place| place.autostart) {
        let uri = place.uri.as_deref().unwrap_or("qemu:///system");
        advice.push(format!("virsh -c '{uri}' autostart --disable {name}"));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::{QUESTION, Step, plan};
    use super::*;
    use crate::cli::overview::OURS;
    use crate::cli::whereabouts::Place;
    use crate::cluster::cib::Cib;
    use crate::cluster::view::{self, Failure, View};
    use crate::deadline::Deadline;
    use crate::ocf::Asked;
    use std::collections::BTreeMap;

    /// web1, in this role, drawn to n2; it runs on n1, which is this node.
    fn drawn(role: &str) -> Whereabouts {
        let parameters = [("config", "/nowhere/web1.xml"), ("hypervisor", "qemu:///system")];
        let parameters: BTreeMap<String, String> = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let text = format!(
            "<r><summary><current_dc present='false'/></summary><resources><resource id='web1' resource_agent='{OURS}' role='{role}'>\
             <node name='n1'/></resource></resources></r>"
        );
        let view = view::parse(&text).unwrap();
        let here = Place { node: "n1".to_owned(), here: true, runs: true, copy: Some(true), busy: Some(false), ..Place::default() };
        Whereabouts {
            guest: "web1".to_owned(),
            uuid: None,
            resource: Some("web1".to_owned()),
            pending: view.resource("web1").and_then(|placed| placed.pending.clone()),
            constraints: vec!["cli-prefer-web1".to_owned()],
            places: vec![here],
            snapshot: None,
            troubles: Vec::new(),
            asked: Asked::new(Some("web1"), &parameters, "", Deadline::after(QUESTION)).unwrap(),
            view: Some(view),
            cib: Some(Cib::parse("<cib/>".to_owned()).unwrap()),
        }
    }

    #[test]
    fn while_it_moves_there_is_only_to_wait() {
        let found = drawn("Migrating");
        let outlook = Outlook::take(&found);
        assert_eq!(plan(&found, &outlook), []);
        let [advice] = &advice(&found, &outlook)[..] else { panic!() };
        assert!(advice.starts_with("wait: Pacemaker is at work with it (Migrating)"), "{advice}");
    }

    #[test]
    fn what_is_left_of_a_move_that_is_over() {
        let outlook = Outlook { clear: Some("crm_resource --clear --resource web1".to_owned()), refresh: None };
        let [advice] = &advice(&drawn("Started"), &outlook)[..] else { panic!() };
        assert!(advice.starts_with("crm_resource --clear --resource web1") && advice.contains("cli-prefer-web1"), "{advice}");
    }

    #[test]
    fn a_failure_is_not_forgotten_where_that_costs_a_stop() {
        let mut found = drawn("Started");
        found.constraints.clear();
        found.view = found.view.map(|view| View {
            failures: vec![Failure {
                key: "web1_migrate_to_0".to_owned(),
                node: "n1".to_owned(),
                call: "7".to_owned(),
                reason: "no route".to_owned(),
            }],
            ..view
        });
        let [Step::Refresh { reason, .. }] = &plan(&found, &Outlook::default())[..] else { panic!() };
        assert_eq!(reason, "web1_migrate_to_0: no route");
        let outlook = Outlook { clear: None, refresh: Some("n1 is in standby".to_owned()) };
        assert_eq!(plan(&found, &outlook), []);
        assert_eq!(advice(&found, &outlook), ["n1 is in standby"]);
    }
}
