//! What an emulator is told without libvirt: to end, to stand still, to go on.

use super::Emulator;
use crate::deadline::Deadline;
use crate::domain::{Error, Kind};
#[cfg(test)]
use crate::simulation;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
#[cfg(test)]
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long an emulator gets to end itself after SIGTERM: libvirt's own time (`virProcessKillPainfully`: 10 s).
const POLITE: Duration = Duration::from_secs(10);

impl Emulator {
    /// Ends it without libvirt: SIGTERM, on which QEMU exits by itself, then SIGKILL; and sees it gone.
    ///
    /// # Errors
    /// `Lives` at the deadline; `Internal` if it may not be signalled.
    pub fn end(&self, name: &str, deadline: &Deadline) -> Result<(), Error> {
        let Some(handle) = self.handle(name)? else { return self.wait_gone(name, deadline) };
        if self.is_gone() {
            return Ok(());
        }
        let polite = deadline.share(POLITE, 2);
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

    pub(super) fn signal(&self, signal: Signal, name: &str) -> Result<(), Error> {
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
