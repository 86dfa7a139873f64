//! What is there before anything is touched: is the cluster quiet, and what would become of each resource.

use super::journey::Journey;
use super::mark::{MARK, Mark, rival, set_id};
use super::quiet::{in_maintenance, is_harmless, quiet_but_for};
use super::{Provider, count, others};
use crate::cluster::cib::{Asker, Cib, Primitive};
use crate::cluster::own_name;
use crate::cluster::scheduler;
use crate::cluster::tool;
use crate::cluster::view::Placed;
use crate::deadline::Deadline;
use crate::ocf;
use anyhow::{bail, ensure};
use std::fmt;
use std::time::Duration;

/// How long a cluster may take to come to rest before it is said not to be quiet.
const QUIET: Duration = Duration::from_secs(15);

/// What defaults may be said of.
const OPERATIONS: [&str; 5] = ["start", "stop", "monitor", "migrate_to", "migrate_from"];

/// One resource, and what will be done with it.
#[derive(Debug)]
pub(super) struct Lot {
    id: String,
    /// Where it goes; nothing to do if it has the agent already.
    goal: Option<Provider>,
    /// An earlier run was not finished.
    left: bool,
    node: Option<String>,
}

impl Lot {
    /// What is to be done.
    pub(super) fn journey(&self, run: &Mark) -> Option<Journey> {
        self.goal.map(|goal| Journey { resource: self.id.clone(), goal, run: run.clone() })
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Survey {
    goal: Provider,
    /// This run.
    pub(super) run: Mark,
    pub(super) lots: Vec<Lot>,
}

impl Survey {
    /// Looks at the cluster and at `named`, or at all resources that have the other agent; and at those that an earlier run left.
    ///
    /// # Errors
    /// The cluster is not quiet by the deadline, or a resource cannot be changed: nothing is to be touched then.
    pub(super) fn make(named: &[String], goal: Provider, deadline: &Deadline) -> anyhow::Result<Self> {
        let view = quiet_but_for(&in_maintenance(&Cib::query(deadline)?), &deadline.within(QUIET))?;
        let cib = Cib::query(deadline)?;
        let run = Mark::new(&own_name(deadline)?);
        let mut lots = Vec::new();
        for primitive in &meant(&cib, named, goal)? {
            let left = left(&cib, &primitive.id);
            if let Some(rival) = rival(&cib, &set_id(&primitive.id), &run) {
                bail!("{}: {rival}", primitive.id);
            }
            let asked = named.is_empty() || named.contains(&primitive.id);
            let goal = if asked { goal } else { left.unwrap_or(goal) };
            let placed = view.resource(&primitive.id);
            let done = left.is_none() && primitive.agent == goal.agent();
            if !done {
                if let Some(lost) = lost_default(&cib, goal) {
                    bail!("{}: {lost}", primitive.id);
                }
                may_be_changed(primitive, placed, goal, left.is_some()).map_err(|error| error.context(primitive.id.clone()))?;
            }
            let node = placed.and_then(|placed| placed.nodes.first().cloned());
            lots.push(Lot { id: primitive.id.clone(), goal: (!done).then_some(goal), left: left.is_some(), node });
        }
        let survey = Self { goal, run, lots };
        survey.foresee(&cib, deadline)?;
        for lot in &survey.lots {
            if let Some(goal) = lot.goal {
                // With many guests the time for all the rest would not do.
                others::spare(&cib, &lot.id, goal, &Deadline::after(others::FORESIGHT)).map_err(|error| error.context(lot.id.clone()))?;
            }
        }
        Ok(survey)
    }

    /// What Pacemaker would do at the end, by its own scheduler: it must be nothing but monitoring.
    fn foresee(&self, cib: &Cib, deadline: &Deadline) -> anyhow::Result<()> {
        for goal in [Provider::Heartbeat, Provider::Kvmha] {
            let ids: Vec<String> = self.lots.iter().filter(|lot| lot.goal == Some(goal) && !lot.left).map(|lot| lot.id.clone()).collect();
            if ids.is_empty() {
                continue;
            }
            tool::run("crm_resource", &["--show-metadata", &goal.agent()], deadline)
                .map_err(|trouble| anyhow::anyhow!("{} does not work on this node: {trouble}", goal.agent()))?;
            let steps = scheduler::plan_for(&cib.with_provider(&ids, goal.word()), deadline)?;
            if let Some(step) = steps.iter().find(|step| !is_harmless(step)) {
                bail!("Pacemaker would {step} at the end, so nothing is touched");
            }
        }
        Ok(())
    }
}

/// The resources that are meant, and those that an earlier run left. What comes from a template has its agent there.
fn meant(cib: &Cib, named: &[String], goal: Provider) -> anyhow::Result<Vec<Primitive>> {
    let mut resources = cib.resources();
    for id in named {
        ensure!(resources.iter().any(|resource| resource.id == *id), "there is no resource {id}");
    }
    let other = goal.other().agent();
    let is_meant = |resource: &Primitive| if named.is_empty() { resource.agent == other } else { named.contains(&resource.id) };
    resources.retain(|resource| is_meant(resource) || left(cib, &resource.id).is_some());
    Ok(resources)
}

/// Where an earlier run that was not finished has left a resource on its way to.
fn left(cib: &Cib, id: &str) -> Option<Provider> {
    Provider::named(&cib.value(&format!("{}-goal", set_id(id)))?)
}

/// A default that is bound to the old agent by a rule, and what to do about it: with the new agent Pacemaker's own would count, 20 s for a stop.
fn lost_default(cib: &Cib, goal: Provider) -> Option<String> {
    let all = [("rsc_defaults", None)].into_iter().chain(OPERATIONS.map(|operation| ("op_defaults", Some(operation))));
    all.into_iter().find_map(|(element, operation)| {
        let of = |provider: Provider| cib.defaults(element, Asker { agent: &provider.agent(), operation, unknown: true });
        let new = of(goal);
        let (name, value) = of(goal.other()).into_iter().find(|(name, value)| new.get(name) != Some(value))?;
        let what = operation.map(|operation| format!(" of {operation}")).unwrap_or_default();
        Some(format!(
            "{name}={value}{what} is bound to {} by a rule in {element}; add the same for {} first",
            goal.other().agent(),
            goal.agent()
        ))
    })
}

/// # Errors
/// Why not.
fn may_be_changed(primitive: &Primitive, placed: Option<&Placed>, goal: Provider, left: bool) -> anyhow::Result<()> {
    if let Some(template) = &primitive.template {
        bail!("it is made from the template {template}: change the agent there means all of its resources, which this command does not do");
    }
    if let Some(multiple) = &primitive.multiple {
        bail!("it is part of a {multiple}; guests are not");
    }
    let known = [goal, goal.other()].iter().any(|provider| primitive.agent == provider.agent());
    ensure!(known, "it is a {}, neither {} nor {}", primitive.agent, goal.agent(), goal.other().agent());
    if goal == Provider::Kvmha
        && let Some(fault) = ocf::faults(&primitive.parameters).first()
    {
        bail!("{} would refuse it: {fault}", goal.agent());
    }
    let Some(placed) = placed else { bail!("Pacemaker does not know it yet") };
    ensure!(!placed.failed, "it has failed or is blocked; crm_resource --refresh --force --resource {} when it is well", primitive.id);
    ensure!(placed.nodes.len() < 2, "it is active on {}", placed.nodes.join(" and "));
    if left {
        return Ok(());
    }
    for name in ["maintenance", "is-managed"] {
        if let Some(value) = primitive.meta.get(name) {
            bail!("its meta attribute {name} is set ({value}); remove it first");
        }
    }
    if let Some(node) = primitive.meta.get("remote-node") {
        bail!(
            "it is a node of the cluster itself (remote-node={node}): while the nodes are asked anew where it is, Pacemaker would start \
             elsewhere what runs in it; remove remote-node first"
        );
    }
    ensure!(placed.managed, "it is not managed by Pacemaker at the moment");
    ensure!(matches!(placed.role.as_str(), "Started" | "Stopped"), "it is {}", placed.role);
    Ok(())
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let todo = self.lots.iter().filter(|lot| lot.goal.is_some()).count();
        if todo == 0 {
            return write!(f, "Nothing to do: no resource is {} that should be {}", self.goal.other().agent(), self.goal.agent());
        }
        writeln!(f, "Plan: {}, one after the other; no guest is stopped", count(todo, "resource"))?;
        let width = self.lots.iter().map(|lot| lot.id.len()).max().unwrap_or(0);
        for lot in &self.lots {
            let place = lot.node.as_ref().map_or_else(|| "stopped".to_owned(), |node| format!("on {node}"));
            let what = match lot.goal {
                None => format!("{place}, is {} already", self.goal.agent()),
                Some(goal) if lot.left => format!("{place}, an earlier run was not finished; becomes {}", goal.agent()),
                Some(goal) => format!("{place}, {} becomes {}", goal.other().agent(), goal.agent()),
            };
            writeln!(f, "  {:width$}  {what}", lot.id)?;
        }
        writeln!(f, "For each of them:")?;
        writeln!(f, "  1 maintenance begins, for this resource alone (meta attributes RESOURCE-{MARK})")?;
        writeln!(f, "  2 its agent is changed")?;
        writeln!(f, "  3 what the nodes remember of it is deleted, and the new agent looks for the guest on every node")?;
        writeln!(f, "  4 the answers and what Pacemaker would do next are checked")?;
        writeln!(f, "  5 maintenance ends, and Pacemaker monitors it")?;
        write!(f, "If a step fails the resource gets its old agent back, and maintenance ends.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_is_bound_to_the_old_agent() {
        let set = |id: &str, provider: &str| {
            format!(
                "<meta_attributes id='{id}'><rule id='{id}-r' boolean-op='and' score='INFINITY'>\
                 <rsc_expression id='{id}-e' class='ocf' provider='{provider}' type='VirtualDomain'/><op_expression id='{id}-o' name='stop'/></rule>\
                 <nvpair id='{id}-t' name='timeout' value='300s'/></meta_attributes>"
            )
        };
        let lost = |sets: &str| {
            let cib = Cib::parse(format!("<cib><configuration><op_defaults>{sets}</op_defaults></configuration></cib>")).unwrap();
            lost_default(&cib, Provider::Kvmha)
        };
        let text = lost(&set("a", "heartbeat")).unwrap();
        assert!(text.starts_with("timeout=300s of stop is bound to ocf:heartbeat:VirtualDomain") && text.contains("ocf:kvmha:"), "{text}");
        assert_eq!(lost(&[set("a", "heartbeat"), set("b", "kvmha")].concat()), None);
        assert_eq!(lost(""), None);
        assert_eq!(lost(&set("a", "kvmha")), None);
    }

    #[test]
    fn a_guest_of_a_template_is_not_passed_over() {
        let text = "<cib><configuration><resources><template id='vm' class='ocf' provider='heartbeat' type='VirtualDomain'/><primitive id='web1' template='vm'/>\
            <primitive id='web2' class='ocf' provider='kvmha' type='VirtualDomain'/></resources></configuration></cib>";
        let cib = Cib::parse(text.to_owned()).unwrap();
        let all = meant(&cib, &[], Provider::Kvmha).unwrap();
        let [web1] = &all[..] else { panic!("{all:?}") };
        let refused = may_be_changed(web1, None, Provider::Kvmha, false).unwrap_err().to_string();
        assert!(refused.starts_with("it is made from the template vm"), "{refused}");
        let named = |id: &str| meant(&cib, &[id.to_owned()], Provider::Kvmha).map(|found| found.len()).ok();
        assert_eq!((named("web2"), named("web3")), (Some(1), None));
    }

    #[test]
    fn a_guest_that_is_a_node_itself() {
        let primitive = |meta: &[(&str, &str)]| Primitive {
            id: "web1".to_owned(),
            agent: Provider::Kvmha.agent(),
            meta: meta.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Primitive::default()
        };
        let text = "<r><summary><current_dc present='false'/></summary><resources><resource id='web1' role='Started' managed='true'/></resources></r>";
        let view = crate::cluster::view::parse(text).unwrap();
        let refused = |primitive: &Primitive, left| {
            may_be_changed(primitive, view.resource("web1"), Provider::Heartbeat, left).err().map(|error| error.to_string())
        };
        assert_eq!(refused(&primitive(&[]), false), None);
        let node = primitive(&[("remote-node", "vmA")]);
        assert!(refused(&node, false).is_some_and(|text| text.contains("remote-node=vmA")));
        assert_eq!(refused(&node, true), None, "it has been begun");
    }
}
