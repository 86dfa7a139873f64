//! The operator's command `kvmha`.

mod adopt;
mod check;
mod completions;
mod convert;
mod doctor;
mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod generate;
mod interruption;
mod manual;
mod metrics;
mod migrate;
mod migrations;
mod outlook;
mod overview;
mod probe;
mod progress;
mod repair;
mod shell;
mod status;
mod storage;
mod table;
mod version;
mod waiting;
mod whereabouts;

use crate::cluster::resource;
use crate::deadline::Deadline;
use crate::log;
use crate::ocf::Asked;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

/// High availability for KVM guests on Pacemaker.
#[derive(Parser)]
#[command(name = "kvmha", version, about, disable_version_flag = true, arg_required_else_help = true)]
#[command(
    after_help = "The code is 0 if all is well or was done, 1 if it is not, or could not be done or asked, 2 if the command line is wrong; \
where also has 2 if a guest has several copies, or a node could not be asked. agent and fence have the codes of their protocols.\n\n\
Examples:\n  kvmha doctor\n  kvmha status --watch\n  kvmha where web1\n  \
kvmha check web1 --to node2 && kvmha migrate web1 node2"
)]
pub(crate) struct Command {
    /// Print the version; --version also what it was built with, and the libvirt that is installed here
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run an action of the resource agent ocf:kvmha:VirtualDomain (parameters come from the environment, OCF_RESKEY_*)
    #[command(after_help = "The code is the action's, see man ocf_kvmha_VirtualDomain.\n\nExamples:\n  \
            OCF_RESKEY_config=/srv/vms/web1.xml kvmha agent status\n  \
OCF_CHECK_LEVEL=10 OCF_RESKEY_config=/srv/vms/web1.xml kvmha agent validate-all")]
    Agent {
        /// The action
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(crate::ocf::action_words()))]
        action: String,
    },
    /// Run the fence agent fence_kvmha, or print devices of other agents as devices of it (fence convert)
    #[command(after_help = "The code is the fence agent's, see man fence_kvmha, which has its options too.\n\nExamples:\n  \
kvmha fence --uri=qemu+tls://hosta/system,qemu+tls://hostb/system --plug=node1 --action=status\n  kvmha fence convert")]
    // What is no word of this command is the fence agent's.
    #[command(disable_help_subcommand = true)]
    Fence {
        #[command(subcommand)]
        what: Option<OfFence>,
    },
    /// Change running resources from ocf:heartbeat:VirtualDomain to ocf:kvmha:VirtualDomain, or back, without stopping a guest
    Adopt(adopt::Arguments),
    /// Say whether a guest can be moved to a node, and what would make the move fail: 0 it can, 1 it cannot
    Check(check::Arguments),
    /// Have Pacemaker move a guest live, and show how far it is; Ctrl-C leaves the guest where it was
    Migrate(migrate::Arguments),
    /// List the results of the moves from this node
    Migrations(migrations::Arguments),
    /// Show every guest of the cluster: where it is, how it is and since when, its last move and its last failure
    Status(status::Arguments),
    /// Ask every node where a guest is and what is left of it: 0 exactly one copy, 1 none, 2 several, or a node could not be asked
    Where(find::Arguments),
    /// Say what of a guest has to be cleaned up on this node, and do it with --yes; the last running copy is never touched
    Repair(repair::Arguments),
    /// Print guests and moves for Prometheus, in the format of node exporter's textfile collector
    Metrics(metrics::Arguments),
    /// Say whether this cluster is fit for guests, and what to do where it is not: 0 it is, 1 something was found
    Doctor(doctor::Arguments),
    /// Show what is under a guest, or all: its kind, what proves which thing it is, whether it answers, and whether another node has the same
    Storage(storage::Arguments),
    /// Write the metadata, manual pages and shell completions, as packages ship them
    #[command(after_help = "Examples:\n  kvmha generate metadata")]
    Generate {
        /// Folder to write to
        directory: PathBuf,
    },
}

/// What can be done for fencing, beside it.
#[derive(Subcommand)]
enum OfFence {
    /// Print the devices of fence_virsh, fence_xvm, fence_virt and external/libvirt as devices of fence_kvmha
    Convert(convert::Words),
}

/// The code of `kvmha where` when it does not know.
const CANNOT_TELL: u8 = 2;

/// Which guest is meant.
#[derive(Args)]
struct Given {
    /// A resource of the cluster, or the path of a definition (with a slash)
    #[arg(value_name = "RESOURCE|CONFIG")]
    what: String,
    /// A parameter of the agent, instead of the resource's own
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Given {
    /// Its parameters, read as the agent reads them.
    fn asked(&self, target: &str, deadline: Deadline) -> anyhow::Result<Asked> {
        let path = self.what.contains('/');
        let mut parameters = if path {
            BTreeMap::from([("config".to_owned(), self.what.clone())])
        } else {
            resource::read(&self.what, &deadline).map_err(anyhow::Error::msg)?.parameters
        };
        for word in &self.set {
            let (name, value) = word.split_once('=').ok_or_else(|| anyhow::anyhow!("--set: {word:?} is not NAME=VALUE"))?;
            parameters.insert(name.to_owned(), value.to_owned());
        }
        let instance = (!path).then_some(self.what.as_str());
        Asked::new(instance, &parameters, target, deadline).map_err(anyhow::Error::msg)
    }
}

/// Why something was not printed, the first time: [`run`] says it at the end.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// Prints; a reader that goes away before the end is no error of ours. Says whether there is one still.
fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                UNWRITTEN.get_or_init(|| format!("standard output cannot be written: {}", log::plain(&error)));
            }
            false
        }
    }
}

/// Runs the operator's command; 2 is a wrong command line.
#[must_use]
pub fn run(words: &[OsString]) -> u8 {
    let command = match Command::try_parse_from([OsString::from("kvmha")].iter().chain(words)) {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            if error.kind() == ErrorKind::DisplayVersion && words.first().is_some_and(|word| word == "--version") {
                print(&version::more());
            }
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let result = match command.what {
        // The first word chose another face before; this is for --help.
        What::Agent { action } => return crate::ocf::run(&[action.into()]),
        What::Fence { what: None } => return crate::fence::run(&[]),
        What::Fence { what: Some(OfFence::Convert(words)) } => convert::run(&words).map(|text| {
            print(&text);
            0
        }),
        What::Adopt(arguments) => adopt::run(&arguments).map(|()| 0),
        What::Check(arguments) => check::run(&arguments),
        What::Migrate(arguments) => migrate::run(&arguments),
        What::Migrations(arguments) => migrations::run(&arguments),
        What::Status(arguments) => status::run(&arguments),
        What::Where(arguments) => {
            let code = find::run(&arguments).unwrap_or_else(|error| {
                log::complain(&format!("{error:#}"));
                CANNOT_TELL
            });
            Ok(code)
        }
        What::Repair(arguments) => repair::run(&arguments),
        What::Metrics(arguments) => metrics::run(&arguments),
        What::Doctor(arguments) => doctor::run(&arguments),
        What::Storage(arguments) => storage::run(&arguments),
        What::Generate { directory } => generate::run(&directory).map(|()| 0),
    };
    let code = result.unwrap_or_else(|error| {
        log::complain(&format!("{error:#}"));
        1
    });
    // What is cut off is no answer.
    UNWRITTEN.get().map_or(code, |error| {
        log::complain(error);
        code.max(1)
    })
}
