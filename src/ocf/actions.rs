//! The table of actions: what is advertised and what is done.

use super::exit::Failure;
use super::{Call, guest, monitor, moving, validate};

/// The actions that reach a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Start the guest and see it run.
    Start,
    /// End the guest and see it gone.
    Stop,
    /// Is it there?
    Monitor,
    /// Is it there, as a person asks.
    Status,
    /// Move it away.
    MigrateTo,
    /// See it arrived.
    MigrateFrom,
    /// New values of reloadable parameters.
    ReloadAgent,
    /// Are the parameters right?
    ValidateAll,
}

/// One row of the table.
pub struct Action {
    /// The word.
    pub word: &'static str,
    /// Which action; `meta-data` has no handler.
    pub name: Option<Name>,
    /// What it does, for the manual: whole sentences.
    pub text: &'static str,
    /// The least timeout that is advised, in seconds: `ocf:heartbeat:VirtualDomain`'s.
    pub timeout: u32,
    /// The advised interval, in seconds.
    pub interval: Option<u32>,
    /// Whether OCF 1.0 has the action (`ra-api-1.dtd`).
    pub since_1_0: bool,
    /// What is called.
    pub run: fn(&Call) -> Result<(), Failure>,
}

/// The actions, in the order of the metadata.
pub const ACTIONS: &[Action] = &[
    Action {
        text: "Creates the guest from config as a transient domain and waits until it runs and the monitor scripts agree. Asks the other nodes \
               first whether they run it, if the parameters say how to reach their libvirt.",
        ..row("start", Name::Start, 90, guest::start)
    },
    Action {
        text: "Asks the guest to shut down, ends it by force when time runs short, and succeeds only when its emulator is gone from /proc with \
               every thread. Without libvirt it ends the emulator itself.",
        ..row("stop", Name::Stop, 90, guest::stop)
    },
    Action {
        text: "Says whether the guest is there. The monitor scripts are not asked.",
        interval: Some(10),
        ..row("status", Name::Status, 30, monitor::status)
    },
    Action {
        text: "Says whether the guest is there and the monitor scripts agree. Works from the emulator's process when libvirt gives no answer.",
        interval: Some(10),
        ..row("monitor", Name::Monitor, 30, monitor::monitor)
    },
    Action {
        text: "Waits until the guest that was moved here runs here and the monitor scripts agree.",
        ..row("migrate_from", Name::MigrateFrom, 60, moving::migrate_from)
    },
    Action {
        text: "Checks both ends, moves the guest live and peer-to-peer, and calls the move off in time if it does not end. Succeeds only if the \
               guest runs at the target; else it says where it is.",
        ..row("migrate_to", Name::MigrateTo, 120, moving::migrate_to)
    },
    Action {
        text: "Takes over new values of reloadable parameters. The guest is not touched.",
        since_1_0: false,
        ..row("reload-agent", Name::ReloadAgent, 20, validate::reload_agent)
    },
    Action {
        text: "Checks the words of the parameters (OCF_CHECK_LEVEL 0: the same answer on every host), and with OCF_CHECK_LEVEL 10 that this host can \
               run the guest.",
        ..row("validate-all", Name::ValidateAll, 5, validate::validate_all)
    },
    Action { text: "Prints the metadata.", name: None, ..row("meta-data", Name::ValidateAll, 5, |_| Ok(())) },
];

/// A row with the most frequent properties.
const fn row(word: &'static str, name: Name, timeout: u32, run: fn(&Call) -> Result<(), Failure>) -> Action {
    Action { word, name: Some(name), text: "", timeout, interval: None, since_1_0: true, run }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique() {
        for (at, action) in ACTIONS.iter().enumerate() {
            assert!(ACTIONS.iter().skip(at + 1).all(|other| other.word != action.word), "{}", action.word);
        }
    }
}
