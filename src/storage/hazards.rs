//! What of a guest's storage will hurt it: said before it does.

use super::finding::Finding;
use super::item::{Item, Role, Source};
use super::kind::Kind;
use super::look::{Facts, Sight};

/// All warnings of a finding: why it was not seen, then its [`hazards`].
#[must_use]
pub fn warnings(finding: &Finding) -> Vec<String> {
    let unseen = match &finding.sight {
        Some(Sight::Silent) => Some("its storage does not answer".to_owned()),
        // The first start makes it.
        Some(Sight::Missing(_)) if matches!(finding.item.role, Role::Tpm | Role::Nvram) => None,
        Some(Sight::Missing(text) | Sight::Untold(text)) => Some(text.clone()),
        _ => None,
    };
    unseen.into_iter().chain(hazards(&finding.item, finding.facts())).collect()
}

/// What is to be said about a thing, with what was seen of it, if it was looked at.
#[must_use]
pub fn hazards(item: &Item, facts: Option<&Facts>) -> Vec<String> {
    let mut said = Vec::new();
    let written = item.role == Role::Disk && !item.shareable;
    // QEMU's own default stops the guest only for a full disk (`enospc`), and gives it every other error.
    if written && matches!(item.error_policy.as_deref(), None | Some("report" | "ignore" | "enospace")) {
        let policy = item.error_policy.as_deref().map_or("no error_policy".to_owned(), |policy| format!("error_policy='{policy}'"));
        said.push(format!("{policy}: an I/O error goes to the guest, error_policy='stop' would pause it until the storage is back"));
    }
    if item.role == Role::Disk && item.cache.as_deref() == Some("unsafe") {
        said.push("cache='unsafe': what the guest has written is lost with the node".to_owned());
    }
    if written && matches!(item.cache.as_deref(), Some("writeback" | "writethrough")) {
        said.push("a cache of this host's: cache='none' is what a guest that moves should have".to_owned());
    }
    if item.fleeting {
        said.push(
            "no persistent_state='yes': libvirt removes the state of the TPM when the guest is stopped, and each start makes a new one"
                .to_owned(),
        );
    }
    match &item.source {
        Source::Path(path) if is_unstable(&path.to_string_lossy()) => {
            said.push("its name may mean another device after the next boot, or on another node: use one below /dev/disk/by-id".to_owned());
        }
        Source::Network { protocol, .. } if Kind::of_protocol(protocol) == Kind::Sheepdog => {
            said.push("sheepdog is gone: QEMU does not have it since 6.1".to_owned());
        }
        _ => {}
    }
    if let Some(facts) = facts {
        mounted(item, facts, &mut said);
    }
    said
}

/// What the mount and the device say.
fn mounted(item: &Item, facts: &Facts, said: &mut Vec<String>) {
    let mount = &facts.mount;
    if item.role == Role::Tpm && matches!(facts.kind, Kind::Local | Kind::Zfs) {
        said.push(format!("{}: a start on another node finds an empty TPM there, unless both nodes have that folder", facts.kind));
    }
    // A move takes them along; a start makes them from the firmware's template where there are none (libvirt's `qemuPrepareNVRAM`).
    if item.role == Role::Nvram && matches!(facts.kind, Kind::Local | Kind::Zfs) {
        said.push(format!(
            "{}: a start on another node finds the firmware's variables (what to boot, keys) as they were when it ran there last, or new ones",
            facts.kind
        ));
    }
    if facts.kind == Kind::Nfs {
        let version = mount.value("vers").unwrap_or(if mount.kind == "nfs" { "3" } else { "4" });
        if version.starts_with('3') || version.starts_with('2') {
            said.push(format!("NFS {version}: the locks of a node that is lost stay until that node is back; use version 4.1 or later"));
        }
        if mount.has("soft") || mount.has("softerr") {
            said.push("mounted soft: a server that is slow gives the guest I/O errors; mount it hard".to_owned());
        }
        if mount.has("nolock") || matches!(mount.value("local_lock"), Some("all" | "posix" | "flock")) {
            said.push("mounted without locks between nodes: nothing keeps a second emulator from the image".to_owned());
        }
    }
    if !facts.block && item.role == Role::Disk && mount.has("ro") {
        said.push("its file system is mounted read-only".to_owned());
    }
    match facts.paths {
        Some((0, all)) => said.push(format!("none of its {all} paths works")),
        Some((1, all)) => said.push(format!("one path of {all} works")),
        _ => {}
    }
    if facts.kind == Kind::Zvol {
        said.push("a ZFS pool is imported on one node only".to_owned());
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
        assert_eq!(hazards(&disk("/srv/a.img"), None), [""; 0]);
        for policy in [None, Some("report"), Some("ignore"), Some("enospace")] {
            let said = hazards(&Item { error_policy: policy.map(Into::into), ..disk("/a") }, None);
            assert!(said.len() == 1 && said[0].contains(policy.unwrap_or("no error_policy")), "{said:?}");
        }
        for (cache, part) in [("unsafe", "lost with the node"), ("writeback", "cache='none'"), ("writethrough", "cache='none'")] {
            let said = hazards(&Item { cache: Some(cache.into()), ..disk("/a") }, None);
            assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
        }
        let media = Item { role: Role::Media, error_policy: None, cache: None, ..disk("/a.iso") };
        assert_eq!(hazards(&media, None), [""; 0]);
        let sheep = Source::Network { protocol: "sheepdog".into(), name: "a".into(), hosts: vec![] };
        assert!(hazards(&Item { source: sheep, ..disk("/a") }, None)[0].contains("gone"));
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
        assert_eq!(hazards(&tpm, None), [""; 0]);
    }

    #[test]
    fn the_variables_of_a_firmware_that_one_node_has() {
        let nvram = Item { role: Role::Nvram, error_policy: None, cache: None, ..disk("/var/lib/libvirt/qemu/nvram/a_VARS.fd") };
        for (kind, count) in [(Kind::Local, 1), (Kind::Zfs, 1), (Kind::Nfs, 0), (Kind::Gluster, 0)] {
            let said = hazards(&nvram, Some(&facts(kind, "rw,vers=4.2")));
            assert!(said.len() == count && said.iter().all(|text| text.contains("firmware's variables")), "{kind}: {said:?}");
        }
        assert_eq!(hazards(&nvram, None), [""; 0]);
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
            assert!(said.len() == count && said.first().is_none_or(|text| text.contains(part)), "{options}: {said:?}");
        }
        for (paths, count) in [((0, 2), 1), ((1, 2), 1), ((2, 2), 0)] {
            let seen = Facts { paths: Some(paths), ..facts(Kind::Multipath, "rw") };
            assert_eq!(hazards(&disk("/dev/mapper/a"), Some(&seen)).len(), count);
        }
        assert_eq!(hazards(&disk("/dev/zvol/a"), Some(&facts(Kind::Zvol, "rw"))).len(), 1);
    }
}
