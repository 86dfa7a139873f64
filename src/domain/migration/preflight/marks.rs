//! Nonces that are left beside a guest's disks while this host reads them, so that another host can be asked for them when this one cannot
//! read them any more: who reads one has the same folder, or a copy of it that was made while the nonce lay there; and it is of this moment,
//! as nobody has read it before.
//!
//! How another host is asked, and why so, see [`super::shared`]. A device is asked for by the links in such a folder: its name of udev's that
//! holds its WWID or UUID has to be there, and to be what the definition calls it.

mod inquiry;

use crate::deadline::{Deadline, Task};
use crate::domain::definition::Identity;
use crate::log;
use crate::storage::device::{self, Naming};
use crate::storage::finding::LOOK;
use crate::storage::look::{self, Facts, Sight};
use crate::storage::nonce::{FILE, Nonce};
use crate::storage::{Finding, Item, Source, item};
pub use inquiry::Doubt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What was left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    nonces: Vec<Nonce>,
    /// What the links in each of them lead to.
    links: Vec<PathBuf>,
    disks: Vec<Disk>,
}

/// A disk, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    item: Item,
    path: Option<PathBuf>,
    /// `None`: this host's kernel does not know it.
    facts: Option<Facts>,
}

/// What is said of devices of which no host can be known to read them.
const NO_LASTING: &str = "it has no name with a WWID or UUID";
const NOT_CALLED: &str = "the definition does not call it by its WWID or UUID";

impl Disk {
    /// Why no host can be known to read it, whatever it says.
    fn doubt(&self) -> Option<String> {
        let Some(facts) = &self.facts else {
            let network = matches!(self.item.source, Source::Network { .. });
            return Some(if network { "it is on the network" } else { "it is nothing that this node can look at" }.to_owned());
        };
        match (&facts.lasting, &self.path) {
            _ if !facts.block => None,
            (None, _) => Some(NO_LASTING.to_owned()),
            (Some(lasting), Some(path)) if device::naming(path, lasting) == Naming::Nothing => {
                Some(format!("{NOT_CALLED}, which would be {}", lasting.display()))
            }
            _ => None,
        }
    }
}

impl Marks {
    /// Leaves nonces beside all disks among `findings`; [`Marks::replace`] is for those that were there before.
    ///
    /// # Errors
    /// A disk is not seen, or a nonce cannot be left where one is needed; none is left then.
    pub fn leave(findings: &[Finding], config: &Path, identity: &Identity, deadline: &Deadline) -> Result<Self, String> {
        let mut marks = Self::default();
        let mut needed = BTreeSet::new();
        for finding in findings.iter().filter(|finding| finding.item.matters()) {
            let volume = matches!(finding.item.source, Source::Volume { .. });
            if finding.facts().is_none() && (finding.sight.is_some() || volume) {
                return Err(format!("{} is not seen", finding.item));
            }
            match finding.facts() {
                Some(facts) if facts.block => marks.links.extend(finding.path.iter().chain(&facts.lasting).cloned()),
                Some(facts) => needed.extend(facts.folders.iter().cloned()),
                None => {}
            }
            marks.disks.push(Disk { item: finding.item.clone(), path: finding.path.clone(), facts: finding.facts().cloned() });
        }
        // A device has no folder: that of the definition is what other nodes may have too.
        let spare = config.parent().filter(|folder| !marks.links.is_empty() && !needed.contains(*folder)).map(Path::to_owned);
        let owner = look::sum(identity.uuid.as_ref().unwrap_or(&identity.name).as_bytes());
        let mut nonces = Vec::new();
        for folder in needed.iter().chain(&spare) {
            nonces.push(Nonce::mark(folder, owner).map_err(|error| error.to_string())?);
        }
        let links = marks.links.clone();
        let results = at_once(nonces.clone(), deadline, move |nonce, limit| nonce.put(&links, limit));
        let mut failed = None;
        for (nonce, result) in nonces.iter().zip(results) {
            match result {
                Ok(()) => marks.nonces.push(nonce.clone()),
                Err(text) => failed = Some((nonce.folder.clone(), format!("in {}: {text}", nonce.folder.display()))),
            }
        }
        match failed {
            // Of a device it is enough that one folder can be asked for.
            Some((folder, text)) if marks.nonces.is_empty() || needed.contains(&folder) || marks.nonces.len() + 1 < nonces.len() => {
                marks.take(deadline);
                Err(text)
            }
            _ => Ok(marks),
        }
    }

    /// Removes the nonces that this guest has left before, on whatever host.
    pub fn replace(&self, before: Option<&Self>, deadline: &Deadline) {
        let kept: Vec<String> = self.nonces.iter().map(|nonce| nonce.name.clone()).collect();
        at_once(self.nonces.clone(), deadline, move |nonce, limit| nonce.sweep(&kept, limit));
        let old = before.into_iter().flat_map(|before| &before.nonces);
        let elsewhere = old.filter(|old| self.nonces.iter().all(|nonce| nonce.folder != old.folder)).cloned().collect();
        Self { nonces: elsewhere, ..Self::default() }.take(deadline);
    }

    /// Takes them away again, as far as that can be done: what stays is removed when the guest leaves nonces there from another node.
    pub fn take(&self, deadline: &Deadline) {
        let results = at_once(self.nonces.clone(), deadline, |nonce, limit| nonce.take(limit));
        for (nonce, result) in self.nonces.iter().zip(results) {
            if let Err(text) = result {
                log::info(format_args!("{} in {} is left: {text}", nonce.name, nonce.folder.display()));
            }
        }
    }

    /// Why no host can ever be known to read all disks, if that is so, with the first that it is so of.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        self.disks.iter().find_map(|disk| Some(format!("{}: {}", disk.item, disk.doubt()?)))
    }

    /// Whether this was one of its disks when they were left.
    #[must_use]
    pub fn know(&self, item: &Item) -> bool {
        self.disk(item).is_some()
    }

    fn disk(&self, item: &Item) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.item.name == item.name && disk.item.source == item.source)
    }

    /// A disk of the guest with this definition that was none when they were left, or was another one.
    #[must_use]
    pub fn lack(&self, xml: &str) -> Option<Item> {
        item::items(xml).into_iter().find(|item| item.matters() && !self.know(item))
    }

    /// The folder of this disk, if it and all that lead to it are read here: what cannot be read of the disk is not for this host's sake
    /// then. A device has none.
    #[must_use]
    pub fn read_here(&self, item: &Item, deadline: &Deadline) -> Option<&Path> {
        let facts = self.disk(item)?.facts.as_ref().filter(|facts| !facts.block)?;
        let nonces: Vec<&Nonce> = self.nonces.iter().filter(|nonce| facts.folders.contains(&nonce.folder)).collect();
        let folder = nonces.last()?.folder.as_path();
        let looks = at_once(nonces.into_iter().cloned().collect(), deadline, |nonce, limit| {
            match look::look(&nonce.folder.join(&nonce.name).join(FILE), limit) {
                Sight::Facts(_) => Ok(()),
                _ => Err(String::new()),
            }
        });
        looks.iter().all(Result::is_ok).then_some(folder)
    }
}

/// Does the same in all these folders at once, each of which may hang.
fn at_once(
    nonces: Vec<Nonce>,
    deadline: &Deadline,
    work: impl Fn(&Nonce, &Deadline) -> Result<(), String> + Clone + Send + 'static,
) -> Vec<Result<(), String>> {
    let limit = deadline.within(LOOK);
    let begun: Vec<_> = nonces
        .into_iter()
        .map(|nonce| {
            let work = work.clone();
            Task::start(move || work(&nonce, &limit))
        })
        .collect();
    // The children see to the time; what comes after is for the threads.
    begun.into_iter().map(|task| task.wait(deadline).unwrap_or_else(|| Err("its storage does not answer".to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Kind, finding};
    use std::fs;
    use std::time::Duration;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[test]
    fn what_cannot_be_seen_gets_no_nonce() {
        let root = tempfile::tempdir().unwrap();
        let xml = format!("<domain><devices><disk type='file'><source file='{}/a'/></disk></devices></domain>", root.path().display());
        let findings = finding::look(&xml, &|_, _| Err(String::new()), &soon());
        let identity = Identity { name: "a".into(), uuid: None };
        assert!(Marks::leave(&findings, Path::new("/srv/a.xml"), &identity, &soon()).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_volume_that_is_not_looked_up_gets_no_nonce() {
        let xml = "<domain><devices><disk type='volume'><source pool='p' volume='v'/></disk></devices></domain>";
        let findings = finding::look(xml, &|_, _| Err(String::new()), &soon());
        let identity = Identity { name: "a".into(), uuid: None };
        let left = Marks::leave(&findings, Path::new("/srv/a.xml"), &identity, &soon());
        assert_eq!(left.unwrap_err(), format!("{} is not seen", findings[0].item));
    }

    #[test]
    fn disks_that_came_later_are_not_known() {
        let disk = |name: &str, path: &str| {
            format!("<disk type='network' device='{name}'><source protocol='rbd' name='{path}'/><target dev='{name}'/></disk>")
        };
        let xml = |disks: &[String]| format!("<domain><devices>{}</devices></domain>", disks.concat());
        let (old, new, disc) = (disk("vda", "p/a"), disk("vdb", "p/b"), disk("sda", "p/c").replace("device='sda'", "device='cdrom'"));
        let findings = finding::look(&xml(std::slice::from_ref(&old)), &|_, _| Err(String::new()), &soon());
        let identity = Identity { name: "a".into(), uuid: None };
        let marks = Marks::leave(&findings, Path::new("/srv/a.xml"), &identity, &soon()).unwrap();
        assert_eq!(marks.lack(&xml(std::slice::from_ref(&old))), None);
        assert_eq!(marks.lack(&xml(&[old.clone(), disc])), None, "the guest can do without");
        assert_eq!(marks.lack(&xml(&[old, new])).map(|item| item.name).as_deref(), Some("vdb"));
        assert_eq!(marks.lack(&xml(&[disk("vda", "p/z")])).map(|item| item.name).as_deref(), Some("vda"), "another one by its name");
    }

    #[test]
    fn what_no_host_can_be_known_to_read() {
        const UUID: &str = "/dev/disk/by-id/dm-uuid-LVM-abc";
        let mark = |path: &str, block, lasting: Option<&str>| {
            let xml = format!("<domain><devices><disk type='block'><source dev='{path}'/><target dev='vda'/></disk></devices></domain>");
            let mount = serde_json::json!({"point": "/dev", "source": "udev", "kind": "devtmpfs", "options": "", "device": "0:5"});
            let facts = serde_json::json!({"kind": Kind::Lvm, "token": null, "block": block, "size": 1, "mount": mount, "folders": [],
                "lasting": lasting, "paths": null, "samples": null});
            let facts = Some(serde_json::from_value(facts).unwrap());
            let disks = vec![Disk { item: item::items(&xml).remove(0), path: Some(path.into()), facts }];
            Marks { disks, ..Marks::default() }.doubt()
        };
        let text = mark("/dev/vg/lv", true, Some(UUID)).unwrap();
        assert!(text.contains("/dev/vg/lv") && text.ends_with(&format!("{NOT_CALLED}, which would be {UUID}")), "{text}");
        assert!(mark("/dev/sda", true, None).is_some_and(|text| text.ends_with(NO_LASTING)));
        assert_eq!(mark(UUID, true, Some(UUID)), None);
        assert_eq!(mark("/srv/vms/web1.img", false, None), None, "a file");
    }

    #[test]
    fn disks_on_the_network_have_no_folder() {
        let xml = "<domain><devices><disk type='network'><source protocol='rbd' name='p/i'/></disk></devices></domain>";
        let findings = finding::look(xml, &|_, _| Err(String::new()), &soon());
        let identity = Identity { name: "a".into(), uuid: None };
        let marks = Marks::leave(&findings, Path::new("/srv/a.xml"), &identity, &soon()).unwrap();
        assert!(marks.nonces.is_empty() && marks.disks.len() == 1 && marks.disks[0].facts.is_none());
        assert!(marks.doubt().is_some_and(|text| text.ends_with("it is on the network")));
        assert!(marks.know(&marks.disks[0].item.clone()));
        assert_eq!(marks.read_here(&marks.disks[0].item.clone(), &soon()), None);
    }
}
