//! A KVM guest, called a domain in libvirt's language: what it is, whether it lives, how it is started, ended and moved.
//!
//! Knows libvirt and the emulator's process; knows nothing of OCF or fencing.

pub mod agent;
pub mod connection;
pub mod creation;
pub mod definition;
pub mod elsewhere;
pub mod emulator;
pub mod ending;
pub mod error;
pub mod evidence;
pub mod ffi;
pub mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
pub mod holding;
pub mod host;
pub mod live;
pub mod locks;
pub mod migration;
pub mod options;
pub mod overlay;
pub mod platform;
mod process;
pub mod record;
pub mod resources;
pub mod rings;
pub mod saved_state;
mod scope;
pub mod sign;
mod sleep;
pub mod state;
pub mod status;
mod status_file;
pub mod subnet;
pub mod twin;
pub mod uri;
mod walk;
pub mod wire;

pub use connection::{Connection, Guest};
pub use definition::{Definition, Identity};
pub use error::{Error, Kind, Result};
pub use state::{Condition, State};
pub use uri::Uri;
