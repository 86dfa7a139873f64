//! The question to other hosts whether they run a guest, before it is started here.
//!
//! Fencing is what keeps a guest from running twice; this catches what fencing does not: a guest that a person started on another
//! node, or that the cluster lost sight of. A host that does not answer is no obstacle, or no node could ever take over from one
//! that is gone.

use super::definition::Identity;
use super::status::ask_through;
use super::{Connection, State};
use crate::deadline::{Deadline, Task};
use crate::log;

/// Another host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, for people.
    pub name: String,
    /// Its libvirt's URI.
    pub uri: String,
}

/// Asks all `hosts` at once; gives a sentence about the first that has the guest.
#[must_use]
pub fn find(identity: &Identity, hosts: Vec<Host>, deadline: &Deadline) -> Option<String> {
    let tasks: Vec<_> = hosts
        .into_iter()
        .map(|host| {
            let (identity, deadline) = (identity.clone(), *deadline);
            Task::start(move || seen_at(&identity, &host, &deadline))
        })
        .collect();
    tasks.iter().filter_map(|task| task.wait(deadline)).flatten().next()
}

fn seen_at(identity: &Identity, host: &Host, deadline: &Deadline) -> Option<String> {
    let answer = Connection::open(&host.uri, deadline).and_then(|connection| ask_through(&connection, identity, deadline));
    match answer {
        Ok(Some((state, reason, uuid))) if state != State::ShutOff => {
            if identity.uuid.as_ref().is_some_and(|wanted| *wanted != uuid) {
                log::warning(format_args!("{} has another guest called {}, UUID {uuid}", host.name, identity.name));
                return None;
            }
            Some(format!("{} is on {}, {state} ({})", identity.name, host.name, reason.text(state)))
        }
        Ok(_) => None,
        Err(error) => {
            log::info(format_args!("{} cannot be asked whether it runs {}: {error}", host.name, identity.name));
            None
        }
    }
}
