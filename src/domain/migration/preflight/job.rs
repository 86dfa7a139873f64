//! What is under way with the guest here, for which libvirt refuses every move of it (`qemuMigrationSrcIsAllowed`, and the one asynchronous
//! job that a domain may have at a time).

use super::Check;
use super::target::{Target, unanswered};
use crate::deadline::Deadline;
use crate::domain::connection::Guest;
use crate::domain::{Result, ffi};
use roxmltree::Document;

const BLOCK_JOB: &str = "wait for its end, or end it: virsh blockjob GUEST DISK --pivot, or --abort";
const JOB: &str = "wait for its end (virsh domjobinfo), or end it: virsh domjobabort";
const SNAPSHOT: &str = "take away what libvirt has noted of them, the images stay: virsh snapshot-delete GUEST NAME --metadata";

/// Snapshots, block jobs and a job like a backup.
pub(super) fn question(target: &Target, deadline: &Deadline) -> Vec<Check> {
    match obstacles(target, deadline) {
        Ok(checks) if checks.is_empty() => vec![Check::ok("job", "none is under way, and no snapshot is there")],
        Ok(checks) => checks,
        Err(error) => vec![unanswered("job", &error)],
    }
}

fn obstacles(target: &Target, deadline: &Deadline) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let Some(guest) = target.here.guest(&target.identity.name, deadline)? else { return Ok(checks) };
    let count = guest.call("counting the snapshots of", deadline, |domain| Ok(domain.num_snapshots(0)?))?;
    if count > 0 {
        checks.push(Check::refuse("job", format!("libvirt does not move a guest with snapshots, and knows {count} of this one"), SNAPSHOT));
    }
    if !guest.condition(deadline)?.is_active() {
        return Ok(checks);
    }
    // A backup is a block job of its disks too.
    if let Some(what) = in_the_way(&guest, deadline)? {
        checks.push(Check::refuse("job", format!("{what} is under way"), JOB));
        return Ok(checks);
    }
    for disk in disks(&target.xml) {
        let name = disk.clone();
        if guest.call("asking for the block jobs of", deadline, move |domain| ffi::has_block_job(domain, &name))? {
            checks.push(Check::refuse("job", format!("{disk} has a block job (copy, commit or pull)"), BLOCK_JOB));
        }
    }
    Ok(checks)
}

/// The job that runs for the guest, if no move can begin before its end; not a move itself.
///
/// # Errors
/// libvirt's.
pub(in crate::domain::migration) fn in_the_way(guest: &Guest, deadline: &Deadline) -> Result<Option<&'static str>> {
    let job = guest.job(deadline)?;
    Ok(job.and_then(|job| job.operation).and_then(ffi::lasting_operation))
}

/// The disks by the names of their targets. Only those with a source can have a job.
fn disks(xml: &str) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let disks =
        document.descendants().filter(|node| node.has_tag_name("disk") && node.children().any(|child| child.has_tag_name("source")));
    let name = |disk: roxmltree::Node| Some(disk.children().find(|child| child.has_tag_name("target"))?.attribute("dev")?.to_owned());
    disks.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_may_have_a_job() {
        let xml = "<domain><devices><disk type='file'><source file='/a'/><target dev='vda'/></disk>
            <disk type='file' device='cdrom'><target dev='sda'/></disk></devices></domain>";
        assert_eq!(disks(xml), ["vda"]);
        assert!(disks("<domain>").is_empty());
    }
}
