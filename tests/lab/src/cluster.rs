//! The lab as a whole: brought up, looked at, taken down.

use crate::clock;
use crate::kernel;
use crate::layout::{DEFAULT_NAME, Layout, default_state, node_name};
use crate::membership::Membership;
use crate::network::Switch;
use crate::platform;
use crate::power::{self, INIT, Power, SERVER};
use crate::process::{Identity, check, replace, tail, wait_until};
use crate::program::{agent_file, check_programs, own_program, place};
use crate::state_folder::{hold, is_name, mounts_below, strays};
use crate::storage;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How a lab is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name; two labs of different names run side by side.
    pub name: String,
    /// Its state folder; see [`default_state`] for the usual one.
    pub state: Option<PathBuf>,
    /// Number of nodes.
    pub nodes: u32,
    /// The binary under test, or a folder with it in it.
    pub agent: Option<PathBuf>,
    /// Whether the nodes are without corosync and Pacemaker: libvirt alone.
    pub bare: bool,
    /// The system its nodes run: see [`platform::root`].
    pub platform: Option<String>,
    /// Whether each step is said on standard output.
    pub progress: bool,
    /// How long the cluster may take to come up.
    pub limit: Duration,
    /// Whether its nodes have clocks of their own, which can jump.
    pub clock: bool,
}

impl Default for Options {
    fn default() -> Self {
        let name = DEFAULT_NAME.to_owned();
        let (limit, platform) = (Duration::from_secs(90), platform::of_environment());
        Self { name, state: None, nodes: 3, agent: None, bare: false, platform, progress: false, limit, clock: false }
    }
}

/// What is written down of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Description {
    name: String,
    nodes: u32,
    #[serde(default)]
    bare: bool,
    /// The root of the system its nodes run, if not the machine's own.
    #[serde(default)]
    root: Option<PathBuf>,
}

/// A lab that is up, or was.
#[derive(Clone, Debug)]
pub struct Lab {
    description: Description,
    layout: Layout,
}

/// A lab that goes down when this is dropped.
#[derive(Debug)]
pub struct Guard(pub Lab);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(&self.0.description.name, Some(&self.0.layout.state)) {
            eprintln!("lab: {error:#}");
        }
    }
}

impl std::ops::Deref for Guard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Lab {
    /// The lab with this name, or in this state folder; an error when there is none.
    pub fn open(name: &str, state: Option<&Path>) -> Result<Self> {
        let layout = Layout { state: state.map_or_else(|| default_state(name), Path::to_owned) };
        let text = fs::read_to_string(layout.description()).with_context(|| format!("there is no lab in {}", layout.state.display()))?;
        Ok(Self { description: serde_json::from_str(&text)?, layout })
    }

    /// Brings a lab up, or back up: what runs already stays as it is, nodes without power get it.
    pub fn up(options: &Options) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes namespaces: it must be run as root");
        ensure!((1..=9).contains(&options.nodes), "a lab has 1 to 9 nodes");
        ensure!(is_name(&options.name), "a lab's name is made of up to 16 letters, digits and dashes");
        let mut steps = Steps::new(options.progress);
        let layout = Layout { state: options.state.clone().unwrap_or_else(|| default_state(&options.name)) };
        for folder in ["/etc", "/var", "/usr"] {
            ensure!(
                !layout.state.starts_with(folder),
                "the state folder must not be below {folder}: that is the lower layer of the nodes' disks"
            );
        }
        check_programs()?;
        let agent = options.agent.as_deref().map(agent_file).transpose()?;
        let root = platform::root(options.platform.as_deref())?;
        let _lock = hold(&layout)?;
        let lab = match Self::open(&options.name, Some(&layout.state)) {
            Ok(lab) => {
                ensure!(lab.nodes() == options.nodes, "the lab has {} nodes: take it down first", lab.nodes());
                ensure!(lab.bare() == options.bare, "the lab is there with bare nodes, or without: take it down first");
                ensure!(lab.description.root == root, "the lab's nodes run another system: take it down first");
                lab
            }
            Err(_) => {
                let Options { name, nodes, bare, .. } = options.clone();
                Self { description: Description { name, nodes, bare, root }, layout }
            }
        };
        lab.prepare(agent.as_deref(), options.clock)?;
        steps.done("guest kernel and programs");
        if lab.repair_switch()? {
            steps.done("switch and power switch");
        }
        let off: Vec<String> = lab.node_names().into_iter().filter(|node| !matches!(lab.power(node), Ok(Power::On))).collect();
        thread::scope(|scope| {
            let starts: Vec<_> = off.iter().map(|node| scope.spawn(|| lab.power_on(node))).collect();
            starts.into_iter().try_for_each(|start| start.join().unwrap_or_else(|_| bail!("a node's start panicked")))
        })?;
        if !off.is_empty() {
            steps.done(&format!("{} have power", off.join(", ")));
        }
        if lab.bare() {
            lab.node_names().iter().try_for_each(|node| lab.wait_libvirt(node))?;
            steps.done("libvirt answers");
        } else {
            lab.wait_ready(options.limit, &mut steps)?;
        }
        Ok(lab)
    }

    /// Like [`Lab::up`], and down again when the guard is dropped; down at once when it does not come up.
    pub fn up_guarded(options: &Options) -> Result<Guard> {
        match Self::up(options) {
            Ok(lab) => Ok(Guard(lab)),
            Err(error) => {
                let _ = Self::down(&options.name, options.state.as_deref());
                Err(error)
            }
        }
    }

    /// Takes a lab down, whatever is left of it: processes, switch, mounts, state folder. Nothing to do is no error.
    pub fn down(name: &str, state: Option<&Path>) -> Result<()> {
        let layout = Layout { state: state.map_or_else(|| default_state(name), Path::to_owned) };
        // Another lab's folder knows its own name, and so its switch.
        let name = Self::open(name, state).map_or_else(|_| name.to_owned(), |lab| lab.description.name);
        let _lock = if layout.state.exists() { Some(hold(&layout)?) } else { None };
        // The power switch first: it could give a node power again.
        // Again until there is none: one may just have been starting another.
        loop {
            let mut ours = strays(&layout.state);
            ours.sort_by_key(|(word, _)| word != SERVER);
            if ours.is_empty() {
                break;
            }
            ours.iter().try_for_each(|(_, process)| process.end(Duration::from_secs(15)))?;
        }
        Switch::new(&name).remove()?;
        for point in mounts_below(&layout.state)? {
            check(&["umount", "--lazy", &point], Duration::from_secs(10))?;
        }
        if layout.state.exists() {
            fs::remove_dir_all(&layout.state).with_context(|| format!("failed to remove {}", layout.state.display()))?;
        }
        if state.is_none()
            && let Some(parent) = layout.state.parent()
        {
            // Not while another lab's folder is in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn prepare(&self, agent: Option<&Path>, clock: bool) -> Result<()> {
        for folder in [self.layout.shared(), self.layout.boot()] {
            fs::create_dir_all(folder)?;
        }
        for node in 1..=self.nodes() {
            fs::create_dir_all(self.layout.node(node))?;
        }
        replace(&self.layout.description(), &serde_json::to_string_pretty(&self.description)?)?;
        place(&own_program()?, &self.layout.program())?;
        if let Some(agent) = agent {
            self.install(agent)?;
        }
        storage::provide(&self.layout.hangfs())?;
        if clock {
            clock::provide(&self.layout.clock())?;
        }
        kernel::provide(&self.layout.boot())
    }

    /// Makes what is missing of the switch. Without its network the nodes are worth nothing: then they lose their power.
    fn repair_switch(&self) -> Result<bool> {
        if self.switch().exists() && self.power_switch().is_some() {
            return Ok(false);
        }
        if !self.switch().exists() {
            if let Some(server) = self.power_switch() {
                server.end(Duration::from_secs(10))?;
            }
            for node in self.node_names() {
                self.power_off(&node)?;
            }
            self.switch().create()?;
        }
        self.start_power_switch()?;
        Ok(true)
    }

    /// Waits until all nodes are online, there are a DC and quorum, and the fence device is started.
    fn wait_ready(&self, limit: Duration, steps: &mut Steps) -> Result<()> {
        let (mut last, mut online): (Result<Option<Membership>>, usize) = (Ok(None), 0);
        let ready = wait_until(limit, Duration::from_millis(200), || {
            // Every node is asked: the others may not have noticed yet that one was without power, and the one itself knows.
            let mut all = self.node_names().into_iter().map(|node| self.membership_of(&node));
            last = all.try_fold(None::<Membership>, |worst, next| {
                let next = next?;
                Ok(Some(worst.filter(|worst| worst.online() <= next.online()).unwrap_or(next)))
            });
            let Ok(Some(membership)) = &last else { return false };
            let now = membership.online();
            if now != online {
                online = now;
                steps.done(&format!("{now} of {} nodes online", self.nodes()));
            }
            membership.dc.is_some() && membership.quorum && now == self.nodes() as usize && membership.runs_on("fence").is_some()
        });
        if ready {
            steps.done("quorum, DC, fence device started");
            return Ok(());
        }
        let why = last.map_or_else(|error| format!("{error:#}"), |membership| format!("{membership:?}"));
        let log = tail(&self.layout.on_disk(1, "/var/log/pacemaker/pacemaker.log"), 15);
        bail!("the cluster is not up after {} s: {why}\n--- pacemaker.log of node1 ---\n{log}", limit.as_secs())
    }

    /// Puts the binary under test (a file, or a folder with `kvmha` in it) into every node, at once or at its next start.
    pub fn install(&self, agent: &Path) -> Result<()> {
        place(&agent_file(agent)?, &self.layout.agent())?;
        for node in 1..=self.nodes() {
            // A node that is about to start takes it by itself, and before its pivot it shows the host's files.
            let _lock = self.lock_power(node)?;
            if let Some(process) = self.node_process(node).filter(power::ready) {
                crate::init::install_agent(&self.layout.agent(), &process.path_in("/"))
                    .with_context(|| format!("failed to install on {}", node_name(node)))?;
            }
        }
        Ok(())
    }

    /// The paths of the lab.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Its switch.
    #[must_use]
    pub fn switch(&self) -> Switch {
        Switch::new(&self.description.name)
    }

    /// How many nodes it has.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.description.nodes
    }

    /// Where the system is that its nodes run.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.description.root.as_deref().unwrap_or(Path::new("/"))
    }

    /// Whether its nodes are without corosync and Pacemaker.
    #[must_use]
    pub fn bare(&self) -> bool {
        self.description.bare
    }

    /// The names of its nodes.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes()).map(node_name).collect()
    }

    /// The number of a node.
    pub fn number(&self, node: &str) -> Result<u32> {
        (1..=self.nodes()).find(|number| node_name(*number) == node).with_context(|| format!("there is no node {node}"))
    }

    /// A node's PID 1, if the node has power.
    #[must_use]
    pub fn node_process(&self, node: u32) -> Option<Identity> {
        Identity::load(&self.layout.node_process(node)).filter(Identity::alive)
    }
}

/// The steps of `up`, each said when it is done, with the seconds since the start.
struct Steps {
    begin: Instant,
    loud: bool,
}

impl Steps {
    fn new(loud: bool) -> Self {
        Self { begin: Instant::now(), loud }
    }

    fn done(&mut self, what: &str) {
        if self.loud {
            println!("{:6.1} s  {what}", self.begin.elapsed().as_secs_f64());
        }
    }
}

/// Runs the hidden words of the command line: a node's PID 1 or the power switch.
pub fn hidden(words: &[String]) -> Option<Result<()>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [INIT, "--state", state, node, nodes] => {
            let numbers = node.parse().and_then(|node| nodes.parse().map(|nodes| (node, nodes)));
            Some(numbers.context("not a number").and_then(|(node, nodes)| crate::init::run(Path::new(state), node, nodes)))
        }
        [SERVER, "--state", state] => Some(Lab::open("", Some(Path::new(state))).and_then(|lab| power::serve(&lab))),
        _ => None,
    }
}
