//! The suite `stonith`: the fence agent in a real cluster. Its nodes are the hosts, and what Pacemaker fences are guests on them.
//!
//! Not the nodes themselves: those of the lab are namespaces, which no libvirt can end, and a node as a guest of an outer libvirt would be a
//! whole Debian with its own QEMU, both emulated. The fencer makes no difference: it calls the device for the name in `pcmk_host_map`.
//!
//! `cargo test --test stonith [WORD...]` runs the scenarios whose names contain a word.
#![allow(clippy::print_stdout, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test: it waits by itself; src/deadline.rs is not its")]

mod cluster;
#[path = "../fence/stage.rs"]
#[allow(dead_code, reason = "shared with the suite fence")]
mod stage;

use lab::Options;
use lab::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    let agent = Some(lab::program::under_test());
    Suite {
        options: Options { name: "stonith".to_owned(), nodes: 3, agent, ..Options::default() },
        scenarios: lab::scenarios! {
            cluster: known_to_the_tools fenced_by_pacemaker crmsh converted plugs_that_the_doctor_asks fenced_while_it_wanders end_not_seen_by_another_node host_turned_off;
        },
        tidy: cluster::tidy,
    }
    .main()
}
