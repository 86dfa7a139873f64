//! start, stop, monitor and status.

use super::actions::Name;
use super::exit::{Code, Failure};
use super::parameters::PausePolicy;
use super::{Call, moving};
use crate::cluster;
use crate::domain::definition::{Definition, Identity};
use crate::domain::elsewhere::{self, Host};
use crate::domain::lifecycle::{self, Creation, Manner};
use crate::domain::record::Record;
use crate::domain::status::{self, Presence, Sight, Trace};
use crate::domain::{Error, Kind, Reason, State, migration};
use crate::log;
use std::time::Duration;

/// How long a start waits for the answers of other nodes: one that hangs must not keep a guest down.
const ASKING: Duration = Duration::from_secs(3);

/// How often a start that found a lock held tries again.
const LEASE_POLL: Duration = Duration::from_secs(2);

/// What monitor and status find.
struct Found {
    trace: Trace,
    presence: Presence,
}

/// Looks for the guest: by the state file, which is there from the first time it was seen until it is stopped, and never hangs; else
/// by the definition.
fn observe(call: &Call) -> Result<Found, Failure> {
    let look = |trace: Trace| {
        let presence = status::look(&trace, &call.hypervisor, &call.deadline).map_err(|error| call.failure(error))?;
        Ok(Found { trace, presence })
    };
    let recorded = call.record().map(|record| look(record.trace())).transpose()?;
    let recorded = match recorded {
        Some(found) if found.presence != Presence::Absent => return Ok(found),
        other => other,
    };
    match (call.definition(), recorded) {
        (Ok(definition), Some(found)) if definition.identity.name == found.trace.identity.name => Ok(found),
        (Ok(definition), _) => look(definition.identity.into()),
        (Err(error), Some(found)) => {
            log::warning(error);
            Ok(found)
        }
        (Err(error), None) => {
            for guess in call.guesses() {
                let found = look(guess.into())?;
                if found.presence != Presence::Absent {
                    log::warning(format_args!("{error}; a guest {} runs here and is taken for it", found.trace.identity.name));
                    return Ok(found);
                }
            }
            // A definition that is not there is what a node looks like that never had the guest. One that cannot be read says nothing.
            let telling = error.kind == Kind::Definition || !call.has_strangers().map_err(|error| call.failure(error))?;
            if call.environment.probe && telling {
                log::info(format_args!("{error}; no guest named like it runs here"));
                return Err(Failure::not_running());
            }
            Err(call.failure(error))
        }
    }
}

/// Is the guest there, and do the scripts agree? 0, 7 (proven not there) or 1; 190 for a guest that a fault has paused.
pub(super) fn monitor(call: &Call) -> Result<(), Failure> {
    status(call)?;
    call.scripts()
}

/// Is the guest there? 0, 7 (proven not there) or 1.
pub(super) fn status(call: &Call) -> Result<(), Failure> {
    call.tolerate_parameters()?;
    loop {
        let Found { trace, presence } = observe(call)?;
        let name = &trace.identity.name;
        match &presence {
            Presence::Absent => return Err(Failure::not_running()),
            Presence::Active(Sight::Libvirt { state: State::Paused, reason: Reason::PAUSED_USER, .. }) if trace.creating => {
                return Err(Failure::generic(format!("{name} is paused, its start was not finished")));
            }
            // A guest that is coming in belongs to the node it comes from, until it has come; a probe waits for the outcome.
            Presence::Active(Sight::Libvirt { state, reason, .. })
                if call.environment.probe && migration::is_incoming(*state, *reason) && call.deadline.pause(Duration::from_millis(200)) => {
            }
            Presence::Active(sight @ Sight::Libvirt { state, reason, .. }) => {
                call.remember(&trace.identity, sight);
                let seen = format!("{name} is {state} ({})", reason.text(*state));
                return match state {
                    State::Paused if reason.is_fault() => judge_fault(call, seen),
                    State::NoState | State::Running | State::Blocked | State::Paused | State::ShuttingDown => Ok(()),
                    _ => Err(Failure::generic(seen)),
                };
            }
            Presence::Active(Sight::Process { trouble, .. }) if trace.creating => {
                return Err(Failure::generic(format!("{name} is there, but its start was not finished; {trouble}")));
            }
            Presence::Active(sight @ Sight::Process { emulator, trouble }) => {
                if emulator.is_dying() {
                    return Err(Failure::generic(format!("{emulator} of {name} is dying; {trouble}")));
                }
                log::warning(format_args!("{emulator} of {name} runs, but libvirt cannot be asked: {trouble}"));
                call.remember(&trace.identity, sight);
                return Ok(());
            }
        }
    }
}

/// What is said of a guest that a fault has paused. It is there: a probe and a person's question get that answer.
fn judge_fault(call: &Call, seen: String) -> Result<(), Failure> {
    match call.parameters.pause_policy {
        _ if call.name != Name::Monitor || call.environment.probe => Ok(()),
        PausePolicy::Ignore => Ok(()),
        PausePolicy::Degraded => Err(Failure::new(Code::Degraded, seen)),
        PausePolicy::Fail => Err(Failure::generic(seen)),
    }
}

/// The other nodes of the cluster that can be asked about guests: those of this partition, if the parameters say how to reach their
/// libvirt, as they do for guests that are moved.
fn other_nodes(call: &Call) -> Vec<Host> {
    let reachable = call.parameters.migration_transport.is_some() || call.parameters.remoteuri.is_some();
    let Some(here) = call.environment.node.as_ref().filter(|_| reachable) else { return Vec::new() };
    let nodes = cluster::partition(&call.deadline.within(ASKING));
    nodes.into_iter().filter(|node| node != here).map(|node| Host { uri: moving::remote(call, &node), name: node }).collect()
}

/// Whether an error of libvirt says that a disk's lock is held: by QEMU (`raw_check_lock_bytes`), virtlockd or sanlock.
fn is_lock_held(error: &Error) -> bool {
    ["Failed to get \"write\" lock", "Failed to get shared \"write\" lock", "Lockspace resource", "resource busy"]
        .iter()
        .any(|text| error.text.contains(text))
}

/// Starts the guest and sees it run, scripts included.
pub(super) fn start(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    let definition = call.definition().map_err(|error| call.failure(error))?;
    let identity = &definition.identity;
    let name = &identity.name;
    let failed = |error: Error| call.failure(error.context(format_args!("start of {name}")));
    loop {
        let trace = call.record().map(|record| record.trace()).filter(|trace| trace.identity.name == *name);
        let trace = trace.unwrap_or_else(|| identity.clone().into());
        match status::look(&trace, &call.hypervisor, &call.deadline).map_err(failed)? {
            Presence::Absent => match create(call, &definition)? {
                Ok(()) => {
                    log::info(format_args!("{name} created"));
                    break;
                }
                // A host that was fenced leaves its locks on a file server until their lease ends.
                Err(error) if is_lock_held(&error) && call.deadline.before(LEASE_POLL).pause(LEASE_POLL) => {
                    log::warning(format_args!("{error}; waiting for the lock"));
                }
                // The daemon may be on its way up, or was lost in the middle: then the guest may be there, look again.
                Err(error) if error.kind == Kind::Unreachable && call.deadline.pause(Duration::from_secs(1)) => log::warning(error),
                Err(error) => return Err(failed(error)),
            },
            // What a start left that was not finished never ran; its view of the disks is as old as it is.
            Presence::Active(Sight::Libvirt { state: State::Paused, reason: Reason::PAUSED_USER, .. }) if trace.creating => {
                log::warning(format_args!("{name} is left from a start that was not finished, ending it"));
                lifecycle::stop(&trace, &call.hypervisor, &Manner::Force, &call.deadline).map_err(failed)?;
                call.shelf().remove();
            }
            // Whether the emulator of such a start was let run, only libvirt can say.
            Presence::Active(Sight::Process { .. }) if trace.creating && call.deadline.pause(Duration::from_millis(500)) => {}
            Presence::Active(Sight::Libvirt { state: State::ShuttingDown, .. }) => {
                if !call.deadline.pause(Duration::from_millis(250)) {
                    return Err(Failure::generic(format!("start of {name}: it is still shutting down")));
                }
            }
            Presence::Active(sight @ Sight::Libvirt { state: State::Paused, reason, .. }) if !reason.will_run() => {
                log::info(format_args!("{name} is here already, paused ({})", reason.text(State::Paused)));
                call.remember(identity, &sight);
                return Ok(());
            }
            Presence::Active(_) => {
                log::info(format_args!("{name} is here already"));
                break;
            }
        }
    }
    lifecycle::await_running(identity, &call.hypervisor, &call.deadline).map_err(failed)?;
    settle(call, identity, "start")
}

/// Creates the guest if no other node has it. The inner result is libvirt's.
fn create(call: &Call, definition: &Definition) -> Result<Result<(), Error>, Failure> {
    let name = &definition.identity.name;
    if let Some(place) = elsewhere::find(&definition.identity, other_nodes(call), &call.deadline.within(ASKING)) {
        return Err(Failure::generic(format!("start of {name} refused: {place}")));
    }
    let creation = match Creation::prepare(definition, &call.hypervisor, &call.deadline) {
        Ok(creation) => creation,
        Err(error) => return Ok(Err(error)),
    };
    // Written first: whoever comes after a start that did not live to see its end has to know of it.
    call.shelf().write(&Record { creating: true, ..call.new_record(&definition.identity) });
    let result = creation.run(&call.deadline);
    if result.as_ref().is_err_and(|error| !error.leaves_open()) {
        call.shelf().remove();
    }
    Ok(result)
}

/// The end of start and migrate_from: the guest runs; its scripts must agree before the deadline, and it must go on running.
pub(super) fn settle(call: &Call, identity: &Identity, action: &str) -> Result<(), Failure> {
    let name = &identity.name;
    loop {
        let presence = status::look(&identity.clone().into(), &call.hypervisor, &call.deadline).map_err(|error| call.failure(error))?;
        let Presence::Active(sight) = presence else { return Err(Failure::generic(format!("{action} of {name}: it ran and is gone"))) };
        call.remember(identity, &sight);
        match call.scripts() {
            Ok(()) => return Ok(()),
            Err(failure) if !call.deadline.pause(Duration::from_secs(1)) => return Err(failure),
            Err(_) => {}
        }
    }
}

/// Ends the guest and proves it gone.
pub(super) fn stop(call: &Call) -> Result<(), Failure> {
    let record = call.record();
    if record.is_none() {
        call.tolerate_parameters()?;
    }
    let manner = if call.parameters.force_stop { Manner::Force } else { Manner::Ask(call.parameters.shutdown_mode.clone()) };
    let end = |trace: &Trace| {
        lifecycle::stop(trace, &call.hypervisor, &manner, &call.deadline)
            .map_err(|error| call.failure(error.context(format_args!("stop of {}", trace.identity.name))))
    };
    if let Some(record) = &record {
        end(&record.trace())?;
        if let Some(uri) = &record.moving {
            migration::end_arrival(&record.identity(), uri, call.parameters.force_stop, &call.deadline)
                .map_err(|error| call.failure(error))?;
        }
    }
    match call.definition() {
        Ok(definition) if record.as_ref().is_some_and(|record| record.name == definition.identity.name) => {}
        Ok(definition) => end(&definition.identity.into())?,
        Err(error) if record.is_some() => log::debug(|| error.text),
        Err(error) => {
            log::warning(format_args!("{error}; looking for guests named like it"));
            for guess in call.guesses() {
                end(&guess.into())?;
            }
            if error.kind != Kind::Definition && call.has_strangers().map_err(|error| call.failure(error))? {
                return Err(call.failure(error.context("a guest runs here that may be this resource's")));
            }
        }
    }
    call.shelf().remove();
    Ok(())
}
