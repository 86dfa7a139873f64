//! What the scenarios stand on: guests, calls, and what has to be true of them.

use anyhow::{Context, Result, ensure};
use lab::heartbeat::Ring;
use lab::layout::Network;
use lab::process::wait_until;
use lab::promised;
use lab::{GuestOptions, Lab, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// For what takes moments.
pub const SOON: Duration = Duration::from_secs(20);
/// For what takes a while on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where the agent is called: a host of the pool, reached by the network like the others.
pub const FROM: &str = "node3";

/// The pool.
pub const POOL: &str = "qemu+tcp://node1/system,qemu+tcp://node2/system,qemu+tcp://node3/system";

/// How the options are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Lines on standard input.
    Lines,
    /// Long options.
    Long,
    /// Short options, where there are some.
    Short,
}

/// Calls the agent with its pool and these options.
pub fn fence(lab: &Lab, way: Way, options: &[(&str, &str)]) -> Result<Output> {
    let all: Vec<(&str, &str)> = [("uri", POOL)].iter().chain(options).copied().collect();
    bare(lab, way, &all)
}

/// Calls the agent with these options and no others.
pub fn bare(lab: &Lab, way: Way, options: &[(&str, &str)]) -> Result<Output> {
    if way == Way::Lines {
        return lines(lab, &options.iter().map(|(name, value)| format!("{name}={value}\\n")).collect::<String>());
    }
    let letter = |name: &str| {
        let letters = [("action", "-o"), ("plug", "-n"), ("uri", "-U"), ("separator", "-C")];
        letters.iter().find(|(long, _)| *long == name && way == Way::Short).map(|(_, letter)| *letter)
    };
    let mut words = vec!["fence_kvmha".to_owned()];
    for (name, value) in options {
        match letter(name) {
            Some(letter) => words.extend([letter.to_owned(), (*value).to_owned()]),
            None => words.push(format!("--{}={value}", name.replace('_', "-"))),
        }
    }
    lab.exec(FROM, &words, Duration::from_secs(90))
}

/// Calls the agent with a text on standard input, in which `printf %b` understands its escapes.
pub fn lines(lab: &Lab, text: &str) -> Result<Output> {
    lab.exec(FROM, &["sh", "-c", "printf %b \"$1\" | fence_kvmha", "sh", text], Duration::from_secs(90))
}

/// Moves the guest to and fro until it is no longer there, or until `enough`; how often it arrived.
pub fn wander(lab: &Lab, name: &str, mut here: &'static str, enough: &AtomicBool) -> u32 {
    let mut arrived = 0;
    while !enough.load(Ordering::Relaxed) {
        let there = if here == "node1" { "node2" } else { "node1" };
        let target = format!("qemu+tcp://{there}/system");
        let moved = lab.exec(here, &["virsh", "-q", "migrate", "--live", "--p2p", "--unsafe", name, &target], PATIENCE);
        if !moved.is_ok_and(|output| output.code == Some(0)) {
            return arrived;
        }
        (arrived, here) = (arrived + 1, there);
    }
    arrived
}

/// What a call has to have said.
pub trait Says: Sized {
    /// Its code, and all of its standard output.
    fn says(self, code: i32, output: &str) -> Result<Self>;
    /// Its failure, with these words in one line on standard error; none that means a late answer to Pacemaker.
    fn fails(self, words: &[&str]) -> Result<Self>;
}

impl Says for Output {
    fn says(self, code: i32, output: &str) -> Result<Self> {
        ensure!(self.code == Some(code) && self.stdout == output, "not {code} {output:?}: {self:?}");
        Ok(self)
    }

    fn fails(self, words: &[&str]) -> Result<Self> {
        let text = self.stderr.to_lowercase();
        ensure!(self.code == Some(1) && !self.stdout.contains("Success"), "no failure: {self:?}");
        ensure!(self.stderr.lines().count() == 1 && self.stderr.starts_with("fence_kvmha: "), "not one line: {self:?}");
        ensure!(words.iter().all(|word| self.stderr.contains(word)), "without {words:?}: {self:?}");
        ensure!(!text.contains("timeout") && !text.contains("timed out"), "a word that means a late answer: {self:?}");
        Ok(self)
    }
}

/// A guest of the scenario.
pub struct Guest<'a> {
    lab: &'a Lab,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Guest<'a> {
    /// Makes a guest; it does not run.
    pub fn new(lab: &'a Lab, name: &'a str) -> Result<Self> {
        let deaf = name.starts_with("deaf");
        lab.guest_create(name, &GuestOptions { deaf, ..GuestOptions::default() })?;
        Ok(Self { lab, name })
    }

    /// Its definition in the nodes.
    pub fn file(&self) -> String {
        format!("/srv/vms/{}.xml", self.name)
    }

    /// virsh with its name last.
    pub fn virsh(&self, node: &str, words: &[&str]) -> Result<String> {
        self.lab.check(node, &[&["virsh", "-q"], words, &[self.name]].concat(), PATIENCE)
    }

    /// Creates it as a transient guest and waits for its first beat.
    pub fn run(&self, node: &str) -> Result<u64> {
        let before = self.beat();
        self.lab.check(node, &["virsh", "-q", "create", &self.file()], PATIENCE)?;
        self.booted(before)
    }

    /// Defines it.
    pub fn define(&self, node: &str) -> Result<()> {
        self.lab.check(node, &["virsh", "-q", "define", &self.file()], PATIENCE).map(drop)
    }

    /// Waits for the first beat of another boot than `before`.
    pub fn booted(&self, before: Option<u64>) -> Result<u64> {
        let mut now = None;
        let new = wait_until(PATIENCE, Duration::from_millis(20), || {
            now = self.beat().filter(|boot| Some(*boot) != before);
            now.is_some()
        });
        ensure!(new, "{} does not beat", self.name);
        now.context("no beat")
    }

    /// The boot of its last beat.
    pub fn beat(&self) -> Option<u64> {
        Ring::read(&self.lab.guest_image(self.name)).ok().map(|ring| ring.newest.boot)
    }

    /// On which nodes emulators of it live.
    pub fn places(&self) -> Result<Vec<String>> {
        let mut places = Vec::new();
        for node in self.lab.node_names() {
            if !self.lab.processes(&node, &format!("guest:{}", self.name))?.is_empty() {
                places.push(node);
            }
        }
        Ok(places)
    }

    /// It lives on this node and nowhere else.
    pub fn lives(&self, node: &str) -> Result<()> {
        let places = self.places()?;
        promised!(places == [node], "{} is not on {node} alone: {places:?}", self.name);
        Ok(())
    }

    /// No emulator of it lives, and its disk is not written to; also not a little later.
    pub fn is_off(&self) -> Result<()> {
        let at = || Ring::read(&self.lab.guest_image(self.name)).ok().map(|ring| ring.newest.sequence);
        let before = at();
        for pause in [0, 1000] {
            thread::sleep(Duration::from_millis(pause));
            let places = self.places()?;
            promised!(places.is_empty(), "{} lives on {places:?}", self.name);
        }
        promised!(at() == before, "{} has written after its end", self.name);
        Ok(())
    }

    /// An action on it, by standard input.
    pub fn fence(&self, action: &str, options: &[(&str, &str)]) -> Result<Output> {
        let all: Vec<(&str, &str)> = [("action", action), ("plug", self.name)].iter().chain(options).copied().collect();
        fence(self.lab, Way::Lines, &all)
    }
}

/// Makes good what a scenario left: cables, daemons, guests, definitions, notes.
pub fn tidy(lab: &Lab) -> Result<()> {
    for node in lab.node_names() {
        lab.heal(&node, Network::Cluster)?;
        lab.check(&node, &["rm", "-rf", "/run/kvmha"], SOON)?;
    }
    lab.guests_clear()
}
