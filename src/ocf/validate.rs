//! validate-all and reload-agent.

use super::Call;
use super::exit::Failure;
use crate::deadline::Deadline;
use crate::domain::{Connection, Definition, Kind, locks, status};
use crate::log;
use crate::program::{self, Outcome};
use crate::storage::finding;
use crate::storage::hazards::warnings;

/// Checks the parameters. Level 0: the words, the same answer on every host. Level 10: that this host can run the guest.
pub(super) fn validate_all(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    call.insist_on_one_instance().map_err(Failure::misconfigured)?;
    if call.environment.check_level < 10 {
        return Ok(());
    }
    call.insist_on_this_host()?;
    for script in &call.parameters.monitor_scripts {
        let finished = program::run_self(&[program::CHECK_WORD, script], &call.deadline.part(4));
        let finished = finished.map_err(|error| Failure::generic(format!("monitor_scripts: {script} cannot be checked: {error}")))?;
        let text = match finished.outcome {
            Outcome::Exited(0) => continue,
            Outcome::Exited(_) => finished.complaint(),
            Outcome::Late => "its storage does not answer".to_owned(),
        };
        return Err(Failure::not_installed(format!("monitor_scripts: {script} cannot be executed: {text}")));
    }
    call.insist_on_programs()?;
    call.insist_on_files()?;
    let definition = call.definition().map_err(|error| call.failure(error))?;
    let platform = definition.platform();
    let connection = Connection::open(&call.parameters.hypervisor.to_string(), &call.deadline).map_err(|error| call.failure(error))?;
    // libvirt itself says whether it has this emulator, architecture and machine here, and whether the host has KVM for it.
    connection
        .call("asking libvirt for the emulator", &call.deadline, move |connect| {
            let [emulator, architecture, machine, kind] = [&platform.emulator, &platform.architecture, &platform.machine, &platform.kind];
            connect.domain_capabilities(emulator.as_deref(), architecture.as_deref(), machine.as_deref(), kind.as_deref(), 0)
        })
        .map(drop)
        .map_err(|error| match error.kind {
            Kind::Refused => Failure::not_installed(error.text),
            _ => call.failure(error),
        })?;
    warn_of_locks(&definition, &connection, &call.deadline);
    warn_of_storage(&definition, &connection, &call.deadline);
    Ok(())
}

impl Call {
    /// # Errors
    /// The resource is a clone of several instances: the guest would run as often. A sentence about that.
    pub(super) fn insist_on_one_instance(&self) -> Result<(), String> {
        let instances = self.environment.clone_max.filter(|max| *max > 1);
        instances
            .map_or(Ok(()), |max| Err(format!("the resource is a clone of {max} instances (clone-max), and the guest may run only once")))
    }
}

/// Says what of the guest's storage will hurt it, and what of it does not answer. Half of the time is enough for that.
fn warn_of_storage(definition: &Definition, connection: &Connection, deadline: &Deadline) {
    let name = &definition.identity.name;
    let deadline = deadline.part(2);
    for finding in finding::look(&definition.xml, &|pool, volume| connection.volume(pool, volume, &deadline), &deadline) {
        for text in warnings(&finding) {
            let text = format!("{name}: {}: {text}", finding.item);
            log::warning(&text);
            log::complain(&text);
        }
    }
}

/// Says which disks nothing keeps a second emulator from. That is no fault of the parameters: with fencing it may be as it should be.
fn warn_of_locks(definition: &Definition, connection: &Connection, deadline: &Deadline) {
    let name = &definition.identity.name;
    let deadline = deadline.part(2);
    match locks::unprotected(&definition.xml, &|pool, volume| connection.volume(pool, volume, &deadline)) {
        Ok(locks::Unprotected { devices, network }) => {
            let no_manager =
                "QEMU does not lock it, and neither does libvirt: lock_manager in qemu.conf, file_lockspace_dir in qemu-lockd.conf";
            let on_the_network = "neither QEMU nor libvirt locks what is on the network";
            for (disks, why) in [(devices, no_manager), (network, on_the_network)].into_iter().filter(|(disks, _)| !disks.is_empty()) {
                let text = format!("no lock protects {} of {name} from a second emulator: {why}", disks.join(", "));
                log::warning(&text);
                // Also for the person who asks through crm_resource, which shows this.
                log::complain(&text);
            }
        }
        Err(error) => log::warning(error),
    }
}

/// Takes over new values of reloadable parameters. There is little to do: each action reads them anew. But a state that was saved before `snapshot`
/// was unset, and is set again now, is not this guest's any more.
///
/// A wrong value is no failure here: Pacemaker would stop the guest for it, and not start it again. monitor shows it, and the next start or
/// move is refused.
pub(super) fn reload_agent(call: &Call) -> Result<(), Failure> {
    call.tolerate_parameters()?;
    if let (Some(_), Some(record)) = (&call.parameters.snapshot, call.record()) {
        let seen = status::ask(&record.identity(), &call.parameters.hypervisor, &call.deadline.part(4));
        if seen.is_ok_and(|seen| seen.is_some_and(|(condition, _)| condition.runs())) {
            call.retire_state(&record.name);
        }
    }
    log::info("parameters reloaded");
    Ok(())
}
