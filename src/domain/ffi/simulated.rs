//! The functions of libvirt.so.0 for a thread whose hosts are made up (`crate::simulation`): the trampolines lead here, and from here on to
//! libvirt for every other thread.

use super::late;
use crate::simulation::hosts::{Fault, UUID, World};
use crate::simulation::{is_on, world};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_ulonglong, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use virt::sys;

thread_local! {
    /// What the last call that failed says, as libvirt keeps it for each thread.
    static LAST: RefCell<(CString, sys::virError)> = RefCell::new((CString::default(), nothing()));
}

fn nothing() -> sys::virError {
    sys::virError {
        code: 0,
        domain: 0,
        message: ptr::null_mut(),
        level: sys::VIR_ERR_ERROR,
        conn: ptr::null_mut(),
        dom: ptr::null_mut(),
        str1: ptr::null_mut(),
        str2: ptr::null_mut(),
        str3: ptr::null_mut(),
        int1: 0,
        int2: 0,
        net: ptr::null_mut(),
    }
}

fn failed(fault: &Fault) {
    LAST.with_borrow_mut(|(text, error)| {
        *text = CString::new(fault.text).unwrap_or_default();
        error.code = c_int::try_from(fault.code).unwrap_or_default();
        error.domain = c_int::try_from(fault.part).unwrap_or_default();
        error.message = text.as_ptr().cast_mut();
    });
}

/// What stands behind a connection or a domain: the number of its host, and one, since NULL is none.
fn handle<T>(host: usize) -> *mut T {
    ptr::without_provenance_mut((host + 1) * 16)
}

fn host<T>(handle: *mut T) -> usize {
    handle.addr() / 16 - 1
}

fn number(result: Result<c_int, Fault>) -> c_int {
    result.unwrap_or_else(|fault| {
        failed(&fault);
        -1
    })
}

fn pointer<T>(result: Result<*mut T, Fault>) -> *mut T {
    result.unwrap_or_else(|fault| {
        failed(&fault);
        ptr::null_mut()
    })
}

/// Defines the functions: what they do where hosts are made up; elsewhere they hand their arguments on.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty $body:block)*) => {
        #[expect(non_snake_case, reason = "libvirt's own names")]
        mod function {
            use super::*;
            $(pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> $answer {
                if is_on() {
                    return $body;
                }
                let real = real::$name.load(Ordering::Acquire);
                // SAFETY: where the trampoline of this very function led to before.
                let real: unsafe extern "C" fn($($type),*) -> $answer = unsafe { std::mem::transmute(real) };
                // SAFETY: the caller's own arguments.
                unsafe { real($($argument),*) }
            })*
        }
        #[expect(non_upper_case_globals, reason = "libvirt's own names")]
        mod real {
            use super::*;
            $(pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());)*
        }
        /// Has the trampolines lead here, once for the process.
        pub(crate) fn install() {
            static DONE: OnceLock<()> = OnceLock::new();
            DONE.get_or_init(|| {
                // Where libvirt is not installed, the slots lead to functions that fail: those too are good to hand on to.
                let _ = late::load();
                $(
                    let name = CString::new(stringify!($name)).unwrap_or_default();
                    let slot = late::slot(&name);
                    // In this order: another thread may come through in between.
                    real::$name.store(slot.load(Ordering::Acquire), Ordering::Release);
                    slot.store(function::$name as *mut c_void, Ordering::Release);
                )*
            });
        }
    };
}

functions! {
    fn virConnectOpenAuth(uri: *const c_char, auth: sys::virConnectAuthPtr, flags: c_uint) -> sys::virConnectPtr {
        let _ = (auth, flags);
        // SAFETY: the caller's string, which ends with NUL.
        let uri = unsafe { CStr::from_ptr(uri) }.to_string_lossy();
        pointer(world(|world| world.open(&uri)).map(handle))
    }
    fn virConnectClose(connect: sys::virConnectPtr) -> c_int { let _ = connect; 0 }
    fn virConnectGetLibVersion(connect: sys::virConnectPtr, version: *mut c_ulong) -> c_int {
        number(world(|world| world.version(host(connect))).map(|found| {
            // SAFETY: the caller's own place for it.
            unsafe { *version = found };
            0
        }))
    }
    fn virConnectGetCapabilities(connect: sys::virConnectPtr) -> *mut c_char {
        let text = format!("<capabilities><host><uuid>{}</uuid></host></capabilities>", world(|world| world.hardware(host(connect))));
        pointer(world(|world| world.capabilities(host(connect))).map(|()| given(text)))
    }
    fn virConnectGetHostname(connect: sys::virConnectPtr) -> *mut c_char {
        pointer(world(|world| world.host_name(host(connect))).map(given))
    }
    fn virNodeGetCPUStats(connect: sys::virConnectPtr, which: c_int, list: *mut sys::virNodeCPUStats, count: *mut c_int, flags: c_uint) -> c_int {
        let _ = (which, flags);
        number(world(|world| world.cpu_time(host(connect))).map(|time| {
            let mut field = [0; 80];
            field[..4].copy_from_slice(&b"idle".map(|byte| c_char::from_ne_bytes([byte])));
            // SAFETY: the caller's own places: NULL where only their number is asked for, else as many.
            unsafe {
                *count = 1;
                if !list.is_null() {
                    *list = sys::virNodeCPUStats { field, value: c_ulonglong::try_from(time.as_nanos()).unwrap_or_default() };
                }
            }
            0
        }))
    }
    fn virGetLastError() -> sys::virErrorPtr { LAST.with_borrow_mut(|(_, error)| &raw mut *error) }
    fn virConnectListAllDomains(connect: sys::virConnectPtr, domains: *mut *mut sys::virDomainPtr, flags: c_uint) -> c_int {
        // Only who was saved is listed: of the others nobody whose hosts are made up needs to know.
        let is_listed = flags == sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE && world(|world| world.lists_saved(host(connect)));
        // SAFETY: the caller's own place for it; the list is the caller's to free, and has place for one.
        unsafe {
            *domains = libc::calloc(1, size_of::<sys::virDomainPtr>()).cast();
            if is_listed && !(*domains).is_null() {
                **domains = handle(host(connect));
            }
        }
        c_int::from(is_listed)
    }
    fn virDomainLookupByName(connect: sys::virConnectPtr, name: *const c_char) -> sys::virDomainPtr {
        // SAFETY: the caller's string, which ends with NUL.
        let name = unsafe { CStr::from_ptr(name) };
        pointer(world(|world| world.look_up(host(connect), name.to_bytes() == world.name(host(connect)).to_bytes())).map(handle))
    }
    fn virDomainLookupByUUIDString(connect: sys::virConnectPtr, uuid: *const c_char) -> sys::virDomainPtr {
        // SAFETY: the caller's string, which ends with NUL.
        let uuid = unsafe { CStr::from_ptr(uuid) };
        pointer(world(|world| world.look_up(host(connect), uuid.to_bytes() == UUID.to_bytes())).map(handle))
    }
    fn virDomainFree(domain: sys::virDomainPtr) -> c_int { let _ = domain; 0 }
    fn virDomainGetName(domain: sys::virDomainPtr) -> *const c_char { world(|world| world.name(host(domain)).as_ptr()) }
    fn virDomainGetID(domain: sys::virDomainPtr) -> c_uint {
        world(|world| world.number(host(domain))).and_then(|number| c_uint::try_from(number).ok()).unwrap_or(c_uint::MAX)
    }
    fn virDomainGetUUIDString(domain: sys::virDomainPtr, place: *mut c_char) -> c_int {
        let _ = domain;
        // SAFETY: a place of VIR_UUID_STRING_BUFLEN bytes, which is what the text has with its NUL.
        unsafe { ptr::copy_nonoverlapping(UUID.as_ptr(), place, UUID.count_bytes() + 1) };
        0
    }
    fn virDomainGetUUID(domain: sys::virDomainPtr, place: *mut u8) -> c_int {
        let _ = domain;
        let digits: Vec<u8> = UUID.to_bytes().iter().copied().filter(u8::is_ascii_hexdigit).collect();
        for (at, pair) in digits.chunks(2).enumerate() {
            let byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
            // SAFETY: a place of VIR_UUID_BUFLEN bytes, 16, which is how many there are.
            unsafe { *place.add(at) = byte };
        }
        0
    }
    fn virDomainGetState(domain: sys::virDomainPtr, state: *mut c_int, reason: *mut c_int, flags: c_uint) -> c_int {
        let _ = flags;
        number(world(|world| world.state(host(domain))).map(|(found, why)| {
            // SAFETY: the caller's own places for them.
            unsafe {
                *state = found;
                *reason = why;
            }
            0
        }))
    }
    fn virDomainIsActive(domain: sys::virDomainPtr) -> c_int { number(world(|world| world.is_active(host(domain))).map(c_int::from)) }
    fn virDomainIsPersistent(domain: sys::virDomainPtr) -> c_int { number(world(|world| world.is_persistent(host(domain))).map(c_int::from)) }
    fn virDomainGetAutostart(domain: sys::virDomainPtr, autostart: *mut c_int) -> c_int {
        let _ = domain;
        world(|world| world.odd.autostarts += 1);
        // SAFETY: the caller's own place for it.
        unsafe { *autostart = 0 };
        0
    }
    fn virDomainHasManagedSaveImage(domain: sys::virDomainPtr, flags: c_uint) -> c_int {
        let _ = flags;
        number(world(|world| world.has_memory(host(domain))).map(c_int::from))
    }
    fn virDomainManagedSaveRemove(domain: sys::virDomainPtr, flags: c_uint) -> c_int { let _ = flags; act(domain, World::drop_memory) }
    fn virDomainGetXMLDesc(domain: sys::virDomainPtr, flags: c_uint) -> *mut c_char {
        let _ = flags;
        // SAFETY: a string that ends with NUL; the copy is the caller's to free.
        pointer(world(|world| world.definition(host(domain))).map(|text: &CStr| unsafe { libc::strdup(text.as_ptr()) }))
    }
    fn virDomainGetJobStats(
        domain: sys::virDomainPtr, kind: *mut c_int, list: *mut sys::virTypedParameterPtr, count: *mut c_int, flags: c_uint
    ) -> c_int {
        let _ = flags;
        number(world(|world| world.job(host(domain))).map(|operation| {
            // SAFETY: the caller's own places for them.
            unsafe {
                *kind = c_int::from(operation.is_some()) * 2;
                *count = c_int::from(operation.is_some()) * 3;
                *list = operation.map_or(ptr::null_mut(), |operation| {
                    let sent = c_int::from(world(|world| world.flows()));
                    let list = [parameter(c"operation", operation), parameter(c"memory_iteration", 1), parameter(c"data_processed", sent)];
                    Box::into_raw(Box::new(list)).cast()
                });
            }
            0
        }))
    }
    fn virTypedParamsFree(list: sys::virTypedParameterPtr, count: c_int) -> () {
        let _ = count;
        if !list.is_null() {
            // SAFETY: made by the function above, and given back once.
            drop(unsafe { Box::from_raw(list.cast::<[sys::virTypedParameter; 3]>()) });
        }
    }
    fn virDomainMigrateStartPostCopy(domain: sys::virDomainPtr, flags: c_uint) -> c_int { let _ = flags; act(domain, World::start_postcopy) }
    fn virDomainCreateXML(connect: sys::virConnectPtr, xml: *const c_char, flags: c_uint) -> sys::virDomainPtr {
        let _ = (xml, flags);
        pointer(world(|world| world.create_paused(host(connect))).map(handle))
    }
    fn virDomainResume(domain: sys::virDomainPtr) -> c_int { act(domain, World::let_run) }
    fn virDomainAbortJob(domain: sys::virDomainPtr) -> c_int { act(domain, World::abort) }
    fn virDomainCreateWithFlags(domain: sys::virDomainPtr, flags: c_uint) -> c_int { let _ = flags; act(domain, World::start) }
    fn virDomainDestroy(domain: sys::virDomainPtr) -> c_int { act(domain, World::destroy) }
    fn virDomainShutdown(domain: sys::virDomainPtr) -> c_int { act(domain, World::shut_down) }
    fn virDomainShutdownFlags(domain: sys::virDomainPtr, flags: c_uint) -> c_int { let _ = flags; act(domain, World::shut_down) }
    fn virDomainMigrateSetMaxDowntime(domain: sys::virDomainPtr, time: c_ulonglong, flags: c_uint) -> c_int {
        let _ = (domain, time, flags);
        0
    }
    fn virDomainMigrateToURI3(
        domain: sys::virDomainPtr, to: *const c_char, list: sys::virTypedParameterPtr, count: c_uint, flags: c_uint
    ) -> c_int {
        let _ = (to, list, count);
        number(world(|world| world.move_away(host(domain), flags)).map(|()| 0))
    }
}

/// A text that is the caller's to free.
fn given(text: String) -> *mut c_char {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: a string that ends with NUL.
    unsafe { libc::strdup(text.as_ptr()) }
}

fn act(domain: sys::virDomainPtr, act: fn(&mut World, usize) -> Result<(), Fault>) -> c_int {
    number(world(|world| act(world, host(domain))).map(|()| 0))
}

fn parameter(name: &CStr, value: c_int) -> sys::virTypedParameter {
    let mut field = [0; 80];
    for (place, byte) in field.iter_mut().zip(name.to_bytes()) {
        *place = c_char::from_ne_bytes([*byte]);
    }
    let kind = c_int::try_from(sys::VIR_TYPED_PARAM_INT).unwrap_or_default();
    sys::virTypedParameter { field, type_: kind, value: sys::_virTypedParameter__bindgen_ty_1 { i: value } }
}
