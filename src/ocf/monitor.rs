//! monitor, probe and status.

use super::Call;
use super::actions::Action;
use super::exit::Failure;
use super::outage::Handled;
use super::parameters::PausePolicy;
use super::starting::is_unfinished;
use super::stopping::AGAIN;
use crate::domain::emulator::Emulator;
use crate::domain::evidence;
use crate::domain::holding;
use crate::domain::status::{self, Presence, Sight, Trace};
use crate::domain::{Condition, Error, Identity, Kind, State};
use crate::log;
use std::time::Duration;

/// What monitor and status find.
struct Found {
    trace: Trace,
    presence: Presence,
}

/// Looks for the guest: by the state file, which is there from the first time it was seen until it is stopped, and never hangs; else
/// by the definition. Nothing if the definition is not to be had, and a probe can tell that no guest here is the resource's.
fn observe(call: &Call) -> Result<Option<Found>, Error> {
    let look = |trace: Trace| {
        let trace = trace.of(call.place());
        let presence = status::look(&trace, &call.parameters.hypervisor, &call.deadline)?;
        Ok(Found { trace, presence })
    };
    let recorded = call.record().map(|record| look(record.trace())).transpose()?;
    let recorded = match recorded {
        Some(found) if found.presence != Presence::Absent => return Ok(Some(found)),
        other => other,
    };
    match (call.definition(), recorded) {
        (Ok(definition), Some(found)) if definition.identity.name == found.trace.identity.name => Ok(Some(found)),
        (Ok(definition), _) => look(definition.identity.into()).map(Some),
        (Err(error), Some(found)) => {
            log::warning(error);
            Ok(Some(found))
        }
        (Err(error), None) => {
            for guess in call.guesses(&error) {
                let found = look(guess.into())?;
                if found.presence != Presence::Absent {
                    log::warning(format_args!("{error}; a guest {} runs here and is taken for it", found.trace.identity.name));
                    call.note_guess(&found.trace.identity);
                    return Ok(Some(found));
                }
            }
            // A definition that is not there is what a node looks like that never had the guest, and any node before something is mounted
            // there. That a guest runs here which nobody is known to have does not change that: a probe that fails has the node fenced, if the
            // stop fails too. A definition that cannot be read says nothing.
            let telling = error.kind == Kind::Definition || !call.has_strangers()?;
            if call.environment.probe && telling {
                log::info(format_args!("{error}; no guest named like it runs here"));
                if error.kind == Kind::Definition {
                    call.note_strangers();
                }
                return Ok(None);
            }
            Err(error)
        }
    }
}

/// Is the guest there, and do the scripts agree? 0, 7 (proven not there) or 1; 190 for a guest that a fault has paused, that sleeps, or one with a
/// parameter that is wrong.
pub(super) fn monitor(call: &Call) -> Result<(), Failure> {
    let seen = running(call)?;
    match &seen {
        Seen::Runs(name) => {
            call.leave_marks(name);
            call.pulse(name)?;
        }
        Seen::Exists | Seen::Stands => {}
        Seen::GoesOn => return Ok(()),
    }
    // What runs in a guest that stands still cannot answer: that would be a failure, and cost the guest its life.
    let result = if matches!(seen, Seen::Stands) { Ok(()) } else { call.scripts() };
    call.attend();
    result?;
    // The guest is well, but it could not be started again: an operator has to see that, and Pacemaker must not act on it.
    match call.faults.first().filter(|_| !call.environment.probe) {
        Some(fault) => Err(Failure::degraded(fault.to_string())),
        None => Ok(()),
    }
}

/// Is the guest there? 0, 7 (proven not there) or 1.
pub(super) fn status(call: &Call) -> Result<(), Failure> {
    running(call).map(drop)
}

/// How a guest is there.
enum Seen {
    /// libvirt says that it runs; its name.
    Runs(String),
    /// It exists.
    Exists,
    /// libvirt says that it is paused, or asleep.
    Stands,
    /// It runs again after it stood still: what is in it may need a moment.
    GoesOn,
}

/// As [`status()`]; says how it is there.
fn running(call: &Call) -> Result<Seen, Failure> {
    call.tolerate_parameters()?;
    loop {
        let Found { trace, presence } = match observe(call) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Failure::not_running()),
            Err(error) => {
                if let Some((name, emulator)) = lost(call, &error) {
                    return judge_lost(call, format!("{emulator} of {name} runs, but libvirt does not know it any more"));
                }
                if error.kind != Kind::Definition && asks_again(call) {
                    continue;
                }
                return Err(call.failure(error));
            }
        };
        let name = &trace.identity.name;
        match &presence {
            Presence::Absent => {
                if is_probe(call) {
                    call.forget_arrived(&trace.identity);
                }
                return Err(Failure::not_running());
            }
            Presence::Active(Sight::Libvirt { condition, .. }) if trace.creating && is_unfinished(call, *condition) => {
                return Err(Failure::generic(format!("{name} is paused, its start was not finished")));
            }
            // A guest that is coming in belongs to the node it comes from, until it has come; a probe waits for the outcome.
            Presence::Active(Sight::Libvirt { condition, .. })
                if call.environment.probe && condition.is_incoming() && call.deadline.again(Duration::from_millis(200)) => {}
            Presence::Active(sight @ Sight::Libvirt { condition, .. }) => {
                call.remember(&trace.identity, sight);
                return told(call, &trace.identity, *condition);
            }
            Presence::Active(Sight::Process { .. }) if trace.creating && asks_again(call) => {}
            Presence::Active(Sight::Process { trouble, .. }) if trace.creating => {
                return Err(Failure::generic(format!("{name} is there, but its start was not finished; {trouble}")));
            }
            Presence::Active(sight @ Sight::Process { emulator, trouble }) => {
                if emulator.is_dying() {
                    if asks_again(call) {
                        continue;
                    }
                    return Err(Failure::generic(format!("{emulator} of {name} is dying; {trouble}")));
                }
                log::warning(format_args!("{emulator} of {name} runs, but libvirt cannot be asked: {trouble}"));
                call.remember(&trace.identity, sight);
                return Ok(Seen::Exists);
            }
        }
    }
}

/// How a guest is there by libvirt's word.
fn told(call: &Call, identity: &Identity, condition: Condition) -> Result<Seen, Failure> {
    let name = &identity.name;
    let seen = format!("{name} is {condition}");
    if condition == Condition::PAUSED_IO_ERROR {
        return match call.outage(identity, seen)? {
            Handled::GoesOn => Ok(Seen::GoesOn),
            Handled::Paused(seen) => judge_fault(call, seen).map(|()| Seen::Stands),
        };
    }
    if condition.runs() {
        call.end_outage();
    }
    // Nobody watches it any more: Pacemaker calls no recurring monitor from the start of a move to its end (`should_cancel_recurring`).
    if let (Condition::PAUSED_MIGRATION, Some(uri)) = (condition, unsettled(call)) {
        return judge_fault(call, format!("{seen}, the end of its move to {uri} is not known")).map(|()| Seen::Stands);
    }
    // A live dump or snapshot has QEMU stop it, and libvirt, which did not ask for that, does not know why.
    if condition == Condition::PAUSED_UNKNOWN {
        let limit = call.deadline.part(4);
        match holding::stands_for_a_job(identity, &call.parameters.hypervisor, &limit) {
            Some(true) => return Ok(Seen::Stands),
            // What is not known costs no guest its life.
            None if call.parameters.pause_policy == PausePolicy::Fail => return Ok(Seen::Stands),
            _ => {}
        }
    }
    match condition.state {
        State::Paused if condition.is_fault() => judge_fault(call, seen).map(|()| Seen::Stands),
        State::Paused => Ok(Seen::Stands),
        _ if condition.is_broken_postcopy() => judge_fault(call, seen).map(|()| Seen::Exists),
        State::Running | State::Blocked => Ok(Seen::Runs(name.clone())),
        State::NoState | State::ShuttingDown => Ok(Seen::Exists),
        // A wake-up brings it back as it was, and of a state that nobody here knows nothing says that a restart is needed.
        State::Suspended | State::Unknown(_) => judge_fault(call, seen).map(|()| Seen::Stands),
        State::Crashed | State::ShutOff => Err(Failure::generic(seen)),
    }
}

/// The libvirt to which a move was begun whose end is not known.
fn unsettled(call: &Call) -> Option<String> {
    call.record().and_then(|record| record.moving)
}

/// Whether this is a probe with time for another look, which then is due. Pacemaker takes a guest whose probe has failed for one that runs there
/// (`unpack_rsc_op_failure`), and ends it there and on the node where it is well; so a probe does not fail for what passes.
fn asks_again(call: &Call) -> bool {
    is_probe(call) && call.deadline.again(AGAIN)
}

fn is_probe(call: &Call) -> bool {
    call.action == Action::Monitor && call.environment.probe
}

/// The guest that libvirt has lost, its emulator being well: one that this resource has seen run, whose only emulator is still that one. libvirt
/// forgets a guest that it ends only after it has sent SIGKILL, which shows.
fn lost(call: &Call, error: &Error) -> Option<(String, Emulator)> {
    let record = call.record().filter(|record| error.kind == Kind::Lives && !record.guessed && record.is_current(&record.identity()))?;
    let emulator = record.trace().emulator?;
    // Its command line may not come any more.
    call.deadline.part(4).run(move || emulator.is_well()).filter(|well| *well)?;
    let found = evidence::find(&record.identity(), Some(emulator), &call.part()).ok()?;
    (found == [emulator]).then_some((record.name, emulator))
}

/// What is said of such a guest. To fail would end it.
fn judge_lost(call: &Call, seen: String) -> Result<Seen, Failure> {
    if call.action == Action::Monitor && !call.environment.probe {
        return Err(Failure::degraded(seen));
    }
    log::warning(seen);
    Ok(Seen::Exists)
}

/// What is said of a guest that a fault has paused, or that sleeps. It is there: a probe and a person's question get that answer.
fn judge_fault(call: &Call, seen: String) -> Result<(), Failure> {
    match call.parameters.pause_policy {
        _ if call.action != Action::Monitor || call.environment.probe => Ok(()),
        PausePolicy::Ignore => Ok(()),
        PausePolicy::Degraded => Err(Failure::degraded(seen)),
        PausePolicy::Fail => Err(Failure::generic(seen)),
    }
}
