//! `start` against simulated hosts, in every course of events within bounds: where nothing is in the way it says that the guest runs, and then the
//! monitor that follows does not say that it has failed.
//!
//! The first host is the one on which the action runs. The tests say with which wrong code they were seen to fail.
#![allow(clippy::unwrap_used, reason = "a test")]

use super::super::actions::Action;
use super::super::monitor::monitor;
use super::super::{Environment, parameters};
use super::*;
use crate::deadline::Deadline;
use crate::domain::ffi::simulated;
use crate::simulation::hosts::{GUEST, Happens, Step, World};
use crate::simulation::{explore, folder, lasted, world};
use std::collections::BTreeMap;

/// Here, and another node.
const HOSTS: [&str; 2] = ["qemu+tcp://b/system", "qemu+tcp://a/system"];

const TIME: Duration = Duration::from_secs(60);

fn call(action: Action, interval: &str) -> Call {
    let variables = [
        ("OCF_RESOURCE_INSTANCE", "web1"),
        ("OCF_RESKEY_config", "/srv/web1.xml"),
        ("OCF_RESKEY_hypervisor", HOSTS[0]),
        ("OCF_RESKEY_CRM_meta_interval", interval),
        ("OCF_RESKEY_CRM_meta_timeout", "60000"),
    ];
    let mut environment = Environment::new(&variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    environment.host = "b".into();
    let (mut parameters, faults) = parameters::read(&environment);
    assert_eq!(faults, []);
    let hypervisor = parameters.hypervisor.take().unwrap();
    let deadline = Deadline::after(environment.budget());
    Call { action, environment, parameters, hypervisor, faults, deadline }
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
fn every_course(unfinished: bool, may: fn(&World, Happens) -> bool, create: fn(&mut World)) -> BTreeMap<String, usize> {
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
