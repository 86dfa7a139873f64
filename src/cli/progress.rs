//! How far a move is, for a person who waits for it.

use super::print;
use crate::deadline::now;
use crate::domain::ffi::Job;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// How often a line is printed without a terminal.
const LINE: Duration = Duration::from_secs(5);

/// What a person sees.
pub(super) struct Show {
    bar: Option<ProgressBar>,
    said: Cell<Option<Instant>>,
}

impl Show {
    /// A bar where there is a terminal, or lines.
    pub(super) fn new(plain: bool, id: &str, node: &str) -> Self {
        Self::with(plain || !io::stderr().is_terminal(), id, node)
    }

    fn with(plain: bool, id: &str, node: &str) -> Self {
        let bar = (!plain).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(format!("{id} to {node}"));
            bar
        });
        Self { bar, said: Cell::new(None) }
    }

    /// Shows how far it is.
    pub(super) fn progress(&self, job: &Job) {
        let (sent, rest) = (job.data_processed.unwrap_or(0), job.data_remaining.unwrap_or(0));
        let text = describe(job);
        match &self.bar {
            Some(bar) => {
                bar.set_length(sent.saturating_add(rest));
                bar.set_position(sent);
                bar.set_message(text);
            }
            None if self.said.get().is_none_or(|last| now() - last >= LINE) => {
                self.said.set(Some(now()));
                print(&format!("{} MiB sent, {} MiB left, {text}\n", sent / MIB, rest / MIB));
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const MIB: u64 = 1024 * 1024;

/// Rates, and when the end is to be expected if the guest goes on as it does.
fn describe(job: &Job) -> String {
    let speed = job.memory_bps.unwrap_or(0);
    let dirtied = job.dirtied().unwrap_or(0);
    let end = match speed.saturating_sub(dirtied) {
        0 => "no end in sight".to_owned(),
        gain => format!("{} s to go", job.data_remaining.unwrap_or(0) / gain),
    };
    format!("{} MiB/s sent, {} MiB/s dirtied, pass {}, {end}", speed / MIB, dirtied / MIB, job.memory_iteration.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ffi::JobKind;

    #[test]
    fn the_end_is_in_sight_or_not() {
        let job =
            Job { memory_bps: Some(100 * MIB), data_remaining: Some(500 * MIB), memory_iteration: Some(2), ..Job::new(JobKind::Unbounded) };
        assert_eq!(describe(&job), "100 MiB/s sent, 0 MiB/s dirtied, pass 2, 5 s to go");
        let busy = Job { memory_dirty_rate: Some(51200), memory_page_size: Some(4096), ..job };
        assert_eq!(describe(&busy), "100 MiB/s sent, 200 MiB/s dirtied, pass 2, no end in sight");
    }

    #[test]
    fn where_there_is_no_terminal_there_are_lines() {
        if !io::stderr().is_terminal() {
            assert!(Show::new(false, "web1", "node2").bar.is_none());
        }
        assert!(Show::with(true, "web1", "node2").bar.is_none() && Show::with(false, "web1", "node2").bar.is_some());
    }

    #[test]
    fn numbers_that_cannot_be_true() {
        let most = Some(u64::MAX);
        let job = Job {
            data_processed: most,
            data_remaining: most,
            memory_dirty_rate: most,
            memory_page_size: most,
            memory_bps: most,
            memory_iteration: most,
            ..Job::new(JobKind::Unbounded)
        };
        assert!(describe(&job).ends_with("no end in sight"), "{}", describe(&job));
        Show { bar: Some(ProgressBar::hidden()), said: Cell::new(None) }.progress(&job);
    }
}
