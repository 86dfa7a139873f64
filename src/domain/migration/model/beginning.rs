//! A move that does not begin, or comes to nothing at once, against simulated hosts: what passes by itself does not fail it, and nothing else is
//! tried again.

use super::super::arrival::await_turn;
use super::super::side::There;
use super::super::{CONNECTING, connecting};
use super::{HERE, LATE, THERE, TIME, carry_over, identity};
use crate::deadline::Deadline;
use crate::domain::Connection;
use crate::domain::ffi::simulated;
use crate::simulation::hosts::World;
use crate::simulation::{explore, lasted};
use std::ffi::c_int;
use std::time::Duration;
use virt::sys::VIR_DOMAIN_JOB_OPERATION_BACKUP;

/// The libvirt at the target is restarted when the move is wanted: it is tried again, but not for long.
///
/// Fails if one refused connection is the end.
#[test]
fn a_target_that_refuses_for_a_moment() {
    simulated::install();
    for (down, opens) in [(3, "true"), (20, "false")] {
        let create = || {
            let mut world = World::new(&[HERE, THERE], false);
            world.run_on(0);
            world.lose_for(1, Duration::from_secs(down));
            world
        };
        let act = || {
            let working = Deadline::after(TIME);
            let opened = There::new(THERE).connection_again(&connecting(&working), &working).is_ok();
            assert!(lasted() <= CONNECTING + LATE, "{:?}", lasted());
            opened.to_string()
        };
        let answers = explore(0, create, act, |_, _| Ok(()));
        assert!(answers.keys().eq([opens]), "{answers:?}");
    }
}

/// The daemon here is refused by the other one before it has begun, whose host can be asked at once or a little later: it is asked once more, and
/// not twice.
///
/// Fails if that is a move that did not work.
#[test]
fn a_source_that_is_refused_for_a_moment() {
    simulated::install();
    for (down, refused, answer) in [(0, 1, "moved"), (3, 1, "moved"), (0, 2, "State"), (60, 1, "Refused")] {
        let create = || {
            let mut world = World::new(&[HERE, THERE], false);
            (world.goes_on, world.quiet, world.connects) = (true, true, Some(refused));
            world.run_on(0);
            if down > 0 {
                world.lose_for(1, Duration::from_secs(down));
            }
            world
        };
        let answers = explore(0, create, carry_over, |world, _| world.wrong.take().map_or(Ok(()), Err));
        assert!(answers.keys().eq([answer]), "{down} s, {refused} times: {answers:?}");
    }
}

/// The target's emulator does not load what has come, all of it between two looks.
///
/// Fails if libvirt is asked once more, as if it had not begun.
#[test]
fn a_small_guest_that_is_not_loaded() {
    simulated::install();
    let create = || {
        let mut world = World::new(&[HERE, THERE], false);
        (world.goes_on, world.quiet, world.connects, world.odd.unloaded) = (true, true, Some(1), true);
        world.run_on(0);
        world
    };
    let answers = explore(0, create, carry_over, |world, _| world.wrong.take().map_or(Ok(()), Err));
    assert!(answers.keys().eq(["State"]), "{answers:?}");
}

/// A backup is under way, whose end is not seen: it is waited for, but as long as a node is waited for that may be lost meanwhile.
///
/// Fails if half of a long time is waited.
#[test]
fn a_job_without_an_end_is_not_waited_for_long() {
    simulated::install();
    for (time, waited) in [(1800, 60), (60, 30)] {
        let create = || {
            let mut world = World::new(&[HERE, THERE], false);
            world.run_on(0);
            world.busy = c_int::try_from(VIR_DOMAIN_JOB_OPERATION_BACKUP).ok();
            world
        };
        let act = || {
            let working = Deadline::after(Duration::from_secs(time));
            await_turn(&Connection::open(HERE, &working).unwrap(), &identity().name, &working).unwrap();
            lasted().as_secs().to_string()
        };
        let answers = explore(0, create, act, |_, _| Ok(()));
        assert!(answers.keys().eq([&waited.to_string()]), "{time} s: {answers:?}");
    }
}
