//! What one `off` has to tell the next action on this node: a file for each guest under `/run/kvmha/fence`, gone after a reboot.
//!
//! Two things are written down. The definition of a transient guest, without which no `on` could bring it back. And that a destroy
//! was begun: libvirt 9.0 forgets a guest whose emulator hangs in the kernel after 80 s, and reports it destroyed; an `off` that
//! comes later would find it on no host and call it off, with a write still in flight. A destroy whose end was not seen in time
//! therefore stands against the guest until somebody who can prove it has removed the note.

use crate::domain::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the notes are.
pub(super) const FOLDER: &str = "/run/kvmha/fence";

/// The longest time after which a destroy that ended can have been an ordinary one: libvirt gives up on an emulator that cannot be
/// killed after 40 s, and tries once more (`qemuProcessKill` in libvirt's `src/qemu/qemu_process.c`).
pub(super) const ORDINARY: Duration = Duration::from_secs(30);

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The guest's name.
    pub(super) name: String,
    /// Its UUID, which is the name of the file.
    pub(super) uuid: String,
    /// The host on which it was ended.
    pub(super) host: String,
    /// Its definition, if the host had none of its own.
    pub(super) xml: Option<String>,
    /// When a destroy was begun whose end has not been seen; seconds since 1970.
    pub(super) begun: Option<u64>,
}

impl Note {
    /// The notes about the guests with this name or UUID.
    ///
    /// # Errors
    /// There may be one, but it cannot be read.
    pub(super) fn find(folder: &Path, word: &str) -> Result<Vec<Self>> {
        let mut notes = Vec::new();
        let failed = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("{} cannot be read: {error}", folder.display()));
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(notes),
            Err(error) => return Err(failed(&error)),
        };
        for entry in entries {
            let path = entry.map_err(|error| failed(&error))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&error)),
            };
            let note: Self = serde_json::from_str(&text)
                .map_err(|error| Error::new(Kind::Internal, format!("{} is no note: {error}", path.display())))?;
            if note.name == word || note.uuid == word.to_ascii_lowercase() {
                notes.push(note);
            }
        }
        Ok(notes)
    }

    /// The file of this note.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.json", self.uuid))
    }

    /// Writes it, readable for root alone: a definition can hold passwords.
    ///
    /// # Errors
    /// `Internal`, with the file's name.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, format!("{} cannot be written: {error}", self.path(folder).display()))
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(&error))?;
        let about = fs::symlink_metadata(folder).map_err(|error| failed(&error))?;
        if !about.is_dir() || about.uid() != nix::unistd::geteuid().as_raw() {
            return Err(failed(&"the folder is not this user's own"));
        }
        let bytes = serde_json::to_vec(self).map_err(|error| failed(&error))?;
        // A temporary file has mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        file.write_all(&bytes).map_err(|error| failed(&error))?;
        file.persist(self.path(folder)).map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Removes it; one that is not there is no error.
    ///
    /// # Errors
    /// `Internal`, with the file's name.
    pub(super) fn remove(&self, folder: &Path) -> Result<()> {
        let path = self.path(folder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::new(Kind::Internal, format!("{} cannot be removed: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Whether a destroy was begun that may have ended without ending the emulator.
    pub(super) fn is_open(&self) -> bool {
        // A clock that was set back makes it look begun in the future: that proves nothing either.
        self.begun.is_some_and(|begun| now().checked_sub(begun).is_none_or(|age| age >= ORDINARY.as_secs()))
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn note(begun: Option<u64>) -> Note {
        Note { name: "web1".into(), uuid: "u-1".into(), host: "qemu+tcp://a/system".into(), xml: Some("<domain/>".into()), begun }
    }

    #[test]
    fn written_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("fence");
        assert_eq!(Note::find(&folder, "web1").unwrap(), []);
        note(None).write(&folder).unwrap();
        note(Some(7)).write(&folder).unwrap();
        assert_eq!(Note::find(&folder, "web1").unwrap(), [note(Some(7))]);
        assert_eq!(Note::find(&folder, "U-1").unwrap(), [note(Some(7))]);
        assert_eq!(Note::find(&folder, "web").unwrap(), []);
        assert_eq!(fs::metadata(note(None).path(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        note(None).remove(&folder).unwrap();
        note(None).remove(&folder).unwrap();
        assert_eq!(Note::find(&folder, "web1").unwrap(), []);
    }

    #[test]
    fn a_note_that_cannot_be_read_is_no_absence() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.json"), "{").unwrap();
        assert!(Note::find(folder.path(), "web1").is_err());
    }

    #[test]
    fn an_end_that_was_not_seen_in_time_stays_open() {
        assert!(!note(None).is_open());
        assert!(!note(Some(now())).is_open());
        assert!(note(Some(now() - 60)).is_open());
        assert!(note(Some(now() + 600)).is_open());
    }
}
