//! The utilization attributes that Pacemaker places the guest by: written when they change, and at no other time.
//!
//! A healthy monitor asks nobody but libvirt. So what was written is noted beside the state file; the guest's own numbers are looked at once
//! a minute, and the CIB when they have changed or ten minutes have gone by. Everything here is a service to the placement: nothing that goes
//! wrong is the guest's, or makes an action fail.

use super::Call;
use super::actions::Action;
use crate::cluster;
use crate::cluster::tool::{DISCONNECTED, Trouble};
use crate::cluster::utilization;
use crate::deadline::{Deadline, seconds_since_boot};
use crate::domain::live::{self, Size};
use crate::domain::record;
use crate::log;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the guest's own numbers are looked at, in seconds.
const NUMBERS: i64 = 60;

/// How often the CIB is looked at though nothing has changed, in seconds.
const CIB: i64 = 600;

/// How long a question or a change may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be true of the attributes: a value, or that there is none; others are not touched.
type Wanted = BTreeMap<String, Option<String>>;

/// What was found or written last. Times are seconds since boot, as the note lives as long as the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    wanted: Wanted,
    numbers: i64,
    cib: i64,
}

impl Call {
    /// Sees to it that the resource's utilization attributes are right. For a guest that is here, after the action's own work.
    pub(super) fn update_utilization(&self) {
        let parameters = &self.parameters.utilization;
        let used =
            [parameters.cpu, parameters.host_memory, parameters.hv_memory].iter().any(|attribute| attribute.autoset || attribute.unset);
        // Only Pacemaker says on which node this is; without it there is nobody to write for.
        let (Some(instance), true) = (&self.environment.instance, used && self.environment.node.is_some()) else { return };
        let note = self.shelf().get::<Note>(record::Slot::Utilization);
        let now = seconds_since_boot();
        if note.as_ref().is_some_and(|note| self.action == Action::Monitor && (0..NUMBERS).contains(&(now - note.numbers))) {
            return;
        }
        let deadline = self.deadline.share(PATIENCE, 2);
        let Some(record) = self.record() else { return };
        let size = match live::size(&record.identity(), &self.parameters.hypervisor, &deadline) {
            Ok(Some(size)) => size,
            Ok(None) => return,
            Err(error) => return log::debug(|| error.text),
        };
        let wanted = self.wanted(size);
        let known = note.filter(|note| note.wanted == wanted && (0..CIB).contains(&(now - note.cib)));
        let cib = match known {
            Some(note) => note.cib,
            None => {
                let resource = cluster::resource_of(instance);
                if let Err(trouble) = apply(resource, &wanted, &deadline) {
                    match trouble {
                        Trouble::Missing(text) | Trouble::Failed(DISCONNECTED, text) => log::debug(|| text),
                        trouble => log::warning(format_args!("utilization of {resource}: {trouble}")),
                    }
                    // To be tried again with the next look at the numbers.
                    now - CIB
                } else {
                    now
                }
            }
        };
        self.shelf().put(record::Slot::Utilization, &Note { wanted, numbers: now, cib });
    }

    fn wanted(&self, size: Size) -> Wanted {
        let parameters = &self.parameters.utilization;
        let memory = size.memory / 1024;
        let rows = [
            ("cpu", parameters.cpu, size.cpus),
            ("host_memory", parameters.host_memory, memory),
            ("hv_memory", parameters.hv_memory, memory),
        ];
        let used = rows.into_iter().filter(|(_, attribute, _)| attribute.autoset || attribute.unset);
        used.map(|(name, attribute, number)| (name.to_owned(), attribute.autoset.then(|| number.to_string()))).collect()
    }
}

/// Writes what is not right.
fn apply(resource: &str, wanted: &Wanted, deadline: &Deadline) -> Result<(), Trouble> {
    let found = utilization::read(resource, deadline)?;
    for (name, value) in wanted.iter().filter(|(name, value)| found.get(*name) != value.as_ref()) {
        utilization::write(resource, name, value.as_deref(), deadline)?;
        match value {
            Some(value) => log::info(format_args!("utilization {name} of {resource} set to {value}")),
            None => log::info(format_args!("utilization {name} of {resource} removed")),
        }
    }
    Ok(())
}
