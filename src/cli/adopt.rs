//! `kvmha adopt`: a running cluster changes from `ocf:heartbeat:VirtualDomain` to this agent, or back, and no guest stops.
//!
//! Pacemaker restarts a resource whose agent was changed, also after maintenance, as long as its nodes remember the old one. So: the one
//! resource is put into maintenance, its agent is changed, what the nodes remember is deleted, and they are asked anew by the new agent;
//! when all have answered as they should, and the scheduler says that it would do nothing but monitor, maintenance ends.
//!
//! Maintenance is the resource's own and not the cluster's: whatever happens meanwhile, all other guests are looked after. It is set in
//! a set of meta attributes of its own, named after the resource, which also says where the change leads: so it begins and ends with one
//! change of the CIB, and a run that was killed is found and brought to its end by the next: on the same
//! node at once, for there is a lock, on another when it cannot live any more.

mod entrant;
mod journey;
mod libvirt;
mod mark;
mod others;
mod quiet;
mod standing;
mod survey;
mod way;

use super::interruption::Interruption;
use super::print;
use crate::deadline::Deadline;
use anyhow::{Context, anyhow, bail};
use journey::Journey;
pub(super) use mark::set_id;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;
use survey::Survey;

/// How long looking at everything may take before anything is touched.
const SURVEY: Duration = Duration::from_secs(60);

/// Lock file: only the run that holds it may change resources on this node.
const LOCK: &str = "/run/kvmha-adopt.lock";

/// Which of the two agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// `ocf:heartbeat:VirtualDomain`.
    Heartbeat,
    /// `ocf:kvmha:VirtualDomain`.
    Kvmha,
}

impl Provider {
    fn word(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Kvmha => "kvmha",
        }
    }

    fn agent(self) -> String {
        format!("ocf:{}:VirtualDomain", self.word())
    }

    fn other(self) -> Self {
        match self {
            Self::Heartbeat => Self::Kvmha,
            Self::Kvmha => Self::Heartbeat,
        }
    }

    fn named(word: &str) -> Option<Self> {
        [Self::Heartbeat, Self::Kvmha].into_iter().find(|provider| provider.word() == word)
    }
}

/// The command line.
#[derive(clap::Args)]
#[command(
    override_usage = "kvmha adopt [--back] [--dry-run] --all|RESOURCE...\n       kvmha adopt --from-libvirt DOMAIN [--config FILE]",
    after_help = "The code is 0 if all of them have the agent now, or with --dry-run could be given it; 1 if one could not be changed; \
        that step is undone and reported.\n\nExamples:\n  kvmha adopt --all --dry-run\n  kvmha adopt web1 web2\n  \
        kvmha adopt --back web1\n  kvmha adopt --from-libvirt web3"
)]
pub(super) struct Arguments {
    /// The resources; those that have the agent already are left alone
    #[arg(value_name = "RESOURCE", required_unless_present_any = ["all", "from_libvirt"], conflicts_with_all = ["all", "from_libvirt"])]
    resources: Vec<String>,
    /// All resources that have the other agent
    #[arg(long, conflicts_with = "from_libvirt")]
    all: bool,
    /// Back to ocf:heartbeat:VirtualDomain
    #[arg(long, conflicts_with = "from_libvirt")]
    back: bool,
    /// Only say what would be done
    #[arg(long, conflicts_with = "from_libvirt")]
    dry_run: bool,
    /// A guest that libvirt runs on this node outside the cluster: print the commands that put it under the cluster without stopping it
    #[arg(long, value_name = "DOMAIN")]
    from_libvirt: Option<String>,
    /// Where the definition of that guest is to be, on storage that all nodes have
    #[arg(long, value_name = "FILE", default_value = "/srv/vms/DOMAIN.xml", requires = "from_libvirt")]
    config: String,
}

/// Runs the command.
///
/// # Errors
/// What was not done, and how things are now.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(domain) = &arguments.from_libvirt {
        return libvirt::run(domain, &arguments.config.replace("DOMAIN", domain));
    }
    // Before looking: what a run that lives has begun is not what one that was killed has left.
    let _lock = if arguments.dry_run { None } else { Some(lock()?) };
    let goal = if arguments.back { Provider::Heartbeat } else { Provider::Kvmha };
    let survey = Survey::make(&arguments.resources, goal, &Deadline::after(SURVEY))?;
    let journeys: Vec<Journey> = survey.lots.iter().filter_map(|lot| lot.journey(&survey.run)).collect();
    if arguments.dry_run || journeys.is_empty() {
        print(&format!("{survey}\n"));
        return Ok(());
    }
    // With nobody to read what is done nothing is begun.
    say(&survey.to_string())?;
    let interrupted = Interruption::watch()?;
    for (done, journey) in journeys.iter().enumerate() {
        if interrupted.came() {
            bail!("interrupted: {done} of {} resources changed, the others were not touched", journeys.len());
        }
        let left = journeys.len() - done - 1;
        journey.begun_now().make().with_context(|| match left {
            0 => String::new(),
            left => format!("stopped here, {left} more not touched"),
        })?;
    }
    tell(&format!("{} changed, no guest was stopped", count(journeys.len(), "resource")));
    Ok(())
}

/// One line, or several, for the person; seen at once also through a pipe.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("standard output")
}

/// Like [`say`], in the middle of the work, which has to come to its end whether somebody listens or not.
fn tell(text: &str) {
    let _ = say(text);
}

/// Keeps a second run on this node out, as long as it lives; the kernel ends that with the process.
fn lock() -> anyhow::Result<Flock<File>> {
    let file = File::options().create(true).append(true).mode(0o600).open(LOCK).with_context(|| format!("{LOCK} cannot be opened"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| anyhow!("another kvmha adopt runs on this node"))
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
