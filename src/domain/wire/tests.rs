//! The conversation against daemons that are well, slow, stopped, foreign or mad.

use std::thread;
use std::time::Instant;

use nix::sys::socket::Backlog;

use super::message::tests::{agents_reply, by_the_way, error, not_there, reply};
use super::message::{HEAD, LONGEST};
use super::*;
use crate::domain::Uri;
use crate::mangled::Dice;

const WEB1: [u8; uuid::LENGTH] = [0x4d, 0xea, 0x22, 0xb3, 0x1d, 0x52, 0xd8, 0xf3, 0x25, 0x16, 0x78, 0x2e, 0x98, 0xab, 0x3f, 0xa0];
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// What a daemon sends in the whole of a conversation about a domain that it has, or has not.
fn daemon(knows: bool) -> Vec<Vec<u8>> {
    let mut messages =
        vec![reply(66, 1, true, |writer| [1, 0].into_iter().for_each(|word| writer.number(word))), reply(1, 2, true, |_| {})];
    if knows {
        messages.push(reply(23, 3, true, |writer| {
            writer.string("web1");
            writer.uuid(&WEB1);
            writer.signed(3);
        }));
        messages.push(reply(212, 4, true, |writer| [3, 5].into_iter().for_each(|word| writer.number(word))));
        messages.push(reply(2, 5, true, |_| {}));
    } else {
        messages.push(reply(23, 3, false, |writer| not_there(writer, NO_DOMAIN)));
        messages.push(reply(2, 4, true, |_| {}));
    }
    messages
}

fn web1() -> Answer {
    let uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0".to_owned();
    Answer { name: "web1".to_owned(), uuid, condition: Condition::PAUSED_IO_ERROR }
}

fn converse(stream: UnixStream, time: Duration) -> Result<Option<Answer>, Trouble> {
    let deadline = Deadline::after(time);
    Conversation { stream, peer: Path::new("test"), deadline, serial: 0, unread: Vec::new() }.about(SYSTEM, Call::Name("web1"))
}

/// A conversation with a daemon that says `bytes`, whatever it is asked, and no more.
fn hearing(bytes: &[u8]) -> Result<Option<Answer>, Trouble> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(bytes).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    converse(ours, LONG)
}

fn unexpected(outcome: &Result<Option<Answer>, Trouble>, word: &str) -> bool {
    matches!(outcome, Err(Trouble::Unexpected(text)) if text.contains(word))
}

#[test]
fn a_daemon_that_is_well() {
    assert_eq!(hearing(&daemon(true).concat()), Ok(Some(web1())));
    assert_eq!(hearing(&daemon(false).concat()), Ok(None));
    // The farewell does not matter.
    assert_eq!(hearing(&daemon(true)[..4].concat()), Ok(Some(web1())));
    assert_eq!(hearing(&daemon(false)[..3].concat()), Ok(None));
}

/// Any answer of an ordinary worker's is one; silence is none, however well the rest is answered.
#[test]
fn a_turn_that_comes_or_does_not() {
    let turn = |messages: &[Vec<u8>], time| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&messages.concat()).unwrap();
        let deadline = Deadline::after(time);
        Conversation { stream: ours, peer: Path::new("test"), deadline, serial: 0, unread: Vec::new() }.turn(SYSTEM)
    };
    let mut messages = daemon(true)[..2].to_vec();
    assert!(matches!(turn(&messages, SHORT), Err(Trouble::Unresponsive(_))));
    for code in [NO_DOMAIN, 88] {
        let error = reply(16, 3, false, |writer| not_there(writer, code));
        assert_eq!(turn(&[&messages[..], &[error, reply(2, 4, true, |_| {})]].concat(), LONG), Ok(()));
    }
    messages.push(reply(16, 3, true, |_| {}));
    assert!(matches!(turn(&messages, LONG), Err(Trouble::Unexpected(_))), "an answer that is not understood");
}

/// What libvirt says at once it has asked nobody; so has a slow one that says so.
#[test]
fn an_agent_that_was_asked_or_was_not() {
    let seen = |after: u64, answer: Vec<u8>| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&daemon(true)[..3].concat()).unwrap();
        let daemon = thread::spawn(move || {
            let mut read = Vec::new();
            while !String::from_utf8_lossy(&read).contains("guest-ping") {
                let mut some = [0; 4096];
                let count = theirs.read(&mut some).unwrap();
                read.extend_from_slice(&some[..count]);
            }
            assert!(Deadline::after(LONG).pause(Duration::from_millis(after)));
            let _ = theirs.write_all(&[answer, reply(2, 5, true, |_| {})].concat());
            theirs
        });
        let conversation =
            Conversation { stream: ours, peer: Path::new("test"), deadline: Deadline::after(LONG), serial: 0, unread: Vec::new() };
        let pulse = conversation.ping(SYSTEM, "web1", 1);
        drop(daemon.join());
        pulse
    };
    let silent = |text: &'static str| agents_reply(4, false, move |writer| error(writer, AGENT_SILENT, text));
    let beats = agents_reply(4, true, |writer| {
        writer.number(1);
        writer.string("{\"return\":{}}");
    });
    assert_eq!(seen(0, beats), Ok(Pulse::Beats));
    let german = "Der Gastagent antwortet nicht";
    assert_eq!(seen(0, silent(german)), Ok(Pulse::Unasked(german.into())));
    assert_eq!(seen(1000, silent(german)), Ok(Pulse::Silent(german.into())));
    for text in ["QEMU guest agent is not connected", "QEMU guest agent is not available due to an error"] {
        assert_eq!(seen(1000, silent(text)), Ok(Pulse::Unasked(text.into())));
    }
    assert!(matches!(seen(0, agents_reply(4, false, |writer| error(writer, 38, "x"))), Err(Trouble::Unexpected(_))));
}

#[test]
fn events_and_signs_of_life_in_between() {
    let mut bytes = Vec::new();
    for message in daemon(true) {
        bytes.extend(by_the_way().concat());
        bytes.extend(message);
    }
    assert_eq!(hearing(&bytes), Ok(Some(web1())));
}

#[test]
fn a_daemon_that_is_not_understood() {
    let with = |at: usize, message: Vec<u8>| {
        let mut messages = daemon(true);
        messages[at] = message;
        hearing(&messages.concat())
    };
    assert!(unexpected(&with(0, reply(66, 1, true, |writer| [1, 2].into_iter().for_each(|word| writer.number(word)))), "authentication"));
    assert!(unexpected(&with(1, reply(1, 2, false, |writer| not_there(writer, 38))), "Domain not found"));
    assert!(unexpected(&with(2, reply(23, 4, true, |_| {})), "not to 3 of 23"), "another serial");
    assert!(unexpected(&with(2, reply(24, 3, true, |_| {})), "not to 3 of 23"), "another procedure");
    assert!(unexpected(&with(2, vec![0xff; 4096]), "a message of 4294967295 bytes"));
    assert!(unexpected(&with(2, Vec::new()), "an answer to call 4"));
    let mut foreign = reply(23, 3, true, |_| {});
    foreign[7] = 0x87;
    assert!(unexpected(&with(2, foreign), "program 0x20008087"));
    let other = |name: &'static str| {
        reply(23, 3, true, move |writer| {
            writer.string(name);
            writer.uuid(&WEB1);
            writer.signed(3);
        })
    };
    assert!(unexpected(&with(2, other("web2")), "another domain"));
}

/// "No such domain" counts as the answer to the look-up and to nothing else; other errors never count.
#[test]
fn only_the_look_up_says_that_there_is_none() {
    for (at, procedure) in [(0, 66), (1, 1), (3, 212)] {
        let mut messages = daemon(true);
        messages[at] = reply(procedure, u32::try_from(at).unwrap() + 1, false, |writer| not_there(writer, NO_DOMAIN));
        assert!(unexpected(&hearing(&messages.concat()), "Domain not found"), "{procedure}");
    }
    for code in [0, 1, 9, 38, 41, 43, 88] {
        let mut messages = daemon(false);
        messages[2] = reply(23, 3, false, |writer| not_there(writer, code));
        assert!(unexpected(&hearing(&messages.concat()), "Domain not found"), "{code}");
    }
}

#[test]
fn cut_off_at_every_byte() {
    for knows in [true, false] {
        let whole = daemon(knows).concat();
        let enough = whole.len() - daemon(knows).last().unwrap().len();
        for at in 0..enough {
            assert!(unexpected(&hearing(&whole[..at]), "closed the connection"), "{knows} {at}");
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0, 1, 2, 0x2a, 0x7f, 0xff][dice.below(6)],
            2 => bytes.insert(at, bytes[dice.below(at + 1)]),
            3 if bytes.len() > HEAD => drop(bytes.remove(at)),
            4 => bytes.truncate(at.max(1)),
            _ => {
                let end = (at + dice.below(12)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// Mutated conversations: no panic, no end that is not reached, never a domain that was not asked for, and "none" only if the answer
/// to the look-up, found here by other means, is an error with the right number.
#[test]
fn mad_daemons_are_not_believed() {
    let mut dice = Dice::new(0x6b_766d_6861);
    let mut believed = 0;
    for round in 0..30_000 {
        let mut bytes = daemon(round % 2 == 0).concat();
        mutate(&mut bytes, &mut dice);
        match hearing(&bytes) {
            Ok(None) => {
                let refusal = [&23_u32.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 42]].concat();
                assert!(bytes.windows(refusal.len()).any(|window| window == refusal), "round {round}: {bytes:02x?}");
                believed += 1;
            }
            Ok(Some(answer)) => assert_eq!(answer.name, "web1", "round {round}"),
            Err(Trouble::Unexpected(text)) => assert!(!text.contains('\n'), "round {round}"),
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
    assert!(believed > 0, "nothing was tried");
}

#[test]
fn a_daemon_that_is_silent_slow_or_endless_is_left_at_the_deadline() {
    let silent: fn(UnixStream) = |stream| loop {
        thread::park();
        let _ = &stream;
    };
    let slow: fn(UnixStream) = |mut stream| {
        for byte in daemon(true).concat() {
            if stream.write_all(&[byte]).is_err() || !Deadline::after(LONG).pause(Duration::from_millis(5)) {
                return;
            }
        }
    };
    let endless: fn(UnixStream) = |mut stream| while stream.write_all(&by_the_way().concat()).is_ok() {};
    for serve in [silent, slow, endless] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || serve(theirs));
        let begin = Instant::now();
        assert!(matches!(converse(ours, SHORT), Err(Trouble::Unresponsive(_))));
        assert!(begin.elapsed() >= SHORT && begin.elapsed() < LONG, "{:?}", begin.elapsed());
    }
    assert!(converse(UnixStream::pair().unwrap().0, Duration::ZERO).is_err());
}

#[test]
fn byte_by_byte_is_a_whole_answer_in_the_end() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        daemon(true).concat().into_iter().for_each(|byte| theirs.write_all(&[byte]).unwrap());
        theirs
    });
    assert_eq!(converse(ours, LONG), Ok(Some(web1())));
    drop(server.join().unwrap());
}

#[test]
fn a_message_that_never_ends_is_not_kept() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let _ = theirs.write_all(&u32::try_from(LONGEST).unwrap().to_be_bytes());
        while theirs.write_all(&[0; 4096]).is_ok() {}
    });
    assert!(unexpected(&converse(ours, LONG), "program 0x0 version 0"));
}

#[test]
fn sockets_that_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let ask = |time| state(&path, SYSTEM, Look::Name("web1"), &Deadline::after(time));
    assert!(matches!(ask(LONG), Err(Trouble::Unreachable(text)) if text.contains("sock: no such file")));
    // A daemon that was stopped: the queue of connections is full, and connecting blocks.
    let listener = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    socket::listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let mut waiting = Vec::new();
    let begin = Instant::now();
    let trouble = loop {
        match connect(&path, &Deadline::after(SHORT)) {
            Ok(stream) => waiting.push(stream),
            Err(trouble) => break trouble,
        }
    };
    assert_eq!(trouble, late(&path));
    assert!(waiting.len() < 10 && begin.elapsed() >= SHORT && begin.elapsed() < LONG);
    drop((listener, waiting));
    assert!(matches!(ask(LONG), Err(Trouble::Unreachable(text)) if text.contains("refused")));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(matches!(ask(LONG), Err(Trouble::Unreachable(_) | Trouble::Unexpected(_))));
    assert!(matches!(ask(Duration::ZERO), Err(Trouble::Unresponsive(_))));
    let long = folder.path().join("x".repeat(200));
    assert!(matches!(state(&long, SYSTEM, Look::Name("web1"), &Deadline::after(LONG)), Err(Trouble::Unexpected(_))));
}

#[test]
fn questions_that_are_not_asked() {
    let nowhere = Path::new("/nonexistent");
    for look in [Look::Name(""), Look::Name("a\0b"), Look::Name(&"x".repeat(5000)), Look::Uuid("4dea"), Look::Uuid("zz"), Look::Uuid("é")]
    {
        assert!(matches!(state(nowhere, SYSTEM, look, &Deadline::after(LONG)), Err(Trouble::Unexpected(_))), "{look:?}");
    }
    for driver in ["", "qemu", "qemu+unix:///system", "qemu:///system?socket=/run/x", "qemu://node2/system"] {
        assert!(matches!(state(nowhere, driver, Look::Name("web1"), &Deadline::after(LONG)), Err(Trouble::Unexpected(_))), "{driver}");
    }
}

#[test]
fn which_socket() {
    let path = |uri| socket(&Uri::parse(uri).unwrap()).map(|path| path.to_str().unwrap().to_owned());
    let some = |path: &str| Some(path.to_owned());
    assert!(path("qemu:///system").is_some_and(|path| path.starts_with("/run/libvirt/")));
    assert_eq!(path("qemu:///system?mode=legacy"), some("/run/libvirt/libvirt-sock"));
    assert_eq!(path("qemu+unix:///system?mode=direct"), some("/run/libvirt/virtqemud-sock"));
    assert_eq!(path("qemu+unix:///system?socket=/srv/a%20b&mode=direct"), some("/srv/a b"));
    for foreign in [
        "qemu:///session",
        "qemu://root@/system",
        "qemu://:16509/system",
        "qemu://node2/system",
        "qemu+ssh:///system",
        "qemu+tcp://node2/system",
        "qemu:///system?socket=relative",
        "qemu:///system?socket=/a%2",
        "qemu:///system?socket=/a%+1",
        "qemu:///system?socket=/a%00",
        "qemu:///system?socket=/a%éé",
        "qemu:///system?mode=sideways",
        "qemu:///system?name=test:///default",
        "qemu:///system?no_verify",
        "qemu:///system#x",
    ] {
        assert_eq!(path(foreign), None, "{foreign}");
    }
}
