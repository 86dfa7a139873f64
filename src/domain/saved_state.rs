//! A guest's saved state (`snapshot`): its memory in a file, from which it goes on later.
//!
//! A state belongs to the disks as they were when it was written; a guest that is booted, or goes on, writes to them, and the state would
//! then destroy them. So a state that was used, or whose guest ran on without it, is taken out of the way before that can happen:
//!
//! | name | what it is |
//! |---|---|
//! | `NAME.state` | to be restored; libvirt marks one that it has not written to its end, and does not take it |
//! | `NAME.state.restored` | being used: the guest was created from it, and may run |
//! | `NAME.state.outdated-TIME` | the guest has run since, or it is not whole: kept for a person, never used |

use super::connection::{Connection, Guest};
use super::definition::{Definition, Identity};
use super::ending;
use super::files::Look;
use super::{Condition, Error, Kind, Result, Uri, ffi, files, status};
use crate::deadline::{Deadline, Task, unix_time};
use crate::log;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// By how much a disk may be younger than the state: the emulator closes its images when the state is written.
const SLACK: Duration = Duration::from_secs(10);

/// Where the state of a guest is kept in `folder`.
#[must_use]
pub fn place(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.state"))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Saves the state of the guest to `file` and ends it; says whether it did. One that is not running, has a fault in its memory, or could not be
/// saved in time, goes on: the caller ends it in another way.
///
/// # Errors
/// The state was not saved, and why.
pub fn save(identity: &Identity, uri: &Uri, file: &Path, deadline: &Deadline) -> Result<bool> {
    match status::ask(identity, uri, &deadline.share(Duration::from_secs(10), 4))? {
        Some((condition, _)) if is_worth_saving(condition) => {}
        Some((condition, _)) if condition.stays_paused() => {
            retire(file, deadline)?;
            return Err(Error::new(Kind::State, format!("its memory may have a fault, it is {condition}")));
        }
        _ => return Ok(false),
    }
    retire(file, deadline)?;
    let connection = Connection::open(&uri.to_string(), deadline)?;
    let Some(guest) = connection.guest(&identity.name, deadline)? else { return Ok(false) };
    let text = file.to_string_lossy().into_owned();
    log::info(format_args!("saving the state of {} to {text}", identity.name));
    let saver = guest.clone();
    let task = Task::start(move || saver.call("saving", &Deadline::never(), move |domain| ffi::save(domain, &text)));
    // Ending the guest must still be possible afterwards, by asking it.
    let working = deadline.before(ending::reserve(deadline));
    match task.wait(&working.within(working.left() * 2 / 3)) {
        Some(result) => result?,
        None => call_off(&guest, &task, &working)?,
    }
    log::info(format_args!("the state of {} is saved in {}", identity.name, file.display()));
    Ok(true)
}

/// Whether it would go on well from its memory. What a fault has paused would come back with that fault; an error of its storage is not in it.
fn is_worth_saving(condition: Condition) -> bool {
    condition.runs() || matches!(condition, Condition::PAUSED_USER | Condition::PAUSED_IO_ERROR)
}

fn call_off(guest: &Guest, task: &Task<Result<()>>, deadline: &Deadline) -> Result<()> {
    if let Err(error) = guest.call("calling off the saving of", &deadline.within(Duration::from_secs(3)), ffi::abort_job) {
        log::warning(error);
    }
    match task.wait(&deadline.part(2)) {
        // It ended well while it was being called off.
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(Error::new(Kind::TimedOut, format!("saving did not end in time and was called off: {}", error.text))),
        None => Err(Error::new(Kind::Unresponsive, "saving did not end in time and could not be called off")),
    }
}

/// Takes what is there for a guest that runs out of the way: it has run without that state, or from it.
///
/// # Errors
/// As for [`files::look`]: it is there as it was.
pub fn retire(file: &Path, deadline: &Deadline) -> Result<()> {
    let used = beside(file, ".restored");
    let looks = files::look(&[file, &used], deadline)?;
    if looks.get(1).copied().flatten().is_some() {
        set_aside(&used, file, "the guest has gone on from it", deadline)?;
    }
    if looks.first().copied().flatten().is_some() {
        set_aside(file, file, "it is older than the guest that runs", deadline)?;
    }
    Ok(())
}

/// Gives `path` a name under which it is never used, and that nothing else has.
fn set_aside(path: &Path, file: &Path, why: &str, deadline: &Deadline) -> Result<()> {
    let time = unix_time();
    let names: Vec<PathBuf> = (time..time.saturating_add(10)).map(|time| beside(file, &format!(".outdated-{time}"))).collect();
    let looks = files::look(&names.iter().map(PathBuf::as_path).collect::<Vec<_>>(), deadline)?;
    let free = names.iter().zip(looks).find(|(_, look)| look.is_none());
    let Some((outdated, _)) = free else {
        return Err(Error::new(Kind::Internal, format!("{}: there is no free name to keep it under", path.display())));
    };
    log::warning(format_args!("{}: {why}, keeping it as {}", path.display(), outdated.display()));
    files::rename(path, outdated, deadline)
}

/// Whether there is a state of the guest that is to be restored. What an earlier start used is set aside, so that what is found under
/// that name later is of the start that comes now; so is a state that libvirt says was not written to its end: its node was lost.
///
/// # Errors
/// libvirt's, `TimedOut`, `Internal`: cannot tell. `State`: there is one, but a disk of the guest was written after it, or cannot be found.
pub fn is_there(file: &Path, definition: &Definition, uri: &Uri, deadline: &Deadline) -> Result<bool> {
    let (name, used) = (&definition.identity.name, beside(file, ".restored"));
    let looks = files::look(&[file, &used], deadline)?;
    if looks.get(1).copied().flatten().is_some() {
        set_aside(&used, file, &format!("{name} has gone on from it before"), deadline)?;
    }
    let Some(state) = looks.first().copied().flatten() else { return Ok(false) };
    let connection = Connection::open(&uri.to_string(), deadline)?;
    let saved = match saved(file, &connection, deadline) {
        Err(error) if is_partial(&error, file, deadline) => {
            set_aside(file, file, &format!("it was not written to its end, {name} is booted without it"), deadline)?;
            return Ok(false);
        }
        saved => saved.map_err(|error| refused(file, name, &error))?,
    };
    // What was plugged in while it ran stands in the state alone.
    let mut disks = Vec::new();
    for definition in [definition, &saved] {
        disks.extend(definition.writable_disks());
        for (pool, volume) in definition.writable_volumes() {
            disks.push(connection.find_volume(&pool, &volume, deadline).map_err(|error| {
                let text = format!("whether {} is older than {volume} of the pool {pool} cannot be told: {}", file.display(), error.text);
                Error::new(if error.kind == Kind::NotFound { Kind::State } else { error.kind }, text)
            })?);
        }
    }
    let looks = files::look(&disks.iter().map(PathBuf::as_path).collect::<Vec<_>>(), deadline)?;
    if let Some((disk, _)) = disks.iter().zip(looks).find(|(_, look)| look.is_some_and(|look| is_younger(look, state))) {
        let text = format!("{} is older than {}: remove it to boot {name} without it", file.display(), disk.display());
        return Err(Error::new(Kind::State, text));
    }
    Ok(true)
}

/// Whether a disk was written after the state. A device has the time of its file in `/dev`, which says nothing about what is on it.
fn is_younger(disk: Look, state: Look) -> bool {
    disk.regular && disk.written > state.written + SLACK
}

/// The definition of the guest whose state it is.
///
/// # Errors
/// libvirt's: that it was not written to its end, or is no state.
fn saved(file: &Path, connection: &Connection, deadline: &Deadline) -> Result<Definition> {
    let image = file.to_string_lossy().into_owned();
    let xml = connection.call("reading the saved state", deadline, move |connect| connect.save_image_xml_desc(&image, 0))?;
    Definition::parse(file, xml.into_bytes()).map_err(|error| Error::new(Kind::Refused, error.text))
}

fn refused(file: &Path, name: &str, error: &Error) -> Error {
    let text = format!("{} cannot be restored: {}; remove it to boot {name} without it", file.display(), error.text);
    Error::new(error.kind, text)
}

/// What a file begins with until the memory is written (`QEMU_SAVE_PARTIAL` of libvirt's `src/qemu/qemu_saveimage.h`).
const PARTIAL: &str = "LibvirtQemudPart";

/// Whether libvirt refuses a file since it was not written to its end. It says so in the language of the daemon, so the file itself is asked.
/// Where this program cannot read it libvirt's own words are left.
fn is_partial(error: &Error, file: &Path, deadline: &Deadline) -> bool {
    says_partial(error, || files::begin(file, 16, &deadline.part(4)).ok())
}

fn says_partial(error: &Error, begin: impl FnOnce() -> Option<String>) -> bool {
    error.kind == Kind::Refused && begin().map_or_else(|| error.text.ends_with("save image is incomplete"), |begin| begin == PARTIAL)
}

/// For the copy of a guest that the start which used the state has left, paused, and that never ran: when it is proven gone the state is
/// good again. The caller knows all that; nothing here can tell it from a state that was used long ago.
///
/// # Errors
/// As for [`files::look`].
pub fn take_back(file: &Path, deadline: &Deadline) -> Result<()> {
    let used = beside(file, ".restored");
    match files::look(&[file, &used], deadline)?.as_slice() {
        [None, Some(_)] => files::rename(&used, file, deadline),
        _ => Ok(()),
    }
}

/// Creates the guest from its state, paused.
///
/// # Errors
/// It was not created, or it cannot be told; the state is where it was.
pub fn restore(identity: &Identity, connection: &Connection, file: &Path, deadline: &Deadline) -> Result<Guest> {
    let name = &identity.name;
    let refused = |error: Error| refused(file, name, &error);
    let owner = saved(file, connection, deadline).map_err(refused)?.identity;
    let other = owner.uuid.as_ref().is_some_and(|uuid| identity.is_another(uuid));
    if owner.name != *name || other {
        return Err(refused(Error::new(Kind::Refused, format!("it is the state of another guest, {}", owner.name))));
    }
    let image = file.to_string_lossy().into_owned();
    let paused = virt::sys::VIR_DOMAIN_SAVE_PAUSED;
    let restored =
        connection.call(&format!("restoring {name}"), deadline, move |connect| connect.restore_domain_flags(&image, None, paused));
    restored.map_err(refused)?;
    match connection.guest(name, deadline)? {
        Some(guest) => Ok(guest),
        None => Err(refused(Error::new(Kind::State, "it ended at once"))),
    }
}

/// Marks the state as used; before the guest is let run.
///
/// # Errors
/// It may not be let run.
pub fn use_up(file: &Path, deadline: &Deadline) -> Result<()> {
    files::rename(file, &beside(file, ".restored"), deadline)
}

/// Removes the used state; after the guest was let run. What is left is never used.
pub fn clear(file: &Path, deadline: &Deadline) {
    let used = beside(file, ".restored");
    if let Err(error) = files::remove(&used, deadline) {
        log::warning(format_args!("{error}; it was restored and can be removed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_tell_that_they_were_written_later() {
        let look = |regular, seconds| Look { folder: false, regular, length: 1, written: Duration::from_secs(seconds) };
        let state = look(true, 100);
        for (disk, younger) in [(look(true, 90), false), (look(true, 110), false), (look(true, 111), true), (look(false, 1000), false)] {
            assert_eq!(is_younger(disk, state), younger, "{disk:?}");
        }
    }

    #[test]
    fn what_has_a_fault_in_its_memory_is_not_worth_saving() {
        // libvirt's numbers: running, blocked, paused.
        let worth = |state| (0..=14).filter(move |reason| is_worth_saving(Condition::from_numbers(state, *reason))).collect::<Vec<_>>();
        assert_eq!((worth(1).len(), worth(2).len()), (15, 15));
        assert_eq!(worth(3), [1, 5], "by a person, by an I/O error");
        assert!([0, 4, 5, 6, 7].iter().all(|state| worth(*state).is_empty()));
    }

    #[test]
    fn only_one_answer_is_that_of_a_state_not_written_to_its_end() {
        let text = "reading the saved state at qemu:///system: operation failed: save image is incomplete";
        let says = |kind, text: &str, begin: Option<&str>| says_partial(&Error::new(kind, text), || begin.map(Into::into));
        assert!(says(Kind::Refused, text, None));
        assert!(!says(Kind::Unresponsive, text, None));
        for other in ["image magic is incorrect", "failed to read qemu header", "save image is incomplete or so"] {
            assert!(!says(Kind::Refused, other, None), "{other}");
        }
        // The daemon speaks its own language.
        let text = "操作に失敗しました: 保存イメージが不完全です";
        assert!(says(Kind::Refused, text, Some("LibvirtQemudPart")));
        assert!(!says(Kind::Unresponsive, text, Some("LibvirtQemudPart")));
        for begin in [Some("LibvirtQemudSave"), Some(""), None] {
            assert!(!says(Kind::Refused, text, begin), "{begin:?}");
        }
    }

    #[test]
    fn the_begin_of_a_file() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("state");
        let begin = || files::perform(&["begin".into(), file.clone().into_os_string(), "16".into()]).ok();
        assert_eq!(begin(), None);
        for (bytes, wanted) in [(&b"LibvirtQemudPart\x02\0\0\0"[..], PARTIAL), (b"Libvirt", "Libvirt"), (b"", "")] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(begin().as_deref(), Some(wanted));
        }
    }
}
