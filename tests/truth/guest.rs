//! Conditions of the guest and its emulator.

use crate::play::{Background, Lane, Play};
use crate::{config, libvirt};
use anyhow::{Context, Result};
use lab::stage::{Resource, SOON, gone, signal, soon};
use nix::sys::signal::Signal;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub fn defined_off<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.absent(name)?;
    lane.lab.check(&lane.here, &["virsh", "-q", "define", &format!("/srv/vms/{}.xml", guest.instance)], SOON)?;
    Ok(Play::new(guest))
}

pub fn paused_user<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    guest.virsh(&lane.here, "suspend", &[])?;
    Ok(Play::new(guest))
}

/// The target's daemon freezes while memory still comes in; when all has come, the source waits for the target's word.
pub fn paused_migration<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.started(lane.beating(name)?)?;
    let moving = Background::slow_move(lane.lab, &guest, &lane.here, &lane.there)?;
    lane.lab.freeze(&lane.there, "libvirtd")?;
    guest.virsh(&lane.here, "migrate-setspeed", &["1000"])?;
    soon("it is paused for the handover", || lane.state(&guest) == "paused (migrating)")?;
    Ok(held(lane, guest, "paused (migrating)").undo(move || drop(moving)))
}

pub fn paused_save<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    written(lane, name, "paused (saving)", &["save"], &[])
}

pub fn paused_dump<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    written(lane, name, "paused (dumping)", &["dump"], &[])
}

pub fn dumped_live<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    written(lane, name, "paused (unknown)", &["dump"], &["--live", "--memory-only"])
}

pub fn paused_snapshot<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let more = ["--diskspec", "vda,snapshot=no", "--reuse-external"];
    written(lane, name, "paused (creating snapshot)", &["snapshot-create-as", "--name", "one", "--memspec"], &more)
}

/// A guest whose memory is being written to a pipe from which nobody reads.
fn written<'a>(lane: &Lane<'a>, name: &str, state: &'static str, head: &[&str], tail: &[&str]) -> Result<Play<'a>> {
    const PIPE: &str = "/run/pipe";
    let guest = lane.runs(name)?;
    lane.lab.check(&lane.here, &["mkfifo", "-m", "666", PIPE], SOON)?;
    let path = lane.file(PIPE)?;
    // Both ends, so that neither opening waits.
    let reader = File::options().read(true).write(true).open(&path)?;
    let (word, options) = head.split_first().context("no word")?;
    let words: Vec<&str> =
        ["virsh", "-q", word, &guest.name].into_iter().chain(options.iter().copied()).chain([PIPE]).chain(tail.iter().copied()).collect();
    let writing = Background::start(lane.lab, &lane.here, &words)?;
    let play = held(lane, guest, state).undo(move || {
        drop(reader);
        drop(writing);
        let _ = fs::remove_file(path);
    });
    soon(state, || (play.stands)())?;
    Ok(play)
}

/// A play that stands as long as libvirt says this state.
fn held<'a>(lane: &Lane<'a>, guest: Resource<'a>, state: &'static str) -> Play<'a> {
    let (seen, lab, here) = (guest.clone(), lane.lab, lane.here.clone());
    let lane = Lane { lab, here, there: String::new(), agent: lane.agent };
    Play::new(guest).stands(move || lane.state(&seen) == state)
}

/// The file system under its disk is full: QEMU then pauses a guest by default, as with other errors if the definition says so.
pub fn paused_io_error<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    const FULL: &str = "/run/full";
    let guest = lane.beating(name)?;
    lane.lab.check(&lane.here, &["mkdir", "-p", FULL], SOON)?;
    lane.lab.check(&lane.here, &["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", FULL], SOON)?;
    let image = format!("{FULL}/{}.img", guest.instance);
    File::create_new(lane.file(&image)?)?.set_len(lab::heartbeat::RING)?;
    let old = format!("/srv/vms/{}.img", guest.instance);
    guest.edit(|text| text.replace(&old, &image))?;
    let guest = lane.started(guest)?;
    let (lab, here) = (lane.lab, lane.here.clone());
    let play = held(lane, guest, "paused (I/O error)").undo(move || drop(lab.check(&here, &["umount", "--lazy", FULL], SOON)));
    soon("the disk is full", || (play.stands)())?;
    Ok(play)
}

/// The watchdog is told to bite at once, by a write to its port.
pub fn paused_watchdog<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.absent(name)?;
    guest.edit(|text| text.replace("</devices>", "<watchdog model='ib700' action='pause'/></devices>"))?;
    let guest = lane.started(guest)?;
    port(lane, &guest, "o/b 0x443 0xf")?;
    let play = held(lane, guest, "paused (watchdog)");
    soon("the watchdog has bitten", || (play.stands)())?;
    Ok(play)
}

/// QEMU stops without having been asked by libvirt.
pub fn paused_unknown<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    guest.virsh(&lane.here, "qemu-monitor-command", &[r#"{"execute":"stop"}"#])?;
    let play = held(lane, guest, "paused (unknown)");
    soon("libvirt has seen it", || (play.stands)())?;
    Ok(play)
}

/// Writes to a port of the guest's machine, as its kernel would.
fn port(lane: &Lane, guest: &Resource, write: &str) -> Result<()> {
    let said = guest.virsh(&lane.here, "qemu-monitor-command", &["--hmp", write])?;
    anyhow::ensure!(said.is_empty(), "the monitor says {said}");
    Ok(())
}

/// An emulator that takes a minute before it listens to libvirt.
pub fn starting_up<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    const SLOW: &str = "/usr/local/bin/slow-emulator";
    let guest = lane.absent(name)?;
    let program = lane.file(SLOW)?;
    fs::create_dir_all(program.parent().unwrap_or(Path::new("/")))?;
    fs::write(&program, "#!/bin/sh\ncase \"$*\" in *guest=*) sleep 60 ;; esac\nexec /usr/bin/qemu-system-x86_64 \"$@\"\n")?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    guest.edit(|text| text.replace("/usr/bin/qemu-system-x86_64", SLOW))?;
    let definition = format!("/srv/vms/{}.xml", guest.instance);
    let starting = Background::start(lane.lab, &lane.here, &["virsh", "-q", "create", &definition])?;
    let (seen, here) = (guest.clone(), lane.here.clone());
    let play = Play::new(guest).stands(move || seen.lives(&here)).undo(move || drop(starting));
    soon("the emulator is there", || (play.stands)())?;
    Ok(play)
}

/// Its power is off, but the emulator was stopped before libvirt, frozen for this moment, could tell it to end.
pub fn shutting_down<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.beating(name)?;
    guest.edit(|text| text.replace("beat=", "linger beat="))?;
    let guest = lane.started(guest)?;
    soon("it beats", || guest.ring().is_ok())?;
    guest.virsh(&lane.here, "shutdown", &[])?;
    soon("it has heard the button", || guest.console(&lane.here).is_ok_and(|said| said.contains("power button")))?;
    lane.lab.freeze(&lane.here, "libvirtd")?;
    // It goes off three seconds after the button; nothing that can be seen from outside says so before libvirt does.
    thread::sleep(Duration::from_secs(6));
    signal(&guest.emulators(&lane.here)?, Signal::SIGSTOP)?;
    lane.lab.thaw(&lane.here, "libvirtd")?;
    let play = held(lane, guest, "in shutdown (unknown)");
    soon("libvirt has seen it", || (play.stands)())?;
    Ok(play)
}

pub fn crashed<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.absent(name)?;
    guest.edit(|text| {
        let text = text.replace("</devices>", "<panic model='isa'/></devices>");
        text.replace("<on_crash>destroy<", "<on_crash>preserve<")
    })?;
    let guest = lane.started(guest)?;
    // What the guest's kernel would do in a panic: it writes to the port of the device.
    port(lane, &guest, "o/b 0x505 1")?;
    let play = held(lane, guest, "crashed (panicked)");
    soon("it has crashed", || (play.stands)())?;
    Ok(play)
}

/// The sleep control of the machine's power management, whose port the BIOS has put at 0x604: S3.
pub fn suspended<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.started(lane.beating(name)?)?;
    soon("it beats", || guest.ring().is_ok())?;
    port(lane, &guest, "o/w 0x604 0x2400")?;
    let (seen, lab, here) = (guest.clone(), lane.lab, lane.here.clone());
    let watched = Lane { lab, here, there: String::new(), agent: lane.agent };
    let play = Play::new(guest).stands(move || watched.state(&seen).starts_with("pmsuspended"));
    soon("it sleeps", || (play.stands)())?;
    Ok(play)
}

pub fn incoming<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.beating(name)?;
    lane.lab.exec(&lane.there, &guest.words(&lane.there, "start", 60, &[]), SOON)?.success("the guest's start")?;
    soon("it beats", || guest.ring().is_ok())?;
    let moving = Background::slow_move(lane.lab, &guest, &lane.there, &lane.here)?;
    Ok(held(lane, guest, "paused (migrating)").undo(move || drop(moving)))
}

/// A move whose guest runs at the target already; its memory comes after it.
pub fn postcopy<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.started(lane.beating(name)?)?;
    soon("it beats", || guest.ring().is_ok())?;
    let moving = Background::slow_postcopy(lane.lab, &guest, &lane.here, &lane.there)?;
    guest.virsh(&lane.here, "migrate-postcopy", &[])?;
    let play = held(lane, guest, "paused (post-copy)").undo(move || drop(moving));
    soon("it runs at the target", || (play.stands)())?;
    Ok(play)
}

pub fn postcopy_failed<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.started(lane.beating(name)?)?;
    soon("it beats", || guest.ring().is_ok())?;
    let moving = Background::slow_postcopy(lane.lab, &guest, &lane.here, &lane.there)?;
    guest.virsh(&lane.here, "migrate-postcopy", &[])?;
    soon("it runs at the target", || lane.state(&guest) == "paused (post-copy)")?;
    signal(&guest.emulators(&lane.there)?, Signal::SIGKILL)?;
    let play = held(lane, guest, "paused (post-copy failed)").undo(move || drop(moving));
    soon("libvirt has noticed", || (play.stands)())?;
    Ok(play)
}

pub fn emulator_frozen<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    signal(&guest.emulators(&lane.here)?, Signal::SIGSTOP)?;
    Ok(Play::new(guest))
}

/// Its write is taken and not answered: the thread that waits for it cannot be killed.
pub fn emulator_stuck<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.beating(name)?;
    guest.edit(|text| text.replace("/srv/vms/emulator-stuck.img", "/srv/hang/emulator-stuck.img"))?;
    let guest = lane.started(guest)?;
    soon("it beats", || guest.ring().is_ok())?;
    let last = guest.ring()?.newest.sequence;
    let play = config::hung(lane, guest)?;
    // What was under way when it began to hang comes through.
    soon("it has stopped beating", || {
        let seen = play.guest.ring().map(|ring| ring.newest.sequence);
        thread::sleep(Duration::from_millis(500));
        seen.is_ok_and(|seen| seen >= last && play.guest.ring().is_ok_and(|ring| ring.newest.sequence == seen))
    })?;
    Ok(play)
}

pub fn emulator_killed<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    let emulators = guest.emulators(&lane.here)?;
    signal(&emulators, Signal::SIGKILL)?;
    soon("the emulator is gone", || emulators.iter().all(|emulator| gone(*emulator)))?;
    // A busy libvirt notices some milliseconds later.
    soon("libvirt has noticed", || lane.state(&guest).is_empty())?;
    Ok(Play::new(guest))
}

pub fn emulator_frozen_libvirt_down<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    signal(&guest.emulators(&lane.here)?, Signal::SIGSTOP)?;
    libvirt::down(lane, Ok(guest))
}
