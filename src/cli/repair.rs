//! `kvmha repair`: the safe clean-up of what `kvmha where` finds on this node. It says what it would do, and does it only when it is told to.
//!
//! Right before each step everything is looked at anew, and the step has to follow from it once more. The last running copy is never
//! touched: a copy is ended only if it stands still and another one is seen to run, also while this one cannot begin to.

mod advice;

use super::interruption::Interruption;
use super::outlook::{self, Then};
use super::overview::OURS;
use super::probe::{self, Find};
use super::whereabouts::{Place, Whereabouts};
use super::{Given, print};
use crate::cluster::cib::Cib;
use crate::cluster::view::{self, Failure, View};
use crate::cluster::{resource, tool};
use crate::deadline::Deadline;
use crate::domain::emulator::are_held;
use crate::domain::holding::{self, Holding};
use crate::domain::record::Record;
use crate::domain::{Connection, evidence};
use crate::log;
use advice::{Outlook, advice};
use anyhow::{Context, bail, ensure};
use clap::Args;
use std::fmt;
use std::time::Duration;

/// One question to Pacemaker or libvirt.
const QUESTION: Duration = Duration::from_secs(15);
/// For an emulator to be gone: libvirt tries SIGTERM for 10 s, in vain for one that is held.
const ENDING: Duration = Duration::from_secs(60);
/// For Pacemaker to look for the guest on all nodes.
const LOOKING: Duration = Duration::from_secs(120);
/// For a start, which may wait for the locks that a lost node has left.
const STARTING: Duration = Duration::from_secs(300);

#[derive(Args)]
#[command(after_help = "The code is 0 if nothing has to be done or all of it was, 1 if something is left.\n\nExamples:\n  \
        kvmha repair web1          # only say what would be done\n  \
kvmha repair web1 --yes")]
pub(super) struct Arguments {
    #[command(flatten)]
    given: Given,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// What can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A copy here stands still while the guest runs elsewhere.
    EndCopy { guest: String, state: String, other: String },
    /// The state file of a guest that is proven not to be here.
    ForgetRecord { guest: String },
    /// A mark of a move that is over: the guest runs here, and nowhere else.
    ForgetMove { guest: String },
    /// Pacemaker keeps a failure of a guest that runs here, and nowhere else.
    Refresh { resource: String, reason: String },
    /// Pacemaker keeps a failure of a guest that is nowhere, and may leave it alone for that.
    Cleanup { resource: String, reason: String, then: Then },
    /// Pacemaker would restart the guest at the next change of a parameter, since it did not expect to find it.
    ForgetFind(Find),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndCopy { guest, state, other } => {
                write!(f, "end the copy of {guest} on this node, which stands still ({state}): the guest runs on {other}")
            }
            Self::ForgetRecord { guest } => write!(f, "remove the state file of {guest}: nothing of it is on this node"),
            Self::ForgetMove { guest } => {
                write!(f, "forget that a move of {guest} was begun: it is over, the guest runs on this node alone")
            }
            Self::Refresh { resource, reason } => {
                write!(f, "have Pacemaker forget the failure of {resource} and look for it anew: it runs on this node alone ({reason})")
            }
            Self::Cleanup { resource, reason, then } => {
                write!(f, "have Pacemaker forget the failure of {resource}, which runs nowhere: ")?;
                match then {
                    Then::Starts(node) => write!(f, "it then starts it on {node} ({reason})"),
                    Then::Stays(Some(why)) => write!(f, "it then stays stopped, for {why} ({reason})"),
                    Then::Stays(None) => write!(
                        f,
                        "it then stays stopped, for a reason that Pacemaker's scores show afterwards: crm_simulate --live-check \
                        --show-scores ({reason})"
                    ),
                }
            }
            Self::ForgetFind(Find { resource, .. }) => {
                write!(
                    f,
                    "have Pacemaker forget that it did not expect to find {resource}: the next change of a parameter would restart it"
                )
            }
        }
    }
}

/// 0: nothing has to be done, or all was. 1: something is left.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    // A copy that is held and not ended would stand still for good, whoever tells it to run.
    let interrupted = arguments.yes.then(Interruption::watch).transpose()?;
    let found = Whereabouts::take(&arguments.given, &[])?;
    let outlook = Outlook::take(&found);
    let steps = plan(&found, &outlook);
    let advice = advice(&found, &outlook);
    for (number, step) in steps.iter().enumerate() {
        print(&format!("{}. {step}\n", number + 1));
    }
    for text in &advice {
        print(&format!("by hand: {text}\n"));
    }
    if steps.is_empty() {
        if advice.is_empty() {
            print(&format!("There is nothing to repair of {} on this node.\n", found.guest));
        }
        return Ok(u8::from(!advice.is_empty()));
    }
    if !arguments.yes {
        print("Nothing was done: --yes does it.\n");
        return Ok(1);
    }
    for step in &steps {
        let now = Whereabouts::take(&arguments.given, &[])?;
        ensure!(
            plan(&now, &Outlook::take(&now)).contains(step),
            "things have changed, nothing more was done: \"{step}\" is not to be done any more"
        );
        is_quiet(&now)?;
        ensure!(!interrupted.as_ref().is_some_and(Interruption::came), "interrupted, nothing more was done: \"{step}\"");
        carry_out(step, &now).with_context(|| step.to_string())?;
        print(&format!("done: {step}\n"));
    }
    Ok(u8::from(!advice.is_empty()))
}

/// What follows from what was found.
fn plan(found: &Whereabouts, outlook: &Outlook) -> Vec<Step> {
    let Some(here) = found.here().filter(|_| found.pending.is_none()) else { return Vec::new() };
    let guest = found.guest.clone();
    let mut steps = Vec::new();
    if let Some(other) = other_that_runs(found, here) {
        let state = here.state.clone().unwrap_or_default();
        steps.push(Step::EndCopy { guest: guest.clone(), state, other: other.node.clone() });
    }
    if let Some(record) = &here.record {
        // A move that nobody saw the end of is remembered until the other host has said something.
        let settled = record.moving.is_none() || !found.is_unsure();
        if here.copy == Some(false) && here.trouble.is_none() && settled {
            steps.push(Step::ForgetRecord { guest: guest.clone() });
        }
        if record.moving.is_some() && is_alone(found, here) {
            steps.push(Step::ForgetMove { guest });
        }
    }
    if let Some(id) = &found.resource {
        let reasons = failures(found).map(|failure| format!("{}: {}", failure.key, failure.reason));
        let reason = reasons.collect::<Vec<_>>().join("; ");
        if has_to_be_refreshed(found, here) && outlook.refresh.is_none() {
            steps.push(Step::Refresh { resource: id.clone(), reason });
        } else if let Some(then) = outlook.then.clone().filter(|_| has_to_be_cleaned(found)) {
            steps.push(Step::Cleanup { resource: id.clone(), reason, then });
        }
        steps.extend(find(found, here).filter(|_| !has_failed(found)).map(Step::ForgetFind));
    }
    steps
}

fn failures(found: &Whereabouts) -> impl Iterator<Item = &Failure> {
    let all = found.view.iter().flat_map(|view| &view.failures);
    all.filter(|failure| found.resource.as_ref().is_some_and(|id| failure.is_of(id)))
}

fn has_failed(found: &Whereabouts) -> bool {
    let placed = found.view.as_ref().zip(found.resource.as_ref()).and_then(|(view, id)| view.resource(id));
    failures(found).next().is_some() || placed.is_some_and(|placed| placed.failed)
}

/// Whether Pacemaker keeps a failure of a guest that runs here and nowhere else. As long as it is drawn elsewhere Pacemaker would move it again
/// at once.
fn has_to_be_refreshed(found: &Whereabouts, here: &Place) -> bool {
    has_failed(found) && found.pending.is_none() && is_alone(found, here) && found.constraints.is_empty()
}

/// Whether Pacemaker keeps a failure of a guest that is nowhere.
fn has_to_be_cleaned(found: &Whereabouts) -> bool {
    has_failed(found) && found.pending.is_none() && is_nowhere(found) && agent(found) == Some(OURS)
}

/// Whether every node was asked, and has nothing of the guest. Of other nodes only their libvirts were, which does where nothing speaks against their
/// word: the agent's own probe, which has to be where the failure was before Pacemaker starts anything, looks for its processes too.
fn is_nowhere(found: &Whereabouts) -> bool {
    let is_absent = |place: &Place| {
        let asked = place.trouble.is_none() || place.off.is_some();
        place.copy == Some(false) && asked && place.emulators.is_empty() && place.unproven.is_empty()
    };
    !found.is_unsure() && found.places.iter().all(is_absent)
}

/// The agent that Pacemaker calls for it.
fn agent(found: &Whereabouts) -> Option<&str> {
    let (view, id) = (found.view.as_ref()?, found.resource.as_ref()?);
    view.resource(id).map(|placed| placed.agent.as_str())
}

/// What Pacemaker has to forget, where it knows the guest to be: only where this agent, which can reload, was asked. What other nodes have
/// does not matter for it.
fn find(found: &Whereabouts, here: &Place) -> Option<Find> {
    let (view, cib, id) = (found.view.as_ref()?, found.cib.as_ref()?, found.resource.as_ref()?);
    let placed = view.resource(id)?;
    let set = probe::set_id(id);
    let left = cib.has(&set).then(|| Find { resource: id.clone(), node: here.node.clone(), set: set.clone() });
    let kept = Find::kept(cib, id, &here.node, set).filter(|_| placed.agent == OURS);
    let well = here.runs && placed.managed && !placed.failed && placed.nodes == [here.node.clone()] && found.copies().len() == 1;
    // What an interrupted run has left is taken away wherever the guest is.
    kept.filter(|_| well).or(left)
}

/// The one node on which the guest runs, if the copy here stands still and neither waits for anything of the other.
fn other_that_runs<'a>(found: &'a Whereabouts, here: &Place) -> Option<&'a Place> {
    let still = here.copy == Some(true)
        && here.state.is_some()
        && here.trouble.is_none()
        && !here.runs
        && !here.postcopy
        // libvirt waits in vain for one that is held, and that is what it is busy with.
        && (here.busy != Some(true) || here.held);
    let mut others = found.copies().into_iter().filter(|place| !place.here);
    let other = others.next().filter(|_| still && others.next().is_none())?;
    let sees = |view: &View| {
        let placed = found.resource.as_ref().and_then(|id| view.resource(id));
        // What Pacemaker believes to be here it would miss.
        placed.is_none_or(|placed| placed.nodes.contains(&other.node) || !placed.nodes.contains(&here.node))
    };
    (other.runs && !other.postcopy && other.busy == Some(false) && found.view.as_ref().is_none_or(sees)).then_some(other)
}

/// Whether the guest runs on this node, and on no other as far as their libvirts know: nothing is started because of that.
fn is_alone(found: &Whereabouts, here: &Place) -> bool {
    here.runs && !here.postcopy && here.busy == Some(false) && !found.is_unanswered() && found.copies().len() == 1
}

/// Pacemaker carries nothing out: an action of its own may be about to change what was seen.
fn is_quiet(found: &Whereabouts) -> anyhow::Result<()> {
    let Some(view) = &found.view else { return Ok(()) };
    ensure!(found.pending.is_none(), "Pacemaker is at work with it");
    if let Some(controller) = &view.controller {
        ensure!(view::is_idle(controller, &Deadline::after(QUESTION))?, "Pacemaker is at work");
    }
    Ok(())
}

fn carry_out(step: &Step, found: &Whereabouts) -> anyhow::Result<()> {
    match step {
        Step::EndCopy { other, .. } => end_copy(found, other),
        Step::ForgetRecord { .. } => {
            found.asked.take_marks(&Deadline::after(QUESTION));
            found.asked.shelf().remove();
            ensure!(found.asked.record().is_none(), "it is still there");
            Ok(())
        }
        Step::ForgetMove { .. } => {
            let record = found.asked.record().context("it is gone")?;
            found.asked.shelf().write(&Record { moving: None, ..record });
            ensure!(found.asked.record().is_some_and(|record| record.moving.is_none()), "it was not written");
            Ok(())
        }
        Step::Refresh { resource, .. } => refresh(resource, found).and_then(|node| forget_find(resource, node)),
        Step::Cleanup { resource, then, .. } => clean_up(resource, then, found),
        Step::ForgetFind(find) => probe::forget(find),
    }
}

/// Holding first, and then both are looked at for the last time: what is held cannot begin to run, whoever tells it to, so a copy that is
/// seen to stand still now is ended without having run. What becomes of the other one after that look takes nothing away: the copy here was
/// the older one already.
fn end_copy(found: &Whereabouts, other: &str) -> anyhow::Result<()> {
    let (name, identity) = (&found.guest, found.identity());
    let place = found.places.iter().find(|place| place.node == *other).context("it is not known")?;
    let uri = place.uri.clone().context("it cannot be asked")?;
    let here = found.asked.hypervisor().to_string();
    let deadline = Deadline::after(ENDING);
    let emulators = evidence::find(&identity, None, &deadline)?;
    ensure!(!emulators.is_empty(), "there is no emulator of {name} on this node");
    // One that was held before must not go on because this has looked at it.
    let held_before = are_held(&emulators);
    for emulator in &emulators {
        emulator.hold(name)?;
    }
    let release = || {
        for emulator in emulators.iter().filter(|_| !held_before) {
            if let Err(error) = emulator.release(name) {
                log::complain(&error.text);
            }
        }
    };
    let questions = [here.clone(), uri].map(|uri| (uri, vec![identity.clone()]));
    let answers = holding::everywhere(questions.into(), &deadline.within(QUESTION));
    let mut answers = answers.into_iter().map(|answer| answer.ok()?.pop()?.ok()?);
    let (copy, original) = (answers.next().flatten(), answers.next().flatten());
    let still = |Holding { condition, busy, .. }: Holding| {
        condition.is_active() && !condition.is_postcopy() && (held_before || !condition.runs() && busy != Some(true))
    };
    let wrong = if !copy.is_some_and(still) {
        Some(format!("the copy of {name} on this node was not seen to stand still any more"))
    } else if !original.is_some_and(|held| held.condition.runs() && held.busy == Some(false)) {
        Some(format!("{name} was not seen to run on {other} any more"))
    } else {
        None
    };
    if let Some(text) = wrong {
        release();
        bail!("{text}, and the copy here was left as it was");
    }
    let ended = Connection::open(&here, &deadline).and_then(|connection| {
        let Some(guest) = connection.guest(name, &deadline)? else { return Ok(()) };
        guest.call("ending", &deadline, |domain| Ok(domain.destroy()?))
    });
    if let Err(error) = ended {
        release();
        return Err(error.into());
    }
    for emulator in &emulators {
        emulator.wait_gone(name, &deadline)?;
    }
    Ok(())
}

/// Not `--cleanup`: that deletes what is known of this node only, and of a guest that once came by a move Pacemaker then believes that the
/// move was never finished, and restarts it ("Forcing recovery ... because it can no longer migrate", Pacemaker 2.1.5).
///
/// Where it was found.
fn refresh<'a>(id: &str, found: &'a Whereabouts) -> anyhow::Result<&'a str> {
    let here = &found.here().context("this node is not known")?.node;
    tool::run("crm_resource", &["--refresh", "--force", "--resource", id], &Deadline::after(LOOKING))?;
    let deadline = Deadline::after(LOOKING);
    loop {
        let seen = resource::look(id, &deadline.within(QUESTION));
        if seen.is_ok_and(|seen| seen.pending.is_none() && seen.nodes == [here.clone()] && seen.failures == 0) {
            return Ok(here);
        }
        ensure!(deadline.pause(Duration::from_millis(500)), "Pacemaker does not find {id} on {here}, see crm_mon");
    }
}

/// Has Pacemaker forget the failures of a guest that is nowhere, and waits for what it then does with it.
fn clean_up(id: &str, then: &Then, found: &Whereabouts) -> anyhow::Result<()> {
    let before: Vec<&Failure> = failures(found).collect();
    tool::run("crm_resource", &outlook::cleanup_words(id), &Deadline::after(LOOKING))?;
    let deadline = Deadline::after(STARTING);
    loop {
        let view = View::query(&deadline.within(QUESTION))?;
        let left: Vec<&Failure> = view.failures.iter().filter(|failure| failure.is_of(id)).collect();
        if let Some(again) = left.iter().find(|failure| !before.contains(failure)) {
            bail!("it has failed again: {} on {}: {}", again.key, again.node, again.reason);
        }
        let started = view.resource(id).is_some_and(|placed| {
            let rests = placed.pending.as_deref().is_none_or(view::is_look);
            rests && (!placed.nodes.is_empty() || matches!(then, Then::Stays(_)))
        });
        if left.is_empty() && started {
            return Ok(());
        }
        ensure!(deadline.pause(Duration::from_millis(500)), "Pacemaker has not started {id} yet, see crm_mon");
    }
}

/// What a refresh leaves where the guest was found. While Pacemaker does not manage the guest it forgets nothing: that is for a later run.
fn forget_find(id: &str, node: &str) -> anyhow::Result<()> {
    let (view, cib) = (View::query(&Deadline::after(QUESTION))?, Cib::query(&Deadline::after(QUESTION))?);
    let forgets = view.resource(id).is_some_and(|placed| placed.managed && placed.agent == OURS);
    match Find::kept(&cib, id, node, probe::set_id(id)).filter(|_| forgets) {
        Some(find) => {
            probe::forget(&find).context("the failure is forgotten, but the next change of a parameter restarts the guest; run this again")
        }
        None => Ok(()),
    }
}
