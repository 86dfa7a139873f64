//! A folder of this program's own beside a disk, with a word in it that nobody else knows: whoever can read the word at the same place has
//! the same folder. In it may be links, so that somebody who can read that folder there also sees what those names mean there.
//!
//! One that proves something at once lives for a moment. A mark lies there for as long as its guest runs: it is for the time when nothing
//! can be written there from here any more.

use crate::deadline::{Deadline, unix_time};
use crate::program::{self, Outcome};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The word by which this program calls itself for this work.
pub const WORD: &str = "storage-nonce";

/// How the folders' names begin; then comes when they were made, in seconds since 1970.
pub const BEGIN: &str = ".kvmha-proof-";

/// How those of marks begin; at their end stands whose they are.
pub const MARK: &str = ".kvmha-mark-";

/// The file with the word.
pub const FILE: &str = "word";

/// The folder of the links, in the folder: whoever reads the one does not have to follow the others.
pub const LINKS: &str = "links";

/// After this time a folder that an earlier call could not remove is removed by the next.
const STALE: Duration = Duration::from_secs(3600);

/// The same for a mark: those of guests that run are made anew every hour, and storage may be out for days.
const STALE_MARK: Duration = Duration::from_secs(30 * 86400);

/// A folder with a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce {
    /// Where it is.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// The word in it.
    pub word: String,
}

impl Nonce {
    /// One that can be made in `folder`.
    ///
    /// # Errors
    /// The kernel gives no random bits.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let word = uuid()?;
        let name = format!("{BEGIN}{}-{}", unix_time(), word.get(..8).unwrap_or_default());
        Ok(Self { folder: folder.to_owned(), name, word })
    }

    /// A mark of the guest that is told apart by `owner`.
    ///
    /// # Errors
    /// The kernel gives no random bits.
    pub fn mark(folder: &Path, owner: u64) -> io::Result<Self> {
        let (chance, word) = (uuid()?, uuid()?);
        // Two that are made in one second are two.
        let name = format!("{MARK}{}-{}-{owner:016x}", unix_time(), chance.get(..8).unwrap_or_default());
        Ok(Self { folder: folder.to_owned(), name, word })
    }

    /// Makes it, with links to `targets`, which are called by their number.
    ///
    /// # Errors
    /// Why not.
    pub fn put(&self, targets: &[PathBuf], deadline: &Deadline) -> Result<(), String> {
        let mut words: Vec<&OsStr> = vec!["put".as_ref(), self.folder.as_os_str(), self.name.as_ref(), self.word.as_ref()];
        words.extend(targets.iter().map(|target| target.as_os_str()));
        work(&words, deadline)
    }

    /// Removes what is left of others in its folder, and the other marks of its guest but those called `kept`: a folder may have two paths.
    ///
    /// # Errors
    /// It is not there itself, or its storage does not answer.
    pub fn sweep(&self, kept: &[String], deadline: &Deadline) -> Result<(), String> {
        let mut words: Vec<&OsStr> = vec!["sweep".as_ref(), self.folder.as_os_str(), self.name.as_ref()];
        words.extend(kept.iter().map(OsStr::new));
        work(&words, deadline)
    }

    /// Removes it; it is no error if it is not there.
    ///
    /// # Errors
    /// Why not.
    pub fn take(&self, deadline: &Deadline) -> Result<(), String> {
        work(&["take".as_ref(), self.folder.as_os_str(), self.name.as_ref()], deadline)
    }
}

/// 128 random bits of the kernel's.
fn uuid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

fn work(words: &[&OsStr], deadline: &Deadline) -> Result<(), String> {
    let mut all = vec![OsStr::new(WORD)];
    all.extend(words);
    // In a folder that hangs each of them would.
    let about: Vec<&OsStr> = [OsStr::new(WORD)].into_iter().chain(words.get(1).copied()).collect();
    let finished = program::run_self_about(&all, &about, deadline).map_err(|error| error.to_string())?;
    match finished.outcome {
        Outcome::Exited(0) => Ok(()),
        Outcome::Exited(_) => Err(finished.complaint()),
        Outcome::Late => Err("its storage does not answer".to_owned()),
    }
}

/// The child's side.
///
/// # Errors
/// What went wrong.
pub fn perform(words: &[OsString]) -> io::Result<()> {
    let [what, folder, name, rest @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
    let (folder, name) = (Path::new(folder), name.to_str().filter(|name| made(name).is_some() && !name.contains('/')));
    let place = folder.join(name.ok_or(io::ErrorKind::InvalidInput)?);
    match (what.to_str(), rest) {
        (Some("put"), [word, targets @ ..]) => {
            fs::create_dir(&place)?;
            let made = write(&place.join(FILE), word.as_encoded_bytes()).and_then(|()| fs::create_dir(place.join(LINKS))).and_then(|()| {
                targets.iter().enumerate().try_for_each(|(at, target)| symlink(target, place.join(LINKS).join(at.to_string())))
            });
            made.inspect_err(|_| drop(remove(&place)))?;
            // The guest's mark that was there before is needed until the new one is known.
            if owner(name.unwrap_or_default()).is_none() {
                sweep(folder, &place, &[]);
            }
            Ok(())
        }
        (Some("sweep"), kept) => fs::symlink_metadata(place.join(FILE)).map(|_| sweep(folder, &place, kept)),
        (Some("take"), []) => remove(&place),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Synced too: a network file system may say only then that there is no room.
fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Removes what [`perform`] has made, and nothing else: a folder with something else in it stays.
fn remove(place: &Path) -> io::Result<()> {
    let links = place.join(LINKS);
    // A link that somebody has put there leads to what is not ours.
    if [place, &links].iter().any(|folder| fs::symlink_metadata(folder).is_ok_and(|data| !data.is_dir())) {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    for link in fs::read_dir(&links).into_iter().flatten().flatten() {
        if link.file_type().is_ok_and(|kind| kind.is_symlink()) {
            fs::remove_file(link.path())?;
        }
    }
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_dir(links))?;
    gone(fs::remove_file(place.join(FILE)))?;
    gone(fs::remove_dir(place))
}

/// Removes what calls left that were killed: what is much older than what was made now, by the clock of the file system, as another
/// host's may be wrong; and other marks of the same guest, which has left them on other nodes. What cannot be removed stays.
fn sweep(folder: &Path, new: &Path, kept: &[OsString]) {
    let changed = |path: &Path| fs::symlink_metadata(path).and_then(|data| data.modified());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (Ok(now), mine) = (changed(new), name(new)) else { return };
    for place in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|place| place != new) {
        let name = name(&place);
        let limit = match (made(&name), owner(&name)) {
            (None, _) => continue,
            _ if kept.iter().any(|kept| *kept == *name) => continue,
            (_, Some(owned)) if owner(&mine) == Some(owned) => Duration::ZERO,
            (_, Some(_)) => STALE_MARK,
            (_, None) => STALE,
        };
        let age = changed(&place).ok().and_then(|time| now.duration_since(time).ok());
        if limit.is_zero() || age.is_some_and(|age| age > limit) {
            let _ = remove(&place);
        }
    }
}

/// When a folder of this name was made, since 1970; `None` if the name is none of ours.
#[must_use]
pub fn made(name: &str) -> Option<Duration> {
    let (seconds, _) = [BEGIN, MARK].iter().find_map(|begin| name.strip_prefix(begin))?.split_once('-')?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// Whose mark a folder of this name is.
fn owner(name: &str) -> Option<&str> {
    name.strip_prefix(MARK)?.rsplit_once('-').map(|(_, owner)| owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(words: &[&OsStr]) -> io::Result<()> {
        perform(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn put_and_taken_and_nothing_else_is_removed() {
        let root = tempfile::tempdir().unwrap();
        // By the file system's clock: the host that has made the second one has a clock that is far behind.
        let (name, old, live) = (format!("{BEGIN}9999999999-a"), format!("{BEGIN}9999999998-b"), format!("{BEGIN}1000-d"));
        done(&["put".as_ref(), root.path().as_os_str(), live.as_ref(), "word".as_ref()]).unwrap();
        let stale = root.path().join(&old);
        done(&["put".as_ref(), root.path().as_os_str(), old.as_ref(), "word".as_ref()]).unwrap();
        let other = root.path().join(format!("{BEGIN}1000-c"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("somebody's"), "data").unwrap();
        for folder in [&stale, &other] {
            fs::File::open(folder).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        done(&["put".as_ref(), root.path().as_os_str(), name.as_ref(), "secret".as_ref(), "/dev/null".as_ref()]).unwrap();
        let place = root.path().join(&name);
        assert_eq!(fs::read_to_string(place.join(FILE)).unwrap(), "secret");
        assert_eq!(fs::read_link(place.join(LINKS).join("0")).unwrap(), Path::new("/dev/null"));
        assert!(!stale.exists() && other.join("somebody's").exists() && root.path().join(live).join(FILE).exists());
        fs::write(place.join("more"), "data").unwrap();
        assert!(done(&["take".as_ref(), root.path().as_os_str(), name.as_ref()]).is_err());
        fs::remove_file(place.join("more")).unwrap();
        done(&["take".as_ref(), root.path().as_os_str(), name.as_ref()]).unwrap();
        assert!(!place.exists());
        done(&["take".as_ref(), root.path().as_os_str(), name.as_ref()]).unwrap();
    }

    #[test]
    fn a_mark_takes_the_place_of_the_guests_last_one() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str| done(&["put".as_ref(), root.path().as_os_str(), name.as_ref(), "word".as_ref()]).unwrap();
        let at = |name: &str| root.path().join(name);
        let [first, other, next] = ["1-0a", "1-0b", "9-0a"].map(|end| format!("{MARK}{end}"));
        put(&first);
        put(&other);
        // A proof that is made later leaves a mark alone, however old a proof would have to be.
        fs::File::open(at(&other)).unwrap().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(unix_time()) - STALE * 24).unwrap();
        put(&format!("{BEGIN}5-0a"));
        assert!(at(&first).exists() && at(&other).exists());
        put(&next);
        assert!(at(&first).join(FILE).exists(), "until the new one is known");
        done(&["sweep".as_ref(), root.path().as_os_str(), next.as_ref(), first.as_ref()]).unwrap();
        assert!(at(&first).join(FILE).exists(), "one of the same, left under another path of the folder");
        done(&["sweep".as_ref(), root.path().as_os_str(), next.as_ref()]).unwrap();
        assert!(!at(&first).exists() && at(&other).exists() && at(&next).exists());
        assert_eq!((owner(&next), owner(".kvmha-mark-1-ffff-0a")), (Some("0a"), Some("0a")));
        // What has no word takes nothing away.
        fs::remove_file(at(&next).join(FILE)).unwrap();
        put(&first);
        assert!(done(&["sweep".as_ref(), root.path().as_os_str(), next.as_ref()]).is_err());
        assert!(at(&first).join(FILE).exists());
    }

    #[test]
    fn a_link_of_somebodys_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (theirs, name) = (root.path().join("theirs"), format!("{BEGIN}1-a"));
        fs::create_dir_all(theirs.join(LINKS)).unwrap();
        fs::write(theirs.join(FILE), "data").unwrap();
        symlink("/dev/null", theirs.join(LINKS).join("0")).unwrap();
        symlink(&theirs, root.path().join(&name)).unwrap();
        assert!(done(&["take".as_ref(), root.path().as_os_str(), name.as_ref()]).is_err());
        assert!(theirs.join(FILE).exists() && theirs.join(LINKS).join("0").is_symlink());
    }

    #[test]
    fn only_names_of_ours() {
        for words in
            [&["take", "/tmp", "a"][..], &["take", "/tmp", ".kvmha-proof-1-/../x"], &["put", "/tmp"], &["look", "/tmp", ".kvmha-proof-1-a"]]
        {
            let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
            assert!(done(&words).is_err());
        }
        assert_eq!(made(".kvmha-proof-12-ab"), Some(Duration::from_secs(12)));
        let [one, two] = [0, 1].map(|_| Nonce::mark(Path::new("/srv"), 7).unwrap().name);
        assert!(made(&one).is_some() && one != two && owner(&one) == owner(&two));
        assert_eq!(made("kvmha"), None);
    }
}
