//! A model of the hosts around this program, for tests that try every course of events: what happens between any two calls, and what
//! each call answers, is a choice, and all of them are made, one after the other.
//!
//! The code under test is the program's own, unchanged, `virt` included: the functions of libvirt.so.0 that it calls come here
//! (`domain/ffi/simulated.rs`), on the thread of such a test only. So does the time ([`now`]), which passes by waiting and by calls alone,
//! and what is read and done in `/proc` about emulators. A [`crate::deadline::Task`] is done at once; that it went on beside
//! others is made up by setting the clock back.
//!
//! What a model proves holds for its hosts: how they answer is what libvirt's source says and what the laboratory has shown.

mod choice;
pub(crate) mod hosts;
mod task;

use hosts::{Happens, World};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use choice::{deviate, pick};
pub(crate) use task::{Task, expect_move};

/// What a call takes that does not end in the time of any test.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// Seconds since 1970 when a course begins.
const BEGIN: u64 = 1_800_000_000;

thread_local! {
    static CLOCK: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
    static STEP: Cell<(Duration, u64)> = const { Cell::new((Duration::MAX, 0)) };
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static STORY: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    static CHOSEN: RefCell<BTreeSet<(&'static str, String)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Whether this thread is one whose time and hosts are made up.
pub(crate) fn is_on() -> bool {
    CLOCK.get().is_some()
}

/// The time of this thread, if that is made up.
pub(crate) fn now() -> Option<Instant> {
    CLOCK.get().map(|(_, now)| now)
}

/// [`now`] in seconds since 1970.
pub(crate) fn unix_time() -> Option<u64> {
    let (at, seconds) = STEP.get();
    CLOCK.get().map(|(begin, now)| BEGIN + now.duration_since(begin).as_secs() + if lasted() < at { 0 } else { seconds })
}

/// Somebody sets this node's clock forward, so far into this course.
pub(crate) fn step_clock(at: Duration, seconds: u64) {
    STEP.set((at, seconds));
}

/// Sets the time.
pub(crate) fn set(time: Instant) {
    if let Some((begin, _)) = CLOCK.get() {
        CLOCK.set(Some((begin, time)));
    }
}

/// Lets time pass.
pub(crate) fn pass(time: Duration) {
    if let Some(now) = now() {
        set(now + time);
    }
}

/// How long this course has lasted.
pub(crate) fn lasted() -> Duration {
    CLOCK.get().map_or(Duration::ZERO, |(begin, now)| now.duration_since(begin))
}

/// A folder for the notes of a program, in memory.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder")
}

/// Where the state files of this thread are: in no world but a made up one may they be lost with it.
pub(crate) fn state_directory() -> Option<PathBuf> {
    is_on().then(|| world(|world| world.notes.clone()))
}

/// Something on the world.
pub(crate) fn world<T>(work: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| work(world.as_mut().expect("a world")))
}

/// A line of the story of a course, which is told when it has gone wrong.
pub(crate) fn tell(line: impl FnOnce() -> String) {
    STORY.with_borrow_mut(|story| {
        if let Some(story) = story {
            story.push(format!("{:>9.3} {}", lasted().as_secs_f64(), line()));
        }
    });
}

/// At this call something happens.
fn chosen(call: &'static str, happens: Happens) {
    CHOSEN.with_borrow_mut(|chosen| chosen.insert((call, format!("{happens:?}"))));
}

/// What has happened at which calls, in all courses so far.
pub(crate) fn all_chosen() -> BTreeSet<(&'static str, String)> {
    CHOSEN.with_borrow(Clone::clone)
}

/// Goes through every course of events in `world` that leaves the usual one in up to `budget` places. `act` has the program do
/// something; `judge` says what is wrong with the world and the answer after it. Gives how often each answer was given.
pub(crate) fn explore(
    budget: usize,
    world: impl Fn() -> World,
    act: impl Fn() -> String,
    judge: impl Fn(&mut World, &str) -> Result<(), String>,
) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    let course = || {
        let begin = Instant::now();
        CLOCK.set(Some((begin, begin)));
        STEP.set((Duration::MAX, 0));
        WORLD.set(Some(world()));
        let answer = act();
        let judged = WORLD.with_borrow_mut(|world| judge(world.as_mut().expect("a world"), &answer));
        tell(|| format!("the answer: {answer}"));
        CLOCK.set(None);
        WORLD.set(None);
        (answer, judged)
    };
    choice::begin(budget);
    loop {
        let (answer, judged) = course();
        if let Err(wrong) = judged {
            // The same once more, told.
            STORY.set(Some(Vec::new()));
            choice::again();
            let _ = course();
            let story = STORY.take().unwrap_or_default().join("\n");
            panic!("after {} courses: {wrong}\n{story}", answers.values().sum::<usize>());
        }
        *answers.entry(answer).or_default() += 1;
        if !choice::next() {
            return answers;
        }
    }
}
