//! What is answered, and what is true.

use super::*;

#[test]
fn stopped_means_gone() {
    let mut history = restarted();
    history.operations.push(request(Request::Stop, 91.0, 91.2));
    history.actions.push(action("stop", "node1", 92.0, 94.0, Outcome::Done));
    assert_eq!(violations(&history), [Violation::FalseStopped]);
    // One that was started after the stop is another.
    history.emulators = vec![emulator("node1", "1", 0.0, 93.0), emulator("node1", "2", 98.0, 200.0)];
    assert_eq!(violations(&history), []);
    // A stop that says that it failed says nothing false.
    history.emulators[0].last = 95.0;
    history.actions[0].outcome = Outcome::Failed;
    assert_eq!(violations(&history), []);
}

#[test]
fn off_means_gone() {
    let mut history = quiet();
    history.operations.push(request(Request::Off, 100.0, 103.0));
    assert_eq!(violations(&history), [Violation::FalseOff]);
    history.operations[0].ok = false;
    assert_eq!(violations(&history), []);
    history.faults.push(fault(FaultKind::NetworkCut, "node1", 90.0, 120.0));
    history.fencings.push(Fencing { node: "node1".to_owned(), asked: 95.0, done: Some(99.0) });
    assert_eq!(violations(&history), [Violation::FalseOff]);
    history.fencings[0].done = None;
    assert_eq!(violations(&history), []);
}

#[test]
fn nobody_waits_for_ever() {
    let mut history = quiet();
    history.actions.push(action("monitor", "node1", 60.0, 80.0, Outcome::Late));
    assert_eq!(violations(&history), [Violation::LateAction]);
    history.faults.push(fault(FaultKind::OtherAgent, "vm1", 50.0, 70.0));
    assert_eq!(violations(&history), []);
}

#[test]
fn not_running_means_gone() {
    let judged = |action: Action| {
        let mut history = quiet();
        history.emulators[0].first = 50.0;
        history.actions.push(action);
        violations(&history)
    };
    assert_eq!(judged(absent("probe", "node1", 100.0, 101.0)), [Violation::FalseStopped]);
    assert_eq!(judged(absent("probe", "node2", 100.0, 101.0)), []);
    assert_eq!(judged(action("probe", "node1", 100.0, 101.0, Outcome::Done)), []);
    assert_eq!(judged(absent("monitor", "node1", 100.0, 101.0)), [Violation::FalseStopped]);
    // It came while it was looked for.
    assert_eq!(judged(absent("probe", "node1", 50.5, 52.0)), []);
    // A monitor that was not announced may have begun before the guest came.
    assert_eq!(judged(absent("monitor", "node1", 79.0, 79.0)), []);
    assert_eq!(judged(absent("monitor", "node1", 81.0, 81.0)), [Violation::FalseStopped]);
    // It ended while it was looked for.
    assert_eq!(judged(absent("probe", "node1", 199.0, 200.5)), []);
}

#[test]
fn a_stop_ends_what_comes_meanwhile() {
    let stopped = |first, last| {
        let mut history = restarted();
        history.operations.push(request(Request::Stop, 91.0, 91.2));
        history.actions.push(action("stop", "node1", 92.0, 97.0, Outcome::Done));
        history.emulators.push(emulator("node1", "3", first, last));
        violations(&history)
    };
    // An agent was killed in a start, and libvirt went on.
    assert_eq!(stopped(94.0, 99.0), [Violation::FalseStopped]);
    assert_eq!(stopped(94.0, 96.9), []);
    // The next start's, which was seen before the answer to the stop was read.
    assert_eq!(stopped(96.5, 99.0), []);
}

/// Between two looks at the log a short stop was called and answered, and the next start made its emulator.
#[test]
fn a_late_look_takes_no_emulator_for_another() {
    let stopped = |last, unanswered| {
        let mut history = restarted();
        history.operations.push(request(Request::Stop, 91.0, 91.2));
        history.actions.push(Action { unanswered, ..action("stop", "node1", 95.6, 95.6, Outcome::Done) });
        history.emulators = vec![emulator("node1", "1", 0.0, last), emulator("node1", "2", 95.4, 200.0)];
        violations(&history)
    };
    assert_eq!(stopped(94.9, 94.8), []);
    assert_eq!(stopped(95.8, 94.8), [Violation::FalseStopped]);
    // The log was looked at when it was there already, and no answer was in it.
    assert_eq!(stopped(94.9, 95.5), [Violation::FalseStopped]);
}

#[test]
fn a_start_is_alone() {
    let started = |node: &str, change: &dyn Fn(&mut History)| {
        let mut history = quiet();
        history.actions.push(action("start", node, 100.0, 103.0, Outcome::Done));
        history.emulators.push(emulator("node2", "2", 101.0, 200.0));
        change(&mut history);
        violations(&history)
    };
    assert_eq!(started("node2", &|_| {}), [Violation::DoubleRun]);
    assert_eq!(started("node2", &|history| history.actions[0].outcome = Outcome::Failed), []);
    // It ran there already, and a move is under way.
    assert_eq!(started("node1", &|_| {}), []);
    assert_eq!(started("node2", &|history| history.emulators[1].first = 95.0), []);
    // The other one was at its end.
    assert_eq!(started("node2", &|history| history.emulators[0].last = 102.5), []);
}

#[test]
fn moved_means_gone() {
    let moved = |last: f64, stop: Option<(f64, f64)>| {
        let mut history = quiet();
        history.emulators[0].last = last;
        history.emulators.push(emulator("node2", "2", 91.0, 200.0));
        history.actions.push(action("migrate_to", "node1", 90.0, 97.0, Outcome::Done));
        history.actions.extend(stop.map(|(begin, end)| action("stop", "node1", begin, end, Outcome::Failed)));
        violations(&history)
    };
    assert_eq!(moved(96.0, None), []);
    assert_eq!(moved(98.0, None), []);
    assert_eq!(moved(150.0, None), [Violation::DoubleRun]);
    // libvirt could not end its own copy; a stop did.
    assert_eq!(moved(110.0, Some((99.0, 111.0))), []);
    assert_eq!(moved(150.0, Some((99.0, 111.0))), [Violation::DoubleRun]);
}

#[test]
fn off_goes_by_processes_too() {
    // Its emulator is frozen: it writes nothing, and lives.
    let mut history = quiet();
    (history.guests[0].boots, history.guests[0].wanted) = (vec![boot(1, 0.0, 95.0)], false);
    history.operations.push(request(Request::Off, 100.0, 103.0));
    assert_eq!(violations(&history), [Violation::FalseOff]);
    history.emulators[0].last = 102.9;
    assert_eq!(violations(&history), []);
}

#[test]
fn who_is_down_at_rest_is_missed() {
    let down = |change: &dyn Fn(&mut History)| {
        let mut history = quiet();
        history.down.push(Down { guest: "vm1".to_owned(), at: 100.0, silent: None });
        change(&mut history);
        violations(&history)
    };
    assert_eq!(down(&|_| {}), [Violation::LeftDown]);
    assert_eq!(down(&|history| history.operations.push(request(Request::Stop, 80.0, 80.1))), []);
    let again = |history: &mut History, ok| {
        history.operations.push(request(Request::Stop, 80.0, 80.1));
        history.operations.push(Operation { ok, ..request(Request::Start, 85.0, 85.1) });
    };
    assert_eq!(down(&|history| again(history, true)), [Violation::LeftDown]);
    assert_eq!(down(&|history| again(history, false)), []);
    // Pacemaker gave up, for a reason or not.
    let failed = |history: &mut History| history.actions.push(action("start", "node1", 90.0, 91.0, Outcome::Failed));
    assert_eq!(down(&failed), [Violation::LeftDown]);
    assert_eq!(
        down(&|history| {
            failed(history);
            history.faults.push(fault(FaultKind::ConfigGone, "vm1", 88.0, 92.0));
        }),
        []
    );
}
