//! What the guests' disks are on: what of it will hurt them, and whether another node has the same.

use super::{Case, Found, Level, Patient, hosts};
use crate::cluster::cib::Cib;
use crate::deadline::{Deadline, Task};
use crate::domain::Connection;
use crate::domain::migration::preflight::shared;
use crate::ocf::Asked;
use crate::storage::hazards::{Weight, alone, hazards};
use crate::storage::{Finding, Kind, Mount, Role, Same, Sight, finding};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For the disks of all guests, as this node sees them.
const DISKS: Duration = Duration::from_secs(15);
/// For what other nodes have instead of them.
const OTHERS: Duration = Duration::from_secs(15);
/// How much later the answers about disks may come.
const GRACE: Duration = Duration::from_secs(1);
/// So many guests are looked at side by side.
const AT_ONCE: usize = 8;

/// Looks at everything under all guests here. Storage that hangs costs its own guests their answer, and nobody else.
pub(super) fn look(guests: &mut [Case]) {
    let deadline = Deadline::after(DISKS);
    // What a pool of libvirt's does not answer in time is said so there, a moment after that.
    let late = Deadline::after(DISKS + GRACE);
    for some in guests.chunks_mut(AT_ONCE) {
        let begin = |case: &Case| {
            let (asked, definition) = (case.asked.as_ref().ok()?, case.definition.as_ref().ok()?);
            let (uri, xml) = (asked.hypervisor().to_string(), definition.xml.clone());
            Some(Task::start(move || {
                let volume = |pool: &str, name: &str| {
                    let here = Connection::open(&uri, &deadline).map_err(|error| error.text)?;
                    here.volume(pool, name, &deadline)
                };
                finding::look(&xml, &volume, &deadline)
            }))
        };
        let tasks: Vec<_> = some.iter().map(begin).collect();
        for (case, task) in some.iter_mut().zip(tasks) {
            case.storage = task.map_or_else(|| Some(Vec::new()), |task| task.wait(&late));
        }
    }
}

/// What is said of disks, each thing once for all that it is said of.
#[derive(Default)]
struct Sayings(Vec<(Level, String, String, Vec<String>)>);

impl Sayings {
    fn add(&mut self, level: Level, whose: String, text: &str, remedy: &str) {
        match self.0.iter_mut().find(|(_, known, advised, _)| known == text && advised == remedy) {
            Some((.., all)) => all.push(whose),
            None => self.0.push((level, text.to_owned(), remedy.to_owned(), vec![whose])),
        }
    }

    fn tell(self, found: &mut Found) {
        for (level, text, remedy, all) in self.0 {
            let text = format!("{}: {text}", all.join(", "));
            match level {
                Level::Problem => found.problem(text, remedy),
                Level::Warning => found.warning(text, remedy),
            }
        }
    }
}

/// The check.
pub(super) fn storage(patient: &Patient, found: &mut Found) {
    let (mut sayings, mut known, deadline) = (Sayings::default(), Vec::new(), Deadline::after(OTHERS));
    for case in &patient.guests {
        let Some(findings) = &case.storage else {
            let remedy = "see which of its pools does not answer (virsh pool-list, then virsh pool-info POOL)";
            sayings.add(Level::Warning, case.id().to_owned(), &format!("its disks were not seen on {} in time", patient.here), remedy);
            continue;
        };
        for finding in findings {
            let whose = format!("{} of {}", finding.item, case.id());
            // What is only read harms nobody, wherever it is.
            if !matches!(finding.item.role, Role::Media | Role::Folder) {
                hurts(finding, &whose, &patient.here, &mut sayings);
            }
            if let Some(what) = alone(finding).filter(|_| !follows(finding, &patient.cib)) {
                lonely(patient, case, finding, &what, &mut known, &mut sayings, &deadline);
            }
        }
    }
    sayings.tell(found);
}

/// What of a thing will hurt by itself.
fn hurts(finding: &Finding, whose: &str, here: &str, sayings: &mut Sayings) {
    if finding.sight == Some(Sight::Silent) {
        let remedy = "repair the storage, or the way to it (dmesg says whether the kernel has lost its server or its paths)";
        sayings.add(Level::Problem, whose.to_owned(), &format!("its storage does not answer on {here}"), remedy);
    }
    for hazard in hazards(&finding.item, finding.facts()) {
        let level = match hazard.weight {
            Weight::Advice => continue,
            Weight::Risk => Level::Warning,
            Weight::Danger => Level::Problem,
        };
        sayings.add(level, whose.to_owned(), &format!("{} ({here})", hazard.text), hazard.remedy);
    }
}

/// What is known: of a node, by its libvirt, and of what is in these folders.
type Known = Vec<((String, Vec<PathBuf>), Option<Same>)>;

/// Says of a disk that is by its name this host's alone what other nodes have instead, of those on which the guest may be started.
fn lonely(patient: &Patient, case: &Case, finding: &Finding, what: &str, known: &mut Known, sayings: &mut Sayings, deadline: &Deadline) {
    let Ok(asked) = &case.asked else { return };
    let (id, here) = (case.id(), &patient.here);
    let others: Vec<&str> = patient.view.nodes.iter().map(|node| node.name.as_str()).filter(|node| node != here).collect();
    let others: Vec<&str> = others.into_iter().filter(|node| !patient.cib.is_kept_from(id, node)).collect();
    if others.is_empty() || asked.compares_no_storage() {
        return;
    }
    let whose = format!("{} of {id}", finding.item);
    let mut is_shared = false;
    for node in others {
        let place = (asked.remote(node), finding.facts().map(|facts| facts.folders.clone()).unwrap_or_default());
        let same = match known.iter().find(|(other, _)| *other == place) {
            Some((_, same)) => same.clone(),
            None => {
                let same = if hosts::answers(patient, &place.0) { compared(case, finding, node, deadline) } else { None };
                known.push((place, same.clone()));
                same
            }
        };
        match same {
            Some(Same::Different(_)) => {
                let text = format!("on {what} of {here}, and {node} has not the same: a start there finds another disk, or none");
                let keep =
                    format!("pcs constraint location {id} avoids {node}, or crm configure location {id}-not-{node} {id} -inf: {node}");
                let remedy = format!("bring it to storage that all nodes have, or keep the guest from that node: {keep}");
                sayings.add(Level::Problem, whose, &text, &remedy);
                return;
            }
            Some(Same::Proven(_)) => is_shared = true,
            _ => {}
        }
    }
    if !is_shared && !asked.is_unsafe() {
        let text =
            format!("on {what} of {here}, and no other node says that it has the same: a start there may find another disk, or none");
        let remedy =
            format!("see what another node has: kvmha storage {id} --to NODE; if not the same, bring it to storage that all nodes have");
        sayings.add(Level::Warning, whose, &text, &remedy);
    }
}

/// What a node says of one disk; nothing if that cannot be had.
fn compared(case: &Case, finding: &Finding, node: &str, deadline: &Deadline) -> Option<Same> {
    let asked = Asked::new(Some(case.id()), &case.resource.parameters, node, *deadline).ok()?;
    let plan = asked.plan().ok()?;
    let there = Connection::open(&plan.remote, deadline).ok()?;
    let mut findings = [finding.clone()];
    shared::compare(&mut findings, &there, &plan, deadline);
    let [Finding { same, .. }] = findings;
    same
}

/// Whether the cluster mounts what it is on where the guest is to run.
fn follows(finding: &Finding, cib: &Cib) -> bool {
    let Some(facts) = finding.facts() else { return false };
    let (mount, path) = (&facts.mount, finding.path.as_deref());
    cib.resources().iter().any(|resource| {
        let parameter = |name: &str| resource.parameters.get(name).map(String::as_str);
        match resource.agent.rsplit(':').next() {
            Some("Filesystem") => facts.kind != Kind::Zvol && parameter("directory").is_some_and(|folder| Path::new(folder) == mount.point),
            Some("ZFS") => parameter("pool").is_some_and(|name| Some(name) == pool(facts.kind, mount, path)),
            _ => false,
        }
    })
}

/// The ZFS pool that something is in.
fn pool<'a>(kind: Kind, mount: &'a Mount, path: Option<&'a Path>) -> Option<&'a str> {
    match kind {
        Kind::Zvol => path?.strip_prefix("/dev/zvol").ok()?.iter().next()?.to_str(),
        Kind::Zfs => mount.source.split('/').next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, patient};
    use super::*;
    use crate::storage::item;
    use crate::storage::look::Facts;

    const GUEST: &str = "<primitive id='web1' class='ocf' provider='kvmha' type='VirtualDomain'><instance_attributes id='i'>\
        <nvpair id='c' name='config' value='/nowhere/web1.xml'/></instance_attributes></primitive>";

    /// What is found where `web1` has this disk, mounted like this.
    fn said(resources: &str, disk: &str, kind: Kind, file_system: &str, options: &str) -> Vec<(String, String)> {
        let xml = format!(
            "<domain><devices><disk type='file'><driver {disk}/><source file='/srv/vms/a.img'/><target dev='vda'/></disk></devices></domain>"
        );
        let mount =
            serde_json::json!({"point": "/srv/vms", "source": "tank/vms", "kind": file_system, "options": options, "device": "0:5"});
        let facts = serde_json::json!({"kind": kind, "token": null, "block": false, "size": 2, "mount": mount, "folders": ["/srv/vms"], "lasting": null,
            "paths": null, "samples": null});
        let facts: Facts = serde_json::from_value(facts).unwrap();
        let mut patient = patient(2, true, &[], resources);
        let sight = Some(Sight::Facts(Box::new(facts)));
        let finding = Finding { item: item::items(&xml).remove(0), path: Some("/srv/vms/a.img".into()), sight, same: None };
        patient.guests[0].storage = Some(vec![finding]);
        found(storage, &patient)
    }

    #[test]
    fn mounts_and_caches_that_hurt() {
        let nfs = |disk: &str, options: &str| said(GUEST, disk, Kind::Nfs, "nfs4", options);
        assert_eq!(nfs("cache='none'", "rw,vers=4.2,hard"), []);
        for (options, part, remedy) in [
            ("rw,vers=4.2,soft", "mounted soft", "hard"),
            ("rw,vers=4.2,nolock", "without locks", "nolock"),
            ("rw,vers=3,hard", "NFS 3", "vers=4.2"),
            ("ro,vers=4.2", "read-only", "rw"),
        ] {
            let all = nfs("cache='none'", options);
            assert!(all.len() == 1 && all[0].0.starts_with("vda (/srv/vms/a.img) of web1: "), "{options}: {all:?}");
            assert!(all[0].0.contains(part) && all[0].1.contains(remedy), "{options}: {all:?}");
        }
        assert!(nfs("cache='unsafe'", "rw,vers=4.2")[0].0.contains("cache='unsafe'"));
    }

    #[test]
    fn a_disk_that_only_this_node_has() {
        let local = |resources: &str, constraints: &str, file_system: &str| {
            let kind = Kind::of_file_system(file_system);
            said(
                &format!("{resources}</resources><constraints>{constraints}</constraints><resources>"),
                "cache='none'",
                kind,
                file_system,
                "rw",
            )
        };
        for name in ["ext4", "xfs", "btrfs", "zfs"] {
            let all = local(GUEST, "", name);
            assert!(
                all.len() == 1 && all[0].0.contains(name) && all[0].0.contains("node1") && all[0].1.contains("kvmha storage web1 --to"),
                "{all:?}"
            );
        }
        for name in ["nfs4", "ocfs2", "gfs2", "fuse.glusterfs", "ceph", "lustre"] {
            assert_eq!(local(GUEST, "", name), [], "{name}");
        }
        let pinned = "<rsc_location id='l' rsc='web1' node='node2' score='-INFINITY'/>";
        assert_eq!(local(GUEST, pinned, "ext4"), [], "it is not to leave this node");
        let with = |name: &str, value: &str| {
            GUEST.replace("<nvpair id='c'", &format!("<nvpair id='n' name='{name}' value='{value}'/><nvpair id='c'"))
        };
        assert_eq!(local(&with("migrate_options", "--unsafe"), "", "ext4"), [], "who configured it says that it is shared");
        assert_eq!(local(&with("migration_storage_check", "off"), "", "ext4"), []);
        let follower = |agent: &str, name: &str, value: &str| {
            let nvpair = format!("<nvpair id='p' name='{name}' value='{value}'/>");
            format!(
                "{GUEST}<primitive id='fs' class='ocf' provider='heartbeat' type='{agent}'><instance_attributes id='j'>{nvpair}</instance_attributes></primitive>"
            )
        };
        assert_eq!(local(&follower("Filesystem", "directory", "/srv/vms/"), "", "ext4"), [], "it is mounted where the guest runs");
        assert_eq!(local(&follower("Filesystem", "directory", "/srv"), "", "ext4").len(), 1);
        assert_eq!(local(&follower("ZFS", "pool", "tank"), "", "zfs"), []);
    }
}
