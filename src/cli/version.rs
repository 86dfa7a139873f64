//! `kvmha --version`: the version, and below it what the program was built with and what it finds here.

use crate::domain::host;

/// Everything but the first line, which `kvmha -V` has alone.
pub(super) fn more() -> String {
    let built = concat!(
        "built against libvirt ",
        env!("KVMHA_BUILT_LIBVIRT"),
        " with rustc ",
        env!("KVMHA_BUILT_RUSTC"),
        " for ",
        env!("KVMHA_BUILT_TARGET")
    );
    let here = match host::library() {
        Ok(version) => format!("runs with libvirt {version}"),
        Err(error) => format!("runs without libvirt: {error}"),
    };
    format!("{built}\n{here}\n")
}
