//! What the caller tells an agent through the environment, read once. Sources: OCF resource agent API 1.1; pacemaker
//! `lib/services` and `daemons/execd` for what Pacemaker adds. Nothing of it is required: the agent works by hand.

use super::exit::Failure;
use crate::{log, parameter, program};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The time an action has when the caller does not say: that of `ocf:heartbeat:VirtualDomain`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90);

/// The longest time that is believed; nothing an agent does takes a day, and clocks overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Which rendering of the metadata the caller understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// OCF 1.0, valid by `ra-api-1.dtd`: ocf-tester, old tools.
    V1_0,
    /// OCF 1.1: Pacemaker, pcs.
    V1_1,
}

/// The environment of one call.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `OCF_RESOURCE_INSTANCE`: the resource's name in the cluster.
    pub instance: Option<String>,
    /// This host's name, as the kernel has it.
    pub host: String,
    /// `OCF_EXIT_REASON_PREFIX`.
    pub reason_prefix: String,
    /// `OCF_RA_VERSION_MAJOR` and `_MINOR`.
    pub version: Version,
    /// `OCF_CHECK_LEVEL`.
    pub check_level: u32,
    /// `OCF_RESKEY_CRM_meta_timeout`, in milliseconds there.
    pub timeout: Duration,
    /// Whether a monitor is a probe: no interval, or 0.
    pub probe: bool,
    /// `OCF_RESKEY_CRM_meta_on_node`: this node's name in the cluster. Only Pacemaker says it.
    pub node: Option<String>,
    /// `OCF_RESKEY_CRM_meta_clone_max`: how many instances the resource has, if it is a clone.
    pub clone_max: Option<u32>,
    /// `OCF_RESKEY_CRM_meta_migrate_target`.
    pub migrate_target: Option<String>,
    /// `OCF_RESKEY_CRM_meta_migrate_source`.
    pub migrate_source: Option<String>,
    /// `OCF_RESKEY_*` but for Pacemaker's own: the parameters, by name.
    pub parameters: BTreeMap<String, String>,
    /// Parameters whose values are no text.
    pub unreadable: Vec<String>,
    /// Where programs are: `PATH`, and the folders that the cluster's shell agents add to it.
    pub path: Vec<PathBuf>,
    /// Where messages go.
    pub log: log::Settings,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the edge at which the environment is read")]
    pub fn of_process() -> Self {
        let mut unreadable = Vec::new();
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            match value.into_string() {
                Ok(value) => Some((name, value)),
                Err(_) => {
                    unreadable.push(name.strip_prefix("OCF_RESKEY_")?.to_owned());
                    None
                }
            }
        });
        let variables = variables.collect();
        let host = nix::sys::utsname::uname().map_or_else(|_| String::new(), |name| name.nodename().to_string_lossy().into_owned());
        Self { unreadable, ..Self::new(&variables, &host) }
    }

    /// The environment that `variables` make on `host`, which is empty where that is no matter.
    #[must_use]
    pub fn new(variables: &BTreeMap<String, String>, host: &str) -> Self {
        let get = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let meta = |name: &str| get(&format!("OCF_RESKEY_CRM_meta_{name}"));
        let instance = get("OCF_RESOURCE_INSTANCE");
        let trace = get("OCF_RESKEY_trace_ra").is_some_and(|value| parameter::boolean(value) == Ok(true));
        let version = match (get("OCF_RA_VERSION_MAJOR"), get("OCF_RA_VERSION_MINOR")) {
            (Some("1"), Some(minor)) if minor.parse().is_ok_and(|minor: u32| minor >= 1) => Version::V1_1,
            _ => Version::V1_0,
        };
        Self {
            reason_prefix: get("OCF_EXIT_REASON_PREFIX").unwrap_or("ocf-exit-reason:").to_owned(),
            version,
            check_level: get("OCF_CHECK_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(0),
            timeout: meta("timeout")
                .and_then(|text| text.parse().ok())
                .filter(|time| *time > 0)
                .map_or(DEFAULT_TIMEOUT, Duration::from_millis)
                .min(LONGEST_TIMEOUT),
            probe: meta("interval").and_then(|text| text.parse().ok()).unwrap_or(0_u64) == 0,
            node: meta("on_node").map(Into::into),
            clone_max: meta("clone_max").and_then(|text| text.parse().ok()),
            migrate_target: meta("migrate_target").map(Into::into),
            migrate_source: meta("migrate_source").map(Into::into),
            parameters: variables
                .iter()
                .filter_map(|(name, value)| Some((name.strip_prefix("OCF_RESKEY_")?, value)))
                .filter(|(name, _)| !name.starts_with("CRM_meta_") && *name != "crm_feature_set")
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect(),
            unreadable: Vec::new(),
            path: std::env::split_paths(get("PATH").unwrap_or_default())
                .chain(["/sbin", "/bin", "/usr/sbin", "/usr/bin"].map(PathBuf::from))
                .filter(|folder| folder.is_absolute())
                .collect(),
            log: log::Settings {
                tag: get("HA_LOGTAG").map_or_else(|| format!("VirtualDomain({})", instance.unwrap_or("default")), Into::into),
                facility: get("HA_LOGFACILITY").map(Into::into),
                file: get("HA_LOGFILE").map(PathBuf::from),
                // The tracing of the shell agents: here, everything that is said, in the file that is named.
                debug_file: get("OCF_RESKEY_trace_file").filter(|_| trace).or_else(|| get("HA_DEBUGLOG")).map(PathBuf::from),
                debug: trace || get("HA_debug").is_some_and(|value| value != "0"),
            },
            instance: instance.map(Into::into),
            host: host.to_owned(),
        }
    }

    /// The time an action takes for itself: the caller's timeout less what is kept for starting and reporting on a busy host.
    #[must_use]
    pub fn budget(&self) -> Duration {
        let margin = (self.timeout / 10).clamp(Duration::from_millis(500), Duration::from_secs(3));
        self.timeout.saturating_sub(margin).max(self.timeout / 2)
    }

    /// Where a program is, if it is installed.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|path| program::check(path).is_ok())
    }

    /// The node a guest is to be moved to.
    ///
    /// # Errors
    /// The caller named none, or something that cannot be a host's name.
    pub fn target(&self) -> Result<&str, Failure> {
        let target =
            self.migrate_target.as_deref().ok_or_else(|| Failure::generic("migrate_to: no target node given (CRM_meta_migrate_target)"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if target.starts_with('-') || !target.chars().all(plain) {
            return Err(Failure::generic(format!("migrate_to: target node {target:?} is no host name")));
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), "")
    }

    #[test]
    fn a_caller_without_any_variable() {
        let environment = of(&[]);
        assert_eq!(environment.timeout, Duration::from_secs(90));
        assert!(environment.probe);
        assert_eq!(environment.version, Version::V1_0);
        assert_eq!(environment.reason_prefix, "ocf-exit-reason:");
        assert_eq!(environment.log.tag, "VirtualDomain(default)");
        assert!(environment.target().is_err());
    }

    #[test]
    fn pacemakers_variables() {
        let environment = of(&[
            ("OCF_RESOURCE_INSTANCE", "web1"),
            ("OCF_RA_VERSION_MAJOR", "1"),
            ("OCF_RA_VERSION_MINOR", "1"),
            ("OCF_RESKEY_config", "/srv/web1.xml"),
            ("OCF_RESKEY_crm_feature_set", "3.16.2"),
            ("OCF_RESKEY_CRM_meta_timeout", "20000"),
            ("OCF_RESKEY_CRM_meta_interval", "10000"),
            ("OCF_RESKEY_CRM_meta_migrate_target", "node2"),
            ("HA_debug", "0"),
        ]);
        assert_eq!(environment.timeout, Duration::from_secs(20));
        assert!(!environment.probe && !environment.log.debug);
        assert_eq!(environment.version, Version::V1_1);
        assert_eq!(environment.parameters.keys().collect::<Vec<_>>(), ["config"]);
        assert_eq!(environment.target().unwrap(), "node2");
    }

    #[test]
    fn nonsense_in_numbers_is_as_if_not_said() {
        let environment = of(&[("OCF_RESKEY_CRM_meta_timeout", "soon"), ("OCF_CHECK_LEVEL", "x"), ("OCF_RESKEY_CRM_meta_interval", "")]);
        assert_eq!((environment.timeout, environment.check_level, environment.probe), (Duration::from_secs(90), 0, true));
    }

    #[test]
    fn targets_that_are_no_host_names() {
        for target in ["a b", "a/b", "-x", "a?b", "a@b", "$(id)", "a\nb"] {
            assert!(of(&[("OCF_RESKEY_CRM_meta_migrate_target", target)]).target().is_err(), "{target}");
        }
    }

    #[test]
    fn the_budget_is_inside_the_timeout() {
        for (timeout, budget) in [(100, 50), (1000, 500), (5000, 4500), (20_000, 18_000), (90_000, 87_000), (600_000, 597_000)] {
            let environment = of(&[("OCF_RESKEY_CRM_meta_timeout", &timeout.to_string())]);
            assert_eq!(environment.budget(), Duration::from_millis(budget), "{timeout}");
        }
    }
}
