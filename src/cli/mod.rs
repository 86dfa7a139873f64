//! The operator's command `kvmha`.

mod generate;

use crate::domain::definition;
use crate::{log, program};
use clap::{Parser, Subcommand};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// High availability for KVM guests on Pacemaker.
#[derive(Parser)]
#[command(name = "kvmha", version, about, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run an action of the resource agent ocf:kvmha:VirtualDomain (parameters come from the environment, OCF_RESKEY_*)
    Agent {
        /// start, stop, monitor, status, migrate_to, migrate_from, reload-agent, validate-all or meta-data
        action: String,
    },
    /// Run the fence agent fence_kvmha
    Fence,
    /// Write the metadata, manual pages and shell completions, as packages ship them
    Generate {
        /// Folder to write to
        directory: PathBuf,
    },
}

/// Runs the operator's command; 2 is a wrong command line.
#[must_use]
pub fn run(words: &[OsString]) -> u8 {
    if let [word, path] = words
        && let Some(code) = child(word, Path::new(path))
    {
        return code;
    }
    let command = match Command::try_parse_from([OsString::from("kvmha")].iter().chain(words)) {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let result = match command.what {
        // The first word chose another face before; this is for --help.
        What::Agent { action } => return crate::ocf::run(&[action.into()]),
        What::Fence => return crate::fence::run(&[]),
        What::Generate { directory } => generate::run(&directory),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::complain(&format!("{error:#}"));
            1
        }
    }
}

/// What this program does for itself in a process of its own, since it may hang in the kernel; no business of a person's.
fn child(word: &OsStr, path: &Path) -> Option<u8> {
    match word.to_str()? {
        definition::READ_WORD => Some(copy_definition(path)),
        program::CHECK_WORD => Some(match program::check(path) {
            Ok(()) => 0,
            Err(error) => {
                log::complain(&plain(&error));
                1
            }
        }),
        program::EXEC_WORD => {
            log::complain(&plain(&program::exec(path)));
            Some(127)
        }
        _ => None,
    }
}

/// The child's side of [`crate::domain::Definition::read`]. Its whole error text becomes part of the parent's.
fn copy_definition(path: &Path) -> u8 {
    let mut out = io::stdout();
    match definition::copy(path, &mut out).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) => {
            log::complain(&plain(&error));
            if definition::is_final(&error) { definition::UNUSABLE } else { definition::UNREADABLE }
        }
    }
}

/// The system's text of an error, without Rust's "(os error 2)".
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}
