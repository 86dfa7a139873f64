//! What a block device is, from `/sys` and the names that udev gives it.

use super::kind::Kind;
use std::fs;
use std::path::{Path, PathBuf};

/// A block device as the kernel and udev describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) kind: Kind,
    /// What tells it apart from every other one, printable.
    pub(super) token: Option<String>,
    /// A name of udev's that holds its WWID or UUID, if there is one.
    pub(super) lasting: Option<PathBuf>,
    /// Paths that work, and all: of a multipath device.
    pub(super) paths: Option<(usize, usize)>,
}

/// Describes the device with these numbers; `root` is where `/sys` and `/dev` are.
pub(super) fn describe(root: &Path, major: u64, minor: u64) -> Device {
    // The link names the place among the devices, and with it the transport.
    let node = root.join(format!("sys/dev/block/{major}:{minor}"));
    let place = fs::canonicalize(&node).unwrap_or(node);
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let uuid = text(&place.join("dm/uuid")).unwrap_or_default();
    let wwid = text(&place.join("device/wwid")).or_else(|| text(&place.join("wwid")));
    let unique = |token: String| Some(token).filter(|token| !token.ends_with(':'));
    let (kind, token) = if let Some(map) = uuid.strip_prefix("mpath-") {
        (Kind::Multipath, Some(format!("wwid:{map}")))
    } else if let Some(volume) = uuid.strip_prefix("LVM-") {
        // Two UUIDs of 32 letters: the group's and the volume's.
        let (group, volume) = volume.split_at_checked(32).unwrap_or((volume, ""));
        (Kind::Lvm, Some(format!("lvm:{group}/{volume}")))
    } else if place.join("dm").exists() {
        (Kind::Mapper, unique(format!("dm:{uuid}")))
    } else if name.starts_with("drbd") {
        (Kind::Drbd, named(root, "dev/drbd/by-res", &name).map(|resource| format!("drbd:{resource}")))
    } else if name.starts_with("nbd") {
        (Kind::Nbd, None)
    } else if name.starts_with("rbd") {
        let part = |word: &str| text(&place.join("device").join(word));
        let whole = part("cluster_fsid").zip(part("pool")).zip(part("name"));
        (Kind::Rbd, whole.map(|((cluster, pool), image)| format!("rbd:{cluster}/{pool}/{image}")))
    } else if name.starts_with("zd") {
        (Kind::Zvol, None)
    } else if name.starts_with("loop") {
        (Kind::Loop, text(&place.join("loop/backing_file")).map(|file| format!("loop:{file}")))
    } else {
        let kind = match &*place.to_string_lossy() {
            _ if name.starts_with("nvme") => Kind::Nvme,
            place if place.contains("/session") => Kind::Iscsi,
            place if place.contains("/rport-") => Kind::FibreChannel,
            place if place.contains("/host") && place.contains("/target") => Kind::Scsi,
            _ => Kind::Device,
        };
        (kind, wwid.map(|wwid| format!("wwid:{wwid}")))
    };
    let paths = (kind == Kind::Multipath).then(|| paths(&place));
    Device { kind, token, lasting: lasting(root, &name, kind), paths }
}

/// The SCSI layer's word about each path of a multipath device. What multipathd thinks of them is its own.
fn paths(place: &Path) -> (usize, usize) {
    let slaves: Vec<_> = fs::read_dir(place.join("slaves")).into_iter().flatten().flatten().collect();
    let works =
        slaves.iter().filter(|slave| text(&slave.path().join("device/state")).is_none_or(|state| matches!(&*state, "running" | "live")));
    (works.count(), slaves.len())
}

/// Where udev's names are that say what a device is.
const BY_ID: &str = "/dev/disk/by-id";

/// How the names there begin that hold a WWID or UUID, the best first.
const LASTING: [&str; 6] = ["dm-uuid-", "wwn-", "nvme-eui.", "nvme-uuid.", "nvme-nqn.", "scsi-3"];

/// What a name says of the device that it leads to, on whatever host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It is that device and no other: the name holds its WWID.
    Device,
    /// It is that device or a copy of it: the name holds a UUID that is written on it, which an array copies with a LUN.
    Contents,
    /// Nothing: who administers a host gives such names, or the order in which devices are found there does.
    Nothing,
}

/// What the name of a device whose lasting name is known says of it. Without `user_friendly_names` multipathd calls a map by its WWID.
#[must_use]
pub fn naming(path: &Path, lasting: &Path) -> Naming {
    let by_id = path.strip_prefix(BY_ID).ok().and_then(Path::to_str);
    let wwid = path.strip_prefix("/dev/mapper").ok().and_then(Path::to_str);
    match (by_id, wwid) {
        (Some(name), _) if name.starts_with("dm-uuid-") && !name.starts_with("dm-uuid-mpath-") => Naming::Contents,
        (Some(name), _) if LASTING.iter().any(|begin| name.starts_with(begin)) => Naming::Device,
        (_, Some(wwid)) if lasting.strip_prefix(BY_ID).is_ok_and(|name| name == Path::new(&format!("dm-uuid-mpath-{wwid}"))) => {
            Naming::Device
        }
        _ => Naming::Nothing,
    }
}

/// The name below /dev/disk/by-id that holds the device's WWID or UUID, as udev makes it (`60-persistent-storage.rules`,
/// `13-dm-disk.rules`).
fn lasting(root: &Path, name: &str, kind: Kind) -> Option<PathBuf> {
    let good = |link: &str| LASTING.iter().any(|begin| link.starts_with(begin)) && (kind != Kind::Mapper || link.starts_with("dm-uuid-"));
    let folder = root.join("dev/disk/by-id");
    let links = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = links
        .filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.file_name().is_some_and(|file| file == name)))
        .filter_map(|link| link.file_name().into_string().ok())
        .filter(|link| good(link))
        .collect();
    names.sort_by_key(|link| (LASTING.iter().position(|begin| link.starts_with(begin)), link.clone()));
    names.first().map(|link| Path::new(BY_ID).join(link))
}

/// What the link below a folder of /dev is called that leads to the device: DRBD has a folder for each resource.
fn named(root: &Path, folder: &str, name: &str) -> Option<String> {
    for resource in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let links = fs::read_dir(resource.path()).into_iter().flatten().flatten();
        for link in links {
            if fs::read_link(link.path()).is_ok_and(|to| to.file_name().is_some_and(|file| file == name)) {
                return Some(format!("{}/{}", resource.file_name().to_string_lossy(), link.file_name().to_string_lossy()));
            }
        }
    }
    None
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Files of `/sys` and links of `/dev` in the shape that real systems have, `PATH CONTENT` or `PATH -> TARGET`.
    fn recorded(lines: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for line in lines {
            let (path, to) = line.split_once(" -> ").map_or_else(|| (line.split_once(' ').unwrap().0, None), |(path, to)| (path, Some(to)));
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match to {
                Some(to) => symlink(to, &path).unwrap(),
                None => fs::write(&path, line.split_once(' ').unwrap().1).unwrap(),
            }
        }
        root
    }

    fn of(lines: &[&str], major: u64, minor: u64) -> Device {
        describe(recorded(lines).path(), major, minor)
    }

    #[test]
    fn recorded_multipath_over_fibre_channel() {
        let path = "sys/devices/pci0000:00/0000:00:03.0/host1/rport-1:0-0/target1:0:0/1:0:0:1/block/sda";
        let second = "sys/devices/pci0000:00/0000:00:03.1/host2/rport-2:0-0/target2:0:0/2:0:0:1/block/sdb";
        let lines = [
            "sys/dev/block/253:3 -> ../../devices/virtual/block/dm-3",
            "sys/devices/virtual/block/dm-3/dm/uuid mpath-3600a098038303634\n",
            "sys/devices/virtual/block/dm-3/slaves/sda -> ../../../../pci0000:00/0000:00:03.0/host1/rport-1:0-0/target1:0:0/1:0:0:1/block/sda",
            "sys/devices/virtual/block/dm-3/slaves/sdb -> ../../../../pci0000:00/0000:00:03.1/host2/rport-2:0-0/target2:0:0/2:0:0:1/block/sdb",
            &format!("{path}/device/state running\n"),
            &format!("{second}/device/state offline\n"),
            &format!("{path}/device/wwid naa.600a098038303634\n"),
            &format!("sys/dev/block/8:0 -> ../../{}", path.trim_start_matches("sys/")),
            "dev/disk/by-id/dm-uuid-mpath-3600a098038303634 -> ../../dm-3",
            "dev/disk/by-id/dm-name-mpatha -> ../../dm-3",
            "dev/disk/by-id/wwn-0x600a098038303634 -> ../../dm-3",
        ];
        let map = of(&lines, 253, 3);
        assert_eq!((map.kind, map.token.as_deref(), map.paths), (Kind::Multipath, Some("wwid:3600a098038303634"), Some((1, 2))));
        assert_eq!(map.lasting.as_deref(), Some(Path::new("/dev/disk/by-id/dm-uuid-mpath-3600a098038303634")));
        let lun = of(&lines, 8, 0);
        assert_eq!((lun.kind, lun.token.as_deref(), lun.lasting), (Kind::FibreChannel, Some("wwid:naa.600a098038303634"), None));
    }

    #[test]
    fn what_names_say() {
        let (map, volume) = ("/dev/disk/by-id/dm-uuid-mpath-3600a0980", "/dev/disk/by-id/dm-uuid-LVM-abc");
        let wwn = "/dev/disk/by-id/wwn-0x600a0980";
        for (path, lasting, says) in [
            (map, map, Naming::Device),
            (wwn, map, Naming::Device),
            (wwn, wwn, Naming::Device),
            ("/dev/disk/by-id/nvme-eui.00", "/dev/disk/by-id/nvme-eui.00", Naming::Device),
            ("/dev/disk/by-id/scsi-3600a0980-part1", "/dev/disk/by-id/wwn-0x600a0980-part1", Naming::Device),
            ("/dev/mapper/3600a0980", map, Naming::Device),
            ("/dev/mapper/mpatha", map, Naming::Nothing),
            ("/dev/disk/by-id/dm-name-mpatha", map, Naming::Nothing),
            ("/dev/disk/by-id/ata-DISK_1", wwn, Naming::Nothing),
            (volume, volume, Naming::Contents),
            ("/dev/disk/by-id/dm-uuid-CRYPT-LUKS2-0123-x", "/dev/disk/by-id/dm-uuid-CRYPT-LUKS2-0123-x", Naming::Contents),
            ("/dev/vg/lv", volume, Naming::Nothing),
            ("/dev/mapper/vg-lv", volume, Naming::Nothing),
            ("/dev/sda", wwn, Naming::Nothing),
        ] {
            assert_eq!(naming(Path::new(path), Path::new(lasting)), says, "{path} of {lasting}");
        }
    }

    #[test]
    fn recorded_logical_volume_and_crypt() {
        let (group, volume) = ("YPqzRS2Dnb7Xm8VtZAkF3cGh5jWlQe1U", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6");
        let lines = [
            "sys/dev/block/253:0 -> ../../devices/virtual/block/dm-0",
            &format!("sys/devices/virtual/block/dm-0/dm/uuid LVM-{group}{volume}\n"),
            &format!("dev/disk/by-id/dm-uuid-LVM-{group}{volume} -> ../../dm-0"),
            "sys/dev/block/253:1 -> ../../devices/virtual/block/dm-1",
            "sys/devices/virtual/block/dm-1/dm/uuid CRYPT-LUKS2-0123-x\n",
        ];
        let lvm = of(&lines, 253, 0);
        assert_eq!((lvm.kind, lvm.token), (Kind::Lvm, Some(format!("lvm:{group}/{volume}"))));
        assert!(lvm.lasting.is_some() && lvm.paths.is_none());
        let crypt = of(&lines, 253, 1);
        assert_eq!((crypt.kind, crypt.token.as_deref()), (Kind::Mapper, Some("dm:CRYPT-LUKS2-0123-x")));
    }

    #[test]
    fn recorded_iscsi_scsi_and_nvme() {
        let lines = [
            "sys/dev/block/8:16 -> ../../devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb",
            "sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb/device/wwid t10.LIO-ORG disk1\n",
            "sys/dev/block/8:32 -> ../../devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sdc",
            "sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sdc/device/wwid naa.5000c500a1b2c3d4\n",
            "sys/dev/block/259:0 -> ../../devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1",
            "sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1/wwid eui.0025385b71b0a1c2\n",
            "dev/disk/by-id/nvme-eui.0025385b71b0a1c2 -> ../../nvme0n1",
            "dev/disk/by-id/wwn-0x5000c500a1b2c3d4 -> ../../sdc",
            "dev/disk/by-id/ata-DISK_1 -> ../../sdc",
        ];
        let kinds = [(8, 16), (8, 32), (259, 0)].map(|(major, minor)| of(&lines, major, minor));
        assert_eq!(kinds.each_ref().map(|device| device.kind), [Kind::Iscsi, Kind::Scsi, Kind::Nvme]);
        assert_eq!(kinds[0].token.as_deref(), Some("wwid:t10.LIO-ORG disk1"));
        assert_eq!(kinds[1].lasting.as_deref(), Some(Path::new("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4")));
        assert_eq!(kinds[2].lasting.as_deref(), Some(Path::new("/dev/disk/by-id/nvme-eui.0025385b71b0a1c2")));
    }

    #[test]
    fn recorded_drbd_rbd_nbd_zvol_and_loop() {
        let lines = [
            "sys/dev/block/147:1 -> ../../devices/virtual/block/drbd1",
            "sys/devices/virtual/block/drbd1/size 1\n",
            "dev/drbd/by-res/web/0 -> ../../../drbd1",
            "sys/dev/block/250:0 -> ../../devices/rbd/0/block/rbd0",
            "sys/devices/rbd/0/block/rbd0/device -> ../../../0",
            "sys/devices/rbd/0/cluster_fsid 8a1b\n",
            "sys/devices/rbd/0/pool vms\n",
            "sys/devices/rbd/0/name web1\n",
            "sys/dev/block/43:0 -> ../../devices/virtual/block/nbd0",
            "sys/devices/virtual/block/nbd0/size 1\n",
            "sys/dev/block/230:0 -> ../../devices/virtual/block/zd0",
            "sys/devices/virtual/block/zd0/size 1\n",
            "sys/dev/block/7:0 -> ../../devices/virtual/block/loop0",
            "sys/devices/virtual/block/loop0/loop/backing_file /srv/lun.img\n",
        ];
        let said = [(147, 1), (250, 0), (43, 0), (230, 0), (7, 0)].map(|(major, minor)| {
            let device = of(&lines, major, minor);
            (device.kind, device.token.unwrap_or_default())
        });
        let expected = [
            (Kind::Drbd, "drbd:web/0"),
            (Kind::Rbd, "rbd:8a1b/vms/web1"),
            (Kind::Nbd, ""),
            (Kind::Zvol, ""),
            (Kind::Loop, "loop:/srv/lun.img"),
        ];
        assert_eq!(said, expected.map(|(kind, token)| (kind, token.to_owned())));
    }
}
