//! The table of the resource agent's parameters: one row describes one parameter, and nothing else describes it.

use super::parameters::{Parameters, PausePolicy};
use crate::domain::lifecycle::ShutdownMode;
use crate::domain::options::Options;
use crate::domain::uri::{self, Uri};
use crate::parameter::{Change, Kind, Parameter, Sharing, boolean, integer};
use std::path::PathBuf;

/// A row with the most frequent properties; the others are changed at the row.
const fn row(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    texts: [&'static str; 2],
    set: Setter,
) -> Parameter<Parameters> {
    let [short, long] = texts;
    Parameter { name, kind, required: false, sharing: Sharing::Shared, change: Change::Reloads, default, short, long, set }
}

/// Puts a value into its field.
type Setter = fn(&mut Parameters, &str) -> Result<(), String>;

const NUMBER: Kind = Kind::Integer { min: 0, max: u32::MAX as u64 };
const PORT: Kind = Kind::Integer { min: 1, max: u16::MAX as u64 };

/// For a parameter of `ocf:heartbeat:VirtualDomain` that this version does not have: off is accepted, on is refused, not ignored.
const NOT_YET: Setter = |_, value| match boolean(value) {
    Ok(false) => Ok(()),
    _ => Err("not supported by this version, leave it unset".into()),
};

/// The same for a parameter whose effect nothing but the placement of resources depends on: accepted with any boolean.
const UTILIZATION: Setter = |_, value| boolean(value).map(drop);

const UTILIZATION_TEXT: &str = "Accepted for compatibility. This version does not write utilization attributes; \
set them with pcs resource utilization or crm resource utilization.";

/// The parameters, in the order of the metadata.
pub static TABLE: &[Parameter<Parameters>] = &[
    Parameter {
        required: true,
        sharing: Sharing::Unique,
        change: Change::Restarts,
        ..row(
            "config",
            Kind::Text,
            None,
            [
                "Definition of the guest, a libvirt XML file",
                "Absolute path of the file with the libvirt XML definition of the guest. It must be readable on every node that may run the \
                guest. The guest's name and UUID are taken from it.",
            ],
            |values, value| {
                if !value.starts_with('/') {
                    return Err(format!("{value:?} is not an absolute path"));
                }
                values.config = PathBuf::from(value);
                Ok(())
            },
        )
    },
    Parameter {
        change: Change::Restarts,
        ..row(
            "hypervisor",
            Kind::Text,
            Some("qemu:///system"),
            ["libvirt connection URI", "URI of the libvirt that runs the guest on each node, of the QEMU driver."],
            |values, value| {
                values.hypervisor = Some(Uri::parse(value)?);
                Ok(())
            },
        )
    },
    row(
        "force_stop",
        Kind::Boolean,
        Some("false"),
        [
            "Stop without asking the guest",
            "End the guest at once on stop, as if its power were cut. By default it is asked to shut down, and ended by force only when it \
            has not done so in time.",
        ],
        |values, value| {
            values.force_stop = boolean(value)?;
            Ok(())
        },
    ),
    row(
        "migration_transport",
        Kind::Text,
        None,
        [
            "Transport to the other nodes' libvirt",
            "Transport of the connection to the target's libvirt during a migration: tls, tcp, ssh, libssh2 and others that libvirt has. \
            Without it libvirt's default for remote URIs is used, which is tls.",
        ],
        |values, value| {
            if !uri::is_transport(value) {
                return Err(format!("{value:?} is no transport such as tls, tcp or ssh"));
            }
            values.migration_transport = Some(value.to_owned());
            Ok(())
        },
    ),
    row(
        "migration_user",
        Kind::Text,
        None,
        ["User on the other nodes", "User name in the URI of the target's libvirt, for transports that log in. Without it: root."],
        |values, value| {
            let starts = value.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
            if !starts || !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                return Err(format!("{value:?} is no user name"));
            }
            values.migration_user = Some(value.to_owned());
            Ok(())
        },
    ),
    row(
        "migration_downtime",
        NUMBER,
        Some("0"),
        [
            "Greatest downtime in a migration (ms)",
            "How long the guest may stand still at the end of a migration, in milliseconds. 0 leaves libvirt's default.",
        ],
        |values, value| {
            values.migration_downtime = integer(value, 0, u64::from(u32::MAX))?;
            Ok(())
        },
    ),
    row(
        "migration_speed",
        NUMBER,
        Some("0"),
        ["Greatest bandwidth of a migration (MiB/s)", "Greatest bandwidth of a migration, in MiB/s. 0 leaves libvirt's default."],
        |values, value| {
            values.migration_speed = integer(value, 0, u64::from(u32::MAX))?;
            Ok(())
        },
    ),
    row(
        "migration_network_suffix",
        Kind::Text,
        None,
        [
            "What a node is called on the migration network",
            "Added to the short name of the target (before the first dot) to reach it on a network of its own: with \"-mig\", node2.example.com \
            is reached as node2-mig.example.com. Used for the connection to its libvirt, unless remoteuri is set, and for the memory, unless \
            migrateuri is set.",
        ],
        |values, value| {
            if !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                return Err(format!("{value:?} cannot be part of a host name"));
            }
            value.clone_into(&mut values.migration_network_suffix);
            Ok(())
        },
    ),
    row(
        "migrateuri",
        Kind::Text,
        None,
        [
            "Where the guest's memory is sent",
            "URI that the guest's memory is sent to, such as tcp://%n-mig:49152. %n stands for the target's name, with \
            migration_network_suffix unless remoteuri is set. Without it libvirt chooses, or the suffix decides.",
        ],
        |values, value| {
            no_blanks(value)?;
            values.migrateuri = Some(value.to_owned());
            Ok(())
        },
    ),
    row(
        "migrate_options",
        Kind::Text,
        None,
        [
            "Options of virsh migrate",
            "Options as virsh migrate takes them, separated by blanks, such as --auto-converge or --bandwidth=100. They are understood by the \
            agent itself; one that is unknown or makes no sense for a guest of a cluster is refused by name. Migrations are live and \
            peer-to-peer in any case. --migrateuri is used if the parameter migrateuri is not set.",
        ],
        |values, value| {
            values.migrate_options = Options::parse(value)?;
            Ok(())
        },
    ),
    row(
        "monitor_scripts",
        Kind::Text,
        None,
        [
            "Programs that check what runs in the guest",
            "Programs, separated by blanks, that monitor runs on this node when the guest runs; each is a path without arguments. One that \
            ends with another code than 0 makes monitor fail, with its output as the reason. start and migrate_from are done only when all \
            of them succeed.",
        ],
        |values, value| {
            values.monitor_scripts = value.split_whitespace().map(Into::into).collect();
            Ok(())
        },
    ),
    row("autoset_utilization_cpu", Kind::Boolean, Some("false"), ["Write the guest's CPUs as utilization", UTILIZATION_TEXT], UTILIZATION),
    row(
        "autoset_utilization_host_memory",
        Kind::Boolean,
        Some("false"),
        ["Write the guest's memory as utilization host_memory", UTILIZATION_TEXT],
        UTILIZATION,
    ),
    row(
        "autoset_utilization_hv_memory",
        Kind::Boolean,
        Some("false"),
        ["Write the guest's memory as utilization hv_memory", UTILIZATION_TEXT],
        UTILIZATION,
    ),
    row("unset_utilization_cpu", Kind::Boolean, Some("false"), ["Remove utilization cpu", UTILIZATION_TEXT], UTILIZATION),
    row("unset_utilization_host_memory", Kind::Boolean, Some("false"), ["Remove utilization host_memory", UTILIZATION_TEXT], UTILIZATION),
    row("unset_utilization_hv_memory", Kind::Boolean, Some("false"), ["Remove utilization hv_memory", UTILIZATION_TEXT], UTILIZATION),
    row(
        "migrateport",
        PORT,
        None,
        [
            "Port for the guest's memory",
            "TCP port at the target that the guest's memory is sent to, when migration_network_suffix is set and migrateuri is not. Without it \
            the target's libvirt takes a free one from its range, 49152 to 49215 by default.",
        ],
        |values, value| {
            values.migrateport = Some(value.parse().map_err(|_| format!("{value} is no port"))?);
            Ok(())
        },
    ),
    row(
        "remoteuri",
        Kind::Text,
        None,
        [
            "URI of the target's libvirt",
            "URI of the target's libvirt, such as qemu+ssh://%n/system; %n stands for the target's name. migration_transport, migration_user \
            and migration_network_suffix have no effect on it. Without it the URI is made from hypervisor.",
        ],
        |values, value| {
            Uri::parse(&value.replace("%n", "node"))?;
            values.remoteuri = Some(value.to_owned());
            Ok(())
        },
    ),
    row("save_config_on_stop", Kind::Boolean, Some("false"), ["Save the definition on stop", "Not supported by this version."], NOT_YET),
    row(
        "sync_config_on_stop",
        Kind::Boolean,
        Some("false"),
        ["Distribute the saved definition", "Not supported by this version."],
        NOT_YET,
    ),
    row("snapshot", Kind::Text, None, ["Folder for saved states", "Not supported by this version."], NOT_YET),
    row("backingfile", Kind::Text, None, ["Base of a copy-on-write image", "Not supported by this version."], NOT_YET),
    row("stateless", Kind::Boolean, Some("false"), ["New copy-on-write image at each start", "Not supported by this version."], NOT_YET),
    row("copyindirs", Kind::Text, None, ["Folders copied into the image", "Not supported by this version."], NOT_YET),
    row(
        "shutdown_mode",
        Kind::Text,
        None,
        [
            "How the guest is asked to shut down",
            "How the guest is asked to shut down: one or more of acpi, agent, initctl, signal and paravirt, separated by commas. When the guest \
            agent does not answer, ACPI is used. Without it libvirt chooses.",
        ],
        |values, value| {
            let mode = |word: &str| {
                let known = ShutdownMode::NAMES.iter().find(|(name, _)| *name == word);
                known.map(|(_, mode)| *mode).ok_or_else(|| format!("{word:?} is none of acpi, agent, initctl, signal, paravirt"))
            };
            values.shutdown_mode = value.split([',', ' ']).filter(|word| !word.is_empty()).map(mode).collect::<Result<_, _>>()?;
            Ok(())
        },
    ),
    row("start_resources", Kind::Boolean, Some("false"), ["Start storage pools and networks", "Not supported by this version."], NOT_YET),
    row(
        "pause_policy",
        Kind::Select(PausePolicy::WORDS),
        Some("degraded"),
        [
            "What monitor says of a guest that a fault has paused",
            "What a recurring monitor says of a guest that is paused by an I/O error, its watchdog, a crash or a failed post-copy migration. \
            ignore: it is there, as ocf:heartbeat:VirtualDomain says. degraded: the same for Pacemaker, which does nothing, but the resource \
            is shown with the reason. fail: it has failed, and Pacemaker recovers it. A guest that is paused by a person, a migration, a save, \
            a dump or a snapshot is healthy in any case.",
        ],
        |values, value| {
            let known = PausePolicy::NAMES.iter().find(|(name, _)| *name == value);
            values.pause_policy = known.map(|(_, policy)| *policy).ok_or_else(|| format!("{value:?} is unknown"))?;
            Ok(())
        },
    ),
];

fn no_blanks(value: &str) -> Result<(), String> {
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) { Err(format!("{value:?} has blanks in it")) } else { Ok(()) }
}
