//! The cheap question: the state of one domain, asked of the local daemon over its own socket, without loading libvirt.
//!
//! It says the little of libvirt's protocol that is needed to ask (see `message.rs`), changes nothing, and trusts nothing it hears: anything
//! out of the ordinary is [`Trouble::Unexpected`], upon which the caller asks again through `virt`. "There is no such domain" is said
//! in one case only, when the daemon answered the look-up with `VIR_ERR_NO_DOMAIN`.
//!
//! Everything happens in the calling thread, and every wait in the kernel (connecting included) is cut short by the deadline.

mod address;
#[cfg(any(test, fuzzing))]
pub(in crate::domain) mod fuzzed;
mod message;
mod xdr;

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

pub use self::address::socket;
pub use self::message::Size;
use self::message::{AGENT_SILENT, Call, Domain, Heard, NO_DOMAIN};
use self::xdr::Reader;
use super::state::Condition;
use crate::deadline::{Deadline, now};
use crate::uuid;

/// The driver behind the sockets that [`socket()`] gives, by the name the daemon knows it by.
pub const SYSTEM: &str = "qemu:///system";

/// The longest name asked for. A domain's name is part of file names, so that longer ones do not exist.
const LONGEST_NAME: usize = 4096;

/// How long the farewell may take: the answer is there already.
const FAREWELL: Duration = Duration::from_secs(1);

/// What to look a domain up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'a> {
    /// Its name, exactly.
    Name(&'a str),
    /// Its UUID: 32 hexadecimal digits, with or without dashes.
    Uuid(&'a str),
}

/// What the daemon knows about a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub name: String,
    /// Its UUID, in lower case with dashes.
    pub uuid: String,
    /// Its state.
    pub condition: Condition,
}

/// Why there is no answer. Each says, in one line, what the matter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No daemon listens there, or it is not for us: there is no socket, nobody has it open, or permission is denied.
    Unreachable(String),
    /// The deadline came before the answer.
    Unresponsive(String),
    /// Anything else: authentication is asked for, an error of libvirt, a message that is not understood, a connection that breaks.
    /// To be asked again through `virt`, which can do more and explains better.
    Unexpected(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreachable(text) | Self::Unresponsive(text) | Self::Unexpected(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Trouble {}

/// Asks the daemon at `socket` for the state of a domain of `driver`. `Ok(None)`: the daemon says that it has none.
///
/// `driver` is [`SYSTEM`] for a socket that [`socket()`] gave. It is not the URI the user wrote: transport and parameters in there are the
/// client's business, and a daemon that was given them would connect to yet another daemon. Such a thing is not asked.
///
/// Takes five questions and answers, some tenths of a millisecond when the daemon is idle, and never longer than `deadline`.
///
/// # Errors
///
/// See [`Trouble`]. None of them says anything about the domain.
pub fn state(socket: &Path, driver: &str, look: Look, deadline: &Deadline) -> Result<Option<Answer>, Trouble> {
    converse(socket, driver, look, deadline, |conversation, driver, question| conversation.about(driver, question))
}

/// Asks how large a domain is, as [`state`] does.
///
/// # Errors
///
/// As for [`state`].
pub fn size(socket: &Path, driver: &str, look: Look, deadline: &Deadline) -> Result<Option<Size>, Trouble> {
    converse(socket, driver, look, deadline, |conversation, driver, question| conversation.size(driver, question))
}

fn converse<T>(
    socket: &Path,
    driver: &str,
    look: Look,
    deadline: &Deadline,
    about: impl FnOnce(Conversation, &str, Call) -> Result<Option<T>, Trouble>,
) -> Result<Option<T>, Trouble> {
    let unexpected = |text: &str| Trouble::Unexpected(text.to_owned());
    if driver.len() > LONGEST_NAME || !driver.contains(":///") || driver.contains(['+', '?', '\0']) {
        return Err(unexpected("not the name of a driver"));
    }
    let number;
    let question = match look {
        Look::Name(name) if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') => {
            return Err(unexpected("not the name of a domain"));
        }
        Look::Name(name) => Call::Name(name),
        Look::Uuid(text) => {
            number = uuid::parse(text).ok_or_else(|| unexpected("not a UUID"))?;
            Call::Uuid(&number)
        }
    };
    let stream = connect(socket, deadline)?;
    about(Conversation { stream, peer: socket, deadline: *deadline, serial: 0, unread: Vec::new() }, driver, question)
}

/// Waits until the daemon has taken up whatever it was asked to do before, by anybody: its ordinary workers take requests up as they come,
/// one to create a guest among them, also of a client that is gone by then (`virNetServerHandleJob`). It keeps workers for what has
/// `@priority: high` in libvirt's `remote_protocol.x`, as all questions of [`state`] have; the one that is asked here has not, and any
/// answer will do.
///
/// # Errors
/// See [`Trouble`].
pub fn turn(socket: &Path, driver: &str, deadline: &Deadline) -> Result<(), Trouble> {
    let stream = connect(socket, deadline)?;
    Conversation { stream, peer: socket, deadline: *deadline, serial: 0, unread: Vec::new() }.turn(driver)
}

/// What a guest agent said to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// It has answered.
    Beats,
    /// It has not; libvirt's words.
    Silent(String),
    /// Nobody has asked it: nothing in the guest listens, or libvirt has given the channel up; its words.
    Unasked(String),
}

/// The least time that passes before libvirt says of an agent that it is silent: it is given a second or more, in whole ones (`qemuAgentSend`).
///
/// The same number stands for a channel that nobody in the guest has open, and for one that has had an error, as by an answer that was too long or
/// by somebody else who was connected to it: that stays until it is opened anew or the daemon is restarted, however well the agent is
/// (`qemuDomainAgentAvailable`). Both are said at once, in the language of the daemon.
const WAITED: Duration = Duration::from_millis(900);

/// What both are called in English, where a daemon is too slow to tell them by the time.
const UNASKED: [&str; 2] = ["is not connected", "not available due to an error"];

/// Asks the agent in a running domain of `driver` for a sign of life; libvirt waits for it until a second before the deadline.
///
/// # Errors
///
/// See [`Trouble`]; `Unexpected` also when the domain has no channel for an agent, or none of that name runs.
pub fn ping(socket: &Path, driver: &str, name: &str, deadline: &Deadline) -> Result<Pulse, Trouble> {
    let seconds = i32::try_from(deadline.left().as_secs().saturating_sub(1)).unwrap_or(i32::MAX).max(1);
    let stream = connect(socket, deadline)?;
    Conversation { stream, peer: socket, deadline: *deadline, serial: 0, unread: Vec::new() }.ping(driver, name, seconds)
}

/// Connects, by the deadline. A daemon that was stopped has a listening socket whose queue may be full: then `connect` blocks, for
/// SO_SNDTIMEO at most (`unix_stream_connect` of Linux's `net/unix/af_unix.c`), and fails with EAGAIN.
fn connect(path: &Path, deadline: &Deadline) -> Result<UnixStream, Trouble> {
    let trouble = |cause: Errno| {
        let text = format!("the libvirt daemon at {}: {}", path.display(), cause.desc().to_lowercase());
        match cause {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED | Errno::EACCES | Errno::EPERM => Trouble::Unreachable(text),
            Errno::EAGAIN => late(path),
            _ => Trouble::Unexpected(text),
        }
    };
    let address = UnixAddr::new(path).map_err(trouble)?;
    let handle = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(trouble)?;
    loop {
        let left = deadline.left();
        if left.is_zero() {
            return Err(late(path));
        }
        // At least one: zero would be "for ever".
        let left = TimeVal::microseconds(i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1));
        socket::setsockopt(&handle, sockopt::SendTimeout, &left).map_err(trouble)?;
        match socket::connect(handle.as_raw_fd(), &address) {
            Ok(()) => return Ok(UnixStream::from(handle)),
            Err(Errno::EINTR) => {}
            Err(cause) => return Err(trouble(cause)),
        }
    }
}

fn late(peer: &Path) -> Trouble {
    Trouble::Unresponsive(format!("the libvirt daemon at {} gave no answer in time", peer.display()))
}

/// One connection to a daemon.
struct Conversation<'a> {
    stream: UnixStream,
    peer: &'a Path,
    deadline: Deadline,
    /// The number of the last call.
    serial: u32,
    /// What was read and is not part of a message taken yet: less than one message and one read.
    unread: Vec<u8>,
}

impl Conversation<'_> {
    fn about(mut self, driver: &str, question: Call) -> Result<Option<Answer>, Trouble> {
        let Some(domain) = self.find(driver, question)? else { return Ok(None) };
        // An error here, "no such domain" too, is not an answer: the domain was there a moment ago.
        let condition = self.ask(Call::State(&domain), message::state)?.map_err(|(_, text)| self.unexpected(&text))?;
        self.farewell();
        Ok(Some(Answer { uuid: uuid::text(&domain.uuid), name: domain.name, condition }))
    }

    fn size(mut self, driver: &str, question: Call) -> Result<Option<Size>, Trouble> {
        let Some(domain) = self.find(driver, question)? else { return Ok(None) };
        let size = self.ask(Call::Info(&domain), message::size)?.map_err(|(_, text)| self.unexpected(&text))?;
        self.farewell();
        Ok(Some(size))
    }

    fn turn(mut self, driver: &str) -> Result<(), Trouble> {
        self.begin(Call::Open(driver))?;
        let nobody = Domain { name: "nobody".to_owned(), uuid: [0; uuid::LENGTH], id: -1 };
        let _any = self.ask(Call::Info(&nobody), message::size)?;
        self.farewell();
        Ok(())
    }

    fn ping(mut self, driver: &str, name: &str, seconds: i32) -> Result<Pulse, Trouble> {
        self.begin(Call::OpenForAgent(driver))?;
        let domain = self.ask(Call::Name(name), message::found)?.map_err(|(_, text)| self.unexpected(&text))?;
        let begin = now();
        let pulse = match self.ask(Call::PingAgent(&domain, seconds), message::pulse)? {
            Ok(()) => Pulse::Beats,
            Err((AGENT_SILENT, text)) if now() - begin < WAITED || UNASKED.iter().any(|words| text.contains(words)) => Pulse::Unasked(text),
            Err((AGENT_SILENT, text)) => Pulse::Silent(text),
            Err((_, text)) => return Err(self.unexpected(&text)),
        };
        self.farewell();
        Ok(pulse)
    }

    /// The beginning of every conversation, up to the driver's opening.
    fn begin(&mut self, opening: Call) -> Result<(), Trouble> {
        match self.ask(Call::Authentication, message::open_to_all)? {
            Ok(true) => {}
            Ok(false) => return Err(self.unexpected("asks for authentication")),
            Err((_, text)) => return Err(self.unexpected(&text)),
        }
        self.ask(opening, |reader| reader.end())?.map_err(|(_, text)| self.unexpected(&text))
    }

    /// Opens the conversation and looks the domain up.
    fn find(&mut self, driver: &str, question: Call) -> Result<Option<Domain>, Trouble> {
        self.begin(Call::Open(driver))?;
        let domain = match self.ask(question, message::found)? {
            Ok(domain) => domain,
            Err((NO_DOMAIN, _)) => {
                self.farewell();
                return Ok(None);
            }
            Err((_, text)) => return Err(self.unexpected(&text)),
        };
        let right = match question {
            Call::Name(name) => domain.name == name,
            Call::Uuid(uuid) => domain.uuid == *uuid,
            _ => false,
        };
        if !right {
            return Err(self.unexpected("answered about another domain"));
        }
        Ok(Some(domain))
    }

    /// Closes the connection as libvirt's clients do. A daemon whose client just goes away writes an error into its log.
    fn farewell(&mut self) {
        self.deadline = self.deadline.within(FAREWELL);
        // The answer is known; nothing that goes wrong now changes it.
        let _ = self.ask(Call::Close, |reader| reader.end());
    }

    /// One call and its answer, read by `read`; the inner error is what the daemon says against it: number and text.
    fn ask<T>(&mut self, call: Call, read: impl FnOnce(Reader) -> Option<T>) -> Result<Result<T, (i32, String)>, Trouble> {
        self.serial += 1;
        self.send(&call.message(self.serial))?;
        loop {
            let message = self.receive()?;
            let outcome = match message::hear(&message, call, self.serial).map_err(|what| self.unexpected(&format!("sent {what}")))? {
                Heard::Answer(reader) => read(reader).map(Ok),
                Heard::Failure(reader) => message::failure(reader).map(Err),
                Heard::Ping => {
                    self.send(&message::pong())?;
                    continue;
                }
                Heard::Nothing => continue,
            };
            return outcome.ok_or_else(|| self.unexpected("sent an answer that is not understood"));
        }
    }

    /// Sends a whole message, by the deadline.
    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            let left = self.left()?;
            match self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write(bytes)) {
                Ok(0) => return Err(self.unexpected("closed the connection")),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(cause) => self.bear(&cause)?,
            }
        }
        Ok(())
    }

    /// Receives one whole message, by the deadline.
    fn receive(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut chunk = [0; 4096];
        loop {
            match message::length(&self.unread).map_err(|what| self.unexpected(&format!("sent {what}")))? {
                Some(length) if length <= self.unread.len() => {
                    let rest = self.unread.split_off(length);
                    return Ok(std::mem::replace(&mut self.unread, rest));
                }
                _ => {}
            }
            let left = self.left()?;
            match self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut chunk)) {
                Ok(0) => return Err(self.unexpected("closed the connection")),
                Ok(count) => self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(cause) => self.bear(&cause)?,
            }
        }
    }

    /// The time left, for one wait; never zero, which would be "for ever".
    fn left(&self) -> Result<Duration, Trouble> {
        Some(self.deadline.left()).filter(|left| !left.is_zero()).ok_or_else(|| late(self.peer))
    }

    /// Whether to go on after an error of the socket: after a timeout or a signal, since the deadline is looked at before each wait.
    fn bear(&self, cause: &std::io::Error) -> Result<(), Trouble> {
        match cause.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
            _ => Err(self.unexpected(&format!("broke the connection: {cause}"))),
        }
    }

    fn unexpected(&self, what: &str) -> Trouble {
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        Trouble::Unexpected(format!("the libvirt daemon at {}: {what}", self.peer.display()))
    }
}

#[cfg(test)]
mod tests;
