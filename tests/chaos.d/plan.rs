//! What is done, and when: a pure function of the seed.

use lab::random::Random;
use std::fmt;
use std::time::Duration;

/// So many pieces of work are asked for in a round, before the cluster is left alone until it has come to rest.
const WORK: u64 = 12;

/// How far a clock jumps, in seconds: within the skew that is allowed for and beyond, a summer time that was missed, a battery that is empty.
const JUMPS: [i32; 6] = [-3600, -90, -4, 45, 3600, 400_000];

/// What is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub seed: u64,
    /// Pieces of work; faults come on top.
    pub operations: u64,
    pub guests: u32,
    pub nodes: u32,
    /// Whether the agent under test is ours: then there is more that can be asked for.
    pub ours: bool,
    /// Whether guests are turned off by our fence agent.
    pub fenced: bool,
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Pacemaker moves a guest.
    Move {
        guest: u32,
        node: u32,
    },
    /// `kvmha migrate` moves a guest.
    Migrate {
        guest: u32,
        node: u32,
    },
    /// A guest is stopped, and started again later.
    Stop {
        guest: u32,
    },
    /// A node is in standby for a while.
    Standby {
        node: u32,
    },
    /// A parameter that needs no restart changes.
    Change {
        guest: u32,
        value: u32,
    },
    /// A guest changes to the incumbent agent and back.
    Adopt {
        guest: u32,
    },
    /// The binary is replaced on all nodes, under all that runs.
    Upgrade,
    /// `kvmha repair` cleans up what it finds of a guest on a node.
    Repair {
        guest: u32,
        node: u32,
    },
    /// Failures of a guest are forgotten.
    Cleanup {
        guest: u32,
    },
    /// The fence agent turns a guest off, asked on a node.
    Off {
        guest: u32,
        node: u32,
    },
    /// Faults.
    PowerCut {
        node: u32,
    },
    NetworkCut {
        node: u32,
    },
    /// What the others send does not arrive (deaf), or what it sends does not.
    NetworkOneWay {
        node: u32,
        deaf: bool,
    },
    FreezeCorosync {
        node: u32,
    },
    KillDaemon {
        node: u32,
    },
    FreezeDaemon {
        node: u32,
    },
    FreezeStorage {
        node: u32,
    },
    /// On all nodes, as it is shared.
    FillStorage,
    /// A node's clock is so many seconds ahead, or behind.
    JumpClock {
        node: u32,
        ahead: i32,
    },
    KillEmulator {
        guest: u32,
    },
    FreezeEmulator {
        guest: u32,
    },
    KillAgent {
        guest: u32,
    },
    HideConfig {
        guest: u32,
    },
    FailFencing,
    HangFencing,
}

impl What {
    pub fn is_fault(self) -> bool {
        use What::*;
        let asked = matches!(self, Move { .. } | Migrate { .. } | Stop { .. } | Standby { .. } | Change { .. } | Cleanup { .. });
        !asked && !matches!(self, Adopt { .. } | Upgrade | Repair { .. } | Off { .. })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use What::*;
        match *self {
            Move { guest, node } => write!(f, "move vm{guest} to node{node}"),
            Migrate { guest, node } => write!(f, "kvmha migrate vm{guest} node{node}"),
            Stop { guest } => write!(f, "stop vm{guest}, start it later"),
            Standby { node } => write!(f, "node{node} in standby"),
            Change { guest, value } => write!(f, "migration_downtime={value} for vm{guest}"),
            Adopt { guest } => write!(f, "adopt vm{guest}, back and there"),
            Upgrade => write!(f, "the binary is replaced"),
            Repair { guest, node } => write!(f, "kvmha repair vm{guest}, on node{node}"),
            Cleanup { guest } => write!(f, "cleanup of vm{guest}"),
            Off { guest, node } => write!(f, "fence_kvmha turns vm{guest} off, from node{node}"),
            PowerCut { node } => write!(f, "power cut on node{node}"),
            NetworkCut { node } => write!(f, "network cut on node{node}"),
            NetworkOneWay { node, deaf: true } => write!(f, "node{node} hears nothing"),
            NetworkOneWay { node, deaf: false } => write!(f, "node{node} is not heard"),
            FreezeCorosync { node } => write!(f, "corosync frozen on node{node}"),
            KillDaemon { node } => write!(f, "libvirtd killed on node{node}"),
            FreezeDaemon { node } => write!(f, "libvirtd frozen on node{node}"),
            FreezeStorage { node } => write!(f, "storage frozen on node{node}"),
            FillStorage => write!(f, "storage full"),
            JumpClock { node, ahead } => write!(f, "clock of node{node} {ahead:+} s"),
            KillEmulator { guest } => write!(f, "emulator of vm{guest} killed"),
            FreezeEmulator { guest } => write!(f, "emulator of vm{guest} frozen"),
            KillAgent { guest } => write!(f, "agent of vm{guest} killed"),
            HideConfig { guest } => write!(f, "definition of vm{guest} gone"),
            FailFencing => write!(f, "fence device fails"),
            HangFencing => write!(f, "fence device does not answer"),
        }
    }
}

/// One thing that is done, when after the start of its round, and for how long if it is something that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub what: What,
    pub after: Duration,
    pub lasts: Duration,
}

/// Things that are done at about the same time.
pub type Round = Vec<Step>;

/// All rounds.
pub fn plan(script: &Script) -> Vec<Round> {
    let mut random = Random::new(script.seed);
    let mut left = script.operations;
    let mut rounds = Vec::new();
    while left > 0 {
        let work = left.min(WORK);
        left -= work;
        let mut round: Round = (0..work).map(|_| work_of(script, &mut random)).collect();
        // An adoption wants a quiet cluster: it comes first, and the faults find it at work.
        if round.iter().any(|step| matches!(step.what, What::Adopt { .. })) {
            for step in round.iter_mut().filter(|step| !matches!(step.what, What::Adopt { .. })) {
                step.after += Duration::from_secs(4);
            }
        }
        // With two nodes lost at a time nobody has quorum: in a round all that strikes a node strikes the same.
        let victim = below(&mut random, script.nodes) + 1;
        for _ in 0..random.below(3) {
            round.push(fault_of(script, victim, &mut random));
        }
        round.sort_by_key(|step| step.after);
        rounds.push(round);
    }
    rounds
}

fn below(random: &mut Random, end: u32) -> u32 {
    u32::try_from(random.below(u64::from(end))).unwrap_or_default()
}

fn step(random: &mut Random, what: What, lasts: u64) -> Step {
    Step { what, after: Duration::from_millis(random.below(4000)), lasts: Duration::from_millis(300 + random.below(lasts)) }
}

fn work_of(script: &Script, random: &mut Random) -> Step {
    let (guest, node) = (below(random, script.guests) + 1, below(random, script.nodes) + 1);
    let value = 100 + below(random, 400);
    let what = match random.below(60) {
        0..=16 => What::Move { guest, node },
        17..=25 => What::Migrate { guest, node },
        26..=29 => What::Stop { guest },
        30..=34 => What::Standby { node },
        35..=39 => What::Cleanup { guest },
        // Rare: it waits long for a cluster that has come to rest.
        40 => What::Adopt { guest },
        41 | 42 => What::Upgrade,
        43..=46 if script.fenced => What::Off { guest, node },
        47..=49 => What::Repair { guest, node },
        _ => What::Change { guest, value },
    };
    // The incumbent has no such thing, or would restart the guest for it; what it is asked instead costs no guest its memory either.
    let what = match what {
        What::Migrate { .. } | What::Adopt { .. } | What::Upgrade | What::Repair { .. } | What::Change { .. } if !script.ours => {
            What::Move { guest, node }
        }
        what => what,
    };
    let mut step = step(random, what, 4000);
    if matches!(what, What::Adopt { .. }) {
        step.after = Duration::ZERO;
    }
    step
}

fn fault_of(script: &Script, node: u32, random: &mut Random) -> Step {
    let guest = below(random, script.guests) + 1;
    let (deaf, ahead) = (random.below(2) == 0, random.pick(&JUMPS));
    let (what, lasts) = match random.below(26) {
        0 => (What::PowerCut { node }, 100),
        1 => (What::NetworkCut { node }, 6000),
        2 => (What::NetworkOneWay { node, deaf }, 6000),
        3 => (What::FreezeCorosync { node }, 4000),
        4..=6 => (What::KillDaemon { node }, 4000),
        7..=9 => (What::FreezeDaemon { node }, 8000),
        10 | 11 => (What::FreezeStorage { node }, 6000),
        12 | 13 => (What::FillStorage, 6000),
        14 | 15 => (What::JumpClock { node, ahead }, 6000),
        16 | 17 => (What::KillEmulator { guest }, 100),
        18 | 19 => (What::FreezeEmulator { guest }, 6000),
        20 | 21 => (What::KillAgent { guest }, 100),
        22 | 23 => (What::HideConfig { guest }, 6000),
        24 => (What::FailFencing, 6000),
        _ => (What::HangFencing, 6000),
    };
    step(random, what, lasts)
}
