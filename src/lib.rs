//! kvmha: high availability for KVM guests on Pacemaker. One binary with three faces, and one for itself; this file chooses the face.
//!
//! The map, from above to below; imports go downward only, which a test watches over:
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | the operator's command: a file for each of its words, and what they show |
//! | [`ocf`] | the resource agent: environment, parameters, actions, codes and reasons, metadata; `ocf/exit.rs` chooses every code |
//! | [`fence`] | the fence agent: options, input, all hosts asked, one verdict, metadata |
//! | [`child`] | what the program does for itself in a process of its own, since it may hang in the kernel |
//! | [`domain`] | a guest: connection, definition, evidence of its emulator, start, end, record, and [`domain::migration`]; the only unsafe |
//! | [`storage`] | what is under a guest: kinds of storage, which thing it is, whether it answers |
//! | [`cluster`] | Pacemaker's own tools: attributes, CIB, scheduler, history of fencing |
//! | [`program`] | another program run with a deadline, without a shell |
//! | [`parameter`] | one row describes one parameter, for parser, metadata and manual |
//! | [`deadline`] | the time that an action has; all that may wait takes one |
//! | [`log`] | where messages and exit reasons go |
//! | [`percent`] | bytes that are written as `%` and two digits |
//! | [`uuid`] | the UUID of a guest, as libvirt reads and writes it |
//! | [`whole`] | a file that is written whole or not at all |
//! | [`xml`] | the escaping writer |
//! | `simulation` | simulated hosts in simulated time, for the tests that try every course of events |
//! | `fuzzed`, `mangled` | the entries of the fuzzing, and input that is changed at random for tests |
//!
//! Only what the suites in `tests` read is `pub`: the tables of the agent's answers and differences, the kinds of storage, and the entries
//! of the fuzzing.
#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is a contributor's, and made with all that is private")]

mod child;
mod cli;
mod cluster;
mod deadline;
mod domain;
mod fence;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod log;
#[cfg(test)]
mod mangled;
pub mod ocf;
mod parameter;
mod percent;
mod program;
#[cfg(test)]
mod simulation;
pub mod storage;
mod uuid;
mod whole;
mod xml;

use child::Work;
use std::ffi::OsString;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;

/// Which program this is for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    /// The OCF resource agent `ocf:kvmha:VirtualDomain`.
    Agent,
    /// The fence agent `fence_kvmha`.
    Fence,
    /// The operator's command.
    Command,
    /// Work for another process of this program.
    Child(Work),
}

/// Chooses the face by the name the program is called by and, under its own name, by the first word.
/// Returns the words that are left. A name nobody knows gets the operator's command, which says what there is.
fn face(mut words: Vec<OsString>) -> (Face, Vec<OsString>) {
    let name = if words.is_empty() { OsString::new() } else { words.remove(0) };
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("VirtualDomain") => (Face::Agent, words),
        Some("fence_kvmha") => (Face::Fence, words),
        _ => match words.first().and_then(|word| word.to_str()) {
            // Help is for a person; the agent knows no such action.
            Some("agent") if words.get(1).is_some_and(|word| word == "--help" || word == "-h") => (Face::Command, words),
            Some("agent") => (Face::Agent, words.split_off(1)),
            // A word for the operator's command, which is no option of the fence agent.
            Some("fence") if words.get(1).is_some_and(|word| word == "convert") => (Face::Command, words),
            Some("fence") => (Face::Fence, words.split_off(1)),
            Some(word) => match Work::of(word) {
                Some(work) => (Face::Child(work), words.split_off(1)),
                None => (Face::Command, words),
            },
            None => (Face::Command, words),
        },
    }
}

/// The whole program: reads what the process was given, runs one face, and gives its code.
///
/// A panic is a failure with an exit reason, not Rust's 101, which no protocol knows.
#[must_use]
pub fn run() -> u8 {
    domain::ffi::keep_children();
    let (face, words) = face(std::env::args_os().collect());
    panic::set_hook(Box::new(|_| {})); // the text goes into the reason below, once
    panic::catch_unwind(AssertUnwindSafe(|| match face {
        Face::Agent => ocf::run(&words),
        Face::Fence => fence::run(&words),
        Face::Command => cli::run(&words),
        Face::Child(work) => work.run(&words),
    }))
    .unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| cause.downcast_ref::<String>().cloned());
        let text = format!("internal error: {}", text.as_deref().unwrap_or("panic without a text"));
        match face {
            Face::Agent => ocf::report_panic(&text),
            Face::Fence | Face::Command | Face::Child(_) => log::complain(&text),
        }
        // Of the command 1 may be an answer: that a guest is nowhere.
        if face == Face::Command { 2 } else { 1 }
    })
}

/// Ends the process with this code, at once: a call that was given up on may still be on its way through libvirt, or be loading it, and would fall over
/// what an ordinary end takes away under it. The answer would be lost with that, as SIGSEGV.
///
/// It only comes back in a program that counts the lines that are run, which writes them at an ordinary end.
#[expect(clippy::disallowed_methods, reason = "this is the edge")]
pub fn end(code: u8) -> ExitCode {
    // As at an ordinary end: who has closed it wants none of it.
    let _ = std::io::stdout().flush();
    if std::env::var_os("LLVM_PROFILE_FILE").is_none() {
        domain::ffi::exit(code);
    }
    code.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> (Face, Vec<OsString>) {
        face(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_face_follows_the_name_and_the_first_word() {
        let start = vec![OsString::from("start")];
        assert_eq!(chosen(&["/usr/lib/ocf/resource.d/kvmha/VirtualDomain", "start"]), (Face::Agent, start.clone()));
        assert_eq!(chosen(&["kvmha", "agent", "start"]), (Face::Agent, start.clone()));
        assert_eq!(chosen(&["kvmha", "agent", "--help"]).0, Face::Command);
        assert_eq!(chosen(&["VirtualDomain", "--help"]).0, Face::Agent);
        assert_eq!(chosen(&["/usr/sbin/fence_kvmha"]), (Face::Fence, vec![]));
        assert_eq!(chosen(&["/usr/sbin/kvmha", "fence"]), (Face::Fence, vec![]));
        assert_eq!(chosen(&["kvmha", "fence", "-o", "status"]).0, Face::Fence);
        assert_eq!(chosen(&["kvmha", "fence", "convert"]).0, Face::Command);
        assert_eq!(chosen(&["fence_kvmha", "convert"]).0, Face::Fence);
        assert_eq!(chosen(&["kvmha", "start"]), (Face::Command, start.clone()));
        assert_eq!(chosen(&["unheard-of", "start"]), (Face::Command, start));
        assert_eq!(chosen(&[]), (Face::Command, vec![]));
        assert_eq!(chosen(&["kvmha", program::CHECK_WORD, "/x"]), (Face::Child(Work::CheckProgram), vec!["/x".into()]));
        assert_eq!(chosen(&["VirtualDomain", program::CHECK_WORD, "/x"]).0, Face::Agent);
        // The agent's name wins over a first word: "VirtualDomain fence" is an unknown action.
        assert_eq!(chosen(&["VirtualDomain", "fence"]).0, Face::Agent);
    }

    /// The modules from above to below, those of one line side by side.
    const LAYERS: [&[&str]; 6] = [
        &["cli"],
        &["ocf", "fence", "child"],
        &["domain"],
        &["storage", "cluster"],
        &["program"],
        &["parameter", "deadline", "log", "percent", "uuid", "whole", "xml"],
    ];
    /// Of tests alone.
    const ASIDE: [&str; 3] = ["simulation", "fuzzed", "mangled"];

    #[test]
    fn imports_go_downward() {
        let layer = |module: &str| LAYERS.iter().position(|modules| modules.contains(&module));
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut looked = 0;
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let inside = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().with_extension("");
                let own = inside.iter().nth(1).unwrap().to_str().unwrap().to_owned();
                if own == "lib" || own == "main" || ASIDE.contains(&own.as_str()) {
                    continue;
                }
                let at = layer(&own).unwrap_or_else(|| panic!("{own} is in no layer"));
                let text = std::fs::read_to_string(&path).unwrap();
                for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                    for named in line.split("crate::").skip(1) {
                        let list = named.strip_prefix('{').and_then(|named| named.split_once('}')).map_or(named, |(list, _)| list);
                        let word = |part: &str| part.trim().split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default().to_owned();
                        let modules = if list == named { vec![word(named)] } else { list.split(',').map(word).collect() };
                        for module in modules.into_iter().filter(|module| *module != own && !ASIDE.contains(&module.as_str())) {
                            looked += 1;
                            let below = layer(&module).is_some_and(|other| other > at || other == at && at == LAYERS.len() - 1);
                            assert!(below, "{}:{}: {own} imports {module}", path.display(), number + 1);
                        }
                    }
                }
            }
        }
        assert!(looked > 300, "the test does not see the imports any more");
    }
}
