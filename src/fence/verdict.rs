//! From what every host answers to what is true of a guest: pure, and the most reviewed page of the fence agent.
//!
//! The rule: a guest is off only if every host was reachable and said that it does not run there, or is proven to be off itself. It is on
//! if any host says that it runs there, in whatever state. Everything else is not known, and what is not known is never off.

use crate::domain::emulator::Emulator;
use crate::domain::{Condition, State};
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

/// What one host says of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An emulator of it is there: running, paused, in shutdown, crashed, asleep, or in a state nobody knows.
    Active {
        /// Its UUID, if libvirt told.
        uuid: Option<String>,
        /// In what state.
        state: Seen,
    },
    /// The host has its definition and does not run it.
    Defined {
        /// Its UUID.
        uuid: String,
    },
    /// The host positively does not know it.
    Absent,
    /// The host is out of reach, and proven to be off: nothing runs there.
    Fenced {
        /// Since when; seconds since 1970.
        since: u64,
    },
    /// The host has another guest of this name: the UUID is not the one wanted.
    Foreign {
        /// The other guest's UUID.
        uuid: String,
    },
    /// The host has a guest with the UUID that is wanted and another name: a copied definition, or the guest itself, renamed. Nobody here can
    /// tell which of the two, so that it is neither ended nor off.
    Renamed {
        /// The other name.
        name: String,
    },
    /// Cannot tell, and why.
    Unknown(String),
}

/// How it is known that there is an emulator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// libvirt says so: it has it in this state.
    Told(Condition),
    /// libvirt has a transient guest that is not active: it is being set up or removed.
    SettingUp,
    /// libvirt does not know of it, but the process table does.
    Emulator(Emulator),
}

/// As the log has it.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(condition) => write!(f, "{condition}"),
            Self::SettingUp => f.write_str("being set up or removed"),
            Self::Emulator(emulator) => write!(f, "not known to libvirt, but its {emulator} is left"),
        }
    }
}

/// What all answers together mean. The numbers are those of the hosts in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs on these hosts.
    On(Vec<usize>),
    /// Every host answered (or is off), none runs it, and at least these have its definition.
    Off(Vec<usize>),
    /// Every host answered (or is off), and none knows it.
    Missing,
    /// None says that it runs there, but these did not answer.
    Unknown(Vec<usize>),
    /// The name stands for different guests on different hosts: these UUIDs; or the UUID for different names.
    Conflict(Vec<String>),
}

/// Judges the answers. Which guest is meant comes first, then whether it runs, then whether all have answered.
///
/// No hosts at all is "unknown": nobody said that it is off.
pub(super) fn judge(answers: &[Answer]) -> Verdict {
    let foreign = answers.iter().any(|answer| matches!(answer, Answer::Foreign { .. } | Answer::Renamed { .. }));
    let uuids: BTreeSet<&str> = answers.iter().filter_map(Answer::uuid).collect();
    if foreign || uuids.len() > 1 {
        return Verdict::Conflict(uuids.into_iter().map(Into::into).collect());
    }
    let places = |wanted: fn(&Answer) -> bool| -> Vec<usize> {
        answers.iter().enumerate().filter(|(_, answer)| wanted(answer)).map(|(host, _)| host).collect()
    };
    let active = places(|answer| matches!(answer, Answer::Active { .. }));
    if !active.is_empty() {
        return Verdict::On(active);
    }
    let unknown = places(|answer| matches!(answer, Answer::Unknown(_)));
    if !unknown.is_empty() || answers.is_empty() {
        return Verdict::Unknown(unknown);
    }
    let defined = places(|answer| matches!(answer, Answer::Defined { .. }));
    if defined.is_empty() { Verdict::Missing } else { Verdict::Off(defined) }
}

impl Answer {
    /// Whether libvirt says that its CPUs run there: it is neither coming in nor handed over.
    pub(super) fn runs(&self) -> bool {
        matches!(self, Self::Active { state: Seen::Told(condition), .. } if condition.state == State::Running)
    }

    /// The UUID of the guest that the host means.
    pub(super) fn uuid(&self) -> Option<&str> {
        match self {
            Self::Active { uuid, .. } => uuid.as_deref(),
            Self::Defined { uuid } | Self::Foreign { uuid } => Some(uuid),
            Self::Absent | Self::Fenced { .. } | Self::Renamed { .. } | Self::Unknown(_) => None,
        }
    }
}

/// What to do next on the way to "off".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// End it on these hosts, and ask again.
    Kill(Vec<usize>),
    /// Ask again.
    Again,
    /// It is off, proven.
    Done,
    /// Nobody knows it, and nothing says that this is what off looks like.
    Missing,
    /// These hosts do not answer.
    Unreachable(Vec<usize>),
    /// The name stands for different guests.
    Refuse(Vec<String>),
}

/// What is known on the way to "off", beside the last answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Whether it was seen alive in this action.
    pub(super) seen: bool,
    /// Whether its end was begun in this action, so that "nobody knows it" is that end. One that went by itself may have gone elsewhere.
    pub(super) begun: bool,
    /// Whether a guest that nobody knows counts as off: `missing_as_off`, or it was ended from here before.
    pub(super) missing_is_off: bool,
    /// How many rounds in a row, this one included, said off.
    pub(super) quiet: u32,
    /// How many rounds in a row have to.
    pub(super) needed: u32,
    /// How many rounds in a row, this one included, some host was not reachable.
    pub(super) unknown: u32,
    /// When the first of these was over.
    pub(super) unknown_since: Option<Instant>,
}

/// In how many rounds in a row, and for how long, a host may be out of reach before that is the answer. A libvirt that is restarted needs some
/// seconds, more on a host with many guests.
pub(super) const PATIENCE: u32 = 3;
pub(super) const RESTART: Duration = Duration::from_secs(10);

/// The next step. `Progress` is brought up to date with the verdict of a round that was over `now` first; `silent`: a host could not be asked in
/// it, which counts also while the guest is found elsewhere. It has to be said in time for the fencer's second run.
pub(super) fn step(verdict: &Verdict, silent: bool, progress: &mut Progress, now: Instant) -> Step {
    if !matches!(verdict, Verdict::Conflict(_)) {
        progress.unknown = if silent || matches!(verdict, Verdict::Unknown(_)) { progress.unknown + 1 } else { 0 };
    }
    match verdict {
        Verdict::Off(_) | Verdict::Missing => {
            progress.quiet += 1;
        }
        Verdict::Unknown(_) => {
            progress.quiet = 0;
        }
        Verdict::On(_) => {
            progress.quiet = 0;
            progress.seen = true;
        }
        Verdict::Conflict(_) => progress.quiet = 0,
    }
    progress.unknown_since = if progress.unknown == 0 { None } else { progress.unknown_since.or(Some(now)) };
    let waited = progress.unknown_since.map_or(Duration::ZERO, |since| now - since);
    match verdict {
        Verdict::Conflict(uuids) => Step::Refuse(uuids.clone()),
        Verdict::On(hosts) => Step::Kill(hosts.clone()),
        Verdict::Unknown(hosts) if progress.unknown >= PATIENCE && waited >= RESTART => Step::Unreachable(hosts.clone()),
        Verdict::Unknown(_) => Step::Again,
        Verdict::Missing if !progress.begun && !progress.missing_is_off => Step::Missing,
        Verdict::Off(_) | Verdict::Missing if progress.quiet >= progress.needed => Step::Done,
        Verdict::Off(_) | Verdict::Missing => Step::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_answer() -> Vec<Answer> {
        let uuid = |text: &str| text.to_owned();
        vec![
            Answer::Active { uuid: Some(uuid("a")), state: Seen::Told(Condition::PAUSED_USER) },
            Answer::Active { uuid: Some(uuid("b")), state: Seen::Told(Condition::RUNNING_POSTCOPY) },
            Answer::Active { uuid: None, state: Seen::Emulator(Emulator { pid: 7, start: 1 }) },
            Answer::Defined { uuid: uuid("a") },
            Answer::Defined { uuid: uuid("b") },
            Answer::Absent,
            Answer::Fenced { since: 1 },
            Answer::Foreign { uuid: uuid("c") },
            Answer::Renamed { name: "web2".into() },
            Answer::Unknown("cut off".into()),
        ]
    }

    #[test]
    fn only_what_libvirt_calls_running_runs() {
        let emulator = Emulator { pid: 7, start: 1 };
        let runs = |state: Seen| Answer::Active { uuid: None, state }.runs();
        for number in -1..=9 {
            for reason in -1..=15 {
                assert_eq!(runs(Seen::Told(Condition::from_numbers(number, reason))), number == 1, "{number} {reason}");
            }
        }
        assert!(!runs(Seen::SettingUp) && !runs(Seen::Emulator(emulator)) && !Answer::Fenced { since: 1 }.runs());
    }

    #[test]
    fn the_log_says_it_in_words() {
        let words = |state: Seen| format!("{:?}", Answer::Active { uuid: None, state });
        assert_eq!(words(Seen::Told(Condition::PAUSED_MIGRATION)), "Active { uuid: None, state: paused (migrating) }");
        assert!(words(Seen::Emulator(Emulator { pid: 7, start: 1 })).contains("not known to libvirt, but its emulator 7 is left"));
    }

    /// Every combination of answers of one, two and three hosts.
    fn every_combination() -> Vec<Vec<Answer>> {
        let all = every_answer();
        let mut combinations: Vec<Vec<Answer>> = vec![Vec::new()];
        let mut last = combinations.clone();
        for _ in 0..3 {
            last = last.iter().flat_map(|some| all.iter().map(|one| [some.as_slice(), std::slice::from_ref(one)].concat())).collect();
            combinations.extend(last.iter().cloned());
        }
        combinations
    }

    fn at(answers: &[Answer], wanted: fn(&Answer) -> bool) -> bool {
        answers.iter().any(wanted)
    }

    #[test]
    fn off_is_only_said_by_all_hosts() {
        let combinations = every_combination();
        assert_eq!(combinations.len(), 1 + 10 + 100 + 1000);
        for answers in combinations {
            let active = at(&answers, |answer| matches!(answer, Answer::Active { .. }));
            let unknown = at(&answers, |answer| matches!(answer, Answer::Unknown(_)));
            let foreign = at(&answers, |answer| matches!(answer, Answer::Foreign { .. } | Answer::Renamed { .. }));
            let uuids: BTreeSet<&str> = answers.iter().filter_map(Answer::uuid).collect();
            let quiet = answers.iter().all(|answer| matches!(answer, Answer::Defined { .. } | Answer::Absent | Answer::Fenced { .. }));
            match judge(&answers) {
                Verdict::Off(defined) => {
                    assert!(quiet && uuids.len() == 1 && !answers.is_empty(), "{answers:?}");
                    assert!(defined.iter().all(|host| matches!(answers[*host], Answer::Defined { .. })));
                }
                Verdict::Missing => assert!(quiet && uuids.is_empty() && !answers.is_empty(), "{answers:?}"),
                Verdict::On(hosts) => {
                    assert!(active && !foreign && uuids.len() <= 1, "{answers:?}");
                    assert!(hosts.iter().all(|host| matches!(answers[*host], Answer::Active { .. })));
                    assert_eq!(hosts.len(), answers.iter().filter(|answer| matches!(answer, Answer::Active { .. })).count());
                }
                Verdict::Unknown(_) => assert!((unknown || answers.is_empty()) && !active && !foreign && uuids.len() <= 1, "{answers:?}"),
                Verdict::Conflict(_) => assert!(foreign || uuids.len() > 1, "{answers:?}"),
            }
        }
    }

    #[test]
    fn the_way_to_off_ends_only_with_quiet_rounds_of_all_hosts() {
        for answers in every_combination() {
            for quiet in 0..3 {
                for (begun, missing_is_off) in [(false, false), (false, true), (true, false), (true, true)] {
                    let mut progress = Progress { begun, missing_is_off, quiet, needed: 2, ..Progress::default() };
                    let verdict = judge(&answers);
                    let silent = at(&answers, |answer| matches!(answer, Answer::Unknown(_)));
                    if step(&verdict, silent, &mut progress, Instant::now()) == Step::Done {
                        assert!(progress.quiet >= 2 && quiet >= 1, "{answers:?}");
                        match verdict {
                            Verdict::Off(_) => {}
                            Verdict::Missing => assert!(begun || missing_is_off),
                            other => panic!("{other:?} is not off"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_round_that_is_not_quiet_begins_the_count_again() {
        let mut progress = Progress { begun: true, needed: 2, ..Progress::default() };
        let mut step = |verdict: &Verdict| step(verdict, matches!(verdict, Verdict::Unknown(_)), &mut progress, Instant::now());
        let defined = Verdict::Off(vec![0]);
        assert_eq!(step(&defined), Step::Again);
        assert_eq!(step(&Verdict::On(vec![1])), Step::Kill(vec![1]));
        assert_eq!(step(&defined), Step::Again);
        assert_eq!(step(&Verdict::Unknown(vec![1])), Step::Again);
        assert_eq!(step(&defined), Step::Again);
        assert_eq!(step(&Verdict::Missing), Step::Done, "it was ended");
    }

    #[test]
    fn a_host_out_of_reach_is_failure_and_never_off() {
        let mut progress = Progress { begun: true, missing_is_off: true, needed: 2, ..Progress::default() };
        let verdict = Verdict::Unknown(vec![2]);
        let begin = Instant::now();
        let mut at = |seconds| step(&verdict, true, &mut progress, begin + Duration::from_secs(seconds));
        // As long as a restart may take, and then until it was asked often enough.
        for seconds in [0, 0, 0, 0, 9] {
            assert_eq!(at(seconds), Step::Again);
        }
        assert_eq!(at(10), Step::Unreachable(vec![2]));
        progress = Progress { unknown_since: None, unknown: 0, ..progress };
        let mut at = |seconds| step(&verdict, true, &mut progress, begin + Duration::from_secs(seconds));
        assert_eq!([at(10), at(21)], [Step::Again, Step::Again], "a host that takes its time was asked twice");
        assert_eq!(at(32), Step::Unreachable(vec![2]));
        progress = Progress { unknown_since: None, unknown: 0, ..progress };
        assert_eq!(step(&Verdict::On(vec![0]), true, &mut progress, begin), Step::Kill(vec![0]));
        let mut at = |seconds| step(&verdict, true, &mut progress, begin + Duration::from_secs(seconds));
        assert_eq!(at(9), Step::Again);
        assert_eq!(at(18), Step::Unreachable(vec![2]), "it was silent while the guest was ended elsewhere, too");
    }
}
