//! All guests of the cluster as Pacemaker and the libvirts that can be asked see them at a moment.

use crate::cluster::cib::{Cib, Primitive, Ran};
use crate::cluster::view::{Placed, View};
use crate::cluster::{own_name, resource_of};
use crate::deadline::Deadline;
use crate::domain::emulator::are_held;
use crate::domain::holding::{self, Holding};
use crate::domain::migration::history::{ATTRIBUTE, Last};
use crate::domain::{Identity, evidence};
use crate::ocf::Asked;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// For Pacemaker's tools.
const PACEMAKER: Duration = Duration::from_secs(15);
/// For the definitions, which may be on storage that hangs.
const DEFINITIONS: Duration = Duration::from_secs(5);
/// For the libvirts, all side by side.
const LIBVIRT: Duration = Duration::from_secs(10);

/// This agent: what is true of it alone is that it can reload.
pub(super) const OURS: &str = "ocf:kvmha:VirtualDomain";
/// The agents whose resources are guests.
pub(super) const AGENTS: [&str; 2] = [OURS, "ocf:heartbeat:VirtualDomain"];

/// A node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// Whether it is a member in good standing.
    pub(super) online: bool,
}

/// A copy of a guest that libvirt, or the process table, shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Copy {
    /// Where.
    pub(super) node: String,
    /// State and reason in libvirt's words.
    pub(super) state: String,
    /// Whether its CPUs run; not known without libvirt.
    pub(super) runs: Option<bool>,
}

/// The last move, by the node attribute that the agent sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Move {
    /// Whether it has arrived.
    pub(super) moved: bool,
    /// Where it was.
    pub(super) from: String,
    /// Where it was to go.
    pub(super) to: String,
    /// How long it took, in milliseconds.
    pub(super) total_ms: Option<u64>,
    /// How long the guest stood still, in milliseconds.
    pub(super) pause_ms: Option<u64>,
    /// When it ended, in seconds since 1970.
    pub(super) ended: Option<u64>,
}

/// The newest failed action that was not cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failed {
    /// Where.
    pub(super) node: String,
    /// Resource, operation and interval.
    pub(super) action: String,
    /// The agent's exit reason, or what became of it.
    pub(super) reason: String,
    /// When, in seconds since 1970.
    pub(super) at: Option<u64>,
}

/// A guest of the cluster.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Guest {
    /// The resource.
    pub(super) resource: String,
    /// Its agent.
    pub(super) agent: String,
    /// libvirt's name of it, as far as it is known.
    pub(super) guest: Option<String>,
    /// Where Pacemaker sees it.
    pub(super) nodes: Vec<String>,
    /// Pacemaker's role.
    pub(super) role: String,
    /// What Pacemaker is doing with it.
    pub(super) pending: Option<String>,
    /// Whether Pacemaker acts on it.
    pub(super) managed: bool,
    /// Whether it is failed, or blocked.
    pub(super) failed: bool,
    /// Copies that were seen, where somebody could be asked.
    pub(super) copies: Vec<Copy>,
    /// Why somebody could not be asked.
    pub(super) unknown: Vec<String>,
    /// Since when it is as it is, in seconds since 1970.
    pub(super) since: Option<u64>,
    /// The last move.
    pub(super) last_move: Option<Move>,
    /// The last failure.
    pub(super) last_failure: Option<Failed>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Overview {
    /// This node.
    pub(super) here: String,
    /// Whether this partition has quorum.
    pub(super) quorum: bool,
    /// Whether it goes on without.
    #[serde(skip)]
    pub(super) ignores_quorum: bool,
    /// Whether the whole cluster is in maintenance mode.
    pub(super) maintenance: bool,
    /// The nodes.
    pub(super) nodes: Vec<Node>,
    /// The guests, in the order of the configuration.
    pub(super) guests: Vec<Guest>,
}

/// Whether a resource is a guest.
pub(super) fn is_guest(resource: &Primitive) -> bool {
    AGENTS.contains(&resource.agent.as_str())
}

impl Overview {
    /// Looks.
    ///
    /// # Errors
    /// Pacemaker cannot be asked on this node.
    pub(super) fn take() -> anyhow::Result<Self> {
        let pacemaker = Deadline::after(PACEMAKER);
        let (here, view, cib) = (own_name(&pacemaker)?, View::query(&pacemaker)?, Cib::query(&pacemaker)?);
        let resources: Vec<Primitive> = cib.resources().into_iter().filter(is_guest).collect();
        // Read once: in a large cluster it is long.
        let memory = Memory { ran: cib.ran(), moves: cib.transient(ATTRIBUTE) };
        let (reading, mut known) = (Deadline::after(DEFINITIONS), Vec::new());
        for resource in &resources {
            known.push(Known::of(resource, reading));
        }
        let mut guests: Vec<Guest> =
            resources.iter().zip(&known).map(|(resource, known)| guest(resource, known, &view, &memory, &here)).collect();
        ask(&mut guests, &known, &here);
        let nodes = view.nodes.iter().map(|node| Node { name: node.name.clone(), online: node.online && !node.unsettled });
        let (quorum, ignores_quorum) = (view.quorum, cib.ignores_quorum());
        Ok(Self { nodes: nodes.collect(), here, quorum, ignores_quorum, maintenance: view.maintenance, guests })
    }
}

/// What the cluster remembers of all guests.
struct Memory {
    ran: Vec<Ran>,
    /// Node, name and value of the attributes.
    moves: Vec<(String, String, String)>,
}

/// What the configuration says of a guest.
struct Known {
    asked: Result<Asked, String>,
    identity: Option<Identity>,
    /// Why what is asked about may be another guest, or none.
    doubt: Option<String>,
}

impl Known {
    fn of(resource: &Primitive, deadline: Deadline) -> Self {
        let asked = Asked::new(Some(&resource.id), &resource.parameters, "", deadline);
        let identity = asked.as_ref().ok().and_then(Asked::identity);
        let guess = asked.as_ref().ok().zip(identity.as_ref()).filter(|(asked, identity)| !asked.is_sure(identity));
        let doubt = guess.map(|(_, identity)| format!("its definition cannot be read here: that it is {} is a guess", identity.name));
        Self { asked, identity, doubt }
    }
}

/// Without what libvirt says.
fn guest(resource: &Primitive, known: &Known, view: &View, memory: &Memory, here: &str) -> Guest {
    let id = &resource.id;
    let is_it = |placed: &&Placed| resource_of(&placed.id) == id;
    let placed: Vec<&Placed> = view.resources.iter().filter(is_it).collect();
    let first = placed.first();
    let nodes: Vec<String> = placed.iter().flat_map(|placed| placed.nodes.clone()).collect();
    let failures = view.failures.iter().filter(|failure| failure.is_of(id));
    let ran: Vec<&Ran> = memory.ran.iter().filter(|ran| ran.resource == *id).collect();
    let failures = failures.map(|failure| {
        let same = ran
            .iter()
            .find(|ran| ran.node == failure.node && ran.key == failure.key && (failure.call.is_empty() || ran.call == failure.call));
        let at = same.and_then(|ran| ran.at);
        Failed { node: failure.node.clone(), action: failure.key.clone(), reason: failure.reason.clone(), at }
    });
    // The last thing that put it where it is; what was found there by a probe was there before.
    let whole =
        ran.iter().filter(|ran| ["start", "stop", "migrate_from", "monitor"].contains(&ran.operation.as_str()) && ran.key.ends_with("_0"));
    let since = match nodes.first() {
        Some(node) => whole.filter(|ran| ran.node == *node).filter_map(|ran| ran.at).max(),
        None => whole.filter_map(|ran| ran.at).max(),
    };
    let identity = known.identity.as_ref();
    let emulator = identity
        .filter(|_| nodes.iter().any(|node| node == here))
        .and_then(|identity| evidence::find(identity, None, &Deadline::after(LIBVIRT)).ok()?.first()?.since());
    let moves = memory.moves.iter().filter(|(_, name, _)| name.strip_prefix(ATTRIBUTE) == Some(id));
    Guest {
        resource: id.clone(),
        agent: resource.agent.clone(),
        guest: identity.map(|identity| identity.name.clone()),
        role: first.map_or_else(|| "unknown".into(), |placed| placed.role.clone()),
        pending: placed.iter().find_map(|placed| placed.pending.clone()),
        managed: first.is_none_or(|placed| placed.managed),
        failed: placed.iter().any(|placed| placed.failed),
        copies: Vec::new(),
        unknown: known.asked.as_ref().err().or(known.doubt.as_ref()).cloned().into_iter().collect(),
        since: emulator.or(since),
        last_move: moves.filter_map(|(node, _, value)| a_move(node, value)).max_by_key(|last| last.ended),
        last_failure: failures.max_by_key(|failed| failed.at),
        nodes,
    }
}

/// Asks this node's libvirt for all guests, and that of a node where Pacemaker sees one for this.
fn ask(guests: &mut [Guest], known: &[Known], here: &str) {
    // By URI: the node, and which guests are asked for.
    let mut questions: BTreeMap<String, (String, Vec<usize>)> = BTreeMap::new();
    for (number, (guest, known)) in guests.iter().zip(known).enumerate() {
        let (Ok(asked), Some(_)) = (&known.asked, &known.identity) else { continue };
        let mut add = |uri: String, node: &str| questions.entry(uri).or_insert_with(|| (node.to_owned(), Vec::new())).1.push(number);
        add(asked.hypervisor().to_string(), here);
        for node in guest.nodes.iter().filter(|node| *node != here && asked.reaches_others()) {
            add(asked.remote(node), node);
        }
    }
    let identity = |number: &usize| known.get(*number).and_then(|known| known.identity.clone());
    let list = questions.iter().map(|(uri, (_, numbers))| (uri.clone(), numbers.iter().filter_map(identity).collect()));
    let answers = holding::everywhere(list.collect(), &Deadline::after(LIBVIRT));
    for ((node, numbers), answer) in questions.into_values().zip(answers) {
        let answers: Vec<Result<Option<Holding>, String>> = match answer {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(|error| error.text)).collect(),
            Err(error) => numbers.iter().map(|_| Err(error.text.clone())).collect(),
        };
        for (number, answer) in numbers.into_iter().zip(answers) {
            let (Some(guest), Some(identity)) = (guests.get_mut(number), identity(&number)) else { continue };
            match answer {
                Ok(Some(Holding { condition, .. })) if condition.is_active() => {
                    let is_held = || evidence::find(&identity, None, &Deadline::after(LIBVIRT)).is_ok_and(|found| are_held(&found));
                    // libvirt does not know it, and may well say that it runs.
                    let (held, runs) = if node == here && is_held() { (", held", false) } else { ("", condition.runs()) };
                    guest.copies.push(Copy { node: node.clone(), state: format!("{condition}{held}"), runs: Some(runs) });
                }
                Ok(_) => {}
                Err(text) => {
                    // The process table of this node is a witness too.
                    let emulator = if node == here {
                        evidence::find(&identity, None, &Deadline::after(LIBVIRT)).unwrap_or_default()
                    } else {
                        Vec::new()
                    };
                    if let Some(emulator) = emulator.first() {
                        guest.copies.push(Copy { node: node.clone(), state: format!("{emulator} lives"), runs: None });
                    }
                    guest.unknown.push(format!("{node}: {text}"));
                }
            }
        }
    }
}

/// From the value of the attribute.
pub(super) fn a_move(node: &str, value: &str) -> Option<Move> {
    let Last { moved, to, total_ms, pause_ms, ended } = Last::parse(value)?;
    Some(Move { moved, from: node.to_owned(), to, total_ms, pause_ms, ended })
}
