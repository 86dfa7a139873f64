//! One call of one of Pacemaker's tools.

use crate::deadline::Deadline;
use crate::program::{self, Outcome};
use std::io;
use std::time::Duration;

/// How much of what a tool says is kept: a CIB has megabytes.
const MOST: usize = 64 * 1024 * 1024;
/// How long after a call that came to nothing it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// With which code every tool exits if Pacemaker's daemons cannot be reached (`CRM_EX_DISCONNECT` of its `include/crm/common/results.h`).
pub const DISCONNECTED: i32 = 102;

/// Why a tool gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is not installed.
    Missing(String),
    /// It exited with this code and said this.
    Failed(i32, String),
    /// What it says is not understood, or it was not asked, since the question makes no sense.
    Nonsense(String),
    /// It did not end in time, could not be started, or said more than was read.
    Silent(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Missing(text) | Self::Failed(_, text) | Self::Nonsense(text) | Self::Silent(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Trouble {}

/// Runs `name` with `words`; what it printed if it exited with 0.
///
/// # Errors
/// See [`Trouble`].
pub fn run(name: &str, words: &[&str], deadline: &Deadline) -> Result<String, Trouble> {
    match program::run_keeping(MOST, name, words, deadline) {
        Ok(finished) => match finished.outcome {
            // Half of a text may well look like a whole one.
            Outcome::Exited(0) if finished.cut => {
                Err(Trouble::Silent(format!("{name} says more than {} MiB, the rest is cut", MOST / 1024 / 1024)))
            }
            Outcome::Exited(0) => Ok(String::from_utf8_lossy(&finished.stdout).into_owned()),
            Outcome::Exited(code) => {
                let said = [&finished.stderr, &finished.stdout].map(|text| String::from_utf8_lossy(text).trim().replace('\n', "; "));
                let said = said.iter().find(|text| !text.is_empty()).map_or("nothing", String::as_str);
                Err(Trouble::Failed(code, failure(name, code, said)))
            }
            Outcome::Late => Err(Trouble::Silent(format!("{name} {}", finished.outcome))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Trouble::Missing(format!("{name} is not installed"))),
        Err(error) => Err(Trouble::Silent(format!("{name} cannot be started: {error}"))),
    }
}

fn failure(name: &str, code: i32, said: &str) -> String {
    match code {
        DISCONNECTED => format!("Pacemaker does not run on this node, see systemctl status pacemaker corosync; {name}: {said}"),
        _ => format!("{name} exited with {code}: {said}"),
    }
}

/// As [`run`], tried again until the deadline: an election may be under way, and nobody takes a change of the CIB then.
///
/// # Errors
/// See [`Trouble`]: the last one.
pub fn persist(name: &str, words: &[&str], deadline: &Deadline) -> Result<String, Trouble> {
    loop {
        match run(name, words, deadline) {
            Err(Trouble::Silent(_) | Trouble::Failed(..) | Trouble::Nonsense(_)) if deadline.pause(RETRY) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pacemaker_that_is_down_is_called_so() {
        let said = failure("crm_node", DISCONNECTED, "error: Could not connect to controller: Connection refused");
        assert!(said.starts_with("Pacemaker does not run on this node, see systemctl status") && said.ends_with("Connection refused"));
        assert_eq!(failure("cibadmin", 105, "no such object"), "cibadmin exited with 105: no such object");
    }

    #[test]
    fn what_is_cut_is_no_answer() {
        let say = |length: usize| run("head", &["-c", &length.to_string(), "/dev/zero"], &Deadline::after(Duration::from_secs(60)));
        assert_eq!(say(17 * 1024 * 1024).map(|text| text.len()), Ok(17 * 1024 * 1024));
        let Err(Trouble::Silent(text)) = say(MOST + 1) else { panic!() };
        assert_eq!(text, "head says more than 64 MiB, the rest is cut");
    }
}
