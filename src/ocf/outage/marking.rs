//! The words beside the disks of a guest that runs here, by which another node can be asked for them in an outage (`outage_policy=relocate`):
//! when they are left, made anew and taken away. What they are: [`crate::domain::migration::preflight::marks`].

use crate::deadline::{Deadline, seconds_since_boot};
use crate::domain::migration::preflight::marks::Marks;
use crate::domain::record;
use crate::domain::{Connection, Definition};
use crate::log;
use crate::ocf::Call;
use crate::ocf::parameters::OutagePolicy;
use crate::storage::finding;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// After so many seconds the words are written anew: the guest may have got other disks, and somebody may have tidied up.
const RENEWED_S: i64 = 3600;

/// After so many seconds it is tried again, where that failed.
const RETRY_S: i64 = 60;

/// How long leaving them may take, and taking them away.
const LEAVING: Duration = Duration::from_secs(4);

/// What was left. Times are seconds since boot.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    /// When they were left.
    at: i64,
    /// When that was tried last.
    tried: i64,
    marks: Option<Marks>,
    /// Why they could not be left the last time, or help nobody.
    said: String,
}

impl Note {
    /// Whether it is time to leave words.
    fn is_due(&self, now: i64) -> bool {
        let fresh = self.marks.is_some() && (0..RENEWED_S).contains(&(now - self.at));
        let tried = self.tried > 0 && (0..RETRY_S).contains(&(now - self.tried));
        !fresh && !tried
    }
}

impl Call {
    /// Leaves words beside the disks of a guest that runs here, if another node may have to be asked for them.
    pub(in crate::ocf) fn leave_marks(&self, name: &str) {
        if self.parameters.outage_policy != OutagePolicy::Relocate || self.environment.probe || self.environment.instance.is_none() {
            return;
        }
        let now = seconds_since_boot();
        if !self.marking().is_due(now) {
            return;
        }
        // Monitors may come at the same moment, of two intervals or by hand: each would take the other's words away.
        let Some(_lock) = self.lock_marks() else { return };
        let before = self.marking();
        if !before.is_due(now) {
            return;
        }
        // First, so that a monitor that is killed over it is not followed by the same at once.
        self.note_marks(&Note { tried: now, ..before.clone() });
        match self.new_marks(name, &self.deadline.share(LEAVING, 3)) {
            Ok(marks) => {
                // The note first: what it names is there at every moment.
                let said = marks.doubt().unwrap_or_default();
                if !said.is_empty() && said != before.said {
                    log::warning(format_args!("outage_policy=relocate will keep {name} here: no other node can be known to read {said}"));
                }
                self.note_marks(&Note { at: now, tried: now, marks: Some(marks.clone()), said });
                let deadline = self.deadline.share(LEAVING, 3);
                // A stop that has come between has taken away what it knew.
                if self.shelf().read().is_none() {
                    marks.take(&deadline);
                    self.shelf().remove();
                    return;
                }
                marks.replace(before.marks.as_ref(), &deadline);
                if before.marks.is_some() {
                    self.forget_relocations(&deadline);
                }
            }
            Err(text) => {
                if text != before.said {
                    log::warning(format_args!("no other node can be asked for the disks of {name} later: {text}"));
                }
                self.note_marks(&Note { tried: now, said: text, ..before });
            }
        }
    }

    fn new_marks(&self, name: &str, deadline: &Deadline) -> Result<Marks, String> {
        let here = Connection::open(&self.parameters.hypervisor.to_string(), deadline).map_err(|error| error.text)?;
        let definition = Definition::running(&here, name, deadline).map_err(|error| error.text)?.ok_or("it is gone")?;
        let findings = finding::look(&definition.xml, &|pool, volume| here.volume(pool, volume, deadline), deadline);
        Marks::leave(&findings, &self.parameters.config, &definition.identity, deadline)
    }

    /// The words that lie beside the disks.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn marks(&self) -> Result<Marks, String> {
        let note = self.marking();
        note.marks.ok_or_else(|| {
            let what = "no word was left beside its disks while they could be read, by which another node could be asked";
            if note.said.is_empty() { what.to_owned() } else { format!("{what}: {}", note.said) }
        })
    }

    /// Takes the words away again, of a guest that was proven gone.
    pub(in crate::ocf) fn take_marks(&self, deadline: &Deadline) {
        if let Some(marks) = self.marking().marks {
            marks.take(&deadline.share(LEAVING, 2));
        }
    }

    fn marking(&self) -> Note {
        self.shelf().get(record::Slot::Marks).unwrap_or_default()
    }

    fn note_marks(&self, note: &Note) {
        self.shelf().put(record::Slot::Marks, note);
    }

    /// `None`: another call has it.
    fn lock_marks(&self) -> Option<Flock<File>> {
        let path = self.shelf().note_file(record::Slot::Marking);
        let opened = File::options().create(true).append(true).mode(0o600).open(&path);
        let file = opened.inspect_err(|error| log::warning(format_args!("{} cannot be opened: {error}", path.display()))).ok()?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_anew_every_hour_and_tried_again_soon() {
        assert!(Note::default().is_due(5));
        let left = Note { at: 100, tried: 100, marks: Some(Marks::default()), said: String::new() };
        assert!(!left.is_due(100 + RENEWED_S - 1) && left.is_due(100 + RENEWED_S));
        // What could not be made anew stays, and is not called fresh by that.
        let tried = Note { tried: 100 + RENEWED_S, ..left.clone() };
        assert!(!tried.is_due(100 + RENEWED_S + RETRY_S - 1) && tried.is_due(100 + RENEWED_S + RETRY_S));
        assert!(left.is_due(50), "a note of another boot");
        let old = serde_json::from_str::<Note>(r#"{"at":1,"marks":null}"#).unwrap();
        assert!(old.is_due(200), "of a version that did not keep more");
    }
}
