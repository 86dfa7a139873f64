//! The table of actions: what is advertised and what is done.

use super::exit::Failure;
use super::{Call, metadata, monitor, moving, starting, stopping, validate};

/// What the agent can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
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
    /// What is there to know about the agent.
    MetaData,
}

/// One row of the table.
pub struct Row {
    /// The word.
    pub word: &'static str,
    /// Which action.
    pub action: Action,
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
pub const ACTIONS: &[Row] = &[
    Row {
        text: "Creates the guest from config as a transient domain and waits until it runs and the monitor scripts agree. Asks the other nodes \
               first whether they run it, if the parameters say how to reach their libvirt.",
        ..row("start", Action::Start, 90, starting::start)
    },
    Row {
        text: "Asks the guest to shut down, ends it by force when time runs short, and succeeds only when its emulator is gone from /proc with \
               every thread. Without libvirt it ends the emulator itself.",
        ..row("stop", Action::Stop, 90, stopping::stop)
    },
    Row {
        text: "Says whether the guest is there. The monitor scripts are not asked.",
        interval: Some(10),
        ..row("status", Action::Status, 30, monitor::status)
    },
    Row {
        text: "Says whether the guest is there and the monitor scripts agree. Works from the emulator's process when libvirt gives no answer.",
        interval: Some(10),
        ..row("monitor", Action::Monitor, 30, monitor::monitor)
    },
    Row {
        text: "Waits until the guest that was moved here runs here and the monitor scripts agree.",
        ..row("migrate_from", Action::MigrateFrom, 60, moving::migrate_from)
    },
    Row {
        text: "Checks both ends, moves the guest live and peer-to-peer, and calls the move off in time if it does not end. Succeeds only if the \
               guest runs at the target; else it says where it is.",
        ..row("migrate_to", Action::MigrateTo, 120, moving::migrate_to)
    },
    Row {
        text: "Takes over new values of reloadable parameters. The guest is not touched.",
        since_1_0: false,
        ..row("reload-agent", Action::ReloadAgent, 20, validate::reload_agent)
    },
    Row {
        text: "Checks the words of the parameters (OCF_CHECK_LEVEL 0: the same answer on every host), and with OCF_CHECK_LEVEL 10 that this host can \
               run the guest.",
        ..row("validate-all", Action::ValidateAll, 5, validate::validate_all)
    },
    Row { text: "Prints the metadata.", ..row("meta-data", Action::MetaData, 5, metadata::print) },
];

/// A row with the most frequent properties.
const fn row(word: &'static str, action: Action, timeout: u32, run: fn(&Call) -> Result<(), Failure>) -> Row {
    Row { word, action, text: "", timeout, interval: None, since_1_0: true, run }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique() {
        for (at, row) in ACTIONS.iter().enumerate() {
            assert!(ACTIONS.iter().skip(at + 1).all(|other| other.word != row.word && other.action != row.action), "{}", row.word);
        }
    }
}
