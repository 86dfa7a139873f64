//! What became of the moves of this host's guests: one file each, the newest ones kept.

use crate::deadline::since_1970;
use crate::domain::ffi::Job;
use crate::log;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The node attribute with the last move of a resource from there is called this and the resource.
pub const ATTRIBUTE: &str = "kvmha-move-";

/// So many are kept.
const KEPT: usize = 200;

/// What was seen of a move while it was under way. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Milliseconds of preparation.
    pub setup_ms: Option<u64>,
    /// Milliseconds in which the guest stood still, by QEMU's own count.
    pub pause_ms: Option<u64>,
    /// Bytes sent.
    pub bytes: Option<u64>,
    /// Passes over the memory.
    pub passes: Option<u64>,
    /// Bytes that the guest dirtied in a second.
    pub dirtied: Option<u64>,
    /// Bytes sent in a second.
    pub speed: Option<u64>,
    /// How much the guest's CPUs were throttled at last, in percent.
    pub throttle: Option<u64>,
    /// Whether the guest ran at the target before all of its memory was there.
    #[serde(default)]
    pub postcopy: bool,
}

impl Course {
    /// Takes over what a job says.
    pub(super) fn learn(&mut self, job: &Job) {
        let dirtied = job.dirtied();
        *self = Self {
            setup_ms: job.setup.or(self.setup_ms),
            pause_ms: job.downtime.or(self.pause_ms),
            bytes: job.data_processed.or(self.bytes),
            passes: job.memory_iteration.or(self.passes),
            dirtied: dirtied.or(self.dirtied),
            speed: job.memory_bps.or(self.speed),
            throttle: job.throttle.or(self.throttle),
            postcopy: self.postcopy,
        };
    }
}

/// One move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it ended, in seconds since 1970.
    pub ended: u64,
    /// The guest.
    pub guest: String,
    /// Where it was.
    pub from: String,
    /// Where it was to go.
    pub to: String,
    /// Whether it has arrived.
    pub moved: bool,
    /// Why it has not; empty if it has.
    pub reason: String,
    /// How long it took, in milliseconds.
    pub total_ms: u64,
    /// The policy's name.
    pub policy: String,
    /// What was seen of it.
    #[serde(flatten)]
    pub course: Course,
}

impl Entry {
    /// What the node attribute says of it, for [`Last::parse`]: `moved to=node2 time=840ms pause=92ms at=1700000000`.
    #[must_use]
    pub fn attribute(&self) -> String {
        let what = if self.moved { "moved" } else { "failed" };
        let pause = self.course.pause_ms.map(|pause| format!(" pause={pause}ms")).unwrap_or_default();
        format!("{what} to={} time={}ms{pause} at={}", self.to, self.total_ms, self.ended)
    }
}

/// What the node attribute says of a move. An older or newer version may not have said all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Whether it has arrived.
    pub moved: bool,
    /// Where it was to go.
    pub to: String,
    /// How long it took, in milliseconds.
    pub total_ms: Option<u64>,
    /// How long the guest stood still, in milliseconds.
    pub pause_ms: Option<u64>,
    /// When it ended, in seconds since 1970.
    pub ended: Option<u64>,
}

impl Last {
    /// From what [`Entry::attribute`] made.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_whitespace();
        let moved = match words.next()? {
            "moved" => true,
            "failed" => false,
            _ => return None,
        };
        let pairs: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        let number = |name: &str| pairs.get(name).and_then(|text| text.trim_end_matches("ms").parse().ok());
        let to = (*pairs.get("to")?).to_owned();
        Some(Self { moved, to, total_ms: number("time"), pause_ms: number("pause"), ended: number("at") })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guest, to, course, .. } = self;
        let total = Duration::from_millis(self.total_ms).as_secs_f64();
        write!(f, "{guest} {} {to}: {total:.2} s", if self.moved { "moved to" } else { "not moved to" })?;
        let number = |f: &mut fmt::Formatter<'_>, what: &str, value: Option<u64>, unit: &str| match value {
            Some(value) => write!(f, ", {what} {value}{unit}"),
            None => Ok(()),
        };
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes / (1024 * 1024));
        number(f, "setup", course.setup_ms, " ms")?;
        number(f, "pause", course.pause_ms, " ms")?;
        number(f, "sent", mib(course.bytes), " MiB")?;
        number(f, "passes", course.passes, "")?;
        number(f, "dirtied", mib(course.dirtied), " MiB/s")?;
        number(f, "throttled", course.throttle.filter(|percent| *percent > 0), " %")?;
        if course.postcopy {
            f.write_str(", post-copy")?;
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, "; {}", self.reason) }
    }
}

/// Keeps an entry in `folder`, and the newest ones only. A failure is only worth a warning.
pub fn keep(folder: &Path, entry: &Entry) {
    if let Err(error) = try_keep(folder, entry) {
        log::warning(format_args!("the record of the move cannot be written to {}: {error}", folder.display()));
    }
}

fn try_keep(folder: &Path, entry: &Entry) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, entry)?;
    // Names sort by the moment of the end, those of one second by that of the writing; the random part keeps two of one moment apart.
    let written = since_1970().as_micros();
    let random = file.path().file_name().map(|name| name.to_string_lossy().trim_start_matches('.').to_owned()).unwrap_or_default();
    let path = folder.join(format!("{:012}-{written:020}-{random}.json", entry.ended));
    file.persist(path)?;
    let files = files(folder)?;
    for old in files.iter().take(files.len().saturating_sub(KEPT)) {
        fs::remove_file(old)?;
    }
    Ok(())
}

/// The entries in `folder`, the newest last; none if there is no such folder. One that is damaged is left out.
///
/// # Errors
/// The folder cannot be read: only root may.
pub fn read(folder: &Path) -> io::Result<Vec<Entry>> {
    Ok(files(folder)?.iter().filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect())
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.flatten().map(|entry| entry.path()),
    };
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ended: u64) -> Entry {
        Entry {
            ended,
            guest: "web1".into(),
            from: "node1".into(),
            to: "node2".into(),
            moved: true,
            reason: String::new(),
            total_ms: 840,
            policy: "converge".into(),
            course: Course { pause_ms: Some(92), bytes: Some(65 * 1024 * 1024), ..Course::default() },
        }
    }

    #[test]
    fn one_line_says_what_is_known() {
        assert_eq!(entry(1).to_string(), "web1 moved to node2: 0.84 s, pause 92 ms, sent 65 MiB");
        let failed = Entry { moved: false, reason: "web1 still runs here".into(), course: Course::default(), ..entry(1) };
        assert_eq!(failed.to_string(), "web1 not moved to node2: 0.84 s; web1 still runs here");
    }

    #[test]
    fn the_attribute_says_what_is_read_from_it() {
        let moved = entry(1_700_000_000);
        assert_eq!(moved.attribute(), "moved to=node2 time=840ms pause=92ms at=1700000000");
        let failed = Entry { moved: false, reason: "to=node3 at=1".into(), course: Course::default(), ..moved.clone() };
        for entry in [moved, failed] {
            let last = Last::parse(&entry.attribute()).unwrap();
            let Entry { moved, to, total_ms, ended, course, .. } = entry;
            assert_eq!(last, Last { moved, to, total_ms: Some(total_ms), pause_ms: course.pause_ms, ended: Some(ended) });
        }
        let bare = Last { moved: true, to: "node2".into(), total_ms: None, pause_ms: None, ended: None };
        assert_eq!(Last::parse("moved to=node2 mood=good time=long"), Some(bare));
        for nonsense in ["", "what", "what to=node2", "moved", "moved node2"] {
            assert_eq!(Last::parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn those_of_one_second_are_in_order() {
        let root = tempfile::tempdir().unwrap();
        for total_ms in 0..10 {
            keep(root.path(), &Entry { total_ms, ..entry(7) });
        }
        assert_eq!(read(root.path()).unwrap().iter().map(|entry| entry.total_ms).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("migrations");
        assert_eq!(read(&folder).unwrap(), []);
        for second in 0..KEPT as u64 + 5 {
            keep(&folder, &entry(second));
        }
        fs::write(folder.join("x.json"), "{").unwrap();
        assert!(read(&folder.join("x.json")).is_err(), "what cannot be read is not empty");
        let kept = read(&folder).unwrap();
        assert_eq!((kept.len(), kept[0].ended, kept[KEPT - 1].clone()), (KEPT, 5, entry(KEPT as u64 + 4)));
    }
}
