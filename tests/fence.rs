//! The suite `fence`: the fence agent on three real libvirts, called as people and Pacemaker call it; no cluster.
//!
//! `cargo test --test fence [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

#[path = "fence/faults.rs"]
mod faults;
#[path = "fence/identity.rs"]
mod identity;
#[path = "fence/moving.rs"]
mod moving;
#[path = "fence/power.rs"]
mod power;
#[path = "fence/protocol.rs"]
mod protocol;
#[path = "fence/stage.rs"]
mod stage;

use lab::Options;
use lab::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(env!("CARGO_BIN_EXE_kvmha").into());
    Suite {
        options: Options { name: "fence".to_owned(), nodes: 3, bare: true, agent, ..Options::default() },
        scenarios: lab::scenarios! {
            protocol: metadata three_ways nonsense_is_never_an_action delay list_of_the_pool node_name_without_plug;
            power: transient persistent several paused emulator_stopped guest_that_does_not_listen waits;
            identity: absent missing_as_off_is_read_by_its_value same_name_two_guests pinned elsewhere_than_defined;
            faults: host_cut_off host_frozen host_cut_off_after_a_kill host_cut_off_under_pacemaker daemon_gone end_not_seen;
            moving: fenced_in_mid_migration;
        },
        tidy: stage::tidy,
    }
    .main()
}
