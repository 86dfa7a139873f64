//! The process of a guest: whether it is there, and how it is.
//!
//! The leader of one that hangs in the kernel at its end is a zombie with an empty command line; its threads are not.

mod remains;
mod signals;

use super::process::{self, Status};
use super::{Error, Kind};
use crate::deadline::Deadline;
#[cfg(test)]
use crate::simulation;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

/// A process that runs a guest. The start time tells it from a later process with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Whether it stands still as a whole, as [`Emulator::hold`] leaves it. False if it cannot be told.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.threads().is_ok_and(|threads| !threads.is_empty() && threads.iter().all(|thread| thread.state == 'T'))
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

    /// Whether nothing speaks for its end: it has its memory, and no thread of it has been sent a SIGTERM or SIGKILL that it has not taken up
    /// yet (a thread that hangs in the kernel does not take them up). False if it cannot be told.
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
}

/// Whether a guest is held: all its emulators are, and there is one.
#[must_use]
pub fn are_held(emulators: &[Emulator]) -> bool {
    !emulators.is_empty() && emulators.iter().all(Emulator::is_held)
}

/// Whether SIGTERM or SIGKILL waits for a thread or its process, by `/proc/PID/task/TID/status`: bit 0 of each mask is signal 1.
fn is_told_to_end(status: &str) -> bool {
    let masks = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    let ends = 1_u64 << (Signal::TERM.as_raw() - 1) | 1_u64 << (Signal::KILL.as_raw() - 1);
    masks.map(|mask| u64::from_str_radix(mask.trim(), 16)).any(|mask| mask.is_ok_and(|mask| mask & ends != 0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::definition::Identity;
    use super::super::evidence::find;
    use super::*;
    use std::process::{Child, Command, Stdio};

    const UUID: &str = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";

    /// A process with an emulator's command line; the shell keeps what follows its script as its own arguments.
    pub(in crate::domain) fn impostor(name: &str, script: &str) -> Child {
        impostor_with(name, script, &[])
    }

    /// Like [`impostor`], with more on its command line.
    pub(in crate::domain) fn impostor_with(name: &str, script: &str, more: &[&str]) -> Child {
        Command::new("/bin/sh")
            .args(["-c", script, "qemu", "-name", &format!("guest={name}"), "-uuid", UUID])
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(in crate::domain) fn reap(mut child: Child) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let _ = child.wait();
        })
    }

    #[test]
    fn one_that_is_told_to_end_is_not_well() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let name = format!("well-{}", std::process::id());
        let child = impostor(&name, "while :; do sleep 0.1; done");
        let wanted = Identity { name: name.clone(), uuid: None };
        let found = loop {
            match find(&wanted, None, &deadline).unwrap().as_slice() {
                [one] => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        assert!(found.is_well());
        assert!(!Emulator { start: found.start + 1, ..found }.is_well(), "another process");
        // Stopped, it does not take up what it is sent.
        assert!(!found.is_held());
        found.hold(&name).unwrap();
        while !found.is_held() {
            assert!(deadline.pause(Duration::from_millis(10)));
        }
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
