//! The suite `operator`: what a person asks of a cluster, `kvmha status` and its sisters, in a real three-node cluster with fencing; and the
//! manual's guide to a cluster of two nodes, in such a one.
//!
//! `cargo test --test operator [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod commands;
mod doctor;
mod guide;
mod manual;
mod nowhere;
mod repair;
mod seen;

use lab::Options;
use lab::scene::Stage;
use lab::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let scenarios = lab::scenarios! {
        seen: without_guests followed_from_node_to_node storage_of_all copies_are_counted guessed_where_the_definition_cannot_be_read;
        doctor: each_broken_set_up_is_found remedies_do_what_they_say;
        repair: copies_and_files a_copy_that_begins_to_run a_copy_that_is_held interrupted_while_it_holds a_failed_move a_move_mark
            found_by_a_refresh;
        nowhere: after_a_stop_that_failed after_starts_that_failed;
        manual: the_other_pages;
    };
    let options =
        Options { name: "operator".to_owned(), agent: Some(lab::program::under_test()), limit: lab::scene::LIMIT, ..Options::default() };
    let tidy = Stage::tidy_guests;
    let mut guide =
        Suite { options: Options { nodes: 2, ..options.clone() }, scenarios: lab::scenarios! { guide: the_two_node_guide; }, tidy };
    if guide::package().is_some() {
        // Nothing of kvmha is in the nodes before the guide says so.
        guide.options.agent = None;
        return guide.main();
    }
    Suite { options: Options { clock: true, ..options }, scenarios, tidy }.main_with(&[guide])
}
