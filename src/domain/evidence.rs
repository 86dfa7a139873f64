//! The emulator's process as a witness: a guest lives as long as any thread of its emulator does, whatever libvirt says.
//!
//! libvirt 9.0 reports a destroy as done after two attempts of 40 s at an emulator that hangs in the kernel, and forgets the
//! domain; the write that hung lands later, on the disk of the guest's successor. So nothing here believes in an end that
//! `/proc` does not show. The leader of such a process is a zombie with an empty command line; its threads are not.

use super::definition::Identity;
use super::process::{self, Process, Status};
use super::{Error, Kind, walk};
use crate::deadline::Deadline;
#[cfg(test)]
use crate::simulation;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// How long an emulator gets to end itself after SIGTERM: libvirt's own time (`virProcessKillPainfully`: 10 s).
const POLITE: Duration = Duration::from_secs(10);

/// A process that runs a guest. The start time tells it from a later process with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// The process.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

/// A thread of an emulator that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thread {
    id: i32,
    state: char,
}

impl fmt::Display for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "emulator {}", self.pid)
    }
}

/// The emulators of a guest on this host, dying ones included, and `known`, one that was seen before, if it is not gone.
///
/// # Errors
/// `Unresponsive` or `Internal`: the process table cannot be read, so nothing is known.
pub fn find(identity: &Identity, known: Option<Emulator>, deadline: &Deadline) -> Result<Vec<Emulator>, Error> {
    #[cfg(test)]
    if simulation::is_on() {
        return Ok(simulation::world(|world| world.emulators()));
    }
    let wanted = identity.clone();
    let found = scan(deadline, move |process| process.runs(&wanted));
    let mut found = found.map_err(|error| error.context(format_args!("looking for {}", identity.name)))?;
    found.extend(known.filter(|known| !found.contains(known) && !known.is_gone()));
    Ok(found)
}

/// Whether an emulator runs on this host that belongs to none of `claimed`.
///
/// # Errors
/// As of [`find`].
pub fn any_but(claimed: &[Identity], deadline: &Deadline) -> Result<bool, Error> {
    let claimed = claimed.to_vec();
    let others = scan(deadline, move |process| process.is_emulator() && !claimed.iter().any(|identity| process.runs(identity)))?;
    Ok(!others.is_empty())
}

/// When the process that has called this one started, in clock ticks since boot: `pacemaker-execd` when Pacemaker calls an agent.
#[must_use]
pub fn start_of_caller() -> Option<u64> {
    Some(Status::read(&process::directory(rustix::process::getppid()?.as_raw_nonzero().get()))?.start)
}

/// The processes that `wanted` picks.
fn scan<F>(deadline: &Deadline, wanted: F) -> Result<Vec<Emulator>, Error>
where
    F: Fn(&Process) -> bool + Send + Sync + 'static,
{
    let found = walk::each(deadline, move |pid, process| {
        let start = || Some(Status::read(&process.directory)?.start);
        wanted(process).then(start).flatten().map(|start| Emulator { pid, start })
    });
    found.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Error::new(Kind::Unresponsive, error.to_string()),
        _ => Error::new(Kind::Internal, format!("the process table cannot be read: {error}")),
    })
}

impl Emulator {
    /// What is left of it; nothing once the process and every thread of it are gone from `/proc`.
    fn threads(&self) -> io::Result<Vec<Thread>> {
        #[cfg(test)]
        if simulation::is_on() {
            let lives = simulation::world(|world| world.emulators().contains(self));
            return Ok(lives.then_some(Thread { id: self.pid, state: 'S' }).into_iter().collect());
        }
        let directory = process::directory(self.pid);
        match fs::read_to_string(directory.join("stat")) {
            Ok(text) if Status::parse(&text).is_some_and(|status| status.start != self.start) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) if process::is_gone(&error) => return process::table().map(|_| Vec::new()),
            Err(error) => return Err(error),
        }
        let mut threads = Vec::new();
        let entries = match fs::read_dir(directory.join("task")) {
            Ok(entries) => entries,
            Err(error) if process::is_gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(status) = Status::read(&entry.path()) {
                threads.push(Thread { id, state: status.state });
            }
        }
        // A leader that still has an entry but no threads left to list is about to go; it is not gone.
        if threads.is_empty() && directory.exists() {
            threads.push(Thread { id: self.pid, state: 'X' });
        }
        Ok(threads)
    }

    /// Whether the process and every thread of it are gone. A process table that cannot be read is no proof.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.threads().is_ok_and(|threads| threads.is_empty())
    }

    /// Whether a thread of it waits in the kernel where no signal reaches it, as one does whose storage hangs. False if it cannot be told.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.threads().is_ok_and(|threads| threads.iter().any(|thread| thread.state == 'D'))
    }

    /// When it was started, in seconds since 1970; `None` if the kernel does not say.
    #[must_use]
    pub fn since(&self) -> Option<u64> {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let ticks = u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
        let text = fs::read_to_string("/proc/stat").ok()?;
        let boot: u64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + self.start / ticks)
    }

    /// Whether it has ended but for what keeps it in the process table: its leader is a zombie, or it is gone.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        #[cfg(test)]
        if simulation::is_on() {
            return self.is_gone();
        }
        Status::read(&process::directory(self.pid)).is_none_or(|status| status.start != self.start || matches!(status.state, 'Z' | 'X'))
    }

    /// Whether nothing speaks for its end: it has its memory, and no thread of it has been sent SIGTERM or SIGKILL that it has not taken up
    /// yet, as one does not that hangs in the kernel. False if it cannot be told.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let Ok(threads) = self.threads() else { return false };
        let told = |thread: &Thread| match fs::read_to_string(process::directory(self.pid).join(format!("task/{}/status", thread.id))) {
            Ok(text) => is_told_to_end(&text),
            // It has ended by itself since.
            Err(error) => !process::is_gone(&error),
        };
        !threads.is_empty() && !self.is_dying() && process::shown(self.pid).is_some() && !threads.iter().any(told)
    }

    /// Waits until it is gone.
    ///
    /// # Errors
    /// `Lives` at the deadline, with what is left of it.
    pub fn wait_gone(&self, name: &str, deadline: &Deadline) -> Result<(), Error> {
        loop {
            if self.is_gone() {
                return Ok(());
            }
            if !deadline.pause(Duration::from_millis(20)) {
                return if self.is_gone() { Ok(()) } else { Err(Error::new(Kind::Lives, self.remains(name))) };
            }
        }
    }

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
        let is_disk = |path: &Path| match path.starts_with("/dev") {
            true => fs::metadata(path).is_ok_and(|about| about.file_type().is_block_device()),
            false => path.is_absolute() && process::is_disk(path),
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

    /// Ends it without libvirt: SIGTERM, on which QEMU exits by itself, then SIGKILL; and sees it gone.
    ///
    /// # Errors
    /// `Lives` at the deadline; `Internal` if it may not be signalled.
    pub fn end(&self, name: &str, deadline: &Deadline) -> Result<(), Error> {
        let Some(handle) = self.handle(name)? else { return self.wait_gone(name, deadline) };
        if self.is_gone() {
            return Ok(());
        }
        let polite = deadline.within(POLITE.min(deadline.left() / 2));
        for (signal, time) in [(Signal::TERM, &polite), (Signal::KILL, deadline)] {
            self.send(&handle, signal, name)?;
            if self.wait_gone(name, time).is_ok() {
                return Ok(());
            }
        }
        Err(Error::new(Kind::Lives, self.remains(name)))
    }

    /// Stops it as a whole, virtual CPUs and all: whoever tells it to let the guest run is heard only when it is released.
    ///
    /// # Errors
    /// `Internal` if it may not be signalled.
    pub fn hold(&self, name: &str) -> Result<(), Error> {
        self.signal(Signal::STOP, name)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// `Internal` if it may not be signalled.
    pub fn release(&self, name: &str) -> Result<(), Error> {
        self.signal(Signal::CONT, name)
    }

    fn signal(&self, signal: Signal, name: &str) -> Result<(), Error> {
        match self.handle(name)? {
            Some(handle) if !self.is_gone() => self.send(&handle, signal, name),
            _ => Ok(()),
        }
    }

    /// A handle that is this process and no other; only when there is one does the start time prove anything. `None`: it is gone.
    fn handle(&self, name: &str) -> Result<Option<OwnedFd>, Error> {
        #[cfg(test)]
        if simulation::is_on() {
            return Ok(fs::File::open("/dev/null").ok().filter(|_| !self.is_gone()).map(Into::into));
        }
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(self.refused(name, error)),
        }
    }

    fn send(&self, handle: &OwnedFd, signal: Signal, name: &str) -> Result<(), Error> {
        #[cfg(test)]
        if simulation::is_on() {
            simulation::world(|world| world.signal(self, signal));
            return Ok(());
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(self.refused(name, error)),
        }
    }

    fn refused(&self, name: &str, error: rustix::io::Errno) -> Error {
        Error::new(Kind::Internal, format!("{self} of {name} cannot be signalled: {error}"))
    }
}

/// Whether SIGTERM or SIGKILL waits for a thread or its process, by `/proc/PID/task/TID/status`: bit 0 of each mask is signal 1.
fn is_told_to_end(status: &str) -> bool {
    let masks = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    let ends = 1_u64 << (Signal::TERM.as_raw() - 1) | 1_u64 << (Signal::KILL.as_raw() - 1);
    masks.map(|mask| u64::from_str_radix(mask.trim(), 16)).any(|mask| mask.is_ok_and(|mask| mask & ends != 0))
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    const UUID: &str = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";

    fn identity(name: &str, uuid: Option<&str>) -> Identity {
        Identity { name: name.into(), uuid: uuid.map(Into::into) }
    }

    /// A process with an emulator's command line; the shell keeps what follows its script as its own arguments.
    fn impostor(name: &str, script: &str) -> Child {
        Command::new("/bin/sh")
            .args(["-c", script, "qemu", "-name", &format!("guest={name}"), "-uuid", UUID])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn reap(mut child: Child) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let _ = child.wait();
        })
    }

    #[test]
    fn found_ended_and_proven_gone() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let name = format!("evidence-{}", std::process::id());
        let child = impostor(&name, "while :; do sleep 0.1; done");
        let found = loop {
            // The shell's own command line is there only after its exec.
            match find(&identity(&name, None), None, &deadline).unwrap().as_slice() {
                [one] => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        assert!(!found.is_gone());
        let now = crate::deadline::unix_time();
        // A second each for what both clocks leave out, and the time this test may have stood still.
        assert!(found.since().is_some_and(|since| since <= now + 2 && now < since + 600), "{:?} at {now}", found.since());
        let reaper = reap(child);
        found.end(&name, &deadline).unwrap();
        reaper.join().unwrap();
        assert!(found.is_gone());
        assert_eq!(find(&identity(&name, None), None, &deadline).unwrap(), vec![]);
        // Ending what is gone is no error, nor is a number that now belongs to another process.
        found.end(&name, &deadline).unwrap();
        let other = Emulator { pid: i32::try_from(std::process::id()).unwrap(), start: 1 };
        other.end(&name, &deadline).unwrap();
        assert!(other.is_gone());
    }

    #[test]
    fn what_a_process_has_open_to_write() {
        let own = Emulator { pid: i32::try_from(std::process::id()).unwrap(), start: 0 };
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = own.has_open(&Thread { id: own.pid, state: 'D' }).unwrap();
        assert!(open.contains(&file.path().display().to_string()), "{open}");
    }

    #[test]
    fn one_that_is_told_to_end_is_not_well() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let name = format!("well-{}", std::process::id());
        let child = impostor(&name, "while :; do sleep 0.1; done");
        let found = loop {
            match find(&identity(&name, None), None, &deadline).unwrap().as_slice() {
                [one] => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        assert!(found.is_well());
        assert!(!Emulator { start: found.start + 1, ..found }.is_well(), "another process");
        // Stopped, it does not take up what it is sent.
        found.hold(&name).unwrap();
        assert!(found.is_well());
        found.signal(Signal::TERM, &name).unwrap();
        assert!(!found.is_well());
        let reaper = reap(child);
        found.signal(Signal::KILL, &name).unwrap();
        reaper.join().unwrap();
        assert!(!found.is_well());
        assert!(is_told_to_end("Name:\tqemu\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
        assert!(!is_told_to_end("SigPnd:\t0000000000000000\nShdPnd:\t0000000000002000\nSigBlk:\tffffffffffffffff\n"));
    }

    #[test]
    fn a_zombie_is_not_gone() {
        let child = impostor("zombie", "exit 0");
        let pid = i32::try_from(child.id()).unwrap();
        let emulator = Emulator { pid, start: Status::read(&process::directory(pid)).unwrap().start };
        let deadline = Deadline::after(Duration::from_millis(300));
        let error = emulator.wait_gone("zombie", &deadline).unwrap_err();
        assert_eq!(error.kind, Kind::Lives);
        assert_eq!(error.text, format!("emulator {pid} of zombie still has 1 thread"));
        reap(child).join().unwrap();
        assert!(emulator.is_gone());
    }
}
