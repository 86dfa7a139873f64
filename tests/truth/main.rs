//! The suite `truth`: what each action answers in each condition, as `src/ocf/answers.txt` expects it, on real libvirt and QEMU.
//!
//! `cargo test --test truth [WORD...]` tries the cells whose names, `CONDITION::ACTION`, contain a word. With `AGENT_UNDER_TEST=theirs` the
//! same is tried on `ocf:heartbeat:VirtualDomain`; then a cell that differs is a line of the table at the end and no failure.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod between;
mod cells;
mod config;
mod guest;
mod libvirt;
mod play;

use anyhow::{Context, Result, ensure};
use cells::{Cell, Verdict};
use kvmha::ocf::answers::{self, Condition};
use lab::stage::Agent;
use lab::suite::{Words, close, in_lab};
use lab::{Lab, Options};
use play::{Lane, SetUp};
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// The lab's name, if no other is given; `tests/run` knows it too.
const LAB: &str = "truth";

/// Conditions tried side by side, each with two nodes of its own: most of the time is waiting for deadlines.
const LANES: u32 = 3;

/// How each condition of the table is made.
const SET_UPS: &[(&str, SetUp)] = &[
    ("healthy_runs", libvirt::healthy_runs),
    ("healthy_absent", libvirt::healthy_absent),
    ("down_runs", libvirt::down_runs),
    ("down_absent", libvirt::down_absent),
    ("frozen_runs", libvirt::frozen_runs),
    ("frozen_absent", libvirt::frozen_absent),
    ("killed_runs", libvirt::killed_runs),
    ("killed_absent", libvirt::killed_absent),
    ("restarted_runs", libvirt::restarted_runs),
    ("restarted_absent", libvirt::restarted_absent),
    ("socketless_runs", libvirt::socketless_runs),
    ("socketless_absent", libvirt::socketless_absent),
    ("forbidden_runs", libvirt::forbidden_runs),
    ("forbidden_absent", libvirt::forbidden_absent),
    ("modular_runs", libvirt::modular_runs),
    ("modular_absent", libvirt::modular_absent),
    ("lost_runs", libvirt::lost_runs),
    ("missing_runs", config::missing_runs),
    ("missing_absent", config::missing_absent),
    ("missing_came", config::missing_came),
    ("missing_restored", config::missing_restored),
    ("unreadable_runs", config::unreadable_runs),
    ("unreadable_absent", config::unreadable_absent),
    ("unparsable_runs", config::unparsable_runs),
    ("unparsable_absent", config::unparsable_absent),
    ("hung_runs", config::hung_runs),
    ("hung_absent", config::hung_absent),
    ("renamed_runs", config::renamed_runs),
    ("renamed_absent", config::renamed_absent),
    ("defined_off", guest::defined_off),
    ("paused_user", guest::paused_user),
    ("paused_migration", guest::paused_migration),
    ("paused_save", guest::paused_save),
    ("paused_dump", guest::paused_dump),
    ("dumped_live", guest::dumped_live),
    ("paused_snapshot", guest::paused_snapshot),
    ("paused_io_error", guest::paused_io_error),
    ("paused_watchdog", guest::paused_watchdog),
    ("paused_unknown", guest::paused_unknown),
    ("starting_up", guest::starting_up),
    ("shutting_down", guest::shutting_down),
    ("crashed", guest::crashed),
    ("suspended", guest::suspended),
    ("incoming", guest::incoming),
    ("postcopy", guest::postcopy),
    ("postcopy_failed", guest::postcopy_failed),
    ("emulator_frozen", guest::emulator_frozen),
    ("emulator_frozen_libvirt_down", guest::emulator_frozen_libvirt_down),
    ("emulator_stuck", guest::emulator_stuck),
    ("emulator_killed", guest::emulator_killed),
];

fn main() -> ExitCode {
    let words = Words::of_process();
    let name = words.lab.clone().unwrap_or_else(|| LAB.to_owned());
    in_lab(&name, None, || run(&words, &name))
}

fn run(words: &Words, name: &str) -> Result<ExitCode> {
    let (agent, conditions) = (Agent::under_test()?, answers::conditions().map_err(anyhow::Error::msg)?);
    let mut queue = VecDeque::new();
    let (mut tried, mut left_out) = (0, 0);
    for condition in &conditions {
        let cells = Cell::of(condition);
        let (wanted, others): (Vec<Cell>, Vec<Cell>) = cells.into_iter().partition(|cell| words.wants(&cell.name(condition)));
        (tried, left_out) = (tried + wanted.len(), left_out + others.len());
        if words.list {
            wanted.iter().for_each(|cell| println!("{}: test", cell.name(condition)));
        } else if !wanted.is_empty() {
            let (_, set_up) = SET_UPS
                .iter()
                .find(|(name, _)| *name == condition.name)
                .with_context(|| format!("the condition {} is not known to the suite", condition.name))?;
            queue.push_back((condition, *set_up, wanted));
        }
    }
    ensure!(SET_UPS.iter().all(|(name, _)| conditions.iter().any(|condition| condition.name == *name)), "the table lacks a condition");
    if words.list {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nrunning {tried} tests");
    let begin = Instant::now();
    let verdicts = if queue.is_empty() { Vec::new() } else { play(name, agent, queue)? };
    if agent == Agent::Theirs {
        println!("\n{}", cells::table_of_differences(&conditions, &verdicts));
    }
    println!("\n{}", cells::latest(&verdicts));
    let failed: Vec<&str> = verdicts.iter().filter(|verdict| !verdict.good).map(|verdict| verdict.name.as_str()).collect();
    Ok(if agent == Agent::Theirs { close::<&str>(tried, &[], left_out, begin) } else { close(tried, &failed, left_out, begin) })
}

/// Tries the conditions of the queue, several at a time.
fn play(name: &str, agent: Agent, queue: VecDeque<(&Condition, SetUp, Vec<Cell>)>) -> Result<Vec<Verdict>> {
    Lab::down(name, None)?;
    let lanes = LANES.min(u32::try_from(queue.len())?);
    let program = Some(lab::program::under_test());
    let lab = Lab::up_guarded(&Options { name: name.to_owned(), nodes: 2 * lanes, bare: true, agent: program, ..Options::default() })?;
    let (queue, verdicts) = (Mutex::new(queue), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for number in 0..lanes {
            let (lab, queue, verdicts) = (&lab, &queue, &verdicts);
            scope.spawn(move || {
                let lane = Lane::new(lab, number, agent);
                while let Some((condition, set_up, cells)) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                    let new = cells::try_condition(&lane, condition, set_up, &cells);
                    if let Ok(mut verdicts) = verdicts.lock() {
                        new.iter().for_each(Verdict::show);
                        verdicts.extend(new);
                    }
                }
            });
        }
    });
    Ok(verdicts.into_inner().unwrap_or_default())
}
