//! What the chaos run does, and when: a pure function of the seed.

use crate::random::Random;
use std::fmt;
use std::time::Duration;

/// So many pieces of work are asked for in a round, before the cluster is left alone until it has come to rest.
const WORK: u64 = 12;

/// How far a clock jumps, in seconds: within the skew that is allowed for and beyond, a summer time that was missed, a battery that is empty.
const JUMPS: [i32; 6] = [-3600, -90, -4, 45, 3600, 400_000];

/// What is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// What decides everything.
    pub seed: u64,
    /// Pieces of work; faults come on top.
    pub operations: u64,
    /// How many guests there are.
    pub guests: u32,
    /// How many nodes there are.
    pub nodes: u32,
    /// Whether the agent under test is ours: then there is more that can be asked for.
    pub ours: bool,
    /// Whether guests are turned off by our fence agent.
    pub fenced: bool,
}

/// A guest, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestNumber(pub u32);

impl fmt::Display for GuestNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm{}", self.0)
    }
}

/// A node, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumber(pub u32);

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Somebody asks for it.
    Work(Work),
    /// Nobody does.
    Fault(Fault),
}

impl What {
    /// Whether nobody asks for it.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Fault(_))
    }

    /// The node that the others may lose by it.
    fn loses(self) -> Option<NodeNumber> {
        let Self::Fault(fault) = self else { return None };
        match fault {
            Fault::PowerCut { node }
            | Fault::NetworkCut { node }
            | Fault::NetworkOneWay { node, .. }
            | Fault::FreezeCorosync { node }
            // A stop that fails for it has the node fenced.
            | Fault::FreezeStorage { node } => Some(node),
            _ => None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(work) => work.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

/// What is asked for.
#[allow(missing_docs, reason = "its `Display` says it in words")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Pacemaker moves a guest.
    Move { guest: GuestNumber, node: NodeNumber },
    /// `kvmha migrate` moves a guest.
    Migrate { guest: GuestNumber, node: NodeNumber },
    /// A guest is stopped, and started again later.
    Stop { guest: GuestNumber },
    /// A node is in standby for a while.
    Standby { node: NodeNumber },
    /// A parameter that needs no restart changes.
    Change { guest: GuestNumber, value: u32 },
    /// A guest changes to the incumbent agent and back.
    Adopt { guest: GuestNumber },
    /// The binary is replaced on all nodes, under all that runs.
    Upgrade,
    /// `kvmha repair` cleans up what it finds of a guest on a node.
    Repair { guest: GuestNumber, node: NodeNumber },
    /// Failures of a guest are forgotten.
    Cleanup { guest: GuestNumber },
    /// The fence agent turns a guest off, asked on a node.
    Off { guest: GuestNumber, node: NodeNumber },
}

impl Work {
    /// The guest or the node that it is done to; nothing: to all of the cluster.
    #[must_use]
    pub fn subject(self) -> String {
        match self {
            Self::Move { guest, .. }
            | Self::Migrate { guest, .. }
            | Self::Stop { guest }
            | Self::Change { guest, .. }
            | Self::Adopt { guest }
            | Self::Repair { guest, .. }
            | Self::Cleanup { guest }
            | Self::Off { guest, .. } => guest.to_string(),
            Self::Standby { node } => node.to_string(),
            Self::Upgrade => String::new(),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Move { guest, node } => write!(f, "move {guest} to {node}"),
            Self::Migrate { guest, node } => write!(f, "kvmha migrate {guest} {node}"),
            Self::Stop { guest } => write!(f, "stop {guest}, start it later"),
            Self::Standby { node } => write!(f, "{node} in standby"),
            Self::Change { guest, value } => write!(f, "migration_downtime={value} for {guest}"),
            Self::Adopt { guest } => write!(f, "adopt {guest}, back and there"),
            Self::Upgrade => write!(f, "the binary is replaced"),
            Self::Repair { guest, node } => write!(f, "kvmha repair {guest}, on {node}"),
            Self::Cleanup { guest } => write!(f, "cleanup of {guest}"),
            Self::Off { guest, node } => write!(f, "fence_kvmha turns {guest} off, from {node}"),
        }
    }
}

/// What strikes the cluster.
#[allow(missing_docs, reason = "its `Display` says it in words")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    PowerCut {
        node: NodeNumber,
    },
    NetworkCut {
        node: NodeNumber,
    },
    /// What the others send does not arrive (deaf), or what it sends does not.
    NetworkOneWay {
        node: NodeNumber,
        deaf: bool,
    },
    FreezeCorosync {
        node: NodeNumber,
    },
    KillDaemon {
        node: NodeNumber,
    },
    FreezeDaemon {
        node: NodeNumber,
    },
    FreezeStorage {
        node: NodeNumber,
    },
    /// On all nodes, as it is shared.
    FillStorage,
    /// A node's clock is so many seconds ahead, or behind.
    JumpClock {
        node: NodeNumber,
        ahead: i32,
    },
    KillEmulator {
        guest: GuestNumber,
    },
    FreezeEmulator {
        guest: GuestNumber,
    },
    KillAgent {
        guest: GuestNumber,
    },
    HideConfig {
        guest: GuestNumber,
    },
    FailFencing,
    HangFencing,
    /// The device does what it is asked, and says that it has not, or nothing. The other lie, off of what runs, would have two copies of a guest on one
    /// disk, by the device's fault.
    LieFencing {
        mute: bool,
    },
}

impl Fault {
    /// The node or the guest that it strikes; nothing: all of the cluster.
    #[must_use]
    pub fn subject(self) -> String {
        match self {
            Self::PowerCut { node }
            | Self::NetworkCut { node }
            | Self::NetworkOneWay { node, .. }
            | Self::FreezeCorosync { node }
            | Self::KillDaemon { node }
            | Self::FreezeDaemon { node }
            | Self::FreezeStorage { node }
            | Self::JumpClock { node, .. } => node.to_string(),
            Self::KillEmulator { guest } | Self::FreezeEmulator { guest } | Self::KillAgent { guest } | Self::HideConfig { guest } => {
                guest.to_string()
            }
            Self::FillStorage | Self::FailFencing | Self::HangFencing | Self::LieFencing { .. } => String::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerCut { node } => write!(f, "power cut on {node}"),
            Self::NetworkCut { node } => write!(f, "network cut on {node}"),
            Self::NetworkOneWay { node, deaf: true } => write!(f, "{node} hears nothing"),
            Self::NetworkOneWay { node, deaf: false } => write!(f, "{node} is not heard"),
            Self::FreezeCorosync { node } => write!(f, "corosync frozen on {node}"),
            Self::KillDaemon { node } => write!(f, "libvirtd killed on {node}"),
            Self::FreezeDaemon { node } => write!(f, "libvirtd frozen on {node}"),
            Self::FreezeStorage { node } => write!(f, "storage frozen on {node}"),
            Self::FillStorage => write!(f, "storage full"),
            Self::JumpClock { node, ahead } => write!(f, "clock of {node} {ahead:+} s"),
            Self::KillEmulator { guest } => write!(f, "emulator of {guest} killed"),
            Self::FreezeEmulator { guest } => write!(f, "emulator of {guest} frozen"),
            Self::KillAgent { guest } => write!(f, "agent of {guest} killed"),
            Self::HideConfig { guest } => write!(f, "definition of {guest} gone"),
            Self::FailFencing => write!(f, "fence device fails"),
            Self::HangFencing => write!(f, "fence device does not answer"),
            Self::LieFencing { mute: false } => write!(f, "fence device does it and says that it has not"),
            Self::LieFencing { mute: true } => write!(f, "fence device does it and does not answer"),
        }
    }
}

/// One thing that is done, when after the start of its round, and for how long if it is something that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub what: What,
    /// So long after the start of its round it begins.
    pub after: Duration,
    /// So long after that it ends.
    pub lasts: Duration,
}

/// Things that are done at about the same time.
pub type Round = Vec<Step>;

/// All rounds.
#[must_use]
pub fn plan(script: &Script) -> Vec<Round> {
    let mut random = Random::new(script.seed);
    let mut left = script.operations;
    let mut rounds = Vec::new();
    while left > 0 {
        let work = left.min(WORK);
        left -= work;
        let mut round: Round = (0..work).map(|_| work_of(script, &mut random)).collect();
        // An adoption wants a quiet cluster: it comes first, and the faults find it at work.
        if round.iter().any(|step| matches!(step.what, What::Work(Work::Adopt { .. }))) {
            for step in round.iter_mut().filter(|step| !matches!(step.what, What::Work(Work::Adopt { .. }))) {
                step.after += Duration::from_secs(4);
            }
        }
        // With two nodes lost at a time nobody has quorum: in a round all that strikes a node strikes the same.
        let victim = NodeNumber(below(&mut random, script.nodes) + 1);
        for _ in 0..random.below(3) {
            round.push(fault_of(script, victim, &mut random));
        }
        round.sort_by_key(|step| step.after);
        spare_a_node(script, &mut round);
        rounds.push(round);
    }
    rounds
}

/// Leaves one node to the guests in all of a round: with every node in standby or lost Pacemaker stops them, and rightly. By their times two
/// standbys may not overlap, but on a busy machine a command comes seconds late. So there is a limit to how many nodes a round takes away; a
/// standby beyond it is one of a node that is taken away already.
fn spare_a_node(script: &Script, round: &mut Round) {
    let most = (script.nodes as usize).saturating_sub(1).max(1);
    let mut away: Vec<NodeNumber> = round.iter().filter_map(|step| step.what.loses()).take(1).collect();
    for step in round {
        let What::Work(Work::Standby { node }) = &mut step.what else { continue };
        if !away.contains(node) && away.len() < most {
            away.push(*node);
        } else if !away.contains(node) {
            *node = away[node.0 as usize % away.len()];
        }
    }
}

fn below(random: &mut Random, end: u32) -> u32 {
    u32::try_from(random.below(u64::from(end))).unwrap_or_default()
}

fn step(random: &mut Random, what: What, lasts: u64) -> Step {
    Step { what, after: Duration::from_millis(random.below(4000)), lasts: Duration::from_millis(300 + random.below(lasts)) }
}

fn work_of(script: &Script, random: &mut Random) -> Step {
    let (guest, node) = (GuestNumber(below(random, script.guests) + 1), NodeNumber(below(random, script.nodes) + 1));
    let value = 100 + below(random, 400);
    let work = match random.below(60) {
        0..=16 => Work::Move { guest, node },
        17..=25 => Work::Migrate { guest, node },
        26..=29 => Work::Stop { guest },
        30..=34 => Work::Standby { node },
        35..=39 => Work::Cleanup { guest },
        // Rare: it waits long for a cluster that has come to rest.
        40 => Work::Adopt { guest },
        41 | 42 => Work::Upgrade,
        43..=46 if script.fenced => Work::Off { guest, node },
        47..=49 => Work::Repair { guest, node },
        _ => Work::Change { guest, value },
    };
    // The incumbent has no such thing, or would restart the guest for it; what it is asked instead costs no guest its memory either.
    let work = match work {
        Work::Migrate { .. } | Work::Adopt { .. } | Work::Upgrade | Work::Repair { .. } | Work::Change { .. } if !script.ours => {
            Work::Move { guest, node }
        }
        work => work,
    };
    let mut step = step(random, What::Work(work), 4000);
    if matches!(work, Work::Adopt { .. }) {
        step.after = Duration::ZERO;
    }
    step
}

fn fault_of(script: &Script, node: NodeNumber, random: &mut Random) -> Step {
    let guest = GuestNumber(below(random, script.guests) + 1);
    let (one, ahead) = (random.below(2) == 0, random.pick(&JUMPS));
    let (fault, lasts) = match random.below(28) {
        0 => (Fault::PowerCut { node }, 100),
        1 => (Fault::NetworkCut { node }, 6000),
        2 => (Fault::NetworkOneWay { node, deaf: one }, 6000),
        3 => (Fault::FreezeCorosync { node }, 4000),
        4..=6 => (Fault::KillDaemon { node }, 4000),
        7..=9 => (Fault::FreezeDaemon { node }, 8000),
        10 | 11 => (Fault::FreezeStorage { node }, 6000),
        12 | 13 => (Fault::FillStorage, 6000),
        14 | 15 => (Fault::JumpClock { node, ahead }, 6000),
        16 | 17 => (Fault::KillEmulator { guest }, 100),
        18 | 19 => (Fault::FreezeEmulator { guest }, 6000),
        20 | 21 => (Fault::KillAgent { guest }, 100),
        22 | 23 => (Fault::HideConfig { guest }, 6000),
        24 => (Fault::FailFencing, 6000),
        25 => (Fault::HangFencing, 6000),
        // Only who is fenced meanwhile meets it.
        _ => (Fault::LieFencing { mute: one }, 12_000),
    };
    step(random, What::Fault(fault), lasts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_plays_the_same_again_and_has_every_fault() {
        let script = |seed| Script { seed, operations: 4000, guests: 4, nodes: 3, ours: true, fenced: true };
        assert_eq!(plan(&script(7)), plan(&script(7)));
        assert_ne!(plan(&script(7)), plan(&script(8)));
        let faults: Vec<String> =
            plan(&script(7)).iter().flatten().filter(|step| step.what.is_fault()).map(|step| step.what.to_string()).collect();
        for part in [
            "power cut",
            "hears nothing",
            "is not heard",
            "device fails",
            "device does not",
            "says that it has not",
            "does it and does not",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part} is not in {faults:?}");
        }
    }

    /// With every node in standby, or lost, Pacemaker stops the guests, and the judge would take that for the agent's doing.
    #[test]
    fn a_round_leaves_a_node_to_the_guests() {
        let mut two = 0;
        for seed in 1..=30 {
            let script = Script { seed, operations: 2000, guests: 4, nodes: 3, ours: true, fenced: true };
            for (number, round) in (1..).zip(plan(&script)) {
                let away = round.iter().filter_map(|step| match step.what {
                    What::Work(Work::Standby { node }) => Some(node.0),
                    what => what.loses().map(|node| node.0),
                });
                let away: BTreeSet<u32> = away.collect();
                assert!(away.len() < 3, "seed {seed}, round {number}: {round:?}");
                two += usize::from(away.len() == 2);
            }
        }
        assert!(two > 500, "{two} rounds with two nodes away");
    }
}
