//! The table of the resource agent's parameters: one row describes one parameter, and nothing else describes it.

use super::parameters::{OutagePolicy, Parameters, PausePolicy};
use crate::domain::lifecycle::ShutdownMode;
use crate::domain::migration::StorageCheck;
use crate::domain::migration::policy::Policy;
use crate::domain::options::Options;
use crate::domain::uri::{self, Subnet, Uri};
use crate::parameter::{Change, Kind, Parameter, Sharing, boolean, choice, integer};
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
                values.config = absolute(value)?;
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
        |values, value| {
            values.utilization.cpu.autoset = boolean(value)?;
            Ok(())
        },
    ),
    row(
        "autoset_utilization_host_memory",
        Kind::Boolean,
        Some("true"),
        [
            "Write the guest's memory as utilization host_memory",
            "Write the guest's memory in MiB to the resource's utilization attribute host_memory, for Pacemaker's placement. start does it, and monitor when the \
            guest's own number has changed, which it looks at once a minute; the attribute is looked at every ten minutes. Nothing is written \
            if it is right.",
        ],
        |values, value| {
            values.utilization.host_memory.autoset = boolean(value)?;
            Ok(())
        },
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
        |values, value| {
            values.utilization.hv_memory.autoset = boolean(value)?;
            Ok(())
        },
    ),
    row(
        "unset_utilization_cpu",
        Kind::Boolean,
        Some("false"),
        [
            "Remove utilization cpu",
            "Remove the resource's utilization attribute cpu if it is there. Only if autoset_utilization_cpu is off.",
        ],
        |values, value| {
            values.utilization.cpu.unset = boolean(value)?;
            Ok(())
        },
    ),
    row(
        "unset_utilization_host_memory",
        Kind::Boolean,
        Some("false"),
        [
            "Remove utilization host_memory",
            "Remove the resource's utilization attribute host_memory if it is there. Only if autoset_utilization_host_memory is off.",
        ],
        |values, value| {
            values.utilization.host_memory.unset = boolean(value)?;
            Ok(())
        },
    ),
    row(
        "unset_utilization_hv_memory",
        Kind::Boolean,
        Some("false"),
        [
            "Remove utilization hv_memory",
            "Remove the resource's utilization attribute hv_memory if it is there. Only if autoset_utilization_hv_memory is off.",
        ],
        |values, value| {
            values.utilization.hv_memory.unset = boolean(value)?;
            Ok(())
        },
    ),
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
        |values, value| {
            values.save_config_on_stop = boolean(value)?;
            Ok(())
        },
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
        |values, value| {
            values.sync_config_on_stop = boolean(value)?;
            Ok(())
        },
    ),
    row(
        "snapshot",
        Kind::Text,
        None,
        [
            "Folder for saved states",
            "Absolute path of a folder. stop then saves the state of the guest (its memory) to a file NAME.state in it instead of shutting the \
            guest down, and start lets it go on from there. A guest that cannot be saved in time is shut down. A state that cannot be restored, \
            or is older than an image file that the guest writes to, makes start fail and stays where it is: remove the file to boot the guest without \
            it. One that was not written to its end, because its host was lost, is kept as NAME.state.outdated-TIME, and the guest is booted. The folder \
            should be on storage that all nodes share. Not together with force_stop.",
        ],
        |values, value| {
            values.snapshot = Some(absolute(value)?);
            Ok(())
        },
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
        |values, value| {
            values.backingfile = Some(absolute(value)?);
            Ok(())
        },
    ),
    row(
        "stateless",
        Kind::Boolean,
        Some("false"),
        [
            "New copy-on-write image at each start",
            "Make the copy-on-write image anew at each start: the guest then forgets what it wrote. Needs backingfile.",
        ],
        |values, value| {
            values.stateless = boolean(value)?;
            Ok(())
        },
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
        |values, value| {
            values.start_resources = boolean(value)?;
            Ok(())
        },
    ),
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
            values.pause_policy = choice(PausePolicy::NAMES, value)?;
            Ok(())
        },
    ),
    row(
        "outage_policy",
        Kind::Select(OutagePolicy::WORDS),
        Some("wait"),
        [
            "What is done about a guest that an error of its storage has paused",
            "What a recurring monitor does about a guest that is paused by an I/O error. wait: nothing, pause_policy says how it is shown. \
            resume: it goes on when two monitors in a row have read from all its disks, and it is certain that no other node has it: every node \
            says so through libvirt (migration_transport or remoteuri must be set) or is down for certain, this one has quorum, the guest is \
            younger than the Pacemaker that runs here, nodes are fenced, and Pacemaker manages the resource here. After three times in ten \
            minutes it is left to a person. stop: the same; but when a disk cannot be read for outage_delay, the guest has failed, and Pacemaker \
            stops it and starts it where it can, whether that node reads the disk or not: for storage that one node may lose alone. relocate: the \
            same as stop, but the guest is given up only if another node reads its disks now and Pacemaker would run it there, and once in ten \
            minutes at most; otherwise it stays, paused, and the node attribute kvmha-outage-RESOURCE says why. Another node is asked through \
            libvirt for a word that lies in a folder .kvmha-mark-… beside each image, and beside config for a device, which needs a name below \
            /dev/disk/by-id; a copy of the folder has the word too, and disks that QEMU reaches by itself over the network keep the guest here. \
            With relocate a start is refused where a disk cannot be read, or does not answer for half of the time; so nothing that libvirt calls \
            at the start (a hook) may have to bring it up. With stop and relocate set the meta attribute failure-timeout, or a node on which a \
            start has failed is not tried again, and leave start-failure-is-fatal as it is. An emulator that hangs on another disk cannot be \
            ended, and its node is fenced. Only errors pause a guest, those that error_policy of the disk says stop to (QEMU's default: a full \
            file system); storage that hangs pauses nobody. Disks on NBD servers are not asked, and keep the guest paused. With pause_policy=fail \
            the guest has failed at once, whatever this says.",
        ],
        |values, value| {
            values.outage_policy = choice(OutagePolicy::NAMES, value)?;
            Ok(())
        },
    ),
    row(
        "outage_delay",
        NUMBER,
        Some("60"),
        [
            "Seconds before a guest without storage is given up",
            "How long, in seconds, a disk of a guest that is paused by an I/O error may be out before outage_policy=stop or relocate gives it up here.",
        ],
        |values, value| {
            values.outage_delay = integer(value, 0, u64::from(u32::MAX))?;
            Ok(())
        },
    ),
    row(
        "guest_agent_failures",
        NUMBER,
        Some("0"),
        [
            "Silent pings of the guest agent before the guest hangs",
            "When not 0, each recurring monitor asks the guest's agent (qemu-guest-agent) for a sign of life. A guest whose agent has fallen silent \
            has failed when its disks and network stood still from one monitor to the next so many times in a row. Only an agent that has \
            answered before is missed, and only as long as it holds its channel open. A guest that is paused or moved is not asked. With 0 \
            only a monitor with OCF_CHECK_LEVEL=10 asks, as if it were 3.",
        ],
        |values, value| {
            values.guest_agent_failures = integer(value, 0, u64::from(u32::MAX))?;
            Ok(())
        },
    ),
    row(
        "migration_policy",
        Kind::Select(Policy::WORDS),
        Some("converge"),
        [
            "What is done about a guest that is too busy to be moved",
            "What is done about a guest that changes its memory faster than it can be sent. plain: nothing, libvirt's defaults, as \
            ocf:heartbeat:VirtualDomain. gentle: it is never slowed down, but may stand still for up to half a second at the end. converge: \
            it is slowed down as far as needed (auto-converge) and may stand still for up to a second, near the timeout for up to five. \
            postcopy: the same, and when half of the time is over it runs on at the target before all of its memory has come; if the network or \
            a host fails before it has, the guest is lost and has to be started anew. With migration_downtime set, that is the longest \
            standstill. A move that has not ended before the timeout of migrate_to is called off, and the guest runs on where it was.",
        ],
        |values, value| {
            values.migration_policy = choice(Policy::NAMES, value)?;
            Ok(())
        },
    ),
    row(
        "migration_storage_check",
        Kind::Select(StorageCheck::WORDS),
        Some("different"),
        [
            "Which moves are refused for the guest's disks",
            "Which moves are refused for what is under the guest, whatever libvirt thinks of it (also with --unsafe). different: those to a node \
            where a disk is proven to be another one or not to be there; what cannot be told is a warning in the log. proven: also those to \
            a node where it is not proven that every disk is the same. off: none, nothing is compared. For the proof a folder .kvmha-proof-… is \
            made for a moment beside each image and beside config, which the target's libvirt reads; block devices are compared by what udev \
            knows of them there. It needs libvirt's storage driver there, and a folder that both nodes have.",
        ],
        |values, value| {
            values.migration_storage_check = choice(StorageCheck::NAMES, value)?;
            Ok(())
        },
    ),
    row(
        "migration_network",
        Kind::Text,
        None,
        [
            "Network that the guest's memory is sent over",
            "Network that the guest's memory is sent over, such as 10.1.2.0/24. The target's address in it is looked for among those that its \
            name stands for (hosts file, DNS; with migration_network_suffix), and the target listens at that address only. If there is none \
            the move is refused; the guest's memory takes no other way. Without effect if migrateuri is set.",
        ],
        |values, value| {
            values.migration_network = Some(Subnet::parse(value)?);
            Ok(())
        },
    ),
    row(
        "migration_check_interval",
        NUMBER,
        Some("0"),
        [
            "Seconds between two looks at where the guest could be moved to",
            "So often, in seconds, a recurring monitor of a healthy guest looks at each other node of the cluster as migrate_to does before it \
            touches the guest, for at most 5 seconds, and keeps what it finds as that node's attribute kvmha-check-RESOURCE: ok, or refuse if \
            something would surely make the move fail (the log has the reason), so that a constraint can prefer nodes that would take the guest. The \
            node that it runs on has ok; of one that gives no answer in time what was found last stays, and so it does while the guest is stopped: \
            no reason for a score of -INFINITY. 0: it is not looked at. Needs migration_transport or remoteuri.",
        ],
        |values, value| {
            values.migration_check_interval = integer(value, 0, u64::from(u32::MAX))?;
            Ok(())
        },
    ),
];

fn absolute(value: &str) -> Result<PathBuf, String> {
    if value.starts_with('/') { Ok(PathBuf::from(value)) } else { Err(format!("{value:?} is not an absolute path")) }
}

fn no_blanks(value: &str) -> Result<(), String> {
    if value.chars().any(|c| c.is_whitespace() || c.is_control()) { Err(format!("{value:?} has blanks in it")) } else { Ok(()) }
}
