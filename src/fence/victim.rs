//! Ending a guest on one host, and what the answer to that is worth.

use super::note::ORDINARY;
use crate::deadline::{self, Deadline};
use crate::domain::ffi::{self, Which};
use crate::domain::{Condition, Error, Guest, Kind, Result};
use crate::log;
use std::time::{Duration, Instant};
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::sys;

/// What is given to libvirt to call a migration off, and to end its job at the source: it asks the target for that first.
pub(super) const CALLING_OFF: Duration = Duration::from_secs(5);

/// For what libvirt may not say before the emulator answers.
const MOMENT: Duration = Duration::from_secs(2);

/// How long a destroy that ends with "it is not running" may have taken: if longer, it waited for somebody else's, of which
/// nobody here knows when it began.
const WAITED: Duration = Duration::from_secs(5);

/// A guest that is about to be ended.
pub(super) struct Victim {
    /// The number of its host.
    pub(super) host: usize,
    /// libvirt's name of it.
    pub(super) name: String,
    /// Its UUID.
    pub(super) uuid: String,
    /// Its definition, if it is transient and this is not the copy that is coming in.
    pub(super) xml: Option<String>,
    /// Whether another copy of it is under way.
    pub(super) moving: Moving,
    /// The guest itself.
    pub(super) guest: Guest,
}

/// Whether another copy of a guest is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moving {
    /// None is.
    No,
    /// This is the source of a migration.
    Leaving,
    /// There may be one: it comes in, is being started, or its job cannot be asked for.
    Perhaps,
}

/// How ending a guest went.
#[derive(Debug)]
pub(super) enum End {
    /// libvirt ended it, in the time in which that is believable.
    Ended,
    /// It was gone already.
    Gone,
    /// libvirt did not do it; it can be tried again.
    Refused(Error),
    /// It may be gone for libvirt and yet live.
    Unproven(String),
    /// The same: somebody else has ended it, and nobody here knows how long that took.
    Overtaken(String),
}

/// An attempt to end a guest, and how it went.
pub(super) struct Attempt {
    /// How it went.
    pub(super) end: End,
    /// Whether the guest was still on the host then.
    pub(super) stayed: Stayed,
    /// From when until when libvirt had the request, in seconds since 1970, by the [`Watch`].
    pub(super) time: (u64, u64),
}

/// Whether a guest was still on its host when it was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stayed {
    /// It was, and no longer under way.
    Certainly,
    /// Its move was called off, and was not seen to end: it may have left.
    Unproven,
    /// Nobody can tell.
    Unknown,
}

/// What the host's clock said when an end was begun, and goes on evenly from there: how long something took is not to be had from two looks at that
/// clock, which can be set.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    begin: Instant,
    begun: Duration,
}

impl Watch {
    /// It is set now.
    pub(super) fn new() -> Self {
        Self { begin: deadline::now(), begun: deadline::since_1970() }
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> u64 {
        (self.begun + (deadline::now() - self.begin)).as_secs()
    }
}

/// A guest that was found, with what libvirt says of it whatever its emulator does.
pub(super) struct Grip {
    /// The guest.
    pub(super) domain: Domain,
    /// See [`Victim`].
    pub(super) name: String,
    /// See [`Victim`].
    pub(super) uuid: String,
    /// How it stands.
    pub(super) standing: Standing,
}

/// How a guest stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    condition: Condition,
    transient: bool,
}

/// Takes hold of a guest.
pub(super) fn hold(domain: Domain) -> Result<Grip> {
    let virt = |error: virt::error::Error| ffi::error(&error);
    let condition = ffi::state(&domain)?;
    let transient = !domain.is_persistent().map_err(virt)?;
    let (name, uuid) = (domain.name().map_err(virt)?, domain.uuid_string().map_err(virt)?);
    Ok(Grip { domain, name, uuid, standing: Standing { condition, transient } })
}

/// What else is known of a guest before it is ended.
pub(super) struct About {
    /// See [`Victim`].
    pub(super) xml: Option<String>,
    /// See [`Victim`].
    pub(super) moving: Moving,
    /// Whether libvirt owes an answer still. Its connection is better not used any more.
    pub(super) late: bool,
}

/// Asks for it. libvirt may have to wait for the emulator, or for somebody else's question to that: an emulator that hangs and a tool that
/// monitors it are enough. That is no reason not to end it: a destroy waits for neither (`qemuProcessBeginStopJob` in libvirt's
/// `src/qemu/qemu_process.c`).
pub(super) fn about(guest: &Guest, standing: Standing, deadline: &Deadline) -> About {
    let moment = || deadline.within(MOMENT);
    let late = |error: &Error| error.kind == Kind::Unresponsive;
    let job = guest.call("asking for the job of", &moment(), |domain| ffi::job(domain, Which::Current));
    // A job that cannot be asked for is none that could be called off, but it may be a migration.
    let leaving = matches!(&job, Ok(Some(job)) if job.is_outgoing_migration());
    let coming = standing.condition == Condition::PAUSED_MIGRATION && !leaving;
    let starting = standing.condition == Condition::PAUSED_STARTING_UP;
    let xml = (standing.transient && !coming).then(|| {
        // With its secrets, or it could not be started again; without what belongs to this run of it.
        let flags = sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE;
        guest.call("asking for the definition of", &moment(), move |domain| domain.xml_desc(flags).map_err(|error| ffi::error(&error)))
    });
    About {
        moving: if leaving {
            Moving::Leaving
        } else if coming || starting || job.is_err() {
            Moving::Perhaps
        } else {
            Moving::No
        },
        late: job.as_ref().is_err_and(late) || xml.as_ref().is_some_and(|xml| xml.as_ref().is_err_and(late)),
        xml: xml.and_then(Result::ok),
    }
}

impl Victim {
    /// Ends it, after calling its migration off.
    pub(super) fn end(self, deadline: &Deadline, watch: Watch) -> Attempt {
        let stayed = match self.moving {
            Moving::No => Stayed::Certainly,
            Moving::Leaving if self.stays(&deadline.within(CALLING_OFF)) => Stayed::Certainly,
            Moving::Leaving => Stayed::Unproven,
            Moving::Perhaps => Stayed::Unknown,
        };
        let (begin, begun) = (deadline::now(), watch.now());
        let answer = self.guest.call("destroying", deadline, |domain| domain.destroy().map_err(|error| ffi::error(&error)));
        let end = judge_end(answer, deadline::now() - begin, deadline.expired());
        Attempt { end, stayed, time: (begun, watch.now()) }
    }

    /// Calls its migration off. Gives whether it is still here after that, and no longer under way. That libvirt takes the request is no proof:
    /// it sets a flag (`qemuDomainObjAbortAsyncJob` in its `src/qemu/qemu_domainjob.c`) that counts as long as memory is sent, and not when the
    /// guest has been handed over. The end of the job is: after a migration that succeeded there is no guest here to ask for. And so is that the
    /// guest runs here all the time, with the flag set: its job waits for a target that does not answer, and ends before it sends anything
    /// (`qemuMigrationSrcRun`). One that is handed over stands still before that.
    fn stays(&self, deadline: &Deadline) -> bool {
        // At the target of a migration libvirt 9.0 does not answer this call, nor the next one on the connection.
        let called_off = self.guest.call("calling off the migration of", deadline, ffi::abort_job);
        log::debug(|| format!("{}: {called_off:?}", self.name));
        let mut pause = Duration::from_millis(20);
        loop {
            match self.guest.call("asking for the job of", deadline, |domain| ffi::job(domain, Which::Current)) {
                Ok(Some(job)) if job.is_outgoing_migration() => {}
                answer => return answer.is_ok(),
            }
            if !deadline.pause(pause) {
                let seen = self.guest.call("asking for", &deadline::Deadline::after(MOMENT), ffi::state);
                return called_off.is_ok() && seen.is_ok_and(Condition::runs);
            }
            pause *= 2;
        }
    }
}

/// What libvirt's answer to a destroy is worth.
fn judge_end(answer: Result<()>, took: Duration, expired: bool) -> End {
    let text = |text: String| format!("{text}; its emulator may hang in the kernel and still write");
    match answer {
        Ok(()) if took <= ORDINARY => End::Ended,
        Ok(()) => End::Unproven(text(format!("libvirt reported its end only after {} s", took.as_secs()))),
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::State) && took <= WAITED => End::Gone,
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::State) => {
            End::Overtaken(text(format!("{error} after {} s, so that somebody else ended it", took.as_secs())))
        }
        Err(error) if error.kind == Kind::Unresponsive && expired => End::Unproven(text(error.text)),
        Err(error) => End::Refused(error),
    }
}

/// The copy that a guest is known by: the source of a migration, or one whose definition can be had.
pub(super) fn known_by(victims: &[Victim]) -> Option<&Victim> {
    let best =
        victims.iter().find(|victim| victim.moving == Moving::Leaving).or_else(|| victims.iter().find(|victim| victim.xml.is_some()));
    best.or(victims.first())
}

/// Whether libvirt has said no, and has done nothing. One that went away may be doing it; and a system error is also what it says of an emulator
/// that does not go although it was sent SIGKILL ("Device or resource busy", `virProcessKillPainfullyDelay`).
pub(super) fn is_no(error: &Error) -> bool {
    error.kind == Kind::Refused && !error.is_libvirts(ErrorNumber::SystemError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_does_not_go_was_not_refused() {
        let said = |kind, number, text| is_no(&Error::of_libvirt(kind, Some(number), text));
        assert!(said(Kind::Refused, ErrorNumber::OperationDenied, "operation forbidden: read only access prevents virDomainDestroyFlags"));
        let busy = "Failed to terminate process 7 with SIGKILL: Device or resource busy";
        assert!(!said(Kind::Refused, ErrorNumber::SystemError, busy), "it was sent SIGKILL");
        assert!(!said(Kind::Unreachable, ErrorNumber::InternalError, "client socket is closed"));
    }

    #[test]
    fn what_a_destroy_is_worth() {
        let error = |kind| Err(Error::new(kind, "text"));
        let short = Duration::from_secs(1);
        assert!(matches!(judge_end(Ok(()), Duration::from_secs(16), false), End::Ended));
        assert!(matches!(judge_end(Ok(()), Duration::from_secs(80), false), End::Unproven(_)));
        assert!(matches!(judge_end(error(Kind::NotFound), short, false), End::Gone));
        assert!(matches!(judge_end(error(Kind::State), Duration::from_secs(6), false), End::Overtaken(_)));
        assert!(matches!(judge_end(error(Kind::Unresponsive), short, true), End::Unproven(_)));
        assert!(matches!(judge_end(error(Kind::Unresponsive), short, false), End::Refused(_)));
        for kind in [Kind::Refused, Kind::Unreachable, Kind::Internal] {
            assert!(matches!(judge_end(error(kind), short, false), End::Refused(_)));
        }
    }
}
