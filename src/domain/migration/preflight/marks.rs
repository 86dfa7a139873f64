//! Words that are left beside a guest's disks while this host reads them, so that another host can be asked for them when this one cannot
//! read them any more: who reads the word has the same folder, or a copy of it that was made while the word lay there; and it is of this moment,
//! as nobody has read it before.
//!
//! How another host is asked, and why so, see [`super::shared`]. A device is asked for by the links in such a folder: its name of udev's that
//! holds its WWID or UUID has to be there, and to be the same device as the disk's name.

use super::reader::{Answer, ask, see};
use crate::deadline::{Deadline, Task};
use crate::domain::connection::Connection;
use crate::domain::definition::Identity;
use crate::log;
use crate::storage::finding::{LOOK, path};
use crate::storage::look::{self, Facts, Sight};
use crate::storage::nonce::{FILE, Nonce};
use crate::storage::{Finding, Item, Source};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What was left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    words: Vec<Nonce>,
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

/// Why another host is not known to read all disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// A sentence that stays the same as long as its cause does.
    pub text: String,
    /// The host has taken the question and given no answer: it may hang on the same storage, and one more question would hang too.
    pub silent: bool,
}

impl Marks {
    /// Leaves words beside all disks among `findings`; [`Marks::replace`] is for those that were there before.
    ///
    /// # Errors
    /// A disk is not seen, or a word cannot be left where one is needed; none is left then.
    pub fn leave(findings: &[Finding], config: &Path, identity: &Identity, deadline: &Deadline) -> Result<Self, String> {
        let mut marks = Self::default();
        let mut needed = BTreeSet::new();
        for finding in findings.iter().filter(|finding| finding.item.matters()) {
            if finding.sight.is_some() && finding.facts().is_none() {
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
        let mut words = Vec::new();
        for folder in needed.iter().chain(&spare) {
            words.push(Nonce::mark(folder, owner).map_err(|error| error.to_string())?);
        }
        let links = marks.links.clone();
        let results = at_once(words.clone(), deadline, move |word, limit| word.put(&links, limit));
        let mut failed = None;
        for (word, result) in words.iter().zip(results) {
            match result {
                Ok(()) => marks.words.push(word.clone()),
                Err(text) => failed = Some((word.folder.clone(), format!("in {}: {text}", word.folder.display()))),
            }
        }
        match failed {
            // Of a device it is enough that one folder can be asked for.
            Some((folder, text)) if marks.words.is_empty() || needed.contains(&folder) || marks.words.len() + 1 < words.len() => {
                marks.take(deadline);
                Err(text)
            }
            _ => Ok(marks),
        }
    }

    /// Removes the words that this guest has left before, on whatever host.
    pub fn replace(&self, before: Option<&Self>, deadline: &Deadline) {
        let kept: Vec<String> = self.words.iter().map(|word| word.name.clone()).collect();
        at_once(self.words.clone(), deadline, move |word, limit| word.sweep(&kept, limit));
        let old = before.into_iter().flat_map(|before| &before.words);
        let elsewhere = old.filter(|old| self.words.iter().all(|word| word.folder != old.folder)).cloned().collect();
        Self { words: elsewhere, ..Self::default() }.take(deadline);
    }

    /// Takes them away again, as far as that can be done: what stays is removed when the guest leaves words there from another node.
    pub fn take(&self, deadline: &Deadline) {
        let results = at_once(self.words.clone(), deadline, |word, limit| word.take(limit));
        for (word, result) in self.words.iter().zip(results) {
            if let Err(text) = result {
                log::info(format_args!("{} in {} is left: {text}", word.name, word.folder.display()));
            }
        }
    }

    /// Whether this was one of its disks when they were left.
    #[must_use]
    pub fn know(&self, item: &Item) -> bool {
        self.disk(item).is_some()
    }

    fn disk(&self, item: &Item) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.item.name == item.name && disk.item.source == item.source)
    }

    /// The folder of this disk, if it and all that lead to it are read here: what cannot be read of the disk is not for this host's sake
    /// then. A device has none.
    #[must_use]
    pub fn read_here(&self, item: &Item, deadline: &Deadline) -> Option<&Path> {
        let facts = self.disk(item)?.facts.as_ref().filter(|facts| !facts.block)?;
        let words: Vec<&Nonce> = self.words.iter().filter(|word| facts.folders.contains(&word.folder)).collect();
        let folder = words.last()?.folder.as_path();
        let looks = at_once(words.into_iter().cloned().collect(), deadline, |word, limit| {
            match look::look(&word.folder.join(&word.name).join(FILE), limit) {
                Sight::Facts(_) => Ok(()),
                _ => Err(String::new()),
            }
        });
        looks.iter().all(Result::is_ok).then_some(folder)
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
            let Some(facts) = &disk.facts else {
                let network = matches!(disk.item.source, Source::Network { .. });
                return Err(doubt(&disk.item, if network { "it is on the network" } else { "it is nothing that this node can look at" }));
            };
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

/// Does the same in all these folders at once, each of which may hang.
fn at_once(
    words: Vec<Nonce>,
    deadline: &Deadline,
    work: impl Fn(&Nonce, &Deadline) -> Result<(), String> + Clone + Send + 'static,
) -> Vec<Result<(), String>> {
    let limit = deadline.within(LOOK);
    let begun: Vec<_> = words
        .into_iter()
        .map(|word| {
            let work = work.clone();
            Task::start(move || work(&word, &limit))
        })
        .collect();
    // The children see to the time; what comes after is for the threads.
    begun.into_iter().map(|task| task.wait(deadline).unwrap_or_else(|| Err("its storage does not answer".to_owned()))).collect()
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
        assert!(marks.know(&marks.disks[0].item.clone()));
        assert_eq!(marks.read_here(&marks.disks[0].item.clone(), &soon()), None);
    }
}
