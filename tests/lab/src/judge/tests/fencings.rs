//! Nodes that were fenced, and requests to do so that came to nothing.

use super::*;

#[test]
fn a_fencing_needs_a_reason() {
    let fenced = |change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.fencings.push(Fencing { node: "node1".to_owned(), asked: 94.8, done: Some(95.5) });
        change(&mut history);
        violations(&history)
    };
    assert_eq!(fenced(&|_| {}), [Violation::NeedlessFencing]);
    assert_eq!(fenced(&|history| history.faults.push(fault(FaultKind::CorosyncFrozen, "node1", 90.0, 93.0))), []);
    assert_eq!(fenced(&|history| history.faults.push(fault(FaultKind::CorosyncFrozen, "node2", 90.0, 93.0))), [Violation::NeedlessFencing]);
    assert_eq!(fenced(&|history| history.faults.push(fault(FaultKind::NetworkOneWay, "node1", 90.0, 93.0))), []);
    assert_eq!(fenced(&|history| history.faults.push(fault(FaultKind::ClockJump, "node1", 90.0, 93.0))), [Violation::NeedlessFencing]);
    // Fenced because it was lost, not lost because it was fenced.
    assert_eq!(fenced(&|history| history.faults.push(fault(FaultKind::NodeLost, "node1", 94.7, 94.7))), []);
    assert_eq!(fenced(&|history| history.faults.push(fault(FaultKind::NodeLost, "node1", 95.0, 95.0))), [Violation::NeedlessFencing]);
    let stop = |history: &mut History| history.actions.push(action("stop", "node1", 60.0, 94.0, Outcome::Failed));
    assert_eq!(fenced(&stop), [Violation::NeedlessFencing]);
    let caused = |kind, subject: &'static str, on_failing_storage| {
        fenced(&|history| {
            stop(history);
            history.guests[0].on_failing_storage = on_failing_storage;
            history.faults.push(fault(kind, subject, 55.0, 200.0));
        })
    };
    assert_eq!(caused(FaultKind::StorageFrozen, "node1", true), []);
    // Its guest has nothing on that storage.
    assert_eq!(caused(FaultKind::StorageFrozen, "node1", false), [Violation::NeedlessFencing]);
    // A libvirtd that hangs in the middle of a stop leaves its outcome open; without one, and without a definition, the emulator is ended.
    assert_eq!(caused(FaultKind::DaemonFrozen, "node1", false), []);
    assert_eq!(caused(FaultKind::DaemonKilled, "node1", false), [Violation::NeedlessFencing]);
    assert_eq!(caused(FaultKind::ConfigGone, "vm1", false), [Violation::NeedlessFencing]);
}

/// The device refused, or did not answer: nothing was done to the node, and what happens to it long after has another reason.
#[test]
fn a_fencing_that_came_to_nothing_ends() {
    let asked = |at: f64, rests: &[f64], change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.faults.push(fault(FaultKind::NodeLost, "node1", at - 1.0, at - 1.0));
        history.fencings.push(Fencing { node: "node1".to_owned(), asked: at, done: None });
        history.rests.extend(rests.iter().map(|at| Rest { at: *at, ..Rest::default() }));
        change(&mut history);
        violations(&history)
    };
    // It may have been carried out, and its answer was lost.
    assert_eq!(asked(60.0, &[], &|_| {}), []);
    assert_eq!(asked(20.0, &[], &|_| {}), [Violation::NeedlessRestart]);
    assert_eq!(asked(60.0, &[80.0], &|_| {}), [Violation::NeedlessRestart]);
    // It is no reason to fence the node another time, when the cluster has rested.
    let again = |history: &mut History| history.fencings.push(Fencing { node: "node1".to_owned(), asked: 94.8, done: Some(95.5) });
    assert_eq!(asked(20.0, &[], &again), []);
    assert_eq!(asked(20.0, &[50.0], &again), [Violation::NeedlessFencing]);
}

/// It was done, and another thing was said: the guest ends when it was asked, and the node is fenced once more.
#[test]
fn a_device_that_lies_costs_nothing_but_a_second_fencing() {
    let lied = |change: &dyn Fn(&mut History)| {
        let mut history = restarted();
        history.faults.push(fault(FaultKind::FenceLies, "", 80.0, 100.0));
        history.fencings.push(Fencing { node: "node1".to_owned(), asked: 94.8, done: None });
        history.fencings.push(Fencing { node: "node1".to_owned(), asked: 154.9, done: Some(155.2) });
        change(&mut history);
        violations(&history)
    };
    let lost = |history: &mut History| history.faults.push(fault(FaultKind::NodeLost, "node1", 90.0, 90.0));
    assert_eq!(lied(&lost), []);
    // The first one still needs a reason.
    assert_eq!(lied(&|_| {}), [Violation::NeedlessFencing]);
    // And a guest that ended long before has another.
    let earlier = |history: &mut History| {
        lost(history);
        history.fencings.iter_mut().for_each(|fencing| fencing.asked += 40.0);
        history.faults.iter_mut().for_each(|fault| (fault.begin, fault.end) = (fault.begin + 40.0, fault.end + 40.0));
    };
    assert_eq!(lied(&earlier), [Violation::NeedlessRestart]);
}
