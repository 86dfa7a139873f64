//! A clock of its own for each node, which can jump: `clock/clock.c` says how. Only in a lab that was asked for it, by [`crate::Options`].

use crate::cluster::Lab;
use crate::kernel::cache;
use crate::layout::CLOCK;
use crate::process::check;
use crate::program::place;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// The library's source; compiled on the machine that runs the lab.
const SOURCE: &str = include_str!("../clock/clock.c");
/// Where a node has the library.
const LIBRARY: &str = "/usr/lib/lab-clock.so";

impl Lab {
    /// Sets a node's time of day so many seconds ahead of the machine's, or behind it. A power cut sets it right.
    ///
    /// # Errors
    /// The node has no power, or no clock of its own.
    pub fn set_clock(&self, node: &str, ahead: i64) -> Result<()> {
        let path = self.path_in(node, CLOCK)?;
        // In place: every program of the node has this very file in its memory.
        let file = File::options().write(true).open(&path).with_context(|| format!("{node} has no clock of its own"))?;
        file.write_all_at(&ahead.to_ne_bytes(), 0).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// Puts the library to `target`, made anew if it is not of this source.
pub fn provide(target: &Path) -> Result<()> {
    let (cache, _lock) = cache()?;
    let (library, mark) = (cache.join("lab-clock.so"), cache.join("clock.c"));
    if !(library.exists() && fs::read_to_string(&mark).is_ok_and(|old| old == SOURCE)) {
        let work = tempfile::tempdir_in(&cache)?;
        let (source, made) = (work.path().join("clock.c"), work.path().join("lab-clock.so"));
        fs::write(&source, SOURCE)?;
        let (source, output) = (source.to_string_lossy(), made.to_string_lossy());
        let words = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", &output, &source, "-pthread"];
        check(&words, Duration::from_secs(60)).context("failed to build the nodes' clock")?;
        fs::rename(&made, &library)?;
        fs::write(&mark, SOURCE)?;
    }
    place(&library, target)
}

/// While a node's root is built: every program that it starts will have the library.
pub(crate) fn install(library: &Path, root: &Path) -> Result<()> {
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    place(library, &inside(LIBRARY))?;
    fs::write(inside(CLOCK), 0_i64.to_ne_bytes())?;
    fs::write(inside("/etc/ld.so.preload"), format!("{LIBRARY}\n"))?;
    Ok(())
}
