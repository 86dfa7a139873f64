//! A guest's end on this host.

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model;

use super::definition::Identity;
use super::emulator::{Emulator, are_held};
use super::status::{self, Presence, Sight, Trace};
use super::{Condition, Connection, Error, Kind, Result, State, Uri, evidence, holding, migration, sleep, twin};
use crate::deadline::{Deadline, now};
use crate::log;
use std::time::Duration;

/// The least that ending a guest by force may take: libvirt waits 10 s between SIGTERM and SIGKILL, and the proof comes after it.
const DESTROY_RESERVE: Duration = Duration::from_secs(17);

/// The most that it may take: what libvirt gives an emulator of a guest with forty devices of the host.
const LONG_DESTROY_RESERVE: Duration = Duration::from_secs(120);

/// When a guest is asked to shut down again, for the first time; each later time comes after twice as long. Some ignore the first
/// press of the power button, while they boot or sleep.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// How long a stop waits for a start that may be pending to show.
const PENDING: Duration = Duration::from_secs(1);

/// The least and the greatest time for one look at the guest before it is ended.
const LEAST: Duration = Duration::from_secs(2);
/// See [`LEAST`].
const MOST: Duration = Duration::from_secs(10);

/// With this much time left, no longer wait for a libvirt that still lists a guest whose emulator is gone.
const STALE: Duration = Duration::from_secs(2);

/// How often a question without an answer is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// How often at most, and how seldom, a guest that was asked to shut down is looked at.
const OFTEN: Duration = Duration::from_millis(20);
/// See [`OFTEN`].
const SELDOM: Duration = Duration::from_millis(250);

/// How long one request may take: libvirt waits for a guest agent that does not answer.
pub(super) const REQUEST: Duration = Duration::from_secs(10);

/// The ways to ask a guest to shut down (`virDomainShutdownFlagValues`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// The ACPI power button.
    Acpi,
    /// The guest agent.
    Agent,
    /// A guest's init, for containers.
    Initctl,
    /// A signal to the init of a container.
    Signal,
    /// The hypervisor's own way.
    Paravirt,
}

impl ShutdownMode {
    /// The modes by their names in `virsh shutdown --mode`.
    pub const NAMES: &[(&str, Self)] =
        &[("acpi", Self::Acpi), ("agent", Self::Agent), ("initctl", Self::Initctl), ("signal", Self::Signal), ("paravirt", Self::Paravirt)];

    fn flag(self) -> u32 {
        match self {
            Self::Acpi => virt::sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
            Self::Agent => virt::sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
            Self::Initctl => virt::sys::VIR_DOMAIN_SHUTDOWN_INITCTL,
            Self::Signal => virt::sys::VIR_DOMAIN_SHUTDOWN_SIGNAL,
            Self::Paravirt => virt::sys::VIR_DOMAIN_SHUTDOWN_PARAVIRT,
        }
    }
}

/// How a guest is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once.
    Force,
    /// By asking it first, in these ways in turn (none: libvirt's choice), and by force when time runs short.
    Ask(Vec<ShutdownMode>),
}

/// What is kept of the time for ending a guest by force: a quarter, but [`DESTROY_RESERVE`] at least and [`LONG_DESTROY_RESERVE`] at most, and
/// never more than half.
///
/// An emulator takes longer the more it has to give back to the kernel: libvirt gives it 40 s, and 2 s more for each device of the host
/// (`virProcessKillPainfullyDelay`). Who gives a stop much time expects that. One that hangs in the kernel takes longer, and no reserve is
/// enough for it.
#[must_use]
pub fn reserve(deadline: &Deadline) -> Duration {
    let left = deadline.left();
    DESTROY_RESERVE.max((left / 4).min(LONG_DESTROY_RESERVE)).min(left / 2)
}

/// Ends the guest on this host and proves that it is gone; nothing to do is success.
///
/// With libvirt out of reach the emulator is ended directly: asking the guest needs libvirt, so a third of the time is given for
/// libvirt to come back.
///
/// # Errors
/// `Lives` if the emulator is still there at the deadline; others: cannot tell, or may not.
pub fn stop(trace: &Trace, uri: &Uri, manner: &Manner, deadline: &Deadline) -> Result<()> {
    let identity = &trace.identity;
    let reserve = reserve(deadline);
    let patience = match manner {
        Manner::Force => deadline.share(Duration::from_secs(3), 4),
        Manner::Ask(_) => deadline.before(reserve).part(3),
    };
    // A request to create it may be waiting its turn in a daemon that answers questions already.
    let mut pending = if trace.creating { PENDING } else { Duration::ZERO };
    loop {
        let most = if trace.creating { MOST } else { patience.left().clamp(LEAST, MOST) };
        // Its turn has come once, which needs no second one; and an emulator that is seen late has to be ended yet.
        let turn = (!pending.is_zero()).then(|| deadline.before(reserve));
        match status::look_within(trace, uri, most, turn.as_ref(), deadline) {
            Ok(Presence::Absent) if pending.is_zero() => return Ok(()),
            Ok(Presence::Absent) if deadline.pause(pending) => pending = Duration::ZERO,
            Ok(Presence::Absent) => {
                let text = format!("a start of {} was begun and may still come to its end", identity.name);
                return Err(Error::new(Kind::Unresponsive, text));
            }
            Ok(Presence::Active(Sight::Libvirt { .. })) => break,
            Ok(Presence::Active(Sight::Process { .. })) if patience.pause(RETRY) => {}
            Ok(Presence::Active(Sight::Process { trouble, .. })) => {
                log::warning(format_args!("ending the emulator of {} without libvirt: {trouble}", identity.name));
                // What a start that was not finished may have asked for is this emulator.
                let trace = &Trace { creating: false, ..trace.clone() };
                return end(trace, uri, deadline);
            }
            Err(error) if error.kind == Kind::Lives => {
                log::warning(format_args!("ending what is left: {error}"));
                return end(trace, uri, deadline);
            }
            // Without proof there is nothing to do but to ask again, as long as there is time.
            Err(error) if !deadline.before(RETRY).pause(RETRY) => return Err(error),
            Err(_) => {}
        }
    }
    // From now on libvirt may forget the guest at any moment, and with it who its emulator was.
    let emulators = twin::find(trace, uri, deadline)?;
    // What a start that was not finished has asked for is such an emulator.
    let trace = &Trace { creating: trace.creating && emulators.is_empty(), ..trace.with(&emulators) };
    // One that is held, as a move that nobody could settle leaves it, takes no request, nor does libvirt before it has given up waiting for it.
    if let Manner::Ask(modes) = manner
        && !are_held(&emulators)
        && ask(identity, uri, modes, &deadline.before(reserve))
    {
        return prove(trace, &emulators, uri, deadline);
    }
    if let Err(error) = destroy(identity, uri, deadline) {
        log::warning(error);
    }
    prove(trace, &emulators, uri, deadline)
}

/// Ends the copy of a guest that runs on another host by now, and proves it gone: libvirt must not let it go on.
///
/// # Errors
/// As for [`stop`].
pub(super) fn end_copy(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let emulators = evidence::find(identity, None, deadline)?;
    if let Err(error) = destroy(identity, uri, deadline) {
        log::warning(error);
    }
    prove(&Trace::from(identity.clone()).with(&emulators), &emulators, uri, deadline)
}

/// Asks the guest to shut down until it has, or until the deadline. Says whether libvirt no longer runs it; a guest that cannot
/// shut down (its CPUs are stopped, or it crashed) is not waited for. One that sleeps is woken, once.
fn ask(identity: &Identity, uri: &Uri, modes: &[ShutdownMode], deadline: &Deadline) -> bool {
    let name = &identity.name;
    // While the guest is being migrated away, by an agent that was killed, libvirt takes no request.
    if let Err(error) = migration::call_off(identity, uri, deadline) {
        log::warning(error);
    }
    let wanted = modes.iter().fold(0, |flags, mode| flags | mode.flag());
    let mut requests = 0_u32;
    let mut next_request = Deadline::after(Duration::ZERO);
    let mut woken = false;
    let begin = now();
    while !deadline.expired() {
        match status::ask(identity, uri, &deadline.within(Duration::from_secs(10))) {
            Ok(None | Some((Condition { state: State::ShutOff, .. }, _))) => return true,
            Ok(Some((Condition::PAUSED_SAVE | Condition::PAUSED_DUMP | Condition::PAUSED_SNAPSHOT, _))) => {}
            // As one that is dumped or recorded live looks to libvirt.
            Ok(Some((Condition::PAUSED_UNKNOWN, _)))
                if holding::stands_for_a_job(identity, uri, &deadline.within(REQUEST)) != Some(false) => {}
            Ok(Some((Condition { state: State::Suspended, .. }, _))) if !woken => {
                woken = true;
                log::info(format_args!("{name} is asleep, waking it so that it can shut down"));
                if let Err(error) = wake(identity, uri, &deadline.within(REQUEST)) {
                    log::warning(error);
                }
            }
            Ok(Some((condition, _))) if matches!(condition.state, State::Paused | State::Crashed | State::Suspended) => {
                log::info(format_args!("{name} is {condition} and cannot shut down"));
                return false;
            }
            Ok(Some(_)) if next_request.expired() => {
                // A guest agent that does not answer must not cost the guest its clean end: ACPI comes second.
                let flags = if requests == 0 || wanted == 0 { wanted } else { wanted | ShutdownMode::Acpi.flag() };
                next_request = Deadline::after(ASK_AGAIN * 2_u32.saturating_pow(requests.min(4)));
                requests += 1;
                if let Err(error) = request(identity, uri, flags, &deadline.within(REQUEST)) {
                    log::warning(error);
                    if requests == 1 && wanted != 0 {
                        next_request = Deadline::after(Duration::ZERO);
                    }
                }
            }
            Ok(Some(_)) => {}
            Err(error) => log::warning(format_args!("waiting for {name} to shut down: {error}")),
        }
        // A tenth of what the guest took is the most that is added to it.
        if !deadline.pause(((now() - begin) / 10).clamp(OFTEN, SELDOM)) {
            break;
        }
    }
    log::info(format_args!("{name} did not shut down in time"));
    false
}

fn request(identity: &Identity, uri: &Uri, flags: u32, deadline: &Deadline) -> Result<()> {
    let connection = Connection::open(&uri.to_string(), deadline)?;
    match connection.guest(&identity.name, deadline)? {
        Some(guest) => guest.call("shutdown request to", deadline, move |domain| Ok(domain.shutdown_flags(flags)?)),
        None => Ok(()),
    }
}

fn wake(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let connection = Connection::open(&uri.to_string(), deadline)?;
    connection.guest(&identity.name, deadline)?.map_or(Ok(()), |guest| sleep::wake(&guest, deadline))
}

fn destroy(identity: &Identity, uri: &Uri, deadline: &Deadline) -> Result<()> {
    // What is left when libvirt is stuck: ending the emulator ourselves, and the proof.
    let deadline = deadline.before_share(Duration::from_secs(5), 3);
    let connection = Connection::open(&uri.to_string(), &deadline)?;
    let Some(guest) = connection.guest(&identity.name, &deadline)? else { return Ok(()) };
    match guest.call("destroying", &deadline, |domain| Ok(domain.destroy()?)) {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// Ends the guest without libvirt, and proves it gone.
///
/// # Errors
/// As for [`stop`].
pub(super) fn end(trace: &Trace, uri: &Uri, deadline: &Deadline) -> Result<()> {
    let emulators = twin::find(trace, uri, deadline)?;
    prove(&trace.with(&emulators), &emulators, uri, deadline)
}

/// Waits for the end of `emulators`, ending those that do not end, and then for libvirt and `/proc` to agree that the guest is gone.
///
/// A libvirt that goes on listing a guest whose emulator was seen here, and seen to end, is waited for as long as there is time: others ask
/// it too. Then the proof is good enough without it: it makes no second emulator for that guest, and no emulator is no guest. (libvirt 9.0
/// waits up to half a minute for the monitor of an emulator that was killed while it started.)
fn prove(trace: &Trace, emulators: &[Emulator], uri: &Uri, deadline: &Deadline) -> Result<()> {
    let name = &trace.identity.name;
    for emulator in emulators {
        // What libvirt was asked to end is about to go; what it was not, or could not, is ended here.
        if emulator.wait_gone(name, &deadline.within(Duration::from_millis(200))).is_err() {
            log::info(format_args!("ending {emulator} of {name}"));
            emulator.end(name, deadline)?;
        }
    }
    let patience = deadline.before_share(STALE, 4);
    loop {
        match status::look(trace, uri, deadline) {
            Ok(Presence::Absent) => return Ok(()),
            Ok(Presence::Active(Sight::Libvirt { condition, .. }))
                if patience.expired() && !emulators.is_empty() && evidence::find(&trace.identity, trace.emulator, deadline)?.is_empty() =>
            {
                status::prove_no_write(trace, deadline)?;
                log::warning(format_args!("libvirt still lists {name} as {condition}, but its emulator is gone"));
                return Ok(());
            }
            Ok(Presence::Active(_)) if deadline.again(Duration::from_millis(100)) => {}
            Ok(Presence::Active(_)) => return Err(Error::new(Kind::Lives, format!("{name} is still there"))),
            // An emulator that nobody can say whose it is may be about to end, too.
            Err(error) if deadline.before(RETRY).pause(RETRY) => log::debug(|| error.text),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_the_end_by_force() {
        for (time, kept) in [(1800, 120), (600, 120), (180, 45), (80, 20), (60, 17), (34, 17), (20, 10), (2, 1)] {
            let reserve = reserve(&Deadline::after(Duration::from_secs(time))).as_secs_f64();
            // What has passed since the deadline was made is a quarter or half as much of it.
            assert!((f64::from(kept) - 0.5..=f64::from(kept)).contains(&reserve), "{reserve} of {time} s");
        }
    }
}
