//! validate-all and reload-agent.

use super::Call;
use super::exit::{Code, Failure};
use crate::domain::Connection;
use crate::log;
use nix::unistd::{AccessFlags, access};

/// Checks the parameters. Level 0: the words, the same answer on every host. Level 10: that this host can run the guest.
pub(super) fn validate_all(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    if call.environment.check_level < 10 {
        return Ok(());
    }
    for script in &call.parameters.monitor_scripts {
        access(script.as_str(), AccessFlags::X_OK).map_err(|error| {
            Failure::new(Code::Installed, format!("monitor_scripts: {script} cannot be executed: {}", error.desc().to_lowercase()))
        })?;
    }
    let definition = call.definition().map_err(|error| call.failure(error))?;
    let platform = definition.platform();
    let connection = Connection::open(&call.hypervisor.to_string(), &call.deadline).map_err(|error| call.failure(error))?;
    // libvirt itself says whether it has this emulator, architecture and machine here, and whether the host has KVM for it.
    connection
        .call("looking for the emulator", &call.deadline, move |connect| {
            let [emulator, architecture, machine, kind] = [&platform.emulator, &platform.architecture, &platform.machine, &platform.kind];
            connect.domain_capabilities(emulator.as_deref(), architecture.as_deref(), machine.as_deref(), kind.as_deref(), 0)
        })
        .map(drop)
        .map_err(|error| Failure::new(Code::Installed, error.text))
}

/// Takes over new values of reloadable parameters. There is nothing to do: each action reads them anew.
pub(super) fn reload_agent(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    log::info("parameters reloaded");
    Ok(())
}
