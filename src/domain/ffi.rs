//! The only unsafe code of the program: libvirt's functions that the crate `virt` 0.5.0 lacks or gets wrong, behind safe ones; a signal; and the end of
//! the process.
//!
//! [`load`] comes first: before it no function of libvirt may be called, through `virt` or here (nothing breaks, but every call
//! fails). What a failed call says comes from the error libvirt keeps for the calling thread, as text libvirt wrote.
#![allow(unsafe_code)]

mod job;
mod late;
mod login;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod simulated;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod symbols;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong};
use std::ptr;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{ErrorDomain, ErrorNumber};
use virt::sys;

use super::error::{Error, Kind, Result};
use super::platform::Platform;
use super::state::Condition;

pub use job::{Job, Which, has_block_job, job, lasting_operation};
#[cfg(test)]
pub use job::{JobKind, OPERATION_MIGRATION_OUT};
pub use login::{Login, open};

/// Loads libvirt.so.0 into the process, once; later calls cost nothing. From any thread.
///
/// Takes some 10 ms of CPU, and reads many files of the system's library folders.
///
/// # Errors
///
/// [`Kind::Unreachable`] with the dynamic linker's words when there is no libvirt, or one without the functions needed most.
pub fn load() -> Result<()> {
    late::load().map_err(|cause| Error::new(Kind::Unreachable, format!("libvirt cannot be loaded: {cause}")))
}

/// Has the kernel keep what became of this process's children until they are asked for. Who ignores SIGCHLD (a Perl program may, and bash after
/// `trap '' CHLD`) passes that on to what it starts, and then no child can be waited for: `wait(2)` fails with ECHILD.
pub fn keep_children() {
    // SAFETY: no handler is installed; the default action for this signal is to do nothing.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Ends the process without any function that a library has left for its end (`_exit(2)`).
pub fn exit(code: u8) -> ! {
    // SAFETY: it takes a number, and nothing runs after it.
    unsafe { nix::libc::_exit(code.into()) }
}

/// Keeps libvirt from printing errors to stderr, where Pacemaker reads exit reasons: its default handler does
/// (`virDefaultErrorFunc` in libvirt's `src/util/virerror.c`). To be called after [`load`]; before it, it does nothing.
pub fn silence() {
    virt::error::clear_error_callback();
}

/// The state of a domain and the reason for it (`virDomainGetState`). `virt`'s own version ignores the error.
///
/// # Errors
///
/// As for [`error`]; [`Kind::NotFound`] when the domain is gone.
pub fn state(domain: &Domain) -> Result<Condition> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: the domain is alive while it is borrowed; both pointers are good for the length of the call.
    match unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) } {
        0 => Ok(Condition::from_numbers(state, reason)),
        _ => Err(last()),
    }
}

/// Whether the daemon lets this connection change anything: asks for 0 huge pages more (`virNodeAllocPages`), of all changes the one
/// that changes nothing. A connection to the socket for readers looks like any other until then. That the host has no such pages is found
/// out after the permission.
///
/// # Errors
///
/// As for [`error`]; [`Kind::Refused`] when it does not.
pub fn may_write(connect: &Connect) -> Result<()> {
    // KiB of a page, and how many more of them.
    let (mut size, mut count): (c_uint, c_ulonglong) = (2048, 0);
    // SAFETY: the connection is alive while it is borrowed; both pointers are to the one entry that is announced, good for the call.
    if unsafe { sys::virNodeAllocPages(connect.as_ptr(), 1, &raw mut size, &raw mut count, -1, 1, 0) } != -1 {
        return Ok(());
    }
    let cause = virt::error::Error::last_error();
    let error = error(&cause);
    match cause.code().known() {
        Some(ErrorNumber::OperationDenied | ErrorNumber::AccessDenied) => Err(error),
        _ if error.kind == Kind::Refused => Ok(()),
        _ => Err(error),
    }
}

/// Asks for the end of the job (migration, save, dump) that runs on a domain (`virDomainAbortJob`). The job may go on for a while.
///
/// # Errors
///
/// As for [`error`]; [`Kind::State`] when no job is running.
pub fn abort_job(domain: &Domain) -> Result<()> {
    // SAFETY: the domain is alive while it is borrowed.
    match unsafe { sys::virDomainAbortJob(domain.as_ptr()) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// Saves the state of a domain to a file that the daemon writes, and ends it (`virDomainSaveFlags`). Returns when that is done.
///
/// # Errors
///
/// As for [`error`]; the domain then goes on, unless libvirt or its emulator was lost.
pub fn save(domain: &Domain, file: &str) -> Result<()> {
    let file = CString::new(file).map_err(|_| Error::new(Kind::Refused, "the file's name has a NUL in it"))?;
    // SAFETY: the domain is alive while it is borrowed; the name ends with NUL and outlives the call; no other definition is given.
    match unsafe { sys::virDomainSaveFlags(domain.as_ptr(), file.as_ptr(), ptr::null(), 0) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// Lets a guest that is being migrated with `VIR_MIGRATE_POSTCOPY` run at the target from now on (`virDomainMigrateStartPostCopy`).
///
/// # Errors
///
/// As for [`error`].
pub fn start_postcopy(domain: &Domain) -> Result<()> {
    // SAFETY: the domain is alive while it is borrowed.
    match unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

/// Whether a host can give a guest the CPU of its definition, the element `cpu` (`virConnectCompareHypervisorCPU`).
///
/// # Errors
///
/// As for [`error`]: also when the host's libvirt cannot tell, as for emulated CPUs.
pub fn accepts_cpu(connect: &Connect, platform: &Platform, cpu: &str) -> Result<bool> {
    let text = |value: &Option<String>| value.as_deref().map(CString::new).transpose();
    let nul = |_| Error::new(Kind::Definition, "the definition holds a NUL");
    let [emulator, architecture, machine, kind] =
        [text(&platform.emulator), text(&platform.architecture), text(&platform.machine), text(&platform.kind)];
    let [emulator, architecture, machine, kind] =
        [emulator.map_err(nul)?, architecture.map_err(nul)?, machine.map_err(nul)?, kind.map_err(nul)?];
    let cpu = CString::new(cpu).map_err(nul)?;
    let pointer = |value: &Option<CString>| value.as_ref().map_or(ptr::null(), |value| value.as_ptr());
    // SAFETY: the connection is alive while it is borrowed; the strings live until the end of the call; NULL is libvirt's default.
    let answer = unsafe {
        sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            pointer(&emulator),
            pointer(&architecture),
            pointer(&machine),
            pointer(&kind),
            cpu.as_ptr(),
            0,
        )
    };
    match answer {
        sys::VIR_CPU_COMPARE_INCOMPATIBLE => Ok(false),
        sys::VIR_CPU_COMPARE_IDENTICAL | sys::VIR_CPU_COMPARE_SUPERSET => Ok(true),
        _ => Err(last()),
    }
}

/// Memory that a host could give to a guest, in KiB: free, and what its caches hold (`virNodeGetMemoryStats`).
///
/// # Errors
///
/// As for [`error`].
pub fn available_memory(connect: &Connect) -> Result<u64> {
    let all = sys::VIR_NODE_MEMORY_STATS_ALL_CELLS;
    let mut count: c_int = 0;
    // SAFETY: the connection is alive while it is borrowed; with no place for values only their number is written.
    if unsafe { sys::virNodeGetMemoryStats(connect.as_ptr(), all, ptr::null_mut(), &raw mut count, 0) } != 0 {
        return Err(last());
    }
    let empty = sys::virNodeMemoryStats { field: [0; 80], value: 0 };
    let mut list = vec![empty; places(count)?];
    // SAFETY: `count` says how many places there are; all are initialised.
    if unsafe { sys::virNodeGetMemoryStats(connect.as_ptr(), all, list.as_mut_ptr(), &raw mut count, 0) } != 0 {
        return Err(last());
    }
    let value = |name: &CStr| list.iter().find(|stat| is_named(&stat.field, name)).map_or(0, |stat| stat.value);
    Ok(value(c"free").saturating_add(value(c"cached")).saturating_add(value(c"buffers")))
}

/// How long the host's first CPU has worked or been idle since the host was started: at most the host's uptime, and little less on hardware, where no
/// hypervisor takes time from it (`virNodeGetCPUStats`, which reads `cpu0` of `/proc/stat`: `virHostCPUGetStatsLinux` in `src/util/virhostcpu.c`).
///
/// # Errors
///
/// As for [`error`].
pub fn cpu_time(connect: &Connect) -> Result<Duration> {
    const FIRST: c_int = 0;
    let mut count: c_int = 0;
    // SAFETY: the connection is alive while it is borrowed; with no place for values only their number is written.
    if unsafe { sys::virNodeGetCPUStats(connect.as_ptr(), FIRST, ptr::null_mut(), &raw mut count, 0) } != 0 {
        return Err(last());
    }
    let empty = sys::virNodeCPUStats { field: [0; 80], value: 0 };
    let mut list = vec![empty; places(count)?];
    // SAFETY: `count` says how many places there are; all are initialised.
    if unsafe { sys::virNodeGetCPUStats(connect.as_ptr(), FIRST, list.as_mut_ptr(), &raw mut count, 0) } != 0 {
        return Err(last());
    }
    let parts = [c"kernel", c"user", c"idle", c"iowait"];
    let counted = list.iter().filter(|stat| parts.iter().any(|part| is_named(&stat.field, part)));
    Ok(Duration::from_nanos(counted.map(|stat| stat.value).fold(0, u64::saturating_add)))
}

/// How many figures libvirt has, by its own word.
///
/// # Errors
///
/// [`Kind::Internal`] if that is no number of anything.
fn places(count: c_int) -> Result<usize> {
    usize::try_from(count).map_err(|_| Error::new(Kind::Internal, format!("libvirt says that it has {count} figures of the host")))
}

/// Whether a field of fixed length holds this name.
fn is_named(field: &[c_char], name: &CStr) -> bool {
    field.iter().take_while(|&&byte| byte != 0).map(|byte| u8::from_ne_bytes(byte.to_ne_bytes())).eq(name.to_bytes().iter().copied())
}

/// Whether the call that this thread made last failed since a file or folder is not there: the number of the system's error, which comes
/// over the wire too. libvirt's text of it is in the language of the daemon (`virReportSystemErrorFull` in `src/util/virerror.c`).
#[must_use]
pub fn is_not_there() -> bool {
    // SAFETY: no arguments; NULL, or a pointer to this thread's error.
    let error = unsafe { sys::virGetLastError() };
    if error.is_null() {
        return false;
    }
    // SAFETY: not NULL, and good until this thread's next call.
    let (code, part, number) = unsafe { ((*error).code, (*error).domain, (*error).int1) };
    is_missing(code, part, number)
}

/// Like [`is_not_there`], by `virErrorNumber`, `virErrorDomain` and the number of the system's error. What the parts say that [`class`] knows is of a
/// socket: one of the daemons behind the connection does not run, as where virtstoraged is not there.
fn is_missing(code: c_int, part: c_int, number: c_int) -> bool {
    let is = |number: c_int, known: c_uint| c_uint::try_from(number) == Ok(known);
    let of_a_socket = [sys::VIR_FROM_RPC, sys::VIR_FROM_REMOTE].iter().any(|known| is(part, *known));
    is(code, sys::VIR_ERR_SYSTEM_ERROR) && !of_a_socket && matches!(number, nix::libc::ENOENT | nix::libc::ENOTDIR)
}

/// The error of the call that this thread made last.
fn last() -> Error {
    error(&virt::error::Error::last_error())
}

/// libvirt's error as ours, with libvirt's own text.
///
/// The kind follows `virErrorNumber` of libvirt's `include/libvirt/virterror.h`:
///
/// - [`Kind::NotFound`]: the domain is not there.
/// - [`Kind::Unreachable`]: no connection could be made, or the one there was has broken. Errors of the socket are system errors that
///   come from the RPC code (`src/rpc/virnetsocket.c`). In a peer-to-peer migration it can be the *target's* daemon.
/// - [`Kind::Unresponsive`]: the domain is busy with another job, or its emulator does not answer ("cannot acquire state change lock").
/// - [`Kind::State`]: the request makes no sense in the state the domain is in ("domain is not running").
/// - [`Kind::Locked`]: a lock is held ("resource busy", as virtlockd says).
/// - [`Kind::Internal`]: there is no error of libvirt: it lacks the function or was not loaded.
/// - [`Kind::Refused`]: all others.
#[must_use]
pub fn error(error: &virt::error::Error) -> Error {
    let number = error.code().known();
    Error::of_libvirt(class(number, error.domain().known(), error.message()), number, error.message())
}

impl From<virt::error::Error> for Error {
    fn from(cause: virt::error::Error) -> Self {
        error(&cause)
    }
}

/// The kind for a code, the part of libvirt it comes from, and its text; `None` is a number newer than `virt`.
fn class(code: Option<ErrorNumber>, part: Option<ErrorDomain>, text: &str) -> Kind {
    use ErrorNumber as Number;
    let Some(code) = code else { return Kind::Refused };
    match code {
        Number::NoDomain => Kind::NotFound,
        Number::NoConnect
        | Number::AuthFailed
        | Number::AuthCancelled
        | Number::AuthUnavailable
        | Number::UnknownHost
        | Number::GnutlsError
        | Number::Ssh
        | Number::Libssh => Kind::Unreachable,
        // `src/rpc` says VIR_FROM_RPC, `src/remote/remote_driver.c` VIR_FROM_REMOTE.
        Number::SystemError | Number::Rpc if matches!(part, Some(ErrorDomain::Rpc | ErrorDomain::Remote)) => Kind::Unreachable,
        // The connection is gone: `src/rpc/virnetclient.c` and `src/rpc/virkeepalive.c`, in the language of the daemon.
        Number::InternalError if part == Some(ErrorDomain::Rpc) => Kind::Unreachable,
        Number::InternalError if text.contains("client socket is closed") || text.contains("keepalive timeout") => Kind::Unreachable,
        Number::InternalError if part == Some(ErrorDomain::None) => Kind::Internal,
        Number::OperationTimeout => Kind::Unresponsive,
        Number::OperationInvalid => Kind::State,
        Number::ResourceBusy => Kind::Locked,
        _ => Kind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_errors() {
        use ErrorDomain as Part;
        use ErrorNumber as Number;
        let cases = [
            (Number::NoDomain, Part::Qemu, "Domain not found", Kind::NotFound),
            (Number::SystemError, Part::Rpc, "Failed to connect socket to '/run/libvirt/libvirt-sock': No such file", Kind::Unreachable),
            (Number::SystemError, Part::Storage, "Cannot access storage file '/srv/x.img'", Kind::Refused),
            (Number::InternalError, Part::Rpc, "internal error: client socket is closed", Kind::Unreachable),
            (Number::InternalError, Part::Qemu, "internal error: process exited while connecting to monitor", Kind::Refused),
            (Number::InternalError, Part::None, "an unknown libvirt error occurred", Kind::Internal),
            (Number::InternalError, Part::Rpc, "内部エラー: クライアントソケットが閉じられています", Kind::Unreachable),
            (Number::OperationTimeout, Part::Qemu, "cannot acquire state change lock", Kind::Unresponsive),
            (
                Number::ResourceBusy,
                Part::Locking,
                "リソースが使用中です: Lockspace リソース '/srv/x.img' はロックされています",
                Kind::Locked,
            ),
            (Number::OperationInvalid, Part::Domain, "domain is not running", Kind::State),
            (Number::OperationFailed, Part::Qemu, "domain 'web1' already exists", Kind::Refused),
        ];
        for (code, part, text, kind) in cases {
            assert_eq!(class(Some(code), Some(part), text), kind, "{text}");
        }
        assert_eq!(class(None, None, "from the future"), Kind::Refused);
    }

    #[test]
    fn a_daemon_that_is_not_there_is_no_folder_that_is_not_there() {
        use nix::libc::{EACCES, ENOENT, ENOTDIR};
        let number = |of: c_uint| c_int::try_from(of).unwrap();
        let (system, other) = (sys::VIR_ERR_SYSTEM_ERROR, sys::VIR_ERR_OPERATION_FAILED);
        for (code, part, errno, missing) in [
            (system, sys::VIR_FROM_STORAGE, ENOENT, true),
            (system, sys::VIR_FROM_STORAGE, ENOTDIR, true),
            (system, sys::VIR_FROM_NONE, ENOENT, true),
            (system, sys::VIR_FROM_STORAGE, EACCES, false),
            (other, sys::VIR_FROM_STORAGE, ENOENT, false),
            // "Failed to connect socket to '/run/libvirt/virtstoraged-sock': No such file or directory".
            (system, sys::VIR_FROM_RPC, ENOENT, false),
            (system, sys::VIR_FROM_REMOTE, ENOENT, false),
        ] {
            assert_eq!(is_missing(number(code), number(part), errno), missing, "{code} {part} {errno}");
        }
        assert!(!is_missing(-1, -1, ENOENT));
    }

    #[test]
    fn no_figures_are_not_fewer_than_none() {
        assert_eq!((places(4), places(0)), (Ok(4), Ok(0)));
        let error = places(-1).unwrap_err();
        assert_eq!((error.kind, error.text.as_str()), (Kind::Internal, "libvirt says that it has -1 figures of the host"));
    }

    /// The test driver of libvirt itself needs no daemon.
    #[test]
    fn libvirt_is_missing_or_its_test_driver_answers() {
        if let Err(error) = load() {
            assert_eq!(error.kind, Kind::Unreachable);
            assert!(error.text.starts_with("libvirt cannot be loaded: libvirt.so.0: "), "{error}");
            return;
        }
        silence();
        let connection = Connect::open(Some("test:///default")).unwrap();
        let domain = connection.lookup_domain_by_name("test").unwrap();
        assert_eq!(state(&domain), Ok(Condition::from_numbers(1, 0)));
        assert!(abort_job(&domain).is_err());
        assert!(matches!(job(&domain, Which::Current), Ok(None) | Err(_)));
        let missing = connection.lookup_domain_by_name("missing").map_err(|cause| error(&cause)).unwrap_err();
        assert_eq!(missing.kind, Kind::NotFound);
        domain.destroy().unwrap();
        domain.undefine().unwrap();
        assert_eq!(state(&domain).unwrap_err().kind, Kind::NotFound);
        assert_eq!(error(&Connect::open(Some("qemu+unix:///system?socket=/nonexistent")).unwrap_err()).kind, Kind::Unreachable);
    }
}
