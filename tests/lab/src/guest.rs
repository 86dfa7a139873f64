//! Guests: an image on the shared storage, a definition beside it. Who starts them is the cluster's business, or yours.

use crate::cluster::Lab;
use crate::config::{self, GuestText};
use crate::heartbeat::RING;
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
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self { memory: 80, deaf: false, beat: Duration::from_millis(20) }
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
        const SOON: Duration = Duration::from_secs(20);
        for node in self.node_names() {
            match self.processes(&node, "libvirtd")?.is_empty() {
                true => self.start(&node, "libvirtd")?,
                false => self.thaw(&node, "libvirtd")?,
            }
            self.wait_libvirt(&node)?;
            // Again and again: what a frozen daemon was about to start comes now.
            let none = || -> Result<bool> {
                self.processes(&node, "qemu-system-x86_64")?.iter().try_for_each(|process| process.end(SOON))?;
                Ok(self.check(&node, &["virsh", "-q", "list", "--uuid"], SOON)?.trim().is_empty())
            };
            let gone = wait_until(Duration::from_secs(60), Duration::from_millis(50), || none().unwrap_or(false));
            ensure!(gone, "{node} still has guests");
            for uuid in self.check(&node, &["virsh", "-q", "list", "--all", "--uuid"], SOON)?.split_whitespace() {
                self.check(&node, &["virsh", "-q", "undefine", uuid], SOON)?;
            }
        }
        for entry in fs::read_dir(self.layout().shared())?.flatten() {
            fs::remove_file(entry.path())?;
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
        File::create_new(&image).and_then(|file| file.set_len(RING)).with_context(|| format!("failed to make {}", image.display()))?;
        let arguments = format!("beat={}{}", options.beat.as_millis(), if options.deaf { " deaf" } else { "" });
        let text = config::guest(&GuestText { name, uuid: &uuid(name), memory: options.memory, arguments: &arguments });
        replace(&self.guest_definition(name), &text)
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

/// A UUID that only depends on the name: a guest made again is the same to libvirt.
fn uuid(name: &str) -> String {
    let hash = |seed: u64| name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let (a, b) = (hash(0xcbf2_9ce4_8422_2325), hash(0x6b76_6d68_616c_6162));
    let text = format!("{a:016x}{b:016x}");
    format!("{}-{}-4{}-8{}-{}", &text[0..8], &text[8..12], &text[13..16], &text[17..20], &text[20..32])
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
}
