//! The mounted file system that a file is on, from the kernel's table.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// What: a device, or `SERVER:/EXPORT`.
    pub source: String,
    /// The file system's name as the kernel has it, such as `nfs4` or `fuse.glusterfs`.
    pub kind: String,
    /// The options of the mount and of the file system, separated by commas.
    pub options: String,
    /// The device's numbers, `MAJOR:MINOR`.
    pub device: String,
}

impl Mount {
    /// The mount that `path`, an absolute path without links, is on. Read from `proc/self/mountinfo` below `root`.
    ///
    /// # Errors
    /// The table cannot be read, or has nothing for the path.
    pub(super) fn of(root: &Path, path: &Path) -> io::Result<Self> {
        let table = fs::read_to_string(root.join("proc/self/mountinfo"))?;
        // Of several at one place the last hides the others.
        let mounts = table.lines().filter_map(parse).filter(|mount| path.starts_with(&mount.point));
        mounts.max_by_key(|mount| mount.point.components().count()).ok_or_else(|| io::Error::other("no file system is mounted there"))
    }

    /// Whether an option is set, `NAME` or `NAME=VALUE`.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|word| word == option)
    }

    /// The value of an option.
    #[must_use]
    pub fn value(&self, option: &str) -> Option<&str> {
        self.options.split(',').find_map(|word| word.strip_prefix(option)?.strip_prefix('='))
    }
}

/// One line, see proc_pid_mountinfo(5).
pub(super) fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let device = before.next()?.to_owned();
    let point = before.nth(1)?;
    let options = before.next()?;
    let mut after = after.split(' ');
    let (kind, source, more) = (after.next()?, after.next()?, after.next().unwrap_or_default());
    let options = format!("{options},{more}");
    Some(Mount { point: unescape(point).into(), source: unescape(source), kind: kind.to_owned(), options, device })
}

/// The kernel writes blanks, line ends and backslashes as three octal digits (`mangle` in its `fs/proc_namespace.c`).
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_and_the_last_mount() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            40 22 0:45 / /srv/a\\040b rw,relatime - nfs4 nas:/export/vms rw,vers=4.2,soft,proto=tcp\n\
            41 22 0:46 / /srv/over rw - nfs one:/x rw\n42 22 0:47 / /srv/over ro - nfs two:/x rw\n";
        fs::write(root.path().join("proc/self/mountinfo"), table).unwrap();
        let of = |path: &str| Mount::of(root.path(), Path::new(path)).unwrap();
        let nfs = of("/srv/a b/c.img");
        assert_eq!((nfs.source.as_str(), nfs.kind.as_str(), nfs.device.as_str()), ("nas:/export/vms", "nfs4", "0:45"));
        assert!(nfs.has("soft") && !nfs.has("hard") && nfs.value("vers") == Some("4.2"));
        assert_eq!(of("/srv/abc").kind, "ext4");
        assert_eq!(of("/srv/over/x").source, "two:/x");
        assert!(of("/srv/over/x").has("ro"));
    }
}
