//! The state file of a resource instance: which guest it was when it was last seen. A hint that lets monitor and stop work
//! without the config file; never proof.

use super::definition::Identity;
use super::emulator::Emulator;
use super::status::Trace;
use crate::log;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The `config` parameter under which it was started, has come, or was found.
    pub config: PathBuf,
    /// The `hypervisor` parameter it was seen under.
    pub hypervisor: String,
    /// libvirt's name of the guest.
    pub name: String,
    /// Its UUID; absent while it is being created from a definition without one.
    pub uuid: Option<String>,
    /// Its emulator's process, if it was found.
    pub pid: Option<i32>,
    /// The emulator's start time, in clock ticks since boot.
    pub start: Option<u64>,
    /// A request to create it was sent, and how that ended is not known.
    #[serde(default)]
    pub creating: bool,
    /// That request was to restore it from a saved state, see [`super::saved_state`].
    #[serde(default)]
    pub restoring: bool,
    /// Only its name spoke for it when it was seen first: it may be another guest.
    #[serde(default)]
    pub guessed: bool,
    /// The libvirt it was being moved to, as long as how that ended is not known.
    #[serde(default)]
    pub moving: Option<String>,
    /// Whether its emulator has a ring, see [`super::rings`]; unknown in a record of a version that did not look.
    #[serde(default)]
    pub rings: Option<bool>,
}

impl Record {
    /// The guest it was.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { name: self.name.clone(), uuid: self.uuid.clone() }
    }

    /// What it says about the guest.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let emulator = self.pid.zip(self.start).map(|(pid, start)| Emulator { pid, start });
        Trace { identity: self.identity(), emulator, creating: self.creating, rings: self.rings.unwrap_or(true), place: None }
    }

    /// Whether a start or a move was begun whose end is not known.
    fn is_under_way(&self) -> bool {
        self.creating || self.restoring || self.moving.is_some()
    }

    /// Whether it is `identity`'s and still right: the emulator it names lives, nothing is under way, and nothing was not looked at.
    #[must_use]
    pub fn is_current(&self, identity: &Identity) -> bool {
        let settled = !self.creating && self.moving.is_none() && self.rings.is_some();
        settled && self.identity() == *identity && self.trace().emulator.is_some_and(|emulator| !emulator.is_dying())
    }
}

/// The notes, each once: what is not in here cannot be kept, and what is in here is forgotten with the guest.
macro_rules! notes {
    ($($(#[doc = $text:literal])+ $note:ident = $word:literal,)+) => {
        /// What spares a later action work, in a file of its own beside the record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Note {
            $($(#[doc = $text])+ $note,)+
        }

        impl Note {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$note),+];

            /// The end of its file's name.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$note => $word,)+
                }
            }
        }
    };
}

notes! {
    /// The definition as it was written to `config` last.
    Definition = "xml",
    /// The utilization as it was found or written last.
    Utilization = "utilization",
    /// The signs of life of the guest's agent.
    Pulse = "pulse",
    /// The outage of its storage.
    Outage = "outage",
    /// Where it could be moved to.
    Outlook = "outlook",
    /// The words beside its disks.
    Marks = "marks",
    /// The lock of who leaves them.
    Marking = "marking",
}

/// Where the record of one resource instance is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    directory: PathBuf,
    file: PathBuf,
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

    /// The guests in the records of all other resources.
    #[must_use]
    pub fn others(&self) -> Vec<Identity> {
        self.other_records().map(|(_, record)| record.identity()).collect()
    }

    /// The other resources that have seen this guest run, for certain, and whose emulator of it lives.
    #[must_use]
    pub fn sharers(&self, identity: &Identity) -> Vec<String> {
        let same =
            |other: &Record| other.name == identity.name && identity.uuid.as_ref().is_none_or(|uuid| other.uuid.as_ref() == Some(uuid));
        let settled = |other: &Record| !other.guessed && !other.creating && other.moving.is_none();
        let lives = |other: &Record| other.trace().emulator.is_some_and(|emulator| !emulator.is_dying());
        let sharers = self.other_records().filter(|(_, other)| same(other) && settled(other) && lives(other));
        sharers.map(|(instance, _)| instance).collect()
    }

    /// Another resource whose guest this is: that has seen it for certain, and whose emulator of it lives; or that is starting or moving it and has
    /// none on record yet. A record that outlived its emulator says nothing: what runs under that name by now is somebody else's.
    #[must_use]
    pub fn owner(&self, identity: &Identity) -> Option<String> {
        let same = |other: &Record| other.name == identity.name && !other.uuid.as_ref().is_some_and(|uuid| identity.is_another(uuid));
        let has = |other: &Record| match other.trace().emulator {
            Some(emulator) => !emulator.is_dying(),
            None => other.creating || other.moving.is_some(),
        };
        self.other_records().find(|(_, other)| !other.guessed && same(other) && has(other)).map(|(instance, _)| instance)
    }

    /// Whether another resource has seen this emulator run a guest of this name, for certain.
    #[must_use]
    pub fn has_other(&self, emulator: Emulator, name: &str) -> bool {
        let same = |other: &Record| !other.guessed && other.name == name && other.trace().emulator == Some(emulator);
        self.other_records().any(|(_, other)| same(&other))
    }

    /// The records of all other resources, each with the instance's name.
    fn other_records(&self) -> impl Iterator<Item = (String, Record)> {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let others = files.filter(|file| *file != self.file && file.extension().is_some_and(|end| end == "json"));
        others.filter_map(|file| {
            let instance = instance_name(file.file_stem()?.to_str()?)?;
            Some((instance, Self { directory: self.directory.clone(), file }.read()?))
        })
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
        self.replace(&self.file, &serde_json::to_vec(record)?)
    }

    /// Forgets the record and the notes: the guest was proven gone.
    pub fn remove(&self) {
        for file in [self.file.clone()].into_iter().chain(Note::ALL.iter().map(|note| self.note_file(*note))) {
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
    pub fn note_file(&self, note: Note) -> PathBuf {
        self.file.with_extension(note.word())
    }

    /// A note, if there is one that can be understood and only root can have written.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, note: Note) -> Option<T> {
        serde_json::from_slice(&self.text(note)?).ok()
    }

    /// Keeps a note, readable by root only. A failure is only worth a warning, and leaves what was there.
    pub fn put<T: Serialize>(&self, note: Note, value: &T) {
        self.keep(note, serde_json::to_vec(value).map_err(io::Error::from));
    }

    /// The text of a note, if there is one that only root can have written.
    #[must_use]
    pub fn text(&self, note: Note) -> Option<Vec<u8>> {
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
    pub fn put_text(&self, note: Note, contents: &[u8]) -> io::Result<()> {
        self.replace(&self.note_file(note), contents)
    }

    fn keep(&self, note: Note, contents: io::Result<Vec<u8>>) {
        let file = self.note_file(note);
        if let Err(error) = contents.and_then(|contents| self.replace(&file, &contents)) {
            log::warning(format_args!("state file {} cannot be written: {error}", file.display()));
        }
    }

    fn replace(&self, file: &Path, contents: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut new = tempfile::NamedTempFile::new_in(&self.directory)?;
        new.write_all(contents)?;
        new.persist(file)?;
        Ok(())
    }
}

/// Whether only this user can have written what is there.
fn is_trusted(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.uid() == nix::unistd::geteuid().as_raw() && data.mode() & 0o022 == 0)
}

/// A file name for any instance name; clones have a colon in theirs.
pub(super) fn file_name(instance: &str) -> String {
    instance
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect()
}

/// The instance that a file is named after.
pub(super) fn instance_name(stem: &str) -> Option<String> {
    let mut parts = stem.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::process::Status;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn record() -> Record {
        Record {
            config: "/srv/vms/web1.xml".into(),
            hypervisor: "qemu:///system".into(),
            name: "web1".into(),
            uuid: Some("c7a5fdbd-cdaf-9455-926a-d65c16db1809".into()),
            pid: Some(1234),
            start: Some(5678),
            creating: false,
            restoring: false,
            guessed: false,
            moving: None,
            rings: Some(false),
        }
    }

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
        for (at, note) in Note::ALL.iter().enumerate() {
            assert_eq!(shelf.get::<usize>(*note), None, "{note:?}");
            shelf.put(*note, &at);
            other.put(*note, &"theirs");
        }
        assert!(Note::ALL.iter().enumerate().all(|(at, note)| shelf.get(*note) == Some(at)), "each has a file of its own");
        // What cannot be written leaves what was there, and no file that is empty.
        shelf.put(Note::Pulse, &std::collections::BTreeMap::from([((1, 2), 3)]));
        assert_eq!(shelf.get(Note::Pulse), Some(2));
        assert_eq!(shelf.get::<String>(Note::Pulse), None, "a note of another kind");
        fs::set_permissions(shelf.note_file(Note::Pulse), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(shelf.get::<usize>(Note::Pulse), None, "anybody may have written it");
        shelf.put_text(Note::Definition, b"<domain/>").unwrap();
        assert_eq!(shelf.text(Note::Definition).as_deref(), Some(&b"<domain/>"[..]));
        shelf.remove();
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.len() == Note::ALL.len() && left.iter().all(|name| name.to_str().unwrap().starts_with("web2.")), "{left:?}");
    }

    #[test]
    fn names_of_instances_come_back() {
        for name in ["web1", "web/1:0", "100%", "\u{fc}ber.web"] {
            assert_eq!(instance_name(&file_name(name)).as_deref(), Some(name));
        }
        for stem in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(instance_name(stem), None, "{stem}");
        }
    }

    #[test]
    fn who_shares_a_guest() {
        let root = tempfile::tempdir().unwrap();
        let start = Status::read(Path::new("/proc/self")).unwrap().start;
        let emulator = Emulator { pid: std::process::id().cast_signed(), start };
        let same = Record { pid: Some(emulator.pid), start: Some(emulator.start), ..record() };
        let (shelf, other) = (Shelf::new(root.path(), "web1"), Shelf::new(root.path(), "web:2"));
        other.write(&same);
        let identity = record().identity();
        assert_eq!(shelf.sharers(&identity), ["web:2"]);
        assert_eq!(shelf.sharers(&Identity { uuid: None, ..identity.clone() }), ["web:2"]);
        assert_eq!(shelf.sharers(&Identity { uuid: Some("another".into()), ..identity.clone() }), [""; 0]);
        assert_eq!(other.sharers(&identity), [""; 0], "itself");
        // One that is gone, one with the number of another, and those of which nothing is certain.
        for unsure in [
            record(),
            Record { start: Some(emulator.start + 1), ..same.clone() },
            Record { guessed: true, ..same.clone() },
            Record { creating: true, ..same.clone() },
            Record { moving: Some("qemu+tcp://node2/system".into()), ..same },
        ] {
            other.write(&unsure);
            assert_eq!(shelf.sharers(&identity), [""; 0], "{unsure:?}");
        }
    }

    #[test]
    fn who_has_a_guest_that_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let start = Status::read(Path::new("/proc/self")).unwrap().start;
        let lives = Record { pid: Some(std::process::id().cast_signed()), start: Some(start), ..record() };
        let unknown = Record { pid: None, start: None, ..record() };
        let moving = || Some("qemu+tcp://node2/system".to_owned());
        let (shelf, other) = (Shelf::new(root.path(), "web1"), Shelf::new(root.path(), "web:2"));
        let identity = record().identity();
        let has = |record: &Record, identity: &Identity| {
            other.write(record);
            shelf.owner(identity).is_some()
        };
        for mine in [
            lives.clone(),
            Record { moving: moving(), ..lives.clone() },
            Record { creating: true, ..unknown.clone() },
            Record { moving: moving(), ..unknown.clone() },
        ] {
            assert!(has(&mine, &identity) && has(&mine, &Identity { uuid: None, ..identity.clone() }), "{mine:?}");
            assert!(!has(&mine, &Identity { name: "web9".into(), ..identity.clone() }), "another name: {mine:?}");
            assert!(!has(&mine, &Identity { uuid: Some("another".into()), ..identity.clone() }), "another UUID: {mine:?}");
            assert_eq!(other.owner(&identity), None, "itself");
        }
        // Whoever runs under that name by now would be called stopped while it lives.
        let gone = Record { start: Some(start + 1), ..lives.clone() };
        for old in [
            unknown,
            gone.clone(),
            Record { moving: moving(), ..gone.clone() },
            Record { creating: true, ..gone },
            Record { guessed: true, ..lives },
        ] {
            assert!(!has(&old, &identity), "{old:?}");
        }
    }

    #[test]
    fn whose_an_emulator_is() {
        let root = tempfile::tempdir().unwrap();
        let (shelf, other) = (Shelf::new(root.path(), "web2"), Shelf::new(root.path(), "web1"));
        let emulator = record().trace().emulator.unwrap();
        assert!(!shelf.has_other(emulator, "web1"));
        shelf.write(&record());
        assert!(!shelf.has_other(emulator, "web1"), "its own record");
        other.write(&record());
        assert!(shelf.has_other(emulator, "web1"));
        assert!(!shelf.has_other(emulator, "web2"), "under another name");
        assert!(!shelf.has_other(Emulator { start: emulator.start + 1, ..emulator }, "web1"), "the number of another");
        other.write(&Record { guessed: true, ..record() });
        assert!(!shelf.has_other(emulator, "web1"), "a guess");
    }

    #[test]
    fn one_without_the_newer_marks_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(root.path(), "web1");
        let mut old = serde_json::to_value(record()).unwrap();
        for name in ["creating", "restoring", "guessed", "moving", "rings"] {
            assert!(old.as_object_mut().unwrap().remove(name).is_some(), "{name}");
        }
        fs::write(&shelf.file, serde_json::to_vec(&old).unwrap()).unwrap();
        // Whether the emulator has a ring is not known then: it is looked at anew.
        assert_eq!(shelf.read(), Some(Record { rings: None, ..record() }));
        assert!(shelf.read().unwrap().trace().rings);
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
