//! The moment in which both hosts have a copy: the one here is stopped, the one there is let run, and this host's libvirt waits to hear of
//! it.
//!
//! If it does not hear of it, it takes the move for failed and lets the copy here go on, though the other one may run: its source says so
//! itself ("There is a small chance that the ddomain is NULL due to an RPC failure, in which case ddomain could in fact be running
//! on the dest", `qemuMigrationSrcPerformPeer2Peer3`) and leaves it to lock managers. Disks on iSCSI or RBD have none. So this watches:
//! a copy here that waits while the guest runs there is ended, and one that waits while nobody can say whether the guest runs there is
//! held, so that it cannot go on. That the guest is not there any more does not let it go on: it may have run there, so that the disks are newer
//! than the memory here, and what ended it may have been the end of its host.

use super::side::{Here, Side, There};
use crate::deadline::{self, Deadline};
use crate::domain::emulator::Emulator;
use crate::domain::{Condition, Error, Kind, Result, ending};
use crate::log;
use std::time::{Duration, Instant};

/// How long the copy here may wait before the other host is asked. A handover takes milliseconds, or as long as the greatest downtime.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// How long the copy here may wait, with no word from there, before it is held: less than libvirt takes to give up a connection
/// (`keepalive_interval` 5 s, `keepalive_count` 5, in `libvirtd.conf`).
const HOLD_AFTER: Duration = Duration::from_secs(12);

/// How long a copy here that is held is kept for a word from there: a little longer than libvirt waits (30 s). libvirt has no more to say then.
const KEEP: Duration = Duration::from_secs(32);

/// Watches the handover.
#[derive(Debug)]
pub(super) struct Handover {
    emulators: Vec<Emulator>,
    since: Option<Instant>,
    held: bool,
}

impl Handover {
    /// Of the guest that these emulators run here.
    pub(super) fn new(emulators: Vec<Emulator>) -> Self {
        Self { emulators, since: None, held: false }
    }

    /// Looks at both sides if the copy here waits. Says whether the guest runs there and the copy here was ended.
    ///
    /// # Errors
    /// The guest runs there, and the copy here could not be ended. Or the copy here is held, and nobody will say any more whether it runs there.
    pub(super) fn settled(&mut self, here: &Here, there: &mut There, deadline: &Deadline) -> Result<bool> {
        let stalls = match here.side(deadline) {
            Side::Waits(Condition::PAUSED_MIGRATION) => false,
            // A libvirt that stalls for a moment goes on counting the time to its giving up; so does this.
            Side::Unknown(_) if self.since.is_some() => true,
            side => {
                self.since = None;
                if matches!(side, Side::Runs | Side::Half(..)) {
                    self.release(&here.trace.identity.name);
                }
                return Ok(false);
            }
        };
        let waited = deadline::now() - *self.since.get_or_insert_with(deadline::now);
        if waited < ASK_AFTER {
            return Ok(false);
        }
        let (identity, name) = (&here.trace.identity, &here.trace.identity.name);
        match there.side(identity, deadline) {
            Side::Runs => {
                log::warning(format_args!("{name} runs on the target, ending its copy here: libvirt here was not told"));
                // What it does first when it is back may be to let the copy go on. (Not else: one that is held takes longer to end.)
                if stalls {
                    self.hold(name, "it runs on the target, and libvirt here does not answer");
                }
                ending::end_copy(identity, here.uri, deadline)?;
                return Ok(true);
            }
            Side::Unknown(_) | Side::Absent if self.held && waited >= KEEP => {
                return Err(Error::new(Kind::TimedOut, "nobody has said whether it runs there"));
            }
            Side::Unknown(text) if waited >= HOLD_AFTER => self.hold_unless_it_runs(here, &text, deadline),
            // A copy there that waits may be about to be let run: the request for it may be waiting its turn.
            Side::Unknown(_) | Side::Half(..) | Side::Waits(..) | Side::Absent => {}
        }
        Ok(false)
    }

    /// Keeps the copy here from going on; `text`: why the other host cannot be asked. libvirt may have let it go on while that was tried: then
    /// it knew what this does not.
    pub(super) fn hold_unless_it_runs(&mut self, here: &Here, text: &str, deadline: &Deadline) {
        let name = &here.trace.identity.name;
        self.hold(name, &format!("nobody can say whether it runs on the target: {text}"));
        if matches!(here.side(deadline), Side::Runs | Side::Half(..)) {
            self.release(name);
        }
    }

    /// Stops the copy here; `text`: why.
    pub(super) fn hold(&mut self, name: &str, text: &str) {
        if self.held {
            return;
        }
        log::warning(format_args!("the copy of {name} here is held: {text}"));
        self.held = true;
        for emulator in &self.emulators {
            if let Err(error) = emulator.hold(name) {
                log::error(error);
            }
        }
    }

    /// Lets the copy here go on, if it was held: libvirt here has let it run.
    pub(super) fn release(&mut self, name: &str) {
        if !self.held {
            return;
        }
        log::info(format_args!("the copy of {name} here is released"));
        self.held = false;
        for emulator in &self.emulators {
            if let Err(error) = emulator.release(name) {
                log::error(error);
            }
        }
    }

    /// Whether the copy here is held.
    pub(super) fn held(&self) -> bool {
        self.held
    }
}
