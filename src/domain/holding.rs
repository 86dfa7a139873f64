//! What one libvirt holds of a guest: a copy that is active, a definition, a saved state.

use super::connection::Connection;
use super::definition::Identity;
use super::{Condition, Kind, Result, Uri, ffi};
use crate::deadline::{Deadline, Task};
use std::time::Duration;

/// For the job, of which libvirt says nothing as long as it waits for the emulator.
const MOMENT: Duration = Duration::from_secs(2);

/// What it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The state.
    pub condition: Condition,
    /// The guest's UUID.
    pub uuid: String,
    /// Whether libvirt keeps a definition of its own.
    pub persistent: bool,
    /// Whether libvirt would start it with the host.
    pub autostart: bool,
    /// Whether libvirt has a saved state of it (`virsh managedsave`).
    pub saved: bool,
    /// Whether a job is under way: a migration, a dump, or somebody's question that the emulator does not answer. Of a copy that is coming
    /// in libvirt does not say.
    pub busy: Option<bool>,
}

/// What one libvirt says of one guest; `None`: it positively has no such guest. One of that name with another UUID is another guest.
pub type Answer = Result<Option<Holding>>;

/// Asks libvirt over a connection for all of them, one after the other.
pub fn all_at(connection: &Connection, guests: &[Identity], deadline: &Deadline) -> Vec<Answer> {
    let mut patient = true;
    guests.iter().map(|identity| one_of(connection, identity, &mut patient, deadline)).collect()
}

/// Whether QEMU has the guest stand still for what is under way with it, a live dump or snapshot, of which libvirt gives no reason
/// ([`Condition::PAUSED_UNKNOWN`]); `None`: the job cannot be asked for.
#[must_use]
pub fn stands_for_a_job(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Option<bool> {
    // The job first: what has ended by then is over, and is let run at once.
    let stands = || {
        let guest = Connection::open(&uri.to_string(), deadline).ok()?.guest(&identity.name, deadline).ok()??;
        let job = guest.job(&deadline.within(MOMENT)).ok()?;
        let condition = guest.condition(deadline).ok()?;
        Some(condition != Condition::PAUSED_UNKNOWN || job.is_some_and(|job| job.may_stop()))
    };
    if stands()? { Some(true) } else { stands() }
}

/// When libvirt has not told the job of one in time, it is not asked for those of the others: `patient` is false then.
fn one_of(connection: &Connection, identity: &Identity, patient: &mut bool, deadline: &Deadline) -> Answer {
    let Some(guest) = connection.guest(&identity.name, deadline)? else { return Ok(None) };
    let answer = guest.call("asking for the state of", deadline, |domain| {
        let condition = ffi::state(domain)?;
        let persistent = domain.is_persistent()?;
        Ok(Holding {
            condition,
            uuid: domain.uuid_string()?,
            persistent,
            // Only what has a definition of its own can have either.
            autostart: persistent && domain.autostart()?,
            saved: persistent && domain.has_managed_save(0)?,
            busy: None,
        })
    });
    // "Migration statistics are available only on the source host", and not at all of what is shut off.
    let answer = answer.map(|held| {
        if !*patient {
            return held;
        }
        match guest.job(&deadline.within(MOMENT)) {
            Ok(job) => Holding { busy: Some(job.is_some()), ..held },
            Err(error) if error.kind == Kind::Unresponsive => {
                *patient = false;
                Holding { busy: Some(true), ..held }
            }
            Err(_) => held,
        }
    });
    match answer {
        Ok(held) if identity.is_another(&held.uuid) => Ok(None),
        Ok(held) => Ok(Some(held)),
        // It ended between the questions.
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks several libvirts side by side, each for its own guests over one connection: per URI either why it cannot be asked, or the answers
/// in the order of the guests.
#[must_use]
pub fn everywhere(questions: Vec<(String, Vec<Identity>)>, deadline: &Deadline) -> Vec<Result<Vec<Answer>>> {
    let tasks: Vec<_> = questions
        .into_iter()
        .map(|(uri, guests)| {
            let deadline = *deadline;
            let address = uri.clone();
            let task = Task::start(move || {
                let connection = Connection::open(&address, &deadline)?;
                Ok(all_at(&connection, &guests, &deadline))
            });
            (uri, task)
        })
        .collect();
    let silent = |uri: &str| super::Error::new(Kind::Unresponsive, format!("{uri}: no answer in time"));
    tasks.into_iter().map(|(uri, task)| task.wait(deadline).unwrap_or_else(|| Err(silent(&uri)))).collect()
}
