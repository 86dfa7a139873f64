//! After the move: where is the guest? Both hosts are asked until that is clear, whatever libvirt says of the move.

use super::handover::Handover;
use super::plan::Plan;
use super::side::{Here, QUESTION, Side, There};
use super::verdict::{Known, Next, judge};
use crate::deadline::{self, Deadline};
use crate::domain::{Error, Kind, Result, ending};
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

/// As [`PATIENCE`], when the connection to the target broke at once, and not before memory had gone there: its daemon was lost and not the host,
/// and is mostly there again by then. If that was when the guest was let run there, it runs on both until the one here is held.
const RESTART: Duration = Duration::from_secs(15);

/// The two hosts of a move, asked together.
pub(super) struct Sides<'a> {
    pub(super) here: &'a Here<'a>,
    pub(super) there: &'a mut There,
    pub(super) plan: &'a Plan,
    /// Whether the guest was paused before.
    pub(super) paused: bool,
    /// Whether libvirt here was seen at the move.
    pub(super) begun: bool,
    /// Whether memory was seen to go there.
    pub(super) flowed: bool,
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
                self.end_copy(deadline)
            }
            Side::Unknown(text) => {
                log::warning(format_args!("{name} has moved; what is left here is stop's: {text}"));
                Ok(())
            }
        }
    }

    fn end_copy(&self, deadline: &Deadline) -> Result<()> {
        ending::end_copy(&self.here.trace.identity, self.here.uri, deadline)
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
        let broke = self.flowed && error.kind == Kind::Unreachable;
        let patience = if broke { deadline.share(RESTART, 2) } else { deadline.within(PATIENCE) };
        // A request that was not answered may still be waiting for its turn, whatever is on its way by now.
        let may_end = self.begun && error.leaves_open() && error.kind != Kind::Unresponsive;
        let (mut idle, mut asks, mut silent, mut look) = (false, false, false, LOOK);
        loop {
            // Before the look, whose time this does not take, so that what is judged is not older than the answer.
            if asks && !idle {
                idle = self.here.is_idle(&deadline.before(look).share(QUESTION, 4));
            }
            let begin = deadline::now();
            // The other host first: what is seen of this one is the newer then. But some of the time is this one's.
            let there = self.there(&deadline.before_share(HERE, 2));
            let here = self.here.side(deadline);
            // What the next look may take: a host that cannot be asked takes all that it is given, and then less was known than before.
            look = (deadline::now() - begin).saturating_mul(2).max(LOOK).min(QUESTION);
            let last = deadline.before(look).left() <= AGAIN;
            // What libvirt here has let go on is not held any more, but where it runs there too.
            if matches!(here, Side::Runs) && !matches!(there, Side::Runs) {
                handover.release(&name);
            }
            asks = may_end && matches!((&here, &there), (Side::Runs, Side::Unknown(_)));
            // libvirt here may only stall for a moment.
            let is_silent = matches!((&here, &there), (Side::Unknown(_), Side::Runs));
            let again = std::mem::replace(&mut silent, is_silent) || last;
            let arrived = is_silent && again && self.there.has_all(&self.here.trace.identity, &deadline.before_share(HERE, 2));
            let (paused, ours, held) = (self.paused, handover.ours, handover.held());
            let known = Known { name: &name, target: &target, error, paused, ours, idle, held, arrived, last };
            match judge(&here, &there, &known) {
                Next::Moved => {
                    log::info(format_args!("{name} runs on {target} in spite of an error: {error}"));
                    return Ok(());
                }
                Next::EndCopyHere => {
                    log::warning(format_args!("{name} runs on {target}, ending its copy here: {error}"));
                    return if is_silent { handover.end_untold(self.here, deadline) } else { self.end_copy(deadline) };
                }
                Next::HoldHere(place) => {
                    handover.hold(&name, &format!("it runs here and on {target}"));
                    return failed(Kind::Lives, place);
                }
                Next::HoldUnlessItRuns { state, text } => {
                    handover.hold_unless_it_runs(self.here, &text, deadline);
                    return failed(Kind::TimedOut, known.waiting(state, &text, handover.held()));
                }
                Next::Answer(kind, place) => return failed(kind, place),
                Next::AskAgain { kind, place, clear } => {
                    let enough = clear && patience.expired();
                    if last || enough || !deadline.pause(AGAIN) {
                        return failed(kind, place);
                    }
                }
            }
        }
    }
}
