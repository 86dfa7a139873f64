//! What is remembered of a child that was left behind, stuck in the kernel, so that no second one is sent after it: a monitor that asks the
//! same file again and again on storage that hangs would fill the process table.

use crate::whole;
use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where it is kept: in memory, gone with the boot as the processes are.
const DIRECTORY: &str = "/run/kvmha/left";

/// A child, the leader of its process group.
#[derive(Clone, Copy)]
pub(super) struct Child {
    pid: i32,
    /// When it started, in clock ticks since boot: its number may be given again.
    start: u64,
}

impl Child {
    /// The child with this number, if it is there.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        Some(Self { pid, start: started(pid)? })
    }

    /// Whether its process group is still there: the child may have ended and what it started may hang.
    fn is_there(self) -> bool {
        // Of another action the system has reaped it; this one's own is reaped here.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        // Another process with this number: no number is given again as long as a group has it.
        if started(self.pid).is_some_and(|now| now != self.start) {
            return false;
        }
        killpg(Pid::from_raw(self.pid), None) != Err(Errno::ESRCH)
    }
}

/// The note about the child that was left behind with one list of arguments.
pub(super) struct Note {
    file: PathBuf,
}

impl Note {
    /// The note for a child with these arguments.
    pub(super) fn of<S: AsRef<OsStr>>(arguments: &[S]) -> Self {
        Self::within(Path::new(DIRECTORY), arguments)
    }

    fn within<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Self {
        let mut hasher = DefaultHasher::new();
        arguments.iter().for_each(|argument| argument.as_ref().hash(&mut hasher));
        Self { file: directory.join(format!("{:016x}", hasher.finish())) }
    }

    /// Whether that child, or what it has started, is still there. A note that is not true any more is removed.
    pub(super) fn holds(&self) -> bool {
        let Some(child) = self.read() else { return false };
        if child.is_there() {
            return true;
        }
        let _ = fs::remove_file(&self.file);
        false
    }

    /// Notes that a child is left behind. A note that cannot be written costs a process at worst.
    pub(super) fn write(&self, child: Child) {
        if let Err(error) = whole::write(&self.file, format!("{} {}\n", child.pid, child.start).as_bytes()) {
            crate::log::debug(|| format!("{} cannot be written: {error}", self.file.display()));
        }
    }

    /// The child, of a note that only this user can have written.
    fn read(&self) -> Option<Child> {
        let about = fs::metadata(&self.file).ok()?;
        if about.uid() != nix::unistd::geteuid().as_raw() || about.mode() & 0o022 != 0 {
            return None;
        }
        let text = fs::read_to_string(&self.file).ok()?;
        let (pid, start) = text.trim_end().split_once(' ')?;
        Some(Child { pid: pid.parse().ok().filter(|pid| *pid > 0)?, start: start.parse().ok()? })
    }
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn a_note_holds_as_long_as_the_child_or_its_child_is_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("left");
        let note = Note::within(&directory, &["read", "/a"]);
        assert!(!note.holds());
        // The leader ends at once when it is killed; what it started stays.
        let script = ["-c", "sleep 3600 >/dev/null & echo; wait"];
        let mut child = Command::new("/bin/sh").args(script).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        // Its word that there is a child.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        note.write(Child::of(child.id()).unwrap());
        assert!(note.holds());
        assert!(!Note::within(&directory, &["read", "/b"]).holds());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(note.holds());
        killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), nix::sys::signal::Signal::SIGKILL).unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        while note.holds() && deadline.pause(Duration::from_millis(10)) {}
        assert!(!note.holds() && !note.file.exists());
    }

    #[test]
    fn a_number_of_another_process_and_nonsense_hold_nothing() {
        let root = tempfile::tempdir().unwrap();
        let note = Note::within(root.path(), &["read"]);
        for text in [&format!("{} 1", std::process::id()), "", "-1 2", "0 0", "x y"] {
            fs::write(&note.file, text).unwrap();
            assert!(!note.holds(), "{text}");
        }
    }
}
