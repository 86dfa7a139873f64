//! What is done around a guest's life because parameters ask for it: its definition kept, its state saved, what it needs made ready.

use super::Call;
use super::actions::Action;
use super::exit::Failure;
use crate::domain::definition::{Definition, Identity};
use crate::domain::migration::{self, Plan};
use crate::domain::overlay::{self, Recipe};
use crate::domain::record::{Record, Slot};
use crate::domain::resources::Needs;
use crate::domain::status::{self, Trace};
use crate::domain::{Condition, Connection, Error, Kind, files, live, saved_state};
use crate::log;
use crate::program;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long reading the definition from libvirt, or bringing it to the disk, may take.
const KEEPING: Duration = Duration::from_secs(10);

impl Call {
    /// What belongs to a monitor of a guest that is here and healthy.
    pub(super) fn attend(&self) {
        if self.action == Action::Monitor && self.environment.probe {
            return;
        }
        self.update_utilization();
        if self.keeps()
            && let Some(record) = self.record()
        {
            self.keep_definition(&record.identity());
        }
        self.update_outlook();
    }

    /// Whether the definition is to be kept.
    fn keeps(&self) -> bool {
        self.parameters.save_config_on_stop || self.parameters.sync_config_on_stop
    }

    /// Writes the definition of the guest, as it runs, to `config`, if that is wanted. A failure is only logged: the guest is none the worse.
    /// Not for a guess: another guest's definition there would make it this resource's.
    pub(super) fn keep_definition(&self, identity: &Identity) {
        if !self.keeps() || self.parameters.config.as_os_str().is_empty() {
            return;
        }
        if !self.is_sure(identity) {
            return log::warning(format_args!(
                "definition of {} is not saved: only its name says that it is this resource's",
                identity.name
            ));
        }
        if let Err(error) = self.try_keep(identity) {
            log::warning(format_args!("definition of {} is not saved: {error}", identity.name));
        }
    }

    fn try_keep(&self, identity: &Identity) -> Result<(), Error> {
        let config = &self.parameters.config;
        let deadline = self.deadline.share(KEEPING, 4);
        let Some(Definition { xml, identity: seen, .. }) = live::definition(identity, config, &self.parameters.hypervisor, &deadline)?
        else {
            return Ok(());
        };
        let shelf = self.shelf();
        // A monitor of a guest that is as it was does not touch the shared storage.
        if self.action == Action::Monitor && shelf.text(Slot::Definition).is_some_and(|kept| kept == xml.as_bytes()) {
            return Ok(());
        }
        let is_another = |there: &Identity| seen.uuid.as_ref().is_some_and(|uuid| there.is_another(uuid));
        // What is not there, or is no definition, is replaced.
        match self.definition_within(KEEPING) {
            Ok(Definition { identity: there, .. }) if there.name != seen.name || is_another(&there) => {
                return Err(Error::new(Kind::Refused, format!("config {} has another guest's, {}", config.display(), there.name)));
            }
            Err(error) if error.kind != Kind::Definition => return Err(error),
            _ => {}
        }
        let note = shelf.note_file(Slot::Definition);
        let unwritten = |error: io::Error| Error::new(Kind::Internal, format!("{} cannot be written: {error}", note.display()));
        shelf.put_text(Slot::Definition, xml.as_bytes()).map_err(unwritten)?;
        let deadline = self.deadline.share(KEEPING, 4);
        let replaced = match files::replace(config, &note, &deadline) {
            Ok(replaced) => replaced,
            Err(error) => {
                // It is not what was kept last, or a monitor would leave it at that.
                shelf.put_text(Slot::Definition, &[]).map_err(unwritten)?;
                return Err(error);
            }
        };
        if replaced {
            log::info(format_args!("definition of {} saved to {}", identity.name, config.display()));
            if self.parameters.sync_config_on_stop {
                self.distribute();
            }
        }
        Ok(())
    }

    fn distribute(&self) {
        let config = &self.parameters.config;
        let Some(csync2) = self.environment.program("csync2") else {
            return log::warning(format_args!("{} is not distributed: csync2 is not installed", config.display()));
        };
        match program::run(&csync2, &[OsStr::new("-x"), config.as_os_str()], &self.deadline.part(2)) {
            Ok(finished) if finished.succeeded() => log::info(format_args!("{} distributed", config.display())),
            Ok(finished) => {
                let said = finished.complaint().replace('\n', "; ");
                log::warning(format_args!("{} is not distributed: csync2 {}: {said}", config.display(), finished.outcome));
            }
            Err(error) => log::warning(format_args!("{} is not distributed: csync2: {error}", config.display())),
        }
    }

    /// Where the guest's state is saved, if it is.
    pub(super) fn saved_state_file(&self, name: &str) -> Option<PathBuf> {
        self.parameters.snapshot.as_ref().map(|folder| saved_state::place(folder, name))
    }

    /// What comes before the end of a guest that is here: its definition is kept, its state saved. A failure here does not stop the end. The
    /// state of a guest whose monitor failed is not saved: the fault would come back with its memory, and later monitors would take the guest
    /// for a new one.
    pub(super) fn before_end(&self, trace: &Trace) {
        if trace.creating {
            return;
        }
        let identity = &trace.identity;
        self.keep_definition(identity);
        let Some(file) = self.saved_state_file(&identity.name) else { return };
        let held = || trace.emulator.is_some_and(|emulator| emulator.is_held()).then(|| "its emulator is held".to_owned());
        let why = match self.illness().or_else(held) {
            Some(illness) => {
                self.retire_state(&identity.name);
                illness
            }
            None => match saved_state::save(identity, &self.parameters.hypervisor, &file, &self.deadline) {
                Ok(_) => return,
                Err(error) => error.text,
            },
        };
        log::warning(format_args!("the state of {} is not saved, it is shut down instead: {why}", identity.name));
    }

    /// The state that the guest is to be started from, if there is one.
    pub(super) fn state_to_restore(&self, definition: &Definition) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.saved_state_file(&definition.identity.name) else { return Ok(None) };
        let deadline = self.deadline.part(4);
        saved_state::is_there(&file, definition, &self.parameters.hypervisor, &deadline).map(|there| there.then_some(file))
    }

    /// Takes a state that is there out of the way, of a guest that runs: it was saved before `snapshot` was unset for a time, and is older than what
    /// the guest has written to its disks since.
    pub(super) fn retire_state(&self, name: &str) {
        let deadline = self.deadline.share(KEEPING, 4);
        if let Some(file) = self.saved_state_file(name)
            && let Err(error) = saved_state::retire(&file, &deadline)
        {
            log::warning(format_args!("the state of {name} is older than what runs, but is not set aside: {error}"));
        }
    }

    /// Whether the guest of a start that was not finished was restored and, by libvirt's word, never let run: it is paused as it was then,
    /// and not as a person does it.
    pub(super) fn is_restored_only(&self, record: &Record) -> bool {
        let deadline = self.deadline.share(KEEPING, 4);
        record.creating
            && record.restoring
            && self.parameters.snapshot.is_some()
            && matches!(status::ask(&record.identity(), &self.parameters.hypervisor, &deadline), Ok(Some((Condition::PAUSED_MIGRATION, _))))
    }

    /// Makes a state good again whose guest never ran and is proven gone. If that fails it is kept all the same, but the next start boots.
    pub(super) fn take_back(&self, name: &str) {
        let deadline = self.deadline.share(KEEPING, 2);
        if let Some(file) = self.saved_state_file(name)
            && let Err(error) = saved_state::take_back(&file, &deadline)
        {
            log::warning(format_args!("the state of {name} was not used, but is not taken back: {error}"));
        }
    }

    /// What comes before the start of a guest that is proven not to be here: what it needs is started.
    pub(super) fn start_needs(&self, definition: &Definition) -> Result<(), Error> {
        let needs = Needs::of(&definition.xml);
        if !self.parameters.start_resources || needs.is_empty() {
            return Ok(());
        }
        let here = Connection::open_again(&self.parameters.hypervisor.to_string(), &migration::connecting(&self.deadline), &self.deadline)?;
        needs.start(&here, &self.deadline)
    }

    /// Its image is made, unless it is restored.
    pub(super) fn make_image(&self, definition: &Definition, restoring: bool) -> Result<(), Error> {
        let Some(base) = self.parameters.backingfile.as_deref().filter(|_| !restoring) else { return Ok(()) };
        let [qemu_img, copy_in] = ["qemu-img", "virt-copy-in"].map(|name| self.environment.program(name));
        let Some(qemu_img) = qemu_img.as_deref() else { return Ok(()) };
        let recipe = Recipe {
            base,
            stateless: self.parameters.stateless,
            copies: &self.parameters.copyindirs,
            qemu_img,
            copy_in: copy_in.as_deref(),
        };
        overlay::prepare(definition, &recipe, &self.deadline)
    }

    /// What comes before a move: the definition is kept, what the guest needs is started at the target.
    pub(super) fn before_move(&self, identity: &Identity, plan: &Plan) -> Result<(), Failure> {
        self.keep_definition(identity);
        if !self.parameters.start_resources {
            return Ok(());
        }
        let definition = || self.definition().inspect_err(|error| log::warning(error));
        self.start_needs_there(identity, plan, || definition().map_or_else(|_| Needs::default(), |definition| Needs::of(&definition.xml)))
    }

    /// What the guest needs is started at the target, unless it does not run here.
    fn start_needs_there(&self, identity: &Identity, plan: &Plan, needs: impl FnOnce() -> Needs) -> Result<(), Failure> {
        let is_known = match status::ask(identity, &self.parameters.hypervisor, &self.deadline.within(KEEPING)) {
            Ok(seen) if !seen.as_ref().is_some_and(|(condition, _)| condition.is_active()) => return Ok(()),
            Ok(_) => true,
            // The move asks again, with more patience; what it needs there does no harm if it then stays.
            Err(error) => {
                log::warning(format_args!("whether {} runs here is not known yet: {error}", identity.name));
                false
            }
        };
        let needs = needs();
        if needs.is_empty() {
            return Ok(());
        }
        let limit = self.deadline.part(2);
        let (name, target) = (&identity.name, &plan.target);
        migration::target(plan, &limit).and_then(|there| needs.start(&there, &limit)).map_err(|Error { text, .. }| {
            if is_known {
                Failure::generic(format!("{name} still runs here, not moved to {target}: {text}"))
            } else {
                Failure::generic(format!("{name} was not moved to {target}: {text}"))
            }
        })
    }

    /// # Errors
    /// A program that a parameter needs is not installed on this host.
    pub(super) fn insist_on_programs(&self) -> Result<(), Failure> {
        let parameters = &self.parameters;
        let needs = [
            ("sync_config_on_stop", "csync2", parameters.sync_config_on_stop),
            ("backingfile", "qemu-img", parameters.backingfile.is_some()),
            ("copyindirs", "virt-copy-in", parameters.backingfile.is_some() && !parameters.copyindirs.is_empty()),
        ];
        let missing = needs.iter().find(|(_, program, needed)| *needed && self.environment.program(program).is_none());
        missing.map_or(Ok(()), |(parameter, program, _)| {
            Err(Failure::not_installed(format!("{parameter}: the program {program} is not installed on this host")))
        })
    }

    /// # Errors
    /// A file or folder that a parameter names is not there.
    pub(super) fn insist_on_files(&self) -> Result<(), Failure> {
        let parameters = &self.parameters;
        let named = [("snapshot", parameters.snapshot.as_deref(), true), ("backingfile", parameters.backingfile.as_deref(), false)];
        for (name, path, folder) in named {
            let Some(path) = path else { continue };
            let look = files::look(&[path], &self.deadline.part(4));
            let look = look.map_err(|error| Failure::generic(format!("{name}: {error}")))?.first().copied().flatten();
            if look.is_none_or(|look| look.folder != folder) {
                let what = if folder { "folder" } else { "file" };
                return Err(Failure::not_installed(format!("{name}: there is no {what} {}", path.display())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::*;
    use crate::deadline::Deadline;
    use crate::ocf::route;
    use std::collections::BTreeMap;

    /// Neither libvirt is there: this host's has not said where the guest is.
    #[test]
    fn what_was_not_seen_is_not_said() {
        let variables: BTreeMap<String, String> = [
            ("OCF_RESKEY_config", "/srv/vms/web1.xml"),
            ("OCF_RESKEY_hypervisor", "qemu:///system?socket=/nonexistent/socket"),
            ("OCF_RESKEY_remoteuri", "qemu:///system?socket=/nonexistent/%n"),
            ("OCF_RESKEY_start_resources", "true"),
            ("OCF_RESKEY_CRM_meta_migrate_target", "node2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let deadline = Deadline::after(Duration::from_secs(4));
        let call = Call::new(Action::MigrateTo, Environment::new(&variables, ""), deadline);
        assert_eq!(call.faults, []);
        let identity = Identity { name: "web1".to_owned(), uuid: None };
        let needs = || Needs::of("<domain><source network='front'/></domain>");
        let failure = call.start_needs_there(&identity, &route::plan(&call).unwrap(), needs).unwrap_err();
        let reason = failure.reason.unwrap_or_default();
        assert!(reason.starts_with("web1 was not moved to node2: "), "{reason}");
    }
}
