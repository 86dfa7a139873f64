//! All hosts on which a guest could be. They are asked side by side, each with its own time limit, and a host that does not answer
//! in time is one that cannot tell.

use super::address::{from_address, with_key};
use super::host::{Entry, Host};
use super::limits::{AGAIN, Limits};
use super::options::Options;
use super::plug::LONG_PAUSE;
use super::sight::Target;
use super::verdict::Answer;
use super::victim::{Attempt, CALLING_OFF, End, Moving, Stayed, Victim, Watch};
use crate::deadline::{Deadline, Task};
use crate::domain::{Error, Kind, Result};
use crate::log;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How much later than its limit an answer may come, since threads wait for one another.
const GRACE: Duration = Duration::from_secs(1);

/// Most guests are gone after this long. If one is not, the other nodes are told now: Pacemaker may kill this action before the end is seen
/// (`pcmk_off_timeout`).
const OVERDUE: Duration = Duration::from_secs(5);

/// All hosts.
#[derive(Clone)]
pub(super) struct Pool {
    hosts: Arc<[Arc<Host>]>,
}

impl Pool {
    /// The hosts that the options name.
    ///
    /// # Errors
    /// There are none, or one is no URI.
    pub(super) fn new(options: &Options, limits: Limits) -> std::result::Result<Self, String> {
        let mut texts: Vec<String> = Vec::new();
        for text in options.uri.iter().map(|uri| with_key(uri, options)).chain(options.ip.iter().map(|ip| from_address(ip, options))) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        if texts.is_empty() {
            return Err("no host is given: set uri (or ip) to all hosts on which the guest could run".into());
        }
        let hosts: std::result::Result<Vec<Host>, String> = texts.iter().map(|text| Host::new(text, limits, options)).collect();
        let mut hosts = hosts?;
        distinguish(&mut hosts);
        if let Some(host) = options.fenced_hosts.keys().find(|wanted| !hosts.iter().any(|host| host.uri.host() == *wanted)) {
            return Err(format!("fenced_hosts: {host:?} is no host of uri or ip"));
        }
        Ok(Self { hosts: hosts.into_iter().map(Arc::new).collect() })
    }

    /// How a host is called.
    pub(super) fn label(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("", |host| &host.label)
    }

    /// The labels of several hosts, for a sentence.
    pub(super) fn labels(&self, hosts: &[usize]) -> String {
        hosts.iter().map(|host| self.label(*host)).collect::<Vec<_>>().join(", ")
    }

    /// What is wrong with a pool that the fencer asks on whatever node is at hand: a URI that leads to that node's own libvirt.
    ///
    /// # Errors
    /// There are other hosts in it, so that none stands for all the nodes: one may be asked twice, and another not at all.
    pub(super) fn own_libvirt(&self) -> std::result::Result<Option<String>, String> {
        let Some(own) = self.hosts.iter().find(|host| host.uri.is_wherever_used()) else { return Ok(None) };
        let text =
            format!("{} is the libvirt of whatever node the fencer calls the agent on; name the host (qemu+tls://HOST/system)", own.label);
        // With one host alone it can be right: a device that constraints keep on that host.
        if self.hosts.len() == 1 { Ok(Some(text)) } else { Err(text) }
    }

    /// What is wrong with a pool that the fencer asks for guests of its hosts: a URI that leads to the libvirt of a user.
    ///
    /// # Errors
    /// There are other hosts in it: what is defined on one of them and runs in another's system would be off.
    pub(super) fn session(&self) -> std::result::Result<Option<String>, String> {
        let Some(session) = self.hosts.iter().find(|host| host.uri.is_session()) else { return Ok(None) };
        let text = format!("{} is the libvirt of a user, which knows no guest of the host's own (qemu+ssh://HOST/system)", session.label);
        if self.hosts.len() == 1 { Ok(Some(text)) } else { Err(text) }
    }

    /// The host with this label.
    pub(super) fn labelled(&self, label: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.label == label)
    }

    /// Whether the processes of a host can be seen from here.
    pub(super) fn is_local(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|host| host.local)
    }

    /// Whether its URI leads to another libvirt on each node.
    pub(super) fn is_wherever_used(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|host| host.uri.is_wherever_used())
    }

    /// Does `work` on the hosts with these numbers, side by side. `None`: not done in time.
    fn each<T, F>(&self, hosts: impl IntoIterator<Item = usize>, limit: Duration, deadline: &Deadline, work: F) -> Vec<(usize, Option<T>)>
    where
        T: Send + 'static,
        F: Fn(&Host, usize, &Deadline) -> T + Clone + Send + 'static,
    {
        let limit = deadline.within(limit);
        let tasks: Vec<(usize, Option<Task<T>>)> = hosts
            .into_iter()
            .map(|number| {
                let task = self.hosts.get(number).map(|host| {
                    let (host, work) = (Arc::clone(host), work.clone());
                    Task::start(move || work(&host, number, &limit))
                });
                (number, task)
            })
            .collect();
        let late = Deadline::after(limit.left() + GRACE);
        tasks.into_iter().map(|(number, task)| (number, task.and_then(|task| task.wait(&late)))).collect()
    }

    /// A host that did not answer in time.
    fn silent(&self, host: usize) -> Error {
        Error::new(Kind::Unresponsive, format!("{} gave no answer in time", self.label(host)))
    }

    /// What each host says of a guest, in the order of the hosts.
    pub(super) fn ask(&self, target: &Target, deadline: &Deadline) -> Vec<Answer> {
        let wanted = target.clone();
        let answers = self.each(0..self.hosts.len(), self.question(), deadline, move |host, _, limit| host.look(&wanted, limit));
        answers
            .into_iter()
            .map(|(host, answer)| {
                let answer = answer.unwrap_or_else(|| Answer::Unknown(self.silent(host).text));
                log::debug(|| format!("{} at {}: {answer:?}", target.word, self.label(host)));
                answer
            })
            .collect()
    }

    /// The time for a connection and two questions.
    fn question(&self) -> Duration {
        self.hosts.first().map_or(Duration::ZERO, |host| host.limits.login + host.limits.shell * 2)
    }

    /// Takes hold of the guest on these hosts; those from which it has gone meanwhile are left out.
    pub(super) fn victims(&self, target: &Target, hosts: &[usize], deadline: &Deadline) -> Result<Vec<Victim>> {
        let wanted = target.clone();
        let found =
            self.each(hosts.iter().copied(), self.question(), deadline, move |host, number, limit| host.victim(&wanted, number, limit));
        let mut victims = Vec::new();
        let mut failure = None;
        for (host, found) in found {
            match found {
                Some(Ok(victim)) => victims.extend(victim),
                Some(Err(error)) => failure = Some(error),
                None => failure = Some(self.silent(host)),
            }
        }
        // One that can be ended is ended, whatever is with the others: they are asked again.
        match failure {
            Some(error) if victims.is_empty() => Err(error),
            _ => Ok(victims),
        }
    }

    /// Removes the memory with which the guest was saved on these hosts, if it was.
    pub(super) fn drop_memory(&self, target: &Target, hosts: &[usize], deadline: &Deadline) -> Result<()> {
        let wanted = target.clone();
        let done = self.each(hosts.iter().copied(), self.question(), deadline, move |host, _, limit| host.drop_memory(&wanted, limit));
        done.into_iter().try_for_each(|(host, done)| done.unwrap_or_else(|| Err(self.silent(host))))
    }

    /// Ends them all, side by side. If one takes longer than most, `overdue` is called meanwhile, with the time for that.
    pub(super) fn kill(&self, victims: Vec<Victim>, deadline: &Deadline, overdue: impl FnOnce(&Deadline)) -> Vec<(usize, Attempt)> {
        let watch = Watch::new();
        let begun = watch.now();
        let power = self.hosts.first().map_or(Duration::ZERO, |host| host.limits.power);
        let calling_off = if victims.iter().any(|victim| victim.moving == Moving::Leaving) { CALLING_OFF } else { Duration::ZERO };
        let limit = deadline.within(power + calling_off);
        let tasks: Vec<_> =
            victims.into_iter().map(|victim| (victim.host, victim.moving, Task::start(move || victim.end(&limit, watch)))).collect();
        let late = Deadline::after(limit.left() + GRACE);
        let unseen = |host: usize, moving: Moving| Attempt {
            end: End::Unproven(format!("its end at {} was not seen in time", self.label(host))),
            stayed: if moving == Moving::Leaving { Stayed::Unproven } else { Stayed::Unknown },
            time: (begun, watch.now()),
        };
        let soon = late.within(calling_off + OVERDUE);
        let tasks: Vec<_> = tasks.into_iter().map(|(host, moving, task)| (host, moving, task.wait(&soon), task)).collect();
        if tasks.iter().any(|(.., end, _)| end.is_none()) {
            overdue(&limit);
        }
        tasks
            .into_iter()
            .map(|(host, moving, end, task)| (host, end.or_else(|| task.wait(&late)).unwrap_or_else(|| unseen(host, moving))))
            .collect()
    }

    /// Starts a guest on a host: from `xml`, or from the definition that is there.
    pub(super) fn start(&self, host: usize, target: &Target, xml: Option<String>, deadline: &Deadline) -> Result<()> {
        let Some(host) = self.hosts.get(host) else { return Err(Error::new(Kind::Internal, format!("there is no host number {host}"))) };
        host.start(target, xml, deadline)
    }

    /// Whether every host is there and takes orders, in the order of the hosts.
    pub(super) fn ready(&self, deadline: &Deadline) -> Vec<Result<()>> {
        self.patiently(deadline, |host, limit| host.ready(limit))
    }

    /// The guests of every host, in the order of the hosts.
    pub(super) fn list(&self, deadline: &Deadline) -> Vec<Result<Vec<Entry>>> {
        self.patiently(deadline, |host, limit| host.list(limit))
    }

    /// The same, each asked once.
    pub(super) fn list_once(&self, deadline: &Deadline) -> Vec<Result<Vec<Entry>>> {
        let lists = self.each(0..self.hosts.len(), self.question(), deadline, |host, _, limit| host.list(limit));
        lists.into_iter().map(|(host, list)| list.unwrap_or_else(|| Err(self.silent(host)))).collect()
    }

    /// What every host says, in the order of the hosts; those that may be reached a moment later are asked again.
    fn patiently<T, F>(&self, deadline: &Deadline, work: F) -> Vec<Result<T>>
    where
        T: Send + 'static,
        F: Fn(&Host, &Deadline) -> Result<T> + Clone + Send + 'static,
    {
        let patience = deadline.within(AGAIN);
        let mut answers: BTreeMap<usize, Result<T>> = BTreeMap::new();
        let mut limit = *deadline;
        loop {
            let open = |host: &usize| answers.get(host).is_none_or(|answer| answer.as_ref().is_err_and(Error::may_pass));
            let hosts: Vec<usize> = (0..self.hosts.len()).filter(open).collect();
            if hosts.is_empty() || !answers.is_empty() && !patience.pause(LONG_PAUSE) {
                return answers.into_values().collect();
            }
            let work = work.clone();
            let said = self.each(hosts, self.question(), &limit, move |host, _, limit| work(host, limit));
            // A host that is down takes seconds to be called so, each time.
            limit = patience;
            answers.extend(said.into_iter().map(|(host, answer)| (host, answer.unwrap_or_else(|| Err(self.silent(host))))));
        }
    }
}

/// What is noted of a host is found by its label again: hosts that differ in a parameter alone, as two forwarded sockets do, get their whole URIs.
fn distinguish(hosts: &mut [Host]) {
    let labels: Vec<String> = hosts.iter().map(|host| host.label.clone()).collect();
    for host in hosts {
        if host.uri.host().is_empty() || labels.iter().filter(|label| **label == host.label).count() > 1 {
            host.label = host.uri.to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { login: Duration::from_millis(300), shell: Duration::from_millis(300), power: Duration::from_millis(300), record: None };

    fn options(pairs: &[(&str, &str)]) -> Options {
        super::super::options::read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()).0
    }

    fn uris(pairs: &[(&str, &str)]) -> Vec<String> {
        Pool::new(&options(pairs), LIMITS).unwrap().hosts.iter().map(|host| host.uri.to_string()).collect()
    }

    #[test]
    fn hosts_from_uris_and_addresses() {
        assert_eq!(
            uris(&[("uri", "qemu+tcp://a/system, qemu+tls://b/system qemu+tcp://a/system")]),
            ["qemu+tcp://a/system", "qemu+tls://b/system"]
        );
        assert_eq!(
            uris(&[
                ("ip", "a,fe80::1"),
                ("username", "ha"),
                ("ipport", "2222"),
                ("identity_file", "/etc/k y"),
                ("ssh_path", "/usr/bin/ssh")
            ]),
            [
                "qemu+ssh://ha@a:2222/system?keyfile=/etc/k%20y&command=/usr/bin/ssh&no_tty=1",
                "qemu+ssh://ha@[fe80::1]:2222/system?keyfile=/etc/k%20y&command=/usr/bin/ssh&no_tty=1"
            ]
        );
        assert_eq!(uris(&[("ip", "a"), ("ssh", "0")]), ["qemu://a/system"]);
        assert_eq!(
            uris(&[("uri", "qemu+ssh://a/system?keyfile=/k"), ("identity_file", "/other")]),
            ["qemu+ssh://a/system?keyfile=/k&no_tty=1"]
        );
        let node = |pairs: &[(&str, &str)]| Pool::new(&options(pairs), LIMITS).map(|pool| pool.hosts[0].node.clone());
        assert_eq!(node(&[("uri", "qemu+tcp://a/system"), ("fenced_hosts", "a:node-a")]), Ok(Some("node-a".into())));
        assert_eq!(node(&[("ip", "fe80::1"), ("fenced_hosts", "[fe80::1]:node-a")]), Ok(Some("node-a".into())));
        assert_eq!(node(&[("uri", "qemu+tcp://a/system")]), Ok(None));
        assert!(node(&[("uri", "qemu+tcp://a/system"), ("fenced_hosts", "b:node-b")]).is_err());
        for wrong in ["", "vbox:///session", "qemu+tcp://u:secret@a/system", "a"] {
            let error = Pool::new(&options(&[("uri", wrong)]), LIMITS).map(drop).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn every_host_has_a_label_of_its_own() {
        let labels = |uri: &str| {
            let pool = Pool::new(&options(&[("uri", uri)]), LIMITS).unwrap();
            let labels = [0, 1].map(|host| pool.label(host).to_owned());
            assert_eq!(labels.each_ref().map(|label| pool.labelled(label)), [Some(0), Some(1)], "{labels:?}");
            labels
        };
        for uris in [
            ["qemu+unix:///system?socket=/run/to-a", "qemu+unix:///system?socket=/run/to-b"],
            ["qemu+ext:///system?command=/to-a", "qemu+ext:///system?command=/to-b"],
            ["qemu+tls://a/system?pkipath=/x", "qemu+tls://a/system?pkipath=/y"],
        ] {
            assert_eq!(labels(&uris.join(",")), uris);
        }
        assert_eq!(labels("qemu+tls://a/system?pkipath=/x,qemu+tls://b/system"), ["qemu+tls://a/system", "qemu+tls://b/system"]);
    }

    #[test]
    fn a_host_that_is_not_there_cannot_tell() {
        let pool = Pool::new(&options(&[("uri", "qemu+unix:///system?socket=/nonexistent")]), LIMITS).unwrap();
        let target = Target { word: "web1".into(), name: Some("web1".into()), uuid: None };
        let answers = pool.ask(&target, &Deadline::after(Duration::from_secs(60)));
        assert!(matches!(&answers[..], [Answer::Unknown(_)]), "{answers:?}");
    }
}
