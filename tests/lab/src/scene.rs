//! The cluster on which the scenarios are played, and what is asked of it again and again.

use crate::process::{tail, wait_until};
use crate::program::under_test;
use crate::{Lab, Membership, Options, Output};
use anyhow::{Context, Result, ensure};
use roxmltree::Document;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Of a single step: far more than it takes, for a machine that is busy.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The cluster.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its nodes.
    pub lab: Lab,
}

impl Stage {
    /// That of a lab which is up.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        Self { lab: lab.clone() }
    }

    /// A new lab with the agent of this build.
    pub fn build(name: &str) -> Result<Self> {
        Lab::down(name, None)?;
        let agent = Some(under_test());
        let lab = Lab::up(&Options { name: name.to_owned(), agent, limit: LIMIT, ..Options::default() })?;
        Ok(Self { lab })
    }

    /// A node that is in the cluster, for commands that any node can carry out.
    pub fn speaker(&self) -> Result<String> {
        let mut found = None;
        wait_until(LIMIT, Duration::from_millis(100), || {
            found = self.lab.node_names().into_iter().find(|node| {
                let seen = self.lab.membership_of(node);
                seen.is_ok_and(|seen| {
                    seen.quorum && seen.dc.is_some() && seen.nodes.iter().any(|member| member.name == *node && member.online)
                })
            });
            found.is_some()
        });
        found.context("no node has quorum")
    }

    /// Runs a line, words separated by blanks, on a node that is in the cluster.
    pub fn run(&self, line: &str) -> Result<Output> {
        self.lab.exec(&self.speaker()?, &line.split_whitespace().collect::<Vec<_>>(), LIMIT)
    }

    /// As [`Stage::run`], for a line that must succeed; its standard output.
    pub fn check(&self, line: &str) -> Result<String> {
        self.run(line)?.success(line)
    }

    /// Waits until the cluster has nothing left to do: the next change would mix with the last.
    ///
    /// What `crm_resource --wait` is for; that one looks every 2 s only, which would be half of this suite's time.
    pub fn settle(&self) -> Result<()> {
        let mut calm = 0;
        let settled = wait_until(LIMIT, Duration::from_millis(100), || {
            calm = if self.is_calm().unwrap_or(false) { calm + 1 } else { 0 };
            calm == 2
        });
        ensure!(settled, "the cluster does not come to rest within {} s", LIMIT.as_secs());
        Ok(())
    }

    /// The controller carries nothing out, and the scheduler would have it do nothing.
    fn is_calm(&self) -> Result<bool> {
        let controller = self.lab.membership()?.dc.context("there is no DC")?;
        let ask = |words: &[&str]| self.lab.check(&controller, words, Duration::from_secs(20));
        let plan = ask(&["crm_simulate", "--live-check", "--simulate", "--output-as=xml"])?;
        let plan = Document::parse(&plan)?;
        let todo =
            |name| plan.descendants().any(|element| element.has_tag_name(name) && element.children().any(|child| child.is_element()));
        if todo("actions") || todo("transition") {
            return Ok(false);
        }
        Ok(ask(&["crmadmin", "--status", &controller, "--output-as=xml"])?.contains("state=\"S_IDLE\""))
    }

    /// Waits until the cluster pleases `wanted`.
    pub fn wait(&self, wanted: impl FnMut(&Membership) -> bool) -> Result<Membership> {
        self.lab.wait_membership(LIMIT, wanted)
    }

    /// Waits until all nodes are members.
    pub fn all_online(&self) -> Result<()> {
        let nodes = self.lab.nodes() as usize;
        self.wait(|seen| seen.online() == nodes && seen.dc.is_some() && seen.runs_on("fence").is_some()).context("nodes are missing")?;
        Ok(())
    }

    /// No action has failed.
    pub fn no_failures(&self) -> Result<()> {
        let failures = self.lab.membership()?.failures;
        ensure!(failures.is_empty(), "failed actions: {failures:?}");
        Ok(())
    }

    /// Waits for an action that failed, named as Pacemaker does without the resource (`migrate_to_0`): what is known of it, in one text that
    /// begins with the exit reason.
    pub fn failure(&self, resource: &str, action: &str) -> Result<String> {
        let operation = format!("{resource}_{action}");
        let find = |seen: &Membership| {
            // A failed move is listed for the target too, and there without a reason.
            let mut failures: Vec<_> = seen.failures.iter().filter(|failure| failure.operation == operation).collect();
            failures.sort_by_key(|failure| failure.reason.is_empty());
            let failure = failures.first()?;
            Some(format!("{} ({}, code {} on {})", failure.reason, failure.status, failure.code, failure.node))
        };
        let seen = self.wait(|seen| find(seen).is_some()).with_context(|| format!("{operation} was to fail"))?;
        find(&seen).context("it is gone")
    }

    /// How often the power switch was asked to cut a node's power.
    pub fn fences(&self) -> usize {
        fs::read_to_string(self.lab.layout().switch_log()).unwrap_or_default().matches(" asks: off ").count()
    }

    /// The system log of a node.
    pub fn log(&self, node: &str) -> Result<String> {
        let bytes = fs::read(self.lab.layout().on_disk(self.lab.number(node)?, "/var/log/messages")).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Forgets what failed, on purpose, and waits until everybody is there: the next scenario finds the cluster as this one did.
    pub fn tidy(&self) -> Result<()> {
        self.all_online()?;
        // Forgetting takes its time, and most scenarios leave no failure.
        let clean = |seen: &Membership| seen.failures.is_empty() && seen.resources.iter().all(|resource| resource.id == "fence");
        // They outlive the resource that failed, and would keep the next one of that name from a node.
        let counts = || self.check("cibadmin --query --scope status").map(|status| status.contains("fail-count-"));
        if !clean(&self.wait(|seen| seen.dc.is_some())?) || counts()? {
            self.check("crm_resource --cleanup")?;
            self.settle()?;
        }
        let seen = self.wait(|seen| seen.failures.is_empty())?;
        let left: Vec<&str> = seen.resources.iter().map(|resource| resource.id.as_str()).filter(|id| *id != "fence").collect();
        ensure!(left.is_empty(), "resources are left: {left:?}");
        Ok(())
    }

    /// As [`Stage::tidy`], for suites whose resources are called like their guests: those that a scenario that failed has left go first.
    pub fn tidy_guests(lab: &Lab) -> Result<()> {
        let stage = Self::of(lab);
        stage.all_online()?;
        for name in lab.guests()? {
            let _ = stage.run(&format!("pcs resource delete --force {name}"));
            stage.settle()?;
            lab.guest_remove(&name)?;
        }
        stage.tidy()
    }

    /// Keeps the logs of all nodes in a folder, and shows what the agent said last.
    pub fn keep_logs(&self, folder: &Path) {
        let _ = fs::create_dir_all(folder);
        for number in 1..=self.lab.nodes() {
            // With the emulator's own log and the guest's console of each guest.
            let guests = self.lab.guests().unwrap_or_default().into_iter();
            let logs =
                ["/var/log/messages", "/var/log/pacemaker/pacemaker.log", "/var/log/lab-libvirtd.log"].map(str::to_owned).into_iter();
            let logs = logs.chain(
                guests.flat_map(|name| [format!("/var/log/libvirt/qemu/{name}.log"), format!("/var/log/libvirt/console-{name}.log")]),
            );
            for log in logs {
                let name = log.rsplit('/').next().unwrap_or_default();
                let _ = fs::copy(self.lab.layout().on_disk(number, &log), folder.join(format!("node{number}-{name}")));
            }
            let messages = self.log(&format!("node{number}")).unwrap_or_default();
            let said: Vec<&str> = messages.lines().filter(|line| line.contains("VirtualDomain(")).collect();
            for line in &said[said.len().saturating_sub(8)..] {
                println!("    node{number}: {line}");
            }
        }
        let _ = fs::copy(self.lab.layout().switch_log(), folder.join("switch.log"));
        println!("    power switch: {}", tail(&self.lab.layout().switch_log(), 3).replace('\n', "\n                  "));
        println!("    logs: {}", folder.display());
    }
}
