//! Words that are left beside a guest's disks while this host reads them, so that another host can be asked for them when this one cannot
//! read them any more: who reads the word has the same folder, and it is of this moment, as nobody has read it before.
//!
//! How another host is asked, and why so, see [`super::shared`]. A device is asked for by the links in such a folder: its name of udev's that
//! holds its WWID or UUID has to be there, and to be the same device as the disk's name.

use super::reader::{Answer, ask, see};
use crate::deadline::{Deadline, unix_time};
use crate::domain::connection::Connection;
use crate::domain::definition::Identity;
use crate::log;
use crate::storage::finding::{LOOK, path};
use crate::storage::look::{self, Facts, Sight};
use crate::storage::nonce::{FILE, Nonce};
use crate::storage::{Finding, Item};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What was left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    words: Vec<Nonce>,
    /// What the links in each of them lead to.
    links: Vec<PathBuf>,
    disks: Vec<Disk>,
    /// Somewhere none could be left.
    pub incomplete: bool,
}

/// A disk, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    item: Item,
    path: Option<PathBuf>,
    /// `None`: this host's kernel does not know it.
    facts: Option<Facts>,
}

/// Why another host is not known to read all disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// A sentence that stays the same as long as its cause does.
    pub text: String,
    /// The host has taken the question and given no answer: it may hang on the same storage, and one more question would hang too.
    pub silent: bool,
}

impl Marks {
    /// Leaves words beside all disks among `findings`; those that this guest has left there before are removed.
    ///
    /// # Errors
    /// A disk is not seen.
    pub fn leave(findings: &[Finding], config: &Path, identity: &Identity, deadline: &Deadline) -> Result<Self, String> {
        let mut marks = Self::default();
        let mut folders = Vec::new();
        for finding in findings.iter().filter(|finding| finding.item.matters()) {
            if finding.sight.is_some() && finding.facts().is_none() {
                return Err(format!("{} is not seen", finding.item));
            }
            match finding.facts() {
                Some(facts) if facts.block => marks.links.extend(finding.path.iter().chain(&facts.lasting).cloned()),
                Some(facts) => folders.extend(facts.folders.iter().cloned()),
                None => {}
            }
            marks.disks.push(Disk { item: finding.item.clone(), path: finding.path.clone(), facts: finding.facts().cloned() });
        }
        // A device has no folder: that of the definition is what other nodes may have too.
        folders.extend(config.parent().filter(|_| !marks.links.is_empty()).map(Path::to_owned));
        folders.sort();
        folders.dedup();
        let (owner, now) = (look::sum(identity.uuid.as_ref().unwrap_or(&identity.name).as_bytes()), unix_time());
        for (number, folder) in folders.into_iter().enumerate() {
            let put = Nonce::mark(&folder, owner, now, number).map_err(|error| error.to_string());
            match put.and_then(|nonce| nonce.put(&marks.links, &deadline.within(LOOK)).map(|()| nonce)) {
                Ok(nonce) => marks.words.push(nonce),
                Err(text) => {
                    marks.incomplete = true;
                    log::warning(format_args!("no word for outage_policy=relocate can be left in {}: {text}", folder.display()));
                }
            }
        }
        Ok(marks)
    }

    /// Takes them away again, as far as that can be done: what stays is removed when the guest leaves words there from another node.
    pub fn take(&self, deadline: &Deadline) {
        for word in &self.words {
            if let Err(text) = word.take(&deadline.within(LOOK)) {
                log::info(format_args!("{} in {} is left: {text}", word.name, word.folder.display()));
            }
        }
    }

    /// The folder of a file that this host does not read, though it reads the word beside it: that is not for this host's sake then.
    #[must_use]
    pub fn read_here(&self, deadline: &Deadline) -> Option<&Path> {
        let reads = |path: &Path| matches!(look::look(path, &deadline.within(LOOK)), Sight::Facts(_));
        let files = self.disks.iter().filter_map(|disk| disk.path.as_deref().zip(disk.facts.as_ref())).filter(|(_, facts)| !facts.block);
        let mut out = files.filter(|(path, _)| !reads(path));
        out.find_map(|(_, facts)| {
            let mut beside = self.words.iter().filter(|word| facts.folders.contains(&word.folder));
            beside.find(|word| reads(&word.folder.join(&word.name).join(FILE))).map(|word| word.folder.as_path())
        })
    }

    /// Whether the host called `node` reads all disks, and they are the same there.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn read_by(&self, there: &Connection, node: &str, deadline: &Deadline) -> Result<(), Doubt> {
        let mut asked = BTreeMap::new();
        let mut ask = |here: &Path, place: &Path| -> Result<Answer, Doubt> {
            let Some(word) = self.words.iter().find(|word| word.folder == here) else {
                return Ok(Answer::Unknown(format!("no word could be left in {}", here.display())));
            };
            let question = || ask(there, place, word, 1, deadline);
            let answer = asked.entry((here.to_owned(), place.to_owned())).or_insert_with(question).clone();
            if matches!(answer, Answer::Unknown(_)) && deadline.expired() {
                return Err(Doubt { text: format!("{node} gives no answer about {}", place.display()), silent: true });
            }
            Ok(answer)
        };
        let doubt = |item: &Item, why: &str| Doubt { text: format!("{node} is not known to read {item}: {why}"), silent: false };
        let mut devices = Vec::new();
        for disk in &self.disks {
            let Some(facts) = &disk.facts else { return Err(doubt(&disk.item, "it is on the network")) };
            let Some(place) = path(&disk.item, &|pool, volume| there.volume(pool, volume, deadline)) else {
                return Err(doubt(&disk.item, "it is not found there"));
            };
            if facts.block {
                devices.push((disk, facts, place));
                continue;
            }
            for (here, folder) in pairs(disk, facts, &place) {
                match ask(&here, &folder)? {
                    Answer::Same => {}
                    Answer::Other => return Err(doubt(&disk.item, "another folder is there, or none")),
                    Answer::Unknown(text) => {
                        log::debug(|| format!("{node}: {text}"));
                        return Err(doubt(&disk.item, "its folder cannot be read there"));
                    }
                }
            }
        }
        let Some((first, ..)) = devices.first() else { return Ok(()) };
        let mut carrier = None;
        for word in &self.words {
            if ask(&word.folder, &word.folder)? == Answer::Same {
                carrier = Some(word);
            }
        }
        let Some(carrier) = carrier else { return Err(doubt(&first.item, "no folder is known to be the same there")) };
        let seen = see(there, &carrier.folder, carrier, self.links.len(), None, deadline).map_err(|text| {
            log::debug(|| format!("{node}: {text}"));
            Doubt { silent: deadline.expired(), ..doubt(&first.item, "it cannot be looked at there") }
        })?;
        let at = |path: &Path| self.links.iter().zip(&seen.links).find(|(link, _)| *link == path).and_then(|(_, there)| *there);
        for (disk, facts, place) in &devices {
            let Some(lasting) = &facts.lasting else { return Err(doubt(&disk.item, "it has no name with a WWID or UUID")) };
            if at(place).is_none_or(|device| device.size != facts.size || at(lasting) != Some(device)) {
                return Err(doubt(&disk.item, "it is not there, or another one"));
            }
        }
        Ok(())
    }
}

/// The folders that decide what a file's path means, here and there. A volume has one path here and may have another there.
fn pairs(disk: &Disk, facts: &Facts, place: &Path) -> Vec<(PathBuf, PathBuf)> {
    if disk.path.as_deref() == Some(place) {
        return facts.folders.iter().map(|folder| (folder.clone(), folder.clone())).collect();
    }
    facts.folders.first().cloned().zip(place.parent().map(Path::to_owned)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::finding;
    use std::fs;
    use std::time::Duration;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    #[test]
    fn what_cannot_be_seen_gets_no_word() {
        let root = tempfile::tempdir().unwrap();
        let xml = format!("<domain><devices><disk type='file'><source file='{}/a'/></disk></devices></domain>", root.path().display());
        let findings = finding::look(&xml, &|_, _| None, &soon());
        let identity = Identity { name: "a".into(), uuid: None };
        assert!(Marks::leave(&findings, Path::new("/srv/a.xml"), &identity, &soon()).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn disks_on_the_network_have_no_folder() {
        let xml = "<domain><devices><disk type='network'><source protocol='rbd' name='p/i'/></disk></devices></domain>";
        let findings = finding::look(xml, &|_, _| None, &soon());
        let identity = Identity { name: "a".into(), uuid: None };
        let marks = Marks::leave(&findings, Path::new("/srv/a.xml"), &identity, &soon()).unwrap();
        assert!(marks.words.is_empty() && marks.disks.len() == 1 && marks.disks[0].facts.is_none());
        assert_eq!(marks.read_here(&soon()), None);
    }
}
