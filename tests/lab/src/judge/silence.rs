//! Why a guest may write nothing though Pacemaker runs it, with the cluster at rest.

use super::reasons::is_to_stop;
use super::{NEAR, broke};
use crate::history::{Boot, FaultKind, Guest, History, SILENT};

/// A guest that was let go on three times within so many seconds is left to a person when its storage pauses it again (`outage_policy`).
const FLAPPING: f64 = 600.0;

/// Whether one that Pacemaker runs is silent for a reason: it was made a moment ago and boots yet, it is to stop, its kernel broke, or nobody
/// promises to let it go on; `how` it stands.
pub fn is_silent_for_a_reason(history: &History, guest: &str, at: f64, how: &str) -> bool {
    let mut emulators = history.emulators.iter().filter(|one| one.guest == guest && one.first <= at && one.last >= at - NEAR);
    let is_young = emulators.clone().any(|one| one.first > at - SILENT);
    // What an agent can do to a guest shows: it is not running for libvirt, or its emulator is stopped. What came by a move and runs in vain has
    // lost a write of its memory.
    let hangs = how.starts_with("running") && emulators.any(|one| one.incoming);
    let guest = history.guests.iter().find(|one| one.name == guest);
    is_young
        || hangs
        || guest
            .is_some_and(|guest| is_to_stop(history, &guest.name, at) || has_broken(history, guest, at) || stays_paused(history, guest, at))
}

/// The boot that a guest is in at a moment.
fn boot_at(guest: &Guest, at: f64) -> Option<Boot> {
    guest.boots.iter().rev().find(|boot| boot.first <= at).copied()
}

/// Whether its kernel broke in the boot that it is in at a moment: it has said so, or the next boot is its own doing.
fn has_broken(history: &History, guest: &Guest, at: f64) -> bool {
    let said = boot_at(guest, at).is_some_and(|boot| guest.panics.iter().any(|panic| (boot.first..=at).contains(panic)));
    said || guest.boots.windows(2).any(|pair| (pair[0].last..=pair[1].first).contains(&at) && broke(history, guest, pair[0], pair[1]))
}

/// Whether full storage has paused a guest that nobody lets go on: its agent does not, or it has failed too often.
pub fn stays_paused(history: &History, guest: &Guest, at: f64) -> bool {
    let Some(boot) = boot_at(guest, at).filter(|_| guest.on_failing_storage) else { return false };
    let full = history.faults.iter().filter(|fault| fault.kind == FaultKind::StorageFull && fault.begin <= at && fault.end >= boot.first);
    let mut begins: Vec<f64> = full.map(|fault| fault.begin).collect();
    begins.sort_by(f64::total_cmp);
    // It goes on some time after its storage was full, and from then on the time is counted.
    let is_left_to_a_person = begins.windows(4).any(|four| four[3] - four[0] <= FLAPPING + SILENT);
    is_left_to_a_person || !guest.resumes && !begins.is_empty()
}
