//! Storage that hangs for a minute under running guests, and comes back: nobody is to notice but the guests.

use crate::stage::{HERE, SOON, together};
use crate::storage::{self, Faulty, emulator, in_flight, left_behind};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::promised;
use std::thread;
use std::time::{Duration, Instant};

/// How long it hangs.
const HANG: Duration = Duration::from_secs(60);
/// Between two monitors of a guest.
const INTERVAL: Duration = Duration::from_secs(10);

/// Three guests, monitored all the time: each monitor says 0 at once, and leaves nothing behind.
pub fn monitors(lab: &Lab) -> Result<()> {
    let names = ["patient1", "patient2", "patient3"];
    let guests = names.iter().map(|name| storage::guest(lab, name)).collect::<Result<Vec<_>>>()?;
    let boots = guests.iter().map(|guest| guest.boot(HERE)).collect::<Result<Vec<_>>>()?;
    let held = Faulty::hold(lab, HERE)?;
    guests.iter().try_for_each(|guest| in_flight(emulator(guest, HERE)?))?;
    let begin = Instant::now();
    let monitored = |guest: &crate::stage::Resource| -> Result<()> {
        let mut round = 0;
        while begin.elapsed() < HANG {
            for action in ["recurring", "monitor", "status"] {
                guest.call(HERE, action, 20)?.is(0)?;
            }
            round += 1;
            thread::sleep((INTERVAL * round).saturating_sub(begin.elapsed()));
        }
        Ok(())
    };
    together(guests.iter().map(|guest| Box::new(|| monitored(guest)) as Box<dyn FnOnce() -> Result<()> + Send>).collect())?;
    ensure!(left_behind(lab, HERE)? == 0, "monitors left processes behind");
    drop(held);
    for (guest, boot) in guests.iter().zip(boots) {
        guest.beats(boot)?;
        let ring = guest.ring()?;
        promised!(ring.boots.len() == 1 && ring.two_writers.is_none() && ring.newest.errors == 0, "{}: {ring:?}", guest.name);
        guest.call(HERE, "recurring", 20)?.is(0)?.at_once(SOON)?;
    }
    Ok(())
}
