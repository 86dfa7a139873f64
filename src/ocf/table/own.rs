//! The parameters that `ocf:heartbeat:VirtualDomain` has not got.

use super::{NUMBER, SECONDS, number, of_move, row};
use crate::domain::migration::StorageCheck;
use crate::domain::migration::policy::Policy;
use crate::domain::subnet::Subnet;
use crate::ocf::parameters::{OutagePolicy, Parameters, PausePolicy};
use crate::parameter::{Kind, Parameter, choice, set};

/// Puts the choice of a word into its field.
macro_rules! choice {
    ($field:ident: $of:ty) => {
        |values, value| {
            values.$field = choice(<$of>::NAMES, value)?;
            Ok(())
        }
    };
}

pub(super) static ROWS: &[Parameter<Parameters>] = &[
    row(
        "pause_policy",
        Kind::Select(PausePolicy::WORDS),
        Some("degraded"),
        [
            "What monitor says of a guest that a fault has paused",
            "What a recurring monitor says of a guest that is paused by an I/O error, its watchdog, a crash, a failed post-copy migration or QEMU \
            itself, that libvirt could not let go on after a snapshot, a save or a move, or that stands still after a move whose result is not \
            known. ignore: it is there, as ocf:heartbeat:VirtualDomain says. degraded: the same for Pacemaker, which does nothing, but the resource \
            is shown with the reason. fail: it has failed, and Pacemaker recovers it. A guest that is paused by a person, or by a migration, a \
            save, a dump or a snapshot that goes on, is healthy in any case.",
        ],
        choice!(pause_policy: PausePolicy),
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
            libvirt for a marker that lies in a folder .kvmha-mark-… beside each image, and beside config for a device, which the definition has to \
            call by its name below /dev/disk/by-id that holds its WWID or UUID; a replica of the folder (rsync, zfs send) contains the marker too \
            and is mistaken for the same storage, and disks that QEMU reaches by itself over the network keep the guest here. \
            With relocate a start is refused where a disk cannot be read, or does not answer for half of the time; so nothing that libvirt calls \
            at the start (a hook) may have to bring it up. With stop and relocate set the meta attribute failure-timeout, or a node on which a \
            start has failed is not tried again, and leave start-failure-is-fatal as it is. An emulator that hangs on another disk cannot be \
            ended, and its node is fenced. Only errors pause a guest, those that error_policy of the disk says stop to (QEMU's default: a full \
            file system); storage that hangs pauses nobody. Disks on NBD servers are not asked, and keep the guest paused. With pause_policy=fail \
            the guest has failed at once, whatever this says.",
        ],
        choice!(outage_policy: OutagePolicy),
    ),
    row(
        "outage_delay",
        SECONDS,
        Some("60"),
        [
            "Seconds before a guest without storage is given up",
            "How long, in seconds, a disk of a guest that is paused by an I/O error may be out before outage_policy=stop or relocate gives it up here.",
        ],
        set!(outage_delay = number),
    ),
    row(
        "guest_agent_failures",
        NUMBER,
        Some("0"),
        [
            "Silent pings of the guest agent before the guest hangs",
            "When not 0, each recurring monitor asks the guest's agent (qemu-guest-agent) for a sign of life. The guest has \
            failed after this many monitors in a row in which its agent was silent and its disks and network did nothing. Only an agent that has \
            answered before is missed, and only as long as it holds its channel open. A guest that is paused or moved is not asked. With 0 \
            only a monitor with OCF_CHECK_LEVEL=10 asks, and its limit is 3.",
        ],
        set!(guest_agent_failures = number),
    ),
    of_move(
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
        choice!(migration_policy: Policy),
    ),
    of_move(
        "migration_storage_check",
        Kind::Select(StorageCheck::WORDS),
        Some("different"),
        [
            "Which moves are refused for the guest's disks",
            "Which moves are refused for what is under the guest, whatever libvirt thinks of it (also with --unsafe). different: those to a node \
            where a disk is proven to be another one or not to be there; what cannot be told is a warning in the log. proven: also those to \
            a node where it is not proven that every disk is the same. off: none, nothing is compared. Unless it is off, \
            a move to a node is also refused where config is not there, or is another guest's, so that the guest would not be known there. \
            For the proof a folder .kvmha-proof-… is made for a moment beside each image and beside config, which the target's libvirt reads; a block device \
            is proven to be the same if the definition calls it by its name below /dev/disk/by-id that holds its WWID (or by /dev/mapper and the WWID), or \
            by that which holds its UUID if begin and end are the same too; any other name may lead to a copy there, so that proven \
            refuses it. It needs libvirt's storage driver there, and a folder that both nodes have.",
        ],
        choice!(migration_storage_check: StorageCheck),
    ),
    of_move(
        "migration_network",
        Kind::Text,
        None,
        [
            "Network that the guest's memory is sent over",
            "Network that the guest's memory is sent over, such as 10.1.2.0/24. The target's address in it is looked for among those that its \
            name stands for (hosts file, DNS; with migration_network_suffix), and the target listens at that address only. If there is none \
            the move is refused; the guest's memory takes no other way. Without effect if migrateuri is set.",
        ],
        set!(migration_network = Some(Subnet::parse)),
    ),
    row(
        "migration_check_interval",
        SECONDS,
        Some("0"),
        [
            "Seconds between two looks at where the guest could be moved to",
            "Every so many seconds a recurring monitor of a healthy guest looks at each other node of the cluster as migrate_to does before it \
            touches the guest, for at most 5 seconds, and keeps what it finds as that node's attribute kvmha-check-RESOURCE: ok, or refuse if \
            something there would surely make the move fail (the log has the reason), so that a constraint can prefer nodes that would take the guest. \
            What is a matter of the guest alone is left out, such as a backup that is under way, a snapshot, or a device with which no guest is \
            moved. The node that it runs on has ok. If a node does not answer in time, or the guest is stopped, the old value stays. It may be wrong, \
            so use it only in a rule for ok with a positive score below the guest's resource-stickiness: a negative score, however small, can \
            keep the guest stopped when its node dies, and a greater one can draw a healthy guest elsewhere. 0: nothing is looked at. Needs \
            migration_transport or remoteuri.",
        ],
        set!(migration_check_interval = number),
    ),
];
