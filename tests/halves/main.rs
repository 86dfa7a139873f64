//! The suite `halves`: two nodes, of which either has quorum alone, cut apart while an error of the storage has paused a guest.
//!
//! `cargo test --test halves [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod apart;

use lab::Options;
use lab::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "halves".to_owned(), nodes: 2, agent, limit: lab::scene::LIMIT, ..Options::default() },
        scenarios: lab::scenarios! { apart: slow_fencing no_fencing; },
        tidy: apart::tidy,
    }
    .main()
}
