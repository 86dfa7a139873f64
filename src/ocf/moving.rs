//! migrate_to and migrate_from. Pacemaker calls the first at the source, the second at the target, and then stop at the source.
//!
//! A failure of either is an outage of the guest with Pacemaker's defaults: it is stopped on both nodes and started again.

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;

use super::Call;
use super::exit::Failure;
use super::starting::settle;
use crate::cluster;
use crate::deadline::{Deadline, unix_time};
use crate::domain::definition::Identity;
use crate::domain::emulator::Emulator;
use crate::domain::migration::history::{self, ATTRIBUTE, Course, Entry};
use crate::domain::migration::policy::Policy;
use crate::domain::migration::{self, Plan};
use crate::domain::record::Record;
use crate::domain::status::{self, Presence, Sight};
use crate::domain::{Condition, Error, Kind, State, subnet, uri};
use crate::log;
use crate::parameter::Concerns;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the records of the moves from this host are.
pub const HISTORY: &str = "/run/kvmha/migrations";

/// How long the resolver may take: a second name server is asked after 5 seconds, for each search domain.
const RESOLVING: Duration = Duration::from_secs(15);

/// How long migrate_from waits for a guest of which nothing is to be seen: it is there before migrate_to ends.
const GRACE: Duration = Duration::from_secs(2);

/// How long the definition may take to be read before a move goes on without it.
const READING: Duration = Duration::from_secs(5);

/// Moves the guest to the node that Pacemaker names; success only if it runs there.
pub(super) fn migrate_to(call: &Call) -> Result<(), Failure> {
    // For a word that has nothing to do with a move the guest would be stopped, and then not be started.
    call.insist_on(|fault| fault.concerns != Concerns::Other)?;
    let plan = plan(call)?;
    let record = record(call)?;
    let identity = record.identity();
    insist_on_the_name(call, &identity, &plan)?;
    call.before_move(&identity, &plan)?;
    // Written first: a move goes on without the agent, and stop has to know where the guest may have gone. With the emulator: another
    // resource's stop spares the guest for its sake.
    let mut begun = None;
    let begin = |emulator: Option<Emulator>| {
        let record = begun.insert(record.clone().with(emulator));
        call.shelf().write(&Record { moving: Some(plan.remote.clone()), ..record.clone() });
    };
    let (mut course, start) = (Course::default(), Instant::now());
    let result = migration::leave(&identity, &call.hypervisor, &plan, begin, &mut course, &call.deadline);
    // A guest that has arrived settles an earlier move too, whose agent did not live to see it.
    if result.is_ok() || begun.is_some() && !result.as_ref().is_err_and(Error::leaves_open) {
        call.shelf().write(&Record { moving: None, ..begun.unwrap_or(record) });
    }
    keep(call, &plan, &identity.name, &result, course, start.elapsed());
    result.map_err(|error| call.failure(error))
}

/// The target has no state file of the guest, and knows it by the definition: one that names another by now would have the guest called
/// gone there while it runs.
///
/// # Errors
/// It names another. One that cannot be read is no obstacle: the guest is then known by the names of its file and its resource.
fn insist_on_the_name(call: &Call, identity: &Identity, plan: &Plan) -> Result<(), Failure> {
    let Ok(definition) = call.definition_within(READING).inspect_err(|error| log::debug(|| error.text.clone())) else { return Ok(()) };
    let (name, named) = (&identity.name, &definition.identity.name);
    if name == named {
        return Ok(());
    }
    let (target, config) = (&plan.target, call.parameters.config.display());
    Err(Failure::generic(format!(
        "{name} still runs here, not moved to {target}: config {config} names {named} instead, so that it would not be known there; change that back first"
    )))
}

/// Keeps what became of the move: in the log, as a file, and, if Pacemaker is there, as an attribute of this node.
fn keep(call: &Call, plan: &Plan, guest: &str, result: &Result<(), Error>, course: Course, time: Duration) {
    let policy = Policy::NAMES.iter().find(|(_, policy)| *policy == plan.policy).map_or("", |(name, _)| name);
    let entry = Entry {
        ended: unix_time(),
        guest: guest.to_owned(),
        from: call.environment.node.clone().unwrap_or_else(|| call.environment.host.clone()),
        to: plan.target.clone(),
        moved: result.is_ok(),
        reason: result.as_ref().err().map(|error| error.text.clone()).unwrap_or_default(),
        total_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        policy: policy.to_owned(),
        course,
    };
    log::info(&entry);
    history::keep(Path::new(HISTORY), &entry);
    if let (Some(node), Some(instance)) = (&call.environment.node, &call.environment.instance) {
        let (name, deadline) = (format!("{ATTRIBUTE}{instance}"), call.deadline.within(Duration::from_secs(1)));
        if let Err(trouble) = cluster::set_attribute(node, &name, Some(&entry.attribute()), &deadline) {
            log::debug(|| trouble.to_string());
        }
    }
}

/// The state file, or what would stand in it.
fn record(call: &Call) -> Result<Record, Failure> {
    match call.record() {
        Some(record) => Ok(record),
        None => call.definition().map(|definition| call.new_record(&definition.identity)).map_err(|error| call.failure(error)),
    }
}

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
            call.hypervisor.on(&host, transport, user).to_string()
        }
    }
}

/// Waits until the guest that was moved here runs here, scripts included.
pub(super) fn migrate_from(call: &Call) -> Result<(), Failure> {
    call.tolerate_parameters()?;
    let Arriving { identity, guessed, seen } = arriving(call)?;
    let source = call.environment.migrate_source.as_deref().unwrap_or("another node");
    await_arrival(call, &identity, seen)
        .map_err(|error| call.failure(error.context(format_args!("migration of {} from {source}", identity.name))))?;
    if guessed {
        call.note_guess(&identity);
    }
    settle(call, &identity, "migration")?;
    call.keep_definition(&identity);
    log::info(format_args!("{} has come from {source}", identity.name));
    Ok(())
}

/// A guest that is to come.
struct Arriving {
    identity: Identity,
    /// Only its name says that it is this resource's.
    guessed: bool,
    /// How it was seen already: that must not be forgotten, see [`await_arrival`].
    seen: Option<Presence>,
}

/// Which guest is to come. The state file's, if it is here; else the definition's, for the state file may be an old one. Without a
/// definition here, one that is named like it and has come all the same is taken for it: a failure would end it, and without a definition
/// it could not be started again.
fn arriving(call: &Call) -> Result<Arriving, Failure> {
    let look = |identity: &Identity| status::look(&identity.clone().into(), &call.hypervisor, &call.deadline);
    let known = |identity: Identity, seen: Option<Presence>| Ok(Arriving { identity, guessed: false, seen });
    let recorded = call.record().map(|record| record.identity());
    // One that libvirt does not know, and whose UUID an emulator has, may have another name by now.
    let seen = recorded.as_ref().and_then(|identity| look(identity).inspect_err(|error| log::debug(|| error.text.clone())).ok());
    if let (Some(identity), Some(Presence::Active(_))) = (&recorded, &seen) {
        return known(identity.clone(), seen);
    }
    let error = match (call.definition(), recorded) {
        (Ok(definition), Some(identity)) if definition.identity.name != identity.name => {
            log::info(format_args!("the state file is of {}, which is not seen here", identity.name));
            return known(definition.identity, None);
        }
        (_, Some(identity)) => return known(identity, seen),
        (Ok(definition), None) => return known(definition.identity, None),
        (Err(error), None) => error,
    };
    for guess in call.guesses(&error) {
        let presence = look(&guess).map_err(|error| call.failure(error))?;
        if presence != Presence::Absent {
            log::warning(format_args!(
                "the definition of {} cannot be had here; a guest of that name has come and is taken for it",
                guess.name
            ));
            return Ok(Arriving { identity: guess, guessed: true, seen: Some(presence) });
        }
    }
    Err(call.failure(error))
}

/// Waits until it runs here; `seen`: how it was seen already, if it was.
fn await_arrival(call: &Call, identity: &Identity, mut seen: Option<Presence>) -> Result<(), Error> {
    let name = &identity.name;
    let (trace, grace, half) = (identity.clone().into(), call.deadline.within(GRACE), call.deadline.within(call.deadline.left() / 2));
    // What libvirt has said of a guest that does not run yet, a look without libvirt cannot take back.
    let mut doubt = None;
    loop {
        let looked = seen.take().map_or_else(|| status::look(&trace, &call.hypervisor, &call.deadline), Ok)?;
        let text = match looked {
            Presence::Absent if grace.expired() => return Err(Error::new(Kind::State, format!("{name} is not here and is not coming"))),
            Presence::Absent => {
                // What comes now was not let run by the time of migrate_to's end.
                doubt = Some("here by now, but libvirt has not said that it runs".to_owned());
                "not here".to_owned()
            }
            // It runs, but what it has not got of its memory may never come.
            Presence::Active(Sight::Libvirt { condition, .. }) if condition.is_broken_postcopy() => {
                let text = format!("{name} is {condition}, part of its memory has not come");
                return Err(Error::new(Kind::State, text));
            }
            Presence::Active(Sight::Libvirt { condition: Condition::RUNNING_POSTCOPY, .. }) => {
                "running, but not all of its memory has come".to_owned()
            }
            Presence::Active(Sight::Libvirt { condition, .. }) if condition.runs() => return Ok(()),
            // libvirt was lost since migrate_to saw the guest run here.
            Presence::Active(Sight::Process { emulator, trouble }) if half.expired() && doubt.is_none() => {
                log::warning(format_args!("{emulator} of {name} runs, but libvirt cannot be asked: {trouble}"));
                return Ok(());
            }
            Presence::Active(Sight::Process { trouble, .. }) => doubt.clone().unwrap_or(trouble),
            Presence::Active(Sight::Libvirt { condition, .. }) if condition.stands() => {
                log::warning(format_args!("{name} has come and is {condition}"));
                return Ok(());
            }
            Presence::Active(Sight::Libvirt { condition, .. }) => {
                if condition.state == State::Crashed {
                    return Err(Error::new(Kind::State, format!("{name} is {condition}")));
                }
                doubt.insert(condition.to_string()).clone()
            }
        };
        if !call.deadline.again(Duration::from_millis(100)) {
            return Err(Error::new(Kind::TimedOut, format!("{name} does not run here yet, it is {text}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::actions::Action;
    use super::super::parameters::tests::WRONG;
    use super::super::{Environment, parameters};
    use super::*;
    use crate::deadline::Deadline;

    fn call(pairs: &[(&str, &str)]) -> Call {
        let mut variables: std::collections::BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), (*value).to_owned())).collect();
        variables.entry("OCF_RESKEY_config".into()).or_insert("/srv/web1.xml".into());
        let environment = Environment::new(&variables);
        let (mut parameters, faults) = parameters::read(&environment);
        let hypervisor = parameters.hypervisor.take().unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        Call { action: Action::MigrateTo, environment, parameters, hypervisor, faults, deadline }
    }

    fn planned(pairs: &[(&str, &str)]) -> Result<Plan, Failure> {
        let call = call(pairs);
        assert_eq!(call.faults, []);
        plan(&call)
    }

    #[test]
    fn only_a_wrong_value_that_a_move_needs_keeps_the_guest_where_it_is() {
        let needed = [
            "config",
            "hypervisor",
            "migration_transport",
            "migration_user",
            "migration_downtime",
            "migration_speed",
            "migration_network_suffix",
            "migrateuri",
            "migrate_options",
            "migrateport",
            "remoteuri",
            "migration_policy",
            "migration_storage_check",
            "migration_network",
        ];
        for (name, value) in WRONG {
            let reason = migrate_to(&call(&[(name, value)])).unwrap_err().reason.unwrap_or_default();
            let begins = if needed.contains(name) { format!("{name}: ") } else { "migrate_to: no target node given".to_owned() };
            assert!(reason.starts_with(&begins), "{name}={value}: {reason}");
        }
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
