//! What becomes of a guest that an error of its storage has paused: a part of the recurring monitor, `outage_policy`.
//!
//! The emulator keeps the request that failed and makes it again when the guest goes on, so nothing is lost by waiting. What must not be
//! is that it goes on here after another node has started it: the disks are the other's then, see [`alone`].

mod alone;
mod look;
mod marking;
mod readable;
mod relocation;
mod shown;
mod turn;

use super::Call;
use super::actions::Action;
use super::exit::Failure;
use super::parameters::OutagePolicy;
use crate::deadline::seconds_since_boot;
use crate::domain::definition::Identity;
use crate::domain::{creation, record};
use crate::log;
use look::{Look, Looked};
use relocation::Stays;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::time::Duration;

/// In how many looks in a row all storage must have answered before the guest goes on, or a disk must be out before it is given up.
const STEADY: u32 = 2;

/// How often it may be let go on within [`FLAPPING`] seconds. Storage that fails again and again needs a person: reading it may work
/// where writing does not, on a file system that is full or read-only.
const OFTEN: usize = 3;
/// See [`OFTEN`].
const FLAPPING: i64 = 600;

/// How long all looks at the storage may take, and the questions to other nodes.
const LOOKING: Duration = Duration::from_secs(5);

/// The course of an outage, remembered from one monitor to the next. Times are seconds since boot, as its note lives as long as the boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Course {
    /// Since when the guest is paused; `None`: it runs.
    since: Option<i64>,
    /// When the last look was.
    looked: Option<i64>,
    /// In how many looks in a row all its storage has answered.
    steady: u32,
    /// In how many looks in a row a disk was out, and since when.
    out: u32,
    out_since: Option<i64>,
    /// When it was let go on.
    resumed: Vec<i64>,
    /// What was said when it was given up, until its storage answers.
    given_up: Option<String>,
    /// What was shown last in the cluster.
    said: String,
}

/// What follows from a look at the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet.
    Wait,
    /// Nothing until a person lets it go on: it was let go on too often.
    Held,
    /// The guest may go on, as far as its storage is concerned.
    GoOn,
    /// It is out for too long.
    Over,
}

impl Course {
    /// Takes in one look at all of the storage.
    fn judge(&mut self, policy: OutagePolicy, delay: u64, look: Look, now: i64) -> Verdict {
        if self.since.is_none() {
            self.since = Some(now);
            self.forget_before(now);
        }
        // Monitors may come at the same moment, of two intervals or by hand.
        let again = self.looked.replace(now) != Some(now);
        match look {
            Look::Answers => (self.steady, self.out, self.out_since) = (self.steady + u32::from(again), 0, None),
            Look::Out => {
                (self.steady, self.out) = (0, self.out + u32::from(again));
                self.out_since.get_or_insert(now);
            }
            Look::Unclear => (self.steady, self.out) = (0, 0),
        }
        if look != Look::Out {
            self.given_up = None;
        }
        let gone = self.out_since.and_then(|since| u64::try_from(now - since).ok());
        match look {
            Look::Answers if self.is_held() => Verdict::Held,
            Look::Answers if self.steady >= STEADY => Verdict::GoOn,
            Look::Out if policy.gives_up() && self.out >= STEADY && gone.is_some_and(|gone| gone >= delay) => Verdict::Over,
            _ => Verdict::Wait,
        }
    }

    fn is_held(&self) -> bool {
        self.resumed.len() >= OFTEN
    }

    /// Leaves out when it was let go on too long ago to count. Not in an outage: one that is left to a person stays so.
    fn forget_before(&mut self, now: i64) {
        self.resumed.retain(|time| (0..FLAPPING).contains(&(now - time)));
    }

    /// The guest was let go on.
    fn went_on(&self, now: i64) -> Self {
        let mut course = Self { resumed: self.resumed.clone(), ..Self::default() };
        course.forget_before(now);
        course.resumed.push(now);
        course
    }

    /// It was seen to run, or was proven gone. After it was left to a person, a person has acted, and it begins anew.
    fn ended(self) -> Self {
        let resumed = if self.is_held() { Vec::new() } else { self.resumed };
        Self { resumed, ..Self::default() }
    }
}

/// What became of a guest that was paused.
pub(in crate::ocf) enum Handled {
    /// It was let go on.
    GoesOn,
    /// It is still paused; a sentence for a person.
    Paused(String),
}

impl Call {
    /// Looks after a guest that an I/O error has paused; `seen` says so.
    ///
    /// # Errors
    /// It is given up here.
    pub(in crate::ocf) fn outage(&self, identity: &Identity, seen: String) -> Result<Handled, Failure> {
        let (name, policy, now) = (&identity.name, self.parameters.outage_policy, seconds_since_boot());
        if self.action != Action::Monitor || self.environment.probe || policy == OutagePolicy::Wait {
            return Ok(Handled::Paused(seen));
        }
        let mut course = self.outage_course().unwrap_or_default();
        let looked = self.look_at_storage(name);
        let (look, trouble) = (looked.look, looked.trouble.clone());
        let text = match course.judge(policy, self.parameters.outage_delay, look, now) {
            Verdict::Wait => trouble.unwrap_or_else(|| "its storage answers".into()),
            Verdict::Held => {
                format!("its storage answers, but it was let go on {OFTEN} times in {} min: that is left to a person", FLAPPING / 60)
            }
            Verdict::GoOn => match self.let_go_on(identity) {
                Ok(true) => {
                    log::info(format_args!("{name} goes on after {} s, its storage answers again", now - course.since.unwrap_or(now)));
                    self.close_outage(course.went_on(now));
                    return Ok(Handled::GoesOn);
                }
                Ok(false) => {
                    course = Course { since: course.since, said: course.said.clone(), ..course.went_on(now) };
                    "it was to go on, and is not seen to".into()
                }
                Err(text) => format!("its storage answers, but it is not let go on: {text}"),
            },
            Verdict::Over => {
                let trouble = trouble.unwrap_or_default();
                match self.give_up(identity, &mut course, &looked) {
                    Ok(why) => {
                        let text = format!("{seen}; {why}");
                        self.keep_outage(course, &text);
                        return Err(Failure::generic(text));
                    }
                    Err(Stays::Because(text)) => format!("{trouble}; it stays here: {text}"),
                    Err(Stays::NotYet) if course.said.is_empty() => trouble,
                    Err(Stays::NotYet) => {
                        let said = course.said.clone();
                        self.write_outage(&course);
                        return Ok(Handled::Paused(said));
                    }
                }
            }
        };
        let text = format!("{seen}; {text}");
        self.keep_outage(course, &text);
        Ok(Handled::Paused(text))
    }

    /// Gives up the guest here, whose storage is out for long enough, and says why. For another node this is announced in the cluster, once.
    ///
    /// # Errors
    /// Why it stays.
    fn give_up(&self, identity: &Identity, course: &mut Course, looked: &Looked) -> Result<String, Stays> {
        let trouble = looked.trouble.as_deref().unwrap_or_default();
        if self.parameters.outage_policy == OutagePolicy::Stop {
            return Ok(format!("{trouble} (outage_policy=stop)"));
        }
        // Said once it stands: Pacemaker may take its time, and the next monitor must not take it back.
        if course.given_up.is_none() {
            let out = looked.out.as_ref().ok_or("which disk is out is not known")?;
            let node = self.announce(self.candidate(identity, out)?)?;
            course.given_up = Some(format!("(outage_policy=relocate, {node} reads its disks)"));
        }
        Ok(format!("{trouble} {}", course.given_up.clone().unwrap_or_default()))
    }

    /// The guest runs, or has ended: an outage is over, by a person's hand if this has not ended it. Costs a look for a file when there was none.
    pub(in crate::ocf) fn end_outage(&self) {
        if let Some(course) = self.outage_course().filter(|course| course.since.is_some()) {
            log::info("the outage of the guest's storage is over");
            self.close_outage(course.ended());
        }
    }

    /// Lets the guest go on, if no other node has it or could have it. Whether it is seen to: a request without an answer may be carried out
    /// later, and the guest may be paused again at once.
    fn let_go_on(&self, identity: &Identity) -> Result<bool, String> {
        self.alone(identity, &self.deadline.share(LOOKING, 2))?;
        let deadline = self.deadline.share(LOOKING, 2);
        match creation::go_on(identity, &self.parameters.hypervisor, &deadline) {
            Ok(runs) => Ok(runs),
            Err(error) if error.leaves_open() => {
                log::warning(error);
                Ok(false)
            }
            Err(error) => Err(error.text),
        }
    }

    fn outage_course(&self) -> Option<Course> {
        self.shelf().get(record::Slot::Outage)
    }

    fn close_outage(&self, course: Course) {
        let shown = self.show_outage(None);
        // Otherwise the next monitor tries again to take it away.
        let since = if shown { None } else { Some(seconds_since_boot()) };
        self.write_outage(&Course { since, ..course });
    }

    fn keep_outage(&self, mut course: Course, text: &str) {
        if course.said != text && self.show_outage(Some(text)) {
            text.clone_into(&mut course.said);
        }
        self.write_outage(&course);
    }

    fn write_outage(&self, course: &Course) {
        self.shelf().put(record::Slot::Outage, course);
    }
}

/// A sentence in place of an error, which goes to the debug log: what is said of an outage stays the same as long as its cause does.
fn instead<E: Display>(sentence: &'static str) -> impl Fn(E) -> &'static str {
    move |error| {
        log::debug(|| format!("{sentence}: {error}"));
        sentence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks ten seconds apart: `a`nswers, `o`ut, `u`nclear; the verdicts by their first letters.
    fn verdicts(policy: OutagePolicy, delay: u64, looks: &str) -> String {
        let mut course = Course::default();
        let verdict = |(at, look): (usize, char)| {
            let now = 1000 + 10 * i64::try_from(at).unwrap();
            let look = match look {
                'a' => Look::Answers,
                'o' => Look::Out,
                _ => Look::Unclear,
            };
            let verdict = course.judge(policy, delay, look, now);
            if verdict == Verdict::GoOn {
                course = course.went_on(now);
            }
            match verdict {
                Verdict::Wait => 'w',
                Verdict::Held => 'h',
                Verdict::GoOn => 'g',
                Verdict::Over => 'o',
            }
        };
        looks.chars().enumerate().map(verdict).collect()
    }

    #[test]
    fn each_policy_does_what_it_says() {
        use OutagePolicy::{Relocate, Resume, Stop};
        for policy in [Resume, Stop, Relocate] {
            assert_eq!(verdicts(policy, 600, "ooaa"), "wwwg", "two looks in a row");
            assert_eq!(verdicts(policy, 600, "oaoaa"), "wwwwg");
            assert_eq!(verdicts(policy, 600, "auaa"), "wwwg", "what is not known is no answer");
        }
        assert_eq!(verdicts(Resume, 0, "oooooo"), "wwwwww");
        for policy in [Stop, Relocate] {
            assert_eq!(verdicts(policy, 20, "oooo"), "wwoo", "after the delay, and again");
            assert_eq!(verdicts(policy, 0, "oo"), "wo", "one look is none");
            assert_eq!(verdicts(policy, 0, "uuuu"), "wwww", "what cannot be asked is not given up");
        }
    }

    #[test]
    fn what_was_given_up_stays_so_until_the_storage_answers() {
        let mut course = Course { given_up: Some("because".into()), ..Course::default() };
        course.judge(OutagePolicy::Relocate, 0, Look::Out, 10);
        assert!(course.given_up.is_some());
        course.judge(OutagePolicy::Relocate, 0, Look::Answers, 20);
        assert!(course.given_up.is_none());
    }

    #[test]
    fn a_note_of_a_version_without_it_is_read() {
        let old = r#"{"since":1,"looked":2,"steady":0,"out":1,"out_since":1,"resumed":[],"said":""}"#;
        assert_eq!(serde_json::from_str::<Course>(old).unwrap().since, Some(1));
    }

    #[test]
    fn the_time_of_an_outage_begins_anew_when_the_storage_answered() {
        assert_eq!(verdicts(OutagePolicy::Stop, 20, "oaooo"), "wwwwo");
        let mut course = Course { since: Some(0), resumed: vec![1, 2, 3], ..Course::default() };
        assert_eq!(course.judge(OutagePolicy::Stop, 60, Look::Answers, 3600), Verdict::Held);
        assert_eq!(course.judge(OutagePolicy::Stop, 60, Look::Out, 3610), Verdict::Wait, "a look that is late after an hour");
    }

    #[test]
    fn storage_that_comes_and_goes_is_left_to_a_person() {
        assert_eq!(verdicts(OutagePolicy::Resume, 0, "aaaaaaaaa"), "wgwgwghhh");
        // One that was not seen to run at once, and runs at the next look, was not let go on by a person.
        let unseen = Course { since: Some(620), resumed: vec![600, 610], ..Course::default() };
        assert_eq!(unseen.ended().resumed, [600, 610]);
        let held = Course { since: Some(640), resumed: vec![600, 610, 620], ..Course::default() };
        assert_eq!(held.ended(), Course::default());
        let later = Course { resumed: vec![10, 20], ..Course::default() }.went_on(615);
        assert_eq!(later.resumed, [20, 615], "the first of them is ten minutes ago");
    }

    #[test]
    fn storage_that_came_and_went_an_hour_ago_is_no_matter_of_a_person() {
        let mut course = Course { resumed: vec![600, 610, 620], ..Course::default() };
        let mut answers = |now| course.judge(OutagePolicy::Resume, 0, Look::Answers, now);
        assert_eq!([answers(4000), answers(4010)], [Verdict::Wait, Verdict::GoOn]);
        let mut course = Course { resumed: vec![600, 610, 620], ..Course::default() };
        let mut answers = |now| course.judge(OutagePolicy::Resume, 0, Look::Answers, now);
        assert_eq!([answers(630), answers(640), answers(4000)], [Verdict::Held; 3]);
    }

    #[test]
    fn monitors_at_the_same_moment_are_one_look() {
        let mut course = Course::default();
        assert_eq!(course.judge(OutagePolicy::Stop, 0, Look::Answers, 5), Verdict::Wait);
        assert_eq!(course.judge(OutagePolicy::Stop, 0, Look::Answers, 5), Verdict::Wait);
        assert_eq!(course.judge(OutagePolicy::Stop, 0, Look::Answers, 6), Verdict::GoOn);
    }

    #[test]
    fn a_clock_that_was_set_back_gives_nothing_up() {
        let mut course = Course { since: Some(1000), out: 5, out_since: Some(1000), ..Course::default() };
        assert_eq!(course.judge(OutagePolicy::Stop, 0, Look::Out, 10), Verdict::Wait);
    }
}
