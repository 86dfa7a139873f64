//! What the nodes of the cluster tell each other of ends that were not seen, and of moves that may have led out of sight before the end. The note
//! of such an end is on one node; Pacemaker, whose `off` failed there, asks the next node, which knows nothing of it
//! (`request_peer_fencing` in Pacemaker's `daemons/fenced/fenced_remote.c`).
//!
//! Each node has one attribute for all of them, and one for what allows to say "off" again, in the memory of the cluster's attribute daemons alone:
//! they end with the node's membership.

use super::limits::Caller;
use super::note::{self, Begun, Note};
use crate::cluster;
use crate::cluster::fencing::SKEW;
use crate::cluster::tool::Trouble;
use crate::deadline::Deadline;
use crate::domain::{Error, Kind, Result};
use crate::log;
use crate::percent;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The attribute for what forbids to say "off". Nothing new may be told in it: while a cluster is upgraded it is read by versions that fail, for
/// every guest, at a word that they do not know.
pub(super) const NAME: &str = "kvmha-unseen-ends";

/// The attribute for what allows it again: proofs, and when the ends of the other attribute were over. Who does not know it waits in vain, no more.
pub(super) const SEEN: &str = "kvmha-seen-ends";

/// For one call of the attribute daemon, on a busy node.
const CALL: Duration = Duration::from_secs(2);

/// For all attempts to tell the others: the daemon may be starting again.
pub(super) const TELLING: Duration = Duration::from_secs(8);

/// Between two of them, and between two questions to nodes that may soon know more.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// How long a proof counts. Who waits for one, or calls the agent once more, does so within minutes.
const PROOF: Duration = Duration::from_secs(600);

/// What another node knows of a guest that forbids to say "off", or allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The node.
    pub(super) by: String,
    /// The guest's name.
    pub(super) name: String,
    /// Its UUID.
    pub(super) uuid: String,
    /// What is said of its end on a host.
    pub(super) word: Word,
}

impl Told {
    /// Whether it says that this end of this guest was seen after all.
    pub(super) fn proves(&self, uuid: &str, end: &Begun) -> bool {
        self.uuid == uuid && matches!(&self.word, Word::Proven(proof) if proof.is_of(end))
    }

    /// Whether it is a proof that counts still. One that is older may be of before a clock was set.
    fn is_recent_proof(&self) -> bool {
        matches!(&self.word, Word::Proven(proof) if note::now().abs_diff(proof.done) < PROOF.as_secs())
    }

    /// Whether it is about the same end of the same guest as another word.
    pub(super) fn is_about(&self, other: &Self) -> bool {
        match (&self.word, &other.word) {
            (Word::Unseen(one), Word::Unseen(two)) => self.uuid == other.uuid && one.host == two.host && one.begun == two.begun,
            _ => false,
        }
    }

    /// Whether it says that who began this end, and told of it, has seen it.
    pub(super) fn settles(&self, other: &Self) -> bool {
        match (&self.word, &other.word) {
            (Word::Proven(proof), Word::Unseen(end)) => {
                self.by == other.by && self.uuid == other.uuid && proof.host == end.host && proof.begun >= end.begun
            }
            _ => false,
        }
    }

    /// Takes over from another word about the same end when that was over.
    fn amend(&mut self, other: &Self) {
        if self.is_about(other) {
            self.word = other.word.clone();
        }
    }
}

/// What a node says of an end. Its times are by that node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is not known whether its emulator is gone.
    Unseen(Begun),
    /// It is not known whether it had left this host for one that is not asked.
    Left(String),
    /// The emulator is gone: libvirt has ended it for that node, in an ordinary time.
    Proven(Proof),
}

/// An end that libvirt made for who asked for it, while others may have waited for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// On this host.
    pub(super) host: String,
    /// When it was begun, in seconds since 1970.
    pub(super) begun: u64,
    /// When libvirt said that it was done, by a clock that goes on evenly from there.
    pub(super) done: u64,
}

impl Proof {
    /// Whether the emulator that this end was to end is the one that is gone: libvirt had it in its hands for both at one time, and has no
    /// other one of that guest then. An end of which nobody knows when it was over may have been for a later run.
    pub(super) fn is_of(&self, end: &Begun) -> bool {
        let Some(over) = end.over else { return false };
        self.host == end.host && self.begun.saturating_add(SKEW) <= over && end.begun.saturating_add(SKEW) <= self.done
    }
}

/// Stands for [`Word::Left`] in the attribute, where the others have their times; and what comes before those of [`Word::Proven`].
const LEFT: &str = "left";
/// See [`LEFT`].
const PROVEN: &str = "proven-";

/// What this node knows itself, and what it has told.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// How this node calls itself, and the id of its boot: names can be alike (`localhost`), and containers of one machine have one boot.
    pub(super) here: (String, String),
    /// Whether it is in a cluster for certain, so that it has to know what the others say.
    pub(super) certain: bool,
    /// What was proven here of late, and others may wait for.
    pub(super) proofs: Arc<Mutex<Vec<Told>>>,
}

impl Nodes {
    pub(super) fn new(caller: Caller) -> Self {
        let of_kernel = |what| std::fs::read_to_string(Path::new("/proc/sys/kernel").join(what)).unwrap_or_default().trim().to_owned();
        let here = (of_kernel("hostname"), of_kernel("random/boot_id"));
        Self { here, certain: caller == Caller::Fencer, proofs: Arc::default() }
    }

    /// What other nodes have not seen, and what any node has proven. What this one has told is made to be what is in `folder`, where a person may
    /// have removed something. `whole`: also what is proven of ends that nobody tells of any more.
    ///
    /// # Errors
    /// They are not known, and this node is in a cluster for certain.
    pub(super) fn hear(&self, folder: &Path, whole: bool) -> Result<Vec<Told>> {
        let (values, seen) = match self.ask(whole) {
            Ok(answers) => answers,
            // Nothing can be told either.
            Err(Trouble::Missing(_)) => return Ok(self.proofs()),
            Err(trouble) if !self.certain => {
                log::debug(|| trouble.to_string());
                return Ok(self.proofs());
            }
            Err(trouble) => {
                let what = "the cluster cannot be asked whether another node has begun to end it and not seen its end";
                return Err(Error::new(Kind::Internal, format!("{what}: {trouble}")));
            }
        };
        let (mut heard, mut is_current) = (Vec::new(), true);
        for (node, value) in values {
            let Some((by, mut ends)) = read(&value) else {
                return Err(Error::new(Kind::Internal, format!("the attribute {NAME} of {node} is not understood: {value:?}")));
            };
            if by == self.here {
                is_current = self.value(folder)?.as_ref() == Some(&value);
                continue;
            }
            let over = seen.iter().filter(|(other, _)| *other == by).flat_map(|(_, ends)| ends);
            over.for_each(|over| ends.iter_mut().for_each(|end| end.amend(over)));
            heard.extend(ends);
        }
        for told in seen.into_iter().filter(|(by, _)| *by != self.here).flat_map(|(_, ends)| ends) {
            heard.extend(Some(told).filter(Told::is_recent_proof));
        }
        if !is_current {
            self.correct(folder);
        }
        heard.extend(self.proofs());
        Ok(heard)
    }

    /// Has the others know, whenever they are told something, that this end is proven.
    pub(super) fn prove(&self, told: Told) {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        if !proofs.contains(&told) {
            proofs.push(told);
        }
    }

    fn proofs(&self) -> Vec<Told> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for what all nodes have told. What they have seen is asked for later than what they have not: an end goes out of the one only when its proof
    /// stands in the other.
    fn ask(&self, whole: bool) -> std::result::Result<(Values, Vec<Ends>), Trouble> {
        let values = self.ask_for(NAME)?;
        let seen = if whole || !values.is_empty() { self.seen() } else { Vec::new() };
        Ok((values, seen))
    }

    /// What all nodes have seen, as far as that is understood: what is not known of it allows nothing.
    fn seen(&self) -> Vec<Ends> {
        let values = self.ask_for(SEEN).unwrap_or_else(|trouble| {
            log::debug(|| trouble.to_string());
            Vec::new()
        });
        let mut seen: Vec<Ends> = values.iter().filter_map(|(_, value)| read(value)).collect();
        // What an earlier action has proven is in no file.
        for (_, ends) in seen.iter_mut().filter(|(by, _)| *by == self.here) {
            ends.drain(..).filter(Told::is_recent_proof).for_each(|told| self.prove(told));
        }
        seen
    }

    /// Asks for an attribute of all nodes, and once more if that fails: the daemon may be starting again.
    fn ask_for(&self, name: &'static str) -> std::result::Result<Values, Trouble> {
        #[cfg(test)]
        if crate::simulation::is_on() {
            return Ok(crate::simulation::world(|world| world.told_by_now(name)));
        }
        if self.is_alone() {
            return Ok(Vec::new());
        }
        let deadline = Deadline::after(CALL);
        match cluster::attribute(name, &deadline) {
            Err(trouble @ Trouble::Failed(..)) if deadline.pause(CALL / 4) => cluster::attribute(name, &deadline).map_err(|_| trouble),
            answer => answer,
        }
    }

    /// Whether there is nobody to be asked or told. A person may call where no cluster is, and need not wait for a tool that finds that out.
    pub(super) fn is_alone(&self) -> bool {
        !self.certain && !std::fs::read_to_string("/proc/net/unix").is_ok_and(|sockets| has_daemon(&sockets))
    }

    /// Tells the others what was begun here and not seen, again until they know: nothing else keeps them from saying "off".
    ///
    /// # Errors
    /// They do not know by the deadline, and why.
    pub(super) fn tell(&self, folder: &Path, deadline: &Deadline) -> std::result::Result<(), String> {
        if self.is_alone() {
            return Ok(());
        }
        let has_said = self.seen().iter().any(|(by, _)| *by == self.here);
        let failed = |error: Error| error.text;
        let (value, seen) = (self.value(folder).map_err(failed)?, self.value_of_seen(folder).map_err(failed)?);
        let mut is_said = seen.is_none() && !has_said;
        loop {
            let set = |name, value: &Option<String>| set(name, &self.id(), value.as_deref(), &deadline.within(CALL));
            // The proof of what is taken back comes first.
            let first = if is_said { Ok(()) } else { set(SEEN, &seen) };
            is_said |= first.is_ok();
            match set(NAME, &value).and(first) {
                // Nobody is there to be told.
                Ok(()) | Err(Trouble::Missing(_)) => return Ok(()),
                Err(_) if deadline.pause(RETRY) => {}
                Err(trouble) => return Err(trouble.to_string()),
            }
        }
    }

    /// Tells them that less is unseen than they were told, which can wait for another action of this node.
    pub(super) fn correct(&self, folder: &Path) {
        if let Err(text) = self.tell(folder, &Deadline::after(CALL)) {
            log::warning(format_args!("the other nodes cannot be told which ends were not seen: {text}"));
        }
    }

    /// How this node begins what it tells.
    fn id(&self) -> String {
        format!("{} {}", escaped(&self.here.0), escaped(&self.here.1))
    }

    /// What is to be told of ends that were not seen, and of moves.
    fn value(&self, folder: &Path) -> Result<Option<String>> {
        let mut words = Vec::new();
        for note in Note::all(folder)? {
            words.extend(note.ends.iter().map(|end| written(&note.name, &note.uuid, &end.host, &end.begun.to_string())));
            words.extend(note.left.iter().map(|left| written(&note.name, &note.uuid, left, LEFT)));
        }
        Ok(self.joined(words))
    }

    /// What is to be told that can close such ends.
    fn value_of_seen(&self, folder: &Path) -> Result<Option<String>> {
        let mut words = Vec::new();
        for note in Note::all(folder)? {
            let over = |end: &Begun| Some(written(&note.name, &note.uuid, &end.host, &format!("{}-{}", end.begun, end.over?)));
            words.extend(note.ends.iter().filter_map(over));
        }
        for Told { name, uuid, word, .. } in self.proofs() {
            if let Word::Proven(Proof { host, begun, done }) = word {
                words.push(written(&name, &uuid, &host, &format!("{PROVEN}{begun}-{done}")));
            }
        }
        Ok(self.joined(words))
    }

    fn joined(&self, words: Vec<String>) -> Option<String> {
        (!words.is_empty()).then(|| [vec![self.id()], words].concat().join(","))
    }
}

/// Whether the attribute daemon listens, by the text of `/proc/net/unix`: as a socket of libqb it is `@attrd` with NULs, shown as more `@`, or in a
/// folder (seen with Pacemaker 2.1.5).
fn has_daemon(sockets: &str) -> bool {
    sockets.lines().any(|line| line.split_whitespace().nth(7).is_some_and(|path| path.contains("attrd")))
}

/// The values of an attribute, with the nodes' names.
type Values = Vec<(String, String)>;

/// What a node has told: who it is, and the ends.
type Ends = ((String, String), Vec<Told>);

/// Understands that. A word that a later version may tell of a guest forbids to call this one off, and no other.
pub(super) fn read(value: &str) -> Option<Ends> {
    let mut parts = value.split(',');
    let (by, boot) = parts.next()?.split_once(' ')?;
    let (by, boot) = (percent::decode(by)?, percent::decode(boot)?);
    let end = |text: &str| {
        let mut words = text.splitn(4, ' ');
        let mut word = || percent::decode(words.next()?);
        let (name, uuid, host, what) = (word()?, word()?, word()?, word()?);
        let pair = |text: &str| text.split_once('-').and_then(|(begun, end)| Some((begun.parse().ok()?, end.parse().ok()?)));
        let word = if what == LEFT {
            Word::Left(host)
        } else if let Some((begun, done)) = what.strip_prefix(PROVEN).and_then(pair) {
            Word::Proven(Proof { host, begun, done })
        } else if let Some((begun, over)) = pair(&what) {
            Word::Unseen(Begun { host, begun, over: Some(over) })
        } else {
            // Nothing that was seen is later than what is not known.
            Word::Unseen(Begun { host, begun: what.parse().unwrap_or(u64::MAX), over: None })
        };
        Some(Told { by: by.clone(), name, uuid, word })
    };
    let ends = parts.map(end).collect::<Option<Vec<_>>>()?;
    Some(((by, boot), ends))
}

/// One thing that is told of a guest.
fn written(name: &str, uuid: &str, host: &str, word: &str) -> String {
    format!("{} {} {} {word}", escaped(name), escaped(uuid), escaped(host))
}

/// A word as it can stand in an attribute: nothing in it is special to XML, to a reader of lines, or to the attribute daemon, which counts
/// ("++").
fn escaped(text: &str) -> String {
    percent::encode(text, |byte| byte.is_ascii_alphanumeric() || b"/-_.:@".contains(&byte))
}

/// Has `here` tell it.
fn set(name: &'static str, here: &str, value: Option<&str>, deadline: &Deadline) -> std::result::Result<(), Trouble> {
    #[cfg(test)]
    if crate::simulation::is_on() {
        return crate::simulation::world(|world| {
            if let Some(left) = world.mute.checked_sub(1) {
                world.mute = left;
                return Err(Trouble::Failed(102, "Could not connect to attribute manager".to_owned()));
            }
            match value {
                Some(value) => world.told.insert((name, here.to_owned()), value.to_owned()),
                None => world.told.remove(&(name, here.to_owned())),
            };
            Ok(())
        });
    }
    let _ = here;
    cluster::set_private(name, value, deadline)
}

#[cfg(test)]
mod tests;
