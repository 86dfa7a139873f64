//! The question to the other nodes whether they have the guest: before a start does anything, and again before it lets the guest run.
//!
//! Between the two a start makes ready what the guest needs, which takes its time, and another node may start it meanwhile. The second question comes
//! when the guest is here, paused. So of two starts at the same time the one that creates its copy last sees the other's, and no guest is let run
//! before all that answer then have said that they have none. Who sees another's copy ends its own; of two that are paused the one of the
//! node whose name comes first stays, and waits for the other's end: else both would give way, each time.

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;

use super::super::{Call, route};
use crate::cluster::{self, Peer, fencing};
use crate::deadline::Task;
use crate::domain::Uri;
use crate::domain::definition::Identity;
use crate::domain::elsewhere::{self, Answers, Asked, Found, Host};
use crate::log;
use std::time::Duration;

/// How long a start waits for the answers of other nodes: one that hangs must not keep a guest down.
const ASKING: Duration = Duration::from_secs(3);

/// The same for those that have left the cluster: most of them are off, and a failover waits for this.
const ASKING_THE_LOST: Duration = Duration::from_secs(1);

/// How long a start waits until the paused copy on another node is ended, and how often it asks.
const GIVING_WAY: Duration = Duration::from_secs(5);
/// See [`GIVING_WAY`].
const AGAIN: Duration = Duration::from_millis(250);

/// How long a start waits for the end of a copy whose memory was still to come: libvirt ends it when it has heard nothing of the source for half a
/// minute (`keepalive_interval` times `keepalive_count` of `libvirtd.conf`). And how often it asks.
const ENDING: Duration = Duration::from_secs(45);
/// See [`ENDING`].
const AGAIN_FOR_AN_END: Duration = Duration::from_secs(1);

/// How long at most one is waited for that has said nothing before: at the second question each start waits for it anew.
const ASKING_THE_SILENT: Duration = Duration::from_secs(1);

/// How long it may take to prove that a host is this one: some of its questions wait for a worker of libvirt's that is free.
const PROVING: Duration = Duration::from_secs(10);

/// The least time in which the other nodes can be asked again.
const LEAST: Duration = Duration::from_secs(1);

/// Why a guest that is here, paused, must not run.
pub(super) enum Unfit {
    /// A sentence about a node that has it.
    IsElsewhere(String),
    /// No time is left to ask the other nodes.
    Late,
}

/// The other nodes that are to be asked again.
pub(super) struct Others {
    asked: Vec<Asked>,
    /// The names of those that are not in this node's partition of the cluster.
    lost: Vec<String>,
}

impl Others {
    /// Asks all other nodes that can be asked. One that does not answer is passed over, or no node could ever take over from one that is gone.
    ///
    /// # Errors
    /// A sentence about one that has it.
    pub(super) fn ask(call: &Call, identity: &Identity) -> Result<Self, String> {
        let (hosts, lost) = other_nodes(call);
        let patience = call.deadline.share(ENDING, 2);
        let mut hosts: Vec<Asked> = hosts.into_iter().map(Asked::from).collect();
        let mut before: Vec<Found> = Vec::new();
        let (mut asked, silent) = loop {
            let Answers { found, answered: mut asked, silent } = elsewhere::find(identity, hosts, &call.deadline.within(ASKING));
            if let Some(silent) = gone_silent(before, &asked) {
                return Err(silent.text);
            }
            before = in_the_way(call, identity, found, &lost, &mut asked);
            let Some(first) = before.first() else { break (asked, silent) };
            if !before.iter().all(|found| found.coming) || !patience.pause(AGAIN_FOR_AN_END) {
                return Err(first.text.clone());
            }
            log::info(format_args!("{}; waiting for its end", first.text));
            hosts = asked.into_iter().chain(silent.into_iter().map(Asked::from)).collect();
        };
        // A member that says nothing may be about to create the guest itself. One that is lost is off as a rule, and a failover does not
        // wait for it twice.
        let members = silent.into_iter().filter(|host| !lost.contains(&host.name));
        asked.extend(members.map(|host| Asked::from(Host { patience: ASKING_THE_SILENT, ..host })));
        Ok(Self { asked, lost })
    }

    /// Asks them again, now that the guest is here, paused. One that does not answer now is passed over, if it had the time for that.
    ///
    /// # Errors
    /// The guest must not run here.
    pub(super) fn ask_again(self, call: &Call, identity: &Identity) -> Result<(), Unfit> {
        let Self { mut asked, lost } = self;
        let goes_first = |found: &Found| call.environment.node.as_ref().is_some_and(|here| *here < found.host);
        let patience = call.deadline.share(GIVING_WAY, 4);
        let mut before: Vec<Found> = Vec::new();
        if !asked.is_empty() && call.deadline.left() < LEAST {
            return Err(Unfit::Late);
        }
        loop {
            let Answers { found, mut answered, silent } = elsewhere::find(identity, asked, &call.deadline.within(ASKING));
            if let Some(silent) = gone_silent(before, &answered) {
                return Err(Unfit::IsElsewhere(silent.text));
            }
            before = in_the_way(call, identity, found, &lost, &mut answered);
            match before.first() {
                // One that was asked when the time was almost used up may have had none to answer.
                None if !silent.is_empty() && call.deadline.expired() => return Err(Unfit::Late),
                None => {
                    take_leave(answered);
                    return Ok(());
                }
                Some(_) if before.iter().all(|found| found.paused && goes_first(found)) && patience.pause(AGAIN) => {}
                Some(found) => return Err(Unfit::IsElsewhere(found.text.clone())),
            }
            log::info(format_args!("{}; waiting for its end", before.first().map_or("", |found| &found.text)));
            asked = answered;
        }
    }
}

/// The other nodes of the cluster that can be asked about guests, if the parameters say how to reach their libvirt, as they do for guests that
/// are moved; and the names of those that are not in this partition. They are asked too: one that nobody fenced may have kept a guest that its
/// cluster has let go of.
fn other_nodes(call: &Call) -> (Vec<Host>, Vec<String>) {
    let Some(here) = call.environment.node.as_ref().filter(|_| call.reaches_others()) else { return (Vec::new(), Vec::new()) };
    let peers = cluster::peers(&call.deadline.within(ASKING));
    let lost = peers.iter().filter(|peer| !peer.member).map(|peer| peer.name.clone()).collect();
    let host = |peer: Peer| {
        let patience = if peer.member { ASKING } else { ASKING_THE_LOST };
        Host { uri: route::remote(call, &peer.name), name: peer.name, patience }
    };
    let others = peers.into_iter().filter(|peer| !peer.name.eq_ignore_ascii_case(here)).map(host);
    // A URI may be the same for all nodes, this one's.
    let is_here = |host: &Host| Uri::parse(&host.uri).is_ok_and(|uri| uri.is_own(&call.environment.host));
    (others.filter(|host| !is_here(host)).collect(), lost)
}

/// One that had it and has not answered now, which says nothing of its end.
fn gone_silent(before: Vec<Found>, answered: &[Asked]) -> Option<Found> {
    before.into_iter().find(|before| !answered.iter().any(|asked| asked.name() == before.host))
}

/// What a fenced node has is not the cluster's any more: a switch or a storage array leaves it alive, and its libvirt too. One that was turned off and
/// on again has what was started there since, by hand or by libvirt, on storage that it has again. This host, asked under another name or address,
/// does not count either. Whoever does not count is taken from `asked`: the cluster may answer too late the next time.
fn in_the_way(call: &Call, identity: &Identity, found: Vec<Found>, lost: &[String], asked: &mut Vec<Asked>) -> Vec<Found> {
    let is_fenced = |Found { host, text, .. }: &Found| {
        let limit = || call.deadline.within(ASKING);
        let Some(ago) = lost.contains(host).then(|| fencing::fenced_ago(host, &limit())).flatten() else { return false };
        let stayed_up = asked.iter().any(|asked| asked.name() == host && asked.was_up(ago, &limit()));
        let since = if stayed_up { "" } else { ", and may have been started again since" };
        log::warning(format_args!("{text}, but {host} was fenced{since}"));
        stayed_up
    };
    let is_here = |found: &Found| {
        // What is here does not run yet, so that one that runs is another, whatever its host has in common with this one.
        let limit = call.deadline.share(PROVING, 2);
        let is_asked = |asked: &Asked| asked.name() == found.host && asked.has_the_one_at(&call.parameters.hypervisor, identity, &limit);
        found.paused && asked.iter().any(is_asked)
    };
    let (excused, left): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| is_fenced(found) || is_here(found));
    take_leave(asked.extract_if(.., |asked| excused.iter().any(|found| found.host == asked.name())).collect());
    left
}

/// Whoever is not asked any more hears so, which need not be waited for.
fn take_leave(asked: Vec<Asked>) {
    drop(Task::start(move || drop(asked)));
}
