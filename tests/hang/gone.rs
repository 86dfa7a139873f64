//! Gone means gone: an emulator that hangs in the kernel with a write in flight lives, whatever libvirt says; the write may come yet.

use crate::stage::{AGENT, HERE, PATIENCE, Resource, SOON, THERE, soon, together};
use crate::storage::{self, Faulty, emulator, in_flight, threads};
use anyhow::{Context, Result, ensure};
use lab::promised;
use lab::{Lab, Output, Watcher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const INCUMBENT: &str = "/usr/lib/ocf/resource.d/heartbeat/VirtualDomain";

/// An action of `ocf:heartbeat:VirtualDomain` on the same guest.
fn incumbent(guest: &Resource, node: &str, action: &str, seconds: u64) -> Result<Output> {
    let mut words = guest.words(node, action, seconds, &[]);
    for word in &mut words {
        *word = word.replace(AGENT, INCUMBENT).replace("PROVIDER=kvmha", "PROVIDER=heartbeat");
    }
    for name in ["autoset_utilization_cpu", "autoset_utilization_host_memory", "autoset_utilization_hv_memory"] {
        words.insert(1, format!("OCF_RESKEY_{name}=false"));
    }
    guest.lab.exec(node, &words, Duration::from_secs(seconds))
}

/// What is said of a guest whose emulator hangs: that, and on what.
fn hangs(guest: &Resource) -> [String; 4] {
    let image = format!("on /srv/hang/{}.img", guest.name);
    ["emulator ".to_owned(), format!("of {}", guest.name), "in uninterruptible sleep".to_owned(), image]
}

/// Whether this libvirt forgets a domain whose emulator hangs: 9.0 does after two attempts of 40 s, 11.3 says that it cannot destroy it.
fn libvirt_forgets(lab: &Lab) -> Result<bool> {
    let text = lab.check(HERE, &["virsh", "--version"], SOON)?;
    Ok(text.split('.').next().and_then(|major| major.parse::<u32>().ok()).context("no version of libvirt")? < 11)
}

/// Three guests on storage that stops to answer. Ours are never said to be stopped; the incumbent's is, and when it has been started
/// elsewhere its old write comes.
pub fn write_in_flight(lab: &Lab) -> Result<()> {
    let made = |name: &str| Ok::<_, anyhow::Error>(storage::guest(lab, name)?.with("force_stop", "true"));
    let (long, short, theirs) = (made("long")?, made("short")?, made("theirs")?);
    incumbent(&theirs, HERE, "start", 90)?.success("the incumbent's start")?;
    let boots = [long.boot(HERE)?, short.boot(HERE)?];
    soon("the incumbent's guest beats", || theirs.ring().is_ok())?;
    let forgets = libvirt_forgets(lab)?;
    let held = Faulty::hold_writes(lab, HERE)?;
    let emulators = [emulator(&long, HERE)?, emulator(&short, HERE)?, emulator(&theirs, HERE)?];
    emulators.iter().try_for_each(|emulator| in_flight(*emulator))?;

    let watcher = Watcher::start(&lab.guest_image("theirs"))?;
    let ended = AtomicBool::new(false);
    let refused = |guest: &Resource, seconds: u64| -> Result<()> {
        let parts = hangs(guest);
        guest.call(HERE, "stop", seconds)?.says(1, &parts.each_ref().map(String::as_str)).map(drop)
    };
    together(vec![
        Box::new(|| {
            let result = refused(&long, 120);
            ended.store(true, Ordering::Relaxed);
            result
        }),
        Box::new(|| {
            refused(&short, 30)?;
            while !ended.load(Ordering::Relaxed) {
                for action in ["recurring", "monitor", "status"] {
                    let answer = short.call(HERE, action, 20)?;
                    promised!(matches!(answer.code, 0 | 1), "{action} says {} of a guest that lives", answer.code);
                }
            }
            if forgets {
                for action in ["recurring", "monitor", "status"] {
                    let parts = hangs(&short);
                    short.call(HERE, action, 20)?.says(1, &parts.each_ref().map(String::as_str))?;
                }
            }
            refused(&short, 20)
        }),
        Box::new(|| {
            let stop = incumbent(&theirs, HERE, "stop", 120)?;
            if !forgets {
                ensure!(!stop.ok(), "the incumbent's stop says 0 with a libvirt that does not forget the guest");
                return Ok(());
            }
            ensure!(stop.ok(), "the incumbent's stop is better than it was: {stop:?}");
            ensure!(threads(emulators[2]).contains(&'D'), "nothing hangs any more");
            incumbent(&theirs, THERE, "start", 60)?.success("the incumbent's start on the other node")?;
            ensure!(watcher.wait(PATIENCE, |watch| watch.boots().len() == 2), "the incumbent's guest does not beat on the other node");
            ensure!(watcher.snapshot().two_writers.is_none(), "two writers before the storage is back");
            Ok(())
        }),
    ])?;

    drop(held);
    if forgets {
        let came = watcher.wait(SOON, |watch| watch.two_writers.is_some());
        ensure!(came, "the late write of the incumbent's guest did not come: what this test stands for is not there any more");
    }
    let after = |guest: &Resource, emulator, boot| -> Result<()> {
        soon("the emulator ends when its write is done", || threads(emulator).is_empty())?;
        guest.call(HERE, "stop", 30)?.is(0)?;
        guest.call(HERE, "monitor", 20)?.is(7)?;
        let watcher = Watcher::start(&lab.guest_image(&guest.name))?;
        ensure!(guest.boot(THERE)? != boot, "{} was not booted again", guest.name);
        guest.end(THERE, 30)?;
        let (ring, watch) = (guest.ring()?, watcher.stop());
        promised!(ring.boots.len() == 2 && ring.two_writers.is_none(), "{}: {ring:?}", guest.name);
        promised!(watch.two_writers.is_none(), "{}: {:?}", guest.name, watch.two_writers);
        Ok(())
    };
    together(vec![Box::new(|| after(&long, emulators[0], boots[0])), Box::new(|| after(&short, emulators[1], boots[1]))])
}
