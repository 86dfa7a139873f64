//! The operator's command `kvmha`.

mod generate;

use crate::domain::definition;
use crate::{log, program};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

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
    #[command(name = definition::READ_WORD, hide = true)]
    ReadDefinition { path: PathBuf },
    #[command(name = program::CHECK_WORD, hide = true)]
    CheckProgram { path: PathBuf },
    #[command(name = program::EXEC_WORD, hide = true)]
    ExecProgram { path: PathBuf },
}

/// Runs the operator's command; 2 is a wrong command line.
#[must_use]
pub fn run(words: &[OsString]) -> u8 {
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
        What::ReadDefinition { path } => return copy_definition(&path),
        What::CheckProgram { path } => program::check(&path).map_err(|error| anyhow::anyhow!(plain(&error))),
        What::ExecProgram { path } => {
            log::complain(&plain(&program::exec(&path)));
            return 127;
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::complain(&format!("{error:#}"));
            1
        }
    }
}

/// The child's side of [`crate::domain::Definition::read`]. Its whole error text becomes part of the parent's.
fn copy_definition(path: &std::path::Path) -> u8 {
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
