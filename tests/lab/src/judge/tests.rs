//! Histories that hold each violation, and their like without it.

use super::*;
use crate::history::{Action, Boot, Down, Emulator, Fault, FaultKind, Fencing, Operation, Outcome, Request, Rest};

mod answers;
mod fencings;
mod moves;
mod silence;

fn boot(id: u64, first: f64, last: f64) -> Boot {
    Boot { id, first, last }
}

fn emulator(node: &str, process: &str, first: f64, last: f64) -> Emulator {
    Emulator { guest: "vm1".to_owned(), node: node.to_owned(), process: process.to_owned(), incoming: false, first, last }
}

fn action(name: &str, node: &str, begin: f64, end: f64, outcome: Outcome) -> Action {
    let (guest, text) = ("vm1".to_owned(), String::new());
    Action { guest, node: node.to_owned(), name: name.to_owned(), begin, end, unanswered: end - 0.2, outcome, text }
}

fn fault(kind: FaultKind, subject: &str, begin: f64, end: f64) -> Fault {
    Fault { kind, subject: subject.to_owned(), begin, end }
}

fn request(request: Request, begin: f64, end: f64) -> Operation {
    Operation { request, subject: "vm1".to_owned(), text: String::new(), begin, end, ok: true }
}

/// vm1 ran from 0 to 200 s on node1, in one boot.
fn quiet() -> History {
    let boots = vec![boot(1, 0.0, 200.0)];
    let guest = Guest { name: "vm1".to_owned(), boots, two_writers: None, wanted: true, beats: true, ..Guest::default() };
    History { guests: vec![guest], emulators: vec![emulator("node1", "1", 0.0, 200.0)], ..History::default() }
}

/// Like [`quiet`], but it was started anew, on node2, at 100 s.
fn restarted() -> History {
    let mut history = quiet();
    history.guests[0].boots = vec![boot(1, 0.0, 95.0), boot(2, 100.0, 200.0)];
    history.emulators = vec![emulator("node1", "1", 0.0, 95.0), emulator("node2", "2", 98.0, 200.0)];
    history
}

fn violations(history: &History) -> Vec<Violation> {
    judge(history).iter().map(|verdict| verdict.violation).collect()
}

/// An action that says that the guest is not there.
fn absent(name: &str, node: &str, begin: f64, end: f64) -> Action {
    Action { text: "not running".to_owned(), ..action(name, node, begin, end, Outcome::Done) }
}

#[test]
fn nothing_is_wrong_in_a_quiet_history() {
    assert_eq!(violations(&quiet()), []);
}

#[test]
fn what_the_records_say() {
    let mut history = quiet();
    history.guests[0].two_writers = Some((10.0, "beat 7 was overwritten".to_owned()));
    history.guests[0].lost = 1;
    history.guests[0].beats = false;
    history.left.push("a constraint".to_owned());
    assert_eq!(violations(&history), [Violation::DoubleRun, Violation::LostWrite, Violation::LeftDown, Violation::LeftBehind]);
    history.guests[0].wanted = false;
    assert_eq!(violations(&history), [Violation::DoubleRun, Violation::LostWrite, Violation::LeftBehind]);
}

#[test]
fn a_restart_needs_a_reason() {
    assert_eq!(violations(&restarted()), [Violation::NeedlessRestart]);
    let stopped = |change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
        change(&mut history);
        violations(&history)
    };
    // Pacemaker stopped it, and nobody wanted that.
    assert_eq!(stopped(&|_| {}), [Violation::NeedlessRestart]);
    assert_eq!(stopped(&|history| history.operations.push(request(Request::Stop, 91.0, 91.2))), []);
    assert_eq!(stopped(&|history| history.operations.push(request(Request::Harmless, 91.0, 91.2))), [Violation::NeedlessRestart]);
    assert_eq!(stopped(&|history| history.operations.push(request(Request::Forget, 91.0, 91.2))), []);
    assert_eq!(stopped(&|history| history.operations.push(request(Request::Forget, 71.0, 71.2))), [Violation::NeedlessRestart]);
    // A parameter that changes is no reason, but where Pacemaker knows the guest from a probe.
    let changed = |last: &'static str| {
        stopped(&|history| {
            history.actions.insert(0, action(last, "node1", 60.0, 60.5, Outcome::Done));
            history.operations.push(request(Request::Change, 91.0, 91.2));
        })
    };
    assert_eq!(changed("start"), [Violation::NeedlessRestart]);
    assert_eq!(changed("probe"), []);
    assert_eq!(stopped(&|history| history.faults.push(fault(FaultKind::NetworkCut, "node1", 88.0, 90.0))), []);
    assert_eq!(stopped(&|history| history.faults.push(fault(FaultKind::NetworkCut, "node2", 88.0, 90.0))), [Violation::NeedlessRestart]);
    // It failed before, with a cause or without.
    let failed = |history: &mut History| history.actions.push(action("monitor", "node1", 90.0, 91.0, Outcome::Failed));
    assert_eq!(stopped(&failed), [Violation::NeedlessRestart]);
    let caused = |kind, subject: &'static str| {
        stopped(&|history| {
            failed(history);
            history.faults.push(fault(kind, subject, 80.0, 90.5));
        })
    };
    assert_eq!(caused(FaultKind::EmulatorFrozen, "vm1"), []);
    assert_eq!(caused(FaultKind::EmulatorFrozen, "vm2"), [Violation::NeedlessRestart]);
    assert_eq!(caused(FaultKind::NetworkOneWay, "node1"), []);
    assert_eq!(caused(FaultKind::FenceFails, ""), [Violation::NeedlessRestart]);
    assert_eq!(caused(FaultKind::FenceLies, ""), [Violation::NeedlessRestart]);
    assert_eq!(caused(FaultKind::ClockJump, "node1"), [Violation::NeedlessRestart]);
}

/// A guest that runs is seen, and ended, without libvirt and without its definition.
#[test]
fn what_an_action_does_without_explains_no_failure() {
    let failed = |name: &str, kind, subject: &str| {
        let mut history = restarted();
        history.actions.push(action(name, "node1", 90.0, 91.0, Outcome::Failed));
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
        history.faults.push(fault(kind, subject, 80.0, 90.5));
        violations(&history)
    };
    let needless = [Violation::NeedlessRestart];
    for (kind, subject) in [(FaultKind::DaemonKilled, "node1"), (FaultKind::DaemonFrozen, "node1"), (FaultKind::ConfigGone, "vm1")] {
        assert_eq!(failed("monitor", kind, subject), needless, "{kind:?}");
        assert_eq!(failed("start", kind, subject), [], "{kind:?}");
        assert_eq!(failed("migrate_to", kind, subject), [], "{kind:?}");
    }
    assert_eq!(failed("probe", FaultKind::DaemonKilled, "node1"), needless);
    assert_eq!(failed("probe", FaultKind::ConfigGone, "vm1"), needless);
    // It may be that it cannot tell: what was asked of that libvirtd is still to come.
    assert_eq!(failed("probe", FaultKind::DaemonFrozen, "node1"), []);
}

/// The storage that hangs and fails is not everybody's.
#[test]
fn storage_strikes_who_is_on_it() {
    let failed = |name: &str, kind, subject: &str, on_it: bool| {
        let mut history = restarted();
        history.guests[0].on_failing_storage = on_it;
        history.actions.push(action(name, "node1", 90.0, 91.0, Outcome::Failed));
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
        history.faults.push(fault(kind, subject, 80.0, 90.5));
        violations(&history)
    };
    for (kind, subject) in [(FaultKind::StorageFull, ""), (FaultKind::StorageFrozen, "node1")] {
        for name in ["monitor", "start"] {
            assert_eq!(failed(name, kind, subject, true), []);
            assert_eq!(failed(name, kind, subject, false), [Violation::NeedlessRestart]);
        }
    }
    assert_eq!(failed("monitor", FaultKind::StorageFrozen, "node2", true), [Violation::NeedlessRestart]);
}

#[test]
fn what_ends_a_guest_at_once() {
    let ended = |change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        change(&mut history);
        violations(&history)
    };
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::EmulatorKilled, "vm1", 95.0, 95.1))), []);
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::EmulatorKilled, "vm1", 60.0, 60.1))), [Violation::NeedlessRestart]);
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::PowerCut, "node1", 95.0, 95.1))), []);
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::PowerCut, "node3", 95.0, 95.1))), [Violation::NeedlessRestart]);
    assert_eq!(ended(&|history| history.operations.push(request(Request::Off, 94.0, 96.0))), []);
    // A daemon that is down is no reason.
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::DaemonKilled, "node1", 90.0, 96.0))), [Violation::NeedlessRestart]);
}

/// A guest that stood still for ten seconds before its node was fenced has written nothing in them.
#[test]
fn what_stood_still_is_fenced_too() {
    let fenced = |asked: f64| {
        let mut history = restarted();
        history.guests[0].boots[0].last = 85.0;
        history.fencings.push(Fencing { node: "node1".to_owned(), asked, done: Some(asked + 0.5) });
        history.faults.push(fault(FaultKind::NetworkCut, "node1", asked - 5.0, asked));
        violations(&history)
    };
    assert_eq!(fenced(94.8), []);
    // It had ended before.
    assert_eq!(fenced(99.8), [Violation::NeedlessRestart]);
}

/// Full storage has paused it long before it is stopped or turned off.
#[test]
fn what_stood_still_is_stopped_too() {
    let ended = |change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.guests[0].boots[0].last = 78.0;
        history.faults.push(fault(FaultKind::StorageFull, "", 77.0, 83.0));
        change(&mut history);
        violations(&history)
    };
    let stopped = |history: &mut History| {
        history.operations.push(request(Request::Stop, 91.0, 91.2));
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
    };
    assert_eq!(ended(&|_| {}), [Violation::NeedlessRestart]);
    assert_eq!(ended(&stopped), []);
    assert_eq!(ended(&|history| history.operations.push(request(Request::Off, 94.0, 96.0))), []);
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::EmulatorKilled, "vm1", 95.0, 95.1))), []);
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::PowerCut, "node1", 95.0, 95.1))), []);
    assert_eq!(ended(&|history| history.faults.push(fault(FaultKind::PowerCut, "node2", 95.0, 95.1))), [Violation::NeedlessRestart]);
}

/// Two that take turns on one disk are two writers, and no restarts.
#[test]
fn who_takes_turns_was_not_restarted() {
    let mut history = quiet();
    history.guests[0].boots = (0..20_u32).map(|turn| boot(u64::from(turn % 2), f64::from(turn), f64::from(turn))).collect();
    history.guests[0].two_writers = Some((1.0, "beat 7 was overwritten".to_owned()));
    history.emulators.push(emulator("node2", "2", 0.5, 20.0));
    history.operations.push(request(Request::Off, 0.0, 1.0));
    assert_eq!(violations(&history), [Violation::DoubleRun]);
}

/// What was before the cluster came to rest explains nothing after it.
#[test]
fn a_rest_ends_what_was_before() {
    let rested = |rest: f64, change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
        history.rests.push(Rest { at: rest, ..Rest::default() });
        change(&mut history);
        violations(&history)
    };
    let asked = |history: &mut History| history.operations.push(request(Request::Stop, 10.0, 10.2));
    assert_eq!(rested(5.0, &asked), []);
    assert_eq!(rested(40.0, &asked), [Violation::NeedlessRestart]);
    let failed = |history: &mut History| {
        history.actions.push(action("monitor", "node1", 68.0, 69.0, Outcome::Failed));
        history.faults.push(fault(FaultKind::EmulatorFrozen, "vm1", 65.0, 69.5));
    };
    assert_eq!(rested(40.0, &failed), []);
    assert_eq!(rested(80.0, &failed), [Violation::NeedlessRestart]);
    // The failure is new, and its fault is not.
    let stale = |history: &mut History| {
        failed(history);
        history.actions[1] = action("monitor", "node1", 90.0, 91.0, Outcome::Failed);
    };
    assert_eq!(rested(40.0, &stale), []);
    assert_eq!(rested(80.0, &stale), [Violation::NeedlessRestart]);
    let fenced = |history: &mut History| {
        history.fencings.push(Fencing { node: "node1".to_owned(), asked: 94.8, done: Some(95.5) });
        history.faults.push(fault(FaultKind::NodeLost, "node1", 50.0, 50.0));
    };
    assert_eq!(rested(40.0, &fenced), []);
    assert_eq!(rested(60.0, &fenced), [Violation::NeedlessFencing]);
    // A clock that was wrong makes a cleanup confuse Pacemaker, in the same round.
    let confused = |history: &mut History| {
        history.faults.push(fault(FaultKind::ClockJump, "node2", 50.0, 55.0));
        history.operations.push(request(Request::Forget, 61.0, 61.5));
    };
    assert_eq!(rested(40.0, &confused), []);
    assert_eq!(rested(70.0, &confused), [Violation::NeedlessRestart]);
    // It was none for a guest that wrote nothing, and was one for the others.
    let but_for = |guest: &'static str| {
        move |history: &mut History| {
            failed(history);
            history.rests[0].but_for.push(guest.to_owned());
        }
    };
    assert_eq!(rested(80.0, &but_for("vm1")), []);
    assert_eq!(rested(80.0, &but_for("vm2")), [Violation::NeedlessRestart]);
}

/// Another agent may fail, and cannot reload; the change of the agent itself ends no guest.
#[test]
fn an_adoption_is_no_restart() {
    let adopted = |change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.faults.push(fault(FaultKind::OtherAgent, "vm1", 60.0, 93.0));
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
        change(&mut history);
        violations(&history)
    };
    assert_eq!(adopted(&|_| {}), [Violation::NeedlessRestart]);
    assert_eq!(adopted(&|history| history.actions.push(action("monitor", "node1", 90.0, 91.0, Outcome::Failed))), []);
    assert_eq!(adopted(&|history| history.actions.push(absent("monitor", "node1", 91.0, 91.0))), []);
    assert_eq!(adopted(&|history| history.operations.push(request(Request::Change, 90.0, 90.1))), []);
    let later = |history: &mut History| {
        history.faults[0].end = 70.0;
        history.operations.push(request(Request::Change, 90.0, 90.1));
    };
    assert_eq!(adopted(&later), []);
    // It was moved since, by our agent.
    let moved = |history: &mut History| {
        later(history);
        history.actions.push(action("migrate_from", "node1", 75.0, 76.0, Outcome::Done));
    };
    assert_eq!(adopted(&moved), [Violation::NeedlessRestart]);
}
