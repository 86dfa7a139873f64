//! Writes that outlive their process: requests of an io_uring, which a disk with `io='io_uring'` uses.
//!
//! A process whose requests were handed over as Linux AIO (`io='native'`) goes only when they are done (`exit_aio`). The ring of one that
//! ends is taken down by a worker of the kernel instead (`io_ring_exit_work` in `io_uring/io_uring.c`), which waits for the requests
//! when nothing of the process is left in `/proc`. Which process it was cannot be seen. So as long as such a worker waits, a guest
//! whose emulator had a ring is not taken for gone.

use super::emulator::Emulator;
use super::process;
use super::{Error, Kind};
use crate::deadline::Deadline;
use std::fs;
use std::io;

/// What the worker's work is called, as the place in which it waits, and in its name since Linux 6.9.
const WORK: &str = "io_ring_exit_work";
/// See [`WORK`].
const QUEUE: &str = "+iou_exit";

/// Whether an emulator has a ring.
#[must_use]
pub fn has(emulator: Emulator) -> bool {
    process::open_files(&process::directory(emulator.pid)).any(|file| file.as_os_str() == "anon_inode:[io_uring]")
}

/// Whether the kernel takes down the ring of a process that has ended; on working storage that is done in milliseconds.
///
/// # Errors
/// `Unresponsive` or `Internal`: the process table cannot be read, so nothing is known.
pub fn any_ending(deadline: &Deadline) -> Result<bool, Error> {
    let look = || -> io::Result<bool> {
        for entry in fs::read_dir(process::table()?)? {
            let directory = entry?.path();
            let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
            if is_ending(&read("comm"), || read("wchan")) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    deadline
        .run(look)
        .ok_or_else(|| Error::new(Kind::Unresponsive, "the process table could not be read in time"))?
        .map_err(|error| Error::new(Kind::Internal, format!("the process table cannot be read: {error}")))
}

/// Whether a thread of the kernel with this name, which waits in this place, takes down a ring.
fn is_ending(name: &str, place: impl FnOnce() -> String) -> bool {
    name.starts_with("kworker/") && (name.trim_end().ends_with(QUEUE) || place().trim_end() == WORK)
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
    fn a_process_without_a_ring() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(!has(Emulator { pid, start: 0 }));
    }
}
