//! The emulators of a guest, told from those of another guest that has its UUID: a definition that was copied and given another name only.
//!
//! The same UUID under another name is also what a guest shows whose definition was renamed while it ran, and such a one must neither be
//! called gone nor be taken for another. What a resource has seen run here stands in its state file, emulator included, and stays its own. A
//! guest that has come from elsewhere may be one whose state file is on the node it left.

use super::definition::Identity;
use super::evidence::{self, Emulator};
use super::process;
use super::status::{self, Trace};
use super::{Error, Kind, Result, Uri};
use crate::deadline::Deadline;
use crate::log;
#[cfg(test)]
use crate::simulation;

/// As [`evidence::find`], without the emulators that are proven to be another guest's with the same UUID.
///
/// # Errors
/// `State`: only its UUID says that an emulator is this guest's, and nothing says whose it is. Others: as of [`evidence::find`].
pub fn find(trace: &Trace, uri: &Uri, deadline: &Deadline) -> Result<Vec<Emulator>> {
    let (mut own, mut doubt) = (Vec::new(), None);
    for emulator in evidence::find(&trace.identity, trace.emulator, deadline)? {
        let Some(shown) = foreign(trace, emulator, deadline)? else {
            own.push(emulator);
            continue;
        };
        let (name, other) = (&trace.identity.name, &shown.name);
        if is_others(trace, emulator, &shown, uri, deadline) {
            log::debug(|| format!("{emulator} has the UUID of {name}, but is that of {other}"));
        } else {
            let text = format!("{emulator} of {other} has the UUID of {name}, and whether {other} is another guest cannot be told");
            doubt = Some(Error::new(Kind::State, text));
        }
    }
    match doubt {
        Some(doubt) if own.is_empty() => Err(doubt),
        _ => Ok(own),
    }
}

/// What an emulator shows that has the UUID of the guest, but another name, and was not seen to be the guest's before.
fn foreign(trace: &Trace, emulator: Emulator, deadline: &Deadline) -> Result<Option<process::Shown>> {
    #[cfg(test)]
    if simulation::is_on() {
        return Ok(None);
    }
    if trace.identity.uuid.is_none() || trace.emulator == Some(emulator) {
        return Ok(None);
    }
    let shown = deadline.run(move || process::shown(emulator.pid));
    let shown = shown.ok_or_else(|| Error::new(Kind::Unresponsive, "the process table could not be read in time"))?;
    Ok(shown.filter(|shown| shown.name != trace.identity.name))
}

/// Whether such an emulator is another guest's: another resource has seen it run under the name it has, or it was started here under that
/// name and libvirt still has it so. One that came in from elsewhere may be this guest, renamed since.
fn is_others(trace: &Trace, emulator: Emulator, shown: &process::Shown, uri: &Uri, deadline: &Deadline) -> bool {
    if trace.shelf.as_ref().is_some_and(|shelf| shelf.has_other(emulator, &shown.name)) {
        return true;
    }
    !shown.incoming && other(&trace.identity, uri, deadline).is_ok_and(|name| name.as_ref() == Some(&shown.name))
}

/// The other name under which this host's libvirt runs a guest with the UUID of this one.
///
/// # Errors
/// libvirt's, or `Unresponsive`.
pub fn other(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<Option<String>> {
    let Some(uuid) = &identity.uuid else { return Ok(None) };
    Ok(status::name_of(uuid, uri, deadline)?.filter(|name| *name != identity.name))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Record, Shelf};
    use super::*;
    use std::process::{Child, Command};
    use std::time::Duration;

    /// Nobody listens there.
    const NOWHERE: &str = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";

    /// Ended when a test is over, however it ends.
    struct Impostor(Child);

    impl Drop for Impostor {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process with the command line of an emulator of `name`; the shell keeps what follows its script as its own arguments.
    fn impostor(name: &str, uuid: &str) -> Impostor {
        let name = format!("guest={name},debug-threads=on");
        let words = ["-c", "while :; do sleep 0.1; done", "qemu", "-name", &name, "-uuid", uuid];
        Impostor(Command::new("/bin/sh").args(words).spawn().unwrap())
    }

    #[test]
    fn without_libvirt_a_state_file_says_whose_an_emulator_is() {
        let (deadline, uri) = (Deadline::after(Duration::from_secs(60)), Uri::parse(NOWHERE).unwrap());
        let uuid = format!("00000000-0000-4000-8000-{:012}", std::process::id());
        let _guest = impostor("twin-one", &uuid);
        let identity = |name: &str| Identity { name: name.into(), uuid: Some(uuid.clone()) };
        let emulator = loop {
            // The shell's own command line is there only after its exec.
            match find(&identity("twin-one").into(), &uri, &deadline).unwrap().as_slice() {
                [one] => break *one,
                _ => assert!(deadline.pause(Duration::from_millis(10))),
            }
        };
        let copy = Trace::from(identity("twin-two"));
        let error = find(&copy, &uri, &deadline).unwrap_err();
        assert_eq!(error.kind, Kind::State);
        assert!(
            error.text.ends_with("of twin-one has the UUID of twin-two, and whether twin-one is another guest cannot be told"),
            "{error}"
        );
        // A guest whose definition was renamed: this resource has seen that very emulator.
        assert_eq!(find(&Trace { emulator: Some(emulator), ..copy.clone() }, &uri, &deadline).unwrap(), [emulator]);

        let root = tempfile::tempdir().unwrap();
        let record = |name: &str| Record {
            config: "/srv/vms/one.xml".into(),
            hypervisor: NOWHERE.into(),
            name: name.into(),
            uuid: Some(uuid.clone()),
            pid: Some(emulator.pid),
            start: Some(emulator.start),
            creating: false,
            restoring: false,
            guessed: false,
            moving: None,
            rings: Some(false),
        };
        let beside = copy.beside(Shelf::new(root.path(), "two"));
        assert_eq!(find(&beside, &uri, &deadline).unwrap_err().kind, Kind::State);
        // A name that it does not run under says nothing.
        Shelf::new(root.path(), "one").write(&record("twin-three"));
        assert_eq!(find(&beside, &uri, &deadline).unwrap_err().kind, Kind::State);
        Shelf::new(root.path(), "one").write(&record("twin-one"));
        assert_eq!(find(&beside, &uri, &deadline).unwrap(), []);
    }
}
