//! The way to another node: its libvirt, and where a guest's memory goes when it moves there. By the parameters, or as
//! `ocf:heartbeat:VirtualDomain` makes it of the node's name.

use super::Call;
use super::exit::Failure;
use crate::deadline::Deadline;
use crate::domain::migration::Plan;
use crate::domain::{subnet, uri};
use std::time::Duration;

/// How long the resolver may take: a second name server is asked after 5 seconds, for each search domain.
const RESOLVING: Duration = Duration::from_secs(15);

/// The migration that Pacemaker asks for.
pub(super) fn plan(call: &Call) -> Result<Plan, Failure> {
    plan_for(call, call.environment.target()?, &resolving(&call.deadline)).map_err(|unfound| Failure::generic(unfound.text))
}

/// The URIs of a migration to `target`: those of the parameters, or the ones `ocf:heartbeat:VirtualDomain` makes of the target's name. The resolver
/// has until `resolved`.
pub(super) fn plan_for(call: &Call, target: &str, resolved: &Deadline) -> Result<Plan, subnet::Unfound> {
    let parameters = &call.parameters;
    let host = uri::on_network(target, &parameters.migration_network_suffix);
    let remote = remote(call, target);
    // With remoteuri set, %n is the plain name in migrateuri too.
    let place = if parameters.remoteuri.is_some() { target } else { &host };
    let written = parameters.migrateuri.as_ref().or(parameters.migrate_options.migrateuri.as_ref());
    // An address that is found is listened at too: nothing else there is to take the memory.
    let listen = match (written, parameters.migration_network) {
        (None, Some(network)) => {
            let address = subnet::address_in(&host, network, resolved);
            Some(address.map_err(|unfound| unfound.of("migration_network"))?.to_string())
        }
        _ => None,
    };
    let migrate_uri = match (written, &listen) {
        (Some(written), _) => Some(written.replace("%n", place)),
        (None, Some(address)) => Some(uri::migration(address, parameters.migrateport)),
        (None, None) if parameters.migration_network_suffix.is_empty() => None,
        (None, None) => Some(uri::migration(&host, parameters.migrateport)),
    };
    Ok(Plan {
        target: target.to_owned(),
        remote,
        migrate_uri,
        listen,
        options: parameters.migrate_options.clone(),
        speed: parameters.migration_speed,
        downtime: parameters.migration_downtime,
        config: parameters.config.clone(),
        instance: call.environment.instance.clone(),
        storage: parameters.migration_storage_check,
        policy: parameters.migration_policy,
    })
}

/// Until when the resolver may take its time before a move.
fn resolving(deadline: &Deadline) -> Deadline {
    deadline.share(RESOLVING, 3)
}

/// The URI of the libvirt of `node`.
pub(super) fn remote(call: &Call, node: &str) -> String {
    let parameters = &call.parameters;
    match &parameters.remoteuri {
        Some(remote) => remote.replace("%n", node),
        None => {
            let (transport, user) = (parameters.migration_transport.as_deref(), parameters.migration_user.as_deref());
            let host = uri::on_network(node, &parameters.migration_network_suffix);
            call.parameters.hypervisor.on(&host, transport, user).to_string()
        }
    }
}

#[cfg(test)]
pub(in crate::ocf) mod tests {
    use super::super::Environment;
    use super::super::actions::Action;
    use super::*;

    /// A migrate_to with these parameters.
    pub(in crate::ocf) fn call(pairs: &[(&str, &str)]) -> Call {
        let mut variables: std::collections::BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), (*value).to_owned())).collect();
        variables.entry("OCF_RESKEY_config".into()).or_insert("/srv/web1.xml".into());
        Call::new(Action::MigrateTo, Environment::new(&variables, ""), Deadline::after(Duration::from_secs(60)))
    }

    fn planned(pairs: &[(&str, &str)]) -> Result<Plan, Failure> {
        let call = call(pairs);
        assert_eq!(call.faults, []);
        plan(&call)
    }

    #[test]
    fn both_uris_by_the_incumbents_rules() {
        let node = ("CRM_meta_migrate_target", "node2.example.com");
        type Case = (&'static [(&'static str, &'static str)], &'static str, Option<&'static str>);
        let cases: [Case; 9] = [
            (&[], "qemu://node2.example.com/system", None),
            (&[("migration_transport", "ssh"), ("migration_user", "mig")], "qemu+ssh://mig@node2.example.com/system", None),
            (&[("migration_network_suffix", "-mig")], "qemu://node2-mig.example.com/system", Some("tcp://node2-mig.example.com")),
            (
                &[("migration_network_suffix", "-mig"), ("migrateport", "49160")],
                "qemu://node2-mig.example.com/system",
                Some("tcp://node2-mig.example.com:49160"),
            ),
            (&[("migrateport", "49160")], "qemu://node2.example.com/system", None),
            (
                // The user is not part of the place the memory goes to.
                &[("migrateuri", "tcp://%n:1"), ("migration_user", "mig"), ("migration_network_suffix", "-mig")],
                "qemu://mig@node2-mig.example.com/system",
                Some("tcp://node2-mig.example.com:1"),
            ),
            (
                &[("migrateuri", "tcp://%n:1"), ("remoteuri", "qemu+ssh://root@%n/system"), ("migration_network_suffix", "-mig")],
                "qemu+ssh://root@node2.example.com/system",
                Some("tcp://node2.example.com:1"),
            ),
            (&[("migrate_options", "--migrateuri=tcp://%n:2")], "qemu://node2.example.com/system", Some("tcp://node2.example.com:2")),
            (
                &[("migrate_options", "--migrateuri=tcp://%n:2"), ("migrateuri", "tcp://%n:1")],
                "qemu://node2.example.com/system",
                Some("tcp://node2.example.com:1"),
            ),
        ];
        for (pairs, remote, migrate_uri) in cases {
            let plan = planned(&[pairs, &[node]].concat()).unwrap();
            assert_eq!((plan.remote.as_str(), plan.migrate_uri.as_deref()), (remote, migrate_uri), "{pairs:?}");
        }
    }

    /// By a clock that is made up.
    #[test]
    fn a_second_name_server_is_waited_for() {
        let network = subnet::Subnet::parse("10.0.0.0/8").unwrap();
        let find = || {
            let slow = |_: &str| {
                let _ = Deadline::after(Duration::from_secs(60)).pause(Duration::from_secs(6));
                Ok(vec!["10.0.0.2".parse().unwrap()])
            };
            subnet::address_by(slow, "node2", network, &resolving(&Deadline::after(Duration::from_secs(60))))
                .map_or_else(|unfound| unfound.text, |address| address.to_string())
        };
        let answers =
            crate::simulation::explore(0, || crate::simulation::hosts::World::new(&["qemu:///system"], false), find, |_, _| Ok(()));
        assert_eq!(answers.into_keys().collect::<Vec<_>>(), ["10.0.0.2"]);
    }

    #[test]
    fn the_network_by_its_address() {
        let node = ("CRM_meta_migrate_target", "127.0.0.1");
        let found = planned(&[node, ("migration_network", "127.0.0.0/8"), ("migrateport", "49160")]).unwrap();
        assert_eq!((found.migrate_uri.as_deref(), found.listen.as_deref()), (Some("tcp://127.0.0.1:49160"), Some("127.0.0.1")));
        let none = planned(&[node, ("migration_network", "10.0.0.0/8")]).unwrap_err();
        assert_eq!(none, Failure::generic("migration_network: the name 127.0.0.1 has no address in 10.0.0.0/8"));
        let written = planned(&[node, ("migration_network", "10.0.0.0/8"), ("migrateuri", "tcp://%n:1")]).unwrap();
        assert_eq!((written.migrate_uri.as_deref(), written.listen), (Some("tcp://127.0.0.1:1"), None));
    }

    #[test]
    fn no_target_is_an_error_that_does_not_stop_the_guest() {
        let failure = planned(&[]).unwrap_err();
        assert_eq!(failure, Failure::generic("migrate_to: no target node given (CRM_meta_migrate_target)"));
    }
}
