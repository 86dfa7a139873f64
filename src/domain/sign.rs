//! What tells one guest on one host from all others, of this name or that, wherever it is asked for.

use super::definition::Identity;
use super::{Connection, Result};
use crate::deadline::{Deadline, Task};
use roxmltree::Document;

/// The sign. That two hosts have one name proves nothing, nor does one UUID, which some boards have in common, nor a guest that has the
/// same number on both; where all of this agrees, there is one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The host's name.
    host: String,
    /// The UUID of its hardware.
    hardware: String,
    /// The guest's UUID.
    guest: String,
    /// The number that libvirt gave it when it was created.
    number: u32,
}

/// The sign of a guest; none if it does not run there, or its host has no name or no UUID of its own.
///
/// # Errors
/// libvirt's, `NotFound` if it has no such guest.
pub(super) fn of(identity: &Identity, connection: &Connection, deadline: &Deadline) -> Result<Option<Sign>> {
    let name = identity.name.clone();
    let (host, capabilities, guest, number) = connection.call("asking which host it is", deadline, move |connect| {
        let guest = connect.lookup_domain_by_name(&name)?;
        Ok((connect.hostname()?, connect.capabilities()?, guest.uuid()?.to_string(), guest.id()))
    })?;
    let is_named = !host.is_empty() && !host.starts_with("localhost");
    let both = hardware(&capabilities).zip(number).filter(|_| is_named);
    Ok(both.map(|(hardware, number)| Sign { host, hardware, guest, number }))
}

/// Asks several libvirts side by side for the sign of a guest; none where there is no URI, and from those that do not tell.
#[must_use]
pub fn everywhere(uris: &[Option<String>], identity: &Identity, deadline: &Deadline) -> Vec<Option<Sign>> {
    let start = |uri: String| {
        let (identity, deadline) = (identity.clone(), *deadline);
        Task::start(move || Connection::open(&uri, &deadline).and_then(|connection| of(&identity, &connection, &deadline)).ok().flatten())
    };
    let tasks: Vec<_> = uris.iter().map(|uri| uri.clone().map(start)).collect();
    tasks.into_iter().map(|task| task.and_then(|task| task.wait(deadline).flatten())).collect()
}

/// From the capabilities.
fn hardware(capabilities: &str) -> Option<String> {
    let document = Document::parse(capabilities).ok()?;
    let host = document.root_element().children().find(|child| child.has_tag_name("host"))?;
    host.children().find(|child| child.has_tag_name("uuid"))?.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_of_the_hardware() {
        let text = |host: &str| format!("<capabilities><host>{host}<cpu/></host><guest><uuid>b</uuid></guest></capabilities>");
        assert_eq!(hardware(&text("<uuid>a</uuid>")).as_deref(), Some("a"));
        assert_eq!((hardware(&text("")), hardware(&text("<uuid/>")), hardware("no")), (None, None, None));
    }
}
