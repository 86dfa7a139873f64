//! One call of one of Pacemaker's tools.

use crate::deadline::Deadline;
use crate::program::{self, Outcome};
use std::io;

/// Why a tool gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not installed.
    Missing(String),
    /// It exited with this code and said this.
    Failed(i32, String),
    /// It did not end in time, or could not be started.
    Silent(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Missing(text) | Self::Failed(_, text) | Self::Silent(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Trouble {}

/// Runs `name` with `words`; what it printed if it exited with 0.
///
/// # Errors
/// See [`Trouble`].
pub fn run(name: &str, words: &[&str], deadline: &Deadline) -> Result<String, Trouble> {
    match program::run(name, words, deadline) {
        Ok(finished) => match finished.outcome {
            Outcome::Exited(0) => Ok(String::from_utf8_lossy(&finished.stdout).into_owned()),
            Outcome::Exited(code) => {
                let said = [&finished.stderr, &finished.stdout].map(|text| String::from_utf8_lossy(text).trim().replace('\n', "; "));
                let said = said.iter().find(|text| !text.is_empty()).map_or("nothing", String::as_str);
                Err(Trouble::Failed(code, format!("{name} exited with {code}: {said}")))
            }
            Outcome::Late => Err(Trouble::Silent(format!("{name} did not end in time"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Trouble::Missing(format!("{name} is not installed"))),
        Err(error) => Err(Trouble::Silent(format!("{name} cannot be started: {error}"))),
    }
}
