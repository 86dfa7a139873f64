//! A stop against a simulated host, in every course of events within bounds: "stopped" is only said when no emulator is left and none can
//! come of what libvirt was asked to do, the answer comes in time, and a guest that shuts down when it is asked to is not ended by force.
//!
//! The tests say with which wrong code they were seen to fail.
#![allow(clippy::unwrap_used, reason = "a test")]

use super::{Manner, ShutdownMode, stop};
use crate::deadline::{Deadline, now};
use crate::domain::ffi::simulated;
use crate::domain::status::Trace;
use crate::domain::{Identity, Uri};
use crate::simulation::hosts::{GUEST, Happens, Reach, Step, Temper, UUID, World};
use crate::simulation::{all_chosen, explore, lasted, pick, world};
use std::collections::BTreeMap;
use std::time::Duration;

const HERE: &str = "qemu+tcp://a/system";

/// The times of the action: short ones, and the usual one.
const TIMES: [u64; 2] = [20, 87];

/// What an answer may be later than its time.
const LATE: Duration = Duration::from_secs(2);

/// Stops the guest; the answer, in a word.
fn stopped(creating: bool) -> String {
    stopped_in(Duration::from_secs(TIMES[pick(2)]), creating)
}

/// Like [`stopped`], in this time.
fn stopped_in(time: Duration, creating: bool) -> String {
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let identity = Identity { name: text(GUEST), uuid: Some(text(UUID)) };
    let manner = [Manner::Ask(vec![ShutdownMode::Acpi]), Manner::Force][pick(2)].clone();
    let trace = Trace { creating, ..Trace::from(identity) };
    world(|world| world.quiet = false);
    let answer = stop(&trace, &Uri::parse(HERE).unwrap(), &manner, &Deadline::after(time));
    let took = lasted();
    world(|world| {
        if took > time + LATE {
            world.wrong = Some(format!("the answer took {} s", took.as_secs()));
        }
        if answer.is_ok()
            && let Some(wrong) = world.not_stopped()
        {
            world.wrong = Some(format!("\"stopped\" was said, and {wrong}"));
        }
        if answer.is_err() && !world.disturbed && world.is_plainly_stopped() {
            world.wrong = Some("it is stopped, and that was not said".into());
        }
        if answer.is_err()
            && !world.disturbed
            && !world.unruly
            && !world.hangs(0)
            && time.as_secs() >= TIMES[1]
            && world.hosts[0].reach == Reach::Up
        {
            world.wrong = Some("nothing was in the way of its end".into());
        }
        let heeds = world.temper.asked.is_some_and(|time| time < Duration::from_secs(5));
        if manner != Manner::Force && heeds && !creating && !world.disturbed && world.forced {
            world.wrong = Some("a guest that shuts down was ended by force".into());
        }
    });
    answer.map_or_else(|error| format!("{:?}", error.kind), |()| "stopped".into())
}

/// Stops it once in every course of events.
fn every_course(budget: usize, creating: bool, create: impl Fn() -> World) -> BTreeMap<String, usize> {
    simulated::install();
    explore(budget, create, || stopped(creating), |world, _| world.wrong.take().map_or(Ok(()), Err))
}

/// A host with the guest, or with its definition at most.
fn host(runs: bool, may: fn(&World, Happens) -> bool) -> World {
    let mut world = World::new(&[HERE], pick(2) == 1);
    (world.quiet, world.goes_on, world.ends, world.reopens, world.may) = (true, true, true, true, may);
    if runs {
        world.run_on(0);
    }
    world
}

/// The daemon freezes, goes, and is there again.
fn comes_and_goes(_: &World, happens: Happens) -> bool {
    matches!(happens, Happens::Cut(_) | Happens::Freezes(_) | Happens::Heals(_))
}

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(12);
/// How long an emulator may be in the kernel at its end and still be seen to end in time: what is kept of the time is for that.
const STUCK: Duration = Duration::from_secs(4);

/// The guest heeds the request at once, late or never, its emulator the signals likewise, and libvirt sees its end late; meanwhile the daemon
/// comes and goes.
///
/// Fails if a guest that libvirt does not know is taken for gone without a look at the emulators, or is not asked before it is ended.
#[test]
fn a_guest_that_ends_or_does_not() {
    let answers = every_course(2, false, || {
        let asked = [Some(SOON), Some(LATER), None][pick(3)];
        let (term, kill) = [(Some(Duration::ZERO), Duration::ZERO), (None, SOON), (None, STUCK)][pick(3)];
        let listed = [Duration::ZERO, LATER][pick(2)];
        let mut world = host(true, comes_and_goes);
        world.temper = Temper { asked, term, kill, listed };
        world
    });
    assert!(answers["stopped"] > 0, "{answers:?}");
}

/// While the guest ends so does another one's emulator, which takes its time, and of which it cannot be told whose it is.
///
/// Fails if the proof is given up after its first look.
#[test]
fn another_emulator_that_ends_slowly() {
    let answers = every_course(1, false, || {
        let mut world = host(true, comes_and_goes);
        let (begin, lasts) = ([Duration::ZERO, Duration::from_millis(100), SOON][pick(3)], [SOON, STUCK, LATER][pick(3)]);
        world.temper = Temper { asked: Some(SOON), term: Some(SOON), kill: SOON, listed: Duration::ZERO };
        world.stranger = Some((now() + begin, now() + begin + lasts));
        world
    });
    assert!(answers["stopped"] > 0, "{answers:?}");
}

/// For a moment the process table cannot be read: there is no thread, or no memory, to be had.
///
/// Fails if the first such look at the emulators is the end of the stop, before the guest is asked, or when its end is to be proven.
#[test]
fn a_process_table_that_cannot_be_read_for_a_moment() {
    let answers = every_course(1, false, || {
        let (begin, lasts) = ([Duration::ZERO, Duration::from_millis(100), SOON, LATER][pick(4)], [SOON, STUCK][pick(2)]);
        let (asked, listed) = [(Some(SOON), Duration::ZERO), (None, LATER)][pick(2)];
        let mut world = host(true, comes_and_goes);
        world.temper = Temper { asked, term: Some(SOON), kill: SOON, listed };
        world.unread = Some((now() + begin, now() + begin + lasts));
        world
    });
    assert!(answers["stopped"] > 0, "{answers:?}");
}

/// The emulator is long in the kernel at its end, and the time is long, too: as much of it is kept for that.
///
/// Fails if the time that is kept does not grow with the whole.
#[test]
fn an_emulator_that_ends_late() {
    simulated::install();
    let create = || {
        let mut world = host(true, |_, _| false);
        world.temper = Temper { asked: None, term: None, kill: Duration::from_secs(20), listed: Duration::ZERO };
        world
    };
    let time = Duration::from_secs(180);
    let answers = explore(1, create, || stopped_in(time, false), |world, _| world.wrong.take().map_or(Ok(()), Err));
    assert!(answers.keys().eq(["stopped"]), "{answers:?}");
}

/// An emulator hangs in the kernel, and libvirt forgets it in the end.
///
/// Fails if libvirt's word that it was destroyed is believed.
#[test]
fn an_emulator_that_hangs() {
    let answers = every_course(2, false, || {
        let since = [None, Some(0), Some(40), Some(79), Some(80)][pick(5)];
        let mut world = host(true, comes_and_goes);
        world.temper.asked = None;
        world.hang(0, since.map(Duration::from_secs));
        world
    });
    assert!(!answers.contains_key("stopped") && answers["Lives"] > 0, "{answers:?}");
}

/// libvirt refuses to end it, takes its time, or breaks the connection; and the guest ends by itself, or hangs from some moment on.
#[test]
fn a_libvirt_that_does_not_do_as_it_is_told() {
    let answers = every_course(2, false, || {
        let may = |_: &World, happens| matches!(happens, Happens::Freezes(_) | Happens::Ends(_) | Happens::Hangs(_));
        let mut world = host(true, may);
        world.unruly = true;
        world.temper.asked = [Some(SOON), None][pick(2)];
        world
    });
    assert!(answers["stopped"] > 0 && answers["Lives"] > 0, "{answers:?}");
}

/// A start was begun whose request waits in the daemon, which is frozen, or goes on right now.
///
/// Fails if the record of that start is not heeded, or if "no such guest" is believed at the first look.
#[test]
fn a_guest_that_is_still_to_be_created() {
    let answers = every_course(2, true, || {
        let mut world = host(false, comes_and_goes);
        world.hosts[0].creates = true;
        match pick(2) {
            0 => world.hosts[0].reach = Reach::Silent,
            _ => world.plan_creation(0),
        }
        world
    });
    assert!(answers["stopped"] > 0 && answers["Unresponsive"] > 0, "{answers:?}");
}

/// A start was begun whose request waits in the daemon, which is frozen and goes on when little of the time is left.
///
/// Fails if "no such guest" is believed when there is no time for a second look.
#[test]
fn a_guest_that_is_still_to_be_created_at_the_end_of_the_time() {
    simulated::install();
    let time = || Duration::from_millis(17_000 + 100 * u64::try_from(pick(30)).unwrap());
    let create = || {
        let mut world = host(false, |_, _| false);
        world.hosts[0].creates = true;
        world
    };
    let act = || {
        let (time, before) = (time(), Duration::from_millis(100 * u64::try_from(pick(20)).unwrap()));
        world(|world| world.freeze_for(0, time - before));
        stopped_in(time, true)
    };
    let answers = explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
    assert!(answers["Unresponsive"] > 0, "{answers:?}");
}

/// A start was begun whose request waits in a daemon of which all ordinary workers are taken: it says at once that there is no such guest.
///
/// Fails if that is believed before a question has had its turn that comes after the request.
#[test]
fn a_guest_that_a_busy_daemon_is_still_to_create() {
    let answers = every_course(1, true, || {
        let mut world = host(false, comes_and_goes);
        world.hold_creation(0, [LATER, Duration::from_secs(20)][pick(2)]);
        world
    });
    assert!(answers["stopped"] > 0 && answers["Unresponsive"] > 0, "{answers:?}");
}

/// An unfinished start has got its guest, or not, and each ordinary question to the daemon waits for some seconds, as in a queue that never ends.
///
/// Fails if such a question is given up early: the next one is at the end of the queue again.
#[test]
fn a_daemon_with_a_queue() {
    let answers = every_course(0, true, || {
        let mut world = host(pick(2) == 1, |_, _| false);
        world.odd.queue = Duration::from_secs(6);
        world
    });
    assert!(answers.keys().eq(["stopped"]), "{answers:?}");
}

/// The same queue, in which a question has its turn only once in the time.
///
/// Fails if the second look waits for another turn.
#[test]
fn a_daemon_with_a_long_queue() {
    simulated::install();
    let create = || {
        let mut world = host(pick(2) == 1, |_, _| false);
        world.odd.queue = Duration::from_secs(32);
        world
    };
    let act = || stopped_in(Duration::from_secs(60), true);
    let answers = explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
    assert!(answers.keys().eq(["stopped"]), "{answers:?}");
}

/// It was handed over in a move whose agent was killed, and the daemon of the target says nothing: it may run there by now, and libvirt
/// here lets it go on when it gives up.
///
/// Fails if the end of that move is waited for.
#[test]
fn a_guest_that_was_handed_over() {
    simulated::install();
    let create = || {
        let mut world = World::new(&[HERE, "qemu+tcp://b/system"], false);
        (world.quiet, world.goes_on, world.ends, world.disturbed) = (true, true, true, true);
        world.move_from(0, 1, Step::Asked);
        world.lose([Step::HandedOver, Step::Runs][pick(2)]);
        world
    };
    let act = || stopped_in(Duration::from_secs([40, 87][pick(2)]), false);
    let judge = |world: &mut World, _: &str| match world.wrong.take() {
        Some(wrong) => Err(wrong),
        None if lasted() > Duration::from_secs(10) => Err(format!("it took {} s", lasted().as_secs())),
        None => Ok(()),
    };
    let answers = explore(0, create, act, judge);
    assert!(answers.keys().eq(["stopped"]), "{answers:?}");
}

/// What may happen does, at each kind of call that a stop makes.
///
/// Fails if only the number of calls decides at which of them something may happen.
#[test]
fn something_happens_at_every_kind_of_call() {
    every_course(1, false, || {
        let mut world = host(true, comes_and_goes);
        world.temper.asked = None;
        world
    });
    let chosen = all_chosen();
    for call in ["look up", "state", "job", "shutdown", "destroy"] {
        for happens in [Happens::Cut(0), Happens::Freezes(0)] {
            assert!(chosen.contains(&(call, format!("{happens:?}"))), "{happens:?} at {call}: {chosen:?}");
        }
    }
    every_course(2, false, || {
        let mut world = host(true, |world, happens| {
            world.hosts[0].reach == Reach::Up && happens == Happens::Freezes(0) || happens == Happens::Heals(0)
        });
        world.temper.asked = None;
        world
    });
    assert!(all_chosen().contains(&("open", format!("{:?}", Happens::Heals(0)))));
}
