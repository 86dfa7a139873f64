//! The two questions to the other nodes against simulated hosts: a guest is let run where nothing is in the way, and never beside another copy.
//!
//! The first host is the one on which the action runs. The tests say with which wrong code they were seen to fail.
#![allow(clippy::unwrap_used, reason = "a test")]

use super::super::model::{HOSTS, call_with};
use super::super::start;
use crate::cluster::Peer;
use crate::domain::Identity;
use crate::domain::ffi::simulated;
use crate::domain::record::Record;
use crate::ocf::actions::Action;
use crate::ocf::monitor::monitor;
use crate::ocf::stopping::stop;
use crate::simulation::hosts::{GUEST, Reach, UUID, World};
use crate::simulation::{explore, folder, lasted, pick, world};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Starts it on the node b, with these variables, in such worlds, with the node a as another one; the answers. "runs" is it only if the guest does so
/// here alone. One that is not let run leaves a record if its copy is still there.
fn answers(more: &[(&str, &str)], create: impl Fn(&mut World)) -> BTreeMap<String, usize> {
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, false);
        (world.quiet, world.notes) = (true, folder.path().to_owned());
        world.peers = vec![Peer { name: "a".into(), member: true }];
        create(&mut world);
        world
    };
    let act = || {
        let call = || call_with("b", Action::Start, "0", more);
        call().shelf().remove();
        let answer = call().run(start);
        let left = call().shelf().read().is_some();
        let (runs, here) = world(|world| (world.runs(0), world.hosts[0].copy.is_some()));
        match answer {
            Ok(()) if runs => "runs".into(),
            Err(failure) if !runs && left == here => failure.reason.unwrap_or_default(),
            answer => format!("{answer:?}, it runs here: {runs}, it is here: {here}, a record is left: {left}"),
        }
    };
    explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err))
}

fn all_run(answers: &BTreeMap<String, usize>) {
    assert!(answers.keys().eq(["runs"]), "{answers:?}");
}

/// It is refused for the guest at the node a.
fn all_refused(answers: &BTreeMap<String, usize>) {
    assert!(answers.keys().all(|answer| answer.starts_with("start of web1 refused: web1 is on a, ")), "{answers:?}");
}

/// A move to the other node was begun here, and nobody saw its end: what the record says of it after each action. A stop ends what a move
/// that is still known has brought to the other node.
///
/// Fails if the stop that follows a refused start ends the copy for which it was refused, or if a move is forgotten that may yet come to its end.
#[test]
fn a_move_whose_end_nobody_saw() {
    simulated::install();
    let folder = folder();
    // It runs there; its copy there still waits, by word of libvirt, which says so or is silent; nothing is there.
    let states: [fn(&mut World); 4] = [
        |world| world.run_on(1),
        |world| {
            world.run_on(1);
            world.pause(1, 2);
        },
        |_| {},
        |world| {
            world.run_on(1);
            world.pause(1, 2);
            world.hosts[1].reach = Reach::Silent;
        },
    ];
    let create = || {
        let mut world = World::new(&HOSTS, false);
        (world.quiet, world.notes) = (true, folder.path().to_owned());
        world.peers = vec![Peer { name: "a".into(), member: true }];
        states[pick(4)](&mut world);
        world
    };
    let act = || {
        let (action, interval) = [(Action::Start, "0"), (Action::Monitor, "0"), (Action::Monitor, "10000")][pick(3)];
        let call = || call_with("b", action, interval, &[]);
        let text = |text: &CStr| text.to_string_lossy().into_owned();
        let identity = Identity { name: text(GUEST), uuid: Some(text(UUID)) };
        call().shelf().write(&Record { moving: Some(HOSTS[1].into()), ..call().new_record(&identity) });
        let answer = call().run(if action == Action::Start { start } else { monitor });
        let there = world(|world| world.runs(1) && world.hosts[1].reach == Reach::Up);
        let known = call().shelf().read().is_some_and(|record| record.moving.is_some());
        let asked = if answer.is_ok() {
            "it was started"
        } else if interval == "0" {
            "a start or a probe"
        } else {
            "a monitor"
        };
        format!("{asked}, it runs there: {there}, the move is known: {known}")
    };
    let answers = explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
    let expected = [
        "a monitor, it runs there: false, the move is known: true",
        "a monitor, it runs there: true, the move is known: true",
        "a start or a probe, it runs there: false, the move is known: true",
        "a start or a probe, it runs there: true, the move is known: false",
        "it was started, it runs there: false, the move is known: false",
    ];
    assert!(answers.keys().eq(expected), "{answers:?}");
}

/// A move to the other node was begun here, and has left a copy there whose emulator hangs with its storage.
///
/// Fails if the stop here answers for a guest that is not here: this node would be fenced with all that is well on it.
#[test]
fn a_copy_that_hangs_where_it_was_moved_to() {
    simulated::install();
    let folder = folder();
    let create = || {
        let mut world = World::new(&HOSTS, false);
        (world.quiet, world.notes) = (true, folder.path().to_owned());
        world.peers = vec![Peer { name: "a".into(), member: true }];
        world.run_on(1);
        world.pause(1, 2);
        world.hang(1, None);
        world
    };
    let act = || {
        let call = || call_with("b", Action::Stop, "0", &[]);
        let text = |text: &CStr| text.to_string_lossy().into_owned();
        let identity = Identity { name: text(GUEST), uuid: Some(text(UUID)) };
        call().shelf().write(&Record { moving: Some(HOSTS[1].into()), ..call().new_record(&identity) });
        let answer = call().run(stop);
        format!("{:?}, in time: {}", answer.map_err(|failure| failure.reason), lasted() < seconds(60))
    };
    let answers = explore(0, create, act, |world, _| world.wrong.take().map_or(Ok(()), Err));
    assert!(answers.keys().eq(["Ok(()), in time: true"]), "{answers:?}");
}

/// The URI of another node leads to this host: it is the same for all nodes, or an address or another name of this host, or the node has
/// this one's name in other letters.
///
/// Fails if the paused copy here is taken for another node's.
#[test]
fn the_libvirt_of_this_host() {
    const ADDRESS: &str = "qemu+tcp://192.0.2.1/system";
    for uri in [HOSTS[0], ADDRESS] {
        all_run(&answers(&[("OCF_RESKEY_remoteuri", uri)], |world| world.odd.aliases = vec![(ADDRESS, 0)]));
    }
    for name in ["B", "host0"] {
        let peers = || vec![Peer { name: name.into(), member: true }];
        all_run(&answers(&[], |world| {
            world.odd.aliases = vec![("qemu+tcp://B/system", 0), ("qemu+tcp://host0/system", 0)];
            world.peers = peers();
        }));
    }
}

/// Another host has the name of this one.
///
/// Fails if the name alone is proof that it is this one.
#[test]
fn a_namesake() {
    all_refused(&answers(&[], |world| {
        world.odd.namesakes = true;
        world.be_busy_for(0, seconds(5));
        world.start_in(1, seconds(3));
    }));
}

/// Two hosts of one image have all in common: their names, the UUIDs that somebody has written into both, and the number of their first guest.
///
/// Fails if a guest that runs can be the one that is here, paused.
#[test]
fn a_twin_of_this_host() {
    all_refused(&answers(&[], |world| {
        (world.odd.namesakes, world.odd.twins) = (true, true);
        world.be_busy_for(0, seconds(5));
        world.start_in(1, seconds(3));
    }));
}

/// A node that creates the guest says nothing at the first question, and then has it.
///
/// Fails if only those are asked again that have answered.
#[test]
fn a_member_that_is_silent_at_first() {
    all_refused(&answers(&[], |world| {
        world.freeze_for(1, seconds(1));
        world.start_in(1, seconds(2));
        world.be_busy_for(0, seconds(5));
    }));
}

/// One that has left the cluster is off; here its libvirt lives after all, and has a copy, which shows that it was asked.
///
/// Fails if it is asked again, which would be waited for.
#[test]
fn a_node_that_is_lost_is_asked_once() {
    all_run(&answers(&[], |world| {
        world.peers[0].member = false;
        world.run_on(1);
        world.pause(1, 1);
        world.freeze_for(1, seconds(2));
        world.be_busy_for(0, seconds(5));
    }));
}

/// It is on a node that was fenced and whose libvirt lives, and at the second question the cluster does not say so in time.
///
/// Fails if that is judged twice.
#[test]
fn a_fenced_node_that_lives() {
    all_run(&answers(&[], |world| {
        world.peers[0].member = false;
        (world.odd.fenced, world.odd.up_before) = (1, 3_600);
        world.run_on(1);
        world.pause(1, 1);
    }));
}

/// It is on a node that was fenced, and that has been started again without Pacemaker, at once or later.
///
/// Fails if the record of the fencing alone says that nothing there counts.
#[test]
fn a_fenced_node_that_was_started_again() {
    all_refused(&answers(&[], |world| {
        world.peers[0].member = false;
        (world.odd.fenced, world.odd.up_before) = (2, [-1, -40, -80_000][pick(3)]);
        world.run_on(1);
    }));
}

/// The creation takes all the time, or all but what an answer takes; meanwhile the guest is started on the other node.
///
/// Fails if it is let run without an answer to the second question.
#[test]
fn a_creation_as_long_as_the_time() {
    let answers = answers(&[], |world| {
        world.be_busy_for(0, Duration::from_millis([55_200, 56_200, 56_600, 56_980][pick(4)]));
        world.start_in(1, seconds(30));
        // Nobody says that the connection is lost.
        world.odd.idle = Some(seconds(20));
    });
    assert!(answers.keys().all(|answer| answer.contains("no time is left to ask the other nodes again")), "{answers:?}");
}

/// The creation takes longer than what lies between the hosts remembers a connection; meanwhile the guest is started on the other node.
///
/// Fails if the first question's connection serves for the second one.
#[test]
fn a_connection_that_is_too_old() {
    all_refused(&answers(&[("OCF_RESKEY_CRM_meta_timeout", "120000")], |world| {
        world.be_busy_for(0, seconds(70));
        world.start_in(1, seconds(30));
        world.odd.idle = Some(seconds(60));
    }));
}

/// The source of a move was lost while its memory flowed to a third node, which still has the copy.
///
/// Fails if the start does not wait until that one's libvirt ends it, or if it waits for one that runs.
#[test]
fn a_copy_that_its_libvirt_ends() {
    const MIGRATION: i32 = 2;
    for time in [10, 25] {
        all_run(&answers(&[], |world| {
            world.run_on(1);
            world.pause(1, MIGRATION);
            world.be_ended_in(1, seconds(time));
        }));
    }
    all_refused(&answers(&[], |world| {
        world.run_on(1);
        world.pause(1, MIGRATION);
    }));
}

/// The node that has a copy which its libvirt may end falls silent before it says that it has none.
///
/// Fails if its silence is taken for the end of the copy.
#[test]
fn a_copy_on_a_node_that_falls_silent() {
    let answers = answers(&[], |world| {
        world.run_on(1);
        world.pause(1, 2);
        world.lose_after(1, seconds(2));
    });
    all_refused(&answers);
}
