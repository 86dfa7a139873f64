//! start, stop, monitor and status.

use super::actions::Name;
use super::exit::{Code, Failure};
use super::parameters::PausePolicy;
use super::{Call, moving};
use crate::cluster;
use crate::domain::definition::{Definition, Identity};
use crate::domain::elsewhere::{self, Host};
use crate::domain::lifecycle::{self, Manner};
use crate::domain::record::{Record, Shelf};
use crate::domain::status::{self, Presence, Sight};
use crate::domain::{Error, Kind, State, evidence, migration};
use crate::log;
use crate::program::{self, Outcome};
use std::path::Path;
use std::time::Duration;

/// How long a start waits for the answers of other nodes: one that hangs must not keep a guest down.
const ASKING: Duration = Duration::from_secs(3);

/// How often a start that found a lock held tries again.
const LEASE_POLL: Duration = Duration::from_secs(2);

/// Where the state files are: below `/run`, so that they end with the boot, as the guests do.
const STATE_DIRECTORY: &str = "/run/kvmha";

impl Call {
    /// Where this resource's state file is.
    pub(super) fn shelf(&self) -> Shelf {
        Shelf::new(Path::new(STATE_DIRECTORY), &self.environment.instance)
    }

    /// What was seen last of the guest that the parameters name.
    pub(super) fn record(&self) -> Option<Record> {
        let wanted = |record: &Record| record.config == self.parameters.config && record.hypervisor == self.hypervisor.to_string();
        self.shelf().read().filter(wanted)
    }

    /// The definition, read in a part of the time: on storage that hangs, the rest is for what can be done without it.
    pub(super) fn definition(&self) -> Result<Definition, Error> {
        Definition::read(&self.parameters.config, &self.deadline.within(self.deadline.left() / 4))
    }

    /// The guests that this resource may mean when neither the state file nor the definition says: named like the definition's file
    /// or like the resource. Only used to not overlook a guest that runs.
    fn guesses(&self) -> Vec<Identity> {
        // As it was given: a relative path is refused as a value, but is still a hint.
        let config = self.environment.parameters.get("config").map(Path::new);
        let stem = config.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
        let mut names: Vec<String> = stem.into_iter().chain([self.environment.instance.clone()]).collect();
        names.dedup();
        names.into_iter().map(|name| Identity { name, uuid: None }).collect()
    }

    /// Writes the state file if what was seen is news.
    pub(super) fn remember(&self, identity: &Identity, sight: &Sight) {
        let uuid = match sight {
            Sight::Libvirt { uuid, .. } => Some(uuid),
            Sight::Process { .. } => identity.uuid.as_ref(),
        };
        let Some(uuid) = uuid else { return };
        let known = self.record().is_some_and(|record| record.name == identity.name && record.uuid == *uuid && record.pid.is_some());
        if known || !self.hypervisor.is_local() {
            return;
        }
        let identity = Identity { name: identity.name.clone(), uuid: Some(uuid.clone()) };
        let emulator = evidence::find(&identity, &self.deadline).ok().and_then(|found| found.first().copied());
        self.shelf().write(&Record {
            config: self.parameters.config.clone(),
            hypervisor: self.hypervisor.to_string(),
            name: identity.name,
            uuid: uuid.clone(),
            pid: emulator.map(|emulator| emulator.pid),
            start: emulator.map(|emulator| emulator.start),
        });
    }

    /// Runs the monitor scripts one after the other until one fails.
    pub(super) fn scripts(&self) -> Result<(), Failure> {
        for script in &self.parameters.monitor_scripts {
            let failed = |text: String| Failure::generic(format!("monitor script {script}: {text}"));
            let finished = program::run(script, &[""; 0], &self.deadline).map_err(|error| failed(error.to_string()))?;
            match finished.outcome {
                Outcome::Exited(0) => {}
                Outcome::Exited(code) => {
                    let output: Vec<_> =
                        [finished.stdout, finished.stderr].iter().map(|text| String::from_utf8_lossy(text).trim().to_owned()).collect();
                    return Err(failed(format!("exited with {code}: {}", output.join(" ").trim())));
                }
                Outcome::Late => return Err(failed("did not end in time".into())),
            }
        }
        Ok(())
    }
}

/// What monitor and status find.
struct Found {
    identity: Identity,
    presence: Presence,
}

/// Looks for the guest: by the state file, which is there as long as the guest runs and never hangs; else by the definition.
fn observe(call: &Call) -> Result<Found, Failure> {
    let look = |identity: Identity| {
        let presence = status::look(&identity, &call.hypervisor, &call.deadline).map_err(|error| call.failure(error))?;
        Ok(Found { identity, presence })
    };
    let recorded = call.record().map(|record| look(record.identity())).transpose()?;
    if let Some(found) = &recorded
        && found.presence != Presence::Absent
    {
        return Ok(Found { identity: found.identity.clone(), presence: found.presence.clone() });
    }
    match (call.definition(), recorded) {
        (Ok(definition), Some(found)) if definition.identity.name == found.identity.name => Ok(found),
        (Ok(definition), _) => look(definition.identity),
        (Err(error), Some(found)) => {
            log::warning(error);
            Ok(found)
        }
        (Err(error), None) => {
            for guess in call.guesses() {
                let found = look(guess)?;
                if found.presence != Presence::Absent {
                    log::warning(format_args!("{error}; a guest {} runs here and is taken for it", found.identity.name));
                    return Ok(found);
                }
            }
            if call.environment.probe {
                log::info(format_args!("{error}; no guest named like it runs here"));
                return Err(Failure::not_running());
            }
            Err(call.failure(error))
        }
    }
}

/// Is the guest there, and do the scripts agree? 0, 7 (proven not there) or 1.
pub(super) fn monitor(call: &Call) -> Result<(), Failure> {
    status(call)?;
    call.scripts()
}

/// Is the guest there? 0, 7 (proven not there) or 1.
pub(super) fn status(call: &Call) -> Result<(), Failure> {
    call.tolerate_parameters()?;
    loop {
        let found = observe(call)?;
        let name = &found.identity.name;
        match &found.presence {
            Presence::Absent => return Err(Failure::not_running()),
            // It is being set up or torn down.
            Presence::Active(Sight::Libvirt { state: State::NoState, .. }) if call.deadline.pause(Duration::from_millis(200)) => {}
            Presence::Active(sight @ Sight::Libvirt { state, reason, .. }) => {
                call.remember(&found.identity, sight);
                let seen = format!("{name} is {state} ({})", reason.text(*state));
                return match state {
                    State::Paused if reason.is_fault() => judge_fault(call, seen),
                    State::Running | State::Blocked | State::Paused | State::ShuttingDown => Ok(()),
                    _ => Err(Failure::generic(seen)),
                };
            }
            Presence::Active(sight @ Sight::Process { emulator, trouble }) => {
                if emulator.is_dying() {
                    return Err(Failure::generic(format!("{emulator} of {name} is dying; {trouble}")));
                }
                log::warning(format_args!("{emulator} of {name} runs, but libvirt cannot be asked: {trouble}"));
                call.remember(&found.identity, sight);
                return Ok(());
            }
        }
    }
}

/// What is said of a guest that a fault has paused. It is there: a probe and a person's question get that answer.
fn judge_fault(call: &Call, seen: String) -> Result<(), Failure> {
    match call.parameters.pause_policy {
        _ if call.name != Name::Monitor || call.environment.probe => Ok(()),
        PausePolicy::Ignore => Ok(()),
        PausePolicy::Degraded => Err(Failure::new(Code::Degraded, seen)),
        PausePolicy::Fail => Err(Failure::generic(seen)),
    }
}

/// The other nodes of the cluster that can be asked about guests: those of this partition, if the parameters say how to reach their
/// libvirt, as they do for guests that are moved.
fn other_nodes(call: &Call) -> Vec<Host> {
    let reachable = call.parameters.migration_transport.is_some() || call.parameters.remoteuri.is_some();
    let Some(here) = call.environment.node.as_ref().filter(|_| reachable && call.hypervisor.is_local()) else { return Vec::new() };
    let nodes = cluster::partition(&call.deadline.within(ASKING));
    nodes.into_iter().filter(|node| node != here).map(|node| Host { uri: moving::remote(call, &node), name: node }).collect()
}

/// Whether an error of libvirt says that a disk's lock is held: by QEMU (`raw_check_lock_bytes`), virtlockd or sanlock.
fn is_lock_held(error: &Error) -> bool {
    ["Failed to get \"write\" lock", "Failed to get shared \"write\" lock", "Lockspace resource", "resource busy"]
        .iter()
        .any(|text| error.text.contains(text))
}

/// Starts the guest and sees it run, scripts included.
pub(super) fn start(call: &Call) -> Result<(), Failure> {
    call.insist_on_parameters()?;
    let definition = call.definition().map_err(|error| call.failure(error))?;
    let identity = &definition.identity;
    let name = &identity.name;
    let failed = |error: Error| call.failure(error.context(format_args!("start of {name}")));
    loop {
        match status::look(identity, &call.hypervisor, &call.deadline).map_err(failed)? {
            Presence::Absent => match create(call, &definition)? {
                Ok(()) => {
                    log::info(format_args!("{name} created"));
                    break;
                }
                // A host that was fenced leaves its locks on a file server until their lease ends.
                Err(error) if is_lock_held(&error) && call.deadline.before(LEASE_POLL).pause(LEASE_POLL) => {
                    log::warning(format_args!("{error}; waiting for the lock"));
                }
                // The daemon may be on its way up, or was lost in the middle: then the guest may be there, look again.
                Err(error) if error.kind == Kind::Unreachable && call.deadline.pause(Duration::from_secs(1)) => log::warning(error),
                Err(error) => return Err(failed(error)),
            },
            Presence::Active(Sight::Libvirt { state: State::ShuttingDown, .. }) => {
                if !call.deadline.pause(Duration::from_millis(250)) {
                    return Err(Failure::generic(format!("start of {name}: it is still shutting down")));
                }
            }
            Presence::Active(Sight::Libvirt { state, reason, .. })
                if matches!(state, State::Crashed | State::Unknown(_)) || migration::is_incoming(state, reason) =>
            {
                return Err(Failure::generic(format!("start of {name}: it is here already, {state} ({})", reason.text(state))));
            }
            Presence::Active(sight) => {
                log::info(format_args!("{name} is active already"));
                call.remember(identity, &sight);
                return Ok(());
            }
        }
    }
    lifecycle::await_running(identity, &call.hypervisor, &call.deadline).map_err(failed)?;
    settle(call, identity, "start")
}

/// Creates the guest if no other node has it. The inner result is libvirt's.
fn create(call: &Call, definition: &Definition) -> Result<Result<(), Error>, Failure> {
    let name = &definition.identity.name;
    if let Some(place) = elsewhere::find(&definition.identity, other_nodes(call), &call.deadline.within(ASKING)) {
        return Err(Failure::generic(format!("start of {name} refused: {place}")));
    }
    Ok(lifecycle::create(definition, &call.hypervisor, &call.deadline))
}

/// The end of start and migrate_from: the guest runs; its scripts must agree before the deadline, and it must go on running.
pub(super) fn settle(call: &Call, identity: &Identity, action: &str) -> Result<(), Failure> {
    let name = &identity.name;
    loop {
        let presence = status::look(identity, &call.hypervisor, &call.deadline).map_err(|error| call.failure(error))?;
        let Presence::Active(sight) = presence else { return Err(Failure::generic(format!("{action} of {name}: it ran and is gone"))) };
        call.remember(identity, &sight);
        match call.scripts() {
            Ok(()) => return Ok(()),
            Err(failure) if !call.deadline.pause(Duration::from_secs(1)) => return Err(failure),
            Err(_) => {}
        }
    }
}

/// Ends the guest and proves it gone.
pub(super) fn stop(call: &Call) -> Result<(), Failure> {
    let record = call.record();
    if record.is_none() {
        call.tolerate_parameters()?;
    }
    let manner = if call.parameters.force_stop { Manner::Force } else { Manner::Ask(call.parameters.shutdown_mode.clone()) };
    let end = |identity: &Identity, known| {
        lifecycle::stop(identity, known, &call.hypervisor, &manner, &call.deadline)
            .map_err(|error| call.failure(error.context(format_args!("stop of {}", identity.name))))
    };
    if let Some(record) = &record {
        end(&record.identity(), record.emulator())?;
    }
    match call.definition() {
        Ok(definition) if record.as_ref().is_some_and(|record| record.name == definition.identity.name) => {}
        Ok(definition) => end(&definition.identity, None)?,
        Err(error) if record.is_some() => log::debug(|| error.text),
        Err(error) => {
            log::warning(format_args!("{error}; looking for guests named like it"));
            for guess in call.guesses() {
                end(&guess, None)?;
            }
        }
    }
    call.shelf().remove();
    Ok(())
}
