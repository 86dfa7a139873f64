//! The table of actions: what is advertised and what is done.

use super::exit::Failure;
use super::{Call, guest, moving, validate};

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
    /// The least timeout that is advised, in seconds: `ocf:heartbeat:VirtualDomain`'s.
    pub timeout: u32,
    /// The advised interval, in seconds.
    pub interval: Option<u32>,
    /// Whether OCF 1.0 has the action (`ra-api-1.dtd`).
    pub since_1_0: bool,
    /// What it does.
    pub run: fn(&Call) -> Result<(), Failure>,
}

/// The actions, in the order of the metadata.
pub const ACTIONS: &[Action] = &[
    Action { word: "start", name: Some(Name::Start), timeout: 90, interval: None, since_1_0: true, run: guest::start },
    Action { word: "stop", name: Some(Name::Stop), timeout: 90, interval: None, since_1_0: true, run: guest::stop },
    Action { word: "status", name: Some(Name::Status), timeout: 30, interval: Some(10), since_1_0: true, run: guest::status },
    Action { word: "monitor", name: Some(Name::Monitor), timeout: 30, interval: Some(10), since_1_0: true, run: guest::monitor },
    Action { word: "migrate_from", name: Some(Name::MigrateFrom), timeout: 60, interval: None, since_1_0: true, run: moving::migrate_from },
    Action { word: "migrate_to", name: Some(Name::MigrateTo), timeout: 120, interval: None, since_1_0: true, run: moving::migrate_to },
    Action {
        word: "reload-agent",
        name: Some(Name::ReloadAgent),
        timeout: 20,
        interval: None,
        since_1_0: false,
        run: validate::reload_agent,
    },
    Action {
        word: "validate-all",
        name: Some(Name::ValidateAll),
        timeout: 5,
        interval: None,
        since_1_0: true,
        run: validate::validate_all,
    },
    Action { word: "meta-data", name: None, timeout: 5, interval: None, since_1_0: true, run: |_| Ok(()) },
];

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
