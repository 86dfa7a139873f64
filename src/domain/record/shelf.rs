//! Where records and notes are kept: files below `/run/kvmha`, written whole or not at all, read only if nobody but root can have written them.

use super::{Record, Slot, file_name};
use crate::log;
use crate::whole;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the record of one resource instance is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    pub(super) directory: PathBuf,
    pub(super) file: PathBuf,
}

impl Shelf {
    /// The place for `instance` below `directory` (`/run/kvmha`): memory, so that it never hangs and is empty after a boot.
    #[must_use]
    pub fn new(directory: &Path, instance: &str) -> Self {
        Self { directory: directory.to_owned(), file: directory.join(format!("{}.json", file_name(instance))) }
    }

    /// The record, if there is one that can be understood and only root can have written.
    #[must_use]
    pub fn read(&self) -> Option<Record> {
        if !is_trusted(&self.directory) || !is_trusted(&self.file) {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.file).ok()?).ok()
    }

    /// Keeps `record`, whole or not at all. A failure is only worth a warning: the record is a hint.
    ///
    /// But not one that says that something is under way which is over: a stop would end the guest where it has come to. Where there is no room
    /// for the new one the old one goes, and leaves it.
    pub fn write(&self, record: &Record) {
        let mut result = self.try_write(record);
        if result.is_err() && self.read().is_some_and(|old| old.is_under_way() && !record.is_under_way()) {
            result = fs::remove_file(&self.file).and_then(|()| self.try_write(record));
        }
        if let Err(error) = result {
            log::warning(format_args!("state file {} cannot be written: {error}", self.file.display()));
        }
    }

    fn try_write(&self, record: &Record) -> io::Result<()> {
        whole::write(&self.file, &serde_json::to_vec(record)?)
    }

    /// Forgets the record and the notes: the guest was proven gone.
    pub fn remove(&self) {
        for file in [self.file.clone()].into_iter().chain(Slot::ALL.iter().map(|note| self.note_file(*note))) {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warning(format_args!("state file {} cannot be removed: {error}", file.display()));
                }
                _ => {}
            }
        }
    }

    /// Where a note is.
    #[must_use]
    pub fn note_file(&self, note: Slot) -> PathBuf {
        self.file.with_extension(note.word())
    }

    /// A note, if there is one that can be understood and only root can have written.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, note: Slot) -> Option<T> {
        serde_json::from_slice(&self.text(note)?).ok()
    }

    /// Keeps a note, readable by root only. A failure is only worth a warning, and leaves what was there.
    pub fn put<T: Serialize>(&self, note: Slot, value: &T) {
        self.keep(note, serde_json::to_vec(value).map_err(io::Error::from));
    }

    /// The text of a note, if there is one that only root can have written.
    #[must_use]
    pub fn text(&self, note: Slot) -> Option<Vec<u8>> {
        let file = self.note_file(note);
        if !is_trusted(&self.directory) || !is_trusted(&file) {
            return None;
        }
        fs::read(file).ok()
    }

    /// Keeps a text as a note that is needed afterwards, readable by root only.
    ///
    /// # Errors
    /// It is not kept, and what was there is left.
    pub fn put_text(&self, note: Slot, contents: &[u8]) -> io::Result<()> {
        whole::write(&self.note_file(note), contents)
    }

    fn keep(&self, note: Slot, contents: io::Result<Vec<u8>>) {
        let file = self.note_file(note);
        if let Err(error) = contents.and_then(|contents| whole::write(&file, &contents)) {
            log::warning(format_args!("state file {} cannot be written: {error}", file.display()));
        }
    }
}

/// Whether only this user can have written what is there.
fn is_trusted(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.uid() == nix::unistd::geteuid().as_raw() && data.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::domain::rings::Outliving;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn kept_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(&root.path().join("run"), "web/1:0");
        assert_eq!(shelf.read(), None);
        shelf.write(&record());
        assert_eq!(shelf.read(), Some(record()));
        assert_eq!(shelf.others(), []);
        assert_eq!(Shelf::new(&root.path().join("run"), "web2").others(), [record().identity()]);
        assert_eq!(fs::metadata(root.path().join("run")).unwrap().mode() & 0o777, 0o700);
        assert!(root.path().join("run/web%2f1%3a0.json").exists());
        shelf.remove();
        shelf.remove();
        assert_eq!(shelf.read(), None);
    }

    #[test]
    fn notes_are_forgotten_with_the_guest() {
        let root = tempfile::tempdir().unwrap();
        let (shelf, other) = (Shelf::new(root.path(), "web1"), Shelf::new(root.path(), "web2"));
        for (at, note) in Slot::ALL.iter().enumerate() {
            assert_eq!(shelf.get::<usize>(*note), None, "{note:?}");
            shelf.put(*note, &at);
            other.put(*note, &"theirs");
        }
        assert!(Slot::ALL.iter().enumerate().all(|(at, note)| shelf.get(*note) == Some(at)), "each has a file of its own");
        // What cannot be written leaves what was there, and no file that is empty.
        shelf.put(Slot::Pulse, &std::collections::BTreeMap::from([((1, 2), 3)]));
        assert_eq!(shelf.get(Slot::Pulse), Some(2));
        assert_eq!(shelf.get::<String>(Slot::Pulse), None, "a note of another kind");
        fs::set_permissions(shelf.note_file(Slot::Pulse), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(shelf.get::<usize>(Slot::Pulse), None, "anybody may have written it");
        shelf.put_text(Slot::Definition, b"<domain/>").unwrap();
        assert_eq!(shelf.text(Slot::Definition).as_deref(), Some(&b"<domain/>"[..]));
        shelf.remove();
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.len() == Slot::ALL.len() && left.iter().all(|name| name.to_str().unwrap().starts_with("web2.")), "{left:?}");
    }

    #[test]
    fn one_without_the_newer_marks_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(root.path(), "web1");
        let mut old = serde_json::to_value(record()).unwrap();
        for name in ["creating", "restoring", "guessed", "moving", "rings", "aio"] {
            assert!(old.as_object_mut().unwrap().remove(name).is_some(), "{name}");
        }
        fs::write(&shelf.file, serde_json::to_vec(&old).unwrap()).unwrap();
        // Whether the emulator has a ring, or AIO, is not known then: it is looked at anew.
        assert_eq!(shelf.read(), Some(Record { outliving: Outliving::UNKNOWN, ..record() }));
        let trace = shelf.read().unwrap().trace();
        assert!(trace.outliving.may_be_in_rings() && trace.outliving.may_be_in_aio());
        assert!(!record().trace().outliving.may_be_in_aio() && record().trace().emulator.is_some());
    }

    #[test]
    fn nonsense_and_what_others_may_write_are_no_record() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(root.path(), "web1");
        for nonsense in ["", "{", "{}", "[1]", "\0\0\0"] {
            fs::write(&shelf.file, nonsense).unwrap();
            assert_eq!(shelf.read(), None);
        }
        shelf.write(&record());
        fs::set_permissions(&shelf.file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(shelf.read(), None);
    }
}
