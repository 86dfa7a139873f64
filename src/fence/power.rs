//! Whether the guest of a plug runs, and starting it where nothing speaks against it. It is turned off in `ending`.

use super::ending::Ending;
use super::note::Note;
use super::plug::{Done, LONG_PAUSE, PAUSE, Plug};
use super::verdict::{Answer, Verdict, judge};
use crate::deadline::Deadline;
use crate::domain::{Error, Kind, Result};
use crate::log;

/// Whether a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Somewhere.
    On,
    /// Nowhere, proven.
    Off,
}

impl Plug {
    /// Asks all hosts until two rounds in a row say that it runs nowhere: each is asked again after all have said so, so that a guest that was
    /// handed over between their answers is met. A host that was just restarted gets a second chance. One round is enough to say that it runs.
    ///
    /// # Errors
    /// The time is over with one such round.
    fn survey(&mut self, deadline: &Deadline) -> Result<(Verdict, Vec<Answer>)> {
        let (mut quiet, mut unknown) = (0, 0);
        loop {
            let answers = self.pool.ask(&self.target, deadline);
            self.target.learn(&answers);
            let verdict = judge(&answers);
            (quiet, unknown) = match verdict {
                Verdict::Off(_) | Verdict::Missing => (quiet + 1, unknown),
                Verdict::Unknown(_) => (0, unknown + 1),
                Verdict::On(_) | Verdict::Conflict(_) => return Ok((verdict, answers)),
            };
            let enough = quiet == 2 || unknown == 2;
            if enough || !deadline.pause(PAUSE) {
                return match verdict {
                    Verdict::Off(_) | Verdict::Missing if !enough => {
                        Err(self.failure("the time was over before all hosts had said twice in a row that it does not run there"))
                    }
                    _ => Ok((verdict, answers)),
                };
            }
        }
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Cannot tell, and why.
    pub(super) fn status(&mut self, deadline: &Deadline) -> Result<Status> {
        let before = self.note().ok().flatten();
        let (verdict, answers) = self.survey(deadline)?;
        if let Verdict::On(_) = verdict {
            self.found(before, &answers);
            return Ok(Status::On);
        }
        let note = self.note()?;
        if let Some(error) = self.open(note.as_ref(), &answers) {
            return Err(error);
        }
        if let Verdict::Off(_) | Verdict::Missing = verdict {
            self.insist_on_nodes(&answers, |_| false)?;
        }
        match verdict {
            Verdict::Off(_) => Ok(Status::Off),
            Verdict::Missing if self.missing_as_off || note.as_ref().is_some_and(Note::is_fresh) => {
                self.insist_on_letters(note.as_ref(), deadline)?;
                Ok(Status::Off)
            }
            other => Err(self.unclear(&other, &answers)),
        }
    }

    /// It runs on a host that is asked: a move that led out of sight, by the note as it was before, is over then. A copy that stands still may
    /// have been handed over, or be coming in from where it ran.
    fn found(&self, before: Option<Note>, answers: &[Answer]) {
        let Some(note) = before.filter(|note| note.left.is_some()) else { return };
        let unchanged = self.note().is_ok_and(|now| now.as_ref() == Some(&note));
        if unchanged && answers.iter().any(Answer::runs) {
            match (Note { left: None, ..note }).write(&self.notes) {
                Ok(()) => self.nodes.correct(&self.notes),
                Err(error) => log::warning(error),
            }
        }
    }

    /// Ends it, wherever it is, and proves it off everywhere.
    ///
    /// # Errors
    /// It is not proven off, and why.
    pub(super) fn off(&mut self, deadline: &Deadline) -> Result<Done> {
        Ending::new(self)?.run(deadline)
    }

    /// Starts it, where it was ended from here or where it is defined, unless it runs or may run somewhere.
    ///
    /// # Errors
    /// It does not run, and why.
    pub(super) fn on(&mut self, deadline: &Deadline) -> Result<Done> {
        let before = self.note().ok().flatten();
        let (verdict, answers) = self.survey(deadline)?;
        if let Verdict::On(_) = verdict {
            self.found(before, &answers);
            return Ok(Done::Already);
        }
        let note = self.note()?;
        if let Some(error) = self.open(note.as_ref(), &answers) {
            return Err(error);
        }
        if let Verdict::Off(_) | Verdict::Missing = verdict {
            self.insist_on_nodes(&answers, |_| false)?;
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
            Verdict::Missing => match (before, note.as_ref().filter(|note| note.is_fresh()).and_then(|note| note.xml.clone())) {
                (Some(host), Some(xml)) => (Some(host), Some(xml)),
                _ => {
                    return Err(self.failure(
                        "no host has a definition of it, and none was kept when it was turned off from this node, in the last 600 s",
                    ));
                }
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
            let now = self.survey(deadline);
            if let Ok((Verdict::On(_), _)) = now {
                if let Some(note) = &note
                    && let Err(error) = note.remove(&self.notes)
                {
                    log::warning(error);
                }
                return Ok(Done::Changed);
            }
            // Only a start that was refused is tried again: one that was late may still come. Nor is it where the guest may run by now.
            let is_off = matches!(now, Ok((Verdict::Off(_) | Verdict::Missing, _)));
            let error = started.err().unwrap_or_else(|| Error::new(Kind::State, "it was started and does not run"));
            attempt += 1;
            if attempt > self.retry_on || !is_off || error.kind == Kind::Unresponsive || !deadline.pause(LONG_PAUSE) {
                return Err(self.failure(format_args!("it cannot be started at {}: {error}", self.pool.label(host))));
            }
        }
    }
}
