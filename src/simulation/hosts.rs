//! Hosts with libvirt, one guest on them, and a move of it that may be under way.

mod calls;
mod emulator;
mod events;
mod faults;
mod judged;
mod oddities;
mod postcopy;
mod transfer;

use super::{FOR_EVER, deviate, lasted, pass, tell};
use crate::cluster::Peer;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_ulong};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a step of a handover takes.
const HANDOVER: Duration = Duration::from_millis(20);

/// How long a guest takes to come up.
const START: Duration = Duration::from_millis(200);

const RUNNING: c_int = 1;
const PAUSED: c_int = 3;
const SHUT_OFF: c_int = 5;
const BY_USER: c_int = 1;
const BY_MIGRATION: c_int = 2;
const STARTING_UP: c_int = 11;

use faults::*;
use transfer::Move;

pub(crate) use emulator::Temper;
pub(crate) use faults::Fault;
pub(crate) use postcopy::Halves;
pub(crate) use transfer::Step;

type Answer<T> = Result<T, Fault>;

/// What a program that asks again can see of the world.
type Looks = (Option<Step>, Option<Halves>, Vec<Reach>, usize);

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
    /// Whether it keeps a memory of the guest, from which the next start goes on.
    pub(crate) saved: bool,
    pub(crate) copy: Option<Copy>,
    /// Emulators that libvirt has forgotten, and that live, by their numbers.
    pub(crate) forgotten: Vec<usize>,
    /// When it was last asked for the guest.
    asked: Option<Instant>,
    /// Whether its libvirt has said how the guest is.
    pub(crate) told: bool,
    /// When a copy that ran here was ended last.
    ran_until: Option<Instant>,
    /// Whether a frozen daemon has a request to end the guest.
    queued: bool,
    /// Whether it has one to create the guest.
    pub(crate) creates: bool,
    /// Until when its ordinary workers are all taken: what it is asked to do waits, and only questions with priority are answered.
    taken: Option<Instant>,
    /// When a word came to it, or from it, last.
    heard: Option<Instant>,
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
    /// Another agent, which has asked the first host for the guest long ago, creates it.
    Rivals(usize),
    /// The guest ends by itself.
    Ends(usize),
    /// Somebody destroys it, whose emulator hangs from now on.
    Hangs(usize),
    /// The move goes on to this step, and then the daemons of source and target do not hear each other any more; and whether the target is
    /// cut off from the program too.
    Parts(Step, bool),
    /// The emulators of a post-copy lose each other.
    Breaks,
    /// They could find each other again.
    Mends,
    /// Its daemons do not hear each other any more.
    Unhears,
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
    /// Somebody starts it there.
    Starts(usize),
    /// The agent there that has created it asks the first host again; since when it does.
    Asks(usize, Instant),
    /// A host that was lost is there again.
    Heals(usize),
    /// A host cannot be reached any more.
    Falls(usize),
    /// The move has come to its end, in whatever way it does by itself.
    MoveEnds,
    /// The move makes the step after this one.
    Next(Step),
    /// This comes of a post-copy.
    Halves(postcopy::Comes),
    /// Both daemons give up a move on whose other side nobody is heard.
    GivesUp,
    /// In this step the target of the move is lost for good.
    Lost(Step),
    /// It runs at the target, whose daemon is lost before it says so, for this time.
    Unsaid(Duration),
}

/// All there is.
pub(crate) struct World {
    pub(crate) hosts: Vec<Host>,
    transfer: Option<Move>,
    /// A guest that is half here and half there, and whether a frozen daemon was asked for that.
    pub(crate) halves: Option<Halves>,
    halves_asked: bool,
    /// How long the rest of its memory takes then.
    pub(crate) rest: Duration,
    events: Vec<(Instant, Event)>,
    numbers: usize,
    /// What may happen in this world, beside the steps of a move.
    pub(crate) may: fn(&World, Happens) -> bool,
    /// Whether libvirt may do anything but what it was asked to, at once.
    pub(crate) unruly: bool,
    /// How often from now on it refuses to end or start the guest.
    pub(crate) refuses: u32,
    /// Whether a move goes on by itself, and how long its memory takes then.
    pub(crate) goes_on: bool,
    pub(crate) filling: Duration,
    /// How guest and emulator take it that they are to end.
    pub(crate) temper: Temper,
    /// From when until when an emulator of another guest ends on the first host, which may be this guest's for all that can be told.
    pub(crate) stranger: Option<(Instant, Instant)>,
    /// From when until when the process table of the first host cannot be read.
    pub(crate) unread: Option<(Instant, Instant)>,
    /// Whether the program is to end the guest, wherever it runs.
    pub(crate) ends: bool,
    /// Whether something has happened that need not have.
    pub(crate) disturbed: bool,
    /// When something has happened last.
    stirred: Option<Instant>,
    /// Whether the program has ended the guest by force.
    pub(crate) forced: bool,
    /// Whether it has asked for anything but an answer.
    pub(crate) meddled: bool,
    /// How long a request for a copy at the target may still be under way when the move is called off.
    pub(crate) in_flight: Duration,
    /// Whether nothing happens yet.
    pub(crate) quiet: bool,
    /// Whether something may happen at a new connection to a host that was lost: where each look needs one, it does not come back else.
    pub(crate) reopens: bool,
    /// A copy with a memory that is older than the disks: the guest has run at the target of its move since.
    stale: Option<usize>,
    /// How often the daemon of the source is refused at the target before it can ask for a move, which is then made at once.
    pub(crate) connects: Option<u32>,
    /// libvirt's answer to who asked for the move.
    moved: Option<Answer<()>>,
    /// Of what looks the same so often, how often that was so, and which calls were made.
    same: Option<(Looks, u32, Vec<&'static str>)>,
    /// The operation of a job of another kind, which the guest has at the first host.
    pub(crate) busy: Option<c_int>,
    /// A question that no daemon answers any more.
    pub(crate) unanswered: Option<&'static str>,
    /// The call that is made.
    pub(crate) calling: &'static str,
    /// Where the program's state files are.
    pub(crate) notes: PathBuf,
    /// What the nodes of the program's cluster have told each other, by attribute and node.
    pub(crate) told: BTreeMap<(&'static str, String), String>,
    /// The nodes of the program's cluster, by its own word.
    pub(crate) peers: Vec<Peer>,
    /// When another agent that starts the guest asks again, after it has created it; and whether it is the one that goes first.
    pub(crate) rival: (Duration, bool),
    /// How often from now on a node cannot tell the others anything.
    pub(crate) mute: u32,
    /// What is unusual in it.
    pub(crate) odd: oddities::Oddities,
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
            saved: false,
            copy: None,
            forgotten: Vec::new(),
            asked: None,
            told: false,
            ran_until: None,
            queued: false,
            creates: false,
            taken: None,
            heard: None,
        };
        Self {
            hosts: uris.iter().map(host).collect(),
            transfer: None,
            halves: None,
            halves_asked: false,
            rest: CLEARING,
            events: Vec::new(),
            numbers: 0,
            may: |_, _| false,
            unruly: false,
            refuses: 0,
            goes_on: false,
            filling: CLEARING,
            temper: Temper::default(),
            stranger: None,
            unread: None,
            ends: false,
            disturbed: false,
            stirred: None,
            forced: false,
            meddled: false,
            in_flight: IN_FLIGHT,
            quiet: false,
            reopens: false,
            stale: None,
            connects: None,
            moved: None,
            same: None,
            busy: None,
            unanswered: None,
            calling: "",
            notes: PathBuf::new(),
            told: BTreeMap::new(),
            peers: Vec::new(),
            rival: (CALL, false),
            mute: 0,
            odd: oddities::Oddities::default(),
            wrong: None,
        }
    }

    /// The guest runs on this host.
    pub(crate) fn run_on(&mut self, host: usize) {
        let copy = self.new_copy(RUNNING, 1);
        self.hosts[host].copy = Some(copy);
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

    /// The host of a copy that is still there.
    fn place(&self, number: usize) -> Option<usize> {
        self.hosts.iter().position(|host| host.copy.as_ref().is_some_and(|copy| copy.number == number))
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
