//! start: the guest is created if it is proven to be nowhere, and seen to run; and what start and the arrival of a move end with.

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;
mod others;

use self::others::{Others, Unfit};
use super::Call;
use super::exit::Failure;
use super::stopping::AGAIN;
use crate::deadline::Deadline;
use crate::domain::creation::{self, Creation};
use crate::domain::definition::{Definition, Identity};
use crate::domain::ending::{self, Manner};
use crate::domain::record::Record;
use crate::domain::status::{self, Presence, Sight, Trace};
use crate::domain::{Condition, Error, Kind, State, evidence, locks, twin};
use crate::log;
use std::time::Duration;

/// How long a side question may take: whose the guest's UUID is here, who holds a lock.
const ASKING: Duration = Duration::from_secs(3);

/// How often a start that found a lock held tries again.
const LEASE_POLL: Duration = Duration::from_secs(2);

/// Starts the guest and sees it run, scripts included.
pub(super) fn start(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    let half = call.deadline.part(2);
    let record = call.record();
    let definition = match (call.definition(), &record) {
        (Ok(definition), _) => definition,
        (Err(error), Some(record)) => return start_without_definition(call, record, error),
        (Err(error), None) => definition_yet(call, error, &half).map_err(|error| call.failure(error))?,
    };
    let identity = &definition.identity;
    let name = &identity.name;
    let failed = failing(call, name);
    // Under another name it may well have the same disks.
    if let Some(before) = record.as_ref().filter(|record| record.name != *name)
        && status::look(&before.trace().of(call.place()), &call.parameters.hypervisor, &call.deadline).map_err(failed)? != Presence::Absent
    {
        return Err(Failure::generic(format!("start of {name}: this resource's guest was {}, which still runs here", before.name)));
    }
    let mut unseen = false;
    loop {
        match next(call, identity)? {
            Next::Create => match create(call, &definition) {
                Ok(()) => {
                    log::info(format_args!("{name} created"));
                    break;
                }
                Err(NotCreated::Refused(failure)) => return Err(failure),
                Err(NotCreated::Failed(error)) if was_in_the_way(call, identity, &error, &mut unseen) => log::warning(error),
                Err(NotCreated::Failed(error)) => wait_out(call, error).map_err(failed)?,
            },
            Next::Look => {}
            Next::Settle => return settle(call, identity, "start"),
            Next::Nothing => return Ok(()),
        }
    }
    let sight = creation::await_running(identity, &call.parameters.hypervisor, &call.deadline).map_err(failed)?;
    // At once: libvirt may be silent at the next look, and what the record says of an unfinished start would be held against the guest.
    call.remember(identity, &sight);
    settle(call, identity, "start")?;
    call.attend();
    Ok(())
}

/// What a start of `name` says of an error.
fn failing(call: &Call, name: &str) -> impl Fn(Error) -> Failure + Copy {
    move |error| call.failure(error.context(format_args!("start of {name}")))
}

/// What a start does next, by what is seen of the guest.
enum Next {
    /// It is proven not to be here.
    Create,
    /// Look again: it may be another sight by now.
    Look,
    /// It runs: see whether its scripts agree.
    Settle,
    /// It is here, and is not to run.
    Nothing,
}

/// Looks at the guest. What is left of a start that was not finished is ended, what is about to change is waited for.
fn next(call: &Call, identity: &Identity) -> Result<Next, Failure> {
    let name = &identity.name;
    let failed = failing(call, name);
    let record = call.record().filter(|record| record.name == *name);
    let trace = record.as_ref().map_or_else(|| identity.clone().into(), Record::trace).of(call.place());
    let presence = match status::look(&trace, &call.parameters.hypervisor, &call.deadline) {
        // What an earlier start has asked for may have its turn yet.
        Err(error) if trace.creating && error.kind == Kind::Unresponsive && call.deadline.again(Duration::from_millis(500)) => {
            log::warning(error);
            return Ok(Next::Look);
        }
        presence => presence.map_err(failed)?,
    };
    Ok(match presence {
        Presence::Absent => Next::Create,
        // What a start left that was not finished never ran; its view of the disks is as old as it is.
        Presence::Active(Sight::Libvirt { condition, .. }) if trace.creating && is_unfinished(call, condition) => {
            log::warning(format_args!("{name} is left from a start that was not finished, ending it"));
            ending::stop(&trace, &call.parameters.hypervisor, &Manner::Force, &call.deadline).map_err(failed)?;
            if record.is_some_and(|record| record.restoring) && condition == Condition::PAUSED_MIGRATION {
                call.take_back(name);
            }
            call.shelf().remove();
            Next::Look
        }
        // Whether the emulator of such a start was let run, only libvirt can say.
        Presence::Active(Sight::Process { .. }) if trace.creating && call.deadline.again(Duration::from_millis(500)) => Next::Look,
        // It was seen to run, and it is the same emulator.
        Presence::Active(Sight::Process { emulator, trouble }) if record.is_some_and(|record| record.is_current(&trace.identity)) => {
            log::warning(format_args!("{emulator} of {name} runs already, but libvirt cannot be asked: {trouble}"));
            Next::Settle
        }
        Presence::Active(Sight::Libvirt { condition, .. }) if condition.state == State::ShuttingDown => {
            if !call.deadline.again(Duration::from_millis(250)) {
                return Err(Failure::generic(format!("start of {name}: it is still {condition}")));
            }
            Next::Look
        }
        // The half of its memory that has not come may never do so: Pacemaker starts what it has seen stopped, or its node fenced.
        Presence::Active(Sight::Libvirt { condition, .. }) if condition.is_incoming_postcopy() => {
            if condition.is_broken_postcopy() || !call.deadline.again(Duration::from_millis(250)) {
                return Err(Failure::generic(format!("start of {name}: it is {condition}, part of its memory has not come")));
            }
            Next::Look
        }
        Presence::Active(sight @ Sight::Libvirt { condition, .. }) if condition.stands() => {
            log::info(format_args!("{name} is here already, {condition}"));
            call.remember(identity, &sight);
            Next::Nothing
        }
        // A libvirt that has not noticed an end lists a guest that is not there.
        Presence::Active(Sight::Libvirt { condition, .. })
            if condition.runs() && evidence::find(&trace.identity, trace.emulator, &call.deadline).map_err(failed)?.is_empty() =>
        {
            if !call.deadline.again(Duration::from_millis(250)) {
                return Err(Failure::generic(format!("start of {name}: libvirt lists it as running, but it has no emulator")));
            }
            Next::Look
        }
        Presence::Active(sight @ Sight::Libvirt { condition, .. }) if condition.runs() => {
            log::info(format_args!("{name} is here already"));
            call.remember(identity, &sight);
            Next::Settle
        }
        // On its way, or what is left of a move that has failed: that one libvirt ends, and then the guest is created.
        Presence::Active(sight) => {
            let seen = creation::on_its_way(name, &sight).map_err(failed)?;
            if !call.deadline.again(Duration::from_millis(250)) {
                return Err(failed(Error::new(Kind::TimedOut, format!("{name} does not run yet: {seen}"))));
            }
            Next::Look
        }
    })
}

/// Whether a guest was not created because a copy of it was in the way that may have gone by now: one that a failed move has left here, which libvirt
/// ends as soon as it notices. Then it is looked at again. `unseen`: whether that was said before of one that was gone by then; another
/// time it is not believed.
fn was_in_the_way(call: &Call, identity: &Identity, error: &Error, unseen: &mut bool) -> bool {
    if !matches!(error.kind, Kind::State | Kind::NotFound) {
        return false;
    }
    match status::look(&identity.clone().into(), &call.parameters.hypervisor, &call.deadline) {
        Ok(Presence::Active(_)) => true,
        Ok(Presence::Absent) => !std::mem::replace(unseen, true),
        Err(_) => false,
    }
}

/// Waits before the guest is looked at again that was not created because of `error`.
///
/// # Errors
/// That one, if it is not one that passes, or not in time.
fn wait_out(call: &Call, error: Error) -> Result<(), Error> {
    // A host that was fenced leaves its locks on a file server until their lease ends.
    if locks::is_held(&error) {
        // Only for the words: an emulator that does not show itself must not take the time in which the lock runs out.
        let holder = locks::holder(&error, &call.deadline.share(ASKING, 4)).unwrap_or_else(|| "its holder cannot be told".into());
        if !call.deadline.before(LEASE_POLL).pause(LEASE_POLL) {
            return Err(error.context(holder));
        }
        log::warning(format_args!("{error}; {holder}; waiting for the lock"));
        return Ok(());
    }
    // The daemon may be on its way up, or was lost in the middle: then the guest may be there, look again.
    if error.kind == Kind::Unreachable && call.deadline.again(Duration::from_secs(1)) {
        log::warning(error);
        return Ok(());
    }
    Err(error)
}

/// Whether a guest in this condition is what a start left that was not finished: created, or restored, and not let run.
pub(super) fn is_unfinished(call: &Call, condition: Condition) -> bool {
    condition == Condition::PAUSED_USER || condition == Condition::PAUSED_MIGRATION && call.parameters.snapshot.is_some()
}

/// A start whose definition cannot be had, because of `error`: there is nothing to do if this resource's guest is here already, and a
/// failure would end it.
fn start_without_definition(call: &Call, record: &Record, error: Error) -> Result<(), Failure> {
    let trace = record.trace();
    match status::look(&trace, &call.parameters.hypervisor, &call.deadline).map_err(|error| call.failure(error))? {
        Presence::Active(sight) if !trace.creating && sight.may_run() => {
            log::warning(format_args!("{error}; {} is here already", record.name));
            settle(call, &trace.identity, "start")
        }
        _ => Err(call.failure(error)),
    }
}

/// The definition that could not be read because of `error`, once it can: an NFS server that fails over answers nobody for a minute and more, and a
/// start that fails meanwhile on every node leaves the guest down.
///
/// # Errors
/// It is not there or not usable, or not to be had by `most`.
pub(super) fn definition_yet(call: &Call, mut error: Error, most: &Deadline) -> Result<Definition, Error> {
    while error.kind != Kind::Definition && most.again(AGAIN) {
        log::info(format_args!("{error}, waiting for it"));
        error = match call.definition_within(most.left()) {
            Err(error) => error,
            found => return found,
        };
    }
    Err(error)
}

/// Why a guest was not created.
enum NotCreated {
    /// It is not to be, here or now.
    Refused(Failure),
    /// What had to be done for it failed, or libvirt did.
    Failed(Error),
}

impl From<Failure> for NotCreated {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<Error> for NotCreated {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Creates the guest if no other node has it.
fn create(call: &Call, definition: &Definition) -> Result<(), NotCreated> {
    let name = &definition.identity.name;
    call.insist_on_one_instance().map_err(|why| Failure::generic(format!("start of {name} refused: {why}")))?;
    // libvirt would refuse it too, in words that do not say what to do.
    if let Ok(Some(other)) = twin::other(&definition.identity, &call.parameters.hypervisor, &call.deadline.within(ASKING)) {
        return Err(Failure::generic(format!("start of {name} refused: its UUID is that of {other}, which runs here")).into());
    }
    let refused = |why: String| Failure::generic(format!("start of {name} refused: {why}"));
    // The stop that follows a start that is refused must leave alone what has refused it.
    let others = Others::ask(call, &definition.identity).inspect_err(|_| call.forget_arrived(&definition.identity)).map_err(refused)?;
    call.insist_on_programs()?;
    // A saved state is compared with the disks, which may be in a pool.
    call.start_needs(definition)?;
    let state = call.state_to_restore(definition)?;
    call.make_image(definition, state.is_some())?;
    call.insist_on_storage(definition)?;
    let creation = Creation::prepare(definition, &call.parameters.hypervisor, &call.deadline)?;
    // Written first: whoever comes after a start that did not live to see its end has to know of it.
    call.shelf().write(&Record { creating: true, restoring: state.is_some(), ..call.new_record(&definition.identity) });
    let copy = match state {
        Some(file) => creation.restore(&file, &call.deadline),
        None => creation.create(&call.deadline),
    };
    // What the other nodes have said is as old as all that came in between.
    let result = match copy {
        Ok(copy) => match others.ask_again(call, &definition.identity) {
            Ok(()) => copy.let_run(&call.deadline),
            Err(Unfit::IsElsewhere(why)) => return Err(give_way(call, &definition.identity, refused(why)).into()),
            // The stop that follows ends it: there is no time for that either.
            Err(Unfit::Late) => {
                Err(Error::new(Kind::TimedOut, "it is here, paused, and no time is left to ask the other nodes again whether they have it"))
            }
        },
        Err(error) => Err(error),
    };
    if result.as_ref().is_err_and(|error| leaves_nothing(call, &definition.identity, error)) {
        call.shelf().remove();
    }
    result.map_err(NotCreated::Failed)
}

/// Ends the paused copy of a guest that another node has too; what is said then. `refused`: what is said of the start.
fn give_way(call: &Call, identity: &Identity, refused: Failure) -> Failure {
    let trace = Trace::from(identity.clone()).of(call.place());
    match ending::stop(&trace, &call.parameters.hypervisor, &Manner::Force, &call.deadline) {
        Ok(()) => {
            call.shelf().remove();
            refused
        }
        // The state file stays as it is: the stop that follows has to know of it.
        Err(error) => Failure::generic(format!("{}; the paused copy here is not ended: {error}", refused.reason.unwrap_or_default())),
    }
}

/// Whether nothing that a start has asked for is here, or comes yet, after libvirt has answered a request to create the guest with `error`.
fn leaves_nothing(call: &Call, identity: &Identity, error: &Error) -> bool {
    match error.kind {
        // It may have been created before its lock was found to be held.
        Kind::Locked => false,
        // What is in the way may come of the request of an earlier start, which has waited in libvirt since, and nobody lets that run.
        Kind::State => {
            let trace = Trace { creating: true, ..identity.clone().into() };
            matches!(status::look(&trace, &call.parameters.hypervisor, &call.deadline), Ok(Presence::Absent))
        }
        _ => !error.leaves_open(),
    }
}

/// The end of start and migrate_from: the guest runs; its scripts must agree before the deadline, and it must go on running. One that is
/// paused or asleep by then is healthy, or a monitor shows what it has; its scripts could not agree.
pub(super) fn settle(call: &Call, identity: &Identity, action: &str) -> Result<(), Failure> {
    let name = &identity.name;
    loop {
        let presence =
            status::look(&identity.clone().into(), &call.parameters.hypervisor, &call.deadline).map_err(|error| call.failure(error))?;
        let Presence::Active(sight) = presence else { return Err(Failure::generic(format!("{action} of {name}: it ran and is gone"))) };
        call.remember(identity, &sight);
        let condition = match sight {
            Sight::Libvirt { condition, .. } => Some(condition),
            Sight::Process { .. } => None,
        };
        if condition.is_some_and(|condition| matches!(condition.state, State::Paused | State::Suspended)) {
            return Ok(());
        }
        match call.scripts() {
            Ok(()) => {
                if condition.is_some_and(Condition::runs) {
                    call.retire_state(name);
                }
                return Ok(());
            }
            Err(failure) if !call.deadline.again(Duration::from_secs(1)) => return Err(failure),
            Err(_) => {}
        }
    }
}
