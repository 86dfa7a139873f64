//! Taking a move back: the guest is held, the move is ended, and Pacemaker gets it back when it has found out where it is.
//!
//! Pacemaker answers a move that failed by stopping the guest, so it must not manage it until then.

use super::super::probe::Find;
use super::watch::Mover;
use super::{PERSISTENCE, QUESTION, crm_resource, look, persist};
use crate::cluster::cib::{Change, Cib, History};
use crate::cluster::scheduler;
use crate::cluster::view::View;
use crate::cluster::{foresight, forgotten};
use crate::deadline::Deadline;
use crate::domain::ffi;
use crate::log;
use anyhow::{Context, bail, ensure};
use std::time::Duration;

/// How long taking it back may take.
const BACK: Duration = Duration::from_secs(180);
/// How long the nodes have to answer what they are asked anew.
const ANSWERS: Duration = Duration::from_secs(20);

/// Leaves the guest where it is; where that is.
pub(super) fn take_back(mover: &Mover) -> anyhow::Result<Vec<String>> {
    // Also a command that was not answered may have had its effect.
    hold_and_end(mover, &Deadline::after(BACK)).with_context(|| left_unmanaged(mover.id))?;
    let mut nodes = Vec::new();
    persist(&Deadline::after(PERSISTENCE), || {
        nodes = look(mover.id)?.nodes;
        Ok(())
    })?;
    Ok(nodes)
}

fn hold_and_end(mover: &Mover, deadline: &Deadline) -> anyhow::Result<()> {
    let (id, set) = (mover.id, set_id(mover.id));
    let hold = Change::meta(id, &set, &[("is-managed", "is-managed", "false")]);
    persist(deadline, || make(&hold))?;
    let ended = end_move(mover, deadline);
    // With the constraint in place Pacemaker would begin the move again.
    let cleared = mover.clear();
    ended.and(cleared)?;
    release(id, deadline)
}

/// Calls the move off at the source and waits until it is over for libvirt and for Pacemaker.
fn end_move(mover: &Mover, deadline: &Deadline) -> anyhow::Result<()> {
    let over = wait(deadline, || {
        if let (Some(_), Some(guest)) = (mover.job(), mover.guest()) {
            // It may end by itself at this moment.
            let _ = guest.call("calling off the migration of", &Deadline::after(Duration::from_secs(5)), ffi::abort_job);
        }
        look(mover.id).is_ok_and(|seen| !seen.is_changing())
    });
    ensure!(over, "the move of {} does not end", mover.id);
    Ok(())
}

/// The set of meta attributes by which this command holds a resource: the operator's own are left alone, and a run that was killed is
/// found by the next.
pub(in super::super) fn set_id(id: &str) -> String {
    format!("{id}-kvmha-migrate")
}

fn left_unmanaged(id: &str) -> String {
    let set = set_id(id);
    format!(
        "{id} is left with is-managed=false, in the meta attributes {set}: Pacemaker does not look after it; when crm_mon shows it where it \
         runs, and there alone, cibadmin --delete --xml-text '<meta_attributes id=\"{set}\"/>', or kvmha migrate once more"
    )
}

fn make(change: &Change) -> anyhow::Result<()> {
    change.make(&Deadline::after(QUESTION)).map_err(anyhow::Error::msg)
}

/// Gives the resource back to Pacemaker when it has found out where the guest is.
fn release(id: &str, deadline: &Deadline) -> anyhow::Result<()> {
    // Of a move that failed Pacemaker believes that the guest is on both nodes, and watches it on both; so what it knows is thrown away
    // until it is right. Without --force that of all members of its group would be.
    let mut harm = None;
    persist(deadline, || {
        let question = deadline.within(QUESTION);
        harm = forgotten::harm(&Cib::query(&question)?, id, &question)?;
        Ok(())
    })?;
    if let Some(harm) = harm {
        bail!("{harm}, then kvmha migrate once more");
    }
    let settled = (0..BACK.as_secs() / ANSWERS.as_secs()).any(|_| {
        let _ = crm_resource(id, &["--refresh", "--force"]);
        wait(&deadline.within(ANSWERS), || is_settled(id))
    });
    ensure!(settled, "Pacemaker does not find out where {id} is, see crm_mon");
    let set = set_id(id);
    release_and_forget(id, &set)?;
    // A time of its own: it must not be left for want of it.
    persist(&Deadline::after(PERSISTENCE), || {
        make(&Change::without("meta_attributes", &set))?;
        ensure!(!Cib::query(&Deadline::after(QUESTION))?.has(&set), "the meta attributes {set} were not deleted");
        Ok(())
    })
}

/// Ends the hold itself where the guest was found: what is left of the set has Pacemaker forget that it did not expect that, for it would restart
/// the guest at the next change of a parameter.
fn release_and_forget(id: &str, set: &str) -> anyhow::Result<()> {
    let question = Deadline::after(QUESTION);
    let nodes = look(id)?.nodes;
    let [node] = &nodes[..] else { return Ok(()) };
    let Some(find) = Find::kept(&Cib::query(&question)?, id, node, set.to_owned()) else { return Ok(()) };
    // A time of its own too.
    let deadline = Deadline::after(BACK);
    let release = || persist(&deadline, || make(&Change::without("nvpair", &format!("{set}-is-managed"))));
    let forgotten = find.expire(&deadline).and_then(|()| release()).and_then(|()| find.forget(&deadline));
    let why = match forgotten {
        Ok(true) => return Ok(()),
        Ok(false) => "Pacemaker has not forgotten that it did not expect to find it".to_owned(),
        Err(error) => {
            find.uncount()?;
            format!("{error:#}")
        }
    };
    log::complain(&format!("{why}: changing one of its parameters restarts {id}; on {node}: kvmha repair {id} --yes"));
    Ok(())
}

/// Pacemaker knows where the guest is, two looks in a row: the second when its own monitors have had their say.
fn is_settled(id: &str) -> bool {
    let once = || is_found(id).is_ok_and(|found| found);
    once() && Deadline::after(BACK).pause(Duration::from_secs(2)) && once()
}

fn is_found(id: &str) -> anyhow::Result<bool> {
    let deadline = Deadline::after(QUESTION);
    let view = View::query(&deadline)?;
    // Whom Pacemaker asks is its own affair: it must have nothing left to ask.
    Ok(is_known(id, &view, &Cib::query(&deadline)?.histories(id))
        && !scheduler::plan(&deadline)?.iter().any(|step| step.resource.as_deref() == Some(id)))
}

/// Whether Pacemaker knows that the guest is on one node, or on none: each node that was asked has answered. A node that cannot have the guest,
/// for want of its agent, answers so each time: that is a failure, but none that says anything of where the guest is.
fn is_known(id: &str, view: &View, histories: &[History]) -> bool {
    let Some(placed) = view.resource(id) else { return false };
    let probe = format!("{id}_monitor_0");
    let mut failures = view.failures.iter().filter(|failure| failure.is_of(id));
    let mut asked = histories.iter().filter(|history| view.online().any(|node| node == history.node)).peekable();
    placed.pending.is_none()
        && placed.nodes.len() <= 1
        && view.nodes.iter().all(|node| !node.online || !node.unsettled)
        && failures.all(|failure| failure.key == probe && !placed.nodes.contains(&failure.node))
        && asked.peek().is_some()
        && asked.all(|history| history.probe.is_some())
}

/// Ends the hold of a run that was killed while it took a move back.
pub(super) fn release_what_was_left(id: &str) -> anyhow::Result<()> {
    let deadline = Deadline::after(BACK);
    let cib = Cib::query(&deadline.within(QUESTION))?;
    if !cib.has(&set_id(id)) {
        return Ok(());
    }
    log::complain(&format!("an earlier run has left {id} with is-managed=false: giving it back to Pacemaker"));
    // What that run had asked for: Pacemaker would begin it again.
    let constraint = foresight::constraint(id);
    if cib.has(&constraint) {
        persist(&deadline, || make(&Change::without("rsc_location", &constraint)))?;
    }
    let over = wait(&deadline, || look(id).is_ok_and(|seen| !seen.is_changing()));
    ensure!(over, "{}; something is still being done with it", left_unmanaged(id));
    release(id, &deadline).with_context(|| left_unmanaged(id))
}

/// Whether `done` says yes before the deadline.
fn wait(deadline: &Deadline, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if !deadline.pause(Duration::from_millis(500)) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of three nodes with web1 as `places` says, these failures, and these probes of node1, node2 and node3.
    fn known(places: &[&str], failures: &[(&str, &str)], probes: [Option<i32>; 3]) -> bool {
        let place = |node: &&str| format!("<node name='{node}' id='1'/>");
        let text = format!(
            "<r><summary><current_dc present='true' name='node3' with_quorum='true'/></summary>\
             <nodes><node name='node1' online='true'/><node name='node2' online='true'/><node name='node3' online='true'/></nodes>\
             <resources><resource id='web1' resource_agent='ocf:kvmha:VirtualDomain' role='Started'>{}</resource></resources><failures>{}</failures></r>",
            places.iter().map(place).collect::<String>(),
            failures.iter().map(|(key, node)| format!("<failure op_key='{key}' node='{node}' exitstatus='e'/>")).collect::<String>()
        );
        let view = crate::cluster::view::parse(&text).unwrap();
        let histories = (1..).zip(probes).map(|(number, probe)| History {
            node: format!("node{number}"),
            agent: "ocf:kvmha:VirtualDomain".to_owned(),
            probe,
            reason: String::new(),
            find: false,
        });
        is_known("web1", &view, &histories.collect::<Vec<_>>())
    }

    #[test]
    fn when_pacemaker_knows_where_it_is() {
        let all = [Some(0), Some(7), Some(7)];
        assert!(known(&["node1"], &[], all));
        assert!(known(&[], &[], [Some(7); 3]), "it has ended");
        assert!(known(&["node1"], &[("web1_monitor_0", "node3")], [Some(0), Some(7), Some(5)]), "a node without the agent");
        assert!(known(&["node1"], &[("web10_stop_0", "node1")], all), "another one's failure");
        assert!(!known(&["node1", "node2"], &[], all), "on two");
        assert!(!known(&["node1"], &[], [Some(0), None, Some(7)]), "one has not answered");
        assert!(!known(&["node1"], &[("web1_monitor_0", "node1")], all) && !known(&["node1"], &[("web1_migrate_from_0", "node2")], all));
    }

    #[test]
    fn before_anybody_was_asked_nothing_is_known() {
        let text = "<r><summary><current_dc present='false'/></summary><nodes><node name='node1' online='true'/></nodes>\
            <resources><resource id='web1' role='Stopped'/></resources></r>";
        assert!(!is_known("web1", &crate::cluster::view::parse(text).unwrap(), &[]));
    }

    #[test]
    fn what_is_left_is_said_with_the_command_that_ends_it() {
        let text = left_unmanaged("web1");
        assert!(text.contains("cibadmin --delete --xml-text '<meta_attributes id=\"web1-kvmha-migrate\"/>'"), "{text}");
    }
}
