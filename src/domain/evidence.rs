//! The emulator's process as a witness: a guest lives as long as any thread of its emulator does, whatever libvirt says.
//!
//! libvirt 9.0 reports a destroy as done after two attempts of 40 s at an emulator that hangs in the kernel, and forgets the
//! domain; the write that hung lands later, on the disk of the guest's successor. So nothing here believes in an end that
//! `/proc` does not show. The leader of such a process is a zombie with an empty command line; its threads are not.

use super::definition::Identity;
use super::{Error, Kind};
use crate::deadline::Deadline;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
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

/// The emulators of a guest on this host, dying ones included. Runs in a thread of its own: a command line is read under a lock
/// of the process it belongs to (killable, so it cannot keep this process from exiting).
///
/// # Errors
/// `Unresponsive` or `Internal`: the process table cannot be read, so nothing is known.
pub fn find(identity: &Identity, deadline: &Deadline) -> Result<Vec<Emulator>, Error> {
    let wanted = identity.clone();
    deadline
        .run(move || scan(Path::new("/proc"), &wanted))
        .ok_or_else(|| {
            Error::new(Kind::Unresponsive, format!("the process table could not be read in time to look for {}", identity.name))
        })?
        .map_err(|error| Error::new(Kind::Internal, format!("the process table cannot be read to look for {}: {error}", identity.name)))
}

fn scan(proc: &Path, identity: &Identity) -> io::Result<Vec<Emulator>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let directory = entry.path();
        match command_line(&directory) {
            Ok(line) if runs(&line, identity) => {}
            Ok(_) => continue,
            // It ended while we looked.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) || error.raw_os_error() == Some(nix::libc::ESRCH) => continue,
            Err(error) => return Err(error),
        }
        if let Some(status) = Status::read(&directory) {
            found.push(Emulator { pid, start: status.start });
        }
    }
    Ok(found)
}

/// The command line of a process, or, when its leader has ended, of a thread that has not.
fn command_line(process: &Path) -> io::Result<Vec<u8>> {
    let line = fs::read(process.join("cmdline"))?;
    if !line.is_empty() || Status::read(process).is_none_or(|status| status.state != 'Z') {
        return Ok(line);
    }
    for thread in fs::read_dir(process.join("task"))? {
        let line = fs::read(thread?.path().join("cmdline")).unwrap_or_default();
        if !line.is_empty() {
            return Ok(line);
        }
    }
    Ok(Vec::new())
}

/// Whether a command line is that of an emulator, started by libvirt, of this guest.
///
/// libvirt always gives `-name guest=NAME,...` and `-uuid UUID` (`qemuBuildNameCommandLine`, `qemuBuildCommandLine`). The same
/// UUID is the same guest. The same name alone is not if the process belongs to another libvirt (a user's), which the path of its
/// master key shows.
fn runs(line: &[u8], identity: &Identity) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let after = |option: &[u8]| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied();
    let (Some(name), Some(uuid)) = (after(b"-name"), after(b"-uuid")) else { return false };
    let uuid = String::from_utf8_lossy(uuid).to_ascii_lowercase();
    if identity.uuid.as_deref() == Some(uuid.as_str()) {
        return true;
    }
    if guest_name(name) != identity.name.as_bytes() {
        return false;
    }
    let key = words.iter().find(|word| contains(word, b"/master-key.aes"));
    key.is_none_or(|key| contains(key, b"/var/lib/libvirt/qemu/") || !contains(key, b"/.config/libvirt/"))
}

/// The name in the value of QEMU's `-name`: `guest=NAME,debug-threads=on`, or the bare name; a comma is written twice.
fn guest_name(value: &[u8]) -> Vec<u8> {
    let value = value.strip_prefix(b"guest=").unwrap_or(value);
    let mut name = Vec::new();
    let mut bytes = value.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte == b',' && bytes.next_if_eq(&&b',').is_none() {
            break;
        }
        name.push(*byte);
    }
    name
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The fields of `/proc/PID/stat` that matter here.
struct Status {
    state: char,
    start: u64,
}

impl Status {
    fn read(process: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(process.join("stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The program's name stands in parentheses and may hold anything.
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let start = fields.nth(18)?.parse().ok()?;
        Some(Self { state, start })
    }
}

impl Emulator {
    /// The process with this number, as it is now; `None` if there is none.
    #[must_use]
    pub fn with_pid(pid: i32) -> Option<Self> {
        Status::read(&directory(pid)).map(|status| Self { pid, start: status.start })
    }

    /// What is left of it; nothing once the process and every thread of it are gone from `/proc`.
    fn threads(&self) -> io::Result<Vec<Thread>> {
        let directory = directory(self.pid);
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH);
        match fs::read_to_string(directory.join("stat")) {
            Ok(text) if Status::parse(&text).is_some_and(|status| status.start != self.start) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) if gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut threads = Vec::new();
        let entries = match fs::read_dir(directory.join("task")) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => return Ok(Vec::new()),
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

    /// Whether it has ended but for what keeps it in the process table: its leader is a zombie, or it is gone.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        Status::read(&directory(self.pid)).is_none_or(|status| status.start != self.start || matches!(status.state, 'Z' | 'X'))
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
    fn remains(&self, name: &str) -> String {
        let threads = match self.threads() {
            Ok(threads) => threads,
            Err(error) => return format!("{self} of {name}: its threads cannot be read: {error}"),
        };
        let stuck: Vec<&Thread> = threads.iter().filter(|thread| thread.state == 'D').collect();
        if stuck.is_empty() {
            return format!("{self} of {name} still has {}", count(threads.len(), "thread"));
        }
        let place = stuck.iter().find_map(|thread| self.waits_on(thread)).map(|place| format!(" on {place}")).unwrap_or_default();
        format!("{self} of {name}: {} in uninterruptible sleep{place}, its storage may still take a write", count(stuck.len(), "thread"))
    }

    /// The file whose access a thread is stuck in: the first argument of its system call (`/proc/PID/task/TID/syscall`) is a
    /// file descriptor in all calls that QEMU's worker threads make on a disk.
    fn waits_on(&self, thread: &Thread) -> Option<String> {
        let directory = directory(self.pid).join(format!("task/{}", thread.id));
        let call = fs::read_to_string(directory.join("syscall")).ok()?;
        let descriptor = u32::from_str_radix(call.split_whitespace().nth(1)?.strip_prefix("0x")?, 16).ok()?;
        let file = fs::read_link(directory.join(format!("fd/{descriptor}"))).ok()?;
        file.is_absolute().then(|| file.display().to_string())
    }

    /// Ends it without libvirt: SIGTERM, on which QEMU exits by itself, then SIGKILL; and sees it gone.
    ///
    /// # Errors
    /// `Lives` at the deadline; `Internal` if it may not be signalled.
    pub fn end(&self, name: &str, deadline: &Deadline) -> Result<(), Error> {
        let failed = |error: rustix::io::Errno| Error::new(Kind::Internal, format!("{self} of {name} cannot be signalled: {error}"));
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return Ok(()) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return self.wait_gone(name, deadline),
            Err(error) => return Err(failed(error)),
        };
        // From here on the handle is this process and no other; only now does its start time prove anything.
        if self.is_gone() {
            return Ok(());
        }
        let polite = deadline.within(POLITE.min(deadline.left() / 2));
        for (signal, time) in [(Signal::TERM, &polite), (Signal::KILL, deadline)] {
            match pidfd_send_signal(&handle, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(failed(error)),
            }
            if self.wait_gone(name, time).is_ok() {
                return Ok(());
            }
        }
        Err(Error::new(Kind::Lives, self.remains(name)))
    }
}

fn directory(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
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

    fn line(words: &[&str]) -> Vec<u8> {
        words.join("\0").into_bytes()
    }

    #[test]
    fn an_emulator_is_known_by_name_and_uuid() {
        let web1 = line(&["/usr/bin/qemu-system-x86_64", "-name", "guest=web1,debug-threads=on", "-S", "-uuid", UUID, ""]);
        assert!(runs(&web1, &identity("web1", Some(UUID))));
        assert!(runs(&web1, &identity("web1", None)));
        assert!(runs(&web1, &identity("renamed", Some(UUID))));
        assert!(!runs(&web1, &identity("web", None)));
        assert!(!runs(&web1, &identity("web1-test", None)));
        assert!(!runs(&line(&["grep", "-name", "guest=web1"]), &identity("web1", None)));
        assert!(!runs(b"", &identity("web1", None)));
        let comma = line(&["qemu", "-name", "guest=a,,b,debug-threads=on", "-uuid", UUID]);
        assert!(runs(&comma, &identity("a,b", None)));
        assert!(!runs(&comma, &identity("a", None)));
    }

    #[test]
    fn a_users_guest_of_the_same_name_is_another() {
        let key = "{\"id\":\"masterKey0\",\"file\":\"/home/u/.config/libvirt/qemu/lib/domain-1-web1/master-key.aes\"}";
        let theirs = line(&["qemu", "-name", "guest=web1", "-object", key, "-uuid", "00000000-0000-0000-0000-000000000001"]);
        assert!(!runs(&theirs, &identity("web1", Some(UUID))));
        // The same UUID is the same guest, whoever runs it.
        assert!(runs(&theirs, &identity("web1", Some("00000000-0000-0000-0000-000000000001"))));
        let key = "{\"id\":\"masterKey0\",\"file\":\"/var/lib/libvirt/qemu/domain-1-web1/master-key.aes\"}";
        let ours = line(&["qemu", "-name", "guest=web1", "-object", key, "-uuid", "00000000-0000-0000-0000-000000000001"]);
        assert!(runs(&ours, &identity("web1", Some(UUID))));
    }

    #[test]
    fn stat_with_a_nasty_name() {
        let status = Status::parse("7 (a) R (b) Z 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0").unwrap();
        assert_eq!((status.state, status.start), ('Z', 4711));
        assert!(Status::parse("7 (a").is_none());
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
            match find(&identity(&name, None), &deadline).unwrap().as_slice() {
                [one] => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        assert!(!found.is_gone());
        let reaper = reap(child);
        found.end(&name, &deadline).unwrap();
        reaper.join().unwrap();
        assert!(found.is_gone());
        assert_eq!(find(&identity(&name, None), &deadline).unwrap(), vec![]);
        // Ending what is gone is no error, nor is a number that now belongs to another process.
        found.end(&name, &deadline).unwrap();
        let other = Emulator { pid: i32::try_from(std::process::id()).unwrap(), start: 1 };
        other.end(&name, &deadline).unwrap();
        assert!(other.is_gone());
    }

    #[test]
    fn a_zombie_is_not_gone() {
        let child = impostor("zombie", "exit 0");
        let pid = i32::try_from(child.id()).unwrap();
        let emulator = Emulator::with_pid(pid).unwrap();
        let deadline = Deadline::after(Duration::from_millis(300));
        let error = emulator.wait_gone("zombie", &deadline).unwrap_err();
        assert_eq!(error.kind, Kind::Lives);
        assert_eq!(error.text, format!("emulator {pid} of zombie still has 1 thread"));
        reap(child).join().unwrap();
        assert!(emulator.is_gone());
    }
}
