//! The cells of a condition: each action called as Pacemaker calls it, its answer compared with the table's and with what is true.

use crate::between::Between;
use crate::play::{Lane, SetUp, plain};
use anyhow::{Context, Result};
use kvmha::ocf::answers::{ACTIONS, Answer, Condition};
use lab::promise::BROKEN;
use lab::stage::{self, Agent, Resource};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

/// The timeout of every action, in seconds: short, so that the suite is, and long enough for what an agent does by itself.
const TIMEOUT: u64 = 12;

/// A cell: an action and what it is to answer.
#[derive(Clone, Debug)]
pub struct Cell {
    action: &'static str,
    answer: Answer,
}

/// What became of a cell.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// `CONDITION::ACTION`.
    pub name: String,
    condition: &'static str,
    action: &'static str,
    /// Whether it is as the table says, and true.
    pub good: bool,
    /// The answer and, if it is not good, why.
    text: String,
    /// The answer in short: a code, `late`, with a mark if it was not true.
    short: String,
    /// The time it took as a share of the timeout.
    share: f64,
}

impl Verdict {
    pub fn show(&self) {
        println!("test {} ... {} {}", self.name, if self.good { "ok" } else { "FAILED" }, self.text);
    }
}

impl Cell {
    /// Those of a condition that can be tried.
    pub fn of(condition: &Condition) -> Vec<Self> {
        let cells = ACTIONS.into_iter().zip(&condition.answers).map(|(action, answer)| Self { action, answer: answer.clone() });
        cells.filter(|cell| matches!(cell.answer, Answer::Code(..))).collect()
    }

    pub fn name(&self, condition: &Condition) -> String {
        format!("{}::{}", condition.name, self.action)
    }
}

/// An answer as it was given.
struct Given {
    /// None: it was late and was killed.
    code: Option<i32>,
    said: String,
    time: Duration,
    /// What was wrong with it whatever the table says: no reason, not in time, or not asked in the condition.
    fault: Option<String>,
}

/// Tries the cells of a condition.
pub fn try_condition(lane: &Lane, condition: &Condition, set_up: SetUp, cells: &[Cell]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if let Err(error) = try_cells(lane, condition, set_up, cells, &mut verdicts) {
        // The cells that were not reached are not good either.
        for cell in cells {
            if verdicts.iter().all(|verdict: &Verdict| verdict.action != cell.action) {
                verdicts.push(cell.verdict(condition, Err(error.to_string()), &format!("{error:#}")));
            }
        }
    }
    if let Err(error) = lane.tidy(condition.name) {
        println!("cannot tidy up after {}: {error:#}", condition.name);
        if let Some(last) = verdicts.last_mut() {
            last.good = false;
        }
    }
    verdicts
}

/// First those that only look, all at once; then those that change something, each on a condition that stands. The order is such that the
/// one which ends the condition comes last.
fn try_cells(lane: &Lane, condition: &Condition, set_up: SetUp, cells: &[Cell], verdicts: &mut Vec<Verdict>) -> Result<()> {
    let make = || set_up(lane, condition.name).context("the condition cannot be made");
    let mut play = make()?;
    let lives = play.guest.lives(&lane.here);
    let order = if lives { ["start", "migrate_to", "stop"] } else { ["migrate_to", "stop", "start"] };
    let (changing, looking): (Vec<&Cell>, Vec<&Cell>) = cells.iter().partition(|cell| order.contains(&cell.action));
    if play.between.is_some() {
        for cell in looking {
            verdicts.push(try_cell(lane, condition, &play.guest, play.between.as_ref(), cell)?);
        }
    } else {
        let tried: Vec<Result<Verdict>> = thread::scope(|scope| {
            let guest = &play.guest;
            let threads: Vec<_> = looking.iter().map(|cell| scope.spawn(move || try_cell(lane, condition, guest, None, cell))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panicked"))).collect()
        });
        for verdict in tried {
            verdicts.push(verdict?);
        }
    }
    for action in order {
        let Some(cell) = changing.iter().find(|cell| cell.action == action) else { continue };
        if play.guest.lives(&lane.here) != lives || !(play.stands)() {
            drop(play);
            lane.tidy(condition.name)?;
            play = make()?;
        }
        verdicts.push(try_cell(lane, condition, &play.guest, play.between.as_ref(), cell)?);
    }
    Ok(())
}

fn try_cell(lane: &Lane, condition: &Condition, guest: &Resource, between: Option<&Between>, cell: &Cell) -> Result<Verdict> {
    let before = guest.emulators(&lane.here)?;
    between.iter().for_each(|between| between.arm(cell.action, !before.is_empty()));
    let given = call(lane, guest, cell.action);
    between.iter().try_for_each(|between| between.heal())?;
    let mut given = given?;
    if guest.agent == Agent::Ours {
        given.fault = given.fault.or_else(|| between.and_then(Between::missed));
    }
    let after = guest.emulators(&lane.here)?;
    // What holds whatever the table says.
    let untrue = match (cell.action, given.code) {
        ("stop", Some(0)) | (_, Some(7)) if !after.is_empty() => Some("said to be gone, but its emulator is there"),
        ("start", Some(0)) if after.is_empty() => Some("said to be started, but there is no emulator"),
        ("monitor" | "probe" | "status" | "migrate_from", Some(0)) if after.is_empty() => {
            Some("said to be there, but there is no emulator")
        }
        ("migrate_to", Some(0)) if !guest.lives(&lane.there) => Some("said to be moved, but it is not at the target"),
        ("stop" | "migrate_to", _) => None,
        _ if before.iter().any(|emulator| !after.contains(emulator)) => Some("its emulator was ended by it"),
        _ => None,
    };
    Ok(cell.judge(condition, given, untrue))
}

fn call(lane: &Lane, guest: &Resource, action: &str) -> Result<Given> {
    let word = match action {
        "monitor" => "recurring",
        "probe" => "monitor",
        other => other,
    };
    let more: &[(&str, &str)] = match action {
        "migrate_to" => &[("OCF_RESKEY_CRM_meta_migrate_target", lane.there.as_str())],
        "migrate_from" => &[("OCF_RESKEY_CRM_meta_migrate_source", lane.there.as_str())],
        "validate-all" => &[("OCF_CHECK_LEVEL", "10")],
        _ => &[],
    };
    let timeout = Duration::from_secs(TIMEOUT);
    // Pacemaker kills an action at its timeout; ours is given some seconds more, to see how late it is.
    let limit = if guest.agent == Agent::Ours { timeout + Duration::from_secs(5) } else { timeout };
    let begin = Instant::now();
    let output = lane.lab.exec(&lane.here, &guest.words(&lane.here, word, TIMEOUT, more), limit)?;
    let time = begin.elapsed();
    let fault = match guest.agent {
        Agent::Ours => stage::Answer::of(action.to_owned(), &output, timeout).err().map(|error| format!("{error:#}")),
        Agent::Theirs => None,
    };
    let reason = output.stderr.lines().filter_map(|line| line.strip_prefix("ocf-exit-reason:")).next_back();
    Ok(Given { code: output.code, said: reason.unwrap_or_default().to_owned(), time, fault })
}

impl Cell {
    fn judge(&self, condition: &Condition, given: Given, untrue: Option<&str>) -> Verdict {
        let share = given.time.as_secs_f64() / Duration::from_secs(TIMEOUT).as_secs_f64();
        let short = format!("{}{}", given.code.map_or_else(|| "late".to_owned(), |code| code.to_string()), untrue.map_or("", |_| "!"));
        let said = if given.said.is_empty() { String::new() } else { format!(" \"{}\"", given.said) };
        let text = format!("{short} ({:.0} %){said}", share * 100.0);
        // First what is not true: a wrong code may be the table's mistake, this never is.
        let outcome = untrue.map_or(Ok(()), |untrue| Err(format!("{BROKEN}: {untrue}")));
        let outcome = outcome.and_then(|()| given.fault.map_or(Ok(()), Err));
        let outcome = outcome.and_then(|()| self.expected(condition, given.code, &given.said));
        let verdict = self.verdict(condition, outcome, &text);
        Verdict { short, share, ..verdict }
    }

    fn verdict(&self, condition: &Condition, outcome: Result<(), String>, text: &str) -> Verdict {
        let (good, text) = match outcome {
            Ok(()) => (true, text.to_owned()),
            Err(why) => (false, format!("{text}\n    {}: {why}", condition.text)),
        };
        let name = self.name(condition);
        Verdict { name, condition: condition.name, action: self.action, good, text, short: "?".to_owned(), share: 0.0 }
    }

    fn expected(&self, condition: &Condition, code: Option<i32>, said: &str) -> Result<(), String> {
        let Answer::Code(codes, words) = &self.answer else { return Ok(()) };
        let wanted = codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        if !code.is_some_and(|code| codes.iter().any(|known| i32::from(*known) == code)) {
            return Err(format!("the table says {wanted}"));
        }
        let words = words.replace("{guest}", &plain(condition.name));
        match code {
            Some(0 | 7) => Ok(()),
            _ if said.to_lowercase().contains(&words.to_lowercase()) => Ok(()),
            _ => Err(format!("the reason does not say {words:?}")),
        }
    }
}

/// How late the latest answer was.
pub fn latest(verdicts: &[Verdict]) -> String {
    match verdicts.iter().max_by(|one, other| one.share.total_cmp(&other.share)) {
        Some(last) => format!("latest answer: {:.0} % of its timeout, {}", last.share * 100.0, last.name),
        None => "no answer".to_owned(),
    }
}

/// Where an agent differs from the table, as Markdown: a row for each condition that has a difference, with its answers and the table's.
pub fn table_of_differences(conditions: &[Condition], verdicts: &[Verdict]) -> String {
    let mut text = format!("| condition | {} |\n|---|{}\n", ACTIONS.join(" | "), "---|".repeat(ACTIONS.len()));
    for condition in conditions {
        let mut cells: BTreeMap<&str, &Verdict> = BTreeMap::new();
        cells.extend(verdicts.iter().filter(|verdict| verdict.condition == condition.name).map(|verdict| (verdict.action, verdict)));
        if cells.values().all(|verdict| verdict.good) {
            continue;
        }
        let _ = write!(text, "| {} |", condition.text);
        for (action, answer) in ACTIONS.iter().zip(&condition.answers) {
            let wanted = match answer {
                Answer::Code(codes, _) => codes.iter().map(ToString::to_string).collect::<Vec<_>>().join("/"),
                Answer::NotTried(_) => "-".to_owned(),
            };
            let _ = match cells.get(action) {
                Some(verdict) if verdict.short != wanted && !wanted.split('/').any(|code| code == verdict.short) => {
                    write!(text, " **{}** ({wanted}) |", verdict.short)
                }
                _ => write!(text, " {wanted} |"),
            };
        }
        text.push('\n');
    }
    text
}
