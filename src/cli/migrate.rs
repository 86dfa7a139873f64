//! `kvmha migrate`: has Pacemaker move a guest, shows how far it is, and takes it back on Ctrl-C, and when the terminal closes: nobody looks any
//! more at what was asked for. Who wants it to go on says nohup.
//!
//! A move that Pacemaker has begun must not lose its constraint before it is known how it ended: the guest is then on two nodes, where its
//! stickiness does not count (`apply_stickiness` in Pacemaker's `lib/pacemaker/pcmk_sched_resource.c`), and if another place is better by then, it is
//! stopped on both and started there (`pcmk_sched_primitive.c`: "Forcing recovery ... can no longer migrate"). So [`watch`] says how it ended, and
//! where it cannot, [`hold`] takes it back.

mod hold;
mod watch;

use super::interruption::endings;
use super::{Given, print};
use crate::cluster::cib::Cib;
use crate::cluster::foresight::Move;
use crate::cluster::own_name;
use crate::cluster::resource;
use crate::cluster::tool::{self, Trouble};
use crate::cluster::view::View;
use crate::deadline::{Deadline, Task, now};
use crate::domain::Definition;
use crate::domain::connection::Connection;
use crate::domain::migration::preflight::{self, Subject, Verdict};
use crate::log;
use crate::ocf::Asked;
use anyhow::{Context, bail, ensure};
use clap::Args;
use std::time::Duration;
use watch::{Ending, Mover};

pub(super) use hold::set_id;

/// How often Pacemaker is asked.
const LOOK: Duration = Duration::from_secs(1);
/// One question.
const QUESTION: Duration = Duration::from_secs(15);
/// All that is asked of the scheduler.
const FORESIGHT: Duration = Duration::from_secs(30);
/// How long a change that is not taken, or a question that is not answered, is tried again.
const PERSISTENCE: Duration = Duration::from_secs(45);
/// How long a resource that nothing is done with may stay where it is, with Pacemaker at rest, before nothing will be.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args)]
#[command(after_help = "Ctrl-C, SIGTERM and a terminal that closes take it back: the guest is left where it was. With nohup it goes on. \
It is run on the node on which the guest is. What Pacemaker does with the guest already is waited for, and a move \
that would cost a restart, of this guest or of another resource, is not asked for. The code is 0 if the guest runs on the node, 1 if not.\n\nExamples:\n  kvmha migrate web1 node2\n  kvmha migrate web1 node2 --plain --timeout 300 | logger")]
pub(super) struct Arguments {
    /// The resource
    resource: String,
    /// The node it is to be moved to
    node: String,
    /// Print lines instead of a bar, as is done without a terminal
    #[arg(long)]
    plain: bool,
    /// Seconds after which it is taken back
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(10..=86400))]
    timeout: u64,
}

/// 0: it runs on the node. 1: it does not, and the reason is said.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    // Before there is any thread: all of them leave the signal to the one that waits for it.
    let signals = endings()?;
    signals.thread_block()?;
    let interrupt = Task::start(move || signals.wait().is_ok());
    let Arguments { resource: id, node, plain, timeout } = arguments;
    let deadline = Deadline::after(Duration::from_secs(*timeout));
    let cib = Cib::query(&deadline.within(QUESTION))?;
    let configured = cib.resource(id).with_context(|| format!("there is no resource {id}"))?;
    ensure!(configured.agent.ends_with(":VirtualDomain"), "{id} is of {}, not of a VirtualDomain agent", configured.agent);
    let view = View::query(&deadline.within(QUESTION))?;
    let node = view.spelled(node).with_context(|| format!("there is no node {node}"))?;
    ensure!(cib.is_movable(id), "{id} has not allow-migrate=true: Pacemaker would stop it and start it on {node}");
    hold::release_what_was_left(id)?;
    let Some(seen) = settled(id, &interrupt, &deadline)? else { return Ok(nothing_asked(id)) };
    let [source] = &seen.nodes[..] else { bail!("{id} is active on {} nodes, not on one", seen.nodes.len()) };
    if source == node {
        print(&format!("{id} is on {node}\n"));
        return Ok(0);
    }
    let here = own_name(&deadline.within(QUESTION))?;
    ensure!(here == *source, "{id} is on {source}: run it there, where alone its storage and its network can be looked at");
    let given = Given { what: id.clone(), set: Vec::new() };
    let asked = given.asked(node, deadline)?;
    let libvirt = Connection::open(&asked.hypervisor().to_string(), &deadline.within(QUESTION))?;
    let name = asked.definition().map_err(anyhow::Error::msg)?.identity.name;
    refuse_what_cannot_work(&asked, &libvirt, &name, &deadline)?;
    refuse_what_costs_a_restart(&Move { id, source, target: node }, &deadline)?;
    let now = look(id)?;
    ensure!(!now.is_changing() && now.nodes == seen.nodes, "something else is done with {id} now; nothing was asked for");
    if interrupt.wait(&Deadline::after(Duration::ZERO)).is_some() {
        return Ok(nothing_asked(id));
    }
    let mover = Mover { id, node, name, libvirt, failures: now.failed_moves };
    let ending = match mover.ask(*timeout) {
        Ok(()) => mover.watch(&interrupt, *plain, &deadline),
        Err(trouble @ Trouble::Missing(_)) => return Err(trouble.into()),
        // What was not answered may have been carried out all the same, and is then under way.
        Err(trouble) => Ending::Unknown(trouble.to_string()),
    };
    match ending {
        Ending::Moved => {
            mover.clear()?;
            print(&format!("{id} is on {node}\n"));
            Ok(0)
        }
        Ending::Failed(reason) => {
            mover.clear()?;
            bail!("{id} was not moved: {reason}")
        }
        Ending::Unknown(reason) => {
            log::complain(&format!("{reason}: taking it back"));
            let nodes = hold::take_back(&mover)?;
            match &nodes[..] {
                [place] if place == node => {
                    print(&format!("{id} is on {node}\n"));
                    return Ok(0);
                }
                [place] => log::complain(&format!("{id} was left on {place}")),
                _ => log::complain(&format!("{id} has ended meanwhile: Pacemaker starts it")),
            }
            Ok(1)
        }
    }
}

fn nothing_asked(id: &str) -> u8 {
    log::complain(&format!("interrupted: nothing was asked for {id}"));
    1
}

fn look(id: &str) -> anyhow::Result<resource::Placement> {
    resource::look(id, &Deadline::after(QUESTION)).map_err(anyhow::Error::msg)
}

fn crm_resource(id: &str, words: &[&str]) -> anyhow::Result<()> {
    let mut all = vec!["--resource", id];
    all.extend(words);
    tool::run("crm_resource", &all, &Deadline::after(QUESTION)).map(drop).map_err(anyhow::Error::msg)
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

/// Waits until Pacemaker does nothing with it: a move that is overruled ends in a restart, or Pacemaker loses sight of the guest. `None`:
/// interrupted.
fn settled(id: &str, interrupt: &Task<bool>, deadline: &Deadline) -> anyhow::Result<Option<resource::Placement>> {
    let (mut told, mut active) = (false, now());
    loop {
        let seen = look(id)?;
        if seen.is_changing() {
            active = now();
            if !std::mem::replace(&mut told, true) {
                log::complain(&format!("something else is done with {id}: waiting for its end"));
            }
        // Between the two halves of a move it is on both nodes for Pacemaker.
        } else if seen.nodes.len() == 1 || now() - active > PATIENCE {
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

/// A move that Pacemaker would answer with a stop, or take back itself, is not asked for.
fn refuse_what_costs_a_restart(wanted: &Move, deadline: &Deadline) -> anyhow::Result<()> {
    let Move { id, target, .. } = *wanted;
    let deadline = deadline.within(FORESIGHT);
    let foreseen = Cib::query(&deadline).and_then(|cib| wanted.foresee(&cib, &deadline));
    let foreseen = foreseen.with_context(|| format!("what Pacemaker would do with {id} cannot be foreseen, and nothing was asked for"))?;
    if let Some(objection) = foreseen.objection {
        bail!("{id} was not moved to {target}: {} ({})", objection.text, objection.advice);
    }
    if !foreseen.along.is_empty() {
        log::complain(&format!("warning: Pacemaker moves {} too", foreseen.along.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
