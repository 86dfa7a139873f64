//! What is under a guest: its disks and what else of it lies on storage; what kind of storage that is, which thing on it, and whether it
//! answers.
//!
//! Everything that may block in the kernel is looked at by a child of this program. Files of the system are read below a root folder, so
//! that recorded ones can be looked at. Nothing here asks another node or libvirt: that is `domain/migration/preflight`'s.

pub mod chain;
pub mod device;
pub mod finding;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub mod hazards;
pub mod item;
pub mod kind;
pub mod look;
mod mounts;
pub mod nonce;
pub mod servers;

pub use finding::{Finding, Same};
pub use item::{Item, Role, Source};
pub use kind::Kind;
pub use look::{Facts, Sight, look};
pub use mounts::Mount;
