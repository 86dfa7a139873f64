//! A KVM guest, called a domain in libvirt's language: what it is, whether it lives, how it is started, ended and moved.
//!
//! Knows libvirt and the emulator's process; knows nothing of OCF or fencing.
//!
//! The map:
//!
//! | module | noun |
//! |---|---|
//! | | **which guest, and what it is** |
//! | [`definition`] | its XML in the file `config`, and its name and UUID |
//! | [`platform`] | what it needs of its host before it can be there at all |
//! | [`resources`] | the networks and storage pools that its definition names |
//! | [`locks`] | who keeps a second emulator from its disks |
//! | [`record`] | the state file: which guest it was when it was seen last |
//! | [`twin`] | another guest with its UUID |
//! | [`sign`] | what tells it from all others, wherever it is asked for |
//! | | **whether it lives** |
//! | [`status`] | libvirt's word and the emulator's process together |
//! | [`state`] | libvirt's states, and its reasons for them |
//! | [`evidence`] | the emulator's process as a witness |
//! | [`emulator`] | that process: whether it is there, and how it is |
//! | `process`, `walk`, `scope`, `status_file` | how it is found: in the process table, by its control group, by libvirt's own note |
//! | [`rings`] | writes that outlive it |
//! | [`live`] | what libvirt has of a guest that is there |
//! | [`agent`] | the guest's own sign of life |
//! | | **its life** |
//! | [`creation`] | its start on this host, up to where it runs |
//! | [`elsewhere`] | whether another host has it, asked before that |
//! | [`overlay`] | the image that is made for it at a start |
//! | [`saved_state`] | its memory in a file, from which it goes on |
//! | [`ending`] | its end on this host |
//! | `sleep` | its own power management |
//! | [`migration`] | its move to another host |
//! | [`options`], [`subnet`] | the words of `migrate_options`, and the network on which its memory goes |
//! | | **libvirt** |
//! | [`connection`] | a connection, and every call under a deadline |
//! | [`wire`] | the cheap question, over the daemon's own socket |
//! | [`ffi`] | the functions that the crate `virt` lacks or gets wrong |
//! | [`uri`] | where a libvirt is |
//! | [`host`] | what it says of itself |
//! | [`holding`] | what it holds of a guest |
//! | | **and** |
//! | [`error`] | what can go wrong: a kind, and a sentence |
//! | [`files`] | changes of files that may lie on storage that hangs |

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
