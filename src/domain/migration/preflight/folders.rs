//! Folders of this host, and whether they are the same at the target.

use super::reader::{Answer, TRIES, ask};
use crate::deadline::{Deadline, Task};
use crate::domain::connection::Connection;
use crate::log;
use crate::storage::finding::LOOK;
use crate::storage::nonce::Nonce;
use crate::storage::{Kind, Role};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder here, by its name there, with what was said of it.
pub(super) struct Folder {
    pub(super) here: PathBuf,
    pub(super) there: PathBuf,
    pub(super) answer: Answer,
    pub(super) nonce: Option<Nonce>,
}

/// Which are to be asked for, by their names here and there, and how often each.
pub(super) type Wanted = BTreeMap<(PathBuf, PathBuf), u32>;

/// How often a folder is asked for. Where a host keeps the states of its TPMs is usually its own: that it is not there is then no matter of
/// time, and only worth a warning.
pub(super) fn tries_for(role: Role, kind: Kind) -> u32 {
    if role == Role::Tpm && matches!(kind, Kind::Local | Kind::Zfs) { 1 } else { TRIES }
}

/// Asks for all at once. The links are put beside each word, and all of that stays until [`take_away`].
pub(super) fn ask_all(folders: Wanted, links: &[PathBuf], there: &Connection, deadline: &Deadline) -> Vec<Folder> {
    let unwritten = |folder: &Path, text: &str| Answer::Unknown(format!("no proof can be written to {}: {text}", folder.display()));
    let start = |((here, place), tries): ((PathBuf, PathBuf), u32)| {
        let nonce = match Nonce::new(&here) {
            Ok(nonce) => nonce,
            Err(error) => return (Folder { answer: unwritten(&here, &error.to_string()), here, there: place, nonce: None }, None),
        };
        let (links, there, deadline) = (links.to_vec(), there.clone(), *deadline);
        let (mine, name) = (nonce.clone(), place.clone());
        let task = Task::start(move || match mine.put(&links, &deadline.within(LOOK)) {
            Ok(()) => ask(&there, &name, &mine, tries, &deadline),
            Err(text) => unwritten(&mine.folder, &text),
        });
        (Folder { here, there: place, answer: Answer::Silent("no answer in time".to_owned()), nonce: Some(nonce) }, Some(task))
    };
    let begun: Vec<_> = folders.into_iter().map(start).collect();
    // Time is left for the links, and for taking it away again.
    let limit = deadline.before_part(4);
    begun
        .into_iter()
        .map(|(folder, task)| Folder { answer: task.and_then(|task| task.wait(&limit)).unwrap_or(folder.answer), ..folder })
        .collect()
}

/// Takes away what was put into folders to ask for them.
pub(super) fn take_away<'a>(nonces: impl IntoIterator<Item = &'a Nonce>, deadline: &Deadline) {
    for nonce in nonces {
        if let Err(text) = nonce.take(&deadline.within(LOOK)) {
            log::warning(format_args!("{} in {} is left: {text}", nonce.name, nonce.folder.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_hosts_have_each_for_itself_is_asked_for_once() {
        assert_eq!(tries_for(Role::Tpm, Kind::Local), 1);
        assert_eq!(tries_for(Role::Tpm, Kind::Nfs), TRIES, "its clients may be behind");
        assert_eq!(tries_for(Role::Disk, Kind::Local), TRIES, "a cluster's file system may be one that is not known");
    }
}
