//! A test suite on a lab: a table of named scenarios that share one lab, one after the other, in the output of `cargo test`.
//!
//! Not libtest's own harness: that runs tests side by side, has no place to take the lab down when a person presses Ctrl-C, and hides
//! what a long test does.

use crate::cluster::{Guard, Lab, Options};
use crate::layout::{Layout, node_name};
use crate::process::tail;
use crate::supervise::supervised;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{Write, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, by which it can be asked for.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Lab) -> Result<()>,
}

/// A table of scenarios: `module: function function...;` for each module.
#[macro_export]
macro_rules! scenarios {
    ($($module:ident: $($name:ident)*;)*) => {
        vec![$($($crate::suite::Scenario { name: concat!(stringify!($module), "::", stringify!($name)), run: $module::$name },)*)*]
    };
}

/// A table of scenarios and the lab they need.
#[derive(Debug)]
pub struct Suite {
    /// The lab, named after the suite unless `--lab NAME` is given.
    pub options: Options,
    /// The tests, in the order in which they run.
    pub scenarios: Vec<Scenario>,
    /// Makes good what a scenario left behind, after each.
    pub tidy: fn(&Lab) -> Result<()>,
}

/// The words of a suite's command line.
#[derive(Debug, Default)]
pub struct Words {
    /// `--list`: only name the tests.
    pub list: bool,
    /// `--exact`: words are whole names.
    exact: bool,
    /// `--lab`: the lab's name.
    pub lab: Option<String>,
    /// `--skip`
    skip: Vec<String>,
    /// The words themselves: parts of names.
    filters: Vec<String>,
}

impl Words {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse(std::env::args().skip(1))
    }

    /// Those of libtest that make sense here; the others that `cargo test` may pass on change nothing.
    fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut parsed = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--lab" => parsed.lab = words.next(),
                "--skip" => parsed.skip.extend(words.next()),
                other if other.starts_with('-') => {}
                _ => parsed.filters.push(word),
            }
        }
        parsed
    }

    /// Whether the test of this name is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

impl Suite {
    /// Runs what the command line asks for: words are parts of names. The lab goes down at the end, whatever happens.
    #[must_use]
    pub fn main(self) -> ExitCode {
        self.main_with(&[])
    }

    /// As [`Suite::main`], and then `others`, whose labs are otherwise and get the name of this one's, one after the other.
    #[must_use]
    pub fn main_with(self, others: &[Self]) -> ExitCode {
        let words = Words::of_process();
        let Options { name, state, .. } = &self.options;
        let (name, state) = (words.lab.as_ref().unwrap_or(name), state.as_deref());
        let suites: Vec<&Self> = std::iter::once(&self).chain(others).collect();
        let wanted =
            |suite: &Self| -> Vec<Scenario> { suite.scenarios.iter().filter(|scenario| words.wants(scenario.name)).copied().collect() };
        let wanted: Vec<Vec<Scenario>> = suites.iter().map(|suite| wanted(suite)).collect();
        if words.list {
            wanted.iter().flatten().for_each(|scenario| println!("{}: test", scenario.name));
            return ExitCode::SUCCESS;
        }
        let (all, count) = (suites.iter().map(|suite| suite.scenarios.len()).sum::<usize>(), wanted.iter().map(Vec::len).sum());
        in_lab(name, state, || {
            println!("\nrunning {count} tests");
            let begin = Instant::now();
            let mut failed = Vec::new();
            for (suite, wanted) in suites.iter().zip(&wanted).filter(|(_, wanted)| !wanted.is_empty()) {
                let options = Options { name: name.clone(), state: state.map(Path::to_owned), ..suite.options.clone() };
                failed.extend(suite.run(&options, wanted));
            }
            Ok(close(count, &failed, all - count, begin))
        })
    }

    /// The names of those that failed; all, when there is no lab.
    fn run(&self, options: &Options, wanted: &[Scenario]) -> Vec<&'static str> {
        let lab = match up(options) {
            Ok(lab) => lab,
            Err(error) => {
                println!("the lab does not come up: {error:#}");
                return wanted.iter().map(|scenario| scenario.name).collect();
            }
        };
        let mut failed = Vec::new();
        for scenario in wanted {
            print!("test {} ... ", scenario.name);
            let _ = stdout().flush();
            let (logs, begin) = (Logs::begin(&lab), Instant::now());
            let outcome = guarded(scenario.run, &lab);
            let time = begin.elapsed().as_secs_f64();
            let (tidied, said) = (guarded(self.tidy, &lab), outcome.is_err());
            match &outcome {
                Ok(()) => println!("ok ({time:.1} s)"),
                Err(error) => {
                    failed.push(scenario.name);
                    println!("FAILED ({time:.1} s)\n    {}", format!("{error:#}").replace('\n', "\n    "));
                    logs.show();
                }
            }
            // What cannot be made good would be the next one's failure.
            if let Err(error) = tidied {
                println!("    cannot tidy up after {}: {error:#}", scenario.name);
                if !said {
                    failed.push(scenario.name);
                }
            }
        }
        failed
    }
}

/// A new lab; an old one of this name, of a suite that was killed, is taken away.
fn up(options: &Options) -> Result<Guard> {
    Lab::down(&options.name, options.state.as_deref())?;
    Lab::up_guarded(options)
}

/// Does the work of a program that uses this lab, in a child of this process; see [`supervised`]. The lab goes down at the end, whatever happens.
#[must_use]
pub fn in_lab(name: &str, state: Option<&Path>, work: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    let outcome = match supervised(|| Lab::down(name, state)) {
        Ok(Some(code)) => Ok(ExitCode::from(code)),
        Ok(None) => work(),
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        println!("{error:#}");
        ExitCode::FAILURE
    })
}

/// A number in the environment, if it is there.
pub fn number(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().with_context(|| format!("{name} is no number: {text}"))).transpose()
}

/// The last words of a suite, as `cargo test` says them, and its code.
#[must_use]
pub fn close<S: AsRef<str>>(tried: usize, failed: &[S], left_out: usize, begin: Instant) -> ExitCode {
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {}", name.as_ref()));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        tried - failed.len(),
        failed.len(),
        begin.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Runs `work`; a panic is an error.
fn guarded(work: fn(&Lab) -> Result<()>, lab: &Lab) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(|| work(lab))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            bail!("panicked: {}", text.unwrap_or("no text"))
        }
    }
}

/// The nodes' system logs, from a moment on.
struct Logs<'a> {
    layout: &'a Layout,
    /// Node and length of its log at the start.
    begins: Vec<(u32, usize)>,
}

/// So many lines of each node's log are shown after a failure.
const SHOWN: usize = 25;

impl<'a> Logs<'a> {
    fn begin(lab: &'a Lab) -> Self {
        let layout = lab.layout();
        Self { layout, begins: (1..=lab.nodes()).map(|node| (node, read(layout, node).len())).collect() }
    }

    fn show(&self) {
        for (node, begin) in &self.begins {
            let text = read(self.layout, *node);
            let lines: Vec<&str> = text.get(*begin..).unwrap_or(&text).lines().collect();
            println!("    -- {}", node_name(*node));
            lines.iter().skip(lines.len().saturating_sub(SHOWN)).for_each(|line| println!("    {line}"));
            // Why a node is not in the cluster stands here alone.
            for own in ["/var/log/lab-corosync.log", "/var/log/corosync/corosync.log"] {
                println!("    -- {} {own}: {}", node_name(*node), tail(&self.layout.on_disk(*node, own), 4).replace('\n', "\n    "));
            }
        }
    }
}

fn read(layout: &Layout, node: u32) -> String {
    fs::read(layout.on_disk(node, "/var/log/messages")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn filters_are_parts_of_names() {
        assert!(words("").wants("start"));
        assert!(words("--nocapture tar").wants("start"));
        assert!(!words("tar --exact").wants("start"));
        assert!(!words("--skip start").wants("start"));
        assert!(words("stop start --test-threads=1").wants("start"));
        assert_eq!(words("--lab mine").lab.as_deref(), Some("mine"));
    }
}
