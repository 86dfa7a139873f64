//! libvirt, loaded when it is first needed and not at exec.
//!
//! Loading libvirt.so.0 brings in more than fifty libraries and costs more than all the rest of a `monitor`; metadata and the check
//! of parameters have to work where it is not installed at all. So each function of libvirt that the program refers to is defined
//! here: as a trampoline, which jumps to the address in its slot. [`load`] fills the slots. The linker finds all names defined,
//! and leaves out its own reference to libvirt.so.0 (rustc passes `--as-needed`).
//!
//! The trampolines are hidden: were they exported, libvirt's calls of its own functions would come back to them.
//!
//! A slot that is not filled, because [`load`] was not called, has failed or did not find the function in this libvirt, leads to a
//! function that only reports failure the way libvirt does, NULL or -1, so that nothing can take it for success. The error is then
//! `virt`'s "an unknown libvirt error occurred".
//!
//! Only on x86-64 and AArch64; elsewhere libvirt is linked as usual and [`load`] has nothing to do.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn load() -> Result<(), &'static str> {
    Ok(())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use slots::load;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use slots::slot;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod slots {
    use std::arch::global_asm;
    use std::ffi::{CStr, c_char, c_void};
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use crate::domain::ffi::symbols::libvirt_symbols;

    /// The name the library is found by; the number has never changed since libvirt 0.1.
    const LIBRARY: &CStr = c"libvirt.so.0";

    /// Without these the thing loaded is not the libvirt meant here. All are older than libvirt 1.0; 6.0 is the oldest the project supports.
    const REQUIRED: &[&CStr] = &[
        c"virConnectOpen",
        c"virConnectClose",
        c"virDomainCreateXML",
        c"virDomainDestroyFlags",
        c"virDomainFree",
        c"virDomainGetState",
        c"virDomainLookupByName",
        c"virGetLastError",
        c"virSetErrorFunc",
    ];

    /// Where the slot of a function leads while libvirt's own is not there, if the function answers with a pointer or an amount.
    extern "C" fn zero() -> usize {
        0
    }

    /// Like [`zero`], for a function that answers with a number; `isize` fills the whole register, so this is -1 for an `int` as well.
    extern "C" fn minus_one() -> isize {
        -1
    }

    macro_rules! define {
        (zero: { $($zero:ident)* } minus_one: { $($minus_one:ident)* }) => {
            /// The place of each function in the table.
            #[expect(non_camel_case_types, reason = "libvirt's own names")]
            #[derive(Clone, Copy)]
            #[repr(usize)]
            enum Place { $($zero,)* $($minus_one,)* Count }

            /// The names, in the order of `Place`.
            static NAMES: [&CStr; Place::Count as usize] = [$(name(concat!(stringify!($zero), "\0")),)* $(name(concat!(stringify!($minus_one), "\0")),)*];

            /// Where the trampolines jump to, in the order of `Place`.
            static SLOTS: [AtomicPtr<c_void>; Place::Count as usize] = [
                $({ let _ = Place::$zero; AtomicPtr::new(zero as *mut c_void) },)*
                $({ let _ = Place::$minus_one; AtomicPtr::new(minus_one as *mut c_void) },)*
            ];

            $(trampoline!($zero);)*
            $(trampoline!($minus_one);)*
        };
    }

    /// One trampoline. It touches no register that carries an argument; `endbr64` and `bti c` (as `hint`, so that every assembler
    /// takes it) allow an indirect call of it where the processor checks that.
    #[cfg(target_arch = "x86_64")]
    macro_rules! trampoline {
        ($name:ident) => {
            global_asm!(
                concat!(".pushsection .text.", stringify!($name), ",\"ax\",@progbits"),
                concat!(".globl ", stringify!($name)),
                concat!(".hidden ", stringify!($name)),
                concat!(".type ", stringify!($name), ",@function"),
                concat!(stringify!($name), ":"),
                "endbr64",
                "jmp qword ptr [rip + {slots} + {place}]",
                concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
                ".popsection",
                slots = sym SLOTS,
                place = const Place::$name as usize * size_of::<AtomicPtr<c_void>>(),
            );
        };
    }

    #[cfg(target_arch = "aarch64")]
    macro_rules! trampoline {
        ($name:ident) => {
            global_asm!(
                concat!(".pushsection .text.", stringify!($name), ",\"ax\",@progbits"),
                ".p2align 2",
                concat!(".globl ", stringify!($name)),
                concat!(".hidden ", stringify!($name)),
                concat!(".type ", stringify!($name), ",@function"),
                concat!(stringify!($name), ":"),
                "hint #34",
                "adrp x16, {slots} + {place}",
                "ldr x16, [x16, :lo12:{slots} + {place}]",
                "br x16",
                concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
                ".popsection",
                slots = sym SLOTS,
                place = const Place::$name as usize * size_of::<AtomicPtr<c_void>>(),
            );
        };
    }

    /// A name with its NUL, made while compiling.
    const fn name(bytes: &'static str) -> &'static CStr {
        match CStr::from_bytes_with_nul(bytes.as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("a name holds a NUL"),
        }
    }

    libvirt_symbols!(define);

    /// Fills the slots, once for the process; after a failure every later call fails the same way. Safe from any thread.
    pub(in crate::domain::ffi) fn load() -> Result<(), &'static str> {
        static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
        LOADED.get_or_init(fill).as_ref().copied().map_err(String::as_str)
    }

    /// The slot of a function, for tests that put their own in.
    #[cfg(test)]
    pub(in crate::domain::ffi) fn slot(name: &CStr) -> &'static AtomicPtr<c_void> {
        &SLOTS[NAMES.iter().position(|known| *known == name).expect("a function with a trampoline")]
    }

    fn fill() -> Result<(), String> {
        // SAFETY: the name ends with NUL. The library's own initialisation runs here; it is that of libvirt, which ordinary
        // programs run at exec. It is never closed, so the addresses stay good.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(cause());
        }
        for (name, slot) in NAMES.iter().zip(&SLOTS) {
            // SAFETY: the handle is good, the name ends with NUL.
            let address = unsafe { libc::dlsym(library, name.as_ptr()) };
            if !address.is_null() {
                slot.store(address, Ordering::Release);
            } else if REQUIRED.contains(name) {
                return Err(format!("{} has no function {}", LIBRARY.to_string_lossy(), name.to_string_lossy()));
            }
        }
        Ok(())
    }

    /// What the dynamic linker says about the last failure in this thread.
    fn cause() -> String {
        // SAFETY: takes nothing; gives NULL or a string that stays until this thread's next call to the dynamic linker.
        let text: *const c_char = unsafe { libc::dlerror() };
        if ptr::eq(text, ptr::null()) {
            return "no cause given".to_owned();
        }
        // SAFETY: not NULL, ends with NUL, and copied before anything else can replace it.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// True before and after loading: were libvirt.so.0 a library of the executable, or the trampolines exported, the name would be
        /// found in the global scope. This executable holds every use of `virt` there is in the crate.
        #[test]
        fn libvirt_is_not_there_before_it_is_needed() {
            for name in NAMES {
                // SAFETY: the pseudo handle of the global scope is always good, the name ends with NUL.
                let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
                assert!(address.is_null(), "{name:?} is in the global scope");
            }
        }

        #[test]
        fn loading_twice_is_loading_once() {
            let first = load();
            let slot = SLOTS[Place::virConnectOpen as usize].load(Ordering::Acquire);
            assert_eq!(load(), first);
            assert_eq!(SLOTS[Place::virConnectOpen as usize].load(Ordering::Acquire), slot);
            assert_eq!(first.is_ok(), slot != zero as *mut c_void);
        }

        #[test]
        fn the_required_have_a_slot() {
            for name in REQUIRED {
                assert!(NAMES.contains(name), "{name:?}");
            }
        }
    }
}
