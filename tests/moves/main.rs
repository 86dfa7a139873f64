//! The suite `moves`: moves that fail or are taken back, and storage that fails, in a real three-node cluster with fencing.
//!
//! `cargo test --test moves [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod frozen;
mod outage;
mod pacemaker;
mod restarts;

use lab::scene::Stage;
use lab::suite::Suite;
use lab::{Lab, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "moves".to_owned(), agent, limit: lab::scene::LIMIT, ..Options::default() },
        scenarios: lab::scenarios! {
            pacemaker: moved_by_hand taken_back terminal_closed one_after_the_other overruled lost_sight_of left_and_runs refused_before blocked_and_healed;
            restarts: a_stub_of_crm_mon_fails_once a_stub_of_crm_resource_gives_no_answer after_another_guests a_failure_that_follows_another foreseen nothing_asked ended_while_held killed_while_held;
            outage: it_goes_on it_is_given_up it_is_relocated its_device_is_relocated it_holds_still a_node_that_hangs_is_left_alone its_start_waits;
            frozen: five_guests servers_cut;
        },
        tidy: |lab: &Lab| outage::heal(lab).and(frozen::heal(lab)).and(Stage::tidy_guests(lab)),
    }
    .main()
}
