//! The states libvirt has for a domain, and its reasons for them.
//!
//! Numbers: `virDomainState` and the `virDomain*Reason` enumerations of libvirt's `include/libvirt/libvirt-domain.h`.
//! They are append-only; a number this file does not know is kept as it is, and never taken for "off".

use std::fmt;

/// `virDomainState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// 0: libvirt does not know; for QEMU, while a domain is being set up.
    #[allow(clippy::enum_variant_names, reason = "libvirt's own word for it, VIR_DOMAIN_NOSTATE")]
    NoState,
    /// 1
    Running,
    /// 2: an old name for "waiting for a resource"; it runs.
    Blocked,
    /// 3: the virtual CPUs are stopped; the emulator lives.
    Paused,
    /// 4: a shutdown was seen, or a destroy is under way; the emulator lives.
    ShuttingDown,
    /// 5: there is no emulator, as far as libvirt knows.
    ShutOff,
    /// 6: the guest crashed. The emulator lives if the definition says `preserve`.
    Crashed,
    /// 7: suspended by the guest's power management; the emulator lives.
    Suspended,
    /// A state of a libvirt newer than this program.
    Unknown(i32),
}

impl State {
    /// From libvirt's number.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        match number {
            0 => Self::NoState,
            1 => Self::Running,
            2 => Self::Blocked,
            3 => Self::Paused,
            4 => Self::ShuttingDown,
            5 => Self::ShutOff,
            6 => Self::Crashed,
            7 => Self::Suspended,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoState => f.write_str("no state"),
            Self::Running => f.write_str("running"),
            Self::Blocked => f.write_str("blocked"),
            Self::Paused => f.write_str("paused"),
            Self::ShuttingDown => f.write_str("in shutdown"),
            Self::ShutOff => f.write_str("shut off"),
            Self::Crashed => f.write_str("crashed"),
            Self::Suspended => f.write_str("pmsuspended"),
            Self::Unknown(number) => write!(f, "unknown state {number}"),
        }
    }
}

/// What libvirt says of a domain: the state, and why it is in it. The reason's number means another thing in another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The state.
    pub state: State,
    /// The number of the reason.
    reason: i32,
}

impl Condition {
    /// `VIR_DOMAIN_PAUSED_UNKNOWN`: QEMU has stopped it, and libvirt did not ask for that: an internal error, or `stop` at its monitor.
    pub const PAUSED_UNKNOWN: Self = Self { state: State::Paused, reason: 0 };
    /// `VIR_DOMAIN_PAUSED_USER`.
    pub const PAUSED_USER: Self = Self { state: State::Paused, reason: 1 };
    /// `VIR_DOMAIN_PAUSED_MIGRATION`: at the source while it is handed over, at the target while it comes in.
    pub const PAUSED_MIGRATION: Self = Self { state: State::Paused, reason: 2 };
    /// `VIR_DOMAIN_PAUSED_SAVE`.
    pub const PAUSED_SAVE: Self = Self { state: State::Paused, reason: 3 };
    /// `VIR_DOMAIN_PAUSED_DUMP`.
    pub const PAUSED_DUMP: Self = Self { state: State::Paused, reason: 4 };
    /// `VIR_DOMAIN_PAUSED_IOERROR`.
    pub const PAUSED_IO_ERROR: Self = Self { state: State::Paused, reason: 5 };
    /// `VIR_DOMAIN_PAUSED_WATCHDOG`.
    pub const PAUSED_WATCHDOG: Self = Self { state: State::Paused, reason: 6 };
    /// `VIR_DOMAIN_PAUSED_SNAPSHOT`.
    pub const PAUSED_SNAPSHOT: Self = Self { state: State::Paused, reason: 9 };
    /// `VIR_DOMAIN_PAUSED_CRASHED`.
    pub const PAUSED_CRASHED: Self = Self { state: State::Paused, reason: 10 };
    /// `VIR_DOMAIN_PAUSED_STARTING_UP`.
    pub const PAUSED_STARTING_UP: Self = Self { state: State::Paused, reason: 11 };
    /// `VIR_DOMAIN_PAUSED_POSTCOPY`.
    pub const PAUSED_POSTCOPY: Self = Self { state: State::Paused, reason: 12 };
    /// `VIR_DOMAIN_PAUSED_POSTCOPY_FAILED`.
    pub const PAUSED_POSTCOPY_FAILED: Self = Self { state: State::Paused, reason: 13 };
    /// `VIR_DOMAIN_PAUSED_API_ERROR`, since libvirt 9.2: it was not let go on after a snapshot, a save or a move.
    pub const PAUSED_API_ERROR: Self = Self { state: State::Paused, reason: 14 };
    /// `VIR_DOMAIN_RUNNING_POSTCOPY`.
    pub const RUNNING_POSTCOPY: Self = Self { state: State::Running, reason: 10 };
    /// `VIR_DOMAIN_RUNNING_POSTCOPY_FAILED`.
    pub const RUNNING_POSTCOPY_FAILED: Self = Self { state: State::Running, reason: 11 };

    /// Whether it runs by no move: `VIR_DOMAIN_RUNNING_RESTORED`, `VIR_DOMAIN_RUNNING_FROM_SNAPSHOT`.
    #[must_use]
    pub fn was_restored(self) -> bool {
        self.state == State::Running && matches!(self.reason, 3 | 4)
    }

    /// From libvirt's two numbers.
    #[must_use]
    pub fn from_numbers(state: i32, reason: i32) -> Self {
        Self { state: State::from_number(state), reason }
    }

    /// Whether there is a copy, running or not: an emulator, by libvirt's word.
    #[must_use]
    pub fn is_active(self) -> bool {
        self.state != State::ShutOff
    }

    /// Whether its CPUs run.
    #[must_use]
    pub fn runs(self) -> bool {
        matches!(self.state, State::Running | State::Blocked)
    }

    /// Whether it was paused by a fault, and will not run again by itself.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::PAUSED_UNKNOWN
                | Self::PAUSED_IO_ERROR
                | Self::PAUSED_WATCHDOG
                | Self::PAUSED_CRASHED
                | Self::PAUSED_POSTCOPY_FAILED
                | Self::PAUSED_API_ERROR
        )
    }

    /// Whether it is paused and about to run: it starts, comes in, or something is being written.
    #[must_use]
    pub fn will_run(self) -> bool {
        matches!(
            self,
            Self::PAUSED_MIGRATION
                | Self::PAUSED_SAVE
                | Self::PAUSED_DUMP
                | Self::PAUSED_SNAPSHOT
                | Self::PAUSED_STARTING_UP
                | Self::PAUSED_POSTCOPY
        )
    }

    /// Whether it is paused and stays so until somebody does something about it.
    #[must_use]
    pub fn stays_paused(self) -> bool {
        self.state == State::Paused && !self.will_run()
    }

    /// Whether it stands still until somebody does something about it, or it is woken.
    #[must_use]
    pub fn stands(self) -> bool {
        self.stays_paused() || self.state == State::Suspended
    }

    /// Whether it may still be coming in by a move. At the source it looks the same for the moment of the handover.
    #[must_use]
    pub fn is_incoming(self) -> bool {
        matches!(self, Self::PAUSED_MIGRATION | Self::PAUSED_STARTING_UP | Self::PAUSED_POSTCOPY)
    }

    /// Whether it is being moved by post-copy, or was when that broke: part of its memory is on another host.
    #[must_use]
    pub fn is_postcopy(self) -> bool {
        matches!(self, Self::PAUSED_POSTCOPY | Self::RUNNING_POSTCOPY) || self.is_broken_postcopy()
    }

    /// Whether it runs by post-copy, and part of its memory has not come or never will.
    #[must_use]
    pub fn is_incoming_postcopy(self) -> bool {
        matches!(self, Self::RUNNING_POSTCOPY | Self::RUNNING_POSTCOPY_FAILED)
    }

    /// Whether its post-copy is broken: it waits for memory that does not come, wherever it touches it.
    #[must_use]
    pub fn is_broken_postcopy(self) -> bool {
        matches!(self, Self::PAUSED_POSTCOPY_FAILED | Self::RUNNING_POSTCOPY_FAILED)
    }

    /// The reason in libvirt's own words (`virsh domstate --reason`).
    fn word(self) -> Option<&'static str> {
        let words: &[&str] = match self.state {
            State::Running => &[
                "unknown",
                "booted",
                "migrated",
                "restored",
                "from snapshot",
                "unpaused",
                "migration canceled",
                "save canceled",
                "event wakeup",
                "crashed",
                "post-copy",
                "post-copy failed",
            ],
            State::Paused => &[
                "unknown",
                "user",
                "migrating",
                "saving",
                "dumping",
                "I/O error",
                "watchdog",
                "from snapshot",
                "shutting down",
                "creating snapshot",
                "crashed",
                "starting up",
                "post-copy",
                "post-copy failed",
                "api error",
            ],
            State::ShuttingDown => &["unknown", "user"],
            State::ShutOff => &["unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot", "daemon"],
            State::Crashed => &["unknown", "panicked"],
            _ => &["unknown"],
        };
        words.get(usize::try_from(self.reason).ok()?).copied()
    }
}

/// State and reason in libvirt's words; a reason that is not known here by its number.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word() {
            Some(word) => write!(f, "{} ({word})", self.state),
            None => write!(f, "{} (reason {})", self.state, self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_libvirts() {
        assert_eq!(Condition::PAUSED_IO_ERROR.to_string(), "paused (I/O error)");
        assert_eq!(Condition::PAUSED_MIGRATION.to_string(), "paused (migrating)");
        assert_eq!(Condition::RUNNING_POSTCOPY.to_string(), "running (post-copy)");
        assert_eq!(Condition::from_numbers(5, 2).to_string(), "shut off (destroyed)");
        assert_eq!(Condition::from_numbers(3, 99).to_string(), "paused (reason 99)");
        assert_eq!(Condition::from_numbers(3, -1).to_string(), "paused (reason -1)");
        assert_eq!(Condition::from_numbers(9, 0).to_string(), "unknown state 9 (unknown)");
    }

    #[test]
    fn who_will_not_run_again_by_itself() {
        let paused = |reason: i32| Condition::from_numbers(3, reason);
        let faults: Vec<i32> = (0..=15).filter(|reason| paused(*reason).is_fault()).collect();
        assert_eq!(faults, [0, 5, 6, 10, 13, 14]);
        assert!((0..=15).all(|reason| !(paused(reason).is_fault() && paused(reason).will_run())));
    }

    #[test]
    fn the_same_number_means_another_thing_in_another_state() {
        let of = Condition::from_numbers;
        assert!(of(1, 11).is_broken_postcopy() && !of(3, 11).is_postcopy());
        assert!(of(3, 12).is_postcopy() && !of(3, 12).is_broken_postcopy());
        assert!(!of(3, 10).is_postcopy() && !of(5, 13).is_postcopy());
        assert!(of(1, 10).is_incoming_postcopy() && of(1, 11).is_incoming_postcopy() && !of(3, 11).is_incoming_postcopy());
        assert!(of(3, 2).will_run() && of(3, 2).is_incoming() && !of(1, 2).will_run() && !of(9, 2).will_run() && !of(5, 2).is_incoming());
        assert!(of(3, 5).is_fault() && !of(1, 5).is_fault() && !of(1, 10).is_fault());
        assert!(of(3, 1).stands() && of(7, 0).stands() && !of(3, 2).stands() && !of(1, 0).stands() && !of(6, 1).stands());
        assert!(of(3, 1).stays_paused() && of(3, 99).stays_paused() && !of(3, 9).stays_paused() && !of(6, 1).stays_paused());
    }
}
