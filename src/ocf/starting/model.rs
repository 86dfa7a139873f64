//! `start` against simulated hosts, in every course of events within bounds: where nothing is in the way it says that the guest runs, and then the
//! monitor that follows does not say that it has failed.
//!
//! The first host is the one on which the action runs. The tests say with which wrong code they were seen to fail.
#![allow(clippy::unwrap_used, reason = "a test")]

use super::super::Environment;
use super::super::actions::Action;
use super::super::exit::Code;
use super::super::monitor::monitor;
use super::*;
use crate::cluster::Peer;
use crate::deadline::{Deadline, now};
use crate::domain::ffi::simulated;
use crate::simulation::hosts::{GUEST, Happens, Step, UUID, World};
use crate::simulation::{explore, folder, lasted, pick, world};
use std::collections::BTreeMap;

/// Here, and another node.
pub(super) const HOSTS: [&str; 2] = ["qemu+tcp://b/system", "qemu+tcp://a/system"];

const TIME: Duration = Duration::from_secs(60);

fn call(action: Action, interval: &str) -> Call {
    call_on("", action, interval)
}

/// Like [`call`], but on a node of this name in a cluster.
fn call_on(node: &str, action: Action, interval: &str) -> Call {
    call_with(node, action, interval, &[])
}

/// Like [`call_on`], with these variables too.
pub(super) fn call_with(node: &str, action: Action, interval: &str, more: &[(&str, &str)]) -> Call {
    let variables = [
        ("OCF_RESOURCE_INSTANCE", "web1"),
        ("OCF_RESKEY_config", "/srv/web1.xml"),
        ("OCF_RESKEY_hypervisor", HOSTS[0]),
        ("OCF_RESKEY_migration_transport", "tcp"),
        ("OCF_RESKEY_autoset_utilization_cpu", "false"),
        ("OCF_RESKEY_autoset_utilization_host_memory", "false"),
        ("OCF_RESKEY_autoset_utilization_hv_memory", "false"),
        ("OCF_RESKEY_CRM_meta_on_node", node),
        ("OCF_RESKEY_CRM_meta_interval", interval),
        ("OCF_RESKEY_CRM_meta_timeout", "60000"),
    ];
    let all = variables.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = Environment::new(&all.collect(), "b");
    let deadline = Deadline::after(environment.budget());
    let call = Call::new(action, environment, deadline);
    assert_eq!(call.faults, []);
    call
}

/// Starts the guest, and looks at it if that has succeeded; what is wrong, or the answer in a word. `unfinished`: an earlier start was.
fn started(unfinished: bool) -> String {
    let call = || call(Action::Start, "0");
    if unfinished {
        let identity = Identity { name: GUEST.to_string_lossy().into_owned(), uuid: None };
        call().shelf().write(&Record { creating: true, ..call().new_record(&identity) });
    }
    world(|world| world.quiet = false);
    let answer = call().run(start);
    let took = lasted();
    let wrong = |text: String| {
        world(|world| {
            world.wrong.get_or_insert(text);
        });
    };
    if took > TIME {
        wrong(format!("the answer took {} s", took.as_secs()));
    }
    match answer {
        Ok(()) => {
            if !world(|world| world.runs(0)) {
                wrong("success was said, and it does not run".into());
            }
            if let Err(failure) = self::call(Action::Monitor, "10000").run(monitor) {
                wrong(format!("it was started, and the monitor says: {failure:?}"));
            }
            "runs".into()
        }
        Err(failure) => failure.reason.unwrap_or_default(),
    }
}

/// Starts it in every course of events that leaves the usual one once.
fn every_course(unfinished: bool, may: fn(&World, Happens) -> bool, create: impl Fn(&mut World) + Copy) -> BTreeMap<String, usize> {
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, false);
        (world.quiet, world.goes_on, world.ends, world.may) = (true, true, true, may);
        world.notes = folder.path().to_owned();
        create(&mut world);
        world
    };
    let act = || {
        call(Action::Start, "0").shelf().remove();
        started(unfinished)
    };
    explore(1, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err))
}

/// It was created by a start that did not live to see it run, or is created now; and libvirt is lost at any time.
///
/// Fails if what the record of that start says is not taken back as soon as libvirt has said that the guest runs.
#[test]
fn a_libvirt_that_is_lost() {
    let lost = |_: &World, happens| matches!(happens, Happens::Cut(0) | Happens::Freezes(0));
    for answers in [every_course(true, lost, |world| world.run_on(0)), every_course(false, lost, |_| {})] {
        assert!(answers["runs"] > 0, "{answers:?}");
    }
}

/// It was being moved here when it was stopped on both nodes. Only now libvirt here makes the copy that it was asked for, and ends it as soon as it
/// sees that nobody wants it any more.
///
/// Fails if such a copy is taken for the guest that is to be started, and its end for the guest's; or if what is in the way of creating the guest for
/// a moment ends the action.
#[test]
fn a_copy_that_comes_late() {
    let answers = every_course(
        false,
        |_, _| false,
        |world| {
            world.in_flight = Duration::from_secs(20);
            world.move_from(1, 0, Step::Asked);
            let _ = world.destroy(1);
        },
    );
    assert!(answers.keys().eq(["runs"]), "{answers:?}");
    assert!(answers["runs"] > 5, "{answers:?}");
}

/// An earlier start has given up on a request that waited in libvirt, and a stop has seen no guest since. libvirt carries that request out just
/// before the one of this start.
///
/// Fails if the copy that comes of it, which nobody lets run, is taken for a guest that somebody has paused.
#[test]
fn a_copy_of_an_earlier_request() {
    let answers = every_course(false, |_, _| false, |world| world.hosts[0].creates = true);
    assert!(answers.keys().eq(["runs"]), "{answers:?}");
}

/// The request of an earlier start, which nobody has stopped since, waits in a daemon of which all ordinary workers are taken.
///
/// Fails if that start's copy is taken for the guest, or if no time is left for waiting.
#[test]
fn a_copy_that_a_busy_daemon_is_still_to_create() {
    let answers = every_course(true, |_, _| false, |world| world.hold_creation(0, Duration::from_secs(20)));
    assert!(answers.keys().eq(["runs"]), "{answers:?}");
}

/// It runs here by post-copy: the rest of its memory comes in time, or does not since its source was lost.
///
/// Fails if success is said of a guest that has only a part of its memory.
#[test]
fn a_half_of_its_memory() {
    let halved = |broken: bool| {
        let create = move |world: &mut World| {
            world.move_from(1, 0, Step::Filling);
            if broken {
                world.halve_and_break(true);
            } else {
                let _ = world.halve();
            }
        };
        every_course(false, |_, _| false, create)
    };
    assert!(halved(false).keys().eq(["runs"]), "{:?}", halved(false));
    let answers = halved(true);
    assert!(answers.keys().all(|answer| answer.contains("running (post-copy failed), part of its memory has not come")), "{answers:?}");
}

/// Starts it in a cluster of two where something happens at the other node meanwhile; in the end it is to run on one of them. `name`: this node's.
fn beside_another(name: fn() -> &'static str, may: fn(&World, Happens) -> bool) -> BTreeMap<String, usize> {
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, false);
        (world.quiet, world.may) = (true, may);
        world.notes = folder.path().to_owned();
        world.peers = vec![Peer { name: "a".into(), member: true }];
        world
    };
    let act = || {
        call(Action::Start, "0").shelf().remove();
        let name = name();
        let after = [1, 2, 5, 300, 4000][pick(5)];
        world(|world| (world.quiet, world.rival) = (false, (Duration::from_millis(after), "a" < name)));
        let answer = call_on(name, Action::Start, "0").run(start);
        world(|world| world.quiet = true);
        if lasted() > Duration::from_secs(7) {
            world(|world| world.wrong = Some(format!("the answer took {} s", lasted().as_secs())));
        }
        let left = call(Action::Stop, "0").shelf().read().is_some();
        let ran = world(|world| world.runs(0));
        for _ in 0..60 {
            crate::simulation::pass(Duration::from_millis(250));
            world(World::catch_up);
        }
        world(|world| {
            let there = world.runs(1);
            let wrong = match &answer {
                Ok(()) if world.runs(0) && !there => return,
                Ok(()) => "success was said, and it does not run here alone".into(),
                Err(failure) if there && !ran && !left && failure.code == Code::Generic => return,
                Err(failure) => format!("{failure:?}, it runs here: {ran}, a record is left: {left}, it runs there: {there}"),
            };
            world.wrong.get_or_insert(wrong);
        });
        answer.map_or_else(|failure| failure.reason.unwrap_or_default(), |()| "runs".into())
    };
    explore(1, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err))
}

/// Another node starts it at the same time, which a resource does that is there twice: each of the two has asked the other before either had it.
///
/// Or the other one is of another guest with the same UUID, whose definition was copied.
///
/// Fails if the other node is not asked again before the guest is let run, or if both give way.
#[test]
fn another_start_at_the_same_time() {
    let name = || {
        if pick(2) == 1 {
            world(|world| (world.odd.renamed, world.odd.uuid) = (Some(1), Some(UUID)));
        }
        ["b", "9"][pick(2)]
    };
    let answers = beside_another(name, |_, happens| happens == Happens::Rivals(1));
    let said = |text: &str| answers.keys().any(|answer| answer.contains(text));
    assert!(answers["runs"] > 0 && said("web1 is on a, ") && said("its UUID is that of web2, which "), "{answers:?}");
    assert!(answers.keys().all(|answer| answer == "runs" || answer.contains(" on a")), "{answers:?}");
}

/// A person starts it on another node after that was asked.
///
/// Fails likewise.
#[test]
fn a_person_who_starts_it_elsewhere() {
    let answers = beside_another(|| "b", |world, happens| happens == Happens::Starts(1) && world.hosts[0].copy.is_none());
    assert!(answers["runs"] > 0 && answers.len() > 1, "{answers:?}");
}

/// The other node dies, or its libvirt hangs, at any time.
///
/// Fails if the silence of one keeps the guest down, whether it has answered before or not, or is waited for too long.
#[test]
fn another_node_that_falls_silent() {
    let answers = beside_another(|| "b", |_, happens| matches!(happens, Happens::Cut(1) | Happens::Freezes(1)));
    assert!(answers.keys().eq(["runs"]), "{answers:?}");
}

/// A guest that ran before its resource was made, with a definition that its host keeps, and monitors of it. Whether its host starts it by
/// itself is looked at once.
///
/// Fails if each monitor does so where the emulator does not show itself, and what is noted of the guest stays incomplete.
#[test]
fn a_guest_that_is_taken_over() {
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, true);
        (world.quiet, world.notes) = (true, folder.path().to_owned());
        world.run_on(0);
        world.unread = (pick(2) == 1).then(|| (now(), now() + TIME * 10));
        world
    };
    let act = || {
        let call = || call(Action::Monitor, "10000");
        call().shelf().remove();
        let fails = (0..3).any(|_| call().run(monitor).is_err());
        world(|world| format!("{fails} {} {}", world.unread.is_none(), world.odd.autostarts))
    };
    let answers = explore(0, create, act, |_, _| Ok(()));
    assert!(answers.keys().eq(["false false 1", "false true 1"]), "{answers:?}");
}

/// The resource is a clone: each instance would start the guest on its node.
#[test]
fn a_clone() {
    let answers = every_course(false, |_, _| false, |_| {});
    assert!(answers.keys().eq(["runs"]), "{answers:?}");
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, false);
        world.notes = folder.path().to_owned();
        world
    };
    let act = || {
        call(Action::Start, "0").shelf().remove();
        let (action, max) = ([Action::Start, Action::ValidateAll][pick(2)], pick(3));
        let mut call = call(action, "0");
        call.environment.clone_max = Some(u32::try_from(max).unwrap());
        let run = if action == Action::Start { start } else { crate::ocf::validate::validate_all };
        let code = call.run(run).map_or_else(|failure| failure.code, |()| Code::Success);
        let expected = if action == Action::Start { Code::Generic } else { Code::Configured };
        let runs = world(|world| world.runs(0));
        format!("{}", code == if max > 1 { expected } else { Code::Success } && runs == (action == Action::Start && max < 2))
    };
    assert_eq!(explore(0, create, act, |_, _| Ok(()))["true"], 6);
}
