//! A guest's creation on this host, up to where it runs.

use super::definition::Identity;
use super::status::{self, Presence, Sight};
use super::{Condition, Connection, Definition, Error, Guest, Kind, Result, State, Uri, saved_state};
use crate::deadline::Deadline;
use crate::log;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A guest that is about to be created.
pub struct Creation<'a> {
    definition: &'a Definition,
    connection: Connection,
}

impl<'a> Creation<'a> {
    /// Everything up to the request itself.
    ///
    /// # Errors
    /// libvirt cannot be reached, or the guest cannot be prepared: nothing was asked for yet.
    pub fn prepare(definition: &'a Definition, uri: &Uri, deadline: &Deadline) -> Result<Self> {
        let connection = Connection::open(&uri.to_string(), deadline)?;
        if let Some(guest) = connection.guest(&definition.identity.name, deadline)? {
            turn_autostart_off(&guest, deadline)?;
        }
        Ok(Self { definition, connection })
    }

    /// Creates the guest as a transient domain, paused.
    ///
    /// A daemon that hangs may carry out a request long after this action, and whoever relied on its end, is gone: a late copy must not run.
    ///
    /// # Errors
    /// libvirt's own words. If the error [leaves it open](Error::leaves_open), a paused copy may be there, or come yet.
    pub fn create(self, deadline: &Deadline) -> Result<Copy> {
        let name = &self.definition.identity.name;
        let xml = self.definition.xml.clone();
        let paused = virt::sys::VIR_DOMAIN_START_PAUSED;
        let domain = self.connection.call(&format!("creating {name}"), deadline, move |connect| connect.create_domain_xml(&xml, paused))?;
        Ok(Copy { guest: self.connection.with(name, domain), state: None })
    }

    /// Creates the guest from its saved state instead.
    ///
    /// # Errors
    /// As for [`Creation::create`].
    pub fn restore(self, file: &Path, deadline: &Deadline) -> Result<Copy> {
        let guest = saved_state::restore(&self.definition.identity, &self.connection, file, deadline)?;
        Ok(Copy { guest, state: Some(file.to_owned()) })
    }
}

/// A guest that was created, and does not run yet.
pub struct Copy {
    guest: Guest,
    /// The saved state that it was created from. It is not used up.
    state: Option<PathBuf>,
}

impl Copy {
    /// Lets it run. Its state is used up by that.
    ///
    /// # Errors
    /// libvirt's own words. The copy may be there, paused.
    pub fn let_run(self, deadline: &Deadline) -> Result<()> {
        let Self { guest, state } = self;
        // Before it runs: from then on the state and the disks do not belong together any more.
        if let Some(file) = &state
            && let Err(error) = saved_state::use_up(file, deadline)
        {
            guest.call("destroying", deadline, |domain| Ok(domain.destroy()?))?;
            return Err(Error::new(Kind::Internal, error.text));
        }
        let result = guest.call("letting run", deadline, |domain| Ok(domain.resume()?));
        result.map_err(Error::of_a_copy)?;
        if let Some(file) = &state {
            saved_state::clear(file, deadline);
        }
        Ok(())
    }
}

/// Lets a guest go on that an I/O error has paused: the request that failed is made again. Not one that anything else has paused meanwhile.
/// Whether it is seen to run then: the same error pauses it again at once.
///
/// # Errors
/// It is not paused by an I/O error here, or libvirt's. One that [leaves it open](Error::leaves_open) may be carried out yet.
pub fn go_on(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<bool> {
    let name = &identity.name;
    let connection = Connection::open(&uri.to_string(), deadline)?;
    match status::ask_through(&connection, identity, deadline)? {
        Some((Condition::PAUSED_IO_ERROR, uuid)) if !identity.is_another(&uuid) => {}
        _ => return Err(Error::new(Kind::State, format!("{name} is not paused by an I/O error any more"))),
    }
    let Some(guest) = connection.guest(name, deadline)? else { return Err(Error::new(Kind::State, format!("{name} is gone"))) };
    guest.call("letting go on", deadline, |domain| Ok(domain.resume()?))?;
    // It was asked to: that nobody says how it is now is no error of that.
    let seen = guest.condition(deadline);
    Ok(seen.is_ok_and(Condition::runs))
}

/// Turns libvirt's autostart off for a guest that runs already, as a start does before it creates one: this host could otherwise start it by
/// itself later, beside the copy that the cluster has started elsewhere since.
///
/// # Errors
/// libvirt's: it may still do so.
pub fn take_over(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let guest = Connection::open(&uri.to_string(), deadline)?.guest(&identity.name, deadline)?;
    guest.map_or(Ok(()), |guest| turn_autostart_off(&guest, deadline))
}

/// What is done with a persistent definition of the guest that libvirt has: it stays, since undefining it would delete its file,
/// which may be the very one `config` names, and saved state could go with it; but the host must not start the guest by itself.
/// The guest then runs from `config` all the same, and is defined and shut off again when it ends.
fn turn_autostart_off(guest: &Guest, deadline: &Deadline) -> Result<()> {
    let name = guest.name.clone();
    guest.call("preparing the persistent definition of", deadline, move |domain| {
        if domain.is_persistent()? && domain.autostart()? {
            log::warning(format_args!("autostart of {name} turned off: the cluster starts it"));
            domain.set_autostart(false)?;
        }
        Ok(())
    })
}

/// Waits until libvirt says that the guest runs here; that sight. An emulator without libvirt's word may not have been let run yet.
///
/// # Errors
/// `State` as soon as it is gone again or in a state from which it will not come to run by itself; `TimedOut` at the deadline.
pub fn await_running(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<Sight> {
    let name = &identity.name;
    let trace = identity.clone().into();
    let mut pause = Duration::from_millis(5);
    loop {
        let seen = match status::look(&trace, uri, deadline)? {
            Presence::Absent => return Err(Error::new(Kind::State, format!("{name} is gone"))),
            Presence::Active(sight @ Sight::Libvirt { condition, .. }) if condition.runs() => return Ok(sight),
            Presence::Active(sight) => on_its_way(name, &sight)?,
        };
        if !deadline.again(pause) {
            return Err(Error::new(Kind::TimedOut, format!("{name} does not run yet: {seen}")));
        }
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// How a guest is seen that does not run yet, in words.
///
/// # Errors
/// `State` if it will not come to run by itself.
pub fn on_its_way(name: &str, sight: &Sight) -> Result<String> {
    match sight {
        Sight::Process { emulator, trouble } => Ok(format!("{emulator} is there, but {trouble}")),
        Sight::Libvirt { condition, .. } if condition.will_run() => Ok(format!("it is {condition}")),
        Sight::Libvirt { condition, .. } if condition.state == State::NoState => Ok(format!("it has {}", condition.state)),
        Sight::Libvirt { condition, .. } => Err(Error::new(Kind::State, format!("{name} is {condition}"))),
    }
}
