//! A guest that is being migrated without end between two hosts while it is fenced.

use crate::stage::{Guest, PATIENCE, Way, bare, tidy, wander};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::process::wait_until;
use lab::promised;
use lab::random::Random;
use lab::suite::number;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often, unless `KVMHA_FENCE_ROUNDS` says.
const ROUNDS: u64 = 12;

/// Within this time after the first move was begun the guest is fenced; a move takes about a second here.
const PHASES: u64 = 2500;

/// Whatever the phase, and wherever it is defined as well: "off" is only said when it lives nowhere, and then it stays so.
pub fn fenced_while_it_wanders(lab: &Lab) -> Result<()> {
    let rounds = number("KVMHA_FENCE_ROUNDS")?.unwrap_or(ROUNDS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = number("KVMHA_FENCE_SEED")?.unwrap_or(clock.as_secs());
    println!("KVMHA_FENCE_SEED={seed} KVMHA_FENCE_ROUNDS={rounds}");
    let mut chance = Random::new(seed);
    let (mut slowest, mut arrived, mut failed) = (Duration::ZERO, 0, 0);
    for round in 0..rounds {
        // On a busy machine a move takes longer, and some of them are to arrive.
        let later = if arrived == 0 { 1 + round / 3 } else { 1 };
        let phase = Duration::from_millis(chance.below(PHASES * later));
        let here = if chance.below(2) == 0 { "node1" } else { "node2" };
        // Transient as VirtualDomain makes it, or with a definition on one of the hosts, or on both.
        let defined: Vec<&str> = [(1, "node1"), (2, "node2")].iter().filter(|_| chance.below(4) == 0).map(|(_, node)| *node).collect();
        let guest = Guest::new(lab, "mover")?;
        for node in &defined {
            guest.define(node)?;
        }
        guest.run(here)?;
        let enough = AtomicBool::new(false);
        let output = thread::scope(|scope| {
            let moving = scope.spawn(|| wander(lab, "mover", here, &enough));
            thread::sleep(phase);
            let begin = Instant::now();
            let answer = guest.fence("off", &[]);
            slowest = slowest.max(begin.elapsed());
            // Before anything else: a success is looked at in its very moment.
            let places = guest.places()?;
            enough.store(true, Ordering::Relaxed);
            arrived += moving.join().unwrap_or_default();
            let output = answer?;
            let succeeded = output.code == Some(0);
            promised!(!succeeded || places.is_empty(), "round {round}, {phase:?}, from {here}: {output:?}, but it lives on {places:?}");
            if succeeded {
                guest.is_off().with_context(|| format!("round {round}, {phase:?}, from {here}"))?;
            }
            Ok(output)
        })?;
        if output.code != Some(0) {
            println!("round {round}, {phase:?}, from {here}, defined on {defined:?}: {}", output.stderr.trim_end());
            failed += 1;
        }
        tidy(lab)?;
    }
    println!("{rounds} rounds, {arrived} moves had arrived, {failed} failures, slowest off {:.1} s", slowest.as_secs_f64());
    ensure!(failed == 0, "{failed} of {rounds} were not proven off");
    ensure!(arrived > 0, "no move had arrived in {rounds} rounds: the guest did not wander");
    Ok(())
}

/// It leaves for a host that is not in `uri`: it is called off in time, or it is not off.
pub fn fenced_while_it_leaves_the_pool(lab: &Lab) -> Result<()> {
    const PAIR: (&str, &str) = ("uri", "qemu+tcp://node1/system,qemu+tcp://node3/system");
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = number("KVMHA_FENCE_SEED")?.unwrap_or(clock.as_secs());
    println!("KVMHA_FENCE_SEED={seed}");
    let mut chance = Random::new(seed);
    let (mut off, mut not) = (0, 0);
    for round in 0..4 {
        let guest = Guest::new(lab, "leaver")?;
        guest.run("node1")?;
        // The first is called off before it begins, and the last has left.
        let phase = Duration::from_millis(if round == 0 { 0 } else { chance.below(PHASES / 2) });
        let pause = Duration::from_millis(if round == 0 { 1000 } else { 0 });
        let output = thread::scope(|scope| {
            let target = "qemu+tcp://node2/system";
            let words = ["virsh", "-q", "migrate", "--live", "--p2p", "--unsafe", "leaver", target];
            let moving = scope.spawn(move || {
                thread::sleep(pause);
                lab.exec("node1", &words, PATIENCE)
            });
            thread::sleep(phase);
            ensure!(round < 3 || wait_until(PATIENCE, Duration::from_millis(50), || moving.is_finished()), "it does not leave");
            let options = [("action", "off"), ("plug", "leaver"), PAIR];
            let output = bare(lab, Way::Lines, &options);
            let _ = moving.join();
            output
        })?;
        let places = guest.places()?;
        println!("round {round}, {phase:?}: {:?}, it lives on {places:?}: {}", output.code, output.stderr.trim_end());
        promised!(output.code != Some(0) || places.is_empty(), "round {round}, {phase:?}: {output:?}, but it lives on {places:?}");
        if output.code == Some(0) {
            off += 1;
        } else {
            not += 1;
            // Neither does it become so by being asked again.
            let again = bare(lab, Way::Lines, &[("action", "off"), ("plug", "leaver"), PAIR, ("missing_as_off", "1")])?;
            ensure!(again.code != Some(0) || places.is_empty() || !output.stderr.contains("a move from"), "round {round}: {again:?}");
        }
        tidy(lab)?;
    }
    println!("{off} called off in time, {not} not off");
    ensure!(off > 0 && not > 0, "{off} were called off in time and {not} not off: one kind was not tried");
    Ok(())
}
