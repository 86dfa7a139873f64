//! The emulators of a guest, told from those of another guest that has its UUID: a definition that was copied and given another name only.
//!
//! The same UUID under another name is also what a guest shows whose definition was renamed while it ran, and such a one must neither be
//! called gone nor be left running. So an emulator under another name is another guest's only if two things say so: it has none of those disks
//! open that the definition names, which are what is at stake; and another resource has seen it run under that name, or it was started here
//! under that name and libvirt still has it so. Where that cannot be told it is taken for the guest's.

use super::definition::{Definition, Identity};
use super::emulator::Emulator;
use super::evidence;
use super::process;
use super::status::{self, Trace};
use super::{Result, Uri};
use crate::deadline::Deadline;
use crate::log;
use crate::program;
#[cfg(test)]
use crate::simulation;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the definition, and its disks, are looked at.
const LOOK: Duration = Duration::from_secs(3);

/// The word by which this program calls itself to look at disks, which may hang: the number of a process, and paths.
pub const WORD: &str = "has-none-open";

/// As [`evidence::find`], without the emulators that are proven to be another guest's with the same UUID.
///
/// # Errors
/// As for [`evidence::find`].
pub fn find(trace: &Trace, uri: &Uri, deadline: &Deadline) -> Result<Vec<Emulator>> {
    find_by(trace, uri, &EYES, deadline)
}

/// Ways to look at what may hang.
struct Eyes {
    definition: fn(&Path, &Deadline) -> Option<Definition>,
    /// Whether a process has none of these disks open.
    none_open: fn(i32, &[PathBuf], &Deadline) -> bool,
}

const EYES: Eyes = Eyes { definition: |config, deadline| Definition::read(config, deadline).ok(), none_open };

fn find_by(trace: &Trace, uri: &Uri, eyes: &Eyes, deadline: &Deadline) -> Result<Vec<Emulator>> {
    let found = evidence::find(&trace.identity, trace.emulator, deadline)?;
    Ok(found.into_iter().filter(|emulator| !is_others(trace, *emulator, uri, eyes, deadline)).collect())
}

/// Whether an emulator with the guest's UUID is another guest's.
fn is_others(trace: &Trace, emulator: Emulator, uri: &Uri, eyes: &Eyes, deadline: &Deadline) -> bool {
    #[cfg(test)]
    if simulation::is_on() {
        return false;
    }
    // One that this resource has seen is its own, whatever the definition says by now.
    let Some(place) = trace.place.as_ref().filter(|_| trace.identity.uuid.is_some() && trace.emulator != Some(emulator)) else {
        return false;
    };
    let deadline = deadline.share(LOOK, 4);
    let name = &trace.identity.name;
    let Some(shown) = shown_as_another(emulator, name, &deadline) else { return false };
    let seen = place.shelf.has_other(emulator, &shown.name);
    if !seen && (shown.incoming || !other(&trace.identity, uri, &deadline).is_ok_and(|name| name.as_ref() == Some(&shown.name))) {
        return false;
    }
    let definition = (eyes.definition)(&place.config, &deadline).filter(|definition| definition.identity.name == *name);
    let Some(disks) = definition.and_then(|definition| definition.local_disks()) else { return false };
    let others = (eyes.none_open)(emulator.pid, &disks, &deadline);
    if others {
        log::debug(|| format!("{emulator} has the UUID of {name} and none of its disks: it is that of {}", shown.name));
    }
    others
}

/// Looks in a process of its own: a thread that waits for storage would keep this one from exiting.
fn none_open(pid: i32, disks: &[PathBuf], deadline: &Deadline) -> bool {
    let number = pid.to_string();
    let words = [OsStr::new(WORD), OsStr::new(&number)].into_iter().chain(disks.iter().map(|disk| disk.as_os_str()));
    let finished = program::run_self(&words.collect::<Vec<_>>(), deadline);
    finished.is_ok_and(|finished| finished.succeeded())
}

/// The child's side: succeeds if the process has none of the disks open.
///
/// # Errors
/// It has one, or that cannot be told.
pub fn perform(words: &[OsString]) -> io::Result<()> {
    let [pid, disks @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
    let pid: i32 = pid.to_str().and_then(|pid| pid.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let disks: Vec<PathBuf> = disks.iter().map(PathBuf::from).collect();
    if has_none_of(&process::directory(pid), &disks) { Ok(()) } else { Err(io::Error::other("it may have one open")) }
}

/// Whether a process has files or devices open to read and write, and none of these. What cannot be looked at may be one.
fn has_none_of(process: &Path, disks: &[PathBuf]) -> bool {
    let look = || -> io::Result<bool> {
        let wanted = disks.iter().map(fs::metadata).collect::<io::Result<Vec<_>>>()?;
        let mut writes = false;
        for entry in fs::read_dir(process.join("fd"))? {
            let entry = entry?;
            let file = match fs::metadata(entry.path()) {
                Err(error) if process::is_gone(&error) => continue,
                file => file?,
            };
            if wanted.iter().any(|disk| is_same(disk, &file)) {
                return Ok(false);
            }
            let about = || fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            let is_kept = file.is_file() || file.file_type().is_block_device();
            // A guest that has no more than what is surely no disk has not opened its disks yet.
            writes |= is_kept && process::is_disk(&fs::read_link(entry.path())?) && process::may_write(&about());
        }
        Ok(writes)
    };
    look().unwrap_or(false)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let block = |file: &Metadata| file.file_type().is_block_device();
    (one.dev(), one.ino()) == (other.dev(), other.ino()) || block(one) && block(other) && one.rdev() == other.rdev()
}

/// Whether an emulator shows another name than this guest's. Not if its command line does not come.
#[must_use]
pub fn has_another_name(emulator: Emulator, name: &str, deadline: &Deadline) -> bool {
    shown_as_another(emulator, name, deadline).is_some()
}

/// What an emulator shows whose guest has another name.
fn shown_as_another(emulator: Emulator, name: &str, deadline: &Deadline) -> Option<process::Shown> {
    let name = name.to_owned();
    deadline.run(move || process::shown(emulator.pid).filter(|shown| shown.name != name)).flatten()
}

/// The other name under which this host's libvirt runs a guest with the UUID of this one.
///
/// # Errors
/// libvirt's, or `Unresponsive`.
pub fn other(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<Option<String>> {
    let Some(uuid) = &identity.uuid else { return Ok(None) };
    Ok(status::name_of(uuid, uri, deadline)?.filter(|name| *name != identity.name))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Record, Shelf};
    use super::super::status::Place;
    use super::*;
    use std::process::{Child, Command};

    /// Nobody listens there.
    const NOWHERE: &str = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";

    /// Ended when a test is over, however it ends.
    struct Impostor(Child);

    impl Drop for Impostor {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process with the command line of an emulator of `name`, which has a file open; the shell keeps what follows its script as its own
    /// arguments.
    fn impostor(name: &str, uuid: &str, disk: &Path) -> Impostor {
        let name = format!("guest={name},debug-threads=on");
        let script = format!("exec 3<>'{}'; while :; do sleep 0.1; done", disk.display());
        let words = ["-c", &script, "qemu", "-name", &name, "-uuid", uuid];
        Impostor(Command::new("/bin/sh").args(words).spawn().unwrap())
    }

    #[test]
    fn disks_say_whose_an_emulator_is() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        let uuid = format!("00000000-0000-4000-8000-{:012}", std::process::id());
        for disk in ["one.img", "two.img"] {
            fs::write(place(disk), "").unwrap();
        }
        std::os::unix::fs::symlink(place("one.img"), place("link.img")).unwrap();
        let _guest = impostor("twin-one", &uuid, &place("one.img"));
        let define = |file: &str, name: &str, disks: &str| {
            let xml = format!("<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid><devices>{disks}</devices></domain>");
            fs::write(place(file), xml).unwrap();
        };
        let disk =
            |name: &str| format!("<disk type='file' device='disk'><source file='{}'/><target dev='vda'/></disk>", place(name).display());
        let network = "<disk type='network' device='disk'><source protocol='rbd' name='pool/one'/><target dev='vdb'/></disk>";
        let trace = |name: &str, file: Option<&str>| {
            let trace = Trace::from(Identity { name: name.into(), uuid: Some(uuid.clone()) });
            let of = |file: &str| Place { config: place(file), shelf: Shelf::new(&place("shelf"), "two") };
            file.map_or(trace.clone(), |file| trace.of(of(file)))
        };
        let uri = Uri::parse(NOWHERE).unwrap();
        let emulator = loop {
            // The shell's own command line is there only after its exec, and its file later.
            let is_open = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/3")).is_ok_and(|file| file.ends_with("one.img"));
            match find(&trace("twin-one", None), &uri, &deadline).unwrap().as_slice() {
                [one] if is_open(one.pid) => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        let eyes = Eyes {
            definition: |config, _| Definition::parse(config, fs::read(config).ok()?).ok(),
            none_open: |pid, disks, _| has_none_of(&process::directory(pid), disks),
        };
        let found = |trace: &Trace| find_by(trace, &uri, &eyes, &deadline).unwrap() == [emulator];
        define("copy.xml", "twin-two", &disk("two.img"));
        let copy = trace("twin-two", Some("copy.xml"));
        // Its disks alone do not say so.
        assert!(found(&copy));
        let record = |name: &str| {
            let new = Record::new(place("one.xml"), NOWHERE, &Identity { name: name.into(), uuid: Some(uuid.clone()) });
            Record { pid: Some(emulator.pid), start: Some(emulator.start), ..new }
        };
        Shelf::new(&place("shelf"), "one").write(&record("twin-three"));
        assert!(found(&copy), "a name that it does not run under says nothing");
        Shelf::new(&place("shelf"), "one").write(&record("twin-one"));
        assert!(!found(&copy), "another guest's");
        // What was seen to be its own, what is not known, and what has one of the disks, under whatever name.
        assert!(found(&Trace { emulator: Some(emulator), ..copy.clone() }));
        assert!(has_another_name(emulator, "twin-two", &deadline) && !has_another_name(emulator, "twin-one", &deadline));
        assert!(found(&trace("twin-two", None)) && found(&trace("twin-two", Some("nowhere.xml"))));
        assert!(found(&trace("twin-three", Some("copy.xml"))), "the definition is another's");
        for disks in [disk("one.img"), disk("two.img") + &disk("link.img"), disk("gone.img"), disk("two.img") + network, String::new()] {
            define("renamed.xml", "twin-two", &disks);
            assert!(found(&trace("twin-two", Some("renamed.xml"))), "{disks}");
        }
        // What has no medium, or is anybody's, says nothing.
        let more = "<disk type='file' device='floppy'><target dev='fda'/></disk>".to_owned()
            + &disk("one.img").replace("<target", "<shareable/><target");
        define("copy.xml", "twin-two", &(disk("two.img") + &more));
        assert!(!found(&copy));
        // Renamed with everything.
        fs::rename(place("one.img"), place("moved.img")).unwrap();
        define("renamed.xml", "twin-two", &disk("moved.img"));
        assert!(found(&trace("twin-two", Some("renamed.xml"))));
    }
}
