//! Says what was wrong in a [`History`]: it knows nothing else, neither what was planned nor how the software works.
//!
//! Pacemaker stops and starts a guest whose action has failed, and fences a node on which a stop has. So a guest that booted anew, and a node
//! that was fenced, need an explanation: a request, or a fault that was there at the time.

use crate::history::{Action, Boot, Fault, FaultKind, Fencing, Guest, History, Operation, Outcome, Request};
use crate::promise::BROKEN;
use serde::Serialize;
use std::fmt;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Violation {
    /// Two writers on one disk.
    DoubleRun,
    /// A record that was acknowledged is not there.
    LostWrite,
    /// A guest that was moved booted anew.
    MemoryLost,
    /// Said to be stopped while its emulator lived.
    FalseStopped,
    /// Said to be off while it lived.
    FalseOff,
    /// An action that Pacemaker's timeout had to end.
    LateAction,
    /// A guest booted anew, and nothing explains it.
    NeedlessRestart,
    /// A node was fenced, and nothing explains it.
    NeedlessFencing,
    /// A guest does not run at the end.
    LeftDown,
    /// Something is there at the end that must not be.
    LeftBehind,
}

impl Violation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DoubleRun,
        Self::LostWrite,
        Self::MemoryLost,
        Self::FalseStopped,
        Self::FalseOff,
        Self::LateAction,
        Self::NeedlessRestart,
        Self::NeedlessFencing,
        Self::LeftDown,
        Self::LeftBehind,
    ];
}

/// One thing that was wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What.
    pub violation: Violation,
    /// When, as far as that can be said.
    pub at: f64,
    /// In words.
    pub text: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BROKEN}: at {:.1} s: {:?}: {}", self.at, self.violation, self.text)
    }
}

/// How far a record may be seen after it was written, on a busy machine.
const SEEN_LATE: f64 = 3.0;
/// How long after an emulator's start the last record of the one before may be seen.
const BORN_LATE: f64 = 1.0;
/// What a stop has ended wrote its last record while the stop was under way, give or take this.
const NEAR: f64 = 4.0;
/// Pacemaker carries out what it was asked for, and answers a failed action, within this time: other transitions come first.
const QUEUE: f64 = 120.0;
/// A fault explains what begins so long after it: daemons take their time to come back.
const AFTERMATH: f64 = 30.0;

/// All that was wrong, in the order of the time.
#[must_use]
pub fn judge(history: &History) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for guest in &history.guests {
        records(guest, &mut verdicts);
        restarts(history, guest, &mut verdicts);
    }
    answers(history, &mut verdicts);
    offs(history, &mut verdicts);
    for fencing in history.fencings.iter().filter(|fencing| !explains_fencing(history, fencing)) {
        verdicts.push(verdict(Violation::NeedlessFencing, fencing.asked, format!("{} was fenced", fencing.node)));
    }
    verdicts.extend(history.left.iter().map(|text| verdict(Violation::LeftBehind, f64::INFINITY, text.clone())));
    verdicts.sort_by(|a, b| a.at.total_cmp(&b.at));
    verdicts
}

fn verdict(violation: Violation, at: f64, text: String) -> Verdict {
    Verdict { violation, at, text }
}

/// What the guest's own records say.
fn records(guest: &Guest, verdicts: &mut Vec<Verdict>) {
    let name = &guest.name;
    let end = guest.boots.last().map_or(0.0, |boot| boot.last);
    if let Some((at, why)) = &guest.two_writers {
        verdicts.push(verdict(Violation::DoubleRun, *at, format!("{name}: {why}")));
    }
    if guest.lost > 0 {
        verdicts.push(verdict(Violation::LostWrite, end, format!("{name}: {} records are missing", guest.lost)));
    }
    if guest.wanted && !guest.beats && !guest.panics.iter().any(|panic| *panic >= end - NEAR) {
        verdicts.push(verdict(Violation::LeftDown, end, format!("{name} is to run and does not")));
    }
}

/// Every boot but the first needs a reason why the one before ended.
fn restarts(history: &History, guest: &Guest, verdicts: &mut Vec<Verdict>) {
    for (place, pair) in guest.boots.windows(2).enumerate() {
        let (before, after) = (pair[0], pair[1]);
        // One that is back took turns with another: two writers, which is said already.
        if guest.boots[..=place].iter().any(|boot| boot.id == after.id) {
            continue;
        }
        // One that was there before the old boot's last record was not made for the new one.
        let inside = history
            .emulators
            .iter()
            .any(|emulator| emulator.guest == guest.name && emulator.first <= before.last - BORN_LATE && emulator.last >= after.first);
        // Its own kernel's doing: QEMU's emulation of a CPU, unlike KVM, loses a write now and then while the memory is sent.
        let panicked = guest.panics.iter().any(|panic| (before.last - NEAR..=after.first + NEAR).contains(panic));
        if panicked || !inside && ended_for_a_reason(history, guest, before, after) {
            continue;
        }
        let moved = history
            .actions
            .iter()
            .any(|action| action.guest == guest.name && action.name == "migrate_to" && during(before.last, action.begin, action.end));
        let violation = if moved { Violation::MemoryLost } else { Violation::NeedlessRestart };
        let how = if inside { ", in an emulator that was there before: reset from inside, or by its emulator" } else { "" };
        verdicts.push(verdict(violation, before.last, format!("{} booted anew at {:.1} s{how}", guest.name, after.first)));
    }
}

fn during(at: f64, begin: f64, end: f64) -> bool {
    (begin - NEAR..=end + NEAR).contains(&at)
}

fn ended_for_a_reason(history: &History, guest: &Guest, before: Boot, after: Boot) -> bool {
    let end = before.last;
    let name = &guest.name;
    let killed = history.faults.iter().any(|fault| match fault.kind {
        FaultKind::EmulatorKilled => fault.subject == *name && during(end, fault.begin, fault.end),
        FaultKind::PowerCut => was_on(history, name, &fault.subject, end) && during(end, fault.begin, fault.end),
        FaultKind::OtherAgent => fault.subject == *name && fault.begin <= after.first && end <= fault.end + AFTERMATH,
        _ => false,
    });
    // What stood still before, at the end of a move or frozen, wrote its last record earlier: then its emulator's end tells.
    let fenced = history.fencings.iter().any(|fencing| {
        let time = fencing.asked - NEAR..=fencing.done.unwrap_or(f64::INFINITY) + NEAR;
        let ended = history.emulators.iter().any(|one| {
            one.guest == *name && one.node == fencing.node && one.first <= end && time.contains(&one.last) && one.last <= after.first
        });
        ended || was_on(history, name, &fencing.node, end) && time.contains(&end)
    });
    let off = requests(history, name, Request::Off).any(|operation| during(end, operation.begin, operation.end));
    if killed || fenced || off {
        return true;
    }
    let mut stops = history
        .actions
        .iter()
        .filter(|action| action.guest == *name && action.name == "stop" && during(end, action.begin, action.end))
        // Of a guest that moves, what is left at the source is stopped too.
        .filter(|action| was_on(history, name, &action.node, end));
    stops.any(|stop| {
        let asked =
            requests(history, name, Request::Stop).any(|operation| (stop.begin - QUEUE..=stop.begin + NEAR).contains(&operation.begin));
        let failed = history.actions.iter().any(|action| {
            action.guest == *name
                && action.outcome != Outcome::Done
                && (stop.begin - QUEUE..=stop.end + NEAR).contains(&action.end)
                && has_cause(history, action)
        });
        // Called in the middle of a move that went well so far: something else was asked for meanwhile, and Pacemaker drops a move whose
        // target is not the best any more. Nobody had failed.
        let dropped = history.actions.iter().any(|action| {
            action.guest == *name
                && action.name == "migrate_to"
                && action.outcome == Outcome::Done
                && (stop.begin - NEAR..=stop.begin + NEAR).contains(&action.end)
                && !history
                    .actions
                    .iter()
                    .any(|next| next.guest == *name && next.name == "migrate_from" && next.begin >= action.begin && next.begin <= stop.end)
        });
        // A move that is long over and of which the target's history was forgotten is one under way for Pacemaker (2.1.5): it restarts the guest,
        // "because it can no longer migrate".
        let forgotten = history.operations.iter().any(|operation| {
            operation.request == Request::Forget
                && (operation.subject.is_empty() || operation.subject == *name)
                && (operation.begin..=operation.end + 2.0 * NEAR).contains(&stop.begin)
        });
        // Of a guest that was found by a probe, after a cleanup, Pacemaker may not know which parameters need no restart: "due to resource
        // definition change" (2.1.5, where the node has not started the agent since it booted).
        let mut known =
            history.actions.iter().filter(|action| action.guest == *name && action.node == stop.node && action.end <= stop.begin);
        let probed =
            known.rfind(|action| !["monitor", "reload-agent"].contains(&action.name.as_str())).is_some_and(|last| last.name == "probe");
        let changed = probed
            && requests(history, name, Request::Change)
                .any(|operation| (stop.begin - QUEUE..=stop.begin + NEAR).contains(&operation.begin));
        let quorum = faults_near(history, stop.begin, stop.end).any(|fault| match fault.kind {
            FaultKind::NoQuorum => true,
            // Alone, a node has no quorum, and stops what it runs.
            FaultKind::NetworkCut | FaultKind::NetworkOneWay | FaultKind::CorosyncFrozen | FaultKind::NodeLost => {
                fault.subject == stop.node
            }
            _ => false,
        });
        asked || failed || dropped || forgotten || changed || quorum
    })
}

/// Whether an emulator of the guest was on the node shortly before a moment.
fn was_on(history: &History, guest: &str, node: &str, at: f64) -> bool {
    history.emulators.iter().any(|emulator| {
        emulator.guest == guest && emulator.node == node && emulator.first <= at + SEEN_LATE && emulator.last >= at - 2.0 * NEAR
    })
}

fn requests<'a>(history: &'a History, guest: &'a str, request: Request) -> impl Iterator<Item = &'a Operation> {
    history.operations.iter().filter(move |operation| operation.request == request && operation.subject == guest)
}

fn faults_near(history: &History, begin: f64, end: f64) -> impl Iterator<Item = &Fault> {
    history.faults.iter().filter(move |fault| fault.begin <= end && fault.end >= begin - AFTERMATH)
}

/// Whether a fault was there that the failure of an action may come from. A move has two nodes, and its target is not named.
fn has_cause(history: &History, action: &Action) -> bool {
    let move_ = action.name.starts_with("migrate");
    // What the guest was made to do by somebody else, too: it is not there any more.
    let ended = requests(history, &action.guest, Request::Off).any(|one| one.begin <= action.end && one.end >= action.begin - AFTERMATH);
    ended
        || faults_near(history, action.begin, action.end).any(|fault| match fault.kind {
            // Neither is a reason for the agent to fail.
            FaultKind::FenceFails | FaultKind::ClockJump => false,
            _ => move_ || fault.subject.is_empty() || fault.subject == action.guest || fault.subject == action.node,
        })
        || move_ && history.fencings.iter().any(|one| one.asked <= action.end && one.asked >= action.begin - AFTERMATH)
}

/// Whether what the actions answered was true, and in time.
fn answers(history: &History, verdicts: &mut Vec<Verdict>) {
    for action in &history.actions {
        let Action { guest, node, name, begin, end, .. } = action;
        if action.outcome == Outcome::Late {
            verdicts.push(verdict(Violation::LateAction, *end, format!("{name} of {guest} on {node}: {}", action.text)));
        }
        let foreign = faults_near(history, *begin, *end).any(|fault| fault.kind == FaultKind::OtherAgent && fault.subject == *guest);
        if name != "stop" || action.outcome != Outcome::Done || foreign {
            continue;
        }
        for emulator in &history.emulators {
            let same = emulator.guest == *guest && emulator.node == *node;
            if same && emulator.first < *begin && emulator.last > *end {
                let text = format!("stop of {guest} on {node} was done while process {} lived", emulator.process);
                verdicts.push(verdict(Violation::FalseStopped, *end, text));
            }
        }
    }
}

/// Whether what was said to be off was.
fn offs(history: &History, verdicts: &mut Vec<Verdict>) {
    for fencing in &history.fencings {
        let Some(done) = fencing.done else { continue };
        for emulator in history.emulators.iter().filter(|one| one.node == fencing.node && one.first < fencing.asked && one.last > done) {
            let text = format!("{} was off while process {} of {} lived", fencing.node, emulator.process, emulator.guest);
            verdicts.push(verdict(Violation::FalseOff, done, text));
        }
    }
    for operation in history.operations.iter().filter(|operation| operation.request == Request::Off && operation.ok) {
        for guest in history.guests.iter().filter(|guest| guest.name == operation.subject) {
            let lives = |boot: &&Boot| boot.first < operation.begin - SEEN_LATE && boot.last > operation.end + SEEN_LATE;
            if let Some(boot) = guest.boots.iter().find(lives) {
                let text = format!("{} was off and wrote on until {:.1} s", guest.name, boot.last);
                verdicts.push(verdict(Violation::FalseOff, operation.end, text));
            }
        }
    }
}

/// A node may be fenced if it could not be reached, or if a stop on it failed for a reason.
fn explains_fencing(history: &History, fencing: &Fencing) -> bool {
    let lost = history.faults.iter().any(|fault| {
        matches!(fault.kind, FaultKind::PowerCut | FaultKind::NetworkCut | FaultKind::NetworkOneWay | FaultKind::CorosyncFrozen)
            && fault.subject == fencing.node
            && (fault.begin..=fault.end + QUEUE).contains(&fencing.asked)
    });
    // Corosync has missed it, which on a busy machine needs no fault: what the software under test says comes after that.
    let missed = history.faults.iter().any(|fault| {
        fault.kind == FaultKind::NodeLost && fault.subject == fencing.node && (fault.begin..=fault.end + QUEUE).contains(&fencing.asked)
    });
    // Asked again, because the first time was not answered or the device failed.
    let again = history.fencings.iter().any(|earlier| {
        earlier.node == fencing.node && earlier.asked < fencing.asked && earlier.done.is_none_or(|done| done > fencing.asked - AFTERMATH)
    });
    let stop = history.actions.iter().any(|action| {
        action.node == fencing.node
            && action.name == "stop"
            && action.outcome != Outcome::Done
            && (action.end - NEAR..=action.end + QUEUE).contains(&fencing.asked)
            && has_cause(history, action)
    });
    lost || missed || again || stop
}

#[cfg(test)]
mod tests;
