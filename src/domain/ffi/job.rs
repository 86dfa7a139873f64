//! What libvirt tells about the job of a domain: a migration, a save, a dump.

use super::{Error, Kind, Result, is_named, last};
use std::ffi::{CStr, CString, c_int, c_uint};
use std::ptr;
use virt::domain::Domain;
use virt::sys;

/// Which job [`job`] is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that runs now.
    Current,
    /// The one that ended last. libvirt keeps it after the question; at the source of a migration it ends with the domain.
    Completed,
}

/// `virDomainJobType`: how far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// 1: runs, its end can be estimated.
    Bounded,
    /// 2: runs, its end cannot be estimated.
    Unbounded,
    /// 3: has ended well.
    Completed,
    /// 4: has ended with an error.
    Failed,
    /// 5: was aborted.
    Cancelled,
    /// A kind of a libvirt newer than this program.
    Unknown(i32),
}

/// `VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT` of `virDomainJobOperation`: [`Job::operation`] at the source.
pub const OPERATION_MIGRATION_OUT: i32 = 5;

/// Name of a long job (`virDomainJobOperation`) that blocks all others; `None` otherwise, also for migrations.
#[must_use]
pub fn lasting_operation(operation: i32) -> Option<&'static str> {
    match u32::try_from(operation).ok()? {
        sys::VIR_DOMAIN_JOB_OPERATION_SAVE => Some("a save"),
        sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
        | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT
        | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE => Some("a snapshot"),
        sys::VIR_DOMAIN_JOB_OPERATION_DUMP => Some("a dump"),
        sys::VIR_DOMAIN_JOB_OPERATION_BACKUP => Some("a backup"),
        _ => None,
    }
}

/// Whether a disk, by the name of its target, has a block job: a copy, a commit or a pull, at work or ready (`virDomainGetBlockJobInfo`).
///
/// # Errors
///
/// As for [`super::error`].
pub fn has_block_job(domain: &Domain, disk: &str) -> Result<bool> {
    let disk = CString::new(disk).map_err(|_| Error::new(Kind::Refused, "the disk's name has a NUL in it"))?;
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: the domain is alive while it is borrowed; the name ends with NUL, and both it and the place for the answer outlive the call.
    match unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &raw mut info, 0) } {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(last()),
    }
}

/// What libvirt tells about a job: the `VIR_DOMAIN_JOB_*` parameters of its `include/libvirt/libvirt-domain.h`.
/// What it does not tell is `None`: most of it at the start of a job, and all of it when the job is none of QEMU's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// How far it is.
    pub kind: JobKind,
    /// What it does, `virDomainJobOperation`.
    pub operation: Option<i32>,
    /// Milliseconds since its start.
    pub elapsed: Option<u64>,
    /// Milliseconds that the guest's CPUs stand still: expected while it runs, real when it is completed.
    pub downtime: Option<u64>,
    /// Milliseconds that the preparation took.
    pub setup: Option<u64>,
    /// Bytes to be transferred as far as known, memory and disks.
    pub data_total: Option<u64>,
    /// Bytes transferred.
    pub data_processed: Option<u64>,
    /// Bytes not yet transferred; grows again while the guest writes.
    pub data_remaining: Option<u64>,
    /// How many times the memory has been gone through.
    pub memory_iteration: Option<u64>,
    /// Pages that the guest dirties in a second.
    pub memory_dirty_rate: Option<u64>,
    /// Bytes of a page.
    pub memory_page_size: Option<u64>,
    /// Bytes of memory transferred in a second.
    pub memory_bps: Option<u64>,
    /// How much the guest's CPUs are throttled to make the migration converge, in percent.
    pub throttle: Option<u64>,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Job {
    /// A job of which nothing is known yet.
    #[cfg(test)]
    pub fn new(kind: JobKind) -> Self {
        Self {
            kind,
            operation: None,
            elapsed: None,
            downtime: None,
            setup: None,
            data_total: None,
            data_processed: None,
            data_remaining: None,
            memory_iteration: None,
            memory_dirty_rate: None,
            memory_page_size: None,
            memory_bps: None,
            throttle: None,
            failure: None,
        }
    }

    /// Whether it moves the domain away from here.
    #[must_use]
    pub fn is_outgoing_migration(&self) -> bool {
        self.operation == Some(OPERATION_MIGRATION_OUT)
    }

    /// Whether QEMU may have the domain stand still for it, for which libvirt then gives no reason: not for a backup, which lasts as long as its
    /// client likes, and for a migration libvirt has one.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        let backup = i32::try_from(sys::VIR_DOMAIN_JOB_OPERATION_BACKUP).ok();
        !self.is_outgoing_migration() && (self.operation.is_none() || self.operation != backup)
    }

    /// Bytes of memory that the guest dirties in a second.
    #[must_use]
    pub fn dirtied(&self) -> Option<u64> {
        Some(self.memory_dirty_rate?.saturating_mul(self.memory_page_size?))
    }
}

/// The job of a domain (`virDomainGetJobStats`); `None` when there is none. `virt`'s own version is undefined behaviour then.
///
/// # Errors
///
/// As for [`super::error`].
pub fn job(domain: &Domain, which: Which) -> Result<Option<Job>> {
    let flags = match which {
        Which::Current => 0,
        Which::Completed => sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED,
    };
    let (mut kind, mut parameters, mut count): (c_int, sys::virTypedParameterPtr, c_int) = (0, ptr::null_mut(), 0);
    // SAFETY: the domain is alive while it is borrowed; the three pointers are good for the length of the call.
    if unsafe { sys::virDomainGetJobStats(domain.as_ptr(), &raw mut kind, &raw mut parameters, &raw mut count, flags as c_uint) } != 0 {
        return Err(last());
    }
    let list: &[sys::virTypedParameter] = match usize::try_from(count) {
        // SAFETY: libvirt allocated `count` parameters there, all initialised; they are freed below, after the last use.
        Ok(count) if !parameters.is_null() => unsafe { std::slice::from_raw_parts(parameters, count) },
        _ => &[],
    };
    let job = describe(kind, list);
    // SAFETY: what the call above allocated, freed once; NULL with 0 is allowed.
    unsafe { sys::virTypedParamsFree(parameters, count) };
    Ok(job)
}

/// The parameters of a job, by name.
fn describe(kind: c_int, list: &[sys::virTypedParameter]) -> Option<Job> {
    let kind = match kind {
        0 => return None,
        1 => JobKind::Bounded,
        2 => JobKind::Unbounded,
        3 => JobKind::Completed,
        4 => JobKind::Failed,
        5 => JobKind::Cancelled,
        other => JobKind::Unknown(other),
    };
    let amount = |name: &CStr| find(list, name).and_then(amount);
    Some(Job {
        kind,
        operation: amount(c"operation").and_then(|number| i32::try_from(number).ok()),
        elapsed: amount(c"time_elapsed"),
        downtime: amount(c"downtime"),
        setup: amount(c"setup_time"),
        data_total: amount(c"data_total"),
        data_processed: amount(c"data_processed"),
        data_remaining: amount(c"data_remaining"),
        memory_iteration: amount(c"memory_iteration"),
        memory_dirty_rate: amount(c"memory_dirty_rate"),
        memory_page_size: amount(c"memory_page_size"),
        memory_bps: amount(c"memory_bps"),
        throttle: amount(c"auto_converge_throttle"),
        failure: find(list, c"errmsg").and_then(words),
    })
}

fn find<'a>(list: &'a [sys::virTypedParameter], name: &CStr) -> Option<&'a sys::virTypedParameter> {
    list.iter().find(|parameter| is_named(&parameter.field, name))
}

/// A parameter as a number, if it is one and not negative.
fn amount(parameter: &sys::virTypedParameter) -> Option<u64> {
    // SAFETY: the type says which member of the union libvirt wrote.
    unsafe {
        match c_uint::try_from(parameter.type_).ok()? {
            sys::VIR_TYPED_PARAM_INT => parameter.value.i.try_into().ok(),
            sys::VIR_TYPED_PARAM_UINT => Some(parameter.value.ui.into()),
            sys::VIR_TYPED_PARAM_LLONG => parameter.value.l.try_into().ok(),
            sys::VIR_TYPED_PARAM_ULLONG => Some(parameter.value.ul),
            _ => None,
        }
    }
}

/// A parameter as text, if it is one.
fn words(parameter: &sys::virTypedParameter) -> Option<String> {
    if c_uint::try_from(parameter.type_) != Ok(sys::VIR_TYPED_PARAM_STRING) {
        return None;
    }
    // SAFETY: the type says that libvirt wrote the string member of the union.
    let text = unsafe { parameter.value.s };
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and libvirt's strings end with NUL.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_char;

    #[test]
    fn operations_that_a_move_has_to_wait_for() {
        assert_eq!([2, 6, 8, 9].map(lasting_operation), [Some("a save"), Some("a snapshot"), Some("a dump"), Some("a backup")]);
        let arrival = i32::try_from(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN).unwrap();
        assert_eq!([0, arrival, OPERATION_MIGRATION_OUT, -1, 99].map(lasting_operation), [None; 5]);
    }

    fn parameter(name: &CStr, kind: c_uint, value: sys::_virTypedParameterValue) -> sys::virTypedParameter {
        let mut field = [0; 80];
        for (to, from) in field.iter_mut().zip(name.to_bytes()) {
            *to = c_char::from_ne_bytes(from.to_ne_bytes());
        }
        sys::virTypedParameter { field, type_: kind.try_into().unwrap(), value }
    }

    #[test]
    fn parameters_of_a_job_by_name_and_type() {
        use sys::_virTypedParameterValue as Value;
        let list = [
            parameter(c"operation", sys::VIR_TYPED_PARAM_INT, Value { i: OPERATION_MIGRATION_OUT }),
            parameter(c"time_elapsed_net", sys::VIR_TYPED_PARAM_ULLONG, Value { ul: 1 }),
            parameter(c"time_elapsed", sys::VIR_TYPED_PARAM_ULLONG, Value { ul: 1234 }),
            parameter(c"downtime", sys::VIR_TYPED_PARAM_LLONG, Value { l: -1 }),
            parameter(c"errmsg", sys::VIR_TYPED_PARAM_STRING, Value { s: c"no space".as_ptr().cast_mut() }),
        ];
        assert_eq!(describe(0, &list), None);
        let job = describe(4, &list).unwrap();
        assert_eq!((job.kind, job.operation, job.elapsed, job.downtime), (JobKind::Failed, Some(5), Some(1234), None));
        assert_eq!((job.failure.as_deref(), job.data_total), (Some("no space"), None));
        assert_eq!(describe(9, &[]).unwrap().kind, JobKind::Unknown(9));
    }
}
