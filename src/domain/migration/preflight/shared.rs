//! Whether what is under the guest is the same thing at the target, by proof and not by name.
//!
//! libvirt takes every block device and every network disk for shared, and every file with `--unsafe`: it compares nothing. The connection
//! to the target runs no program there, but it can have that libvirt read a folder, as a pool that lives for a moment and is not defined.
//! So a folder with a random word in it is made beside an image here, and read there: who can read the word has the same folder. That
//! folder holds links too, and what they lead to there can be seen: a device's size and contents, whether a name of udev's with its WWID or
//! UUID is there. Nothing has to run at the target but libvirt's storage driver, no login is needed beside the move's own, and the answer is
//! of this moment, where an attribute that a probe left in the cluster would be of its own time.

use super::Check;
use super::config;
use super::folders::{Folder, Wanted, ask_all, take_away, tries_for};
use super::reader::{Answer, Question, TRIES, There, see};
use super::safe;
use super::target::{Target, is_here};
use crate::deadline::Deadline;
use crate::domain::connection::Connection;
use crate::domain::migration::plan::{Plan, StorageCheck};
use crate::storage::device::{self, Naming};
use crate::storage::finding::{LOOK, look, path};
use crate::storage::look::{self, Facts, Sight};
use crate::storage::{Finding, Item, Kind, Role, Same, Source, hazards, servers};
use std::path::{Path, PathBuf};

/// Where udev's names are.
const BY_ID: &str = "/dev/disk/by-id";

/// Which of the links is the table of hosts.
const HOSTS: usize = 1;

/// The question of the preflight.
pub(super) fn question(target: &Target, deadline: &Deadline) -> Vec<Check> {
    if !target.is_here() {
        // What has the same names here is another host's.
        let mut checks =
            vec![Check::warning("storage", "is another host's, and was not looked at", "ask on the host on which the guest runs")];
        if target.plan.storage != StorageCheck::Off {
            checks.push(config::check(&[], target, &deadline.before_part(4)));
        }
        return checks;
    }
    let mut findings = look(&target.xml, &|pool, volume| target.here.volume(pool, volume, deadline), deadline);
    let mut checks = safe::checks(&findings, target, deadline);
    if target.plan.storage == StorageCheck::Off {
        checks.push(Check::ok("storage", "is not compared (migration_storage_check=off)"));
        return checks;
    }
    let asked = compare_by(&mut findings, &target.there, &target.plan, deadline);
    checks.extend(findings.iter().filter_map(|finding| check(finding, target, deadline)));
    // What is known of the disks has to be told before the time is over.
    checks.push(config::check(&asked, target, &deadline.before_part(4)));
    checks
}

/// What will hurt the guest, here as well as there.
pub(super) fn hazards(xml: &str, here: &Connection, deadline: &Deadline) -> Vec<Check> {
    if !is_here(here) {
        return Vec::new();
    }
    let findings = look(xml, &|pool, volume| here.volume(pool, volume, deadline), deadline);
    let said = findings.iter().flat_map(|finding| {
        let said = hazards::hazards(&finding.item, finding.facts());
        said.into_iter().map(|hazard| Check::warning("storage", format!("{}: {}", finding.item, hazard.text), ""))
    });
    said.collect()
}

/// What follows for a move.
fn check(finding: &Finding, target: &Target, deadline: &Deadline) -> Option<Check> {
    const NAME: &str = "storage";
    let (item, strict) = (&finding.item, target.plan.storage == StorageCheck::Proven);
    let own = |finding: &Finding| finding.facts().is_some_and(|facts| safe::is_taken_for_own(&facts.mount.kind, target, deadline));
    Some(match finding.same.as_ref()? {
        // The emulator there waits for the lock that the one here holds, and after the move has failed libvirt there removes the state: of both.
        // One that libvirt knows to be shared is handed over (`--migration` of swtpm 0.8, libvirt 9.0).
        Same::Proven(text) if item.role == Role::Tpm && own(finding) => Check::refuse(
            NAME,
            format!("{item} {text}, and libvirt takes it for each host's own: the move would fail, and cost the TPM its state"),
            "stop the guest and start it there",
        ),
        Same::Proven(text) if item.role == Role::Tpm => Check::warning(
            NAME,
            format!("{item} {text}"),
            "a move needs swtpm 0.8 and libvirt 9.0 on both nodes, and that libvirt knows the folder there to be shared too",
        ),
        Same::Proven(text) => Check::ok(NAME, format!("{item} {text}")),
        Same::Alike(text) if !item.matters() => Check::ok(NAME, format!("{item} {text}")),
        Same::Different(text) if item.matters() => Check::refuse(
            NAME,
            format!("{item} {text}"),
            "the guest would go on with other data; see that both nodes have the same storage there",
        ),
        Same::Different(text) if item.role == Role::Tpm => {
            Check::warning(NAME, format!("{item} {text}"), "a move takes it along; a start there finds another TPM, or an empty one")
        }
        Same::Different(text) => {
            Check::warning(NAME, format!("{item} {text}"), "the guest would have another one after the move or a start there")
        }
        Same::Alike(text) | Same::Unknown(text) if strict && item.matters() => {
            Check::refuse(NAME, format!("{item} {text}"), "migration_storage_check=different moves it all the same")
        }
        Same::Alike(text) => Check::warning(NAME, format!("{item} {text}"), "that is no proof"),
        Same::Unknown(text) => Check::warning(NAME, format!("{item} {text}"), "see that it is the same there"),
    })
}

/// Fills in what is known at the target.
pub fn compare(findings: &mut [Finding], there: &Connection, plan: &Plan, deadline: &Deadline) {
    compare_by(findings, there, plan, deadline);
}

/// Like [`compare`]; gives the folders by which it was done.
fn compare_by(findings: &mut [Finding], there: &Connection, plan: &Plan, deadline: &Deadline) -> Vec<Folder> {
    let places: Vec<Option<Result<PathBuf, String>>> =
        findings.iter().map(|finding| path(&finding.item, &|pool, volume| there.volume(pool, volume, deadline))).collect();
    let mut folders = Wanted::new();
    let mut links = vec![PathBuf::from(BY_ID), PathBuf::from("/etc/hosts")];
    for (finding, place) in findings.iter().zip(&places) {
        if let (Some(facts), Some(Ok(place))) = (finding.facts(), place) {
            if is_of_its_folder(&finding.item) && !facts.block {
                // Not looked at by a link: that host would keep what it read of an image in its page cache.
                for pair in facts.folders_at(finding.path.as_deref(), place) {
                    let tries = folders.entry(pair).or_default();
                    *tries = tries_for(finding.item.role, facts.kind).max(*tries);
                }
                continue;
            }
            links.push(place.clone());
            links.extend(facts.lasting.clone());
        }
    }
    let mut asked = ask_all(folders, &links, there, deadline);
    let is_same = |folder: &Folder| folder.answer == Answer::Same;
    // Where only devices and names are asked for, the definition's folder is what both nodes may have. Never beside the others: it may hang there
    // where they are well, and libvirt there serves them one after the other.
    if !asked.iter().any(is_same) {
        let own = plan.config.parent().map(|folder| ((folder.to_owned(), folder.to_owned()), TRIES));
        let own = own.filter(|(pair, _)| !asked.iter().any(|folder| pair.0 == folder.here && pair.1 == folder.there));
        asked.extend(ask_all(own.into_iter().collect(), &links, there, deadline));
    }
    let carrier = asked.iter().find(|folder| is_same(folder));
    let seen = match carrier.and_then(|asked| Some((asked, asked.nonce.as_ref()?))) {
        // What is left of the time is for taking everything away again.
        Some((asked, nonce)) => {
            let limit = deadline.before_part(4);
            let question = Question { count: links.len(), texts: &[HOSTS], through: &[] };
            see(there, &asked.there, nonce, &question, &limit)
                .map_err(|error| format!("cannot be looked at there: {}", error.text))
                .and_then(|seen| seen.ok_or_else(|| "cannot be looked at there: the folder for it has gone".to_owned()))
        }
        None => Err("cannot be looked at there: no folder of the guest's is known to be the same on both nodes".to_owned()),
    };
    let target = At {
        asked: &asked,
        hosts: seen.as_ref().ok().and_then(|seen| seen.texts.first()?.as_deref()),
        seen: seen.as_ref().map(|seen| links.iter().map(PathBuf::as_path).zip(seen.links.iter().copied()).collect()).map_err(Clone::clone),
        name: &plan.target,
    };
    for (finding, place) in findings.iter_mut().zip(&places) {
        finding.same = Some(target.verdict(finding, place.as_ref(), deadline));
    }
    take_away(asked.iter().filter_map(|folder| folder.nonce.as_ref()), deadline);
    asked
}

/// Whether the folder it is in is asked for: what is in it is the same if the folder is.
fn is_of_its_folder(item: &Item) -> bool {
    item.matters() || item.role == Role::Tpm
}

/// What is known of the target.
struct At<'a> {
    asked: &'a [Folder],
    hosts: Option<&'a str>,
    seen: Result<Vec<(&'a Path, Option<There>)>, String>,
    name: &'a str,
}

impl At<'_> {
    fn verdict(&self, finding: &Finding, place: Option<&Result<PathBuf, String>>, deadline: &Deadline) -> Same {
        if let Source::Network { hosts, .. } = &finding.item.source {
            return servers::compare(hosts, self.hosts, self.name, deadline);
        }
        let place = match place {
            Some(Ok(place)) => place,
            // The pool itself is asked for apart; it may only have to be refreshed there.
            Some(Err(text)) => return Same::Unknown(format!("cannot be found in that pool on {}: {text}", self.name)),
            None => return Same::Unknown("is of a kind that cannot be looked at".to_owned()),
        };
        match &finding.sight {
            Some(Sight::Facts(facts)) if facts.block => self.device(finding, facts, place, deadline),
            Some(Sight::Facts(facts)) if is_of_its_folder(&finding.item) => self.file(finding, facts, place),
            Some(Sight::Facts(facts)) => self.thing(finding, facts, place),
            Some(Sight::Missing(text) | Sight::Untold(text)) => Same::Unknown(format!("cannot be looked at here: {text}")),
            Some(Sight::Silent) => Same::Unknown("does not answer here".to_owned()),
            None => Same::Unknown("cannot be found here".to_owned()),
        }
    }

    /// A file: it is the same if its folder is, and each folder that a link on the way to it stands in.
    fn file(&self, finding: &Finding, facts: &Facts, place: &Path) -> Same {
        let folders = facts.folders_at(finding.path.as_deref(), place);
        let mut unknown = (folders.is_empty()).then(|| "is in no folder".to_owned());
        for (here, there) in &folders {
            match self.asked.iter().find(|asked| asked.here == *here && asked.there == *there).map(|asked| &asked.answer) {
                Some(Answer::Same) => {}
                Some(Answer::Other) => {
                    return Same::Different(format!("is not the same on {}: {} is another folder there", self.name, there.display()));
                }
                Some(Answer::Unknown(text) | Answer::Silent(text)) => unknown = Some(text.clone()),
                None => unknown = Some("was not asked for".to_owned()),
            }
        }
        match unknown {
            Some(text) => Same::Unknown(format!("cannot be compared: {text}")),
            None => Same::Proven(format!("is the same file on {}", self.name)),
        }
    }

    /// What a guest can do without, or what comes with it in a move: it only has to be there.
    fn thing(&self, finding: &Finding, facts: &Facts, place: &Path) -> Same {
        if finding.item.role != Role::Folder && matches!(self.file(finding, facts, place), Same::Proven(_)) {
            return Same::Proven(format!("is the same file on {}", self.name));
        }
        match self.at(place) {
            Err(text) => Same::Unknown(text),
            Ok(None) => Same::Different(format!("is not there on {}", self.name)),
            Ok(Some(_)) if finding.item.role == Role::Folder => {
                Same::Unknown(format!("is a folder on {} too, of which nothing is known", self.name))
            }
            Ok(Some(seen)) if seen.size != facts.size => Same::Different(format!("is a file of another size on {}", self.name)),
            Ok(Some(_)) => Same::Alike(format!("is a file of the same size on {}", self.name)),
        }
    }

    /// A device: by its name, if that is one of udev's that holds its WWID, and else by what is on it. That its name and udev's show the
    /// same there is no proof: two devices do, if one is a copy of the other.
    fn device(&self, finding: &Finding, facts: &Facts, place: &Path, deadline: &Deadline) -> Same {
        let node = self.name;
        let there = match self.at(place) {
            Err(text) => return Same::Unknown(text),
            Ok(None) => return Same::Different(format!("is not there on {node}")),
            Ok(Some(there)) => there,
        };
        let (mut naming, mut shows_the_same) = (Naming::Nothing, false);
        if let Some(lasting) = &facts.lasting {
            match self.at(lasting) {
                // Both were read there, of one device the same is read.
                Ok(Some(known)) if known != there => {
                    return Same::Different(format!("is another device on {node} than {}", lasting.display()));
                }
                Ok(Some(_)) => {
                    shows_the_same = device::naming(lasting, lasting) == Naming::Device;
                    if finding.path.as_deref() == Some(place) {
                        naming = device::naming(place, lasting);
                    }
                }
                Ok(None) if self.at(Path::new(BY_ID)).is_ok_and(|folder| folder.is_some()) => {
                    return Same::Different(format!("is another device on {node}: {} is not there", lasting.display()));
                }
                _ => {}
            }
        }
        if there.size != facts.size {
            let sizes = format!("{} bytes there, {} here", there.size, facts.size);
            // One that was extended where it is in use is so large only there.
            return Same::Different(match facts.kind {
                Kind::Lvm => format!("has another size on {node}: {sizes}; if it was extended, run lvchange --refresh for it there"),
                _ => format!("is another device on {node}: {sizes}"),
            });
        }
        let proven = || Same::Proven(format!("is the same device on {node}"));
        if naming == Naming::Device {
            return proven();
        }
        // The guest writes to it: only what is the same before and after the look there can be compared.
        let again = finding.path.as_deref().map(|path| look::look(path, &deadline.within(LOOK)));
        let (Some(before), Some(Sight::Facts(after))) = (facts.samples, again) else {
            return Same::Unknown("cannot be looked at here again".to_owned());
        };
        let stable: Vec<bool> = (0..2)
            .filter(|at| after.samples.is_some_and(|after| after[*at] == before[*at]))
            .map(|at| before[at] == there.samples[at])
            .collect();
        match stable.as_slice() {
            [] => Same::Unknown("is being written to where it would be compared".to_owned()),
            // The device with its WWID has other contents there too: what is read there comes from a cache.
            same if same.iter().any(|same| !same) && shows_the_same => {
                Same::Unknown(format!("is not read anew on {node}, as somebody has it open there"))
            }
            same if same.iter().any(|same| !same) => Same::Different(format!("is another device on {node}: other contents there")),
            _ if naming == Naming::Contents => proven(),
            _ => {
                let name =
                    facts.lasting.as_ref().map_or(String::new(), |lasting| format!("; by the name {} it could be told", lasting.display()));
                Same::Alike(format!("has the same size and, where it was looked, the same contents on {node}{name}"))
            }
        }
    }

    /// What a path leads to at the target.
    fn at(&self, path: &Path) -> Result<Option<There>, String> {
        let seen = self.seen.as_ref().map_err(Clone::clone)?;
        Ok(seen.iter().find(|(link, _)| *link == path).and_then(|(_, there)| *there))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_was_extended_has_to_be_taken_over() {
        let path = Path::new("/dev/vg/web1");
        let xml = "<domain><devices><disk type='block'><source dev='/dev/vg/web1'/><target dev='vda'/></disk></devices></domain>";
        let said = |kind| {
            let mount = serde_json::json!({"point": "/dev", "source": "udev", "kind": "devtmpfs", "options": "", "device": "0:5"});
            let facts = serde_json::json!({"kind": kind, "token": null, "block": true, "size": 2, "mount": mount, "folders": [], "lasting": null,
                "paths": null, "samples": null});
            let facts: Facts = serde_json::from_value(facts).unwrap();
            let item = crate::storage::item::items(xml).remove(0);
            let finding = Finding { item, path: Some(path.into()), sight: Some(Sight::Facts(Box::new(facts.clone()))), same: None };
            let seen = Ok(vec![(path, Some(There { size: 1, samples: [0; 2] }))]);
            let at = At { asked: &[], hosts: None, seen, name: "node2" };
            at.device(&finding, &facts, path, &Deadline::after(std::time::Duration::from_secs(20)))
        };
        let Same::Different(text) = said(Kind::Lvm) else { panic!() };
        assert_eq!(text, "has another size on node2: 1 bytes there, 2 here; if it was extended, run lvchange --refresh for it there");
        assert_eq!(said(Kind::Iscsi), Same::Different("is another device on node2: 1 bytes there, 2 here".into()));
    }

    #[test]
    fn who_cannot_say_where_a_volume_is_is_named() {
        let xml = "<domain><devices><disk type='volume'><source pool='p' volume='a'/><target dev='vda'/></disk></devices></domain>";
        let text = "libvirt's storage daemon cannot be asked: no socket";
        let soon = Deadline::after(std::time::Duration::from_secs(20));
        let at = At { asked: &[], hosts: None, seen: Ok(Vec::new()), name: "node2" };
        let look = |answer: Result<PathBuf, String>| look(xml, &move |_, _| answer.clone(), &soon).remove(0);
        let said = |here: &Finding, there| match at.verdict(here, Some(&there), &soon) {
            Same::Unknown(text) => text,
            other => panic!("{other:?}"),
        };
        let (silent, missing) = (look(Err(text.to_owned())), look(Ok("/nothing/is/here".into())));
        assert_eq!(said(&silent, Ok("/srv/a".into())), format!("cannot be looked at here: {text}"));
        assert_eq!(said(&missing, Err(text.to_owned())), format!("cannot be found in that pool on node2: {text}"));
    }
}
