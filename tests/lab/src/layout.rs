//! Where things are: the state folder, the names and the addresses. Nothing here does anything.

use std::path::{Path, PathBuf};

/// The lab's name when none is given.
pub const DEFAULT_NAME: &str = "lab";
/// Where the power switch listens: on the cluster network, so that a node which is cut off cannot fence.
pub const SWITCH_ADDRESS: &str = "10.77.0.254";
/// The port of the power switch.
pub const SWITCH_PORT: u16 = 7777;
/// The shared folder as the nodes see it.
pub const SHARED: &str = "/srv/vms";
/// The shared folder once more, through a file system that can hang and fail; see [`crate::storage`].
pub const HANGING: &str = "/srv/hang";
/// Where a node's [`HANGING`] reads what it has to do.
pub const STORAGE_FAULT: &str = "/run/lab-storage";
/// Where the clock of a node has its distance from the machine's; see [`crate::clock`].
pub const CLOCK: &str = "/run/lab-clock";
/// Where a node sees the guests' kernel and initrd: a node-local path, as the image of a machine has it.
pub const BOOT: &str = "/boot";

/// The state folder of a lab when none is given.
///
/// Not below /etc, /var or /usr: those are the lower layers of the nodes' overlays, and an overlay whose upper layer lies in its own lower
/// one is undefined.
#[must_use]
pub fn default_state(name: &str) -> PathBuf {
    Path::new("/tmp/kvmha-lab").join(name)
}

/// A network of the lab; every node has one interface in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Corosync, migration, fencing.
    Cluster,
    /// Storage servers.
    Storage,
    /// The guests' own: in a node it is a bridge, see [`GUEST_BRIDGE`].
    Guests,
}

/// The bridge of a node in which its guests are plugged.
pub const GUEST_BRIDGE: &str = "guests";

impl Network {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Storage, Self::Guests];

    /// Its bridge in the switch.
    #[must_use]
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Cluster => "br0",
            Self::Storage => "br1",
            Self::Guests => "br2",
        }
    }

    /// A node's interface in it.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Cluster => "eth0",
            Self::Storage => "eth1",
            Self::Guests => "eth2",
        }
    }

    /// The address of host number `host` in it.
    #[must_use]
    pub fn address(self, host: u32) -> String {
        match self {
            Self::Cluster => format!("10.77.0.{host}"),
            Self::Storage => format!("10.77.1.{host}"),
            Self::Guests => format!("10.77.2.{host}"),
        }
    }

    /// The name of a node in it.
    #[must_use]
    pub fn host(self, node: u32) -> String {
        match self {
            Self::Cluster => node_name(node),
            Self::Storage => format!("{}-s", node_name(node)),
            Self::Guests => format!("{}-g", node_name(node)),
        }
    }
}

/// The name of node number `node`, counted from 1.
#[must_use]
pub fn node_name(node: u32) -> String {
    format!("node{node}")
}

/// The paths below a lab's state folder.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The state folder.
    pub state: PathBuf,
}

impl Layout {
    /// What the lab is: name, number of nodes.
    #[must_use]
    pub fn description(&self) -> PathBuf {
        self.state.join("lab.json")
    }

    /// Held while the lab is brought up or down.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The shared folder, see [`SHARED`].
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.state.join("shared")
    }

    /// The guests' kernel and initrd, see [`BOOT`].
    #[must_use]
    pub fn boot(&self) -> PathBuf {
        self.state.join("boot")
    }

    /// The binary under test; nodes take it from here when they start.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.state.join("agent/kvmha")
    }

    /// This program, for the nodes' PID 1 and their fence agent: a copy, so that a build in between does not matter.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.state.join("bin/lab")
    }

    /// The file system that can hang; nodes take it from here when they start.
    #[must_use]
    pub fn hangfs(&self) -> PathBuf {
        self.state.join("bin/hangfs")
    }

    /// The library that is a node's own clock, if this lab has such; nodes take it from here when they start.
    #[must_use]
    pub fn clock(&self) -> PathBuf {
        self.state.join("bin/lab-clock.so")
    }

    /// The power switch's process.
    #[must_use]
    pub fn switch(&self) -> PathBuf {
        self.state.join("switch.id")
    }

    /// Every request to the power switch and what became of it.
    #[must_use]
    pub fn switch_log(&self) -> PathBuf {
        self.state.join("switch.log")
    }

    /// The fault which the power switch shows.
    #[must_use]
    pub fn fault(&self) -> PathBuf {
        self.state.join("fence-fault")
    }

    /// The folder of a node.
    #[must_use]
    pub fn node(&self, node: u32) -> PathBuf {
        self.state.join(node_name(node))
    }

    /// The process of a node's PID 1.
    #[must_use]
    pub fn node_process(&self, node: u32) -> PathBuf {
        self.node(node).join("init.id")
    }

    /// What a node's PID 1 has said.
    #[must_use]
    pub fn node_log(&self, node: u32) -> PathBuf {
        self.node(node).join("init.log")
    }

    /// Held while a node's power changes.
    #[must_use]
    pub fn node_lock(&self, node: u32) -> PathBuf {
        self.node(node).join("lock")
    }

    /// There while a cable of a node is cut.
    #[must_use]
    pub fn cut(&self, node: u32, network: Network) -> PathBuf {
        self.node(node).join(format!("cut-{}", network.interface()))
    }

    /// A path of a node's disk, also while the node is off: the changed part of /etc, /var or /usr.
    #[must_use]
    pub fn on_disk(&self, node: u32, path: &str) -> PathBuf {
        self.node(node).join("upper").join(path.trim_start_matches('/'))
    }
}
