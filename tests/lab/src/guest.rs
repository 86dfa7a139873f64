//! Guests: an image on the shared storage, a definition beside it. Who starts them is the cluster's business, or yours.

use crate::cluster::Lab;
use crate::config::{self, GuestText};
use crate::heartbeat::RING;
use crate::layout::{HANGING, Network, SHARED};
use crate::power::Power;
use crate::process::{replace, wait_until};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

/// How a guest is to be.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// Memory in MiB. Below 72 the kernel does not get through its own decompression.
    pub memory: u32,
    /// Whether it ignores the power button: `virsh shutdown` then does nothing.
    pub deaf: bool,
    /// Time between two beats.
    pub beat: Duration,
    /// MiB of its memory that it changes as fast as it can; pages that do not keep what was written count as errors of its heartbeat.
    pub busy: u32,
    /// MiB of its memory that hold a pattern, whose checksum it tells who asks for it; needs a network card.
    pub pattern: u32,
    /// The number of its host in the guests' network (1 to 253, unlike the nodes'), if it is to have a network card and to answer there.
    pub card: Option<u32>,
}

/// Where a guest with a card gives back every byte that it gets.
pub const ECHO: u16 = 7;
/// Where a guest with a card says the checksum of its pattern, in hex, and hangs up.
pub const SUM: u16 = 8;

impl Default for GuestOptions {
    fn default() -> Self {
        Self { memory: 80, deaf: false, beat: Duration::from_millis(20), busy: 0, pattern: 0, card: None }
    }
}

/// Where a guest is, by the word of a node's libvirt and by the processes there.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The node.
    pub node: String,
    /// `virsh domstate`; `None` when libvirt knows no such guest or gives no answer.
    pub libvirt: Option<String>,
    /// Pids (on this machine) of its emulators there.
    pub processes: Vec<i32>,
}

impl Lab {
    /// Ends every guest and takes away its definitions and files: each node's libvirt answers then and has none. For bare labs, where no
    /// cluster would start them again.
    pub fn guests_clear(&self) -> Result<()> {
        self.node_names().iter().try_for_each(|node| self.node_clear(node))?;
        for entry in fs::read_dir(self.layout().shared())?.flatten() {
            fs::remove_file(entry.path())?;
        }
        Ok(())
    }

    /// Ends every guest of a node and takes away its definitions: its libvirt answers then and has none. Once more if libvirtd ends meanwhile:
    /// that of 9.0 may crash when a guest is ended while a snapshot of it is made.
    pub fn node_clear(&self, node: &str) -> Result<()> {
        self.node_clear_once(node).or_else(|_| self.node_clear_once(node))
    }

    fn node_clear_once(&self, node: &str) -> Result<()> {
        const SOON: Duration = Duration::from_secs(20);
        if self.processes(node, "libvirtd")?.is_empty() {
            self.start(node, "libvirtd")?;
        } else {
            self.thaw(node, "libvirtd")?;
        }
        self.wait_libvirt(node)?;
        // Again and again: what a frozen daemon was about to start comes now.
        let left = || -> Result<String> {
            self.processes(node, "qemu-system-x86_64")?.iter().try_for_each(|process| process.end(SOON))?;
            // One that libvirt is about to forget is not active any more, and there all the same.
            let listed = |more: &[&str]| self.check(node, &[&["virsh", "-q", "list"], more].concat(), SOON);
            Ok(listed(&[])? + &listed(&["--all", "--transient"])?)
        };
        let mut last = Ok(String::new());
        let mut cleared = |limit| {
            wait_until(Duration::from_secs(limit), Duration::from_millis(50), || {
                last = left();
                last.as_ref().is_ok_and(|list| list.trim().is_empty())
            })
        };
        // A libvirtd that was killed while it started a guest may list that one for ever (9.0), and so may the next, which reads of it in the
        // first one's status file: there is no emulator any more.
        if !cleared(30) {
            self.kill(node, "libvirtd")?;
            self.check(node, &["sh", "-c", "rm -f /run/libvirt/qemu/*.xml"], SOON)?;
            self.start(node, "libvirtd")?;
            ensure!(cleared(60), "{node} still has guests: {}", last?.trim());
        }
        for uuid in self.check(node, &["virsh", "-q", "list", "--all", "--persistent", "--uuid"], SOON)?.split_whitespace() {
            self.check(node, &["virsh", "-q", "undefine", uuid], SOON)?;
        }
        Ok(())
    }

    /// Makes a guest's image and definition; `/srv/vms/NAME.xml` is the definition's name in the nodes.
    pub fn guest_create(&self, name: &str, options: &GuestOptions) -> Result<()> {
        let good = !name.is_empty() && name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        ensure!(good && !name.starts_with(['.', '-']), "not a name for a guest: {name}");
        ensure!(options.memory >= 72, "a guest needs at least 72 MiB");
        let image = self.guest_image(name);
        ensure!(!image.exists(), "there is a guest {name} already");
        self.forget_logs(name);
        File::create_new(&image).and_then(|file| file.set_len(RING)).with_context(|| format!("failed to make {}", image.display()))?;
        let used = options.busy + options.pattern;
        ensure!(used == 0 || used + 72 <= options.memory, "a guest that is busy with {used} MiB needs 72 more");
        ensure!(options.pattern == 0 || options.card.is_some(), "nobody can ask a guest without a network card for its pattern");
        let deaf = if options.deaf { " deaf" } else { "" };
        let busy = if options.busy > 0 { format!(" busy={}", options.busy) } else { String::new() };
        let pattern = if options.pattern > 0 { format!(" pattern={}", options.pattern) } else { String::new() };
        let address = options.card.map(|host| format!(" address={}", Network::Guests.address(host))).unwrap_or_default();
        let arguments = format!("beat={}{deaf}{busy}{pattern}{address}", options.beat.as_millis());
        let card = options.card;
        let text = config::guest(&GuestText { name, uuid: &uuid(name), memory: options.memory, arguments: &arguments, card });
        replace(&self.guest_definition(name), &text)
    }

    /// What an earlier guest of this name has said is not its doing. A node that has power removes its logs itself: a file that is taken away
    /// below its overlay is still there for it, and what it writes to that nobody else can read.
    fn forget_logs(&self, name: &str) {
        for (number, node) in (1..).zip(self.node_names()) {
            if self.power(&node).is_ok_and(|power| power == Power::Off) {
                let _ = fs::remove_file(self.console_log(number, name));
                let _ = fs::remove_file(self.emulator_log(number, name));
            } else {
                let _ = self.exec(&node, &["rm", "-f", &console_log(name), &emulator_log(name)], Duration::from_secs(10));
            }
        }
    }

    /// The image of a guest as this machine sees it.
    #[must_use]
    pub fn guest_image(&self, name: &str) -> PathBuf {
        self.layout().shared().join(format!("{name}.img"))
    }

    /// The definition of a guest as this machine sees it.
    #[must_use]
    pub fn guest_definition(&self, name: &str) -> PathBuf {
        self.layout().shared().join(format!("{name}.xml"))
    }

    fn console_log(&self, node: u32, name: &str) -> PathBuf {
        self.layout().on_disk(node, &console_log(name))
    }

    fn emulator_log(&self, node: u32, name: &str) -> PathBuf {
        self.layout().on_disk(node, &emulator_log(name))
    }

    /// What a guest has said on its console in a node.
    #[must_use]
    pub fn console(&self, node: u32, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.console_log(node, name)).unwrap_or_default()).into_owned()
    }

    /// What its kernel has said if it broke, or that it was reset without a word if it has booted so often. QEMU without KVM loses a guest's write
    /// now and then while it is moved (see [`config::guest`]); a kernel whose page tables are wrong cannot say so, its CPU is reset (a triple
    /// fault).
    #[must_use]
    pub fn last_words(&self, name: &str, boots: usize) -> String {
        let broken = |line: &&str| ["Kernel panic", "Oops: ", "BUG: "].iter().any(|word| line.contains(word));
        let consoles = (1..=self.nodes()).map(|node| self.console(node, name));
        let mut said =
            consoles.filter_map(|text| text.lines().find(broken).map(|line| format!(", after its kernel said: {}", line.trim())));
        said.next().unwrap_or_else(|| match self.creations(name) {
            // Where no log is left nothing is known.
            made @ 1.. if made < boots => format!(", in {made} emulators: one was reset, and its kernel said nothing"),
            _ => String::new(),
        })
    }

    /// How many emulators libvirt has started for it, those apart that waited for the memory of another: so often it was booted from outside.
    fn creations(&self, name: &str) -> usize {
        let logs = (1..=self.nodes()).filter_map(|node| fs::read_to_string(self.emulator_log(node, name)).ok());
        logs.map(|log| creations(&log)).sum()
    }

    /// Changes a guest's definition, which must not be what it was.
    pub fn guest_edit(&self, name: &str, change: impl FnOnce(&str) -> String) -> Result<()> {
        let path = self.guest_definition(name);
        let old = fs::read_to_string(&path)?;
        let new = change(&old);
        ensure!(old != new, "nothing to change in {}", path.display());
        replace(&path, &new)
    }

    /// The names of the guests that were created.
    pub fn guests(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.layout().shared())?.flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".img").map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Where a guest is: the nodes on which libvirt knows it or an emulator of it lives.
    pub fn guest_where(&self, name: &str) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for node in self.node_names() {
            if self.power(&node)? == Power::Off {
                continue;
            }
            let processes: Vec<i32> = self.processes(&node, &format!("guest:{name}"))?.iter().map(|process| process.pid).collect();
            let state = self.exec(&node, &["virsh", "-q", "-c", "qemu:///system", "domstate", name], Duration::from_secs(5))?;
            let libvirt = state.ok().then(|| state.stdout.trim().to_owned());
            if libvirt.is_some() || !processes.is_empty() {
                places.push(Place { node, libvirt, processes });
            }
        }
        Ok(places)
    }

    /// Removes a guest's files. It must not run.
    pub fn guest_remove(&self, name: &str) -> Result<()> {
        let places = self.guest_where(name)?;
        ensure!(places.iter().all(|place| place.processes.is_empty()), "{name} runs: {places:?}");
        for path in [self.guest_image(name), self.guest_definition(name)] {
            if path.exists() {
                fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// What a guest says on its console, in a node.
fn console_log(name: &str) -> String {
    format!("/var/log/libvirt/console-{name}.log")
}

/// What libvirt says of its emulators, in a node.
fn emulator_log(name: &str) -> String {
    format!("/var/log/libvirt/qemu/{name}.log")
}

/// A UUID that only depends on the name: a guest made again is the same to libvirt.
fn uuid(name: &str) -> String {
    let hash = |seed: u64| name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let (a, b) = (hash(0xcbf2_9ce4_8422_2325), hash(0x6b76_6d68_616c_6162));
    let text = format!("{a:016x}{b:016x}");
    format!("{}-{}-4{}-8{}-{}", &text[0..8], &text[8..12], &text[13..16], &text[17..20], &text[20..32])
}

/// How often a guest was created anew, by one log of libvirt's: what is said of each start ends at the next.
fn creations(log: &str) -> usize {
    let starts = log.split(": starting up libvirt version: ").skip(1);
    starts.filter(|start| !start.lines().any(|line| line.starts_with("-incoming"))).count()
}

/// A definition of the lab's whose guest is paused when its storage fails.
#[must_use]
pub fn stopping_at_errors(definition: &str) -> String {
    definition.replace("cache='none'", "cache='none' error_policy='stop'")
}

/// A definition of the lab's whose disk lies on the storage that can hang and fail.
#[must_use]
pub fn on_hanging(definition: &str) -> String {
    definition.replace(&format!("<source file='{SHARED}/"), &format!("<source file='{HANGING}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_shape() {
        let one = uuid("vm1");
        assert_eq!(one.len(), 36);
        assert_ne!(one, uuid("vm2"));
    }

    #[test]
    fn one_that_waits_for_memory_was_not_booted() {
        let start = |more: &str| {
            format!(
                "2026-11-27 06:40:08.544+0000: starting up libvirt version: 9.0.0, package: 9\nLC_ALL=C \\\n-S \\\n{more}-msg timestamp=on\n"
            )
        };
        let (booted, waits) = (start(""), start("-incoming defer \\\n"));
        let ended = "2026-11-27 06:40:25.076+0000: shutting down, reason=migrated\n";
        assert_eq!(creations(&format!("{booted}{ended}{waits}{ended}{waits}")), 1);
        assert_eq!(creations(&format!("{waits}{ended}{booted}{ended}{booted}")), 2);
        assert_eq!(creations(""), 0);
    }
}
