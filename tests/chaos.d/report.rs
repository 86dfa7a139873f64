//! What is said at the end: a table, the figures' file, and of each violation what happened around it.

use anyhow::{Context, Result};
use lab::history::{FaultKind, History, Outcome};
use lab::judge::{Verdict, Violation, broken_kernels, judge};
use lab::plan::{Round, Script};
use lab::scene::Stage;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Seconds before and after a violation that are shown.
const AROUND: f64 = 45.0;

/// An operation that took longer is named.
const SLOW: f64 = 40.0;

/// What was played.
pub struct Report {
    script: Script,
    pub rounds: usize,
    work: usize,
    faults: usize,
    seconds: Vec<f64>,
}

impl Report {
    pub fn new(script: &Script) -> Self {
        Self { script: *script, rounds: 0, work: 0, faults: 0, seconds: Vec::new() }
    }

    /// A round was played.
    pub fn count(&mut self, round: &Round, seconds: f64) {
        let faults = round.iter().filter(|step| step.what.is_fault()).count();
        self.rounds += 1;
        self.faults += faults;
        self.work += round.len() - faults;
        self.seconds.push(seconds);
    }

    /// Whether nothing was wrong, and everything seen.
    pub fn print(&self, stage: &Stage, history: &History, verdicts: &[Verdict]) -> Result<bool> {
        let Script { seed, operations, guests, .. } = self.script;
        println!(
            "{} of {operations} operations and {} faults in {} rounds, {:.0} s",
            self.work,
            self.faults,
            self.rounds,
            self.seconds.iter().sum::<f64>()
        );
        let mut actions: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for action in &history.actions {
            let column = match action.outcome {
                Outcome::Done => 0,
                Outcome::Failed => 1,
                Outcome::Late => 2,
            };
            actions.entry(&action.name).or_default()[column] += 1;
        }
        println!("  {:14} {:>6} {:>6} {:>6}", "action", "done", "failed", "late");
        for (name, [done, failed, late]) in &actions {
            println!("  {name:14} {done:>6} {failed:>6} {late:>6}");
        }
        let boots: usize = history.guests.iter().map(|guest| guest.boots.len()).sum();
        println!("  boots {boots}, fencings {}, faults {}", history.fencings.len(), faults(history));
        let broken = broken_kernels(history);
        if broken > 0 {
            println!("  {broken} boots were a guest's kernel's own, which broke: QEMU without KVM does that in a move, see docs/chaos.md");
        }
        for guest in history.guests.iter().filter(|guest| guest.unread > 0) {
            println!("  {} looks at the disk of {} failed: nobody knows what it did then", guest.unread, guest.name);
        }
        for slow in history.operations.iter().filter(|operation| operation.end - operation.begin > SLOW) {
            println!("  {:.0} s at {:.0} s: {}", slow.end - slow.begin, slow.begin, slow.text);
        }
        let mut counts: BTreeMap<Violation, usize> = Violation::ALL.iter().map(|violation| (*violation, 0)).collect();
        verdicts.iter().for_each(|verdict| *counts.entry(verdict.violation).or_default() += 1);
        for (violation, count) in &counts {
            println!("  {:18} {count}", format!("{violation:?}"));
        }
        self.write(history, &counts)?;
        let good = verdicts.is_empty() && history.guests.iter().all(|guest| guest.unread == 0);
        if good {
            println!("test chaos ... ok ({:.1} s)", self.seconds.iter().sum::<f64>());
            return Ok(true);
        }
        println!(
            "test chaos ... FAILED\n    seed {seed}: play it again with tests/chaos --ops {operations} --seed {seed} --guests {guests}"
        );
        for verdict in verdicts {
            println!("  {verdict}");
            let at = if verdict.at.is_finite() {
                verdict.at
            } else {
                history.guests.iter().flat_map(|guest| &guest.boots).map(|boot| boot.last).fold(0.0, f64::max)
            };
            history.timeline(at - AROUND, at + AROUND).iter().for_each(|line| println!("    {line}"));
        }
        keep_logs(stage);
        Ok(false)
    }

    /// `target/figures/chaos.json`: how many violations, of which kind, in how many operations.
    fn write(&self, history: &History, counts: &BTreeMap<Violation, usize>) -> Result<()> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
        let folder = target.join("figures");
        fs::create_dir_all(&folder)?;
        let name = if self.script.ours { "chaos" } else { "chaos-theirs" };
        let all: usize = counts.values().sum();
        let summary = json!({"median": all, "p99": all, "min": all, "max": all, "runs": 1});
        let late = history.actions.iter().filter(|action| action.outcome == Outcome::Late).count();
        let text = json!({
            "name": name, "unit": "violations", "ours": summary, "rivals": {}, "seed": self.script.seed, "guests": self.script.guests,
            "operations": self.work, "faults": self.faults, "actions": history.actions.len(), "late": late,
            "fencings": history.fencings.len(), "broken_kernels": broken_kernels(history), "violations": counts,
        });
        let path = folder.join(format!("{name}.json"));
        fs::write(&path, format!("{text:#}\n")).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// What was said while the run goes on: a long one is not waited for to its end, and one that is cut off has said what it saw.
#[derive(Default)]
pub struct Told(Vec<(Violation, String)>);

impl Told {
    /// Says what is wrong by now and was not before. At the end everything is judged once more.
    pub fn tell(&mut self, history: &History) {
        for verdict in judge(history) {
            let seen = (verdict.violation, verdict.text.clone());
            if !self.0.contains(&seen) {
                println!("    {verdict}");
                self.0.push(seen);
            }
        }
    }
}

/// Faults that came to pass, by their kind.
fn faults(history: &History) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for fault in history
        .faults
        .iter()
        .filter(|fault| fault.subject != "nobody" && !matches!(fault.kind, FaultKind::OtherAgent | FaultKind::NodeLost))
    {
        *counts.entry(format!("{:?}", fault.kind)).or_default() += 1;
    }
    counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
}

/// Keeps the logs where those of the suite `cluster` are.
pub fn keep_logs(stage: &Stage) {
    stage.keep_logs(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster/chaos"));
}
