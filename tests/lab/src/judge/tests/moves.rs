//! A guest that was moved: it keeps its memory, or says why not; and why a move fails.

use super::*;

#[test]
fn a_move_keeps_the_memory() {
    let mut history = restarted();
    history.actions.push(action("migrate_to", "node1", 90.0, 97.0, Outcome::Done));
    history.actions.push(action("migrate_from", "node2", 97.0, 98.0, Outcome::Done));
    assert_eq!(violations(&history), [Violation::MemoryLost]);
    assert!(!judge(&history)[0].text.contains("from inside"));
    history.operations.push(Operation { ok: false, ..request(Request::Off, 94.0, 96.0) });
    assert_eq!(violations(&history), []);
    // A request that would explain an emulator's end does not explain a reset in one.
    history.emulators.pop();
    assert_eq!(violations(&history), [Violation::MemoryLost]);
    assert!(judge(&history)[0].text.contains("from inside"));
    history.guests[0].panics.push(80.0);
    assert_eq!(violations(&history), [Violation::MemoryLost]);
    history.guests[0].panics.push(96.0);
    assert_eq!(violations(&history), []);
    assert_eq!(broken_kernels(&history), 1);
    history.operations.clear();
    history.guests[0].boots = vec![boot(1, 0.0, 200.0)];
    assert_eq!(violations(&history), []);
    assert_eq!(broken_kernels(&history), 0);
}

/// A kernel whose page tables are wrong cannot say so: it is reset in the emulator into which it was moved.
#[test]
fn a_guest_may_break_without_a_word() {
    let mut history = restarted();
    history.emulators[1].incoming = true;
    history.actions.push(action("migrate_to", "node1", 90.0, 97.0, Outcome::Done));
    assert_eq!((violations(&history), broken_kernels(&history)), (vec![], 1));
    // One that was not moved in this boot has no such reason.
    history.emulators[1].incoming = false;
    history.emulators[0].incoming = true;
    assert_eq!((violations(&history), broken_kernels(&history)), (vec![Violation::MemoryLost], 0));
}

#[test]
fn a_guest_may_break_by_itself() {
    let mut history = quiet();
    (history.guests[0].boots, history.guests[0].beats) = (vec![boot(1, 0.0, 150.0)], false);
    assert_eq!(violations(&history), [Violation::LeftDown]);
    history.guests[0].panics.push(100.0);
    assert_eq!(violations(&history), [Violation::LeftDown]);
    history.guests[0].panics.push(150.5);
    assert_eq!(violations(&history), []);
}

#[test]
fn pacemaker_may_drop_a_move() {
    let mut history = restarted();
    history.emulators.push(emulator("node3", "3", 90.0, 95.2));
    history.actions.push(action("migrate_to", "node1", 90.0, 94.5, Outcome::Done));
    history.actions.push(action("stop", "node1", 94.5, 94.7, Outcome::Done));
    history.actions.push(action("stop", "node3", 94.7, 95.3, Outcome::Done));
    history.emulators[0].last = 94.2;
    assert_eq!(violations(&history), []);
    // It was brought to its end, and the guest stopped after that.
    history.actions.push(action("migrate_from", "node3", 94.5, 94.6, Outcome::Done));
    assert_eq!(violations(&history), [Violation::MemoryLost]);
}

/// A move fails by the faults of its guest and of its two ends.
#[test]
fn a_move_fails_for_a_reason_of_its_own() {
    let failed = |kind, subject: &str, came_to: Option<&str>| {
        let mut history = restarted();
        history.actions.push(action("migrate_to", "node1", 80.0, 90.0, Outcome::Failed));
        history.actions.push(action("stop", "node1", 92.0, 95.5, Outcome::Done));
        history.faults.push(fault(kind, subject, 82.0, 88.0));
        history.emulators.extend(came_to.map(|node| emulator(node, "3", 81.0, 90.0)));
        violations(&history)
    };
    assert_eq!(failed(FaultKind::AgentKilled, "vm1", None), []);
    assert_eq!(failed(FaultKind::AgentKilled, "vm2", None), [Violation::NeedlessRestart]);
    assert_eq!(failed(FaultKind::StorageFull, "", None), [Violation::NeedlessRestart]);
    assert_eq!(failed(FaultKind::DaemonFrozen, "node1", Some("node3")), []);
    assert_eq!(failed(FaultKind::DaemonFrozen, "node3", Some("node3")), []);
    assert_eq!(failed(FaultKind::DaemonFrozen, "node2", Some("node3")), [Violation::NeedlessRestart]);
    // It never came anywhere: the log does not say where to.
    assert_eq!(failed(FaultKind::DaemonFrozen, "node2", None), []);
}
