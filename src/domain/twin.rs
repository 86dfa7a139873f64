//! The emulators of a guest, told from those of another guest that has its UUID: a definition that was copied and given another name only.
//!
//! The same UUID under another name is also what a guest shows whose definition was renamed while it ran, and such a one must neither be
//! called gone nor be left running. What tells them apart is what is at stake, the disks: an emulator under another name that has none of those
//! open which the definition names is another guest's. Where that cannot be told it is taken for the guest's.

use super::definition::{Definition, Identity};
use super::evidence::{self, Emulator};
use super::process;
use super::status::{self, Trace};
use super::{Result, Uri};
use crate::deadline::Deadline;
use crate::log;
#[cfg(test)]
use crate::simulation;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the definition, and its disks, are looked at.
const LOOK: Duration = Duration::from_secs(3);

/// As [`evidence::find`], without the emulators that are proven to be another guest's with the same UUID.
///
/// # Errors
/// As of [`evidence::find`].
pub fn find(trace: &Trace, deadline: &Deadline) -> Result<Vec<Emulator>> {
    find_by(trace, |config, deadline| Definition::read(config, deadline).ok(), deadline)
}

/// A way to read a definition.
type Read = fn(&Path, &Deadline) -> Option<Definition>;

fn find_by(trace: &Trace, read: Read, deadline: &Deadline) -> Result<Vec<Emulator>> {
    let found = evidence::find(&trace.identity, trace.emulator, deadline)?;
    Ok(found.into_iter().filter(|emulator| !is_others(trace, *emulator, read, deadline)).collect())
}

/// Whether an emulator with the guest's UUID is another guest's.
fn is_others(trace: &Trace, emulator: Emulator, read: Read, deadline: &Deadline) -> bool {
    #[cfg(test)]
    if simulation::is_on() {
        return false;
    }
    // One that this resource has seen is its own, whatever the definition says by now.
    let Some(config) = trace.config.as_ref().filter(|_| trace.identity.uuid.is_some() && trace.emulator != Some(emulator)) else {
        return false;
    };
    let name = trace.identity.name.clone();
    let deadline = deadline.within(LOOK.min(deadline.left() / 4));
    let wanted = name.clone();
    let shown = deadline.run(move || process::shown_name(emulator.pid).filter(|shown| *shown != wanted)).flatten();
    let Some(shown) = shown else { return false };
    let disks = read(config, &deadline).filter(|definition| definition.identity.name == name);
    let Some(disks) = disks.and_then(|definition| definition.local_disks()) else { return false };
    let others = deadline.run(move || has_none_of(&Path::new("/proc").join(emulator.pid.to_string()), &disks)) == Some(true);
    if others {
        log::debug(|| format!("{emulator} has the UUID of {name} and none of its disks: it is that of {shown}"));
    }
    others
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
            // libvirt keeps the pid file open there; a guest that has no more than that has not opened its disks yet.
            let link = fs::read_link(entry.path())?;
            let is_pid = link.extension().is_some_and(|end| end == "pid");
            let about = || fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            writes |= !is_pid && (file.is_file() || file.file_type().is_block_device()) && evidence::may_write(&about());
        }
        Ok(writes)
    };
    look().unwrap_or(false)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let block = |file: &Metadata| file.file_type().is_block_device();
    (one.dev(), one.ino()) == (other.dev(), other.ino()) || block(one) && block(other) && one.rdev() == other.rdev()
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
    use super::*;
    use std::process::{Child, Command};

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
            file.map_or(trace.clone(), |file| trace.defined_by(&place(file)))
        };
        let emulator = loop {
            // The shell's own command line is there only after its exec, and its file later.
            let is_open = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/3")).is_ok_and(|file| file.ends_with("one.img"));
            match find(&trace("twin-one", None), &deadline).unwrap().as_slice() {
                [one] if is_open(one.pid) => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        let read: Read = |config, _| Definition::parse(config, fs::read(config).ok()?).ok();
        let found = |trace: &Trace| find_by(trace, read, &deadline).unwrap() == [emulator];
        define("copy.xml", "twin-two", &disk("two.img"));
        let copy = trace("twin-two", Some("copy.xml"));
        assert!(!found(&copy), "another guest's");
        // What was seen to be its own, what is not known, and what has one of the disks, under whatever name.
        assert!(found(&Trace { emulator: Some(emulator), ..copy.clone() }));
        assert!(found(&trace("twin-two", None)) && found(&trace("twin-two", Some("nowhere.xml"))));
        assert!(found(&trace("twin-three", Some("copy.xml"))), "the definition is another's");
        for disks in [disk("one.img"), disk("two.img") + &disk("link.img"), disk("gone.img"), disk("two.img") + network, String::new()] {
            define("renamed.xml", "twin-two", &disks);
            assert!(found(&trace("twin-two", Some("renamed.xml"))), "{disks}");
        }
        // Renamed with everything.
        fs::rename(place("one.img"), place("moved.img")).unwrap();
        define("renamed.xml", "twin-two", &disk("moved.img"));
        assert!(found(&trace("twin-two", Some("renamed.xml"))));
    }
}
