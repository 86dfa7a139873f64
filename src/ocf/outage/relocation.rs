//! `outage_policy=relocate`: a guest is given up on this node only if another one is known to read its disks, and Pacemaker would run it there.
//!
//! What nobody can read is nobody's to run: a paused guest loses nothing by waiting, and one that was given up for nothing boots. How another
//! node proves that it reads the disks: [`preflight::marks`]. What makes Pacemaker leave this node is that the start here, which it tries first if it
//! likes, fails for the disk before libvirt is asked for the guest, and after a failed start it goes elsewhere: [`super::readable`].

use super::shown::{ONCE_IN, attribute, is_lately, leaving};
use super::turn::Turn;
use super::{alone, instead};
use crate::cluster::cib::Cib;
use crate::cluster::scheduler::{self, Operation};
use crate::cluster::view::View;
use crate::cluster::{self, tool::Trouble};
use crate::deadline::{Deadline, unix_time};
use crate::domain::definition::Identity;
use crate::domain::emulator::Emulator;
use crate::domain::evidence;
use crate::domain::migration::preflight::marks::{Doubt, Marks};
use crate::domain::migration::preflight::{self, Subject};
use crate::domain::{Connection, Definition, Error, Kind};
use crate::log;
use crate::ocf::known::STATE_DIRECTORY;
use crate::ocf::{Call, route};
use crate::storage::Item;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How long the other nodes may take, Pacemaker's own answers included.
const ASKING: Duration = Duration::from_secs(8);

/// What is kept of it for noting in the cluster what came out.
const NOTING: Duration = Duration::from_secs(1);

/// Why a guest stays where it is.
pub(super) enum Stays {
    /// A sentence that stays the same as long as its cause does.
    Because(String),
    /// Another guest of this node is looked after; what was said before stands.
    NotYet,
}

impl From<&str> for Stays {
    fn from(text: &str) -> Self {
        Self::Because(text.into())
    }
}

impl From<String> for Stays {
    fn from(text: String) -> Self {
        Self::Because(text)
    }
}

/// A node that would be better for a guest than this one. Until it is announced or let go of no other guest of this node has its turn.
pub(super) struct Candidate<'a> {
    node: String,
    here: &'a str,
    resource: &'a str,
    turn: Turn,
    deadline: Deadline,
}

impl Call {
    /// The node that reads the disks of a guest, of which this one is out here, and where Pacemaker would run it. Asks, and changes nothing in the
    /// cluster.
    ///
    /// # Errors
    /// Why it stays here.
    pub(super) fn candidate(&self, identity: &Identity, out: &Item) -> Result<Candidate<'_>, Stays> {
        let (Some(here), Some(resource)) = (&self.environment.node, &self.environment.instance) else {
            return Err("Pacemaker has not called this".into());
        };
        if !self.reaches_others() {
            return Err("the other nodes cannot be asked for its disks, migration_transport is not set".into());
        }
        let marks = self.marks()?;
        let limit = || self.deadline.share(ASKING, 2);
        if !marks.know(out) {
            return Err(format!("{out} was another disk when words were left beside its disks").into());
        }
        if let Some(folder) = marks.read_here(out, &limit()) {
            return Err(format!("{} is read here, so it would be no better elsewhere", folder.display()).into());
        }
        let mut turn = Turn::take(Path::new(STATE_DIRECTORY), ONCE_IN.cast_signed(), &limit()).ok_or(Stays::NotYet)?;
        let deadline = limit();
        let view = View::query(&deadline).map_err(instead("Pacemaker does not say how the cluster is"))?;
        alone::is_here(&view, here, resource)?;
        // It could not be ended, and this node would be fenced for it.
        let emulators = evidence::find(identity, None, &deadline).map_err(instead("its emulator cannot be looked at"))?;
        if emulators.iter().any(Emulator::hangs) {
            return Err("its emulator hangs in the kernel, and could not be ended".into());
        }
        let cib = Cib::query(&deadline).map_err(instead("Pacemaker does not say how it is configured"))?;
        if is_lately(&cib, resource, unix_time()) {
            return Err(format!("it was relocated less than {} min ago", ONCE_IN / 60).into());
        }
        let leaving = leaving(&cib, here, turn.given_up(), unix_time());
        let others: Vec<&str> = view.online().filter(|node| node != here).collect();
        if others.is_empty() {
            return Err("there is no other node".into());
        }
        let nowhere = "Pacemaker would not run it on another node";
        // The time for the note.
        let soon = deadline.before(NOTING);
        let would_run =
            |bans: &[&str]| place(&cib, resource, bans, &leaving, &soon).map_err(instead("Pacemaker does not say where it would run it"));
        // Asked first too: a word that was read once is no news the next time.
        would_run(&[here])?.ok_or(nowhere)?;
        let doubts = self.ask_all(identity, &marks, &others, &mut turn, &soon);
        let mut reads = others.iter().filter(|node| !doubts.contains_key(**node));
        if reads.clone().next().is_none() {
            // Some are the same for all nodes.
            let doubts: BTreeSet<String> = doubts.into_values().collect();
            return Err(doubts.into_iter().collect::<Vec<_>>().join(", ").into());
        }
        let bans: Vec<&str> = doubts.keys().map(String::as_str).chain([here.as_str()]).collect();
        let node = would_run(&bans)?.ok_or_else(|| format!("{nowhere} that reads its disks"))?;
        if !reads.any(|known| *known == node) {
            return Err(format!("{node} is not known to read its disks").into());
        }
        Ok(Candidate { node, here, resource, turn, deadline })
    }

    /// Notes in the cluster, and for the other guests of this node, that the guest is given up for this candidate; which that is.
    ///
    /// # Errors
    /// Why it stays here.
    pub(super) fn announce(&self, mut to: Candidate) -> Result<String, Stays> {
        let (name, time) = (attribute(to.resource), unix_time().to_string());
        match cluster::set_attribute(to.here, &name, Some(&time), &to.deadline) {
            // It may have been heard all the same, and would keep the guest here.
            Ok(()) | Err(Trouble::Silent(_)) => {}
            Err(error) => return Err(instead("that it is relocated cannot be noted in the cluster")(error).into()),
        }
        to.turn.note_given_up(to.resource);
        Ok(to.node)
    }

    /// Asks these nodes side by side. Returns, of each that cannot take the guest, the reason.
    fn ask_all(
        &self,
        identity: &Identity,
        marks: &Marks,
        nodes: &[&str],
        turn: &mut Turn,
        deadline: &Deadline,
    ) -> BTreeMap<String, String> {
        // What the scheduler is asked afterwards takes a moment.
        let limit = deadline.before_part(4);
        let (left_alone, asked): (Vec<&str>, Vec<&str>) = nodes.iter().partition(|node| turn.leaves_alone(node));
        let quiet = |node: &str| format!("{node} gives no answer about its disks");
        let mut doubts: BTreeMap<String, String> = left_alone.iter().map(|node| ((*node).to_owned(), quiet(node))).collect();
        let here = Connection::open(&self.parameters.hypervisor.to_string(), &limit);
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
        if let Some(item) = marks.lack(&definition.xml) {
            let text = format!("{item} was not there when words were left beside its disks");
            return nodes.iter().map(|node| ((*node).to_owned(), text.clone())).collect();
        }
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
                    Some(Ok(())) => turn.note_answer(&node),
                    Some(Err(Doubt::Unproven(text))) => drop(doubts.insert(node, text)),
                    Some(Err(Doubt::Silent(text))) => {
                        let alone = turn.note_silent(&node);
                        log::warning(format_args!("{text}; it is not asked again for {} min", alone / 60));
                        doubts.insert(node.clone(), quiet(&node));
                    }
                    None => drop(doubts.insert(node.clone(), format!("{node} could not be asked"))),
                }
            }
        });
        doubts
    }

    fn ask(&self, subject: &Subject, marks: &Marks, node: &str, deadline: &Deadline) -> Result<(), Doubt> {
        let unreached = |error: Error| {
            log::debug(|| error.text);
            Doubt::Unproven(format!("{node} is not reached"))
        };
        let there = Connection::open(&route::remote(self, node), &deadline.before_part(2)).map_err(unreached)?;
        marks.read_by(&there, node, deadline)?;
        let plan = route::plan_for(self, node, deadline);
        let plan = plan.map_err(|unfound| Doubt::Unproven(format!("{node}: {}", unfound.text)))?;
        preflight::of_start(subject, &plan, &there, deadline).map_or(Ok(()), |text| Err(Doubt::Unproven(format!("{node}: {text}"))))
    }
}

/// Where Pacemaker would run the resource if it could not run on these nodes, and those that are on their way could not where they were.
fn place(
    cib: &Cib,
    resource: &str,
    bans: &[&str],
    leaving: &BTreeSet<(String, String)>,
    deadline: &Deadline,
) -> Result<Option<String>, Trouble> {
    let bans = bans.iter().map(|node| (resource, *node));
    let all: BTreeSet<(&str, &str)> = leaving.iter().map(|(resource, node)| (resource.as_str(), node.as_str())).chain(bans).collect();
    let steps = scheduler::plan_for(&cib.with_bans(all), deadline)?;
    let of = |operation: Operation| steps.iter().find(|step| step.resource.as_deref() == Some(resource) && step.operation == operation);
    Ok(of(Operation::MigrateFrom).or_else(|| of(Operation::Start)).map(|step| step.node.clone()))
}
