//! A resource as a person asks about it: its parameters read as the agent reads them, without an action.

use super::actions::Action;
use super::exit::Failure;
use super::{Call, Environment, route};
use crate::deadline::Deadline;
use crate::domain::emulator::Emulator;
use crate::domain::migration::policy::Policy;
use crate::domain::migration::{Plan, StorageCheck};
use crate::domain::record::{Record, Shelf};
use crate::domain::{Definition, Identity, Uri, evidence, saved_state, twin};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A resource, and a node it may be moved to.
pub struct Asked {
    call: Call,
}

impl Asked {
    /// A resource with these parameters, to be moved to `target`. Wrong ones are reported as the agent would.
    ///
    /// # Errors
    /// What the agent would say.
    pub fn new(instance: Option<&str>, given: &BTreeMap<String, String>, target: &str, deadline: Deadline) -> Result<Self, String> {
        let mut variables: BTreeMap<String, String> =
            given.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), value.clone())).collect();
        variables.insert("OCF_RESKEY_CRM_meta_migrate_target".into(), target.into());
        if let Some(instance) = instance {
            variables.insert("OCF_RESOURCE_INSTANCE".into(), instance.into());
        }
        let call = Call::new(Action::MigrateTo, Environment::new(&variables, ""), deadline);
        match call.faults.first() {
            Some(fault) => Err(fault.to_string()),
            None => Ok(Self { call }),
        }
    }

    /// How it would be moved.
    ///
    /// # Errors
    /// What the agent would say.
    pub fn plan(&self) -> Result<Plan, String> {
        route::plan(&self.call).map_err(said)
    }

    /// Its definition, from `config`.
    ///
    /// # Errors
    /// What the agent would say.
    pub fn definition(&self) -> Result<Definition, String> {
        self.call.definition().map_err(|error| error.text)
    }

    /// Whether the parameters say how to reach the libvirt of other nodes, as they do for guests that are moved.
    #[must_use]
    pub fn reaches_others(&self) -> bool {
        self.call.reaches_others()
    }

    /// Whether what is under the guest is compared with nothing (`migration_storage_check=off`).
    #[must_use]
    pub fn compares_no_storage(&self) -> bool {
        self.call.parameters.migration_storage_check == StorageCheck::Off
    }

    /// Whether the disks are said to be shared, whatever the names of their file systems are (`--unsafe`).
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        self.call.parameters.migrate_options.is_unsafe()
    }

    /// The guest that the resource means, as far as this node knows: by its state file, its definition, or its names. Of a state file whose
    /// guest is not here the definition knows better.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let record = self.record();
        let lives = |record: &Record| {
            let (identity, emulator, deadline) = (record.identity(), record.trace().emulator, &self.call.deadline);
            // With its UUID alone it may be one that has another name by now.
            let others = |found: Vec<Emulator>| found.into_iter().all(|found| twin::has_another_name(found, &identity.name, deadline));
            emulator.is_some_and(|emulator| !emulator.is_dying()) || !evidence::find(&identity, emulator, deadline).is_ok_and(others)
        };
        if let Some(record) = record.as_ref().filter(|record| lives(record)) {
            return Some(record.identity());
        }
        let defined = self.call.definition().map(|definition| definition.identity);
        match (record.map(|record| record.identity()), defined) {
            (Some(seen), Ok(defined)) if seen.name != defined.name => Some(defined),
            (Some(seen), _) => Some(seen),
            (None, Ok(defined)) => Some(defined),
            (None, Err(error)) => self.call.guesses(&error).into_iter().next(),
        }
    }

    /// Whether this is known to be the resource's guest, and not only guessed from a name: it was seen here, or the definition names it.
    #[must_use]
    pub fn is_sure(&self, identity: &Identity) -> bool {
        self.call.is_sure(identity)
    }

    /// Where stop would save the state of the guest `name`, if it does (`snapshot`).
    #[must_use]
    pub fn saved_state(&self, name: &str) -> Option<PathBuf> {
        self.call.parameters.snapshot.as_ref().map(|folder| saved_state::place(folder, name))
    }

    /// What was seen last of the guest on this node.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        self.call.record()
    }

    /// Where that is kept.
    #[must_use]
    pub fn shelf(&self) -> Shelf {
        self.call.shelf()
    }

    /// Takes away what this node has left beside the disks, of a guest that is proven not to be here.
    pub fn take_marks(&self, deadline: &Deadline) {
        self.call.take_marks(deadline);
    }

    /// How the memory is sent: the policy's, and whether it is encrypted.
    #[must_use]
    pub fn way(&self) -> (Policy, bool) {
        (self.call.parameters.migration_policy, self.call.parameters.migrate_options.is_encrypted())
    }

    /// The libvirt of this node.
    #[must_use]
    pub fn hypervisor(&self) -> &Uri {
        &self.call.parameters.hypervisor
    }

    /// The URI of the libvirt of another node.
    #[must_use]
    pub fn remote(&self, node: &str) -> String {
        route::remote(&self.call, node)
    }
}

fn said(failure: Failure) -> String {
    failure.reason.unwrap_or_default()
}
