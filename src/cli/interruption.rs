//! Signals that end a command where nothing is half done.

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Whether a person has asked for an end, or the terminal is gone: it comes between two steps, not in the middle of one.
pub(super) struct Interruption(SignalFd);

impl Interruption {
    /// Watches from now on; before there is a second thread, so that none ends the program.
    ///
    /// # Errors
    /// The system does not let it.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let mut signals = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
        signals.thread_block().context("signals cannot be held back")?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signals cannot be watched")?))
    }

    /// Whether one has come since the last look.
    pub(super) fn came(&self) -> bool {
        self.0.read_signal().is_ok_and(|signal| signal.is_some())
    }
}
