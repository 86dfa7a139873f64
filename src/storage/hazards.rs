//! What of a guest's storage will hurt it: said before it does.

use super::finding::{Finding, Same};
use super::item::{Item, Role, Source};
use super::kind::{self, Kind};
use super::look::{Facts, Sight};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It would be better otherwise.
    Advice,
    /// It is well until something happens.
    Risk,
    /// It is not well.
    Danger,
}

/// Something that will hurt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// How much.
    pub weight: Weight,
    /// What.
    pub text: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Options of an NFS mount that are to be others.
macro_rules! mount_with {
    ($options:literal) => {
        concat!(
            "mount it with ",
            $options,
            " on every node (/etc/fstab, or the resource that mounts it), one after the other, when no guest runs on it there"
        )
    };
}

/// All that will hurt of a thing that was looked for, and why it was not seen, if it was not.
#[must_use]
pub fn warnings(finding: &Finding) -> Vec<String> {
    let unseen = match &finding.sight {
        Some(Sight::Silent) => Some("its storage does not answer".to_owned()),
        // The first start makes it.
        Some(Sight::Missing(_)) if matches!(finding.item.role, Role::Tpm | Role::Nvram) => None,
        Some(Sight::Missing(text) | Sight::Untold(text)) => Some(text.clone()),
        _ => None,
    };
    unseen.into_iter().chain(seen(finding)).collect()
}

/// What will hurt, of a thing that was looked for.
#[must_use]
pub fn seen(finding: &Finding) -> Vec<String> {
    let said = hazards(&finding.item, finding.facts()).into_iter().map(|hazard| hazard.text);
    // What is proven to be the same elsewhere is shared, whatever it is called.
    let alone = alone(finding).filter(|_| !matches!(finding.same, Some(Same::Proven(_))));
    said.chain(alone.map(|what| format!("{what}: unless another node has the same, a start there finds another disk, or none"))).collect()
}

/// What a disk that the guest writes to is on, if that is by its name one host's alone.
#[must_use]
pub fn alone(finding: &Finding) -> Option<String> {
    let facts = finding.facts().filter(|_| finding.item.role == Role::Disk)?;
    match facts.kind {
        Kind::Zvol => Some("a ZFS volume".to_owned()),
        _ if !facts.block && kind::is_of_one_host(&facts.mount.kind) => Some(format!("a local file system ({})", facts.mount.kind)),
        _ => None,
    }
}

/// What is to be said about a thing, with what was seen of it, if it was looked at.
#[must_use]
pub fn hazards(item: &Item, facts: Option<&Facts>) -> Vec<Hazard> {
    use Weight::{Advice, Danger, Risk};
    let mut said = Said(Vec::new());
    let written = item.role == Role::Disk && !item.shareable;
    // QEMU's own default stops the guest only for a full disk (`enospc`), and gives it every other error.
    if written && matches!(item.error_policy.as_deref(), None | Some("report" | "ignore" | "enospace")) {
        let policy = item.error_policy.as_deref().map_or("no error_policy".to_owned(), |policy| format!("error_policy='{policy}'"));
        let text = "an I/O error goes to the guest, error_policy='stop' would pause it until the storage is back";
        said.add(Advice, format!("{policy}: {text}"), "error_policy='stop' in the disk's <driver> of its definition");
    }
    if item.role == Role::Disk && item.cache.as_deref() == Some("unsafe") {
        let text = "cache='unsafe': what the guest has written is lost with the node";
        said.add(Danger, text, "cache='none' in the disk's <driver> of its definition; it counts from the next start on");
    }
    if written && matches!(item.cache.as_deref(), Some("writeback" | "writethrough")) {
        let text = "a cache of this host's: cache='none' is what a guest that moves should have";
        said.add(Advice, text, "cache='none' in the disk's <driver> of its definition");
    }
    if item.fleeting {
        let text =
            "no persistent_state='yes': libvirt removes the state of the TPM when the guest is stopped, and each start makes a new one";
        said.add(Risk, text, "persistent_state='yes' in the TPM's <backend> of its definition, before what is sealed with it matters");
    }
    match &item.source {
        Source::Path(path) if is_unstable(&path.to_string_lossy()) => {
            let text = "its name may mean another device after the next boot, or on another node: use one below /dev/disk/by-id";
            said.add(Risk, text, "ls -l /dev/disk/by-id shows that name; have its definition say it");
        }
        Source::Network { protocol, .. } if Kind::of_protocol(protocol) == Kind::Sheepdog => {
            said.add(Danger, "sheepdog is gone: QEMU does not have it since 6.1", "bring the disk to other storage");
        }
        _ => {}
    }
    if let Some(facts) = facts {
        mounted(item, facts, &mut said);
    }
    said.0
}

/// What is said.
struct Said(Vec<Hazard>);

impl Said {
    fn add(&mut self, weight: Weight, text: impl Into<String>, remedy: &'static str) {
        self.0.push(Hazard { weight, text: text.into(), remedy });
    }
}

/// What the mount and the device say.
fn mounted(item: &Item, facts: &Facts, said: &mut Said) {
    use Weight::{Advice, Danger, Risk};
    let mount = &facts.mount;
    if item.role == Role::Tpm && matches!(facts.kind, Kind::Local | Kind::Zfs) {
        let text = format!("{}: a start on another node finds an empty TPM there, unless both nodes have that folder", facts.kind);
        said.add(Advice, text, "keep its state in a folder that all nodes have");
    }
    // A move takes them along; a start makes them from the firmware's template where there are none (libvirt's `qemuPrepareNVRAM`).
    if item.role == Role::Nvram && matches!(facts.kind, Kind::Local | Kind::Zfs) {
        let text =
            "a start on another node finds the firmware's variables (what to boot, keys) as they were when it ran there last, or new ones";
        said.add(Advice, format!("{}: {text}", facts.kind), "name a copy on storage that all nodes have in <nvram> of its definition");
    }
    if facts.kind == Kind::Nfs {
        let version = mount.value("vers").unwrap_or(if mount.kind == "nfs" { "3" } else { "4" });
        if version.starts_with('3') || version.starts_with('2') {
            let text = format!("NFS {version}: the locks of a node that is lost stay until that node is back; use version 4.1 or later");
            said.add(Risk, text, mount_with!("vers=4.2"));
        }
        if mount.has("soft") || mount.has("softerr") {
            said.add(Risk, "mounted soft: a server that is slow gives the guest I/O errors; mount it hard", mount_with!("hard"));
        }
        if mount.has("nolock") || matches!(mount.value("local_lock"), Some("all" | "posix" | "flock")) {
            let text = "mounted without locks between nodes: nothing keeps a second emulator from the image";
            said.add(Risk, text, mount_with!("neither nolock nor local_lock"));
        }
    }
    if !facts.block && item.role == Role::Disk && mount.has("ro") {
        said.add(Danger, "its file system is mounted read-only", "dmesg says whether errors made it so; mount it rw again");
    }
    match facts.paths {
        Some((0, all)) => said.add(Danger, format!("none of its {all} paths works"), "multipath -ll shows them"),
        Some((1, all)) => said.add(Risk, format!("one path of {all} works"), "multipath -ll shows the others"),
        _ => {}
    }
}

/// Names that the kernel gives in the order in which it finds devices, and multipathd on each node for itself (`user_friendly_names`,
/// `/etc/multipath/bindings`).
fn is_unstable(path: &str) -> bool {
    let Some(name) = path.strip_prefix("/dev/") else { return false };
    if let Some(letters) = name.strip_prefix("mapper/mpath") {
        // A partition has a number after it.
        let rest = letters.trim_start_matches(|c: char| c.is_ascii_lowercase());
        return rest.len() < letters.len() && rest.trim_start_matches("-part").bytes().all(|byte| byte.is_ascii_digit());
    }
    if name.contains('/') {
        return false;
    }
    let numbered = |begin: &str| name.strip_prefix(begin).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    ["dm-", "nvme", "nbd", "rbd", "zd"].iter().any(|begin| numbered(begin))
        || ["sd", "vd", "xvd"]
            .iter()
            .any(|begin| name.strip_prefix(begin).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::super::mounts::Mount;
    use super::*;

    fn disk(path: &str) -> Item {
        Item {
            name: "vda".into(),
            role: Role::Disk,
            source: Source::Path(path.into()),
            shareable: false,
            cache: Some("none".into()),
            error_policy: Some("stop".into()),
            chain_unknown: false,
            optional: false,
            fleeting: false,
        }
    }

    fn facts(kind: Kind, options: &str) -> Facts {
        let mount = Mount { point: "/".into(), source: "s".into(), kind: "nfs4".into(), options: options.into(), device: "0:1".into() };
        Facts { kind, token: None, block: false, size: 1, mount, folders: vec![], lasting: None, paths: None, samples: None }
    }

    #[test]
    fn what_the_definition_says() {
        assert_eq!(hazards(&disk("/srv/a.img"), None), []);
        for policy in [None, Some("report"), Some("ignore"), Some("enospace")] {
            let said = hazards(&Item { error_policy: policy.map(Into::into), ..disk("/a") }, None);
            assert!(said.len() == 1 && said[0].text.contains(policy.unwrap_or("no error_policy")), "{said:?}");
        }
        for (cache, part) in [("unsafe", "lost with the node"), ("writeback", "cache='none'"), ("writethrough", "cache='none'")] {
            let said = hazards(&Item { cache: Some(cache.into()), ..disk("/a") }, None);
            assert!(said.len() == 1 && said[0].text.contains(part), "{said:?}");
        }
        let media = Item { role: Role::Media, error_policy: None, cache: None, ..disk("/a.iso") };
        assert_eq!(hazards(&media, None), []);
        let sheep = Source::Network { protocol: "sheepdog".into(), name: "a".into(), hosts: vec![] };
        assert!(hazards(&Item { source: sheep, ..disk("/a") }, None)[0].text.contains("gone"));
    }

    #[test]
    fn names_that_change() {
        for path in [
            "/dev/sda",
            "/dev/sdaa1",
            "/dev/vdb",
            "/dev/xvda",
            "/dev/dm-3",
            "/dev/nvme0n1",
            "/dev/nbd0",
            "/dev/mapper/mpathap",
            "/dev/mapper/mpatha-part1",
        ] {
            assert_eq!(hazards(&disk(path), None).len(), 1, "{path}");
        }
        for path in [
            "/dev/mapper/3600a0980",
            "/dev/mapper/mpath1web",
            "/dev/disk/by-id/wwn-0x1",
            "/dev/vg/lv",
            "/dev/drbd1",
            "/srv/sda",
            "/dev/sdcard/x",
        ] {
            assert_eq!(hazards(&disk(path), None).len(), 0, "{path}");
        }
    }

    #[test]
    fn the_state_of_a_tpm_that_one_node_has() {
        let tpm = Item { role: Role::Tpm, error_policy: None, cache: None, ..disk("/var/lib/libvirt/swtpm/a") };
        for (kind, count) in [(Kind::Local, 1), (Kind::Zfs, 1), (Kind::Nfs, 0), (Kind::Gluster, 0)] {
            assert_eq!(hazards(&tpm, Some(&facts(kind, "rw,vers=4.2"))).len(), count, "{kind}");
        }
        assert_eq!(hazards(&tpm, None), []);
    }

    #[test]
    fn the_variables_of_a_firmware_that_one_node_has() {
        let nvram = Item { role: Role::Nvram, error_policy: None, cache: None, ..disk("/var/lib/libvirt/qemu/nvram/a_VARS.fd") };
        for (kind, count) in [(Kind::Local, 1), (Kind::Zfs, 1), (Kind::Nfs, 0), (Kind::Gluster, 0)] {
            let said = hazards(&nvram, Some(&facts(kind, "rw,vers=4.2")));
            assert!(said.len() == count && said.iter().all(|hazard| hazard.text.contains("firmware's variables")), "{kind}: {said:?}");
        }
        assert_eq!(hazards(&nvram, None), []);
    }

    #[test]
    fn recorded_mounts_and_paths_that_hurt() {
        let cases = [
            ("rw,vers=4.2,hard", 0, ""),
            ("rw,vers=3,hard", 1, "NFS 3"),
            ("rw,vers=4.1,soft", 1, "mounted soft"),
            ("rw,vers=4.1,softerr", 1, "mounted soft"),
            ("rw,vers=4.1,nolock", 1, "without locks"),
            ("rw,vers=4.1,local_lock=all", 1, "without locks"),
            ("rw,vers=4.1,local_lock=none", 0, ""),
            ("ro,vers=4.1", 1, "read-only"),
            ("rw,vers=3,soft,nolock", 3, "NFS 3"),
        ];
        for (options, count, part) in cases {
            let said = hazards(&disk("/a"), Some(&facts(Kind::Nfs, options)));
            assert!(said.len() == count && said.first().is_none_or(|hazard| hazard.text.contains(part)), "{options}: {said:?}");
        }
        for (paths, count) in [((0, 2), 1), ((1, 2), 1), ((2, 2), 0)] {
            let seen = Facts { paths: Some(paths), ..facts(Kind::Multipath, "rw") };
            assert_eq!(hazards(&disk("/dev/mapper/a"), Some(&seen)).len(), count);
        }
    }

    #[test]
    fn a_disk_that_one_host_has() {
        let finding = |kind: Kind, file_system: &str, same: Option<Same>| {
            let mut facts = facts(kind, "rw,vers=4.2");
            facts.mount.kind = file_system.into();
            facts.block = matches!(kind, Kind::Zvol | Kind::Lvm | Kind::Drbd | Kind::Iscsi | Kind::Multipath | Kind::Loop);
            Finding { item: disk("/a"), path: None, sight: Some(Sight::Facts(Box::new(facts))), same }
        };
        for (kind, file_system) in
            [(Kind::Local, "ext4"), (Kind::Local, "xfs"), (Kind::Local, "btrfs"), (Kind::Zfs, "zfs"), (Kind::Zvol, "devtmpfs")]
        {
            let said = seen(&finding(kind, file_system, None));
            assert!(said.len() == 1 && said[0].contains("a start there finds another disk, or none"), "{file_system}: {said:?}");
            assert_eq!(seen(&finding(kind, file_system, Some(Same::Proven("is the same file on b".into())))), [""; 0], "{file_system}");
        }
        for (kind, file_system) in [
            (Kind::Nfs, "nfs4"),
            (Kind::Ocfs2, "ocfs2"),
            (Kind::Gfs2, "gfs2"),
            (Kind::Gluster, "fuse.glusterfs"),
            (Kind::Cephfs, "ceph"),
            (Kind::Fuse, "fuse.sshfs"),
            // Of a name that says nothing.
            (Kind::Local, "lustre"),
            (Kind::Local, "gpfs"),
            (Kind::Lvm, "devtmpfs"),
            (Kind::Drbd, "devtmpfs"),
            (Kind::Iscsi, "devtmpfs"),
            (Kind::Multipath, "devtmpfs"),
            (Kind::Loop, "devtmpfs"),
        ] {
            assert_eq!(seen(&finding(kind, file_system, None)), [""; 0], "{file_system}");
        }
        let mut media = finding(Kind::Local, "ext4", None);
        media.item.role = Role::Media;
        assert_eq!(seen(&media), [""; 0], "it is only read");
    }
}
