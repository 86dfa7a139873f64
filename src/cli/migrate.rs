//! `kvmha migrate`: has Pacemaker move a guest, shows how far it is, and takes it back on Ctrl-C, and when the terminal closes: nobody looks any
//! more at what was asked for. Who wants it to go on says nohup.

use super::progress::Show;
use super::{Given, print};
use crate::cluster::cib::Cib;
use crate::cluster::{resource, tool};
use crate::deadline::{Deadline, Task};
use crate::domain::Definition;
use crate::domain::connection::{Connection, Guest};
use crate::domain::ffi::{self, Job};
use crate::domain::migration::preflight::{self, Subject, Verdict};
use crate::log;
use crate::ocf::Asked;
use anyhow::{Context, bail, ensure};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

/// How often Pacemaker is asked.
const LOOK: Duration = Duration::from_secs(1);
/// How often the job is asked for.
const GLANCE: Duration = Duration::from_millis(250);
/// One question.
const QUESTION: Duration = Duration::from_secs(15);
/// How long taking it back may take.
const BACK: Duration = Duration::from_secs(180);
/// How long a change that is not taken is tried again.
const PERSISTENCE: Duration = Duration::from_secs(45);
/// How long a resource that nothing is done with may stay where it is before nothing will be.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args)]
#[command(after_help = "Ctrl-C, SIGTERM and a terminal that closes take it back: the guest is left where it was. With nohup it goes on. \
What Pacemaker does with the guest already is waited for. The code is 0 if the guest runs on the node, 1 if not.\n\nExamples:\n  kvmha migrate web1 node2\n  kvmha migrate web1 node2 --plain --timeout 300 | logger")]
pub(super) struct Arguments {
    /// The resource
    resource: String,
    /// The node it is to be moved to
    node: String,
    /// Print lines instead of a bar
    #[arg(long)]
    plain: bool,
    /// Seconds after which it is taken back
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(10..=86400))]
    timeout: u64,
}

/// 0: it runs on the node. 1: it does not, and the reason is said.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    // Before there is any thread: all of them leave the signal to the one that waits for it.
    let signals = endings(&fs::read_to_string("/proc/self/status").context("/proc/self/status")?);
    signals.thread_block()?;
    let interrupt = Task::start(move || signals.wait().is_ok());
    let Arguments { resource: id, node, plain, timeout } = arguments;
    let deadline = Deadline::after(Duration::from_secs(*timeout));
    let configured = resource::read(id, &deadline.within(QUESTION)).map_err(anyhow::Error::msg)?;
    ensure!(configured.agent.ends_with(":VirtualDomain"), "{id} is of {}, not of a VirtualDomain agent", configured.agent);
    let migrates = configured.meta.get("allow-migrate").is_some_and(|value| value == "true");
    ensure!(migrates, "{id} has not allow-migrate=true: Pacemaker would stop it and start it on {node}");
    release_what_was_left(id)?;
    let Some(seen) = settled(id, &interrupt, &deadline)? else {
        log::complain(&format!("interrupted: nothing was asked for {id}"));
        return Ok(1);
    };
    let [source] = &seen.nodes[..] else { bail!("{id} is active on {} nodes, not on one", seen.nodes.len()) };
    if source == node {
        print(&format!("{id} is on {node}\n"));
        return Ok(0);
    }
    let here = tool::run("crm_node", &["--name"], &deadline.within(QUESTION)).map_err(anyhow::Error::msg)?;
    let given = Given { what: id.clone(), set: Vec::new() };
    let asked = given.asked(node, deadline)?;
    let uri = if here.trim() == source { asked.hypervisor().to_string() } else { asked.remote(source) };
    let source_libvirt = Connection::open(&uri, &deadline.within(QUESTION))?;
    let name = asked.definition().map_err(anyhow::Error::msg)?.identity.name;
    refuse_what_cannot_work(&asked, &source_libvirt, &name, &deadline)?;
    let now = look(id)?;
    ensure!(!now.is_changing() && now.nodes == seen.nodes, "something else is done with {id} now; nothing was asked for");
    let mover = Mover { id, node, name, libvirt: source_libvirt, failures: seen.failed_moves.len(), taken_back: Cell::new(false) };
    let lifetime = format!("PT{timeout}S");
    tool::run("crm_resource", &["--move", "--resource", id, "--node", node, "--lifetime", &lifetime], &deadline.within(QUESTION))
        .map_err(anyhow::Error::msg)?;
    let result = mover.watch(&interrupt, *plain, &deadline);
    let cleared = if mover.taken_back.get() { Ok(()) } else { mover.clear() };
    let ending = result?;
    cleared?;
    match ending {
        Ending::Moved => {
            print(&format!("{id} is on {node}\n"));
            Ok(0)
        }
        Ending::TakenBack => {
            log::complain(&format!("{id} was left on {source}"));
            Ok(1)
        }
        Ending::Failed(reason) => bail!("{id} was not moved: {reason}"),
    }
}

/// The signals that end it: not those that whoever started it had ignored, as nohup does. The kernel gives also these to one who waits for them.
fn endings(status: &str) -> SigSet {
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok()).unwrap_or(0);
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter();
    all.filter(|signal| ignored >> (*signal as i32 - 1) & 1 == 0).collect()
}

fn look(id: &str) -> anyhow::Result<resource::Sight> {
    resource::look(id, &Deadline::after(QUESTION)).map_err(anyhow::Error::msg)
}

/// Waits until Pacemaker does nothing with it: a move that is overruled ends in a restart, or Pacemaker loses sight of the guest. `None`:
/// interrupted.
fn settled(id: &str, interrupt: &Task<bool>, deadline: &Deadline) -> anyhow::Result<Option<resource::Sight>> {
    let (mut told, mut active) = (false, Instant::now());
    loop {
        let seen = look(id)?;
        if seen.is_changing() {
            active = Instant::now();
            if !std::mem::replace(&mut told, true) {
                log::complain(&format!("something else is done with {id}: waiting for its end"));
            }
        // Between the two halves of a move it is on both nodes for Pacemaker.
        } else if seen.nodes.len() == 1 || active.elapsed() > PATIENCE {
            return Ok(Some(seen));
        }
        if interrupt.wait(&Deadline::after(LOOK)).is_some() {
            return Ok(None);
        }
        ensure!(!deadline.expired(), "something else is done with {id} all the time; nothing was asked for");
    }
}

/// A refusal by the agent would be a failed move, which Pacemaker answers with a restart: so it is looked for before.
fn refuse_what_cannot_work(asked: &Asked, libvirt: &Connection, name: &str, deadline: &Deadline) -> anyhow::Result<()> {
    let plan = asked.plan().map_err(anyhow::Error::msg)?;
    let deadline = deadline.within(Duration::from_secs(20));
    let definition = Definition::running(libvirt, name, &deadline)?.with_context(|| format!("{name} does not run"))?;
    let checks = preflight::run(&Subject { identity: &definition.identity, definition: &definition, here: libvirt }, &plan, &deadline);
    for check in checks.iter().filter(|check| check.verdict == Verdict::Warning) {
        log::complain(&format!("warning: {}: {}", check.name, check.text));
    }
    match checks.iter().find(|check| check.verdict == Verdict::Refuse) {
        Some(check) => bail!("{name} cannot be moved to {}: {}: {} ({})", plan.target, check.name, check.text, check.advice),
        None => Ok(()),
    }
}

enum Ending {
    Moved,
    Failed(String),
    TakenBack,
}

struct Mover<'a> {
    id: &'a str,
    node: &'a str,
    name: String,
    libvirt: Connection,
    /// Failed moves that were known before.
    failures: usize,
    /// Whether taking it back was begun: that ends the move's constraint, or says what is left.
    taken_back: Cell<bool>,
}

impl Mover<'_> {
    fn watch(&self, interrupt: &Task<bool>, plain: bool, deadline: &Deadline) -> anyhow::Result<Ending> {
        let show = Show::new(plain, self.id, self.node);
        // When something was last seen being done with it.
        let (mut looked, mut active) = (Instant::now(), Instant::now());
        loop {
            let interrupted = interrupt.wait(&Deadline::after(GLANCE)).is_some();
            if interrupted || deadline.expired() {
                show.clear();
                log::complain(if interrupted { "interrupted: taking it back" } else { "the time is over: taking it back" });
                return self.take_back();
            }
            if let Some(job) = self.job() {
                active = Instant::now();
                show.progress(&job);
            }
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            let seen = look(self.id)?;
            if seen.is_changing() {
                active = Instant::now();
            }
            if seen.nodes == [self.node] && !seen.is_changing() {
                show.clear();
                return Ok(Ending::Moved);
            }
            if seen.failed_moves.len() > self.failures {
                show.clear();
                let reason = seen.failed_moves.into_iter().max_by_key(String::len).unwrap_or_default();
                return Ok(Ending::Failed(reason));
            }
            // Also after it was begun: somebody else may have asked for something else meanwhile.
            if active.elapsed() > PATIENCE {
                show.clear();
                let place = if seen.nodes.is_empty() { "stopped".to_owned() } else { format!("on {}", seen.nodes.join(", ")) };
                return Ok(Ending::Failed(format!("Pacemaker leaves it {place}; crm_simulate --live-check --show-scores tells why")));
            }
        }
    }

    fn guest(&self) -> Option<Guest> {
        self.libvirt.guest(&self.name, &Deadline::after(Duration::from_secs(2))).ok()?
    }

    /// The move's job at the source.
    fn job(&self) -> Option<Job> {
        let question = |domain: &virt::domain::Domain| ffi::job(domain, ffi::Which::Current);
        let job = self.guest()?.call("asking for the job of", &Deadline::after(Duration::from_secs(2)), question).ok()?;
        job.filter(Job::is_outgoing_migration)
    }

    fn clear(&self) -> anyhow::Result<()> {
        crm_resource(self.id, &["--clear", "--node", self.node])
            .with_context(|| format!("its constraint is left: crm_resource --clear --resource {} --node {}", self.id, self.node))
    }

    /// Leaves the guest where it is. Pacemaker answers a move that failed by stopping the guest, so it must not manage it until it has found
    /// out anew where the guest is.
    fn take_back(&self) -> anyhow::Result<Ending> {
        self.taken_back.set(true);
        // Also a command that was not answered may have had its effect.
        self.hold_and_end(&Deadline::after(BACK)).with_context(|| left_unmanaged(self.id))?;
        Ok(if look(self.id)?.nodes == [self.node] { Ending::Moved } else { Ending::TakenBack })
    }

    fn hold_and_end(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let (id, set) = (self.id, set_id(self.id));
        let xml = format!(
            "<primitive id=\"{id}\"><meta_attributes id=\"{set}\" score=\"INFINITY\">\
             <nvpair id=\"{set}-is-managed\" name=\"is-managed\" value=\"false\"/></meta_attributes></primitive>"
        );
        persist(deadline, || cibadmin(&["--modify", "--allow-create", "--scope", "resources", "--xml-text", &xml]))?;
        let ended = self.end_move(deadline);
        // With the constraint in place Pacemaker would begin the move again.
        let cleared = persist(deadline, || self.clear());
        ended.and(cleared)?;
        release(id, deadline)
    }

    /// Calls the move off at the source and waits until it is over for libvirt and for Pacemaker.
    fn end_move(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let over = wait(deadline, || {
            if let (Some(_), Some(guest)) = (self.job(), self.guest()) {
                // It may end by itself at this moment.
                let _ = guest.call("calling off the migration of", &Deadline::after(Duration::from_secs(5)), ffi::abort_job);
            }
            look(self.id).is_ok_and(|seen| !seen.is_changing())
        });
        ensure!(over, "the move of {} does not end", self.id);
        Ok(())
    }
}

/// The set of meta attributes by which this command holds a resource: the operator's own are left alone, and a run that was killed is
/// found by the next.
pub(super) fn set_id(id: &str) -> String {
    format!("{id}-kvmha-migrate")
}

fn left_unmanaged(id: &str) -> String {
    let set = set_id(id);
    format!(
        "{id} is left with is-managed=false, in the meta attributes {set}: Pacemaker does not look after it; when crm_mon shows it where it \
         runs, and there alone, cibadmin --delete --xml-text '<meta_attributes id=\"{set}\"/>', or kvmha migrate once more"
    )
}

fn crm_resource(id: &str, words: &[&str]) -> anyhow::Result<()> {
    let mut all = vec!["--resource", id];
    all.extend(words);
    tool::run("crm_resource", &all, &Deadline::after(QUESTION)).map(drop).map_err(anyhow::Error::msg)
}

fn cibadmin(words: &[&str]) -> anyhow::Result<()> {
    tool::run("cibadmin", words, &Deadline::after(QUESTION)).map(drop).map_err(anyhow::Error::msg)
}

/// Tries it again for a while: an election may be under way.
fn persist(deadline: &Deadline, mut act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let deadline = deadline.within(PERSISTENCE);
    loop {
        match act() {
            Err(error) if !deadline.pause(Duration::from_millis(500)) => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
    }
}

/// Gives the resource back to Pacemaker when it has found the guest in one place.
fn release(id: &str, deadline: &Deadline) -> anyhow::Result<()> {
    // Of a move that failed Pacemaker believes that the guest is on both nodes, and watches it on both; so what it knows is thrown away
    // until it is right. Without --force that of all members of its group would be.
    let settled = (0..BACK.as_secs() / 10).any(|_| {
        let _ = crm_resource(id, &["--refresh", "--force"]);
        wait(&deadline.within(Duration::from_secs(10)), || is_settled(id))
    });
    ensure!(settled, "Pacemaker does not find {id} in one place, see crm_mon");
    let set = set_id(id);
    // A time of its own: it must not be left for want of it.
    persist(&Deadline::after(PERSISTENCE), || {
        cibadmin(&["--delete", "--xml-text", &format!("<meta_attributes id=\"{set}\"/>")])?;
        ensure!(!Cib::query(&Deadline::after(QUESTION))?.has(&set), "the meta attributes {set} were not deleted");
        Ok(())
    })
}

/// Pacemaker sees the guest in one place, two looks in a row: the second when its own monitors have had their say.
fn is_settled(id: &str) -> bool {
    let once = || look(id).is_ok_and(|seen| seen.pending.is_none() && seen.nodes.len() == 1 && seen.failures == 0);
    once() && Deadline::after(BACK).pause(Duration::from_secs(2)) && once()
}

/// Ends the hold of a run that was killed while it took a move back.
fn release_what_was_left(id: &str) -> anyhow::Result<()> {
    let deadline = Deadline::after(BACK);
    if !Cib::query(&deadline.within(QUESTION))?.has(&set_id(id)) {
        return Ok(());
    }
    log::complain(&format!("an earlier run has left {id} with is-managed=false: giving it back to Pacemaker"));
    let over = wait(&deadline, || look(id).is_ok_and(|seen| !seen.is_changing()));
    ensure!(over, "{}; something is still being done with it", left_unmanaged(id));
    release(id, &deadline).with_context(|| left_unmanaged(id))
}

/// Whether `done` says yes before the deadline.
fn wait(deadline: &Deadline, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if !deadline.pause(Duration::from_millis(500)) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_ignored_before_does_not_end_it() {
        let ends = |status, signal| endings(status).contains(signal);
        assert!(ends("SigIgn:\t0000000000000000\n", Signal::SIGHUP));
        assert!(!ends("SigBlk:\t0000000000000001\nSigIgn:\t0000000000000001\n", Signal::SIGHUP));
        assert!(ends("SigIgn:\t0000000000000001\n", Signal::SIGTERM) && ends("", Signal::SIGINT));
        assert!(!ends("SigIgn:\t0000000000000002\n", Signal::SIGINT));
    }

    #[test]
    fn what_is_left_is_said_with_the_command_that_ends_it() {
        let text = left_unmanaged("web1");
        assert!(text.contains("cibadmin --delete --xml-text '<meta_attributes id=\"web1-kvmha-migrate\"/>'"), "{text}");
    }

    #[test]
    fn what_is_not_taken_is_tried_again() {
        let mut times = 0;
        let act = || {
            times += 1;
            ensure!(times == 2, "not yet");
            Ok(())
        };
        assert!(persist(&Deadline::after(Duration::from_secs(60)), act).is_ok());
        assert!(persist(&Deadline::after(Duration::ZERO), || bail!("never")).is_err());
    }
}
