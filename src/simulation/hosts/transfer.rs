//! A move, step by step: libvirt's peer-to-peer one, in the five steps of `qemuMigrationSrcPerformPeer2Peer3`. What a step is, and what becomes
//! of the move when a copy of the guest is ended in one, stands at [`Step`] and [`World::remove`].

use super::*;

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The target was asked to prepare a copy, and has not got it yet. The guest runs at the source.
    Asked,
    /// The copy at the target waits for the memory.
    Filling,
    /// The source stands still, the target has everything and was asked to let the guest run.
    HandedOver,
    /// It runs at the target. The source has not heard of it.
    Runs,
}

/// A move that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) step: Step,
    /// When its source was ended, or it was called off.
    pub(super) orphan: Option<Instant>,
    /// Whether the two daemons do not hear each other any more.
    pub(super) apart: bool,
}

impl World {
    /// It is being moved.
    pub(crate) fn move_from(&mut self, from: usize, to: usize, step: Step) {
        self.run_on(from);
        self.transfer = Some(Move { from, to, step: Step::Asked, orphan: None, apart: false });
        while self.transfer.is_some_and(|transfer| transfer.step < step) {
            self.go_on();
        }
        self.plan();
    }

    /// The next step of the move.
    pub(super) fn go_on(&mut self) {
        let Some(mut transfer) = self.transfer else { return };
        self.stirred = Some(now());
        match transfer.step {
            // libvirt has one of that name already.
            Step::Asked if self.hosts[transfer.to].copy.is_some() => {
                self.transfer = None;
                return;
            }
            Step::Asked => {
                let copy = self.new_copy(PAUSED, BY_MIGRATION);
                self.hosts[transfer.to].copy = Some(copy);
                transfer.step = Step::Filling;
                if transfer.orphan.is_some() {
                    self.events.push((now() + CLEARING, Event::MoveEnds));
                }
            }
            Step::Filling => {
                if let Some(copy) = &mut self.hosts[transfer.from].copy {
                    (copy.state, copy.reason) = (PAUSED, BY_MIGRATION);
                }
                transfer.step = Step::HandedOver;
            }
            Step::HandedOver => {
                if let Some(copy) = &mut self.hosts[transfer.to].copy {
                    (copy.state, copy.reason) = (RUNNING, 2);
                }
                transfer.step = Step::Runs;
            }
            Step::Runs => {
                self.transfer = None;
                self.moved = Some(Ok(()));
                self.remove(transfer.from);
                return;
            }
        }
        self.transfer = Some(transfer);
        self.plan();
    }

    /// When the move makes its next step, if it goes on by itself.
    pub(super) fn plan(&mut self) {
        let Some(Move { step, .. }) = self.transfer.filter(|_| self.goes_on) else { return };
        let time = match step {
            Step::Asked => START,
            Step::Filling => self.filling,
            Step::HandedOver | Step::Runs => HANDOVER,
        };
        self.events.push((now() + time, Event::Next(step)));
    }

    /// Whether the daemon that has to make the next step does not. One that cannot be reached from another host may do its work.
    pub(super) fn is_stuck(&self, Move { from, to, step, .. }: Move) -> bool {
        let stands = |host: usize| match self.hosts[host].reach {
            Reach::Up => false,
            Reach::Down => host == 0,
            Reach::Silent => true,
        };
        stands(from) || matches!(step, Step::Asked | Step::HandedOver) && stands(to)
    }

    /// How many steps the move may make now: one without a source has no memory to send.
    pub(super) fn steps_left(&self) -> usize {
        match self.transfer {
            None => 0,
            Some(Move { step, orphan: None, apart: false, .. }) => 4 - step as usize,
            // The request to let it run may have got there, its answer does not.
            Some(Move { step, orphan: None, .. }) => usize::from(step == Step::HandedOver),
            Some(transfer @ Move { step: Step::Asked, .. }) => usize::from(self.may_yet_come(transfer)),
            Some(Move { step: Step::HandedOver, .. }) => 1,
            Some(_) => 0,
        }
    }

    /// Takes a copy out of its host, with what that means for a move.
    pub(super) fn remove(&mut self, host: usize) {
        if self.is_listed_on(host) || self.lose_half(host) {
            return;
        }
        if self.runs(host) {
            self.hosts[host].ran_until = Some(now());
            let source = self.transfer.filter(|transfer| transfer.to == host).and_then(|transfer| self.hosts[transfer.from].copy.as_ref());
            self.stale = source.map(|copy| copy.number).or(self.stale);
        }
        self.hosts[host].copy = None;
        // A source that does not hear the target does not hear of that.
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| host == transfer.from || !transfer.apart) else { return };
        if host == transfer.from {
            transfer.orphan.get_or_insert_with(now);
            match transfer.step {
                Step::Asked => self.events.push((now() + self.in_flight, Event::MoveEnds)),
                Step::Filling | Step::HandedOver => self.events.push((now() + CLEARING, Event::MoveEnds)),
                Step::Runs => self.transfer = None,
            }
        } else if host == transfer.to {
            let (from, step) = (transfer.from, transfer.step);
            self.transfer = None;
            match (step, self.hosts[from].copy.as_ref().map(|copy| copy.number)) {
                // libvirt lets the source go on.
                (Step::HandedOver, Some(number)) => self.events.push((now() + START, Event::Runs(number))),
                // It was told that the guest runs there.
                (Step::Runs, Some(number)) => self.events.push((now() + START, Event::Ended(number))),
                _ => {}
            }
        }
    }
}
