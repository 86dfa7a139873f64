//! The kinds of storage, and the table of what is known about each: the manual prints it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file system of this host's own disks, as far as its name says.
    Local,
    /// NFS that the kernel mounts.
    Nfs,
    /// SMB.
    Smb,
    /// A cluster file system on a shared disk.
    Gfs2,
    /// As [`Kind::Gfs2`].
    Ocfs2,
    /// GlusterFS, mounted.
    Gluster,
    /// CephFS, mounted.
    Cephfs,
    /// Another FUSE file system.
    Fuse,
    /// A ZFS dataset.
    Zfs,
    /// A LUN over iSCSI (iSER too).
    Iscsi,
    /// A LUN over Fibre Channel, FCoE included.
    FibreChannel,
    /// A LUN over another SCSI transport.
    Scsi,
    /// An NVMe namespace.
    Nvme,
    /// device-mapper's multipath.
    Multipath,
    /// A logical volume.
    Lvm,
    /// Another device-mapper device.
    Mapper,
    /// DRBD.
    Drbd,
    /// The kernel's NBD client.
    Nbd,
    /// The kernel's RBD client.
    Rbd,
    /// A ZFS volume.
    Zvol,
    /// A loop device.
    Loop,
    /// Another disk of this host.
    Device,
    /// iSCSI by the emulator itself.
    NetIscsi,
    /// NBD by the emulator itself.
    NetNbd,
    /// NFS by the emulator itself.
    NetNfs,
    /// RBD by the emulator itself.
    NetRbd,
    /// GlusterFS by the emulator itself.
    NetGluster,
    /// sheepdog.
    Sheepdog,
    /// Another protocol of the emulator's.
    NetOther,
}

/// How far what is said about a kind was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// On a real one, by the suite `storage`.
    Real,
    /// On recorded files of `/proc` and `/sys`.
    Recorded,
    /// Not at all.
    No,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Recorded => "recorded /proc and /sys",
            Self::No => "not tried",
        })
    }
}

/// What is known about a kind.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub kind: Kind,
    /// Its name, for people.
    pub name: &'static str,
    /// What proves that it is the same thing on another node.
    pub proof: &'static str,
    /// What is to be known when a guest on it is moved.
    pub notes: &'static str,
    /// How far that was tried.
    pub tried: Tried,
}

const FILE: &str = "a file written beside it here is read there";
const LINK: &str =
    "the definition has its udev name with the WWID, which is there; or one with a UUID, and its beginning and end are the same";
const BYTES: &str = "none; another size or other contents at its beginning and end prove that it is not";
const ADDRESS: &str = "the same address, port and name";
const NOT_SHARED: &str = "live only if the other node has the same file system";

const fn row(kind: Kind, name: &'static str, proof: &'static str, notes: &'static str, tried: Tried) -> Row {
    Row { kind, name, proof, notes, tried }
}

/// All kinds, in the order of the manual.
pub static TABLE: &[Row] = &[
    row(Kind::Local, "local file system", FILE, NOT_SHARED, Tried::Real),
    row(Kind::Nfs, "NFS, mounted", FILE, "hard, version 4.1 or later, locks not switched off", Tried::Recorded),
    row(Kind::Smb, "SMB", FILE, "cache=none", Tried::No),
    row(Kind::Gfs2, "GFS2", FILE, "stands still until a lost node is fenced", Tried::Recorded),
    row(Kind::Ocfs2, "OCFS2", FILE, "stands still until a lost node is fenced", Tried::Recorded),
    row(
        Kind::Gluster,
        "GlusterFS, mounted",
        FILE,
        "needs its quorum of bricks; the locks of a lost node stay for about 40 s, start waits for them",
        Tried::Real,
    ),
    row(Kind::Cephfs, "CephFS", FILE, "any cache mode", Tried::Recorded),
    row(Kind::Fuse, "FUSE", FILE, "libvirt may not know that it is shared", Tried::Real),
    row(Kind::Zfs, "ZFS dataset", FILE, NOT_SHARED, Tried::Recorded),
    row(Kind::Iscsi, "iSCSI LUN", LINK, "name it below /dev/disk/by-id", Tried::Recorded),
    row(Kind::FibreChannel, "Fibre Channel or FCoE LUN", LINK, "name it below /dev/disk/by-id", Tried::Recorded),
    row(Kind::Scsi, "SCSI disk", LINK, "name it below /dev/disk/by-id", Tried::Recorded),
    row(Kind::Nvme, "NVMe namespace", LINK, "name it below /dev/disk/by-id", Tried::Recorded),
    row(Kind::Multipath, "multipath", LINK, "with queue_if_no_path it hangs when all paths are gone", Tried::Recorded),
    row(Kind::Lvm, "LVM", LINK, "the volume must be active on both nodes, without lvmlockd nothing protects its metadata", Tried::Recorded),
    row(Kind::Mapper, "another device-mapper device", LINK, "", Tried::Recorded),
    row(Kind::Drbd, "DRBD", BYTES, "both nodes have to be Primary during the move", Tried::Recorded),
    row(Kind::Nbd, "NBD by the kernel", BYTES, "", Tried::Recorded),
    row(Kind::Rbd, "Ceph RBD by the kernel", BYTES, "", Tried::Recorded),
    row(Kind::Zvol, "ZFS volume", BYTES, "a pool is imported on one node only: never shared", Tried::Recorded),
    row(Kind::Loop, "loop device", BYTES, "", Tried::Real),
    row(Kind::Device, "another block device", BYTES, "", Tried::No),
    row(Kind::NetIscsi, "iSCSI by QEMU", ADDRESS, "", Tried::Real),
    row(Kind::NetNbd, "NBD by QEMU", ADDRESS, "the server has to take two clients (qemu-nbd -e 2)", Tried::Real),
    row(Kind::NetNfs, "NFS by QEMU", ADDRESS, "NFS 3, at the ports that the server's port mapper tells", Tried::Real),
    row(
        Kind::NetRbd,
        "Ceph RBD by QEMU",
        ADDRESS,
        "name the monitors in the definition, those of each node's own ceph.conf cannot be compared; the locks of a lost node stay for 30 s",
        Tried::Real,
    ),
    row(Kind::NetGluster, "GlusterFS by QEMU", ADDRESS, "deprecated in QEMU", Tried::Real),
    row(Kind::Sheepdog, "sheepdog", "none", "gone: QEMU has no sheepdog since 6.1, libvirt since 8.8", Tried::No),
    row(Kind::NetOther, "another protocol of QEMU", ADDRESS, "", Tried::No),
];

/// File systems that one host mounts at a time, by the kernel's names; of one that is not here nothing is known.
const OF_ONE_HOST: &[&str] = &["ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs"];

/// Whether no other host can have what is on a file system of this name, while this one has it mounted.
#[must_use]
pub fn is_of_one_host(file_system: &str) -> bool {
    OF_ONE_HOST.contains(&file_system)
}

impl Kind {
    /// By the name of a file system, as the kernel's mount table has it.
    #[must_use]
    pub fn of_file_system(name: &str) -> Self {
        match name {
            "nfs" | "nfs4" => Self::Nfs,
            "cifs" | "smb3" => Self::Smb,
            "gfs2" => Self::Gfs2,
            "ocfs2" => Self::Ocfs2,
            "ceph" | "fuse.ceph" | "fuse.ceph-fuse" => Self::Cephfs,
            "fuse.glusterfs" => Self::Gluster,
            "zfs" => Self::Zfs,
            "fuse" => Self::Fuse,
            name if name.starts_with("fuse.") => Self::Fuse,
            _ => Self::Local,
        }
    }

    /// By libvirt's name of a protocol.
    #[must_use]
    pub fn of_protocol(name: &str) -> Self {
        match name {
            "iscsi" => Self::NetIscsi,
            "nbd" => Self::NetNbd,
            "nfs" => Self::NetNfs,
            "rbd" => Self::NetRbd,
            "gluster" => Self::NetGluster,
            "sheepdog" => Self::Sheepdog,
            _ => Self::NetOther,
        }
    }

    /// Its row of the table.
    #[must_use]
    pub fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.kind == self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().map_or("storage", |row| row.name))
    }
}
