//! One guest of a call, and what is known of it that speaks against calling it off, or on.

use super::note::{self, Begun, Note};
use super::pool::Pool;
use super::sight::Target;
use super::told::{Nodes, Proof, Told, Word};
use super::verdict::{Answer, Verdict};
use crate::deadline::Deadline;
use crate::domain::{Error, Kind, Result};
use crate::log;
use std::path::PathBuf;
use std::time::Duration;

/// Between two rounds.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Between two rounds when a host did not answer, or did not do what it was asked to.
pub(super) const LONG_PAUSE: Duration = Duration::from_millis(500);

/// What an action found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It was so before.
    Already,
    /// It is so now.
    Changed,
}

/// One guest of the call, and what counts for it.
#[derive(Clone)]
pub(super) struct Plug {
    /// Which.
    pub(super) target: Target,
    /// Where it could be.
    pub(super) pool: Pool,
    /// The UUID that `uuid_map` gives it.
    pub(super) pinned: Option<String>,
    /// `missing_as_off`.
    pub(super) missing_as_off: bool,
    /// `power_wait`.
    pub(super) power_wait: Duration,
    /// `retry_on`.
    pub(super) retry_on: u32,
    /// Where its note is.
    pub(super) notes: PathBuf,
    /// The nodes that may know more.
    pub(super) nodes: Nodes,
}

impl Plug {
    /// What is wrong with this guest.
    pub(super) fn failure(&self, text: impl std::fmt::Display) -> Error {
        Error::new(Kind::State, format!("{}: {text}", self.target.word))
    }

    /// That the plug is no guest's, or not that of one alone.
    fn nobody(&self, text: impl std::fmt::Display) -> Error {
        Error::new(Kind::NotFound, format!("{}: {text}", self.target.word))
    }

    /// The note about this guest. One that cannot be read might say that its end is unproven.
    pub(super) fn note(&self) -> Result<Option<Note>> {
        let word = self.target.uuid.as_ref().unwrap_or(&self.target.word);
        let mut notes = Note::find(&self.notes, word)?;
        notes.iter_mut().filter(|note| note.is_open()).for_each(|note| self.close(note));
        // Several guests may have had the name; an end that was not seen counts first.
        Ok(notes.into_iter().max_by_key(|note| (note.is_open(), note.left.is_some(), note.at)))
    }

    /// Strikes out of a note the ends that any node has proven since.
    pub(super) fn close(&self, note: &mut Note) {
        // Who is not heard has proven nothing.
        let heard = self.nodes.hear(&self.notes, true).unwrap_or_default();
        let before = note.ends.len();
        note.ends.retain(|end| !heard.iter().any(|told| told.proves(&note.uuid, end)));
        if note.ends.len() < before {
            log::info(format_args!(
                "{}: another action has seen the end that was not seen in this one, or in an earlier one",
                self.target.word
            ));
            match note.write(&self.notes) {
                Ok(()) => self.nodes.correct(&self.notes),
                Err(error) => log::warning(error),
            }
        }
    }

    /// Why ends that were not seen forbid to say "off": those at hosts whose processes cannot be seen from here, and that were not
    /// turned off since; or a move that may have arrived.
    pub(super) fn open(&self, note: Option<&Note>, answers: &[Answer]) -> Option<Error> {
        let note = note?;
        if let Some(left) = &note.left {
            return Some(self.failure(format_args!(
                "a move from {left} was under way when it was ended there, and no host of uri has it: it may run on another one. When it is \
                certain that it does not, remove {}",
                note.path(&self.notes).display()
            )));
        }
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

    /// What other nodes of the cluster know of it that forbids to say "off": ends that they began and have not seen, or made while it may have left.
    /// `is_back`: whether this action has found it after it may have left that host. `awaited`: what they knew a moment ago. That they say no more of it
    /// is no proof: what a node has told goes with it when it is lost.
    ///
    /// # Errors
    /// It is not known what they know.
    pub(super) fn told(&self, answers: &[Answer], is_back: impl Fn(&str) -> bool, awaited: &[Told]) -> Result<Vec<Told>> {
        let mut told = self.nodes.hear(&self.notes, !awaited.is_empty()).map_err(|error| self.failure(error))?;
        let word = self.target.uuid.as_ref().unwrap_or(&self.target.word);
        told.retain(|told| told.name == *word || told.uuid == word.to_ascii_lowercase());
        let proofs: Vec<Told> = told.iter().filter(|told| matches!(told.word, Word::Proven(_))).cloned().collect();
        let missing = |end: &&Told| !told.iter().any(|told| told.is_about(end)) && !proofs.iter().any(|proof| proof.settles(end));
        let missing: Vec<Told> = awaited.iter().filter(missing).cloned().collect();
        let mut answered = false;
        told.retain(|told| match &told.word {
            Word::Proven(_) => false,
            Word::Left(left) => !is_back(left),
            Word::Unseen(end) => {
                let host = self.pool.labelled(&end.host);
                let is_off = host.is_some_and(|host| matches!(answers.get(host), Some(Answer::Fenced { since }) if *since > end.begun));
                let proof = proofs.iter().find(|proof| proof.proves(&told.uuid, end));
                answered |= proof.is_some_and(|proof| proof.by == self.nodes.here.0);
                !is_off && proof.is_none()
            }
        });
        if answered {
            self.nodes.correct(&self.notes);
        }
        told.extend(missing);
        Ok(told)
    }

    /// That they know nothing of it that forbids to say "off".
    ///
    /// # Errors
    /// They do, or it is not known.
    pub(super) fn insist_on_nodes(&self, answers: &[Answer], is_back: impl Fn(&str) -> bool) -> Result<()> {
        self.told(answers, is_back, &[])?.first().map_or(Ok(()), |told| Err(self.unseen(told)))
    }

    /// Why it is not off, by another node's word.
    pub(super) fn unseen(&self, told: &Told) -> Error {
        let Told { by, uuid, word, .. } = told;
        let what = match word {
            Word::Left(host) => format!(
                "a move from {host} was under way when node {by} ended it there, and no host of uri has it: it may run on another one. When it is \
                 certain that it does not"
            ),
            Word::Unseen(Begun { host, .. }) | Word::Proven(Proof { host, .. }) => format!(
                "node {by} began to end it at {host} and did not see its end in time; its emulator may hang in the kernel there and still write. \
                 When it is certain that none is left (or the host was restarted)"
            ),
        };
        self.failure(format_args!("{what}, remove {}/{uuid}.json on {by} and run there: fence_kvmha -o tell", note::FOLDER))
    }

    /// That no guest runs which the plug may mean in other letters: libvirt's names have case, and with `missing_as_off` a slip in one letter would
    /// make a guest "off" for ever. Not for one that was ended from here, or whose UUID is known.
    ///
    /// # Errors
    /// One does, and what it is called.
    pub(super) fn insist_on_letters(&self, note: Option<&Note>, deadline: &Deadline) -> Result<()> {
        let Some(name) = self.target.name.as_ref().filter(|_| self.target.uuid.is_none() && !note.is_some_and(Note::is_fresh)) else {
            return Ok(());
        };
        for (host, list) in self.pool.list_once(deadline).into_iter().enumerate() {
            // It has said by now that it does not know the plug.
            let Ok(list) = list.inspect_err(|error| log::warning(error)) else { continue };
            if let Some(entry) = list.iter().find(|entry| entry.active && entry.name.to_lowercase() == name.to_lowercase()) {
                return Err(self.nobody(format_args!(
                    "no host knows a guest of this name, but {} runs {}: the letters of the plug have to be those of the name (or pin another guest's \
                     UUID with uuid_map)",
                    self.pool.label(host),
                    entry.name
                )));
            }
        }
        Ok(())
    }

    /// Why a verdict is neither on nor off.
    pub(super) fn unclear(&self, verdict: &Verdict, answers: &[Answer]) -> Error {
        let renamed = answers.iter().enumerate().find_map(|(host, answer)| match answer {
            Answer::Renamed { name } => Some((host, name)),
            _ => None,
        });
        if let Some((host, name)) = renamed {
            return self.nobody(format_args!(
                "{} has its UUID under the name {name}: if that is a copy it needs a UUID of its own, if it was renamed the plug has to be that name",
                self.pool.label(host)
            ));
        }
        match (verdict, &self.pinned) {
            (Verdict::Conflict(uuids), Some(pinned)) => self.nobody(format_args!(
                "another guest ({}) has the name than the one that uuid_map gives it ({pinned}); correct uuid_map, or rename one of them",
                uuids.iter().filter(|uuid| *uuid != pinned).map(String::as_str).collect::<Vec<_>>().join(", ")
            )),
            (Verdict::Conflict(uuids), None) if self.target.name.is_none() => self.nobody(format_args!(
                "it is read as a UUID, and is the name of a guest with another one; give that guest's UUID as the plug, or the other guest another \
                 name ({})",
                uuids.join(", ")
            )),
            (Verdict::Conflict(uuids), None) => self.nobody(format_args!(
                "the name stands for different guests ({}); give the UUID as the plug, or pin it with uuid_map",
                uuids.join(", ")
            )),
            (Verdict::Missing, _) => self.nobody(
                "no host knows a guest of this name or UUID; a transient guest that is off looks the same: set missing_as_off=1 if that is meant",
            ),
            (Verdict::Unknown(hosts), _) => {
                let reasons: Vec<&str> = hosts
                    .iter()
                    .filter_map(|host| match answers.get(*host) {
                        Some(Answer::Unknown(text)) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect();
                self.failure(format_args!("it may run on {}, which cannot be asked: {}", self.pool.labels(hosts), reasons.join("; ")))
            }
            (Verdict::On(hosts), _) => self.failure(format_args!("it runs on {}", self.pool.labels(hosts))),
            (Verdict::Off(_), _) => self.failure("it is off"),
        }
    }
}
