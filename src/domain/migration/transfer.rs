//! The move itself: asked for, watched, steered, and called off in time.

use super::arrival::abort;
use super::handover::Handover;
use super::plan::Plan;
use super::policy::{Advice, Policy, Steering, may_resume};
use super::side::{Here, Side, There};
use super::{CONNECTING, connecting};
use crate::deadline::{self, Deadline, Task};
use crate::domain::connection::{Guest, spread};
use crate::domain::ffi::{self, Job};
use crate::domain::{Error, Kind, Result};
use crate::log;
use std::time::Duration;
use virt::error::ErrorNumber;
use virt::sys;

/// How often the move is looked at. Its end is not waited for by this.
const LOOK: Duration = Duration::from_millis(250);

/// How often progress is logged.
const REPORT: Duration = Duration::from_secs(10);

/// How long one question about the job may take.
const GLANCE: Duration = Duration::from_secs(2);

/// What is kept of the time, when post-copy is resumed, for finding out where the guest is.
const RESUME_RESERVE: Duration = Duration::from_secs(6);

/// How long after a look at a broken post-copy the next one comes.
const RESUME_AGAIN: Duration = Duration::from_secs(1);

/// Flags that post-copy does not go with: libvirt refuses the first (`qemuMigrationSrcBeginPhase`), and before QEMU 10.1 a move with both
/// post-copy and several connections loses the guest.
const NOT_WITH_POSTCOPY: u32 = sys::VIR_MIGRATE_TUNNELLED | sys::VIR_MIGRATE_PARALLEL;

/// A move that is under way.
pub(super) struct Transfer<'a> {
    pub(super) guest: &'a Guest,
    pub(super) here: &'a Here<'a>,
    pub(super) there: &'a mut There,
    pub(super) plan: &'a Plan,
    /// What was seen last of its job.
    pub(super) last: Option<Job>,
    /// Whether any of the guest's memory was seen to be on its way.
    pub(super) flowed: bool,
    /// Whether the guest was let run at the target before its memory was there.
    pub(super) postcopy: bool,
    /// Keeps libvirt from letting the copy here go on.
    pub(super) handover: Handover,
}

impl Transfer<'_> {
    /// Moves the guest; calls it off if it has not ended when `working` is over.
    ///
    /// # Errors
    /// libvirt's, or that it was called off. Where the guest is then has to be found out.
    pub(super) fn run(&mut self, working: &Deadline, deadline: &Deadline) -> Result<()> {
        let mut extra = self.extra_flags();
        let (begin, mut again) = (deadline::now(), false);
        loop {
            match self.attempt(extra, working, deadline) {
                Err(error) if self.postcopy => return self.resume(error, deadline),
                Err(error) if !again && self.was_not_begun(&error, deadline::now() - begin, working) => {
                    log::warning(format_args!("{error}; asking once more"));
                    again = true;
                }
                Err(error) => match without(extra, &error) {
                    Some((fewer, what)) => {
                        log::warning(format_args!("{error}; trying without {what}"));
                        extra = fewer;
                    }
                    None => return Err(error),
                },
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Whether libvirt here has given up before it began, `used` after the first request, and may be asked once more: it makes a connection to the
    /// target of its own, which may have been refused for a moment (`qemuMigrationSrcPerformPeer2Peer`). A target that cannot be asked now is
    /// waited for.
    fn was_not_begun(&mut self, error: &Error, used: Duration, working: &Deadline) -> bool {
        // A job that QEMU has failed at was begun, if all of it lay between two looks. libvirt's daemon may say so in its own language.
        let flowed = self.flowed || error.text.contains("unexpectedly failed");
        let total = used + working.left();
        if !error.is_libvirts(ErrorNumber::OperationFailed) || flowed || self.handover.held() || used > CONNECTING.min(total / 2) {
            return false;
        }
        let patience = connecting(working);
        let mut tries = 0;
        // The other connection is refused when this one is, mostly; at least a moment passes in any case.
        while patience.pause(spread(tries)) {
            match (self.here.side(working), self.there.side(&self.here.trace.identity, working)) {
                (Side::Runs, Side::Absent) => return true,
                (Side::Runs, Side::Unknown(_)) => tries += 1,
                _ => return false,
            }
        }
        false
    }

    /// What the policy adds to `migrate_options`.
    fn extra_flags(&self) -> u32 {
        let (wanted, options) = (self.plan.policy.flags(), self.plan.options.flags);
        if wanted & sys::VIR_MIGRATE_POSTCOPY != 0 && options & NOT_WITH_POSTCOPY != 0 {
            log::warning("post-copy does not go with --tunnelled or --parallel and is left out");
            return wanted & !sys::VIR_MIGRATE_POSTCOPY;
        }
        wanted & !options
    }

    fn attempt(&mut self, extra: u32, working: &Deadline, deadline: &Deadline) -> Result<()> {
        let (guest, plan) = (self.guest, self.plan);
        let name = &guest.name;
        // Of this request; one before it has come to nothing.
        self.last = None;
        let may_postcopy = extra & sys::VIR_MIGRATE_POSTCOPY != 0;
        let policy = if plan.policy == Policy::Postcopy && !may_postcopy { Policy::Converge } else { plan.policy };
        let mut steering = Steering::new(policy, plan.downtime);
        if steering.first() > 0 {
            self.set_downtime(steering.first(), working);
        }
        log::info(format_args!("moving {name} to {} by {}", plan.target, plan.remote));
        let task = self.ask(extra);
        let (begin, total) = (deadline::now(), working.left());
        let mut reported = begin;
        while !working.expired() {
            if let Some(result) = task.wait(&working.within(LOOK)) {
                return result;
            }
            self.look(&mut steering, deadline::now() - begin, total, working);
            if self.handover.settled(self.here, self.there, deadline)? {
                return Ok(());
            }
            if deadline::now() - reported >= REPORT {
                reported = deadline::now();
                self.report(&steering);
            }
        }
        if self.postcopy {
            // It cannot be called off: neither host has all of it.
            return task.wait(&deadline.before(Duration::from_secs(1))).unwrap_or_else(|| {
                Err(Error::new(Kind::TimedOut, format!("{name} runs on {} already, but not all of its memory has come", plan.target)))
            });
        }
        log::warning(format_args!("moving {name} to {} takes too long and is called off", plan.target));
        self.call_off(&task, &steering, deadline)
    }

    /// Asks libvirt to move the guest, with more flags. The request has no deadline of its own: it ends by itself, or by being called off.
    fn ask(&self, extra: u32) -> Task<Result<()>> {
        let plan = self.plan;
        let mut parameters = plan.options.parameters();
        parameters.uri.clone_from(&plan.migrate_uri);
        if parameters.listen_address.is_none() {
            parameters.listen_address.clone_from(&plan.listen);
        }
        if plan.speed > 0 {
            parameters.bandwidth = Some(plan.speed);
        }
        let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PEER2PEER | sys::VIR_MIGRATE_ABORT_ON_ERROR | plan.options.flags | extra;
        let (remote, mover) = (plan.remote.clone(), self.guest.clone());
        Task::start(move || {
            mover.call("moving", &Deadline::never(), move |domain| Ok(domain.migrate_to_uri3(Some(&remote), parameters, flags)?))
        })
    }

    /// Lets the rest of the memory flow again after post-copy has lost its connection: both emulators wait then, with all that is needed
    /// (`VIR_MIGRATE_POSTCOPY_RESUME`, libvirt 8.5). Tried again until the time is over, since a line may come back; not when one side has
    /// lost its part.
    ///
    /// # Errors
    /// The one it came with, when it cannot be resumed.
    pub(super) fn resume(&mut self, mut error: Error, deadline: &Deadline) -> Result<()> {
        let identity = &self.here.trace.identity;
        let working = deadline.before_share(RESUME_RESERVE, 4);
        loop {
            match (self.here.side(&working), self.there.side(identity, &working)) {
                (Side::Half(here), Side::Half(there)) if here.is_broken_postcopy() && there.is_broken_postcopy() => {
                    match self.there_may_resume(&working) {
                        Some(true) => {
                            log::warning(format_args!(
                                "the move of {} to {} has stopped half done and is resumed: {error}",
                                identity.name, self.plan.target
                            ));
                            let task = self.ask(sys::VIR_MIGRATE_POSTCOPY | sys::VIR_MIGRATE_POSTCOPY_RESUME);
                            match task.wait(&working) {
                                Some(Ok(())) => return Ok(()),
                                Some(Err(again)) => error = again,
                                None => return Err(error),
                            }
                        }
                        Some(false) => return Err(error),
                        // The target was lost in between, and may be there again.
                        None => {}
                    }
                }
                // One of the daemons has not noticed yet, or cannot be asked; or the memory has come after all.
                (Side::Half(..), Side::Half(..) | Side::Unknown(_)) | (Side::Unknown(_), Side::Half(..)) => {}
                _ => return Err(error),
            }
            if !working.pause(RESUME_AGAIN) {
                return Err(error);
            }
        }
    }

    /// Whether resuming ends no daemon at the target; `None`: it does not tell its version, and is not tried on.
    fn there_may_resume(&mut self, working: &Deadline) -> Option<bool> {
        let version = self.there.connection(working).and_then(|connection| connection.libvirt_version(&working.within(GLANCE)));
        let version = version.inspect_err(|error| log::warning(error)).ok()?;
        let may = may_resume(version);
        if !may {
            log::warning("the move is not resumed: libvirtd at the target would end by it (libvirt 11.2 to 11.3)");
        }
        Some(may)
    }

    fn call_off(&self, task: &Task<Result<()>>, steering: &Steering, deadline: &Deadline) -> Result<()> {
        let (name, target) = (&self.guest.name, &self.plan.target);
        let last = deadline.part(2);
        let _ = abort(self.guest, &last);
        match task.wait(&last) {
            // It ended well while it was being called off.
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if was_called_off(&error) => {
                let why = self.last.as_ref().map(|job| why_late(job, steering.still())).unwrap_or_default();
                Err(Error::new(Kind::TimedOut, format!("did not end in time and was called off{why}")))
            }
            Some(Err(error)) => Err(error),
            None => {
                Err(Error::new(Kind::Unresponsive, format!("moving {name} to {target} did not end in time and could not be called off")))
            }
        }
    }

    /// Looks at the job and does what the policy advises.
    fn look(&mut self, steering: &mut Steering, used: Duration, total: Duration, working: &Deadline) {
        let Ok(Some(job)) = self.guest.job(&working.within(GLANCE)) else { return };
        let advice = steering.advise(&job, used, total);
        // A job that has failed may say 0 again.
        self.flowed |= job.data_processed.is_some_and(|bytes| bytes > 0);
        self.handover.ours |= self.flowed;
        self.last = Some(job);
        match advice {
            None => {}
            Some(Advice::Downtime(time)) => {
                log::info(format_args!("{} does not come to an end, it may now stand still for {time} ms", self.guest.name));
                self.set_downtime(time, working);
            }
            Some(Advice::Postcopy) => {
                log::warning(format_args!("{} does not come to an end and is let run on {} now", self.guest.name, self.plan.target));
                match self.guest.call("starting post-copy of", &working.within(GLANCE), ffi::start_postcopy) {
                    Ok(()) => self.postcopy = true,
                    Err(error) => log::warning(error),
                }
            }
        }
    }

    /// Sets the greatest downtime, in milliseconds. A wish, as with the incumbent: the move works without.
    fn set_downtime(&self, time: u64, working: &Deadline) {
        let set = self
            .guest
            .call("setting the downtime of", &working.within(GLANCE), move |domain| Ok(domain.migrate_set_max_downtime(time, 0)?));
        if let Err(error) = set {
            log::warning(error);
        }
    }

    fn report(&self, steering: &Steering) {
        let Some(job) = &self.last else { return };
        let mib = |bytes: Option<u64>| bytes.unwrap_or(0) / (1024 * 1024);
        log::info(format_args!(
            "moving {} to {}: {} MiB sent, {} MiB left, pass {}, {} MiB/s sent, {} MiB/s dirtied, CPUs throttled by {} %{}",
            self.guest.name,
            self.plan.target,
            mib(job.data_processed),
            mib(job.data_remaining),
            job.memory_iteration.unwrap_or(0),
            mib(job.memory_bps),
            mib(job.dirtied()),
            job.throttle.unwrap_or(0),
            if steering.still() >= REPORT { "; nothing flows" } else { "" }
        ));
    }
}

/// Why a move was late, in a few words that follow "called off".
fn why_late(job: &Job, still: Duration) -> String {
    if still >= Duration::from_secs(3) {
        return format!(": no data flowed for {} s", still.as_secs());
    }
    let rate = |bytes: u64| format!("{:.1} MiB/s", bytes as f64 / (1024.0 * 1024.0));
    match (job.dirtied(), job.memory_bps) {
        (Some(dirtied), Some(sent)) if dirtied > 0 => format!(": it dirties {} and {} are sent", rate(dirtied), rate(sent)),
        (_, Some(sent)) => format!(": {} are sent", rate(sent)),
        _ => String::new(),
    }
}

/// Whether libvirt says that a move was called off, at whatever moment of it (`qemuMigrationJobCheckStatus`, `qemuMigrationSrcRun` and
/// `qemuMigrationSrcNBDStorageCopy` in `src/qemu/qemu_migration.c`, since long before 9.0).
fn was_called_off(error: &Error) -> bool {
    error.is_libvirts(ErrorNumber::OperationAborted)
}

/// If an emulator lacks a capability: the policy's flags `extra` without it, and its name for the log.
fn without(extra: u32, error: &Error) -> Option<(u32, &'static str)> {
    if extra == 0 || !is_missing_capability(error) {
        return None;
    }
    if extra & sys::VIR_MIGRATE_POSTCOPY != 0 {
        // From libvirt 10.1 on an emulator of any user has that device (its NEWS).
        let what = "post-copy; an emulator that does not run as root needs vm.unprivileged_userfaultfd=1 for it, on both hosts, with libvirt before \
                    10.1 or a kernel without /dev/userfaultfd";
        return Some((extra & !sys::VIR_MIGRATE_POSTCOPY, what));
    }
    Some((0, "what the policy adds"))
}

/// Whether one of the emulators has not got what was asked for. libvirt compares that with what QEMU says that it can (`qemuMigrationParamsCheck`),
/// and then sets it, which QEMU may still refuse (`postcopy_ram_supported_by_host`); on both hosts, before a byte is moved. The name of the command
/// is the same in every language.
fn is_missing_capability(error: &Error) -> bool {
    error.text.contains("migrate-set-capabilities") || error.text.contains("Migration option") && error.text.contains("not supported")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ffi::JobKind;

    #[test]
    fn a_move_that_was_called_off_is_told_in_every_language() {
        let refused = |number, text: &str| was_called_off(&Error::of_libvirt(Kind::Refused, Some(number), text).context("moving web1"));
        assert!(refused(ErrorNumber::OperationAborted, "operation aborted: migration out job: canceled by client"));
        assert!(refused(ErrorNumber::OperationAborted, "Operation abgebrochen: Job 'Migration nach außen' vom Client abgebrochen"));
        assert!(!refused(ErrorNumber::OperationFailed, "job 'migration out' failed: the stream was aborted"));
    }

    #[test]
    fn what_an_emulator_has_not_got_is_left_out_and_no_more() {
        let (postcopy, converge) = (sys::VIR_MIGRATE_POSTCOPY, sys::VIR_MIGRATE_AUTO_CONVERGE);
        let says = |text: &str| Error::of_libvirt(Kind::Refused, Some(ErrorNumber::InternalError), text).context("moving web1");
        let left = |extra, text: &str| without(extra, &says(text)).map(|(flags, _)| flags);
        for text in [
            "internal error: unable to execute QEMU command 'migrate-set-capabilities': Postcopy is not supported",
            "interner Fehler: QEMU-Befehl 'migrate-set-capabilities' konnte nicht ausgeführt werden: Postcopy is not supported: \
             Userfaultfd not available: Operation not permitted",
            "argument unsupported: Migration option 'postcopy-ram' is not supported by QEMU binary",
        ] {
            assert_eq!(left(postcopy | converge, text), Some(converge), "{text}");
            assert_eq!(left(converge, text), Some(0), "{text}");
            assert_eq!(left(0, text), None, "{text}");
        }
        assert_eq!(left(postcopy, "operation failed: guest CPU doesn't match specification"), None);
    }

    #[test]
    fn why_a_move_was_late() {
        let mib = 1024 * 1024;
        let job = Job {
            memory_dirty_rate: Some(25600),
            memory_page_size: Some(4096),
            memory_bps: Some(50 * mib),
            ..Job::new(JobKind::Unbounded)
        };
        assert_eq!(why_late(&job, Duration::ZERO), ": it dirties 100.0 MiB/s and 50.0 MiB/s are sent");
        assert_eq!(why_late(&job, Duration::from_secs(12)), ": no data flowed for 12 s");
        assert_eq!(why_late(&Job::new(JobKind::Unbounded), Duration::ZERO), "");
    }
}
