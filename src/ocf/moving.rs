//! migrate_to and migrate_from. Pacemaker calls the first at the source, the second at the target, and then stop at the source.
//!
//! A failure of either is an outage of the guest with Pacemaker's defaults: it is stopped on both nodes and started again.

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;

use super::Call;
use super::exit::Failure;
use super::route;
use super::starting::{definition_yet, settle};
use crate::cluster;
use crate::deadline::{now, unix_time};
use crate::domain::definition::Identity;
use crate::domain::emulator::Emulator;
use crate::domain::migration::history::{self, ATTRIBUTE, Course, Entry};
use crate::domain::migration::policy::Policy;
use crate::domain::migration::{self, Plan};
use crate::domain::record::Record;
use crate::domain::status::{self, Presence, Sight};
use crate::domain::{Condition, Error, Kind, State};
use crate::log;
use crate::parameter::Concerns;
use std::path::Path;
use std::time::Duration;

/// Where the records of the moves from this host are.
pub const HISTORY: &str = "/run/kvmha/migrations";

/// How long migrate_from waits for a guest of which nothing is to be seen: it is there before migrate_to ends.
const GRACE: Duration = Duration::from_secs(2);

/// How long the definition may take to be read before a move goes on without it.
const READING: Duration = Duration::from_secs(5);

/// Moves the guest to the node that Pacemaker names; success only if it runs there.
pub(super) fn migrate_to(call: &Call) -> Result<(), Failure> {
    // For a word that has nothing to do with a move the guest would be stopped, and then not be started.
    call.insist_on(|fault| fault.concerns != Concerns::Other)?;
    let plan = route::plan(call)?;
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
    let (mut course, start) = (Course::default(), now());
    let result = migration::leave(&identity, &call.parameters.hypervisor, &plan, begin, &mut course, &call.deadline);
    // A guest that has arrived settles an earlier move too, whose agent did not live to see it.
    if result.is_ok() || begun.is_some() && !result.as_ref().is_err_and(Error::leaves_open) {
        call.shelf().write(&Record { moving: None, ..begun.unwrap_or(record) });
    }
    keep(call, &plan, &identity.name, &result, course, now() - start);
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
    let look = |identity: &Identity| status::look(&identity.clone().into(), &call.parameters.hypervisor, &call.deadline);
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
    call.suspect_strangers();
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
    // It has come under another name: a failure now would end it for storage that may answer again.
    let most = call.deadline.before(call.deadline.left() / 4);
    definition_yet(call, error, &most).map_err(|error| call.failure(error)).and_then(|definition| known(definition.identity, None))
}

/// Waits until it runs here; `seen`: how it was seen already, if it was.
fn await_arrival(call: &Call, identity: &Identity, mut seen: Option<Presence>) -> Result<(), Error> {
    let name = &identity.name;
    let (trace, grace, half) = (identity.clone().into(), call.deadline.within(GRACE), call.deadline.part(2));
    // What libvirt has said of a guest that does not run yet, a look without libvirt cannot take back.
    let mut doubt = None;
    loop {
        let looked = seen.take().map_or_else(|| status::look(&trace, &call.parameters.hypervisor, &call.deadline), Ok)?;
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
    use super::super::parameters::tests::WRONG;
    use super::super::route::tests::call;
    use super::*;

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
}
