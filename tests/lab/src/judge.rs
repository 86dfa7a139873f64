//! Says what was wrong in a [`History`]: it knows nothing else, neither what was planned nor how the software works.
//!
//! Pacemaker stops and starts a guest whose action has failed, and fences a node on which a stop has. So a guest that booted anew, and a node
//! that was fenced, need an explanation: a request, or a fault that was there at the time.

use crate::history::{Boot, Down, Guest, History};
use crate::promise::BROKEN;
use answers::{answers, offs};
use reasons::{during, ended_for_a_reason, explains_fencing, stays_down_for_a_reason};
use serde::Serialize;
use silence::{is_silent_for_a_reason, stays_paused};
use std::fmt;

mod answers;
mod reasons;
mod silence;

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
    /// A guest does not run, or does not write, when it is to.
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
/// What a stop has ended wrote its last record while the stop was under way, give or take this.
const NEAR: f64 = 4.0;
/// Pacemaker carries out what it was asked for, and answers a failed action, within this time: other transitions come first.
const QUEUE: f64 = 120.0;
/// A fault explains what begins so long after it: daemons take their time to come back.
const AFTERMATH: f64 = 30.0;
/// Pacemaker waits so long for a fence device's answer (`stonith-timeout`, its default).
const FENCING: f64 = 60.0;

/// All that was wrong, in the order of the time.
#[must_use]
pub fn judge(history: &History) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for guest in &history.guests {
        records(history, guest, &mut verdicts);
        restarts(history, guest, &mut verdicts);
    }
    let explained = |down: &&Down| match &down.silent {
        None => stays_down_for_a_reason(history, &down.guest, down.at),
        Some(how) => is_silent_for_a_reason(history, &down.guest, down.at, how),
    };
    for down in history.down.iter().filter(|down| !explained(down)) {
        verdicts.push(verdict(Violation::LeftDown, down.at, format!("{down}, with the cluster at rest")));
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
fn records(history: &History, guest: &Guest, verdicts: &mut Vec<Verdict>) {
    let name = &guest.name;
    let end = guest.boots.last().map_or(0.0, |boot| boot.last);
    if let Some((at, why)) = &guest.two_writers {
        verdicts.push(verdict(Violation::DoubleRun, *at, format!("{name}: {why}")));
    }
    if guest.lost > 0 {
        verdicts.push(verdict(Violation::LostWrite, end, format!("{name}: {} records are missing", guest.lost)));
    }
    if guest.wanted && !guest.beats && !guest.panics.iter().any(|panic| *panic >= end - NEAR) && !stays_paused(history, guest, end + NEAR) {
        verdicts.push(verdict(Violation::LeftDown, end, format!("{name} is to run and does not")));
    }
}

/// Whether an emulator of the guest was made between the first records of two boots: one to boot it in, or one that waited for its memory.
fn made_between(history: &History, guest: &Guest, before: Boot, after: Boot, incoming: bool) -> bool {
    let mut emulators = history.emulators.iter().filter(|emulator| emulator.guest == guest.name && emulator.incoming == incoming);
    emulators.any(|emulator| emulator.first > before.first && emulator.first <= after.first)
}

/// Whether a boot was its own kernel's doing: QEMU's emulation of a CPU, unlike KVM, loses a write now and then while the memory is sent. What that
/// hits may be what the kernel would say it with: then it is reset, without a word, in an emulator that was made for the boot before.
fn broke(history: &History, guest: &Guest, before: Boot, after: Boot) -> bool {
    let reset = !made_between(history, guest, before, after, false) && made_between(history, guest, before, after, true);
    reset || guest.panics.iter().any(|panic| (before.last - NEAR..=after.first + NEAR).contains(panic))
}

/// How many boots were a guest's own kernel's doing.
#[must_use]
pub fn broken_kernels(history: &History) -> usize {
    let broken = |guest: &Guest| guest.boots.windows(2).filter(|pair| broke(history, guest, pair[0], pair[1])).count();
    history.guests.iter().map(broken).sum()
}

/// Every boot but the first needs a reason why the one before ended.
fn restarts(history: &History, guest: &Guest, verdicts: &mut Vec<Verdict>) {
    for (place, pair) in guest.boots.windows(2).enumerate() {
        let (before, after) = (pair[0], pair[1]);
        // One that is back took turns with another: two writers, which is said already.
        if guest.boots[..=place].iter().any(|boot| boot.id == after.id) {
            continue;
        }
        let inside = !made_between(history, guest, before, after, false);
        if broke(history, guest, before, after) || !inside && ended_for_a_reason(history, guest, before, after) {
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

#[cfg(test)]
mod tests;
