//! Whether what runs in the guest gives a sign of life: a part of the recurring monitor, if it is wanted.

use super::Call;
use super::actions::Action;
use super::exit::Failure;
use crate::domain::agent::{self, Pulses};
use crate::domain::record::Slot;
use crate::domain::wire::Pulse;
use crate::log;
use std::time::Duration;

/// How long the agent may take: libvirt itself gives it 5 s to be in step.
const PATIENCE: Duration = Duration::from_secs(6);

/// How often in a row it must have been silent when only `OCF_CHECK_LEVEL` asks for it.
const USUAL: u64 = 3;

impl Call {
    /// Why the guest failed the last monitor that looked into it, if it did.
    pub(super) fn illness(&self) -> Option<String> {
        let (shelf, pid) = (self.shelf(), self.record().and_then(|record| record.pid));
        let wanted = Some(self.parameters.guest_agent_failures).filter(|wanted| *wanted > 0).unwrap_or(USUAL);
        let hangs = shelf.get(Slot::Pulse).is_some_and(|record: Pulses| Some(record.pid) == pid && record.silent >= wanted);
        let script = || shelf.get::<String>(Slot::Script).map(|script| format!("monitor script {script} has failed"));
        hangs.then(|| "its agent is silent".to_owned()).or_else(script)
    }

    /// Asks the guest's agent, if that is wanted. A failure only when it has answered before, has been silent often enough in a row, and
    /// the guest's disks and network stood still all the time.
    pub(super) fn pulse(&self, name: &str) -> Result<(), Failure> {
        let wanted = match self.parameters.guest_agent_failures {
            0 if self.environment.check_level < 10 => return Ok(()),
            0 => USUAL,
            wanted => wanted,
        };
        if self.action != Action::Monitor || self.environment.probe {
            return Ok(());
        }
        let Some(pid) = self.record().and_then(|record| record.pid) else { return Ok(()) };
        let shelf = self.shelf();
        let old = shelf.get(Slot::Pulse).filter(|old: &Pulses| old.pid == pid);
        let keep = |record: Pulses| {
            if Some(record) != old {
                shelf.put(Slot::Pulse, &record);
            }
        };
        let patience = self.deadline.share(PATIENCE, 2);
        match (agent::ping(name, &self.parameters.hypervisor, &patience), old) {
            (Ok(Pulse::Beats), _) => keep(Pulses { pid, ..Pulses::default() }),
            // It was never heard: it may not be installed.
            (Ok(Pulse::Silent(text)), None) => log::debug(|| format!("the agent of {name} was never heard: {text}")),
            // That says nothing of the guest.
            (Ok(Pulse::Unasked(text)), None) => log::debug(|| format!("the agent of {name} was not asked: {text}")),
            (Ok(Pulse::Unasked(text)), Some(_)) => log::info(format_args!("the agent of {name} was not asked: {text}")),
            (Ok(Pulse::Silent(text)), Some(old)) => {
                match agent::activity(name, &self.parameters.hypervisor, &self.deadline.part(4)) {
                    // Nobody in the guest has the channel open: it was stopped, or the guest boots. A guest that hangs keeps it open.
                    Ok(None) => log::debug(|| format!("the agent of {name}: {text}")),
                    Ok(Some(activity)) => {
                        let record = old.missed(activity);
                        keep(record);
                        if record.silent >= wanted {
                            let text = format!(
                                "the agent of {name} is silent, and its disks and network stand still, {wanted} monitors long: {text}"
                            );
                            return Err(Failure::generic(text));
                        }
                        log::warning(format_args!("the agent of {name} is silent: {text}"));
                    }
                    Err(error) => log::warning(format_args!("the agent of {name} is silent; {error}")),
                }
            }
            (Err(error), _) => log::debug(|| error.text),
        }
        Ok(())
    }
}
