//! Storage that hangs and fails: [`HANGING`], the shared folder seen through a file system of the lab's own in each node.
//!
//! Held, it takes requests and does not answer: who waits for it cannot be killed, as with a file server that is gone. Released, it carries
//! the held requests out, late. libvirt takes it for storage that all nodes share. The node's power cures everything: the file system's
//! process is the node's own, and with it the kernel gives up what waits for it.

use crate::cluster::Lab;
use crate::init::start_line;
use crate::kernel::cache;
use crate::layout::{HANGING, SHARED, STORAGE_FAULT};
use crate::process::{check, replace, wait_until};
use crate::program::place;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The file system's source; compiled on the machine that runs the lab.
const SOURCE: &str = include_str!("../storage/hangfs.c");
/// Where a node has the program.
pub const PROGRAM: &str = "/usr/sbin/hangfs";

/// Which requests a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    Everything,
    /// Those that change something.
    Writes,
}

/// What a node's [`HANGING`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// It does not answer for as long as this stands.
    Hold(Reach),
    /// It fails with this error number.
    Error(Reach, u16),
    /// It answers so many milliseconds later.
    Delay(u32),
}

impl Fault {
    /// The text that the file system reads.
    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Hold(Reach::Everything) => "hold\n".to_owned(),
            Self::Hold(Reach::Writes) => "holdw\n".to_owned(),
            Self::Error(Reach::Everything, number) => format!("err {number}\n"),
            Self::Error(Reach::Writes, number) => format!("errw {number}\n"),
            Self::Delay(milliseconds) => format!("delay {milliseconds}\n"),
        }
    }
}

impl Lab {
    /// Sets what a node's [`HANGING`] does from now on, also to the requests it holds.
    pub fn storage(&self, node: &str, fault: Fault) -> Result<()> {
        ensure!(self.path_in(node, crate::init::READY)?.exists(), "{node} does not run yet");
        replace(&self.path_in(node, STORAGE_FAULT)?, &fault.text())
    }
}

/// Puts the file system's program to `target`, made anew if it is not of this source. Linked statically: nodes may have another release.
pub fn provide(target: &Path) -> Result<()> {
    let (cache, _lock) = cache()?;
    let (program, mark) = (cache.join("hangfs"), cache.join("hangfs.c"));
    if !(program.exists() && fs::read_to_string(&mark).is_ok_and(|old| old == SOURCE)) {
        let work = tempfile::tempdir_in(&cache)?;
        let (source, made) = (work.path().join("hangfs.c"), work.path().join("hangfs"));
        fs::write(&source, SOURCE)?;
        let flags = check(&["pkg-config", "--cflags", "--libs", "--static", "fuse3"], Duration::from_secs(10))
            .context("tests/prepare installs libfuse3-dev")?;
        let (source, output) = (source.to_string_lossy(), made.to_string_lossy());
        let mut words = vec!["gcc", "-static", "-O1", "-Wall", "-Wextra", "-o", &output, &source];
        words.extend(flags.split_whitespace());
        check(&words, Duration::from_secs(120)).context("failed to build the file system that hangs")?;
        fs::rename(&made, &program)?;
        fs::write(&mark, SOURCE)?;
    }
    place(&program, target)
}

/// In a node: mounts [`HANGING`].
pub(crate) fn mount() -> Result<()> {
    start_line("hangfs", &format!("exec {PROGRAM} {STORAGE_FAULT} {SHARED} {HANGING}"))?;
    let mounted = || fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| table.contains(&format!(" {HANGING} ")));
    ensure!(
        wait_until(Duration::from_secs(10), Duration::from_millis(2), mounted),
        "{HANGING} was not mounted, see /var/log/lab-hangfs.log"
    );
    Ok(())
}
