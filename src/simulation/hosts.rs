//! Hosts with libvirt, one guest on them, and a move of it that may be under way.
//!
//! The move is libvirt's peer-to-peer one, in the five steps of `qemuMigrationSrcPerformPeer2Peer3`: what a step is, and what becomes of
//! the move when a copy of the guest is ended or a daemon lost in one, stands at [`Step`] and [`World::remove`].

mod calls;
mod emulator;
mod events;

use super::{FOR_EVER, deviate, pass, tell};
use std::ffi::{CStr, c_int, c_ulong};
use std::time::{Duration, Instant};
use virt::sys;

/// The guest's name.
pub(crate) const GUEST: &CStr = c"web1";
/// Its UUID.
pub(crate) const UUID: &CStr = c"6c7a5fdb-dcda-4945-926a-d65c16db1809";
const XML: &CStr = c"<domain type='kvm'><name>web1</name></domain>";

/// What one call takes.
const CALL: Duration = Duration::from_millis(1);

/// How long after the end of its source a copy can still come in: the request for it was under way. What is assumed here is what
/// `ROUNDS_AFTER_MOVE` of the fence agent has to outlast.
const IN_FLIGHT: Duration = Duration::from_millis(350);

/// How long a daemon takes to do what the end of a move wants of it.
const CLEARING: Duration = Duration::from_secs(1);

/// How long libvirt tries to end an emulator that hangs in the kernel, before it forgets it.
const GIVES_UP: Duration = Duration::from_secs(80);

/// How long a destroy can take without anything being wrong.
const SLOW: Duration = Duration::from_secs(12);

/// How long a daemon waits for one that it does not hear (`keepalive_interval` and `keepalive_count` of `libvirtd.conf`).
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a step of a handover takes.
const HANDOVER: Duration = Duration::from_millis(20);

/// How long a guest takes to come up.
const START: Duration = Duration::from_millis(200);

const RUNNING: c_int = 1;
const PAUSED: c_int = 3;
const SHUT_OFF: c_int = 5;
const BY_MIGRATION: c_int = 2;
const STARTING_UP: c_int = 11;

/// An error of libvirt.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) code: sys::virErrorNumber,
    pub(crate) part: sys::virErrorDomain,
    pub(crate) text: &'static str,
}

const NO_DOMAIN: Fault = Fault { code: sys::VIR_ERR_NO_DOMAIN, part: sys::VIR_FROM_QEMU, text: "Domain not found" };
const NOT_RUNNING: Fault = invalid("Requested operation is not valid: domain is not running");
const NO_JOB: Fault = invalid("Requested operation is not valid: no job is active on the domain");
const REFUSED: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_FAILED,
    part: sys::VIR_FROM_QEMU,
    text: "Failed to terminate process 7 with SIGKILL: Device or resource busy",
};
const OUT_OF_REACH: Fault =
    Fault { code: sys::VIR_ERR_SYSTEM_ERROR, part: sys::VIR_FROM_RPC, text: "unable to connect to server: Connection refused" };
const CALLED_OFF: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_ABORTED,
    part: sys::VIR_FROM_QEMU,
    text: "operation aborted: migration out job: canceled by client",
};
const UNHEARD: Fault =
    Fault { code: sys::VIR_ERR_OPERATION_FAILED, part: sys::VIR_FROM_QEMU, text: "operation failed: Lost connection to destination host" };
const BROKEN: Fault = Fault { code: sys::VIR_ERR_INTERNAL_ERROR, part: sys::VIR_FROM_RPC, text: "internal error: client socket is closed" };

const fn invalid(text: &'static str) -> Fault {
    Fault { code: sys::VIR_ERR_OPERATION_INVALID, part: sys::VIR_FROM_QEMU, text }
}

pub(crate) use emulator::Temper;

type Answer<T> = Result<T, Fault>;

/// What a program that asks again can see of the world.
type Looks = (Option<Step>, Vec<Reach>, usize);

/// How a daemon can be reached from where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It answers.
    Up,
    /// It cannot be reached.
    Down,
    /// It takes requests and does not answer: it is frozen, and does what it was asked to when it goes on.
    Silent,
}

/// An emulator that libvirt knows.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    number: usize,
    state: c_int,
    reason: c_int,
    /// Whether it hangs in the kernel: nothing ends it.
    hangs: bool,
    /// Until when somebody's destroy tries to end it.
    ending: Option<Instant>,
    /// Since when it is there, if it was started in this course.
    since: Option<Instant>,
    /// Whether its emulator is stopped by a signal; and whether libvirt waits to let the guest go on.
    held: bool,
    waits: bool,
    /// Whether its emulator has ended, which libvirt has not seen yet.
    gone: bool,
}

/// One host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) uri: &'static str,
    pub(crate) reach: Reach,
    /// Whether libvirt has a definition of the guest.
    pub(crate) defined: bool,
    pub(crate) copy: Option<Copy>,
    /// Emulators that libvirt has forgotten, and that live, by their numbers.
    forgotten: Vec<usize>,
    /// When it was last asked for the guest.
    asked: Option<Instant>,
    /// Whether a frozen daemon has a request to end the guest.
    queued: bool,
    /// Whether it has one to create the guest.
    pub(crate) creates: bool,
}

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
struct Move {
    from: usize,
    to: usize,
    step: Step,
    /// When its source was ended, or it was called off.
    orphan: Option<Instant>,
    /// Whether the two daemons do not hear each other any more.
    apart: bool,
}

/// What may happen between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happens {
    /// The move goes on, by so many steps.
    Moves(usize),
    /// A host is cut off.
    Cut(usize),
    /// The daemon of a host freezes.
    Freezes(usize),
    /// A host is there again.
    Heals(usize),
    /// Somebody starts the guest.
    Starts(usize),
    /// The guest ends by itself.
    Ends(usize),
    /// Somebody destroys it, whose emulator hangs from now on.
    Hangs(usize),
    /// The move goes on to this step, and then the daemons of source and target do not hear each other any more; and whether the target is
    /// cut off from the program too.
    Parts(Step, bool),
}

/// What happens by itself, later.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// This copy has been ended.
    Ended(usize),
    /// libvirt forgets it.
    Forgotten(usize),
    /// It is let run.
    Runs(usize),
    /// The daemon of a host creates the guest, as it was asked to before.
    Created(usize),
    /// The move has come to its end, in whatever way it does by itself.
    MoveEnds,
    /// The move makes the step after this one.
    Next(Step),
    /// Both daemons give up a move on whose other side nobody is heard.
    GivesUp,
}

/// All there is.
pub(crate) struct World {
    pub(crate) hosts: Vec<Host>,
    transfer: Option<Move>,
    events: Vec<(Instant, Event)>,
    numbers: usize,
    /// What may happen in this world, beside the steps of a move.
    pub(crate) may: fn(&World, Happens) -> bool,
    /// Whether libvirt may do anything but what it was asked to, at once.
    pub(crate) unruly: bool,
    /// Whether a move goes on by itself, and whether its memory comes to an end.
    pub(crate) goes_on: bool,
    pub(crate) endless: bool,
    /// How guest and emulator take it that they are to end.
    pub(crate) temper: Temper,
    /// Whether the program is to end the guest, wherever it runs.
    pub(crate) ends: bool,
    /// Whether something has happened that need not have.
    pub(crate) disturbed: bool,
    /// Whether the program has ended the guest by force.
    pub(crate) forced: bool,
    /// Whether nothing happens yet.
    pub(crate) quiet: bool,
    /// libvirt's answer to who asked for the move.
    moved: Option<Answer<()>>,
    /// Of what looks the same so often, how often that was so.
    same: Option<(Looks, u32)>,
    /// What is wrong.
    pub(crate) wrong: Option<String>,
}

impl World {
    /// Hosts without the guest.
    pub(crate) fn new(uris: &[&'static str], defined: bool) -> Self {
        let host = |uri: &&'static str| Host {
            uri,
            reach: Reach::Up,
            defined,
            copy: None,
            forgotten: Vec::new(),
            asked: None,
            queued: false,
            creates: false,
        };
        Self {
            hosts: uris.iter().map(host).collect(),
            transfer: None,
            events: Vec::new(),
            numbers: 0,
            may: |_, _| false,
            unruly: false,
            goes_on: false,
            endless: false,
            temper: Temper::default(),
            ends: false,
            disturbed: false,
            forced: false,
            quiet: false,
            moved: None,
            same: None,
            wrong: None,
        }
    }

    /// The guest runs on this host.
    pub(crate) fn run_on(&mut self, host: usize) {
        let copy = self.new_copy(RUNNING, 1);
        self.hosts[host].copy = Some(copy);
    }

    /// It is being moved.
    pub(crate) fn move_from(&mut self, from: usize, to: usize, step: Step) {
        self.run_on(from);
        self.transfer = Some(Move { from, to, step: Step::Asked, orphan: None, apart: false });
        while self.transfer.is_some_and(|transfer| transfer.step < step) {
            self.go_on();
        }
        self.plan();
    }

    /// Its emulator hangs in the kernel; `since`: somebody tries to end it since then.
    pub(crate) fn hang(&mut self, host: usize, since: Option<Duration>) {
        let Some(copy) = &mut self.hosts[host].copy else { return };
        copy.hangs = true;
        if let Some(since) = since {
            self.begin_ending(host, GIVES_UP - since);
        }
    }

    fn new_copy(&mut self, state: c_int, reason: c_int) -> Copy {
        self.numbers += 1;
        Copy { number: self.numbers, state, reason, hangs: false, ending: None, since: None, held: false, waits: false, gone: false }
    }

    fn begin_ending(&mut self, host: usize, time: Duration) {
        let end = now() + time;
        if let Some(copy) = &mut self.hosts[host].copy {
            copy.ending = Some(end);
            let event = if copy.hangs { Event::Forgotten(copy.number) } else { Event::Ended(copy.number) };
            self.events.push((end, event));
        }
    }

    /// What is wrong with the answer "off": an emulator lives, or one may come of what is under way. Somebody who starts the guest after
    /// the last question to all hosts has begun cannot be known of.
    pub(crate) fn not_off(&self) -> Option<String> {
        let last_round = self.hosts.iter().filter_map(|host| host.asked).min();
        for host in &self.hosts {
            if !host.forgotten.is_empty() {
                return Some(format!("an emulator that libvirt has forgotten lives on {}", host.uri));
            }
            if let Some(copy) = &host.copy
                && copy.since.is_none_or(|since| last_round.is_none_or(|round| since < round))
            {
                return Some(format!("it lives on {}: {copy:?}", host.uri));
            }
        }
        self.transfer.is_some_and(|transfer| self.may_yet_come(transfer)).then(|| "a copy of it is still to come".into())
    }

    fn may_yet_come(&self, transfer: Move) -> bool {
        transfer.orphan.is_none_or(|since| now() < since + IN_FLIGHT)
    }

    /// The host of a copy that is still there.
    fn place(&self, number: usize) -> Option<usize> {
        self.hosts.iter().position(|host| host.copy.as_ref().is_some_and(|copy| copy.number == number))
    }

    /// Takes a copy out of its host, with what that means for a move.
    fn remove(&mut self, host: usize) {
        if self.is_listed_on(host) {
            return;
        }
        self.hosts[host].copy = None;
        let Some(transfer) = &mut self.transfer else { return };
        if host == transfer.from {
            transfer.orphan.get_or_insert_with(now);
            match transfer.step {
                Step::Asked => self.events.push((now() + IN_FLIGHT, Event::MoveEnds)),
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

    /// The guest's CPUs run on this host.
    pub(crate) fn runs(&self, host: usize) -> bool {
        self.hosts[host].copy.as_ref().is_some_and(|copy| copy.state == RUNNING && !copy.held && !copy.gone)
    }

    /// Whether its emulator is stopped here, by the program.
    pub(crate) fn is_held(&self, host: usize) -> bool {
        self.hosts[host].copy.as_ref().is_some_and(|copy| copy.held)
    }

    /// Never twice.
    fn watch(&mut self) {
        if (0..self.hosts.len()).filter(|host| self.runs(*host)).count() > 1 {
            self.wrong.get_or_insert("it runs on both hosts".into());
        }
    }

    /// The program ends the copy of a host: one that is not needed any more.
    fn watch_end(&mut self, host: usize) {
        self.forced = true;
        if self.goes_on
            && !self.ends
            && self.hosts[host].copy.is_some()
            && !(0..self.hosts.len()).any(|other| other != host && self.runs(other))
        {
            self.wrong.get_or_insert("the last copy was ended".into());
        }
    }

    /// Ends the copy here, or begins to. Gives how long that takes.
    fn end(&mut self, host: usize) -> Duration {
        match &self.hosts[host].copy {
            Some(Copy { hangs: true, .. }) => {
                self.begin_ending(host, GIVES_UP);
                GIVES_UP
            }
            Some(_) => {
                let time = self.temper.killing();
                if time.is_zero() {
                    self.remove(host);
                    return CALL;
                }
                self.begin_ending(host, time);
                time
            }
            None => CALL,
        }
    }
}

fn now() -> Instant {
    super::now().unwrap_or_else(Instant::now)
}
