//! Pacemaker's log, and what in it matters.

use lab::history::Outcome;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A line of Pacemaker's log that matters.
pub enum Event {
    Begun {
        node: String,
        guest: String,
        name: String,
    },
    Ended {
        node: String,
        guest: String,
        name: String,
        text: String,
    },
    /// On a node; by whomever that was asked for.
    Forgotten {
        guest: String,
    },
    /// With the time of day that stands before it, in seconds.
    Lost {
        node: String,
        day: f64,
    },
}

/// Files that grow, and how far each was read.
#[derive(Default)]
pub struct Growing(BTreeMap<PathBuf, u64>);

impl Growing {
    /// The lines that a file got since it was read last; whole ones only.
    pub fn lines(&mut self, path: &Path) -> Vec<String> {
        let offset = self.0.entry(path.to_owned()).or_default();
        let Ok(mut file) = fs::File::open(path) else { return Vec::new() };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(*offset)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return Vec::new();
        }
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        *offset += end as u64 + 1;
        String::from_utf8_lossy(&bytes[..end]).lines().map(str::to_owned).collect()
    }
}

/// "… Requesting local execution of stop operation for vm1 on node1 …" and "… Result of stop operation for vm1 on node1: ok …".
pub fn event(line: &str) -> Option<Event> {
    let words = |text: &str| -> Option<(String, String, String)> {
        let (action, rest) = text.split_once(" operation for ")?;
        let (guest, rest) = rest.split_once(" on ")?;
        let node = rest.split([':', ' ']).next()?;
        guest.starts_with("vm").then(|| {
            // A recurring one is called "10s-interval monitor".
            let name = action.rsplit(' ').next().unwrap_or(action);
            (name.to_owned(), guest.to_owned(), node.to_owned())
        })
    };
    if let Some((head, _)) = line.split_once(" state is now lost")
        && head.contains("pacemaker-based")
    {
        let node = head.rsplit(' ').next()?.to_owned();
        return Some(Event::Lost { node, day: day_of(line.split_whitespace().nth(2)?)? });
    }
    if let Some((_, text)) = line.split_once("Requesting local execution of ") {
        let (name, guest, node) = words(text)?;
        return Some(Event::Begun { node, guest, name });
    }
    // "… Removing resource vm1 from executor for crm_resource …"
    if let Some((_, text)) = line.split_once("Removing resource ") {
        let (guest, _) = text.split_once(" from executor for ")?;
        return guest.starts_with("vm").then(|| Event::Forgotten { guest: guest.to_owned() });
    }
    let (_, text) = line.split_once("Result of ")?;
    let (name, guest, node) = words(text)?;
    let (_, answer) = text.split_once(": ")?;
    // A recurring monitor that ends is no answer.
    if answer.starts_with("Cancelled") {
        return None;
    }
    Some(Event::Ended { node, guest, name, text: answer.split(" | ").next().unwrap_or(answer).to_owned() })
}

/// `HH:MM:SS.mmm` in seconds.
pub fn day_of(text: &str) -> Option<f64> {
    text.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

/// By Pacemaker's words for an answer. A probe that finds nothing has done its work.
pub fn outcome_of(text: &str) -> Outcome {
    match text {
        _ if text.starts_with("ok") || text.starts_with("not running") => Outcome::Done,
        _ if text.starts_with("Timed Out") || text.starts_with("Timed out") => Outcome::Late,
        _ => Outcome::Failed,
    }
}
