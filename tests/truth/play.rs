//! What a condition is played with: two nodes, a guest, and what has to be undone.

use crate::between::Between;
use anyhow::{Context, Result};
use lab::Lab;
use lab::node::Terminal;
use lab::promised;
use lab::stage::{Agent, Resource, SOON, soon, tidy_node};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Makes a condition.
pub type SetUp = for<'a> fn(&Lane<'a>, &str) -> Result<Play<'a>>;

/// Two nodes for one condition at a time.
pub struct Lane<'a> {
    pub lab: &'a Lab,
    /// Where the actions are called.
    pub here: String,
    /// Where a guest may be moved to, or comes from.
    pub there: String,
    pub agent: Agent,
}

/// A condition that has been made.
pub struct Play<'a> {
    pub guest: Resource<'a>,
    /// What strikes while an action asks libvirt.
    pub between: Option<Between>,
    /// Whether the condition still stands; actions may change it, and some pass by themselves.
    pub stands: Box<dyn Fn() -> bool + 'a>,
    /// Undone at the end, the last first.
    undo: Vec<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Play<'a> {
    pub fn new(guest: Resource<'a>) -> Self {
        Self { guest, between: None, stands: Box::new(|| true), undo: Vec::new() }
    }

    pub fn stands(mut self, stands: impl Fn() -> bool + 'a) -> Self {
        self.stands = Box::new(stands);
        self
    }

    pub fn undo(mut self, undo: impl FnOnce() + 'a) -> Self {
        self.undo.push(Box::new(undo));
        self
    }
}

impl Drop for Play<'_> {
    fn drop(&mut self) {
        drop(self.between.take());
        while let Some(undo) = self.undo.pop() {
            undo();
        }
    }
}

impl<'a> Lane<'a> {
    pub fn new(lab: &'a Lab, number: u32, agent: Agent) -> Self {
        let node = |offset| format!("node{}", 2 * number + offset);
        Self { lab, here: node(1), there: node(2), agent }
    }

    /// A guest without a kernel, which can move in this lab, and nowhere yet.
    pub fn absent(&self, name: &str) -> Result<Resource<'a>> {
        Ok(self.able(&Resource::empty(self.lab, &plain(name))?))
    }

    /// As [`Lane::absent`], but with a kernel: it beats and obeys the power button.
    pub fn beating(&self, name: &str) -> Result<Resource<'a>> {
        Ok(self.able(&Resource::new(self.lab, &plain(name))?))
    }

    /// This guest under the agent of this lane, with what it needs to move.
    fn able(&self, guest: &Resource<'a>) -> Resource<'a> {
        let guest = guest.with("migration_transport", "tcp").with("migrate_options", "--unsafe").with("hypervisor", "qemu:///system");
        let guest = Resource { agent: self.agent, ..guest };
        match self.agent {
            Agent::Ours => guest,
            // Without a cluster it would wait for its tools.
            Agent::Theirs => ["cpu", "host_memory", "hv_memory"]
                .iter()
                .fold(guest, |guest, what| guest.with(&format!("autoset_utilization_{what}"), "false")),
        }
    }

    /// A guest of [`Lane::absent`] that was started here.
    pub fn runs(&self, name: &str) -> Result<Resource<'a>> {
        self.started(self.absent(name)?)
    }

    /// Starts the guest by the agent under test, so that it is known to it.
    pub fn started(&self, guest: Resource<'a>) -> Result<Resource<'a>> {
        let output = self.lab.exec(&self.here, &guest.words(&self.here, "start", 90, &[]), SOON)?;
        output.success("the guest's start")?;
        promised!(guest.lives(&self.here), "start said 0, but no emulator of {} is there", guest.name);
        Ok(guest)
    }

    /// A file of the node where the actions are called.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        self.lab.path_in(&self.here, path)
    }

    /// `virsh domstate --reason`.
    pub fn state(&self, guest: &Resource) -> String {
        guest.virsh(&self.here, "domstate", &["--reason"]).unwrap_or_default()
    }

    /// Takes everything away that the condition `name` has left.
    pub fn tidy(&self, name: &str) -> Result<()> {
        for node in [&self.here, &self.there] {
            tidy_node(self.lab, node)?;
            self.lab.node_clear(node).with_context(|| format!("{node} cannot be tidied"))?;
        }
        let plain = plain(name);
        for entry in fs::read_dir(self.lab.layout().shared())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{plain}.")) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// A program that goes on in a node while actions are called; it ends with this.
pub struct Background(Child);

impl Background {
    pub fn start(lab: &Lab, node: &str, words: &[&str]) -> Result<Self> {
        let mut command = lab.enter(node, words, Terminal::None)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self(command.spawn().with_context(|| format!("failed to run {}", words.join(" ")))?))
    }

    /// A move so slow that it takes a minute, without an agent; returns when the guest comes in at the target.
    pub fn slow_move(lab: &Lab, guest: &Resource, from: &str, to: &str) -> Result<Self> {
        Self::begin_move(lab, guest, from, to, &["--bandwidth", "1"])
    }

    /// Like [`Self::slow_move`], but ready to be switched to post-copy.
    pub fn slow_postcopy(lab: &Lab, guest: &Resource, from: &str, to: &str) -> Result<Self> {
        Self::begin_move(lab, guest, from, to, &["--bandwidth", "1", "--postcopy", "--postcopy-bandwidth", "1"])
    }

    fn begin_move(lab: &Lab, guest: &Resource, from: &str, to: &str, more: &[&str]) -> Result<Self> {
        let uri = format!("qemu+tcp://{to}/system");
        let words = ["virsh", "migrate", "--live", "--p2p", "--unsafe", &guest.name, &uri];
        let moving = Self::start(lab, from, &[&words, more].concat())?;
        soon("the guest comes in", || guest.lives(to))?;
        soon("memory flows", || guest.virsh(from, "domjobinfo", &[]).is_ok_and(|job| job.contains("Memory processed")))?;
        Ok(moving)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

/// A guest's name from a condition's.
pub fn plain(name: &str) -> String {
    name.replace('_', "-")
}

/// Where a file is moved out of the way to.
pub fn hidden(path: &Path) -> PathBuf {
    path.with_extension("hidden")
}
