//! The errors of libvirt, as its client gives them.

use virt::sys;

/// An error of libvirt.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) code: sys::virErrorNumber,
    pub(crate) part: sys::virErrorDomain,
    pub(crate) text: &'static str,
}

pub(super) const NO_DOMAIN: Fault = Fault { code: sys::VIR_ERR_NO_DOMAIN, part: sys::VIR_FROM_QEMU, text: "Domain not found" };
pub(super) const NOT_RUNNING: Fault = invalid("Requested operation is not valid: domain is not running");
pub(super) const RUNS: Fault = invalid("Requested operation is not valid: domain is already running");
pub(super) const ACTIVE: Fault = invalid("Requested operation is not valid: domain is already active as 'web1'");
pub(super) const NO_JOB: Fault = invalid("Requested operation is not valid: no job is active on the domain");
pub(super) const NO_FILE: Fault = Fault {
    code: sys::VIR_ERR_SYSTEM_ERROR,
    part: sys::VIR_FROM_QEMU,
    text: "Failed to remove managed save file '/var/lib/libvirt/qemu/save/web1.save': No such file or directory",
};
pub(super) const REFUSED: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_FAILED,
    part: sys::VIR_FROM_QEMU,
    text: "Failed to terminate process 7 with SIGKILL: Device or resource busy",
};
pub(super) const OUT_OF_REACH: Fault =
    Fault { code: sys::VIR_ERR_SYSTEM_ERROR, part: sys::VIR_FROM_RPC, text: "unable to connect to server: Connection refused" };
pub(super) const CALLED_OFF: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_ABORTED,
    part: sys::VIR_FROM_QEMU,
    text: "operation aborted: migration out job: canceled by client",
};
pub(super) const UNHEARD: Fault =
    Fault { code: sys::VIR_ERR_OPERATION_FAILED, part: sys::VIR_FROM_QEMU, text: "operation failed: Lost connection to destination host" };
pub(super) const UNANSWERED: Fault =
    Fault { code: sys::VIR_ERR_INTERNAL_ERROR, part: sys::VIR_FROM_RPC, text: "internal error: received hangup event on socket" };
pub(super) const UNCONNECTED: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_FAILED,
    part: sys::VIR_FROM_QEMU,
    text: "operation failed: Failed to connect to remote libvirt URI qemu+tcp://b/system: Connection refused",
};
pub(super) const UNLOADED: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_FAILED,
    part: sys::VIR_FROM_QEMU,
    text: "operation failed: job 'migration out' unexpectedly failed",
};
pub(super) const NOT_SOURCE: Fault = invalid("migration statistics are available only on the source host");
pub(super) const HALF_DONE: Fault = Fault {
    code: sys::VIR_ERR_OPERATION_FAILED,
    part: sys::VIR_FROM_QEMU,
    text: "operation failed: job 'migration out' failed in post-copy phase",
};
pub(super) const BROKEN: Fault =
    Fault { code: sys::VIR_ERR_INTERNAL_ERROR, part: sys::VIR_FROM_RPC, text: "internal error: client socket is closed" };

pub(super) const fn invalid(text: &'static str) -> Fault {
    Fault { code: sys::VIR_ERR_OPERATION_INVALID, part: sys::VIR_FROM_QEMU, text }
}
