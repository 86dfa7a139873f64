//! The suite `hang`: storage that hangs or fails under guests, definitions and scripts; two nodes, no cluster.
//!
//! `cargo test --test hang [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod asynchronous;
mod config;
mod errors;
mod frozen;
mod gone;
mod pool;
mod storage;

use lab::suite::Suite;
use lab::{Options, stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "hang".to_owned(), nodes: 2, bare: true, agent, ..Options::default() },
        scenarios: lab::scenarios! {
            gone: write_in_flight;
            asynchronous: native io_uring;
            config: all_actions answers_again answers_a_start_again stuck_readers stuck_scripts;
            errors: stop report;
            frozen: monitors;
            pool: not_read_anew;
        },
        tidy: storage::tidy,
    }
    .main()
}
