//! Moves that another action began: awaited, called off, or ended where they arrived.

use super::preflight::job::in_the_way;
use super::side::{QUESTION, Side, There};
use crate::deadline::{self, Deadline};
use crate::domain::connection::{Connection, Guest};
use crate::domain::definition::Identity;
use crate::domain::ending::{self, Manner, REQUEST};
use crate::domain::{Condition, Error, Kind, Result, Uri, ffi};
use crate::log;
use std::time::Duration;

/// How long a copy may stand still for the handover of a move that was called off: one that still sends its memory goes on at once.
const STANDS: Duration = Duration::from_secs(2);

/// How long a job of another kind is waited for. Pacemaker does nothing else meanwhile, not for a node that dies either.
const TURN: Duration = Duration::from_secs(60);

/// Waits for a migration that an earlier, killed action left in flight; it may yet succeed.
///
/// # Errors
/// It is still in flight when `working` is over: it was called off. Or libvirt's own.
pub(super) fn settle(here: &Connection, name: &str, working: &Deadline, deadline: &Deadline) -> Result<()> {
    let Some(mut guest) = outgoing(here, name, working)? else { return Ok(()) };
    log::info(format_args!("waiting for a migration of {name} that is in flight"));
    while working.before(Duration::from_millis(500)).pause(Duration::from_millis(500)) {
        match outgoing(here, name, working) {
            Ok(None) => return Ok(()),
            Ok(Some(found)) => guest = found,
            // The time was over in the middle of the question: what was known last counts, or it would be left to itself.
            Err(_) if working.expired() => break,
            Err(error) => return Err(error),
        }
    }
    // One in post-copy cannot be: neither host has all of the guest.
    let end = match abort(&guest, &deadline.within(QUESTION)) {
        Ok(()) => "was called off".to_owned(),
        Err(error) => format!("cannot be called off: {error}"),
    };
    Err(Error::new(Kind::TimedOut, format!("an earlier migration of {name} is still in flight and {end}")))
}

/// Waits for half of the time, [`TURN`] at most, for the end of a job of another kind, of which libvirt has one at a time for a guest: a
/// backup, a save. What is there then is said by the checks before the move.
///
/// # Errors
/// libvirt's own.
pub(super) fn await_turn(here: &Connection, name: &str, working: &Deadline) -> Result<()> {
    let patience = working.share(TURN, 2);
    let mut said = false;
    loop {
        let Some(guest) = here.guest(name, working)? else { return Ok(()) };
        let what = match in_the_way(&guest, working) {
            Ok(Some(what)) => what,
            Ok(None) => return Ok(()),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::State) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !std::mem::replace(&mut said, true) {
            log::info(format_args!("{name} is not moved before {what} has ended, which is under way"));
        }
        if !patience.pause(Duration::from_millis(500)) {
            return Ok(());
        }
    }
}

/// The guest, if it is being moved away.
fn outgoing(here: &Connection, name: &str, deadline: &Deadline) -> Result<Option<Guest>> {
    let Some(guest) = here.guest(name, deadline)? else { return Ok(None) };
    Ok(is_outgoing(&guest, deadline)?.then_some(guest))
}

/// Whether it is being moved away.
pub(super) fn is_outgoing(guest: &Guest, deadline: &Deadline) -> Result<bool> {
    match guest.job(deadline) {
        Ok(job) => Ok(job.is_some_and(|job| job.is_outgoing_migration())),
        // It left in the meantime; or it is coming in: "migration statistics are available only on the source host".
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::State) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Calls off what is under way; its end is yet to come.
pub(super) fn abort(guest: &Guest, deadline: &Deadline) -> Result<()> {
    guest.call("calling off the migration of", deadline, ffi::abort_job).inspect_err(|error| log::warning(error))
}

/// Whether the guest runs at the libvirt at `uri`, and has come there whole. Where that cannot be asked it is not said.
#[must_use]
pub fn has_arrived(identity: &Identity, uri: &str, deadline: &Deadline) -> bool {
    There::new(uri).has_all(identity, deadline)
}

/// Ends a guest that may have come to the libvirt at `uri` by a move whose end nobody saw; where it is asked, in the way that libvirt there
/// chooses.
///
/// The proof that it is gone there is that host's own stop, which Pacemaker calls too; this is for a guest that came after it. So a host that cannot be
/// asked is passed over, and so is at last one whose guest does not end, as with an emulator that hangs with its storage: that this host would be
/// fenced for it, with all guests that are well here, would not end it either.
pub fn end_arrival(identity: &Identity, uri: &str, manner: &Manner, deadline: &Deadline) {
    let name = &identity.name;
    let polite = deadline.before(ending::reserve(deadline));
    let patience = deadline.share(Duration::from_secs(10), 3);
    let mut there = There::new(uri);
    let mut asked = false;
    loop {
        match there.side(identity, deadline) {
            Side::Absent => return,
            Side::Unknown(_) if patience.pause(Duration::from_millis(500)) => {}
            Side::Unknown(text) => {
                log::warning(format_args!("whether {name} has come to {uri} cannot be asked: {text}"));
                return;
            }
            // The next look decides, whatever becomes of the request: the other host may be ending it at this moment.
            side @ (Side::Runs | Side::Waits(..) | Side::Half(..)) => {
                let in_vain = match side {
                    Side::Waits(_) => true,
                    Side::Half(condition) => condition.is_broken_postcopy(),
                    _ => false,
                };
                let manner = if in_vain || polite.expired() { &Manner::Force } else { manner };
                if let Some(connection) = there.connection.as_ref().filter(|_| *manner == Manner::Force || !asked) {
                    asked = true;
                    log::warning(format_args!("{name} has come to {uri} by a move that was given up, ending it there"));
                    if let Err(error) = end_at(connection, name, manner, &deadline.within(REQUEST)) {
                        log::warning(error);
                    }
                }
            }
        }
        if !deadline.pause(Duration::from_millis(250)) {
            log::warning(format_args!("{name} is still at {uri}, where the stop has to end it"));
            return;
        }
    }
}

fn end_at(connection: &Connection, name: &str, manner: &Manner, deadline: &Deadline) -> Result<()> {
    let Some(guest) = connection.guest(name, deadline)? else { return Ok(()) };
    match manner {
        Manner::Force => guest.call("ending", deadline, |domain| Ok(domain.destroy()?)),
        Manner::Ask(_) => guest.call("ending", deadline, |domain| Ok(domain.shutdown().map(drop)?)),
    }
}

/// Calls off an outgoing migration of the guest, if one is in flight, and waits until it has ended. Not when the guest was handed over: the
/// word of the target may never come, and libvirt here then lets the copy here go on, whose memory is older than the disks if the guest
/// runs there.
///
/// # Errors
/// It could not be asked for or called off.
pub fn call_off(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let here = Connection::open(&uri.to_string(), deadline)?;
    let Some(guest) = here.guest(&identity.name, deadline)? else { return Ok(()) };
    // The job of a broken post-copy cannot be called off, and does not end.
    let condition = guest.condition(deadline)?;
    if condition.is_broken_postcopy() || !is_outgoing(&guest, deadline)? {
        return Ok(());
    }
    log::warning(format_args!("calling off a migration of {} that is in flight", identity.name));
    let _ = abort(&guest, deadline);
    let mut stood = None;
    while is_outgoing(&guest, deadline)? {
        if guest.condition(deadline)? != Condition::PAUSED_MIGRATION {
            stood = None;
        } else if deadline::now() - *stood.get_or_insert_with(deadline::now) >= STANDS {
            return Ok(());
        }
        if !deadline.pause(Duration::from_millis(100)) {
            return Err(Error::new(Kind::TimedOut, format!("the migration of {} did not end in time", identity.name)));
        }
    }
    Ok(())
}
