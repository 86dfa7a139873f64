//! The time an action has. Everything that may wait takes a [`Deadline`]; the only sleep of the program is here.
//!
//! Pacemaker ends an action that is late with SIGKILL to its process group: no clean-up runs and the exit reason is lost
//! (`child_kill_helper` in pacemaker's `lib/common/mainloop.c`). So the program has to be done before, every time.

#[cfg(test)]
use crate::simulation;
use nix::time::{ClockId, clock_gettime};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What one look at a guest needs on a busy host; a look that is cut short says nothing, or something misleading.
const LOOK: Duration = Duration::from_millis(300);

/// Now. Who measures time for a decision asks here: in tests it may be made up.
#[must_use]
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = simulation::now() {
        return now;
    }
    Instant::now()
}

/// How long ago 1970 began, by the clock of the host, which can be set.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one look at that clock")]
pub fn since_1970() -> Duration {
    #[cfg(test)]
    if let Some(time) = simulation::unix_time() {
        return Duration::from_secs(time);
    }
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Now, in seconds since 1970.
#[must_use]
pub fn unix_time() -> u64 {
    since_1970().as_secs()
}

/// A moment by which work must have ended. Cheap to copy; narrowing one never widens it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
}

impl Deadline {
    /// A deadline `budget` from now.
    #[must_use]
    pub fn after(budget: Duration) -> Self {
        Self { end: now() + budget }
    }

    /// One that does not come: for work that must not be given up, and ends by itself or with the process.
    #[must_use]
    pub fn never() -> Self {
        Self::after(Duration::from_secs(u32::MAX.into()))
    }

    /// Time left; zero when it has passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(now())
    }

    /// Whether the time is up.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.left().is_zero()
    }

    /// At most `budget` from now: for one step that must not eat the whole time.
    #[must_use]
    pub fn within(&self, budget: Duration) -> Self {
        Self { end: self.end.min(now() + budget) }
    }

    /// At most 1/`nth` of the time left.
    #[must_use]
    pub fn part(&self, nth: u32) -> Self {
        self.within(self.left() / nth)
    }

    /// At most `most`, and at most 1/`nth` of the time left.
    #[must_use]
    pub fn share(&self, most: Duration, nth: u32) -> Self {
        self.within(most.min(self.left() / nth))
    }

    /// Earlier by `reserve`: what must stay free for the work after this step.
    #[must_use]
    pub fn before(&self, reserve: Duration) -> Self {
        Self { end: self.end.checked_sub(reserve).unwrap_or_else(now) }
    }

    /// Earlier by 1/`nth` of the time left.
    #[must_use]
    pub fn before_part(&self, nth: u32) -> Self {
        self.before(self.left() / nth)
    }

    /// Earlier by `most`, but by no more than 1/`nth` of the time left.
    #[must_use]
    pub fn before_share(&self, most: Duration, nth: u32) -> Self {
        self.before(most.min(self.left() / nth))
    }

    /// Sleeps for `time`, or less if the deadline comes first. Says whether there is time left.
    #[must_use]
    pub fn pause(&self, time: Duration) -> bool {
        let time = time.min(self.left());
        #[cfg(test)]
        if simulation::is_on() {
            simulation::pass(time);
            return !self.expired();
        }
        #[expect(clippy::disallowed_methods, reason = "the one sleep of the program")]
        thread::sleep(time);
        !self.expired()
    }

    /// Sleeps before a retry, as [`Deadline::pause`]; false if there is no time for another look.
    #[must_use]
    pub fn again(&self, time: Duration) -> bool {
        self.before(LOOK).pause(time)
    }

    /// Runs `work` as a [`Task`] and waits for it until the deadline; `None` when it did not finish (or panicked).
    pub fn run<T, F>(&self, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Task::start(work).wait(self)
    }
}

/// Seconds since this host was booted, those in which it slept included: for what is kept below `/run`. 0 if the clock cannot be had.
#[must_use]
pub fn seconds_since_boot() -> i64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec())
}

/// Why a task has given no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It has not finished in time.
    Late,
    /// It never will: no thread could be made for it, or it has panicked.
    Never,
}

/// Work in a thread of its own.
///
/// libvirt's calls have no time limit of their own: opening a connection to a daemon that was stopped blocks for ever.
/// A task that did not finish is left behind and ends with the process; so it must own what it uses, and must not be something
/// that blocks in the kernel uninterruptibly (file access on shared storage): such a thread would keep the process from exiting.
/// Those go to a child process, see [`crate::program`].
pub struct Task<T> {
    answer: mpsc::Receiver<T>,
    #[cfg(test)]
    simulated: Option<simulation::Task<T>>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work`.
    pub fn start<F>(work: F) -> Self
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let (give, answer) = mpsc::sync_channel(1);
        #[cfg(test)]
        if let Some(begin) = simulation::now() {
            return Self { answer, simulated: Some(simulation::Task::start(begin, work)) };
        }
        // A thread that cannot be made, like one that panics, drops its end of the channel: no answer.
        let _ = thread::Builder::new().name("task".into()).spawn(move || {
            // The receiver is gone when nobody wants the answer any more.
            let _ = give.send(work());
        });
        Self {
            answer,
            #[cfg(test)]
            simulated: None,
        }
    }

    /// Waits until it has finished, or until the deadline. A finished task is seen also when the deadline has passed.
    #[must_use]
    pub fn wait(&self, deadline: &Deadline) -> Option<T> {
        self.answer(deadline).ok()
    }

    /// Like [`Task::wait`], for who has to know why there is no answer.
    ///
    /// # Errors
    /// Whether it may still come.
    pub fn answer(&self, deadline: &Deadline) -> Result<T, Unanswered> {
        #[cfg(test)]
        if let Some(task) = &self.simulated {
            return task.wait(deadline.end).ok_or(Unanswered::Late);
        }
        self.answer.recv_timeout(deadline.left()).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => Unanswered::Late,
            mpsc::RecvTimeoutError::Disconnected => Unanswered::Never,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_never_widens() {
        let deadline = Deadline::after(Duration::from_secs(1));
        assert!(deadline.within(Duration::from_secs(60)).left() <= Duration::from_secs(1));
        assert!(deadline.before(Duration::from_millis(900)).left() <= Duration::from_millis(100));
        assert!(deadline.before(Duration::from_secs(60)).expired());
    }

    #[test]
    fn parts_of_the_time_left() {
        let deadline = Deadline::after(Duration::from_secs(120));
        let is = |part: Deadline, seconds: u64| (Duration::from_secs(seconds - 20)..=Duration::from_secs(seconds)).contains(&part.left());
        assert!(is(deadline.part(4), 30) && is(deadline.before_part(4), 90));
        assert!(is(deadline.share(Duration::from_secs(60), 4), 30) && is(deadline.share(Duration::from_secs(25), 4), 25));
        assert!(is(deadline.before_share(Duration::from_secs(60), 4), 90) && is(deadline.before_share(Duration::from_secs(20), 4), 100));
        assert!(is(deadline.within(Deadline::never().left()), 120));
    }

    #[test]
    fn a_pause_ends_with_the_deadline() {
        let deadline = Deadline::after(Duration::from_millis(20));
        let begin = Instant::now();
        assert!(!deadline.pause(Duration::from_secs(60)));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn another_look_has_time() {
        let deadline = Deadline::after(Duration::from_secs(60));
        assert!(deadline.again(Duration::from_millis(1)));
        assert!(!Deadline::after(LOOK / 2).again(Duration::from_millis(1)));
    }

    #[test]
    fn work_that_blocks_is_left_behind() {
        let (never, wait) = mpsc::channel::<()>();
        let task = Task::start(move || wait.recv());
        assert_eq!(task.answer(&Deadline::after(Duration::from_millis(20))), Err(Unanswered::Late));
        drop(never);
        assert_eq!(Deadline::after(Duration::from_secs(60)).run(|| 42), Some(42));
    }

    #[test]
    fn work_that_panics_is_no_answer() {
        let answer: Option<()> = Deadline::after(Duration::from_secs(60)).run(|| panic!("on purpose"));
        assert_eq!(answer, None);
        let task: Task<()> = Task::start(|| panic!("on purpose"));
        assert_eq!(task.answer(&Deadline::after(Duration::from_secs(60))), Err(Unanswered::Never));
    }
}
