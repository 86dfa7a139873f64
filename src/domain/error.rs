//! What can go wrong with a guest: a kind, for the protocols to decide by, and one sentence, for a person.

use std::fmt;
use virt::error::ErrorNumber;

/// The class of an error. Each protocol turns kind and action into its own code, in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The thing asked for is positively not there.
    NotFound,
    /// The daemon could not be reached or refused the connection.
    Unreachable,
    /// The daemon was there but gave no answer in time.
    Unresponsive,
    /// libvirt understood the request and refused it.
    Refused,
    /// The definition of the guest is missing, unreadable or wrong.
    Definition,
    /// The guest is in a state in which the request makes no sense.
    State,
    /// Something was asked for and is under way, but was not done by the deadline.
    TimedOut,
    /// Another holds the lock of something that is needed.
    Locked,
    /// The guest's emulator cannot be proven gone.
    Lives,
    /// Anything else.
    // The last one: `ALL` is counted by it.
    Internal,
}

#[cfg(test)]
impl Kind {
    /// All of them. One more does not compile before it stands here.
    pub(crate) const ALL: [Self; Self::Internal as usize + 1] = [
        Self::NotFound,
        Self::Unreachable,
        Self::Unresponsive,
        Self::Refused,
        Self::Definition,
        Self::State,
        Self::TimedOut,
        Self::Locked,
        Self::Lives,
        Self::Internal,
    ];
}

/// A kind and one sentence that names the object and the cause: lower case, one line, no full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The class, for deciding.
    pub kind: Kind,
    /// The sentence, for a person.
    pub text: String,
    origin: Origin,
}

/// Whose word an error is, where that tells more than its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// This program's own.
    Own,
    /// Nobody's: libvirt said nothing in the time it was given.
    Silence,
    /// libvirt's, with its number for it.
    Libvirt(ErrorNumber),
}

/// The result of everything in this room.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` that says `text`, made into one line.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self { kind, text: text.split_whitespace().collect::<Vec<_>>().join(" "), origin: Origin::Own }
    }

    /// libvirt has said nothing in the time it was given: [`Kind::Unresponsive`].
    pub fn silence(text: impl Into<String>) -> Self {
        Self { origin: Origin::Silence, ..Self::new(Kind::Unresponsive, text) }
    }

    /// An error of libvirt's, with its number for it; `None` is one that is newer than `virt`.
    pub fn of_libvirt(kind: Kind, number: Option<ErrorNumber>, text: impl Into<String>) -> Self {
        Self { origin: number.map_or(Origin::Own, Origin::Libvirt), ..Self::new(kind, text) }
    }

    /// Whether nothing at all was heard of libvirt. Its own word that a guest is busy is of the kind [`Kind::Unresponsive`] too, and an answer.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        self.origin == Origin::Silence
    }

    /// Whether libvirt gave it this number. Its texts are in the language of its daemon.
    #[must_use]
    pub fn is_libvirts(&self, number: ErrorNumber) -> bool {
        self.origin == Origin::Libvirt(number)
    }

    /// Whether a host that cannot be reached may be reached a moment later: it has not refused who asks.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let refused = [ErrorNumber::AuthFailed, ErrorNumber::AuthCancelled, ErrorNumber::AuthUnavailable];
        // ssh's own words, which are not translated: a key does not become known by itself.
        let stranger = self.text.contains("Host key verification failed");
        self.kind == Kind::Unreachable && !stranger && !refused.into_iter().any(|number| self.is_libvirts(number))
    }

    /// This error, after which the same question was not answered: the kind is that of the silence.
    #[must_use]
    pub fn unanswered_again(self, silence: &Self) -> Self {
        Self { text: format!("{}; asked again: {}", self.text, silence.text), ..silence.clone() }
    }

    /// Whether what was asked for may be done nevertheless, now or later: there was no answer, or the daemon was lost.
    #[must_use]
    pub fn leaves_open(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::Unresponsive | Kind::TimedOut | Kind::Internal)
    }

    /// The error of letting a guest run that was created: whatever libvirt says, a paused copy may be there until it was ended. virtlockd is asked
    /// only then, so that a lock that is held is told apart.
    #[must_use]
    pub fn of_a_copy(self) -> Self {
        if self.leaves_open() || self.kind == Kind::Locked { self } else { Self { kind: Kind::Internal, ..self } }
    }

    /// This error with `what` in front: `what: text`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_place() {
        assert_eq!(Kind::ALL.map(|kind| kind as usize), std::array::from_fn(|number| number));
    }

    #[test]
    fn an_error_is_one_line() {
        let error = Error::new(Kind::Refused, "operation failed:\n  no such\tfile").context("start of web1");
        assert_eq!(error.to_string(), "start of web1: operation failed: no such file");
    }

    #[test]
    fn who_is_refused_is_not_heard_a_moment_later() {
        let says = |kind, number| Error::of_libvirt(kind, Some(number), "no").may_pass();
        assert!(says(Kind::Unreachable, ErrorNumber::SystemError) && says(Kind::Unreachable, ErrorNumber::UnknownHost));
        assert!(!says(Kind::Unreachable, ErrorNumber::AuthFailed) && !says(Kind::Refused, ErrorNumber::SystemError));
        let ssh = |text| Error::of_libvirt(Kind::Unreachable, Some(ErrorNumber::SystemError), text).may_pass();
        assert!(!ssh("Cannot recv data: Host key verification failed.: Connection reset by peer"));
        assert!(ssh("Cannot recv data: kex_exchange_identification: read: Connection reset by peer"));
    }

    #[test]
    fn silence_is_not_what_libvirt_calls_busy() {
        let silence = Error::silence("libvirt gave no answer within 5 s").context("opening qemu:///system");
        assert!(silence.kind == Kind::Unresponsive && silence.is_silence());
        let busy = Error::of_libvirt(silence.kind, Some(ErrorNumber::OperationTimeout), silence.text);
        assert!(!busy.is_silence() && !Error::new(busy.kind, busy.text).is_silence());
    }

    #[test]
    fn what_is_said_of_a_copy_that_may_be_there() {
        for kind in [Kind::Refused, Kind::State, Kind::Unreachable, Kind::Unresponsive, Kind::Internal] {
            assert!(Error::new(kind, "no").of_a_copy().leaves_open(), "{kind:?}");
        }
        let held = Error::new(Kind::Locked, "リソースが使用中です");
        assert_eq!(held.clone().of_a_copy(), held);
    }
}
