//! What is left of an emulator that does not end, and what it waits for: for a person.

use super::{Emulator, Thread};
use crate::domain::process;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

impl Emulator {
    /// What is left of it, for a person.
    #[must_use]
    pub fn remains(&self, name: &str) -> String {
        let threads = match self.threads() {
            Ok(threads) => threads,
            Err(error) => return format!("{self} of {name}: its threads cannot be read: {error}"),
        };
        let stuck: Vec<&Thread> = threads.iter().filter(|thread| thread.state == 'D').collect();
        if stuck.is_empty() {
            return format!("{self} of {name} still has {}", count(threads.len(), "thread"));
        }
        let place = stuck.iter().find_map(|thread| self.waits_on(thread)).map(|place| format!(" on {place}"));
        let place = place.or_else(|| stuck.iter().find_map(|thread| self.has_open(thread))).unwrap_or_default();
        format!("{self} of {name}: {} in uninterruptible sleep{place}, its storage may still take a write", count(stuck.len(), "thread"))
    }

    /// The file whose access a thread is stuck in: the first argument of its system call (`/proc/PID/task/TID/syscall`) is a
    /// file descriptor in all calls that QEMU's worker threads make on a disk (`io='threads'`).
    fn waits_on(&self, thread: &Thread) -> Option<String> {
        let directory = process::directory(self.pid).join(format!("task/{}", thread.id));
        let call = fs::read_to_string(directory.join("syscall")).ok()?;
        let descriptor = u32::from_str_radix(call.split_whitespace().nth(1)?.strip_prefix("0x")?, 16).ok()?;
        let file = fs::read_link(directory.join(format!("fd/{descriptor}"))).ok()?;
        file.is_absolute().then(|| file.display().to_string())
    }

    /// What a thread has open that can be a disk: one that hands its requests over (`io_submit`, `io_uring_enter`), or waits at its end for
    /// those that were (`exit_aio`), does not say for which file. Links and flags only: the files themselves may not answer.
    fn has_open(&self, thread: &Thread) -> Option<String> {
        let directory = process::directory(self.pid).join(format!("task/{}", thread.id));
        let is_disk = |path: &Path| {
            if path.starts_with("/dev") {
                fs::metadata(path).is_ok_and(|about| about.file_type().is_block_device())
            } else {
                path.is_absolute() && process::is_disk(path)
            }
        };
        let mut disks = Vec::new();
        for entry in fs::read_dir(directory.join("fd")).ok()?.flatten() {
            let Ok(file) = fs::read_link(entry.path()) else { continue };
            let flags = fs::read_to_string(directory.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            if is_disk(&file) && process::may_write(&flags) && !disks.contains(&file) {
                disks.push(file);
            }
        }
        let disks: Vec<String> = disks.iter().map(|disk| disk.display().to_string()).collect();
        (!disks.is_empty()).then(|| format!(" with {} open", disks.join(", ")))
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_may_hang_on() {
        let own = Emulator { pid: i32::try_from(std::process::id()).unwrap(), start: 0 };
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = own.has_open(&Thread { id: own.pid, state: 'D' }).unwrap();
        assert!(open.contains(&file.path().display().to_string()), "{open}");
    }
}
