//! Starts that are still under way in libvirt when the agent's time is over. Pacemaker then calls stop, and when that says 0 it starts the
//! guest on another node; so what libvirt still does after that must not be the start.

use crate::stage::{HERE, Resource, soon};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long is waited for a guest that must not come.
const WATCHED: Duration = Duration::from_secs(15);

/// Gives the node's libvirt a hook, which it looks for when it starts only.
fn hook(lab: &Lab, text: &str) -> Result<()> {
    let path = lab.path_in(HERE, "/etc/libvirt/hooks/qemu")?;
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(&path, format!("#!/bin/sh\n# guest, operation, sub-operation\n{text}\n"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    lab.restart(HERE, "libvirtd")
}

/// What Pacemaker does after a start that failed: stop, and another node when that is 0. The end: the guest is in one place at most.
fn stop_is_the_end(guest: &Resource, seconds: u64, undo: impl FnOnce()) -> Result<()> {
    let answer = guest.call(HERE, "stop", seconds)?;
    ensure!(matches!(answer.code, 0 | 1), "stop says {}", answer.code);
    if answer.code == 0 {
        guest.absent(HERE)?;
    }
    let probe = guest.call(HERE, "monitor", 10)?;
    undo();
    if answer.code == 0 || probe.code == 7 {
        guest.stays_absent(HERE, WATCHED)?;
    }
    // What could not be ended then can be now.
    guest.call(HERE, "stop", 40)?.is(0)?;
    guest.absent(HERE)?;
    guest.stays_absent(HERE, Duration::from_secs(2))
}

/// libvirt is held up while it prepares the start (a hook, storage that hangs): there is no emulator yet, but there will be.
pub fn held_in_preparation(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "prepared")?.with("force_stop", "true");
    hook(lab, "[ \"$1.$2\" = prepared.prepare ] && sleep 20\nexit 0")?;
    guest.call(HERE, "start", 8)?.says(1, &["prepared"])?;
    stop_is_the_end(&guest, 8, || {})
}

/// libvirt freezes between its preparation and the emulator.
pub fn frozen_in_preparation(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "halfway")?.with("force_stop", "true");
    hook(lab, "[ \"$1.$2\" = halfway.prepare ] && { kill -STOP $PPID; sleep 1; }\nexit 0")?;
    guest.call(HERE, "start", 10)?.says(1, &["halfway"])?;
    stop_is_the_end(&guest, 10, || drop(lab.thaw(HERE, "libvirtd")))
}

/// libvirt's only ordinary worker is held up by another guest's start: the request waits for it, while libvirt says at once that there is
/// no such guest.
pub fn queued_behind_another(lab: &Lab) -> Result<()> {
    let taker = Resource::empty(lab, "taker")?.with("force_stop", "true");
    let guest = Resource::empty(lab, "queued")?.with("force_stop", "true");
    let settings = lab.path_in(HERE, "/etc/libvirt/libvirtd.conf")?;
    let old = fs::read_to_string(&settings)?;
    fs::write(&settings, format!("{old}\nmin_workers = 1\nmax_workers = 1\n"))?;
    // Longer than the start and the stop take, and not as long as the guest is watched after that.
    hook(lab, "[ \"$1.$2\" = taker.prepare ] && sleep 18\nexit 0")?;
    let ended = thread::scope(|scope| -> Result<()> {
        let taking = scope.spawn(|| taker.call(HERE, "start", 90));
        soon("the worker is taken", || lab.processes(HERE, "sleep").is_ok_and(|found| !found.is_empty()))?;
        let started = guest.call(HERE, "start", 8).and_then(|answer| answer.says(1, &["queued"]));
        let ended = started.and_then(|_| stop_is_the_end(&guest, 8, || {}));
        taking.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0)?;
        taker.end(HERE, 30)?;
        ended
    });
    fs::write(&settings, old)?;
    lab.restart(HERE, "libvirtd")?;
    ended
}

/// The number of `REMOTE_PROC_DOMAIN_CREATE_XML`, the third word of a message after its length.
const CREATE: u32 = 10;

/// libvirt freezes after it was asked whether the guest is there, and before it reads the request to create it; the request waits in
/// its socket, and the agent that sent it is gone.
pub fn frozen_before_the_request_is_read(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "unread")?.with("force_stop", "true");
    let socket = lab.path_in(HERE, "/run/between.sock")?;
    let listener = UnixListener::bind(&socket).context("failed to bind the socket between")?;
    let daemon = lab.path_in(HERE, "/run/libvirt/libvirt-sock")?;
    let over = AtomicBool::new(false);
    let between = guest.with("hypervisor", "qemu+unix:///system?socket=/run/between.sock");
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            // The last connection is the one that ends this, see below.
            while let Ok((client, _)) = listener.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = UnixStream::connect(&daemon) else { return };
                let (Ok(from), Ok(to)) = (server.try_clone(), client.try_clone()) else { return };
                scope.spawn(move || relay(from, to, || {}));
                scope.spawn(move || relay(client, server, || drop(lab.freeze(HERE, "libvirtd"))));
            }
        });
        let started = between.call(HERE, "start", 10).and_then(|answer| answer.says(1, &["unread"]));
        let ended = started.and_then(|_| stop_is_the_end(&between, 10, || drop(lab.thaw(HERE, "libvirtd"))));
        lab.thaw(HERE, "libvirtd")?;
        over.store(true, Ordering::Relaxed);
        UnixStream::connect(&socket)?;
        fs::remove_file(&socket)?;
        ended
    })
}

/// Passes messages on, one at a time; before one that creates a guest `freeze` is called.
fn relay(mut from: UnixStream, mut to: UnixStream, freeze: impl Fn()) {
    let mut pass = || -> std::io::Result<()> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length).saturating_sub(4) as usize];
        from.read_exact(&mut message)?;
        if message.get(8..12) == Some(&CREATE.to_be_bytes()) {
            freeze();
        }
        to.write_all(&length)?;
        to.write_all(&message)
    };
    while pass().is_ok() {}
    let _ = to.shutdown(Shutdown::Both);
}
