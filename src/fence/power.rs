//! Turning one guest off and on: the loop of asking all hosts, judging, and acting, until the verdict is stable.

use super::note::{Begun, Note, ORDINARY};
use super::pool::Pool;
use super::sight::Target;
use super::verdict::{Answer, Progress, Step, Verdict, judge, step};
use super::victim::End;
use crate::deadline::{self, Deadline};
use crate::domain::{Error, Kind, Result};
use crate::log;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Quiet rounds in a row that prove a guest off, and those after a migration was in flight: its target may only just be coming up.
const ROUNDS: u32 = 2;
const ROUNDS_AFTER_MOVE: u32 = 5;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// The same after an end that was seen, of a guest that was not moving: then it is the order that counts. Each host is asked again after all have
/// said that it is not there, so that one that was handed over between their answers is met in the next round, however long that is.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// Between two rounds when a host did not answer, or did not do what it was asked to.
const LONG_PAUSE: Duration = Duration::from_millis(500);

/// What ending a guest takes on a busy host. Less is not enough to see the end of one that was started again: it would only stay in doubt.
const AN_END: Duration = Duration::from_secs(2);

/// How often libvirt may refuse to end a guest before that is the answer.
const REFUSALS: u32 = 5;

/// What an action found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It was so before.
    Already,
    /// It is so now.
    Changed,
}

/// Whether a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Somewhere.
    On,
    /// Nowhere, proven.
    Off,
}

/// One guest of the call, and what counts for it.
#[derive(Clone)]
pub(super) struct Plug {
    /// Which.
    pub(super) target: Target,
    /// Where it could be.
    pub(super) pool: Pool,
    /// `missing_as_off`.
    pub(super) missing_as_off: bool,
    /// `power_wait`.
    pub(super) power_wait: Duration,
    /// `retry_on`.
    pub(super) retry_on: u32,
    /// Where its note is.
    pub(super) notes: PathBuf,
}

impl Plug {
    fn failure(&self, text: impl std::fmt::Display) -> Error {
        Error::new(Kind::State, format!("{}: {text}", self.target.word))
    }

    /// The note about this guest. One that cannot be read might say that its end is unproven.
    fn note(&self) -> Result<Option<Note>> {
        let word = self.target.uuid.as_ref().unwrap_or(&self.target.word);
        // Several guests may have had the name; an end that was not seen counts first.
        Ok(Note::find(&self.notes, word)?.into_iter().max_by_key(Note::is_open))
    }

    /// Why ends that were not seen forbid to say "off": those at hosts whose processes cannot be seen from here, and that were not
    /// turned off since.
    fn open(&self, note: Option<&Note>, answers: &[Answer]) -> Option<Error> {
        let note = note?;
        let absolved = |end: &&Begun| {
            self.pool.labelled(&end.host).is_some_and(|host| {
                self.pool.is_local(host) || matches!(answers.get(host), Some(Answer::Fenced { since }) if *since > end.begun)
            })
        };
        let mut hosts: Vec<&str> = note.ends.iter().filter(|end| end.is_open() && !absolved(end)).map(|end| end.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if hosts.is_empty() {
            return None;
        }
        Some(self.failure(format_args!(
            "an earlier action began to end it at {} and did not see its end in time; its emulator may hang in the kernel there and still \
            write. When it is certain that none is left (or the host was restarted), remove {}",
            hosts.join(", "),
            note.path(&self.notes).display()
        )))
    }

    /// Takes down that hosts say in time that it does not run there: what was begun there was an ordinary end.
    fn settle(&self, note: &mut Note, answers: &[Answer]) {
        for (host, answer) in answers.iter().enumerate() {
            if matches!(answer, Answer::Defined { .. } | Answer::Absent) {
                note.quiet(self.pool.label(host));
            }
        }
    }

    /// Why a verdict is neither on nor off.
    fn unclear(&self, verdict: &Verdict, answers: &[Answer]) -> Error {
        match verdict {
            Verdict::Conflict(uuids) => self.failure(format_args!(
                "the name stands for different guests ({}); give the UUID as the plug, or pin it with uuid_map",
                uuids.join(", ")
            )),
            Verdict::Missing => self.failure(
                "no host knows a guest of this name or UUID; a transient guest that is off looks the same: set missing_as_off=1 if that is meant",
            ),
            Verdict::Unknown(hosts) => {
                let reasons: Vec<&str> = hosts
                    .iter()
                    .filter_map(|host| match answers.get(*host) {
                        Some(Answer::Unknown(text)) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect();
                self.failure(format_args!("it may run on {}, which cannot be asked: {}", self.pool.labels(hosts), reasons.join("; ")))
            }
            Verdict::On(hosts) => self.failure(format_args!("it runs on {}", self.pool.labels(hosts))),
            Verdict::Off(_) => self.failure("it is off"),
        }
    }

    /// Asks all hosts; once more, unless it is seen to run: then by UUID too, and a host that was just restarted gets a second chance.
    fn survey(&mut self, deadline: &Deadline) -> (Verdict, Vec<Answer>) {
        let mut answers = self.pool.ask(&self.target, deadline);
        self.target.learn(&answers);
        if !matches!(judge(&answers), Verdict::On(_) | Verdict::Conflict(_)) && deadline.pause(PAUSE) {
            answers = self.pool.ask(&self.target, deadline);
            self.target.learn(&answers);
        }
        (judge(&answers), answers)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Cannot tell, and why.
    pub(super) fn status(&mut self, deadline: &Deadline) -> Result<Status> {
        let (verdict, answers) = self.survey(deadline);
        if let Verdict::On(_) = verdict {
            return Ok(Status::On);
        }
        let note = self.note()?;
        if let Some(error) = self.open(note.as_ref(), &answers) {
            return Err(error);
        }
        match verdict {
            Verdict::Off(_) => Ok(Status::Off),
            Verdict::Missing if self.missing_as_off || note.is_some() => Ok(Status::Off),
            other => Err(self.unclear(&other, &answers)),
        }
    }

    /// Ends it, wherever it is, and proves it off everywhere.
    ///
    /// # Errors
    /// It is not proven off, and why.
    pub(super) fn off(&mut self, deadline: &Deadline) -> Result<Done> {
        let mut note = self.note()?;
        let mut progress = Progress { missing_is_off: self.missing_as_off || note.is_some(), needed: ROUNDS, ..Progress::default() };
        let (mut refusals, mut refused) = (0, None);
        // Since when an end is under way that nothing proves but that the guest is no longer there: somebody else's, or one that
        // libvirt refused on a host, until it does not.
        let mut unseen: Option<Instant> = None;
        let mut pending = BTreeMap::new();
        // Ends that were open before: nothing that is done from here on proves them.
        let mut stands = open_ends(note.as_ref());
        let mut ended = false;
        let mut answers;
        loop {
            answers = self.pool.ask(&self.target, deadline);
            self.target.learn(&answers);
            if note.as_ref().is_some_and(|note| self.target.uuid.as_ref().is_some_and(|uuid| *uuid != note.uuid)) {
                note = self.note()?;
                stands = open_ends(note.as_ref());
            }
            if let Some(note) = &mut note {
                self.settle(note, &answers);
            }
            let verdict = judge(&answers);
            let next = step(&verdict, &mut progress);
            let pause = match next {
                Step::Done => break,
                // It may be a copy that came in and goes by itself: that would be seen.
                Step::Kill(_) if ended && deadline.left() < AN_END => PAUSE,
                Step::Kill(ref hosts) => match self.kill(hosts, &mut note, &stands, &mut pending, &mut progress, deadline) {
                    Ok(Ended::Proven) => {
                        ended = true;
                        if !self.power_wait.is_zero() && !deadline.pause(self.power_wait) {
                            return Err(self.late(&verdict, refused));
                        }
                        Duration::ZERO
                    }
                    // The process tables have been asked, and are asked again.
                    Ok(Ended::Unseen) if hosts.iter().all(|host| self.pool.is_local(*host)) => PAUSE,
                    Ok(Ended::Unseen) => {
                        unseen.get_or_insert_with(deadline::now);
                        PAUSE
                    }
                    Err(Failed::ForGood(error)) => return Err(error),
                    Err(Failed::ForNow(error)) => {
                        refusals += 1;
                        if refusals >= REFUSALS {
                            return Err(self.failure(format_args!("it cannot be ended: {error}")));
                        }
                        refused = Some(error);
                        LONG_PAUSE
                    }
                },
                Step::Again if matches!(verdict, Verdict::Unknown(_)) => LONG_PAUSE,
                Step::Again if ended && unseen.is_none() && progress.needed == ROUNDS => SHORT_PAUSE,
                Step::Again => PAUSE,
                Step::Missing | Step::Unreachable(_) | Step::Refuse(_) => return Err(self.unclear(&verdict, &answers)),
            };
            if !deadline.pause(pause) {
                return Err(self.late(&verdict, refused));
            }
        }
        if let Some(error) = self.open(note.as_ref(), &answers) {
            return Err(error);
        }
        if unseen.into_iter().chain(pending.into_values()).any(|since| deadline::now() - since > ORDINARY) {
            return Err(self.failure("it is gone, but its end took so long that its emulator may hang in the kernel and still write"));
        }
        if let Some(mut note) = note {
            note.ends.clear();
            let folder = &self.notes;
            let kept = if note.xml.is_some() { note.write(folder) } else { note.remove(folder) };
            if let Err(error) = kept {
                log::warning(error);
            }
        }
        Ok(if progress.seen { Done::Changed } else { Done::Already })
    }

    fn late(&self, verdict: &Verdict, refused: Option<Error>) -> Error {
        let place = match verdict {
            Verdict::On(hosts) => format!("it was last seen on {}", self.pool.labels(hosts)),
            _ => "it was not proven off on all hosts".into(),
        };
        let why = refused.map(|error| format!(": {error}")).unwrap_or_default();
        Error::new(Kind::TimedOut, format!("{}: Timed out waiting to power OFF, {place}{why}", self.target.word))
    }

    fn kill(
        &self,
        hosts: &[usize],
        note: &mut Option<Note>,
        stands: &[Begun],
        pending: &mut BTreeMap<usize, Instant>,
        progress: &mut Progress,
        deadline: &Deadline,
    ) -> std::result::Result<Ended, Failed> {
        let victims = match self.pool.victims(&self.target, hosts, deadline) {
            Ok(victims) => victims,
            Err(error) => {
                for host in hosts {
                    pending.entry(*host).or_insert_with(deadline::now);
                }
                return Err(Failed::ForNow(error));
            }
        };
        // The copy it is known by: the source of a migration, or one whose definition can be had.
        let best = victims.iter().find(|victim| victim.leaving).or_else(|| victims.iter().find(|victim| victim.xml.is_some()));
        let Some(first) = best.or(victims.first()) else {
            return Ok(Ended::Unseen);
        };
        if victims.iter().any(|victim| victim.moving) {
            progress.needed = ROUNDS_AFTER_MOVE;
        }
        // Written before anything is done: if this process is killed, the next one knows that an end was begun.
        let before = note.take();
        let begun_before = before.as_ref().map(|note| note.ends.clone()).unwrap_or_default();
        let mut written = Note {
            name: first.name.clone(),
            uuid: first.uuid.clone(),
            host: self.pool.label(first.host).to_owned(),
            // Of a copy that is coming in nothing is read; what was kept of the other one before is right.
            xml: first.xml.clone().or_else(|| before.as_ref().filter(|_| first.moving).and_then(|note| note.xml.clone())),
            ends: begun_before.clone(),
        };
        victims.iter().for_each(|victim| written.begin(self.pool.label(victim.host)));
        if let Err(error) = written.write(&self.notes) {
            log::warning(format_args!("{error}; the guest is ended all the same"));
        }
        let begun = written.ends.clone();
        let written = note.insert(written);
        let places = victims.iter().map(|victim| victim.host).collect::<Vec<_>>();
        log::info(format_args!("ending {} at {}", self.target.word, self.pool.labels(&places)));
        let (mut gone, mut failed) = (false, None);
        for (host, end) in self.pool.kill(victims, deadline) {
            let label = self.pool.label(host);
            log::info(format_args!("{} at {label}: {end:?}", self.target.word));
            match end {
                End::Ended => {
                    pending.remove(&host);
                    written.ended(label, stands);
                }
                End::Gone => gone = true,
                End::Refused(error) => {
                    pending.entry(host).or_insert_with(deadline::now);
                    // libvirt that says no has done nothing; one that went away may be doing it.
                    if error.kind == Kind::Refused {
                        written.ended(label, &begun_before);
                    }
                    failed = failed.or(Some(Failed::ForNow(error)));
                }
                // The process table of this host will tell.
                End::Unproven(_) if self.pool.is_local(host) => gone = true,
                End::Unproven(text) => {
                    failed = Some(Failed::ForGood(self.failure(format_args!("its end at {label} is not proven: {text}"))));
                }
            }
        }
        if written.ends != begun
            && let Err(error) = written.write(&self.notes)
        {
            log::warning(error);
        }
        match failed {
            Some(failed) => Err(failed),
            None if gone => Ok(Ended::Unseen),
            None => Ok(Ended::Proven),
        }
    }

    /// Starts it, where it was ended from here or where it is defined, unless it runs or may run somewhere.
    ///
    /// # Errors
    /// It does not run, and why.
    pub(super) fn on(&mut self, deadline: &Deadline) -> Result<Done> {
        let (verdict, answers) = self.survey(deadline);
        if let Verdict::On(_) = verdict {
            return Ok(Done::Already);
        }
        let note = self.note()?;
        if let Some(error) = self.open(note.as_ref(), &answers) {
            return Err(error);
        }
        let before = note.as_ref().and_then(|note| self.pool.labelled(&note.host));
        let (host, xml) = match &verdict {
            Verdict::Off(hosts) => {
                let host = before.filter(|host| hosts.contains(host)).or(hosts.first().copied());
                if hosts.len() > 1 {
                    log::info(format_args!("{} is defined on {}; the first is taken", self.target.word, self.pool.labels(hosts)));
                }
                (host, None)
            }
            Verdict::Missing => match (before, note.as_ref().and_then(|note| note.xml.clone())) {
                (Some(host), Some(xml)) => (Some(host), Some(xml)),
                _ => return Err(self.failure("no host has a definition of it, and none was kept when it was turned off from this node")),
            },
            _ => (None, None),
        };
        let Some(host) = host else { return Err(self.unclear(&verdict, &answers)) };
        let mut attempt = 0;
        loop {
            let started = self.pool.start(host, &self.target, xml.clone(), deadline);
            if let Err(error) = &started {
                log::warning(format_args!("start at {}: {error}", self.pool.label(host)));
            }
            if !self.power_wait.is_zero() {
                let _ = deadline.pause(self.power_wait);
            }
            let answers = self.pool.ask(&self.target, deadline);
            if let Verdict::On(_) = judge(&answers) {
                if let Some(note) = &note
                    && let Err(error) = note.remove(&self.notes)
                {
                    log::warning(error);
                }
                return Ok(Done::Changed);
            }
            // Only a start that was refused is tried again: one that was late may still come.
            let error = started.err().unwrap_or_else(|| Error::new(Kind::State, "it was started and does not run"));
            attempt += 1;
            if attempt > self.retry_on || error.kind == Kind::Unresponsive || !deadline.pause(LONG_PAUSE) {
                return Err(self.failure(format_args!("it cannot be started at {}: {error}", self.pool.label(host))));
            }
        }
    }
}

/// The ends that are open.
fn open_ends(note: Option<&Note>) -> Vec<Begun> {
    note.map(|note| note.ends.iter().filter(|end| end.is_open()).cloned().collect()).unwrap_or_default()
}

/// How ending it on all hosts went.
enum Ended {
    /// libvirt ended all of them.
    Proven,
    /// At least one was gone already.
    Unseen,
}

/// Why it is not ended.
enum Failed {
    /// Worth another attempt.
    ForNow(Error),
    /// Another attempt would find it gone and prove nothing.
    ForGood(Error),
}
