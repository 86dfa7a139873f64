//! The fence agent `fence_kvmha`: the protocol. What a call is told comes in by `input` and `options`, what it finds goes out here.
//!
//! Every failure is code 1 with one line on standard error and in the system log; 0 is only said with proof.

mod action;
mod actions;
mod address;
mod carried;
mod device;
mod ending;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod host;
mod input;
mod knock;
mod limits;
mod list;
mod metadata;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;
mod note;
mod options;
mod password;
mod plug;
mod pool;
mod power;
mod report;
mod saved;
mod sight;
mod table;
mod told;
mod verdict;
mod victim;

pub use carried::{Carried, carried};
pub use device::{Device, Said, fixed_plug};
pub use input::{command, completable};
pub use metadata::document;
pub use note::{Unproven, unproven};

use crate::log;
use action::Action;
use limits::Caller;
use report::Report;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

/// The name in front of every complaint.
const PREFIX: &str = "fence_kvmha: ";

/// Runs the action that `words`, or if there are none standard input, asks for, and gives its exit code.
#[must_use]
pub fn run(words: &[OsString]) -> u8 {
    #[expect(clippy::disallowed_methods, reason = "the edge: Pacemaker says who it is in the environment")]
    let service = std::env::var_os("PCMK_service");
    let caller = if service.is_some_and(|service| service == "pacemaker-fenced") { Caller::Fencer } else { Caller::Person };
    let given = match input::read(words) {
        Ok(given) => given,
        Err(text) => {
            log::init(settings(&options::Options::default(), caller));
            return finish(&Report::failed(text.trim_end().to_owned()), false);
        }
    };
    let (options, faults) = options::read(&given.values);
    let action = action::action_of(&options.action);
    // These work whatever else is given, and contact nothing.
    if options.help {
        return print(&command().render_help().to_string());
    }
    if options.version {
        return print(concat!(env!("CARGO_PKG_VERSION"), "\n"));
    }
    if action == Some(Action::Metadata) {
        return print(&String::from_utf8_lossy(&document()));
    }
    log::init(settings(&options, caller));
    for text in given.oddities.iter().chain(&options.without_effect) {
        warn(text, options.quiet);
    }
    let report = match action {
        _ if !faults.is_empty() => Report::failed(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        // These words are what Pacemaker's fencer looks for (`stonith_action_async_done` in its `lib/fencing/st_actions.c`).
        None => Report::failed(format!("Failed: Unrecognised action '{}'", options.action.escape_debug())),
        Some(action) if action.acts() && given.cut => {
            Report::failed("standard input ends without a newline, so that its last value may have been cut off; nothing is done")
        }
        Some(Action::Tell) => actions::tell(),
        Some(action) => actions::run(action, &options, caller),
    };
    finish(&report, options.quiet)
}

/// Messages go to the system log; debug messages, if they are wanted, to their file, or to standard error when a person asks.
fn settings(options: &options::Options, caller: Caller) -> log::Settings {
    let to_person = (options.verbose && caller == Caller::Person).then(|| "/dev/stderr".into());
    let debug_file = options.debug_file.clone().or(to_person);
    log::Settings {
        tag: "fence_kvmha".into(),
        facility: Some("daemon".into()),
        file: None,
        debug: options.verbose || debug_file.is_some(),
        debug_file,
    }
}

/// Prints, and gives the code of success. A reader that has gone is no error of ours.
fn print(text: &str) -> u8 {
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

fn finish(report: &Report, quiet: bool) -> u8 {
    print(&report.output);
    let text = report.complaints.join("; ");
    if report.code == 0 {
        report.complaints.iter().for_each(|text| warn(text, quiet));
    } else if quiet {
        log::error(text);
    } else if report.code == 1 {
        log::exit_reason(PREFIX, &fit_for_fencer(&text));
    }
    report.code
}

fn warn(text: &str, quiet: bool) {
    log::warning(text);
    // On a terminal the log has written it there.
    if !quiet && !io::stdin().is_terminal() {
        log::complain(&format!("{PREFIX}{}", fit_for_fencer(text)));
    }
}

/// Pacemaker's old code of a failure, which its fencer gives beside the full result for whoever is older than 2.1.3, is that of a late answer if
/// the text holds the words "timed out" or "timeout" (`stonith__result2rc` in its `lib/fencing/st_actions.c`). libvirt's texts and options have
/// them without that meaning; ours, for a guest that did not go off in time, has it and stays. Whether the fencer tries again does not hang on it.
fn fit_for_fencer(text: &str) -> String {
    const MEANT: &str = "Timed out waiting to power OFF";
    let plain = |text: &str| {
        let mut text = text.to_owned();
        for (word, other) in [("timed out", "got no answer in time"), ("timeout", "time limit")] {
            while let Some(at) = text.to_ascii_lowercase().find(word) {
                text.replace_range(at..at + word.len(), other);
            }
        }
        text
    };
    text.split(MEANT).map(plain).collect::<Vec<_>>().join(MEANT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fencer_reads_a_late_answer_only_where_one_is_meant() {
        for text in ["Connection timed out", "TIMEOUT", "power_timeout=5", "keepalive Timeout and timed OUT"] {
            let text = fit_for_fencer(text).to_lowercase();
            assert!(!text.contains("timed out") && !text.contains("timeout"), "{text}");
        }
        assert_eq!(
            fit_for_fencer("web1: Timed out waiting to power OFF, Connection timed out"),
            "web1: Timed out waiting to power OFF, Connection got no answer in time"
        );
    }
}
