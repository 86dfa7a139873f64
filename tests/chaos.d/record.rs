//! Writes the history down while it happens: the guests' disks, the emulators, Pacemaker's log, the power switch.

use crate::log::{Event, Growing, day_of, event, outcome_of};
use anyhow::{Context, Result};
use lab::heartbeat::Ring;
use lab::history::{Action, Boot, Down, Emulator, Fault, FaultKind, Fencing, Guest, History, Operation, Outcome, Request, Rest};
use lab::power::Power;
use lab::process::{Identity, arguments, check, pids};
use lab::{Lab, Membership, Watch, Watcher};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at logs and processes.
const LOOK: Duration = Duration::from_millis(200);
/// A line of a log is read at most so many seconds after it was written.
const READ_LATE: f64 = 3.0;
/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// Between two questions to Pacemaker.
const ASK: Duration = Duration::from_secs(1);

/// What is written down, by several threads.
pub struct Recorder {
    begin: Instant,
    /// The time of day at the beginning, as logs have it.
    day: f64,
    history: Mutex<History>,
    /// Of which guests the kernel was broken, and when.
    panics: Mutex<Vec<(String, f64)>>,
    /// Which guests are on the storage that hangs and fails.
    on_failing_storage: Mutex<Vec<String>>,
    /// Whether the agent under test promises to let a guest go on when the storage that has paused it has room again.
    resumes: bool,
    /// What Pacemaker said last.
    view: Mutex<Option<Membership>>,
    end: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    pub fn new(resumes: bool) -> Result<Self> {
        let day = day_of(check(&["date", "+%T.%N"], Duration::from_secs(10))?.trim()).context("date says no time of day")?;
        Ok(Self {
            begin: Instant::now(),
            day,
            history: Mutex::default(),
            panics: Mutex::default(),
            on_failing_storage: Mutex::default(),
            resumes,
            view: Mutex::default(),
            end: AtomicBool::new(false),
        })
    }

    /// Seconds since the start.
    pub fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// What Pacemaker said last.
    pub fn view(&self) -> Option<Membership> {
        locked(&self.view).clone()
    }

    /// An operation from its beginning to its end.
    pub fn operation(&self, request: Request, subject: &str, text: &str, work: impl FnOnce() -> bool) -> bool {
        self.told(request, subject, text, || (request, work()))
    }

    /// The same, of which only the end tells what it was.
    pub fn told(&self, request: Request, subject: &str, text: &str, work: impl FnOnce() -> (Request, bool)) -> bool {
        let begin = self.now();
        let number = {
            let mut history = locked(&self.history);
            let (subject, text) = (subject.to_owned(), text.to_owned());
            history.operations.push(Operation { request, subject, text, begin, end: f64::INFINITY, ok: false });
            history.operations.len() - 1
        };
        let (request, ok) = work();
        let end = self.now();
        let operation = &mut locked(&self.history).operations[number];
        (operation.request, operation.ok, operation.end) = (request, ok, end);
        ok
    }

    /// A fault begins: what it is called when it is over.
    pub fn fault(&self, kind: FaultKind, subject: &str) -> usize {
        let mut history = locked(&self.history);
        history.faults.push(Fault { kind, subject: subject.to_owned(), begin: self.now(), end: f64::INFINITY });
        history.faults.len() - 1
    }

    pub fn over(&self, fault: usize) {
        locked(&self.history).faults[fault].end = self.now();
    }

    /// It never came to it.
    pub fn withdrawn(&self, fault: usize) {
        let begin = locked(&self.history).faults[fault].begin;
        let mut history = locked(&self.history);
        (history.faults[fault].subject, history.faults[fault].end) = ("nobody".to_owned(), begin);
    }

    /// Looks until [`Recorder::finish`]; Pacemaker's log and the emulators.
    pub fn watch(&self, lab: &Lab) {
        let logs: Vec<PathBuf> = (1..=lab.nodes()).map(|node| lab.layout().on_disk(node, "/var/log/pacemaker/pacemaker.log")).collect();
        let mut log = Growing::default();
        let read = |log: &mut Growing| logs.iter().flat_map(|path| log.lines(path)).filter_map(|line| event(&line)).collect();
        // What stands there was before the beginning.
        let _: Vec<Event> = read(&mut log);
        let mut consoles = Growing::default();
        let mut known: BTreeMap<(i32, u64), usize> = BTreeMap::new();
        let mut read_at = self.now();
        while !self.end.load(Ordering::Relaxed) {
            // The answers before the processes: what is seen after an answer was there after it.
            let (before, begin) = (read_at, self.now());
            let events = read(&mut log);
            self.enter(events, before, self.now());
            read_at = begin;
            self.look(lab, &mut known);
            self.listen(lab, &mut consoles);
            thread::sleep(LOOK);
        }
        self.enter(read(&mut log), read_at, self.now());
    }

    /// Asks Pacemaker until [`Recorder::finish`].
    pub fn ask(&self, lab: &Lab) {
        let mut lost = None;
        while !self.end.load(Ordering::Relaxed) {
            let seen = lab.membership().ok();
            // Who does not answer says nothing about it.
            let quorum = seen.as_ref().filter(|seen| seen.dc.is_some()).map(|seen| seen.quorum);
            match (quorum, lost) {
                // A node that is cut off has none while the others choose a controller.
                (Some(false), None) if nobody_has_quorum(lab) => lost = Some(self.fault(FaultKind::NoQuorum, "")),
                (Some(true), Some(fault)) => {
                    self.over(fault);
                    lost = None;
                }
                _ => {}
            }
            *locked(&self.view) = seen;
            thread::sleep(ASK);
        }
        lost.into_iter().for_each(|fault| self.over(fault));
    }

    /// A guest is on the storage that hangs and fails.
    pub fn is_on_failing_storage(&self, guest: &str) {
        locked(&self.on_failing_storage).push(guest.to_owned());
    }

    /// The cluster has nothing left to do, and these guests do not run.
    pub fn down(&self, guests: impl IntoIterator<Item = String>) {
        let at = self.now();
        locked(&self.history).down.extend(guests.into_iter().map(|guest| Down { guest, at, silent: None }));
    }

    /// Pacemaker runs a guest that writes nothing, and nothing is under way.
    pub fn silent(&self, guest: String, how: String) {
        let at = self.now();
        locked(&self.history).down.push(Down { guest, at, silent: Some(how) });
    }

    /// All is healed, and the cluster has nothing left to do; some guests do not write.
    pub fn rests(&self, but_for: Vec<String>) {
        let at = self.now();
        locked(&self.history).rests.push(Rest { at, but_for });
    }

    /// Whether a fault of these kinds was seen since the cluster rested last.
    pub fn since_rest(&self, is_meant: impl Fn(FaultKind) -> bool) -> bool {
        let history = locked(&self.history);
        let since = history.rests.last().map_or(0.0, |rest| rest.at);
        history.faults.iter().any(|fault| is_meant(fault.kind) && fault.end >= since)
    }

    /// See [`History::ends_with_a_stop`].
    pub fn ends_with_a_stop(&self, guest: &str, node: &str) -> bool {
        locked(&self.history).ends_with_a_stop(guest, node)
    }

    pub fn finish(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Enters what was read at a moment; what stood there when it was read `before` is entered already.
    fn enter(&self, events: Vec<Event>, before: f64, at: f64) {
        let mut history = locked(&self.history);
        for event in events {
            match event {
                Event::Forgotten { guest } => {
                    // What others have forgotten is known by what they were asked for.
                    let migrates =
                        |one: &Operation| one.subject == guest && one.text.starts_with("kvmha migrate") && one.end >= at - READ_LATE;
                    if history.operations.iter().any(migrates) {
                        let text = format!("kvmha migrate has {guest} looked for anew");
                        let request = Request::Forget;
                        history.operations.push(Operation { request, subject: guest, text, begin: at, end: at, ok: true });
                    }
                }
                Event::Begun { node, guest, name } => {
                    let (outcome, text) = (Outcome::Failed, "no answer is known".to_owned());
                    let (begin, end, unanswered) = (at, f64::INFINITY, f64::INFINITY);
                    history.actions.push(Action { guest, node, name, begin, end, unanswered, outcome, text });
                }
                Event::Lost { node, day } => {
                    // Nothing here lasts for a day. A node whose clock has jumped writes another time.
                    let written = (day - self.day).rem_euclid(DAY);
                    let at = if (0.0..READ_LATE).contains(&(at - written)) { written } else { at };
                    history.faults.push(Fault { kind: FaultKind::NodeLost, subject: node, begin: at, end: at });
                }
                Event::Ended { node, guest, name, text } => {
                    let open = |one: &&mut Action| one.end.is_infinite() && one.node == node && one.guest == guest && one.name == name;
                    let outcome = outcome_of(&text);
                    match history.actions.iter_mut().rev().find(open) {
                        Some(action) => (action.end, action.unanswered, action.outcome, action.text) = (at, before, outcome, text),
                        // A recurring monitor is not announced.
                        None => history.actions.push(Action { guest, node, name, begin: at, end: at, unanswered: before, outcome, text }),
                    }
                }
            }
        }
    }

    /// What the guests' kernels say when they are broken; a hang that a busy machine explains is not meant.
    fn listen(&self, lab: &Lab, consoles: &mut Growing) {
        let broken =
            |line: &str| ["Kernel panic", "Oops: ", "BUG: "].iter().any(|word| line.contains(word)) && !line.contains("soft lockup");
        for guest in lab.guests().unwrap_or_default() {
            for node in 1..=lab.nodes() {
                let path = lab.layout().on_disk(node, &format!("/var/log/libvirt/console-{guest}.log"));
                if consoles.lines(&path).iter().any(|line| broken(line)) {
                    let now = self.now();
                    let mut panics = locked(&self.panics);
                    // One says it in several lines.
                    if !panics.iter().any(|(known, at)| *known == guest && now - at < 2.0) {
                        panics.push((guest.clone(), now));
                    }
                }
            }
        }
    }

    fn look(&self, lab: &Lab, known: &mut BTreeMap<(i32, u64), usize>) {
        let spaces = lab.spaces();
        for pid in pids() {
            let Some(identity) = Identity::of(pid) else { continue };
            if known.contains_key(&(identity.pid, identity.start)) {
                continue;
            }
            let is_emulator = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("qemu-system-x86_64"));
            let Some(guest) = is_emulator.then(|| guest_of(pid)).flatten() else { continue };
            let space = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap_or_default();
            let Some((_, node)) = spaces.iter().find(|(known, _)| *known == space) else { continue };
            let now = self.now();
            let mut history = locked(&self.history);
            let (node, process, incoming) = (node.clone(), identity.to_string(), arguments(pid).iter().any(|word| word == "-incoming"));
            history.emulators.push(Emulator { guest, node, process, incoming, first: now, last: now });
            known.insert((identity.pid, identity.start), history.emulators.len() - 1);
        }
        known.retain(|(pid, start), number| {
            // What is seen after this moment lived at it.
            let now = self.now();
            let lives = lives(*pid, *start);
            if lives {
                locked(&self.history).emulators[*number].last = now;
            }
            lives
        });
    }

    /// The history as it is, with what the guests wrote; whether each did so when all were to run, and what was left after that.
    pub fn history(&self, lab: &Lab, watchers: &[(String, Watcher)], beating: &[bool], left: Vec<String>) -> Result<History> {
        let mut history = locked(&self.history).clone();
        history.left = left;
        history.fencings = fencings(lab, self.begin)?;
        let now = self.now();
        for action in history.actions.iter_mut().filter(|action| action.end.is_infinite()) {
            (action.end, action.unanswered) = (now, now);
        }
        for (index, (name, watcher)) in watchers.iter().enumerate() {
            let watch = watcher.snapshot();
            let two_writers = watch.two_writers.clone().map(|why| (now, why));
            // What is replaced by now, and what is on the disk.
            let (lost, unread) = (watch.lost + lost(&lab.guest_image(name))?, watch.errors.0);
            let (wanted, beats) = (beating.get(index).is_some(), beating.get(index) == Some(&true));
            let panics = locked(&self.panics).iter().filter(|(guest, _)| guest == name).map(|(_, at)| *at).collect();
            let on_failing_storage = locked(&self.on_failing_storage).contains(name);
            let (name, boots, resumes) = (name.clone(), self.boots(&watch), self.resumes);
            let guest = Guest { name, boots, two_writers, lost, unread, panics, on_failing_storage, resumes, wanted, beats };
            history.guests.push(guest);
        }
        Ok(history)
    }

    fn boots(&self, watch: &Watch) -> Vec<Boot> {
        let mut boots: Vec<Boot> = Vec::new();
        for beat in &watch.beats {
            let at = beat.at.saturating_duration_since(self.begin).as_secs_f64();
            match boots.last_mut().filter(|boot| boot.id == beat.record.boot) {
                Some(boot) => boot.last = at,
                None => boots.push(Boot { id: beat.record.boot, first: at, last: at }),
            }
        }
        boots
    }
}

/// Whether all nodes that are there have a controller and no quorum.
fn nobody_has_quorum(lab: &Lab) -> bool {
    let there = lab.node_names().into_iter().filter(|node| lab.power(node).is_ok_and(|power| power == Power::On));
    let mut answers = there.map(|node| lab.membership_of(&node));
    answers.all(|answer| answer.is_ok_and(|seen| seen.dc.is_some() && !seen.quorum))
}

/// Records that are missing. A look at the ring while it is written may miss some at its turn: so what is missing twice.
fn lost(image: &Path) -> Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..3 {
        least = least.min(Ring::read(image)?.lost);
        if least == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(700));
    }
    Ok(least)
}

/// The guest that an emulator runs.
fn guest_of(pid: i32) -> Option<String> {
    let words = arguments(pid);
    let name = words.windows(2).find(|pair| pair[0] == "-name")?;
    name[1].split(',').find_map(|part| part.strip_prefix("guest=")).map(str::to_owned)
}

/// Whether any thread of a process lives.
fn lives(pid: i32, start: u64) -> bool {
    if (Identity { pid, start }).alive() {
        return true;
    }
    // Its first thread may be dead while others are not: the pid is taken as long as they are.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut others = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|thread: &i32| *thread != pid);
    let same = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, tail)| tail.split_whitespace().nth(19)?.parse().ok()) == Some(start)
    };
    others.any(|thread| Identity::of(thread).is_some()) && same()
}

/// What the power switch was asked: "SECONDS ADDRESS asks: off NODE (fault…)" and "SECONDS ADDRESS off NODE: ok".
fn fencings(lab: &Lab, begin: Instant) -> Result<Vec<Fencing>> {
    let text = fs::read_to_string(lab.layout().switch_log()).context("the power switch has no log")?;
    let (now, since) = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64(), begin.elapsed().as_secs_f64());
    let mut fencings: Vec<Fencing> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(at) = words.next().and_then(|word| word.parse::<f64>().ok()).map(|at| at - now + since) else { continue };
        let rest: Vec<&str> = words.skip(1).collect();
        match rest[..] {
            ["asks:", "off", node, ..] => fencings.push(Fencing { node: node.to_owned(), asked: at, done: None }),
            ["off", node, "ok"] => {
                let node = node.trim_end_matches(':');
                let open = fencings.iter_mut().rev().find(|fencing| fencing.node == node && fencing.done.is_none());
                open.into_iter().for_each(|fencing| fencing.done = Some(at));
            }
            _ => {}
        }
    }
    fencings.retain(|fencing| fencing.asked >= 0.0);
    Ok(fencings)
}
