//! The suite `cluster`: the resource agent in a real three-node cluster with fencing. `cargo test --test cluster [NAME...]`.
//!
//! All scenarios use one lab, one after the other; each leaves the cluster as it found it, and after one that failed the lab is made anew.
//! What became of the guest is proven by its heartbeat: how often it booted, whether it kept its memory, and that it never ran twice. Timings are
//! printed and never judged. What is needed to understand a failure is kept in `target/tmp/cluster/SCENARIO`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test's own harness: it waits by itself and says what it has seen"
)]

mod changes;
mod faults;
mod libvirt;
mod moves;
mod tools;

use anyhow::{Result, bail};
use lab::scene::Stage;
use lab::suite::{Words, close, in_lab};
use std::io::{Write, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The lab's name, if no other is given; `tests/run` knows it too.
const LAB: &str = "cluster";

/// What is tried, and how. The text that comes back is what a person may want to know of it.
struct Scenario {
    name: &'static str,
    run: fn(&Stage) -> Result<String>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "pcs_and_pacemaker_know_the_agent", run: tools::pcs },
    Scenario { name: "crmsh_knows_the_agent", run: tools::crmsh },
    Scenario { name: "placed_by_pacemaker", run: tools::placed },
    Scenario { name: "replaces_the_heartbeat_agent_by_one_word", run: tools::drop_in },
    Scenario { name: "moved_20_times", run: moves::twenty },
    Scenario { name: "standby_moves_it_live", run: moves::standby },
    Scenario { name: "clean_shutdown_moves_it_live", run: moves::shutdown },
    Scenario { name: "target_without_libvirtd", run: moves::target_dead },
    Scenario { name: "target_with_frozen_libvirtd", run: moves::target_frozen },
    Scenario { name: "agent_killed_while_it_moves", run: moves::agent_killed },
    Scenario { name: "where_it_could_move_to_is_an_attribute", run: moves::outlook },
    Scenario { name: "power_cut", run: faults::power },
    Scenario { name: "network_cut", run: faults::network },
    Scenario { name: "fenced_and_started_again_without_the_cluster", run: faults::started_again },
    Scenario { name: "guest_powers_itself_off", run: faults::guest_ends },
    Scenario { name: "libvirtd_frozen_for_a_minute", run: libvirt::frozen },
    Scenario { name: "libvirtd_killed_and_started", run: libvirt::killed },
    Scenario { name: "config_lost_then_moved", run: libvirt::config_lost },
    Scenario { name: "stopped_while_libvirtd_is_frozen", run: libvirt::stopped_frozen },
    Scenario { name: "start_in_flight_when_stopped", run: libvirt::start_in_flight },
    Scenario { name: "reloadable_parameter", run: changes::reload },
    Scenario { name: "resource_renamed_under_its_guest", run: changes::renamed },
    Scenario { name: "monitor_writes_nothing", run: changes::quiet },
];

fn main() -> ExitCode {
    let words = Words::of_process();
    if words.list {
        SCENARIOS.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let name = words.lab.clone().unwrap_or_else(|| LAB.to_owned());
    in_lab(&name, None, || Ok(run(&words, &name)))
}

/// Runs the scenarios that are wanted.
fn run(words: &Words, lab: &str) -> ExitCode {
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| words.wants(scenario.name)).collect();
    println!("\nrunning {} tests", chosen.len());
    let begin = Instant::now();
    let (mut stage, mut failed) = (None, Vec::new());
    for scenario in &chosen {
        print!("test {} ... ", scenario.name);
        let _ = stdout().flush();
        let begun = Instant::now();
        match on_stage(&mut stage, lab, scenario) {
            Ok(note) => println!("ok ({:.1} s) {note}", begun.elapsed().as_secs_f64()),
            Err(error) => {
                println!("FAILED ({:.1} s)\n    {error:#}", begun.elapsed().as_secs_f64());
                if let Some(stage) = stage.take() {
                    stage.keep_logs(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(lab).join(scenario.name));
                }
                failed.push(scenario.name);
            }
        }
    }
    close(chosen.len(), &failed, SCENARIOS.len() - chosen.len(), begin)
}

/// Runs a scenario on the stage that is there, or on a new one.
fn on_stage(stage: &mut Option<Stage>, lab: &str, scenario: &Scenario) -> Result<String> {
    if stage.is_none() {
        *stage = Some(Stage::build(lab)?);
    }
    let Some(stage) = stage.as_ref() else { bail!("there is no lab") };
    let run = || (scenario.run)(stage);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(note)) => stage.tidy().map(|()| note),
        Ok(Err(error)) => Err(error),
        Err(_) => bail!("the scenario panicked"),
    }
}
