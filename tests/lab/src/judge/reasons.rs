//! Why a guest may have ended, an action may have failed and a node may have been fenced: a request, or a fault that was there at the time.

use super::{AFTERMATH, FENCING, NEAR, QUEUE, SEEN_LATE};
use crate::history::{Action, Boot, Fault, FaultKind, Fencing, Guest, History, Operation, Outcome, Request, Rest};

pub fn during(at: f64, begin: f64, end: f64) -> bool {
    (begin - NEAR..=end + NEAR).contains(&at)
}

/// A time in which a guest is said to have been ended, on a node if that is known.
struct Ending<'a> {
    node: Option<&'a str>,
    begin: f64,
    end: f64,
}

/// Whether the old boot ended in this time: by its last record, or by its emulator's end. What stood still before, at the end of a move, frozen, or
/// paused by its storage, wrote its last record earlier.
fn ended_in(history: &History, guest: &Guest, (before, after): (Boot, Boot), ending: &Ending) -> bool {
    let name = &guest.name;
    let here = |node: &str| ending.node.is_none_or(|known| known == node);
    let wrote = during(before.last, ending.begin, ending.end) && ending.node.is_none_or(|node| was_on(history, name, node, before.last));
    wrote
        || history.emulators.iter().any(|one| {
            one.guest == *name
                && here(&one.node)
                && one.first <= before.last
                && one.last <= after.first
                && during(one.last, ending.begin, ending.end)
        })
}

pub fn ended_for_a_reason(history: &History, guest: &Guest, before: Boot, after: Boot) -> bool {
    let name = &guest.name;
    let ended = |node: Option<&str>, begin: f64, end: f64| ended_in(history, guest, (before, after), &Ending { node, begin, end });
    let killed = history.faults.iter().any(|fault| match fault.kind {
        FaultKind::EmulatorKilled => fault.subject == *name && ended(None, fault.begin, fault.end),
        FaultKind::PowerCut => ended(Some(&fault.subject), fault.begin, fault.end),
        _ => false,
    });
    let fenced = history.fencings.iter().any(|one| ended(Some(&one.node), one.asked, over(history, one)));
    let off = requests(history, name, Request::Off).any(|operation| ended(None, operation.begin, operation.end));
    if killed || fenced || off {
        return true;
    }
    // Of a guest that moves, what is left at the source is stopped too.
    let stopped = |action: &&Action| action.guest == *name && action.name == "stop" && ended(Some(&action.node), action.begin, action.end);
    history.actions.iter().filter(stopped).any(|action| {
        let stop = Stop { history, guest: name, action, since: look_back(history, Some(name), action.begin, QUEUE) };
        stop.was_requested(Request::Stop)
            || stop.follows_a_failure()
            || stop.dropped_a_move()
            || stop.follows_a_cleanup()
            || stop.is_of_a_wrong_clock()
            || stop.is_of_a_change()
            || stop.is_of_a_quorum()
    })
}

/// A stop of a guest whose reason is looked for.
struct Stop<'a> {
    history: &'a History,
    guest: &'a str,
    action: &'a Action,
    /// From when on something may be its reason.
    since: f64,
}

impl Stop<'_> {
    fn was_requested(&self, request: Request) -> bool {
        requests(self.history, self.guest, request).any(|one| (self.since..=self.action.begin + NEAR).contains(&one.begin))
    }

    /// "Not running" is a failure of a recurring monitor.
    fn follows_a_failure(&self) -> bool {
        self.history.actions.iter().any(|action| {
            action.guest == *self.guest
                && (action.outcome != Outcome::Done || action.name == "monitor" && action.says_absent())
                && (self.since..=self.action.end + NEAR).contains(&action.end)
                && has_cause(self.history, action)
        })
    }

    /// Called in the middle of a move that went well so far: something else was asked for meanwhile, and Pacemaker drops a move whose target is not
    /// the best any more. Nobody had failed.
    fn dropped_a_move(&self) -> bool {
        let Self { history, guest, action: stop, .. } = *self;
        let went_on = |action: &Action| {
            let mut next = history.actions.iter().filter(|next| next.guest == *guest && next.name == "migrate_from");
            next.any(|next| next.begin >= action.begin && next.begin <= stop.end)
        };
        history.actions.iter().any(|action| {
            action.guest == *guest
                && action.name == "migrate_to"
                && action.outcome == Outcome::Done
                && (stop.begin - NEAR..=stop.begin + NEAR).contains(&action.end)
                && !went_on(action)
        })
    }

    fn cleanups(&self) -> impl Iterator<Item = &Operation> {
        let cleaned = |one: &&Operation| one.request == Request::Forget && (one.subject.is_empty() || one.subject == *self.guest);
        self.history.operations.iter().filter(cleaned)
    }

    /// A move that is long over and of which the target's history was forgotten is one under way for Pacemaker (2.1.5): it restarts the guest,
    /// "because it can no longer migrate".
    fn follows_a_cleanup(&self) -> bool {
        self.cleanups().any(|one| (one.begin..=one.end + 2.0 * NEAR).contains(&self.action.begin))
    }

    /// From a cleanup on a start may look older than an earlier move, by a clock that was wrong.
    fn is_of_a_wrong_clock(&self) -> bool {
        let (begin, since) = (self.action.begin, self.since);
        self.cleanups().any(|one| (since..=begin).contains(&one.begin))
            && self.history.faults.iter().any(|one| one.kind == FaultKind::ClockJump && one.begin <= begin && one.end >= since)
    }

    /// Of a guest that was found by a probe, after a cleanup, Pacemaker may not know which parameters need no restart: "due to resource definition
    /// change" (2.1.5, where the node has not started the agent since it booted).
    fn is_of_a_change(&self) -> bool {
        let Self { history, guest, action: stop, .. } = *self;
        let is_known = |action: &&Action| action.guest == *guest && action.node == stop.node && action.end <= stop.begin;
        let mut known = history.actions.iter().filter(is_known);
        let probed =
            known.rfind(|action| !["monitor", "reload-agent"].contains(&action.name.as_str())).is_some_and(|last| last.name == "probe");
        (probed || other_agents(history, guest, stop)) && self.was_requested(Request::Change)
    }

    fn is_of_a_quorum(&self) -> bool {
        faults_near(self.history, self.guest, self.action.begin, self.action.end).any(|fault| match fault.kind {
            FaultKind::NoQuorum => true,
            // Alone, a node has no quorum, and stops what it runs.
            FaultKind::NetworkCut | FaultKind::NetworkOneWay | FaultKind::CorosyncFrozen | FaultKind::NodeLost => {
                fault.subject == self.action.node
            }
            _ => false,
        })
    }
}

/// The time from which on something may explain what happened to a guest, or to a node, at a moment: so long before, but when the cluster had come
/// to rest meanwhile, nothing that was before that is under way any more. What was asked in a moment of rest, or a monitor had begun, may come a
/// little later.
fn look_back(history: &History, guest: Option<&str>, at: f64, time: f64) -> f64 {
    let rested = |rest: &&Rest| rest.at <= at - NEAR && guest.is_none_or(|guest| rest.but_for.iter().all(|name| name != guest));
    history.rests.iter().filter(rested).fold(at - time, |since, rest| since.max(rest.at))
}

/// Whether a guest that is stopped was last started, or taken over from another node, by another agent: that one cannot reload a parameter, and
/// after it, Pacemaker may not know that ours can.
fn other_agents(history: &History, guest: &str, stop: &Action) -> bool {
    let others = history.faults.iter().filter(|one| one.kind == FaultKind::OtherAgent && one.subject == guest && one.begin <= stop.begin);
    let Some(last) = others.max_by(|a, b| a.begin.total_cmp(&b.begin)) else { return false };
    let began = |one: &Action| one.guest == guest && ["start", "migrate_from"].contains(&one.name.as_str());
    !history.actions.iter().any(|one| began(one) && one.outcome == Outcome::Done && one.begin > last.end && one.end <= stop.begin)
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

/// Faults that may explain what a guest met in a time.
pub fn faults_near<'a>(history: &'a History, guest: &str, begin: f64, end: f64) -> impl Iterator<Item = &'a Fault> {
    let since = look_back(history, Some(guest), begin, AFTERMATH);
    history.faults.iter().filter(move |fault| fault.begin <= end && fault.end >= since)
}

/// Whether a fault was there that the failure of an action may come from: the guest's own, its node's, or everybody's.
fn has_cause(history: &History, action: &Action) -> bool {
    let since = look_back(history, Some(&action.guest), action.begin, AFTERMATH);
    let concerns = |node: &str| action.node == node || action.name.starts_with("migrate") && is_other_end(history, action, node);
    // What the guest was made to do by somebody else, too: it is not there any more.
    requests(history, &action.guest, Request::Off).any(|one| one.begin <= action.end && one.end >= since)
        || faults_near(history, &action.guest, action.begin, action.end).any(|fault| match fault.kind {
            // Neither is a reason for the agent to fail.
            FaultKind::FenceFails | FaultKind::FenceLies | FaultKind::ClockJump => false,
            kind if does_without(&action.name, kind) => false,
            // It hangs and fails under those that have something on it, and under nobody else.
            FaultKind::StorageFrozen | FaultKind::StorageFull if !is_on_failing_storage(history, &action.guest) => false,
            FaultKind::EmulatorKilled
            | FaultKind::EmulatorFrozen
            | FaultKind::AgentKilled
            | FaultKind::ConfigGone
            | FaultKind::OtherAgent => fault.subject == action.guest,
            _ => fault.subject.is_empty() || concerns(&fault.subject),
        })
        || action.name.starts_with("migrate")
            && history.fencings.iter().any(|one| concerns(&one.node) && one.asked <= action.end && one.asked >= since)
}

/// Whether an action is promised to do its work without what a fault takes away (docs/failures.md): what is known of a guest that was started, and
/// its emulator's process, are enough. A libvirtd that hangs in the middle of a stop, or while a probe cannot tell, leaves the outcome open.
fn does_without(action: &str, fault: FaultKind) -> bool {
    match fault {
        FaultKind::DaemonKilled | FaultKind::ConfigGone => ["monitor", "probe", "stop"].contains(&action),
        FaultKind::DaemonFrozen => action == "monitor",
        _ => false,
    }
}

fn is_on_failing_storage(history: &History, guest: &str) -> bool {
    history.guests.iter().any(|one| one.name == guest && one.on_failing_storage)
}

/// Whether a node may be the other end of a move. The log does not name it: where the guest came to is known, and if it came nowhere it may have
/// been any.
fn is_other_end(history: &History, action: &Action, node: &str) -> bool {
    let mut ends = history.emulators.iter().filter(|one| {
        one.guest == action.guest && one.node != action.node && one.first <= action.end + SEEN_LATE && one.last >= action.begin - SEEN_LATE
    });
    ends.clone().next().is_none() || ends.any(|one| one.node == node)
}

/// When a fencing is over. One that was refused or not answered Pacemaker gives up, and when the cluster has come to rest nothing of it is under
/// way.
fn over(history: &History, fencing: &Fencing) -> f64 {
    let rests = || history.rests.iter().map(|rest| rest.at).filter(|at| *at > fencing.asked);
    let given_up = || rests().fold(fencing.asked + FENCING, f64::min);
    fencing.done.unwrap_or_else(given_up)
}

/// A node may be fenced if it could not be reached, or if a stop on it failed for a reason.
pub fn explains_fencing(history: &History, fencing: &Fencing) -> bool {
    let since = look_back(history, None, fencing.asked, QUEUE);
    // Or Corosync has missed it, which on a busy machine needs no fault: what the software under test says comes after that.
    let lost = history.faults.iter().any(|fault| {
        matches!(
            fault.kind,
            FaultKind::PowerCut | FaultKind::NetworkCut | FaultKind::NetworkOneWay | FaultKind::CorosyncFrozen | FaultKind::NodeLost
        ) && fault.subject == fencing.node
            && fault.begin <= fencing.asked
            && fault.end >= since
    });
    // Asked again, because the first time was not answered or the device failed.
    let again = history
        .fencings
        .iter()
        .any(|earlier| earlier.node == fencing.node && earlier.asked < fencing.asked && over(history, earlier) > fencing.asked - AFTERMATH);
    let stop = history.actions.iter().any(|action| {
        action.node == fencing.node
            && action.name == "stop"
            && action.outcome != Outcome::Done
            && (look_back(history, Some(&action.guest), fencing.asked, QUEUE)..=fencing.asked + NEAR).contains(&action.end)
            && has_cause(history, action)
    });
    lost || again || stop
}

/// Pacemaker starts a guest no more where a start of it has failed, nor one whose stop has: the failure needs a cause.
pub fn stays_down_for_a_reason(history: &History, guest: &str, at: f64) -> bool {
    let since = look_back(history, Some(guest), at, QUEUE);
    let failed = history.actions.iter().any(|action| {
        action.guest == guest && action.outcome != Outcome::Done && (since..=at).contains(&action.end) && has_cause(history, action)
    });
    failed || is_to_stop(history, guest, at)
}

/// Whether the last that was asked for is that a guest does not run, or it could not be asked for.
pub fn is_to_stop(history: &History, guest: &str, at: f64) -> bool {
    let asked = history.operations.iter().filter(|one| one.subject == guest && one.begin <= at);
    let last = asked.filter(|one| matches!(one.request, Request::Stop | Request::Start)).max_by(|a, b| a.begin.total_cmp(&b.begin));
    last.is_some_and(|one| one.request == Request::Stop || !one.ok)
}
