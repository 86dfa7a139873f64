//! The suite `fence`: the fence agent on three real libvirts, called as people and Pacemaker call it; no cluster.
//!
//! `cargo test --test fence [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod faults;
mod identity;
mod moving;
mod power;
mod protocol;
mod rights;
mod rivals;
mod sasl;
mod ssh;
mod stage;
mod tls;

use lab::Options;
use lab::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "fence".to_owned(), nodes: 3, bare: true, agent, ..Options::default() },
        scenarios: lab::scenarios! {
            protocol: metadata three_ways nonsense_is_never_an_action delay list_of_the_pool node_name_without_plug;
            power: transient persistent saved started_again_by_somebody autostart_while_it_is_fenced several paused emulator_stopped emulator_stopped_under_a_question emulator_stopped_under_many_questions defined_where_another_guest_is_under_many_questions guest_that_does_not_listen waits;
            identity: absent other_letters missing_as_off_is_read_by_its_value same_name_two_guests name_that_reads_as_a_uuid same_uuid_two_guests pinned elsewhere_than_defined;
            faults: host_cut_off host_frozen host_cut_off_after_a_kill host_cut_off_under_pacemaker daemon_gone daemon_restarts readers_only end_not_seen;
            ssh: by_key by_a_key_that_allows_nothing_else not_let_in by_libssh;
            rights: by_polkit;
            tls: by_certificate;
            sasl: by_password by_password_over_tls;
            rivals: false_answers states_that_are_on beside_fence_virt;
            moving: fenced_while_it_wanders fenced_while_it_leaves_the_pool;
        },
        tidy: stage::tidy,
    }
    .main()
}
