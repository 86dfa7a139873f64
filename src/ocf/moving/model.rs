//! `migrate_from` against simulated hosts, in every course of events within bounds: success is only said if the guest runs here, and is said
//! if it does and nothing is in the way; the answer comes in time; and nothing is asked of any host but how the guest is, so that no copy of
//! it is ended, called off or let run by this action.
//!
//! The first host is the target, on which the action runs. The tests say with which wrong code they were seen to fail. A guest whose definition
//! cannot be had here is not among them: reading it takes a process of its own.
#![allow(clippy::unwrap_used, reason = "a test")]

use super::super::Environment;
use super::super::actions::Action;
use super::*;
use crate::deadline::{Deadline, now};
use crate::domain::ffi::simulated;
use crate::simulation::hosts::{GUEST, Happens, Reach, Step, UUID, World};
use crate::simulation::{explore, folder, lasted, pick, world};
use std::collections::BTreeMap;
use std::ffi::CStr;

/// Here, and where it comes from.
const HOSTS: [&str; 2] = ["qemu+tcp://b/system", "qemu+tcp://a/system"];
const CONFIG: &str = "/srv/web1.xml";

/// Timeouts of Pacemaker's: a short one, and the usual one.
const SHORT: Duration = Duration::from_secs(10);
const USUAL: Duration = Duration::from_secs(60);

/// Seconds that are longer than those.
const NEVER: u64 = 1_000;

/// For how long nothing has to have happened before an answer counts as that of a guest that is as it is.
const CALM: Duration = Duration::from_secs(1);

/// What the last question takes, after libvirt has come back in it.
const MOMENT: Duration = Duration::from_millis(10);

/// The action of Pacemaker's that has this time.
fn call(time: Duration) -> Call {
    let variables = [
        ("OCF_RESOURCE_INSTANCE", "web1".to_owned()),
        ("OCF_RESKEY_config", CONFIG.to_owned()),
        ("OCF_RESKEY_hypervisor", HOSTS[0].to_owned()),
        ("OCF_RESKEY_CRM_meta_on_node", "b".to_owned()),
        ("OCF_RESKEY_CRM_meta_migrate_source", "a".to_owned()),
        ("OCF_RESKEY_CRM_meta_timeout", time.as_millis().to_string()),
    ];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let environment = Environment::new(&variables, "b");
    let deadline = Deadline::after(environment.budget());
    let call = Call::new(Action::MigrateFrom, environment, deadline);
    assert_eq!(call.faults, []);
    call
}

/// Awaits the guest; the answer, in a few words. `came`: it has come before.
fn awaited(time: Duration, came: bool) -> String {
    let call = call(time);
    let text = |text: &CStr| text.to_string_lossy().into_owned();
    let identity = Identity { name: text(GUEST), uuid: Some(text(UUID)) };
    call.shelf().write(&call.new_record(&identity));
    world(|world| world.quiet = false);
    let answer = call.run(migrate_from);
    let took = lasted();
    let (reason, ok) = (answer.as_ref().err().and_then(|failure| failure.reason.clone()).unwrap_or_default(), answer.is_ok());
    world(|world| {
        let checks = [
            (took > time, "the answer comes too late"),
            (world.meddled, "something was done"),
            // What nobody here has ever said anything about, or only at this moment, runs by the word of migrate_to.
            (
                ok && !world.ran(0) && !world.is_paused(0) && world.hosts[0].told && world.calm() > MOMENT,
                "success was said, and it does not run here",
            ),
            (!ok && world.runs(0) && world.hosts[0].reach == Reach::Up && world.calm() > CALM, "it runs here, and that was not said"),
            (!ok && world.runs(0) && came, "it runs here since before, and that was not said"),
            (!ok && !reason.contains("web1"), "the reason does not say of what"),
        ];
        if let Some((_, wrong)) = checks.iter().find(|(is, _)| *is) {
            world.wrong.get_or_insert_with(|| format!("{wrong} ({} s, {reason})", took.as_secs()));
        }
    });
    let words = ["is not coming", "does not run here yet", "ran and is gone"];
    match answer {
        Ok(()) => "here".into(),
        Err(_) => words.iter().find(|words| reason.contains(**words)).map_or(reason, |words| (*words).to_owned()),
    }
}

/// Which courses of events are tried.
#[derive(Clone, Copy)]
struct Bounds {
    /// How often a course leaves the usual one.
    budget: usize,
    /// The action's time.
    time: Duration,
}

/// Awaits it in every course of events within bounds. `came`: it has come before.
fn every_course(bounds: Bounds, came: bool, may: fn(&World, Happens) -> bool, create: impl Fn(&mut World)) -> BTreeMap<String, usize> {
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, false);
        (world.quiet, world.goes_on, world.reopens, world.may) = (true, true, true, may);
        world.notes = folder.path().to_owned();
        create(&mut world);
        world
    };
    explore(bounds.budget, create, || awaited(bounds.time, came), |world, _| world.wrong.take().map_or(Ok(()), Err))
}

/// The daemon here freezes, goes, and is there again.
fn comes_and_goes(_: &World, happens: Happens) -> bool {
    matches!(happens, Happens::Freezes(0) | Happens::Cut(0) | Happens::Heals(0))
}

/// As Pacemaker calls it: the guest runs here, and its source may not have heard of that. The daemon here comes and goes, and the guest ends.
///
/// Fails if a guest that libvirt cannot be asked about is not taken for running, if one that has ended before the last look is taken for
/// running, or if a look takes its time from elsewhere than the action.
#[test]
fn a_guest_that_has_come() {
    for bounds in [Bounds { budget: 3, time: SHORT }, Bounds { budget: 2, time: USUAL }] {
        let may = |world: &World, happens| comes_and_goes(world, happens) || happens == Happens::Ends(0);
        let answers = every_course(bounds, true, may, |world| {
            world.hosts[0].defined = pick(2) == 1;
            world.move_from(1, 0, Step::Runs);
        });
        assert!(["here", "is not coming", "ran and is gone"].iter().all(|answer| answers[*answer] > 0), "{answers:?}");
    }
}

/// The process table cannot be read for a moment, before libvirt has let the guest run.
///
/// Fails if the first such look is the end of the action.
#[test]
fn a_process_table_that_cannot_be_read_for_a_moment() {
    let answers = every_course(Bounds { budget: 1, time: USUAL }, false, comes_and_goes, |world| {
        world.filling = CALM;
        world.move_from(1, 0, Step::Asked);
        world.unread = Some((now(), now() + [CALM / 2, CALM * 3][pick(2)]));
    });
    assert!(answers.keys().all(|answer| ["here", "is not coming", "does not run here yet"].contains(&answer.as_str())), "{answers:?}");
    assert!(answers["here"] > 0, "{answers:?}");
}

/// It was paused when it was moved, or is by now, by a person (1), an I/O error (5), the watchdog (6) or a snapshot (9).
///
/// Fails if one that a snapshot has paused is not waited for.
#[test]
fn a_guest_that_is_paused() {
    for bounds in [Bounds { budget: 2, time: SHORT }, Bounds { budget: 1, time: USUAL }] {
        let answers = every_course(bounds, false, comes_and_goes, |world| {
            world.move_from(1, 0, Step::Runs);
            world.pause(0, [1, 5, 6, 9][pick(4)]);
        });
        assert!(answers["here"] > 0 && answers["does not run here yet"] > 0, "{answers:?}");
    }
}

/// Called while it is still coming in, for a moment, for long or for ever: the daemons lose each other, either freezes, either copy ends, so
/// that the move fails or comes to its end late. (Daemons that lose each other in the handover are what `migrate_to` watches for.)
///
/// Fails if any guest that is paused is taken for one that was moved so, or if an emulator that libvirt cannot be asked about is taken for a guest
/// that runs although libvirt has said before that it waits, or that it was not here.
#[test]
fn a_guest_that_is_on_its_way() {
    let may = |world: &World, happens| {
        let others = matches!(happens, Happens::Freezes(1) | Happens::Heals(1) | Happens::Ends(_));
        let part = matches!(happens, Happens::Parts(Step::Asked | Step::Filling, false));
        comes_and_goes(world, happens) || others || part
    };
    for bounds in [Bounds { budget: 2, time: SHORT }, Bounds { budget: 1, time: USUAL }] {
        let answers = every_course(bounds, false, may, |world| {
            let (seconds, step) = [(1, Step::Asked), (7, Step::Filling), (1, Step::HandedOver), (NEVER, Step::Filling)][pick(4)];
            world.filling = Duration::from_secs(seconds);
            world.move_from(1, 0, step);
        });
        assert!(answers["here"] > 0 && answers["is not coming"] > 0 && answers["does not run here yet"] > 0, "{answers:?}");
    }
}
