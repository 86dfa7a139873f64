//! One node seen from outside: programs run in it, its daemons frozen, killed, started; its cables cut.

use crate::cluster::Lab;
use crate::init::{PATH, restart_line};
use crate::layout::{Network, node_name};
use crate::process::{Identity, Output, arguments, pids, run_command, wait_until};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Whether a node's program may use the terminal this one runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Yes: a shell in the node.
    Shared,
    /// No.
    None,
}

impl Lab {
    /// A node's file as this machine reaches it.
    pub fn path_in(&self, node: &str, path: &str) -> Result<PathBuf> {
        Ok(self.powered(node)?.path_in(path))
    }

    /// The first process of a node.
    ///
    /// # Errors
    /// The node has no power.
    pub(crate) fn powered(&self, node: &str) -> Result<Identity> {
        self.node_process(self.number(node)?).with_context(|| format!("{node} has no power"))
    }

    /// Runs a program in a node, with a time limit.
    pub fn exec<S: AsRef<str>>(&self, node: &str, argv: &[S], limit: Duration) -> Result<Output> {
        run_command(self.enter(node, argv, Terminal::None)?, limit)
    }

    /// Runs a program in a node that must succeed; its standard output.
    pub fn check<S: AsRef<str>>(&self, node: &str, argv: &[S], limit: Duration) -> Result<String> {
        let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        self.exec(node, argv, limit)?.success(&format!("{node}: {}", words.join(" ")))
    }

    /// The command that runs a program in a node, for one who wants to start it in a way of its own.
    pub fn enter<S: AsRef<str>>(&self, node: &str, argv: &[S], terminal: Terminal) -> Result<Command> {
        let process = self.powered(node)?;
        let ready = process.path_in(crate::init::READY);
        // Before its pivot a node still shows the host's files: a command would change the host.
        ensure!(
            wait_until(Duration::from_secs(20), Duration::from_millis(5), || fs::exists(&ready).unwrap_or(false)),
            "{node} does not start"
        );
        let mut command = Command::new("nsenter");
        command.args(["-t", &process.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]);
        command.args(argv.iter().map(AsRef::as_ref)).env_clear();
        command.env("PATH", PATH).env("HOME", "/root").env("USER", "root").env("LANG", "C.UTF-8");
        crate::coverage::tell(&mut command);
        if terminal == Terminal::Shared {
            command.env("TERM", std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()));
            command.env("PS1", format!("{node}:\\w# "));
        }
        Ok(command)
    }

    /// Becomes a program in a node; returns only when it cannot.
    pub fn exec_here<S: AsRef<str>>(&self, node: &str, argv: &[S], terminal: Terminal) -> Result<Infallible> {
        let error = self.enter(node, argv, terminal)?.exec();
        Err(error).context("failed to run nsenter")
    }

    /// The nodes that have power, by what tells a process of theirs from all others (`/proc/PID/ns/pid`): another lab has nodes, guests and actions
    /// of the same names.
    #[must_use]
    pub fn spaces(&self) -> Vec<(PathBuf, String)> {
        let space = |node| Some((fs::read_link(format!("/proc/{}/ns/pid", self.node_process(node)?.pid)).ok()?, node_name(node)));
        (1..=self.nodes()).filter_map(space).collect()
    }

    /// The processes of a node which a name means: that of a program (`libvirtd`, `pacemaker-controld`, `qemu-system-x86_64`), or
    /// `guest:NAME` for the emulator of one guest. Only of this node, and not by a name cut off after 15 letters.
    pub fn processes(&self, node: &str, name: &str) -> Result<Vec<Identity>> {
        let init = self.node_process(self.number(node)?).with_context(|| format!("{node} has no power"))?;
        let space = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let home = space(init.pid).with_context(|| format!("{node} is gone"))?;
        let found = pids().filter(|pid| *pid != init.pid).filter_map(|pid| {
            let identity = Identity::of(pid)?;
            (is_program(pid, name) && space(pid)? == home).then_some(identity)
        });
        Ok(found.collect())
    }

    /// Stops a daemon with SIGSTOP: it is there and does not answer.
    pub fn freeze(&self, node: &str, daemon: &str) -> Result<()> {
        self.signal(node, daemon, Signal::SIGSTOP)
    }

    /// Lets a frozen daemon go on.
    pub fn thaw(&self, node: &str, daemon: &str) -> Result<()> {
        self.signal(node, daemon, Signal::SIGCONT)
    }

    /// Kills a daemon with SIGKILL and waits until it is gone.
    pub fn kill(&self, node: &str, daemon: &str) -> Result<()> {
        let processes = self.processes(node, daemon)?;
        ensure!(!processes.is_empty(), "{node} runs no {daemon}");
        processes.iter().try_for_each(|process| process.end(Duration::from_secs(10)))
    }

    fn signal(&self, node: &str, daemon: &str, signal: Signal) -> Result<()> {
        let processes = self.processes(node, daemon)?;
        let reached = processes.iter().filter(|process| process.signal(signal)).count();
        ensure!(reached > 0, "{node} runs no {daemon}");
        Ok(())
    }

    /// Starts a daemon of a node again, one that is gone; libvirtd must answer then.
    pub fn start(&self, node: &str, daemon: &str) -> Result<()> {
        self.launch(node, daemon)?;
        if daemon != "libvirtd" {
            return Ok(());
        }
        // A child of the one before that was killed before it became another program holds the pid file for a moment; who finds it so ends.
        let ended = || self.processes(node, daemon).is_ok_and(|processes| processes.is_empty());
        if wait_until(Duration::from_secs(1), Duration::from_millis(50), || ended() || self.answers(node)) && ended() {
            self.launch(node, daemon)?;
        }
        self.wait_libvirt(node)
    }

    /// Kills a daemon of a node and starts it again.
    pub fn restart(&self, node: &str, daemon: &str) -> Result<()> {
        self.kill(node, daemon)?;
        self.start(node, daemon)
    }

    /// Has a node's libvirtd start anew with these lines in its configuration, in the place of those with the same names.
    pub fn reconfigure<'a>(&'a self, node: &'a str, lines: &[(&str, &str)]) -> Result<Configured<'a>> {
        self.reconfigure_file(node, LIBVIRTD, lines)
    }

    /// Like [`Lab::reconfigure`], but of another one of its files, by its path in the node.
    pub fn reconfigure_file<'a>(&'a self, node: &'a str, file: &'static str, lines: &[(&str, &str)]) -> Result<Configured<'a>> {
        let path = self.path_in(node, file)?;
        let old = fs::read_to_string(&path).with_context(|| format!("failed to read {file} of {node}"))?;
        let new = configured(&old, lines);
        // From here on, so that a half of it is taken back as well.
        let configured = Configured { lab: self, node, file, old };
        fs::write(&path, new).with_context(|| format!("failed to write {file} of {node}"))?;
        self.restart(node, "libvirtd")?;
        Ok(configured)
    }

    /// As [`Lab::start`], but a libvirtd may be one that answers nobody.
    pub fn launch(&self, node: &str, daemon: &str) -> Result<()> {
        let line = restart_line(daemon).with_context(|| format!("the lab does not know how {daemon} is started"))?;
        ensure!(self.processes(node, daemon)?.is_empty(), "{daemon} runs already on {node}");
        let script = format!("{{ {line}; }} >>/var/log/lab-{daemon}.log 2>&1 </dev/null");
        self.check(node, &["setsid", "--fork", "/bin/sh", "-c", &script], Duration::from_secs(10))?;
        let there = || self.processes(node, daemon).is_ok_and(|processes| !processes.is_empty());
        ensure!(wait_until(Duration::from_secs(10), Duration::from_millis(10), there), "{daemon} did not start on {node}");
        Ok(())
    }

    /// Waits until a node's libvirt answers.
    pub fn wait_libvirt(&self, node: &str) -> Result<()> {
        let answers = || self.answers(node);
        ensure!(wait_until(Duration::from_secs(90), Duration::from_millis(50), answers), "libvirtd on {node} does not answer");
        Ok(())
    }

    fn answers(&self, node: &str) -> bool {
        self.exec(node, &["virsh", "-q", "version"], Duration::from_secs(5)).is_ok_and(|output| output.ok())
    }

    /// Cuts a node's cable of a network, at the switch. It stays cut over a power cycle.
    pub fn cut(&self, node: &str, network: Network) -> Result<()> {
        let number = self.number(node)?;
        // A node that is plugged in at this moment would get the cable as it was before.
        let _lock = self.lock_power(number)?;
        let file = self.layout().cut(number, network);
        fs::write(&file, "")?;
        match self.switch().cut(number, network) {
            Err(error) if self.node_process(number).is_some() => {
                // It was not cut, and is not to be so after the next power cycle either.
                let _ = fs::remove_file(&file);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Mends a node's cable of a network.
    pub fn heal(&self, node: &str, network: Network) -> Result<()> {
        let number = self.number(node)?;
        let _lock = self.lock_power(number)?;
        match fs::remove_file(self.layout().cut(number, network)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!("failed to heal {node}: {error}"),
            _ => {}
        }
        match self.switch().heal(number, network) {
            Err(error) if self.node_process(number).is_some() => Err(error),
            _ => Ok(()),
        }
    }
}

const LIBVIRTD: &str = "/etc/libvirt/libvirtd.conf";

/// A libvirtd with another configuration than the lab's; it starts anew with that when this is dropped, also if it is down by then.
#[derive(Debug)]
pub struct Configured<'a> {
    lab: &'a Lab,
    node: &'a str,
    file: &'static str,
    old: String,
}

impl Configured<'_> {
    fn restore(&self) -> Result<()> {
        fs::write(self.lab.path_in(self.node, self.file)?, &self.old)?;
        let left = self.lab.processes(self.node, "libvirtd")?;
        left.iter().try_for_each(|process| process.end(Duration::from_secs(10)))?;
        self.lab.start(self.node, "libvirtd")
    }
}

impl Drop for Configured<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            eprintln!("lab: {} does not get its libvirt back: {error:#}", self.node);
        }
    }
}

/// A configuration with these lines and no others of their names.
fn configured(text: &str, lines: &[(&str, &str)]) -> String {
    let is_new = |line: &&str| !lines.iter().any(|(name, _)| line.split_once('=').is_some_and(|(old, _)| old.trim() == *name));
    let old = text.lines().filter(is_new).map(str::to_owned);
    let new = lines.iter().map(|(name, value)| format!("{name} = {value}"));
    old.chain(new).map(|line| line + "\n").collect()
}

/// Whether a process is the program meant.
fn is_program(pid: i32, name: &str) -> bool {
    let program = || fs::read_link(format!("/proc/{pid}/exe")).ok()?.file_name()?.to_str().map(str::to_owned);
    match name.strip_prefix("guest:") {
        Some(guest) => {
            // libvirt's: -name guest=NAME,debug-threads=on
            let word = format!("guest={guest}");
            arguments(pid).windows(2).any(|pair| pair[0] == "-name" && pair[1].split(',').any(|part| part == word))
        }
        None if name == "syslogd" => arguments(pid).iter().any(|word| word == "syslogd"),
        // A program that was replaced while it runs shows as "NAME (deleted)".
        None => program().is_some_and(|program| program.trim_end_matches(" (deleted)") == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::thread;

    #[test]
    fn a_line_stands_for_all_of_its_name() {
        let old = "listen_tls = 0\nauth_tcp = \"none\"\nlisten_tls_port = 1\n";
        let new = configured(old, &[("listen_tls", "1"), ("auth_tls", "\"sasl\"")]);
        assert_eq!(new, "auth_tcp = \"none\"\nlisten_tls_port = 1\nlisten_tls = 1\nauth_tls = \"sasl\"\n");
    }

    /// A lab that has no switch, and one node: this process.
    fn without_a_switch(state: &Path) -> Lab {
        fs::write(state.join("lab.json"), r#"{"name": "none-there", "nodes": 1}"#).unwrap();
        let lab = Lab::open("none-there", Some(state)).unwrap();
        fs::create_dir(lab.layout().node(1)).unwrap();
        Identity::own().unwrap().save(&lab.layout().node_process(1)).unwrap();
        lab
    }

    #[test]
    fn a_cable_that_was_not_cut_is_whole_after_a_power_cycle() {
        let state = tempfile::tempdir().unwrap();
        let lab = without_a_switch(state.path());
        assert!(lab.cut("node1", Network::Cluster).is_err());
        assert!(!lab.layout().cut(1, Network::Cluster).exists());
    }

    /// A node that gets power has read which of its cables are cut, and plugs them in so.
    #[test]
    fn a_cable_is_mended_before_a_node_is_plugged_in_or_after() {
        let state = tempfile::tempdir().unwrap();
        let lab = without_a_switch(state.path());
        let file = lab.layout().cut(1, Network::Cluster);
        fs::write(&file, "").unwrap();
        let plugging = lab.lock_power(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| lab.heal("node1", Network::Cluster));
            let mended = wait_until(Duration::from_millis(300), Duration::from_millis(10), || !file.exists());
            drop(plugging);
            assert!(!mended, "while the node was plugged in");
        });
        assert!(!file.exists());
    }
}
