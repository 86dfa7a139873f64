//! What one libvirt says of one guest.

use super::verdict::{Answer, Seen};
use crate::domain::{Identity, Kind, Result, ffi};
use virt::connect::Connect;
use virt::domain::Domain;

/// Which guest is meant: a name, a UUID, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As it was written.
    pub(super) word: String,
    /// The name, if it was written as a name.
    pub(super) name: Option<String>,
    /// The UUID, written, pinned or learnt.
    pub(super) uuid: Option<String>,
}

impl Target {
    /// Takes the UUID over that the answers agree upon.
    pub(super) fn learn(&mut self, answers: &[Answer]) {
        if self.uuid.is_none() {
            let mut uuids: Vec<&str> = answers.iter().filter_map(Answer::uuid).collect();
            uuids.dedup();
            if let [uuid] = uuids[..] {
                self.uuid = Some(uuid.to_owned());
            }
        }
    }

    /// Whom to look for among the processes.
    pub(super) fn identity(&self) -> Identity {
        Identity { name: self.name.clone().unwrap_or_else(|| self.word.clone()), uuid: self.uuid.clone() }
    }
}

/// What a lookup found.
pub(super) enum Found {
    /// The one.
    Guest(Domain),
    /// Another guest that has the name.
    Other(String),
    /// A guest that runs, and has the UUID and this other name.
    Renamed(String),
}

/// Looks a guest up by all that is known of it.
pub(super) fn lookup(connect: &Connect, target: &Target) -> Result<Option<Found>> {
    let found = |result: std::result::Result<Domain, virt::error::Error>| match result.map_err(|error| ffi::error(&error)) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let by_uuid = match &target.uuid {
        Some(uuid) => found(connect.lookup_domain_by_uuid_string(uuid))?,
        None => None,
    };
    let by_name = match &target.name {
        Some(name) => found(connect.lookup_domain_by_name(name))?,
        None => None,
    };
    // A word that reads as a UUID may be a guest's name all the same.
    if target.name.is_none() && by_uuid.is_none() {
        let called = found(connect.lookup_domain_by_name(&target.word))?;
        let uuid = called.map(|domain| domain.uuid_string().map_err(|error| ffi::error(&error)));
        return uuid.transpose().map(|uuid| uuid.map(Found::Other));
    }
    if let (Some(wanted), Some(domain)) = (&target.uuid, &by_name) {
        let uuid = domain.uuid_string().map_err(|error| ffi::error(&error))?;
        if uuid != *wanted {
            return Ok(Some(Found::Other(uuid)));
        }
    }
    if let (Some(wanted), Some(domain), None) = (&target.name, &by_uuid, &by_name) {
        let name = domain.name().map_err(|error| ffi::error(&error))?;
        // A definition that was copied and does not run is nobody's concern.
        if name != *wanted {
            let active = domain.is_active().map_err(|error| ffi::error(&error))?;
            return Ok(active.then_some(Found::Renamed(name)));
        }
    }
    Ok(by_uuid.or(by_name).map(Found::Guest))
}

/// What it says.
pub(super) fn sight(connect: &Connect, target: &Target) -> Result<Answer> {
    let domain = match lookup(connect, target)? {
        Some(Found::Guest(domain)) => domain,
        Some(Found::Other(uuid)) => return Ok(Answer::Foreign { uuid }),
        Some(Found::Renamed(name)) => return Ok(Answer::Renamed { name }),
        None => return Ok(Answer::Absent),
    };
    match state(&domain) {
        Err(error) if error.kind == Kind::NotFound => Ok(Answer::Absent),
        other => other,
    }
}

/// Only a persistent domain that is shut off and not active is off. A transient one that is not active is being set up or removed.
fn state(domain: &Domain) -> Result<Answer> {
    let virt = |error: virt::error::Error| ffi::error(&error);
    let uuid = domain.uuid_string().map_err(virt)?;
    let condition = ffi::state(domain)?;
    let active = domain.is_active().map_err(virt)?;
    if condition.is_active() || active {
        return Ok(Answer::Active { uuid: Some(uuid), state: Seen::Told(condition) });
    }
    if domain.is_persistent().map_err(virt)? {
        Ok(Answer::Defined { uuid })
    } else {
        Ok(Answer::Active { uuid: Some(uuid), state: Seen::SettingUp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_learnt_when_all_agree() {
        let defined = |uuid: &str| Answer::Defined { uuid: uuid.into() };
        let mut target = Target { word: "web1".into(), name: Some("web1".into()), uuid: None };
        target.learn(&[defined("a"), defined("b")]);
        assert_eq!(target.uuid, None);
        target.learn(&[defined("a"), Answer::Absent, defined("a")]);
        assert_eq!(target.uuid.as_deref(), Some("a"));
    }
}
