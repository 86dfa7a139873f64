//! `off` against simulated hosts, in every course of events within bounds: whatever happens between any two calls of libvirt, "off" is
//! only said when no emulator lives on any host and none can come of what is in flight.
//!
//! The tests say with which wrong code they were seen to fail.
#![allow(clippy::unwrap_used, reason = "a test")]

mod nodes;
mod saved;
mod silent;

use super::limits::{Limits, UNLIMITED};
use super::options::Options;
use super::plug::Plug;
use super::pool::Pool;
use super::power::Status;
use super::sight::Target;
use super::told::Nodes;
use super::victim::CALLING_OFF;
use crate::deadline::Deadline;
use crate::domain::ffi::simulated;
use crate::simulation::hosts::{Happens, Reach, Step, World};
use crate::simulation::{explore, folder, lasted, pass, pick, world};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOSTS: [&str; 2] = ["qemu+tcp://a/system", "qemu+tcp://b/system"];

/// Those of a call by Pacemaker's fencer, and of one with time for a libvirt that tries for 80 s.
const TIMES: [u64; 2] = [38, 100];

/// What an answer may be later than its time.
const LATE: Duration = Duration::from_secs(2);

/// The guest, and the time there is for an action.
fn plug(power: u64, missing_as_off: bool, notes: &Path) -> (Plug, Duration) {
    let limits = Limits { power: Duration::from_secs(power), ..UNLIMITED };
    let options = Options { uri: HOSTS.map(Into::into).to_vec(), ..Options::default() };
    let plug = Plug {
        target: Target { word: "web1".into(), name: Some("web1".into()), uuid: None },
        pool: Pool::new(&options, limits).unwrap(),
        pinned: None,
        missing_as_off,
        power_wait: Duration::ZERO,
        retry_on: 0,
        notes: notes.to_owned(),
        nodes: Nodes { here: ("node".to_owned(), notes.to_string_lossy().into_owned()), certain: true, proofs: Arc::default() },
    };
    (plug, limits.login + limits.shell + limits.power)
}

/// Turns the guest off in the time that Pacemaker's fencer has; the answer, in a word.
fn off(notes: &Path) -> String {
    off_within(TIMES[0], notes)
}

/// The same; a destroy may take so many seconds.
fn off_within(power: u64, notes: &Path) -> String {
    off_of(power, true, notes)
}

/// The same; whether a guest that nobody knows is off, as it is of itself after it was ended from here.
fn off_of(power: u64, missing_as_off: bool, notes: &Path) -> String {
    let (mut plug, time) = plug(power, missing_as_off, notes);
    let begin = lasted();
    let answer = plug.off(&Deadline::after(time));
    let took = lasted() - begin;
    world(|world| {
        if took > time + LATE {
            world.wrong = Some(format!("the answer took {} s", took.as_secs()));
        }
        if answer.is_ok()
            && let Some(wrong) = world.not_off()
        {
            world.wrong = Some(format!("\"off\" was said, and {wrong}"));
        }
    });
    match answer {
        Ok(done) => format!("{done:?}"),
        Err(error) => format!("{:?}", error.kind),
    }
}

/// Turns it off once in every course of events.
fn every_course(budget: usize, create: impl Fn() -> World) -> BTreeMap<String, usize> {
    every_course_of(budget, create, off)
}

fn every_course_of(budget: usize, create: impl Fn() -> World, act: impl Fn(&Path) -> String) -> BTreeMap<String, usize> {
    simulated::install();
    let folder = folder();
    let notes = folder.path().join("fence");
    let create = || {
        let _ = std::fs::remove_dir_all(&notes);
        create()
    };
    explore(budget, create, || act(&notes), |world, _| world.wrong.take().map_or(Ok(()), Err))
}

/// Hosts whose libvirt has a definition of the guest, or not.
fn hosts(defined: bool) -> World {
    World::new(&HOSTS, defined)
}

/// It moves, from either host to the other, and the move goes on at any moment, by any number of steps.
///
/// Fails with one quiet round instead of two, with no more of them after a move, and if what is paused is not taken for alive.
#[test]
fn a_guest_that_moves() {
    let answers = every_course(3, || {
        let (from, to, defined) = [(0, 1, false), (1, 0, true)][pick(2)];
        let mut world = hosts(defined);
        world.move_from(from, to, [Step::Asked, Step::Filling, Step::HandedOver, Step::Runs][pick(4)]);
        world
    });
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["Changed"], "nothing is in the way of the end");
}

/// It moves to a host that is none of those that are asked, and is turned off, and again later: what may run there is not off. One that has
/// a definition here is not followed between two questions: what was gone before the first of them is not seen either.
///
/// Fails if it is enough that it was seen, if a move that was not called off is forgotten, or if what may have left counts as ended later.
#[test]
fn a_guest_that_moves_out_of_sight() {
    const ALL: [&str; 3] = [HOSTS[0], HOSTS[1], "qemu+tcp://c/system"];
    let twice = |notes: &Path| {
        let first = off_of(TIMES[0], false, notes);
        pass([Duration::ZERO, Duration::from_secs(90)][pick(2)]);
        format!("{first} {}", off_of(TIMES[0], false, notes))
    };
    for (defined, budget) in [(false, 2), (true, 0)] {
        let create = || {
            let mut world = World::new(&ALL, defined);
            world.move_from(0, 2, [Step::Asked, Step::Filling, Step::HandedOver, Step::Runs][pick(4)]);
            world
        };
        let answers = every_course_of(budget, create, twice);
        // Called off in time; or what may run out of sight is not off, or a guest that nobody knows.
        let fails = |answer: &String| answer.split(' ').all(|word| ["State", "NotFound"].contains(&word));
        let (failed, done): (Vec<_>, Vec<_>) = answers.keys().partition(|answer| fails(answer));
        assert!(failed.iter().any(|answer| *answer == "State State") && done == ["Changed Already"], "{answers:?}");
    }
}

/// The move waits for a target that does not answer, and does not end when it is called off; the guest runs here all the time.
///
/// Fails if only the end of the job is proof.
#[test]
fn a_move_that_does_not_get_there() {
    let answers = every_course(0, || {
        let mut world = hosts([false, true][pick(2)]);
        world.in_flight = CALLING_OFF + Duration::from_millis(200);
        world.move_from(0, 1, Step::Asked);
        world
    });
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["Changed"]);
}

/// It has left for a host that is not asked; `back` happens, it is looked at, `then` happens, and it is turned off again. The answers.
fn after_it_left(back: fn(&mut World, usize), then: fn(&mut World, usize)) -> Vec<String> {
    const ALL: [&str; 3] = [HOSTS[0], HOSTS[1], "qemu+tcp://c/system"];
    let act = |notes: &Path| {
        let first = off_of(TIMES[0], false, notes);
        let place = pick(2);
        world(|world| {
            world.hosts[2].copy = None;
            back(world, place);
        });
        let (mut plug, time) = plug(TIMES[0], false, notes);
        let seen = plug.status(&Deadline::after(time)).unwrap();
        world(|world| then(world, place));
        format!("{first} {seen:?} {}", off_of(TIMES[0], false, notes))
    };
    let create = || {
        let mut world = World::new(&ALL, true);
        world.move_from(0, 2, Step::HandedOver);
        world
    };
    every_course_of(0, create, act).into_keys().collect()
}

/// A person has it run here again: from then on it is as any other.
///
/// Fails if what was noted of the move outlives that it is seen to run.
#[test]
fn a_guest_that_is_back() {
    let answers = after_it_left(World::run_on, |world, place| world.hosts[place].copy = None);
    assert_eq!(answers, ["State On Already"]);
}

/// A move from there is on its way back: its copy here says nothing of it.
///
/// Fails if a copy that stands still takes the note of the first move away, when it is looked at or when it is ended.
#[test]
fn a_guest_that_is_coming_back() {
    let answers = after_it_left(|world, place| world.move_from(2, place, Step::Filling), |_, _| {});
    assert_eq!(answers, ["State On State"]);
}

/// libvirt refuses to end it; then it is on a host that is not asked, where somebody has moved it, and it is turned off again.
///
/// Fails if an end that was refused counts as one that was begun.
#[test]
fn a_guest_that_leaves_after_a_refusal() {
    const ALL: [&str; 3] = [HOSTS[0], HOSTS[1], "qemu+tcp://c/system"];
    let act = |notes: &Path| {
        let first = off_of(TIMES[0], false, notes);
        world(|world| {
            world.hosts[0].copy = None;
            world.run_on(2);
        });
        format!("{first} {}", off_of(TIMES[0], false, notes))
    };
    let create = || {
        let mut world = World::new(&ALL, false);
        world.run_on(0);
        world.refuses = 5;
        world
    };
    assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), ["State NotFound"]);
}

/// Asks for its status or starts it, and judges the answer.
fn look_or_start(starts: bool, notes: &Path) -> String {
    let (mut plug, time) = plug(TIMES[0], true, notes);
    plug.retry_on = 1;
    let deadline = Deadline::after(time);
    if starts {
        return plug.on(&deadline).map_or_else(|error| format!("{:?}", error.kind), |done| format!("{done:?}"));
    }
    let status = plug.status(&deadline);
    if let Ok(Status::Off) = status {
        world(|world| world.wrong = world.not_off().map(|wrong| format!("\"off\" was said, and {wrong}")));
    }
    status.map_or_else(|error| format!("{:?}", error.kind), |status| format!("{status:?}"))
}

/// It moves, and a host that could not be asked is there again.
///
/// Fails if one round is enough after one in which a host could not be asked.
#[test]
fn a_guest_that_moves_while_it_is_looked_at() {
    for (starts, answers) in [(false, ["On", "State"]), (true, ["Already", "State"])] {
        let create = || {
            let (from, to) = [(1, 0), (0, 1)][pick(2)];
            let mut world = hosts(true);
            world.may = |_, happens| matches!(happens, Happens::Heals(_));
            world.reopens = true;
            world.move_from(from, to, Step::Asked);
            world.hosts[pick(2)].reach = Reach::Down;
            world
        };
        let found = every_course_of(3, create, |notes| look_or_start(starts, notes));
        assert_eq!(found.into_keys().collect::<Vec<_>>(), answers);
    }
}

/// Its start is refused, somebody starts it elsewhere, and that host is cut off.
///
/// Fails if the start is tried again where the guest may run by now.
#[test]
fn a_start_that_was_refused() {
    let create = || {
        let mut world = hosts(true);
        world.refuses = 1;
        world.may =
            |world, happens| world.refuses == 0 && world.calling != "start" && matches!(happens, Happens::Starts(1) | Happens::Cut(1));
        world
    };
    let answers = every_course_of(2, create, |notes| look_or_start(true, notes));
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), ["Changed", "State"]);
}

/// Hosts are cut off or freeze, and come back, with a guest that moves.
#[test]
fn hosts_that_do_not_answer() {
    let answers = every_course(2, || {
        let cut = pick(2) == 1;
        let mut world = hosts(cut);
        if cut {
            world.may = |_, happens| matches!(happens, Happens::Cut(_) | Happens::Heals(_));
            world.move_from(0, 1, Step::Asked);
        } else {
            world.may = |_, happens| matches!(happens, Happens::Freezes(_) | Happens::Heals(_));
            world.move_from(1, 0, Step::HandedOver);
        }
        world
    });
    assert!(answers["Changed"] > 0 && answers["State"] > 0);
}

/// The guest ends by itself, and somebody starts it again, anywhere, also where a copy of it runs elsewhere.
#[test]
fn a_guest_that_others_start() {
    let answers = every_course(2, || {
        let mut world = hosts(pick(2) == 1);
        world.may = |_, happens| matches!(happens, Happens::Starts(_) | Happens::Ends(_));
        if pick(2) == 0 {
            world.run_on(0);
        }
        world
    });
    assert!(answers["Changed"] > 0 && answers["Already"] > 0);
}

/// libvirt refuses to end it, takes its time, breaks the connection, or forgets an emulator that hangs; and it is turned off again, at once or
/// later.
///
/// Fails if the note of an end that was not seen is not heeded, or a host that cannot be asked is passed over.
#[test]
fn a_libvirt_that_does_not_do_as_it_is_told() {
    let twice = |notes: &Path| {
        let time = TIMES[pick(2)];
        let first = off_within(time, notes);
        pass([Duration::ZERO, Duration::from_secs(90)][pick(2)]);
        format!("{first} {}", off_within(time, notes))
    };
    let create = || {
        let mut world = hosts(pick(2) == 1);
        world.unruly = true;
        world.may = |_, happens| matches!(happens, Happens::Freezes(0) | Happens::Heals(0) | Happens::Hangs(0));
        world.run_on(0);
        world
    };
    let answers = every_course_of(2, create, twice);
    assert!(answers.keys().any(|answer| answer.starts_with("Changed")) && answers.keys().any(|answer| answer.starts_with("State")));
}

/// An emulator hangs that somebody else has tried to end for a while, and it is turned off once more, as Pacemaker does at once. Of an end that
/// libvirt gives up within [`WAITED`] nobody can tell that it was not an ordinary one.
///
/// Fails if an end for which libvirt has waited long is taken for an ordinary one, in either.
///
/// [`WAITED`]: super::victim
#[test]
fn an_end_that_others_have_begun() {
    let answers = every_course_of(
        1,
        || {
            let mut world = hosts(pick(2) == 1);
            world.unruly = true;
            world.run_on(0);
            world.hang(0, Some(Duration::from_secs([0, 20, 40, 60, 74][pick(5)])));
            world
        },
        |notes| {
            let time = TIMES[pick(2)];
            let first = off_within(time, notes);
            pass(Duration::from_secs([1, 90][pick(2)]));
            format!("{first} {}", off_within(time, notes))
        },
    );
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), ["State State"]);
}
