//! What a move is asked for with.

use super::policy::Policy;
use crate::domain::options::Options;
use crate::parameter;
use std::path::PathBuf;

/// One move: where the guest is to go, by which ways and limits, and when it is refused.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The target's name, for people.
    pub target: String,
    /// The libvirt at the target, as this host and its daemon reach it.
    pub remote: String,
    /// Where the memory goes, if not libvirt's choice.
    pub migrate_uri: Option<String>,
    /// The address at which the target listens for the memory, if not libvirt's choice.
    pub listen: Option<String>,
    /// `migrate_options`.
    pub options: Options,
    /// Greatest bandwidth in MiB/s; 0 leaves libvirt's.
    pub speed: u64,
    /// Greatest downtime in milliseconds; 0 leaves it to the policy.
    pub downtime: u64,
    /// Where the guest's definition is.
    pub config: PathBuf,
    /// What the resource is called, if it has a name: a guest without a definition is looked for by that too.
    pub instance: Option<String>,
    /// Which moves are refused for what is under the guest.
    pub storage: StorageCheck,
    /// How a guest is treated that dirties its memory faster than it can be sent.
    pub policy: Policy,
}

/// Which moves are refused for what is under the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageCheck {
    /// Those to a node where a disk is not proven to be the same.
    Proven,
    /// Those to a node where a disk is proven to be another one.
    #[default]
    Different,
    /// None.
    Off,
}

impl StorageCheck {
    /// The words.
    pub const WORDS: &'static [&'static str] = &parameter::words::<_, { Self::NAMES.len() }>(Self::NAMES);
    /// The choices by their words.
    pub const NAMES: &'static [(&'static str, Self)] = &[("proven", Self::Proven), ("different", Self::Different), ("off", Self::Off)];
}

#[cfg(test)]
impl Plan {
    /// One for tests: a plain move to the libvirt at this URI.
    pub(super) fn to(remote: &str) -> Self {
        Self {
            target: "b".into(),
            remote: remote.into(),
            migrate_uri: None,
            listen: None,
            options: Options::default(),
            speed: 0,
            downtime: 0,
            config: "/srv/web1.xml".into(),
            instance: None,
            storage: StorageCheck::Off,
            policy: Policy::Plain,
        }
    }
}
