//! Moves that libvirt refuses as unsafe, unless it is told `--unsafe`: those of files on a file system that no other host can have
//! (`qemuMigrationSrcIsSafe`). It says so only when the move was asked for, and with Pacemaker a move that fails is a guest that is stopped.

use super::Check;
use super::target::Target;
use crate::deadline::Deadline;
use crate::domain::host::Version;
use crate::storage::{Finding, Source, kind};

/// File systems that libvirt knows to be shared between hosts (`virFileIsSharedFSType`; of FUSE's GlusterFS's alone).
const SHARED: &[&str] =
    &["nfs", "nfs4", "gfs2", "ocfs2", "afs", "cifs", "smb3", "ceph", "gpfs", "acfs", "beegfs", "fuse.glusterfs", "fuse.quobyte"];

/// From about this version on, as distributions have it, `shared_filesystems` in `qemu.conf` may say that a folder is shared all the same.
const TOLD: Version = Version::of(10, 0);

const ADVICE: &str = "put the disk on storage that both nodes have; if it is, and only its name is local, migrate_options=--unsafe";

/// What libvirt will say of these disks.
pub(super) fn checks(findings: &[Finding], target: &Target, deadline: &Deadline) -> Vec<Check> {
    if target.plan.options.is_unsafe() {
        return Vec::new();
    }
    let local = findings.iter().filter_map(|finding| Some((finding, kind(finding)?)));
    let mut checks = Vec::new();
    for (finding, kind) in local {
        let text = format!("{} is on {kind}, which libvirt takes for this host's own: it refuses the move as unsafe", finding.item);
        checks.push(match target.here.libvirt_version(deadline) {
            Ok(version) if version < TOLD => Check::refuse("storage", text, ADVICE),
            _ => Check::warning("storage", format!("{text}, unless its qemu.conf names the folder in shared_filesystems"), ADVICE),
        });
    }
    checks
}

/// Whether libvirt here takes a folder on this file system for this host's own, and nothing can tell it that it is shared all the same.
pub(super) fn is_taken_for_own(kind: &str, target: &Target, deadline: &Deadline) -> bool {
    !SHARED.contains(&kind) && target.here.libvirt_version(deadline).is_ok_and(|version| version < TOLD)
}

/// The local file system of a disk that the guest writes to.
fn kind(finding: &Finding) -> Option<&str> {
    let facts = finding.facts().filter(|facts| !facts.block)?;
    let file = matches!(finding.item.source, Source::Path(_) | Source::Volume { .. });
    // libvirt takes them for local in each release.
    let local = kind::is_of_one_host(&facts.mount.kind);
    (file && local && finding.item.role == crate::storage::Role::Disk).then_some(facts.mount.kind.as_str())
}
