//! What is unusual about the hosts of some worlds: their names, the guest's, and how long it takes to be heard.

use super::*;
use crate::deadline::{Deadline, unix_time};

/// Seconds.
const DAY: u64 = 86_400;

/// All of that; nothing of it is so in most worlds.
#[derive(Default)]
pub(crate) struct Oddities {
    /// Other URIs that lead to a host.
    pub(crate) aliases: Vec<(&'static str, usize)>,
    /// Whether all hosts have the same name.
    pub(crate) namesakes: bool,
    /// Whether all hosts have the same hardware, and their daemons count alike.
    pub(crate) twins: bool,
    /// A host on which the guest has another name.
    pub(crate) renamed: Option<usize>,
    /// Whether a move that does not come about is one whose memory the target's emulator does not load, all of it between two looks.
    pub(crate) unloaded: bool,
    /// The UUID in the definition that the program reads.
    pub(crate) uuid: Option<&'static CStr>,
    /// How often from now on the cluster's record of a lost node's fencing is to be had, which was a day ago.
    pub(crate) fenced: u32,
    /// How long before that the hosts had been started, or, negative, how long after it; in seconds.
    pub(crate) up_before: i64,
    /// How long each question without priority waits in the first host's daemon.
    pub(crate) queue: Duration,
    /// How long each list waits for other guests of the host.
    pub(crate) listing: Duration,
    /// How often a host was asked whether it starts the guest by itself.
    pub(crate) autostarts: u32,
    /// How long the cluster's tools take to say when a host was turned off: they know of nothing.
    pub(crate) tools: Duration,
    /// What another node will have told by then in this attribute; nothing any more.
    pub(crate) words: Vec<(Duration, &'static str, Option<String>)>,
    /// After how long without a word a connection to another host than the first leads nowhere any more.
    pub(crate) idle: Option<Duration>,
}

impl World {
    /// The host that a URI leads to.
    pub(super) fn host_at(&self, uri: &str) -> Option<usize> {
        let alias = || self.odd.aliases.iter().find(|(alias, _)| *alias == uri).map(|(_, host)| *host);
        self.hosts.iter().position(|host| host.uri == uri).or_else(alias)
    }

    /// What the host calls itself.
    pub(crate) fn host_name(&mut self, host: usize) -> Answer<String> {
        self.call(host, "hostname")?;
        Ok(if self.odd.namesakes { "host".into() } else { format!("host{host}") })
    }

    /// Whether a list of those that were saved there has the guest in it.
    pub(crate) fn lists_saved(&mut self, host: usize) -> bool {
        pass(self.odd.listing);
        self.hosts[host].saved
    }

    /// Asks the cluster's tools when a host was turned off.
    pub(crate) fn wait_for_tools(&mut self, deadline: &Deadline) -> String {
        pass(self.odd.tools.min(deadline.left()));
        "the cluster does not know".to_owned()
    }

    /// What the nodes of the cluster have told each other by now in an attribute.
    pub(crate) fn told_by_now(&mut self, name: &'static str) -> Vec<(String, String)> {
        while let Some(at) = self.odd.words.iter().position(|(time, ..)| *time <= lasted()) {
            let (_, name, word) = self.odd.words.remove(at);
            let key = (name, "other".to_owned());
            match word {
                Some(word) => self.told.insert(key, word),
                None => self.told.remove(&key),
            };
        }
        let told = self.told.iter().filter(|((other, _), _)| *other == name);
        told.map(|((_, node), value)| (node.clone(), value.clone())).collect()
    }

    /// Somebody else has tried to end it there for a while, and will have ended it after this time.
    pub(crate) fn be_ended_in(&mut self, host: usize, time: Duration) {
        self.begin_ending(host, time);
    }

    /// The UUID of its hardware.
    pub(crate) fn hardware(&self, host: usize) -> String {
        let host = if self.odd.twins { 0 } else { host };
        format!("00000000-0000-4000-8000-{host:012}")
    }

    /// The number that its daemon has given the guest.
    pub(crate) fn number(&self, host: usize) -> Option<usize> {
        self.hosts[host].copy.as_ref().map(|copy| if self.odd.twins { 1 } else { copy.number })
    }

    /// The guest's name there.
    pub(crate) fn name(&self, host: usize) -> &'static CStr {
        if self.odd.renamed == Some(host) { c"web2" } else { GUEST }
    }

    /// The definition that the program reads.
    pub(crate) fn written(&self) -> String {
        let uuid = self.odd.uuid.map_or_else(String::new, |uuid| format!("<uuid>{}</uuid>", uuid.to_string_lossy()));
        format!("<domain type='kvm'><name>{}</name>{uuid}</domain>", GUEST.to_string_lossy())
    }

    /// When, in seconds since 1970, a node was fenced which has left the cluster, if that has a record of it.
    pub(crate) fn fenced_at(&mut self) -> Option<u64> {
        let fenced = self.odd.fenced > 0;
        self.odd.fenced = self.odd.fenced.saturating_sub(1);
        fenced.then(|| unix_time() - DAY)
    }

    /// How long a host's first CPU has run.
    pub(crate) fn cpu_time(&mut self, host: usize) -> Answer<Duration> {
        self.call(host, "cpu time")?;
        Ok(Duration::from_secs(DAY.saturating_add_signed(self.odd.up_before)))
    }

    /// All ordinary workers of a daemon are taken for this time: so long a creation takes.
    pub(crate) fn be_busy_for(&mut self, host: usize, time: Duration) {
        self.hosts[host].taken = Some(now() + time);
    }

    /// A guest is started on this host after this time.
    pub(crate) fn start_in(&mut self, host: usize, time: Duration) {
        self.events.push((now() + time, Event::Starts(host)));
    }

    /// A new connection leads to a host.
    pub(super) fn begins_to_hear(&mut self, host: usize) {
        self.hosts[host].heard = Some(now());
    }

    /// A word on a connection that stands.
    pub(super) fn hears(&mut self, host: usize) -> Answer<()> {
        let (now, idle) = (now(), self.odd.idle.filter(|_| host != 0));
        if idle.zip(self.hosts[host].heard).is_some_and(|(idle, heard)| now > heard + idle) {
            tell(|| "  on a connection that leads nowhere".into());
            pass(FOR_EVER);
            return Err(BROKEN);
        }
        self.hosts[host].heard = Some(now);
        Ok(())
    }
}
