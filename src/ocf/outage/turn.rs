//! Whose turn it is on this node: one guest at a time is given up for another node (`outage_policy=relocate`), for a place there is taken by
//! the first, and a node that hangs in its storage loses one of libvirtd's few workers (`max_workers`) to each question.

use crate::deadline::{Deadline, seconds_since_boot};
use crate::log;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Between two looks whether the turn of another guest is over.
const AGAIN: Duration = Duration::from_millis(100);

/// For how many seconds a node is not asked any more that gave no answer; twice as long after each further time, up to [`LONGEST`].
const LEFT_ALONE: i64 = 600;
const LONGEST: i64 = 16 * LEFT_ALONE;

/// What the guests of this node share. Times are seconds since boot, as the file lives as long as the boot.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Shared {
    /// Which nodes gave no answer, when, and for how long they are left alone for that.
    silent: BTreeMap<String, (i64, i64)>,
    /// Which resources were given up here, and when.
    given_up: BTreeMap<String, i64>,
}

/// A turn: as long as it is there, no other call of this node has one. The kernel ends it with the process.
pub(super) struct Turn {
    file: Flock<File>,
    shared: Shared,
    now: i64,
}

impl Turn {
    /// Waits for it; `None` if it does not come, or the file cannot be had. Who was given up within `lately` seconds is remembered.
    pub(super) fn take(directory: &Path, lately: i64, deadline: &Deadline) -> Option<Self> {
        let path = directory.join("relocation");
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(directory).and_then(|()| {
            let mut options = File::options();
            options.create(true).read(true).write(true).truncate(false).mode(0o600).open(&path)
        });
        let mut file = opened.inspect_err(|error| log::warning(format_args!("{} cannot be opened: {error}", path.display()))).ok()?;
        let mut file = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => break locked,
                Err((unlocked, _)) if deadline.pause(AGAIN) => file = unlocked,
                Err(_) => return None,
            }
        };
        let mut text = Vec::new();
        let read = file.read_to_end(&mut text).ok().and_then(|_| serde_json::from_slice::<Shared>(&text).ok());
        let (mut shared, now) = (read.unwrap_or_default(), seconds_since_boot());
        // Kept for as long again after the node may be asked anew: it has not answered since.
        shared.silent.retain(|_, (since, alone)| (0..alone.saturating_mul(2)).contains(&(now - *since)));
        shared.given_up.retain(|_, since| (0..lately).contains(&(now - *since)));
        Some(Self { file, shared, now })
    }

    /// Whether this node gave no answer lately, and is not asked.
    pub(super) fn leaves_alone(&self, node: &str) -> bool {
        self.shared.silent.get(node).is_some_and(|(since, alone)| self.now - since < *alone)
    }

    /// The other guests that were given up here lately.
    pub(super) fn given_up(&self) -> impl Iterator<Item = &str> {
        self.shared.given_up.keys().map(String::as_str)
    }

    /// This node gave no answer. For how many seconds it is not asked now.
    pub(super) fn note_silent(&mut self, node: &str) -> i64 {
        let alone = self.shared.silent.get(node).map_or(LEFT_ALONE, |(_, alone)| alone.saturating_mul(2).clamp(LEFT_ALONE, LONGEST));
        self.shared.silent.insert(node.to_owned(), (self.now, alone));
        self.keep();
        alone
    }

    /// This node gave an answer.
    pub(super) fn note_answer(&mut self, node: &str) {
        if self.shared.silent.remove(node).is_some() {
            self.keep();
        }
    }

    /// This resource is given up.
    pub(super) fn note_given_up(&mut self, resource: &str) {
        self.shared.given_up.insert(resource.to_owned(), self.now);
        self.keep();
    }

    /// In place: the lock is the file's. What is cut short by an end of the process is no JSON, and nothing is remembered then.
    fn keep(&mut self) {
        let text = serde_json::to_vec(&self.shared).unwrap_or_default();
        let written = self.file.rewind().and_then(|()| self.file.set_len(0)).and_then(|()| self.file.write_all(&text));
        if let Err(error) = written {
            log::warning(format_args!("what was asked of other nodes cannot be noted: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(root: &Path, patience: Duration) -> Option<Turn> {
        Turn::take(root, 600, &Deadline::after(patience))
    }

    #[test]
    fn one_at_a_time_and_what_it_learnt_is_the_next_ones() {
        let root = tempfile::tempdir().unwrap();
        let mut first = turn(root.path(), Duration::from_secs(20)).unwrap();
        assert!(turn(root.path(), Duration::from_millis(1)).is_none(), "two at a time");
        assert!(!first.leaves_alone("node2"));
        assert_eq!(first.note_silent("node2"), LEFT_ALONE);
        first.note_given_up("vm1");
        drop(first);
        let next = turn(root.path(), Duration::from_secs(20)).unwrap();
        assert!(next.leaves_alone("node2") && !next.leaves_alone("node3"));
        assert_eq!(next.given_up().collect::<Vec<_>>(), ["vm1"]);
    }

    #[test]
    fn what_is_old_or_nonsense_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("relocation");
        let old = seconds_since_boot() - 1201;
        let of_old = format!("{{\"silent\":{{\"node2\":{}}}}}", seconds_since_boot());
        for text in [format!("{{\"silent\":{{\"node2\":[{old},600]}},\"given_up\":{{\"vm1\":{old}}}}}"), of_old, "{".into(), String::new()]
        {
            std::fs::write(&path, text).unwrap();
            let turn = turn(root.path(), Duration::from_secs(20)).unwrap();
            assert!(!turn.leaves_alone("node2") && turn.given_up().next().is_none());
        }
    }

    #[test]
    fn a_node_that_stays_silent_is_asked_ever_more_seldom() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("relocation");
        let at = |since: i64, alone: i64| {
            std::fs::write(&path, format!("{{\"silent\":{{\"node2\":[{},{alone}]}}}}", seconds_since_boot() - since)).unwrap();
            turn(root.path(), Duration::from_secs(20)).unwrap()
        };
        assert!(at(590, 600).leaves_alone("node2") && !at(610, 600).leaves_alone("node2"));
        assert_eq!(at(610, 600).note_silent("node2"), 1200);
        assert!(at(610, 1200).leaves_alone("node2"));
        assert_eq!(at(LONGEST + 10, LONGEST).note_silent("node2"), LONGEST);
        // One that has answered meanwhile, or was not asked for long, begins anew.
        let mut answered = at(610, 600);
        answered.note_answer("node2");
        assert_eq!(answered.note_silent("node2"), LEFT_ALONE);
        drop(answered);
        assert_eq!(at(1210, 600).note_silent("node2"), LEFT_ALONE);
    }
}
