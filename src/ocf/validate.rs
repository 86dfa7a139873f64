//! validate-all and reload-agent.

use super::Call;
use super::exit::{Code, Failure};
use crate::domain::{Connection, Kind};
use crate::log;
use crate::program::{self, Outcome};

/// Checks the parameters. Level 0: the words, the same answer on every host. Level 10: that this host can run the guest.
pub(super) fn validate_all(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    if call.environment.check_level < 10 {
        return Ok(());
    }
    call.insist_on_this_host()?;
    for script in &call.parameters.monitor_scripts {
        let finished = program::run_self(&[program::CHECK_WORD, script], &call.deadline.within(call.deadline.left() / 4));
        let finished = finished.map_err(|error| Failure::generic(format!("monitor_scripts: {script} cannot be checked: {error}")))?;
        let text = match finished.outcome {
            Outcome::Exited(0) => continue,
            Outcome::Exited(_) => String::from_utf8_lossy(&finished.stderr).trim().to_owned(),
            Outcome::Late => "its storage does not answer".to_owned(),
        };
        return Err(Failure::new(Code::Installed, format!("monitor_scripts: {script} cannot be executed: {text}")));
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
        .map_err(|error| match error.kind {
            Kind::Refused => Failure::new(Code::Installed, error.text),
            _ => call.failure(error),
        })
}

/// Takes over new values of reloadable parameters. There is nothing to do: each action reads them anew.
pub(super) fn reload_agent(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    log::info("parameters reloaded");
    Ok(())
}
