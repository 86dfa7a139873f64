//! Guests that write nothing though Pacemaker runs them.

use super::*;

const PAUSED: &str = "paused (I/O error)";

/// vm1 wrote until 100 s, is silent at 200 s, and writes on from then.
fn silent(how: &str, change: impl Fn(&mut History)) -> Vec<Violation> {
    let mut history = quiet();
    history.guests[0].resumes = true;
    history.down.push(Down { guest: "vm1".to_owned(), at: 200.0, silent: Some(how.to_owned()) });
    change(&mut history);
    violations(&history)
}

#[test]
fn who_is_silent_at_rest_is_missed() {
    assert_eq!(silent(PAUSED, |_| {}), [Violation::LeftDown]);
    assert_eq!(silent(PAUSED, |history| history.operations.push(request(Request::Stop, 180.0, 180.1))), []);
    // Pacemaker runs one that is not there.
    assert_eq!(silent("shut off", |history| history.emulators[0].last = 120.0), [Violation::LeftDown]);
    // It was made a moment ago, and boots.
    assert_eq!(silent("running", |history| history.emulators[0].first = 170.0), []);
    assert_eq!(silent("running", |history| history.emulators[0].first = 130.0), [Violation::LeftDown]);
}

#[test]
fn who_broke_is_not_missed() {
    assert_eq!(silent("running", |history| history.guests[0].panics.push(110.0)), []);
    assert_eq!(silent("running", |history| history.guests[0].panics.push(210.0)), [Violation::LeftDown]);
    // The panic was that of a boot before.
    let earlier = |history: &mut History| {
        history.guests[0].panics.push(50.0);
        history.guests[0].boots = vec![boot(1, 0.0, 50.0), boot(2, 60.0, 100.0)];
    };
    assert_eq!(silent("running", earlier), [Violation::LeftDown]);
    // It is reset, after a while, in the emulator into which it was moved.
    let moved = |history: &mut History| history.emulators.push(Emulator { incoming: true, ..emulator("node2", "2", 90.0, 300.0) });
    let reset = |history: &mut History| {
        moved(history);
        history.emulators[0].last = 91.0;
        history.guests[0].boots = vec![boot(1, 0.0, 95.0), boot(2, 220.0, 300.0)];
    };
    assert_eq!(silent(PAUSED, reset), []);
    // Or it runs on in vain. An agent can only have libvirt or the kernel hold it.
    assert_eq!(silent("running (migrated)", moved), []);
    assert_eq!(silent("paused (migrating)", moved), [Violation::LeftDown]);
    assert_eq!(silent("its emulator is stopped", moved), [Violation::LeftDown]);
}

#[test]
fn who_was_paused_goes_on() {
    let paused = |begins: &[f64], change: &dyn Fn(&mut History)| {
        silent(PAUSED, |history| {
            history.guests[0].on_failing_storage = true;
            history.faults.extend(begins.iter().map(|begin| fault(FaultKind::StorageFull, "", *begin, begin + 5.0)));
            change(history);
        })
    };
    let by_another = |history: &mut History| history.guests[0].resumes = false;
    assert_eq!(paused(&[98.0], &|_| {}), [Violation::LeftDown]);
    // Its agent promises nothing.
    assert_eq!(paused(&[98.0], &by_another), []);
    assert_eq!(paused(&[], &by_another), [Violation::LeftDown]);
    let elsewhere = |history: &mut History| (history.guests[0].resumes, history.guests[0].on_failing_storage) = (false, false);
    assert_eq!(paused(&[98.0], &elsewhere), [Violation::LeftDown]);
    // It is left to a person for the fourth time.
    assert_eq!(paused(&[10.0, 40.0, 98.0], &|_| {}), [Violation::LeftDown]);
    assert_eq!(paused(&[10.0, 40.0, 70.0, 98.0], &|_| {}), []);
    let seldom = |history: &mut History| history.guests[0].boots[0].first = -900.0;
    assert_eq!(paused(&[-700.0, 40.0, 70.0, 98.0], &seldom), [Violation::LeftDown]);
    assert_eq!(paused(&[-700.0, -660.0, -620.0, 98.0], &seldom), [Violation::LeftDown], "three times, but long ago");
}

/// At the end of all, too.
#[test]
fn who_stays_paused_writes_nothing_at_the_end() {
    let mut history = quiet();
    (history.guests[0].beats, history.guests[0].on_failing_storage) = (false, true);
    history.faults.push(fault(FaultKind::StorageFull, "", 196.0, 202.0));
    assert_eq!(violations(&history), []);
    history.guests[0].resumes = true;
    assert_eq!(violations(&history), [Violation::LeftDown]);
}
