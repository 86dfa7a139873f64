//! The state file of a resource instance: which guest it was when it was last seen. A hint that lets monitor and stop work
//! without the config file; never proof.

mod others;
mod shelf;
mod slot;

pub use shelf::Shelf;
pub use slot::Slot;

use super::definition::Identity;
use super::emulator::Emulator;
use super::rings::Outliving;
use super::status::Trace;
use crate::percent;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The `config` parameter under which it was started, has come, or was found.
    pub config: PathBuf,
    /// The `hypervisor` parameter it was seen under.
    pub hypervisor: String,
    /// libvirt's name of the guest.
    pub name: String,
    /// Its UUID; absent while it is being created from a definition without one.
    pub uuid: Option<String>,
    /// Its emulator's process, if it was found.
    pub pid: Option<i32>,
    /// The emulator's start time, in clock ticks since boot.
    pub start: Option<u64>,
    /// Whether an emulator of it was ever seen on this host; not known before it was looked for while it ran.
    #[serde(default)]
    pub seen: Option<bool>,
    /// A request to create it was sent, and how that ended is not known.
    #[serde(default)]
    pub creating: bool,
    /// That request was to restore it from a saved state, see [`super::saved_state`].
    #[serde(default)]
    pub restoring: bool,
    /// Only its name spoke for it when it was seen first: it may be another guest.
    #[serde(default)]
    pub guessed: bool,
    /// The libvirt it was being moved to, as long as how that ended is not known.
    #[serde(default)]
    pub moving: Option<String>,
    /// Which of its requests may outlive its emulator.
    #[serde(flatten)]
    pub outliving: Outliving,
}

impl Record {
    /// One of a guest of which nothing was seen yet, and with which nothing was begun.
    #[must_use]
    pub fn new(config: PathBuf, hypervisor: &str, identity: &Identity) -> Self {
        Self {
            config,
            hypervisor: hypervisor.to_owned(),
            name: identity.name.clone(),
            uuid: identity.uuid.clone(),
            pid: None,
            start: None,
            seen: None,
            creating: false,
            restoring: false,
            guessed: false,
            moving: None,
            outliving: Outliving::NONE,
        }
    }

    /// The guest it was.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { name: self.name.clone(), uuid: self.uuid.clone() }
    }

    /// What it says about the guest.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let emulator = self.pid.zip(self.start).map(|(pid, start)| Emulator { pid, start });
        let unseen = self.seen == Some(false);
        Trace { identity: self.identity(), emulator, unseen, creating: self.creating, outliving: self.outliving, place: None }
    }

    /// This record with the emulator that runs the guest now, if one was found.
    #[must_use]
    pub fn with(self, emulator: Option<Emulator>) -> Self {
        match emulator.filter(|found| self.trace().emulator != Some(*found)) {
            // One that was seen before may still have writes under way.
            Some(emulator @ Emulator { pid, start }) => {
                Self { pid: Some(pid), start: Some(start), outliving: self.outliving.with(emulator), ..self }
            }
            None => self,
        }
    }

    /// Whether a start or a move was begun whose end is not known.
    fn is_under_way(&self) -> bool {
        self.creating || self.restoring || self.moving.is_some()
    }

    /// Whether it is `identity`'s and still right: the emulator it names lives, nothing is under way, and nothing was not looked at.
    #[must_use]
    pub fn is_current(&self, identity: &Identity) -> bool {
        let settled = !self.creating && self.moving.is_none() && self.outliving.is_known();
        settled && self.identity() == *identity && self.trace().emulator.is_some_and(|emulator| !emulator.is_dying())
    }
}

/// A file name for any instance name; clones have a colon in theirs.
pub(super) fn file_name(instance: &str) -> String {
    instance
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

/// The instance that a file is named after.
pub(super) fn instance_name(stem: &str) -> Option<String> {
    percent::decode(stem)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One of a guest that ran.
    pub(super) fn record() -> Record {
        let identity = Identity { name: "web1".into(), uuid: Some("c7a5fdbd-cdaf-9455-926a-d65c16db1809".into()) };
        let new = Record::new("/srv/vms/web1.xml".into(), "qemu:///system", &identity);
        Record { pid: Some(1234), start: Some(5678), ..new }
    }

    /// A package that is taken back reads what this one has written.
    #[test]
    fn the_format_of_the_file() {
        let text =
            r#"{"config":"/srv/vms/web1.xml","hypervisor":"qemu:///system","name":"web1","uuid":"c7a5fdbd-cdaf-9455-926a-d65c16db1809","#
                .to_owned()
                + r#""pid":1234,"start":5678,"seen":true,"creating":false,"restoring":false,"guessed":false,"moving":null,"rings":false,"aio":null}"#;
        let record = Record { seen: Some(true), outliving: Outliving { aio: None, ..Outliving::NONE }, ..record() };
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        // As an older one has written it.
        let older = text.replace(r#""seen":true,"#, "");
        assert_eq!(serde_json::from_str::<Record>(&older).unwrap(), Record { seen: None, ..record });
    }

    #[test]
    fn names_of_instances_come_back() {
        for name in ["web1", "web/1:0", "100%", "\u{fc}ber.web"] {
            assert_eq!(instance_name(&file_name(name)).as_deref(), Some(name));
        }
        for stem in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(instance_name(stem), None, "{stem}");
        }
    }
}
