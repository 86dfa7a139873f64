//! The switch: a network namespace with three bridges, and a cable from each to every node. Nothing is reachable from outside.

use crate::layout::{GUEST_BRIDGE, Network, SWITCH_ADDRESS};
use crate::process::{self, check, run};
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// `ip` answers at once; the limit is for a machine that is very busy.
const LIMIT: Duration = Duration::from_secs(20);

/// No snooping, no learning delay: a cable works as soon as it is plugged in.
const BRIDGE: &str = "type bridge mcast_snooping 0 forward_delay 0 stp_state 0";

/// Where `ip netns` keeps named namespaces: it makes the folder and mounts it on itself, for good.
const NAMESPACES: &str = "/run/netns";
/// There while [`NAMESPACES`] is a lab's doing.
const NAMESPACES_OURS: &str = "/run/kvmha-lab-netns";

/// The switch of a lab.
#[derive(Clone, Debug)]
pub struct Switch {
    namespace: String,
}

impl Switch {
    /// The switch of the lab with this name.
    #[must_use]
    pub fn new(lab: &str) -> Self {
        Self { namespace: format!("kvmha-{lab}") }
    }

    /// The name of its network namespace, for `ip -n`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The file `nsenter --net=` takes.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{NAMESPACES}/{}", self.namespace)
    }

    /// Whether it is there, with its bridges.
    #[must_use]
    pub fn exists(&self) -> bool {
        Path::new(&self.path()).exists() && Network::ALL.iter().all(|network| self.ip(&format!("link show {}", network.bridge())).is_ok())
    }

    /// Makes it; what was left of an earlier one goes first.
    pub fn create(&self) -> Result<()> {
        self.remove()?;
        {
            let _lock = hold_namespaces()?;
            if !is_mount(NAMESPACES)? {
                fs::write(NAMESPACES_OURS, "")?;
            }
            check(&["ip", "netns", "add", &self.namespace], LIMIT)?;
        }
        self.inside(&["sh", "-c", "for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done"])?;
        self.ip("link set lo up")?;
        for network in Network::ALL {
            let bridge = network.bridge();
            self.ip(&format!("link add {bridge} {BRIDGE}"))?;
            self.ip(&format!("addr add {}/24 dev {bridge}", network.address(254)))?;
            self.ip(&format!("link set {bridge} up"))?;
        }
        debug_assert_eq!(Network::Cluster.address(254), SWITCH_ADDRESS);
        Ok(())
    }

    /// Takes it away; nothing happens when there is none. Cables go with it, and with the last namespace the place that `ip netns` has
    /// made for them, if it was a lab that had it made.
    pub fn remove(&self) -> Result<()> {
        let _lock = hold_namespaces()?;
        if Path::new(&self.path()).exists() {
            check(&["ip", "netns", "del", &self.namespace], LIMIT)?;
        }
        let empty = || fs::read_dir(NAMESPACES).is_ok_and(|mut entries| entries.next().is_none());
        if Path::new(NAMESPACES_OURS).exists() && empty() {
            while is_mount(NAMESPACES)? {
                check(&["umount", NAMESPACES], LIMIT)?;
            }
            fs::remove_dir(NAMESPACES).with_context(|| format!("failed to remove {NAMESPACES}"))?;
            fs::remove_file(NAMESPACES_OURS)?;
        }
        Ok(())
    }

    /// Plugs a node in: one cable per network into the network namespace of `pid`. Those named in `cut` stay down at the switch.
    pub fn plug(&self, node: u32, pid: i32, cut: &[Network]) -> Result<()> {
        for network in Network::ALL {
            let port = port(node, network);
            // A dead node's namespace goes a little after its last process, and its cable with it.
            let _ = self.ip(&format!("link del {port}"));
            self.ip(&format!("link add {port} type veth peer name {} netns {pid}", network.interface()))?;
            self.ip(&format!("link set {port} master {} {}", network.bridge(), if cut.contains(&network) { "down" } else { "up" }))?;
        }
        Ok(())
    }

    /// Takes a node's cables away.
    pub fn unplug(&self, node: u32) {
        for network in Network::ALL {
            let _ = self.ip(&format!("link del {}", port(node, network)));
        }
    }

    /// Takes the ports of a node down, at the switch: the node loses the carrier and keeps its address.
    pub fn cut(&self, node: u32, network: Network) -> Result<()> {
        self.ip(&format!("link set {} down", port(node, network)))
    }

    /// Takes the ports of a node up again.
    pub fn heal(&self, node: u32, network: Network) -> Result<()> {
        self.ip(&format!("link set {} up", port(node, network)))
    }

    fn ip(&self, words: &str) -> Result<()> {
        let mut argv = vec!["ip", "-n", &self.namespace];
        argv.extend(words.split(' '));
        check(&argv, LIMIT).map(drop)
    }

    /// Runs a program in the switch.
    pub fn inside(&self, argv: &[&str]) -> Result<String> {
        let net = format!("--net={}", self.path());
        let mut all = vec!["nsenter", &net];
        all.extend(argv);
        check(&all, LIMIT)
    }

    /// Starts a program in the switch that outlives this one.
    pub fn spawn(&self, argv: &[&str], log: &Path) -> Result<()> {
        let net = format!("--net={}", self.path());
        let mut all = vec!["nsenter", &net];
        all.extend(argv);
        process::spawn_free(&all, log).context("failed to start a program in the switch")
    }
}

/// Labs make and take away [`NAMESPACES`] one at a time. `/run` itself is what they lock: a lock file would be left behind.
fn hold_namespaces() -> Result<Flock<File>> {
    let run = File::open("/run").context("failed to open /run")?;
    Flock::lock(run, FlockArg::LockExclusive).map_err(|(_, error)| error).context("failed to lock /run")
}

fn is_mount(path: &str) -> Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("failed to read the mounts")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(path)))
}

/// The switch's end of a node's cable.
fn port(node: u32, network: Network) -> String {
    format!("p{node}-{}", network.interface())
}

/// Inside a node: gives the interfaces their addresses as they appear. The switch plugs them in once it knows the node's pid.
pub fn configure_node(node: u32) -> Result<()> {
    // May be absent where the kernel has no IPv6.
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    check(&["ip", "link", "set", "lo", "up"], LIMIT)?;
    for network in Network::ALL {
        let interface = network.interface();
        let there = process::wait_until(LIMIT, Duration::from_millis(2), || {
            run(&["ip", "link", "show", interface], LIMIT).is_ok_and(|output| output.ok())
        });
        anyhow::ensure!(there, "nobody plugged {interface} in");
        let ip = |words: String| check(&[&["ip"][..], &words.split(' ').collect::<Vec<_>>()].concat(), LIMIT);
        let owner = if network == Network::Guests { GUEST_BRIDGE } else { interface };
        if owner != interface {
            ip(format!("link add {owner} {BRIDGE}"))?;
            ip(format!("link set {interface} master {owner} up"))?;
        }
        ip(format!("addr add {}/24 dev {owner}", network.address(node)))?;
        ip(format!("link set {owner} up"))?;
    }
    Ok(())
}
