//! The record a guest writes to its disk, and what can be read from it afterwards.
//!
//! The disk starts with a ring of [`SLOTS`] slots of [`SLOT`] bytes. Each beat (every 20 ms unless told otherwise) writes one slot with
//! O_DIRECT: number *sequence* modulo [`SLOTS`]. The sequence counts on over boots: a guest that boots reads the ring and goes on after the
//! newest. Each boot has a random id. So the ring tells:
//!
//! - **reboots**: the boot id changes; memory was kept over a move if and only if it did not;
//! - **two writers**: once a boot id has appeared after another, the other must never write again. Where the ids interleave, two
//!   guests wrote to one disk, or a late write of a dead guest landed on its successor's;
//! - **lost beats**: a sequence that is missing.
//!
//! # Which clock shows a pause
//!
//! Not the guest's own. While a guest is stopped (as in the last phase of a live migration) QEMU's virtual clock stands still, and with it
//! the emulated TSC and every timer; they go on at the destination from where they were. A guest's `CLOCK_MONOTONIC` and `CLOCK_REALTIME` see
//! nothing. Only the RTC follows the host, at one second's resolution. So a pause is measured by two clocks together, see
//! [`crate::watch`]: an observer on the host notes when each beat appears on the disk. Between two beats the world's time minus the guest's
//! own time is the time during which the guest's clock stood: the pause the guest itself had ("pause"). The whole distance of the two beats
//! is what a user of the guest's disk saw ("gap"); it holds also the normal distance of the beats.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of a slot.
pub const SLOT: usize = 512;
/// Number of slots.
pub const SLOTS: u64 = 4096;
/// Bytes of the ring, and of a guest's image.
pub const RING: u64 = SLOTS * SLOT as u64;

const MAGIC: &[u8; 8] = b"KVMHABT1";
const CHECK_SEED: u64 = 0x6b76_6d68_616c_6162;

/// One beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Random id of the guest's boot.
    pub boot: u64,
    /// Number of the beat, counted on over boots.
    pub sequence: u64,
    /// The sequence at which this boot began.
    pub first: u64,
    /// The guest's `CLOCK_MONOTONIC` at the write, in ns.
    pub monotonic: u64,
    /// The guest's `CLOCK_REALTIME` at the write, in ns: what the guest believes.
    pub realtime: u64,
    /// Writes that failed in this boot.
    pub errors: u64,
    /// Time between two beats, in ns.
    pub period: u64,
}

impl Record {
    /// Reads a slot; `None` when it holds no whole record.
    #[must_use]
    pub fn parse(slot: &[u8]) -> Option<Self> {
        let (magic, rest) = slot.split_first_chunk::<8>()?;
        if magic != MAGIC {
            return None;
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(rest.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let [boot, sequence, first, monotonic, realtime, errors, period, check] = words;
        let sum = words[..7].iter().zip(1..).fold(CHECK_SEED, |sum, (word, turn)| sum ^ word.rotate_left(turn));
        (sum == check).then_some(Self { boot, sequence, first, monotonic, realtime, errors, period })
    }

    /// The boot id as people see it.
    #[must_use]
    pub fn boot_name(&self) -> String {
        format!("{:016x}", self.boot)
    }
}

/// A guest's image, opened for reading past the page cache.
#[derive(Debug)]
pub struct Disk {
    file: File,
}

/// O_DIRECT wants the memory at a multiple of the block size.
const ALIGN: usize = 4096;

impl Disk {
    /// Opens an image. A file system that has no O_DIRECT is read by way of the cache.
    pub fn open(image: &Path) -> Result<Self> {
        const O_DIRECT: i32 = nix::fcntl::OFlag::O_DIRECT.bits();
        let open = |flags| File::options().read(true).custom_flags(flags).open(image);
        let file = open(O_DIRECT).or_else(|_| open(0)).with_context(|| format!("failed to open {}", image.display()))?;
        Ok(Self { file })
    }

    /// The slots from number `begin` on, around the ring; `count` is made a multiple of 8 slots, one block.
    pub fn read(&self, begin: u64, count: u64) -> Result<Vec<(u64, Option<Record>)>> {
        const BLOCK: u64 = (ALIGN / SLOT) as u64;
        let (begin, count) = (begin % SLOTS / BLOCK * BLOCK, count.next_multiple_of(BLOCK).min(SLOTS));
        let until_end = count.min(SLOTS - begin);
        let mut slots = self.read_straight(begin, until_end)?;
        if until_end < count {
            slots.extend(self.read_straight(0, count - until_end)?);
        }
        Ok(slots)
    }

    fn read_straight(&self, begin: u64, count: u64) -> Result<Vec<(u64, Option<Record>)>> {
        let length = usize::try_from(count)? * SLOT;
        let mut memory = vec![0; length + ALIGN];
        let skip = memory.as_ptr().align_offset(ALIGN);
        let buffer = &mut memory[skip..skip + length];
        self.file.read_exact_at(buffer, begin * SLOT as u64).context("failed to read the ring")?;
        Ok((begin..).zip(buffer.chunks_exact(SLOT).map(Record::parse)).collect())
    }

    /// When the image was written last, by the file system's clock.
    pub fn age(&self) -> Result<std::time::Duration> {
        Ok(self.file.metadata()?.modified()?.elapsed().unwrap_or_default())
    }
}

/// What the ring says by itself, without an observer.
#[derive(Clone, Debug, Serialize)]
pub struct Ring {
    /// The newest record.
    pub newest: Record,
    /// The boots in the ring, in the order of the sequence.
    pub boots: Vec<String>,
    /// Records in the ring.
    pub beats: usize,
    /// Sequences that are missing between the oldest and the newest.
    pub lost: u64,
    /// Why two writers must have been at work, if so.
    pub two_writers: Option<String>,
}

impl Ring {
    /// Reads the whole ring.
    pub fn read(image: &Path) -> Result<Self> {
        let slots = Disk::open(image)?.read(0, SLOTS)?;
        let mut records: Vec<Record> = slots.into_iter().filter_map(|(_, record)| record).collect();
        records.sort_by_key(|record| record.sequence);
        ensure!(!records.is_empty(), "no heartbeat in {}", image.display());
        Ok(Self::of(&records))
    }

    /// Of records in the order of their sequence; at least one.
    fn of(records: &[Record]) -> Self {
        let newest = records[records.len() - 1];
        let mut boots: Vec<u64> = Vec::new();
        let mut two_writers = None;
        for record in records {
            if boots.last() == Some(&record.boot) {
                continue;
            }
            if boots.contains(&record.boot) {
                two_writers
                    .get_or_insert_with(|| format!("boot {} wrote beat {} after its successor", record.boot_name(), record.sequence));
            }
            boots.push(record.boot);
        }
        // One ring, one sequence each: what is older than a ring's length was not overwritten.
        let lost = (newest.sequence - records[0].sequence + 1).saturating_sub(records.len() as u64);
        boots.dedup();
        Self { newest, boots: boots.iter().map(|boot| format!("{boot:016x}")).collect(), beats: records.len(), lost, two_writers }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn beat(boot: u64, sequence: u64) -> Record {
        Record { boot, sequence, first: 1, monotonic: sequence * 20_000_000, realtime: 0, errors: 0, period: 20_000_000 }
    }

    pub(crate) fn bytes(record: &Record) -> Vec<u8> {
        let words = [record.boot, record.sequence, record.first, record.monotonic, record.realtime, record.errors, record.period];
        let sum = words.iter().zip(1..).fold(CHECK_SEED, |sum, (word, turn)| sum ^ word.rotate_left(turn));
        let mut slot = MAGIC.to_vec();
        words.iter().chain([&sum]).for_each(|word| slot.extend(word.to_le_bytes()));
        slot.resize(SLOT, 0);
        slot
    }

    #[test]
    fn a_torn_record_is_none() {
        let mut slot = bytes(&beat(7, 9));
        assert_eq!(Record::parse(&slot), Some(beat(7, 9)));
        slot[20] ^= 1;
        assert_eq!(Record::parse(&slot), None);
    }

    #[test]
    fn a_reboot_is_not_two_writers() {
        let ring = Ring::of(&[beat(1, 1), beat(1, 2), beat(2, 3), beat(2, 4)]);
        assert_eq!((ring.boots.len(), ring.two_writers, ring.lost), (2, None, 0));
    }

    #[test]
    fn a_late_write_is_two_writers() {
        let ring = Ring::of(&[beat(1, 1), beat(2, 2), beat(1, 3), beat(2, 4)]);
        assert!(ring.two_writers.is_some());
    }
}
