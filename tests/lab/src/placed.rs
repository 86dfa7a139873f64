//! A guest in the hands of the cluster, with its heartbeat watched from the first beat to the last.

use crate::heartbeat::Ring;
use crate::layout::SHARED;
use crate::process::wait_until;
use crate::promised;
use crate::scene::{LIMIT, Stage};
use crate::watch::NEAR;
use crate::{GuestOptions, Watch, Watcher};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

/// Words of `pcs resource create` that most scenarios want.
///
/// `--unsafe`: to libvirt a folder that is bound into each node is no shared storage.
pub const PARAMETERS: &str = "migration_transport=tcp migrate_options=--unsafe";
/// The operations, with the timeouts that are advised.
pub const OPERATIONS: &str =
    "op start timeout=90s op stop timeout=90s op monitor interval=10s timeout=30s op migrate_to timeout=120s op migrate_from timeout=60s";

/// [`OPERATIONS`] with a monitor every 2 s.
pub const OPERATIONS_CLOSELY: &str =
    "op start timeout=90s op stop timeout=90s op monitor interval=2s timeout=30s op migrate_to timeout=120s op migrate_from timeout=60s";

/// A guest that the cluster runs.
pub struct Guest<'a> {
    /// The cluster.
    pub stage: &'a Stage,
    /// Its name, and that of its resource.
    pub name: &'static str,
    /// Who looks at its disk.
    pub watcher: Watcher,
}

impl<'a> Guest<'a> {
    /// The files and the watch; no resource yet.
    pub fn files(stage: &'a Stage, name: &'static str) -> Result<Self> {
        stage.lab.guest_create(name, &GuestOptions::default())?;
        let watcher = Watcher::start(&stage.lab.guest_image(name))?;
        Ok(Self { stage, name, watcher })
    }

    /// Given to Pacemaker in the usual way, and seen running.
    pub fn placed(stage: &'a Stage, name: &'static str) -> Result<Self> {
        Self::placed_with(stage, name, "", OPERATIONS)
    }

    /// As [`Guest::placed`], with parameters besides [`PARAMETERS`] and operations of its own.
    pub fn placed_with(stage: &'a Stage, name: &'static str, parameters: &str, operations: &str) -> Result<Self> {
        let guest = Self::files(stage, name)?;
        guest.give("ocf:kvmha:VirtualDomain", parameters, operations)?;
        guest.runs(1)?;
        Ok(guest)
    }

    /// Makes the resource, with an agent.
    pub fn give(&self, agent: &str, parameters: &str, operations: &str) -> Result<()> {
        let name = self.name;
        let line = format!(
            "pcs resource create {name} {agent} config=/srv/vms/{name}.xml {PARAMETERS} {parameters} {operations} meta allow-migrate=true"
        );
        self.stage.check(&line).map(drop)
    }

    /// Waits until the cluster says it runs, settled, and its disk says so too, in its boot number `boots`.
    pub fn runs(&self, boots: usize) -> Result<String> {
        self.stage.wait(|seen| seen.runs_on(self.name).is_some()).with_context(|| format!("{} does not run", self.name))?;
        self.stage.settle()?;
        ensure!(self.watcher.wait(LIMIT, |watch| watch.boots().len() >= boots), "{} does not write to its disk", self.name);
        self.goes_on()?;
        let node = self.node()?;
        self.is_on(&node)?;
        self.boots(boots)?;
        Ok(node)
    }

    /// The node it runs on by Pacemaker's word.
    pub fn node(&self) -> Result<String> {
        Ok(self.stage.wait(|seen| seen.runs_on(self.name).is_some())?.runs_on(self.name).unwrap_or_default().to_owned())
    }

    /// A node it does not run on.
    pub fn other_node(&self) -> Result<String> {
        let node = self.node()?;
        self.stage.lab.node_names().into_iter().find(|other| *other != node).context("there is no other node")
    }

    /// It has one emulator in all nodes, on this one.
    pub fn is_on(&self, node: &str) -> Result<()> {
        let mut places = self.stage.lab.guest_where(self.name)?;
        // A definition that libvirt keeps is no copy.
        places.retain(|place| !place.processes.is_empty() || place.libvirt.as_deref() != Some("shut off"));
        let one = matches!(&places[..], [place] if place.node == node && place.processes.len() == 1);
        promised!(one, "{} should be on {node} alone: {places:?}", self.name);
        Ok(())
    }

    /// Whether libvirt says on a node that an error of its storage has paused it.
    pub fn paused_by_an_error(&self, node: &str) -> bool {
        let words = ["virsh", "-q", "domstate", "--reason", self.name];
        self.stage.lab.exec(node, &words, LIMIT).is_ok_and(|output| output.stdout.contains("paused (I/O error)"))
    }

    /// It has no emulator in any node.
    pub fn is_nowhere(&self) -> Result<()> {
        for node in self.stage.lab.node_names() {
            let left = self.stage.lab.processes(&node, &format!("guest:{}", self.name))?;
            promised!(left.is_empty(), "{} is stopped, but {left:?} live on {node}", self.name);
        }
        Ok(())
    }

    /// It writes on: enough beats after now that a pause before can be measured.
    pub fn goes_on(&self) -> Result<()> {
        let count = self.watcher.snapshot().beats.len() + NEAR + 5;
        ensure!(self.watcher.wait(LIMIT, |watch| watch.beats.len() > count), "{} does not write to its disk any more", self.name);
        Ok(())
    }

    /// It has booted so often since the watch began, and never ran twice.
    pub fn boots(&self, boots: usize) -> Result<()> {
        judge(self.stage, self.name, &self.watcher.snapshot(), boots)
    }

    /// Waits for the next boot; the time from a moment to its first beat.
    pub fn boots_anew(&self, since: Instant) -> Result<Duration> {
        let booted = self.watcher.wait(LIMIT, |watch| watch.reboot_after(since).is_some());
        let beat = self.watcher.snapshot().reboot_after(since).filter(|_| booted);
        let Some(beat) = beat else { bail!("{} is not started again within {} s", self.name, LIMIT.as_secs()) };
        Ok(beat.at.saturating_duration_since(since))
    }

    /// Has it moved, as an administrator does; the time until Pacemaker shows it there, and the moments.
    pub fn move_to(&self, node: &str) -> Result<(Instant, Instant)> {
        let begin = Instant::now();
        self.request_move(node)?;
        self.stage.wait(|seen| seen.runs_on(self.name) == Some(node)).with_context(|| format!("{} does not get to {node}", self.name))?;
        Ok((begin, Instant::now()))
    }

    /// Asks for a move. The constraint it leaves ends by itself, so no scenario hangs on it being cleared.
    pub fn request_move(&self, node: &str) -> Result<()> {
        self.stage.check(&format!("crm_resource --move --resource {} --node {node} --lifetime PT10M", self.name)).map(drop)
    }

    /// Takes back what [`Guest::request_move`] left.
    pub fn clear(&self) -> Result<()> {
        self.stage.check(&format!("crm_resource --clear --resource {}", self.name)).map(drop)
    }

    /// Stops it for good and takes it out of the cluster; it must have booted so often, and never have run twice. All that was seen of it.
    pub fn end(self, boots: usize) -> Result<Watch> {
        let resource = self.name;
        self.end_as(resource, boots)
    }

    /// As [`Guest::end`], of a guest whose resource has another name.
    pub fn end_as(self, resource: &str, boots: usize) -> Result<Watch> {
        self.stage.check(&format!("pcs resource delete {resource}"))?;
        self.stage.wait(|seen| seen.resources.iter().all(|placed| placed.id != resource))?;
        self.stage.settle()?;
        self.is_nowhere()?;
        let ring = Ring::read(&self.stage.lab.guest_image(self.name))?;
        promised!(ring.two_writers.is_none(), "{} ran twice: {:?}", self.name, ring.two_writers);
        promised!(ring.lost == 0, "{} has lost {} beats", self.name, ring.lost);
        let watch = self.watcher.stop();
        judge(self.stage, self.name, &watch, boots)?;
        self.stage.lab.guest_remove(self.name)?;
        Ok(watch)
    }
}

/// A resource of a guest for the CIB: with parameters besides the usual ones, more meta attributes as XML, and name, interval and timeout of
/// each operation.
pub fn primitive(name: &str, provider: &str, parameters: &[(&str, &str)], meta: &str, operations: &[[&str; 3]]) -> String {
    let config = format!("{SHARED}/{name}.xml");
    let usual =
        [("config", config.as_str()), ("hypervisor", "qemu:///system"), ("migration_transport", "tcp"), ("migrate_options", "--unsafe")];
    let parameters: String = usual.iter().chain(parameters).map(|(key, value)| nvpair(name, "params", key, value)).collect();
    let operation = |[action, interval, timeout]: &[&str; 3]| {
        format!("<op id='{name}-{action}' name='{action}' interval='{interval}' timeout='{timeout}'/>")
    };
    format!(
        "<primitive id='{name}' class='ocf' provider='{provider}' type='VirtualDomain'><instance_attributes id='{name}-params'>{parameters}\
         </instance_attributes><meta_attributes id='{name}-meta'>{}{meta}</meta_attributes><operations>{}</operations></primitive>",
        nvpair(name, "meta", "allow-migrate", "true"),
        operations.iter().map(operation).collect::<String>(),
    )
}

/// A value of such a resource, in one of its sets, `params` or `meta`.
fn nvpair(resource: &str, set: &str, key: &str, value: &str) -> String {
    format!("<nvpair id='{resource}-{set}-{key}' name='{key}' value='{value}'/>")
}

fn judge(stage: &Stage, name: &str, watch: &Watch, boots: usize) -> Result<()> {
    promised!(watch.two_writers.is_none(), "{name} ran twice: {:?}", watch.two_writers);
    promised!(watch.lost == 0, "{name} has lost {} beats", watch.lost);
    ensure!(watch.errors.0 == 0, "the heartbeat of {name} could not be read: {}", watch.errors.1);
    let seen = watch.boots();
    let words = stage.lab.last_words(name, seen.len());
    let wrong = format!("{name} should have booted {boots} times, not {}: {seen:x?}{words}", seen.len());
    // One boot too many is a memory that is lost, unless it is the emulation's doing.
    promised!(seen.len() <= boots || !words.is_empty(), "{wrong}");
    ensure!(seen.len() == boots, "{wrong}");
    Ok(())
}

/// Waits for something that no event tells of.
pub fn until(what: &str, done: impl FnMut() -> bool) -> Result<()> {
    ensure!(wait_until(LIMIT, Duration::from_millis(50), done), "{what}: not within {} s", LIMIT.as_secs());
    Ok(())
}
