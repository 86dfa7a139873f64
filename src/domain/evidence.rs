//! The emulator's process as a witness: a guest lives as long as any thread of its emulator does, whatever libvirt says.
//!
//! libvirt 9.0 reports a destroy as done after two attempts of 40 s at an emulator that hangs in the kernel, and forgets the
//! domain; the write that hung lands later, on the disk of the guest's successor. So nothing here believes in an end that
//! `/proc` does not show.

use super::definition::Identity;
use super::emulator::Emulator;
use super::process::{self, Process, Status};
use super::{Error, Kind, status_file, walk};
use crate::deadline::Deadline;
use crate::log;
#[cfg(test)]
use crate::simulation::{self, hosts::World};
use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often a look that could not be made is made again.
const RETRY: Duration = Duration::from_millis(500);

/// The emulators of a guest on this host, dying ones included, and `known`, one that was seen before, if it is not gone.
///
/// # Errors
/// `Unresponsive` or `Internal`: the process table cannot be read in time, so nothing is known.
pub fn find(identity: &Identity, known: Option<Emulator>, deadline: &Deadline) -> Result<Vec<Emulator>, Error> {
    #[cfg(test)]
    if simulation::is_on() {
        return again(deadline, || simulation::world(World::seen_emulators).ok_or_else(|| unreadable("no thread")));
    }
    let wanted = identity.clone();
    let no_matter = |silent: &Path| is_at(silent, known) || status_file::is_anothers(silent, identity);
    let found = scan(deadline, no_matter, move |process| process.runs(&wanted).then_some(()));
    let found = found.map_err(|error| error.context(format_args!("looking for {}", identity.name)))?;
    let mut found: Vec<Emulator> = found.into_iter().map(|(emulator, ())| emulator).collect();
    found.extend(known.filter(|known| !found.contains(known) && !known.is_gone()));
    Ok(found)
}

/// Whether a process, by its folder in `/proc`, is `known`: that one counts as long as it is there, and its command line need not say so.
fn is_at(directory: &Path, known: Option<Emulator>) -> bool {
    let same =
        |known: Emulator| process::directory(known.pid) == directory && Status::read(directory).is_some_and(|now| now.start == known.start);
    known.is_some_and(same)
}

/// Whether an emulator runs on this host that belongs to none of `claimed`.
///
/// # Errors
/// As for [`find`].
pub fn any_but(claimed: &[Identity], deadline: &Deadline) -> Result<bool, Error> {
    let known = claimed.to_vec();
    let is_stranger =
        move |process: &Process| (process.is_emulator() && !known.iter().any(|identity| process.runs(identity))).then_some(());
    let others = scan(deadline, |silent| status_file::is_one_of(silent, claimed), is_stranger)?;
    Ok(!others.is_empty())
}

/// Whether an emulator runs on this host that was started to take a guest in (`-incoming`, by a move or from a saved state): one of `wanted`, or,
/// where that is not known, one that belongs to none of `claimed`.
///
/// # Errors
/// As for [`find`].
pub fn has_come(wanted: Option<&Identity>, claimed: &[Identity], deadline: &Deadline) -> Result<bool, Error> {
    let (meant, known) = (wanted.cloned(), claimed.to_vec());
    let has_come = move |process: &Process| {
        let is_meant = || match &meant {
            Some(meant) => process.runs(meant),
            None => !known.iter().any(|identity| process.runs(identity)),
        };
        (process.is_emulator() && process.shown()?.incoming && is_meant()).then_some(())
    };
    let no_matter = |silent: &Path| match wanted {
        Some(wanted) => status_file::is_anothers(silent, wanted),
        None => status_file::is_one_of(silent, claimed),
    };
    let found = scan(deadline, no_matter, has_come)?;
    Ok(!found.is_empty())
}

/// A guest that was taken in by an emulator here (`-incoming`: by a move, or from a saved state).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The emulator.
    pub emulator: Emulator,
    /// The guest's name, as the emulator shows it.
    pub name: String,
}

impl fmt::Display for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.emulator, self.name)
    }
}

/// The newcomers on this host that belong to none of `claimed`. To the libvirt of a user, or to one in a container, no guest of a cluster is moved.
///
/// # Errors
/// As for [`find`].
pub fn newcomers(claimed: &[Identity], deadline: &Deadline) -> Result<Vec<Newcomer>, Error> {
    let known = claimed.to_vec();
    let is_newcomer = move |process: &Process| {
        let shown = process.shown().filter(|shown| shown.incoming && process.is_emulator())?;
        let own = Identity { name: shown.name, uuid: None };
        // Its name alone is enough for this host's own libvirt.
        (process.runs(&own) && !known.iter().any(|identity| process.runs(identity))).then_some(own.name)
    };
    let found = scan(deadline, |silent| status_file::is_one_of(silent, claimed), is_newcomer)?;
    Ok(found.into_iter().map(|(emulator, name)| Newcomer { emulator, name }).collect())
}

/// When the process that has called this one started, in clock ticks since boot: `pacemaker-execd` when Pacemaker calls an agent.
#[must_use]
pub fn start_of_caller() -> Option<u64> {
    Some(Status::read(&process::directory(rustix::process::getppid()?.as_raw_nonzero().get()))?.start)
}

/// `filter_map` over the process table; `no_matter`: processes that may be skipped if they hide their command line, see [`walk::each`].
fn scan<T, F>(deadline: &Deadline, no_matter: impl Fn(&Path) -> bool, wanted: F) -> Result<Vec<(Emulator, T)>, Error>
where
    T: Send + 'static,
    F: Fn(&Process) -> Option<T> + Clone + Send + Sync + 'static,
{
    again(deadline, || {
        #[cfg(test)]
        if simulation::is_on() && simulation::world(World::seen_emulators).is_none() {
            return Err(unreadable("no thread"));
        }
        let wanted = wanted.clone();
        let found = walk::each(deadline, &no_matter, move |pid, process| {
            let made = wanted(process)?;
            Some((Emulator { pid, start: Status::read(&process.directory)?.start }, made))
        });
        found.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::new(Kind::Unresponsive, error.to_string()),
            _ => unreadable(error),
        })
    })
}

/// A look for which there is no thread, file descriptor or memory to be had is made again: that passes, and a stop that fails for it costs
/// the node its power.
fn again<T>(deadline: &Deadline, look: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match look() {
            Err(error) if error.kind == Kind::Internal && deadline.again(RETRY) => log::warning(error),
            found => return found,
        }
    }
}

fn unreadable(error: impl Display) -> Error {
    Error::new(Kind::Internal, format!("the process table cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::emulator::tests::{impostor, impostor_with, reap};
    use super::*;
    use crate::deadline::now;
    use crate::simulation::pick;

    fn identity(name: &str, uuid: Option<&str>) -> Identity {
        Identity { name: name.into(), uuid: uuid.map(Into::into) }
    }

    #[test]
    fn one_that_is_known_needs_no_command_line() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (own, start) = (process::directory(pid), Status::read(&process::directory(pid)).unwrap().start);
        assert!(is_at(&own, Some(Emulator { pid, start })));
        assert!(!is_at(&own, Some(Emulator { pid, start: start + 1 })), "the number of another");
        assert!(!is_at(&process::directory(1), Some(Emulator { pid, start })) && !is_at(&own, None));
    }

    /// For a moment the table cannot be read.
    #[test]
    fn every_look_is_made_again() {
        let create = || {
            let mut world = World::new(&["qemu:///system"], false);
            world.unread = Some((now(), now() + Duration::from_secs(3)));
            world
        };
        let act = || {
            let deadline = Deadline::after(Duration::from_secs(20));
            let look = [
                |deadline: &Deadline| find(&identity("web1", None), None, deadline).map(drop),
                |deadline: &Deadline| any_but(&[], deadline).map(drop),
                |deadline: &Deadline| has_come(None, &[], deadline).map(drop),
                |deadline: &Deadline| newcomers(&[], deadline).map(drop),
            ][pick(4)];
            look(&deadline).map_or_else(|error| error.text, |()| "seen".into())
        };
        let answers = simulation::explore(0, create, act, |_, _| Ok(()));
        assert_eq!(answers.into_iter().collect::<Vec<_>>(), [("seen".to_owned(), 4)]);
    }

    #[test]
    fn who_has_come_and_is_nobodys() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let name = |word: &str| format!("{word}-{}", std::process::id());
        let script = "while :; do sleep 0.1; done";
        let all = [impostor(&name("native"), script), impostor_with(&name("newcomer"), script, &["-incoming", "defer"])];
        let seen = |claimed: &[Identity]| {
            let found = newcomers(claimed, &deadline).unwrap();
            let mine = found.into_iter().filter(|one| all.iter().any(|child| i32::try_from(child.id()) == Ok(one.emulator.pid)));
            mine.map(|one| one.name).collect::<Vec<_>>()
        };
        // Their own command lines are there only after their exec.
        while find(&identity(&name("native"), None), None, &deadline).unwrap().is_empty() || seen(&[]).is_empty() {
            assert!(deadline.pause(Duration::from_millis(10)));
        }
        assert_eq!(seen(&[]), [name("newcomer")]);
        assert_eq!(seen(&[identity(&name("native"), None)]), [name("newcomer")]);
        assert_eq!(seen(&[identity(&name("newcomer"), None)]), [""; 0]);
        for mut child in all {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn found_ended_and_proven_gone() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let name = format!("evidence-{}", std::process::id());
        let child = impostor(&name, "while :; do sleep 0.1; done");
        let found = loop {
            // The shell's own command line is there only after its exec.
            match find(&identity(&name, None), None, &deadline).unwrap().as_slice() {
                [one] => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        assert!(!found.is_gone());
        let now = crate::deadline::unix_time();
        // A second each for what both clocks leave out, and the time this test may have stood still.
        assert!(found.since().is_some_and(|since| since <= now + 2 && now < since + 600), "{:?} at {now}", found.since());
        let reaper = reap(child);
        found.end(&name, &deadline).unwrap();
        reaper.join().unwrap();
        assert!(found.is_gone());
        assert_eq!(find(&identity(&name, None), None, &deadline).unwrap(), vec![]);
        // Ending what is gone is no error, nor is a number that now belongs to another process.
        found.end(&name, &deadline).unwrap();
        let other = Emulator { pid: i32::try_from(std::process::id()).unwrap(), start: 1 };
        other.end(&name, &deadline).unwrap();
        assert!(other.is_gone());
    }
}
