//! What is under a guest: its disks and what else of it lies on storage; what kind of storage that is, which thing on it, and whether it
//! answers.
//!
//! Everything that may block in the kernel is looked at by a child of this program. Files of the system are read below a root folder, so
//! that recorded ones can be looked at. Nothing here asks another node or libvirt: that is `domain/migration/preflight`'s.

pub(crate) mod chain;
pub(crate) mod device;
pub(crate) mod finding;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub(crate) mod hazards;
pub(crate) mod item;
pub mod kind;
pub(crate) mod look;
mod mounts;
pub(crate) mod nonce;
pub(crate) mod servers;

pub(crate) use finding::{Finding, Same};
pub(crate) use item::{Item, Role, Source};
pub(crate) use kind::Kind;
pub(crate) use look::{Sight, look};
pub(crate) use mounts::Mount;
