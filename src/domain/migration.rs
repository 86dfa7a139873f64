//! A guest's live migration to another host: peer-to-peer, watched, called off in time, and verified on both hosts.
//!
//! Peer-to-peer, the source's daemon brings a migration to its end alone if this process is killed. So a later action first asks
//! whether one is in flight, and this one calls its own off before its deadline instead of leaving it.

use super::connection::{Connection, Guest};
use super::definition::Identity;
use super::lifecycle::{self, DESTROY_RESERVE, REQUEST};
use super::options::Options;
use super::status::ask_through;
use super::{Error, Kind, Reason, Result, State, Uri, ffi};
use crate::deadline::{Deadline, Task};
use crate::log;
use std::time::Duration;
use virt::sys;

/// What is kept free at the end of the time: calling the migration off and looking at both hosts.
const RESERVE: Duration = Duration::from_secs(10);

/// How long one question to a host may take when it is asked again and again.
const QUESTION: Duration = Duration::from_secs(3);

/// How often progress is logged.
const REPORT: Duration = Duration::from_secs(10);

/// A move that is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The target's name, for people.
    pub target: String,
    /// The libvirt at the target, as this host and its daemon reach it.
    pub remote: String,
    /// Where the memory goes, if not libvirt's choice.
    pub migrate_uri: Option<String>,
    /// `migrate_options`.
    pub options: Options,
    /// Greatest bandwidth in MiB/s; 0 leaves libvirt's.
    pub speed: u64,
    /// Greatest downtime in milliseconds; 0 leaves libvirt's.
    pub downtime: u64,
}

/// What a host says about the guest.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    /// It runs.
    Runs,
    /// An emulator is there, its CPUs stopped.
    Waits(String),
    /// It is positively not there.
    Absent,
    /// Cannot tell.
    Unknown(String),
}

/// A host that is asked again and again: a connection that fails is made anew, since a daemon may have been restarted.
struct Host {
    uri: String,
    connection: Option<Connection>,
}

impl Host {
    fn side(&mut self, identity: &Identity, deadline: &Deadline) -> Side {
        let deadline = deadline.within(QUESTION);
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.uri, &deadline),
        };
        match connection.and_then(|connection| ask_through(&connection, identity, &deadline).map(|answer| (connection, answer))) {
            Ok((connection, answer)) => {
                self.connection = Some(connection);
                match answer {
                    None | Some((State::ShutOff, ..)) => Side::Absent,
                    // Another guest of that name.
                    Some((_, _, uuid)) if identity.uuid.as_ref().is_some_and(|wanted| *wanted != uuid) => Side::Absent,
                    Some((State::Running | State::Blocked, ..)) => Side::Runs,
                    Some((state, reason, _)) => Side::Waits(format!("{state} ({})", reason.text(state))),
                }
            }
            Err(error) => Side::Unknown(error.text),
        }
    }
}

/// Moves the guest; succeeds only if it runs at the target. A guest that is there already is success. `begin` is called right before
/// the move is asked for: from then on it may come to its end without this process.
///
/// # Errors
/// The guest was not moved: the text says why, and where it is. `TimedOut`, `Unreachable` and `Unresponsive`: it may yet move.
pub fn leave(identity: &Identity, uri: &Uri, plan: &Plan, begin: impl FnOnce(), deadline: &Deadline) -> Result<()> {
    let (name, target) = (&identity.name, &plan.target);
    let working = deadline.before(RESERVE.min(deadline.left() / 3));
    let unknown = |error: Error| error.context(format_args!("migration of {name} to {target}"));
    let here = Connection::open(&uri.to_string(), &working).map_err(unknown)?;
    settle(&here, name, &working, deadline).map_err(unknown)?;
    let paused = match ask_through(&here, identity, &working).map_err(unknown)? {
        Some((State::Running | State::Blocked, ..)) => false,
        Some((State::Paused, reason, _)) if !reason.will_run() => true,
        Some((State::ShutOff, ..)) | None => return arrived(identity, plan, &working),
        Some((state, reason, _)) => {
            return Err(unknown(Error::new(Kind::State, format!("{name} is {state} ({})", reason.text(state)))));
        }
    };
    // Pacemaker keeps 128 characters of a reason: what matters most stands first.
    let still_here =
        |error: Error| error.context(format_args!("{name} {} here, not moved to {target}", if paused { "is still" } else { "still runs" }));
    let Some(guest) = here.guest(name, &working).map_err(unknown)? else { return arrived(identity, plan, &working) };
    let there = free_target(identity, plan, &working).map_err(still_here)?;
    let here = Host { uri: uri.to_string(), connection: Some(here) };
    begin();
    match transfer(&guest, plan, &working, deadline) {
        Ok(()) => confirm(identity, there, plan, paused, deadline),
        Err(error) => recover(identity, uri, here, there, plan, &error, deadline),
    }
}

/// The target, if it can be reached and has no guest of this name: that would be another one, or a second copy of this one.
fn free_target(identity: &Identity, plan: &Plan, deadline: &Deadline) -> Result<Host> {
    let connection = Connection::open(&plan.remote, deadline)?;
    if let Some((state, reason, _)) = ask_through(&connection, identity, deadline)?
        && state != State::ShutOff
    {
        let text = format!("{} already has a guest of this name, {state} ({})", plan.target, reason.text(state));
        return Err(Error::new(Kind::State, text));
    }
    Ok(Host { uri: plan.remote.clone(), connection: Some(connection) })
}

/// Waits for a migration that an earlier, killed action left in flight; it may yet succeed.
fn settle(here: &Connection, name: &str, working: &Deadline, deadline: &Deadline) -> Result<()> {
    loop {
        let Some(guest) = here.guest(name, working)? else { return Ok(()) };
        if !is_outgoing(&guest, working)? {
            return Ok(());
        }
        log::info(format_args!("waiting for a migration of {name} that is in flight"));
        if !working.pause(Duration::from_secs(1)) {
            abort(&guest, &deadline.within(QUESTION));
            return Err(Error::new(Kind::TimedOut, format!("an earlier migration of {name} is still in flight and was called off")));
        }
    }
}

fn is_outgoing(guest: &Guest, deadline: &Deadline) -> Result<bool> {
    match guest.call("asking for the job of", deadline, |domain| ffi::job(domain, ffi::Which::Current)) {
        Ok(job) => Ok(job.is_some_and(|job| job.operation == Some(ffi::OPERATION_MIGRATION_OUT))),
        // It left in the meantime; or it is coming in: "migration statistics are available only on the source host".
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::State) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The guest is not here. Is it there?
fn arrived(identity: &Identity, plan: &Plan, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    let mut there = Host { uri: plan.remote.clone(), connection: None };
    match there.side(identity, deadline) {
        Side::Runs => {
            log::info(format_args!("{name} runs on {} already", plan.target));
            Ok(())
        }
        Side::Waits(state) => Err(Error::new(Kind::State, format!("{name} is not here, and {state} on {}", plan.target))),
        Side::Absent => Err(Error::new(Kind::State, format!("{name} runs neither here nor on {}", plan.target))),
        Side::Unknown(text) => Err(Error::new(Kind::Unreachable, format!("{name} is not here; {text}"))),
    }
}

/// The migration itself, called off if it has not ended when `working` is over.
fn transfer(guest: &Guest, plan: &Plan, working: &Deadline, deadline: &Deadline) -> Result<()> {
    let name = &guest.name;
    if plan.downtime > 0 {
        let downtime = plan.downtime;
        // A wish, as with the incumbent: the migration works without.
        let set = guest.call("setting the downtime of", working, move |domain| {
            domain.migrate_set_max_downtime(downtime, 0).map_err(|error| ffi::error(&error))
        });
        if let Err(error) = set {
            log::warning(error);
        }
    }
    let mut parameters = plan.options.parameters();
    parameters.uri.clone_from(&plan.migrate_uri);
    if plan.speed > 0 {
        parameters.bandwidth = Some(plan.speed);
    }
    let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PEER2PEER | sys::VIR_MIGRATE_ABORT_ON_ERROR | plan.options.flags;
    let (remote, mover) = (plan.remote.clone(), guest.clone());
    log::info(format_args!("moving {name} to {} by {}", plan.target, plan.remote));
    // The move has no deadline of its own: it ends by itself, or by being called off.
    let task = Task::start(move || {
        mover.call("moving", &Deadline::after(Duration::from_secs(u64::from(u32::MAX))), move |domain| {
            domain.migrate_to_uri3(Some(&remote), parameters, flags).map_err(|error| ffi::error(&error))
        })
    });
    while !working.expired() {
        if let Some(result) = task.wait(&working.within(REPORT)) {
            return result;
        }
        report(guest, plan, working);
    }
    log::warning(format_args!("moving {name} to {} takes too long and is called off", plan.target));
    let last = deadline.within(deadline.left() / 2);
    abort(guest, &last);
    match task.wait(&last) {
        // It ended well while it was being called off.
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if error.text.contains("canceled") || error.text.contains("aborted") => {
            Err(Error::new(Kind::TimedOut, format!("moving {name} to {} did not end in time and was called off", plan.target)))
        }
        Some(Err(error)) => Err(error),
        None => {
            Err(Error::new(Kind::Unresponsive, format!("moving {name} to {} did not end in time and could not be called off", plan.target)))
        }
    }
}

fn abort(guest: &Guest, deadline: &Deadline) {
    if let Err(error) = guest.call("calling off the migration of", deadline, ffi::abort_job) {
        log::warning(error);
    }
}

fn report(guest: &Guest, plan: &Plan, deadline: &Deadline) {
    let job = guest.call("asking for the job of", &deadline.within(Duration::from_secs(2)), |domain| ffi::job(domain, ffi::Which::Current));
    if let Ok(Some(job)) = job {
        let mib = |bytes: Option<u64>| bytes.unwrap_or(0) / (1024 * 1024);
        log::info(format_args!(
            "moving {} to {}: {} of {} MiB sent, {} MiB left, pass {}",
            guest.name,
            plan.target,
            mib(job.data_processed),
            mib(job.data_total),
            mib(job.data_remaining),
            job.memory_iteration.unwrap_or(0)
        ));
    }
}

/// libvirt says it has moved: it must run there, or be paused as it was here.
fn confirm(identity: &Identity, mut there: Host, plan: &Plan, paused: bool, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    loop {
        match there.side(identity, deadline) {
            Side::Runs => break,
            Side::Waits(_) if paused => break,
            Side::Absent => {
                return Err(Error::new(Kind::State, format!("{name} was moved to {} and is not there any more", plan.target)));
            }
            Side::Waits(state) if !deadline.pause(Duration::from_millis(50)) => {
                return Err(Error::new(Kind::State, format!("{name} was moved to {} and is {state} there", plan.target)));
            }
            Side::Waits(_) => {}
            Side::Unknown(text) => {
                // libvirt returns success only after the target has confirmed that the guest runs (`qemuMigrationDstFinish`).
                log::warning(format_args!("{name} was moved to {}, which cannot be asked any more: {text}", plan.target));
                break;
            }
        }
    }
    log::info(format_args!("{name} runs on {}", plan.target));
    Ok(())
}

/// The move failed: find out where the guest is. libvirt lets it go on at the source when the target has not taken it over; both
/// daemons may still be at that, or restarting.
///
/// A copy that waits here is not let run by this program: only libvirt knows whether the other one ever ran, and memory that is
/// older than the disks destroys them.
fn recover(identity: &Identity, uri: &Uri, mut here: Host, mut there: Host, plan: &Plan, error: &Error, deadline: &Deadline) -> Result<()> {
    let (name, target) = (&identity.name, &plan.target);
    let failed = |kind: Kind, place: String| Err(Error::new(kind, format!("{place}, not moved to {target}: {}", error.text)));
    loop {
        let (kind, place) = match (here.side(identity, deadline), there.side(identity, deadline)) {
            // A request that was not answered may still be waiting for its turn.
            (Side::Runs, Side::Absent) => {
                let kind = if error.kind == Kind::Unresponsive { error.kind } else { Kind::State };
                return failed(kind, format!("{name} still runs here"));
            }
            (Side::Runs, Side::Runs) => return failed(Kind::Lives, format!("{name} runs here and on {target}")),
            (Side::Absent, Side::Absent) => return failed(Kind::State, format!("{name} runs neither here nor on {target}")),
            (Side::Absent, Side::Runs) => {
                log::info(format_args!("{name} runs on {target} in spite of an error: {error}"));
                return Ok(());
            }
            // Taken over, but the source was not told, and would let its copy go on when it gives up waiting.
            (Side::Waits(_), Side::Runs) => {
                log::warning(format_args!("{name} runs on {target}, ending its copy here: {error}"));
                return lifecycle::end_copy(identity, uri, deadline);
            }
            (Side::Runs, Side::Unknown(text)) => (error.kind, format!("{name} still runs here; {target}: {text}")),
            (Side::Runs, Side::Waits(_)) => (error.kind, format!("{name} still runs here, a copy that came in waits on {target}")),
            (Side::Waits(state), Side::Absent) => (Kind::State, format!("{name} is {state} here")),
            (Side::Waits(state), Side::Waits(other)) => (error.kind, format!("{name} is {state} here and {other} on {target}")),
            (Side::Waits(state), Side::Unknown(text)) => (error.kind, format!("{name} is {state} here; {target}: {text}")),
            (Side::Absent, Side::Waits(state)) => (error.kind, format!("{name} is {state} on {target} and not here")),
            (Side::Absent, Side::Unknown(text)) => (error.kind, format!("{name} is not here; {target}: {text}")),
            (Side::Unknown(text), _) => (error.kind, text),
        };
        if !deadline.before(QUESTION).pause(Duration::from_millis(200)) {
            return failed(kind, place);
        }
    }
}

/// Ends a guest that may have come to the libvirt at `uri` by a move whose end nobody saw; asks it first, unless `force`.
///
/// The proof that it is gone there is that host's own stop, which Pacemaker calls too; this is for a guest that came after it. So a
/// host that cannot be asked is passed over.
///
/// # Errors
/// It is there and has not ended at the deadline.
pub fn end_arrival(identity: &Identity, uri: &str, force: bool, deadline: &Deadline) -> Result<()> {
    let name = &identity.name;
    let polite = deadline.before(DESTROY_RESERVE.min(deadline.left() / 2));
    let patience = deadline.within(Duration::from_secs(10).min(deadline.left() / 3));
    let mut there = Host { uri: uri.to_owned(), connection: None };
    let mut asked = false;
    loop {
        match there.side(identity, deadline) {
            Side::Absent => return Ok(()),
            Side::Unknown(_) if patience.pause(Duration::from_millis(500)) => {}
            Side::Unknown(text) => {
                log::warning(format_args!("whether {name} has come to {uri} cannot be asked: {text}"));
                return Ok(());
            }
            // The next look decides, whatever becomes of the request: the other host may be ending it at this moment.
            side @ (Side::Runs | Side::Waits(_)) => {
                let force = force || polite.expired() || matches!(side, Side::Waits(_));
                if let Some(connection) = there.connection.as_ref().filter(|_| force || !asked) {
                    asked = true;
                    log::warning(format_args!("{name} has come to {uri} by a move that was given up, ending it there"));
                    if let Err(error) = end_at(connection, name, force, &deadline.within(REQUEST)) {
                        log::warning(error);
                    }
                }
            }
        }
        if !deadline.pause(Duration::from_millis(250)) {
            return Err(Error::new(Kind::Lives, format!("{name} is still at {uri}")));
        }
    }
}

fn end_at(connection: &Connection, name: &str, force: bool, deadline: &Deadline) -> Result<()> {
    let Some(guest) = connection.guest(name, deadline)? else { return Ok(()) };
    guest.call("ending", deadline, move |domain| {
        let result = if force { domain.destroy() } else { domain.shutdown() };
        result.map_err(|error| ffi::error(&error))
    })
}

/// Calls off an outgoing migration of the guest, if one is in flight, and waits until it has ended.
///
/// # Errors
/// It could not be asked for or called off.
pub fn call_off(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let here = Connection::open(&uri.to_string(), deadline)?;
    let Some(guest) = here.guest(&identity.name, deadline)? else { return Ok(()) };
    if !is_outgoing(&guest, deadline)? {
        return Ok(());
    }
    log::warning(format_args!("calling off a migration of {} that is in flight", identity.name));
    abort(&guest, deadline);
    while is_outgoing(&guest, deadline)? {
        if !deadline.pause(Duration::from_millis(100)) {
            return Err(Error::new(Kind::TimedOut, format!("the migration of {} did not end in time", identity.name)));
        }
    }
    Ok(())
}

/// Whether a state may mean that the guest is still coming in. At the source it looks the same for the moment of the handover.
#[must_use]
pub fn is_incoming(state: State, reason: Reason) -> bool {
    state == State::Paused && matches!(reason, Reason::PAUSED_MIGRATION | Reason::PAUSED_STARTING_UP | Reason::PAUSED_POSTCOPY)
}
