//! The words of the command `lab`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use lab::layout::{DEFAULT_NAME, Network};
use std::path::PathBuf;

/// A Pacemaker cluster with KVM guests on one machine: real corosync, pacemaker, libvirtd and QEMU, each node in namespaces of its own.
#[derive(Parser)]
#[command(name = "lab", version)]
pub struct Cli {
    /// Name of the lab; labs of different names run side by side
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    pub name: String,
    /// State folder [default: /tmp/kvmha-lab/NAME]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Words,
}

#[derive(Subcommand)]
pub enum Words {
    /// Bring the lab up, or back up; returns when all nodes are online and can be fenced
    Up(Up),
    /// Take everything away: processes, networks, mounts, the state folder
    Down,
    #[command(flatten)]
    InLab(InLab),
    /// Tell the main job as a story, in a lab of its own: placed, live-migrated, failed over
    Demo(Demo),
}

/// What is done with a lab that is there.
#[derive(Subcommand)]
pub enum InLab {
    /// Show nodes, resources and guests
    Status,
    /// Run a command in a node; its output and exit code are passed on
    Exec(Exec),
    /// Replace the binary under test in all nodes
    Install {
        /// The binary, or a folder with `kvmha` in it
        path: PathBuf,
    },
    /// Cut or give a node's power
    Power { action: PowerAction, node: String },
    /// Cut a node's cable
    Cut(Cable),
    /// Mend a node's cable
    Heal(Cable),
    /// Stop a daemon of a node with SIGSTOP (also `guest:NAME`, the emulator of a guest)
    Freeze(Daemon),
    /// Let a frozen daemon go on
    Thaw(Daemon),
    /// Kill a daemon of a node with SIGKILL
    Kill(Daemon),
    /// Start a daemon of a node that is gone
    Start(Daemon),
    /// Let a node's /srv/hang, the shared folder once more, hang or fail
    #[command(subcommand)]
    Storage(Storage),
    /// Set how the power switch answers fence agents
    FenceFault {
        kind: FaultKind,
        /// Seconds, for `slow`
        seconds: Option<u64>,
    },
    /// Guests: image and definition on the shared storage
    #[command(subcommand)]
    Guest(Guest),
    /// Read a guest's heartbeat from its disk
    Heartbeat(Heartbeat),
}

#[derive(Args)]
pub struct Up {
    /// Number of nodes
    #[arg(long, default_value_t = 3)]
    pub nodes: u32,
    /// The binary under test, or a folder with `kvmha` in it
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// Without corosync and Pacemaker: nodes with libvirt alone
    #[arg(long)]
    pub bare: bool,
    /// The system that the nodes run: host, debian13, or the absolute path of a root
    #[arg(long, value_name = "NAME")]
    pub platform: Option<String>,
    /// Seconds the cluster may take
    #[arg(long, default_value_t = 90)]
    pub limit: u64,
}

#[derive(Args)]
pub struct Demo {
    /// The binary under test, or a folder with `kvmha` in it
    #[arg(long, value_name = "PATH")]
    pub agent: PathBuf,
    /// Leave the lab up to look at it
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args)]
pub struct Exec {
    /// For a shell: the terminal's kind and a prompt that names the node
    #[arg(short, long, conflicts_with = "all")]
    pub terminal: bool,
    /// Run it in all nodes that have power; the worst exit code counts
    #[arg(long)]
    pub all: bool,
    /// Seconds the command may take, with --all
    #[arg(long, default_value_t = 60)]
    pub limit: u64,
    /// The node (not with --all), and after `--` the command
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "NODE -- COMMAND")]
    pub words: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PowerAction {
    Off,
    On,
    Cycle,
    Status,
}

#[derive(Args)]
pub struct Cable {
    pub node: String,
    /// The storage network's instead of the cluster network's
    #[arg(long)]
    pub storage: bool,
}

impl Cable {
    pub fn network(&self) -> Network {
        if self.storage { Network::Storage } else { Network::Cluster }
    }
}

#[derive(Args)]
pub struct Daemon {
    pub node: String,
    /// libvirtd, virtlogd, corosync, pacemakerd, pacemaker-controld, ...
    pub daemon: String,
}

#[derive(Subcommand)]
pub enum Storage {
    /// Answer nothing: whoever accesses it hangs in the kernel and cannot be killed
    Hold {
        node: String,
        /// Only what changes something
        #[arg(long)]
        writes: bool,
    },
    /// Fail
    Error {
        node: String,
        /// Only what changes something
        #[arg(long)]
        writes: bool,
        /// The number of the error: 5 is EIO, 28 ENOSPC, 116 ESTALE
        #[arg(long, default_value_t = 5)]
        number: u16,
    },
    /// Answer late
    Delay { node: String, milliseconds: u32 },
    /// Work again; what was held is carried out now
    Release { node: String },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum FaultKind {
    /// It answers as it should
    None,
    /// It says an error, and does nothing
    Refuse,
    /// It says nothing, and does nothing
    Hang,
    /// It answers late
    Slow,
    /// It does what is asked, and says an error
    Lie,
    /// It does what is asked, and says nothing
    Mute,
}

#[derive(Subcommand)]
pub enum Guest {
    /// Make a guest's image and definition, /srv/vms/NAME.xml in the nodes
    Create {
        #[arg(value_name = "NAME")]
        guest: String,
        /// Memory in MiB, at least 72
        #[arg(long, default_value_t = 80)]
        memory: u32,
        /// Ignore the power button: a graceful shutdown does nothing
        #[arg(long)]
        deaf: bool,
        /// Milliseconds between two beats
        #[arg(long, default_value_t = 20)]
        beat: u64,
        /// MiB of its memory that it changes as fast as it can
        #[arg(long, default_value_t = 0)]
        busy: u32,
        /// Give it a network card: it is host N of the guests' network (10.77.2.N) and echoes on port 7
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=253))]
        card: Option<u32>,
        /// MiB of its memory that hold a pattern; with a card it says its checksum on port 8
        #[arg(long, default_value_t = 0)]
        pattern: u32,
    },
    /// Print a guest's definition
    Xml {
        #[arg(value_name = "NAME")]
        guest: String,
    },
    /// Say on which nodes a guest is
    Where {
        #[arg(value_name = "NAME")]
        guest: String,
    },
    /// Remove a guest's files
    Remove {
        #[arg(value_name = "NAME")]
        guest: String,
    },
}

#[derive(Args)]
pub struct Heartbeat {
    pub guest: String,
    /// Watch for so many seconds: gaps, pauses, reboots, two writers
    #[arg(long, value_name = "SECONDS")]
    pub watch: Option<f64>,
    /// The same until standard input ends
    #[arg(long, conflicts_with = "watch")]
    pub while_input: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}
