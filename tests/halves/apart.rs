//! A guest that an error of its storage has paused on a node that is cut off then, with its storage back: `outage_policy=resume` would let it
//! go on, and must not where the other half may have started it.

use anyhow::{Context, Result, ensure};
use lab::guest::{on_hanging, stopping_at_errors};
use lab::layout::Network;
use lab::placed::{Guest, OPERATIONS_CLOSELY, until};
use lab::power::Fault;
use lab::promised;
use lab::scene::{LIMIT, Stage};
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Monitors for which the guest has to stay as it is: two that read all its disks are enough for it to go on.
const MONITORS: Duration = Duration::from_secs(12);
/// So many of them have to be seen, besides one that may have begun before.
const LOOKS: usize = 2;

/// The guest on its node, paused; its storage answers again, and its node is cut off from the other.
struct Scene<'a> {
    guest: Guest<'a>,
    home: String,
    other: String,
}

impl<'a> Scene<'a> {
    fn play(stage: &'a Stage) -> Result<Self> {
        let (lab, guest) = (&stage.lab, Guest::files(stage, "vm1")?);
        lab.guest_edit("vm1", |text| stopping_at_errors(&on_hanging(text)))?;
        guest.give("ocf:kvmha:VirtualDomain", "outage_policy=resume", OPERATIONS_CLOSELY)?;
        let (home, other) = (guest.runs(1)?, guest.other_node()?);
        lab.storage(&home, StorageFault::Error(Reach::Everything, 5))?;
        let scene = Self { guest, home, other };
        until("it is paused", || scene.is_paused())?;
        lab.cut(&scene.home, Network::Cluster)?;
        lab.storage(&scene.home, StorageFault::None)?;
        Ok(scene)
    }

    fn lab(&self) -> &Lab {
        &self.guest.stage.lab
    }

    fn is_paused(&self) -> bool {
        self.guest.paused_by_an_error(&self.home)
    }

    /// Waits until the cut-off node's monitor says that it does not let the guest go on, and why.
    fn says(&self, why: &str) -> Result<()> {
        let words = ["attrd_updater", "--query", "--all", "--name", "kvmha-outage-vm1"];
        let wanted = format!("it is not let go on: {why}");
        let mut last = String::new();
        let said = until("the reason is shown", || {
            last = self.lab().exec(&self.home, &words, LIMIT).map(|output| output.stdout).unwrap_or_default();
            last.contains(&wanted)
        });
        said.with_context(|| format!("{why}: the attribute says {last}"))
    }

    /// The paused guest stays paused for some time, in which monitors look at it and at its storage, which answers.
    fn stays_paused(&self) -> Result<()> {
        let (begin, mut looks) = (Instant::now(), BTreeSet::new());
        while begin.elapsed() < MONITORS || looks.len() <= LOOKS {
            ensure!(self.is_paused(), "it was let go on after {:.1} s", begin.elapsed().as_secs_f64());
            looks.extend(self.look());
            ensure!(begin.elapsed() < LIMIT, "no monitor looks at it: {looks:?}");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// When a monitor looked last, in seconds since boot, and found for the second time in a row or more that the storage answers.
    fn look(&self) -> Option<i64> {
        let note = self.lab().path_in(&self.home, "/run/kvmha/vm1.outage").ok()?;
        let note: serde_json::Value = serde_json::from_slice(&fs::read(note).ok()?).ok()?;
        note["looked"].as_i64().filter(|_| note["steady"].as_u64().is_some_and(|steady| steady >= 2))
    }

    /// Waits until the guest beats in its second boot, on the other node.
    fn boots_there(&self) -> Result<()> {
        ensure!(self.guest.watcher.wait(LIMIT, |watch| watch.boots().len() == 2), "it is not started on {}", self.other);
        self.guest.goes_on()
    }

    fn heal(&self) -> Result<()> {
        self.lab().heal(&self.home, Network::Cluster)?;
        self.guest.stage.all_online()
    }
}

/// Each half is to fence the other, and neither can: the cut-off node does not reach the power switch, and the other gets no answer of it.
/// Then it does, and the guest runs there.
pub fn slow_fencing(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    lab.fence_fault(Fault::Hang)?;
    let scene = Scene::play(&stage)?;
    scene.says(&format!("{} is not known to be down", scene.other))?;
    scene.stays_paused()?;
    scene.guest.boots(1)?;
    promised!(stage.lab.processes(&scene.other, "guest:vm1")?.is_empty(), "it was started before its node was fenced");
    lab.fence_fault(Fault::None)?;
    scene.boots_there()?;
    scene.heal()?;
    scene.guest.runs(2)?;
    scene.guest.is_on(&scene.other)?;
    scene.guest.end(2).map(drop)
}

/// Without fencing the other half starts the guest at once, though it is paused here. It is ended there again, and the network mended: now
/// no other node has it, and what is on its disk is newer than what this one remembers.
pub fn no_fencing(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    stage.check("pcs property set stonith-enabled=false no-quorum-policy=ignore")?;
    let scene = Scene::play(&stage)?;
    scene.boots_there()?;
    scene.says("without fencing another node may have run it in the meantime")?;
    scene.stays_paused()?;
    lab.check(&scene.other, &["pcs", "node", "standby", &scene.other], LIMIT)?;
    until("it is ended there", || lab.processes(&scene.other, "guest:vm1").is_ok_and(|left| left.is_empty()))?;
    lab.heal(&scene.home, Network::Cluster)?;
    stage.wait(|seen| seen.online() == 2 && seen.runs_on("vm1") == Some(&scene.home)).context("the halves do not come together")?;
    scene.stays_paused()?;
    scene.guest.boots(2)?;
    scene.guest.end(2).map(drop)
}

/// After each scenario, whatever became of it: one cluster, with fencing, and nothing in it.
pub fn tidy(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    lab.fence_fault(Fault::None)?;
    for node in lab.node_names() {
        lab.heal(&node, Network::Cluster)?;
        until("it has power", || lab.power_on(&node).is_ok())?;
        lab.storage(&node, StorageFault::None)?;
    }
    stage.wait(|seen| seen.online() == lab.node_names().len())?;
    for node in lab.node_names() {
        stage.check(&format!("pcs node unstandby {node}"))?;
    }
    // The fence device too has failed, where the power switch was not reached.
    stage.check("crm_resource --cleanup")?;
    for name in lab.guests()? {
        let _ = stage.run(&format!("pcs resource delete --force {name}"));
        stage.settle()?;
        lab.guest_remove(&name)?;
    }
    stage.check("pcs property set stonith-enabled=true no-quorum-policy=stop")?;
    stage.tidy()
}
