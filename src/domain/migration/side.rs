//! What the two hosts of a move say about the guest.

use super::arrival::is_outgoing;
use crate::deadline::Deadline;
use crate::domain::connection::Connection;
use crate::domain::definition::Identity;
use crate::domain::status::{self, Presence, Sight, Trace, ask_through};
use crate::domain::{Condition, Error, State, Uri};
use std::time::Duration;

/// How long one question to a host may take when it is asked again and again.
pub(super) const QUESTION: Duration = Duration::from_secs(3);

/// What a host says about the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// It runs.
    Runs,
    /// An emulator is there, its CPUs stopped.
    Waits(Condition),
    /// Part of it is there, by post-copy, running or not.
    Half(Condition),
    /// It is positively not there.
    Absent,
    /// Cannot tell.
    Unknown(String),
}

impl Side {
    /// By what its libvirt says.
    pub(super) fn of(condition: Condition) -> Self {
        match condition.state {
            State::ShutOff => Self::Absent,
            _ if condition.is_postcopy() => Self::Half(condition),
            State::Running | State::Blocked => Self::Runs,
            _ => Self::Waits(condition),
        }
    }
}

/// This host: libvirt's word and the process table together, so that "absent" is proven.
pub(super) struct Here<'a> {
    pub(super) uri: &'a Uri,
    pub(super) trace: Trace,
}

impl Here<'_> {
    /// What this host says.
    pub(super) fn side(&self, deadline: &Deadline) -> Side {
        match status::look(&self.trace, self.uri, &deadline.within(QUESTION)) {
            Ok(Presence::Absent) => Side::Absent,
            Ok(Presence::Active(Sight::Libvirt { condition, .. })) => Side::of(condition),
            Ok(Presence::Active(Sight::Process { emulator, trouble })) => {
                Side::Unknown(format!("{emulator} of {} is here, but libvirt cannot be asked: {trouble}", self.trace.identity.name))
            }
            Err(error) => Side::Unknown(error.text),
        }
    }

    /// Whether libvirt says that no move of the guest is on its way from here.
    pub(super) fn is_idle(&self, deadline: &Deadline) -> bool {
        let deadline = deadline.within(QUESTION);
        let guest = Connection::open(&self.uri.to_string(), &deadline).and_then(|here| here.guest(&self.trace.identity.name, &deadline));
        matches!(guest, Ok(Some(guest)) if is_outgoing(&guest, &deadline).is_ok_and(|outgoing| !outgoing))
    }
}

/// The other host, which is asked again and again: a connection that fails is made anew, since a daemon may have been restarted.
pub(super) struct There {
    pub(super) uri: String,
    pub(super) connection: Option<Connection>,
}

impl There {
    /// The host whose libvirt is at `uri`.
    pub(super) fn new(uri: &str) -> Self {
        Self { uri: uri.to_owned(), connection: None }
    }

    /// Its connection.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(super) fn connection(&mut self, deadline: &Deadline) -> Result<Connection, Error> {
        self.connection_again(&deadline.within(Duration::ZERO), deadline)
    }

    /// Like [`Self::connection`], but one that cannot be reached is tried again until `patience` is over.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(super) fn connection_again(&mut self, patience: &Deadline, deadline: &Deadline) -> Result<Connection, Error> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let connection = Connection::open_again(&self.uri, patience, deadline)?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Whether the guest runs there, and the move that has brought it is over. As long as one is not, libvirt there ends the guest if it loses its
    /// connection to the source (`qemuProcessAutoDestroy`), and gives no job ("migration statistics are available only on the source host").
    pub(super) fn has_all(&mut self, identity: &Identity, deadline: &Deadline) -> bool {
        let deadline = deadline.within(QUESTION);
        // The job first: none that is over begins again.
        let job = self
            .connection(&deadline)
            .and_then(|there| there.guest(&identity.name, &deadline))
            .map(|guest| guest.map(|guest| guest.job(&deadline)));
        matches!(job, Ok(Some(Ok(_)))) && self.side(identity, &deadline) == Side::Runs
    }

    /// What it says.
    pub(super) fn side(&mut self, identity: &Identity, deadline: &Deadline) -> Side {
        let deadline = deadline.within(QUESTION);
        match self.connection(&deadline).and_then(|connection| ask_through(&connection, identity, &deadline)) {
            Ok(None) => Side::Absent,
            // Another guest of that name.
            Ok(Some((_, uuid))) if identity.is_another(&uuid) => Side::Absent,
            Ok(Some((condition, _))) => Side::of(condition),
            Err(error) => {
                self.connection = None;
                Side::Unknown(error.text)
            }
        }
    }
}
