//! A write in flight that no thread of the emulator waits for: with `io='native'` the kernel lets the process go only when it is done; with
//! `io='io_uring'` the process goes at once, and the write comes when nothing is left of it.

use crate::stage::{Answer, HERE, Resource, SOON, soon};
use crate::storage::{self, Faulty, emulator, threads};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::process::{Identity, run};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Where the write goes: a part of the disk that the guest has not reached. What QEMU writes there when it is not told otherwise.
const PLACE: u64 = 1024 * 1024;
/// See [`PLACE`].
const PATTERN: u8 = 0xcd;

/// A guest whose CPUs are stopped, with one write in flight that its emulator has left to the kernel.
fn with_write<'a>(guest: &Resource<'a>) -> Result<(Identity, Faulty<'a>)> {
    soon("the guest beats", || guest.ring().is_ok())?;
    guest.virsh(HERE, "suspend", &[])?;
    let held = Faulty::hold_writes(guest.lab, HERE)?;
    // A guest's own write of a whole block, as databases make them, is the same to the emulator.
    let write = format!("qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend \"aio_write {PLACE} 4k\"");
    guest.virsh(HERE, "qemu-monitor-command", &["--hmp", &write])?;
    ensure!(written(guest)? == 0, "the write was not held");
    Ok((emulator(guest, HERE)?, held))
}

/// A byte of the place where the write goes.
fn written(guest: &Resource) -> Result<u8> {
    let mut byte = [0];
    File::open(guest.lab.guest_image(&guest.instance))?.read_exact_at(&mut byte, PLACE)?;
    Ok(byte[0])
}

fn guest<'a>(lab: &'a Lab, name: &str, io: &str) -> Result<Resource<'a>> {
    let guest = storage::guest(lab, name)?.with("force_stop", "true");
    guest.edit(|text| text.replace("cache='none'", &format!("cache='none' io='{io}'")))?;
    Ok(guest)
}

/// The exit of the process waits for the write: one thread is left, without a command line. It is the emulator of its own guest and of no other:
/// one on good storage is stopped meanwhile.
pub fn native(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "native", "native")?;
    guest.begin(HERE)?;
    let neighbours = ["neighbour1", "neighbour2"].map(|name| Ok(Resource::empty(lab, name)?.with("force_stop", "true")));
    let neighbours = neighbours.into_iter().collect::<Result<Vec<_>>>()?;
    neighbours.iter().try_for_each(|neighbour| neighbour.begin(HERE))?;
    let (emulator, held) = with_write(&guest)?;
    let parts = ["emulator ", "of native", "in uninterruptible sleep", "/srv/hang/native.img"];
    guest.call(HERE, "stop", 20)?.says(1, &parts)?;
    ensure!(!threads(emulator).is_empty(), "stop has failed, but the emulator is gone");
    let record = guest.record(HERE)?;
    let kept = fs::read(&record)?;
    for (with_record, neighbour) in [(true, &neighbours[0]), (false, &neighbours[1])] {
        if !with_record {
            // Now only the files that it has open show whose emulator it is.
            fs::remove_file(&record)?;
            fs::remove_file(neighbour.record(HERE)?)?;
        }
        neighbour.call(HERE, "stop", 20)?.is(0)?;
        neighbour.call(HERE, "monitor", 20)?.is(7)?;
        for action in ["monitor", "status"] {
            let answer = guest.call(HERE, action, 20)?;
            ensure!(matches!(answer.code, 0 | 1), "{action} says {} of a guest whose write is in flight", answer.code);
        }
        guest.call(HERE, "stop", 8)?.is(1)?;
    }
    fs::write(&record, kept)?;
    ensure!(written(&guest)? == 0, "the write was not held");
    drop(held);
    soon("the late write has come", || written(&guest).is_ok_and(|byte| byte == PATTERN))?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    Ok(())
}

/// A call of the agent that sees the processes of this machine, the kernel's own among them, as it does on a machine that is one node. In a
/// node of the lab they cannot be seen.
fn call(guest: &Resource, action: &str, seconds: u64) -> Result<Answer> {
    let init = guest.lab.node_process(guest.lab.number(HERE)?).context("no power")?.pid.to_string();
    let mut words =
        ["nsenter", "-t", &init, "-m", "-u", "-i", "-n", "-r", "-w", "--", "unshare", "--mount", "sh", "-c"].map(str::to_owned).to_vec();
    words.extend(["mount -t proc proc /proc && exec \"$@\"", "sh"].map(str::to_owned));
    words.extend(guest.words(HERE, action, seconds, &[]));
    let output = run(&words, Duration::from_secs(seconds + 5))?;
    Answer::of(format!("{action} of {} in {seconds} s", guest.instance), &output, Duration::from_secs(seconds))
}

/// Nothing is left of the process, and the write is still to come.
pub fn io_uring(lab: &Lab) -> Result<()> {
    let guest = guest(lab, &format!("ring-{}", lab.name()), "io_uring")?;
    call(&guest, "start", 60)?.is(0)?;
    let record = guest.record(HERE)?;
    ensure!(fs::read_to_string(&record)?.contains("\"rings\":true"), "the state file does not say that the emulator has a ring");
    // What stop does not find there it sees itself, and leaves for the next one.
    fs::remove_file(&record)?;
    let (emulator, held) = with_write(&guest)?;
    let parts = [guest.name.as_str(), "io_uring", "may still take a write"];
    call(&guest, "stop", 30)?.says(1, &parts)?;
    ensure!(threads(emulator).is_empty(), "the emulator is still there: this is not what this test is about");
    for action in ["recurring", "monitor", "status", "start"] {
        call(&guest, action, 10)?.says(1, &parts)?;
    }
    call(&guest, "stop", 10)?.says(1, &parts)?;
    ensure!(written(&guest)? == 0, "the write was not held");
    drop(held);
    soon("the late write has come", || written(&guest).is_ok_and(|byte| byte == PATTERN))?;
    call(&guest, "stop", 20)?.is(0)?.at_once(SOON)?;
    call(&guest, "monitor", 20)?.is(7)?;
    // A healthy end is not kept waiting.
    call(&guest, "start", 60)?.is(0)?;
    call(&guest, "stop", 30)?.is(0)?.at_once(SOON)?;
    Ok(())
}
