//! The emulator of a guest: how it ends, what the process table has of it, and what libvirt has not seen yet.

use super::*;
use crate::domain::emulator::Emulator;
use rustix::process::Signal;

/// How long libvirt waits between SIGTERM and SIGKILL (`virProcessKillPainfullyDelay`).
const PAINFUL: Duration = Duration::from_secs(10);

/// How long a request that waited in a daemon takes until the guest is there. What is assumed here is what the second look of a stop has to
/// outlast (`PENDING` of `domain/ending.rs`).
const CREATION: Duration = Duration::from_millis(500);

/// How long another agent waits for the end of the copy here, and how often it asks.
const RIVALS: Duration = Duration::from_secs(5);
/// See [`RIVALS`].
const AGAIN: Duration = Duration::from_millis(250);

/// The number of an emulator of another guest, of which it cannot be told whose it is.
const STRANGER: usize = 900;

/// How guest and emulator take it that they are to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temper {
    /// When the guest has shut down after it was asked to; `None`: it is deaf.
    pub(crate) asked: Option<Duration>,
    /// When the emulator has ended after SIGTERM; `None`: it does not heed it.
    pub(crate) term: Option<Duration>,
    /// When it has ended after SIGKILL: what it is in the kernel for lasts so long.
    pub(crate) kill: Duration,
    /// How long libvirt goes on listing a guest whose emulator has ended.
    pub(crate) listed: Duration,
}

impl Default for Temper {
    fn default() -> Self {
        Self { asked: Some(START), term: Some(Duration::ZERO), kill: Duration::ZERO, listed: Duration::ZERO }
    }
}

impl Temper {
    /// How long libvirt takes to end the emulator.
    pub(super) fn killing(self) -> Duration {
        self.term.unwrap_or(PAINFUL + self.kill)
    }
}

impl World {
    /// The emulators of the guest in the process table of the first host, now.
    pub(crate) fn emulators(&mut self) -> Vec<Emulator> {
        self.catch_up();
        let (now, stranger) = (now(), self.stranger);
        let stranger = stranger.filter(|(begin, end)| (*begin..*end).contains(&now)).map(|_| STRANGER);
        let known = self.hosts[0].copy.iter().filter(|copy| !copy.gone).map(|copy| copy.number);
        self.hosts[0].forgotten.iter().copied().chain(known).chain(stranger).map(emulator).collect()
    }

    /// Like [`Self::emulators`], as the program sees them; `None` if it cannot read the process table.
    pub(crate) fn seen_emulators(&mut self) -> Option<Vec<Emulator>> {
        let found = self.emulators();
        let now = now();
        self.unread.is_none_or(|(begin, end)| !(begin..end).contains(&now)).then_some(found)
    }

    /// One of them gets a signal.
    pub(crate) fn signal(&mut self, to: &Emulator, signal: Signal) {
        if !self.emulators().contains(to) {
            return;
        }
        tell(|| format!("{signal:?} to {to}"));
        self.meddled = true;
        if signal == Signal::STOP && self.halves.is_some() && self.is_half(0) {
            self.wrong.get_or_insert("half of it was held".into());
        }
        let temper = self.temper;
        match (signal, &mut self.hosts[0].copy) {
            (_, Some(copy)) if emulator(copy.number) != *to => {}
            (Signal::STOP, Some(copy)) => copy.held = true,
            (Signal::CONT, Some(copy)) => {
                copy.held = false;
                if std::mem::take(&mut copy.waits) {
                    (copy.state, copy.reason) = (RUNNING, 6);
                }
                self.watch();
            }
            (_, Some(copy)) if !copy.hangs => {
                let number = copy.number;
                self.watch_end(0);
                match if signal == Signal::KILL { Some(temper.kill) } else { temper.term } {
                    Some(Duration::ZERO) => self.remove(0),
                    Some(time) => self.events.push((now() + time, Event::Ended(number))),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// The guest is paused there for this reason of libvirt's.
    pub(crate) fn pause(&mut self, host: usize, reason: c_int) {
        if let Some(copy) = &mut self.hosts[host].copy {
            (copy.state, copy.reason) = (PAUSED, reason);
        }
    }

    /// Whether libvirt goes on listing the guest here, whose emulator has ended now.
    pub(super) fn is_listed_on(&mut self, host: usize) -> bool {
        let listed = self.temper.listed;
        let Some(copy) = &mut self.hosts[host].copy else { return false };
        if listed.is_zero() || copy.gone || copy.hangs {
            return false;
        }
        copy.gone = true;
        self.events.push((now() + listed, Event::Ended(copy.number)));
        true
    }

    /// A daemon that was asked to create the guest before, and could not yet, will soon.
    pub(crate) fn plan_creation(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].creates) {
            self.events.push((now() + CREATION, Event::Created(host)));
        }
    }

    /// All ordinary workers of a daemon are taken for this time, and a request to create the guest waits for one.
    pub(crate) fn hold_creation(&mut self, host: usize, time: Duration) {
        let end = now() + time;
        self.hosts[host].taken = Some(end);
        self.events.push((end + CREATION, Event::Created(host)));
    }

    /// Waits until one is free.
    pub(super) fn wait_in_turn(&mut self, host: usize) -> Answer<()> {
        if self.hosts[host].taken.is_none() && self.odd.queue.is_zero() {
            return Ok(());
        }
        let taken = self.hosts[host].taken.map_or(Duration::ZERO, |end| end.saturating_duration_since(now()));
        pass(taken.max(self.odd.queue));
        self.catch_up();
        if self.hosts[host].reach == Reach::Up { Ok(()) } else { Err(BROKEN) }
    }

    /// Another agent asks the first host again, after it has created the guest on its own: it lets it run if it is not there, and ends it
    /// else; if that other copy does not run and this agent goes first, it waits some seconds for its end.
    pub(super) fn ask_again(&mut self, host: usize, since: Instant) {
        let Some(number) = self.hosts[host].copy.as_ref().map(|copy| copy.number) else { return };
        match &self.hosts[0].copy {
            None => self.events.push((now() + CALL, Event::Runs(number))),
            Some(copy) if self.rival.1 && copy.state == PAUSED && now() < since + RIVALS => {
                self.events.push((now() + AGAIN, Event::Asks(host, since)));
            }
            Some(_) => self.remove(host),
        }
    }

    /// It does: paused, as the program asks for it.
    pub(super) fn create(&mut self, host: usize) {
        match self.hosts[host].reach {
            Reach::Silent => self.hosts[host].creates = true,
            Reach::Up if self.hosts[host].copy.is_none() => {
                let copy = self.new_copy(PAUSED, STARTING_UP);
                self.hosts[host].copy = Some(copy);
            }
            _ => {}
        }
    }

    /// A daemon has ended: what it was asked to create is not created any more.
    pub(super) fn crash(&mut self, host: usize) {
        self.hosts[host].creates = false;
        self.hosts[host].taken = None;
        self.events.retain(|(_, event)| !matches!(event, Event::Created(created) if *created == host));
    }

    /// What is wrong with the answer "stopped" of the first host: an emulator lives, or one may come of what the daemon was asked to do.
    pub(crate) fn not_stopped(&mut self) -> Option<String> {
        if let Some(emulator) = self.emulators().first() {
            return Some(format!("{emulator} lives"));
        }
        let comes = self.hosts[0].creates || self.events.iter().any(|(_, event)| matches!(event, Event::Created(0)));
        comes.then(|| "the guest is still to be created".into())
    }

    /// Whether an emulator of the guest hangs in the kernel there.
    pub(crate) fn hangs(&self, host: usize) -> bool {
        !self.hosts[host].forgotten.is_empty() || self.hosts[host].copy.as_ref().is_some_and(|copy| copy.hangs)
    }

    /// Whether there is no guest on the first host, and its daemon can say so.
    pub(crate) fn is_plainly_stopped(&mut self) -> bool {
        self.not_stopped().is_none() && self.hosts[0].copy.is_none() && self.hosts[0].reach == Reach::Up
    }
}

/// The process of a copy; no real one has such a number.
fn emulator(number: usize) -> Emulator {
    Emulator { pid: 5_000_000 + i32::try_from(number).unwrap_or_default(), start: number as u64 }
}
