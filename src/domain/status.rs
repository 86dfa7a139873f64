//! Whether a guest lives on this host: libvirt's word and the emulator's process together.
//!
//! "Absent" is only said when no emulator of the guest is left, whatever libvirt says, and "cannot tell" is an error.

use super::definition::Identity;
use super::emulator::Emulator;
use super::record::Shelf;
use super::rings::{self, Outliving};
use super::twin;
use super::wire::{self, Look, Trouble};
use super::{Condition, Connection, Error, Kind, Result, Uri, ffi};
use crate::deadline::Deadline;
use crate::log;
use std::path::PathBuf;
use std::time::Duration;

/// How long an emulator that libvirt no longer knows may take to disappear before that is a contradiction: on a normal end
/// libvirt has reaped it before, and a guest that powers itself off is forgotten within milliseconds of its process.
const SETTLING: Duration = Duration::from_secs(3);

/// How long libvirt may take to say something about a guest before its process is asked instead.
const ANSWER: Duration = Duration::from_secs(10);

/// What is kept of the time for the question that comes after a wait for libvirt's turn.
const LAST_QUESTION: Duration = Duration::from_secs(2);

/// What is known of a guest before it is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Which it is.
    pub identity: Identity,
    /// The emulator it was last seen with.
    pub emulator: Option<Emulator>,
    /// Whether libvirt has run it and no emulator of it was ever seen on this host: it has its emulators where the process table here does not
    /// show them, in a container, or at the other end of a tunnel.
    pub unseen: bool,
    /// Whether a request to create it may still be pending in libvirt.
    pub creating: bool,
    /// Which of its requests may outlive its emulator.
    pub outliving: Outliving,
    /// What else there is of the resource, if it is one: see [`twin`].
    pub place: Option<Place>,
}

/// Where the definition and the notes of a resource are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The definition of its guest.
    pub config: PathBuf,
    /// What this resource and others have seen on this host.
    pub shelf: Shelf,
}

impl Trace {
    /// This trace, with what else there is of the resource.
    #[must_use]
    pub fn of(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// This trace, with what `emulators` show, which may soon be gone.
    #[must_use]
    pub fn with(&self, emulators: &[Emulator]) -> Self {
        let outliving = emulators.iter().fold(self.outliving, |outliving, emulator| outliving.with(*emulator));
        Self { outliving, emulator: self.emulator.or(emulators.first().copied()), ..self.clone() }
    }
}

impl From<Identity> for Trace {
    fn from(identity: Identity) -> Self {
        Self { identity, emulator: None, unseen: false, creating: false, outliving: Outliving::NONE, place: None }
    }
}

/// What is true of a guest on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there: running, or in any other state in which an emulator lives.
    Active(Sight),
    /// It is proven not to be there.
    Absent,
}

/// How a guest was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// libvirt told.
    Libvirt {
        /// Its state.
        condition: Condition,
        /// The guest's UUID.
        uuid: String,
    },
    /// libvirt gave no answer, but the guest's emulator runs.
    Process {
        /// One of its emulators.
        emulator: Emulator,
        /// What was wrong with libvirt.
        trouble: String,
    },
}

impl Sight {
    /// Whether its CPUs run, or nothing speaks against it: of an emulator alone that cannot be told.
    #[must_use]
    pub fn may_run(&self) -> bool {
        match self {
            Self::Libvirt { condition, .. } => condition.runs(),
            Self::Process { .. } => true,
        }
    }
}

/// Looks for a guest on this host.
///
/// # Errors
/// `Lives`: libvirt does not know the guest but its emulator is there. Others: cannot tell.
pub fn look(trace: &Trace, uri: &Uri, deadline: &Deadline) -> Result<Presence> {
    look_within(trace, uri, deadline.left(), Some(&deadline.before_share(LAST_QUESTION, 4)), deadline)
}

/// Like [`look`], limited to `most`. `turn`: until when to wait for libvirt to take up earlier requests, beyond `most` if need be; `None`: do not
/// wait. Who gives that wait up and asks anew is at the end of the queue again, and in a queue that never ends has no turn at all.
///
/// # Errors
/// As for [`look`].
pub fn look_within(trace: &Trace, uri: &Uri, most: Duration, turn: Option<&Deadline>, deadline: &Deadline) -> Result<Presence> {
    let name = &trace.identity.name;
    let word = word(trace, uri, most, turn, deadline);
    let deadline = &deadline.within(most);
    match word {
        Ok(Some((condition, uuid))) if condition.is_active() => Ok(Presence::Active(Sight::Libvirt { condition, uuid })),
        Ok(_) => {
            prove_absent(trace, uri, deadline)?;
            prove_no_write(trace, deadline)?;
            Ok(Presence::Absent)
        }
        Err(error) => match settled(trace, uri, deadline)?.first() {
            Some(emulator) => Ok(Presence::Active(Sight::Process { emulator: *emulator, trouble: error.text })),
            // A daemon that hangs still has the request, also of a client that is dead; one that is gone has taken it along.
            None if trace.creating && error.kind != Kind::Unreachable => {
                Err(error.context(format_args!("a start of {name} was begun and may still come to its end")))
            }
            // That there is none where none is ever seen proves nothing.
            None if trace.unseen => {
                Err(error.context(format_args!("libvirt has run {name} here, and its emulator was never seen on this host")))
            }
            None => {
                log::debug(|| format!("{}; no emulator of {name} runs", error.text));
                prove_no_write(trace, deadline)?;
                Ok(Presence::Absent)
            }
        },
    }
}

/// libvirt's word for [`look`]. That it has no such guest counts only when a request to create it can wait in the daemon no more: with all ordinary
/// workers taken such a request waits, while the questions about name and state are answered.
fn word(trace: &Trace, uri: &Uri, most: Duration, turn: Option<&Deadline>, deadline: &Deadline) -> Result<Option<(Condition, String)>> {
    // A daemon that answers does so at once; the rest of the time is for the process table, and for asking again.
    let limit = || deadline.within(most).share(ANSWER, 2);
    let answer = ask(&trace.identity, uri, &limit())?;
    let is_active = answer.as_ref().is_some_and(|(condition, _)| condition.is_active());
    match turn.filter(|_| trace.creating && !is_active) {
        None => Ok(answer),
        Some(turn) => {
            await_turn(uri, turn)?;
            ask(&trace.identity, uri, &limit())
        }
    }
}

/// Waits until libvirt has taken up all that it was asked to do before, see [`wire::turn`].
///
/// # Errors
/// As for [`ask`].
fn await_turn(uri: &Uri, deadline: &Deadline) -> Result<()> {
    if let Some(socket) = wire::socket(uri) {
        match wire::turn(&socket, wire::SYSTEM, deadline).map_err(told) {
            Ok(()) => return Ok(()),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
    }
    // This one has no priority either.
    let connection = Connection::open(&uri.to_string(), deadline)?;
    connection.call("waiting for what was asked for before", deadline, |connect| connect.capabilities()).map(drop)
}

/// Waits, for a short time, until no emulator of the guest is left.
///
/// # Errors
/// `Lives` if one is; others: cannot tell.
fn prove_absent(trace: &Trace, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let name = &trace.identity.name;
    let settle = deadline.share(SETTLING, 2);
    loop {
        let left = twin::find(trace, uri, deadline)?;
        let Some(emulator) = left.first() else { return Ok(()) };
        if !settle.pause(Duration::from_millis(50)) {
            return Err(Error::new(Kind::Lives, format!("libvirt does not run {name}, but {}", emulator.remains(name))));
        }
    }
}

/// Waits, for a short time, until no write of the guest can be in flight: nothing of its emulator is left. If none of it was seen that
/// could leave requests behind there is none.
///
/// # Errors
/// `TimedOut` if one may be; others: cannot tell.
pub(super) fn prove_no_write(trace: &Trace, deadline: &Deadline) -> Result<()> {
    if trace.outliving == Outliving::NONE {
        return Ok(());
    }
    let settle = deadline.share(SETTLING, 2);
    // With rings not at once: the work is queued as the process ends, and its worker may be on its way to it.
    let mut at_once = !trace.outliving.may_be_in_rings();
    loop {
        let more = at_once || settle.pause(Duration::from_millis(50));
        at_once = false;
        let Some(requests) = rings::pending(trace.outliving, deadline)? else { return Ok(()) };
        if !more {
            let name = &trace.identity.name;
            return Err(Error::new(
                Kind::TimedOut,
                format!(
                    "the emulator of {name} has ended, but the kernel waits for {requests} requests: its storage may still take a write"
                ),
            ));
        }
    }
}

/// The guest's emulators, when those that were about to end have had a short time to do so.
///
/// The one it was last seen with is witness enough as long as it lives: that it does is seen without its memory, and needs no look at the
/// others, which one that does not show its command line would hold up. That none is left is only said after such a look.
fn settled(trace: &Trace, uri: &Uri, deadline: &Deadline) -> Result<Vec<Emulator>> {
    if let Some(known) = trace.emulator.filter(|known| !known.is_dying()) {
        return Ok(vec![known]);
    }
    let settle = deadline.share(SETTLING, 2);
    loop {
        let mut found = twin::find(trace, uri, deadline)?;
        // A whole one is the better witness.
        found.sort_by_key(Emulator::is_dying);
        if found.first().is_none_or(|emulator| !emulator.is_dying()) || !settle.pause(Duration::from_millis(50)) {
            return Ok(found);
        }
    }
}

/// libvirt's own word: state and UUID, or nothing if it has no such domain.
///
/// # Errors
/// The daemon cannot be reached, gives no answer, or answers something else.
pub fn ask(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<Option<(Condition, String)>> {
    match over_socket(Look::Name(&identity.name), uri, deadline) {
        Ok(answer) => return Ok(answer.map(|answer| (answer.condition, answer.uuid))),
        Err(Some(error)) => return Err(error),
        Err(None) => {}
    }
    let connection = Connection::open(&uri.to_string(), deadline)?;
    ask_through(&connection, identity, deadline)
}

/// The name of the guest that libvirt runs under a UUID, or nothing if it runs none.
///
/// # Errors
/// As for [`ask`].
pub fn name_of(uuid: &str, uri: &Uri, deadline: &Deadline) -> Result<Option<String>> {
    match over_socket(Look::Uuid(uuid), uri, deadline) {
        Ok(answer) => return Ok(answer.filter(|answer| answer.condition.is_active()).map(|answer| answer.name)),
        Err(Some(error)) => return Err(error),
        Err(None) => {}
    }
    let wanted = uuid.to_owned();
    let answer = Connection::open(&uri.to_string(), deadline)?.call(&format!("looking up UUID {uuid}"), deadline, move |connect| {
        let domain = connect.lookup_domain_by_uuid_string(&wanted)?;
        Ok(domain.is_active()?.then_some(domain.name()?))
    });
    match answer {
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        answer => answer,
    }
}

/// What the daemon says over its own socket.
///
/// # Errors
/// It gave no answer; without an error: it has to be asked through libvirt's own client.
fn over_socket(look: Look, uri: &Uri, deadline: &Deadline) -> std::result::Result<Option<wire::Answer>, Option<Error>> {
    let socket = wire::socket(uri).ok_or(None)?;
    wire::state(&socket, wire::SYSTEM, look, deadline).map_err(told)
}

/// What there is to say of a daemon that gave no answer over its own socket; nothing if it has to be asked through libvirt's own client.
pub(super) fn told(trouble: Trouble) -> Option<Error> {
    match trouble {
        Trouble::Unreachable(text) => Some(Error::new(Kind::Unreachable, text)),
        Trouble::Unresponsive(text) => Some(Error::new(Kind::Unresponsive, text)),
        Trouble::Unexpected(text) => {
            log::debug(|| format!("{text}; asking through libvirt's own client"));
            None
        }
    }
}

/// [`ask`] on a connection that stands.
///
/// # Errors
/// libvirt's, or `Unresponsive`.
pub fn ask_through(connection: &Connection, identity: &Identity, deadline: &Deadline) -> Result<Option<(Condition, String)>> {
    let Some(guest) = connection.guest(&identity.name, deadline)? else { return Ok(None) };
    let answer = guest.call("asking for the state of", deadline, |domain| {
        let condition = ffi::state(domain)?;
        let uuid = domain.uuid()?;
        Ok((condition, uuid.to_string()))
    });
    match answer {
        Ok(answer) => Ok(Some(answer)),
        // It ended between the two questions.
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;

    /// Without libvirt no emulator proves that the guest is gone, unless it has its emulators where they are never seen.
    #[test]
    fn no_emulator_where_none_is_ever_seen() {
        let uri = Uri::parse("qemu+unix:///system?socket=/nonexistent/libvirt-sock").unwrap();
        let identity = Identity { name: format!("unseen-{}", std::process::id()), uuid: None };
        let seen = |seen: Option<bool>| {
            let record = Record { seen, ..Record::new("/srv/vms/web1.xml".into(), "qemu:///system", &identity) };
            look(&record.trace(), &uri, &Deadline::after(Duration::from_secs(60)))
        };
        for known in [None, Some(true)] {
            assert_eq!(seen(known).unwrap(), Presence::Absent);
        }
        let error = seen(Some(false)).unwrap_err();
        assert!(error.kind == Kind::Unreachable && error.text.contains("was never seen on this host"), "{error}");
    }
}
