//! What Pacemaker knows of a node that is out of reach: whether it has been turned off, and since when.
//!
//! `crm_mon --output-as=xml --fence-history=3` says whether this partition has quorum, what it holds of the node, and the fencer's
//! history. That history stays when a node comes back, so an entry alone proves nothing. What the node's executor has run stands in the
//! CIB: fencing deletes it (`send_stonith_update` in Pacemaker's `daemons/controld/controld_fencing.c`), so that what stands there is
//! younger, also when the node has left again.

use super::cib::{Cib, Part};
use super::moment::{moment, seconds};
use super::tool::{self, Trouble};
use crate::deadline::{Deadline, unix_time};
use roxmltree::{Document, Node};
use std::time::Duration;

/// By how much the clocks of two nodes may differ.
pub(crate) const SKEW: u64 = 5;

/// Whom a person confirms to be down, without any device (`stonith_admin --confirm`, `fenced_remote.c`), is in the history as fenced by
/// this delegate.
const PERSON: &str = "a human";

/// What the record is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// When the node was last seen up, if that is known; seconds since 1970.
    pub seen: Option<u64>,
    /// How old the record may be.
    pub within: Duration,
}

/// When `node` was turned off, in seconds since 1970, if the cluster's record of that is proof that nothing runs there: the last thing
/// that a device did to it, or tried or is about to, is an `off` that succeeded, in time and later than the node was seen up; and the
/// cluster, with quorum, neither has it as a member nor has had it since. After a `reboot` it may be up again and run what it ran before.
///
/// # Errors
/// Why it is no proof, for a person.
pub fn off_since(node: &str, since: Since, deadline: &Deadline) -> Result<u64, String> {
    #[cfg(test)]
    if crate::simulation::is_on() {
        return Err(crate::simulation::world(|world| world.wait_for_tools(deadline)));
    }
    let text = history(deadline).map_err(|trouble| format!("the cluster cannot be asked whether {node} was fenced: {trouble}"))?;
    // Asked after the history: a node that came back in between is seen.
    let cib = Cib::query(deadline).map_err(|trouble| format!("the cluster cannot be asked whether {node} came back: {trouble}"))?;
    let now = unix_time();
    let last = judge(&text, node, since, has_watchdog(&cib), now)?;
    if cib.has_history(node) {
        return Err(format!("{node} has joined the cluster after it was fenced"));
    }
    if since.seen.is_none() {
        // What was seen of it is forgotten with a reboot of this node.
        let up = std::fs::read_to_string("/proc/uptime").ok();
        let up = up.as_deref().and_then(uptime).ok_or("/proc/uptime cannot be read")?;
        remembered(node, last, now.saturating_sub(up))?;
    }
    Ok(last)
}

/// How long ago a device fenced `node`, by whatever action, if the cluster knows of one, the last that was tried succeeded, and the node has not
/// joined it again since. What ran there is not the cluster's any more, even if it lives: a switch or a storage array leaves it alive. `None` too if
/// the record is from the future: the clock that wrote it was wrong, and how long ago that was cannot be told.
#[must_use]
pub fn fenced_ago(node: &str, deadline: &Deadline) -> Option<Duration> {
    let since = |at: u64| (at <= unix_time() + SKEW).then(|| Duration::from_secs(unix_time().saturating_sub(at)));
    #[cfg(test)]
    if crate::simulation::is_on() {
        return crate::simulation::world(crate::simulation::hosts::World::fenced_at).and_then(since);
    }
    let fenced = history(deadline).ok().and_then(|text| last_fenced(&text, node))?;
    let stayed_away = Cib::query_part(Part::Status, deadline).is_ok_and(|cib| !cib.has_history(node));
    since(fenced).filter(|_| stayed_away)
}

fn history(deadline: &Deadline) -> Result<String, Trouble> {
    tool::run("crm_mon", &["--one-shot", "--output-as=xml", "--fence-history=3"], deadline)
}

/// When that was, in seconds since 1970, from what crm_mon says. A person's word is none: the node's own libvirt says otherwise.
pub(super) fn last_fenced(text: &str, node: &str) -> Option<u64> {
    let document = Document::parse(text).ok()?;
    let events = document.descendants().filter(|element| element.has_tag_name("fence_event"));
    let events = events.filter(|event| event.attribute("target").is_some_and(|name| name.eq_ignore_ascii_case(node)));
    let events = events.filter(|event| event.attribute("delegate") != Some(PERSON));
    // One that has not ended says nothing yet.
    let events = events.filter(|event| event.attribute("status") != Some("pending"));
    let good = |event: &Node<'_, '_>| event.attribute("status") == Some("success") && event.attribute("action") != Some("on");
    let ended = events.map(|event| Some((event.attribute("completed").and_then(moment)?, good(&event))));
    // Which came last cannot be told if the time of any is not understood.
    let ended = ended.collect::<Option<Vec<_>>>()?;
    let last = ended.iter().map(|(time, _)| *time).max()?;
    let at = u64::try_from(last.unix_timestamp()).ok()?;
    ended.iter().all(|(time, good)| *good || *time < last).then_some(at)
}

/// Whole seconds, from the text of `/proc/uptime`.
fn uptime(text: &str) -> Option<u64> {
    text.split(['.', ' ']).next()?.parse().ok()
}

/// Fails if this host booted (`booted`) after `node` was fenced (`last`): what it had seen of the node is lost.
fn remembered(node: &str, last: u64, booted: u64) -> Result<(), String> {
    if booted + SKEW < last {
        return Ok(());
    }
    Err(format!("this host was started after {node} was fenced and does not know whether it was seen up since"))
}

/// Whether Pacemaker may take a node for off because its watchdog has had the time to reset it (SBD without disks).
#[must_use]
pub fn has_watchdog(cib: &Cib) -> bool {
    let time = ["stonith-watchdog-timeout", "fencing-watchdog-timeout"].iter().find_map(|name| cib.option(name));
    time.is_some_and(|time| !time.trim_start().starts_with('0'))
}

/// The proof, from what crm_mon says at the moment `now`; `watchdog` as [`has_watchdog`].
pub(super) fn judge(text: &str, node: &str, since: Since, watchdog: bool, now: u64) -> Result<u64, String> {
    let document = Document::parse(text).map_err(|error| format!("crm_mon: {error}"))?;
    let said = Said { document: &document, node };
    said.insist_on_absence()?;
    let last = said.last_off(watchdog)?;
    if since.seen.is_some_and(|seen| seen >= last) {
        return Err(format!("{node} was seen up after it was fenced"));
    }
    if last > now + SKEW {
        return Err(format!("the record of the fencing of {node} is from the future: clocks differ"));
    }
    let age = now.saturating_sub(last);
    if age > since.within.as_secs() {
        return Err(format!("{node} was fenced {age} s ago, which proves nothing after {} s", since.within.as_secs()));
    }
    Ok(last)
}

/// What crm_mon says of a node.
struct Said<'a> {
    document: &'a Document<'a>,
    node: &'a str,
}

impl<'a> Said<'a> {
    fn elements(&self, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
        self.document.descendants().filter(move |element| element.has_tag_name(name))
    }

    /// Pacemaker compares the names of nodes without regard to case.
    fn names_it(&self, element: &Node<'_, '_>, attribute: &str) -> bool {
        element.attribute(attribute).is_some_and(|name| name.eq_ignore_ascii_case(self.node))
    }

    /// # Errors
    /// The cluster has it as a member, or is in no position to say.
    fn insist_on_absence(&self) -> Result<(), String> {
        let node = self.node;
        if !self.elements("current_dc").any(|dc| dc.attribute("with_quorum") == Some("true")) {
            return Err(format!("the cluster has no quorum and knows nothing of {node} for certain"));
        }
        let members = self.elements("nodes").flat_map(|nodes| nodes.children()).filter(|member| self.names_it(member, "name"));
        for member in members {
            for (attribute, wanted, text) in [
                ("online", "false", "has it as a member"),
                ("pending", "false", "sees it joining"),
                ("unclean", "false", "still has to fence it"),
            ] {
                if member.attribute(attribute) != Some(wanted) {
                    return Err(format!("{node} is not known to be off: the cluster {text}"));
                }
            }
        }
        Ok(())
    }

    /// When it was turned off last, if that is the last thing that was done to it.
    ///
    /// # Errors
    /// It may be up again, or nobody has turned it off.
    fn last_off(&self, watchdog: bool) -> Result<u64, String> {
        let node = self.node;
        let time = |event: &Node<'_, '_>| {
            let completed = event.attribute("completed").unwrap_or_default();
            seconds(completed).ok_or_else(|| format!("crm_mon: {completed:?} is no time that is understood"))
        };
        let events =
            || self.elements("fence_event").filter(|event| self.names_it(event, "target") && event.attribute("delegate") != Some(PERSON));
        let is_off = |event: &Node<'_, '_>| event.attribute("action") == Some("off");
        let assumed = |event: &Node<'_, '_>| is_assumed(event, watchdog);
        let mut last = None;
        for event in events().filter(|event| is_off(event) && event.attribute("status") == Some("success") && !assumed(event)) {
            last = last.max(Some(time(&event)?));
        }
        // Whatever became of it: what failed may have been done, and what is pending is about to be.
        for event in events().filter(|event| !is_off(event) || assumed(event)) {
            let action = event.attribute("action").unwrap_or_default();
            if !matches!(event.attribute("status"), Some("success" | "failed")) {
                return Err(format!("{action:?} of {node} is pending, after which it may be up again"));
            }
            if Some(time(&event)?) >= last {
                let whose = if assumed(&event) { ", by its own watchdog as is assumed" } else { "" };
                let hint = if action == "reboot" { " (the cluster's option stonith-action=off has it recorded as off)" } else { "" };
                return Err(format!("the last fencing of {node} was {action:?}{whose}, after which it may be up again{hint}"));
            }
        }
        last.ok_or_else(|| format!("the cluster has no record that a device fenced {node}"))
    }
}

/// Whether a node may only be taken to have reset itself, by the watchdog of an SBD without disks, after which it comes up again
/// (`remote_op_watchdog_done` in Pacemaker's `daemons/fenced/fenced_remote.c`). Nobody has done that, so that the fencers take the one who
/// says it for the delegate (`delegate_from_xml`): with such a watchdog only what another one did than who asked is known to be done.
fn is_assumed(event: &Node<'_, '_>, watchdog: bool) -> bool {
    let delegate = event.attribute("delegate");
    event.attribute("status") == Some("success") && (delegate.is_none() || watchdog && delegate == event.attribute("origin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 1_795_533_050; // 2026-11-24 15:10:50 UTC

    fn event(action: &str, status: &str, time: &str) -> String {
        format!(r#"<fence_event action="{action}" target="node3" status="{status}" delegate="node1" completed="{time}"/>"#)
    }

    fn said(quorum: bool, member: (bool, bool, bool), events: &[String]) -> String {
        let (online, pending, unclean) = member;
        format!(
            r#"<r><summary><current_dc present="true" with_quorum="{quorum}"/></summary><nodes><node name="node1" online="true"/><node
               name="node3" online="{online}" pending="{pending}" unclean="{unclean}"/></nodes><fence_history>{}</fence_history></r>"#,
            events.concat()
        )
    }

    #[test]
    fn who_was_fenced() {
        let fenced = |events: &[String]| last_fenced(&said(true, (false, false, false), events), "node3").is_some();
        let (early, late) = ("2026-11-24 15:10:50Z", "2026-11-24 15:12:50Z");
        let (of_newer, newer) = ("2026-11-24 16:10:50.123456 +01:00", "2026-11-24 15:12:50.000001Z");
        let of_one_second = ("2026-11-24 15:10:50.123456Z", "2026-11-24 15:10:50.654321Z");
        for (early, late) in [(early, late), (of_newer, newer), of_one_second] {
            for action in ["off", "reboot"] {
                assert!(fenced(&[event(action, "success", early)]));
                for newest_first in [true, false] {
                    let two = |[old, new]: [&str; 2]| {
                        let mut events = [event(action, new, late), event(action, old, early)];
                        if !newest_first {
                            events.reverse();
                        }
                        fenced(&events)
                    };
                    assert!(two(["failed", "success"]), "{action} {early} {late}");
                    assert!(!two(["success", "failed"]), "{action} {early} {late}");
                }
            }
        }
        // Which came last cannot be told.
        for events in [
            [event("off", "failed", early), event("off", "success", early)],
            [event("off", "success", early), event("off", "failed", early)],
        ] {
            assert!(!fenced(&events));
        }
        for time in ["", "2026-11-24 15:10:50,5Z", "yesterday"] {
            assert!(!fenced(&[event("off", "success", late), event("off", "failed", time)]), "{time}");
        }
        assert!(!fenced(&[event("off", "success", "yesterday")]));
        assert!(fenced(&[event("off", "pending", ""), event("off", "success", early)]), "it has not ended");
        assert!(!fenced(&[event("off", "success", early), event("on", "success", late)]));
        assert!(!fenced(&[]) && !fenced(&[event("on", "success", early)]) && last_fenced("no", "node3").is_none());
        assert!(last_fenced(&said(true, (false, false, false), &[event("off", "success", early)]), "node2").is_none());
        let person = event("off", "success", early).replace("\"node1\"", "\"a human\"");
        assert!(!fenced(&[person]));
    }

    #[test]
    fn what_is_proof_and_what_is_not() {
        let gone = (false, false, false);
        let off = event("off", "success", "2026-11-24 15:10:50Z");
        let ask = |text: &str, seen| judge(text, "node3", Since { seen, within: Duration::from_secs(600) }, false, TIME + 60);
        assert_eq!(ask(&said(true, gone, std::slice::from_ref(&off)), Some(TIME - 1)), Ok(TIME));
        // A name that is no node of the cluster, but can be fenced by it.
        let stranger = said(true, gone, std::slice::from_ref(&off)).replace("name=\"node3\"", "name=\"other\"");
        assert_eq!(ask(&stranger, None), Ok(TIME));
        let with = |more: String| said(true, gone, &[off.clone(), more]);
        let exact = off.replace("50Z", "50.123456Z");
        assert_eq!(ask(&said(true, gone, &[exact]), Some(TIME - 1)), Ok(TIME), "of Pacemaker 2.1.6");
        assert_eq!(ask(&with(event("off", "failed", "2026-11-24 15:11:00Z")), None), Ok(TIME), "one that failed changed nothing");
        assert_eq!(ask(&with(event("on", "failed", "2026-11-24 15:10:40Z")), None), Ok(TIME), "the off came after it");
        assert_eq!(ask(&with(event("off", "pending", "")), None), Ok(TIME), "another off");
        let loud = said(true, gone, &[off.replace("node3", "NODE3")]);
        assert_eq!(ask(&loud, None), Ok(TIME), "names have no case");
        let person = off.replace("\"node1\"", "\"a human\"");
        assert_eq!(ask(&said(true, gone, &[person.clone(), off.clone()]), None), Ok(TIME));
        let watchdog = |time| event("off", "success", time).replace(" delegate=\"node1\"", "");
        assert_eq!(ask(&with(watchdog("2026-11-24 15:10:40Z")), None), Ok(TIME), "a device turned it off after that");
        // With one an off that the asking node is said to have done itself may be its assumption.
        let armed = |events: &[String]| {
            judge(&said(true, gone, events), "node3", Since { seen: None, within: Duration::from_secs(600) }, true, TIME + 60)
        };
        let by = |origin: &str| off.replace(" completed", &format!(" origin=\"{origin}\" completed"));
        assert!(armed(&[by("node1")]).is_err_and(|text| text.contains("watchdog")), "it was done by who asked");
        assert_eq!(armed(&[by("node2")]), Ok(TIME), "another node has done it");
        assert_eq!(ask(&said(true, gone, &[by("node1")]), None), Ok(TIME), "without a watchdog a device did it");
        for (time, wanted) in [("10s", true), ("-1", true), ("0", false), ("0s", false), ("", true)] {
            let cib = format!("<cib><crm_config><nvpair id='a' name='stonith-watchdog-timeout' value='{time}'/></crm_config></cib>");
            assert_eq!(has_watchdog(&Cib::parse(cib).unwrap()), wanted, "{time}");
        }
        assert!(!has_watchdog(&Cib::parse("<cib/>".into()).unwrap()));
        for (text, seen, word) in [
            (said(true, gone, &[watchdog("2026-11-24 15:10:50Z")]), None, "watchdog"),
            (with(watchdog("2026-11-24 15:11:00Z")), None, "watchdog"),
            (said(true, gone, &[person]), None, "no record that a device"),
            (with(event("on", "failed", "2026-11-24 15:11:20Z")), None, "up again"),
            (with(event("reboot", "failed", "2026-11-24 15:10:50Z")), None, "up again"),
            (with(event("reboot", "failed", "")), None, "no time"),
            (with(event("on", "pending", "")), None, "pending"),
            (with(event("reboot", "what", "2026-11-24 15:10:40Z")), None, "pending"),
            (with(event("on", "failed", "2026-11-24 15:11:20Z").replace("node3", "Node3")), None, "up again"),
            (said(true, (true, false, false), std::slice::from_ref(&off)).replace("name=\"node3", "name=\"NODE3"), None, "member"),
            (said(false, gone, std::slice::from_ref(&off)), None, "quorum"),
            (said(true, (true, false, false), std::slice::from_ref(&off)), None, "member"),
            (said(true, (false, true, false), std::slice::from_ref(&off)), None, "joining"),
            (said(true, (false, false, true), std::slice::from_ref(&off)), None, "fence it"),
            (said(true, gone, &[]), None, "no record"),
            (said(true, gone, &[event("off", "failed", "2026-11-24 15:10:50Z")]), None, "no record"),
            (said(true, gone, &[event("off", "success", "")]), None, "no time"),
            (
                said(true, gone, &[event("reboot", "success", "2026-11-24 15:10:50Z")]),
                None,
                "up again (the cluster's option stonith-action=off",
            ),
            (with(event("on", "success", "2026-11-24 15:10:50Z")), None, "up again"),
            (with(event("on", "success", "2026-11-24 15:11:20Z")), None, "up again"),
            (said(true, gone, std::slice::from_ref(&off)), Some(TIME), "seen up"),
            (said(true, gone, &[event("off", "success", "2026-11-24 14:10:50Z")]), None, "s ago"),
            (said(true, gone, &[event("off", "success", "2026-11-24 15:20:50Z")]), None, "future"),
            (String::new(), None, "crm_mon"),
            ("<r/>".into(), None, "quorum"),
        ] {
            let answer = ask(&text, seen);
            assert!(answer.as_ref().is_err_and(|text| text.contains(word)), "{word}: {answer:?} of {text}");
        }
    }

    #[test]
    fn what_was_seen_is_known_since_the_boot() {
        assert_eq!(uptime("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(uptime(""), None);
        assert_eq!(remembered("node3", TIME, TIME - 60), Ok(()));
        for booted in [TIME - SKEW, TIME, TIME + 60] {
            assert!(remembered("node3", TIME, booted).is_err_and(|text| text.contains("was started after")));
        }
    }
}
