//! From what happened to what the cluster is told: the one place where a code is chosen. Others say what is wrong, by one of the constructors of
//! [`Failure`].
//!
//! What Pacemaker does with each (`lib/pengine/unpack.c`): 6 bans the resource from every node; 2, 4 and 5 ban it from this one, and
//! a probe that returns 2 or 5 is recorded as "not running" even if the guest runs. So those come only from words that are wrong
//! and files that are missing, seen before anything was done, and never from a probe, a stop or a migration. 7 is "proven not
//! there". Everything that was tried and failed, and everything that cannot be told, is 1.

use super::actions::Action;
use crate::domain::{Error, Kind};
use crate::parameter::Fault;

/// The exit codes of the OCF resource agent API that this agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// `OCF_SUCCESS`
    Success = 0,
    /// `OCF_ERR_GENERIC`
    Generic = 1,
    /// `OCF_ERR_UNIMPLEMENTED`
    Unimplemented = 3,
    /// `OCF_ERR_INSTALLED`
    Installed = 5,
    /// `OCF_ERR_CONFIGURED`
    Configured = 6,
    /// `OCF_NOT_RUNNING`
    NotRunning = 7,
    /// `OCF_RUNNING_DEGRADED`: only from a recurring monitor.
    Degraded = 190,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Success, Self::Generic, Self::Unimplemented, Self::Installed, Self::Configured, Self::NotRunning, Self::Degraded];

    /// What it means, for the manual.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done; for monitor, probe and status: the guest is there",
            Self::Generic => "it failed, or it cannot be told; the exit reason says which",
            Self::Unimplemented => "no such action",
            Self::Installed => "start and validate-all: something is missing on this node; Pacemaker tries another",
            Self::Configured => "a parameter is wrong; Pacemaker tries no other node",
            Self::NotRunning => "the guest is proven not to be here",
            Self::Degraded => "recurring monitor: the guest is there but hurt; Pacemaker shows it and does nothing",
        }
    }
}

/// Why an action did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code to exit with.
    pub code: Code,
    /// The exit reason: one line for a person. `NotRunning` has none, it is an answer and no failure of the agent.
    pub reason: Option<String>,
}

impl Failure {
    fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: Some(reason.into()) }
    }

    /// `OCF_ERR_GENERIC` with a reason.
    pub fn generic(reason: impl Into<String>) -> Self {
        Self::new(Code::Generic, reason)
    }

    /// A parameter is wrong on every node: for a start and validate-all.
    pub fn misconfigured(reason: impl Into<String>) -> Self {
        Self::new(Code::Configured, reason)
    }

    /// Something is missing on this node: for a start and validate-all.
    pub fn not_installed(reason: impl Into<String>) -> Self {
        Self::new(Code::Installed, reason)
    }

    /// The guest is there but hurt: for a recurring monitor.
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self::new(Code::Degraded, reason)
    }

    /// The guest is proven not to run here.
    #[must_use]
    pub fn not_running() -> Self {
        Self { code: Code::NotRunning, reason: None }
    }

    /// What an error of the lower rooms means for an action.
    #[must_use]
    pub fn of(action: Action, error: Error) -> Self {
        Self::new(code(action, error.kind), error.text)
    }

    /// What a wrong or missing parameter means for an action.
    #[must_use]
    pub fn of_fault(action: Action, fault: &Fault) -> Self {
        let code = match action {
            // 6 would leave the guest stopped everywhere after a failed move.
            Action::MigrateTo | Action::MigrateFrom => Code::Generic,
            Action::Start | Action::ValidateAll => Code::Configured,
            // Without `config` there is no guest to speak of; the incumbent says 6 on every action.
            Action::Stop | Action::Monitor | Action::Status | Action::ReloadAgent | Action::MetaData if fault.missing => Code::Configured,
            Action::Stop | Action::Monitor | Action::Status | Action::ReloadAgent | Action::MetaData => Code::Generic,
        };
        Self::new(code, fault.to_string())
    }
}

/// The code for a kind of error in an action. Never 7: that a thing was not found is no proof that its emulator is gone, and what
/// was proven says [`Failure::not_running`] itself.
fn code(action: Action, kind: Kind) -> Code {
    match kind {
        Kind::Definition => match action {
            // Another node may have the file.
            Action::Start | Action::ValidateAll => Code::Installed,
            Action::Stop
            | Action::Monitor
            | Action::Status
            | Action::MigrateTo
            | Action::MigrateFrom
            | Action::ReloadAgent
            | Action::MetaData => Code::Generic,
        },
        Kind::NotFound
        | Kind::Unreachable
        | Kind::Unresponsive
        | Kind::Refused
        | Kind::State
        | Kind::TimedOut
        | Kind::Locked
        | Kind::Lives
        | Kind::Internal => Code::Generic,
    }
}

#[cfg(test)]
mod tests {
    use super::super::actions::{ACTIONS, Row};
    use super::*;
    use crate::parameter::Concerns;

    #[test]
    fn nothing_that_bans_comes_from_a_running_system() {
        for Row { action, .. } in ACTIONS {
            for kind in Kind::ALL {
                let code = code(*action, kind);
                let validation = matches!(action, Action::Start | Action::ValidateAll) && kind == Kind::Definition;
                assert!(code == Code::Generic || validation, "{action:?} {kind:?}");
            }
        }
    }

    #[test]
    fn no_error_says_that_the_guest_does_not_run() {
        for Row { action, .. } in ACTIONS {
            for kind in Kind::ALL {
                assert_ne!(code(*action, kind), Code::NotRunning, "{action:?} {kind:?}");
            }
        }
    }

    #[test]
    fn a_migration_never_says_what_leaves_the_guest_stopped() {
        for action in [Action::MigrateTo, Action::MigrateFrom] {
            for missing in [false, true] {
                let fault = Fault { name: "config", concerns: Concerns::Guest, text: String::new(), missing };
                assert_eq!(Failure::of_fault(action, &fault).code, Code::Generic);
            }
        }
    }
}
