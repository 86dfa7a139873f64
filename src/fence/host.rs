//! One libvirt on which a guest could be: its connection, and what it is asked.

use super::address::login;
use super::knock::is_heard;
use super::limits::Limits;
use super::note;
use super::options::Options;
use super::sight::{Found, Target, lookup, sight};
use super::verdict::{Answer, Seen};
use super::victim::{About, Grip, Victim, about, hold};
use crate::cluster::fencing;
use crate::deadline::{self, Deadline};
use crate::domain::evidence;
use crate::domain::ffi::{self, Login};
use crate::domain::{Connection, Error, Kind, Result, Uri};
use crate::log;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

/// One libvirt.
pub(super) struct Host {
    /// Its URI, for people and for notes; without parameters if it is the only one without them.
    pub(super) label: String,
    /// Its URI, whole.
    pub(super) uri: Uri,
    login: Login,
    /// Whether its processes can be seen from here: the URI leads to libvirt's own socket.
    pub(super) local: bool,
    /// The time limits of what it is asked.
    pub(super) limits: Limits,
    connection: Mutex<Option<Connection>>,
    /// How Pacemaker calls it, if its record may stand for the host's own answer.
    pub(super) node: Option<String>,
    /// How old that record may be.
    within: Duration,
    /// Whether the record was found to be good in this action; the host itself then gets little time, should it be back.
    fenced: AtomicBool,
    /// How long the cluster was asked last in this action, and had no record that counts; in milliseconds. The next login gets so much less.
    asked: AtomicU64,
    /// When it was seen up last in this action; seconds since 1970, 0: not yet.
    seen: AtomicU64,
    /// Where it is noted.
    pub(super) notes: PathBuf,
    /// Who knows since when it is off.
    pub(super) record: Record,
}

/// Since when a node is off, proven ([`fencing::off_since`]).
type Record = fn(&str, fencing::Since, &Deadline) -> std::result::Result<u64, String>;

/// How long a host gets to take a connection after the cluster said that it is off.
const AFTER_FENCING: Duration = Duration::from_secs(1);

/// What was heard of a host that did not do as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Silence, which a host that is off has in common with one that is cut off.
    Nothing,
    /// Something, a refusal at least: it is up.
    Answer,
    /// Nothing that tells one from the other: its name leads nowhere, or this node has not got what it takes to ask.
    NotAsked,
}

/// The words are those of the C library, which ssh and libvirt pass on.
fn heard(error: &Error) -> Heard {
    const SILENCE: [&str; 3] = ["No route to host", "Connection timed out", "Host is down"];
    const ANSWERS: [&str; 6] =
        ["refused", "Permission denied", "uthentication failed", "ost key verification", "kex_exchange", "subsystem request failed"];
    let says = |words: &[&str]| words.iter().any(|word| error.text.contains(word));
    // It has taken the connection of ssh, and nothing came of that.
    let taken = says(&["kex_exchange_identification: read", "during banner exchange"]);
    // What came through ssh, or broke off, came from there.
    let came = says(&["Cannot recv data", "End of file while reading data"]) && !says(&["ssh: connect to host", "ssh: Could not resolve"]);
    match error.kind {
        _ if error.is_silence() => Heard::Nothing,
        Kind::Unreachable if says(&SILENCE) && !taken => Heard::Nothing,
        Kind::Unreachable if came || taken || says(&ANSWERS) => Heard::Answer,
        // No name, no route, no certificate, no ssh: that is this node's own.
        Kind::Unreachable | Kind::Internal => Heard::NotAsked,
        _ => Heard::Answer,
    }
}

/// A guest in a host's list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: String,
    /// Its UUID.
    pub(super) uuid: String,
    /// Whether it runs there.
    pub(super) active: bool,
}

impl Host {
    /// The host of a URI, with what the options say of it.
    ///
    /// # Errors
    /// It is no URI, or holds a password.
    pub(super) fn new(text: &str, limits: Limits, options: &Options) -> std::result::Result<Self, String> {
        let label = text.split_once('?').map_or(text, |(label, _)| label).to_owned();
        if label.split_once('@').is_some_and(|(user, _)| user.split_once("://").is_some_and(|(_, user)| user.contains(':'))) {
            return Err("a uri holds a password, which libvirt does not use: there is an option password".into());
        }
        let uri = Uri::parse(text)?;
        let local = uri.is_own_socket();
        let node = options.fenced_hosts.get(uri.host()).cloned();
        let within = options.fenced_within;
        let login = login(&uri, options);
        Ok(Self {
            label,
            uri,
            login,
            local,
            limits,
            connection: Mutex::new(None),
            node,
            within,
            fenced: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            notes: note::folder(),
            record: fencing::off_since,
        })
    }

    /// The connection, which is made if there is none.
    pub(super) fn connect(&self, deadline: &Deadline) -> Result<Connection> {
        let held = || self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = held().clone() {
            return Ok(connection);
        }
        let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
        let limit = if self.fenced.load(Ordering::Relaxed) {
            AFTER_FENCING.min(self.limits.login)
        } else {
            self.limits.login - asked.min(self.limits.login / 2)
        };
        let connection = Connection::open_as(&self.uri.to_string(), &self.login, &deadline.within(limit))?;
        // Whatever becomes of the question: nobody but a host that is up takes a connection.
        self.up();
        Ok(held().insert(connection).clone())
    }

    /// Writes down that it was seen up, if anything is ever made of that.
    fn up(&self) {
        if self.node.is_none() {
            return;
        }
        self.seen.store(note::now(), Ordering::Relaxed);
        if let Err(error) = note::saw(&self.notes, &self.label) {
            log::warning(error);
        }
    }

    /// When it was seen up last from here.
    fn seen(&self) -> std::result::Result<Option<u64>, String> {
        let noted = note::seen(&self.notes, &self.label).map_err(|error| error.text)?;
        Ok(noted.max(Some(self.seen.load(Ordering::Relaxed)).filter(|seen| *seen > 0)))
    }

    /// Since when it is off, proven, although it did not answer; or the error with which it did not, with why there is no proof.
    fn off_since(&self, error: Error, deadline: &Deadline) -> Result<u64> {
        let Some(node) = &self.node else { return Err(error) };
        // Who refuses is up, whatever the record says.
        match heard(&error) {
            Heard::Nothing => {}
            Heard::Answer => {
                self.up();
                return Err(error);
            }
            Heard::NotAsked => return Err(error),
        }
        let begin = deadline::now();
        let limit = self.limits.record.map_or(*deadline, |record| deadline.within(record));
        let proof = self.seen().and_then(|seen| (self.record)(node, fencing::Since { seen, within: self.within }, &limit));
        let asked = u64::try_from((deadline::now() - begin).as_millis()).unwrap_or_default();
        if self.limits.record.is_some() {
            self.asked.store(asked, Ordering::Relaxed);
        }
        match proof {
            // libvirt may have waited for a daemon that takes connections and says nothing.
            Ok(_) if is_heard(&self.uri, deadline) => {
                self.up();
                Err(Error::new(error.kind, format!("{}; the host answers on its port, it is up", error.text)))
            }
            Ok(since) => {
                if !self.fenced.swap(true, Ordering::Relaxed) {
                    log::info(format_args!("{} is out of reach, and {node} was turned off by the cluster", self.label));
                }
                Ok(since)
            }
            Err(text) => Err(Error::new(error.kind, format!("{}; {text}", error.text))),
        }
    }

    /// Makes one question. A connection that has broken since the last one is made again, once.
    pub(super) fn question<T, F>(&self, what: &str, deadline: &Deadline, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connect) -> Result<T> + Clone + Send + 'static,
    {
        let mut fresh = self.connection.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        loop {
            let connection = self.connect(deadline)?;
            let asked = question.clone();
            let answer = connection
                .call(what, &deadline.within(self.limits.shell), move |connect| Ok(asked(connect)))
                .and_then(|answer| answer.map_err(|error| error.context(format_args!("{what} at {}", self.label))));
            match answer {
                Err(error) if matches!(error.kind, Kind::Unreachable | Kind::Unresponsive | Kind::Internal) => {
                    *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    if fresh || error.kind == Kind::Unresponsive || deadline.expired() {
                        return Err(error);
                    }
                    fresh = true;
                }
                answer => return answer,
            }
        }
    }

    /// What it says of a guest.
    pub(super) fn look(&self, target: &Target, deadline: &Deadline) -> Answer {
        let wanted = target.clone();
        let answer = match self.question(&format!("looking for {}", target.word), deadline, move |connect| sight(connect, &wanted)) {
            Ok(answer) => answer,
            Err(error) => {
                return self.off_since(error, deadline).map_or_else(|error| Answer::Unknown(error.text), |since| Answer::Fenced { since });
            }
        };
        self.up();
        // Here the process table is a witness too: libvirt may have forgotten a guest whose emulator hangs.
        if self.local && matches!(answer, Answer::Defined { .. } | Answer::Absent) {
            return match evidence::find(&target.identity(), None, deadline) {
                Ok(emulators) => match emulators.first() {
                    Some(emulator) => {
                        let uuid = answer.uuid().map(Into::into);
                        Answer::Active { uuid, state: Seen::Emulator(*emulator) }
                    }
                    None => answer,
                },
                Err(error) => Answer::Unknown(error.text),
            };
        }
        answer
    }

    fn hold(&self, target: &Target, deadline: &Deadline) -> Result<Option<Grip>> {
        let wanted = target.clone();
        let found = self.question(&format!("taking hold of {}", target.word), deadline, move |connect| {
            let Some(Found::Guest(domain)) = lookup(connect, &wanted)? else { return Ok(None) };
            hold(domain).map(Some)
        });
        match found {
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            found => found,
        }
    }

    /// Takes hold of a guest; `None`: it is not there any more.
    pub(super) fn victim(&self, target: &Target, number: usize, deadline: &Deadline) -> Result<Option<Victim>> {
        let Some(mut held) = self.hold(target, deadline)? else { return Ok(None) };
        let mut guest = self.connect(deadline)?.with(&held.name, held.domain);
        let about = about(&guest, held.standing, deadline);
        if about.late {
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let Some(again) = self.hold(target, deadline)? else { return Ok(None) };
            held = again;
            guest = self.connect(deadline)?.with(&held.name, held.domain);
        }
        let About { xml, moving, .. } = about;
        Ok(Some(Victim { host: number, name: held.name, uuid: held.uuid, xml, moving, guest }))
    }

    /// Starts a guest: from `xml`, or from the definition that is there.
    pub(super) fn start(&self, target: &Target, xml: Option<String>, deadline: &Deadline) -> Result<()> {
        let limit = deadline.within(self.limits.power);
        let connection = self.connect(&limit)?;
        let what = format!("starting {}", target.word);
        let wanted = target.clone();
        let started = connection.call(&what, &limit, move |connect| match xml {
            Some(xml) => connect.create_domain_xml(&xml, 0).map(|_| Ok(())),
            None => match lookup(connect, &wanted) {
                // Never from a memory that was saved: what was fenced comes up anew.
                Ok(Some(Found::Guest(domain))) => domain.create_with_flags(sys::VIR_DOMAIN_START_FORCE_BOOT).map(Ok),
                Ok(_) => Ok(Err(Error::new(Kind::NotFound, "it is not defined there any more"))),
                Err(error) => Ok(Err(error)),
            },
        })?;
        started.map_err(|error| error.context(what))
    }

    /// Whether it lists its guests and lets this connection change something; or is off, proven.
    pub(super) fn ready(&self, deadline: &Deadline) -> Result<()> {
        self.list(deadline)?;
        if self.fenced.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.question("the right to end a guest", deadline, ffi::may_write)
    }

    /// Its guests; none if it is off, proven.
    pub(super) fn list(&self, deadline: &Deadline) -> Result<Vec<Entry>> {
        let list = self.question("listing the guests", deadline, |connect| {
            let virt = |error: virt::error::Error| ffi::error(&error);
            let all = connect.list_all_domains(0).map_err(virt)?;
            let active = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE).map_err(virt)?;
            let active: std::result::Result<Vec<String>, _> = active.iter().map(Domain::uuid_string).collect();
            let active = active.map_err(virt)?;
            all.iter()
                .map(|domain| {
                    let uuid = domain.uuid_string().map_err(virt)?;
                    Ok(Entry { name: domain.name().map_err(virt)?, active: active.contains(&uuid), uuid })
                })
                .collect()
        });
        match list {
            Ok(list) => {
                self.up();
                Ok(list)
            }
            Err(error) => self.off_since(error, deadline).map(|_| Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_is_up() {
        for (kind, text, what) in [
            (Kind::Unreachable, "unable to connect to server at 'b:16509': No route to host", Heard::Nothing),
            (
                Kind::Unreachable,
                "Cannot recv data: ssh: connect to host b port 22: Connection timed out: Connection reset by peer",
                Heard::Nothing,
            ),
            (Kind::Unreachable, "Cannot recv data: kex_exchange_identification: read: Connection timed out: Broken pipe", Heard::Answer),
            (Kind::Unreachable, "Cannot recv data: Connection timed out during banner exchange: Broken pipe", Heard::Answer),
            (
                Kind::Unreachable,
                "Cannot recv data: channel 0: open failed: connect failed: Connection timed out; kex_exchange_identification: Connection \
                 closed by remote host: Broken pipe",
                Heard::Nothing,
            ),
            (Kind::Unreachable, "unable to connect to server at 'b:16509': Connection refused", Heard::Answer),
            (Kind::Unreachable, "Cannot recv data: root@b: Permission denied (publickey): Connection reset by peer", Heard::Answer),
            (Kind::Unreachable, "authentication failed: no mechanism", Heard::Answer),
            (Kind::Unresponsive, "cannot acquire state change lock (held by monitor=remoteDispatchDomainSuspend)", Heard::Answer),
            (Kind::Refused, "access denied", Heard::Answer),
            (Kind::Internal, "connection is closed", Heard::NotAsked),
            (Kind::Unreachable, "unable to connect to server at 'b:16509': Network is unreachable", Heard::NotAsked),
            (Kind::Unreachable, "The client certificate /etc/pki/libvirt/clientcert.pem has expired", Heard::NotAsked),
            (
                Kind::Unreachable,
                "Cannot recv data: ssh: connect to host b port 22: Network is unreachable: Connection reset by peer",
                Heard::NotAsked,
            ),
            (
                Kind::Unreachable,
                "Cannot recv data: virt-ssh-helper: cannot connect to '/run/libvirt/libvirt-sock': Connection reset by peer",
                Heard::Answer,
            ),
            (Kind::Unreachable, "Cannot recv data: Connection closed by 10.0.0.2 port 22: Connection reset by peer", Heard::Answer),
            (Kind::Unreachable, "End of file while reading data: Input/output error", Heard::Answer),
            (Kind::Unreachable, "Cannot recv data: Host key verification failed.: Connection reset by peer", Heard::Answer),
            (Kind::Unreachable, "unable to resolve address 'b' service '16509': Name or service not known", Heard::NotAsked),
        ] {
            assert_eq!(heard(&Error::new(kind, text)), what, "{text}");
        }
        assert_eq!(heard(&Error::silence("libvirt gave no answer within 5 s")), Heard::Nothing);
    }
}
