//! After the move: where is the guest? Both hosts are asked until that is clear, whatever libvirt says of the move.

use super::handover::Handover;
use super::plan::Plan;
use super::side::{Here, QUESTION, Side, There};
use crate::deadline::{self, Deadline};
use crate::domain::{Condition, Error, Kind, Result, ending};
use crate::log;
use std::time::Duration;

/// What is kept of the time for a look at this host.
const HERE: Duration = Duration::from_millis(500);

/// What one look at both hosts may take at least.
const LOOK: Duration = Duration::from_millis(500);

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a host that cannot be asked is asked again when nothing changes any more here. It may be lost: Pacemaker neither fences it nor
/// recovers anything as long as this action lasts.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two hosts of a move, asked together.
pub(super) struct Sides<'a> {
    pub(super) here: &'a Here<'a>,
    pub(super) there: &'a mut There,
    pub(super) plan: &'a Plan,
    /// Whether the guest was paused before.
    pub(super) paused: bool,
    /// Whether the target had no copy before: one that is there by now has come by this move.
    pub(super) ours: bool,
}

impl Sides<'_> {
    fn name(&self) -> &str {
        &self.here.trace.identity.name
    }

    fn there(&mut self, deadline: &Deadline) -> Side {
        self.there.side(&self.here.trace.identity, deadline)
    }

    /// libvirt says it has moved: it must run there, or be paused as it was here, and nothing of it may be left here that could go on.
    ///
    /// # Errors
    /// It does not run there; or it runs here too.
    pub(super) fn confirm(&mut self, deadline: &Deadline) -> Result<()> {
        let (name, target) = (self.name().to_owned(), self.plan.target.clone());
        loop {
            match self.there(deadline) {
                Side::Runs => break,
                Side::Waits(..) if self.paused => break,
                Side::Absent => {
                    return Err(Error::new(Kind::State, format!("{name} was moved to {target} and is not there any more")));
                }
                Side::Waits(state) if !deadline.pause(Duration::from_millis(50)) => {
                    return Err(Error::new(Kind::State, format!("{name} was moved to {target} and is {state} there")));
                }
                Side::Half(state) if !deadline.pause(Duration::from_millis(50)) => {
                    let text = format!("{name} is {state} on {target}, not all of its memory has come");
                    return Err(Error::new(Kind::TimedOut, text));
                }
                Side::Waits(..) | Side::Half(..) => {}
                Side::Unknown(text) => {
                    // libvirt returns success only after the target has confirmed that the guest runs (`qemuMigrationDstFinish`).
                    log::warning(format_args!("{name} was moved to {target}, which cannot be asked any more: {text}"));
                    break;
                }
            }
        }
        self.clear_here(deadline)?;
        log::info(format_args!("{name} runs on {target}"));
        Ok(())
    }

    /// The guest runs there. libvirt returns success also when it could not end its own copy ("probably left in 'paused' state on source",
    /// `qemuMigrationSrcPerformPeer2Peer3`): stop, which comes next, would end it, but nothing may let it go on before.
    fn clear_here(&self, deadline: &Deadline) -> Result<()> {
        let name = self.name();
        match self.here.side(deadline) {
            Side::Absent => Ok(()),
            Side::Runs => Err(Error::new(Kind::Lives, format!("{name} was moved to {} and runs here too", self.plan.target))),
            Side::Waits(state) | Side::Half(state) => {
                log::warning(format_args!("{name} has moved, ending its copy here, {state}"));
                ending::end_copy(&self.here.trace.identity, self.here.uri, deadline)
            }
            Side::Unknown(text) => {
                log::warning(format_args!("{name} has moved; what is left here is stop's: {text}"));
                Ok(())
            }
        }
    }

    /// The move failed: find out where the guest is. libvirt lets it go on at the source when the target has not taken it over; both
    /// daemons may still be at that, or restarting.
    ///
    /// A copy that waits here is not let run by this program: only libvirt knows whether the other one ever ran, and memory that is
    /// older than the disks destroys them.
    ///
    /// # Errors
    /// It is not there: the text says where it is.
    pub(super) fn recover(&mut self, error: &Error, handover: &mut Handover, deadline: &Deadline) -> Result<()> {
        let (name, target) = (self.name().to_owned(), self.plan.target.clone());
        let failed = |kind: Kind, place: String| Err(Error::new(kind, format!("{place}, not moved to {target}: {}", error.text)));
        let patience = deadline.within(PATIENCE);
        loop {
            let begin = deadline::now();
            // The other host first: what is seen of this one is the newer then. But some of the time is this one's.
            let there = self.there(&deadline.before(HERE.min(deadline.left() / 2)));
            let here = self.here.side(deadline);
            // What the next look may take: a host that cannot be asked takes all that it is given, and then less was known than before.
            let look = (deadline::now() - begin).saturating_mul(2).max(LOOK).min(QUESTION);
            let last = deadline.before(look).left() <= AGAIN;
            // What libvirt here has let go on is not held any more, but where it runs there too.
            if matches!(here, Side::Runs) && !matches!(there, Side::Runs) {
                handover.release(&name);
            }
            // libvirt here has brought the move to its end, or cannot: it waits for the emulator that is held.
            let clear = match (&here, &there) {
                (Side::Runs, Side::Unknown(_)) => !error.leaves_open(),
                (Side::Waits(_), Side::Unknown(_)) => handover.held(),
                _ => false,
            };
            let enough = clear && patience.expired();
            let (kind, place) = match (here, there) {
                // A request that was not answered may still be waiting for its turn.
                (Side::Runs, Side::Absent) => {
                    let kind = if error.kind == Kind::Unresponsive { error.kind } else { Kind::State };
                    return failed(kind, format!("{name} still runs here"));
                }
                (Side::Waits(state), Side::Absent) if self.paused && !state.will_run() => {
                    return failed(Kind::State, format!("{name} is still {state} here"));
                }
                (Side::Waits(_), Side::Absent) if handover.held() => {
                    return failed(Kind::TimedOut, format!("{name} is held here, and not on {target}, where it may have run"));
                }
                // The target has let it run, and its word was lost: libvirt here took the move for failed. One has to stand still at once, until
                // both are ended; the one there has what was written last.
                (Side::Runs, Side::Runs) if self.ours => {
                    handover.hold(&name, &format!("it runs here and on {target}"));
                    return failed(Kind::Lives, format!("{name} runs here and on {target}, the copy here is held"));
                }
                (Side::Runs, Side::Runs) => return failed(Kind::Lives, format!("{name} runs here and on {target}")),
                (Side::Absent, Side::Absent) => return failed(Kind::State, format!("{name} runs neither here nor on {target}")),
                (Side::Absent, Side::Runs) => {
                    log::info(format_args!("{name} runs on {target} in spite of an error: {error}"));
                    return Ok(());
                }
                // The copy here was all there was of the memory that has not gone over.
                (Side::Absent, Side::Half(state)) if state.is_broken_postcopy() => {
                    let text =
                        format!("{name} has lost memory: it is {state} on {target} and not here; it has to be stopped there and started");
                    return failed(Kind::State, text);
                }
                (Side::Half(state), Side::Absent) => {
                    let text =
                        format!("{name} has lost memory: it is {state} here and not on {target}; it has to be stopped here and started");
                    return failed(Kind::State, text);
                }
                (Side::Absent, Side::Half(state)) => (Kind::TimedOut, format!("{name} is {state} on {target}")),
                (Side::Half(state), Side::Half(other) | Side::Waits(other)) => {
                    (Kind::TimedOut, format!("{name} is half here, {state}, and half on {target}, {other}"))
                }
                (Side::Half(state), Side::Runs) => (Kind::TimedOut, format!("{name} is half here, {state}, and runs on {target}")),
                (Side::Half(state), Side::Unknown(text)) => (Kind::TimedOut, format!("{name} is half here, {state}; {target}: {text}")),
                (_, Side::Half(state)) => (Kind::TimedOut, format!("{name} is half on {target}, {state}")),
                // Taken over, but the source was not told, and would let its copy go on when it gives up waiting.
                (Side::Waits(..), Side::Runs) => {
                    log::warning(format_args!("{name} runs on {target}, ending its copy here: {error}"));
                    return ending::end_copy(&self.here.trace.identity, self.here.uri, deadline);
                }
                (Side::Runs, Side::Unknown(text)) => (error.kind, format!("{name} still runs here; {target}: {text}")),
                (Side::Runs, Side::Waits(..)) => (error.kind, format!("{name} still runs here, a copy that came in waits on {target}")),
                // libvirt here was restarted in the handover, and leaves it so: the record of the move has to stay, by which a monitor shows it.
                (Side::Waits(state @ Condition::PAUSED_MIGRATION), Side::Absent) => (Kind::TimedOut, format!("{name} is {state} here")),
                (Side::Waits(state), Side::Absent) => (Kind::State, format!("{name} is {state} here")),
                (Side::Waits(state), Side::Waits(other)) => (error.kind, format!("{name} is {state} here and {other} on {target}")),
                (Side::Waits(state), Side::Unknown(text)) => {
                    // Nobody watches from now on, and libvirt here lets it go on when it gives up waiting, whatever runs there.
                    if last && state == Condition::PAUSED_MIGRATION {
                        handover.hold_unless_it_runs(self.here, &text, deadline);
                    }
                    let state = if handover.held() { "held".to_owned() } else { state.to_string() };
                    (Kind::TimedOut, format!("{name} is {state} here, it may run on {target}: {text}"))
                }
                (Side::Absent, Side::Waits(state)) => (error.kind, format!("{name} is {state} on {target} and not here")),
                (Side::Absent, Side::Unknown(text)) => (error.kind, format!("{name} is not here; {target}: {text}")),
                (Side::Unknown(text), _) => (error.kind, text),
            };
            if last || enough || !deadline.pause(AGAIN) {
                return failed(kind, place);
            }
        }
    }
}
