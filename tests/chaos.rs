//! The suite `chaos`: a three-node cluster with fencing under random work and random faults, and a judge that knows only what was seen.
//!
//! `cargo test --test chaos -- --ops N --seed S --guests G --agent ours|theirs --fence ours|lab --minutes M`, all of them optional; the environment
//! has `KVMHA_CHAOS_OPS`, `KVMHA_SEED` and `KVMHA_CHAOS_MINUTES`. What is done is a pure function of the seed; `--plan` only prints it. After
//! the minutes no further round begins.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

#[path = "chaos.d/back.rs"]
mod back;
#[path = "chaos.d/log.rs"]
mod log;
#[path = "chaos.d/play.rs"]
mod play;
#[path = "chaos.d/record.rs"]
mod record;
#[path = "chaos.d/report.rs"]
mod report;
#[path = "chaos.d/rest.rs"]
mod rest;
#[path = "chaos.d/silence.rs"]
mod silence;
#[path = "chaos.d/strike.rs"]
mod strike;

use anyhow::{Context, Result, bail};
use lab::history::History;
use lab::judge::{Violation, judge};
use lab::plan::{Script, plan};
use lab::process::wait_until;
use lab::program::under_test;
use lab::scene::{LIMIT, Stage};
use lab::suite::{close, in_lab, number};
use lab::{Lab, Options, Watcher};
use play::Play;
use record::Recorder;
use report::{Report, Told};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The lab's name, if no other is given; `tests/run` knows it too.
const LAB: &str = "chaos";
const NODES: u32 = 3;
/// If no other is given: what `tests/run` plays is always the same.
const SEED: u64 = 12;

/// What the command line says.
struct Words {
    script: Script,
    lab: String,
    minutes: u64,
    list: bool,
    plan: bool,
}

fn main() -> ExitCode {
    let words = match words(std::env::args().skip(1)) {
        Ok(words) => words,
        Err(error) => {
            println!("chaos: {error:#}");
            return ExitCode::from(2);
        }
    };
    if words.list {
        println!("chaos: test");
        return ExitCode::SUCCESS;
    }
    if words.plan {
        print_plan(&words.script);
        return ExitCode::SUCCESS;
    }
    in_lab(&words.lab, None, || {
        let begin = Instant::now();
        println!("\nrunning 1 tests");
        let failed = match run(&words) {
            Ok(true) => Vec::new(),
            Ok(false) => vec!["chaos"],
            Err(error) => {
                // Unlike a violation, `tests/run` tries this once more.
                println!("test chaos ... FAILED ({:.1} s)\n    seed {}: {error:#}", begin.elapsed().as_secs_f64(), words.script.seed);
                vec!["chaos"]
            }
        };
        Ok(close(1, &failed, 0, begin))
    })
}

fn words(mut all: impl Iterator<Item = String>) -> Result<Words> {
    let script = Script {
        seed: number("KVMHA_SEED")?.unwrap_or(SEED),
        operations: number("KVMHA_CHAOS_OPS")?.unwrap_or(200),
        guests: 4,
        nodes: NODES,
        ours: true,
        fenced: true,
    };
    let minutes = number("KVMHA_CHAOS_MINUTES")?.unwrap_or(12);
    let mut words = Words { script, lab: LAB.to_owned(), minutes, list: false, plan: false };
    while let Some(word) = all.next() {
        let mut value = || all.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--list" => words.list = true,
            "--plan" => words.plan = true,
            "--lab" => words.lab = value()?,
            "--ops" => words.script.operations = value()?.parse().context("--ops wants a number")?,
            "--seed" => words.script.seed = value()?.parse().context("--seed wants a number")?,
            "--minutes" => words.minutes = value()?.parse().context("--minutes wants a number")?,
            "--guests" => {
                words.script.guests = value()?.parse().ok().filter(|guests| (1..=30).contains(guests)).context("--guests wants 1 to 30")?;
            }
            "--agent" | "--fence" => {
                let ours = match value()?.as_str() {
                    "ours" => true,
                    "theirs" if word == "--agent" => false,
                    "lab" if word == "--fence" => false,
                    other => bail!("{word} does not know {other}"),
                };
                let field = if word == "--agent" { &mut words.script.ours } else { &mut words.script.fenced };
                *field = ours;
            }
            // Those of libtest that `cargo test` may pass on, and the name of the only scenario.
            "--nocapture" | "--exact" | "--quiet" | "-q" | "chaos" => {}
            other => bail!("unknown word {other}"),
        }
    }
    Ok(words)
}

fn print_plan(script: &Script) {
    println!("{script:?}");
    for (number, round) in (1..).zip(plan(script)) {
        println!("round {number}");
        for step in round {
            let word = if step.what.is_fault() { "fault" } else { "work " };
            println!("  {:5.2} s for {:4.2} s  {word} {}", step.after.as_secs_f64(), step.lasts.as_secs_f64(), step.what);
        }
    }
}

/// Whether nothing was wrong.
fn run(words: &Words) -> Result<bool> {
    let script = &words.script;
    println!("seed {}, {} guests, {} operations in at most {} min", script.seed, script.guests, script.operations, words.minutes);
    Lab::down(&words.lab, None)?;
    let (name, agent) = (words.lab.clone(), Some(under_test()));
    let stage = Stage::of(&Lab::up(&Options { name, agent, limit: LIMIT, clock: true, ..Options::default() })?);
    let recorder = Recorder::new(script.ours)?;
    let provider = if script.ours { "kvmha" } else { play::THEIRS };
    let play = Play::new(&stage, &recorder, script.guests, provider);
    let mut report = Report::new(script);
    let history = thread::scope(|scope| {
        scope.spawn(|| recorder.watch(&stage.lab));
        scope.spawn(|| recorder.ask(&stage.lab));
        let played = perform(&play, words, &mut report);
        recorder.finish();
        played
    });
    match history {
        Ok(history) => {
            let verdicts = judge(&history);
            report.print(&stage, &history, &verdicts)
        }
        Err(error) => {
            report::keep_logs(&stage);
            Err(error)
        }
    }
}

/// Plays as many rounds as the time allows; what was seen then.
fn perform(play: &Play, words: &Words, report: &mut Report) -> Result<History> {
    play.make()?;
    let lab = &play.stage.lab;
    let watch = |name: String| Ok((name.clone(), Watcher::start(&lab.guest_image(&name))?));
    let watchers = play.names().into_iter().map(watch).collect::<Result<Vec<_>>>()?;
    for (name, watcher) in &watchers {
        anyhow::ensure!(watcher.wait_beat(LIMIT), "{name} does not boot");
    }
    let end = Instant::now() + Duration::from_secs(60 * words.minutes);
    let mut told = Told::default();
    for round in plan(&words.script) {
        if Instant::now() >= end {
            break;
        }
        let begin = play.recorder.now();
        let played = play.round(&round).with_context(|| format!("round {}", report.rounds + 1));
        report.count(&round, play.recorder.now() - begin);
        println!("round {}: {} steps, {:.0} s", report.rounds, round.len(), play.recorder.now() - begin);
        if let Err(error) = played {
            let history = play.recorder.history(lab, &watchers, &[], Vec::new())?;
            history.timeline(begin, f64::INFINITY).iter().for_each(|line| println!("    {line}"));
            // With what is wrong by then, but for what is only known when all is healed.
            let wrong =
                judge(&history).into_iter().filter(|verdict| !matches!(verdict.violation, Violation::LeftDown | Violation::LeftBehind));
            bail!("{error:#}{}", wrong.map(|verdict| format!("\n    {verdict}")).collect::<String>());
        }
        told.tell(&play.recorder.history(lab, &watchers, &[], Vec::new())?);
        if watchers.iter().any(|(_, watcher)| watcher.wait(Duration::ZERO, |watch| watch.two_writers.is_some())) {
            break;
        }
    }
    play.heal()?;
    let beats = |watcher: &Watcher| watcher.wait_beat(LIMIT);
    let beating: Vec<bool> = watchers.iter().map(|(_, watcher)| beats(watcher)).collect();
    let left = play.end()?;
    // What a process that was said to be gone still writes is seen now.
    wait_until(Duration::from_secs(2), Duration::from_secs(1), || false);
    play.recorder.history(lab, &watchers, &beating, left)
}
