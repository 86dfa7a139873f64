//! The cluster is brought to rest: all is healed, what is wrong by then is noted, and failures are forgotten.

use crate::play::{LIMIT, Play, agents, target_role};
use crate::silence::place_of;
use anyhow::{Result, ensure};
use lab::cib;
use lab::history::Request;
use lab::layout::Network;
use lab::plan::GuestNumber;
use lab::power::Power;
use lab::process::wait_until;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of the way back to rest.
const REST: Duration = Duration::from_secs(300);
/// Fencing that failed is given up by Pacemaker. Then somebody comes and sees to it.
const SEEN_TO: Duration = Duration::from_secs(90);
/// By how many seconds the clocks of two nodes may differ.
const SKEW: u64 = 5;
/// Between two cleanups of the fence device.
const AGAIN: Duration = Duration::from_secs(10);

impl Play<'_> {
    /// Everything is well again, what was asked for is taken back, failures are forgotten, and the cluster has nothing left to do.
    pub fn rest(&self) -> Result<()> {
        self.all_back()?;
        self.take_back()?;
        self.settle()?;
        let mut foreign = std::mem::take(&mut *self.foreign.lock().unwrap_or_else(PoisonError::into_inner));
        foreign.retain(|(guest, fault)| !self.come_home(*guest, *fault));
        self.give_back()?;
        self.release()?;
        self.settle()?;
        // Before it is repaired. A guest that nobody has given back is not looked after.
        let is_foreign = |name: &String| foreign.iter().any(|(guest, _)| guest.to_string() == *name);
        self.note_down(self.names().into_iter().filter(|name| !is_foreign(name)))?;
        let failed = self.recorder.view().is_none_or(|seen| !seen.failures.is_empty());
        if failed || !foreign.is_empty() {
            self.forget()?;
        }
        for (guest, fault) in &foreign {
            let home = wait_until(REST, Duration::from_secs(2), || {
                if self.come_home(*guest, *fault) {
                    return true;
                }
                // With a failure of it in Pacemaker's memory `kvmha adopt` does not begin, and the other agent may fail again.
                let _ = self.forget();
                false
            });
            ensure!(home, "{guest} cannot be adopted again");
        }
        if !foreign.is_empty() {
            self.settle()?;
            self.note_down(foreign.iter().map(|(guest, _)| guest.to_string()))?;
        }
        self.listen()
    }

    /// Waits until all nodes are back, with their daemons and the fence device.
    fn all_back(&self) -> Result<()> {
        let (nodes, names) = (self.lab().nodes() as usize, self.lab().node_names());
        let (begin, mut cleaned) = (Instant::now(), None::<Instant>);
        // Asked anew each time: a node may have been lost a moment ago, and the others do not know it yet.
        let back = wait_until(REST, Duration::from_millis(200), || {
            for node in &names {
                // A command that was late, or failed, has left it cut.
                let _ = self.lab().heal(node, Network::Cluster);
                if begin.elapsed() > SEEN_TO && self.lab().power(node).is_ok_and(|power| power == Power::Off) {
                    let _ = self.lab().power_on(node);
                }
            }
            let Ok(seen) = self.lab().membership() else { return false };
            if seen.online() != nodes || seen.dc.is_none() {
                return false;
            }
            if seen.runs_on("fence").is_none() {
                // A device that has failed to start everywhere is started nowhere until its failures are forgotten.
                if cleaned.is_none_or(|last| last.elapsed() > AGAIN) {
                    self.ask(Request::Forget, "fence", "cleanup of fence", "crm_resource --cleanup --resource fence");
                    cleaned = Some(Instant::now());
                }
                return false;
            }
            names.iter().all(|node| self.lab().power(node).is_ok_and(|power| power == Power::On) && self.mend(node).is_ok())
        });
        ensure!(back, "not all nodes are back after {} s: {:?}", REST.as_secs(), self.lab().membership());
        Ok(())
    }

    /// Whether a guest that another agent looks after is changed back to ours.
    fn come_home(&self, guest: GuestNumber, fault: usize) -> bool {
        let home = self.readopt(&guest.to_string());
        if home {
            self.recorder.over(fault);
        }
        home
    }

    /// Notes which of these guests do not run.
    fn note_down(&self, guests: impl Iterator<Item = String>) -> Result<()> {
        let seen = self.stage.wait(|seen| seen.dc.is_some())?;
        self.recorder.down(guests.filter(|name| place_of(&seen, name).is_none()));
        Ok(())
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
    /// with the next change, or after `cluster-recheck-interval` (15 min). So there is one. While that move lies in the future of its clock, it is
    /// so at each change anew: what a clock that was ahead has recorded is forgotten first, as `kvmha doctor` advises.
    pub fn settle(&self) -> Result<()> {
        let again = |number: u32| {
            self.forget_the_future(|_, is_there| !is_there)?;
            let _ = self.stage.run(&format!("crm_attribute --name chaos-look --update {number}"));
            self.stage.settle()
        };
        self.stage.settle().or_else(|_| again(1)).or_else(|_| again(2))
    }

    /// What a node whose clock was ahead has run is forgotten, of the guests for which that is wanted; whether there was any. `wanted`: by the guest, and
    /// whether Pacemaker has it there.
    pub fn forget_the_future(&self, wanted: impl Fn(&str, bool) -> bool) -> Result<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let seen = self.stage.wait(|seen| seen.dc.is_some())?;
        let mut found = cib::from_the_future(&self.stage.check("cibadmin --query")?, now + SKEW)?;
        found.retain(|(guest, node)| wanted(guest, place_of(&seen, guest) == Some(node)));
        for (guest, node) in &found {
            let line = format!("crm_resource --refresh --force --resource {guest} --node {node}");
            self.ask(Request::Forget, guest, &format!("refresh of {guest} on {node}, whose clock was ahead"), &line);
        }
        Ok(!found.is_empty())
    }

    /// As after a round; and all failures are forgotten.
    pub fn heal(&self) -> Result<()> {
        self.rest()?;
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
        let mut left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        left.extend(self.kept()?);
        for name in self.names() {
            left.extend(self.emulators(&name).iter().map(|process| format!("an emulator of {name}, process {process}")));
            if !wait_until(Duration::from_secs(30), Duration::from_millis(200), || agents(self.lab(), &name).is_empty()) {
                left.push(format!("an agent for {name}: {:?}", agents(self.lab(), &name)));
            }
        }
        for node in self.lab().node_names() {
            let listed = self.lab().check(&node, &["virsh", "-q", "list", "--all", "--name"], LIMIT)?;
            left.extend(listed.split_whitespace().map(|name| format!("libvirt on {node} knows {name}")));
            for name in self.names().into_iter().filter(|name| self.recorder.ends_with_a_stop(name, &node)) {
                let file = format!("/run/kvmha/{name}.json");
                if self.lab().path_in(&node, &file)?.exists() {
                    left.push(format!("{file} on {node}, where the last that was done with {name} was a stop"));
                }
            }
        }
        let constraints = self.stage.check("cibadmin --query --scope constraints")?;
        if constraints.contains("<rsc_") {
            left.push(format!("constraints: {constraints}"));
        }
        Ok(left)
    }
}
