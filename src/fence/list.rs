//! All guests of all hosts, for a person or a program that looks for a plug.

use super::host::Entry;
use super::note::{self, Note};
use super::plug::PAUSE;
use super::pool::Pool;
use super::report::Report;
use super::told::{Nodes, Told, Word};
use crate::deadline::Deadline;
use crate::domain::{Error, Result};
use crate::log;
use std::collections::BTreeMap;

/// The guests, by name and UUID, and whether each runs anywhere.
type Guests = BTreeMap<(String, String), bool>;

/// Their names and UUIDs.
pub(super) fn list(pool: &Pool, separator: &str, deadline: &Deadline) -> Report {
    let (guests, complaints) = ask(pool, deadline);
    report(&guests, complaints, |name, uuid, _| format!("{name}{separator}{uuid}\n"))
}

/// The same, with whether they run. What forbids `status` to say that a guest is off does so here: it was met by only one of two rounds, a host that
/// cannot be asked, or an end that was not seen.
pub(super) fn list_status(pool: &Pool, nodes: &Nodes, separator: &str, deadline: &Deadline) -> Report {
    let (mut guests, mut complaints) = ask(pool, deadline);
    if complaints.is_empty() && guests.values().any(|active| !active) {
        let _ = deadline.pause(PAUSE);
        let (again, late) = ask(pool, deadline);
        again.into_iter().for_each(|(guest, active)| *guests.entry(guest).or_default() |= active);
        complaints = late;
    }
    let doubts = match complaints.is_empty().then(|| doubts(nodes)) {
        Some(Ok(doubts)) => doubts,
        Some(Err(error)) => {
            complaints.push(error.text);
            Vec::new()
        }
        None => Vec::new(),
    };
    let asked = complaints.is_empty();
    report(&guests, complaints, |name, uuid, active| {
        let in_doubt = || doubts.iter().any(|(other, number)| other == name || number == uuid);
        let state = if active {
            "ON"
        } else if asked && !in_doubt() {
            "OFF"
        } else {
            "UNKNOWN"
        };
        format!("{name}{separator}{uuid}{separator}{state}\n")
    })
}

/// Asks all hosts once. Also gives what those say that cannot tell.
fn ask(pool: &Pool, deadline: &Deadline) -> (Guests, Vec<String>) {
    let (mut guests, mut complaints) = (Guests::new(), Vec::new());
    for answer in pool.list(deadline) {
        match answer {
            Ok(entries) => {
                for Entry { name, uuid, active } in entries {
                    *guests.entry((name, uuid)).or_default() |= active;
                }
            }
            Err(Error { text, .. }) => complaints.push(text),
        }
    }
    (guests, complaints)
}

/// The names and UUIDs of guests that may live although no host says so, by the notes of this node and the words of the others.
fn doubts(nodes: &Nodes) -> Result<Vec<(String, String)>> {
    let folder = note::folder();
    let heard = nodes.hear(&folder, true)?;
    let is_open = |uuid: &str, end: &note::Begun| !heard.iter().any(|told| told.proves(uuid, end));
    let notes = Note::all(&folder)?.into_iter();
    let own = notes.filter(|note| note.left.is_some() || note.ends.iter().any(|end| end.is_open() && is_open(&note.uuid, end)));
    let others = heard.iter().filter(|told| match &told.word {
        Word::Proven(_) => false,
        Word::Left(_) => true,
        Word::Unseen(end) => is_open(&told.uuid, end),
    });
    let others = others.map(|Told { name, uuid, .. }| (name.clone(), uuid.clone()));
    Ok(own.map(|note| (note.name, note.uuid)).chain(others).collect())
}

/// A line for each.
fn report(guests: &Guests, complaints: Vec<String>, line: impl Fn(&str, &str, bool) -> String) -> Report {
    let names: Vec<&String> = guests.keys().map(|(name, _)| name).collect();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        log::warning(format_args!("{} is the name of different guests", pair[0]));
    }
    let output = guests.iter().map(|((name, uuid), active)| line(name, uuid, *active)).collect();
    Report { code: u8::from(!complaints.is_empty()), output, complaints }
}
