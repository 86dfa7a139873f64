//! Changes of files that may lie on storage that hangs: made by a child of this program, which is left behind if it is stuck in the
//! kernel. A change is whole or not there: written beside the file, brought to the disk, and renamed.

use super::{Error, Kind, Result};
use crate::deadline::{Deadline, unix_time};
use crate::program::{self, Outcome};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::NamedTempFile;

/// The word by which this program calls itself for this work.
pub const WORD: &str = "file-work";

/// What is added to the name of the copy of a file that this program had written, and has replaced.
const PREVIOUS: &str = ".previous";

/// What is added to the name of the copy of one that somebody else had written: it stays for good.
const ORIGINAL: &str = ".original";

/// The beginning of the last line of what this program writes: a comment with the sum of what is before it, by which it knows its own files as
/// long as nobody has changed them.
const MARK: &str = "<!-- written by kvmha: ";

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether it is a folder.
    pub folder: bool,
    /// Whether it is a regular file, and no device.
    pub regular: bool,
    /// Its length in bytes.
    pub length: u64,
    /// When it was last written, since 1970.
    pub written: Duration,
}

/// Looks at files, in the same order; `None` for one that is not there.
///
/// # Errors
/// `TimedOut`: the storage does not answer. `Internal`: one of them cannot be looked at.
pub fn look(paths: &[&Path], deadline: &Deadline) -> Result<Vec<Option<Look>>> {
    let mut words = vec![OsStr::new("look")];
    words.extend(paths.iter().map(|path| path.as_os_str()));
    let text = work(&words, deadline)?;
    Ok(text.lines().map(parse).collect())
}

/// The first bytes of a file, `length` at most, as text.
///
/// # Errors
/// As for [`look`].
pub fn begin(path: &Path, length: u8, deadline: &Deadline) -> Result<String> {
    work(&["begin".as_ref(), path.as_os_str(), length.to_string().as_ref()], deadline)
}

/// Gives a file another name in the same file system, in place of whatever has that name.
///
/// # Errors
/// As for [`look`].
pub fn rename(from: &Path, to: &Path, deadline: &Deadline) -> Result<()> {
    work(&["rename".as_ref(), from.as_os_str(), to.as_os_str()], deadline).map(drop)
}

/// Removes a file that this program has made; it is no error if it is gone.
///
/// # Errors
/// As for [`look`].
pub fn remove(path: &Path, deadline: &Deadline) -> Result<()> {
    work(&["remove".as_ref(), path.as_os_str()], deadline).map(drop)
}

/// Replaces the contents of `path` by the XML of `source`, keeping owner, mode and a copy of what was there. Says whether that was
/// different. The copy never takes the place of a file that somebody else has written.
///
/// # Errors
/// As for [`look`]; also if `source` is empty. The file is as it was then.
pub fn replace(path: &Path, source: &Path, deadline: &Deadline) -> Result<bool> {
    Ok(work(&["replace".as_ref(), path.as_os_str(), source.as_os_str()], deadline)? == "replaced")
}

fn work(words: &[&OsStr], deadline: &Deadline) -> Result<String> {
    let mut all = vec![OsStr::new(WORD)];
    all.extend(words);
    let place = words.get(1).map(|path| Path::new(path).display().to_string()).unwrap_or_default();
    let failed = |text: &str| Error::new(Kind::Internal, format!("{place}: {text}"));
    let finished = program::run_self(&all, deadline).map_err(|error| failed(&error.to_string()))?;
    match finished.outcome {
        Outcome::Exited(0) => Ok(String::from_utf8_lossy(&finished.stdout).trim_end_matches('\n').to_owned()),
        Outcome::Exited(_) => Err(failed(&finished.complaint())),
        Outcome::Late => Err(Error::new(Kind::TimedOut, format!("{place}: its storage does not answer"))),
    }
}

/// The line in which a child tells what it has seen.
pub(super) fn told(look: Look) -> String {
    format!("{} {} {} {}", u8::from(look.folder), u8::from(look.regular), look.length, look.written.as_nanos())
}

/// What such a line tells.
pub(super) fn parse(line: &str) -> Option<Look> {
    let mut words = line.split(' ');
    let mut next = || words.next()?.parse::<u64>().ok();
    let (folder, regular, length, written) = (next()?, next()?, next()?, next()?);
    Some(Look { folder: folder == 1, regular: regular == 1, length, written: Duration::from_nanos(written) })
}

/// The child's side: does what `words` say, and gives what is to be printed.
///
/// # Errors
/// What went wrong.
pub fn perform(words: &[OsString]) -> io::Result<String> {
    let (word, paths) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let paths: Vec<&Path> = paths.iter().map(Path::new).collect();
    match (word.to_str(), &paths[..]) {
        (Some("look"), paths) => Ok(paths.iter().map(|path| describe(path)).collect::<io::Result<Vec<_>>>()?.join("\n")),
        (Some("begin"), [path, length]) => {
            let length = length.to_str().and_then(|length| length.parse::<u8>().ok()).ok_or(io::ErrorKind::InvalidInput)?;
            let mut bytes = Vec::new();
            File::open(path)?.take(length.into()).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        (Some("rename"), [from, to]) => {
            fs::rename(from, to)?;
            settle(to)?;
            Ok(String::new())
        }
        (Some("remove"), [path]) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(String::new()),
        },
        (Some("replace"), [path, source]) => Ok(if put(path, &fs::read(source)?)? { "replaced".to_owned() } else { "same".to_owned() }),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn describe(path: &Path) -> io::Result<String> {
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok("-".into()),
        Err(error) => return Err(error),
    };
    let written = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(told(Look { folder: about.is_dir(), regular: about.is_file(), length: about.len(), written }))
}

/// Puts `contents` into the file `path`, as [`replace`] says.
fn put(path: &Path, contents: &[u8]) -> io::Result<bool> {
    if contents.is_empty() {
        return Err(io::Error::other("nothing to write to it"));
    }
    // A link stays one, and what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = match fs::read(&path) {
        Ok(old) if bare(&old) == bare(contents) => return Ok(false),
        Ok(old) => Some((old, fs::metadata(&path)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let about = old.as_ref().map(|(_, about)| about);
    if let Some((old, about)) = &old {
        keep(&path, old, about)?;
    }
    prepare(&path, &marked(bare(contents)), about)?.persist(&path)?;
    settle(&path)?;
    Ok(true)
}

/// The contents without the mark, and without line ends at their end.
pub(super) fn bare(contents: &[u8]) -> &[u8] {
    let contents = contents.trim_ascii_end();
    let begin = contents.iter().rposition(|byte| *byte == b'\n').unwrap_or_default();
    match contents.split_at_checked(begin) {
        Some((before, last)) if last.trim_ascii_start().starts_with(MARK.as_bytes()) => before.trim_ascii_end(),
        _ => contents,
    }
}

pub(super) fn marked(bare: &[u8]) -> Vec<u8> {
    // FNV-1a: it is to notice an editor, not a forger.
    let sum = bare.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    [bare, format!("\n{MARK}{sum:016x} -->\n").as_bytes()].concat()
}

fn is_ours(contents: &[u8]) -> bool {
    contents == marked(bare(contents))
}

/// Keeps a copy of what is about to be replaced.
fn keep(path: &Path, old: &[u8], about: &fs::Metadata) -> io::Result<()> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    if is_ours(old) {
        let previous = beside(PREVIOUS);
        match fs::read(&previous) {
            Ok(other) if !is_ours(&other) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        prepare(path, old, Some(about))?.persist(&previous)?;
        return settle(&previous);
    }
    // A definition that was written by hand again is not the first one.
    let time = unix_time();
    for original in [beside(ORIGINAL), beside(&format!("{ORIGINAL}-{time}"))] {
        match prepare(path, old, Some(about))?.persist_noclobber(&original) {
            Ok(_) => return settle(&original),
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
            Err(_) if fs::read(&original).is_ok_and(|kept| kept == old) => return Ok(()),
            Err(_) => {}
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A file beside `path` that is whole and on the disk, and has only to be given its name.
fn prepare(path: &Path, contents: &[u8], like: Option<&fs::Metadata>) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".kvmha-").tempfile_in(folder(path))?;
    if let Some(like) = like {
        chown(file.path(), Some(like.uid()), Some(like.gid()))?;
        file.as_file().set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    }
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Brings the name to the disk.
fn settle(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(words: &[&OsStr]) -> io::Result<String> {
        perform(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn replaced_whole_with_owner_mode_and_a_copy() {
        let root = tempfile::tempdir().unwrap();
        let (path, link, new) = (root.path().join("web1.xml"), root.path().join("link.xml"), root.path().join("new"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::write(&new, "new").unwrap();
        let replace = || done(&["replace".as_ref(), link.as_os_str(), new.as_os_str()]);
        assert_eq!(replace().unwrap(), "replaced");
        assert_eq!(replace().unwrap(), "same");
        let ours = String::from_utf8(marked(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), ours);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(root.path().join("web1.xml.original")).unwrap(), "old");
        for name in ["web1.xml", "web1.xml.original"] {
            assert_eq!(fs::metadata(root.path().join(name)).unwrap().mode() & 0o777, 0o640, "{name}");
        }
        fs::write(&new, "").unwrap();
        assert!(replace().is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), ours);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4, "nothing is left behind");
    }

    #[test]
    fn what_somebody_wrote_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (path, new) = (root.path().join("a.xml"), root.path().join("new"));
        let put = |contents: &str| {
            fs::write(&new, contents).unwrap();
            done(&["replace".as_ref(), path.as_os_str(), new.as_os_str()]).unwrap()
        };
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        fs::write(&path, "<by-hand/>").unwrap();
        assert_eq!(put("<by-hand/>\n"), "same");
        for contents in ["<one/>", "<two/>", "<three/>"] {
            assert_eq!(put(contents), "replaced");
        }
        assert_eq!(read("a.xml.original"), "<by-hand/>");
        assert_eq!(read("a.xml.previous").into_bytes(), marked(b"<two/>"));
        // Changed by hand once more, below the mark of this program: both are kept.
        let again = read("a.xml").replace("three", "again");
        fs::write(&path, &again).unwrap();
        put("<four/>");
        assert_eq!(read("a.xml.original"), "<by-hand/>");
        let names: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let second = names.iter().find(|name| name.starts_with("a.xml.original-")).unwrap();
        assert_eq!(read(second), again);
        // Somebody else's file of that name.
        fs::write(root.path().join("a.xml.previous"), "mine").unwrap();
        assert_eq!(put("<five/>"), "replaced");
        assert_eq!(read("a.xml.previous"), "mine");
    }

    #[test]
    fn looked_at_renamed_removed() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a b"), root.path().join("b"));
        fs::write(&a, "four").unwrap();
        let text = done(&["look".as_ref(), a.as_os_str(), b.as_os_str(), root.path().as_os_str()]).unwrap();
        let looks: Vec<_> = text.lines().map(parse).collect();
        assert!(looks[0].is_some_and(|look| look.length == 4 && !look.folder && look.regular && !look.written.is_zero()));
        assert_eq!(looks[1], None);
        assert!(looks[2].is_some_and(|look| look.folder && !look.regular));
        assert!(parse(&describe(Path::new("/dev/null")).unwrap()).is_some_and(|look| !look.folder && !look.regular));
        done(&["rename".as_ref(), a.as_os_str(), b.as_os_str()]).unwrap();
        done(&["remove".as_ref(), b.as_os_str()]).unwrap();
        done(&["remove".as_ref(), b.as_os_str()]).unwrap();
        assert!(done(&["rename".as_ref(), a.as_os_str(), b.as_os_str()]).is_err());
        assert!(done(&["unheard-of".as_ref()]).is_err());
    }
}
