//! Where a program under test that counts what it runs through (`tests/run --coverage`) leaves its counts: a folder of the machine's that every
//! node sees. What is killed leaves none.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// Names the folder on this machine.
const VARIABLE: &str = "KVMHA_LAB_PROFILES";

/// The folder as the nodes see it.
pub const PLACE: &str = "/srv/profiles";

/// The folder on this machine, if there is one.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Tells a program in a node, and all that it starts, where the counts go. Up to four files for each program, into which it adds them.
pub fn tell(command: &mut Command) {
    if folder().is_some() {
        command.env("LLVM_PROFILE_FILE", OsString::from(format!("{PLACE}/%4m.profraw")));
    }
}
