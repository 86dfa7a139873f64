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

/// How long the copy here may wait, or libvirt here say nothing, before the other host is asked. A handover takes milliseconds, or as long as the
/// greatest downtime.
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
    /// Since when the copy here waits.
    since: Option<Instant>,
    /// Since when libvirt here says nothing.
    silent: Option<Instant>,
    held: bool,
    /// Whether what is at the target by this name can only have come by this move: there was none before, or memory was seen to go there, which libvirt
    /// there takes in for a name that is free only.
    pub(super) ours: bool,
}

impl Handover {
    /// Of the guest that these emulators run here; `ours`: whether the target is known to have none of its name.
    pub(super) fn new(emulators: Vec<Emulator>, ours: bool) -> Self {
        Self { emulators, since: None, silent: None, held: false, ours }
    }

    /// Looks at both sides if the copy here waits, or may have begun to since libvirt here was heard. Says whether the guest runs there and the copy
    /// here was ended.
    ///
    /// # Errors
    /// The guest runs there, and the copy here could not be ended. Or the copy here is held, and nobody will say any more whether it runs there.
    pub(super) fn settled(&mut self, here: &Here, there: &mut There, deadline: &Deadline) -> Result<bool> {
        let (identity, name) = (&here.trace.identity, &here.trace.identity.name);
        let side = here.side(deadline);
        let stalls = matches!(side, Side::Unknown(_));
        let silent = if stalls { deadline::now() - *self.silent.get_or_insert_with(deadline::now) } else { Duration::ZERO };
        match side {
            Side::Waits(Condition::PAUSED_MIGRATION) => self.silent = None,
            // A libvirt that stalls for a moment goes on counting the time to its giving up; so does this.
            Side::Unknown(_) if self.since.is_some() => {}
            // Whether the copy here waits was not seen. Nothing is held for that, but the guest may run there.
            Side::Unknown(_) => {
                let arrived = self.ours && silent >= ASK_AFTER && there.has_all(identity, deadline);
                return if arrived { self.end_untold(here, deadline).map(|()| true) } else { Ok(false) };
            }
            side => {
                (self.since, self.silent) = (None, None);
                if matches!(side, Side::Runs | Side::Half(..)) {
                    self.release(name);
                }
                return Ok(false);
            }
        }
        let waited = deadline::now() - *self.since.get_or_insert_with(deadline::now);
        if waited < ASK_AFTER {
            return Ok(false);
        }
        match there.side(identity, deadline) {
            Side::Runs if stalls => return self.end_untold(here, deadline).map(|()| true),
            Side::Runs => {
                log::warning(format_args!("{name} runs on the target, ending its copy here: libvirt here was not told"));
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

    /// Ends the copy here, while the guest runs there, without libvirt here, which does not answer: what it does first when it is back may
    /// be to let the copy go on. (Not held where it answers: one that is takes longer to end.)
    ///
    /// # Errors
    /// It has not ended in time.
    pub(super) fn end_untold(&mut self, here: &Here, deadline: &Deadline) -> Result<()> {
        self.hold(&here.trace.identity.name, "it runs on the target, and libvirt here does not answer");
        ending::end(&here.trace, here.uri, deadline)
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
