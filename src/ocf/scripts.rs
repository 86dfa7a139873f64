//! The monitor scripts.

use super::Call;
use super::exit::Failure;
use crate::domain::record::Slot;
use crate::program::{self, Finished, Outcome};

impl Call {
    /// Runs the monitor scripts one after the other until one fails.
    pub(super) fn scripts(&self) -> Result<(), Failure> {
        for script in &self.parameters.monitor_scripts {
            if let Err(text) = self.script(script) {
                self.note_script(Some(script));
                return Err(Failure::generic(format!("monitor script {script}: {text}")));
            }
        }
        self.note_script(None);
        Ok(())
    }

    /// What comes of one; an error says why it has failed.
    fn script(&self, script: &str) -> Result<(), String> {
        let owner = self.environment.instance.as_deref().unwrap_or_default();
        let finished = program::run_apart(script, owner, &self.deadline).map_err(|error| error.to_string())?;
        match finished.outcome {
            Outcome::Exited(0) => Ok(()),
            Outcome::Exited(_) => Err(format!("{}: {}", finished.outcome, said(&finished))),
            Outcome::Late => Err(finished.outcome.to_string()),
        }
    }

    /// Notes which has failed, for the stop that comes of it.
    fn note_script(&self, script: Option<&String>) {
        let shelf = self.shelf();
        if self.parameters.snapshot.is_some() && shelf.get::<String>(Slot::Script).as_ref() != script {
            shelf.put(Slot::Script, &script);
        }
    }
}

/// Both outputs in one line.
fn said(finished: &Finished) -> String {
    [&finished.stdout, &finished.stderr].map(|text| String::from_utf8_lossy(text).trim().to_owned()).join(" ").trim().to_owned()
}
