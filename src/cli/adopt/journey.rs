//! One resource's way from one agent to the other, and back if a step fails. Each step can be made again, so that a way that was cut off
//! anywhere is gone from its start.

use super::super::probe::Find;
use super::mark::{MARK, Mark, rival, set_id};
use super::quiet::{is_harmless, quiet, quiet_but_for};
use super::standing::Standing;
use super::{Provider, others, tell};
use crate::cluster::cib::{Change, Cib};
use crate::cluster::scheduler::{self, Operation};
use crate::cluster::tool::{self, Trouble};
use crate::cluster::view::View;
use crate::deadline::Deadline;
use anyhow::{Context, anyhow, bail, ensure};
use std::time::Duration;

/// How long the steps of a way may take together: a node may be fenced meanwhile.
const FORWARD: Duration = Duration::from_secs(120);

/// As [`FORWARD`], for the way back: it has to be gone, so it is tried for longer.
const BACK: Duration = Duration::from_secs(180);

/// How long a change of the CIB may take.
const CHANGE: Duration = Duration::from_secs(20);

/// How often the cluster is looked at.
const POLL: Duration = Duration::from_millis(150);

/// A resource and the agent it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journey {
    pub(super) resource: String,
    pub(super) goal: Provider,
    /// This run.
    pub(super) run: Mark,
}

/// Whose steps of those that are foreseen have to be harmless.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those of all resources.
    All,
    /// Those of the resource itself.
    ItsOwn,
}

impl Journey {
    /// This journey, of a run that begins with it now.
    pub(super) fn begun_now(&self) -> Self {
        Self { run: self.run.again(), ..self.clone() }
    }

    /// Makes it; or, if a step fails, the way back.
    ///
    /// # Errors
    /// The resource does not have the agent it should have; the text says how it was left.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        let (resource, deadline) = (&self.resource, Deadline::after(FORWARD));
        let error = match self.go(&deadline) {
            Ok(node) => {
                // From here there is no way back: without maintenance a change of the agent restarts the guest.
                // So it has a time of its own: with what is left of the other it might stop half way, with a failure that counts.
                let deadline = Deadline::after(FORWARD);
                let ended = self.end(node.as_deref(), &deadline).and_then(|()| self.confirm(node.as_deref(), &deadline));
                ended.with_context(|| format!("{resource} is {} now, its guest was not stopped, but", self.goal.agent()))?;
                tell(&format!("{resource}: is {}", self.goal.agent()));
                return Ok(());
            }
            Err(error) => error,
        };
        let back = Self { resource: resource.clone(), goal: self.goal.other(), run: self.run.clone() };
        tell(&format!("{resource}: failed: {error:#}; going back"));
        let retreated = back.retreat(&Deadline::after(BACK));
        let how = match Standing::of(resource, &Deadline::after(CHANGE)) {
            Ok(standing) => standing.text(resource, &back.goal.agent()),
            Err(trouble) => format!("how {resource} is now cannot be told ({trouble}); run the command again when the cluster is well"),
        };
        match retreated {
            Ok(()) => Err(error.context(how)),
            Err(second) => Err(error.context(format!("{resource}: the way back failed too: {second:#}; {how}"))),
        }
    }

    /// The steps that can be undone; gives the node where the guest is.
    fn go(&self, deadline: &Deadline) -> anyhow::Result<Option<String>> {
        self.spare_others(deadline)?;
        self.step("1 maintenance");
        self.enter(deadline)?;
        self.step("2 agent");
        self.change(deadline)?;
        self.step("3 history");
        let node = self.place(deadline)?;
        self.ask_anew(deadline)?;
        self.expect(node.as_deref(), deadline)?;
        self.step("4 check");
        if let Some(find) = self.find(node.as_deref()) {
            find.expire(deadline)?;
        }
        self.foresee(deadline, Whose::All)?;
        Ok(node)
    }

    /// The last step: maintenance ends.
    fn end(&self, node: Option<&str>, deadline: &Deadline) -> anyhow::Result<()> {
        self.step("5 end of maintenance");
        let set = set_id(&self.resource);
        let left = || format!("its meta attributes {set} are left; run the command again");
        let mut forgotten = Ok(());
        if let Some(find) = self.find(node) {
            forgotten = self.leave_and_forget(&find, deadline);
            if let Err(error) = &forgotten
                && let Err(counts) = find.uncount()
            {
                // As long as something may count the time after which it does not has to stay; maintenance need not.
                self.leave_maintenance(&Deadline::after(CHANGE)).with_context(left)?;
                return Err(counts.context(format!("{}: {error:#}", left())));
            }
        }
        // A time of its own, and whatever came of that: nothing is to be left.
        self.leave(&Deadline::after(CHANGE)).with_context(left)?;
        forgotten.context("until it is moved or started the next time, changing one of its parameters may restart it")
    }

    /// The find that Pacemaker has to forget, if it has to: only this agent can reload.
    fn find(&self, node: Option<&str>) -> Option<Find> {
        let node = node.filter(|_| self.goal == Provider::Kvmha)?;
        Some(Find { resource: self.resource.clone(), node: node.to_owned(), set: set_id(&self.resource) })
    }

    /// Ends the maintenance itself, and waits until Pacemaker has forgotten that it did not expect to find the guest.
    fn leave_and_forget(&self, find: &Find, deadline: &Deadline) -> anyhow::Result<()> {
        self.leave_maintenance(deadline)?;
        if !find.forget(deadline)? {
            tell(&format!("{}: until it is moved or started the next time, changing one of its parameters restarts it", self.resource));
        }
        Ok(())
    }

    /// Ends the maintenance alone; the time by which a failure expires stays.
    fn leave_maintenance(&self, deadline: &Deadline) -> anyhow::Result<()> {
        Ok(Change::without("nvpair", &format!("{}-maintenance", set_id(&self.resource))).persist(&deadline.within(CHANGE))?)
    }

    /// The way back. Nodes that are gone do not matter, and a guest that has ended may be started.
    fn retreat(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let mut last = anyhow!("no time");
        while !deadline.expired() {
            let tried = match Cib::query(&deadline.within(CHANGE)) {
                Ok(cib) => {
                    let set = set_id(&self.resource);
                    if let Some(rival) = rival(&cib, &set, &self.run) {
                        bail!("{rival}");
                    }
                    match cib.value(&format!("{set}-maintenance")) {
                        Some(_) => self.try_retreat(&deadline.within(Duration::from_secs(60))),
                        // It has not left, or has left already. The mark of a request that was not answered may come yet: behind it comes
                        // its deletion.
                        None => self.leave(&deadline.within(CHANGE)),
                    }
                }
                Err(trouble) => Err(trouble.into()),
            };
            match tried {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            let _ = deadline.pause(Duration::from_secs(1));
        }
        Err(last)
    }

    fn try_retreat(&self, deadline: &Deadline) -> anyhow::Result<()> {
        self.change(deadline)?;
        self.ask_anew(deadline)?;
        self.answers(deadline)?;
        self.foresee(deadline, Whose::ItsOwn)?;
        self.leave(deadline)
    }

    fn step(&self, text: &str) {
        tell(&format!("{}: {text}", self.resource));
    }

    /// Puts the resource into maintenance, and waits until Pacemaker has taken note and knows where the guest is.
    fn enter(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let (resource, set, goal) = (&self.resource, set_id(&self.resource), self.goal.word());
        let (run, run_name) = (self.run.to_string(), format!("{MARK}-run"));
        let hold = Change::meta(resource, &set, &[("maintenance", "maintenance", "true"), ("goal", MARK, goal), ("run", &run_name, &run)]);
        // What a run elsewhere has begun since the survey.
        self.alone(deadline)?;
        hold.persist(&deadline.within(CHANGE))?;
        let cib = Cib::query(&deadline.within(CHANGE))?;
        ensure!(cib.value(&format!("{set}-goal")).as_deref() == Some(goal), "maintenance was not set");
        quiet_but_for(std::slice::from_ref(resource), deadline)?;
        if !scheduler::plan(deadline)?.is_empty() {
            self.ask_anew(deadline)?;
        }
        let view = quiet(deadline)?;
        let managed = view.resource(resource).is_none_or(|placed| placed.managed);
        ensure!(!managed, "Pacemaker still manages it");
        // Of two that began at the same time the later has its mark there, and goes on.
        self.alone(deadline)
    }

    fn alone(&self, deadline: &Deadline) -> anyhow::Result<()> {
        match rival(&Cib::query(&deadline.within(CHANGE))?, &set_id(&self.resource), &self.run) {
            Some(rival) => bail!("{rival}"),
            None => Ok(()),
        }
    }

    fn change(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let (resource, provider, set) = (&self.resource, self.goal.word(), set_id(&self.resource));
        let before = Cib::query(&deadline.within(CHANGE))?;
        ensure!(before.value(&format!("{set}-maintenance")).as_deref() == Some("true"), "it is not in maintenance any more");
        let xml = format!("<primitive id=\"{resource}\" provider=\"{provider}\"/>");
        // Whoever ends the maintenance meanwhile: without it the guest would be restarted, so the change asks for it itself.
        let path = format!("//primitive[@id='{resource}'][meta_attributes[@id='{set}']/nvpair[@name='maintenance' and @value='true']]");
        tool::persist("cibadmin", &["--modify", "--xpath", &path, "--xml-text", &xml], &deadline.within(CHANGE))?;
        let cib = Cib::query(&deadline.within(CHANGE))?;
        let primitive = cib.primitives().into_iter().find(|primitive| primitive.id == *resource).context("the resource is gone")?;
        ensure!(primitive.agent == self.goal.agent(), "the agent was not changed, it is {}", primitive.agent);
        Ok(())
    }

    /// Where Pacemaker knows the guest to be.
    fn place(&self, deadline: &Deadline) -> anyhow::Result<Option<String>> {
        let view = View::query(&deadline.within(CHANGE))?;
        let nodes = view.resource(&self.resource).map(|placed| placed.nodes.clone()).unwrap_or_default();
        match &nodes[..] {
            [] => Ok(None),
            [node] => Ok(Some(node.clone())),
            nodes => bail!("it is active on {}", nodes.join(" and ")),
        }
    }

    /// Deletes what the nodes remember; they are then asked anew. Of this resource: without --force of all members of its group.
    fn ask_anew(&self, deadline: &Deadline) -> anyhow::Result<()> {
        self.spare_others(deadline)?;
        let refresh = deadline.within(Duration::from_secs(45));
        loop {
            match tool::run("crm_resource", &["--refresh", "--force", "--resource", &self.resource], &refresh) {
                Ok(_) => return Ok(()),
                Err(trouble @ Trouble::Missing(_)) => return Err(trouble.into()),
                Err(trouble) if !refresh.pause(Duration::from_secs(1)) => return Err(trouble.into()),
                Err(_) => {}
            }
        }
    }

    fn spare_others(&self, deadline: &Deadline) -> anyhow::Result<()> {
        others::spare(&Cib::query(&deadline.within(CHANGE))?, &self.resource, self.goal, deadline)
    }

    /// Waits until all nodes that are asked have answered the new agent's probe: node, code, reason. Whom Pacemaker asks is its own affair (not
    /// guests that are nodes themselves, nor those that a constraint excludes), so it is asked whether anything is left to be done.
    fn answers(&self, deadline: &Deadline) -> anyhow::Result<Vec<(String, i32, String)>> {
        loop {
            match self.try_answers(&deadline.within(CHANGE)) {
                Ok(answers) => return Ok(answers),
                Err(error) if !deadline.pause(POLL) => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn try_answers(&self, deadline: &Deadline) -> anyhow::Result<Vec<(String, i32, String)>> {
        let (view, steps, cib) = (View::query(deadline)?, scheduler::plan(deadline)?, Cib::query(deadline)?);
        ensure!(view.nodes.iter().all(|node| !node.unsettled), "a node is coming, or has to be fenced");
        if let Some(step) = steps.iter().find(|step| step.resource.as_deref() == Some(self.resource.as_str())) {
            bail!("Pacemaker has yet to {step}");
        }
        let mut answers = Vec::new();
        for one in cib.histories(&self.resource).into_iter().filter(|one| view.online().any(|node| node == one.node)) {
            ensure!(one.agent == self.goal.agent(), "{} still knows it as {}", one.node, one.agent);
            let code = one.probe.with_context(|| format!("{} has not answered", one.node))?;
            answers.push((one.node, code, one.reason));
        }
        ensure!(!answers.is_empty(), "no node has been asked");
        Ok(answers)
    }

    /// The answers must be: the guest is on `node`, and nowhere else.
    fn expect(&self, node: Option<&str>, deadline: &Deadline) -> anyhow::Result<()> {
        let answers = self.answers(&deadline.within(Duration::from_secs(60)))?;
        for (name, code, reason) in &answers {
            let expected = if node == Some(name.as_str()) { 0 } else { 7 };
            if *code != expected {
                let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                bail!("{} says {code}{reason} on {name}, not {expected}", self.goal.agent());
            }
        }
        if let Some(node) = node {
            ensure!(answers.iter().any(|(name, ..)| name == node), "{node}, where the guest was, is not online any more");
        }
        Ok(())
    }

    /// What Pacemaker would do if maintenance ended now. Never a stop or a move of a guest that is there.
    fn foresee(&self, deadline: &Deadline, whose: Whose) -> anyhow::Result<()> {
        loop {
            let tried = self.try_foresee(&deadline.within(CHANGE), whose);
            match tried {
                Ok(()) => return Ok(()),
                Err(error) if !deadline.pause(Duration::from_millis(500)) => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn try_foresee(&self, deadline: &Deadline, whose: Whose) -> anyhow::Result<()> {
        let cib = Cib::query(deadline)?;
        let running = cib.histories(&self.resource).iter().any(|one| one.probe == Some(0));
        let steps = scheduler::plan_for(&cib.without(&[format!("{}-maintenance", set_id(&self.resource))]), deadline)?;
        let ours = |step: &&scheduler::Step| step.resource.as_deref() == Some(self.resource.as_str());
        if let Some(step) = steps.iter().filter(ours).find(|step| !is_harmless(step) && (running || step.operation != Operation::Start)) {
            bail!("Pacemaker would {step}");
        }
        if whose == Whose::All
            && let Some(step) = steps.iter().filter(|step| !ours(step)).find(|step| !is_harmless(step))
        {
            bail!("Pacemaker would {step}");
        }
        Ok(())
    }

    fn leave(&self, deadline: &Deadline) -> anyhow::Result<()> {
        let set = set_id(&self.resource);
        Change::without("meta_attributes", &set).persist(&deadline.within(CHANGE))?;
        ensure!(!Cib::query(&deadline.within(CHANGE))?.has(&set), "maintenance was not ended");
        Ok(())
    }

    /// It is where it was, and Pacemaker looks after it again.
    fn confirm(&self, node: Option<&str>, deadline: &Deadline) -> anyhow::Result<()> {
        let view = quiet(deadline)?;
        let placed = view.resource(&self.resource).context("Pacemaker does not know it any more")?;
        ensure!(placed.agent == self.goal.agent(), "it is {}", placed.agent);
        ensure!(placed.managed && !placed.failed, "it has failed, or is not managed");
        if let Some(node) = node {
            ensure!(placed.nodes == [node.to_owned()], "it is on {:?} and not on {node}", placed.nodes);
        }
        Ok(())
    }
}
