//! A look at one file, device or folder, made by a child of this program: it may hang in the kernel for as long as its storage does not
//! answer. One that is stuck is left behind, and as long as it is there no other is sent to the same path.

use super::device;
use super::kind::Kind;
use super::mounts::Mount;
use crate::deadline::Deadline;
use crate::program::{self, Finished, Outcome};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The word by which this program calls itself for this work.
pub const WORD: &str = "look-at-storage";

/// How much of a block device is compared, at its beginning and at its end, in bytes.
pub const SAMPLE: u64 = 4096;

/// The longest chain of links that is followed, as in the kernel (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The kind of storage.
    pub kind: Kind,
    /// What tells it apart from every other thing, printable; `None` if nothing does.
    pub token: Option<String>,
    /// Whether it is a block device.
    pub block: bool,
    /// Its size in bytes.
    pub size: u64,
    /// The file system it is on; of a device, the one its name is on.
    pub mount: Mount,
    /// The folders that decide what the path means: the path's own, and that of each link on the way.
    pub folders: Vec<PathBuf>,
    /// A name of a block device that holds its WWID or UUID.
    pub lasting: Option<PathBuf>,
    /// Paths that work, and all: of a multipath device.
    pub paths: Option<(usize, usize)>,
    /// Sums of [`SAMPLE`] bytes at the beginning and at the end: of a block device.
    pub samples: Option<[u64; 2]>,
}

impl Facts {
    /// The folders that decide what the file's path means, here and at another host where it has the path `place`; `path` is that here. A volume has
    /// one path here and may have another there.
    #[must_use]
    pub fn folders_at(&self, path: Option<&Path>, place: &Path) -> Vec<(PathBuf, PathBuf)> {
        if path == Some(place) {
            return self.folders.iter().map(|folder| (folder.clone(), folder.clone())).collect();
        }
        self.folders.first().cloned().zip(place.parent().map(Path::to_owned)).into_iter().collect()
    }
}

/// What a look gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// It is there.
    Facts(Box<Facts>),
    /// It cannot be looked at, and why.
    Missing(String),
    /// Its storage does not answer.
    Silent,
    /// It could not be looked at, which says nothing about it, and why.
    Untold(String),
}

/// Looks at `path`.
#[must_use]
pub fn look(path: &Path, deadline: &Deadline) -> Sight {
    match program::run_self(&[OsStr::new(WORD), path.as_os_str()], deadline) {
        Ok(finished) => seen(&finished),
        Err(error) => Sight::Untold(format!("nobody could be sent to look: {error}")),
    }
}

/// What a child has seen.
fn seen(finished: &Finished) -> Sight {
    let said = finished.complaint();
    match finished.outcome {
        Outcome::Late => Sight::Silent,
        Outcome::Exited(0) => match serde_json::from_slice(&finished.stdout) {
            Ok(facts) => Sight::Facts(Box::new(facts)),
            Err(error) => Sight::Untold(format!("what was seen of it makes no sense: {error}")),
        },
        // A signal has ended it, of a kernel without memory for one.
        Outcome::Exited(code @ 128..) => Sight::Untold(format!("who was sent to look was ended by signal {}", code - 128)),
        Outcome::Exited(_) if is_of_others(&said) => Sight::Untold(said),
        Outcome::Exited(_) => Sight::Missing(said),
    }
}

/// Whether root may not read it, as on an NFS with `root_squash`: libvirt may all the same, which then becomes the user that QEMU runs as
/// (`virFileOpenAs`).
fn is_of_others(text: &str) -> bool {
    [Errno::EACCES, Errno::EPERM].iter().any(|error| text == error.desc().to_lowercase())
}

/// The child's side: what is at `path`, as JSON. A part of it is read, so that storage that only remembers does not pass for one that lives.
///
/// # Errors
/// The path leads to nothing that can be looked at.
pub fn perform(path: &Path) -> io::Result<String> {
    let about = fs::metadata(path)?;
    let whole = fs::canonicalize(path)?;
    let root = Path::new("/");
    let mount = Mount::of(root, &whole)?;
    let mut samples = None;
    let mut size = about.len();
    if !about.is_dir() {
        let mut file = File::open(&whole)?;
        size = file.seek(SeekFrom::End(0))?;
        let sums = [sample(&mut file, 0)?, sample(&mut file, size.saturating_sub(SAMPLE))?];
        samples = about.file_type().is_block_device().then_some(sums);
    }
    let mut facts = of_file(mount, about.ino(), size);
    if about.file_type().is_block_device() {
        let (major, minor) = (nix::libc::major(about.rdev()), nix::libc::minor(about.rdev()));
        let device = device::describe(root, u64::from(major), u64::from(minor));
        facts = Facts { kind: device.kind, token: device.token, block: true, lasting: device.lasting, paths: device.paths, ..facts };
    }
    let facts = Facts { folders: folders(path), samples, ..facts };
    serde_json::to_string(&facts).map_err(io::Error::other)
}

/// A file on this mounted file system.
fn of_file(mount: Mount, inode: u64, size: u64) -> Facts {
    let kind = Kind::of_file_system(&mount.kind);
    let source = &mount.source;
    let token = match kind {
        Kind::Nfs => Some(format!("nfs:{source}:{inode}")),
        Kind::Smb => Some(format!("smb:{source}:{inode}")),
        Kind::Gluster => Some(format!("gluster:{source}:{inode}")),
        Kind::Cephfs => Some(format!("cephfs:{source}:{inode}")),
        Kind::Gfs2 | Kind::Ocfs2 => Some(format!("fs:{source}:{inode}")),
        _ => None,
    };
    Facts { kind, token, block: false, size, mount, folders: Vec::new(), lasting: None, paths: None, samples: None }
}

/// The sum of what is at `from`.
fn sample(file: &mut File, from: u64) -> io::Result<u64> {
    // Otherwise the page cache may answer for a store that does not. What is not written yet stays in it.
    let range = |number: u64| number.try_into().unwrap_or(0);
    let _ = posix_fadvise(&*file, range(from), range(SAMPLE), PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(SAMPLE).read_to_end(&mut bytes)?;
    Ok(sum(&bytes))
}

/// The sum of a sample.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The folders in which the names stand that `path` leads through.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Some(folder) = path.parent().map(Path::to_owned) else { break };
        if !folders.contains(&folder) {
            folders.push(folder.clone());
        }
        match fs::read_link(&path) {
            Ok(to) => path = folder.join(to),
            Err(_) => break,
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str) -> Mount {
        Mount { point: "/srv".into(), source: source.into(), kind: kind.into(), options: "rw".into(), device: "0:40".into() }
    }

    #[test]
    fn recorded_file_systems_and_their_tokens() {
        let cases = [
            ("nfs4", "nas:/vms", Kind::Nfs, Some("nfs:nas:/vms:7")),
            ("nfs", "nas:/vms", Kind::Nfs, Some("nfs:nas:/vms:7")),
            ("gfs2", "/dev/dm-1", Kind::Gfs2, Some("fs:/dev/dm-1:7")),
            ("ocfs2", "/dev/dm-1", Kind::Ocfs2, Some("fs:/dev/dm-1:7")),
            ("fuse.glusterfs", "gl1:/vms", Kind::Gluster, Some("gluster:gl1:/vms:7")),
            ("ceph", "10.0.0.1:6789:/", Kind::Cephfs, Some("cephfs:10.0.0.1:6789:/:7")),
            ("zfs", "tank/vms", Kind::Zfs, None),
            ("fuse.sshfs", "a:", Kind::Fuse, None),
            ("ext4", "/dev/sda1", Kind::Local, None),
            ("xfs", "/dev/sda1", Kind::Local, None),
            ("btrfs", "/dev/sda1", Kind::Local, None),
        ];
        for (name, source, kind, token) in cases {
            let facts = of_file(mount(name, source), 7, 1);
            assert_eq!((facts.kind, facts.token.as_deref()), (kind, token), "{name}");
        }
    }

    #[test]
    fn the_folders_that_decide_what_a_path_means() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("real")).unwrap();
        fs::create_dir_all(at("names")).unwrap();
        fs::write(at("real/a.img"), "x").unwrap();
        std::os::unix::fs::symlink("../real/a.img", at("names/a.img")).unwrap();
        assert_eq!(folders(&at("real/a.img")), [at("real")]);
        assert_eq!(folders(&at("names/a.img")), [at("names"), at("names/../real")]);
        let facts: Facts = serde_json::from_str(&perform(&at("names/a.img")).unwrap()).unwrap();
        assert_eq!((facts.size, facts.block, facts.samples), (1, false, None));
        assert_eq!(perform(&at("real/none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(perform(&at("real")).is_ok());
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_missing() {
        let finished = |code, stdout: &str, stderr: &str| Finished {
            outcome: Outcome::Exited(code),
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.as_bytes().to_vec(),
            cut: false,
        };
        for finished in [
            finished(137, "", ""),
            finished(1, "", "permission denied\n"),
            finished(1, "", "operation not permitted\n"),
            finished(0, "{", ""),
        ] {
            assert!(matches!(seen(&finished), Sight::Untold(text) if !text.is_empty()), "{finished:?}");
        }
        for text in ["no such file or directory", "input/output error", "i/o error", "stale file handle"] {
            assert_eq!(seen(&finished(1, "", &format!("{text}\n"))), Sight::Missing(text.into()));
        }
        assert_eq!(seen(&Finished { outcome: Outcome::Late, ..finished(0, "", "") }), Sight::Silent);
    }
}
