//! The programs a lab is made of: the distribution's, the one under test, and this one.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// What the lab itself runs, and one program of each daemon's package.
const PROGRAMS: &[&str] = &[
    "ip",
    "nsenter",
    "unshare",
    "setsid",
    "busybox",
    "corosync",
    "pacemakerd",
    "crm_mon",
    "libvirtd",
    "virtlogd",
    "virsh",
    "qemu-system-x86_64",
    "gcc",
    "pkg-config",
    "cpio",
];

/// Says what is missing before anything is made.
pub fn check_programs() -> Result<()> {
    let there = |name: &str| crate::init::PATH.split(':').any(|folder| Path::new(folder).join(name).exists());
    let missing: Vec<&str> = PROGRAMS.iter().copied().filter(|name| !there(name)).collect();
    ensure!(missing.is_empty(), "not installed: {} (tests/prepare installs them)", missing.join(", "));
    Ok(())
}

/// The binary under test, given as a file or as the folder it is in.
pub fn agent_file(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join("kvmha") } else { path.to_owned() };
    ensure!(file.is_file(), "there is no {}", file.display());
    Ok(file)
}

/// Copies a program to a place, by way of a new file: the old one may be running.
pub fn place(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file without a folder")?)?;
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("failed to copy {} to {}", from.display(), new.display()))?;
    fs::rename(&new, to).with_context(|| format!("failed to rename to {}", to.display()))
}

/// The program `lab`: this one, or (in a test, which is another program) the one that was built beside it.
pub fn own_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KVMHA_LAB") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    if own.file_name().is_some_and(|name| name == "lab" || name == "fence_lab") {
        return Ok(own);
    }
    near(&own, "lab").with_context(|| format!("no program `lab` near {}: cargo build -p lab (or set KVMHA_LAB)", own.display()))
}

/// The program that a suite tests: `KVMHA_BINARY`, or the one that was built, or installed, beside the suite. Its path is not made part of the
/// suite, so that a suite can be installed with it.
#[must_use]
pub fn under_test() -> PathBuf {
    let named = std::env::var_os("KVMHA_BINARY").filter(|path| !path.is_empty()).map(PathBuf::from);
    let found = || std::env::current_exe().ok().and_then(|own| near(&own, "kvmha"));
    // What is not there is said by the lab, which needs it.
    named.or_else(found).unwrap_or_else(|| "kvmha".into())
}

/// target/debug/deps/SUITE-HASH -> target/debug/NAME, /usr/libexec/kvmha/tests/SUITE -> /usr/libexec/kvmha/NAME
fn near(own: &Path, name: &str) -> Option<PathBuf> {
    own.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file())
}
