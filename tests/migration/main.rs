//! The suite `migration`: faults at every phase of a move, by hand on real libvirt and QEMU; two nodes, no cluster.
//!
//! `cargo test --test migration [WORD...]` runs the scenarios whose names contain a word; with `-- --all` also those that take long.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod busy;
mod clients;
mod faults;
mod preflight;
mod relay;
mod transports;

use faults::{begin, confirm, finish, finished, perform, prepare};
use lab::suite::{Scenario, Suite};
use lab::{Options, stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    let mut scenarios = lab::scenarios! {
        preflight: name_and_uuid network machine_and_target unsafe_place jobs records;
        busy: converges gentle_stays postcopy_arrives postcopy_not_allowed network_by_address;
        clients: connection_and_memory;
        transports: ssh tls unix refused_for_a_moment refused_before_its_pool filtered slow_names another_is_awaited no_room_for_its_end;
        begin: agent target_libvirt;
        prepare: source_libvirt target_libvirt target_emulator;
        perform: agent source_libvirt target_libvirt source_emulator target_emulator target_full;
        finish: agent source_libvirt target_libvirt;
        finished: agent source_libvirt target_libvirt;
        confirm: agent source_libvirt;
    };
    if std::env::args().any(|word| word == "--all") {
        scenarios.extend(long());
    }
    let options = Options { name: "migration".to_owned(), nodes: 2, bare: true, agent, ..Options::default() };
    Suite { options, scenarios, tidy: stage::tidy }.main()
}

/// Those that take long, most of them because libvirt waits half a minute for a peer that says nothing.
fn long() -> Vec<Scenario> {
    lab::scenarios! {
        busy: postcopy_breaks postcopy_resumed_or_said postcopy_resumed_by_the_next_or_said;
        begin: source_libvirt target_frozen source_emulator network source_power target_power target_full;
        prepare: agent target_frozen source_emulator network source_power target_power target_full;
        perform: target_frozen network source_power target_power;
        finish: target_frozen source_emulator target_emulator network source_power target_power target_full;
        finished: target_word target_frozen source_emulator target_emulator network source_power target_power target_full;
        confirm: target_libvirt target_frozen source_emulator target_emulator network source_power target_power target_full;
    }
}
