//! What a client of the guest sees of moves, and what the guest keeps.

use crate::stage::{HERE, PATIENCE, Resource, THERE};
use anyhow::{Result, ensure};
use lab::client::{self, Client};
use lab::promised;
use lab::{GuestOptions, Lab, Watcher};
use std::thread;
use std::time::{Duration, Instant};

/// The guest's host number in its network.
const CARD: u32 = 50;
/// MiB of its memory that hold a pattern.
const PATTERN: u32 = 32;

/// One TCP connection from a third host lives through moves there and back, with every byte in order; the memory is what it was.
pub fn connection_and_memory(lab: &Lab) -> Result<()> {
    let options = GuestOptions { memory: 80 + PATTERN, pattern: PATTERN, card: Some(CARD), ..GuestOptions::default() };
    lab.guest_create("server", &options)?;
    let guest =
        Resource::unmade(lab, "server", "/srv/vms/server.xml").with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    let boot = guest.boot(HERE)?;
    let whole = client::expected(PATTERN);
    let before = client::sum(lab, CARD, PATIENCE)?;
    ensure!(before == whole, "the pattern is {before:016x} before any move, not {whole:016x}");
    let watcher = Watcher::start(&lab.guest_image("server"))?;
    let client = Client::connect(lab, CARD, PATIENCE)?;
    for (from, to) in [(HERE, THERE), (THERE, HERE), (HERE, THERE)] {
        let begin = Instant::now();
        let _ = client.silence();
        guest.call_with(from, "migrate_to", 60, &[("OCF_RESKEY_CRM_meta_migrate_target", to)])?.is(0)?;
        guest.call_with(to, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", from)])?.is(0)?;
        guest.call(from, "stop", 60)?.is(0)?;
        guest.absent(from)?;
        // What TCP repeats late is this move's.
        thread::sleep(Duration::from_secs(1));
        let (pause, silence) = (watcher.snapshot().pause_between(begin, Instant::now()), client.silence());
        println!("\n    {from} to {to}: the guest stood {pause:.0} ms, its client heard nothing for {} ms", silence.as_millis());
        let after = client::sum(lab, CARD, PATIENCE)?;
        ensure!(after == whole, "the pattern is {after:016x} on {to}, not {whole:016x}");
    }
    let words = client.end()?;
    println!("    {words} words came back in order over one connection");
    guest.beats(boot)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    promised!(watcher.stop().two_writers.is_none(), "it ran twice");
    Ok(())
}
