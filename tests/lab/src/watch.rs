//! What an observer has seen of a guest's heartbeat, and what follows from it.
//!
//! A *gap* is the distance of two beats on the disk by the observer's clock; a *pause* is the part of it in which the guest's own clock stood.
//! A pause compares the two clocks over [`NEAR`] beats before and after it. Measured over live migrations it is QEMU's own "Total downtime"
//! to within 10 ms.
//!
//! An emulator that was stopped from outside (SIGSTOP) or starved did not stop its guest's clock: that is a gap, not a pause.

use crate::heartbeat::Record;
use serde::Serialize;
use std::time::{Duration, Instant};

/// So many beats before and after a gap tell how far the two clocks are apart.
pub const NEAR: usize = 25;

/// A beat and when it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// When it appeared on the disk.
    pub at: Instant,
    /// What it says.
    pub record: Record,
}

/// The distance of two beats that followed each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gap {
    /// Sequence of the beat before.
    pub after: u64,
    /// When it began, in seconds since the watch began.
    pub begin: f64,
    /// By the observer's clock: how long the disk saw no beat.
    pub wall_ms: f64,
    /// By the guest's clock; `None` over a reboot.
    pub guest_ms: Option<f64>,
    /// How long the guest's clock stood: the pause the guest itself had. `None` over a reboot.
    pub pause_ms: Option<f64>,
}

/// All that was seen.
#[derive(Clone, Debug)]
pub struct Watch {
    /// When the watch began.
    pub begin: Instant,
    /// Looks taken.
    pub samples: u64,
    /// The longest time between two looks: how far the observer itself can be trusted.
    pub worst_look: Duration,
    /// Every beat since the beginning; the first is the newest one that was there already.
    pub beats: Vec<Beat>,
    /// Why two writers must have been at work, if so.
    pub two_writers: Option<String>,
    /// Records that the guest was told to be on the disk, and that a later one has replaced without their having been there.
    pub lost: u64,
    /// Looks that failed, and why the last did.
    pub errors: (u64, String),
}

impl Watch {
    /// The boots, in the order in which they were seen.
    #[must_use]
    pub fn boots(&self) -> Vec<u64> {
        let mut boots: Vec<u64> = self.beats.iter().map(|beat| beat.record.boot).collect();
        boots.dedup();
        boots
    }

    /// All distances of two beats.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        (1..self.beats.len()).map(|index| {
            let (before, after) = (self.beats[index - 1], self.beats[index]);
            let same = before.record.boot == after.record.boot;
            let wall = after.at.saturating_duration_since(before.at).as_secs_f64() * 1e3;
            let guest = same.then(|| ms(after.record.monotonic) - ms(before.record.monotonic));
            Gap {
                after: before.record.sequence,
                begin: before.at.saturating_duration_since(self.begin).as_secs_f64(),
                wall_ms: wall,
                guest_ms: guest,
                pause_ms: guest.map(|guest| (wall - guest).min(self.lag(index)).max(0.0)),
            }
        })
    }

    /// By how much the guest's clock fell behind the observer's at this beat, in ms.
    ///
    /// A beat may be seen late (a slow write, a busy machine), never early. So the least distance of the two clocks among some beats is the
    /// true one, and what it grew from the beats before to the beats after is the time during which the guest's clock stood.
    fn lag(&self, index: usize) -> f64 {
        let boot = self.beats[index].record.boot;
        let distance = |beats: &[Beat]| {
            let all = beats.iter().filter(|beat| beat.record.boot == boot);
            all.map(|beat| beat.at.saturating_duration_since(self.begin).as_secs_f64() * 1e3 - ms(beat.record.monotonic))
                .fold(f64::INFINITY, f64::min)
        };
        distance(&self.beats[index..(index + NEAR).min(self.beats.len())]) - distance(&self.beats[index.saturating_sub(NEAR)..index])
    }

    /// The longest distance of two beats on the disk.
    #[must_use]
    pub fn worst_gap(&self) -> Option<Gap> {
        self.gaps().max_by(|a, b| a.wall_ms.total_cmp(&b.wall_ms))
    }

    /// The distance in which the guest's clock stood longest.
    #[must_use]
    pub fn worst_pause(&self) -> Option<Gap> {
        self.gaps().filter(|gap| gap.pause_ms.is_some()).max_by(|a, b| a.pause_ms.unwrap_or(0.0).total_cmp(&b.pause_ms.unwrap_or(0.0)))
    }

    /// The longest pause that began between two moments, in ms. Wants [`NEAR`] beats after it.
    #[must_use]
    pub fn pause_between(&self, from: Instant, to: Instant) -> f64 {
        let moments = [from, to].map(|moment| moment.saturating_duration_since(self.begin).as_secs_f64());
        let within = self.gaps().filter(|gap| (moments[0]..=moments[1]).contains(&gap.begin));
        within.filter_map(|gap| gap.pause_ms).fold(0.0, f64::max)
    }

    /// The first beat that was seen after a moment.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<Beat> {
        self.beats.iter().skip(1).find(|beat| beat.at >= moment).copied()
    }

    /// The first beat of another boot than the one that was seen last before a moment: a guest started anew.
    #[must_use]
    pub fn reboot_after(&self, moment: Instant) -> Option<Beat> {
        let before = self.beats.iter().take_while(|beat| beat.at < moment).last()?.record.boot;
        self.beats.iter().find(|beat| beat.at >= moment && beat.record.boot != before).copied()
    }

    /// The newest beat.
    #[must_use]
    pub fn newest(&self) -> Option<Beat> {
        self.beats.last().copied()
    }
}

fn ms(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e3
}
