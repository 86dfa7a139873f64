//! What is done about a guest that dirties its memory faster than it can be sent: named policies, and the steps they take while the
//! move runs.
//!
//! QEMU ends the move when it expects to send the rest within the greatest downtime; libvirt's default for that is 300 ms. A guest that
//! is idle gets there with less, so the ladder begins low, for a short pause, and goes up as passes over the memory go by without the
//! rest becoming smaller. The later rungs and the last resort are for guests that would not arrive otherwise: with Pacemaker's
//! defaults a move that fails is a guest that is stopped and started, which takes longer than any of these pauses.

use crate::domain::ffi::Job;
use crate::domain::host::Version;
use crate::parameter;
use std::time::Duration;

/// A named policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// libvirt's and QEMU's defaults, as `ocf:heartbeat:VirtualDomain` has them.
    Plain,
    /// The guest is never slowed down: the downtime goes up to half a second.
    Gentle,
    /// The guest's CPUs are throttled as far as needed (auto-converge), the downtime goes up to a second, and near the end of the time to
    /// what the rest of the memory needs, up to five.
    #[default]
    Converge,
    /// As [`Policy::Converge`], and when half of the time is over the guest runs on at the target before its memory has come (post-copy).
    Postcopy,
}

impl Policy {
    /// The policies by name.
    pub const NAMES: &'static [(&'static str, Self)] =
        &[("plain", Self::Plain), ("gentle", Self::Gentle), ("converge", Self::Converge), ("postcopy", Self::Postcopy)];
    /// The names.
    pub const WORDS: &'static [&'static str] = &parameter::words::<_, { Self::NAMES.len() }>(Self::NAMES);

    /// `virDomainMigrateFlags` that the policy wants. An emulator that has not got them is asked without.
    #[must_use]
    pub fn flags(self) -> u32 {
        match self {
            Self::Plain | Self::Gentle => 0,
            Self::Converge => virt::sys::VIR_MIGRATE_AUTO_CONVERGE,
            Self::Postcopy => virt::sys::VIR_MIGRATE_AUTO_CONVERGE | virt::sys::VIR_MIGRATE_POSTCOPY,
        }
    }

    /// The rungs of the downtime ladder, in milliseconds.
    fn ladder(self) -> &'static [u64] {
        const LADDER: &[u64] = &[100, 150, 200, 300, 500, 1000];
        match self {
            Self::Plain => &[],
            Self::Gentle => &LADDER[..5],
            Self::Converge | Self::Postcopy => LADDER,
        }
    }
}

/// Versions of libvirt, from and up to but without, whose daemon ends at the target when a post-copy is resumed (libvirt's `NEWS.rst`).
pub(super) const RESUME_TRAP: (Version, Version) = (Version::of(11, 2), Version::of(11, 4));

/// Whether a broken post-copy to a libvirt of this version may be resumed.
pub(super) fn may_resume(libvirt: Version) -> bool {
    !(RESUME_TRAP.0..RESUME_TRAP.1).contains(&libvirt)
}

/// The longest downtime of all, in milliseconds: the last resort before a move is called off.
const LAST_RESORT: u64 = 5000;

/// So many passes over the memory go by before the second rung: the first sends everything, the next ones what was dirtied meanwhile.
const FIRST_PASSES: u64 = 2;

/// What is to be done while the move runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Set the greatest downtime, in milliseconds.
    Downtime(u64),
    /// Let the guest run at the target.
    Postcopy,
}

/// Follows a move and says what is to be done.
#[derive(Clone, Debug)]
pub(super) struct Steering {
    policy: Policy,
    /// The operator's own downtime: then there is no ladder.
    fixed: bool,
    rung: usize,
    downtime: u64,
    pass: u64,
    least: u64,
    sent: u64,
    still: Duration,
    seen: Duration,
    postcopy: bool,
}

impl Steering {
    /// For a move with this policy; `downtime` is the operator's own in milliseconds, 0 is none.
    pub(super) fn new(policy: Policy, downtime: u64) -> Self {
        let start = if downtime > 0 { downtime } else { policy.ladder().first().copied().unwrap_or(0) };
        Self {
            policy,
            fixed: downtime > 0,
            rung: 0,
            downtime: start,
            pass: 0,
            least: u64::MAX,
            sent: 0,
            still: Duration::ZERO,
            seen: Duration::ZERO,
            postcopy: false,
        }
    }

    /// The greatest downtime to begin with, in milliseconds; 0 leaves libvirt's.
    pub(super) fn first(&self) -> u64 {
        self.downtime
    }

    /// How long no memory has flowed.
    pub(super) fn still(&self) -> Duration {
        self.still
    }

    /// What is to be done after a look at the job, `used` after the start of a move that has `total`.
    pub(super) fn advise(&mut self, job: &Job, used: Duration, total: Duration) -> Option<Advice> {
        let sent = job.data_processed.unwrap_or(0);
        self.still = if sent == self.sent { self.still + used.saturating_sub(self.seen) } else { Duration::ZERO };
        (self.sent, self.seen) = (sent, used);
        let share = used.as_secs_f64() / total.as_secs_f64().max(0.001);
        if self.postcopy {
            return None;
        }
        let (pass, rest) = (job.memory_iteration.unwrap_or(0), job.data_remaining.unwrap_or(u64::MAX));
        if self.policy == Policy::Postcopy && share >= 0.5 && pass >= 1 {
            self.postcopy = true;
            return Some(Advice::Postcopy);
        }
        if self.fixed {
            return None;
        }
        let ladder = self.policy.ladder();
        // Passes get shorter as the rest does; one that did not bring it down by a tenth was in vain.
        let new_pass = pass > self.pass.max(FIRST_PASSES);
        let in_vain = new_pass && rest > self.least / 10 * 9;
        // A pass over much memory on a slow line may take most of the time: then the clock says when to go up.
        let due = pass >= FIRST_PASSES && share > 0.1 * (self.rung + 1) as f64;
        if new_pass {
            (self.pass, self.least) = (pass, self.least.min(rest));
        }
        if (in_vain || due) && self.rung + 1 < ladder.len() {
            self.rung += 1;
            self.downtime = ladder[self.rung];
            return Some(Advice::Downtime(self.downtime));
        }
        let desperate = matches!(self.policy, Policy::Converge | Policy::Postcopy) && share >= 0.75;
        let needed = job.memory_bps.filter(|speed| *speed > 0).map(|speed| rest.saturating_mul(1000) / speed);
        if desperate && let Some(needed) = needed {
            // Half as much again, since the speed is an estimate; in steps, so that it is not set at each look.
            let wanted = (needed.saturating_mul(3) / 2).next_multiple_of(500);
            // The standstill has to be over before the move is called off: QEMU hears nothing in it.
            let left = u64::try_from(total.saturating_sub(used).as_millis()).unwrap_or(u64::MAX);
            let wanted = wanted.min(LAST_RESORT).min(left / 2 / 500 * 500);
            if wanted > self.downtime {
                self.downtime = wanted;
                return Some(Advice::Downtime(wanted));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ffi::JobKind;

    const MIB: u64 = 1024 * 1024;
    const TOTAL: Duration = Duration::from_secs(100);

    fn job(pass: u64, sent: u64, rest: u64) -> Job {
        Job {
            data_processed: Some(sent * MIB),
            data_remaining: Some(rest * MIB),
            memory_iteration: Some(pass),
            memory_bps: Some(100 * MIB),
            ..Job::new(JobKind::Unbounded)
        }
    }

    fn advised(steering: &mut Steering, jobs: &[(u64, Job)]) -> Vec<Advice> {
        jobs.iter().filter_map(|(second, job)| steering.advise(job, Duration::from_secs(*second), TOTAL)).collect()
    }

    #[test]
    fn no_daemon_is_ended_by_resuming() {
        let asked = [9_000_000, 11_001_000, 11_002_000, 11_003_000, 11_003_999, 11_004_000, 12_000_000];
        assert_eq!(asked.map(|number| may_resume(Version(number))), [true, true, false, false, false, true, true]);
    }

    #[test]
    fn an_idle_guest_needs_no_advice() {
        let mut steering = Steering::new(Policy::Converge, 0);
        assert_eq!(steering.first(), 100);
        assert_eq!(advised(&mut steering, &[(1, job(1, 50, 50)), (2, job(2, 100, 5)), (3, job(3, 105, 1))]), []);
    }

    #[test]
    fn a_pass_in_vain_is_a_rung() {
        let mut steering = Steering::new(Policy::Converge, 0);
        let jobs = [(1, job(1, 50, 500)), (2, job(3, 600, 400)), (2, job(3, 700, 300)), (3, job(4, 900, 420)), (4, job(5, 1300, 100))];
        assert_eq!(advised(&mut steering, &jobs), [Advice::Downtime(150)]);
    }

    #[test]
    fn the_clock_goes_up_the_ladder_too_and_gentle_stops_at_half_a_second() {
        let jobs: Vec<_> = (1..100).map(|second| (second, job(2, second * 10, 5000))).collect();
        let rungs = |policy| advised(&mut Steering::new(policy, 0), &jobs);
        let downtime = |list: &[u64]| list.iter().map(|time| Advice::Downtime(*time)).collect::<Vec<_>>();
        assert_eq!(rungs(Policy::Gentle), downtime(&[150, 200, 300, 500]));
        assert_eq!(rungs(Policy::Converge), downtime(&[150, 200, 300, 500, 1000, 5000]));
        assert_eq!(rungs(Policy::Plain), []);
        assert_eq!(Steering::new(Policy::Plain, 0).first(), 0);
    }

    #[test]
    fn the_last_resort_is_no_longer_than_needed() {
        let mut steering = Steering::new(Policy::Converge, 0);
        let jobs: Vec<_> = (70..99).map(|second| (second, job(9, second * 10, 120))).collect();
        assert_eq!(advised(&mut steering, &jobs).last(), Some(&Advice::Downtime(2000)));
    }

    #[test]
    fn the_last_resort_is_over_before_the_move_is_called_off() {
        let mut steering = Steering::new(Policy::Converge, 0);
        let total = Duration::from_secs(9);
        let late: Vec<_> = (65..90).map(|tenth| (tenth, job(9, tenth * 10, 5000))).collect();
        let advice = late.iter().filter_map(|(tenth, job)| steering.advise(job, Duration::from_millis(tenth * 100), total));
        assert!(advice.into_iter().all(|advice| matches!(advice, Advice::Downtime(time) if time <= 1000)));
    }

    #[test]
    fn an_operators_downtime_stands() {
        let jobs: Vec<_> = (1..100).map(|second| (second, job(second, second * 10, 5000))).collect();
        let mut steering = Steering::new(Policy::Converge, 700);
        assert_eq!((steering.first(), advised(&mut steering, &jobs)), (700, vec![]));
    }

    #[test]
    fn postcopy_comes_once_and_only_by_choice() {
        let jobs: Vec<_> = (1..100).map(|second| (second, job(2, second * 10, 5000))).collect();
        let mut steering = Steering::new(Policy::Postcopy, 0);
        let advice = advised(&mut steering, &jobs);
        assert_eq!(advice.iter().filter(|advice| **advice == Advice::Postcopy).count(), 1);
        assert!(!advised(&mut Steering::new(Policy::Converge, 0), &jobs).contains(&Advice::Postcopy));
    }

    #[test]
    fn stillness_is_time_without_bytes() {
        let mut steering = Steering::new(Policy::Gentle, 0);
        advised(&mut steering, &[(1, job(1, 50, 50)), (4, job(1, 50, 50)), (9, job(1, 50, 50))]);
        assert_eq!(steering.still(), Duration::from_secs(8));
        advised(&mut steering, &[(10, job(1, 51, 50))]);
        assert_eq!(steering.still(), Duration::ZERO);
    }
}
