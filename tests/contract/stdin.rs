//! What the fence agent makes of a damaged standard input: a failure in words, never a panic, and no host is asked for anything.
//!
//! The host is a socket of the test; whoever would act on a guest has to connect to it first.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Of each kind of damage.
const TIMES: u64 = 30;

/// Numbers from a seed: plain linear congruence, the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

fn fence(input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvmha"))
        .arg("fence")
        .env_clear()
        .envs(crate::call::counts())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may stop reading a text that is too long.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Lines that would fence a guest, in any order, with noise between that means nothing.
fn order(chance: &mut Chance, socket: &Path, action: &str) -> Vec<u8> {
    let mut lines = vec![
        format!("action={action}"),
        "plug=web1".to_owned(),
        format!("uri=qemu+unix:///system?socket={}", socket.display()),
        "login_timeout=1".to_owned(),
    ];
    let noise =
        ["", "# off", "unheard_of=1", "no key", "=", "==", "\t", "key==\"", "action\u{e4}=off", "verbose=0", "quiet=false", "\"=\""];
    for _ in 0..chance.below(12) {
        lines.insert(chance.below(lines.len() + 1), noise[chance.below(noise.len())].to_owned());
    }
    // A value that stands there twice: the last counts, and this one is not the last.
    lines.insert(0, "action=list".to_owned());
    let end = if chance.below(2) == 0 { "\n" } else { "\r\n" };
    lines.iter().flat_map(|line| [line.as_bytes(), end.as_bytes()].concat()).collect()
}

fn failed(input: &[u8], what: &str) {
    let output = fence(input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{what}: {errors}");
    assert!(output.stdout.is_empty(), "{what}");
    assert!(errors.contains("fence_kvmha: ") && !errors.contains("internal error"), "{what}: {errors}");
}

#[test]
fn damage_is_never_an_action() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let host = UnixListener::bind(&socket).unwrap();
    host.set_nonblocking(true).unwrap();
    let mut chance = Chance(1);
    for time in 0..TIMES {
        let action = ["off", "reboot", "on", "OFF"][chance.below(4)];
        let right = order(&mut chance, &socket, action);
        let at = chance.below(right.len());
        let inserted = |bytes: &[u8]| [&right[..at], bytes, &right[at..]].concat();
        failed(&inserted(b"\0"), "a NUL");
        failed(&inserted([&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf8"][chance.below(4)]), "no UTF-8");
        failed(right.strip_suffix(b"\n").unwrap(), "cut off before the end");
        let wrong = ["action=of", "action=", "missing_as_off=maybe", "delay=-1", "uri=web1", "plug=a\tb", "ipport=0", "uuid_map=x"];
        failed(&[&right, wrong[chance.below(wrong.len())].replace("action=", "action=x").as_bytes(), b"\n"].concat(), "a wrong value");
        if time == 0 {
            for long in [1024 * 1024, 3 * 1024 * 1024] {
                failed(&[&right, b"x=".as_slice(), &vec![b'a'; long], b"\n"].concat(), "more than 1 MiB");
                failed(&[&right, vec![b'\n'; long].as_slice()].concat(), "more than 1 MiB");
            }
            // A long line within the limit, but no name of a guest.
            failed(&[&right, b"plug=".as_slice(), &vec![b'a'; 1000 * 1000], b"\n"].concat(), "a name of 1 MB");
        }
    }
    assert_eq!(host.accept().map(drop).unwrap_err().kind(), ErrorKind::WouldBlock, "the host was asked");
    // The same lines undamaged are understood; and the test would have seen an action.
    for _ in 0..TIMES {
        let right = order(&mut chance, &socket, "validate-all");
        assert_eq!(fence(&right).status.code(), Some(0), "{:?}", String::from_utf8_lossy(&right));
    }
    failed(&order(&mut chance, &socket, "off"), "a host that does not answer");
    assert!(host.accept().is_ok(), "the host was not asked");
}
