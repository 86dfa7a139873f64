//! A password that a program of the user's prints (`password_script`).

use super::options::Secret;
use crate::deadline::Deadline;
use crate::program::{self, Outcome};
use std::path::Path;

/// The password that a program prints, in its first line. Nothing that it says is told.
pub(super) fn printed(file: &Path, deadline: &Deadline) -> std::result::Result<Secret, String> {
    let failed = |text: &str| format!("password_script {}: {text}", file.display());
    let finished = program::run(file, &[] as &[&str], deadline).map_err(|error| failed(&error.to_string()))?;
    match finished.outcome {
        Outcome::Late => return Err(failed("no answer in time")),
        Outcome::Exited(0) => {}
        Outcome::Exited(code) => return Err(failed(&format!("exit code {code}"))),
    }
    let text = String::from_utf8(finished.stdout).map_err(|_| failed("what it prints is no UTF-8"))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret(line.to_owned())),
        None => Err(failed("it prints nothing")),
    }
}
