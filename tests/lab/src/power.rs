//! The power of a node, and the power switch: a server on the cluster network which the fence agent asks.
//!
//! Power off is what a power cut is: the cables first, because killed processes send FIN and RST, which the peers of a machine without
//! power never see; then SIGKILL to the node's PID 1, with which everything in the node dies, guests included; then wait until it is gone.

use crate::cluster::Lab;
use crate::init::READY;
use crate::layout::{Network, SWITCH_ADDRESS, SWITCH_PORT, node_name};
use crate::process::{Identity, replace, spawn_free, tail, wait_until};
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seen: below 0.1 s; 1.4 s with tasks that hang on a FUSE file system of the node's own.
const OFF_LIMIT: Duration = Duration::from_secs(15);
const ON_LIMIT: Duration = Duration::from_secs(30);

/// Whether a node has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It has.
    On,
    /// It has not: nothing of it runs.
    Off,
}

/// How the power switch answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As asked.
    None,
    /// With an error, to everything.
    Refuse,
    /// Never, while the fault lasts; what was asked then is not done later either.
    Hang,
    /// After so many seconds.
    Slow(u64),
    /// With an error, when it has done what was asked.
    Lie,
    /// Never, while the fault lasts, when it has done what was asked.
    Mute,
}

impl Fault {
    fn of(text: &str) -> Self {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["refuse"] => Self::Refuse,
            ["hang"] => Self::Hang,
            ["slow", seconds] => Self::Slow(seconds.parse().unwrap_or(5)),
            ["lie"] => Self::Lie,
            ["mute"] => Self::Mute,
            _ => Self::None,
        }
    }

    /// What is said of what was done; nothing where nothing is. What only looks is answered truly: a lie about power that is on would be believed.
    fn told(self, asked: &str, done: String) -> Option<String> {
        let acts = ["off ", "on "].iter().any(|word| asked.starts_with(word));
        match self {
            Self::Lie if acts => Some("error the contact is said to stick".to_owned()),
            Self::Mute if acts => None,
            _ => Some(done),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "none"),
            Self::Refuse => write!(f, "refuse"),
            Self::Hang => write!(f, "hang"),
            Self::Slow(seconds) => write!(f, "slow {seconds}"),
            Self::Lie => write!(f, "lie"),
            Self::Mute => write!(f, "mute"),
        }
    }
}

impl Lab {
    /// Whether a node has power.
    pub fn power(&self, node: &str) -> Result<Power> {
        let number = self.number(node)?;
        Ok(if self.node_process(number).is_some() { Power::On } else { Power::Off })
    }

    /// Cuts a node's power, if it has any.
    pub fn power_off(&self, node: &str) -> Result<()> {
        let number = self.number(node)?;
        let _lock = self.lock_power(number)?;
        self.off(number)
    }

    fn off(&self, node: u32) -> Result<()> {
        if let Some(process) = self.node_process(node) {
            for network in Network::ALL {
                let _ = self.switch().cut(node, network);
            }
            process.end(OFF_LIMIT).with_context(|| format!("{} does not lose its power", node_name(node)))?;
        }
        self.switch().unplug(node);
        let _ = fs::remove_file(self.layout().node_process(node));
        Ok(())
    }

    /// Gives a node power, if it has none, and waits until its daemons are started.
    pub fn power_on(&self, node: &str) -> Result<()> {
        let number = self.number(node)?;
        let _lock = self.lock_power(number)?;
        if self.node_process(number).is_some_and(|process| ready(&process)) {
            return Ok(());
        }
        self.off(number)?;
        self.on(number)
    }

    fn on(&self, node: u32) -> Result<()> {
        let (layout, program) = (self.layout(), self.layout().program());
        let (program, state) = (program.to_string_lossy(), layout.state.to_string_lossy());
        let (number, nodes) = (node.to_string(), self.nodes().to_string());
        let mut argv = vec!["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--propagation", "private"];
        argv.extend([&*program, INIT, "--state", &*state, &*number, &*nodes]);
        spawn_free(&argv, &layout.node_log(node))?;
        let failed = |what: &str| {
            let log = tail(&layout.node_log(node), 5);
            anyhow::anyhow!("{} {what} within {} s: {log}", node_name(node), ON_LIMIT.as_secs())
        };
        let mut process = None;
        wait_until(ON_LIMIT, Duration::from_millis(2), || {
            process = self.node_process(node);
            process.is_some()
        });
        let process = process.ok_or_else(|| failed("did not start"))?;
        let cut: Vec<Network> = Network::ALL.into_iter().filter(|network| layout.cut(node, *network).exists()).collect();
        self.switch().plug(node, process.pid, &cut)?;
        wait_until(ON_LIMIT, Duration::from_millis(5), || ready(&process) || !process.alive());
        if ready(&process) { Ok(()) } else { Err(failed("did not start its daemons")) }
    }

    /// Held, a node has power or has not, and nothing in between.
    pub(crate) fn lock_power(&self, node: u32) -> Result<Flock<File>> {
        lock(&self.layout().node_lock(node))
    }

    /// Sets how the power switch answers from now on.
    pub fn fence_fault(&self, fault: Fault) -> Result<()> {
        replace(&self.layout().fault(), &format!("{fault}\n"))
    }

    fn fault(&self) -> Fault {
        Fault::of(&fs::read_to_string(self.layout().fault()).unwrap_or_default())
    }

    /// Starts the power switch, if it does not run.
    pub fn start_power_switch(&self) -> Result<()> {
        if self.power_switch().is_some() {
            return Ok(());
        }
        let (layout, program) = (self.layout(), self.layout().program());
        let (program, state) = (program.to_string_lossy(), layout.state.to_string_lossy());
        self.switch().spawn(&[&program, SERVER, "--state", &state], &layout.switch_log())?;
        if wait_until(Duration::from_secs(10), Duration::from_millis(2), || self.power_switch().is_some()) {
            return Ok(());
        }
        bail!("the power switch did not start: {}", tail(&layout.switch_log(), 5))
    }

    /// The process of the power switch, if it runs.
    #[must_use]
    pub fn power_switch(&self) -> Option<Identity> {
        Identity::load(&self.layout().switch()).filter(Identity::alive)
    }
}

/// The word that makes this program a node's PID 1.
pub const INIT: &str = "__node";
/// The word that makes this program the power switch.
pub const SERVER: &str = "__switch";

/// A lock that its holder's death opens.
pub fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::options().create(true).append(true).open(path).with_context(|| format!("failed to open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).with_context(|| format!("failed to lock {}", path.display()))
}

/// Whether a node has its own root by now and its daemons are started.
pub(crate) fn ready(process: &Identity) -> bool {
    // Through the host's /proc; before the pivot this is the host's /run, which has no such file.
    process.alive() && process.path_in(READY).exists()
}

/// The power switch itself; never returns unless it cannot listen. One line is asked, one is answered:
/// `off NODE`, `on NODE` -> `ok`; `status NODE` -> `on` or `off`; `list` -> the nodes; anything wrong -> `error WHY`.
pub fn serve(lab: &Lab) -> Result<()> {
    let listener = TcpListener::bind((SWITCH_ADDRESS, SWITCH_PORT)).context("the power switch cannot listen")?;
    Identity::own()?.save(&lab.layout().switch())?;
    for stream in listener.incoming().flatten() {
        let lab = lab.clone();
        thread::spawn(move || {
            if let Err(error) = answer(&lab, &stream) {
                note(&format!("connection lost: {error:#}"));
            }
        });
    }
    Ok(())
}

fn answer(lab: &Lab, mut stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let (asked, fault) = (line.trim().to_owned(), lab.fault());
    let from = stream.peer_addr().map_or_else(|_| "?".to_owned(), |a| a.ip().to_string());
    note(&format!("{from} asks: {asked} (fault: {fault:?})"));
    match fault {
        Fault::Refuse => {
            writeln!(stream, "error refused")?;
            return Ok(());
        }
        Fault::Hang => {
            outlast(lab, fault);
            return Ok(());
        }
        Fault::Slow(seconds) => thread::sleep(Duration::from_secs(seconds)),
        Fault::None | Fault::Lie | Fault::Mute => {}
    }
    let text = obey(lab, &asked).unwrap_or_else(|error| format!("error {error:#}").replace('\n', " "));
    let Some(told) = fault.told(&asked, text) else {
        note(&format!("{from} {asked}: nothing is said"));
        outlast(lab, fault);
        return Ok(());
    };
    note(&format!("{from} {asked}: {told}"));
    writeln!(stream, "{told}")?;
    Ok(())
}

fn outlast(lab: &Lab, fault: Fault) {
    while lab.fault() == fault {
        thread::sleep(Duration::from_millis(100));
    }
}

fn obey(lab: &Lab, asked: &str) -> Result<String> {
    match asked.split_whitespace().collect::<Vec<_>>()[..] {
        ["off", node] => lab.power_off(node).map(|()| "ok".to_owned()),
        ["on", node] => lab.power_on(node).map(|()| "ok".to_owned()),
        ["status", node] => Ok(if lab.power(node)? == Power::On { "on" } else { "off" }.to_owned()),
        ["list"] => Ok(lab.node_names().join(" ")),
        _ => bail!("not understood: {asked}"),
    }
}

fn note(text: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    eprintln!("{:.3} {text}", now.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_was_written() {
        for fault in [Fault::None, Fault::Refuse, Fault::Hang, Fault::Slow(7), Fault::Lie, Fault::Mute] {
            assert_eq!(Fault::of(&format!("{fault}\n")), fault);
        }
        assert_eq!(Fault::of(""), Fault::None);
    }

    /// Off that is not there would have two copies of a guest on one disk. What is believed of these lies is only that a node still has power.
    #[test]
    fn a_switch_that_lies_says_of_nothing_that_it_is_off() {
        for fault in [Fault::Lie, Fault::Mute] {
            for asked in ["off node1", "on node1"] {
                assert!(fault.told(asked, "ok".into()).is_none_or(|text| text.starts_with("error ")), "{fault}: {asked}");
            }
            for (asked, done) in [("status node1", "on"), ("status node1", "off"), ("list", "node1 node2")] {
                assert_eq!(fault.told(asked, done.into()).as_deref(), Some(done));
            }
        }
        assert_eq!(Fault::None.told("off node1", "ok".into()).as_deref(), Some("ok"));
    }
}
