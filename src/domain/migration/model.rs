//! The end of a move against simulated hosts, in every course of events within bounds: the guest never runs on both, the last copy of it is
//! never ended, and "moved" is only said when it runs at the target.
//!
//! The place between two steps of the move is a choice too, so that what a program that asks every 250 ms can see is not all that happens.
#![allow(clippy::unwrap_used, reason = "a test")]

mod beginning;
mod postcopy;

use super::handover::Handover;
use super::policy::Policy;
use super::recover::Sides;
use super::side::{Here, There};
use super::transfer::Transfer;
use super::{Error, Found, Kind, Limits, Plan, RESERVE, Result, carry};
use crate::deadline::Deadline;
use crate::domain::ffi::simulated;
use crate::domain::migration::history::Course;
use crate::domain::status::Trace;
use crate::domain::{Connection, Identity, Uri, evidence};
use crate::simulation::hosts::{GUEST, Happens, KEEPALIVE, Reach, Step, UUID, World};
use crate::simulation::{FOR_EVER, expect_move, explore, lasted, pass, pick, world};
use std::collections::BTreeMap;
use std::time::Duration;

const HERE: &str = "qemu+tcp://a/system";
const THERE: &str = "qemu+tcp://b/system";

/// The time of the action, and what its answer may be later.
const TIME: Duration = Duration::from_secs(45);
const LATE: Duration = Duration::from_secs(2);

/// The least that a host takes until it is there again after it has lost its power.
const BOOT: Duration = Duration::from_secs(15);

/// For how long nothing has to have happened before an answer counts as that of hosts that are as they are.
const CALM: Duration = Duration::from_secs(10);

/// How long the world goes on when the program has ended.
const AFTERWARDS: Duration = Duration::from_secs(60);

fn identity() -> Identity {
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    Identity { name: text(GUEST), uuid: Some(text(UUID)) }
}

fn plan(policy: Policy) -> Plan {
    Plan { policy, ..Plan::to(THERE) }
}

/// Moves the guest by this policy, or what an earlier move has left half done because of `broken`.
fn moved(policy: Policy, time: Duration, broken: Option<Error>) -> Result<()> {
    let identity = identity();
    let deadline = Deadline::after(time);
    let working = deadline.before(RESERVE);
    let uri = Uri::parse(HERE).unwrap();
    let plan = plan(policy);
    let guest = Connection::open(HERE, &working).unwrap().guest(&identity.name, &working).unwrap().unwrap();
    let emulators = evidence::find(&identity, None, &working).unwrap();
    let here = Here { uri: &uri, trace: Trace { emulator: emulators.first().copied(), ..identity.into() } };
    let (mut there, handover) = (There::new(THERE), Handover::new(emulators, broken.is_none()));
    let postcopy = broken.is_some();
    // A move by post-copy is disturbed from where that begins.
    world(|world| world.quiet = policy == Policy::Postcopy && !postcopy);
    if !postcopy {
        // Before it the downtime is set, if the policy has one.
        expect_move(usize::from(policy != Policy::Plain));
    }
    let transfer = Transfer { guest: &guest, here: &here, there: &mut there, plan: &plan, last: None, flowed: false, postcopy, handover };
    carry(transfer, Found { broken, paused: false }, &mut Course::default(), &Limits { working, whole: deadline })
}

/// Moves the guest; the answer, in a word.
fn carry_over() -> String {
    carry_over_in(TIME, TIME)
}

/// Like [`carry_over`], in this `time`; the answer has to come before, within `by`.
fn carry_over_in(time: Duration, by: Duration) -> String {
    let answer = moved(Policy::Plain, time, None);
    let took = lasted();
    world(|world| {
        if took > by + LATE {
            world.wrong.get_or_insert(format!("the answer took {} s", took.as_secs()));
        }
        // Two that run are called so, whatever was done about the one here.
        let told = answer.as_ref().map_or_else(|error| error.kind == Kind::Lives, |()| true);
        if !told && world.runs(1) && world.hosts[1].reach == Reach::Up && world.calm() > CALM {
            world.wrong.get_or_insert(format!("it runs at the target and that was not said: {answer:?}"));
        }
        if answer.is_ok() && !world.runs(1) {
            world.wrong.get_or_insert("\"moved\" was said, and it does not run at the target".into());
        }
        // A libvirt here that cannot be asked leaves its copy to stop, which comes next.
        if answer.is_ok() && world.hosts[0].copy.is_some() && world.hosts[0].reach == Reach::Up {
            world.wrong.get_or_insert("\"moved\" was said, and a copy is left at the source".into());
        }
    });
    // In parts: a step of a move is planned when the one before it is made.
    for _ in 0..6 {
        pass(AFTERWARDS / 6);
        world(World::catch_up);
    }
    world(|world| {
        // One that is held is known to be.
        if !world.runs(0) && !world.runs(1) && !world.is_held(0) && world.hosts[0].reach == Reach::Up {
            world.wrong.get_or_insert("it runs nowhere".into());
        }
    });
    match answer {
        Ok(()) => "moved".into(),
        Err(error) => format!("{:?}", error.kind),
    }
}

/// Hosts between which it is about to be moved.
fn moving(endless: bool) -> World {
    let mut world = World::new(&[HERE, THERE], false);
    (world.goes_on, world.quiet) = (true, true);
    world.filling = if endless { FOR_EVER } else { world.filling };
    world.move_from(0, 1, Step::Asked);
    world
}

/// Moves it in every course of events. `endless`: the memory changes faster than it flows.
fn every_course(budget: usize, endless: bool, may: fn(&World, Happens) -> bool) -> BTreeMap<String, usize> {
    simulated::install();
    let create = || {
        let mut world = moving(endless);
        world.may = may;
        world
    };
    explore(budget, create, carry_over, |world, _| world.wrong.take().map_or(Ok(()), Err))
}

/// The daemons of the two hosts lose each other at any moment, and the other host can be asked, or not, or again.
#[test]
fn hosts_that_lose_each_other() {
    let answers = every_course(2, false, |_, happens| matches!(happens, Happens::Parts(..) | Happens::Heals(1)));
    assert!(answers["moved"] > 0 && answers.len() > 1, "{answers:?}");
}

/// The libvirt of either host freezes at any moment, and goes on.
///
/// Fails if a guest that runs at the target is called "not moved" because libvirt here is silent to the end.
#[test]
fn daemons_that_freeze() {
    let answers = every_course(3, false, |_, happens| matches!(happens, Happens::Freezes(_) | Happens::Heals(_)));
    assert!(answers["moved"] > 0 && answers.len() > 1, "{answers:?}");
}

/// Any of that in a move that comes to no end by itself.
///
/// Fails if a copy here that waits is not ended when the guest runs there, or if it is not held when the time ends and nobody can tell.
#[test]
fn a_move_that_does_not_end() {
    let any = |_: &World, happens: Happens| matches!(happens, Happens::Parts(..) | Happens::Cut(1) | Happens::Freezes(_));
    let answers = every_course(1, true, any);
    assert!(answers["moved"] > 0 && answers["State"] > 0 && answers["TimedOut"] > 0, "{answers:?}");
}

/// The target runs the guest, is lost, and is there again without it. (No host boots in less.)
///
/// Fails if a copy here that is held is let go on because the target has none.
#[test]
fn a_target_that_is_lost_after_the_guest_ran_there() {
    let may = |world: &World, happens| match happens {
        Happens::Parts(Step::Runs, true) => true,
        Happens::Ends(1) => world.hosts[1].reach == Reach::Down,
        Happens::Heals(1) => world.hosts[1].copy.is_none() && world.calm() > BOOT,
        _ => false,
    };
    let answers = every_course(3, false, may);
    assert!(answers["TimedOut"] > 0, "{answers:?}");
}

/// A handover, and what it is watched with.
struct Watch<'a> {
    here: Here<'a>,
    there: There,
    handover: Handover,
    deadline: Deadline,
}

fn watch(uri: &Uri) -> Watch<'_> {
    let deadline = Deadline::after(TIME);
    let emulators = evidence::find(&identity(), None, &deadline).unwrap();
    let here = Here { uri, trace: Trace { emulator: emulators.first().copied(), ..identity().into() } };
    Watch { here, there: There::new(THERE), handover: Handover::new(emulators, true), deadline }
}

/// The copy here waits, the target is lost, and the daemon here stalls for a moment at any time: the copy is held before libvirt gives up.
///
/// Fails if a state that cannot be asked for counts as the end of the wait.
#[test]
fn a_stall_here_does_not_put_off_the_hold() {
    simulated::install();
    let create = || {
        let mut world = World::new(&[HERE, THERE], false);
        world.move_from(0, 1, Step::Runs);
        world.hosts[1].reach = Reach::Silent;
        world
    };
    let uri = Uri::parse(HERE).unwrap();
    let act = || {
        let Watch { here, mut there, mut handover, deadline } = watch(&uri);
        let mut stall = Some(Duration::from_millis(500 * u64::try_from(pick(30)).unwrap()));
        while !handover.held() && deadline.pause(Duration::from_millis(250)) {
            if stall.take_if(|stall| lasted() >= *stall).is_some() {
                world(|world| world.freeze_for(0, Duration::from_millis(1500)));
            }
            handover.settled(&here, &mut there, &deadline).unwrap();
        }
        if lasted() > KEEPALIVE - Duration::from_secs(5) {
            world(|world| world.wrong = Some(format!("it is held after {} s", lasted().as_secs())));
        }
        "held".into()
    };
    explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
}

/// The guest runs at the target, and the daemon here, which was not told, stalls: what it does first when it is back is to let the copy here go on.
///
/// Fails if that copy is not held before the daemon here is waited for.
#[test]
fn a_stall_here_while_the_guest_runs_there() {
    simulated::install();
    let create = || {
        let mut world = World::new(&[HERE, THERE], false);
        world.move_from(0, 1, Step::HandedOver);
        world.lose_word_for(Duration::from_secs(5 + u64::try_from(pick(25)).unwrap()));
        world
    };
    let uri = Uri::parse(HERE).unwrap();
    let act = || {
        let Watch { here, mut there, mut handover, deadline } = watch(&uri);
        let begun = handover.settled(&here, &mut there, &deadline).unwrap();
        world(|world| world.hosts[0].reach = Reach::Silent);
        while !begun && deadline.pause(Duration::from_millis(250)) {
            if handover.settled(&here, &mut there, &deadline).unwrap_or(true) {
                break;
            }
        }
        world(|world| world.hosts[0].copy.is_none().to_string())
    };
    let answers = explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
    assert!(answers.keys().eq(["true"]), "{answers:?}");
}

/// A guest of this name runs at the target that nobody knows to have come by this move, and the daemon here freezes: the copy here may be all
/// there is of this guest, and is not ended.
///
/// Fails if a guest is taken for moved because one of its name runs there.
#[test]
fn a_stall_here_while_another_guest_of_its_name_runs_there() {
    simulated::install();
    let create = || {
        let mut world = World::new(&[HERE, THERE], false);
        world.run_on(0);
        world.run_on(1);
        world.hosts[0].reach = Reach::Silent;
        world
    };
    let uri = Uri::parse(HERE).unwrap();
    let act = || {
        let Watch { here, mut there, mut handover, deadline } = watch(&uri);
        handover.ours = pick(2) == 1;
        while deadline.pause(Duration::from_millis(250)) && !handover.settled(&here, &mut there, &deadline).unwrap() {}
        let ended = world(|world| world.hosts[0].copy.is_none());
        format!("ours={} ended={ended}", handover.ours)
    };
    let answers = explore(0, create, act, |_, _| Ok(()));
    assert!(answers.keys().eq(["ours=false ended=false", "ours=true ended=true"]), "{answers:?}");
}

/// The target is lost for good, and there is much time: the answer comes when libvirt has given it up. Until then Pacemaker does nothing else:
/// neither does it fence the target, nor start what ran there.
///
/// Fails if a target that cannot be asked is asked again until the time is over.
#[test]
fn an_answer_that_does_not_wait_for_a_target_that_is_lost() {
    simulated::install();
    for step in [Step::Asked, Step::Filling, Step::HandedOver, Step::Runs] {
        let create = || {
            let mut world = moving(true);
            world.lose(step);
            world
        };
        let by = KEEPALIVE + Duration::from_secs(10);
        let act = || carry_over_in(Duration::from_secs(120), by);
        let answers = explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
        let kind = match step {
            Step::Asked => "Unreachable",
            Step::Filling => "Refused",
            Step::HandedOver | Step::Runs => "TimedOut",
        };
        assert!(answers.keys().eq([kind]), "{step:?}: {answers:?}");
    }
}

/// The guest runs at the target, whose daemon is lost before it has said so, and is there again, soon or when it has found its guests: libvirt here
/// lets the copy here go on at once.
///
/// Fails if two copies that run are left to themselves, or if a daemon is given up that is restarted.
#[test]
fn a_target_whose_word_is_lost() {
    simulated::install();
    let create = || {
        let mut world = moving(false);
        world.lose_word(Duration::from_secs([1, 8][pick(2)]));
        world
    };
    let judge = |world: &mut World, _: &str| match world.wrong.take() {
        // From the moment in which libvirt lets the copy here go on to the one in which that is seen.
        Some(wrong) if wrong != "it runs on both hosts" => Err(wrong),
        _ if !world.is_held(0) => Err("the copy here runs on".into()),
        _ => Ok(()),
    };
    let answers = explore(0, create, carry_over, judge);
    assert!(answers.keys().eq(["Lives"]), "{answers:?}");
}

/// The target has no copy, and the one here waits for good: libvirt was restarted in the handover.
///
/// Fails if that counts as a move whose end is known.
#[test]
fn a_copy_that_is_left_waiting() {
    simulated::install();
    let create = || {
        let mut world = moving(false);
        world.leave_waiting();
        world
    };
    let answers = explore(0, create, carry_over, |_, _| Ok(()));
    assert!(answers.keys().eq(["TimedOut"]), "{answers:?}");
}

/// The answer to the request was lost, the target cannot be asked, and libvirt here says of no job whether it is under way. The guest is handed over
/// shortly before the time ends: its copy is held.
///
/// Fails if the question for the job takes the time of the last look, or what was seen before it counts after it.
#[test]
fn a_question_that_is_not_answered_takes_no_time_of_the_last_look() {
    simulated::install();
    let create = || {
        let mut world = World::new(&[HERE, THERE], false);
        world.move_from(0, 1, Step::Filling);
        world.unanswered = Some("job");
        world
    };
    let chosen = |step: u64, of: usize| Duration::from_millis(step * u64::try_from(pick(of)).unwrap());
    let (uri, error) = (Uri::parse(HERE).unwrap(), Error::new(Kind::Internal, "the answer is lost"));
    let plan = plan(Policy::Plain);
    let act = || {
        let time = RESERVE - chosen(250, 20);
        // The last look needs some of it.
        let before_the_end = Duration::from_secs(1) + chosen(100, 30);
        world(|world| world.lose_in(Step::HandedOver, time - before_the_end));
        let Watch { here, mut there, mut handover, .. } = watch(&uri);
        let mut sides = Sides { here: &here, there: &mut there, plan: &plan, paused: false, begun: true, flowed: true };
        let answer = sides.recover(&error, &mut handover, &Deadline::after(time));
        assert!(lasted() <= time + LATE, "{:?}", lasted());
        world(|world| {
            if !world.is_held(0) {
                world.wrong.get_or_insert(format!("the copy here is not held: {answer:?}"));
            }
        });
        "held".into()
    };
    explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
}
