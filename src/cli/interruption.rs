//! Signals that end a command where nothing is half done.

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs;

/// Whether a person has asked for an end, or the terminal is gone: it comes between two steps, not in the middle of one.
pub(super) struct Interruption(SignalFd);

impl Interruption {
    /// Watches from now on; before there is a second thread, so that none ends the program.
    ///
    /// # Errors
    /// The system does not let it.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let signals = endings()?;
        signals.thread_block().context("signals cannot be held back")?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signals cannot be watched")?))
    }

    /// Whether one has come since the last look.
    pub(super) fn came(&self) -> bool {
        self.0.read_signal().is_ok_and(|signal| signal.is_some())
    }
}

/// The signals that end a command: not those that whoever started it had ignored, as nohup does. The kernel gives also these to one who waits for
/// them.
///
/// # Errors
/// The system does not say which are ignored.
pub(super) fn endings() -> anyhow::Result<SigSet> {
    Ok(not_ignored(&fs::read_to_string("/proc/self/status").context("/proc/self/status")?))
}

fn not_ignored(status: &str) -> SigSet {
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok()).unwrap_or(0);
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter();
    all.filter(|signal| ignored >> (*signal as i32 - 1) & 1 == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_ignored_before_does_not_end_it() {
        let ends = |status, signal| not_ignored(status).contains(signal);
        assert!(ends("SigIgn:\t0000000000000000\n", Signal::SIGHUP));
        assert!(!ends("SigBlk:\t0000000000000001\nSigIgn:\t0000000000000001\n", Signal::SIGHUP));
        assert!(ends("SigIgn:\t0000000000000001\n", Signal::SIGTERM) && ends("", Signal::SIGINT));
        assert!(!ends("SigIgn:\t0000000000000002\n", Signal::SIGINT));
    }
}
