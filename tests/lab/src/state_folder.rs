//! The state folder of a lab, and what belongs to it on this machine: who holds it, processes, mounts.

use crate::layout::Layout;
use crate::power::{INIT, SERVER};
use crate::process::{Identity, arguments, pids, wait_until};
use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// A name that fits a namespace and a folder.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=16).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Makes the state folder, root's own: its parent may be a folder in which anybody makes files.
fn make_private(state: &Path) -> Result<()> {
    fs::create_dir_all(state).with_context(|| format!("failed to make {}", state.display()))?;
    for folder in [state.parent().unwrap_or(state), state] {
        let about = fs::symlink_metadata(folder)?;
        ensure!(about.is_dir() && about.uid() == 0, "{} is not root's own folder", folder.display());
    }
    fs::set_permissions(state, Permissions::from_mode(0o700))?;
    Ok(())
}

/// Only one `up` or `down` at a time; the death of its holder opens the lock.
pub(crate) fn hold(layout: &Layout) -> Result<Flock<File>> {
    let path = layout.lock();
    let mut held = None;
    let open = || -> Result<Option<Flock<File>>> {
        make_private(&layout.state)?;
        let file = File::options().create(true).append(true).open(&path)?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
        // The one who held it may have been `down`, and this the lock of a folder that is gone.
        let same = fs::metadata(&path).is_ok_and(|about| lock.metadata().is_ok_and(|held| held.ino() == about.ino()));
        Ok(same.then_some(lock))
    };
    let mut failed = None;
    wait_until(Duration::from_secs(60), Duration::from_millis(20), || match open() {
        Ok(lock) => {
            held = lock;
            held.is_some()
        }
        Err(error) => {
            failed = Some(error);
            true
        }
    });
    match failed {
        Some(error) => Err(error),
        None => held.with_context(|| format!("another command holds {}", path.display())),
    }
}

/// The lab's own long-lived processes: PID 1s, their `unshare`, the power switch. Found by their exact arguments, so that those are found
/// too which were killed before they could be written down, or whose state folder is gone.
pub(crate) fn strays(state: &Path) -> Vec<(String, Identity)> {
    let state = state.to_string_lossy();
    pids()
        .filter_map(|pid| {
            let identity = Identity::of(pid)?;
            let words = arguments(pid);
            let found = words.windows(3).find(|w| (w[0] == INIT || w[0] == SERVER) && w[1] == "--state" && w[2] == state)?;
            Some((found[0].clone(), identity))
        })
        .collect()
}

/// Mount points below a folder, the innermost first.
pub(crate) fn mounts_below(folder: &Path) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<String> = points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect();
    below.reverse();
    Ok(below)
}
