//! SELinux, where it enforces: what it keeps emulators from.
//!
//! On a file system without labels all files have one type, which a boolean of the policy opens to emulators (`virt_domain` of its
//! `virt.te`). libvirt's daemon and this program may read the images all the same: that they can says nothing of the emulator.

use super::power::{SETTINGS, setting};
use super::{Found, Patient};
use crate::storage::{Finding, Mount, Role};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The boolean without which no emulator opens what is on this file system.
fn boolean(mount: &Mount) -> Option<&'static str> {
    // It has labels (NFS 4.2 with the server's `security_label`), or one that was given when it was mounted.
    if mount.has("seclabel") || mount.value("context").is_some() {
        return None;
    }
    match mount.kind.as_str() {
        "nfs" | "nfs4" => Some("virt_use_nfs"),
        "cifs" | "smb3" => Some("virt_use_samba"),
        "fuse" | "fuseblk" => Some("virt_use_fusefs"),
        kind if kind.starts_with("fuse.") => Some("virt_use_fusefs"),
        _ => None,
    }
}

/// Disks on this node that SELinux here keeps emulators from: the start fails, and a move to it.
pub(super) fn booleans(patient: &Patient, found: &mut Found) {
    let root = Path::new("/");
    if !confines(root) {
        return;
    }
    for case in &patient.guests {
        kept(root, &patient.here, case.id(), case.storage.as_deref().unwrap_or_default(), found);
    }
}

/// Whether SELinux enforces, and libvirt has emulators confined by it.
fn confines(root: &Path) -> bool {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let settings = read(SETTINGS);
    let confined = setting("security_driver", &settings).is_none_or(|names| !names.contains("none"));
    confined && read("sys/fs/selinux/enforce").trim() == "1"
}

/// Whether a boolean is off now; in its file, the value that a pending change would give it comes after that. One that this policy does not have
/// is not off.
fn is_off(root: &Path, boolean: &str) -> bool {
    let text = fs::read_to_string(root.join("sys/fs/selinux/booleans").join(boolean));
    text.is_ok_and(|text| text.trim_start().starts_with('0'))
}

/// What of a guest's is kept from its emulator, each boolean once.
fn kept(root: &Path, node: &str, id: &str, findings: &[Finding], found: &mut Found) {
    let mut shut: BTreeMap<&str, Vec<(&Finding, &Mount)>> = BTreeMap::new();
    // A folder and a TPM are not the emulator's own to open.
    for finding in findings.iter().filter(|finding| !matches!(finding.item.role, Role::Folder | Role::Tpm)) {
        let mount = finding.facts().filter(|facts| !facts.block).map(|facts| &facts.mount);
        if let Some((boolean, mount)) = mount.and_then(|mount| Some((boolean(mount)?, mount))) {
            shut.entry(boolean).or_default().push((finding, mount));
        }
    }
    for (boolean, things) in shut.into_iter().filter(|(boolean, _)| is_off(root, boolean)) {
        let names: Vec<String> = things.iter().map(|(finding, mount)| format!("{} on {}", finding.item, mount.kind)).collect();
        found.problem(
            format!(
                "SELinux of {node} keeps emulators from {id}: {}, as {boolean} is off: its start there fails, and a move to it",
                names.join(", ")
            ),
            format!("setsebool -P {boolean} on"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::look::Facts;
    use crate::storage::{Sight, item};

    /// A root with these files of SELinux's and of libvirt's.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// What is found of a guest whose only disk is on this file system.
    fn said(files: &[(&str, &str)], kind: &str, options: &str) -> Vec<(String, String)> {
        let xml = "<domain><devices><disk type='file'><source file='/srv/vms/a.img'/><target dev='vda'/></disk></devices></domain>";
        let mount = serde_json::json!({"point": "/srv/vms", "source": "nas:/vms", "kind": kind, "options": options, "device": "0:5"});
        let facts = serde_json::json!({"kind": "local", "token": null, "block": false, "size": 2, "mount": mount, "folders": [], "lasting": null,
            "paths": null, "samples": null});
        let facts: Facts = serde_json::from_value(facts).unwrap();
        let item = item::items(xml).remove(0);
        let finding = Finding { item, path: None, sight: Some(Sight::Facts(Box::new(facts))), same: None };
        let (root, mut found) = (root(files), Found::default());
        if confines(root.path()) {
            kept(root.path(), "node1", "web1", &[finding], &mut found);
        }
        found.0.into_iter().map(|(_, text, remedy)| (text, remedy)).collect()
    }

    const ENFORCE: (&str, &str) = ("sys/fs/selinux/enforce", "1");

    #[test]
    fn a_boolean_that_is_off_keeps_emulators_from_images() {
        for (boolean, kind) in
            [("virt_use_nfs", "nfs4"), ("virt_use_nfs", "nfs"), ("virt_use_samba", "cifs"), ("virt_use_fusefs", "fuse.glusterfs")]
        {
            let file = format!("sys/fs/selinux/booleans/{boolean}");
            let off = said(&[ENFORCE, (&file, "0 0")], kind, "rw,hard");
            assert_eq!(off.len(), 1, "{kind}: {off:?}");
            assert!(off[0].0.contains("node1") && off[0].0.contains("web1: vda (/srv/vms/a.img)") && off[0].0.contains(kind), "{off:?}");
            assert_eq!(off[0].1, format!("setsebool -P {boolean} on"));
            assert_eq!(said(&[ENFORCE, (&file, "1 1")], kind, "rw,hard"), []);
            assert_eq!(said(&[("sys/fs/selinux/enforce", "0"), (&file, "0 0")], kind, "rw"), [], "it only logs");
        }
        assert_eq!(said(&[], "nfs4", "rw"), [], "there is no SELinux");
        assert_eq!(said(&[ENFORCE], "nfs4", "rw"), [], "another policy");
    }

    #[test]
    fn what_has_labels_or_is_not_confined_needs_no_boolean() {
        let off = ("sys/fs/selinux/booleans/virt_use_nfs", "0 0");
        assert_eq!(said(&[ENFORCE, off], "nfs4", "rw,seclabel,vers=4.2"), []);
        assert_eq!(said(&[ENFORCE, off], "nfs4", "rw,context=system_u:object_r:svirt_image_t:s0"), []);
        assert_eq!(said(&[ENFORCE, off], "xfs", "rw"), []);
        let unconfined = ("etc/libvirt/qemu.conf", "security_driver = [ \"none\" ]\n");
        assert_eq!(said(&[ENFORCE, off, unconfined], "nfs4", "rw"), []);
        assert_eq!(said(&[ENFORCE, off, ("etc/libvirt/qemu.conf", "#security_driver = \"none\"\n")], "nfs4", "rw").len(), 1);
    }
}
