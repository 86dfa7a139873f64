//! A connection to a libvirt daemon, and a guest on it: every call in a thread of its own, under the action's deadline.
//!
//! libvirt's client has no time limits: a daemon that was stopped (SIGSTOP) or hangs on its storage blocks a call for ever, and
//! keepalive does not help before the connection stands. A call that is late is left behind.

use super::ffi::{self, Job, Login};
use super::{Condition, Error, Kind, Result};
use crate::deadline::{self, Deadline};
use crate::log;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;

/// How long closing a connection may take: the daemon is told, or it will log a broken connection as an error.
const CLOSING: Duration = Duration::from_millis(500);

/// What passes between two tries, at least, and by how many milliseconds more at most.
const AGAIN: Duration = Duration::from_millis(500);
const SPREAD: u64 = 500;

/// What is kept of the time for a last try. One with less would only say that there was no time.
const LAST_TRY: Duration = Duration::from_secs(1);

/// What passes after so many tries: actions that begin together do not come together again.
pub(super) fn spread(tries: u64) -> Duration {
    AGAIN + Duration::from_millis((u64::from(std::process::id()) * 97 + tries * 389) % SPREAD)
}

/// A connection to the libvirt at a URI.
#[derive(Clone)]
pub struct Connection {
    link: Arc<Link>,
}

struct Link {
    // Taken out when the last user is gone: closing waits for the daemon, so it too happens in a thread.
    connect: Option<Connect>,
    uri: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(connect) = self.connect.take() {
            let _ = Deadline::after(CLOSING).run(move || drop(connect));
        }
    }
}

impl Connection {
    /// Opens a connection to the libvirt at `uri`.
    ///
    /// # Errors
    /// `Unreachable` or `Refused` with libvirt's words; `Unresponsive` at the deadline.
    pub fn open(uri: &str, deadline: &Deadline) -> Result<Self> {
        Self::open_as(uri, &Login::default(), deadline)
    }

    /// Like [`Connection::open`], but one that cannot be reached is tried again until `patience` is over. libvirt refuses connections while it is
    /// restarted, and so does an sshd at which many arrive at once (`MaxStartups`).
    ///
    /// # Errors
    /// As for [`Connection::open`], of the last try; if that was not answered, with what the one before it was told.
    pub fn open_again(uri: &str, patience: &Deadline, deadline: &Deadline) -> Result<Self> {
        again(&patience.within(deadline.before(LAST_TRY).left()), || Self::open(uri, deadline))
    }

    /// Like [`Connection::open`], with a name and a password for a daemon that wants them. What libvirt's own `auth.conf` has comes first.
    ///
    /// # Errors
    /// As for that.
    pub fn open_as(uri: &str, login: &Login, deadline: &Deadline) -> Result<Self> {
        let (address, login) = (uri.to_owned(), login.clone());
        let connect = bounded(&format!("connection to {uri}"), deadline, move || {
            ffi::load()?;
            // libvirt prints errors to standard error otherwise, where Pacemaker looks for the exit reason.
            ffi::silence();
            ffi::open(&address, &login).map_err(explained)
        })?;
        Ok(Self { link: Arc::new(Link { connect: Some(connect), uri: uri.to_owned() }) })
    }

    /// The URI it was opened with.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.link.uri
    }

    /// Makes one call: `what` names it in errors.
    ///
    /// # Errors
    /// libvirt's, or `Unresponsive` at the deadline.
    pub fn call<T, F>(&self, what: &str, deadline: &Deadline, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> std::result::Result<T, VirtError> + Send + 'static,
    {
        let link = Arc::clone(&self.link);
        bounded(&format!("{what} at {}", self.link.uri), deadline, move || match &link.connect {
            Some(connect) => Ok(call(connect)?),
            None => Err(Error::new(Kind::Internal, "connection is closed")),
        })
    }

    /// The guest called `name`; `None` if libvirt positively has none.
    ///
    /// # Errors
    /// Anything but "no such domain".
    pub fn guest(&self, name: &str, deadline: &Deadline) -> Result<Option<Guest>> {
        let wanted = name.to_owned();
        match self.call(&format!("looking up {name}"), deadline, move |connect| connect.lookup_domain_by_name(&wanted)) {
            Ok(domain) => Ok(Some(self.with(name, domain))),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a volume of a storage pool is, or a text for a person.
    ///
    /// # Errors
    /// Why that is not known: libvirt has another daemon for pools, which may not be there where the one for guests is.
    pub fn volume(&self, pool: &str, volume: &str, deadline: &Deadline) -> std::result::Result<PathBuf, String> {
        self.find_volume(pool, volume, deadline).map_err(|error| unfound(&error))
    }

    /// Like [`Connection::volume`], for who has to know what kind of error it is.
    ///
    /// # Errors
    /// libvirt's, or `Unresponsive` at the deadline.
    pub fn find_volume(&self, pool: &str, volume: &str, deadline: &Deadline) -> Result<PathBuf> {
        let (pool, volume) = (pool.to_owned(), volume.to_owned());
        let found = self.call(&format!("looking up volume {volume} of storage pool {pool}"), deadline, move |connect| {
            connect.lookup_storage_pool_by_name(&pool)?.lookup_storage_vol_by_name(&volume)?.path()
        });
        found.map(PathBuf::from)
    }

    /// A guest from a domain that a call on this connection gave.
    #[must_use]
    pub fn with(&self, name: &str, domain: Domain) -> Guest {
        Guest { connection: self.clone(), domain: Arc::new(domain), name: name.to_owned() }
    }
}

/// Why it is not known where a volume is.
fn unfound(error: &Error) -> String {
    if error.leaves_open() { format!("libvirt's storage daemon cannot be asked: {error}") } else { error.text.clone() }
}

/// A guest on a connection.
#[derive(Clone)]
pub struct Guest {
    // Declared first, so that it is released while the connection stands.
    domain: Arc<Domain>,
    connection: Connection,
    /// libvirt's name of it.
    pub name: String,
}

impl Guest {
    /// Makes one call on the guest: `what` names it in errors.
    ///
    /// # Errors
    /// libvirt's, or `Unresponsive` at the deadline.
    pub fn call<T, F>(&self, what: &str, deadline: &Deadline, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Domain) -> Result<T> + Send + 'static,
    {
        let guest = self.clone();
        bounded(&format!("{what} {} at {}", self.name, self.connection.uri()), deadline, move || call(&guest.domain))
    }

    /// Its state and the reason for it.
    ///
    /// # Errors
    /// As for [`ffi::state`], or `Unresponsive` at the deadline.
    pub fn condition(&self, deadline: &Deadline) -> Result<Condition> {
        self.call("asking for the state of", deadline, ffi::state)
    }

    /// The job that is at work on it, if one is.
    ///
    /// # Errors
    /// As for [`ffi::job`], or `Unresponsive` at the deadline. Only the source of a move has one: the target says `State`.
    pub fn job(&self, deadline: &Deadline) -> Result<Option<Job>> {
        self.call("asking for the job of", deadline, |domain| ffi::job(domain, ffi::Which::Current))
    }
}

/// libvirt 11 says only so when libssh wants to know from somebody whether a host key is right (with 9.0 it was said what was wrong).
fn explained(error: Error) -> Error {
    if !error.text.contains("callback was found") {
        return error;
    }
    Error::new(error.kind, format!("{}: nobody can be asked for a password, or about a host key that is not known", error.text))
}

/// Opens what may be there a moment later, until `patience` is over.
fn again<T>(patience: &Deadline, open: impl Fn() -> Result<T>) -> Result<T> {
    let (mut tries, mut told) = (0, None);
    loop {
        match open() {
            Err(error) if error.may_pass() && patience.pause(spread(tries)) => {
                tries += 1;
                log::info(format_args!("{error}; trying again"));
                told = Some(error);
            }
            // Who has to mend it is helped by an answer, not by how long there was none.
            Err(error) if error.is_silence() => return Err(told.map_or(error.clone(), |told| told.unanswered_again(&error))),
            other => return other,
        }
    }
}

/// Runs `call` in a thread until the deadline.
pub(super) fn bounded<T, F>(what: &str, deadline: &Deadline, call: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let begin = deadline::now();
    let answer = deadline.run(call);
    let took = deadline::now() - begin;
    log::debug(|| format!("{what}: {} after {} ms", if answer.is_some() { "answered" } else { "no answer" }, took.as_millis()));
    match answer {
        Some(answer) => answer.map_err(|error| error.context(what)),
        None => Err(Error::silence(format!("{what}: {}", unanswered(took)))),
    }
}

/// What is said of a question that was given so much time. An action whose time is used up still asks, and libvirt is not to blame then.
fn unanswered(given: Duration) -> String {
    match given.as_secs() {
        0 => format!("libvirt gave no answer in the {} ms that were left", given.as_millis()),
        seconds => format!("libvirt gave no answer within {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::hosts::World;

    #[test]
    fn what_libvirt_wanted_to_ask_is_said() {
        let text = "operation not supported: no suitable callback authentication callback was found";
        let error = explained(Error::new(Kind::Unreachable, text));
        assert!(error.kind == Kind::Unreachable && error.text.starts_with(text) && error.text.contains("host key"), "{error}");
        assert_eq!(explained(Error::new(Kind::Refused, "no")).text, "no");
    }

    #[test]
    fn a_storage_daemon_that_is_not_there_has_lost_no_volume() {
        let socket = "looking up the volume: Failed to connect socket to '/var/run/libvirt/virtstoraged-sock': Connection refused";
        assert_eq!(unfound(&Error::new(Kind::Unreachable, socket)), format!("libvirt's storage daemon cannot be asked: {socket}"));
        assert_eq!(unfound(&Error::new(Kind::NotFound, "no such pool")), "no such pool");
    }

    #[test]
    fn an_answer_outlives_the_silence_after_it() {
        let refused = || Error::new(Kind::Unreachable, "connection to qemu+ssh://b/system: Connection refused");
        let silence = || Error::silence("connection to qemu+ssh://b/system: libvirt gave no answer in the 57 ms that were left");
        let said = |answers: Vec<Error>| {
            let act = move || {
                let answers = std::cell::RefCell::new(answers.clone().into_iter());
                let open = || Err::<(), _>(answers.borrow_mut().next().unwrap());
                again(&Deadline::after(Duration::from_secs(10)), open).unwrap_err().text
            };
            let seen = crate::simulation::explore(0, || World::new(&["qemu:///system"], false), act, |_, _| Ok(()));
            seen.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(said(vec![silence()]), [silence().text]);
        let both = format!("{}; asked again: {}", refused().text, silence().text);
        assert_eq!(said(vec![refused(), refused(), silence()]), [both]);
        assert_eq!(said(vec![refused(), Error::new(Kind::Refused, "no")]), ["no"]);
        let error = refused().unanswered_again(&silence());
        assert!(error.kind == Kind::Unresponsive && error.is_silence());
    }

    #[test]
    fn libvirt_is_not_blamed_for_time_that_was_used_up() {
        assert_eq!(unanswered(Duration::from_millis(40)), "libvirt gave no answer in the 40 ms that were left");
        assert_eq!(unanswered(Duration::from_millis(5400)), "libvirt gave no answer within 5 s");
        let ask = |left| {
            let slow = || Deadline::after(Duration::from_secs(5)).pause(Duration::from_secs(5));
            let error = bounded("looking up web1", &Deadline::after(left), move || Ok(slow())).unwrap_err();
            assert!(error.kind == Kind::Unresponsive && error.is_silence());
            error.text
        };
        // By a clock that is made up: how long a thread takes to begin is no matter of this test.
        for (left, wanted) in [(0, "in the 0 ms that were left"), (40, "in the 40 ms that were left"), (2000, "within 2 s")] {
            let act = || ask(Duration::from_millis(left));
            let answers = crate::simulation::explore(0, || World::new(&["qemu:///system"], false), act, |_, _| Ok(()));
            assert_eq!(answers.into_keys().collect::<Vec<_>>(), [format!("looking up web1: libvirt gave no answer {wanted}")]);
        }
    }
}
