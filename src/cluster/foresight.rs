//! What would come of a move that is asked for by a constraint (`crm_resource --move`), which is taken away when the guest has arrived: asked of
//! Pacemaker's scheduler before anything is touched. pcs does so before its `resource move` (`pcs/lib/commands/resource.py`).

use super::cib::Cib;
use super::scheduler::{self, Operation, Step};
use super::tool::Trouble;
use crate::deadline::Deadline;

/// A move of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The resource.
    pub id: &'a str,
    /// Where it is.
    pub source: &'a str,
    /// Where it is to go.
    pub target: &'a str,
}

/// Why a move would cost a restart, or not last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// What Pacemaker would do.
    pub text: String,
    /// What a person can do about it.
    pub advice: &'static str,
}

/// What would come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// What speaks against it.
    pub objection: Option<Objection>,
    /// Other resources that would be moved live.
    pub along: Vec<String>,
}

/// What Pacemaker would do.
struct Steps {
    /// As the cluster is now, without the move.
    before: Vec<Step>,
    /// While the constraint is there, the move included.
    during: Vec<Step>,
    /// When the guest has arrived, and the constraint is gone.
    after: Vec<Step>,
}

const NOT_LIVE: &str = "what it needs, or what stands before it in its group, must be able to move live too (allow-migrate) or be on both nodes (a clone); \
                        and it must have no failed action (kvmha repair RESOURCE --yes has Pacemaker forget one)";
const STAYS: &str = "crm_simulate --live-check --show-scores tells why";
const OTHERS: &str = "they depend on it, or give way to it; if that may be, crm_resource --move does it";
const BACK: &str = "give it more resource-stickiness than what draws it away (crm_resource --resource RESOURCE --meta --set-parameter \
                    resource-stickiness --parameter-value NUMBER), or change that: crm_simulate --live-check --show-scores";

impl Move<'_> {
    /// Asks the scheduler, of the cluster as it is in `cib`.
    ///
    /// # Errors
    /// The scheduler cannot be asked.
    pub fn foresee(&self, cib: &Cib, deadline: &Deadline) -> Result<Foreseen, Trouble> {
        let constraint = constraint(self.id);
        // Those that crm_resource --move replaces.
        let free = cib.without(&[constraint.clone(), format!("cli-ban-{}-on-{}", self.id, self.target)]);
        let (during, moved) = scheduler::outcome_for(&free.with_preference(&constraint, self.id, self.target), deadline)?;
        let before = scheduler::plan_for(cib, deadline)?;
        let after = scheduler::plan_for(&moved.without(&[constraint]), deadline)?;
        let aside: Vec<String> =
            cib.resources().into_iter().filter(|resource| resource.agent.starts_with("stonith:")).map(|resource| resource.id).collect();
        Ok(self.judge(&Steps { before, during, after }, &aside))
    }

    /// `aside`: what may be stopped, since it is no matter of a guest's.
    fn judge(&self, steps: &Steps, aside: &[String]) -> Foreseen {
        let Self { id, source, target } = *self;
        let does = |operation: Operation, node: &str| {
            steps.during.iter().any(|step| is_of(step, id) && step.operation == operation && step.node == node)
        };
        let stopped = |now: &[Step]| {
            let stops =
                now.iter().filter(|step| matches!(step.operation, Operation::Stop | Operation::Demote) && !steps.before.contains(step));
            let others = names(stops).into_iter().filter(|name| name != id && !aside.contains(name));
            others.filter(|name| !now.iter().any(|step| is_of(step, name) && step.operation == Operation::MigrateTo)).collect::<Vec<_>>()
        };
        let objection = if !does(Operation::MigrateTo, source) || !does(Operation::MigrateFrom, target) {
            let (text, advice) = self.otherwise(&steps.during);
            Some(Objection { text, advice })
        } else if let others = stopped(&steps.during)
            && !others.is_empty()
        {
            Some(Objection { text: format!("Pacemaker would stop {} for it", others.join(", ")), advice: OTHERS })
        } else if let Some(text) = self.goes_on(&steps.after) {
            Some(Objection { text, advice: BACK })
        } else if let others = stopped(&steps.after)
            && !others.is_empty()
        {
            Some(Objection { text: format!("Pacemaker would stop {} when it has arrived", others.join(", ")), advice: OTHERS })
        } else {
            None
        };
        let moves =
            steps.during.iter().chain(&steps.after).filter(|step| step.operation == Operation::MigrateTo && !steps.before.contains(step));
        Foreseen { objection, along: names(moves).into_iter().filter(|name| name != id).collect() }
    }

    /// What is done in place of the move.
    fn otherwise(&self, steps: &[Step]) -> (String, &'static str) {
        match disturbance(steps, self.id) {
            Some(what) if what.starts_with(RESTART) => (format!("Pacemaker would {what}"), NOT_LIVE),
            Some(what) => (format!("Pacemaker would {what}"), STAYS),
            None => (format!("Pacemaker would leave it on {}", self.source), STAYS),
        }
    }

    /// What is done with it when it has arrived.
    fn goes_on(&self, steps: &[Step]) -> Option<String> {
        let place = |operations: &[Operation]| {
            steps.iter().find(|step| is_of(step, self.id) && operations.contains(&step.operation)).map(|step| step.node.clone())
        };
        let text = format!("it would not stay on {}: when the constraint of the move is gone, Pacemaker would", self.target);
        let (comes, goes) = (&[Operation::MigrateFrom, Operation::Start], &[Operation::Stop, Operation::Demote, Operation::MigrateTo]);
        match (place(comes), place(goes)) {
            (Some(node), _) => Some(format!("{text} take it to {node}")),
            (None, Some(_)) => Some(format!("{text} stop it")),
            (None, None) => None,
        }
    }
}

/// The beginning of what [`disturbance`] says of a resource that is not moved live.
const RESTART: &str = "stop it and start it";

/// What Pacemaker would do with a resource that runs, after "Pacemaker would"; nothing if that leaves it where it is.
#[must_use]
pub fn disturbance(steps: &[Step], id: &str) -> Option<String> {
    let place = |operation: Operation| steps.iter().find(|step| is_of(step, id) && step.operation == operation).map(|step| &step.node);
    match (place(Operation::MigrateFrom), place(Operation::Stop), place(Operation::Start)) {
        (Some(node), ..) => Some(format!("move it to {node}")),
        (None, Some(_), Some(node)) => Some(format!("{RESTART} on {node}")),
        (None, Some(_), None) => Some("stop it".to_owned()),
        (None, None, _) => None,
    }
}

/// What `crm_resource --move` calls its constraint.
#[must_use]
pub fn constraint(id: &str) -> String {
    format!("cli-prefer-{id}")
}

fn is_of(step: &Step, id: &str) -> bool {
    step.resource.as_deref() == Some(id)
}

/// The resources of these steps, each once.
fn names<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<String> {
    let mut found = Vec::new();
    for name in steps.filter_map(|step| step.resource.clone()) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        let step = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Step { operation: words[0].into(), resource: Some(words[1].to_owned()), node: words[2].to_owned() }
        };
        text.split(',').map(str::trim).filter(|line| !line.is_empty()).map(step).collect()
    }

    fn foreseen(before: &str, during: &str, after: &str) -> Foreseen {
        let steps = Steps { before: steps(before), during: steps(during), after: steps(after) };
        Move { id: "web1", source: "n1", target: "n2" }.judge(&steps, &["fence".to_owned()])
    }

    const LIVE: &str = "migrate_to web1 n1, migrate_from web1 n2, stop web1 n1, monitor web1 n2";

    fn objection(before: &str, during: &str, after: &str) -> String {
        foreseen(before, during, after).objection.map(|found| found.text).unwrap_or_default()
    }

    #[test]
    fn a_move_that_costs_nothing() {
        assert_eq!(foreseen("", LIVE, "monitor web1 n2"), Foreseen::default());
        let fence = format!("{LIVE}, stop fence n2, start fence n1");
        assert_eq!(foreseen("", &fence, ""), Foreseen::default(), "no guest's matter");
        let along = format!("{LIVE}, migrate_to web2 n1, migrate_from web2 n2, stop web2 n1");
        assert_eq!(foreseen("", &along, ""), Foreseen { objection: None, along: vec!["web2".to_owned()] });
        assert_eq!(
            foreseen("migrate_from web2 n2, stop web2 n1", &format!("{LIVE}, migrate_from web2 n2, stop web2 n1"), ""),
            Foreseen::default(),
            "under way"
        );
    }

    #[test]
    fn what_would_cost_a_restart() {
        assert_eq!(objection("", "stop web1 n1, start web1 n2", ""), "Pacemaker would stop it and start it on n2");
        assert_eq!(objection("", "", ""), "Pacemaker would leave it on n1");
        assert_eq!(objection("", "stop web1 n1", ""), "Pacemaker would stop it");
        assert_eq!(objection("", "migrate_to web1 n1, migrate_from web1 n3, stop web1 n1", ""), "Pacemaker would move it to n3");
        assert_eq!(objection("", &format!("{LIVE}, stop db n1, start db n1"), ""), "Pacemaker would stop db for it");
        assert_eq!(objection("", LIVE, "stop db n3"), "Pacemaker would stop db when it has arrived");
    }

    #[test]
    fn what_would_not_last() {
        let back = "it would not stay on n2: when the constraint of the move is gone, Pacemaker would";
        assert_eq!(objection("", LIVE, "migrate_to web1 n2, migrate_from web1 n1, stop web1 n2"), format!("{back} take it to n1"));
        assert_eq!(objection("", LIVE, "stop web1 n2, start web1 n3"), format!("{back} take it to n3"));
        assert_eq!(objection("", LIVE, "stop web1 n2"), format!("{back} stop it"));
    }

    /// It forgets what is known of one node only, and has Pacemaker restart a guest that came by a move.
    #[test]
    fn no_advice_costs_a_restart() {
        for advice in [NOT_LIVE, STAYS, OTHERS, BACK] {
            assert!(!advice.contains("--cleanup"), "{advice}");
        }
    }
}
