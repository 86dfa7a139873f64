//! The cluster is brought to rest: all is healed, what is wrong by then is noted, and failures are forgotten.

use crate::play::{LIMIT, Play, agents, target_role};
use crate::silence::place_of;
use anyhow::{Result, ensure};
use lab::history::Request;
use lab::plan::GuestNumber;
use lab::power::Power;
use lab::process::wait_until;
use std::sync::PoisonError;
use std::time::Duration;

/// Of the way back to rest.
const REST: Duration = Duration::from_secs(300);

impl Play<'_> {
    /// Everything is well again, failures are forgotten, and the cluster has nothing left to do.
    pub fn rest(&self) -> Result<()> {
        let nodes = self.lab().nodes() as usize;
        // Asked anew each time: a node may have been lost a moment ago, and the others do not know it yet.
        let back = wait_until(REST, Duration::from_millis(200), || {
            let names = self.lab().node_names();
            names.iter().all(|node| self.lab().power(node).is_ok_and(|power| power == Power::On))
                && self.lab().membership().is_ok_and(|seen| seen.online() == nodes && seen.dc.is_some() && seen.runs_on("fence").is_some())
                && names.iter().all(|node| self.mend(node).is_ok())
        });
        ensure!(back, "not all nodes are back after {} s: {:?}", REST.as_secs(), self.lab().membership());
        self.settle()?;
        // Before it is repaired.
        let seen = self.stage.wait(|seen| seen.dc.is_some())?;
        self.recorder.down(self.names().into_iter().filter(|name| place_of(&seen, name).is_none()));
        let foreign: Vec<(GuestNumber, usize)> = std::mem::take(&mut *self.foreign.lock().unwrap_or_else(PoisonError::into_inner));
        let failed = self.recorder.view().is_none_or(|seen| !seen.failures.is_empty());
        if failed || !foreign.is_empty() {
            self.forget()?;
        }
        for (guest, fault) in foreign {
            let name = guest.to_string();
            let adopted = wait_until(REST, Duration::from_secs(2), || self.readopt(&name));
            ensure!(adopted, "{name} cannot be adopted again");
            self.recorder.over(fault);
        }
        self.listen()
    }

    /// A node's libvirtd runs: a node that came back in the middle of a fault has all its daemons.
    fn mend(&self, node: &str) -> Result<()> {
        if self.lab().processes(node, "libvirtd")?.is_empty() {
            // It may be that the node starts it by itself.
            let _ = self.lab().launch(node, "libvirtd");
        }
        self.lab().wait_libvirt(node)
    }

    /// As [`Stage::settle`], which gives up early.
    ///
    /// Pacemaker orders what two nodes have done by their clocks (`pe__is_newer_op`). When one was set back it may find, from a cleanup on,
    /// that a guest has to be restarted whose start looks older than an earlier move, and as a controller at rest it finds that out only
    /// with the next change, or after `cluster-recheck-interval` (15 min). So there is one.
    pub fn settle(&self) -> Result<()> {
        let again = |number: u32| {
            let _ = self.stage.run(&format!("crm_attribute --name chaos-look --update {number}"));
            self.stage.settle()
        };
        self.stage.settle().or_else(|_| again(1)).or_else(|_| again(2))
    }

    /// Takes back what is left of the requests, and waits until every guest is there.
    pub fn heal(&self) -> Result<()> {
        self.rest()?;
        for name in self.names() {
            self.stage.check(&target_role(&name, "Started"))?;
            self.stage.check(&format!("crm_resource --clear --resource {name}"))?;
        }
        for node in self.lab().node_names() {
            self.stage.check(&format!("crm_standby --node {node} --delete"))?;
        }
        self.forget()
    }

    /// All failures are forgotten.
    fn forget(&self) -> Result<()> {
        let forget = || self.stage.run("crm_resource --cleanup").is_ok_and(|output| output.ok());
        let forgotten =
            self.recorder.operation(Request::Forget, "", "cleanup of all", || wait_until(LIMIT, Duration::from_secs(1), forget));
        ensure!(forgotten, "failures cannot be forgotten");
        self.settle()
    }

    /// Stops every guest; what is there then and must not be.
    pub fn end(&self) -> Result<Vec<String>> {
        for name in self.names() {
            self.ask(Request::Stop, &name, &format!("stop {name} for good"), &target_role(&name, "Stopped"));
        }
        self.settle()?;
        let mut left = Vec::new();
        for name in self.names() {
            left.extend(self.emulators(&name).iter().map(|process| format!("an emulator of {name}, process {process}")));
            if !wait_until(Duration::from_secs(30), Duration::from_millis(200), || agents(&name).is_empty()) {
                left.push(format!("an agent for {name}: {:?}", agents(&name)));
            }
        }
        for node in self.lab().node_names() {
            let listed = self.lab().check(&node, &["virsh", "-q", "list", "--all", "--name"], LIMIT)?;
            left.extend(listed.split_whitespace().map(|name| format!("libvirt on {node} knows {name}")));
        }
        let constraints = self.stage.check("cibadmin --query --scope constraints")?;
        if constraints.contains("<rsc_") {
            left.push(format!("constraints: {constraints}"));
        }
        Ok(left)
    }
}
