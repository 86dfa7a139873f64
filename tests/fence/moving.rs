//! A guest that is being migrated while it is fenced.

use crate::stage::{Guest, PATIENCE, Says};
use anyhow::{Result, ensure};
use lab::Lab;
use std::thread;
use std::time::{Duration, Instant};

/// How often; the phases are spread over the whole of a migration, which takes about a second here.
const TIMES: u32 = 12;

/// Whatever the phase: off is said when it lives nowhere, and it is said.
pub fn fenced_in_mid_migration(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "mover")?;
    let mut here = "node1";
    let mut slowest = Duration::ZERO;
    for time in 0..TIMES {
        let there = if here == "node1" { "node2" } else { "node1" };
        guest.run(here)?;
        let target = format!("qemu+tcp://{there}/system");
        thread::scope(|scope| -> Result<()> {
            let migrate = ["virsh", "-q", "migrate", "--live", "--p2p", "--unsafe", "mover", &target];
            let moving = scope.spawn(move || lab.exec(here, &migrate, PATIENCE));
            thread::sleep(Duration::from_millis(u64::from(time) * 95));
            let begin = Instant::now();
            let answer = guest.fence("off", &[]);
            slowest = slowest.max(begin.elapsed());
            // Before anything else: a success is looked at in its very moment.
            let places = guest.places()?;
            let output = answer?.says(0, "Success: Powered OFF\n")?;
            ensure!(places.is_empty(), "round {time}: {output:?}, but it lives on {places:?}");
            let _ = moving.join();
            guest.is_off()
        })?;
        here = there;
    }
    println!("slowest off {:.1} s", slowest.as_secs_f64());
    Ok(())
}
