//! One round of an ending: it is ended on the hosts that have it, and what was learnt by that is taken down.

use super::{Ending, OTHERS, ROUNDS_AFTER_MOVE};
use crate::deadline::{self, Deadline};
use crate::domain::{Error, Result};
use crate::fence::note::{self, Begun, Note};
use crate::fence::plug::{LONG_PAUSE, PAUSE};
use crate::fence::told::{Proof, RETRY, TELLING, Told, Word};
use crate::fence::verdict::Verdict;
use crate::fence::victim::{Attempt, End, Moving, Stayed, Victim, is_no, known_by};
use crate::log;
use std::time::Duration;

/// What ending a guest takes on a busy host. Less is not enough to see the end of one that was started again: it would only stay in doubt.
const AN_END: Duration = Duration::from_secs(2);

/// How often libvirt may refuse to end a guest before that is the answer.
const REFUSALS: u32 = 5;

/// How ending it on a host, or on all, went.
enum Ended {
    /// libvirt ended it.
    Proven,
    /// It was gone already.
    Unseen,
}

/// The same for two hosts: the worse of the two.
fn both(one: std::result::Result<Ended, Failed>, other: std::result::Result<Ended, Failed>) -> std::result::Result<Ended, Failed> {
    match (one, other) {
        (Err(one), Err(other)) => Err(if one.weight() < other.weight() { other } else { one }),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(Ended::Unseen), _) | (_, Ok(Ended::Unseen)) => Ok(Ended::Unseen),
        (Ok(Ended::Proven), Ok(Ended::Proven)) => Ok(Ended::Proven),
    }
}

/// Why it is not ended.
enum Failed {
    /// Worth another attempt.
    ForNow(Error),
    /// Somebody else ended it, and may have seen that in time.
    Overtaken(Error),
    /// Another attempt would find it gone and prove nothing.
    ForGood(Error),
}

impl Failed {
    /// Which of several counts.
    fn weight(&self) -> u8 {
        match self {
            Self::ForNow(_) => 0,
            Self::Overtaken(_) => 1,
            Self::ForGood(_) => 2,
        }
    }
}

impl Ending<'_> {
    /// Ends it on these hosts, and says how long to wait before they are all asked again.
    pub(super) fn round(&mut self, hosts: &[usize], verdict: &Verdict, deadline: &Deadline) -> Result<Duration> {
        // It may be a copy that came in and goes by itself: that would be seen.
        if self.ended && deadline.left() < AN_END {
            return Ok(PAUSE);
        }
        match self.kill(hosts, deadline) {
            Ok(Ended::Proven) => {
                self.ended = true;
                if !self.plug.power_wait.is_zero() && !deadline.pause(self.plug.power_wait) {
                    return Err(self.late(verdict));
                }
                Ok(Duration::ZERO)
            }
            // The process tables have been asked, and are asked again.
            Ok(Ended::Unseen) if hosts.iter().all(|host| self.plug.pool.is_local(*host)) => Ok(PAUSE),
            Ok(Ended::Unseen) => {
                self.unseen.get_or_insert_with(deadline::now);
                Ok(PAUSE)
            }
            Err(Failed::ForGood(error) | Failed::Overtaken(error)) => Err(error),
            Err(Failed::ForNow(error)) => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    return Err(self.plug.failure(format_args!("it cannot be ended: {error}")));
                }
                self.refused = Some(error);
                Ok(LONG_PAUSE)
            }
        }
    }

    /// Takes hold of it on these hosts, writes down what is begun, and ends it there.
    fn kill(&mut self, hosts: &[usize], deadline: &Deadline) -> std::result::Result<Ended, Failed> {
        let victims = match self.plug.pool.victims(&self.plug.target, hosts, deadline) {
            Ok(victims) => victims,
            Err(error) => {
                for host in hosts {
                    self.pending.entry(*host).or_insert_with(deadline::now);
                }
                return Err(Failed::ForNow(error));
            }
        };
        let Some(known_by) = known_by(&victims) else { return Ok(Ended::Unseen) };
        if victims.iter().any(|victim| victim.moving != Moving::No) {
            self.progress.needed = ROUNDS_AFTER_MOVE;
        }
        let leaves = victims.iter().find(|victim| victim.moving == Moving::Leaving).map(|victim| victim.host);
        let before = self.about(known_by, hosts, leaves);
        let begun = self.begin(before.clone(), &victims);
        let places = victims.iter().map(|victim| victim.host).collect::<Vec<_>>();
        log::info(format_args!("ending {} at {}", self.plug.target.word, self.plug.pool.labels(&places)));
        let mut all = Ok(Ended::Proven);
        let (mut is_ours, mut is_proven) = (false, false);
        // This process may be killed before it knows more.
        let overdue = |limit: &Deadline| match self.plug.nodes.tell(&self.plug.notes, &limit.within(TELLING)) {
            Ok(()) => self.told = true,
            Err(text) => log::warning(format_args!("the other nodes cannot be told that an end is under way: {text}")),
        };
        for (host, Attempt { end, stayed, time }) in self.plug.pool.kill(victims, deadline, overdue) {
            // What goes away after nothing was done has gone by itself, and may be elsewhere.
            let is_none = match &end {
                End::Gone => true,
                End::Refused(error) => is_no(error),
                End::Ended | End::Unproven(_) | End::Overtaken(_) => false,
            };
            is_ours |= stayed == Stayed::Unproven || !is_none;
            if stayed == Stayed::Certainly {
                self.stayed.extend((!is_none).then_some(host));
                self.stayed(host);
            }
            if matches!(end, End::Ended) {
                self.prove(host, time);
                is_proven = true;
            }
            all = both(all, self.learn(host, end, time.1, &before.ends));
        }
        self.progress.begun |= is_ours;
        if !self.progress.begun {
            self.note.iter_mut().for_each(|note| note.at = 0);
        }
        if let Some(note) = self.note.as_ref().filter(|note| **note != begun)
            && let Err(error) = note.write(&self.plug.notes)
        {
            log::warning(error);
        }
        // Who waits for it does so for some seconds, and the rounds that follow may take longer.
        if self.told && is_proven {
            self.plug.nodes.correct(&self.plug.notes);
        }
        match all {
            Err(Failed::Overtaken(_)) if self.is_proven_by_others(deadline) => Ok(Ended::Unseen),
            all => all,
        }
    }

    /// Writes down which ends are begun, before anything is done: if this process is killed, the next one knows of them. Gives the note.
    fn begin(&mut self, mut note: Note, victims: &[Victim]) -> Note {
        victims.iter().for_each(|victim| note.begin(self.plug.pool.label(victim.host)));
        if let Err(error) = note.write(&self.plug.notes) {
            log::warning(format_args!("{error}; the guest is ended all the same"));
        }
        self.note.insert(note).clone()
    }

    /// Takes down that libvirt has ended it on this host for this action, in this time: another one may have waited for the same.
    /// Not where each node means its own libvirt by that name.
    fn prove(&self, host: usize, (begun, done): (u64, u64)) {
        let Some(note) = self.note.as_ref().filter(|_| !self.plug.pool.is_wherever_used(host)) else { return };
        let proof = Proof { host: self.plug.pool.label(host).to_owned(), begun, done };
        let by = self.plug.nodes.here.0.clone();
        self.plug.nodes.prove(Told { by, name: note.name.clone(), uuid: note.uuid.clone(), word: Word::Proven(proof) });
    }

    /// Whether all ends that somebody else has made, while this action tried to, were seen in time by another one, as it says within a while.
    fn is_proven_by_others(&mut self, deadline: &Deadline) -> bool {
        if self.plug.nodes.is_alone() {
            return false;
        }
        let limit = deadline.within(OTHERS);
        // One that has seen it is waiting to hear when this was.
        match self.plug.nodes.tell(&self.plug.notes, &limit) {
            Ok(()) => self.told = true,
            Err(text) => log::warning(format_args!("the other nodes cannot be told that an end was not seen: {text}")),
        }
        loop {
            let Some(note) = &mut self.note else { return false };
            self.plug.close(note);
            if !note.ends.iter().any(|end| end.over.is_some() && !self.stands.contains(end)) {
                return true;
            }
            if !limit.pause(RETRY) {
                return false;
            }
        }
    }

    /// A note about the guest that this is a copy of, with the ends that were begun before; `hosts` are all that have it, and it leaves the one
    /// given.
    fn about(&self, copy: &Victim, hosts: &[usize], leaves: Option<usize>) -> Note {
        let before = self.note.as_ref();
        // A copy on another host shows where the move led to; of one that was noted by an earlier action another move may have begun since, which
        // comes from where nobody is asked.
        let is_elsewhere =
            |left: &str| !(self.left_before && copy.moving != Moving::No) && hosts.iter().any(|host| self.plug.pool.label(*host) != left);
        let leaves = leaves.map(|host| self.plug.pool.label(host).to_owned());
        let left = leaves.or_else(|| before.and_then(|note| note.left.clone())).filter(|left| !is_elsewhere(left));
        Note {
            name: copy.name.clone(),
            uuid: copy.uuid.clone(),
            host: self.plug.pool.label(copy.host).to_owned(),
            // Of a copy that is coming in nothing is read; what was kept of the other one before is right.
            xml: copy.xml.clone().or_else(|| before.filter(|_| copy.moving != Moving::No).and_then(|note| note.xml.clone())),
            // What may have left does not count as ended.
            at: if left.is_none() { note::now() } else { 0 },
            left,
            ends: before.map(|note| note.ends.clone()).unwrap_or_default(),
        }
    }

    /// Takes down that it has not left this host.
    fn stayed(&mut self, host: usize) {
        let label = self.plug.pool.label(host);
        if let Some(note) = self.note.as_mut().filter(|note| note.left.as_deref() == Some(label)) {
            (note.left, note.at) = (None, note::now());
        }
    }

    /// Takes down how it went on one host by the time given; `before` are the ends that were begun in earlier rounds, or by earlier actions.
    fn learn(&mut self, host: usize, end: End, time: u64, before: &[Begun]) -> std::result::Result<Ended, Failed> {
        let label = self.plug.pool.label(host);
        log::info(format_args!("{} at {label}: {end:?}", self.plug.target.word));
        match end {
            End::Ended => {
                self.pending.remove(&host);
                self.note.iter_mut().for_each(|note| note.ended(label, &self.stands));
                Ok(Ended::Proven)
            }
            End::Gone => Ok(Ended::Unseen),
            End::Refused(error) => {
                self.pending.entry(host).or_insert_with(deadline::now);
                if is_no(&error) {
                    self.note.iter_mut().for_each(|note| note.ended(label, before));
                }
                Err(Failed::ForNow(error))
            }
            // The process table of this host will tell.
            End::Unproven(_) if self.plug.pool.is_local(host) => Ok(Ended::Unseen),
            End::Unproven(text) => Err(Failed::ForGood(self.unproven(host, &text))),
            End::Overtaken(_) if self.plug.pool.is_local(host) => Ok(Ended::Unseen),
            End::Overtaken(text) => {
                self.note.iter_mut().for_each(|note| note.overtaken(label, time, &self.stands));
                Err(Failed::Overtaken(self.unproven(host, &text)))
            }
        }
    }

    fn unproven(&self, host: usize, text: &str) -> Error {
        let label = self.plug.pool.label(host);
        let file = self.note.as_ref().map(|note| format!(" ({})", note.path(&self.plug.notes).display())).unwrap_or_default();
        self.plug.failure(format_args!("its end at {label} is not proven, which is noted{file}: {text}"))
    }
}
