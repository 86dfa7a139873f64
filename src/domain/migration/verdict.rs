//! From what both hosts say after a move that failed to what is done about it: pure.
//!
//! The rule: the copy here is ended only if the guest runs there, and the one here waits, or libvirt here does not say how it is and the
//! move has come to its end there; and it has moved only if it runs there and is not here. While a host does not say, or a part of the
//! guest is on each, it is asked again. What is answered last names where it is.

use super::side::Side;
use crate::domain::{Condition, Error, Kind};

/// What is known beside what the two hosts say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// The guest.
    pub(super) name: &'a str,
    /// The other host.
    pub(super) target: &'a str,
    /// Why the move is taken for failed.
    pub(super) error: &'a Error,
    /// Whether the guest was paused before.
    pub(super) paused: bool,
    /// Whether what is at the target can only have come by this move.
    pub(super) ours: bool,
    /// Whether libvirt here had begun with the move, and says by now that none is on its way.
    pub(super) idle: bool,
    /// Whether the copy here is held.
    pub(super) held: bool,
    /// Whether the target's libvirt, asked once more while the one here is silent, says that the move has come to its end there.
    pub(super) arrived: bool,
    /// Whether there is no time for another look.
    pub(super) last: bool,
}

/// What to do next. A text says where the guest is, but in [`Next::HoldUnlessItRuns`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It has moved, in spite of the error.
    Moved,
    /// It runs there: end the copy here.
    EndCopyHere,
    /// It runs on both: hold the copy here, and answer `Lives`.
    HoldHere(String),
    /// Hold the copy here but if it runs by now, and answer `TimedOut` with [`Known::waiting`].
    HoldUnlessItRuns {
        /// What the copy here waits for.
        state: Condition,
        /// Why the other host cannot be asked.
        text: String,
    },
    /// Answer: the move failed.
    Answer(Kind, String),
    /// Ask again; without time for that, answer.
    AskAgain {
        /// The answer's kind.
        kind: Kind,
        /// Where it is, as far as is known.
        place: String,
        /// Whether nothing changes any more here, and only the other host is waited for.
        clear: bool,
    },
}

impl Known<'_> {
    /// Where a copy is that waits here while the other host cannot be asked; `held`: whether it is held by now.
    pub(super) fn waiting(&self, state: Condition, text: &str, held: bool) -> String {
        let state = if held { "held".to_owned() } else { state.to_string() };
        format!("{} is {state} here, it may run on {}: {text}", self.name, self.target)
    }
}

/// Judges what both hosts say.
pub(super) fn judge(here: &Side, there: &Side, known: &Known) -> Next {
    let Known { name, target, error, .. } = known;
    let again = |kind: Kind, place: String| Next::AskAgain { kind, place, clear: false };
    match (here, there) {
        // A request that was not answered may still be waiting for its turn.
        (Side::Runs, Side::Absent) => {
            let kind = if error.kind == Kind::Unresponsive { error.kind } else { Kind::State };
            Next::Answer(kind, format!("{name} still runs here"))
        }
        (Side::Waits(state), Side::Absent) if known.paused && !state.will_run() => {
            Next::Answer(Kind::State, format!("{name} is still {state} here"))
        }
        (Side::Waits(_), Side::Absent) if known.held => {
            Next::Answer(Kind::TimedOut, format!("{name} is held here, and not on {target}, where it may have run"))
        }
        // The target has let it run, and its word was lost: libvirt here took the move for failed. One has to stand still at once, until
        // both are ended; the one there has what was written last.
        (Side::Runs, Side::Runs) if known.ours => Next::HoldHere(format!("{name} runs here and on {target}, the copy here is held")),
        (Side::Runs, Side::Runs) => Next::Answer(Kind::Lives, format!("{name} runs here and on {target}")),
        (Side::Absent, Side::Absent) => Next::Answer(Kind::State, format!("{name} runs neither here nor on {target}")),
        (Side::Absent, Side::Runs) => Next::Moved,
        // The copy here was all there was of the memory that has not gone over.
        (Side::Absent, Side::Half(state)) if state.is_broken_postcopy() => {
            let text = format!("{name} has lost memory: it is {state} on {target} and not here; it has to be stopped there and started");
            Next::Answer(Kind::State, text)
        }
        (Side::Half(state), Side::Absent) => {
            let text = format!("{name} has lost memory: it is {state} here and not on {target}; it has to be stopped here and started");
            Next::Answer(Kind::State, text)
        }
        (Side::Absent, Side::Half(state)) => again(Kind::TimedOut, format!("{name} is {state} on {target}")),
        (Side::Half(state), Side::Half(other) | Side::Waits(other)) => {
            again(Kind::TimedOut, format!("{name} is half here, {state}, and half on {target}, {other}"))
        }
        (Side::Half(state), Side::Runs) => again(Kind::TimedOut, format!("{name} is half here, {state}, and runs on {target}")),
        (Side::Half(state), Side::Unknown(text)) => again(Kind::TimedOut, format!("{name} is half here, {state}; {target}: {text}")),
        (_, Side::Half(state)) => again(Kind::TimedOut, format!("{name} is half on {target}, {state}")),
        // Taken over, but the source was not told, and would let its copy go on when it gives up waiting.
        (Side::Waits(..), Side::Runs) => Next::EndCopyHere,
        // libvirt here has brought the move to its end, or says that it has: its answer may have been that of a connection that broke. A request that
        // was not answered may still be waiting for its turn.
        (Side::Runs, Side::Unknown(text)) => {
            let place = format!("{name} still runs here; {target}: {text}");
            Next::AskAgain { kind: error.kind, place, clear: !error.leaves_open() || known.idle && error.kind != Kind::Unresponsive }
        }
        (Side::Runs, Side::Waits(..)) => again(error.kind, format!("{name} still runs here, a copy that came in waits on {target}")),
        // libvirt here was restarted in the handover, and leaves it so: the record of the move has to stay, by which a monitor shows it.
        (Side::Waits(state @ Condition::PAUSED_MIGRATION), Side::Absent) => again(Kind::TimedOut, format!("{name} is {state} here")),
        (Side::Waits(state), Side::Absent) => again(Kind::State, format!("{name} is {state} here")),
        (Side::Waits(state), Side::Waits(other)) => again(error.kind, format!("{name} is {state} here and {other} on {target}")),
        // Nobody watches from now on, and libvirt here lets it go on when it gives up waiting, whatever runs there.
        (Side::Waits(Condition::PAUSED_MIGRATION), Side::Unknown(text)) if known.last => {
            Next::HoldUnlessItRuns { state: Condition::PAUSED_MIGRATION, text: text.clone() }
        }
        // libvirt here cannot bring the move to its end: it waits for the emulator, if that is held.
        (Side::Waits(state), Side::Unknown(text)) => {
            Next::AskAgain { kind: Kind::TimedOut, place: known.waiting(*state, text, known.held), clear: known.held }
        }
        (Side::Absent, Side::Waits(state)) => again(error.kind, format!("{name} is {state} on {target} and not here")),
        (Side::Absent, Side::Unknown(text)) => again(error.kind, format!("{name} is not here; {target}: {text}")),
        // Only the request that follows the last of the memory lets a copy run there that has come by a move (`qemuMigrationDstFinish`): the one
        // here has stood still since, or goes on with a memory that is older than the disks.
        (Side::Unknown(_), Side::Runs) if known.ours && known.arrived => Next::EndCopyHere,
        (Side::Unknown(text), Side::Runs) => again(error.kind, format!("{name} runs on {target}; {text}")),
        (Side::Unknown(text), _) => again(error.kind, text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_side() -> Vec<Side> {
        let paused = (0..=15).map(|reason| (3, reason));
        let others = [(0, 0), (1, 1), (1, 10), (1, 11), (4, 1), (5, 1), (6, 1), (7, 0), (9, 0)];
        let sides = paused.chain(others).map(|(state, reason)| Side::of(Condition::from_numbers(state, reason)));
        sides.chain([Side::Unknown("cut off".into())]).collect()
    }

    /// Judges every pair of sides with everything that may be known beside them.
    fn every_judgement(rule: impl Fn(&Side, &Side, &Known, &Next)) {
        let kinds = [Kind::Refused, Kind::State, Kind::Unreachable, Kind::Unresponsive, Kind::TimedOut, Kind::Internal];
        let (sides, errors) = (every_side(), kinds.map(|kind| Error::new(kind, "no")));
        for (here, there) in sides.iter().flat_map(|here| sides.iter().map(move |there| (here, there))) {
            for (error, bits) in errors.iter().flat_map(|error| (0..64).map(move |bits| (error, bits))) {
                let [paused, ours, held, last, idle, arrived] = [1, 2, 4, 8, 16, 32].map(|bit| bits & bit != 0);
                let known = Known { name: "web1", target: "node2", error, paused, ours, idle, held, arrived, last };
                rule(here, there, &known, &judge(here, there, &known));
            }
        }
    }

    fn is_unknown(side: &Side) -> bool {
        matches!(side, Side::Unknown(_))
    }

    #[test]
    fn no_copy_is_ended_but_one_that_waits_or_is_not_told_of_while_the_guest_runs_there() {
        every_judgement(|here, there, known, next| {
            let untold = is_unknown(here) && known.ours && known.arrived;
            let taken_over = *there == Side::Runs && (matches!(here, Side::Waits(_)) || untold);
            assert_eq!(*next == Next::EndCopyHere, taken_over, "{here:?} {there:?} {known:?}");
        });
    }

    #[test]
    fn it_has_moved_if_it_runs_there_and_is_not_here() {
        every_judgement(|here, there, known, next| {
            assert_eq!(*next == Next::Moved, (here, there) == (&Side::Absent, &Side::Runs), "{here:?} {there:?} {known:?}");
        });
    }

    #[test]
    fn no_copy_is_held_but_one_that_may_run_beside_another() {
        every_judgement(|here, there, known, next| {
            let case = format!("{here:?} {there:?} {known:?}");
            match next {
                Next::HoldHere(_) => assert!((here, there) == (&Side::Runs, &Side::Runs) && known.ours, "{case}"),
                Next::HoldUnlessItRuns { state, .. } => {
                    assert!(*here == Side::Waits(*state) && state.will_run() && is_unknown(there) && known.last, "{case}");
                }
                // What comes after this can do nothing about it any more.
                _ => {
                    let handed_over = *here == Side::Waits(Condition::PAUSED_MIGRATION) && is_unknown(there);
                    assert!(!(handed_over && known.last), "{case}");
                    assert!(!((here, there) == (&Side::Runs, &Side::Runs) && known.ours), "{case}");
                }
            }
        });
    }

    #[test]
    fn an_answer_before_its_time_is_of_hosts_that_both_say_where_it_is() {
        every_judgement(|here, there, known, next| {
            let case = format!("{here:?} {there:?} {known:?} {next:?}");
            match next {
                Next::Answer(..) => {
                    assert!(!is_unknown(here) && !is_unknown(there), "{case}");
                    assert!(*here == Side::Absent || *there == Side::Absent || (here, there) == (&Side::Runs, &Side::Runs), "{case}");
                }
                // Only the other host is waited for, and what is here stays as it is.
                Next::AskAgain { clear: true, .. } => {
                    let ended = !known.error.leaves_open() || known.idle && known.error.kind != Kind::Unresponsive;
                    let settled = *here == Side::Runs && ended || matches!(here, Side::Waits(_)) && known.held;
                    assert!(is_unknown(there) && settled, "{case}");
                }
                _ => {}
            }
        });
    }

    #[test]
    fn what_may_yet_move_or_runs_twice_is_not_called_known() {
        every_judgement(|here, there, known, next| {
            let case = format!("{here:?} {there:?} {known:?} {next:?}");
            let (Next::Answer(kind, place) | Next::AskAgain { kind, place, .. }) = next else { return };
            assert_eq!(*kind == Kind::Lives, (here, there) == (&Side::Runs, &Side::Runs), "{case}");
            if *kind == Kind::State && known.error.kind != Kind::State {
                assert!(*there == Side::Absent || *here == Side::Absent, "{case}");
                assert!(!is_unknown(here) && !is_unknown(there) && *here != Side::Waits(Condition::PAUSED_MIGRATION), "{case}");
                assert!(*here != Side::Runs || known.error.kind != Kind::Unresponsive, "{case}");
                assert!(!(matches!(here, Side::Waits(_)) && known.held && !known.paused), "{case}");
            }
            // All of it but what is there has gone with the other host's copy.
            let half_here = matches!(here, Side::Half(_)) && *there == Side::Absent;
            let half_there = *here == Side::Absent && matches!(there, Side::Half(state) if state.is_broken_postcopy());
            assert_eq!(place.contains("lost memory"), half_here || half_there, "{case}");
        });
    }
}
