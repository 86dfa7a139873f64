//! A move by post-copy against simulated hosts, in every course of events within bounds from the moment in which the guest is let run at the
//! target: it never runs on both, neither half of it is ended or held while all of it is not in one place, "moved" is only said when it is at
//! the target, lost memory is called so, and what can come together is brought together.
//!
//! The tests say with which wrong code they were seen to fail.

use super::{AFTERWARDS, HERE, LATE, THERE, moved};
use crate::domain::ffi::simulated;
use crate::domain::migration::policy::Policy;
use crate::domain::{Error, Kind};
use crate::simulation::hosts::{Happens, Reach, Step, World};
use crate::simulation::{FOR_EVER, explore, lasted, pass, pick, world};
use std::collections::BTreeMap;
use std::time::Duration;

/// The time of the action: post-copy begins in the middle of it, and then there is time for daemons to give each other up.
const TIME: Duration = Duration::from_secs(70);

/// That of a later one, which finds the move broken.
const AGAIN: Duration = Duration::from_secs(40);

/// For how long nothing has to have happened before an answer counts as that of hosts that are as they are.
const CALM: Duration = Duration::from_secs(10);

/// What a look at both hosts takes at most that answer: what happened before the last one is known.
const LOOK: Duration = Duration::from_millis(10);

/// Moves it; the answer, in a few words.
fn carry_over(time: Duration, broken: bool) -> String {
    let broken = broken.then(|| Error::new(Kind::State, BROKEN));
    let answer = moved(Policy::Postcopy, time, broken);
    let took = lasted();
    let (ok, text) = (answer.is_ok(), answer.as_ref().err().map(|error| error.text.clone()).unwrap_or_default());
    world(|world| {
        let up = world.hosts.iter().all(|host| host.reach == Reach::Up);
        let asked = up && world.calm() > CALM;
        let lost = world.halves.is_some_and(|halves| halves.lost);
        let left = world.hosts.iter().any(|host| host.copy.is_some());
        let checks = [
            (took > time + LATE, "the answer comes too late"),
            (ok && !world.was_whole(1), "\"moved\" was said, and not all of it is at the target"),
            (
                ok && world.hosts[0].copy.is_some() && world.hosts[0].reach == Reach::Up,
                "\"moved\" was said, and a copy is left at the source",
            ),
            (!ok && world.is_whole(1) && world.hosts[0].copy.is_none() && asked, "it has moved, and that was not said"),
            (lost && left && up && world.calm() > LOOK && !text.contains("lost memory"), "memory was lost, and that was not said"),
            (text.contains("lost memory") && !lost, "memory was called lost that is not"),
            (!ok && world.may_be_whole() && asked, "what could come together was left"),
        ];
        if let Some((_, wrong)) = checks.iter().find(|(is, _)| *is) {
            world.wrong.get_or_insert_with(|| format!("{wrong} ({} s, {text})", took.as_secs()));
        }
    });
    pass(AFTERWARDS);
    world(World::catch_up);
    match answer {
        Ok(()) => "moved".into(),
        Err(_) if text.contains("lost memory") => "lost memory".into(),
        Err(error) => format!("{:?}", error.kind),
    }
}

/// What libvirt says of a half at the source.
const BROKEN: &str = "web1 is paused (post-copy failed)";

/// How often a course leaves the usual one, and when the rest of the memory has come then: soon, late, or not in the time.
const BOUNDS: [(usize, Duration); 3] = [(2, Duration::from_secs(1)), (1, Duration::from_secs(33)), (1, FOR_EVER)];

/// Moves it in every course of events.
fn every_course(time: Duration, broken: bool, may: fn(&World, Happens) -> bool, create: impl Fn(&mut World)) -> BTreeMap<String, usize> {
    simulated::install();
    let mut all = BTreeMap::new();
    for (budget, rest) in BOUNDS {
        let create = || {
            let mut world = World::new(&[HERE, THERE], false);
            (world.quiet, world.goes_on, world.filling, world.rest, world.may) = (true, true, FOR_EVER, rest, may);
            world.move_from(0, 1, Step::Filling);
            create(&mut world);
            world
        };
        let answers = explore(budget, create, || carry_over(time, broken), |world, _| world.wrong.take().map_or(Ok(()), Err));
        answers.into_iter().for_each(|(answer, count)| *all.entry(answer).or_default() += count);
    }
    all
}

/// The emulators lose each other, and find each other again; the daemons lose each other; either half ends.
///
/// Fails if a broken post-copy is not resumed, if the half here is ended because the guest runs there, or if the half that is left when the other one
/// has ended is not said to have lost memory.
#[test]
fn halves_that_lose_each_other() {
    let may = |_: &World, happens| matches!(happens, Happens::Breaks | Happens::Mends | Happens::Unhears | Happens::Ends(_));
    let answers = every_course(TIME, false, may, |_| ());
    assert!(["moved", "lost memory", "TimedOut"].iter().all(|answer| answers.contains_key(*answer)), "{answers:?}");
}

/// Either daemon freezes, goes, and is there again, and the emulators lose each other.
///
/// Fails if a half that waits here is held, as a copy that waits is.
#[test]
fn daemons_that_come_and_go() {
    let may = |_: &World, happens| {
        matches!(happens, Happens::Freezes(_) | Happens::Cut(_) | Happens::Heals(_) | Happens::Breaks | Happens::Mends)
    };
    let answers = every_course(TIME, false, may, |_| ());
    assert!(answers.contains_key("moved") && answers.contains_key("TimedOut"), "{answers:?}");
}

/// A later action finds it broken, and any of that happens.
///
/// Fails if a half that runs there is taken for the guest, or if a target that does not tell its version once is not asked again.
#[test]
fn a_move_that_was_left_half_done() {
    let may = |_: &World, happens| !matches!(happens, Happens::Starts(_) | Happens::Hangs(_) | Happens::Parts(..));
    let answers = every_course(AGAIN, true, may, |world| world.halve_and_break(pick(2) == 1));
    assert!(["moved", "lost memory"].iter().all(|answer| answers.contains_key(*answer)), "{answers:?}");
}
