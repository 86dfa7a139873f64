//! The suite `lifecycle`: the agent called by hand, as Pacemaker calls it, on real libvirt and QEMU; two nodes, no cluster.
//!
//! `cargo test --test lifecycle [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod daemon;
mod emulators;
mod hints;
mod late;
mod life;
mod moving;
mod pulse;
mod starting;
mod states;
mod tools;
mod unknown;

use lab::suite::Suite;
use lab::{Options, stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "lifecycle".to_owned(), nodes: 2, bare: true, agent, ..Options::default() },
        scenarios: lab::scenarios! {
            life: normal never_started deaf deaf_in_no_time agent_mode_without_agent no_variables nasty_name names_that_begin_alike
                stopped_while_it_boots;
            starting: refused emulator_exits dies_at_once dies_later scripts disk_is_locked disk_without_lock on_two_nodes_at_once
                by_an_address_of_its_own;
            states: paused crashed asleep leftover_definition autostart_of_one_that_runs config_of_libvirt_itself
                uuid_of_another uuid_of_one_that_was_renamed unsettled_probe lost_by_libvirt;
            emulators: stopped stopped_and_libvirt_frozen killed process_table_not_there never_seen command_line_that_does_not_come
                another_emulator_is_silent seen_while_a_process_is_silent;
            hints: config_lost_while_running config_and_record_lost no_parameters_at_a_stop config_never_there config_not_understood config_names_another record_lost_or_nonsense
                record_is_old;
            daemon: frozen killed restarted start_while_it_restarts frozen_in_mid_stop;
            late: held_in_preparation frozen_in_preparation frozen_before_the_request_is_read queued_behind_another;
            moving: there_and_back paused bad_targets name_taken too_slow nothing_comes target_in_mid_migration agent_killed_then_again agent_killed_then_again_at_a_slow_libvirt agent_killed_and_arrived
                agent_killed_and_forgotten
                agent_killed_then_stop agent_killed_in_the_handover source_frozen_in_mid_migration config_missing_at_the_target;
            unknown: at_the_target when_it_has_come when_it_was_here_before;
            pulse: silent never_heard;
            tools: incumbent ocf_tester light_monitor;
        },
        tidy: stage::tidy,
    }
    .main()
}
