//! What all scenarios need: guests whose disks lie on storage that can hang, the hang itself, and what is left of processes.

use crate::stage::{self, PATIENCE, Resource, soon};
use anyhow::{Context, Result, ensure};
use lab::process::{Identity, wait_until};
use lab::promised;
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use std::fs;
use std::time::Duration;

/// A guest whose disk is on the storage that can hang. Its definition is not.
pub fn guest<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let guest = Resource::new(lab, name)?;
    guest.edit(|text| text.replace("<source file='/srv/vms/", "<source file='/srv/hang/"))?;
    Ok(guest)
}

/// A fault of a node's storage that lasts until this is dropped.
pub struct Faulty<'a>(&'a Lab, &'a str);

impl<'a> Faulty<'a> {
    /// Begins it.
    pub fn begin(lab: &'a Lab, node: &'a str, fault: StorageFault) -> Result<Self> {
        lab.storage(node, fault)?;
        Ok(Self(lab, node))
    }

    /// Nothing is answered.
    pub fn hold(lab: &'a Lab, node: &'a str) -> Result<Self> {
        Self::begin(lab, node, StorageFault::Hold(Reach::Everything))
    }

    /// Nothing that writes is answered.
    pub fn hold_writes(lab: &'a Lab, node: &'a str) -> Result<Self> {
        Self::begin(lab, node, StorageFault::Hold(Reach::Writes))
    }
}

impl Drop for Faulty<'_> {
    fn drop(&mut self) {
        let _ = self.0.storage(self.1, StorageFault::None);
    }
}

/// Waits until a write of a guest hangs: a thread of its emulator waits in the kernel for an answer of the storage.
pub fn in_flight(emulator: Identity) -> Result<()> {
    let waits = |place: &str| place.starts_with("fuse_") || place.starts_with("request_wait");
    soon("a write hangs", || tasks(emulator, "wchan").iter().any(|place| waits(place)))
}

/// The threads of a process that have not ended, whatever its leader has; their states.
pub fn threads(process: Identity) -> Vec<char> {
    let state = |text: &String| text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    tasks(process, "stat").iter().filter_map(state).filter(|state| !matches!(state, 'Z' | 'X')).collect()
}

/// A file of each thread of a process.
fn tasks(process: Identity, file: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok()).collect()
}

/// The only emulator of a guest on a node.
pub fn emulator(guest: &Resource, node: &str) -> Result<Identity> {
    let emulators = guest.emulators(node)?;
    promised!(emulators.len() == 1, "{} has {} emulators on {node}", guest.name, emulators.len());
    emulators.first().copied().context("none")
}

/// The processes of the agent on a node, besides those of calls that go on: what was left behind.
pub fn left_behind(lab: &Lab, node: &str) -> Result<usize> {
    Ok(lab.processes(node, "kvmha")?.len())
}

/// When the storage answers again nothing stays.
pub fn nothing_stays(lab: &Lab, node: &str) -> Result<()> {
    soon("what was left behind has ended", || left_behind(lab, node).is_ok_and(|left| left == 0))
}

/// After each scenario: the storage answers, what waited for it has ended, and then as in the suite `lifecycle`.
pub fn tidy(lab: &Lab) -> Result<()> {
    let mut emulators = Vec::new();
    for node in lab.node_names() {
        lab.storage(&node, StorageFault::None)?;
        emulators.extend(lab.processes(&node, "qemu-system-x86_64")?);
    }
    stage::tidy(lab)?;
    let ended = wait_until(PATIENCE, Duration::from_millis(20), || emulators.iter().all(|emulator| threads(*emulator).is_empty()));
    ensure!(ended, "emulators are left");
    lab.node_names().iter().try_for_each(|node| nothing_stays(lab, node))
}
