//! Who keeps a second emulator from a disk: QEMU's own image locks, or a lock manager of libvirt's.
//!
//! QEMU locks image files, on a file system that has locks for other hosts too. It locks no block device, nothing behind libnfs,
//! libiscsi, NBD or gfapi (each was tried: the second start succeeded). A lock manager locks devices, virtlockd only by files in a folder that
//! the hosts share: a lock on a node of `/dev` is this host's alone (libvirt.org/kbase/locking-lockd.html). It locks nothing on the network
//! (`virDomainLockManagerAddImage`); there only the storage itself can.

use super::{Error, Kind, process, walk};
use crate::deadline::Deadline;
use crate::storage::finding::Volumes;
use roxmltree::{Document, Node};
use std::fs;
use std::io;
use std::path::Path;

/// QEMU's settings of libvirt, of libvirtd and virtqemud alike.
const SETTINGS: &str = "/etc/libvirt/qemu.conf";

/// Those of virtlockd's part of it.
const LOCKD: &str = "/etc/libvirt/qemu-lockd.conf";

/// Whether an error of libvirt says that a disk's lock is held: by virtlockd's number (`virLockSpaceAcquireResource`), as its words are in the
/// language of the daemon, or by QEMU's words (`raw_check_lock_bytes`), which have one language.
#[must_use]
pub fn is_held(error: &Error) -> bool {
    let texts = ["Failed to get \"write\" lock", "Failed to get shared \"write\" lock"];
    error.kind == Kind::Locked || texts.iter().any(|text| error.text.contains(text))
}

/// Who holds the lock that an error of [`is_held`] is about, for a person: the emulator on this host that has the image open, or that
/// there is none. `None` if the error names no image, or the process table cannot be read in time.
#[must_use]
pub fn holder(error: &Error, deadline: &Deadline) -> Option<String> {
    let image = image(&error.text)?.to_owned();
    let guests = guests_with(Path::new(&image), deadline).ok()?;
    Some(match guests.first() {
        Some((pid, guest)) => format!("emulator {pid} of {guest} has {image} open here"),
        None => format!("no emulator here has {image} open: another host's, or its lock has not yet run out"),
    })
}

/// The emulators of this host that have a file open, by process and guest's name. The file itself is not touched.
///
/// # Errors
/// As for [`walk::each`]: nothing is known.
fn guests_with(file: &Path, deadline: &Deadline) -> io::Result<Vec<(i32, String)>> {
    let file = file.to_owned();
    walk::each(
        deadline,
        |_| false,
        move |pid, seen| {
            let name = process::option(&seen.line, b"-name")?;
            let mut open = fs::read_dir(seen.directory.join("fd")).into_iter().flatten().flatten();
            let has_it = open.any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
            has_it.then(|| (pid, String::from_utf8_lossy(&process::guest_name(name)).into_owned()))
        },
    )
}

/// The image that QEMU names: `Is another process using the image [/srv/vms/web1.img]?`
pub(super) fn image(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("using the image [")?;
    rest.split_once(']').map(|(image, _)| image).filter(|image| image.starts_with('/'))
}

/// Disks of a guest that nothing keeps a second emulator from writing to, by their targets' names and what they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unprotected {
    /// Devices, which a lock manager could lock.
    pub devices: Vec<String>,
    /// What the emulator reaches by the network itself.
    pub network: Vec<String>,
}

/// Those of a definition. A volume of a pool that is not found is left out.
///
/// # Errors
/// `Internal`: libvirt's settings cannot be read. They are files of this host's own disk.
pub fn unprotected(xml: &str, volumes: Volumes) -> Result<Unprotected, Error> {
    let settings = |path: &str| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| Error::new(Kind::Internal, format!("{path} cannot be read: {error}"))),
    };
    let found = unlocked(xml, volumes);
    let devices = if locks_devices(&settings(SETTINGS)?, &settings(LOCKD)?) { Vec::new() } else { found.devices };
    Ok(Unprotected { devices, ..found })
}

/// Whether libvirt's settings, and those for virtlockd, have devices locked. The default of the one is no lock manager (`nop`), that of the other no
/// folder for locks. A folder for the identities of LVM or SCSI alone is taken for enough: which devices have one is not asked.
pub(super) fn locks_devices(settings: &str, lockd: &str) -> bool {
    let folders = ["file_lockspace_dir", "scsi_lockspace_dir", "lvm_lockspace_dir"];
    match value(settings, "lock_manager") {
        None | Some("" | "nop") => false,
        Some("lockd") => {
            value(lockd, "auto_disk_leases") != Some("0")
                && folders.iter().any(|name| value(lockd, name).is_some_and(|folder| !folder.is_empty()))
        }
        // sanlock: it starts no guest with a disk that has no lease.
        Some(_) => true,
    }
}

/// What a setting is set to last.
fn value<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    let lines = settings.lines().filter_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix('='));
    lines.map(|value| value.trim().trim_matches('"')).next_back()
}

/// The disks that QEMU does not lock and that are written to by one guest at a time.
pub(super) fn unlocked(xml: &str, volumes: Volumes) -> Unprotected {
    let mut found = Unprotected::default();
    let Ok(document) = Document::parse(xml) else { return found };
    let child = |node: Node, name: &str| node.children().any(|child| child.has_tag_name(name));
    let disks = document.descendants().filter(|node| node.has_tag_name("disk") && node.parent().is_some_and(|p| p.has_tag_name("devices")));
    let written = disks.filter(|disk| !child(*disk, "readonly") && !child(*disk, "shareable"));
    for disk in written {
        let of_network = disk.attribute("type") == Some("network");
        if let Some(text) = unlocked_disk(disk, volumes) {
            if of_network { &mut found.network } else { &mut found.devices }.push(text);
        }
    }
    found
}

fn unlocked_disk(disk: Node, volumes: Volumes) -> Option<String> {
    let target = disk.children().find(|child| child.has_tag_name("target"))?.attribute("dev")?;
    let source = disk.children().find(|child| child.has_tag_name("source"))?;
    match disk.attribute("type")? {
        "block" => Some(format!("{target} ({})", source.attribute("dev")?)),
        "volume" => {
            let (pool, volume) = (source.attribute("pool")?, source.attribute("volume")?);
            let path = volumes(pool, volume).ok()?;
            // Of a pool on the network that is no path, and says nothing.
            path.starts_with("/dev").then(|| format!("{target} ({pool}/{volume}, {})", path.display()))
        }
        // Ceph has locks of its own, and QEMU takes them.
        "network" if source.attribute("protocol") != Some("rbd") => {
            Some(format!("{target} ({} {})", source.attribute("protocol")?, source.attribute("name").unwrap_or_default()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// virtlockd locks a device by a file in a folder of its settings; without one it locks the node of `/dev`, for this host alone.
    #[test]
    fn what_locks_devices() {
        const FOLDER: &str = "file_lockspace_dir = \"/srv/vms/locks\"\n";
        assert!(!locks_devices("", FOLDER));
        assert!(!locks_devices("#lock_manager = \"lockd\"\n", FOLDER));
        assert!(!locks_devices("lock_manager = \"nop\"\n", FOLDER));
        assert!(locks_devices("user = \"root\"\n  lock_manager=\"sanlock\"\n", ""));
        let lockd = "lock_manager = \"lockd\"\n";
        assert!(locks_devices(lockd, FOLDER));
        assert!(locks_devices(lockd, "lvm_lockspace_dir = \"/srv/vms/locks\"\n"));
        assert!(!locks_devices(lockd, ""));
        assert!(!locks_devices(lockd, "#file_lockspace_dir = \"/var/lib/libvirt/lockd/files\"\n"));
        assert!(!locks_devices(lockd, &format!("auto_disk_leases = 0\n{FOLDER}")));
    }

    #[test]
    fn disks_that_nobody_locks() {
        let xml = "<domain><devices>\
            <disk type='file'><source file='/a'/><target dev='vda'/></disk>\
            <disk type='block'><source dev='/dev/mapper/b'/><target dev='vdb'/></disk>\
            <disk type='block'><source dev='/dev/sr0'/><target dev='sda'/><readonly/></disk>\
            <disk type='block'><source dev='/dev/quorum'/><target dev='vdq'/><shareable/></disk>\
            <disk type='network'><source protocol='iscsi' name='iqn:t/1'/><target dev='vdc'/></disk>\
            <disk type='network'><source protocol='rbd' name='pool/image'/><target dev='vdd'/></disk>\
            <disk type='volume'><source pool='vg' volume='web1'/><target dev='vde'/></disk>\
            <disk type='volume'><source pool='folder' volume='web1.img'/><target dev='vdf'/></disk>\
            <disk type='volume'><source pool='gone' volume='web1'/><target dev='vdg'/></disk>\
            <disk type='block'><target dev='hdc'/></disk></devices></domain>";
        let volumes = |pool: &str, volume: &str| match pool {
            "vg" => Ok(Path::new("/dev/vg").join(volume)),
            "folder" => Ok(Path::new("/srv/vms").join(volume)),
            _ => Err("there is no such pool".to_owned()),
        };
        let found = unlocked(xml, &volumes);
        assert_eq!(found.devices, ["vdb (/dev/mapper/b)", "vde (vg/web1, /dev/vg/web1)"]);
        assert_eq!(found.network, ["vdc (iscsi iqn:t/1)"]);
    }

    #[test]
    fn the_image_that_is_locked() {
        let text = "Failed to get \"write\" lock Is another process using the image [/srv/vms/a b.img]?";
        assert_eq!(image(text), Some("/srv/vms/a b.img"));
        assert_eq!(image("Failed to get \"write\" lock"), None);
        assert!(is_held(&Error::new(Kind::Refused, text)));
        let text = "リソースが使用中です: Lockspace リソース '/srv/vms/web1.img' はロックされています";
        assert!(is_held(&Error::new(Kind::Locked, text)), "virtlockd speaks its own language");
        assert!(!is_held(&Error::new(Kind::Refused, "ドメインは実行中ではありません")));
    }
}
