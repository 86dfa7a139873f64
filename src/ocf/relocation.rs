//! `outage_policy=relocate`: a guest is given up on this node only if another one is known to read its disks, and Pacemaker would run it there.
//!
//! What nobody can read is nobody's to run: a paused guest loses nothing by waiting, and one that was given up for nothing boots. How another
//! node proves that it reads the disks: [`marks`]. What makes Pacemaker leave this node is that the start here, which it tries first if it
//! likes, fails for the disk before anything is begun, and after a failed start it goes elsewhere (`start-failure-is-fatal`).

use super::outage::Look;
use super::{Call, alone, moving};
use crate::cluster::cib::Cib;
use crate::cluster::scheduler;
use crate::cluster::view::View;
use crate::cluster::{self, tool::Trouble};
use crate::deadline::{Deadline, seconds_since_boot, unix_time};
use crate::domain::definition::Identity;
use crate::domain::migration::preflight::marks::{Doubt, Marks};
use crate::domain::migration::preflight::{self, Subject};
use crate::domain::{Connection, Definition, Error, Kind};
use crate::log;
use crate::ocf::exit::Failure;
use crate::ocf::parameters::OutagePolicy;
use crate::storage::finding;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// The note beside the state file.
const NOTE: &str = "marks";

/// After so many seconds the words beside the disks are written anew: the guest may have got other disks, and somebody may have tidied up.
const RENEWED: i64 = 3600;

/// After so many seconds it is tried again, where that failed.
const AGAIN: i64 = 300;

/// How long leaving them may take, and taking them away.
const LEAVING: Duration = Duration::from_secs(4);

/// How long the other nodes may take, Pacemaker's own answers included.
const ASKING: Duration = Duration::from_secs(8);

/// In how many seconds a guest is given up once at most, on whatever node.
const ONCE_IN: u64 = 600;

/// For how many seconds a node is not asked any more that gave no answer: a question that hangs in its storage keeps one of libvirtd's
/// few workers (`max_workers`).
const LEFT_ALONE: i64 = 600;

/// The words beside the disks.
#[derive(Default, Serialize, Deserialize)]
struct Note {
    /// When they were left, or that was tried, in seconds since boot.
    at: i64,
    marks: Option<Marks>,
    /// That has failed the last time.
    failed: bool,
}

/// Which nodes gave no answer, and when.
pub(super) type Silent = BTreeMap<String, i64>;

impl Call {
    /// Leaves words beside the disks of a guest that runs here, if another node may have to be asked for them.
    pub(super) fn leave_marks(&self, name: &str) {
        if self.parameters.outage_policy != OutagePolicy::Relocate || self.environment.probe || self.environment.instance.is_none() {
            return;
        }
        let (shelf, now) = (self.shelf(), seconds_since_boot());
        let before = shelf.note(NOTE).and_then(|text| serde_json::from_slice::<Note>(&text).ok()).unwrap_or_default();
        let patience = if before.marks.as_ref().is_some_and(|marks| !marks.incomplete) && !before.failed { RENEWED } else { AGAIN };
        if before.at > 0 && (0..patience).contains(&(now - before.at)) {
            return;
        }
        let note = match self.new_marks(name, &self.deadline.within(LEAVING.min(self.deadline.left() / 3))) {
            Ok(marks) => Note { at: now, marks: Some(marks), failed: false },
            Err(text) => {
                log::warning(format_args!("no other node can be asked for the disks of {name} later: {text}"));
                Note { at: now, failed: true, ..before }
            }
        };
        shelf.write_note(NOTE, &serde_json::to_vec(&note).unwrap_or_default());
    }

    fn new_marks(&self, name: &str, deadline: &Deadline) -> Result<Marks, String> {
        let here = Connection::open(&self.hypervisor.to_string(), deadline).map_err(|error| error.text)?;
        let definition = Definition::running(&here, name, deadline).map_err(|error| error.text)?.ok_or("it is gone")?;
        let findings = finding::look(&definition.xml, &|pool, volume| here.volume(pool, volume, deadline), deadline);
        Marks::leave(&findings, &self.parameters.config, &definition.identity, deadline)
    }

    fn marks(&self) -> Option<Marks> {
        self.shelf().note(NOTE).and_then(|text| serde_json::from_slice::<Note>(&text).ok())?.marks
    }

    /// Takes the words away again, of a guest that was proven gone.
    pub(super) fn take_marks(&self) {
        if let Some(marks) = self.marks() {
            marks.take(&self.deadline.within(LEAVING.min(self.deadline.left() / 2)));
        }
    }

    /// The node that reads the disks of a guest whose storage is out here, and where Pacemaker would run it.
    ///
    /// # Errors
    /// Why it stays here: a sentence that stays the same as long as its cause does.
    pub(super) fn better_node(&self, identity: &Identity, silent: &mut Silent) -> Result<String, String> {
        let (Some(here), Some(resource)) = (&self.environment.node, &self.environment.instance) else {
            return Err("Pacemaker has not called this".into());
        };
        if !self.reaches_others() {
            return Err("the other nodes cannot be asked for its disks, migration_transport is not set".into());
        }
        let marks =
            self.marks().ok_or("no word was left beside its disks while they could be read, by which another node could be asked")?;
        let deadline = self.deadline.within(ASKING.min(self.deadline.left() / 2));
        if let Some(folder) = marks.read_here(&deadline) {
            return Err(format!("{} is read here, so it would be no better elsewhere", folder.display()));
        }
        let view = View::query(&deadline).map_err(|_| "Pacemaker does not say how the cluster is")?;
        alone::is_here(&view, here, resource)?;
        let cib = Cib::query(&deadline).map_err(|_| "Pacemaker does not say how it is configured")?;
        if is_lately(&cib, resource, unix_time()) {
            return Err(format!("it was relocated less than {} min ago", ONCE_IN / 60));
        }
        let others: Vec<&str> = view.online().filter(|node| node != here).collect();
        if others.is_empty() {
            return Err("there is no other node".into());
        }
        let nowhere = "Pacemaker would not run it on another node";
        let would_run = |bans: &[&str]| place(&cib, resource, bans, &deadline).map_err(|_| "Pacemaker does not say where it would run it");
        // Asked first too: a word that was read once is no news the next time.
        would_run(&[here])?.ok_or(nowhere)?;
        let doubts = self.ask_all(identity, &marks, &others, silent, &deadline);
        let mut reads = others.iter().filter(|node| !doubts.contains_key(**node));
        if reads.clone().next().is_none() {
            return Err(doubts.into_values().collect::<Vec<_>>().join(", "));
        }
        let bans: Vec<&str> = doubts.keys().map(String::as_str).chain([here.as_str()]).collect();
        let node = would_run(&bans)?.ok_or_else(|| format!("{nowhere} that reads its disks"))?;
        if !reads.any(|known| *known == node) {
            return Err(format!("{node} is not known to read its disks"));
        }
        let (name, time) = (attribute(resource), unix_time().to_string());
        cluster::set_attribute(here, &name, Some(&time), &deadline).map_err(|_| "that it is relocated cannot be noted in the cluster")?;
        Ok(node)
    }

    /// Asks these nodes at once; why those are no place for the guest that are none.
    fn ask_all(
        &self,
        identity: &Identity,
        marks: &Marks,
        nodes: &[&str],
        silent: &mut Silent,
        deadline: &Deadline,
    ) -> BTreeMap<String, String> {
        // What the scheduler is asked afterwards takes a moment.
        let (limit, now) = (deadline.before(deadline.left() / 4), seconds_since_boot());
        silent.retain(|_, since| (0..LEFT_ALONE).contains(&(now - *since)));
        let (left_alone, asked): (Vec<&str>, Vec<&str>) = nodes.iter().partition(|node| silent.contains_key(**node));
        let quiet = |node: &str| format!("{node} gives no answer about its disks");
        let mut doubts: BTreeMap<String, String> = left_alone.iter().map(|node| ((*node).to_owned(), quiet(node))).collect();
        let here = Connection::open(&self.hypervisor.to_string(), &limit);
        let running = here.and_then(|here| {
            let definition = Definition::running(&here, &identity.name, &limit)?;
            definition.map(|definition| (here, definition)).ok_or_else(|| Error::new(Kind::State, format!("{} is gone", identity.name)))
        });
        let (here, definition) = match running {
            Ok(running) => running,
            Err(error) => {
                log::debug(|| error.text);
                return nodes.iter().map(|node| ((*node).to_owned(), "libvirt does not say what it needs".to_owned())).collect();
            }
        };
        let subject = Subject { identity, definition: &definition, here: &here };
        thread::scope(|scope| {
            let subject = &subject;
            let start = |node: &&str| {
                let node = (*node).to_owned();
                let name = node.clone();
                (node, thread::Builder::new().spawn_scoped(scope, move || self.ask(subject, marks, &name, &limit)).ok())
            };
            let begun: Vec<_> = asked.iter().map(start).collect();
            for (node, look) in begun {
                match look.and_then(|look| look.join().ok()) {
                    Some(Ok(())) => {}
                    Some(Err(Doubt { text, silent: false })) => drop(doubts.insert(node, text)),
                    Some(Err(Doubt { text, silent: true })) => {
                        log::warning(format_args!("{text}; it is not asked again for {} min", LEFT_ALONE / 60));
                        doubts.insert(node.clone(), quiet(&node));
                        silent.insert(node, now);
                    }
                    None => drop(doubts.insert(node.clone(), format!("{node} could not be asked"))),
                }
            }
        });
        doubts
    }

    fn ask(&self, subject: &Subject, marks: &Marks, node: &str, deadline: &Deadline) -> Result<(), Doubt> {
        let doubt = |text: String| Doubt { text, silent: false };
        let unreached = |_| doubt(format!("{node} is not reached"));
        let there = Connection::open(&moving::remote(self, node), &deadline.before(deadline.left() / 2)).map_err(unreached)?;
        marks.read_by(&there, node, deadline)?;
        let plan = moving::plan_for(self, node, deadline);
        let plan = plan.map_err(|failure| doubt(format!("{node}: {}", failure.reason.unwrap_or_default())))?;
        preflight::of_start(subject, &plan, &there, deadline).map_or(Ok(()), |text| Err(doubt(format!("{node}: {text}"))))
    }

    /// Refuses the start of a guest whose disks this node does not read, before anything is begun: so Pacemaker goes on to another.
    pub(super) fn insist_on_storage(&self, definition: &Definition) -> Result<(), Failure> {
        if self.parameters.outage_policy != OutagePolicy::Relocate {
            return Ok(());
        }
        let deadline = self.deadline.within(LEAVING.min(self.deadline.left() / 3));
        let Ok(here) = Connection::open(&self.hypervisor.to_string(), &deadline) else { return Ok(()) };
        match self.look_at(&here, &definition.xml, &deadline) {
            (Look::Out, Some(text)) => Err(Failure::generic(format!("start of {} refused: {text}", definition.identity.name))),
            _ => Ok(()),
        }
    }
}

/// The node attribute that says when this resource was relocated from there, in seconds since 1970.
fn attribute(resource: &str) -> String {
    format!("kvmha-relocated-{resource}")
}

/// Whether it was relocated from any node within [`ONCE_IN`], as far as the nodes' clocks agree.
fn is_lately(cib: &Cib, resource: &str, now: u64) -> bool {
    let name = attribute(resource);
    let times = cib.transient(&name).into_iter().filter(|(_, known, _)| *known == name).filter_map(|(.., time)| time.parse::<u64>().ok());
    times.max().is_some_and(|time| now.abs_diff(time) < ONCE_IN)
}

/// Where Pacemaker would run the resource if it could not run on these nodes.
fn place(cib: &Cib, resource: &str, bans: &[&str], deadline: &Deadline) -> Result<Option<String>, Trouble> {
    let steps = scheduler::plan_for(&cib.with_bans(resource, bans), deadline)?;
    let of = |operation: &str| steps.iter().find(|step| step.resource.as_deref() == Some(resource) && step.operation == operation);
    Ok(of("migrate_from").or_else(|| of("start")).map(|step| step.node.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_while() {
        let text = |value: &str| {
            let pair = |name: &str| format!("<nvpair id='{name}' name='{name}' value='{value}'/>");
            let pairs = [pair("kvmha-relocated-vm1"), pair("kvmha-relocated-vm10"), pair("kvmha-outage-vm1")].concat();
            format!("<cib><status><node_state uname='n1'><transient_attributes>{pairs}</transient_attributes></node_state></status></cib>")
        };
        let lately = |value: &str, resource: &str| is_lately(&Cib::parse(text(value)).unwrap(), resource, 10_000);
        assert!(lately("9900", "vm1") && lately("10100", "vm1"), "a clock may be ahead");
        assert!(!lately("9000", "vm1") && !lately("", "vm1") && !lately("9900", "vm2") && !lately("9900", "vm"));
    }
}
