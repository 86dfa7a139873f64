//! Whether another host reads all disks: it is asked for the nonces beside the files, and then for the links to the devices.

use super::{Disk, Marks, NO_LASTING, NOT_CALLED};
use crate::deadline::Deadline;
use crate::domain::Kind;
use crate::domain::connection::Connection;
use crate::domain::migration::preflight::reader::{self, Answer, Question, Seen};
use crate::log;
use crate::storage::Item;
use crate::storage::device::{self, Naming};
use crate::storage::finding::path;
use crate::storage::look::Facts;
use crate::storage::nonce::Nonce;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why another host is not known to read all disks: a sentence that stays the same as long as its cause does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The host has taken the question and given no answer: it may hang on the same storage, and one more question would hang too.
    Silent(String),
    /// It is not reached, or what it answers is no proof.
    Unproven(String),
}

/// The questions to one host.
struct Inquiry<'a> {
    marks: &'a Marks,
    there: &'a Connection,
    node: &'a str,
    deadline: &'a Deadline,
    /// What it has answered of a folder here, and the place of that there.
    answers: BTreeMap<(PathBuf, PathBuf), Answer>,
}

/// A disk that is a device.
struct Device<'a> {
    disk: &'a Disk,
    facts: &'a Facts,
    /// Where it is there.
    place: PathBuf,
}

impl Marks {
    /// Whether the host called `node` reads all disks, and they are the same there.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn read_by(&self, there: &Connection, node: &str, deadline: &Deadline) -> Result<(), Doubt> {
        let mut inquiry = Inquiry { marks: self, there, node, deadline, answers: BTreeMap::new() };
        let devices = inquiry.ask_for_files()?;
        inquiry.ask_for_devices(&devices)
    }
}

impl<'a> Inquiry<'a> {
    /// Asks for all files; the devices, which are left.
    fn ask_for_files(&mut self) -> Result<Vec<Device<'a>>, Doubt> {
        let mut devices = Vec::new();
        for disk in &self.marks.disks {
            let Some(facts) = &disk.facts else { return Err(self.unproven(&disk.item, &disk.doubt().unwrap_or_default())) };
            let place = self.place(&disk.item)?;
            if facts.block {
                devices.push(Device { disk, facts, place });
                continue;
            }
            for (here, folder) in facts.folders_at(disk.path.as_deref(), &place) {
                match self.ask(&here, &folder)? {
                    Answer::Same => {}
                    Answer::Other => return Err(self.unproven(&disk.item, "another folder is there, or none")),
                    Answer::Unknown(text) | Answer::Silent(text) => {
                        log::debug(|| format!("{}: {text}", self.node));
                        return Err(self.unproven(&disk.item, "its folder cannot be read there"));
                    }
                }
            }
        }
        Ok(devices)
    }

    /// Asks for all devices, by the links in a folder that both have.
    fn ask_for_devices(&mut self, devices: &[Device]) -> Result<(), Doubt> {
        let Some(first) = devices.first() else { return Ok(()) };
        let Some(carrier) = self.carrier()? else {
            return Err(self.unproven(&first.disk.item, "no folder is known to be the same there"));
        };
        let seen = self.see(carrier, devices, &first.disk.item)?;
        devices.iter().try_for_each(|device| self.compare(device, &seen))
    }

    /// Where a thing is there.
    fn place(&self, item: &Item) -> Result<PathBuf, Doubt> {
        // A pool that is being refreshed is locked as well.
        let late = Cell::new(false);
        let find = |pool: &str, volume: &str| {
            let found = self.there.find_volume(pool, volume, self.deadline);
            found.map_err(|error| {
                late.set(error.kind == Kind::Unresponsive);
                error.text
            })
        };
        path(item, &find).and_then(Result::ok).ok_or_else(|| {
            if late.get() {
                Doubt::Silent(format!("{} gives no answer about {item}", self.node))
            } else {
                self.unproven(item, "it is not found there")
            }
        })
    }

    /// Asks, once, for a folder of this host's at a place there. Fails if there is no answer.
    fn ask(&mut self, here: &Path, place: &Path) -> Result<Answer, Doubt> {
        let Some(nonce) = self.marks.nonces.iter().find(|nonce| nonce.folder == here) else {
            return Ok(Answer::Unknown(format!("no nonce could be left in {}", here.display())));
        };
        let question = || reader::ask(self.there, place, nonce, 1, self.deadline);
        let answer = self.answers.entry((here.to_owned(), place.to_owned())).or_insert_with(question).clone();
        if let Answer::Silent(text) = &answer {
            log::debug(|| format!("{}: {text}", self.node));
            return Err(Doubt::Silent(format!("{} gives no answer about {}", self.node, place.display())));
        }
        Ok(answer)
    }

    /// What lies in a folder that is the same there.
    fn carrier(&mut self) -> Result<Option<&'a Nonce>, Doubt> {
        let mut carrier = None;
        for nonce in &self.marks.nonces {
            if self.ask(&nonce.folder, &nonce.folder)? == Answer::Same {
                carrier = Some(nonce);
            }
        }
        Ok(carrier)
    }

    /// What the links lead to there. If that cannot be had, it is said of the `first` device.
    fn see(&self, carrier: &Nonce, devices: &[Device], first: &Item) -> Result<Seen, Doubt> {
        let links = &self.marks.links;
        let through: Vec<usize> = devices
            .iter()
            .filter(|device| bypasses_the_cache(&device.disk.item))
            .filter_map(|device| links.iter().position(|link| *link == device.place))
            .collect();
        let question = Question { count: links.len(), texts: &[], through: &through };
        let seen = reader::see(self.there, &carrier.folder, carrier, &question, self.deadline).map_err(|error| {
            log::debug(|| format!("{}: {}", self.node, error.text));
            let text = self.sentence(first, "it cannot be looked at there");
            if error.kind == Kind::Unresponsive { Doubt::Silent(text) } else { Doubt::Unproven(text) }
        })?;
        seen.ok_or_else(|| self.unproven(first, "the folder for it has gone there"))
    }

    /// Whether a device is there, and the same.
    fn compare(&self, device: &Device, seen: &Seen) -> Result<(), Doubt> {
        let Device { disk, facts, place } = device;
        let at = |path: &Path| self.marks.links.iter().zip(&seen.links).find(|(link, _)| *link == path).and_then(|(_, there)| *there);
        let Some(lasting) = &facts.lasting else { return Err(self.unproven(&disk.item, NO_LASTING)) };
        let Some(found) = at(place).filter(|found| found.size == facts.size && at(lasting) == Some(*found)) else {
            return Err(self.unproven(&disk.item, "it is not there, or another one"));
        };
        // That both names show the same is no proof, see `shared`.
        match device::naming(place, lasting) {
            Naming::Device if disk.path.as_ref() == Some(place) => Ok(()),
            Naming::Contents if disk.path.as_ref() == Some(place) && facts.samples == Some(found.samples) => Ok(()),
            Naming::Contents => Err(self.unproven(&disk.item, "its beginning or its end is not what was seen last")),
            Naming::Device | Naming::Nothing => Err(self.unproven(&disk.item, NOT_CALLED)),
        }
    }

    fn unproven(&self, item: &Item, why: &str) -> Doubt {
        Doubt::Unproven(self.sentence(item, why))
    }

    fn sentence(&self, item: &Item, why: &str) -> String {
        format!("{} is not known to read {item}: {why}", self.node)
    }
}

/// Whether the guest reads a device past the host's page cache. What a question reads of a device stays there for as long as anybody has the device
/// open, and grows old while the guest writes elsewhere: a guest that would be started there with the cache must not find it.
fn bypasses_the_cache(item: &Item) -> bool {
    matches!(item.cache.as_deref(), Some("none" | "directsync"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::item;

    #[test]
    fn what_is_read_with_the_cache_is_not_read_for_a_question() {
        let item = |cache: &str| {
            let disk = format!("<disk type='block'><driver name='qemu' {cache}/><source dev='/dev/a'/><target dev='vda'/></disk>");
            item::items(&format!("<domain><devices>{disk}</devices></domain>")).remove(0)
        };
        assert!(bypasses_the_cache(&item("cache='none'")) && bypasses_the_cache(&item("cache='directsync'")));
        assert!(!bypasses_the_cache(&item("cache='writeback'")) && !bypasses_the_cache(&item("")));
    }
}
