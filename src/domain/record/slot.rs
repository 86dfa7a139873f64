//! The notes of a resource instance: what spares a later action work.

/// The notes, each once: what is not in here cannot be kept, and what is in here is forgotten with the guest.
macro_rules! notes {
    ($($(#[doc = $text:literal])+ $note:ident = $word:literal,)+) => {
        /// What spares a later action work, in a file of its own beside the record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Slot {
            $($(#[doc = $text])+ $note,)+
        }

        impl Slot {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$note),+];

            /// The end of its file's name.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$note => $word,)+
                }
            }
        }
    };
}

notes! {
    /// The definition as it was written to `config` last.
    Definition = "xml",
    /// The utilization as it was found or written last.
    Utilization = "utilization",
    /// The signs of life of the guest's agent.
    Pulse = "pulse",
    /// The monitor script that failed the last time.
    Script = "script",
    /// The outage of its storage.
    Outage = "outage",
    /// Where it could be moved to.
    Outlook = "outlook",
    /// The words beside its disks.
    Marks = "marks",
    /// The lock of who leaves them.
    Marking = "marking",
    /// Who was here, and nobody's, when a probe said for the first time that its guest is not.
    Strangers = "strangers",
}
