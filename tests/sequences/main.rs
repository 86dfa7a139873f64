//! The suite `sequences`: random actions and faults on one node against the model "absent or running": no false "stopped", no false
//! "running", no late answer, no guest that comes after it was said to be stopped, none that an action ended which may not.
//!
//! `KVMHA_SEQUENCES=N` says how many (24), `KVMHA_SEED=S` with which seed the first begins; each has the next number for its own. A sequence
//! that fails prints its seed and its steps: `KVMHA_SEQUENCES=1 KVMHA_SEED=S cargo test --test sequences` plays it again.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod play;

use anyhow::Result;
use lab::suite::{Words, close, in_lab, number};
use lab::{Lab, Options};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// The lab's name, if no other is given; `tests/run` knows it too.
const LAB: &str = "sequences";

/// How many sequences are played, when nobody says.
const USUAL: u64 = 24;

/// Nodes, each of which plays a sequence at a time, and with many sequences: most of the time is waiting for deadlines.
const NODES: [u32; 2] = [4, 8];

fn main() -> ExitCode {
    let words = Words::of_process();
    if words.list {
        println!("sequences: test");
        return ExitCode::SUCCESS;
    }
    let name = words.lab.unwrap_or_else(|| LAB.to_owned());
    in_lab(&name, None, || run(&name))
}

fn run(name: &str) -> Result<ExitCode> {
    let count = number("KVMHA_SEQUENCES")?.unwrap_or(USUAL);
    let first = number("KVMHA_SEED")?.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let begin = Instant::now();
    println!("\nrunning {count} tests");
    println!("seeds from {first}");
    Lab::down(name, None)?;
    let nodes = NODES[usize::from(count > 100)].min(u32::try_from(count).unwrap_or(u32::MAX)).max(1);
    let agent = Some(lab::program::under_test());
    let lab = Lab::up_guarded(&Options { name: name.to_owned(), nodes, bare: true, agent, ..Options::default() })?;
    let (next, failed, calls) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(play::Tally::default()));
    thread::scope(|scope| {
        for node in lab.node_names() {
            let (lab, next, failed, calls) = (&lab, &next, &failed, &calls);
            scope.spawn(move || {
                loop {
                    let seed = first + next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    let mut sequence = play::Sequence::new(lab, &node, seed);
                    let outcome = sequence.run();
                    if let Ok(mut calls) = calls.lock() {
                        calls.add(&sequence.tally);
                    }
                    if outcome.is_ok() {
                        println!("test seed {seed} ... ok ({} steps)", sequence.steps.len());
                    }
                    if let Err(error) = outcome {
                        println!("test seed {seed} ... FAILED\n    {error:#}\n    {}", sequence.steps.join("\n    "));
                        failed.lock().map(|mut failed| failed.push(format!("seed {seed}"))).unwrap_or_default();
                    }
                }
            });
        }
    });
    println!("{}", calls.into_inner().unwrap_or_default());
    Ok(close(usize::try_from(count)?, &failed.into_inner().unwrap_or_default(), 0, begin))
}
