//! What one `off` has to tell the next action on this node: a file for each guest under `/run/kvmha/fence`, gone after a reboot.
//!
//! Three things are written down. That the guest was ended, with the definition of a transient one: for a while it is off if nobody knows it,
//! and can be brought back. That it was being moved when it was ended, and may have arrived where nobody is asked. And that a destroy
//! was begun: libvirt 9.0 forgets a guest whose emulator hangs in the kernel after 80 s, and reports it destroyed; an `off` that
//! comes later would find it on no host and call it off, with a write still in flight. A destroy whose end was not seen in time
//! therefore stands against the guest until somebody who can prove it has removed the note; the other nodes are told of it (`told`).

use crate::deadline;
use crate::domain::{Error, Kind, Result};
use crate::whole;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the notes are.
pub(super) const FOLDER: &str = "/run/kvmha/fence";

/// The same; where hosts are made up, their own.
pub(super) fn folder() -> PathBuf {
    #[cfg(test)]
    if let Some(folder) = crate::simulation::state_directory() {
        return folder;
    }
    FOLDER.into()
}

/// The longest time after which a destroy that ended can have been an ordinary one: libvirt gives up on an emulator that cannot be
/// killed after 40 s, and tries once more (`qemuProcessKill` in libvirt's `src/qemu/qemu_process.c`).
pub(super) const ORDINARY: Duration = Duration::from_secs(30);

/// How long what was ended counts: later somebody else may have started it on a host that is asked by nobody, or from another definition.
const WHILE: Duration = Duration::from_secs(600);

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
    /// When it was ended, in seconds since 1970.
    #[serde(default)]
    pub(super) at: u64,
    /// The host from which it was on its way when it was ended there. No other host has been seen to have it.
    #[serde(default)]
    pub(super) left: Option<String>,
    /// The destroys whose ends have not been seen. The guest may have been run again since, on another host or on the same.
    pub(super) ends: Vec<Begun>,
}

/// A destroy that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// On this host.
    pub(super) host: String,
    /// When; seconds since 1970.
    pub(super) begun: u64,
    /// When libvirt said that somebody else has ended the guest meanwhile, if it did. Nobody here knows when that other end was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) over: Option<u64>,
}

impl Begun {
    /// Whether it may have ended without ending the emulator.
    pub(super) fn is_open(&self) -> bool {
        // A clock that was set back makes it look begun in the future: that proves nothing either.
        self.over.is_some() || now().checked_sub(self.begun).is_none_or(|age| age >= ORDINARY.as_secs())
    }

    /// Whether it was begun a moment ago: who began it may be waiting still. The clocks of two nodes are never quite the same.
    pub(super) fn is_young(&self) -> bool {
        now().abs_diff(self.begun) < ORDINARY.as_secs()
    }
}

impl Note {
    /// The notes about the guests with this name or UUID.
    ///
    /// # Errors
    /// There may be one, but it cannot be read.
    pub(super) fn find(folder: &Path, word: &str) -> Result<Vec<Self>> {
        let mut notes = Self::all(folder)?;
        notes.retain(|note| note.name == word || note.uuid == word.to_ascii_lowercase());
        Ok(notes)
    }

    /// All notes.
    ///
    /// # Errors
    /// There may be one that cannot be read.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>> {
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
            notes.push(note);
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
        whole::write(&self.path(folder), &bytes).map_err(|error| failed(&error))
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

    /// Whether what was ended counts still.
    pub(super) fn is_fresh(&self) -> bool {
        now().checked_sub(self.at).is_some_and(|age| age <= WHILE.as_secs())
    }

    /// Whether a destroy was begun that may have ended without ending the emulator.
    pub(super) fn is_open(&self) -> bool {
        self.ends.iter().any(Begun::is_open)
    }

    /// A destroy at `host` is begun now. An earlier one may be the one that libvirt still has in its hands, or about an emulator that libvirt has
    /// forgotten: it stands beside this.
    pub(super) fn begin(&mut self, host: &str) {
        let end = Begun { host: host.to_owned(), begun: now(), over: None };
        if !self.ends.contains(&end) {
            self.ends.push(end);
        }
    }

    /// Somebody else had ended by then what was begun at `host`, and took so long that it may have been no ordinary end: it is open from now on.
    /// Not so the ends in `stands`, which were open before.
    pub(super) fn overtaken(&mut self, host: &str, over: u64, stands: &[Begun]) {
        for end in self.ends.iter_mut().filter(|end| end.host == host && !stands.contains(end)) {
            end.over = Some(over);
        }
    }

    /// The emulator that libvirt had at `host` has ended. That says nothing of another host, nor of the ends in `stands`, which were
    /// open before: the emulator that was ended now may be a later one.
    pub(super) fn ended(&mut self, host: &str, stands: &[Begun]) {
        self.ends.retain(|end| end.host != host || stands.contains(end));
    }

    /// Forgets the ends that were ordinary ones: `host` said in time that the guest does not run there.
    pub(super) fn quiet(&mut self, host: &str) {
        self.ends.retain(|end| end.host != host || end.is_open());
    }
}

/// The ends in a note that are open.
pub(super) fn open_ends(note: Option<&Note>) -> Vec<Begun> {
    note.map(|note| note.ends.iter().filter(|end| end.is_open()).cloned().collect()).unwrap_or_default()
}

/// An end that `fence_kvmha` has begun on this node and not seen: nothing proves that the emulator there is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unproven {
    /// The host's libvirt.
    pub host: String,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
    /// The file that keeps it.
    pub file: PathBuf,
}

/// The unproven ends of a guest, by its name or UUID.
///
/// # Errors
/// There may be one, but that cannot be read.
pub fn unproven(word: &str) -> Result<Vec<Unproven>> {
    let folder = Path::new(FOLDER);
    let notes = Note::find(folder, word)?;
    let of = |note: &Note| {
        let open = note.ends.iter().filter(|end| end.is_open());
        open.map(|end| Unproven { host: end.host.clone(), begun: end.begun, file: note.path(folder) }).collect::<Vec<_>>()
    };
    Ok(notes.iter().flat_map(of).collect())
}

/// The file that says when a host was last seen up from here. Two hosts with one file are both as young as the younger.
fn seen_path(folder: &Path, label: &str) -> PathBuf {
    let plain: String = label.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    folder.join(format!("{plain}.seen"))
}

/// Writes down that a host was seen up now: a record that it was turned off before this moment is out of date.
///
/// # Errors
/// `Internal`, with the file's name.
pub(super) fn saw(folder: &Path, label: &str) -> Result<()> {
    let path = seen_path(folder, label);
    whole::write(&path, now().to_string().as_bytes())
        .map_err(|error| Error::new(Kind::Internal, format!("{} cannot be written: {error}", path.display())))
}

/// When a host was last seen up from here, in seconds since 1970.
///
/// # Errors
/// It may have been, but that cannot be read.
pub(super) fn seen(folder: &Path, label: &str) -> Result<Option<u64>> {
    let path = seen_path(folder, label);
    let failed = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("{} cannot be read: {error}", path.display()));
    match fs::read_to_string(&path) {
        Ok(text) => text.parse().map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    deadline::unix_time()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const A: &str = "qemu+tcp://a/system";
    const B: &str = "qemu+tcp://b/system";

    fn at(host: &str, begun: u64) -> Begun {
        Begun { host: host.into(), begun, over: None }
    }

    fn note(begun: Option<u64>) -> Note {
        let ends = begun.into_iter().map(|begun| at(A, begun)).collect();
        Note { name: "web1".into(), uuid: "u-1".into(), host: A.into(), xml: Some("<domain/>".into()), at: 7, left: None, ends }
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
    fn a_host_is_as_young_as_it_was_last_seen() {
        let folder = tempfile::tempdir().unwrap();
        let label = "qemu+tcp://a/system";
        assert_eq!(seen(folder.path(), label).unwrap(), None);
        saw(folder.path(), label).unwrap();
        assert!(seen(folder.path(), label).unwrap().is_some_and(|time| now() - time < 3600));
        assert_eq!(seen(folder.path(), "qemu+tcp://b/system").unwrap(), None);
        assert_eq!(Note::find(folder.path(), "web1").unwrap(), [], "it is no note");
        fs::write(seen_path(folder.path(), label), "soon").unwrap();
        assert!(seen(folder.path(), label).is_err());
    }

    #[test]
    fn a_note_that_cannot_be_read_is_no_absence() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.json"), "{").unwrap();
        assert!(Note::find(folder.path(), "web1").is_err());
    }

    #[test]
    fn what_was_ended_counts_for_a_while() {
        for (at, fresh) in [(now(), true), (now() - 590, true), (now() - 610, false), (now() + 60, false), (0, false)] {
            assert_eq!(Note { at, ..note(None) }.is_fresh(), fresh, "{at}");
        }
        let old = r#"{"name":"web1","uuid":"u-1","host":"a","xml":null,"ends":[]}"#;
        assert!(!serde_json::from_str::<Note>(old).unwrap().is_fresh());
    }

    #[test]
    fn an_end_that_was_not_seen_in_time_stays_open() {
        assert!(!note(None).is_open());
        assert!(!note(Some(now())).is_open());
        assert!(note(Some(now() - 60)).is_open());
        assert!(note(Some(now() + 600)).is_open());
    }

    #[test]
    fn an_end_that_somebody_else_has_made_is_open_at_once() {
        let mut note = note(Some(now() - 100));
        let stands = note.ends.clone();
        note.begin(A);
        note.begin(B);
        note.overtaken(A, now(), &stands);
        assert_eq!(
            note.ends.iter().map(|end| (end.over.is_some(), end.is_open())).collect::<Vec<_>>(),
            [(false, true), (true, true), (false, false)]
        );
        let text = serde_json::to_string(&note).unwrap();
        assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), note);
        note.quiet(A);
        assert_eq!(note.ends.len(), 3, "that it does not run there proves nothing of it");
    }

    #[test]
    fn an_open_end_outlives_those_that_came_after() {
        let old = at(A, now() - 100);
        let stands = [old.clone()];
        for host in [A, B] {
            let mut note = note(Some(old.begun));
            note.begin(host);
            assert_eq!(note.ends.len(), 2, "{host}");
            note.ended(host, &stands);
            note.quiet(host);
            assert_eq!(note.ends, stands, "{host}");
        }
    }

    #[test]
    fn an_end_is_proven_for_its_own_host_alone() {
        let mut note = note(None);
        note.begin(A);
        note.begin(B);
        note.ended(B, &[]);
        assert_eq!(note.ends.iter().map(|end| end.host.as_str()).collect::<Vec<_>>(), [A]);
        note.quiet(B);
        assert_eq!(note.ends.len(), 1);
        note.quiet(A);
        assert_eq!(note.ends, []);
        // One that grew old in the same action, while libvirt had the guest all the time.
        note.ends.push(at(A, now() - 100));
        note.ended(A, &[]);
        assert_eq!(note.ends, []);
    }
}
