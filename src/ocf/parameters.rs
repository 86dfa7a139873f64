//! The values of the resource agent's parameters, and how they are read.

use super::environment::Environment;
use super::table::rows;
use crate::domain::ending::ShutdownMode;
use crate::domain::migration::StorageCheck;
use crate::domain::migration::policy::Policy;
use crate::domain::options::Options;
use crate::domain::subnet::Subnet;
use crate::domain::uri::Uri;
use crate::parameter::{self, Concerns, Fault};
use std::path::PathBuf;

/// The values of one resource.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// Where the definition is.
    pub config: PathBuf,
    /// The libvirt that runs the guest.
    pub hypervisor: Uri,
    /// Whether stop does not ask the guest first.
    pub force_stop: bool,
    /// Transport of the remote URI.
    pub migration_transport: Option<String>,
    /// User of the remote URI.
    pub migration_user: Option<String>,
    /// Greatest downtime in milliseconds, 0 for libvirt's.
    pub migration_downtime: u64,
    /// Greatest bandwidth in MiB/s, 0 for libvirt's.
    pub migration_speed: u64,
    /// What makes a node's name its name on the migration network.
    pub migration_network_suffix: String,
    /// Where the memory goes.
    pub migrateuri: Option<String>,
    /// More options of the migration.
    pub migrate_options: Options,
    /// Programs that have a say in monitor.
    pub monitor_scripts: Vec<String>,
    /// Port of the migration URI made from the suffix.
    pub migrateport: Option<u16>,
    /// The libvirt at the target.
    pub remoteuri: Option<String>,
    /// How the guest is asked to shut down.
    pub shutdown_mode: Vec<ShutdownMode>,
    /// What is done with the resource's utilization attributes.
    pub utilization: Utilization,
    /// Whether the definition of the running guest is written to `config`.
    pub save_config_on_stop: bool,
    /// Like [`Self::save_config_on_stop`], and csync2 distributes it.
    pub sync_config_on_stop: bool,
    /// Where stop saves the guest's state.
    pub snapshot: Option<PathBuf>,
    /// What the copy-on-write image is made on.
    pub backingfile: Option<PathBuf>,
    /// Whether it is made at each start.
    pub stateless: bool,
    /// What is copied into it.
    pub copyindirs: Vec<PathBuf>,
    /// Whether networks and pools are started.
    pub start_resources: bool,
    /// What a recurring monitor says of a guest that a fault has stopped.
    pub pause_policy: PausePolicy,
    /// What is done about a guest that an error of its storage has paused.
    pub outage_policy: OutagePolicy,
    /// How many seconds its storage may be out before it is given up.
    pub outage_delay: u64,
    /// After how many silent pings of the guest's agent in a row the guest hangs; 0: the agent is not asked.
    pub guest_agent_failures: u64,
    /// What is done about a guest that dirties its memory faster than it can be sent.
    pub migration_policy: Policy,
    /// Which moves are refused for what is under the guest.
    pub migration_storage_check: StorageCheck,
    /// The network on which the memory goes.
    pub migration_network: Option<Subnet>,
    /// How many seconds lie between two looks at where the guest could be moved to; 0: it is not looked at.
    pub migration_check_interval: u64,
}

/// What is done with one utilization attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attribute {
    /// It is written.
    pub autoset: bool,
    /// It is removed, if it is not written.
    pub unset: bool,
}

/// What is done with the utilization attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utilization {
    /// `cpu`: CPUs.
    pub cpu: Attribute,
    /// `host_memory`: MiB.
    pub host_memory: Attribute,
    /// `hv_memory`: MiB.
    pub hv_memory: Attribute,
}

/// What a recurring monitor says of a guest whose CPUs a fault has stopped: I/O error, watchdog, crash, failed post-copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PausePolicy {
    /// It is there: 0, as `ocf:heartbeat:VirtualDomain` says.
    Ignore,
    /// It is there but hurt: 190, which an operator sees and Pacemaker does nothing about.
    #[default]
    Degraded,
    /// It has failed: 1.
    Fail,
}

impl PausePolicy {
    /// The policies by name.
    pub const NAMES: &'static [(&'static str, Self)] = &[("ignore", Self::Ignore), ("degraded", Self::Degraded), ("fail", Self::Fail)];
    /// The names.
    pub const WORDS: &'static [&'static str] = &parameter::words::<_, { Self::NAMES.len() }>(Self::NAMES);
}

/// What is done about a guest that an error of its storage has paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutagePolicy {
    /// Nothing: a person lets it go on.
    #[default]
    Wait,
    /// It goes on when its storage answers again.
    Resume,
    /// Like [`Self::Resume`]; and it has failed when its storage is out for too long.
    Stop,
    /// Like [`Self::Stop`], but only when another node is known to read its disks.
    Relocate,
}

impl OutagePolicy {
    /// The policies by name.
    pub const NAMES: &'static [(&'static str, Self)] =
        &[("wait", Self::Wait), ("resume", Self::Resume), ("stop", Self::Stop), ("relocate", Self::Relocate)];
    /// The names.
    pub const WORDS: &'static [&'static str] = &parameter::words::<_, { Self::NAMES.len() }>(Self::NAMES);

    /// Whether a guest may be given up.
    #[must_use]
    pub fn gives_up(self) -> bool {
        matches!(self, Self::Stop | Self::Relocate)
    }
}

/// The environment name of the parameter that `shutdown_mode` was read from by `ocf:heartbeat:VirtualDomain`, by accident.
const ACCIDENTAL_SHUTDOWN_MODE: &str = "CRM_shutdown_mode";

/// Reads the parameters of `environment`. Every wrong value is reported and leaves its parameter's default.
#[must_use]
pub fn read(environment: &Environment) -> (Parameters, Vec<Fault>) {
    let mut given = environment.parameters.clone();
    if let Some(mode) = given.remove(ACCIDENTAL_SHUTDOWN_MODE) {
        given.entry("shutdown_mode".into()).or_insert(mode);
    }
    let (mut values, mut faults) = parameter::read(rows(), &given);
    for row in rows().filter(|row| environment.unreadable.iter().any(|name| name == row.name)) {
        faults.retain(|fault| fault.name != row.name);
        let text = "value is not valid UTF-8".into();
        faults.push(Fault { name: row.name, concerns: row.concerns, text, missing: row.required });
    }
    faults.extend(contradictions(&mut values));
    (values, faults)
}

/// Parameters that are right each for itself and make no sense together; the first named is then as if it were not set.
fn contradictions(values: &mut Parameters) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |name, text: &str| faults.push(Fault { name, concerns: Concerns::Other, text: text.into(), missing: false });
    if values.force_stop && values.snapshot.take().is_some() {
        fault("snapshot", "a guest cannot be saved with force_stop, set one of the two");
    }
    if values.backingfile.is_none() && std::mem::take(&mut values.stateless) {
        fault("stateless", "needs backingfile");
    }
    faults
}

#[cfg(test)]
pub(in crate::ocf) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A wrong value of each parameter that can have one.
    pub(in crate::ocf) const WRONG: &[(&str, &str)] = &[
        ("config", "vm1.xml"),
        ("hypervisor", "vbox:///session"),
        ("force_stop", "Yes"),
        ("migration_transport", "a b"),
        ("migration_user", "-oProxyCommand=x"),
        ("migration_downtime", "fast"),
        ("migration_speed", "-1"),
        ("migration_network_suffix", " -mig"),
        ("migrateuri", "tcp://a b"),
        ("migrate_options", "--unheard-of"),
        ("autoset_utilization_cpu", "maybe"),
        ("autoset_utilization_host_memory", "maybe"),
        ("autoset_utilization_hv_memory", "maybe"),
        ("unset_utilization_cpu", "maybe"),
        ("unset_utilization_host_memory", "maybe"),
        ("unset_utilization_hv_memory", "maybe"),
        ("migrateport", "65536"),
        ("remoteuri", "http://%n/"),
        ("save_config_on_stop", "maybe"),
        ("sync_config_on_stop", "maybe"),
        ("snapshot", "states"),
        ("backingfile", "base.img"),
        ("stateless", "maybe"),
        ("copyindirs", "/x y"),
        ("shutdown_mode", "acpi,shout"),
        ("start_resources", "maybe"),
        ("pause_policy", "panic"),
        ("outage_policy", "pray"),
        ("outage_delay", "soon"),
        ("guest_agent_failures", "often"),
        ("migration_policy", "hope"),
        ("migration_storage_check", "hope"),
        ("migration_network", "10.0.0.0"),
        ("migration_check_interval", "5m"),
    ];

    fn of(pairs: &[(&str, &str)]) -> (Parameters, Vec<Fault>) {
        let mut variables: BTreeMap<String, String> = [("OCF_RESKEY_config".to_owned(), "/srv/web1.xml".to_owned())].into();
        variables.extend(pairs.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), (*value).to_owned())));
        read(&Environment::new(&variables, ""))
    }

    #[test]
    fn the_rules_of_the_table() {
        for (at, row) in rows().enumerate() {
            let name = row.name;
            assert!(rows().skip(at + 1).all(|other| other.name != name), "{name} stands twice");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!row.short.is_empty() && !row.short.ends_with('.') && !row.short.contains('\n'), "{name}");
            assert!(row.long.ends_with('.') && !row.long.contains('\n'), "{name}");
            assert!(!(row.required && row.default.is_some()), "{name}");
        }
        assert!(of(&[]).1.is_empty(), "the defaults are right");
    }

    #[test]
    fn the_default_hypervisor() {
        let (values, faults) = of(&[("hypervisor", "")]);
        assert_eq!(values.hypervisor.to_string(), "qemu:///system");
        assert!(faults.is_empty());
    }

    #[test]
    fn a_wrong_value_for_every_parameter_is_named() {
        for (name, value) in WRONG {
            let (_, faults) = of(&[(name, value)]);
            assert_eq!(faults.iter().map(|fault| fault.name).collect::<Vec<_>>(), [*name], "{name}={value}");
        }
        // monitor_scripts takes any words; a script that is not there makes monitor fail with its name.
        assert_eq!(WRONG.len() + 1, rows().count());
    }

    #[test]
    fn what_makes_no_sense_together() {
        for pairs in [[("force_stop", "1"), ("snapshot", "/srv")], [("stateless", "1"), ("copyindirs", "/x")]] {
            let (values, faults) = of(&pairs);
            assert_eq!(faults.len(), 1, "{pairs:?}");
            assert!(values.snapshot.is_none() && !values.stateless);
        }
        assert_eq!(of(&[("stateless", "1"), ("backingfile", "/x")]).1, []);
    }

    #[test]
    fn the_accidental_name_of_shutdown_mode() {
        assert_eq!(of(&[("CRM_shutdown_mode", "agent")]).0.shutdown_mode, [ShutdownMode::Agent]);
        assert_eq!(
            of(&[("CRM_shutdown_mode", "agent"), ("shutdown_mode", "acpi,agent")]).0.shutdown_mode,
            [ShutdownMode::Acpi, ShutdownMode::Agent]
        );
    }
}
