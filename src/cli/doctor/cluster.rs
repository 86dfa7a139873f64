//! What the whole cluster is set to, and how it is.

use super::super::{adopt, migrate, probe};
use super::{Found, Patient, resources};
use crate::cluster::boolean;
use crate::cluster::cib::Cib;
use crate::cluster::fencing::has_watchdog;
use crate::cluster::tool;
use crate::deadline::{Deadline, Task, unix_time};
use roxmltree::Document;
use std::net::ToSocketAddrs;
use std::time::Duration;

/// For the fencer to say who can fence each node, asked for all of them at once: it may have to ask the devices.
const FENCER: Duration = Duration::from_secs(20);
/// How much later an answer may come, since threads wait for one another.
const GRACE: Duration = Duration::from_secs(1);
/// For all names.
const RESOLVING: Duration = Duration::from_secs(5);
/// By how much the clocks of two nodes may differ, in seconds.
const SKEW: u64 = 5;
/// So many guests may be moved at once unsaid.
const FEW: usize = 4;

/// Nodes that are away.
pub(super) fn members(patient: &Patient, found: &mut Found) {
    for node in patient.view.nodes.iter().filter(|node| !node.online || node.unsettled) {
        let what = if node.unsettled { "is on its way in, or has to be fenced" } else { "is not in the cluster" };
        found.warning(
            format!("{} {what}: nothing can run there", node.name),
            "start Pacemaker there, or see its log (journalctl -u pacemaker -u corosync)",
        );
    }
}

/// Without fencing a guest on a node that is lost cannot be started elsewhere, or runs twice.
pub(super) fn fencing(patient: &Patient, found: &mut Found) {
    let devices = patient.cib.primitives().into_iter().filter(|resource| resource.agent.starts_with("stonith:"));
    let (devices, watchdog) = (devices.count(), has_watchdog(&patient.cib));
    let nothing = devices == 0 && !watchdog;
    if nothing {
        found.problem(
            "there is no fence device: the guests of a node that is lost are never started elsewhere",
            "pcs stonith create, or crm configure primitive, with a device that cuts the power of the nodes",
        );
    }
    // Whatever the option is called: Pacemaker 3.0 has two names for it.
    if !patient.view.fencing {
        let enable = "crm_attribute --name stonith-enabled --update true";
        // "Resource start-up disabled since no STONITH resources have been defined" (Pacemaker's `lib/pengine/unpack.c`).
        let remedy = format!("only when there is a fence device, or Pacemaker starts and recovers nothing any more: {enable}");
        found.problem(
            "stonith-enabled=false: when a node is lost its guests may be started twice",
            if nothing { remedy } else { enable.to_owned() },
        );
    }
    if devices == 0 {
        return;
    }
    // The watchdog of an SBD without disks fences every node.
    let nodes: Vec<&str> = patient.view.nodes.iter().map(|node| node.name.as_str()).filter(|_| !watchdog).collect();
    for (node, answer) in nodes.iter().zip(who_can_fence(&nodes, FENCER)) {
        match answer {
            Ok(text) if !has_device(&text) => found.problem(
                format!("no fence device can fence {node}"),
                format!(
                    "add {node} to pcmk_host_list or pcmk_host_map of a device, and see that the device is neither disabled nor failed"
                ),
            ),
            Ok(_) => {}
            // With nobody to fence it the fencer says so by a code.
            Err(tool::Trouble::Failed(_, text)) if text.contains("No such device") || text.contains("No devices") => {
                found.problem(
                    format!("no fence device can fence {node}"),
                    format!("add {node} to pcmk_host_list or pcmk_host_map of a device"),
                );
            }
            Err(trouble) => found.warning(format!("who can fence {node} cannot be asked: {trouble}"), "see the log of pacemaker-fenced"),
        }
    }
    for device in patient.view.resources.iter().filter(|resource| resource.agent.starts_with("stonith:")) {
        if device.failed {
            found.problem(
                format!("the fence device {} has failed", device.id),
                format!("see crm_mon, then crm_resource --cleanup --resource {}", device.id),
            );
        }
    }
}

/// What the fencer says of each node, asked side by side: one that hangs costs the time of one question.
fn who_can_fence(nodes: &[&str], limit: Duration) -> Vec<Result<String, tool::Trouble>> {
    let deadline = Deadline::after(limit);
    let start = |node: &&str| {
        let node = (*node).to_owned();
        Task::start(move || tool::run("stonith_admin", &["--list", &node, "--output-as=xml"], &deadline))
    };
    let tasks: Vec<Task<_>> = nodes.iter().map(start).collect();
    // The tool is ended at the deadline, and says so a moment later.
    let late = Deadline::after(limit + GRACE);
    tasks
        .into_iter()
        .map(|task| task.wait(&late).unwrap_or_else(|| Err(tool::Trouble::Silent("stonith_admin did not end".to_owned()))))
        .collect()
}

/// `fenced_hosts` of the fence agent goes by Pacemaker's record (see `cluster::fencing`), in which the action stands that the scheduler has asked
/// for: a device's own `pcmk_reboot_action` does not show there.
pub(super) fn record(patient: &Patient, found: &mut Found) {
    let option = |name: &'static str| patient.cib.option(name).map(|action| (name, action));
    let (name, action) =
        ["fencing-action", "stonith-action"].into_iter().find_map(option).unwrap_or_else(|| ("stonith-action", "reboot".to_owned()));
    // The older word for the same (`unpack_config` in Pacemaker's `lib/pengine/unpack.c`).
    if ["off", "poweroff"].contains(&action.as_str()) {
        return;
    }
    let devices = patient.cib.resources().into_iter();
    for device in devices.filter(|device| device.agent == "stonith:fence_kvmha" && device.parameters.contains_key("fenced_hosts")) {
        found.warning(
            format!(
                "{} has fenced_hosts, and {name}={action}: that a host was fenced is recorded as that, and never taken for off",
                device.id
            ),
            format!("crm_attribute --name {name} --update off; a node that was fenced then stays off until somebody turns it on"),
        );
    }
}

/// Whether the fencer names a device.
fn has_device(text: &str) -> bool {
    Document::parse(text).is_ok_and(|document| document.descendants().any(|node| node.has_tag_name("item") || node.has_tag_name("device")))
}

/// What a part of the cluster that has no quorum does.
pub(super) fn policy(patient: &Patient, found: &mut Found) {
    if !patient.cib.ignores_quorum() {
        return;
    }
    let mut remedy = "crm_attribute --name no-quorum-policy --update stop".to_owned();
    if patient.view.nodes.len() == 2 {
        remedy = format!("see that corosync.conf of both nodes has two_node: 1, or the last one stops all its guests; then {remedy}");
    }
    if !patient.view.quorum {
        remedy = format!("first bring the other nodes back: set now, it stops every guest here; then {remedy}");
    }
    found.problem("no-quorum-policy=ignore: both parts of a cluster that is torn apart start the same guests", remedy);
}

/// Guests that Pacemaker does not look after.
pub(super) fn maintenance(patient: &Patient, found: &mut Found) {
    if patient.view.maintenance {
        found.warning(
            "the cluster is in maintenance mode: no guest is monitored or recovered",
            "crm_attribute --name maintenance-mode --update false",
        );
    }
    for case in &patient.guests {
        let (id, meta) = (case.id(), &case.resource.meta);
        let own = [("maintenance", Some(true)), ("is-managed", Some(false))]
            .into_iter()
            .find_map(|(name, unmanaged)| meta.get(name).filter(|value| boolean(value) == unmanaged).map(|value| (name, value)));
        if let Some((what, remedy)) = left_by_us(&patient.cib, id) {
            found.warning(format!("{id} {what}"), remedy);
        } else if let Some((name, value)) = own {
            found.warning(
                format!("{id} has {name}={value}: Pacemaker leaves it alone"),
                format!("crm_resource --resource {id} --meta --delete-parameter {name}"),
            );
        } else if !patient.view.maintenance && patient.view.resource(id).is_some_and(|placed| !placed.managed && !placed.blocked) {
            found.warning(
                format!("Pacemaker leaves {id} alone, though that is not set for it alone"),
                "maintenance or is-managed=false of a node (crm_attribute --node NODE --name maintenance --delete), of a group, or in rsc_defaults \
                 (crm_attribute --type rsc_defaults --name is-managed --delete)",
            );
        }
    }
}

/// What a run of `kvmha adopt`, `repair` or `migrate` that was killed has left of a resource, and what brings it to its end. Whatever else ends
/// it may restart the guest: Pacemaker does so when the agent was changed, or when it believes that the guest is in two places.
fn left_by_us(cib: &Cib, id: &str) -> Option<(&'static str, String)> {
    let adopt = adopt::set_id(id);
    if cib.has(&adopt) {
        let back = if cib.value(&format!("{adopt}-goal")).as_deref() == Some("heartbeat") { "--back " } else { "" };
        return Some((
            "was left by a kvmha adopt that did not end",
            format!("kvmha adopt {back}{id}; nothing else, or it may be restarted"),
        ));
    }
    if cib.has(&probe::set_id(id)) {
        let text = "was left by a kvmha repair that did not end: its failures expire after a second";
        return Some((text, format!("kvmha repair {id} --yes")));
    }
    let text = "was left by a kvmha migrate that did not end: Pacemaker leaves it alone";
    cib.has(&migrate::set_id(id)).then(|| (text, format!("kvmha migrate {id} NODE; nothing else, or it may be restarted")))
}

/// Names that lead nowhere, or to this node itself: libvirt's URIs are made of them, and often corosync's addresses.
pub(super) fn names(patient: &Patient, found: &mut Found) {
    let names: Vec<String> = patient.view.nodes.iter().map(|node| node.name.clone()).collect();
    let start = |name: &String| {
        let name = name.clone();
        // The resolver has no time limit of its own.
        Task::start(move || (name.as_str(), 0).to_socket_addrs().ok()?.next().map(|address| address.ip()))
    };
    let tasks: Vec<_> = names.iter().map(|name| (name, start(name))).collect();
    let deadline = Deadline::after(RESOLVING);
    for (name, task) in tasks {
        match task.wait(&deadline).flatten() {
            None => found.problem(
                format!("the name {name} cannot be resolved on {}", patient.here),
                format!("add {name} to /etc/hosts, on every node: guests are moved to it by this name"),
            ),
            // Debian's installer writes the node's own name so. Where corosync goes by names the node never joins the others.
            Some(address) if address.is_loopback() => found.problem(
                format!("the name {name} is {address} on {}, which leads nowhere else", patient.here),
                format!("give {name} its address between the nodes in /etc/hosts on {}, in the place of {address}", patient.here),
            ),
            Some(_) => {}
        }
    }
}

/// Results from the future: the clock of the node that wrote them is ahead of this one's. One that is behind shows on the others.
pub(super) fn clocks(patient: &Patient, found: &mut Found) {
    let now = unix_time();
    let ran = patient.cib.ran();
    let mut nodes: Vec<&str> = ran.iter().map(|ran| ran.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    for node in nodes {
        let newest = ran.iter().filter(|ran| ran.node == node).filter_map(|ran| ran.at).max().unwrap_or(0);
        if let Some(ahead) = newest.checked_sub(now).filter(|ahead| *ahead > SKEW) {
            let of_this_node = ran.iter().filter(|ran| ran.node == node && ran.at.is_some_and(|at| at > now + SKEW));
            let mut stale: Vec<&str> = of_this_node.map(|ran| ran.resource.as_str()).collect();
            stale.sort_unstable();
            stale.dedup();
            found.warning(
                format!(
                    "the clock of {node} is, or was, at least {ahead} s ahead of that of {}: until that time Pacemaker may restart a guest that has left \
                     {node}, and not notice one that ends there",
                    patient.here
                ),
                format!("have chrony or another time service run on all nodes{}", stale.iter().map(|id| forgotten(patient, id, node)).collect::<String>()),
            );
        }
    }
}

/// How what a node has run with a resource is forgotten. A guest that is there is found anew by that, which Pacemaker takes for a failure.
fn forgotten(patient: &Patient, id: &str, node: &str) -> String {
    // The instances of a clone have one name.
    let mut placed = patient.view.resources.iter().filter(|placed| placed.id == id);
    let is_there = placed.any(|placed| placed.nodes.iter().any(|place| place == node));
    match patient.guests.iter().any(|case| case.id() == id) {
        true if is_there => {
            format!("; then crm_resource --refresh --force --resource {id} --node {node}, and on {node} kvmha repair {id} --yes")
        }
        false if is_there => String::new(),
        _ => format!("; then crm_resource --refresh --force --resource {id} --node {node}"),
    }
}

/// A node that is emptied moves all its guests at once, over one link.
pub(super) fn limit(patient: &Patient, found: &mut Found) {
    let limited = patient.cib.option("migration-limit").and_then(|text| text.parse().ok()).is_some_and(|limit: i64| limit > 0);
    let number = patient.guests.iter().filter(|case| resources::is_movable(patient, case)).count();
    if !limited && number > FEW {
        found.warning(
            format!(
                "{number} guests can be moved, and nothing limits how many are at once: each is slower then, and may run out of its time"
            ),
            "crm_attribute --name migration-limit --update 2",
        );
    }
}

/// What has failed.
pub(super) fn failures(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        let id = case.id();
        let Some(placed) = patient.view.resource(id) else { continue };
        let reasons: Vec<String> = patient
            .view
            .failures
            .iter()
            .filter(|failure| failure.is_of(id))
            .map(|failure| format!("{} on {}: {}", failure.key, failure.node, failure.reason))
            .collect();
        let node = placed.nodes.first().map(|node| format!(", on {node}")).unwrap_or_default();
        let remedy = format!("kvmha where {id}, then kvmha repair {id} --yes{node}");
        if placed.blocked {
            found.problem(format!("{id} is blocked: {}", reasons.join("; ")), remedy);
        } else if placed.failed || !reasons.is_empty() {
            found.warning(format!("{id} has failed: {}", reasons.join("; ")), remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, patient};
    use super::*;

    #[test]
    fn a_guest_is_left_alone_where_pacemaker_says_so() {
        let said = |name: &str, value: &str| {
            let resource = format!(
                "<primitive id='web1' class='ocf' provider='kvmha' type='VirtualDomain'><meta_attributes id='m'>\
                 <nvpair id='n' name='{name}' value='{value}'/></meta_attributes></primitive>"
            );
            found(maintenance, &patient(2, true, &[], &resource)).len()
        };
        assert_eq!(["true", "Yes", "y", "On", "1"].map(|value| said("maintenance", value)), [1; 5]);
        assert_eq!(["false", "no", "ja", "perhaps"].map(|value| said("maintenance", value)), [0; 4]);
        assert_eq!(["false", "No", "n", "Off", "0"].map(|value| said("is-managed", value)), [1; 5]);
        assert_eq!(["true", "nein", "f"].map(|value| said("is-managed", value)), [0; 3]);
    }

    #[test]
    fn a_policy_that_stops_all_guests_is_not_set_without_quorum() {
        let remedy = |nodes, quorum| {
            let all = found(policy, &patient(nodes, quorum, &[("no-quorum-policy", "ignore")], ""));
            let [(_, remedy)] = &all[..] else { panic!("{all:?}") };
            remedy.clone()
        };
        let set = "crm_attribute --name no-quorum-policy --update stop";
        assert_eq!(remedy(3, true), set);
        for nodes in [2, 3] {
            let remedy = remedy(nodes, false);
            assert!(remedy.starts_with("first bring the other nodes back") && remedy.contains("stops every guest"), "{remedy}");
            assert!(remedy.ends_with(set), "{remedy}");
        }
        assert!(
            remedy(2, true).contains("two_node: 1") && remedy(2, false).contains("two_node: 1") && !remedy(3, false).contains("two_node")
        );
        assert_eq!(found(policy, &patient(3, false, &[], "")), []);
    }

    #[test]
    fn a_watchdog_is_a_fence_device() {
        let said = |options: &[(&str, &str)]| found(fencing, &patient(0, true, options, ""));
        assert!(said(&[])[0].0.contains("there is no fence device"));
        assert!(said(&[("stonith-watchdog-timeout", "0")])[0].0.contains("there is no fence device"));
        assert_eq!(said(&[("stonith-watchdog-timeout", "10s")]), []);
    }

    /// With fencing and no device Pacemaker starts and recovers nothing.
    #[test]
    fn fencing_is_not_enabled_before_there_is_a_device() {
        let said = |options: &[(&str, &str)]| {
            let mut patient = patient(0, true, options, "");
            patient.view.fencing = false;
            found(fencing, &patient)
        };
        let enable = "crm_attribute --name stonith-enabled --update true";
        let [(first, device), (second, remedy)] = &said(&[])[..] else { panic!() };
        assert!(first.contains("no fence device") && device.contains("pcs stonith create"), "{first}: {device}");
        assert!(second.contains("stonith-enabled=false") && remedy.starts_with("only when there is a fence device"), "{remedy}");
        assert!(remedy.ends_with(enable), "{remedy}");
        let [(_, remedy)] = &said(&[("stonith-watchdog-timeout", "10s")])[..] else { panic!() };
        assert_eq!(remedy, enable);
    }

    #[test]
    fn a_record_of_a_reboot_is_never_taken_for_off() {
        let device = |parameters: &str| {
            format!(
                "<primitive id='fence-web1' class='stonith' type='fence_kvmha'>\
                 <instance_attributes id='i'>{parameters}</instance_attributes></primitive>"
            )
        };
        let with = device("<nvpair id='n' name='fenced_hosts' value='hosta:node1'/>");
        let said = |options: &[(&str, &str)], resources: &str| found(record, &patient(3, true, options, resources));
        for (options, name, action) in [
            (&[][..], "stonith-action", "reboot"),
            (&[("stonith-action", "reboot")], "stonith-action", "reboot"),
            (&[("fencing-action", "reboot")], "fencing-action", "reboot"),
        ] {
            let all = said(options, &with);
            let [(text, remedy)] = &all[..] else { panic!("{all:?}") };
            assert!(text.starts_with("fence-web1 ") && text.contains(&format!("{name}={action}")), "{text}");
            assert!(remedy.contains(&format!("crm_attribute --name {name} --update off")), "{remedy}");
        }
        for options in [("stonith-action", "off"), ("stonith-action", "poweroff"), ("fencing-action", "off")] {
            assert_eq!(said(&[options], &with), [], "{options:?}");
        }
        assert_eq!(said(&[], &device("")), []);
    }

    #[test]
    fn what_the_fencer_says() {
        // Pacemaker 2.1.5.
        let text =
            "<pacemaker-result><list name='fence devices'><item>fence</item></list><status code='0' message='OK'/></pacemaker-result>";
        assert!(has_device(text));
        assert!(!has_device("<pacemaker-result><status code='0' message='OK'/></pacemaker-result>") && !has_device(""));
    }
}
