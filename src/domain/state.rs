//! The states libvirt has for a domain, and its reasons for them.
//!
//! Numbers: `virDomainState` and the `virDomain*Reason` enumerations of libvirt's `include/libvirt/libvirt-domain.h`.
//! They are append-only; a number this file does not know is kept as it is, and never taken for "off".

use std::fmt;

/// `virDomainState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// 0: libvirt does not know; for QEMU, while a domain is being set up.
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

/// Why a domain is in its state: the number only means something together with the [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub i32);

impl Reason {
    /// `VIR_DOMAIN_PAUSED_USER`.
    pub const PAUSED_USER: Self = Self(1);
    /// `VIR_DOMAIN_PAUSED_MIGRATION`: at the source while it is handed over, at the target while it comes in.
    pub const PAUSED_MIGRATION: Self = Self(2);
    /// `VIR_DOMAIN_PAUSED_SAVE`.
    pub const PAUSED_SAVE: Self = Self(3);
    /// `VIR_DOMAIN_PAUSED_DUMP`.
    pub const PAUSED_DUMP: Self = Self(4);
    /// `VIR_DOMAIN_PAUSED_IOERROR`.
    pub const PAUSED_IO_ERROR: Self = Self(5);
    /// `VIR_DOMAIN_PAUSED_WATCHDOG`.
    pub const PAUSED_WATCHDOG: Self = Self(6);
    /// `VIR_DOMAIN_PAUSED_SNAPSHOT`.
    pub const PAUSED_SNAPSHOT: Self = Self(9);
    /// `VIR_DOMAIN_PAUSED_CRASHED`.
    pub const PAUSED_CRASHED: Self = Self(10);
    /// `VIR_DOMAIN_PAUSED_STARTING_UP`.
    pub const PAUSED_STARTING_UP: Self = Self(11);
    /// `VIR_DOMAIN_PAUSED_POSTCOPY`.
    pub const PAUSED_POSTCOPY: Self = Self(12);
    /// `VIR_DOMAIN_PAUSED_POSTCOPY_FAILED`.
    pub const PAUSED_POSTCOPY_FAILED: Self = Self(13);
    /// `VIR_DOMAIN_RUNNING_POSTCOPY`.
    pub const RUNNING_POSTCOPY: Self = Self(10);
    /// `VIR_DOMAIN_RUNNING_POSTCOPY_FAILED`.
    pub const RUNNING_POSTCOPY_FAILED: Self = Self(11);

    /// Whether a guest that is paused for this reason was paused by a fault, and will not run again by itself.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(self, Self::PAUSED_IO_ERROR | Self::PAUSED_WATCHDOG | Self::PAUSED_CRASHED | Self::PAUSED_POSTCOPY_FAILED)
    }

    /// Whether a guest that is paused for this reason is about to run: it starts, comes in, or something is being written.
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

    /// Whether a guest in this state for this reason is being moved by post-copy, or was when that broke: part of its memory is on
    /// another host.
    #[must_use]
    pub fn is_postcopy(self, state: State) -> bool {
        match state {
            State::Paused => matches!(self, Self::PAUSED_POSTCOPY | Self::PAUSED_POSTCOPY_FAILED),
            State::Running => matches!(self, Self::RUNNING_POSTCOPY | Self::RUNNING_POSTCOPY_FAILED),
            _ => false,
        }
    }

    /// Whether a post-copy of a guest in this state is broken: it waits for memory that does not come, wherever it touches it.
    #[must_use]
    pub fn is_broken_postcopy(self, state: State) -> bool {
        self.is_postcopy(state) && matches!(self, Self::PAUSED_POSTCOPY_FAILED | Self::RUNNING_POSTCOPY_FAILED)
    }

    /// The reason in words, in libvirt's own language (`virsh domstate --reason`), or its number.
    #[must_use]
    pub fn text(self, state: State) -> String {
        let words: &[&str] = match state {
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
        usize::try_from(self.0).ok().and_then(|at| words.get(at)).map_or_else(|| format!("reason {}", self.0), |word| (*word).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_libvirts() {
        assert_eq!(State::from_number(3).to_string(), "paused");
        assert_eq!(Reason(5).text(State::Paused), "I/O error");
        assert_eq!(Reason::PAUSED_MIGRATION.text(State::Paused), "migrating");
        assert_eq!(Reason(99).text(State::Paused), "reason 99");
        assert_eq!(State::from_number(9).to_string(), "unknown state 9");
    }

    #[test]
    fn the_same_number_means_another_thing_in_another_state() {
        assert!(Reason(11).is_broken_postcopy(State::Running) && !Reason(11).is_postcopy(State::Paused));
        assert!(Reason(12).is_postcopy(State::Paused) && !Reason(12).is_broken_postcopy(State::Paused));
        assert!(!Reason(10).is_postcopy(State::Paused) && !Reason(13).is_postcopy(State::ShutOff));
    }
}
