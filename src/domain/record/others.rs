//! What the records of the other resources of this node say about a guest.

use super::{Record, Shelf, instance_name};
use crate::domain::definition::Identity;
use crate::domain::emulator::Emulator;
use std::fs;

impl Shelf {
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

    /// Another resource whose guest this is: that has seen it for certain, and whose emulator of it lives. A record without one, or that outlived it,
    /// says nothing: what runs under that name by now may be anybody's.
    #[must_use]
    pub fn owner(&self, identity: &Identity) -> Option<String> {
        self.other_with(identity, |other| other.trace().emulator.is_some_and(|emulator| !emulator.is_dying()))
    }

    /// Another resource that has begun to start a guest of this name, and has not seen its emulator yet: what there is of that name may be either's.
    #[must_use]
    pub fn starter(&self, identity: &Identity) -> Option<String> {
        self.other_with(identity, |other| other.creating && other.trace().emulator.is_none())
    }

    fn other_with(&self, identity: &Identity, has: impl Fn(&Record) -> bool) -> Option<String> {
        let same = |other: &Record| other.name == identity.name && !other.uuid.as_ref().is_some_and(|uuid| identity.is_another(uuid));
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::domain::process::Status;
    use std::path::Path;

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
        for mine in [lives.clone(), Record { moving: moving(), ..lives.clone() }, Record { creating: true, ..lives.clone() }] {
            assert!(has(&mine, &identity) && has(&mine, &Identity { uuid: None, ..identity.clone() }), "{mine:?}");
            assert!(!has(&mine, &Identity { name: "web9".into(), ..identity.clone() }), "another name: {mine:?}");
            assert!(!has(&mine, &Identity { uuid: Some("another".into()), ..identity.clone() }), "another UUID: {mine:?}");
            assert_eq!(other.owner(&identity), None, "itself");
        }
        // Whoever runs under that name by now would be called stopped while it lives.
        let gone = Record { start: Some(start + 1), ..lives.clone() };
        for old in [
            unknown.clone(),
            Record { creating: true, ..unknown.clone() },
            Record { moving: moving(), ..unknown.clone() },
            gone.clone(),
            Record { moving: moving(), ..gone.clone() },
            Record { creating: true, ..gone },
            Record { guessed: true, ..lives },
        ] {
            assert!(!has(&old, &identity), "{old:?}");
        }
    }

    #[test]
    fn who_is_about_to_have_a_guest() {
        let root = tempfile::tempdir().unwrap();
        let (shelf, other) = (Shelf::new(root.path(), "web1"), Shelf::new(root.path(), "web:2"));
        let (begun, identity) = (Record { creating: true, pid: None, start: None, ..record() }, record().identity());
        let starts = |record: &Record, identity: &Identity| {
            other.write(record);
            shelf.starter(identity).is_some()
        };
        assert!(starts(&begun, &identity) && starts(&begun, &Identity { uuid: None, ..identity.clone() }));
        assert_eq!(other.starter(&identity), None, "itself");
        assert!(!starts(&begun, &Identity { name: "web9".into(), ..identity.clone() }), "another name");
        assert!(!starts(&begun, &Identity { uuid: Some("another".into()), ..identity.clone() }), "another UUID");
        for not in [
            Record { creating: true, ..record() },
            Record { creating: false, ..begun.clone() },
            Record { guessed: true, ..begun.clone() },
            Record { creating: false, moving: Some("qemu+tcp://node2/system".into()), ..begun },
        ] {
            assert!(!starts(&not, &identity), "{not:?}");
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
}
