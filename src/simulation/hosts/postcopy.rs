//! A move by post-copy: the guest runs at the target, and the rest of its memory comes after it, from a source that stands still. Until then
//! each host has a half of it.
//!
//! What each side does is libvirt 9.0's (`src/qemu/qemu_migration.c` and `qemu_process.c`):
//!
//! - It begins: the source is paused (post-copy), and the target is asked to let the guest run (Finish), which makes it running (post-copy).
//!   A target that fails before that ends its copy (`doKill` of `qemuMigrationDstFinishActive`).
//! - Everything has come: the target is running (migrated), the source ends its copy (`qemuMigrationSrcComplete`).
//! - The emulators lose each other: the source is paused (post-copy failed), the target running (post-copy failed), both stay
//!   (`qemuMigrationSrcPostcopyFailed`, `qemuMigrationDstPostcopyFailed`). The same if the other one's emulator ends.
//! - The daemons lose each other: the source is marked so too, though the memory may flow on (`qemuMigrationSrcConfirmPhase`); when it has come,
//!   each daemon brings the move to its end alone (`qemuMigrationProcessUnattended`). So does a source that was started anew.
//! - A request to resume is refused unless both emulators say that they have lost each other (`qemuMigrationSrcBeginResume`,
//!   `qemuMigrationDstPrepareResume`), and one to call it off always (`qemuDomainAbortJobPostcopy`).

use super::*;
use crate::simulation::set;

const BY_POSTCOPY: c_int = 12;
const BY_BROKEN_POSTCOPY: c_int = 13;
const MIGRATED: c_int = 2;
const IN_POSTCOPY: c_int = 10;
const IN_BROKEN_POSTCOPY: c_int = 11;

/// A guest of which each host has a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Halves {
    from: usize,
    to: usize,
    /// Whether it was let run at the target.
    runs: bool,
    /// Whether its memory flows, and whether it could.
    flows: bool,
    line: bool,
    /// Whether libvirt's request waits for the end, and whether the daemons hear each other.
    attended: bool,
    heard: bool,
    /// Whether all of the memory has come.
    whole: bool,
    /// Whether one of them was lost before.
    pub(crate) lost: bool,
}

impl Halves {
    /// The job of it, on this host.
    pub(super) fn job(self, host: usize) -> Answer<Option<c_int>> {
        if host == self.from { Ok(Some(crate::domain::ffi::OPERATION_MIGRATION_OUT)) } else { Err(NOT_SOURCE) }
    }
}

/// What comes of it by itself, later.
#[derive(Clone, Copy, Debug)]
pub(super) enum Comes {
    /// It is let run at the target.
    Runs,
    /// All of the memory has come.
    Whole,
    /// The source ends its copy.
    Ends,
    /// The source gives up a target that it does not hear.
    GivesUp,
}

impl World {
    /// A request to let it run at the target, which a frozen daemon carries out when it goes on. From here on things happen.
    pub(crate) fn start_postcopy(&mut self, host: usize) -> Answer<()> {
        self.quiet = false;
        self.call(host, "start post-copy")?;
        if self.halve() { Ok(()) } else { Err(NO_JOB) }
    }

    /// It is halved, if it is being moved.
    pub(crate) fn halve(&mut self) -> bool {
        let Some(Move { from, to, step: Step::Filling, orphan: None, apart: false }) = self.transfer else { return false };
        self.transfer = None;
        self.halves =
            Some(Halves { from, to, runs: false, flows: true, line: true, attended: true, heard: true, whole: false, lost: false });
        self.show(from, (PAUSED, BY_POSTCOPY));
        self.later(HANDOVER, Comes::Runs);
        true
    }

    /// Like [`Self::halve`], and its memory does not flow any more; `line`: it could again.
    pub(crate) fn halve_and_break(&mut self, line: bool) {
        self.halve();
        self.come(Comes::Runs);
        self.break_flow(HALF_DONE);
        self.change(|halves| halves.line = line);
    }

    fn later(&mut self, time: Duration, comes: Comes) {
        self.events.push((now() + time, Event::Halves(comes)));
    }

    fn show(&mut self, host: usize, (state, reason): (c_int, c_int)) {
        if let Some(copy) = &mut self.hosts[host].copy {
            (copy.state, copy.reason) = (state, reason);
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Halves)) {
        if let Some(halves) = &mut self.halves {
            change(halves);
        }
    }

    /// The request is answered.
    fn answer(&mut self, answer: Answer<()>) {
        if let Some(halves) = &mut self.halves
            && std::mem::take(&mut halves.attended)
        {
            self.moved = Some(answer);
        }
    }

    /// The memory does not flow any more. A copy at the target that was not let run yet is ended.
    fn break_flow(&mut self, why: Fault) {
        let Some(Halves { from, to, runs, .. }) = self.halves else { return };
        self.change(|halves| halves.flows = false);
        self.show(from, (PAUSED, BY_BROKEN_POSTCOPY));
        if runs {
            self.show(to, (RUNNING, IN_BROKEN_POSTCOPY));
        } else {
            self.hosts[to].copy = None;
            self.change(|halves| halves.lost = true);
        }
        self.answer(Err(why));
    }

    /// A copy has ended. Whether it was a half.
    pub(super) fn lose_half(&mut self, host: usize) -> bool {
        if !self.halves.is_some_and(|halves| !halves.whole && [halves.from, halves.to].contains(&host)) {
            return false;
        }
        self.hosts[host].copy = None;
        self.change(|halves| halves.lost = true);
        self.break_flow(HALF_DONE);
        true
    }

    /// What was to come.
    pub(super) fn come(&mut self, comes: Comes) {
        let Some(halves) = self.halves else { return };
        let Halves { from, to, .. } = halves;
        let silent = self.hosts[to].reach == Reach::Silent;
        match comes {
            Comes::Runs if silent => self.later(CLEARING, comes),
            Comes::Runs if halves.flows && !halves.runs => {
                self.show(to, (RUNNING, IN_POSTCOPY));
                self.change(|halves| halves.runs = true);
                self.later(self.rest, Comes::Whole);
            }
            Comes::Whole if halves.flows && !halves.lost => {
                self.show(to, (RUNNING, MIGRATED));
                self.change(|halves| halves.whole = true);
                // The answer of a target that is not heard is waited for.
                let wait = halves.attended && (silent || !halves.heard);
                self.later(if wait { KEEPALIVE } else { CALL }, Comes::Ends);
            }
            Comes::Ends if self.hosts[from].reach == Reach::Silent || from == 0 && self.hosts[from].reach == Reach::Down => {
                self.later(CLEARING, comes);
            }
            Comes::Ends => {
                self.answer(if silent || !halves.heard { Err(UNHEARD) } else { Ok(()) });
                self.halves = None;
                self.remove(from);
            }
            Comes::GivesUp if self.hosts[from].reach == Reach::Silent => self.later(CLEARING, comes),
            Comes::GivesUp if halves.attended && !halves.whole && (silent || !halves.heard) => {
                self.show(from, (PAUSED, BY_BROKEN_POSTCOPY));
                self.answer(Err(UNHEARD));
            }
            Comes::Runs | Comes::Whole | Comes::GivesUp => {}
        }
    }

    /// What happens to the hosts matters to it too.
    pub(super) fn happens_to_halves(&mut self, happens: Happens) {
        let Some(Halves { from, to, .. }) = self.halves else { return };
        match happens {
            Happens::Breaks => {
                self.change(|halves| halves.line = false);
                self.break_flow(HALF_DONE);
            }
            Happens::Mends => self.change(|halves| halves.line = true),
            Happens::Unhears => {
                self.change(|halves| halves.heard = false);
                self.later(KEEPALIVE, Comes::GivesUp);
            }
            Happens::Freezes(host) if host == to => self.later(KEEPALIVE, Comes::GivesUp),
            Happens::Cut(host) if host == from => self.answer(Err(BROKEN)),
            _ => {}
        }
    }

    /// Whether it is possible now.
    pub(super) fn may_halves(&self, happens: Happens) -> bool {
        let Some(halves) = self.halves.filter(|halves| !halves.whole) else { return false };
        match happens {
            Happens::Breaks => halves.line,
            Happens::Mends => !halves.line,
            _ => halves.heard && halves.attended,
        }
    }

    /// The request to let the memory flow again, at the source; the answer comes when all of it has, or the flow breaks anew.
    pub(super) fn resume(&mut self, host: usize) -> Answer<()> {
        self.call(host, "resume post-copy")?;
        let Some(Halves { from, to, flows, line, .. }) = self.halves.filter(|halves| halves.from == host) else { return Err(NO_JOB) };
        if flows {
            return Err(invalid("Requested operation is not valid: QEMU reports migration is still running"));
        }
        if self.hosts[to].reach == Reach::Silent {
            pass(KEEPALIVE);
            return Err(UNHEARD);
        }
        if self.hosts[to].copy.is_none() || self.hosts[from].copy.is_none() {
            return Err(NO_DOMAIN);
        }
        if !line {
            pass(CLEARING);
            return Err(HALF_DONE);
        }
        self.show(from, (PAUSED, BY_POSTCOPY));
        self.show(to, (RUNNING, IN_POSTCOPY));
        self.change(|halves| (halves.flows, halves.attended, halves.heard) = (true, true, true));
        self.moved = None;
        self.later(self.rest, Comes::Whole);
        self.between();
        while self.hosts[host].reach == Reach::Up {
            if let Some(answer) = self.moved.take() {
                return answer;
            }
            let Some(next) = self.next_event() else { return Err(NO_JOB) };
            set(next.max(now()));
            self.catch_up();
        }
        pass(FOR_EVER);
        Err(BROKEN)
    }

    /// Whether all of the guest runs on this host.
    pub(crate) fn is_whole(&self, host: usize) -> bool {
        self.runs(host) && self.halves.is_none_or(|halves| halves.whole)
    }

    /// Whether they do, or did before it ended.
    pub(crate) fn was_whole(&self, host: usize) -> bool {
        self.is_whole(host) || self.halves.is_none() && self.hosts[host].ran_until.is_some()
    }

    /// Whether both halves are there, and would come together if that was asked for.
    pub(crate) fn may_be_whole(&self) -> bool {
        self.halves.is_some_and(|halves| !halves.flows && halves.line && !halves.lost)
            && self.hosts.iter().all(|host| host.reach == Reach::Up)
    }
}
