//! Where a guest is, or has left something: every node of the cluster is asked.

mod doubt;
mod same;

use super::Given;
use super::overview::is_guest;
use crate::cluster::cib::{Cib, Primitive};
use crate::cluster::fencing::{self, Since};
use crate::cluster::own_name;
use crate::cluster::view::{self, View};
use crate::deadline::Deadline;
use crate::domain::emulator::are_held;
use crate::domain::holding::{self, Holding};
use crate::domain::record::Record;
use crate::domain::status::{self, Presence, Sight, Trace};
use crate::domain::{Identity, evidence, files, sign};
use crate::fence::{self, Unproven};
use crate::ocf::Asked;
use anyhow::Context;
use serde::Serialize;
use std::time::Duration;

/// For Pacemaker's tools.
const PACEMAKER: Duration = Duration::from_secs(15);
/// For this node: libvirt, then the process table.
const HERE: Duration = Duration::from_secs(25);
/// For the other nodes, all side by side.
const THERE: Duration = Duration::from_secs(10);
/// For a file on shared storage.
const STORAGE: Duration = Duration::from_secs(3);
/// How old a record that a node was turned off may be: it counts only as long as the node has not come back.
const OFF: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A process that runs the guest, on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Since when, in seconds since 1970.
    pub(super) since: Option<u64>,
    /// Whether it has ended but for what keeps it in the process table.
    pub(super) ending: bool,
}

/// What there is of the guest on a node. What can only be seen on the node itself is empty for the others.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Place {
    /// The node.
    pub(super) node: String,
    /// Whether it is this one.
    pub(super) here: bool,
    /// The libvirt that was asked.
    pub(super) uri: Option<String>,
    /// Whether a copy is there, running or not; `None`: cannot be told.
    pub(super) copy: Option<bool>,
    /// State and reason of the copy.
    pub(super) state: Option<String>,
    /// Whether its CPUs run.
    pub(super) runs: bool,
    /// Whether it may be coming in by a move.
    pub(super) incoming: bool,
    /// Whether part of its memory is on another host, by post-copy.
    pub(super) postcopy: bool,
    /// Whether a migration or another job is under way.
    pub(super) busy: Option<bool>,
    /// Whether its emulator was made to stand still as a whole, as migrate_to leaves a copy that must not go on.
    pub(super) held: bool,
    /// Whether libvirt has a definition of its own.
    pub(super) defined: bool,
    /// Whether libvirt would start it with the host.
    pub(super) autostart: bool,
    /// Whether libvirt has a saved state of it.
    pub(super) saved: bool,
    /// Its processes.
    pub(super) emulators: Vec<Process>,
    /// The state file.
    pub(super) record: Option<Record>,
    /// Ends that the fence agent has not seen.
    pub(super) unproven: Vec<Unproven>,
    /// Why it cannot be asked, or not for everything.
    pub(super) trouble: Option<String>,
    /// Whether its libvirt has no copy, and that proves nothing here: only the node itself sees processes.
    pub(super) unseen: bool,
    /// Whether its URI leads to another host, so that it was not asked itself.
    pub(super) misled: bool,
    /// Since when the node is proven to be off, in seconds since 1970.
    pub(super) off: Option<u64>,
}

impl Place {
    fn learn(&mut self, held: Option<&Holding>) {
        let Some(held) = held else { return };
        (self.defined, self.autostart, self.saved) = (held.persistent, held.autostart, held.saved);
        let condition = held.condition;
        if condition.is_active() {
            (self.runs, self.incoming, self.busy) = (condition.runs(), condition.is_incoming(), held.busy);
            self.postcopy = condition.is_postcopy();
            self.state = Some(condition.to_string());
        }
    }
}

/// All of it.
#[derive(Serialize)]
pub(super) struct Whereabouts {
    /// The guest.
    pub(super) guest: String,
    /// Its UUID, if it is known.
    pub(super) uuid: Option<String>,
    /// The resource, if it is one.
    pub(super) resource: Option<String>,
    /// What Pacemaker is doing with it.
    pub(super) pending: Option<String>,
    /// Constraints that a move by hand has left.
    pub(super) constraints: Vec<String>,
    /// The nodes, this one first.
    pub(super) places: Vec<Place>,
    /// The state that stop has saved (`snapshot`), if there is one.
    pub(super) snapshot: Option<String>,
    /// What else could not be asked.
    pub(super) troubles: Vec<String>,
    #[serde(skip)]
    pub(super) asked: Asked,
    #[serde(skip)]
    pub(super) view: Option<View>,
    #[serde(skip)]
    pub(super) cib: Option<Cib>,
}

impl Whereabouts {
    /// Looks; `nodes` are asked besides those of the cluster.
    ///
    /// # Errors
    /// It is not known what guest is meant.
    pub(super) fn take(given: &Given, nodes: &[String]) -> anyhow::Result<Self> {
        let pacemaker = Deadline::after(PACEMAKER);
        let cluster = own_name(&pacemaker)
            .map_err(anyhow::Error::from)
            .and_then(|here| Ok((here, View::query(&pacemaker)?, Cib::query(&pacemaker)?)));
        let (given, resource) = meant(given, cluster.as_ref().ok().map(|(_, _, cib)| cib));
        let whose = cluster.as_ref().ok().and_then(|(_, _, cib)| resource.clone().or_else(|| defined_by(&given.what, cib)));
        let asked = given.asked("", Deadline::after(HERE)).with_context(|| match &cluster {
            Ok(_) => "it is not known what guest is meant".to_owned(),
            Err(error) => {
                format!("Pacemaker cannot be asked ({error:#}), and without it only the path of a definition says what guest is meant")
            }
        })?;
        let identity = asked.identity().context("neither a state file nor the definition says what guest is meant")?;
        let mut whereabouts = Self {
            guest: identity.name.clone(),
            uuid: identity.uuid.clone(),
            resource,
            pending: None,
            constraints: Vec::new(),
            places: Vec::new(),
            snapshot: None,
            troubles: Vec::new(),
            asked,
            view: None,
            cib: None,
        };
        // All may say truthfully that they have none of that name, while it runs under another.
        if !whereabouts.asked.is_sure(&identity) {
            let name = &identity.name;
            whereabouts.troubles.push(format!("neither a state file nor the definition says what guest is meant: {name} is a guess"));
        }
        let mut others: Vec<String> = Vec::new();
        let host = nix::sys::utsname::uname().map_or_else(|_| "here".into(), |name| name.nodename().to_string_lossy().into_owned());
        let mut name = host.clone();
        match cluster {
            Ok((here, view, cib)) => {
                let of_it = |(resource, name): (String, String)| (whereabouts.resource.as_ref() == Some(&resource)).then_some(name);
                whereabouts.constraints = cib.moves_left().into_iter().filter_map(of_it).collect();
                others.extend(view.nodes.iter().map(|node| node.name.clone()));
                name = here;
                let placed = whereabouts.resource.as_ref().and_then(|id| view.resource(id));
                whereabouts.pending = placed.and_then(|placed| placed.pending.clone()).filter(|what| !view::is_look(what));
                (whereabouts.view, whereabouts.cib) = (Some(view), Some(cib));
            }
            Err(error) => whereabouts.troubles.push(format!("Pacemaker does not say what nodes there are: {error:#}")),
        }
        others.retain(|node| *node != name);
        for node in nodes {
            let known = [&name, &host].into_iter().chain(&others).any(|known| known.eq_ignore_ascii_case(node));
            if !known {
                others.push(node.clone());
            }
        }
        whereabouts.places.push(whereabouts.look_here(&name, &identity));
        whereabouts.look_there(&others, &host, &identity);
        whereabouts.count_once(&identity);
        if let Some(id) = whose {
            whereabouts.doubt(&id);
        }
        whereabouts.look_for_saved();
        Ok(whereabouts)
    }

    /// This node, by the process table too.
    fn look_here(&self, name: &str, identity: &Identity) -> Place {
        // That of another guest says nothing about this one.
        let record = self.asked.record().filter(|record| record.name == identity.name);
        let trace = record.as_ref().map_or_else(|| Trace::from(identity.clone()), Record::trace);
        let uri = self.asked.hypervisor();
        let deadline = Deadline::after(HERE);
        let mut place = Place { node: name.to_owned(), here: true, uri: Some(uri.to_string()), record, ..Place::default() };
        match holding::everywhere(vec![(uri.to_string(), vec![identity.clone()])], &deadline.within(THERE)).pop() {
            Some(Ok(mut answers)) => match answers.pop() {
                Some(Ok(held)) => place.learn(held.as_ref()),
                Some(Err(error)) => place.trouble = Some(error.text),
                None => {}
            },
            Some(Err(error)) => place.trouble = Some(error.text),
            None => {}
        }
        let emulators = evidence::find(identity, trace.emulator, &deadline);
        match status::look(&trace, uri, &deadline) {
            Ok(Presence::Absent) => place.copy = Some(false),
            Ok(Presence::Active(sight)) => {
                place.copy = Some(true);
                if let Sight::Process { emulator, .. } = sight {
                    place.state = Some(format!("{emulator} lives"));
                }
            }
            // An emulator that libvirt does not know, for one.
            Err(error) => {
                place.copy = emulators.as_ref().is_ok_and(|found| !found.is_empty()).then_some(true);
                place.trouble = Some(error.text);
            }
        }
        let processes = emulators.unwrap_or_default();
        place.held = are_held(&processes);
        // libvirt does not know that, and may well say that it runs.
        place.runs &= !place.held;
        place.emulators =
            processes.iter().map(|found| Process { pid: found.pid, since: found.since(), ending: found.is_dying() }).collect();
        match fence::unproven(&identity.name) {
            Ok(unproven) => place.unproven = unproven,
            Err(error) => place.trouble = Some(place.trouble.map_or(error.text.clone(), |text| format!("{text}; {}", error.text))),
        }
        place
    }

    /// The others, all side by side, by their libvirts, from the host `here`.
    fn look_there(&mut self, nodes: &[String], here: &str, identity: &Identity) {
        if !self.asked.reaches_others() {
            let why = "the parameters do not say how to reach its libvirt (migration_transport or remoteuri)";
            self.places.extend(nodes.iter().map(|node| Place { node: node.clone(), trouble: Some(why.into()), ..Place::default() }));
        } else {
            let nodes: Vec<(String, String)> = nodes.iter().map(|node| (node.clone(), self.asked.remote(node))).collect();
            let not_asked = same::not_asked(&nodes, here);
            let asked = nodes.iter().zip(&not_asked).filter(|(_, why)| why.is_none());
            let questions = asked.map(|((_, uri), _)| (uri.clone(), vec![identity.clone()])).collect();
            let mut answers = holding::everywhere(questions, &Deadline::after(THERE)).into_iter();
            for ((node, uri), why) in nodes.into_iter().zip(not_asked) {
                let mut place = Place { node, uri: Some(uri), misled: why.is_some(), trouble: why, ..Place::default() };
                if let Some(answer) = (!place.misled).then(|| answers.next()).flatten() {
                    match answer.and_then(|mut answers| answers.pop().unwrap_or(Ok(None))) {
                        Ok(held) => {
                            place.copy = Some(held.as_ref().is_some_and(|held| held.condition.is_active()));
                            place.learn(held.as_ref());
                        }
                        Err(error) => place.trouble = Some(error.text),
                    }
                }
                self.places.push(place);
            }
        }
        let Some(view) = &self.view else { return };
        for place in self.places.iter_mut().filter(|place| place.copy.is_none() && !place.here) {
            if view.nodes.iter().any(|node| node.name == place.node && !node.online) {
                match fencing::off_since(&place.node, Since { seen: None, within: OFF }, &Deadline::after(PACEMAKER)) {
                    Ok(since) => (place.off, place.copy) = (Some(since), Some(false)),
                    Err(text) => place.trouble = place.trouble.take().map(|trouble| format!("{trouble}; {text}")),
                }
            }
        }
    }

    /// Before anything is said of several copies their hosts are compared: one may have answered under several names.
    fn count_once(&mut self, identity: &Identity) {
        if self.copies().len() < 2 {
            return;
        }
        let uris: Vec<Option<String>> = self.places.iter().map(|place| place.uri.clone().filter(|_| place.copy == Some(true))).collect();
        let signs = sign::everywhere(&uris, identity, &Deadline::after(THERE));
        let members: Vec<String> = self.view.iter().flat_map(|view| &view.nodes).map(|node| node.name.clone()).collect();
        self.places = same::merge(std::mem::take(&mut self.places), &signs, &members);
    }

    fn look_for_saved(&mut self) {
        let Some(file) = self.asked.saved_state(&self.guest) else { return };
        match files::look(&[&file], &Deadline::after(STORAGE)) {
            Ok(found) => self.snapshot = found.first().is_some_and(Option::is_some).then(|| file.display().to_string()),
            Err(error) => self.troubles.push(error.text),
        }
    }

    /// This node.
    pub(super) fn here(&self) -> Option<&Place> {
        self.places.iter().find(|place| place.here)
    }

    /// Which guest it is.
    pub(super) fn identity(&self) -> Identity {
        Identity { name: self.guest.clone(), uuid: self.uuid.clone() }
    }

    /// The nodes with a copy.
    pub(super) fn copies(&self) -> Vec<&Place> {
        self.places.iter().filter(|place| place.copy == Some(true)).collect()
    }

    /// Whether there may be a copy that nobody could be asked about.
    pub(super) fn is_unsure(&self) -> bool {
        self.is_unanswered() || self.places.iter().any(|place| place.copy.is_none())
    }

    /// Like [`Self::is_unsure`], if the word of each libvirt counts.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.troubles.is_empty() || self.places.iter().any(|place| place.copy.is_none() && !place.unseen)
    }
}

/// The resource that has the file as its definition.
fn defined_by(path: &str, cib: &Cib) -> Option<String> {
    let is_it = |resource: &Primitive| resource.parameters.get("config").is_some_and(|config| config == path);
    cib.resources().into_iter().filter(is_guest).find(is_it).map(|resource| resource.id)
}

/// A resource, a path, or the name of a guest: then it is the resource whose guest is called so.
fn meant(given: &Given, cib: Option<&Cib>) -> (Given, Option<String>) {
    let same = |what: String| Given { what, set: given.set.clone() };
    let Some(cib) = cib.filter(|_| !given.what.contains('/')) else { return (same(given.what.clone()), None) };
    let resources = cib.resources();
    if resources.iter().any(|resource| resource.id == given.what) {
        return (same(given.what.clone()), Some(given.what.clone()));
    }
    let deadline = Deadline::after(HERE);
    let called = resources.into_iter().filter(is_guest).find(|resource| {
        let asked = Asked::new(Some(&resource.id), &resource.parameters, "", deadline);
        asked.is_ok_and(|asked| asked.identity().is_some_and(|identity| identity.name == given.what))
    });
    match called {
        Some(resource) => (same(resource.id.clone()), Some(resource.id)),
        None => (same(given.what.clone()), None),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The guest web1 of the resource web1 at these places, with what `crm_mon` says inside of its document.
    pub(in crate::cli) fn found(said: &str, places: &[Place]) -> Whereabouts {
        let parameters = [("config", "/nowhere/web1.xml"), ("hypervisor", "qemu:///system")];
        let parameters: BTreeMap<String, String> = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let view = view::parse(&format!("<r><summary><current_dc present='false'/></summary>{said}</r>")).unwrap();
        Whereabouts {
            guest: "web1".to_owned(),
            uuid: None,
            resource: Some("web1".to_owned()),
            pending: view.resource("web1").and_then(|placed| placed.pending.clone()),
            constraints: Vec::new(),
            places: places.to_vec(),
            snapshot: None,
            troubles: Vec::new(),
            asked: Asked::new(Some("web1"), &parameters, "", Deadline::after(HERE)).unwrap(),
            view: Some(view),
            cib: Some(Cib::parse("<cib/>".to_owned()).unwrap()),
        }
    }

    /// A node of which the answer is that nothing is there; n1 is this one.
    pub(in crate::cli) fn absent(node: &str) -> Place {
        Place { node: node.to_owned(), here: node == "n1", copy: Some(false), ..Place::default() }
    }

    #[test]
    fn a_path_means_the_resource_that_has_it() {
        let primitive = "<primitive id='db' class='ocf' provider='kvmha' type='VirtualDomain'><instance_attributes id='i'>\
            <nvpair id='c' name='config' value='/srv/vms/web1.xml'/></instance_attributes></primitive>";
        let cib = Cib::parse(format!("<cib><configuration><resources>{primitive}</resources></configuration></cib>")).unwrap();
        assert_eq!(defined_by("/srv/vms/web1.xml", &cib).as_deref(), Some("db"));
        assert_eq!(defined_by("/srv/vms/web2.xml", &cib), None);
    }
}
