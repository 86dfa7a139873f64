//! How long the calls of an action may take: by the options, or, when the caller has a limit of its own, within that.

use super::options::Options;
use std::time::Duration;

/// Who has called the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Pacemaker's fencer: on whatever node is at hand, and with a limit of its own.
    Fencer,
    /// A person, or a program of one.
    Person,
}

/// The time limits of single calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Opening a connection.
    pub(super) login: Duration,
    /// One question.
    pub(super) shell: Duration,
    /// Ending or starting a guest.
    pub(super) power: Duration,
    /// All that the cluster's tools are asked of a host; none: as long as a question takes.
    pub(super) record: Option<Duration>,
}

/// Limits that Pacemaker's own make unneeded are not without end: it kills an agent that is late, and the reason is lost. Together they
/// fit into 60 s, its default for a fence action (`stonith-timeout`), and a destroy that takes longer is no proof anyway.
///
/// An agent that has failed before 70 % of that is run again, once, with what is left (`update_remaining_timeout` in Pacemaker's
/// `lib/fencing/st_actions.c`); if that run is late no other node is asked. So what fails for a silent host does so twice in that time, and the
/// device's monitor twice in its 20 s.
pub(super) const UNLIMITED: Limits =
    Limits { login: Duration::from_secs(8), shell: Duration::from_secs(7), power: Duration::from_secs(38), record: Some(RECORD) };

/// How long the cluster's tools get where the agent may be run again. With a host that is silent in three rounds a run takes 29.5 s then, because that
/// host's next login gets so much less.
const RECORD: Duration = Duration::from_secs(3);

/// How long `monitor` and `list` ask a host again that may be reached a moment later: libvirt is being restarted there, or sshd has too many logins
/// under way. Twice of it fit into the 20 s of a device's monitor, see [`UNLIMITED`]; together they are more than an `off` waits for.
pub(super) const AGAIN: Duration = Duration::from_secs(8);

/// For the start after an `off`, which must not cost the `off` its success.
const START: Duration = Duration::from_secs(20);

/// What a reboot takes altogether if the caller's limit is the one that counts: a little less than Pacemaker's default. Killed in its second half
/// it would have failed for Pacemaker, although the guest is off.
const REBOOT: Duration = Duration::from_secs(57);

/// A start that has less than this is not begun: nobody would see what became of it.
const LEAST: Duration = Duration::from_secs(2);

impl Limits {
    /// The limits that the options set.
    pub(super) fn of(options: &Options, caller: Caller) -> Self {
        let record = (caller == Caller::Fencer).then_some(RECORD);
        if is_unlimited(options, caller) {
            return Self { record, ..UNLIMITED };
        }
        // 0 is "no limit", as in fencing.py.
        let or = |wanted: Duration, unlimited| if wanted.is_zero() { unlimited } else { wanted };
        Self {
            login: or(options.login_timeout, UNLIMITED.login),
            shell: or(options.shell_timeout, UNLIMITED.shell),
            power: or(options.power_timeout, UNLIMITED.power),
            record,
        }
    }
}

/// Whether the caller decides how long to wait, and not the options.
pub(super) fn is_unlimited(options: &Options, caller: Caller) -> bool {
    options.disable_timeout.unwrap_or(caller == Caller::Fencer)
}

/// The time for `off`, and for the `on` of a call, when so much of the call's time is `used`, for a password: a limit of the caller's own counts from
/// the beginning of the call. `power_wait` comes on top of it.
pub(super) fn for_acting(limits: Limits, power_wait: Duration, used: Duration, unlimited: bool) -> Duration {
    let acting = limits.login + limits.shell + limits.power;
    (if unlimited { acting.saturating_sub(used) } else { acting }) + power_wait
}

/// The time for the start after an `off`, when so much of the call's time is `used`, `delay` aside; `None`: too little is left. `acting`: that of
/// [`for_acting`]. `power_wait` comes on top of both.
pub(super) fn for_start(used: Duration, acting: Duration, power_wait: Duration, unlimited: bool) -> Option<Duration> {
    let acting = acting.saturating_sub(power_wait);
    let left = if unlimited { (REBOOT + power_wait).saturating_sub(used) } else { START };
    let time = START.min(acting).min(left);
    (time >= LEAST.min(acting)).then_some(time + power_wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        super::super::options::read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()).0
    }

    #[test]
    fn the_limits_of_the_options_and_of_the_fencer() {
        let given = options(&[("power_timeout", "7"), ("login_timeout", "0")]);
        assert_eq!(Limits::of(&given, Caller::Person).power, Duration::from_secs(7));
        assert_eq!(Limits::of(&given, Caller::Person).login, UNLIMITED.login);
        assert_eq!(Limits::of(&given, Caller::Fencer).power, UNLIMITED.power);
        assert_eq!([Caller::Fencer, Caller::Person].map(|caller| Limits::of(&given, caller).record), [Some(RECORD), None]);
        let given = options(&[("power_timeout", "7"), ("disable_timeout", "false")]);
        assert_eq!(Limits::of(&given, Caller::Fencer).power, Duration::from_secs(7));
        let said = super::super::options::row_of("disable_timeout").unwrap().parameter.short;
        let [login, shell, power] = [UNLIMITED.login, UNLIMITED.shell, UNLIMITED.power].map(|time| time.as_secs());
        assert!(said.contains(&format!("{login}, {shell} and {power} seconds")), "{said}");
        let together = UNLIMITED.login + UNLIMITED.shell + UNLIMITED.power;
        assert!(together < Duration::from_secs(60));
    }

    #[test]
    fn what_a_password_takes_is_of_the_callers_time() {
        let seconds = Duration::from_secs;
        let of = |used, unlimited| for_acting(UNLIMITED, seconds(3), seconds(used), unlimited);
        assert_eq!(of(0, true), UNLIMITED.login + UNLIMITED.shell + UNLIMITED.power + seconds(3));
        assert_eq!(of(7, true) + seconds(7), of(0, true));
        assert_eq!(of(99, true), seconds(3));
        assert_eq!(of(7, false), of(0, true), "a person waits");
    }

    #[test]
    fn a_reboot_ends_before_the_fencer_ends_it() {
        let seconds = Duration::from_secs;
        let of = |used, acting, unlimited| for_start(seconds(used), seconds(acting), Duration::ZERO, unlimited);
        assert_eq!(of(1, 55, true), Some(START));
        assert_eq!(of(50, 55, true), Some(seconds(7)));
        for used in [56, 60] {
            assert_eq!(of(used, 55, true), None, "{used}");
        }
        assert_eq!(of(300, 55, false), Some(START), "a person waits");
        assert_eq!(of(1, 1, false), Some(seconds(1)), "as it was wanted");
        assert!(REBOOT < seconds(60));
    }

    #[test]
    fn a_wait_after_the_start_is_none_of_its_time() {
        let seconds = Duration::from_secs;
        for wait in [1, 20, 60].map(seconds) {
            let of = |used, unlimited| for_start(seconds(used) + wait, seconds(53) + wait, wait, unlimited);
            assert_eq!([of(1, true), of(50, true), of(300, false)], [Some(START + wait), Some(seconds(7) + wait), Some(START + wait)]);
            assert_eq!(of(56, true), None, "the end has waited too");
        }
    }

    #[test]
    fn a_monitor_asks_again_in_its_time() {
        let begin = Duration::from_secs(1);
        assert!((AGAIN + begin) * 2 < Duration::from_secs(20), "run twice by the fencer");
        assert!(AGAIN * 2 > super::super::verdict::RESTART, "as long as an off waits");
    }
}
