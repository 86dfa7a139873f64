//! A guest's live migration to another host: peer-to-peer, watched, called off in time, and verified on both hosts.
//!
//! Peer-to-peer, the source's daemon brings a migration to its end alone if this process is killed. So a later action first asks
//! whether one is in flight, and this one calls its own off before its deadline instead of leaving it.

mod arrival;
pub mod defects;
mod handover;
pub mod history;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;
mod plan;
pub mod policy;
pub mod preflight;
mod recover;
mod side;
mod transfer;
mod verdict;

pub use arrival::{call_off, end_arrival, has_arrived};
pub use plan::{Plan, StorageCheck};

use super::connection::Connection;
use super::definition::{Definition, Identity};
use super::emulator::Emulator;
use super::status::{Trace, ask_through};
use super::{Condition, Error, Kind, Result, State, Uri, evidence, ffi, sleep};
use crate::deadline::Deadline;
use crate::log;
use handover::Handover;
use history::Course;
use preflight::{Answers, Subject, Verdict};
use recover::Sides;
use side::{Here, Side, There};
use std::time::Duration;
use transfer::Transfer;

/// What is kept free at the end of the time: calling the migration off and looking at both hosts.
const RESERVE: Duration = Duration::from_secs(10);

/// How long the target's libvirt may take to be there. A host that is lost does not say so, and Pacemaker does nothing about it before this action
/// has ended.
const CONNECTING: Duration = Duration::from_secs(15);

/// Until when a libvirt that cannot be reached is tried again before a move: nothing is lost by that yet, and a move that fails is a guest that is
/// restarted.
#[must_use]
pub fn connecting(working: &Deadline) -> Deadline {
    working.share(CONNECTING, 3)
}

/// The target's libvirt, for what is done there before a move.
///
/// # Errors
/// As for [`Connection::open_again`].
pub fn target(plan: &Plan, deadline: &Deadline) -> Result<Connection> {
    There::new(&plan.remote).connection_again(&connecting(deadline), &deadline.within(CONNECTING))
}

/// Moves the guest; succeeds only if it runs at the target. A guest that is there already is success. `begin` is called right before
/// the move is asked for, with the emulator here: from then on it may come to its end without this process. `course` takes what was seen of it.
///
/// # Errors
/// The guest was not moved: the text says why, and where it is. `TimedOut`, `Unreachable` and `Unresponsive`: it may yet move.
pub fn leave(
    identity: &Identity,
    uri: &Uri,
    plan: &Plan,
    begin: impl FnOnce(Option<Emulator>),
    course: &mut Course,
    deadline: &Deadline,
) -> Result<()> {
    let (name, target) = (&identity.name, &plan.target);
    let working = deadline.before_share(RESERVE, 3);
    let unknown = |error: Error| error.context(format_args!("migration of {name} to {target}"));
    let connection = Connection::open_again(&uri.to_string(), &connecting(&working), &working).map_err(unknown)?;
    let mut seen = ask_through(&connection, identity, &working).map_err(unknown)?;
    // The job of a broken post-copy does not end by itself.
    if !seen.as_ref().is_some_and(|(condition, _)| condition.is_broken_postcopy()) {
        arrival::settle(&connection, name, &working, deadline).map_err(unknown)?;
        arrival::await_turn(&connection, name, &working).map_err(unknown)?;
        seen = ask_through(&connection, identity, &working).map_err(unknown)?;
    }
    let (mut broken, mut asleep) = (None, false);
    let (paused, uuid) = match seen {
        Some((_, uuid)) if identity.is_another(&uuid) => {
            return Err(unknown(Error::new(Kind::State, format!("the guest {name} here is another one, UUID {uuid}"))));
        }
        // An earlier move, whose agent could not resume it: only its source can. At its target the CPUs run, and what is missing there cannot
        // be moved on.
        Some((condition @ Condition::PAUSED_POSTCOPY_FAILED, uuid)) => {
            broken = Some(Error::new(Kind::State, format!("{name} is {condition}")));
            (false, uuid)
        }
        Some((condition, _)) if condition.is_broken_postcopy() => {
            let text = format!("{name} is {condition}, part of its memory has not come");
            return Err(unknown(Error::new(Kind::State, text)));
        }
        Some((condition, uuid)) if condition.runs() => (false, uuid),
        Some((condition, uuid)) if condition.stays_paused() => (true, uuid),
        Some((Condition { state: State::Suspended, .. }, uuid)) => {
            asleep = true;
            (false, uuid)
        }
        Some((condition, _)) if condition.is_active() => return Err(unknown(Error::new(Kind::State, format!("{name} is {condition}")))),
        _ => return arrived(identity, uri, plan, &working),
    };
    // A definition may have no UUID; the guest that runs has one, and another guest of its name has not.
    let identity = &Identity { uuid: Some(uuid), ..identity.clone() };
    // Pacemaker keeps 128 characters of a reason: what matters most stands first.
    let still_here =
        |error: Error| error.context(format_args!("{name} {} here, not moved to {target}", if paused { "is still" } else { "still runs" }));
    let Some(guest) = connection.guest(name, &working).map_err(unknown)? else { return arrived(identity, uri, plan, &working) };
    let (mut there, free) = match &broken {
        None => free_target(&connection, identity, plan, &working).map_err(still_here)?,
        // What is there by its name is the other half.
        Some(_) => (There::new(&plan.remote), false),
    };
    if asleep {
        log::info(format_args!("{name} is asleep, waking it for its move to {target}"));
        sleep::wake(&guest, &working).map_err(still_here)?;
    }
    let emulators = evidence::find(identity, None, &working).map_err(still_here)?;
    let trace = Trace { emulator: emulators.first().copied(), ..identity.clone().into() };
    begin(trace.emulator);
    let here = Here { uri, trace };
    let handover = Handover::new(emulators, free);
    let postcopy = broken.is_some();
    let transfer = Transfer { guest: &guest, here: &here, there: &mut there, plan, last: None, flowed: false, postcopy, handover };
    carry(transfer, Found { broken, paused }, course, &Limits { working, whole: *deadline })?;
    if let Some(job) = completed(&mut there, name, deadline) {
        course.learn(&job);
    }
    Ok(())
}

/// How the guest is found here.
struct Found {
    /// It is half there already: what is wrong with that move.
    broken: Option<Error>,
    /// Its CPUs stand still, and are to stand still there too.
    paused: bool,
}

/// Until when.
struct Limits {
    /// It is being moved; from then on the move is called off.
    working: Deadline,
    /// It is known where it is.
    whole: Deadline,
}

/// Carries the guest over, or finds out where it is.
fn carry(mut transfer: Transfer, found: Found, course: &mut Course, limits: &Limits) -> Result<()> {
    let Found { broken, paused } = found;
    let deadline = &limits.whole;
    let result = match broken {
        None => transfer.run(&limits.working, deadline),
        Some(error) => transfer.resume(error, deadline),
    };
    let Transfer { here, there, plan, last, flowed, postcopy, mut handover, .. } = transfer;
    course.postcopy = postcopy;
    if let Some(job) = &last {
        course.learn(job);
    }
    let begun = last.is_some();
    let mut sides = Sides { here, there, plan, paused, begun, flowed };
    match result {
        Ok(()) => sides.confirm(deadline),
        Err(error) => sides.recover(&error, &mut handover, deadline),
    }
}

/// What the target's libvirt says of the move that has brought the guest: the source's numbers go with its end.
fn completed(there: &mut There, name: &str, deadline: &Deadline) -> Option<ffi::Job> {
    let deadline = deadline.within(Duration::from_secs(2));
    let guest = there.connection(&deadline).ok()?.guest(name, &deadline).ok()??;
    guest.call("asking for the past job of", &deadline, |domain| ffi::job(domain, ffi::Which::Completed)).ok()?
}

/// The target, if nothing is in the way of the move, and whether it has said that it has no guest of this name.
fn free_target(here: &Connection, identity: &Identity, plan: &Plan, deadline: &Deadline) -> Result<(There, bool)> {
    let mut there = There::new(&plan.remote);
    let connection = there.connection_again(&connecting(deadline), &deadline.within(CONNECTING))?;
    let definition = Definition::running(here, &identity.name, deadline)?
        .ok_or_else(|| Error::new(Kind::State, format!("{} is gone", identity.name)))?;
    let Answers { checks, free } = preflight::with(&Subject { identity, definition: &definition, here }, plan, &connection, deadline);
    for check in checks.iter().filter(|check| check.verdict == Verdict::Warning) {
        log::warning(format_args!("before moving {} to {}: {}: {}", identity.name, plan.target, check.name, check.text));
    }
    match checks.into_iter().find(|check| check.verdict == Verdict::Refuse) {
        Some(check) => Err(Error::new(Kind::State, format!("{}: {}", check.name, check.text))),
        None => Ok((there, free)),
    }
}

/// libvirt has no such guest here. Is it there?
fn arrived(identity: &Identity, uri: &Uri, plan: &Plan, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    match There::new(&plan.remote).side(identity, deadline) {
        Side::Runs => {
            log::info(format_args!("{name} runs on {} already", plan.target));
            Ok(())
        }
        Side::Waits(condition) | Side::Half(condition) => {
            Err(Error::new(Kind::State, format!("{name} is not here, and {condition} on {}", plan.target)))
        }
        Side::Absent => match (Here { uri, trace: identity.clone().into() }).side(deadline) {
            Side::Absent => Err(Error::new(Kind::State, format!("{name} runs neither here nor on {}", plan.target))),
            // libvirt has lost it, mostly.
            Side::Unknown(text) => Err(Error::new(Kind::State, format!("{name} is not on {}; {text}", plan.target))),
            Side::Runs | Side::Waits(_) | Side::Half(_) => {
                Err(Error::new(Kind::State, format!("{name} is here again, not moved to {}", plan.target)))
            }
        },
        Side::Unknown(text) => Err(Error::new(Kind::Unreachable, format!("{name} is not here; {text}"))),
    }
}
