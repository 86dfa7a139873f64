//! What Pacemaker would do if what is advised were done: asked of its scheduler before it is advised.

use super::shell::quoted;
use crate::cluster::cib::Cib;
use crate::cluster::foresight::disturbance;
use crate::cluster::forgotten;
use crate::cluster::scheduler::{self, Operation, Step};
use crate::cluster::tool::Trouble;
use crate::cluster::view::{self, View};
use crate::deadline::Deadline;
use std::time::Duration;

/// For all that is asked of the scheduler.
const FORESIGHT: Duration = Duration::from_secs(20);
/// How long a controller may take to come to rest: a change of the configuration keeps it busy for a moment.
const REST: Duration = Duration::from_secs(3);

/// What to do about constraints that a move by hand has left; nothing while something is done with the resource, for a move that loses its
/// constraint ends in a restart (see `kvmha migrate`).
pub(super) fn clearing(view: &View, cib: &Cib, id: &str, constraints: &[String]) -> Option<String> {
    if constraints.is_empty() || is_changing(view, id) {
        return None;
    }
    // A move may have been asked for that has not begun.
    if !is_at_rest(view) {
        return Some("wait until Pacemaker is at rest (crm_resource --wait), and look again".to_owned());
    }
    let then = scheduler::plan_for(&cib.without(constraints), &Deadline::after(FORESIGHT));
    Some(clear(id, then.map(|steps| disturbance(&steps, id))))
}

fn is_changing(view: &View, id: &str) -> bool {
    view.resource(id).and_then(|placed| placed.pending.as_deref()).is_some_and(|what| !view::is_look(what))
}

fn is_at_rest(view: &View) -> bool {
    let Some(controller) = &view.controller else { return true };
    let deadline = Deadline::after(REST);
    loop {
        if view::is_idle(controller, &deadline).unwrap_or(false) {
            return true;
        }
        if !deadline.pause(Duration::from_millis(200)) {
            return false;
        }
    }
}

fn clear(id: &str, then: Result<Option<String>, Trouble>) -> String {
    let clear = format!("crm_resource --clear --resource {id}");
    match then {
        Ok(None) => clear,
        Ok(Some(what)) => format!("{clear}, at a time when that may be: Pacemaker would {what}"),
        Err(trouble) => format!("{clear}; what Pacemaker does then cannot be foreseen ({trouble})"),
    }
}

/// Why Pacemaker should not be made to forget the failures of a resource that runs on `node`, and what to do; nothing if it would then leave all
/// that runs where it is.
pub(super) fn refreshing(view: &View, cib: &Cib, id: &str, node: &str) -> Option<String> {
    let deadline = Deadline::after(FORESIGHT);
    let plans = scheduler::plan_for(cib, &deadline)
        .and_then(|before| scheduler::plan_for(&cib.as_found(id, Some(node)), &deadline).map(|after| (before, after)));
    let by_hand = format!("crm_resource --refresh --force --resource {id}");
    let unforeseen = |trouble| Some(format!("{by_hand}, if that may be: what Pacemaker does then cannot be foreseen ({trouble})"));
    let what = match plans {
        Ok((before, after)) => consequence(&before, &after, id),
        Err(trouble) => return unforeseen(trouble),
    };
    let Some(what) = what else {
        return match forgotten::harm(cib, id, &deadline) {
            Ok(harm) => {
                harm.map(|harm| format!("{id} has failed, and to look for it anew costs others something: {harm}; then run this again"))
            }
            Err(trouble) => unforeseen(trouble),
        };
    };
    let (why, remedy) = cause(view, cib, id, node);
    Some(format!("{id} has failed, and without that Pacemaker would {what}, {why}: {remedy} first; or, if that may be, {by_hand}"))
}

/// What Pacemaker would do with a resource that has failed and is nowhere, without its failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It is started on this node.
    Starts(String),
    /// It stays stopped: why, if that is known.
    Stays(Option<String>),
}

/// What Pacemaker would do with a resource that is nowhere if it forgot its failures.
///
/// # Errors
/// Why it should not be made to, and what to do.
pub(super) fn cleaning(view: &View, cib: &Cib, id: &str) -> Result<Then, String> {
    let deadline = Deadline::after(FORESIGHT);
    let plans = scheduler::plan_for(cib, &deadline)
        .and_then(|before| scheduler::plan_for(&cib.as_found(id, None), &deadline).map(|after| (before, after)));
    let by_hand = cleanup(id);
    let (before, after) =
        plans.map_err(|trouble| format!("{by_hand}, if that may be: what Pacemaker does then cannot be foreseen ({trouble})"))?;
    if let Some(what) = consequence(&before, &after, id) {
        return Err(format!("{id} has failed, and without that Pacemaker would {what}: if that may be, {by_hand}"));
    }
    Ok(match after.into_iter().find(|step| step.operation == Operation::Start && step.resource.as_deref() == Some(id)) {
        Some(start) => Then::Starts(start.node),
        None => Then::Stays(stays(view, cib, id)),
    })
}

/// What has Pacemaker forget the failures of a resource, and look for it again where they were. Without `--force` those of its whole group.
pub(super) fn cleanup(id: &str) -> String {
    format!("crm_resource {}", cleanup_words(id).join(" "))
}

/// The words of [`cleanup`] after the tool's name.
pub(super) fn cleanup_words(id: &str) -> [&str; 4] {
    ["--cleanup", "--force", "--resource", id]
}

/// Why a resource without failures would not be started, as far as that is easily told.
fn stays(view: &View, cib: &Cib, id: &str) -> Option<String> {
    if cib.meta(id, "target-role").is_some_and(|role| role.eq_ignore_ascii_case("Stopped")) {
        return Some("it has target-role=Stopped".to_owned());
    }
    let placed = view.resource(id);
    let is_left_alone = view.maintenance || placed.is_some_and(|placed| !placed.managed && !placed.blocked);
    is_left_alone.then(|| "Pacemaker does not manage it".to_owned())
}

/// What would be done to a resource that is found running, or to others because of that.
fn consequence(before: &[Step], after: &[Step], id: &str) -> Option<String> {
    let ends = |step: &Step| matches!(step.operation, Operation::Stop | Operation::Demote | Operation::MigrateTo);
    let harms = |step: &&Step| step.resource.is_none() || ends(step);
    let other = || after.iter().filter(harms).find(|step| step.operation != Operation::ClearFailcount && !before.contains(step));
    disturbance(after, id).or_else(|| other().map(ToString::to_string))
}

/// Why a resource is not to be where it is, and what ends that.
fn cause(view: &View, cib: &Cib, id: &str, node: &str) -> (String, String) {
    if cib.meta(id, "target-role").is_some_and(|role| role.eq_ignore_ascii_case("Stopped")) {
        return (
            "for it has target-role=Stopped".to_owned(),
            format!("crm_resource --resource {id} --meta --set-parameter target-role --parameter-value Started"),
        );
    }
    if let Some(standby) = standby(view, node) {
        return standby;
    }
    ("by its constraints".to_owned(), "see crm_simulate --live-check --show-scores, and change them".to_owned())
}

/// That a node is in standby, and what ends that; nothing if it is not.
pub(super) fn standby(view: &View, node: &str) -> Option<(String, String)> {
    let is_in_standby = view.nodes.iter().any(|member| member.name == node && member.standby);
    is_in_standby.then(|| (format!("for {node} is in standby"), format!("crm_attribute --node {} --name standby --delete", quoted(node))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::parse;

    fn step(operation: &str, resource: &str, node: &str) -> Step {
        Step { operation: operation.into(), resource: Some(resource.to_owned()), node: node.to_owned() }
    }

    #[test]
    fn a_move_that_is_under_way_keeps_its_constraint() {
        let text = "<r><summary><current_dc present='false'/></summary><resources><resource id='web1' role='Migrating'/></resources></r>";
        let cib = Cib::parse("<cib/>".to_owned()).unwrap();
        assert_eq!(clearing(&parse(text).unwrap(), &cib, "web1", &["cli-prefer-web1".to_owned()]), None);
        assert_eq!(clearing(&parse(&text.replace("Migrating", "Started")).unwrap(), &cib, "web1", &[]), None);
    }

    #[test]
    fn what_clearing_costs_is_said() {
        assert_eq!(clear("web1", Ok(None)), "crm_resource --clear --resource web1");
        let text = clear("web1", Ok(disturbance(&[step("stop", "web1", "n1"), step("start", "web1", "n2")], "web1")));
        assert!(text.ends_with("Pacemaker would stop it and start it on n2"), "{text}");
        assert!(clear("web1", Err(Trouble::Silent("gone".to_owned()))).ends_with("cannot be foreseen (gone)"));
    }

    #[test]
    fn what_forgetting_a_failure_would_cost() {
        assert_eq!(
            consequence(&[], &[step("monitor", "web1", "n1"), step("cancel", "web1", "n1"), step("start", "db", "n2")], "web1"),
            None
        );
        assert_eq!(consequence(&[], &[step("stop", "web1", "n1")], "web1").as_deref(), Some("stop it"));
        let moves = [step("migrate_to", "web1", "n1"), step("migrate_from", "web1", "n2"), step("stop", "web1", "n1")];
        assert_eq!(consequence(&[], &moves, "web1").as_deref(), Some("move it to n2"));
        let other = [step("stop", "db", "n1")];
        assert_eq!(consequence(&[], &other, "web1").as_deref(), Some("stop db on n1"));
        assert_eq!(consequence(&other, &other, "web1"), None, "that would be done anyway");
    }

    #[test]
    fn why_a_guest_is_not_to_be_where_it_is() {
        let view = |standby: bool| {
            let text = format!(
                "<r><summary><current_dc present='true' name='n1'/></summary><nodes><node name='n1' online='true' standby='{standby}'/></nodes></r>"
            );
            parse(&text).unwrap()
        };
        let cib = |role: &str| {
            Cib::parse(format!(
                "<cib><configuration><resources><primitive id='web1'><meta_attributes id='m'><nvpair id='r' name='target-role' value='{role}'/>\
                 </meta_attributes></primitive></resources></configuration></cib>"
            ))
            .unwrap()
        };
        let (why, remedy) = cause(&view(true), &cib("Started"), "web1", "n1");
        assert!(why.contains("n1 is in standby"));
        // Pacemaker's own tools are there, whatever else is.
        assert_eq!(remedy, "crm_attribute --node n1 --name standby --delete");
        let (_, remedy) = cause(&view(false), &cib("Stopped"), "web1", "n1");
        assert_eq!(remedy, "crm_resource --resource web1 --meta --set-parameter target-role --parameter-value Started");
        assert!(cause(&view(false), &cib("Started"), "web1", "n1").1.contains("crm_simulate"));
    }
}
