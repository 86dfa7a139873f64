//! What libvirt has of a guest that is there: how large it is, and its definition with what was changed while it ran.

use super::definition::Identity;
pub use super::wire::Size;
use super::wire::{self, Look};
use super::{Connection, Definition, Error, Kind, Result, Uri, status};
use crate::deadline::Deadline;
use std::path::Path;

/// Asks libvirt for the size of a guest; `None` if it has no such guest.
///
/// # Errors
/// As for [`super::status::ask`].
pub fn size(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<Option<Size>> {
    if let Some(socket) = wire::socket(uri) {
        match wire::size(&socket, wire::SYSTEM, Look::Name(&identity.name), deadline).map_err(status::told) {
            Ok(answer) => return Ok(answer),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
    }
    let connection = Connection::open(&uri.to_string(), deadline)?;
    let Some(guest) = connection.guest(&identity.name, deadline)? else { return Ok(None) };
    let info = guest.call("asking the size of", deadline, |domain| Ok(domain.info()?))?;
    Ok(Some(Size { cpus: info.nr_virt_cpu.into(), memory: info.max_mem }))
}

/// The definition that libvirt has of the guest, as it would be written to the file `path`, passwords and all; `None` if it is not active.
///
/// # Errors
/// libvirt's; `State` for a guest that also has a persistent definition: libvirt gives that one, and not what runs.
pub fn definition(identity: &Identity, path: &Path, uri: &Uri, deadline: &Deadline) -> Result<Option<Definition>> {
    let connection = Connection::open(&uri.to_string(), deadline)?;
    let Some(guest) = connection.guest(&identity.name, deadline)? else { return Ok(None) };
    let answer = guest.call("reading the definition of", deadline, |domain| {
        if !domain.is_active()? {
            return Ok(None);
        }
        if domain.is_persistent()? {
            return Err(Error::new(Kind::State, "libvirt also has a persistent definition of it"));
        }
        let flags = virt::sys::VIR_DOMAIN_XML_INACTIVE | virt::sys::VIR_DOMAIN_XML_SECURE;
        Ok(Some(domain.xml_desc(flags)?))
    });
    let Some(xml) = answer? else { return Ok(None) };
    let seen = Definition::parse(path, xml.into_bytes())?;
    let other = identity.uuid.as_ref().is_some_and(|uuid| seen.identity.uuid.as_ref() != Some(uuid));
    if seen.identity.name != identity.name || other {
        let text = format!("libvirt was asked for the definition of {} and gave that of {}", identity.name, seen.identity.name);
        return Err(Error::new(Kind::Refused, text));
    }
    Ok(Some(seen))
}
