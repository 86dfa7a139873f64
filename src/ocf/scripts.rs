//! The monitor scripts.

use super::Call;
use super::exit::Failure;
use crate::program::{self, Finished, Outcome};

impl Call {
    /// Runs the monitor scripts one after the other until one fails.
    pub(super) fn scripts(&self) -> Result<(), Failure> {
        let owner = self.environment.instance.as_deref().unwrap_or_default();
        for script in &self.parameters.monitor_scripts {
            let failed = |text: String| Failure::generic(format!("monitor script {script}: {text}"));
            let finished = program::run_apart(script, owner, &self.deadline).map_err(|error| failed(error.to_string()))?;
            match finished.outcome {
                Outcome::Exited(0) => {}
                Outcome::Exited(code) => return Err(failed(format!("exited with {code}: {}", said(&finished)))),
                Outcome::Late => return Err(failed("did not end in time".into())),
            }
        }
        Ok(())
    }
}

/// Both outputs in one line.
fn said(finished: &Finished) -> String {
    [&finished.stdout, &finished.stderr].map(|text| String::from_utf8_lossy(text).trim().to_owned()).join(" ").trim().to_owned()
}
