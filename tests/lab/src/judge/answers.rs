//! Whether what was answered was true, and in time: an emulator that lives says more than any answer.
//!
//! An action's begin and end are known when the log is read, which is later than they were. So an emulator that was seen after the end was
//! there after it, and what is said to have been there before the beginning is asked for a second more ([`BEFORE`]). What was seen since the log
//! was read for the last time may be younger than an answer that is found in it now.

use super::reasons::faults_near;
use super::{NEAR, SEEN_LATE, Verdict, Violation, verdict};
use crate::history::{Action, Boot, Emulator, FaultKind, History, Operation, Outcome, Request};

/// So long before an action is said to begin it may have begun.
const BEFORE: f64 = 1.0;
/// The last look of an action is at most so long before its end is known.
const LAST_LOOK: f64 = 1.5;
/// A recurring monitor is not announced: it began at most so long before its end, its timeout.
const MONITOR: f64 = 30.0;

/// Of all actions.
pub fn answers(history: &History, verdicts: &mut Vec<Verdict>) {
    for action in &history.actions {
        // Another agent's answers are its own.
        if faults_near(history, &action.guest, action.begin, action.end)
            .any(|fault| fault.kind == FaultKind::OtherAgent && fault.subject == action.guest)
        {
            continue;
        }
        let Action { guest, node, name, begin, end, .. } = action;
        let what = format!("{name} of {guest} on {node}");
        if action.outcome == Outcome::Late {
            verdicts.push(verdict(Violation::LateAction, *end, format!("{what}: {}", action.text)));
        }
        if action.outcome != Outcome::Done {
            continue;
        }
        let mut wrong = |violation, emulator: &Emulator, how: &str| {
            let text = format!("{what} {how} while process {} lived on {}", emulator.process, emulator.node);
            verdicts.push(verdict(violation, *end, text));
        };
        // Those that were alive after the end.
        let alive = |emulator: &&Emulator| emulator.guest == *guest && emulator.last > *end;
        let here = history.emulators.iter().filter(alive).filter(|one| one.node == *node);
        let mut elsewhere = history.emulators.iter().filter(alive).filter(|one| one.node != *node);
        match name.as_str() {
            // Whatever became of what an action before it had begun.
            "stop" => {
                let begin = begin.min(action.unanswered).max(action.unanswered - LAST_LOOK);
                here.filter(|one| one.first < begin).for_each(|one| wrong(Violation::FalseStopped, one, "was done"));
            }
            _ if action.says_absent() => {
                let begin = if begin == end { end - MONITOR } else { begin - BEFORE };
                here.filter(|one| one.first < begin).for_each(|one| wrong(Violation::FalseStopped, one, "said that it is not there"));
            }
            "start" => {
                // One that has found the guest here has started nothing.
                let launched = history
                    .emulators
                    .iter()
                    .any(|one| one.guest == *guest && one.node == *node && (*begin..=end + BEFORE).contains(&one.first));
                if let Some(other) = elsewhere.find(|one| launched && one.first < begin - BEFORE) {
                    wrong(Violation::DoubleRun, other, "was done");
                }
            }
            // What libvirt could not end is left to the stop that follows; it must not outlive that.
            "migrate_to" => here
                .filter(|one| one.first < begin - BEFORE && one.last > end + NEAR && !ended_by_a_stop(history, one, *end))
                .for_each(|one| wrong(Violation::DoubleRun, one, "was done")),
            _ => {}
        }
    }
}

/// Whether a stop was called on a process after a moment, and it did not live on after that.
fn ended_by_a_stop(history: &History, emulator: &Emulator, after: f64) -> bool {
    history.actions.iter().any(|action| {
        action.name == "stop"
            && action.guest == emulator.guest
            && action.node == emulator.node
            && (after..=emulator.last + BEFORE).contains(&action.begin)
            && emulator.last <= action.end
    })
}

/// Whether what was said to be off was.
pub fn offs(history: &History, verdicts: &mut Vec<Verdict>) {
    for fencing in &history.fencings {
        let Some(done) = fencing.done else { continue };
        for emulator in history.emulators.iter().filter(|one| one.node == fencing.node && one.first < fencing.asked && one.last > done) {
            let text = format!("{} was off while process {} of {} lived", fencing.node, emulator.process, emulator.guest);
            verdicts.push(verdict(Violation::FalseOff, done, text));
        }
    }
    for operation in history.operations.iter().filter(|operation| operation.request == Request::Off && operation.ok) {
        for guest in history.guests.iter().filter(|guest| guest.name == operation.subject) {
            verdicts.extend(false_off(history, operation, &guest.boots).map(|text| verdict(Violation::FalseOff, operation.end, text)));
        }
    }
}

/// A process that lived all the time, whether it wrote or stood still; or a boot that went on, in whatever process.
fn false_off(history: &History, operation: &Operation, boots: &[Boot]) -> Option<String> {
    let guest = &operation.subject;
    let process = history.emulators.iter().find(|one| one.guest == *guest && one.first < operation.begin && one.last > operation.end);
    if let Some(one) = process {
        return Some(format!("{guest} was off while process {} lived on {}", one.process, one.node));
    }
    let lives = |boot: &&Boot| boot.first < operation.begin - SEEN_LATE && boot.last > operation.end + SEEN_LATE;
    boots.iter().find(lives).map(|boot| format!("{guest} was off and wrote on until {:.1} s", boot.last))
}
