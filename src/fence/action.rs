//! The actions of the fence agent API and their words.

/// The actions of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start it.
    On,
    /// End it, and prove it.
    Off,
    /// Off, then on.
    Reboot,
    /// Does it run?
    Status,
    /// Is the agent able to work?
    Monitor,
    /// All guests.
    List,
    /// All guests, and whether they run.
    ListStatus,
    /// Are the options right?
    ValidateAll,
    /// Print the metadata.
    Metadata,
    /// Tell the other nodes what this one has not seen: a person has removed a note.
    Tell,
}

/// A word of the API.
pub(super) struct Row {
    /// The word.
    pub(super) word: &'static str,
    /// What it means.
    pub(super) action: Action,
    /// The same, for a person.
    pub(super) text: &'static str,
}

/// The actions, in the order of the metadata.
pub(super) const ACTIONS: &[Row] = &[
    Row {
        word: "on",
        action: Action::On,
        text: "Start the guest, from the host's definition or from the one that was kept when it was fenced",
    },
    Row { word: "off", action: Action::Off, text: "End the guest, and prove that no host runs it" },
    Row { word: "reboot", action: Action::Reboot, text: "off, then on" },
    Row { word: "status", action: Action::Status, text: "Say whether the guest runs: code 0 if it is on, 2 if it is off" },
    Row { word: "list", action: Action::List, text: "List all guests of the hosts: name and UUID" },
    Row { word: "list-status", action: Action::ListStatus, text: "The same list, with ON, OFF or UNKNOWN" },
    Row { word: "monitor", action: Action::Monitor, text: "Check that every host answers and lets guests be ended" },
    Row { word: "metadata", action: Action::Metadata, text: "Print the metadata for Pacemaker; no host is asked" },
    Row { word: "manpage", action: Action::Metadata, text: "The same as metadata" },
    Row { word: "validate-all", action: Action::ValidateAll, text: "Check the options; no host is asked" },
    Row {
        word: "tell",
        action: Action::Tell,
        text: "For a person: tell the other nodes which notes are left on this one; no host is asked",
    },
];

/// The action of a word; `meta-data` is how OCF spells it.
pub(super) fn action_of(word: &str) -> Option<Action> {
    let word = if word == "meta-data" { "metadata" } else { word };
    ACTIONS.iter().find(|row| row.word == word).map(|row| row.action)
}

impl Action {
    /// Whether it changes something.
    pub(super) fn acts(self) -> bool {
        matches!(self, Self::On | Self::Off | Self::Reboot)
    }

    /// Whether it is about guests, rather than about the hosts.
    pub(super) fn wants_plug(self) -> bool {
        self.acts() || self == Self::Status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for row in ACTIONS {
            assert_eq!(action_of(row.word), Some(row.action));
        }
        assert_eq!(action_of("meta-data"), Some(Action::Metadata));
        assert_eq!(action_of("diag"), None);
        assert_eq!(action_of(""), None);
    }
}
