//! A Pacemaker cluster with KVM guests on one machine: for the tests, the demo and a person's own experiments.
//!
//! Every node has its own network, mount, UTS, IPC and PID namespaces and runs the real corosync, pacemaker, libvirtd, virtlogd and QEMU.
//! Between the nodes is a *switch*, a network namespace with two bridges, in which the *power switch* listens: it kills a
//! node's PID 1 as a power cut does. Guests are real Linux kernels which write a heartbeat to their disk on shared storage.
//!
//! The map:
//!
//! | module | noun |
//! |---|---|
//! | [`layout`] | where things are: the state folder, names, addresses |
//! | `state_folder` | that folder: who holds it, what belongs to it on this machine |
//! | [`cluster`] | [`Lab`]: up, down |
//! | [`membership`] | what Pacemaker says, and waiting for it |
//! | [`cib`] | requests that are still in force in the configuration |
//! | [`node`] | one node seen from outside: exec, daemons, processes |
//! | [`power`] | the power of a node, and the server that fence agents ask |
//! | [`storage`] | storage that hangs and fails |
//! | [`clock`] | a clock of its own for each node |
//! | [`coverage`] | where a program under test leaves what it ran through |
//! | [`network`] | the switch: bridges, cables, cuts |
//! | [`init`] | a node's PID 1 |
//! | [`platform`] | the system the nodes run |
//! | [`config`] | the texts of the daemons' configuration |
//! | [`tls`] | certificates for libvirt and QEMU |
//! | [`fence`] | the fence agent `fence_lab` |
//! | [`guest`], [`kernel`] | guests, and what they boot |
//! | [`client`] | who talks to a guest over the network |
//! | [`heartbeat`] | the record a guest writes |
//! | [`watcher`], [`watch`] | who looks at it, and what was seen: gaps, pauses, two writers |
//! | [`history`], [`judge`] | what was seen of a cluster, and what was wrong in it |
//! | [`demo`] | the main job as a story |
//! | [`supervise`] | the lab goes down whatever becomes of the program |
//! | [`stage`] | the agent called by hand, and the truth about its guest |
//! | [`scene`], [`placed`] | the cluster that scenarios are played on, and a guest in its hands |
//! | [`servers`] | servers of disks |
//! | [`ssh`] | ssh between nodes |
//! | [`suite`] | test suites that run on a lab |
//! | [`random`], [`plan`] | numbers from a seed, and what the chaos run does by them |
//! | [`promise`] | the words for one that was broken |
//! | [`program`] | the programs it is made of |
//! | [`process`] | programs run with a time limit; processes told apart for certain |
#![allow(
    clippy::disallowed_methods,
    reason = "a test tool: it waits, sleeps and reads the environment by itself; src/deadline.rs is not its"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for a person, and a PID 1 whose stderr is its log")]

pub mod cib;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod coverage;
pub mod demo;
pub mod fence;
pub mod guest;
pub mod heartbeat;
pub mod history;
pub mod init;
pub mod judge;
pub mod kernel;
pub mod layout;
pub mod membership;
pub mod network;
pub mod node;
pub mod placed;
pub mod plan;
pub mod platform;
pub mod power;
pub mod process;
pub mod program;
pub mod promise;
pub mod random;
pub mod scene;
pub mod servers;
pub mod ssh;
pub mod stage;
mod state_folder;
pub mod storage;
pub mod suite;
pub mod supervise;
pub mod tls;
pub mod watch;
pub mod watcher;

pub use cluster::{Guard, Lab, Options};
pub use guest::GuestOptions;
pub use heartbeat::Record;
pub use membership::Membership;
pub use process::Output;
pub use storage::Fault as StorageFault;
pub use watch::Watch;
pub use watcher::Watcher;
