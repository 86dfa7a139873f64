//! What the target's libvirt can be had to read: a folder, as a pool that is not defined and lives for a moment.

use crate::deadline::Deadline;
use crate::domain::connection::Connection;
use crate::domain::ffi;
use crate::storage::look::{self, SAMPLE};
use crate::storage::nonce::{self, Nonce};
use crate::xml::Document;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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

/// A pool that an earlier call could not take away is taken away after this time: the clock of the host that made it may be wrong.
const STALE: Duration = Duration::from_secs(86400);

/// More than a table of hosts may have, or anything else that is read whole.
const MOST: usize = 1024 * 1024;

/// What a folder that was asked for at the target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is the same.
    Same,
    /// It is not there, or is another one.
    Other,
    /// Cannot be told.
    Unknown(String),
}

/// What a link leads to at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct There {
    /// Its size in bytes.
    pub(super) size: u64,
    /// Sums of the begin and the end.
    pub(super) samples: [u64; 2],
}

/// What all links lead to.
pub(super) struct Seen {
    /// Of each link, in their order; `None` if it leads to nothing. A folder has no samples worth the name.
    pub(super) links: Vec<Option<There>>,
    /// The contents of the one that was asked for.
    pub(super) text: Option<String>,
}

/// Has the target's libvirt read the word, so many times at most.
pub(super) fn ask(there: &Connection, folder: &Path, nonce: &Nonce, tries: u32, deadline: &Deadline) -> Answer {
    let mut left = tries;
    loop {
        let (place, pool, word) = (folder.join(&nonce.name), format!("{}-word", nonce.name), nonce.word.clone());
        let read = there.call("reading a folder", deadline, move |connect| {
            with_pool(connect, &pool, &place, |pool| {
                let found = read(connect, &pool.lookup_storage_vol_by_name(nonce::FILE)?, 0, 0)?;
                Ok(found == word.as_bytes())
            })
        });
        match read {
            Ok(Some(true)) => return Answer::Same,
            Ok(Some(false) | None) => {
                left = left.saturating_sub(1);
                if left == 0 || !deadline.pause(PAUSE) {
                    return Answer::Other;
                }
            }
            Err(error) => return Answer::Unknown(error.text),
        }
    }
}

/// Has the target's libvirt look at what the links lead to there, and read the one with the number `text`.
pub(super) fn see(
    there: &Connection,
    folder: &Path,
    nonce: &Nonce,
    count: usize,
    text: Option<usize>,
    deadline: &Deadline,
) -> Result<Seen, String> {
    let (place, pool) = (folder.join(&nonce.name).join(nonce::LINKS), format!("{}-links", nonce.name));
    let seen = there.call("looking at the disks", deadline, move |connect| {
        with_pool(connect, &pool, &place, |pool| {
            let names = pool.list_volumes()?;
            let volume = |at: usize| {
                let name = at.to_string();
                names.contains(&name).then(|| pool.lookup_storage_vol_by_name(&name)).transpose()
            };
            let text = text.map(volume).transpose()?.flatten().map(|volume| read(connect, &volume, 0, 0)).transpose()?;
            let links = (0..count).map(|at| volume(at)?.map(|volume| describe(connect, &volume)).transpose());
            let links = links.collect::<Result<Vec<_>, VirtError>>()?;
            Ok(Seen { links, text: text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) })
        })
    });
    match seen {
        Ok(Some(seen)) => Ok(seen),
        Ok(None) => Err("cannot be looked at there: the folder for it has gone".to_owned()),
        Err(error) => Err(format!("cannot be looked at there: {}", error.text)),
    }
}

/// Has a libvirt read files of a folder of its host's, each at most [`MOST`] long; `None` for one that is not there, or for all if the
/// folder is not.
pub(super) fn texts(
    host: &Connection,
    folder: &Path,
    names: &[&'static str],
    deadline: &Deadline,
) -> Result<Option<Vec<Option<String>>>, String> {
    // Its name only, by which a pool that was left is known.
    let name = Nonce::new(folder).map_err(|error| error.to_string())?.name;
    let (place, pool, names) = (folder.to_owned(), format!("{name}-files"), names.to_vec());
    let read = host.call("reading a folder", deadline, move |connect| {
        with_pool(connect, &pool, &place, |pool| {
            let there = pool.list_volumes()?;
            let text = |name: &&str| {
                let found = there.iter().any(|known| known == name).then(|| pool.lookup_storage_vol_by_name(name)).transpose()?;
                let bytes = found.map(|volume| read(connect, &volume, 0, 0)).transpose()?;
                Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            };
            names.iter().map(text).collect::<Result<Vec<_>, VirtError>>()
        })
    });
    read.map_err(|error| error.text)
}

fn describe(connect: &Connect, volume: &StorageVol) -> Result<There, VirtError> {
    let (kind, size) = volume.info().map(|info| (info.kind, info.capacity))?;
    let sum = |from| read(connect, volume, from, SAMPLE).map(|bytes| look::sum(&bytes));
    let folder = kind == sys::VIR_STORAGE_VOL_DIR;
    Ok(There { size, samples: if folder { [0; 2] } else { [sum(0)?, sum(size.saturating_sub(SAMPLE))?] } })
}

/// Works with a folder as a pool that is not defined and ends afterwards, which touches no file; `None` if the folder is not there.
fn with_pool<T>(
    connect: &Connect,
    name: &str,
    place: &Path,
    work: impl FnOnce(&StoragePool) -> Result<T, VirtError>,
) -> Result<Option<T>, VirtError> {
    sweep(connect);
    let create = || connect.create_storage_pool_xml(&pool_xml(name, place), 0);
    let pool = match create() {
        Ok(pool) => pool,
        Err(_) if ffi::is_not_there() => return Ok(None),
        // One who asked the same was killed before the end.
        Err(error) => match connect.lookup_storage_pool_by_name(name) {
            Ok(left) => {
                let _ = left.destroy();
                create()?
            }
            Err(_) => return Err(error),
        },
    };
    let result = work(&pool);
    let _ = pool.destroy();
    result.map(Some)
}

fn pool_xml(name: &str, place: &Path) -> String {
    let mut document = Document::new(None);
    document.element("pool", &[("type", "dir")], |pool| {
        pool.text("name", &[], name);
        pool.element("target", &[], |target| target.text("path", &[], &place.to_string_lossy()));
    });
    String::from_utf8_lossy(&document.finish()).into_owned()
}

/// Takes pools away that calls left that were killed.
fn sweep(connect: &Connect) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let old = |name: &str| nonce::made(name).is_some_and(|time| now.saturating_sub(time) > STALE);
    for pool in connect.list_all_storage_pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_TRANSIENT).unwrap_or_default() {
        if pool.name().is_ok_and(|name| old(&name)) {
            let _ = pool.destroy();
        }
    }
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
