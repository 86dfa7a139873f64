//! What the target's libvirt can be had to read: a folder, as a pool that is not defined and lives for a moment.

use crate::deadline::{Deadline, unix_time};
use crate::domain::connection::Connection;
use crate::domain::{Error, Kind, ffi};
use crate::storage::look::{self, SAMPLE};
use crate::storage::nonce::{self, Nonce};
use crate::xml::Document;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::Duration;
use virt::connect::Connect;
use virt::error::Error as VirtError;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt::sys;

/// How often a folder that was made just now and is not there is asked for, and how long between: a client of a network file system may be
/// behind.
pub(super) const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// How long it may take to take away what an earlier question has left: if that one still hangs, this would too.
const TAKING: Duration = Duration::from_secs(1);

/// In how many seconds every question has ended, or hangs; the clock of the host that has put it may be another one.
const LONGEST: u64 = 600;

/// What is read whole has no more: a definition, a table of hosts.
const MOST: usize = 4 * 1024 * 1024;

/// In how many places a device is read of which the beginning and the end may be in that host's page cache.
const PLACES: usize = 3;

/// What a folder that was asked for at the target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is the same.
    Same,
    /// It is not there, or is another one.
    Other,
    /// Cannot be told.
    Unknown(String),
    /// The target gave no answer: it may hang.
    Silent(String),
}

/// What a link leads to at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct There {
    /// Its size in bytes, whatever is on it.
    pub(super) size: u64,
    /// Sums of the beginning and the end.
    pub(super) samples: [u64; 2],
}

/// What is asked about the links of a folder. A link is known by its number.
pub(super) struct Question<'a> {
    /// How many there are.
    pub(super) count: usize,
    /// Those whose contents are wanted.
    pub(super) texts: &'a [usize],
    /// Those whose devices are also read where nobody has read them before.
    pub(super) through: &'a [usize],
}

/// What all links lead to.
pub(super) struct Seen {
    /// Of each link, in their order; `None` if it leads to nothing. A folder has no samples worth the name.
    pub(super) links: Vec<Option<There>>,
    /// The contents of those that were asked for, in the order of the question; `None` if they cannot be had.
    pub(super) texts: Vec<Option<String>>,
}

/// Has the target's libvirt read the word, so many times at most.
pub(super) fn ask(there: &Connection, folder: &Path, nonce: &Nonce, tries: u32, deadline: &Deadline) -> Answer {
    let mut left = tries;
    loop {
        let word = nonce.word.clone();
        let read = in_folder(there, &folder.join(&nonce.name), &nonce.name, "word", deadline, move |connect, pool| {
            let found = read(connect, &pool.lookup_storage_vol_by_name(nonce::FILE)?, 0, 0)?;
            Ok(found == word.as_bytes())
        });
        match read {
            Ok(Some(true)) => return Answer::Same,
            Ok(Some(false) | None) => {
                left = left.saturating_sub(1);
                if left == 0 || !deadline.pause(PAUSE) {
                    return Answer::Other;
                }
            }
            Err(error) if error.kind == Kind::Unresponsive => return Answer::Silent(error.text),
            Err(error) => return Answer::Unknown(error.text),
        }
    }
}

/// Has the target's libvirt look at what the links lead to there. `None` if the folder of the links is not there.
///
/// # Errors
/// It cannot, or gives no answer.
pub(super) fn see(
    there: &Connection,
    folder: &Path,
    nonce: &Nonce,
    question: &Question,
    deadline: &Deadline,
) -> Result<Option<Seen>, Error> {
    let Question { count, texts, through } = *question;
    let (place, texts, through) = (folder.join(&nonce.name).join(nonce::LINKS), texts.to_vec(), through.to_vec());
    in_folder(there, &place, &nonce.name, "links", deadline, move |connect, pool| {
        let names = pool.list_volumes()?;
        let volume = |at: usize| {
            let name = at.to_string();
            names.contains(&name).then(|| pool.lookup_storage_vol_by_name(&name)).transpose()
        };
        let text = |at: &usize| {
            // A folder, or what is not there any more, has none.
            let read = volume(*at)?.and_then(|volume| read(connect, &volume, 0, 0).ok());
            Ok(read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let texts = texts.iter().map(text).collect::<Result<Vec<_>, VirtError>>()?;
        let links = (0..count).map(|at| {
            let seen = volume(at)?.map(|volume| describe(connect, &volume, through.contains(&at))).transpose()?;
            Ok(seen.flatten())
        });
        let links = links.collect::<Result<Vec<_>, VirtError>>()?;
        Ok(Seen { links, texts })
    })
}

/// Has a libvirt read files of a folder of its host's, each at most [`MOST`] long; `None` for one that is not there, or for all if the
/// folder is not.
pub(super) fn texts(host: &Connection, folder: &Path, names: &[&str], deadline: &Deadline) -> Result<Option<Vec<Option<String>>>, String> {
    // Its name only, by which a pool that was left is known.
    let name = Nonce::new(folder).map_err(|error| error.to_string())?.name;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let read = in_folder(host, folder, &name, "files", deadline, move |connect, pool| {
        let there = pool.list_volumes()?;
        let text = |name: &String| {
            let found = there.iter().any(|known| known == name).then(|| pool.lookup_storage_vol_by_name(name)).transpose()?;
            let bytes = found.map(|volume| read(connect, &volume, 0, 0)).transpose()?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        names.iter().map(text).collect::<Result<Vec<_>, VirtError>>()
    });
    read.map_err(|error| error.text)
}

/// What a link leads to; `None` if there is less of it than it says.
fn describe(connect: &Connect, volume: &StorageVol, through: bool) -> Result<Option<There>, VirtError> {
    // Its capacity is what the image on it gives a guest, if there is one (qcow2, a LUKS header): this is where it ends.
    let (kind, size) = volume.info_flags(sys::VIR_STORAGE_VOL_GET_PHYSICAL).map(|info| (info.kind, info.allocation))?;
    let sum = |from| read(connect, volume, from, SAMPLE).map(|bytes| look::sum(&bytes));
    let folder = kind == sys::VIR_STORAGE_VOL_DIR;
    let samples = if folder { [0; 2] } else { [sum(0)?, sum(size.saturating_sub(SAMPLE))?] };
    if through && !folder {
        for from in places(size) {
            if read(connect, volume, from, SAMPLE)?.is_empty() {
                return Ok(None);
            }
        }
    }
    Ok(Some(There { size, samples }))
}

/// Where something of this size is read, in bytes.
fn places(size: u64) -> [u64; PLACES] {
    [(); PLACES].map(|()| chance() % size.div_ceil(SAMPLE).max(1) * SAMPLE)
}

/// Works with a folder as a pool that is not defined and ends afterwards, which touches no file; `None` if the folder is not there. `name`
/// and `kind` say what it is asked for.
///
/// While libvirt reads a folder its pool is locked, and if the storage hangs it stays so. Whoever then asks for a pool of the same name waits for
/// that lock, and whoever lists the pools does, and keeps everybody else from the list meanwhile; a pool of the same folder and another name is
/// refused at once (`virStoragePoolObjListAdd` and `virStoragePoolObjListExport` in `src/conf/virstorageobj.c`). So each question has a name of
/// its own, nothing is listed, and what an earlier question has left is taken away only where it is in the way.
///
/// # Errors
/// libvirt's; `Unresponsive` if it gives no answer.
fn in_folder<T: Send + 'static>(
    host: &Connection,
    place: &Path,
    name: &str,
    kind: &str,
    deadline: &Deadline,
    work: impl Fn(&Connect, &StoragePool) -> Result<T, VirtError> + Clone + Send + 'static,
) -> Result<Option<T>, Error> {
    let attempt = || {
        let (xml, work) = (pool_xml(&format!("{name}-{kind}-{:016x}", chance()), place), work.clone());
        host.call(&format!("reading {}", place.display()), deadline, move |connect| {
            let pool = match connect.create_storage_pool_xml(&xml, 0) {
                Ok(pool) => pool,
                Err(_) if ffi::is_not_there() => return Ok(None),
                Err(error) => return Err(error),
            };
            let result = work(connect, &pool);
            let _ = pool.destroy();
            result.map(Some)
        })
    };
    let first = attempt();
    let Some(left) = first.as_ref().err().and_then(|error| left(&error.text, name, kind, unix_time())) else { return first };
    host.call("taking away what an earlier question has left", &deadline.within(TAKING), move |connect| {
        // It may have ended meanwhile.
        connect.lookup_storage_pool_by_name(&left).map_or(Ok(()), |pool| pool.destroy())
    })?;
    attempt()
}

/// The pool that libvirt says is in the way of one for `name` and `kind`, if a question has left it that does not need it any more. The words
/// around it are in the language of the daemon.
fn left(text: &str, name: &str, kind: &str, now: u64) -> Option<String> {
    let begins = [nonce::BEGIN, nonce::MARK].into_iter().flat_map(|begin| text.match_indices(begin)).filter_map(|(at, _)| text.get(at..));
    let mut found = begins.filter_map(|rest| rest.split(|sign: char| !sign.is_ascii_alphanumeric() && !".-".contains(sign)).next());
    let (of_kind, own) = (format!("-{kind}"), format!("{name}-{kind}"));
    // One asks at a time for a folder that has a word; another folder of a host's may be read by several.
    let old = |found: &str| nonce::made(found).is_some_and(|made| now.abs_diff(made.as_secs()) > LONGEST);
    found.find(|found| found.contains(&of_kind) && (found.starts_with(&own) || old(found))).map(str::to_owned)
}

/// A number that is another one each time.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn pool_xml(name: &str, place: &Path) -> String {
    let mut document = Document::new(None);
    document.element("pool", &[("type", "dir")], |pool| {
        pool.text("name", &[], name);
        pool.element("target", &[], |target| target.text("path", &[], &place.to_string_lossy()));
    });
    String::from_utf8_lossy(&document.finish()).into_owned()
}

/// What is in a volume, from an offset on: `length` bytes, or all.
fn read(connect: &Connect, volume: &StorageVol, from: u64, length: u64) -> Result<Vec<u8>, VirtError> {
    let stream = Stream::new(connect, 0)?;
    volume.download(&stream, from, length, 0)?;
    let (mut all, mut part) = (Vec::new(), vec![0; 65536]);
    while all.len() < MOST {
        match usize::try_from(stream.recv(&mut part)?) {
            Ok(count) if count > 0 => all.extend(part.iter().take(count)),
            _ => {
                stream.finish()?;
                return Ok(all);
            }
        }
    }
    stream.abort()?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_question_has_left() {
        let name = format!("{}100-aa-0b", nonce::MARK);
        let conflict = |pool: &str| {
            format!("reading a folder at qemu+tcp://node2/system: operation failed: Konflikt mit Pool: \u{201e}{pool}\u{201c}")
        };
        let find = |text: &str, kind: &str| left(text, &name, kind, 150);
        let (own, former) = (format!("{name}-word-00ff"), format!("{name}-word"));
        assert_eq!(find(&conflict(&own), "word"), Some(own.clone()));
        assert_eq!(find(&conflict(&former), "word"), Some(former), "of a version whose questions had one name");
        // That of somebody who may still be reading, and what is no pool of ours.
        let other = format!("{}140-cc-files-00ff", nonce::BEGIN);
        assert_eq!(find(&conflict(&other), "files"), None);
        assert_eq!(left(&conflict(&other), &name, "files", 141 + LONGEST), Some(other));
        assert_eq!(find(&conflict(&own), "links"), None);
        assert_eq!(find(&conflict("vms"), "word"), None);
        assert_eq!(find(&format!("cannot open directory '/srv/{name}': Permission denied"), "word"), None);
        assert_eq!(find("", "word"), None);
    }

    #[test]
    fn devices_are_read_where_nobody_has_read_them() {
        for size in [0, 1, SAMPLE, SAMPLE + 1, 10 << 30, u64::MAX] {
            assert!(places(size).iter().all(|from| from % SAMPLE == 0 && *from <= size.saturating_sub(1)), "{size}");
        }
        assert_ne!(places(1 << 50), places(1 << 50));
        assert_ne!(chance(), chance());
    }
}
