//! A guest's live migration to another host: peer-to-peer, watched, called off in time, and verified on both hosts.
//!
//! Peer-to-peer, the source's daemon brings a migration to its end alone if this process is killed. So a later action first asks
//! whether one is in flight, and this one calls its own off before its deadline instead of leaving it.

use super::connection::{Connection, Guest};
use super::definition::Identity;
use super::options::Options;
use super::status::ask_through;
use super::{Error, Kind, Reason, Result, State, Uri, ffi};
use crate::deadline::{Deadline, Task};
use crate::log;
use std::time::Duration;
use virt::sys;

/// What is kept free at the end of the time: calling the migration off and looking at both hosts.
const RESERVE: Duration = Duration::from_secs(10);

/// How often progress is logged.
const REPORT: Duration = Duration::from_secs(10);

/// A move that is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The target's name, for people.
    pub target: String,
    /// The libvirt at the target, as this host and its daemon reach it.
    pub remote: String,
    /// Where the memory goes, if not libvirt's choice.
    pub migrate_uri: Option<String>,
    /// `migrate_options`.
    pub options: Options,
    /// Greatest bandwidth in MiB/s; 0 leaves libvirt's.
    pub speed: u64,
    /// Greatest downtime in milliseconds; 0 leaves libvirt's.
    pub downtime: u64,
}

/// What a host says about the guest.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    /// It runs, or is paused there as it was here.
    Runs,
    /// An emulator waits there, its CPUs stopped.
    Waits(String),
    /// It is positively not there.
    Absent,
    /// Cannot tell.
    Unknown(String),
}

/// Moves the guest; succeeds only if it runs at the target. A guest that is there already is success.
///
/// # Errors
/// The guest was not moved: the text says why, and where it is.
pub fn leave(identity: &Identity, uri: &Uri, plan: &Plan, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    let working = deadline.before(RESERVE.min(deadline.left() / 3));
    let here = Connection::open(&uri.to_string(), &working)?;
    settle(&here, name, &working)?;
    let paused = match ask_through(&here, identity, &working)? {
        Some((State::Running | State::Blocked, ..)) => false,
        Some((State::Paused, reason, _)) if !reason.will_run() => true,
        Some((State::ShutOff, ..)) | None => return arrived(identity, plan, &working),
        Some((state, reason, _)) => {
            return Err(Error::new(Kind::State, format!("{name} is {state} ({}) and cannot be moved", reason.text(state))));
        }
    };
    let Some(guest) = here.guest(name, &working)? else { return arrived(identity, plan, &working) };
    let there = Connection::open(&plan.remote, &working).map_err(|error| error.context(format_args!("target {}", plan.target)))?;
    // A guest of this name at the target is another one, or a second copy of this one. Both forbid the move.
    if let Some((state, reason, _)) = ask_through(&there, identity, &working)?.filter(|(state, ..)| *state != State::ShutOff) {
        let text = format!("{} already has a guest {name}, {state} ({})", plan.target, reason.text(state));
        return Err(Error::new(Kind::State, text));
    }
    let moved = transfer(&guest, plan, &working);
    match moved {
        Ok(()) => confirm(identity, &there, plan, paused, deadline),
        Err(error) => recover(identity, &here, &there, plan, paused, &error, deadline),
    }
}

/// Waits for a migration that an earlier, killed action left in flight; it may yet succeed.
fn settle(here: &Connection, name: &str, deadline: &Deadline) -> Result<()> {
    loop {
        let Some(guest) = here.guest(name, deadline)? else { return Ok(()) };
        if !is_outgoing(&guest, deadline)? {
            return Ok(());
        }
        log::info(format_args!("waiting for a migration of {name} that is in flight"));
        if !deadline.pause(Duration::from_secs(1)) {
            abort(&guest, &Deadline::after(Duration::from_secs(2)));
            return Err(Error::new(Kind::TimedOut, format!("an earlier migration of {name} is still in flight and was called off")));
        }
    }
}

fn is_outgoing(guest: &Guest, deadline: &Deadline) -> Result<bool> {
    match guest.call("asking for the job of", deadline, |domain| ffi::job(domain, ffi::Which::Current)) {
        Ok(job) => Ok(job.is_some_and(|job| job.operation == Some(ffi::OPERATION_MIGRATION_OUT))),
        // It left in the meantime.
        Err(error) if error.kind == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The guest is not here. Is it there?
fn arrived(identity: &Identity, plan: &Plan, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    let there = Connection::open(&plan.remote, deadline)
        .map_err(|error| error.context(format_args!("{name} is not here; target {}", plan.target)))?;
    match side(&there, identity, deadline) {
        Side::Runs => {
            log::info(format_args!("{name} runs on {} already", plan.target));
            Ok(())
        }
        Side::Waits(state) => Err(Error::new(Kind::State, format!("{name} is not here, and {state} on {}", plan.target))),
        Side::Absent => Err(Error::new(Kind::State, format!("{name} runs neither here nor on {}", plan.target))),
        Side::Unknown(text) => Err(Error::new(Kind::Unreachable, format!("{name} is not here; {text}"))),
    }
}

fn side(connection: &Connection, identity: &Identity, deadline: &Deadline) -> Side {
    match ask_through(connection, identity, deadline) {
        Ok(None | Some((State::ShutOff, ..))) => Side::Absent,
        Ok(Some((State::Running | State::Blocked, ..))) => Side::Runs,
        Ok(Some((state, reason, _))) => Side::Waits(format!("{state} ({})", reason.text(state))),
        Err(error) => Side::Unknown(error.text),
    }
}

/// The migration itself, called off if it has not ended at the deadline.
fn transfer(guest: &Guest, plan: &Plan, deadline: &Deadline) -> Result<()> {
    let name = &guest.name;
    if plan.downtime > 0 {
        let downtime = plan.downtime;
        // A wish, as with the incumbent: the migration works without.
        let set = guest.call("setting the downtime of", deadline, move |domain| {
            domain.migrate_set_max_downtime(downtime, 0).map_err(|error| ffi::error(&error))
        });
        if let Err(error) = set {
            log::warning(error);
        }
    }
    let mut parameters = plan.options.parameters();
    parameters.uri.clone_from(&plan.migrate_uri);
    if plan.speed > 0 {
        parameters.bandwidth = Some(plan.speed);
    }
    let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PEER2PEER | sys::VIR_MIGRATE_ABORT_ON_ERROR | plan.options.flags;
    let (remote, mover) = (plan.remote.clone(), guest.clone());
    log::info(format_args!("moving {name} to {} by {}", plan.target, plan.remote));
    // The move has no deadline of its own: it ends by itself, or by being called off.
    let task = Task::start(move || {
        mover.call("moving", &Deadline::after(Duration::from_secs(u64::from(u32::MAX))), move |domain| {
            domain.migrate_to_uri3(Some(&remote), parameters, flags).map_err(|error| ffi::error(&error))
        })
    });
    while !deadline.expired() {
        if let Some(result) = task.wait(&deadline.within(REPORT)) {
            return result;
        }
        report(guest, plan, deadline);
    }
    log::warning(format_args!("moving {name} to {} takes too long and is called off", plan.target));
    let last = Deadline::after(RESERVE / 2);
    abort(guest, &last);
    match task.wait(&last) {
        // It ended well while it was being called off.
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if error.text.contains("canceled") || error.text.contains("aborted") => {
            Err(Error::new(Kind::TimedOut, format!("moving {name} to {} did not end in time and was called off", plan.target)))
        }
        Some(Err(error)) => Err(error),
        None => {
            Err(Error::new(Kind::TimedOut, format!("moving {name} to {} did not end in time and could not be called off", plan.target)))
        }
    }
}

fn abort(guest: &Guest, deadline: &Deadline) {
    if let Err(error) = guest.call("calling off the migration of", deadline, ffi::abort_job) {
        log::warning(error);
    }
}

fn report(guest: &Guest, plan: &Plan, deadline: &Deadline) {
    let job = guest.call("asking for the job of", &deadline.within(Duration::from_secs(2)), |domain| ffi::job(domain, ffi::Which::Current));
    if let Ok(Some(job)) = job {
        let mib = |bytes: Option<u64>| bytes.unwrap_or(0) / (1024 * 1024);
        log::info(format_args!(
            "moving {} to {}: {} of {} MiB sent, {} MiB left, pass {}",
            guest.name,
            plan.target,
            mib(job.data_processed),
            mib(job.data_total),
            mib(job.data_remaining),
            job.memory_iteration.unwrap_or(0)
        ));
    }
}

/// libvirt says it has moved: it must run there.
fn confirm(identity: &Identity, there: &Connection, plan: &Plan, paused: bool, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    loop {
        match side(there, identity, deadline) {
            Side::Runs => break,
            Side::Waits(_) if paused => break,
            Side::Absent => {
                return Err(Error::new(Kind::State, format!("{name} was moved to {} and is not there any more", plan.target)));
            }
            Side::Waits(state) if !deadline.pause(Duration::from_millis(50)) => {
                return Err(Error::new(Kind::State, format!("{name} was moved to {} and is {state} there", plan.target)));
            }
            Side::Waits(_) => {}
            Side::Unknown(text) => {
                // libvirt returns success only after the target has confirmed that the guest runs (`qemuMigrationDstFinish`).
                log::warning(format_args!("{name} was moved to {}, which cannot be asked any more: {text}", plan.target));
                break;
            }
        }
    }
    log::info(format_args!("{name} runs on {}", plan.target));
    Ok(())
}

/// The move failed: find out where the guest is, and have it run there.
fn recover(
    identity: &Identity,
    here: &Connection,
    there: &Connection,
    plan: &Plan,
    paused: bool,
    error: &Error,
    deadline: &Deadline,
) -> Result<()> {
    let name = &identity.name;
    let failed = |text: &str| Err(Error::new(error.kind, format!("{}; {text}", error.text)));
    loop {
        let more = match (side(here, identity, deadline), side(there, identity, deadline)) {
            (Side::Runs, Side::Absent | Side::Unknown(_)) => return failed(&format!("{name} still runs here")),
            (Side::Runs, Side::Waits(_)) => format!("{name} still runs here, a copy that came in waits on {}", plan.target),
            (Side::Runs, Side::Runs) => return failed(&format!("{name} runs here and on {}", plan.target)),
            (Side::Waits(_), Side::Absent) if paused => return failed(&format!("{name} is still here, paused as before")),
            (Side::Absent, Side::Runs) => {
                log::info(format_args!("{name} runs on {} in spite of an error: {error}", plan.target));
                return Ok(());
            }
            // Handed over, but the source was not told: its copy must not go on. Pacemaker stops it next.
            (Side::Waits(_), Side::Runs) => {
                log::warning(format_args!("{name} runs on {}, its copy here waits: {error}", plan.target));
                return Ok(());
            }
            (Side::Waits(_), Side::Absent) => match resume(identity, here, deadline) {
                Ok(()) => "its CPUs are started again".to_owned(),
                Err(error) => error.text,
            },
            (Side::Waits(state), Side::Waits(other)) => format!("{name} is {state} here and {other} on {}", plan.target),
            (Side::Waits(state), Side::Unknown(text)) => format!("{name} is {state} here; {text}"),
            (Side::Absent, Side::Waits(state)) => format!("{name} is {state} on {} and not here", plan.target),
            (Side::Absent, Side::Absent) => return failed(&format!("{name} runs neither here nor on {}", plan.target)),
            (Side::Absent, Side::Unknown(text)) => format!("{name} is not here; {text}"),
            (Side::Unknown(text), _) => text,
        };
        // Both daemons may still be cleaning up.
        if !deadline.pause(Duration::from_millis(200)) {
            return failed(&more);
        }
    }
}

fn resume(identity: &Identity, here: &Connection, deadline: &Deadline) -> Result<()> {
    match here.guest(&identity.name, deadline)? {
        Some(guest) => guest.call("resuming", deadline, |domain| domain.resume().map_err(|error| ffi::error(&error))),
        None => Ok(()),
    }
}

/// Calls off an outgoing migration of the guest, if one is in flight, and waits until it has ended.
///
/// # Errors
/// It could not be asked for or called off.
pub fn call_off(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let here = Connection::open(&uri.to_string(), deadline)?;
    let Some(guest) = here.guest(&identity.name, deadline)? else { return Ok(()) };
    if !is_outgoing(&guest, deadline)? {
        return Ok(());
    }
    log::warning(format_args!("calling off a migration of {} that is in flight", identity.name));
    abort(&guest, deadline);
    while is_outgoing(&guest, deadline)? {
        if !deadline.pause(Duration::from_millis(100)) {
            return Err(Error::new(Kind::TimedOut, format!("the migration of {} did not end in time", identity.name)));
        }
    }
    Ok(())
}

/// Whether a state at the target means that the guest is still coming in.
#[must_use]
pub fn is_incoming(state: State, reason: Reason) -> bool {
    state == State::Paused && matches!(reason, Reason::PAUSED_MIGRATION | Reason::PAUSED_STARTING_UP | Reason::PAUSED_POSTCOPY)
}
