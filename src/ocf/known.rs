//! What a call knows of its guest: from the state file, from the definition, or by guessing.

use super::Call;
use super::actions::Action;
use crate::cluster;
use crate::cluster::cib::{Cib, Part};
use crate::cluster::view::View;
use crate::deadline::Deadline;
use crate::domain::definition::{Definition, Identity};
use crate::domain::emulator::Emulator;
use crate::domain::record::{Record, Shelf};
use crate::domain::rings::Outliving;
use crate::domain::status::{self, Place, Sight};
use crate::domain::{Error, Kind, creation, evidence, migration, twin};
use crate::log;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// This agent, as Pacemaker calls it.
const AGENT: &str = "ocf:kvmha:VirtualDomain";

/// How long what libvirt would do with a guest by itself is looked at when this resource first sees it.
const TAKING_OVER: Duration = Duration::from_secs(3);

/// How long libvirt may take to notice that an emulator has ended.
const NOTICING: Duration = Duration::from_millis(500);

/// How long the target of a move whose end nobody saw is asked whether the guest has come.
const ARRIVAL: Duration = Duration::from_secs(3);

/// Where the state files are: below `/run`, so that they end with the boot, as the guests do.
pub(super) const STATE_DIRECTORY: &str = "/run/kvmha";

impl Call {
    /// The id of this resource in the cluster.
    pub(super) fn resource(&self) -> Option<&str> {
        self.environment.instance.as_deref().map(cluster::resource_of)
    }

    /// Where this resource's state file is.
    pub(super) fn shelf(&self) -> Shelf {
        let instance = self.environment.instance.as_deref().unwrap_or("default");
        #[cfg(test)]
        if let Some(directory) = crate::simulation::state_directory() {
            return Shelf::new(&directory, instance);
        }
        Shelf::new(Path::new(STATE_DIRECTORY), instance)
    }

    /// Whether the parameters say how to reach the libvirt of other nodes.
    pub(super) fn reaches_others(&self) -> bool {
        self.parameters.migration_transport.is_some() || self.parameters.remoteuri.is_some()
    }

    /// What was seen last of this resource's guest. A resource that has a name has its state file to itself, whatever its parameters
    /// were when it was written; calls without one share theirs, so there the parameters must be the same.
    pub(super) fn record(&self) -> Option<Record> {
        let named = self.environment.instance.is_some();
        self.shelf().read().filter(|record| named || self.is_of_these_parameters(record))
    }

    /// Whether it was written by a call with the `config` and `hypervisor` of this one.
    fn is_of_these_parameters(&self, record: &Record) -> bool {
        record.config == self.parameters.config && record.hypervisor == self.parameters.hypervisor.to_string()
    }

    /// A record of a guest under this call's parameters.
    pub(super) fn new_record(&self, identity: &Identity) -> Record {
        Record::new(self.parameters.config.clone(), &self.parameters.hypervisor.to_string(), identity)
    }

    /// The resource that has this guest now: one that has seen it run here, and that Pacemaker says is here and runs it, while this one is not
    /// in its configuration any more. So it is when a resource gets another name in maintenance mode: Pacemaker then stops what is left of the
    /// old one. A move or a start of this one's that is not settled has to be seen to by its stop.
    pub(super) fn heir(&self, identity: &Identity) -> Option<String> {
        let (instance, node) = (self.environment.instance.as_deref()?, self.environment.node.as_deref()?);
        let sharers = self.shelf().sharers(identity);
        if sharers.is_empty() || self.record().is_some_and(|record| record.moving.is_some() || record.creating) {
            return None;
        }
        let view = View::query(&self.deadline.part(4)).ok()?;
        let cib = Cib::query_part(Part::Resources, &self.deadline.part(4)).ok()?;
        sharers.into_iter().find(|other| has_passed(&view, &cib, node, instance, other))
    }

    /// Writes the state file if what was seen is news.
    pub(super) fn remember(&self, identity: &Identity, sight: &Sight) {
        let uuid = match sight {
            Sight::Libvirt { uuid, .. } => Some(uuid.clone()),
            Sight::Process { .. } => identity.uuid.clone(),
        };
        let seen = Identity { name: identity.name.clone(), uuid };
        let glance = matches!(self.action, Action::Monitor | Action::Status);
        if self
            .record()
            .is_some_and(|record| record.is_current(&seen) && (self.is_of_these_parameters(&record) || glance && !record.guessed))
        {
            return;
        }
        // What is noted counts as this guest's own from then on, and that only its UUID speaks for it is not enough for that.
        if let Sight::Process { emulator, .. } = sight
            && twin::has_another_name(*emulator, &seen.name, &self.part())
        {
            return;
        }
        // What was begun is settled by a guest that is seen to run, or by the action that began it, not by a glance in between.
        let old = self.record().filter(|record| record.name == seen.name);
        let runs = matches!(sight, Sight::Libvirt { condition, .. } if condition.runs());
        let creating = !runs && old.as_ref().is_some_and(|record| record.creating);
        let restoring = creating && old.as_ref().is_some_and(|record| record.restoring);
        let guessed = old.as_ref().is_some_and(|record| record.guessed);
        // What a start of its own has created, that start has seen to.
        let taken_over = !guessed && !old.as_ref().is_some_and(|record| record.creating);
        let is_first = old.is_none();
        let before = old.as_ref().and_then(|record| record.pid.map_or(record.seen, |_| Some(true)));
        // The parameters too are those under which it was started or has come, and not what is written in the configuration meanwhile.
        let new = self.new_record(&seen);
        let (config, hypervisor) = match old.as_ref().filter(|record| glance && !record.guessed) {
            Some(record) => (record.config.clone(), record.hypervisor.clone()),
            None => (new.config.clone(), new.hypervisor.clone()),
        };
        let moving = old.filter(|_| glance).and_then(|record| record.moving);
        // Where none was seen nothing is known of its rings and AIO.
        let looked = evidence::find(&seen, None, &self.part());
        let emulator = looked.as_ref().ok().and_then(|found| found.first().copied());
        let was_seen = match emulator {
            Some(_) => Some(true),
            None if before.is_none() && runs && looked.is_ok() => self.is_out_of_sight(&seen).then_some(false),
            None => before,
        };
        let outliving = emulator.map_or(Outliving::UNKNOWN, Outliving::of);
        let (pid, start) = (emulator.map(|emulator| emulator.pid), emulator.map(|emulator| emulator.start));
        self.shelf().write(&Record {
            config,
            hypervisor,
            pid,
            start,
            seen: was_seen,
            creating,
            restoring,
            guessed,
            moving,
            outliving,
            ..new
        });
        // Without an emulator that shows itself what is noted is news at each monitor, and none of them is to load libvirt for this.
        if taken_over
            && (is_first || emulator.is_some())
            && matches!(sight, Sight::Libvirt { .. })
            && let Err(error) = creation::take_over(&seen, &self.parameters.hypervisor, &self.deadline.share(TAKING_OVER, 4))
        {
            log::warning(format_args!("whether this host would start {} by itself is not known: {error}", seen.name));
        }
    }

    /// Whether libvirt goes on to say that a guest runs of which no emulator is found: one that has just ended it may list for a moment yet.
    fn is_out_of_sight(&self, identity: &Identity) -> bool {
        let runs =
            || status::ask(identity, &self.parameters.hypervisor, &self.part()).is_ok_and(|word| word.is_some_and(|(seen, _)| seen.runs()));
        let unseen = || evidence::find(identity, None, &self.part()).is_ok_and(|found| found.is_empty());
        self.deadline.again(NOTICING) && runs() && unseen()
    }

    /// Forgets a move from here whose end nobody saw, if the guest, which is not here, has come to its target whole. What stands in the way
    /// of a start, or what a probe elsewhere finds, is the cluster's by then: a stop here, whenever it comes, must not end it.
    ///
    /// Right after a move that failed neither is called before the stop that has to end what has arrived.
    pub(super) fn forget_arrived(&self, identity: &Identity) {
        let Some(record) = self.record().filter(|record| record.name == identity.name) else { return };
        let Some(uri) = &record.moving else { return };
        if migration::has_arrived(&record.identity(), uri, &self.deadline.share(ARRIVAL, 4)) {
            log::info(format_args!("{} has come to {uri}, the move from here is over", record.name));
            self.shelf().write(&Record { moving: None, ..record });
        }
    }

    /// Where something stands about this resource.
    pub(super) fn place(&self) -> Place {
        self.place_of(&self.parameters.config)
    }

    /// Like [`Self::place`], but of the guest that this definition names.
    pub(super) fn place_of(&self, config: &Path) -> Place {
        Place { config: config.to_owned(), shelf: self.shelf() }
    }

    /// Whether Pacemaker's configuration now has another `config` or `hypervisor` than this call was given, so that the given ones are old.
    /// `false` if Pacemaker cannot be asked.
    pub(super) fn was_reconfigured(&self) -> bool {
        self.newer_parameters().is_some()
    }

    /// The parameters of Pacemaker's configuration, if those that are given are old.
    pub(super) fn newer_parameters(&self) -> Option<BTreeMap<String, String>> {
        let id = self.resource()?;
        let configured = Cib::query_part(Part::Resources, &self.part()).ok()?.resource(id)?.parameters;
        let hypervisor = |parameters: &BTreeMap<String, String>| parameters.get("hypervisor").cloned().unwrap_or("qemu:///system".into());
        let given = &self.environment.parameters;
        let other = configured.get("config") != given.get("config") || hypervisor(&configured) != hypervisor(given);
        other.then_some(configured)
    }

    /// A part of the time, for what is only written down: a process that does not show its command line must not take it all.
    pub(super) fn part(&self) -> Deadline {
        self.deadline.part(4)
    }

    /// Notes that the guest that was found was told by its name only.
    pub(super) fn note_guess(&self, guess: &Identity) {
        if self.record().is_none() {
            self.shelf().write(&Record { guessed: true, ..self.new_record(guess) });
        }
    }

    /// Whether a guest is this resource's by more than a guess: it was seen, or the definition says so.
    pub(super) fn is_sure(&self, identity: &Identity) -> bool {
        self.record().is_some_and(|record| record.name == identity.name && !record.guessed)
            || self.definition().is_ok_and(|definition| definition.identity.name == identity.name)
    }

    /// The record with what the guest's emulator shows before it is ended; written if it has a ring or AIO, which cannot be seen any
    /// more later.
    pub(super) fn with_rings(&self, record: Record) -> Record {
        let known = record.outliving;
        if known == (Outliving { rings: Some(true), aio: Some(true) }) {
            return record;
        }
        let trace = record.trace().of(self.place());
        let found = twin::find(&trace, &self.parameters.hypervisor, &self.part()).unwrap_or_default();
        // One that was seen without has nothing that could outlive it.
        let look = |emulator: Emulator| (emulator, known.or(Outliving::NONE).with(emulator));
        let seen: Vec<(Emulator, Outliving)> = found.into_iter().map(look).collect();
        let Some(outliving) = seen.iter().map(|(_, outliving)| *outliving).reduce(Outliving::union) else { return record };
        let record = Record { outliving, ..record };
        let news = |of: fn(&Outliving) -> Option<bool>| seen.iter().find(|(_, seen)| of(&known) != Some(true) && of(seen) == Some(true));
        let Some((emulator, _)) = news(|one| one.rings).or_else(|| news(|one| one.aio)) else { return record };
        let record = Record { pid: Some(emulator.pid), start: Some(emulator.start), ..record };
        self.shelf().write(&record);
        record
    }

    /// The definition, read in a part of the time: on storage that hangs, the rest is for what can be done without it.
    pub(super) fn definition(&self) -> Result<Definition, Error> {
        self.definition_within(self.deadline.left())
    }

    /// Like [`Self::definition`], in `limit` at most.
    pub(super) fn definition_within(&self, limit: Duration) -> Result<Definition, Error> {
        self.definition_of(&self.parameters.config, limit)
    }

    /// Like [`Self::definition_within`], but of another path.
    pub(super) fn definition_of(&self, config: &Path, limit: Duration) -> Result<Definition, Error> {
        if config.as_os_str().is_empty() {
            return Err(Error::new(Kind::Definition, "config: no usable path"));
        }
        #[cfg(test)]
        if crate::simulation::is_on() {
            return Definition::parse(config, crate::simulation::world(|world| world.written()).into_bytes());
        }
        Definition::read(config, &self.deadline.share(limit, 4))
    }

    /// The guests that this resource may mean when the state file does not say, nor the definition, because of `error`: the one that the definition
    /// names if it is there and not understood, and those named like its file or like the resource; none that is known to be another resource's.
    ///
    /// By their names alone: a UUID may be that of the guest whose definition was copied, and which is told from this one by the whole of it
    /// (see [`twin`]).
    pub(super) fn guesses(&self, error: &Error) -> Vec<Identity> {
        let limit = self.deadline.share(self.deadline.left(), 4);
        let written = (error.kind == Kind::Definition).then(|| Definition::name_in(&self.parameters.config, &limit)).flatten();
        // As it was given: a relative path is refused as a value, but is still a hint.
        let stem = self.environment.parameters.get("config").map(Path::new).and_then(Path::file_stem);
        let stem = stem.map(|stem| stem.to_string_lossy().into_owned());
        let others = self.shelf().others();
        let mut names: Vec<String> = Vec::new();
        for name in [written, stem, self.environment.instance.clone()].into_iter().flatten() {
            if !names.contains(&name) && others.iter().all(|other| other.name != name) {
                names.push(name);
            }
        }
        names.into_iter().map(|name| Identity { name, uuid: None }).collect()
    }

    /// Whether this host runs a guest that no other resource is known to have: it may be this one's.
    ///
    /// A side question, which has a part of the time: an emulator that does not show whose it is would take all of it, and what the action is
    /// there for would not even begin.
    pub(super) fn has_strangers(&self) -> Result<bool, Error> {
        evidence::any_but(&self.shelf().others(), &self.part())
    }
}

/// Whether Pacemaker has the resource `new` on this node, and no resource `old` any more.
fn has_passed(view: &View, cib: &Cib, node: &str, old: &str, new: &str) -> bool {
    let gone = cib.resource(cluster::resource_of(old)).is_none();
    let here = view.resource(new).is_some_and(|placed| placed.nodes == [node] && placed.agent == AGENT);
    gone && here && cib.resource(new).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::Placed;

    #[test]
    fn a_guest_is_only_left_to_who_has_it() {
        let primitive = |id: &str| format!("<primitive id='{id}' class='ocf' provider='kvmha' type='VirtualDomain'/>");
        let cib = |ids: &[&str]| {
            let all: String = ids.iter().map(|id| primitive(id)).collect();
            Cib::parse(format!("<cib><configuration><resources>{all}</resources></configuration></cib>")).unwrap()
        };
        let view = |agent: &str, nodes: &[&str]| View {
            controller: None,
            quorum: true,
            maintenance: false,
            fencing: true,
            nodes: Vec::new(),
            resources: vec![Placed {
                id: "new".into(),
                agent: agent.into(),
                role: "Started".into(),
                managed: true,
                failed: false,
                blocked: false,
                pending: None,
                nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            }],
            failures: Vec::new(),
        };
        let (here, renamed) = (view(AGENT, &["node1"]), cib(&["new"]));
        assert!(has_passed(&here, &renamed, "node1", "old", "new") && has_passed(&here, &renamed, "node1", "old:0", "new"));
        assert!(!has_passed(&here, &cib(&["old", "new"]), "node1", "old", "new"), "the old one is still configured");
        assert!(!has_passed(&here, &cib(&["old", "new"]), "node1", "old:0", "new"), "a clone's is still configured");
        assert!(!has_passed(&here, &cib(&[]), "node1", "old", "new"), "neither is configured");
        assert!(!has_passed(&here, &renamed, "node1", "old", "other"), "Pacemaker does not know it");
        for elsewhere in [&["node2"][..], &[], &["node1", "node2"]] {
            assert!(!has_passed(&view(AGENT, elsewhere), &renamed, "node1", "old", "new"), "{elsewhere:?}");
        }
        assert!(!has_passed(&view("ocf:heartbeat:VirtualDomain", &["node1"]), &renamed, "node1", "old", "new"), "another agent");
    }
}
