//! How the guests are configured as resources.

use super::super::outlook;
use super::{Case, Found, Patient, seconds};
use crate::cluster::boolean;
use crate::cluster::cib::{Asker, Operation};
use crate::cluster::tool::{self, Trouble};
use crate::deadline::Deadline;
use crate::domain::locks;
use crate::ocf;
use std::time::Duration;

/// Pacemaker's own timeout of an action, in seconds, where nothing is said.
const DEFAULT: u64 = 20;
/// For a tool to say that it is there.
const INSTALLED: Duration = Duration::from_secs(10);

/// Whether it has the agent of this program, which takes new parameters while the guest runs. `ocf:heartbeat:VirtualDomain` has no reload: Pacemaker
/// restarts the guest.
fn is_ours(case: &Case) -> bool {
    case.resource.agent.starts_with("ocf:kvmha:")
}

/// Values that the agent refuses, and places in which no guest can be.
pub(super) fn parameters(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        for fault in ocf::faults(&case.resource.parameters) {
            let change =
                format!("crm_resource --resource {} --set-parameter NAME --parameter-value VALUE; man ocf_kvmha_VirtualDomain", case.id());
            let other = "before kvmha adopt, and with the agent that it has that restarts the guest";
            let remedy = if is_ours(case) { change } else { format!("{other}: {change}") };
            found.problem(format!("{}: {fault}", case.id()), remedy);
        }
        if let Some(multiple) = &case.resource.multiple {
            found.problem(
                format!("{} is part of a {multiple}: the guest would run on several nodes at once", case.id()),
                format!("take {} out of it (pcs resource unclone {0}, or crm configure edit)", case.id()),
            );
        }
    }
}

/// The tools that take a resource out of the configuration with all that names it, which Pacemaker's own do not, and how.
const DELETING: &[(&str, &str)] = &[("pcs", "pcs resource delete --force"), ("crm", "crm configure delete --force")];

/// How a resource is taken out of the configuration with what is installed here.
fn deleting() -> Option<&'static str> {
    let is_installed =
        |tool: &&(&str, &str)| !matches!(tool::run(tool.0, &["--version"], &Deadline::after(INSTALLED)), Err(Trouble::Missing(_)));
    DELETING.iter().find(is_installed).map(|(_, command)| *command)
}

/// Takes a resource away and leaves its guest as it is. Pacemaker stops what it still has a history of and no configuration; `pcs` without
/// `--force` stops it first. A command that is not there would leave the cluster in maintenance.
fn delete(id: &str, deleting: Option<&str>) -> String {
    let (begin, end) = ["true", "false"].map(|value| format!("crm_attribute --name maintenance-mode --update {value}")).into();
    let refresh = format!("crm_resource --refresh --force --resource {id}");
    let why = "since its stop would end the guest";
    match deleting {
        Some(delete) => format!(
            "delete one, in maintenance, which lasts until the last of these commands, {why}: {begin} && {delete} {id} && {refresh} && {end}"
        ),
        None => format!("delete one, in maintenance ({begin}), {why}; then {refresh}, and last {end}"),
    }
}

/// Two resources that mean one guest would have it run twice.
pub(super) fn twice(patient: &Patient, found: &mut Found) {
    for (at, case) in patient.guests.iter().enumerate() {
        for other in patient.guests.iter().skip(at + 1) {
            let config = |case: &Case| case.resource.parameters.get("config").cloned();
            let name = |case: &Case| case.definition.as_ref().ok().map(|definition| definition.identity.name.clone());
            let uuid = |case: &Case| case.definition.as_ref().ok().and_then(|definition| definition.identity.uuid.clone());
            let same = |read: &dyn Fn(&Case) -> Option<String>| read(case).is_some_and(|value| read(other) == Some(value));
            let what = if same(&config) {
                "have the same config"
            } else if same(&name) {
                "have guests of the same name"
            } else if same(&uuid) {
                "have guests with the same UUID"
            } else {
                continue;
            };
            found.problem(
                format!("{} and {} {what}: the guest may run twice, and each stop ends the other's", case.id(), other.id()),
                delete(other.id(), deleting()),
            );
        }
    }
}

/// Definitions that this node cannot read.
pub(super) fn definitions(patient: &Patient, found: &mut Found) {
    for case in patient.guests.iter().filter(|case| case.asked.is_ok()) {
        if let Err(text) = &case.definition {
            found.problem(
                format!("{} cannot be started on {}: {text}", case.id(), patient.here),
                "the file has to be on storage that every node has mounted before Pacemaker starts",
            );
        }
    }
}

/// Has one value of an operation changed and leaves the others as they are: `pcs resource update ... op` sets them back, and of several operations of
/// one name it meets the first.
fn set(operation: &Operation, name: &str, value: &str) -> String {
    let id = operation.settings.get("id").map_or("", String::as_str);
    format!("cibadmin --modify --scope resources --xml-text '<op id=\"{id}\" {name}=\"{value}\"/>'")
}

/// Has an operation added to a resource.
fn add(id: &str, name: &str, interval: &str, timeout: &str) -> String {
    format!(
        "cibadmin --modify --allow-create --scope resources --xml-text '<primitive id=\"{id}\"><operations>\
         <op id=\"{id}-{name}-interval-{interval}\" name=\"{name}\" interval=\"{interval}\" timeout=\"{timeout}\"/></operations></primitive>'"
    )
}

/// Has one of its meta attributes set.
fn set_meta(id: &str, name: &str, value: &str) -> String {
    format!("crm_resource --resource {id} --meta --set-parameter {name} --parameter-value {value}")
}

/// Guests whose death nobody notices.
pub(super) fn monitor(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        let all: Vec<_> = case.resource.operations.iter().filter(|operation| operation.name == "monitor").collect();
        let mut recurring = all.iter().filter(|operation| seconds(&operation.interval).is_some_and(|interval| interval > 0)).peekable();
        let disabled = recurring.peek().copied();
        // A word that is neither leaves it as it is by default (`find_rsc_op_entry_helper` in Pacemaker's `lib/pengine/utils.c`).
        let enabled = |operation: &&Operation| operation.settings.get("enabled").is_none_or(|value| boolean(value) != Some(false));
        if recurring.any(enabled) {
            continue;
        }
        let remedy = disabled.map_or_else(|| add(case.id(), "monitor", "10s", "30s"), |operation| set(operation, "enabled", "true"));
        found.problem(format!("{} has no recurring monitor: nobody notices when it ends", case.id()), remedy);
    }
}

/// Actions that have less time than is advised.
pub(super) fn timeouts(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        for name in ["start", "stop", "monitor", "migrate_to", "migrate_from"] {
            let Some(advised) = ocf::advised_timeout(name).map(u64::from) else { continue };
            let asker = Asker { agent: &case.resource.agent, operation: Some(name), unknown: false };
            let default = patient.cib.defaults("op_defaults", asker).remove("timeout");
            let time = |own: Option<&String>| own.or(default.as_ref()).and_then(|text| seconds(text)).unwrap_or(DEFAULT);
            let mut warn = |what: &str, time: u64, remedy: String| {
                if time < advised {
                    found.warning(format!("{}: {what} has {time} s, {advised} s are advised", case.id()), remedy);
                }
            };
            let own: Vec<_> = case.resource.operations.iter().filter(|operation| operation.name == name).collect();
            // A guest that is not monitored is another check's business.
            if own.is_empty() && name != "monitor" {
                warn(name, time(None), add(case.id(), name, "0s", &format!("{advised}s")));
            }
            for operation in &own {
                let what = if own.len() > 1 { format!("{name} ({})", operation.interval) } else { name.to_owned() };
                warn(&what, time(operation.settings.get("timeout")), set(operation, "timeout", &format!("{advised}s")));
            }
        }
    }
}

/// Answers of Pacemaker's to a failure that are wrong for guests.
pub(super) fn on_fail(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        for operation in &case.resource.operations {
            let (id, name) = (case.id(), &operation.name);
            match (name.as_str(), operation.settings.get("on-fail").map(String::as_str)) {
                ("stop" | "migrate_to" | "migrate_from", Some("ignore")) => found.problem(
                    format!("{id}: {name} has on-fail=ignore: Pacemaker goes on as if it had succeeded, and the guest may run twice"),
                    set(operation, "on-fail", if name == "stop" { "fence" } else { "block" }),
                ),
                ("stop", Some("block")) => found.warning(
                    format!("{id}: stop has on-fail=block: a guest that cannot be stopped is not recovered until a person comes"),
                    set(operation, "on-fail", "fence"),
                ),
                ("monitor" | "start", Some("ignore")) => {
                    found.warning(format!("{id}: {name} has on-fail=ignore: it is not recovered"), set(operation, "on-fail", "restart"));
                }
                _ => {}
            }
        }
    }
}

/// Whether Pacemaker moves it live.
pub(super) fn is_movable(patient: &Patient, case: &Case) -> bool {
    patient.cib.is_movable(case.id())
}

/// Guests that are stopped and started where they could be moved.
pub(super) fn migration(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        let id = case.id();
        if !is_movable(patient, case) {
            found.warning(
                format!("{id} has not allow-migrate=true: it is stopped and started again when it has to go elsewhere"),
                set_meta(id, "allow-migrate", "true"),
            );
        } else if is_ours(case) && case.asked.as_ref().is_ok_and(|asked| !asked.reaches_others()) {
            found.warning(
                format!("{id} says neither migration_transport nor remoteuri: start does not ask the other nodes whether they run it"),
                format!("crm_resource --resource {id} --set-parameter migration_transport --parameter-value ssh (or tls)"),
            );
        }
    }
}

/// Guests that go elsewhere for nothing.
pub(super) fn stickiness(patient: &Patient, found: &mut Found) {
    for id in patient.guests.iter().map(Case::id) {
        let remedy = match patient.cib.meta(id, "resource-stickiness").as_deref().map(str::trim) {
            None => "crm_attribute --type rsc_defaults --name resource-stickiness --update 100".to_owned(),
            // Where it is said, the defaults do not count.
            Some("0") => set_meta(id, "resource-stickiness", "100"),
            Some(_) => continue,
        };
        found.warning(
            format!("{id} has no resource-stickiness: that another guest is started, or a node comes back, may draw it elsewhere"),
            remedy,
        );
    }
}

/// What `crm_resource --move` and `--ban` leave.
pub(super) fn constraints(patient: &Patient, found: &mut Found) {
    let all = patient.cib.moves_left();
    for case in &patient.guests {
        let of_it = |(resource, name): &(String, String)| (resource == case.id()).then(|| name.clone());
        let left: Vec<String> = all.iter().filter_map(of_it).collect();
        if let Some(remedy) = outlook::clearing(&patient.view, &patient.cib, case.id(), &left) {
            found.warning(format!("{} is drawn to a node, or kept from one, by {}", case.id(), left.join(", ")), remedy);
        }
    }
}

/// Disks that two emulators could write to.
pub(super) fn locks(patient: &Patient, found: &mut Found) {
    for case in &patient.guests {
        let Ok(definition) = &case.definition else { continue };
        match locks::unprotected(&definition.xml, &|_, _| Err(String::new())) {
            Ok(locks::Unprotected { devices, network }) => {
                let text = |disks: &[String]| {
                    format!("{}: nothing locks {}: only fencing keeps a second emulator from them", case.id(), disks.join(", "))
                };
                if !devices.is_empty() {
                    found.warning(
                        text(&devices),
                        "while no guest runs, on every node: lock_manager = \"lockd\" in /etc/libvirt/qemu.conf, file_lockspace_dir = a folder \
                         that all nodes share in /etc/libvirt/qemu-lockd.conf, and a restart of libvirtd or virtqemud (Debian 13 has the plugin in \
                         libvirt-daemon-plugin-lockd); or file images",
                    );
                }
                if !network.is_empty() {
                    found.warning(text(&network), "see that the server lets one host write at a time; no setting of libvirt does it");
                }
            }
            Err(error) => found.warning(error.text, "run it as root"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, patient};
    use super::*;
    use crate::cluster::cib::Cib;
    use crate::cluster::view;

    #[test]
    fn nobody_is_told_to_take_its_constraint_from_a_move_that_is_under_way() {
        let cib = Cib::parse(
            "<cib><configuration><resources><primitive id='web1' class='ocf' provider='kvmha' type='VirtualDomain'/></resources><constraints>\
             <rsc_location id='cli-prefer-web1' rsc='web1' node='n2' score='INFINITY'/></constraints></configuration></cib>"
                .to_owned(),
        )
        .unwrap();
        let view = "<r><summary><current_dc present='false'/></summary><resources><resource id='web1' role='Migrating'/></resources></r>";
        let guests = cib.resources().into_iter().map(|resource| Case {
            resource,
            asked: Err(String::new()),
            definition: Err(String::new()),
            storage: None,
        });
        let guests = guests.collect();
        let patient = Patient { here: "n1".to_owned(), view: view::parse(view).unwrap(), cib, guests, hosts: Vec::new() };
        assert_eq!(patient.cib.moves_left().len(), 1);
        let mut found = Found::default();
        constraints(&patient, &mut found);
        assert!(found.0.is_empty(), "{:?}", found.0);
    }

    #[test]
    fn a_monitor_is_enabled_where_pacemaker_says_so() {
        let said = |value: &str| {
            let resource = format!(
                "<primitive id='web1' class='ocf' provider='kvmha' type='VirtualDomain'><operations>\
                 <op id='m' name='monitor' interval='10s' enabled='{value}'/></operations></primitive>"
            );
            found(monitor, &patient(2, true, &[], &resource)).len()
        };
        assert_eq!(["true", "Yes", "y", "On", "1", "perhaps"].map(said), [0; 6]);
        assert_eq!(["false", "no", "0"].map(said), [1; 3]);
    }

    #[test]
    fn maintenance_is_ended_by_the_tools_that_are_there() {
        for (tool, command) in DELETING {
            let remedy = delete("web1", Some(command));
            let (_, line) = remedy.split_once(": ").unwrap();
            let steps: Vec<&str> = line.split(" && ").collect();
            assert_eq!(steps[1], format!("{command} web1"));
            assert_eq!((steps.len(), steps[3]), (4, "crm_attribute --name maintenance-mode --update false"));
            let others = DELETING.iter().filter(|(other, _)| other != tool);
            assert!(others.into_iter().all(|(other, _)| !remedy.contains(&format!("{other} "))), "{remedy}");
        }
        let by_hand = delete("web1", None);
        assert!(!by_hand.contains("&&") && by_hand.ends_with("maintenance-mode --update false"), "{by_hand}");
    }

    /// That agent has no reload: a parameter that changes has Pacemaker restart the guest.
    #[test]
    fn a_parameter_of_the_other_agent_is_not_changed_unsaid() {
        let guest = |provider: &str, more: &str| {
            format!(
                "<primitive id='many1' class='ocf' provider='{provider}' type='VirtualDomain'>\
                 <instance_attributes id='i'><nvpair id='c' name='config' value='/srv/vms/many1.xml'/>{more}</instance_attributes>\
                 <meta_attributes id='m'><nvpair id='a' name='allow-migrate' value='true'/></meta_attributes></primitive>"
            )
        };
        let said = |look, provider: &str, more: &str| found(look, &patient(3, true, &[], &guest(provider, more)));
        assert!(said(migration, "kvmha", "")[0].1.contains("migration_transport"));
        assert_eq!(said(migration, "heartbeat", ""), []);
        let wrong = "<nvpair id='w' name='force_stop' value='perhaps'/>";
        let (own, other) = (said(parameters, "kvmha", wrong), said(parameters, "heartbeat", wrong));
        let change = "crm_resource --resource many1 --set-parameter NAME --parameter-value VALUE";
        assert!(own[0].1.starts_with(change), "{own:?}");
        assert!(other[0].1.starts_with("before kvmha adopt") && other[0].1.contains("restarts the guest"), "{other:?}");
    }
}
