//! The contract: what the program answers to a call, as data. `tests/contract/*.case` hold the calls and the answers.
//!
//! A case file is lines. Those before the first `case` are part of every case; those of a case stand in any order, but outputs last:
//!
//! ```text
//! case NAME            what is shown when it fails; `#` lines are comments
//! each A | B           repeats the case with {1}, {2}... replaced by A, B...
//! call NAME WORD...    the name the program is called by, and its words; a path in {dir} is executed itself
//! env NAME=VALUE       a variable; there are no others
//! with NAME=VALUE      a parameter of the resource: OCF_RESKEY_NAME
//! meta NAME=VALUE      what Pacemaker adds: OCF_RESKEY_CRM_meta_NAME
//! file NAME            made in the scratch folder {dir}, with the `| ` lines that follow; `program` is executable
//! folder|fifo|link|mute NAME, sparse NAME MIB
//!                      likewise: a folder, a FIFO, a link to the program, a socket that takes connections and never answers, a
//!                      file without contents
//! stdin                followed by `| ` lines
//! closed stdout        the reader of standard output is gone
//! within MS            how long the call may take; 30 s if not said
//! code N               the exit code
//! stdout-is FILE       standard output, byte for byte, is this file of the project
//! stdout, stderr, left NAME
//!                      what is written to them, each followed by its lines: `| ` exactly this line, `~ ` a line with this text in
//!                      it, `...` any lines. One that is not mentioned stays empty; `left` is a file the call makes in {dir}
//! ```
//!
//! `\xHH` in the call and the files is a byte. In what was written `{dir}`, `{pid}`, `{time}` and `{version}` stand for what
//! differs. Every call of the agent is also held to: an exit reason exactly if it failed, one, the last line; nobody left behind that
//! holds its outputs; no state file. `KVMHA_BLESS=1` rewrites the outputs (never the codes) to what was seen, and `metadata/`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test waits for what it started with a limit of its own")]
#![allow(clippy::print_stderr, missing_docs, reason = "a test talks to a person")]

mod advice;
mod call;
mod case;
mod completions;
mod output;
mod pages;
mod reasons;
mod stdin;

use anyhow::Context;
use case::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io, thread};

/// How many calls are made at a time: most of what takes long waits.
const AT_A_TIME: usize = 6;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bless() -> bool {
    env::var_os("KVMHA_BLESS").is_some()
}

/// Makes the calls of a case file.
fn theme(name: &str) {
    let mut file = File::read(&project().join(format!("tests/contract/{name}.case")));
    let root = tempfile::Builder::new().prefix("contract-").tempdir().unwrap();
    let made = AtomicUsize::new(0);
    let cases = file.cases(|| {
        let dir = root.path().join(made.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir).unwrap();
        dir
    });
    assert!(!cases.is_empty());
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((number, dir, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seen = call::make(case, dir);
                    if !seen.complaints.is_empty() {
                        wrong.lock().unwrap().push((*number, &case.name, seen));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort_by_key(|(number, ..)| *number);
    if bless() {
        wrong.retain(|(number, _, seen)| !(seen.can_bless && file.bless(*number, &seen.outputs)));
        file.write();
    }
    for (_, name, seen) in &wrong {
        eprintln!("{name}:\n  {}", seen.complaints.join("\n  "));
    }
    assert!(wrong.is_empty(), "{} of {} cases are not as expected", wrong.len(), cases.len());
    eprintln!("{} cases", cases.len());
}

macro_rules! themes {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            theme(stringify!($name));
        })*

        const THEMES: &[&str] = &[$(stringify!($name)),*];
    };
}

themes! { faces metadata parameters config actions timeouts logging convert operator }

#[test]
fn every_case_file_is_run() {
    let files = fs::read_dir(project().join("tests/contract")).unwrap().map(|entry| entry.unwrap().path());
    let cases: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "case")).collect();
    assert_eq!(cases.len(), THEMES.len(), "{cases:?}");
}

/// A caller that ignores SIGCHLD (a Perl program, bash after `trap '' CHLD`) passes that on: children would leave no trace of how they ended.
#[test]
fn children_of_a_caller_that_ignores_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("web1.xml");
    fs::write(&config, "no definition").unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' CHLD; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_kvmha"), "agent", "start"]);
    shell.env_clear().envs(call::counts()).env("OCF_RESKEY_config", &config).env("OCF_RESOURCE_INSTANCE", "contract-web1");
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(5) && text.contains("not well-formed"), "{output:?}");
}

/// Runs a program that ends by itself, and gives its output if it failed.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_committed_files_are_what_the_program_writes() {
    let fresh = tempfile::tempdir().unwrap();
    let committed = project().join("metadata");
    let target = if bless() { &committed } else { fresh.path() };
    run(Command::new(env!("CARGO_BIN_EXE_kvmha")).arg("generate").arg(target)).unwrap();
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&committed), names(target), "metadata/ is not what kvmha generate writes");
    for name in names(target) {
        let [ours, theirs] = [target, &committed].map(|folder| fs::read(folder.join(&name)).unwrap());
        assert!(ours == theirs, "metadata/{} is not what kvmha generate writes; KVMHA_BLESS=1 writes it anew", name.display());
    }
}

/// A schema, the option of xmllint for its kind, the package it comes with, and the renderings it takes. The DTD is ocf-tester's,
/// `metadata.rng` that of the resource agents' own checks; pcs chooses by the text of `<version>`. Pacemaker brings none.
const SCHEMAS: &[(&str, &str, &str, &[&str])] = &[
    ("/usr/share/resource-agents/ra-api-1.dtd", "--dtdvalid", "resource-agents", &["1.0"]),
    ("/usr/share/resource-agents/metadata.rng", "--relaxng", "resource-agents", &["1.0"]),
    ("/usr/share/pcs/data/ocf-1.0.rng", "--relaxng", "pcs", &["1.0"]),
    ("/usr/share/pcs/data/ocf-1.1.rng", "--relaxng", "pcs", &["1.0", "1.1"]),
];

#[test]
fn the_metadata_is_valid_by_every_schema() {
    let mut wrong = Vec::new();
    for (schema, kind, package, versions) in SCHEMAS {
        if !Path::new(schema).exists() {
            wrong.push(format!("{schema} is missing: install the package {package} (tests/prepare does)"));
            continue;
        }
        for version in *versions {
            let document = project().join(format!("metadata/VirtualDomain-{version}.xml"));
            let mut xmllint = Command::new("xmllint");
            xmllint.args(["--nonet", "--noout", kind, schema]).arg(document);
            wrong.extend(run(&mut xmllint).err().map(|text| format!("{text} (xmllint is in the package libxml2-utils)")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `systemd-analyze verify` says of the target that Pacemaker starts after, with this drop-in; nothing if all is well.
fn said_by_systemd(drop_in: &str) -> io::Result<String> {
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("resource-agents-deps.target");
    // Of the package resource-agents.
    fs::copy("/usr/lib/systemd/system/resource-agents-deps.target", &target)?;
    let place = folder.path().join("resource-agents-deps.target.d");
    fs::create_dir(&place)?;
    fs::write(place.join("50-kvmha.conf"), drop_in)?;
    let path = format!("{}:", folder.path().display());
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&target).env("SYSTEMD_UNIT_PATH", path);
    let output = verify.output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_order_of_a_hosts_shutdown_is_understood_by_systemd() {
    // A machine without systemd can run everything else.
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return;
    }
    let drop_in = fs::read_to_string(project().join("packaging/systemd/50-kvmha.conf")).unwrap();
    for unit in [
        "libvirtd.service",
        "virtqemud.service",
        "virtlogd.service",
        "virtlockd.service",
        "libvirt-guests.service",
        "systemd-machined.service",
        "blk-availability.service",
    ] {
        let ordered = drop_in.lines().any(|line| line.starts_with("After=") && line.split(['=', ' ']).any(|word| word == unit));
        assert!(ordered, "Pacemaker would not be done before {unit} ends");
    }
    assert_eq!(said_by_systemd(&drop_in).unwrap(), "");
    // It would say so if it did not understand it.
    assert!(said_by_systemd("[Unit]\nAfer=libvirtd.service\n").unwrap().contains("Afer"));
}

/// What `tests/unsteady` would try again, of a suite's log.
fn unsteady(suite: &str, log: &str) -> String {
    let mut script = Command::new(project().join("tests/unsteady"));
    let mut script = script.arg(suite).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let _ = script.stdin.take().unwrap().write_all(log.as_bytes());
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// As the suites say it: [`lab::suite`], and by themselves the suites truth and chaos.
fn log(said: &str) -> String {
    format!(
        "test a::good ... ok (1.0 s)\ntest a::failed ... FAILED (2.0 s)\n    {said}\n    -- node1\n    Nov 26 some line\n\
         test a::last ... ok (3.0 s)\n\nfailures:\n    a::failed\n\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n"
    )
}

#[test]
fn a_broken_promise_is_not_tried_again() {
    fn broken(kept: bool, words: &str) -> anyhow::Result<()> {
        lab::promised!(kept, "{words}");
        Ok(())
    }
    assert!(broken(true, "").is_ok());
    let error = broken(false, "emulator 7 of web1 is left").context("round 3").unwrap_err();
    assert_eq!(unsteady("fence", &log(&format!("{error:#}"))), "");
    let verdict = lab::judge::Verdict { violation: lab::judge::Violation::MemoryLost, at: 7.0, text: "vm1".to_owned() };
    assert_eq!(unsteady("chaos", &log(&verdict.to_string())), "");
    // In the suite truth a cell may break a promise and the next one not.
    let cells = format!("test a::stop ... FAILED 0! (3 %)\n    absent: {error:#}\ntest a::start ... FAILED 1 (3 %)\n    absent: late\n");
    assert_eq!(unsteady("truth", &format!("{cells}test result: FAILED.")), "truth a::start\n");
    // What is said behind the scenario's own lines.
    let behind = log("").replace("FAILED (2.0 s)", "12 moves\nFAILED (2.0 s)");
    assert_eq!(unsteady("fence", &behind), "fence a::failed\n");
    // A machine that is too busy.
    assert_eq!(unsteady("fence", &log("web1 does not beat")), "fence a::failed\n");
    assert_eq!(unsteady("sequences", &log("web1 does not beat")), "");
}

/// What a scenario finds of two writers or two copies is said in the words that `tests/unsteady` knows.
#[test]
fn a_suite_says_that_a_promise_was_broken() {
    let mut wrong = Vec::new();
    let mut folders = vec![project().join("tests")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("contract/main.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let plain = |line: &&str| {
                    line.contains("ensure!(") && ["two_writers", "ran twice", "lives on {"].iter().any(|word| line.contains(word))
                };
                wrong.extend(text.lines().filter(plain).map(|line| format!("{}: {}", path.display(), line.trim())));
            }
        }
    }
    // The incumbent, of which it is wanted.
    wrong.retain(|line| !line.contains("two writers before the storage is back"));
    assert!(wrong.is_empty(), "not promised!: {}", wrong.join("\n"));
}
