//! What an action says when it is done: the words and codes are those of fencing.py, which people's scripts know.

use super::plug::Done;
use super::power::Status;

/// What an action has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The exit code.
    pub(super) code: u8,
    /// For standard output, lines with their newline.
    pub(super) output: String,
    /// What did not work although the action succeeded, or why it failed.
    pub(super) complaints: Vec<String>,
}

impl Report {
    /// That of an action that succeeded.
    pub(super) fn said(output: &str) -> Self {
        Self { output: format!("{output}\n"), ..Self::default() }
    }

    /// A failure of any kind: the API has no other code.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self { code: 1, output: String::new(), complaints: vec![text.into()] }
    }
}

/// A failure, in the words for one that was tried.
pub(super) fn failed(text: &str) -> Report {
    Report::failed(format!("Failed: {text}"))
}

/// Whether the guests run: one that does is enough.
pub(super) fn status(states: &[Status]) -> Report {
    if states.contains(&Status::On) { Report::said("Status: ON") } else { Report { code: 2, ..Report::said("Status: OFF") } }
}

/// What was done with them; `word`: what they are now.
pub(super) fn changed(done: &[Done], word: &str) -> Report {
    let how = if done.contains(&Done::Changed) { "Powered" } else { "Already" };
    Report::said(&format!("Success: {how} {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_fencing_py() {
        assert_eq!(status(&[Status::Off, Status::On]), Report::said("Status: ON"));
        assert_eq!(status(&[Status::Off]), Report { code: 2, ..Report::said("Status: OFF") });
        assert_eq!(changed(&[Done::Already], "OFF").output, "Success: Already OFF\n");
        assert_eq!(changed(&[Done::Already, Done::Changed], "ON").output, "Success: Powered ON\n");
    }
}
