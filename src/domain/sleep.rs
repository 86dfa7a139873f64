//! A guest that sleeps by its own power management (S3): its memory is kept, its CPUs stand still.
//!
//! It hears no request to shut down. Nor can it be moved as it is: QEMU before 9.0 wakes it in the middle of that, with its devices half
//! asleep, and a later one moves it asleep, which libvirt at the target takes for running (`qemuProcessStartCPUs`). A wake-up is what such
//! a guest expects at any time.

use super::{Error, Guest, Kind, Result, State};
use crate::deadline::Deadline;
use std::time::Duration;

/// How long it may take: QEMU does it at once.
const WAKING: Duration = Duration::from_secs(5);

/// Between two looks whether it is awake.
const POLL: Duration = Duration::from_millis(50);

/// Wakes a guest, and sees it run.
///
/// # Errors
/// libvirt's, `State` if it is neither asleep nor running, `TimedOut` if it is still asleep.
pub(super) fn wake(guest: &Guest, deadline: &Deadline) -> Result<()> {
    let deadline = deadline.within(WAKING);
    let mut asked = guest.call("waking", &deadline, |domain| Ok(domain.pm_wakeup(0)?));
    loop {
        let condition = guest.condition(&deadline)?;
        if condition.runs() {
            return Ok(());
        }
        std::mem::replace(&mut asked, Ok(()))?;
        if condition.state != State::Suspended {
            return Err(Error::new(Kind::State, format!("{} is {condition}", guest.name)));
        }
        if !deadline.pause(POLL) {
            return Err(Error::new(Kind::TimedOut, format!("{} was woken and is still {condition}", guest.name)));
        }
    }
}
