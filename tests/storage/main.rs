//! The suite `storage`: what guests lie on. Moves between two nodes that have the same storage, and between two that have other data by the
//! same names; disks over the network with real servers.
//!
//! `cargo test --test storage [WORD...]` runs the scenarios whose names contain a word. `AGENT_UNDER_TEST=theirs` shows what
//! `ocf:heartbeat:VirtualDomain` does where ours refuses; that is printed and not counted.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod command;
mod device;
mod network;
mod other;
mod same;
mod tpm;

use lab::suite::Suite;
use lab::{Options, stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    let scenarios = lab::scenarios! {
        same: folder link fuse;
        other: folder pool definition_hangs;
        device: same definition_hangs formatted other clone;
        command: table json chain hung warnings matrix;
        tpm: described goes_along forgotten of_both_nodes;
        network: two_servers_of_one_name nbd iscsi nfs rbd gluster gluster_mounted;
    };
    let options = Options { name: "storage".to_owned(), nodes: 3, bare: true, agent, ..Options::default() };
    Suite { options, scenarios, tidy: stage::tidy }.main()
}
