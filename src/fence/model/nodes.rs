//! The same, on several nodes of a cluster: what one has not seen the others know.

use super::super::note::{Begun, Note};
use super::super::told::{NAME, SEEN, TELLING, Told, Word, read};
use super::*;
use crate::simulation::hosts::UUID;

/// An emulator hangs, `off` has failed on one node, and Pacemaker asks the next one, which has no note of it, unless libvirt shows the guest still
/// and it begins an end of its own. Then a person has removed the note of the first.
///
/// Fails if the other nodes are not told, or not asked.
#[test]
fn an_end_that_another_node_has_not_seen() {
    let act = |notes: &Path| {
        let [one, two] = ["one", "two"].map(|node| notes.join(node));
        let mut answers = vec![off(&one)];
        pass([Duration::ZERO, Duration::from_secs(90)][pick(2)]);
        answers.push(off(&two));
        pass(Duration::from_secs(90));
        answers.push(off(&two));
        answers.push(look_or_start(pick(2) == 1, &two));
        // The host was restarted.
        world(|world| world.hosts[0].forgotten.clear());
        answers.push(off(&two));
        let _ = std::fs::remove_dir_all(&one);
        answers.extend([off(&one), off(&two)]);
        answers.join(" ")
    };
    let create = || {
        let mut world = hosts(pick(2) == 1);
        world.run_on(0);
        world.hang(0, None);
        world
    };
    assert_eq!(
        every_course_of(0, create, act).into_keys().collect::<Vec<_>>(),
        ["State State State State State Already Already", "State State State State State State State"]
    );
}

/// The same, where the others cannot be told at the first attempts: the attribute daemon is starting again. Or the first node's agent is killed,
/// or its node lost, while it waits for the end.
///
/// Fails if it is tried once, or only at the end.
#[test]
fn an_end_that_another_node_is_told_of_late() {
    let act = |notes: &Path| {
        let [one, two] = ["one", "two"].map(|node| notes.join(node));
        let first = off(&one);
        pass(Duration::from_secs(90));
        format!("{first} {}", off(&two))
    };
    let create = || {
        let mut world = hosts(pick(2) == 1);
        world.run_on(0);
        world.hang(0, None);
        // The first is the attempt while the end is under way, of 8 s.
        world.mute = [0, 3, 18, 22][pick(4)];
        world
    };
    assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), ["State State"]);
}

/// An end is told of while it is under way, and taken back when it is seen.
///
/// Fails if it is told of at the end alone, or not taken back.
#[test]
fn an_end_that_takes_long_is_told_of_meanwhile() {
    let act = |notes: &Path| {
        let answer = off(notes);
        format!("{answer}, {}, {:?}", world(|world| world.mute), said())
    };
    let create = || {
        let mut world = hosts(true);
        world.temper.term = Some(Duration::from_secs(12));
        world.run_on(0);
        world.mute = 1;
        world
    };
    assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), ["Changed, 0, [\"proven\"]"]);
}

/// A node has not seen the ends of two guests, and a person has removed the note of one.
///
/// Fails if that takes back the word about the other.
#[test]
fn of_two_notes_one_is_removed() {
    let act = |notes: &Path| {
        let [one, two] = ["one", "two"].map(|node| notes.join(node));
        for (name, uuid) in [("web1", "u-1"), ("web2", "u-2")] {
            let ends = vec![Begun { host: HOSTS[0].into(), begun: 1, over: None }];
            let note = Note { name: name.into(), uuid: uuid.into(), host: HOSTS[0].into(), xml: None, at: 0, left: None, ends };
            note.write(&one).unwrap();
        }
        let tell = || plug(TIMES[0], true, &one).0.nodes.tell(&one, &Deadline::after(TELLING)).unwrap();
        let mut answers = Vec::new();
        let mut ask = || {
            for name in ["web1", "web2"] {
                let (mut plug, time) = plug(TIMES[0], true, &two);
                plug.target = Target { word: name.into(), name: Some(name.into()), uuid: None };
                answers.push(plug.off(&Deadline::after(time)).map_err(|error| error.text.ends_with("fence_kvmha -o tell")));
            }
        };
        tell();
        ask();
        std::fs::remove_file(one.join("u-1.json")).unwrap();
        tell();
        ask();
        format!("{answers:?}")
    };
    let answers = every_course_of(0, || hosts(false), act);
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), ["[Err(true), Err(true), Ok(Already), Err(true)]"]);
}

/// Another node, which knows nothing of the move, turns it off then. Or a person has it run here again before that.
///
/// Fails if the other nodes are not told of it, or do not heed it; or if they heed it when the guest is back.
#[test]
fn a_guest_that_left_before_another_node_ends_it() {
    const ALL: [&str; 3] = [HOSTS[0], HOSTS[1], "qemu+tcp://c/system"];
    let act = |notes: &Path| {
        let [one, two] = ["one", "two"].map(|node| notes.join(node));
        let first = off_of(TIMES[0], true, &one);
        if let Some(place) = [None, Some(0), Some(1)][pick(3)] {
            world(|world| {
                world.hosts[2].copy = None;
                world.run_on(place);
            });
        }
        format!("{first} {}", off_of(TIMES[0], true, &two))
    };
    for defined in [false, true] {
        let create = || {
            let mut world = World::new(&ALL, defined);
            world.move_from(0, 2, Step::HandedOver);
            world
        };
        assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), ["State Changed", "State State"]);
    }
}

/// What is told, without names and times.
fn said() -> Vec<&'static str> {
    let told = [NAME, SEEN].map(|name| world(|world| world.told_by_now(name))).concat();
    let words = told.iter().flat_map(|(_, value)| read(value).unwrap().1);
    let kind = |told: Told| match told.word {
        Word::Unseen(Begun { over, .. }) => {
            if over.is_some() {
                "overtaken"
            } else {
                "unseen"
            }
        }
        Word::Left(_) => "left",
        Word::Proven(_) => "proven",
    };
    words.map(kind).collect()
}

/// The time in a course.
fn at(second: u64) -> u64 {
    crate::simulation::unix_time().unwrap() - lasted().as_secs() + second
}

/// What a node called other tells of the guest.
fn word(text: &str) -> Option<String> {
    Some(format!("other b,web1 {} {} {text}", UUID.to_string_lossy(), HOSTS[0]))
}

/// Two nodes end the guest at one time, which takes 12 s, and libvirt does it for this one. The other one has begun before or later, has told of
/// that, and then that libvirt found the guest gone; or it says nothing more.
///
/// Fails if what another node tells counts although this one has proven it, if it is not asked again, or if this one does not tell what it
/// has proven.
#[test]
fn an_end_for_which_another_node_has_waited() {
    for (begun, over, answer) in [
        (2, Some(12), "Changed, [\"unseen\", \"proven\", \"overtaken\"]"),
        // It was begun before, and is over when this one was under way.
        (0, Some(12), "Changed, [\"unseen\", \"proven\", \"overtaken\"]"),
        // The other one is lost, and nobody knows of which emulator it told.
        (0, None, "State, [\"unseen\", \"proven\"]"),
        (2, None, "State, [\"unseen\", \"proven\"]"),
    ] {
        let act = |notes: &Path| {
            pass(Duration::from_secs(1));
            let answer = off(notes);
            format!("{answer}, {:?}", said())
        };
        let create = || {
            let mut world = hosts(pick(2) == 1);
            world.run_on(0);
            world.temper.term = Some(Duration::from_secs(12));
            let told = (Duration::from_secs(begun + 5), NAME, word(&at(begun).to_string()));
            let more = over.map(|over| (Duration::from_secs(over + 3), SEEN, word(&format!("{}-{}", at(begun), at(over)))));
            world.odd.words = [told].into_iter().chain(more).collect();
            world
        };
        assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), [answer], "{begun} {over:?}");
    }
}

/// It is ended by a name that leads each node to its own libvirt.
///
/// Fails if that is told as a proof, which another node could take for one about its own.
#[test]
fn an_end_at_a_host_that_is_another_one_elsewhere() {
    const OWN: &str = "qemu+tcp://localhost/system";
    let act = |notes: &Path| {
        let (mut plug, time) = plug(TIMES[0], true, notes);
        plug.pool = Pool::new(&Options { uri: vec![OWN.into()], ..Options::default() }, UNLIMITED).unwrap();
        let answer = plug.off(&Deadline::after(time));
        format!("{answer:?}, {:?}", said())
    };
    let create = || {
        let mut world = World::new(&[OWN], true);
        world.run_on(0);
        world.temper.term = Some(Duration::from_secs(12));
        world
    };
    assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), ["Ok(Changed), []"]);
}

/// Somebody sets this node's clock forward while it ends the guest, and another node has told of an end later on, by its own.
///
/// Fails if what has passed is taken from that clock.
#[test]
fn an_end_while_the_clock_is_set() {
    let create = || {
        let mut world = hosts(true);
        world.run_on(0);
        world.temper.term = Some(Duration::from_secs(12));
        world.odd.words = vec![
            (Duration::from_secs(5), NAME, word(&at(100).to_string())),
            (Duration::from_secs(5), SEEN, word(&format!("{}-{}", at(100), at(120)))),
        ];
        crate::simulation::step_clock(Duration::from_secs(6), 400);
        world
    };
    assert_eq!(every_course_of(0, create, off).into_keys().collect::<Vec<_>>(), ["State"]);
}

/// The same, and libvirt does it for the other node, which says so while this one waits or only when this one has failed. Or it never does:
/// then it is lost, or its own end was another one.
///
/// Fails if this one does not wait for the other, does not heed it when it is called again, or takes its silence or another proof for one.
#[test]
fn an_end_that_another_node_has_seen() {
    // When it says so, and from when until when libvirt had its request.
    for (said_at, begun, done, expected) in [
        (14, 2, 12, "Changed, Already"),
        (10, 0, 12, "Changed, Already"),
        (30, 2, 12, "State, Already"),
        (14, 13, 14, "State, State"),
        (1000, 0, 0, "State, State"),
    ] {
        let act = |notes: &Path| {
            pass(Duration::from_secs(1));
            let first = off(notes);
            pass(Duration::from_secs(20));
            format!("{first}, {}", off(notes))
        };
        let create = || {
            let mut world = hosts(pick(2) == 1);
            world.run_on(0);
            world.be_ended_in(0, Duration::from_secs(12));
            // Its own word is taken back at once.
            world.odd.words = vec![
                (Duration::from_secs(5), NAME, word(&at(0).to_string())),
                (Duration::from_secs(12), NAME, None),
                (Duration::from_secs(said_at), SEEN, word(&format!("proven-{}-{}", at(begun), at(done)))),
            ];
            world
        };
        let answers: Vec<String> = every_course_of(0, create, act).into_keys().collect();
        assert_eq!(answers, [expected], "{said_at} {begun} {done}");
    }
}

/// The other node has begun a moment ago, and tells of that while this one finds the guest gone in an ordinary time. Then it proves its end, or another
/// one; or it is lost, and what it has told with it.
///
/// Fails if the other one is not asked again, or if its silence is taken for a proof.
#[test]
fn an_end_that_another_node_is_about_to_see() {
    for (back, proof, answer) in [
        (9, Some((0, 9)), "Changed"),
        (40, Some((0, 9)), "State"),
        (9, None, "State"),
        // Of an end before.
        (9, Some((-20, -9)), "State"),
    ] {
        let create = || {
            let mut world = hosts(true);
            world.run_on(0);
            world.be_ended_in(0, Duration::from_secs(7));
            let time = Duration::from_secs(back);
            let second = |second: i64| at(0).saturating_add_signed(second);
            let proof = proof.map(|(begun, done)| (time, SEEN, word(&format!("proven-{}-{}", second(begun), second(done)))));
            world.odd.words = vec![(Duration::from_secs(5), NAME, word(&at(0).to_string())), (time, NAME, None)];
            world.odd.words.extend(proof);
            world
        };
        let act = |notes: &Path| {
            pass(Duration::from_secs(4));
            off(notes)
        };
        assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), [answer], "{back} {proof:?}");
    }
}

/// An end of 12 s is proven, and then this node tells of another guest, by another process.
///
/// Fails if the second takes back what the first has proven.
#[test]
fn what_was_proven_stays() {
    let act = |notes: &Path| {
        let answer = off(notes);
        let (other, _) = plug(TIMES[0], true, notes);
        other.nodes.tell(notes, &Deadline::after(TELLING)).unwrap();
        format!("{answer}, {:?}", said())
    };
    let create = || {
        let mut world = hosts(true);
        world.run_on(0);
        world.temper.term = Some(Duration::from_secs(12));
        world
    };
    assert_eq!(every_course_of(0, create, act).into_keys().collect::<Vec<_>>(), ["Changed, [\"proven\"]"]);
}
