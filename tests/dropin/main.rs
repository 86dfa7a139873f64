//! The suite `dropin`: the agent in the place of `ocf:heartbeat:VirtualDomain`. What every parameter does to a real guest, both agents side
//! by side, and a running cluster that changes over and back; three nodes with Pacemaker.
//!
//! `cargo test --test dropin [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod adopt;
mod cluster;
mod keeping;
mod moves;
mod needs;
mod numbers;
mod outside;
mod pairs;
mod props;
mod saved;
mod tools;

use lab::suite::Suite;
use lab::{Options, stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "dropin".to_owned(), agent, ..Options::default() },
        scenarios: lab::scenarios! {
            keeping: saved_by_monitor_and_stop around_a_move an_old_state_file_at_the_target not_without_being_asked config_lost config_is_another_resources
                config_is_that_of_one_which_nobody_has_seen config_is_older_than_what_came config_names_what_came_since not_saved_in_full distributed_by_csync2
                distributed_by_a_stand_in_for_csync2 without_csync2;
            saved: stopped_and_gone_on failed_by_a_script cannot_be_saved cannot_be_restored older_than_the_disk older_than_what_it_is_compared_with
                set_again_while_it_runs ran_on_without_it
                not_written_to_its_end not_written_to_its_end_in_japanese restored_and_never_let_run;
            needs: networks_and_pools at_the_target two_at_once pool_that_cannot_be_read image_on_a_base image_anew copied_in_by_a_stand_in_for_virt_copy_in;
            numbers: written_and_left_alone removed traced;
            moves: the_way_to_the_target the_way_of_the_memory speed_and_downtime;
            tools: wrong_values reloaded;
            pairs: announced theirs_and_ours;
            adopt: ten_there_and_back killed_at_each_step known_by_its_monitor_alone libvirtd_down libvirtd_killed_in_the_middle refused
                what_depends_on_it goes_on_without_a_terminal another_node_lost node_of_the_guest_lost scheduler_hangs_at_the_end end_is_not_taken;
            outside: comes_in;
        },
        tidy: props::tidy,
    }
    .main()
}
