//! The guide to a cluster of two nodes and the pages it leads to, word by word, on two nodes: from an empty configuration to a guest that
//! fails over, and to one machine that comes back alone.
//!
//! Two things are otherwise than for a reader: the cluster is there, with the lab's power switch for a strip, and so is the shared folder. The
//! guest's disk lies in it by a path of which libvirt knows that it is shared, as it does of NFS.

use crate::commands::{UNTRIED, WITH_THE_GUIDE, commands};
use crate::manual::{named, types};
use crate::seen::kvmha;
use anyhow::{Context, Result, ensure};
use lab::guest::on_hanging;
use lab::placed::{Guest, until};
use lab::scene::{LIMIT, Stage};
use lab::{Lab, promised};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Who types "yes" for ssh, and only if the fingerprint is one that a console has shown. ssh asks this program when there is no terminal.
const READER: &str = "#!/bin/sh\nfor seen in $(cat /root/consoles); do case $1 in *\"$seen\"*) echo yes; exit;; esac; done\necho no\n";
/// What the guide says that a node's console shows.
const CONSOLE: &str = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub";

/// The Debian package that the guide is followed with (`KVMHA_PACKAGE`); without one the program of this build is there already.
pub fn package() -> Option<PathBuf> {
    std::env::var_os("KVMHA_PACKAGE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A page's text.
fn page(name: &str) -> Result<&'static str> {
    let found = WITH_THE_GUIDE.iter().find(|(page, _)| *page == name);
    Ok(found.with_context(|| format!("{name} is not followed"))?.1)
}

/// What a text has a reader type, but for what no test can.
fn tried(text: &str) -> Vec<String> {
    commands(text).into_iter().filter(|line| !UNTRIED.iter().any(|(untried, _)| untried == line)).collect()
}

/// The guide, section by section.
struct Guide<'a> {
    stage: &'a Stage,
    text: &'static str,
}

impl Guide<'_> {
    fn lab(&self) -> &Lab {
        &self.stage.lab
    }

    /// The lines of a section.
    fn section(&self, number: u32) -> Result<Vec<String>> {
        let text = self.text.split("\n## ").find(|part| part.starts_with(&format!("{number}. "))).context("the guide lacks a section")?;
        let lines = tried(text);
        ensure!(!lines.is_empty(), "section {number} of the guide tries nothing");
        Ok(lines)
    }

    /// Each line on both nodes, before the next.
    fn on_both(&self, lines: &[String]) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for line in lines {
            for node in self.lab().node_names() {
                said.push(types(self.lab(), &node, line)?);
            }
        }
        Ok(said)
    }

    fn on(&self, node: &str, line: &str) -> Result<()> {
        types(self.lab(), node, line)?;
        self.stage.settle()
    }

    /// A line that asks for one letter, at a terminal.
    fn confirmed(&self, node: &str, line: &str) -> Result<()> {
        types(self.lab(), node, &format!("echo y | script -qec '{line}' /dev/null")).map(drop)
    }

    /// 1 and 2: names, and a folder that is there after each boot.
    fn names_and_storage(&self) -> Result<()> {
        for node in self.lab().node_names() {
            types(self.lab(), &node, "echo '10.77.1.254 nas' >>/etc/hosts")?;
        }
        for said in self.on_both(&self.section(1)?)? {
            ensure!(said.lines().count() == 3 && !said.lines().any(|line| line.starts_with("127")), "names: {said}");
        }
        self.on_both(&self.section(2)?).map(drop)
    }

    /// 3: each node's root logs in to both without a question; libvirt's network.
    fn libvirt(&self) -> Result<()> {
        let (lines, nodes) = (self.section(3)?, self.lab().node_names());
        let at = lines.iter().position(|line| line.starts_with("ssh ")).context("the guide logs in nowhere")?;
        let until = lines.iter().rposition(|line| line.starts_with("ssh ")).unwrap_or(at) + 1;
        // "Add the line that it prints to authorized_keys of both": of what these say it is in a line of its own.
        let said = self.on_both(&lines[..at])?.concat();
        let keys: String = said.lines().filter(|line| line.starts_with("ssh-ed25519 ")).map(|line| format!("{line}\n")).collect();
        ensure!(keys.lines().count() == nodes.len(), "the keys of both: {said}");
        let mut consoles = String::new();
        for node in &nodes {
            self.lab().start_sshd(node)?;
            fs::write(self.lab().path_in(node, "/root/.ssh/authorized_keys")?, &keys)?;
            ensure!(self.text.contains(CONSOLE), "the guide does not say what to compare a fingerprint with");
            consoles += types(self.lab(), node, CONSOLE)?.split_whitespace().nth(1).context("no fingerprint")?;
            consoles += "\n";
        }
        for node in &nodes {
            let reader = self.lab().path_in(node, "/root/reader")?;
            fs::write(&reader, READER)?;
            fs::set_permissions(&reader, fs::Permissions::from_mode(0o700))?;
            fs::write(self.lab().path_in(node, "/root/consoles")?, &consoles)?;
        }
        let logins = lines[at..until].iter().map(|line| format!("SSH_ASKPASS=/root/reader SSH_ASKPASS_REQUIRE=force {line}"));
        self.on_both(&logins.collect::<Vec<_>>())?;
        self.on_both(&lines[until..]).map(drop)
    }

    /// 5: the strip that the lab does not have, which pcs knows all the same, and a node that goes off and comes back.
    fn fencing(&self) -> Result<()> {
        let fences = self.stage.fences();
        for line in self.section(5)? {
            if line.starts_with("pcs stonith create ") {
                self.device(&line)?;
                self.on("node1", "pcs stonith delete power")?;
            } else {
                self.on("node1", &line)?;
            }
        }
        ensure!(self.stage.fences() == fences + 1, "no node has gone off");
        self.stage.all_online()?;
        self.lab().start_sshd("node2")
    }

    /// A device is made as it stands, so that pcs holds it against what its agent takes, but not used. Its name.
    fn device(&self, line: &str) -> Result<String> {
        let name = line.split_whitespace().nth(3).context("a device without a name")?;
        self.on("node1", &line.replacen(" create ", " create --disabled ", 1))?;
        Ok(name.to_owned())
    }

    /// The other page of fencing: devices, and which is tried first.
    fn other_fencing(&self) -> Result<()> {
        let strip =
            self.section(5)?.into_iter().find(|line| line.starts_with("pcs stonith create ")).context("the guide makes no device")?;
        let mut made = vec![self.device(&strip)?];
        for line in tried(page("docs/fencing.md")?) {
            if !line.starts_with("pcs stonith create ") {
                self.on("node1", &line)?;
                continue;
            }
            let name = line.split_whitespace().nth(3).unwrap_or_default();
            // The page has the same device for guests on other clusters' hosts and on this one's.
            if made.iter().any(|old| old == name) {
                self.on("node1", &format!("pcs stonith delete {name}"))?;
                made.retain(|old| old != name);
            }
            made.push(self.device(&line)?);
        }
        ensure!(made.len() > 4, "the page has only {made:?}");
        self.on("node1", "pcs property set stonith-action=")?;
        made.iter().try_for_each(|name| self.on("node1", &format!("pcs stonith delete {name}")))
    }

    /// 6: nothing of kvmha is there before.
    fn installation(&self, package: Option<&Path>) -> Result<()> {
        let lines = self.section(6)?;
        for line in &lines {
            if line.starts_with("apt install ") {
                package.map_or(Ok(()), |package| self.install(package, line, false))?;
                continue;
            }
            for said in self.on_both(std::slice::from_ref(line))? {
                let rows: Vec<&str> = said.lines().skip(1).collect();
                let ok = |row: &&str| row.split("  ").any(|cell| cell.trim() == "ok");
                ensure!(rows.len() > 20 && rows.iter().all(ok), "\"when every line is ok on both nodes\": {said}");
            }
        }
        Ok(())
    }

    /// The package, beside which the line is typed on each node.
    fn install(&self, package: &Path, line: &str, again: bool) -> Result<()> {
        let name = package.file_name().context("KVMHA_PACKAGE is no file")?;
        let file = self.lab().layout().shared().join(name);
        fs::copy(package, &file).with_context(|| format!("KVMHA_PACKAGE: {}", package.display()))?;
        for node in self.lab().node_names() {
            ensure!((kvmha(self.lab(), &node, "-V")?.code == Some(0)) == again, "{node} has kvmha already, or not yet");
            // The image of a container may leave manuals out.
            types(self.lab(), &node, &format!("rm -f /etc/dpkg/dpkg.cfg.d/*; cd /srv/vms && {line}"))?;
            self.lab().check(&node, &["kvmha", "-V"], LIMIT)?;
        }
        Ok(fs::remove_file(file)?)
    }

    /// 7: a guest that libvirt runs on node1 is shut down, and given to Pacemaker. The node it is on then.
    fn guest(&self, guest: &Guest<'_>) -> Result<String> {
        self.lab().guest_edit("web1", on_hanging)?;
        let reader_has = "mv /srv/vms/web1.xml /root && virsh define /root/web1.xml && virsh autostart web1 && virsh start web1";
        types(self.lab(), "node1", reader_has)?;
        ensure!(guest.watcher.wait(LIMIT, |watch| !watch.beats.is_empty()), "libvirt does not run it");
        for line in self.section(7)? {
            self.on("node1", &line)?;
        }
        let mode = fs::metadata(self.lab().guest_definition("web1"))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "passwords in a file of mode {mode:o}");
        guest.runs(2)
    }

    /// 8: "type this on node1 if the guest is on node1; if it is on node2, type it there and exchange the names".
    fn try_it(&self, guest: &Guest<'_>) -> Result<()> {
        let (first, second) = (guest.node()?, guest.other_node()?);
        for line in self.section(8)? {
            self.on(&first, &named(&line, &first, &second))?;
        }
        ensure!(guest.node()? == first, "it is still on {second}, which was emptied");
        guest.goes_on()
    }

    /// What is looked at every day, and an upgrade.
    fn every_day(&self, guest: &Guest<'_>, package: Option<&Path>) -> Result<()> {
        let node = guest.node()?;
        let mut metrics = page("docs/metrics.md")?;
        for line in tried(page("docs/operation.md")?).iter().chain(&tried(metrics)) {
            if line.starts_with("apt install ") {
                package.map_or(Ok(()), |package| self.install(package, line, true))?;
            } else {
                self.on(&node, line)?;
            }
        }
        // The units, as the page names and has them.
        let mut units = Vec::new();
        while let Some((before, after)) = metrics.split_once("\n```ini\n") {
            let (unit, rest) = after.split_once("```").context("a block without an end")?;
            let path = before.rsplit('`').nth(1).context("a unit without a path")?;
            fs::write(self.lab().path_in(&node, path)?, unit)?;
            units.push((path, unit));
            metrics = rest;
        }
        let paths: Vec<&str> = units.iter().map(|(path, _)| *path).collect();
        ensure!(paths.len() == 2, "units: {paths:?}");
        types(self.lab(), &node, &format!("systemd-analyze verify {}", paths.join(" ")))?;
        let run =
            units.iter().find_map(|(_, unit)| unit.lines().find_map(|line| line.strip_prefix("ExecStart="))).context("nothing runs")?;
        // The folder is node exporter's.
        types(self.lab(), &node, "mkdir -p /var/lib/prometheus/node-exporter")?;
        types(self.lab(), &node, run)?;
        // The words of the line for journald, which is not here.
        ensure!(self.stage.log(&node)?.contains(" VirtualDomain(web1)["), "the agent does not write under its name");
        Ok(())
    }

    /// "Pull the plug of the node it runs on."
    fn fails_over(&self, guest: &Guest<'_>) -> Result<()> {
        ensure!(self.text.contains("pull the plug of the node it runs on"), "the guide does not say what all of it is for");
        let (lab, node, left, pulled) = (self.lab(), guest.node()?, guest.other_node()?, Instant::now());
        lab.power_off(&node)?;
        let missed = || kvmha(lab, &left, "doctor --quiet").is_ok_and(|said| said.stdout.contains(&format!("{node} is ")));
        until("the doctor misses it", missed)?;
        guest.boots_anew(pulled)?;
        self.stage.wait(|seen| seen.runs_on("web1") == Some(&left)).context("it does not fail over")?;
        self.stage.all_online()?;
        lab.start_sshd(&node)?;
        guest.runs(3).map(drop)
    }

    /// 9: both were off, and one stays off.
    fn comes_back_alone(&self, guest: &Guest<'_>) -> Result<()> {
        let (lab, node, other) = (self.lab(), guest.node()?, guest.other_node()?);
        let fences = self.stage.fences();
        lab.power_off(&node)?;
        lab.power_off(&other)?;
        lab.power_on(&node)?;
        ensure!(self.text.contains("`corosync-quorumtool` says `Quorate: No`"), "the guide does not say how to see that it waits");
        let waits = || {
            let said = lab.exec(&node, &["corosync-quorumtool"], LIMIT);
            said.is_ok_and(|said| said.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains("Quorate: No"))
        };
        until("it waits for the other one", waits)?;
        // Pacemaker has had the time to start it.
        self.stage.wait(|seen| seen.dc.is_some())?;
        std::thread::sleep(Duration::from_secs(5));
        let alone = Instant::now();
        for line in self.section(9)? {
            promised!(lab.processes(&node, "guest:web1")?.is_empty(), "it runs without quorum");
            self.confirmed(&node, &line)?;
        }
        guest.boots_anew(alone)?;
        guest.runs(4)?;
        lab.power_on(&other)?;
        self.stage.all_online()?;
        self.stage.settle()?;
        ensure!(self.stage.fences() == fences, "a strip was asked");
        guest.is_on(&node)
    }
}

/// From the installation to a guest that fails over, and to a machine that comes back alone.
pub fn the_two_node_guide(lab: &Lab) -> Result<()> {
    let (stage, package) = (Stage::of(lab), package());
    let guide = Guide { stage: &stage, text: page("docs/two-node.md")? };
    guide.names_and_storage()?;
    guide.libvirt()?;
    for line in guide.section(4)? {
        guide.on("node1", &line)?;
    }
    guide.fencing()?;
    guide.installation(package.as_deref())?;
    guide.other_fencing()?;
    let guest = Guest::files(&stage, "web1")?;
    guide.guest(&guest)?;
    guide.try_it(&guest)?;
    guide.every_day(&guest, package.as_deref())?;
    guide.fails_over(&guest)?;
    guide.comes_back_alone(&guest)?;
    guest.end(4).map(drop)
}
