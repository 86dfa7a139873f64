//! Ending one guest, wherever it is, and proving it off everywhere: round by round, and what is known from one to the next.

mod round;

use super::note::{Begun, Note, ORDINARY, open_ends};
use super::plug::{Done, LONG_PAUSE, PAUSE, Plug};
use super::told::{RETRY, TELLING, Told, Word};
use super::verdict::{Answer, Progress, Step, Verdict, judge, step};
use crate::deadline::{self, Deadline};
use crate::domain::{Error, Kind, Result};
use crate::log;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Quiet rounds in a row that prove a guest off, and those after a migration was in flight: its target may only just be coming up.
const ROUNDS: u32 = 2;
const ROUNDS_AFTER_MOVE: u32 = 5;

/// Between two rounds after an end that was seen, of a guest that was not moving: then it is the order that counts. Each host is asked
/// again after all have said that it is not there, so that one that was handed over between their answers is met in the next round, however
/// long that is.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// How long after the time for ending a guest the other nodes can still be told that it was not seen. The caller waits 5 s.
const AFTER: Duration = Duration::from_secs(4);

/// For what another action may have to say, which ends the guest too and has waited for the same emulator.
const OTHERS: Duration = Duration::from_secs(5);

/// An end that is under way.
pub(super) struct Ending<'a> {
    plug: &'a mut Plug,
    /// The note about the guest, as it was last read or written.
    note: Option<Note>,
    /// Ends that were open before: nothing that is done from here on proves them.
    stands: Vec<Begun>,
    /// The hosts on which libvirt refused an end and did not end it since, and since when that end may be under way.
    pending: BTreeMap<usize, Instant>,
    /// Whether it was noted by an earlier action that it may have left for a host that is not asked.
    left_before: bool,
    /// The hosts on which libvirt said that it runs, and those on which it was ended and had certainly not left.
    ran: BTreeSet<usize>,
    stayed: BTreeSet<usize>,
    /// Since when somebody else's end is under way, which nothing proves but that the guest is no longer there.
    unseen: Option<Instant>,
    /// Whether the other nodes were told of an end that is under way.
    told: bool,
    /// The rounds.
    progress: Progress,
    /// Whether there was a round in which libvirt ended every copy that was found.
    ended: bool,
    /// The hosts on which no saved memory of it is left (`virsh managedsave`).
    without_memory: Vec<usize>,
    /// In how many rounds a copy could not be ended.
    refusals: u32,
    /// Why the last thing that failed did: ending a copy, or removing a saved memory.
    refused: Option<Error>,
}

impl<'a> Ending<'a> {
    /// # Errors
    /// The note cannot be read.
    pub(super) fn new(plug: &'a mut Plug) -> Result<Self> {
        let note = plug.note()?;
        let missing_is_off = plug.missing_as_off || note.as_ref().is_some_and(Note::is_fresh);
        Ok(Self {
            plug,
            stands: open_ends(note.as_ref()),
            left_before: note.as_ref().is_some_and(|note| note.left.is_some()),
            note,
            pending: BTreeMap::new(),
            ran: BTreeSet::new(),
            stayed: BTreeSet::new(),
            unseen: None,
            told: false,
            progress: Progress { missing_is_off, needed: ROUNDS, ..Progress::default() },
            ended: false,
            without_memory: Vec::new(),
            refusals: 0,
            refused: None,
        })
    }

    /// Goes on until it is proven off.
    ///
    /// # Errors
    /// It is not proven off, and why.
    pub(super) fn run(mut self, deadline: &Deadline) -> Result<Done> {
        let last = Deadline::after(deadline.left() + AFTER);
        let answer = self.rounds(deadline);
        let is_open = self.note.as_ref().is_some_and(|note| !note.ends.is_empty() || note.left.is_some());
        // Pacemaker asks another node now.
        answer.map_err(|mut error| {
            if (is_open || self.told)
                && let Err(text) = self.plug.nodes.tell(&self.plug.notes, &last.within(TELLING))
            {
                error.text += &format!("; the other nodes cannot be told of that, and may call it off: {text}");
            }
            error
        })
    }

    fn rounds(&mut self, deadline: &Deadline) -> Result<Done> {
        loop {
            let answers = self.ask(deadline)?;
            let verdict = judge(&answers);
            let silent = answers.iter().any(|answer| matches!(answer, Answer::Unknown(_)));
            let mut next = step(&verdict, silent, &mut self.progress, deadline::now());
            // A round comes after it, so that a start from that memory is seen.
            if self.drop_memory(&verdict, deadline)? && next == Step::Done {
                next = Step::Again;
            }
            let pause = match next {
                Step::Done => {
                    if verdict == Verdict::Missing && !self.progress.begun {
                        self.plug.insist_on_letters(self.note.as_ref(), deadline)?;
                    }
                    return self.verdict(&answers, deadline);
                }
                Step::Kill(hosts) => self.round(&hosts, &verdict, deadline)?,
                Step::Again if matches!(verdict, Verdict::Unknown(_)) => LONG_PAUSE * self.progress.unknown.min(4),
                Step::Again if self.ended && self.unseen.is_none() && self.progress.needed == ROUNDS => SHORT_PAUSE,
                Step::Again => PAUSE,
                Step::Missing => {
                    if let Some(error) = self.plug.open(self.note.as_ref(), &answers) {
                        return Err(error);
                    }
                    self.plug.insist_on_nodes(&answers, |left| self.is_back(left))?;
                    return Err(self.plug.unclear(&verdict, &answers));
                }
                Step::Unreachable(_) | Step::Refuse(_) => return Err(self.plug.unclear(&verdict, &answers)),
            };
            if !deadline.pause(pause) {
                return Err(match verdict {
                    Verdict::Unknown(_) => self.plug.unclear(&verdict, &answers),
                    _ => self.late(&verdict),
                });
            }
        }
    }

    /// Asks all hosts, and brings the note up to date: it is about the guest that has the name now, and hosts that say in time that it does
    /// not run there show that what was begun there was an ordinary end.
    fn ask(&mut self, deadline: &Deadline) -> Result<Vec<Answer>> {
        let answers = self.plug.pool.ask(&self.plug.target, deadline);
        self.plug.target.learn(&answers);
        self.ran.extend(answers.iter().enumerate().filter(|(_, answer)| answer.runs()).map(|(host, _)| host));
        let uuid = self.plug.target.uuid.as_ref();
        if self.note.as_ref().is_some_and(|note| uuid.is_some_and(|uuid| *uuid != note.uuid)) {
            self.note = self.plug.note()?;
            self.stands = open_ends(self.note.as_ref());
        }
        let elsewhere = |left: &str| answers.iter().enumerate().any(|(host, answer)| answer.runs() && self.plug.pool.label(host) != left);
        if let Some(note) = &mut self.note {
            // A copy on another host shows where the move led to.
            note.left = note.left.take().filter(|left| !elsewhere(left));
            for (host, answer) in answers.iter().enumerate() {
                if matches!(answer, Answer::Defined { .. } | Answer::Absent) {
                    note.quiet(self.plug.pool.label(host));
                }
            }
        }
        Ok(answers)
    }

    /// What is saved of a guest that is off ends with it (`virsh managedsave`): a node must not come back with the memory that it had in the
    /// cluster. Gives whether there was something to do.
    fn drop_memory(&mut self, verdict: &Verdict, deadline: &Deadline) -> Result<bool> {
        let hosts: Vec<usize> = match verdict {
            Verdict::Off(hosts) => hosts.iter().copied().filter(|host| !self.without_memory.contains(host)).collect(),
            Verdict::On(_) => {
                self.without_memory.clear();
                return Ok(false);
            }
            _ => return Ok(false),
        };
        match self.plug.pool.drop_memory(&self.plug.target, &hosts, deadline) {
            Ok(()) => self.without_memory.extend(&hosts),
            Err(error) if error.leaves_open() => self.refused = Some(error),
            Err(error) => {
                return Err(self.plug.failure(format_args!(
                    "it is off, but was saved, and its memory cannot be removed (virsh managedsave-remove): {error}"
                )));
            }
        }
        Ok(!hosts.is_empty())
    }

    /// Whether it was found after a move from this host that another node has noted: it ran elsewhere, or was still there.
    fn is_back(&self, left: &str) -> bool {
        let label = |host: &usize| self.plug.pool.label(*host);
        self.ran.iter().any(|host| label(host) != left) || self.stayed.iter().any(|host| label(host) == left)
    }

    /// What it means that all hosts said often enough that it does not run there.
    fn verdict(&mut self, answers: &[Answer], deadline: &Deadline) -> Result<Done> {
        if let Some(error) = self.plug.open(self.note.as_ref(), answers) {
            return Err(error);
        }
        if self.unseen.iter().chain(self.pending.values()).any(|since| deadline::now() - *since > ORDINARY) {
            return Err(self.plug.failure("it is gone, but its end took so long that its emulator may hang in the kernel and still write"));
        }
        let folder = self.plug.notes.clone();
        if let Some(note) = &mut self.note {
            note.ends.clear();
            if let Err(error) = note.write(&folder) {
                log::warning(error);
            }
        }
        // Before the others are heard: two that wait for each other's word would both fail.
        if self.told {
            self.plug.nodes.correct(&folder);
        }
        let (limit, mut told) = (deadline.within(OTHERS), Vec::new());
        loop {
            told = self.plug.told(answers, |left| self.is_back(left), &told)?;
            let Some(first) = told.first() else { break };
            // Who began it a moment ago may see its end yet.
            let is_young = |told: &Told| matches!(&told.word, Word::Unseen(end) if end.is_young());
            if !told.iter().all(is_young) || !limit.pause(RETRY) {
                return Err(self.plug.unseen(first));
            }
        }
        if let Some(note) = self.note.as_ref().filter(|note| note.xml.is_none())
            && let Err(error) = note.remove(&folder)
        {
            log::warning(error);
        }
        let fenced: Vec<usize> = (0..answers.len()).filter(|host| matches!(answers[*host], Answer::Fenced { .. })).collect();
        if !fenced.is_empty() {
            let hosts = self.plug.pool.labels(&fenced);
            log::warning(format_args!("{}: if {hosts} saved it (libvirt-guests), its old memory is there still", self.plug.target.word));
        }
        Ok(if self.progress.seen { Done::Changed } else { Done::Already })
    }

    fn late(&self, verdict: &Verdict) -> Error {
        let place = match verdict {
            Verdict::On(hosts) => format!("it was last seen on {}", self.plug.pool.labels(hosts)),
            _ => "it was not proven off on all hosts".into(),
        };
        let why = self.refused.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        Error::new(Kind::TimedOut, format!("{}: Timed out waiting to power OFF, {place}{why}", self.plug.target.word))
    }
}
