//! A program that must not leave a lab behind does its work in a child of itself: whatever becomes of the child, a panic, a signal, Ctrl-C,
//! the parent is still there and takes the lab down.
//!
//! Not by a signal handler or a blocked signal in the working process: what it starts would inherit the mask, and the daemons of a node
//! would then not hear SIGTERM.

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// The parent's pid stands in it: so it means the child alone, and none of the programs which that one starts.
const VARIABLE: &str = "KVMHA_LAB_SUPERVISOR";

/// Splits this program into parent and child. Returns `None` in the child, which does the work; in the parent it returns the exit code when
/// the child has ended and `clean` was done. Call it first of all: only the arguments are handed on.
pub fn supervised(clean: impl FnOnce() -> Result<()>) -> Result<Option<u8>> {
    if std::env::var(VARIABLE).is_ok_and(|pid| pid == getppid().to_string()) {
        // A parent that is killed with SIGKILL cannot clean; then at least nothing goes on in the lab.
        set_pdeathsig(Signal::SIGKILL).context("failed to bind this process to its parent")?;
        return Ok(None);
    }
    let program = std::env::current_exe()?;
    let mut child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, Pid::this().to_string())
        .spawn()
        .with_context(|| format!("failed to run {}", program.display()))?;
    let ended = wait(&mut child);
    let cleaned = clean();
    let code = match ended? {
        End::Exited(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1),
        End::Signalled(signal) => 128 + signal,
    };
    cleaned?;
    Ok(Some(u8::try_from(code).unwrap_or(1)))
}

enum End {
    Exited(ExitStatus),
    Signalled(i32),
}

/// Waits for the child's end. A signal that asks this process to end ends the child first.
fn wait(child: &mut Child) -> Result<End> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    signals.thread_block()?;
    let asked = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exited(status));
        }
        if let Some(signal) = asked.read_signal()? {
            child.kill()?;
            child.wait()?;
            return Ok(End::Signalled(i32::try_from(signal.ssi_signo).unwrap_or(1)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
