//! The same, where a host says nothing: the fencer runs the agent twice, and both runs have to end in its time.

use super::*;
use crate::fence::limits::AGAIN;

/// For the start of each run.
const START: Duration = Duration::from_secs(1);

/// Both runs.
fn twice(run: impl Fn() -> String) -> String {
    let begin = lasted();
    let first = run();
    let took = lasted() - begin + START;
    let second = run();
    let both = lasted() - begin + START * 2;
    world(|world| {
        if took < Duration::from_secs(42) && both > Duration::from_secs(60) {
            world.wrong = Some(format!("the first run took {took:?}, both {both:?}"));
        }
    });
    format!("{first} {second}")
}

/// A host takes requests and says nothing, while the guest runs nowhere, or on the other one, which takes some seconds to end it. The fencer runs
/// the agent twice, see [`UNLIMITED`].
///
/// Fails if a host is not counted as silent while the guest is found elsewhere, or with a longer login.
#[test]
fn a_silent_host_fails_the_fencers_second_run_in_time_too() {
    let create = || {
        let mut world = hosts(true);
        world.hosts[1].reach = Reach::Silent;
        if let Some(seconds) = [None, Some(0), Some(2), Some(5), Some(7)][pick(5)] {
            world.run_on(0);
            world.temper.term = Some(Duration::from_secs(seconds));
        }
        world
    };
    assert_eq!(every_course_of(0, create, |notes| twice(|| off(notes))).into_keys().collect::<Vec<_>>(), ["State State"]);
    assert!((UNLIMITED.login + START) * 2 < Duration::from_secs(20), "the device's monitor");
}

/// The same of a host that the cluster may have turned off, where Pacemaker's tools take their time and do not know of it.
///
/// Fails if what they take comes on top of every login, or has no bound.
#[test]
fn a_silent_host_and_slow_tools_of_the_cluster() {
    let run = |notes: &Path| {
        let (mut plug, time) = plug(TIMES[0], true, notes);
        let mut options = Options { uri: HOSTS.map(Into::into).to_vec(), fenced_within: Duration::from_secs(600), ..Options::default() };
        options.fenced_hosts.insert("b".into(), "node-b".into());
        plug.pool = Pool::new(&options, UNLIMITED).unwrap();
        plug.off(&Deadline::after(time)).map_or_else(|error| format!("{:?}", error.kind), |done| format!("{done:?}"))
    };
    let create = || {
        let mut world = hosts(true);
        world.hosts[1].reach = Reach::Silent;
        world.odd.tools = Duration::from_secs([0, 1, 2, 3, 20][pick(5)]);
        world
    };
    assert_eq!(every_course_of(0, create, |notes| twice(|| run(notes))).into_keys().collect::<Vec<_>>(), ["State State"]);
}

/// A host that cannot be reached for a while, since its libvirt is being restarted or its sshd has too much to do, costs a list nothing but time;
/// longer than that, and one that says nothing, is told.
///
/// Fails if every host is asked but once.
#[test]
fn a_host_that_comes_back_is_asked_again() {
    let list = |notes: &Path| {
        let (plug, _) = plug(TIMES[0], true, notes);
        let begin = lasted();
        let lists = plug.pool.list(&Deadline::after(UNLIMITED.login + UNLIMITED.shell * 2));
        let took = lasted() - begin;
        let said = lists.iter().map(|list| if list.is_ok() { "listed" } else { "failed" }).collect::<Vec<_>>().join(" ");
        let is_quick = took < AGAIN + Duration::from_secs(1);
        format!("{said}{}", if is_quick { "" } else { ", late" })
    };
    let course = |seconds: Option<u64>| {
        let create = move || {
            let mut world = hosts(true);
            match seconds {
                Some(seconds) => world.lose_for(1, Duration::from_secs(seconds)),
                None => world.hosts[1].reach = Reach::Silent,
            }
            world
        };
        every_course_of(0, create, list).into_keys().collect::<Vec<_>>()
    };
    assert_eq!([1, 7].map(|seconds| course(Some(seconds))), [["listed listed"], ["listed listed"]]);
    assert_eq!([course(Some(60)), course(None)], [["listed failed"], ["listed failed"]]);
}
