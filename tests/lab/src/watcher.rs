//! An observer of a guest's heartbeat: a thread that looks at the image every few milliseconds and notes when each beat appears.
//!
//! The time of a beat is right to about one look ([`LOOK`]) unless the machine is so busy that the observer itself comes late. Several beats
//! that appear in one look get their distances from the guest's own clock, counted back from the last; so a late observer does not make a gap
//! where there was none, and a real pause lies before the first of them.

use crate::heartbeat::{Disk, Record, SLOTS};
use crate::watch::{Beat, Watch};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two looks.
pub const LOOK: Duration = Duration::from_millis(5);
/// A look reads so many slots from the newest beat on (some before it, too): at 20 ms a second and more.
const WINDOW: u64 = 64;
/// How often the whole ring is compared: a late write of a frozen guest lands far behind.
const WHOLE: Duration = Duration::from_millis(500);

/// A watch that goes on in a thread until [`Watcher::stop`], or until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    watch: Arc<Mutex<Watch>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch an image.
    pub fn start(image: &Path) -> Result<Self> {
        let begin = Instant::now();
        let empty = Watch {
            begin,
            samples: 0,
            worst_look: Duration::ZERO,
            beats: Vec::new(),
            two_writers: None,
            lost: 0,
            errors: (0, String::new()),
        };
        let watch = Arc::new(Mutex::new(empty));
        let end = Arc::new(AtomicBool::new(false));
        let mut observer = Observer::new(image)?;
        let (shared, stop) = (Arc::clone(&watch), Arc::clone(&end));
        let body = move || {
            let mut last = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let seen = observer.look();
                let now = Instant::now();
                let mut watch = locked(&shared);
                watch.samples += 1;
                watch.lost = observer.lost;
                watch.worst_look = watch.worst_look.max(now - last);
                last = now;
                match seen {
                    Ok(beats) => observer.enter(&mut watch, &beats, now),
                    Err(error) => watch.errors = (watch.errors.0 + 1, format!("{error:#}")),
                }
                drop(watch);
                thread::sleep(LOOK);
            }
        };
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(body).context("failed to start the observer")?;
        Ok(Self { watch, end, thread: Some(thread) })
    }

    /// What was seen until now.
    #[must_use]
    pub fn snapshot(&self) -> Watch {
        locked(&self.watch).clone()
    }

    /// Waits until what was seen pleases `wanted`. Says whether it did.
    pub fn wait(&self, limit: Duration, mut wanted: impl FnMut(&Watch) -> bool) -> bool {
        crate::process::wait_until(limit, LOOK, || wanted(&locked(&self.watch)))
    }

    /// Waits for a beat newer than now.
    pub fn wait_beat(&self, limit: Duration) -> bool {
        let now = Instant::now();
        self.wait(limit, |watch| watch.newest().is_some_and(|beat| beat.at > now))
    }

    /// Ends the watch; all that was seen.
    #[must_use]
    pub fn stop(mut self) -> Watch {
        self.finish();
        self.snapshot()
    }

    fn finish(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.finish();
    }
}

fn locked(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread remembers of the disk.
struct Observer {
    image: PathBuf,
    disk: Disk,
    ring: Vec<Option<Record>>,
    newest: Option<Record>,
    whole: Option<Instant>,
    superseded: Vec<u64>,
    overwritten: Option<String>,
    /// Whether the watch began in the ring's first lap: then an empty slot was never written, and not torn by the look.
    young: bool,
    /// Records that were never there.
    lost: u64,
}

impl Observer {
    fn new(image: &Path) -> Result<Self> {
        let ring = vec![None; usize::try_from(SLOTS)?];
        Ok(Self {
            image: image.to_owned(),
            disk: Disk::open(image)?,
            ring,
            newest: None,
            whole: None,
            superseded: Vec::new(),
            overwritten: None,
            young: false,
            lost: 0,
        })
    }

    /// The records that were not there at the last look, in the order of their sequence.
    fn look(&mut self) -> Result<Vec<Record>> {
        let first = self.whole.is_none();
        let all = self.whole.is_none_or(|last| last.elapsed() >= WHOLE);
        let slots = if all {
            self.whole = Some(Instant::now());
            self.disk.read(0, SLOTS)?
        } else {
            let begin = self.newest.map_or(0, |newest| (newest.sequence + SLOTS - WINDOW / 4) % SLOTS);
            self.disk.read(begin, WINDOW)?
        };
        let mut new = Vec::new();
        for (number, record) in slots {
            let known = &mut self.ring[usize::try_from(number)?];
            if let Some(record) = record
                && *known != Some(record)
            {
                // One writer only ever overwrites what is a lap older. Two copies of one guest (a migration that left both running) have the
                // same boot id and meet here.
                if known.is_some_and(|known| record.sequence <= known.sequence) {
                    self.overwritten
                        .get_or_insert_with(|| format!("beat {} of boot {} was overwritten", record.sequence, record.boot_name()));
                }
                // A slot gets every lap's record: what is older by more than one lap was to be replaced by one that never came.
                // There is no beat 0.
                let next = known.map(|known| known.sequence / SLOTS + 1).or_else(|| self.young.then_some(u64::from(number == 0)));
                self.lost += next.map_or(0, |next| (record.sequence / SLOTS).saturating_sub(next));
                *known = Some(record);
                new.push(record);
            }
        }
        new.sort_by_key(|record| record.sequence);
        if first {
            self.young = new.iter().all(|record| record.sequence < SLOTS);
            // What was there before is history: only its newest beat counts, and which boots are over.
            let last = new.pop();
            self.superseded = new.iter().map(|record| record.boot).filter(|boot| last.is_some_and(|last| last.boot != *boot)).collect();
            self.superseded.dedup();
            new = last.into_iter().collect();
        }
        Ok(new)
    }

    fn enter(&mut self, watch: &mut Watch, beats: &[Record], now: Instant) {
        for (index, record) in beats.iter().enumerate() {
            let before = self.newest;
            if let Some(why) = self.judge(record) {
                watch.two_writers.get_or_insert(format!("{} ({})", why, self.image.display()));
            }
            // A look is not one moment: it may miss a beat and see the next. The one that was missed is no step back.
            if before.is_some_and(|before| before.boot == record.boot && record.sequence <= before.sequence) {
                continue;
            }
            // Counted back from the last of this look, by the guest's own clock.
            let back = beats[index..]
                .last()
                .filter(|last| last.boot == record.boot)
                .map_or(0, |last| last.monotonic.saturating_sub(record.monotonic));
            let before = watch.beats.last().map_or(watch.begin, |beat| beat.at);
            let at = now.checked_sub(Duration::from_nanos(back)).unwrap_or(now).max(before);
            watch.beats.push(Beat { at, record: *record });
        }
    }

    /// Why a record proves two writers, if it does.
    fn judge(&mut self, record: &Record) -> Option<String> {
        let overwritten = self.overwritten.take();
        let Some(before) = self.newest else {
            self.newest = Some(*record);
            return overwritten;
        };
        if self.superseded.contains(&record.boot) {
            return Some(format!("boot {} wrote beat {} after its successor {}", record.boot_name(), record.sequence, before.boot_name()));
        }
        if record.boot != before.boot {
            self.superseded.push(before.boot);
            self.newest = Some(*record);
        } else if record.sequence > before.sequence {
            self.newest = Some(*record);
            if record.monotonic < before.monotonic {
                return Some(format!("the clock of boot {} went back at beat {}", record.boot_name(), record.sequence));
            }
        }
        overwritten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::tests::{beat, bytes};
    use crate::heartbeat::{RING, SLOT};
    use std::os::unix::fs::FileExt;

    struct Bench {
        image: tempfile::NamedTempFile,
        observer: Observer,
        watch: Watch,
    }

    impl Bench {
        /// An image in which these beats were before the watch began.
        fn new(before: &[Record]) -> Self {
            let image = tempfile::NamedTempFile::new().unwrap();
            image.as_file().set_len(RING).unwrap();
            let observer = Observer::new(image.path()).unwrap();
            let watch = Watch {
                begin: Instant::now(),
                samples: 0,
                worst_look: LOOK,
                beats: Vec::new(),
                two_writers: None,
                lost: 0,
                errors: (0, String::new()),
            };
            let mut bench = Self { image, observer, watch };
            bench.look(before, 0);
            bench
        }

        /// These beats appear, and are seen at a time in ms.
        fn look(&mut self, beats: &[Record], at: u64) {
            for record in beats {
                self.image.as_file().write_all_at(&bytes(record), record.sequence % SLOTS * SLOT as u64).unwrap();
            }
            self.observer.whole = self.observer.whole.map(|_| Instant::now());
            let seen = self.observer.look().unwrap();
            self.watch.lost = self.observer.lost;
            let now = self.watch.begin + Duration::from_millis(at);
            self.observer.enter(&mut self.watch, &seen, now);
        }
    }

    #[test]
    fn a_pause_is_what_the_guest_did_not_see() {
        let mut bench = Bench::new(&[beat(1, 1), beat(1, 2)]);
        // 20 ms of the guest's time took 170 ms; then the observer was late and saw three at once.
        bench.look(&[beat(1, 3)], 170);
        bench.look(&[beat(1, 4), beat(1, 5), beat(1, 6)], 230);
        let (gap, pause) = (bench.watch.worst_gap().unwrap(), bench.watch.worst_pause().unwrap());
        assert_eq!((gap.after, gap.wall_ms.round(), pause.pause_ms.unwrap().round()), (2, 170.0, 150.0));
        assert!(bench.watch.gaps().skip(1).all(|gap| (gap.wall_ms - 20.0).abs() < 0.01));
        assert_eq!(bench.watch.two_writers, None);
    }

    #[test]
    fn a_reboot_is_one_writer() {
        let mut bench = Bench::new(&[beat(9, 4095), beat(1, 4096)]);
        bench.look(&[beat(1, 4097)], 20);
        bench.look(&[beat(2, 4098)], 3000);
        bench.look(&[beat(2, 4099), beat(2, 4099 + SLOTS)], 3020);
        assert_eq!((bench.watch.boots(), bench.watch.two_writers.clone()), (vec![1, 2], None));
        assert_eq!(bench.watch.reboot_after(bench.watch.begin + Duration::from_millis(30)).unwrap().record.sequence, 4098);
    }

    #[test]
    fn the_dead_do_not_write() {
        let mut bench = Bench::new(&[beat(1, 1)]);
        bench.look(&[beat(2, 2), beat(2, 3)], 2000);
        assert_eq!(bench.watch.two_writers, None);
        bench.look(&[beat(1, 2)], 2020);
        assert!(bench.watch.two_writers.is_some());
    }

    #[test]
    fn two_copies_of_one_guest_are_two_writers() {
        let mut bench = Bench::new(&[beat(1, 1)]);
        bench.look(&[beat(1, 2)], 20);
        bench.look(&[Record { monotonic: 12_345, ..beat(1, 2) }], 40);
        assert!(bench.watch.two_writers.is_some());
    }

    #[test]
    fn a_lap_that_never_came_is_lost() {
        let mut bench = Bench::new(&[beat(1, 7), beat(1, 8)]);
        bench.look(&[beat(1, 9), beat(1, 7 + SLOTS)], 20);
        assert_eq!(bench.watch.lost, 0);
        // The second lap of 8 and the first of 10 never came.
        bench.look(&[beat(1, 7 + 2 * SLOTS), beat(1, 8 + 2 * SLOTS), beat(1, 9 + SLOTS), beat(1, 10 + SLOTS)], 40);
        assert_eq!((bench.watch.lost, bench.watch.two_writers.clone()), (2, None));
        bench.look(&[beat(1, SLOTS), beat(1, 11 + SLOTS)], 60);
        assert_eq!(bench.watch.lost, 3);
        // What was torn by the first look is no beat that is missing.
        let mut bench = Bench::new(&[beat(1, 7 + SLOTS)]);
        bench.look(&[beat(1, 8 + SLOTS)], 20);
        assert_eq!(bench.watch.lost, 0);
    }

    #[test]
    fn a_beat_seen_late_is_none() {
        let mut bench = Bench::new(&[beat(1, 1)]);
        bench.look(&[beat(1, 3)], 40);
        bench.look(&[beat(1, 2)], 41);
        assert_eq!(bench.watch.two_writers, None);
    }
}
