//! The parameters of `ocf:heartbeat:VirtualDomain`, by its names.

use super::{NUMBER, number, of_move, row};
use crate::domain::ending::ShutdownMode;
use crate::domain::options::Options;
use crate::domain::uri::{self, Uri};
use crate::ocf::parameters::Parameters;
use crate::parameter::{Change, Concerns, Kind, Parameter, Sharing, boolean, choice, set};
use std::path::PathBuf;

const PORT: Kind = Kind::Integer { min: 1, max: u16::MAX as u64 };

pub(super) static ROWS: &[Parameter<Parameters>] = &[
    Parameter {
        required: true,
        sharing: Sharing::Unique,
        change: Change::Restarts,
        concerns: Concerns::Guest,
        ..row(
            "config",
            Kind::Text,
            None,
            [
                "Definition of the guest, a libvirt XML file",
                "Absolute path of the file with the libvirt XML definition of the guest. It must be readable on every node that may run the \
                guest. The guest's name and UUID are taken from it.",
            ],
            set!(config = absolute),
        )
    },
    Parameter {
        change: Change::Restarts,
        concerns: Concerns::Libvirt,
        ..row(
            "hypervisor",
            Kind::Text,
            Some("qemu:///system"),
            ["libvirt connection URI", "URI of the libvirt that runs the guest on each node, of the QEMU driver."],
            set!(hypervisor = Uri::parse),
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
        set!(force_stop = boolean),
    ),
    of_move(
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
    of_move(
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
    of_move(
        "migration_downtime",
        NUMBER,
        Some("0"),
        [
            "Greatest downtime in a migration (ms)",
            "How long the guest may stand still at the end of a migration, in milliseconds. 0 leaves libvirt's default.",
        ],
        set!(migration_downtime = number),
    ),
    of_move(
        "migration_speed",
        NUMBER,
        Some("0"),
        ["Greatest bandwidth of a migration (MiB/s)", "Greatest bandwidth of a migration, in MiB/s. 0 leaves libvirt's default."],
        set!(migration_speed = number),
    ),
    of_move(
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
    of_move(
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
    of_move(
        "migrate_options",
        Kind::Text,
        None,
        [
            "Options of virsh migrate",
            "Options as virsh migrate takes them, separated by blanks, such as --auto-converge or --bandwidth=100. They are understood by the \
            agent itself; one that is unknown or makes no sense for a guest of a cluster is refused by name. Migrations are live and \
            peer-to-peer in any case. --migrateuri is used if the parameter migrateuri is not set.",
        ],
        set!(migrate_options = Options::parse),
    ),
    row(
        "monitor_scripts",
        Kind::Text,
        None,
        [
            "Programs that check what runs in the guest",
            "Programs, separated by blanks, that monitor runs on this node when the guest runs; each is a path without arguments. One that \
            ends with another code than 0 makes monitor fail, with its output as the reason. start and migrate_from are done only when all \
            of them succeed. They are not run for a guest that is paused.",
        ],
        |values, value| {
            values.monitor_scripts = value.split_whitespace().map(Into::into).collect();
            Ok(())
        },
    ),
    row(
        "autoset_utilization_cpu",
        Kind::Boolean,
        Some("true"),
        [
            "Write the guest's CPUs as utilization cpu",
            "Write the guest's number of CPUs to the resource's utilization attribute cpu, for Pacemaker's placement. start does it, and monitor when the \
            guest's own number has changed, which it looks at once a minute; the attribute is looked at every ten minutes. Nothing is written \
            if it is right.",
        ],
        set!(utilization.cpu.autoset = boolean),
    ),
    row(
        "autoset_utilization_host_memory",
        Kind::Boolean,
        Some("true"),
        [
            "Write the guest's memory as utilization host_memory",
            "Write the guest's memory in MiB to the resource's utilization attribute host_memory, for Pacemaker's placement. start does \
            it, and monitor when the guest's own number has changed, which it looks at once a minute; the attribute is looked at every ten \
            minutes. Nothing is written if it is right.",
        ],
        set!(utilization.host_memory.autoset = boolean),
    ),
    row(
        "autoset_utilization_hv_memory",
        Kind::Boolean,
        Some("true"),
        [
            "Write the guest's memory as utilization hv_memory",
            "Write the guest's memory in MiB to the resource's utilization attribute hv_memory, for Pacemaker's placement. start does it, and monitor when the \
            guest's own number has changed, which it looks at once a minute; the attribute is looked at every ten minutes. Nothing is written \
            if it is right.",
        ],
        set!(utilization.hv_memory.autoset = boolean),
    ),
    row(
        "unset_utilization_cpu",
        Kind::Boolean,
        Some("false"),
        [
            "Remove utilization cpu",
            "Remove the resource's utilization attribute cpu if it is there. Only if autoset_utilization_cpu is off.",
        ],
        set!(utilization.cpu.unset = boolean),
    ),
    row(
        "unset_utilization_host_memory",
        Kind::Boolean,
        Some("false"),
        [
            "Remove utilization host_memory",
            "Remove the resource's utilization attribute host_memory if it is there. Only if autoset_utilization_host_memory is off.",
        ],
        set!(utilization.host_memory.unset = boolean),
    ),
    row(
        "unset_utilization_hv_memory",
        Kind::Boolean,
        Some("false"),
        [
            "Remove utilization hv_memory",
            "Remove the resource's utilization attribute hv_memory if it is there. Only if autoset_utilization_hv_memory is off.",
        ],
        set!(utilization.hv_memory.unset = boolean),
    ),
    of_move(
        "migrateport",
        PORT,
        None,
        [
            "Port for the guest's memory",
            "TCP port at the target that the guest's memory is sent to, when migration_network_suffix is set and migrateuri is not. Without it \
            the target's libvirt takes a free one from its range, 49152 to 49215 by default.",
        ],
        set!(migrateport = Some(port)),
    ),
    of_move(
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
    row(
        "save_config_on_stop",
        Kind::Boolean,
        Some("false"),
        [
            "Keep changes of the running guest in config",
            "Write the definition of the running guest, with what was changed while it ran, to the file config: on stop, before and after a \
            migration, and on monitor when it has changed. The file is replaced whole or not at all and keeps its owner and mode. What \
            somebody else had written to it is kept beside it for good, with .original added to its name (a later one with the time too), and the \
            last one of this agent with .previous. The definition has the passwords of the guest's displays in it. Not done for \
            a guest that only its name speaks for, or that libvirt also has a persistent definition of.",
        ],
        set!(save_config_on_stop = boolean),
    ),
    row(
        "sync_config_on_stop",
        Kind::Boolean,
        Some("false"),
        [
            "Distribute config with csync2 after it was saved",
            "After config was saved run csync2 -x on it, which brings it to the other nodes. Has the effect of save_config_on_stop too. csync2 must be \
            installed where the guest is started; a distribution that fails is only logged.",
        ],
        set!(sync_config_on_stop = boolean),
    ),
    row(
        "snapshot",
        Kind::Text,
        None,
        [
            "Folder for saved states",
            "Absolute path of a folder. stop then saves the state of the guest (its memory) to a file NAME.state in it instead of shutting the \
            guest down, and start lets it go on from there. A guest that cannot be saved in time is shut down, and so is one that has failed: its \
            agent is silent (guest_agent_failures), a monitor script has failed, or a fault other than an I/O error has paused it. With its memory \
            that would come back. A state that cannot be restored, \
            or is older than an image file that the guest writes to, makes start fail and stays where it is: remove the file to boot the guest without \
            it. One that was not written to its end, because its host was lost, is kept as NAME.state.outdated-TIME, and the guest is booted. The folder \
            should be on storage that all nodes share. Not together with force_stop, and not for a guest that is itself a node of a cluster: it would \
            come back, after it was fenced there, with the memory of a member.",
        ],
        set!(snapshot = Some(absolute)),
    ),
    row(
        "backingfile",
        Kind::Text,
        None,
        [
            "Base of a copy-on-write image",
            "Absolute path of a disk image. start makes a copy-on-write image on top of it if there is none yet: beside config, named like it up \
            to the first dot, with .qcow2 added; config should have it as a disk. Needs qemu-img.",
        ],
        set!(backingfile = Some(absolute)),
    ),
    row(
        "stateless",
        Kind::Boolean,
        Some("false"),
        [
            "New copy-on-write image at each start",
            "Make the copy-on-write image anew at each start: the guest then forgets what it wrote. Needs backingfile.",
        ],
        set!(stateless = boolean),
    ),
    row(
        "copyindirs",
        Kind::Text,
        None,
        [
            "Folders copied into the image",
            "Absolute paths of files and folders, separated by blanks, that are copied to the root of the copy-on-write image whenever it was made. \
            Needs backingfile and virt-copy-in, which is part of libguestfs.",
        ],
        |values, value| {
            values.copyindirs = value.split_whitespace().map(absolute).collect::<Result<_, _>>()?;
            Ok(())
        },
    ),
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
            let words = value.split([',', ' ']).filter(|word| !word.is_empty());
            values.shutdown_mode = words.map(|word| choice(ShutdownMode::NAMES, word)).collect::<Result<_, _>>()?;
            Ok(())
        },
    ),
    row(
        "start_resources",
        Kind::Boolean,
        Some("false"),
        [
            "Start storage pools and networks that the guest needs",
            "Start the libvirt networks and storage pools that config names if they are not active, and refresh pools that are: here before the guest \
            is started, at the target before it is moved.",
        ],
        set!(start_resources = boolean),
    ),
];

fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("{value} is no port"))
}

fn absolute(value: &str) -> Result<PathBuf, String> {
    if value.starts_with('/') { Ok(PathBuf::from(value)) } else { Err(format!("{value:?} is not an absolute path")) }
}

fn no_blanks(value: &str) -> Result<(), String> {
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) { Err(format!("{value:?} has blanks in it")) } else { Ok(()) }
}
