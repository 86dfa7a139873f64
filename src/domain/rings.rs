//! Writes that outlive their process.
//!
//! A process whose requests were handed over as Linux AIO, as a disk with `io='native'` does, goes only when they are done: the last of its
//! threads to let go of its memory waits for them (`exit_aio`, from `__mmput`). But the memory may have another holder meanwhile, for as
//! long as that reads it: who reads `/proc/PID/smaps`, as exporters do, has it for seconds (`mmget_not_zero` in `fs/proc/task_mmu.c`). If
//! that one is the last it waits instead, when nothing of the process is left in `/proc`; or a worker of the kernel does (`mmput_async`).
//!
//! The ring of a process that ends, an io_uring, which a disk with `io='io_uring'` uses, is always taken down by a worker of the kernel
//! (`io_ring_exit_work` in `io_uring/io_uring.c`), which waits for the requests when nothing of the process is left either.
//!
//! Whose requests they are cannot be seen. So as long as somebody waits for such, a guest whose emulator may have left them is not
//! taken for gone. A guest whose disks have neither is: its stop must not fail, and its node be fenced, for the requests of another.

use super::emulator::Emulator;
use super::process::{self, Status};
use super::status_file::StatusFile;
use super::{Error, Kind};
use crate::deadline::Deadline;
#[cfg(test)]
use crate::simulation;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// What the worker's work is called, as the place in which it waits, and in its name since Linux 6.9.
const WORK: &str = "io_ring_exit_work";
/// See [`WORK`].
const QUEUE: &str = "+iou_exit";

/// Where the last holder of a memory waits for its AIO.
const AIO: &str = "exit_aio";

/// Which requests of a guest's disks may outlive its emulator. `None`: nobody has looked, so that it may have such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outliving {
    /// Whether the emulator has a ring with such; unknown in a record of a version that did not look.
    #[serde(default)]
    pub rings: Option<bool>,
    /// Whether it may have such in Linux AIO; unknown as above.
    #[serde(default)]
    pub aio: Option<bool>,
}

impl Outliving {
    /// None.
    pub const NONE: Self = Self { rings: Some(false), aio: Some(false) };
    /// Nobody has looked.
    pub const UNKNOWN: Self = Self { rings: None, aio: None };

    /// What an emulator has.
    #[must_use]
    pub fn of(emulator: Emulator) -> Self {
        Self::NONE.with(emulator)
    }

    /// This, or what an emulator has. What is known to be there is not looked for.
    #[must_use]
    pub fn with(self, emulator: Emulator) -> Self {
        let rings = self.rings == Some(true) || has(emulator);
        let aio = self.aio == Some(true) || may_have_aio(emulator);
        self.union(Self { rings: Some(rings), aio: Some(aio) })
    }

    /// What this or the other has.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let either =
            |one: Option<bool>, other: Option<bool>| if one == Some(true) { one } else { other.filter(|has| *has || one.is_some()) };
        Self { rings: either(self.rings, other.rings), aio: either(self.aio, other.aio) }
    }

    /// These answers; `other` has those that are not known here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { rings: self.rings.or(other.rings), aio: self.aio.or(other.aio) }
    }

    /// Whether somebody has looked.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.rings.is_some() && self.aio.is_some()
    }

    /// Whether there may be such in a ring.
    #[must_use]
    pub fn may_be_in_rings(self) -> bool {
        self.rings != Some(false)
    }

    /// Whether there may be such in AIO.
    #[must_use]
    pub fn may_be_in_aio(self) -> bool {
        self.aio != Some(false)
    }
}

/// Whether an emulator has a ring with requests of its disks. QEMU has rings for other things, too: since 10.2 it waits for events with one
/// where the kernel lets it. So a ring says nothing if libvirt's status file says that no disk uses one.
fn has(emulator: Emulator) -> bool {
    let directory = process::directory(emulator.pid);
    has_open(&directory) && may_be_for_disks(StatusFile::of(&directory))
}

fn has_open(directory: &Path) -> bool {
    process::open_files(directory).any(|file| file.as_os_str() == "anon_inode:[io_uring]")
}

/// Whether a ring may have requests of disks, by what libvirt says of the guest.
fn may_be_for_disks(file: Option<StatusFile>) -> bool {
    file.is_none_or(|file| file.may_use_rings)
}

/// Whether an emulator may have requests of its disks in Linux AIO. The mapping that would tell (`/[aio]` in `/proc/PID/maps`) is read
/// under the lock of its memory, which may be held as long as storage hangs; so libvirt's status file has to say that no disk uses it.
fn may_have_aio(emulator: Emulator) -> bool {
    #[cfg(test)]
    if simulation::is_on() {
        return false;
    }
    StatusFile::of(&process::directory(emulator.pid)).is_none_or(|file| file.may_use_aio)
}

/// What somebody waits for whose process has ended; on working storage that is done in milliseconds. Only what may be `outliving`
/// counts.
///
/// # Errors
/// `Unresponsive` or `Internal`: the process table cannot be read, so nothing is known.
pub fn pending(outliving: Outliving, deadline: &Deadline) -> Result<Option<&'static str>, Error> {
    #[cfg(test)]
    if simulation::is_on() {
        return Ok(None);
    }
    deadline
        .run(move || pending_in(process::table()?, outliving))
        .ok_or_else(|| Error::new(Kind::Unresponsive, "the process table could not be read in time"))?
        .map_err(|error| Error::new(Kind::Internal, format!("the process table cannot be read: {error}")))
}

fn pending_in(table: &Path, outliving: Outliving) -> io::Result<Option<&'static str>> {
    for entry in fs::read_dir(table)? {
        let directory = entry?.path();
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        if outliving.may_be_in_rings() && is_ending(&read("comm"), || read("wchan")) {
            return Ok(Some("io_uring"));
        }
        let mut threads = fs::read_dir(directory.join("task")).into_iter().flatten().flatten();
        if outliving.may_be_in_aio() && threads.any(|thread| holds_aio(&thread.path())) {
            return Ok(Some("AIO"));
        }
    }
    Ok(None)
}

/// Whether a thread of the kernel with this name, which waits in this place, takes down a ring.
fn is_ending(name: &str, place: impl FnOnce() -> String) -> bool {
    name.starts_with("kworker/") && (name.trim_end().ends_with(QUEUE) || place().trim_end() == WORK)
}

/// Whether a thread, by its folder, waits for the AIO of a memory that was another's. One that ends waits for its own: that process is
/// there, and is an emulator of the guest or is not.
fn holds_aio(thread: &Path) -> bool {
    fs::read_to_string(thread.join("wchan")).is_ok_and(|place| place.trim_end() == AIO)
        && Status::read(thread).is_some_and(|status| !status.is_exiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_waits_for_a_ring() {
        let is = |name: &str, place: &str| is_ending(name, || place.to_owned());
        // As seen: Linux 6.18, and the place alone with the queue's name of before 6.9.
        assert!(is("kworker/u8:1+iou_exit\n", "io_ring_exit_work"));
        assert!(is("kworker/u8:1+events_unbound\n", "io_ring_exit_work"));
        // Its work is done: the name of the last one stays, after a dash.
        assert!(!is("kworker/u8:1-iou_exit\n", "worker_thread"));
        assert!(!is("kworker/u8:1-events_unbound\n", "0"));
        // A program may call itself anything.
        assert!(!is("my+iou_exit\n", "do_sys_poll"));
    }

    #[test]
    fn who_waits_for_the_requests_of_another() {
        let holds = |place: &str, flags: u32| {
            let thread = tempfile::tempdir().unwrap();
            fs::write(thread.path().join("wchan"), place).unwrap();
            fs::write(thread.path().join("stat"), format!("7 (exporter) D 1 7 7 0 -1 {flags} 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0")).unwrap();
            holds_aio(thread.path())
        };
        // A program that reads, and a worker of the kernel.
        assert!(holds("exit_aio", 0x0040_0000) && holds("exit_aio", 0x0420_8060));
        assert!(!holds("exit_aio", 0x0040_0004), "it ends");
        assert!(!holds("do_sys_poll", 0x0040_0000) && !holds("0", 0x0040_0000));
        assert!(!holds_aio(Path::new("/nonexistent")));
    }

    #[test]
    fn a_guest_that_has_none_does_not_wait_for_anothers() {
        let table = tempfile::tempdir().unwrap();
        let found = |rings, aio| pending_in(table.path(), Outliving { rings: Some(rings), aio: Some(aio) }).unwrap();
        fs::write(table.path().join("version"), "no process").unwrap();
        assert_eq!(found(true, true), None);
        let thread = table.path().join("7/task/8");
        fs::create_dir_all(&thread).unwrap();
        fs::write(thread.join("wchan"), AIO).unwrap();
        fs::write(thread.join("stat"), "8 (exporter) D 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0").unwrap();
        assert_eq!((found(false, true), found(true, true)), (Some("AIO"), Some("AIO")));
        assert_eq!((found(false, false), found(true, false)), (None, None));
        let worker = table.path().join("9");
        fs::create_dir_all(&worker).unwrap();
        fs::write(worker.join("comm"), format!("kworker/u8:1{QUEUE}\n")).unwrap();
        assert_eq!((found(true, false), found(false, false)), (Some("io_uring"), None));
        assert_eq!(pending_in(table.path(), Outliving::UNKNOWN).unwrap(), Some("io_uring"), "where nobody has looked both count");
    }

    #[test]
    fn what_is_not_known_of_one_may_be_there() {
        let rings = |rings| Outliving { rings, ..Outliving::NONE };
        let union = |one, other| rings(one).union(rings(other)).rings;
        for (one, other, either) in [
            (Some(true), None, Some(true)),
            (Some(true), Some(false), Some(true)),
            (Some(false), None, None),
            (Some(false), Some(false), Some(false)),
            (None, None, None),
        ] {
            assert_eq!((union(one, other), union(other, one)), (either, either), "{one:?} {other:?}");
        }
        assert_eq!((rings(None).or(rings(Some(false))), rings(Some(true)).or(rings(Some(false)))), (Outliving::NONE, rings(Some(true))));
    }

    #[test]
    fn a_process_without_a_ring() {
        let emulator = Emulator { pid: i32::try_from(std::process::id()).unwrap(), start: 0 };
        assert!(!has(emulator));
        assert!(may_have_aio(emulator), "nothing is known");
    }

    #[test]
    fn a_ring_that_is_not_for_disks() {
        let text = |io: &str| {
            format!(
                "<domstatus pid='7'><domain><name>a</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>\
                <devices><disk><driver io='{io}'/></disk></devices></domain></domstatus>"
            )
        };
        let file = |io: &str| StatusFile::parse(&text(io), 7);
        assert!(!may_be_for_disks(file("native")) && may_be_for_disks(file("io_uring")));
        assert!(may_be_for_disks(None), "nothing is known");
    }
}
