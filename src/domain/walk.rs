//! A walk through the process table that one process whose memory is locked does not hold up.
//!
//! A command line is read from the memory of the process that it belongs to, under that memory's lock (`access_remote_vm`). A page fault
//! that waits for storage can hold that for as long as the storage hangs; `ps` hangs with it. Waiting for it can be killed
//! (`mmap_read_lock_killable`), so it keeps no process from exiting.

use super::process::{self, Process};
use crate::deadline::{Deadline, Task};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one process is waited for before it is judged by what is known of it without its memory; up to twice as long may pass.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `work` makes of the processes of this host, one after the other. One whose command line does not come is passed over if nothing
/// says that it could be an emulator, or if `no_matter` says of its folder in `/proc` that `work` would make nothing of it.
///
/// # Errors
/// `TimedOut`: they could not all be looked at in time, so nothing is known. Others: the table cannot be read.
pub(super) fn each<T, F>(deadline: &Deadline, no_matter: impl Fn(&Path) -> bool, work: F) -> io::Result<Vec<T>>
where
    T: Send + 'static,
    F: Fn(i32, &Process) -> Option<T> + Send + Sync + 'static,
{
    each_of(process::table()?, PATIENCE, deadline, no_matter, work)
}

/// A walk that is under way.
struct Walk<T> {
    entries: fs::ReadDir,
    /// The process that it is at; none before its beginning and after its end.
    at: Option<i32>,
    /// How many processes it has come to.
    steps: usize,
    /// Who goes on with it. Another one does when this one is stuck.
    walker: usize,
    found: Vec<T>,
}

fn each_of<T, F>(place: &Path, patience: Duration, deadline: &Deadline, no_matter: impl Fn(&Path) -> bool, work: F) -> io::Result<Vec<T>>
where
    T: Send + 'static,
    F: Fn(i32, &Process) -> Option<T> + Send + Sync + 'static,
{
    let walk = Walk { entries: fs::read_dir(place)?, at: None, steps: 0, walker: 0, found: Vec::new() };
    let (walk, work) = (Arc::new(Mutex::new(walk)), Arc::new(work));
    let start = |walker| {
        let (walk, work) = (walk.clone(), work.clone());
        Task::start(move || go_on(&walk, walker, &*work))
    };
    let mut task = start(0);
    let mut steps = 0;
    let mut why = "the process table could not be read in time".to_owned();
    loop {
        // With little time there is a judgement, too.
        let limit = deadline.share(patience, 4);
        if let Some(result) = task.wait(&limit) {
            result?;
            return Ok(std::mem::take(&mut locked(&walk).found));
        }
        if !limit.expired() {
            return Err(io::Error::other("no thread could be started to look at it"));
        }
        if deadline.expired() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let mut walk = locked(&walk);
        let Some(pid) = walk.at.filter(|_| walk.steps == steps) else {
            steps = walk.steps;
            continue;
        };
        let directory = place.join(pid.to_string());
        if process::may_be_emulator(&directory) && !no_matter(&directory) {
            why = format!("process {pid} does not show its command line, and may be an emulator");
            continue;
        }
        walk.walker += 1;
        task = start(walk.walker);
    }
}

/// Walks on to the end, or until another walker has taken over.
fn go_on<T>(walk: &Mutex<Walk<T>>, walker: usize, work: impl Fn(i32, &Process) -> Option<T>) -> io::Result<()> {
    let mut found = None;
    loop {
        let (pid, directory) = {
            let mut walk = locked(walk);
            // Also what comes late, of a process that was passed over.
            walk.found.extend(found.take());
            if walk.walker != walker {
                return Ok(());
            }
            walk.at = None;
            let Some(entry) = walk.entries.next() else { return Ok(()) };
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            walk.at = Some(pid);
            walk.steps += 1;
            (pid, entry.path())
        };
        found = Process::read(directory)?.and_then(|process| work(pid, &process));
    }
}

/// Nobody panics with the lock.
fn locked<T>(walk: &Mutex<Walk<T>>) -> MutexGuard<'_, Walk<T>> {
    walk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const GROUPS: &str = "0::/system.slice/backup.service\n";

    /// A process table with two emulators, and one process between them whose command line does not come.
    fn table(comm: &str, program: Option<&str>, groups: &str, file: &str) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for pid in ["11", "12", "13"] {
            fs::create_dir_all(place.path().join(pid).join("fd")).unwrap();
        }
        for pid in ["11", "13"] {
            fs::write(place.path().join(pid).join("cmdline"), "qemu\0-name\0guest=web1\0-uuid\0c7a5fdbd\0").unwrap();
        }
        fs::write(place.path().join("version"), "no process").unwrap();
        let stuck = place.path().join("12");
        nix::unistd::mkfifo(&stuck.join("cmdline"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::write(stuck.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(stuck.join("cgroup"), groups).unwrap();
        symlink(file, stuck.join("fd/3")).unwrap();
        if let Some(program) = program {
            symlink(program, stuck.join("exe")).unwrap();
        }
        place
    }

    fn emulators(place: &Path, time: Duration) -> io::Result<Vec<i32>> {
        emulators_but(place, |_| false, Duration::from_millis(100), time)
    }

    fn emulators_but(place: &Path, no_matter: impl Fn(&Path) -> bool, patience: Duration, time: Duration) -> io::Result<Vec<i32>> {
        let work = |pid, process: &Process| process.is_emulator().then_some(pid);
        let mut found = each_of(place, patience, &Deadline::after(time), no_matter, work)?;
        found.sort_unstable();
        Ok(found)
    }

    #[test]
    fn one_that_does_not_answer_is_passed_over() {
        let place = table("sleep", Some("/usr/bin/sleep"), GROUPS, "/dev/null");
        assert_eq!(emulators(place.path(), Duration::from_secs(60)).unwrap(), [11, 13]);
    }

    #[test]
    fn one_that_may_be_an_emulator_is_waited_for() {
        for place in [
            table("qemu-system-x86", Some("/usr/bin/sleep"), GROUPS, "/dev/null"),
            table("sleep", Some("/usr/libexec/qemu-kvm (deleted)"), GROUPS, "/dev/null"),
            table("sleep", None, GROUPS, "/dev/null"),
            table("vmm", Some("/opt/vmm"), "0::/machine.slice/machine-qemu\\x2d3\\x2dweb1.scope\n", "/dev/null"),
            table("vmm", Some("/opt/vmm"), GROUPS, "/run/libvirt/qemu/web1.pid"),
            table("vmm", Some("/opt/vmm"), GROUPS, "anon_inode:kvm-vm"),
        ] {
            let error = emulators(place.path(), Duration::from_millis(500)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(error.to_string(), "process 12 does not show its command line, and may be an emulator");
        }
    }

    #[test]
    fn one_that_does_not_matter_is_passed_over() {
        let place = table("qemu-system-x86", Some("/usr/bin/qemu-system-x86_64"), GROUPS, "/run/libvirt/qemu/db.pid");
        let look = |number: &'static str, patience, time| {
            let no_matter = move |directory: &Path| directory.ends_with(number);
            emulators_but(place.path(), no_matter, Duration::from_millis(patience), Duration::from_millis(time))
        };
        assert_eq!(look("12", 100, 60_000).unwrap(), [11, 13]);
        // In as little time as a look has while libvirt hangs: not twice its patience.
        assert_eq!(look("12", 1000, 1500).unwrap(), [11, 13]);
        assert_eq!(look("11", 100, 500).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn one_that_answers_late_is_seen() {
        let place = table("qemu-system-x86", Some("/usr/bin/qemu-system-x86_64"), GROUPS, "/dev/null");
        let file = place.path().join("12/cmdline");
        let late = std::thread::spawn(move || {
            assert!(Deadline::after(Duration::from_secs(60)).pause(Duration::from_millis(500)));
            fs::write(file, "qemu\0-name\0guest=db\0-uuid\0c7a5fdbe\0")
        });
        assert_eq!(emulators(place.path(), Duration::from_secs(60)).unwrap(), [11, 12, 13]);
        late.join().unwrap().unwrap();
    }
}
