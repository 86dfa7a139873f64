//! Conditions of the libvirt daemon.

use crate::between::{Between, SOCKET, Stroke};
use crate::play::{Lane, Play, hidden};
use anyhow::{Context, Result, ensure};
use lab::stage::{Resource, soon};
use std::fs;

const DAEMON: &str = "libvirtd";
const OWN: &str = "/run/libvirt/libvirt-sock";

type Guest<'a> = Result<Resource<'a>>;

pub fn healthy_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    // With a kernel that is up: it must be asked to shut down, and do so.
    let guest = lane.started(lane.beating(name)?)?;
    soon("it beats", || guest.ring().is_ok())?;
    Ok(Play::new(guest))
}

pub fn healthy_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    Ok(Play::new(lane.absent(name)?))
}

pub fn down_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    down(lane, lane.runs(name))
}

pub fn down_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    down(lane, lane.absent(name))
}

pub fn down<'a>(lane: &Lane<'a>, guest: Guest<'a>) -> Result<Play<'a>> {
    let guest = guest?;
    lane.lab.kill(&lane.here, DAEMON)?;
    Ok(Play::new(guest))
}

pub fn frozen_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    frozen(lane, lane.runs(name))
}

pub fn frozen_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    frozen(lane, lane.absent(name))
}

fn frozen<'a>(lane: &Lane<'a>, guest: Guest<'a>) -> Result<Play<'a>> {
    let guest = guest?;
    lane.lab.freeze(&lane.here, DAEMON)?;
    Ok(Play::new(guest))
}

pub fn killed_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    struck(lane, lane.runs(name), Stroke::Kill)
}

pub fn killed_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    struck(lane, lane.absent(name), Stroke::Kill)
}

pub fn restarted_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    struck(lane, lane.runs(name), Stroke::Restart)
}

pub fn restarted_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    struck(lane, lane.absent(name), Stroke::Restart)
}

fn struck<'a>(lane: &Lane<'a>, guest: Guest<'a>, stroke: Stroke) -> Result<Play<'a>> {
    let guest = guest?.with("hypervisor", &format!("qemu+unix:///system?socket={SOCKET}"));
    let mut play = Play::new(guest);
    play.between = Some(Between::new(lane.lab, &lane.here, stroke)?);
    Ok(play)
}

pub fn socketless_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    renamed(lane, lane.runs(name), None)
}

pub fn socketless_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    renamed(lane, lane.absent(name), None)
}

pub fn modular_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    renamed(lane, lane.runs(name), Some("virtqemud-sock"))
}

pub fn modular_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    renamed(lane, lane.absent(name), Some("virtqemud-sock"))
}

/// The daemon's socket has another name, which nobody looks for if none is given.
fn renamed<'a>(lane: &Lane<'a>, guest: Guest<'a>, name: Option<&str>) -> Result<Play<'a>> {
    let guest = guest?;
    let own = lane.file(OWN)?;
    let other = name.map_or_else(|| hidden(&own), |name| own.with_file_name(name));
    fs::rename(&own, &other).context("the socket cannot be renamed")?;
    Ok(Play::new(guest).undo(move || drop(fs::rename(other, own))))
}

/// As when it could not read what it knew of the guest.
pub fn lost_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    let guest = lane.runs(name)?;
    lane.lab.kill(&lane.here, DAEMON)?;
    fs::remove_file(lane.file(&format!("/run/libvirt/qemu/{}.xml", guest.name))?)?;
    lane.lab.start(&lane.here, DAEMON)?;
    Ok(Play::new(guest))
}

pub fn forbidden_runs<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    forbidden(lane, lane.runs(name))
}

pub fn forbidden_absent<'a>(lane: &Lane<'a>, name: &str) -> Result<Play<'a>> {
    forbidden(lane, lane.absent(name))
}

/// The daemon asks for SASL, for which nobody has an account.
fn forbidden<'a>(lane: &Lane<'a>, guest: Guest<'a>) -> Result<Play<'a>> {
    let guest = guest?;
    let settings = lane.file("/etc/libvirt/libvirtd.conf")?;
    let old = fs::read_to_string(&settings)?;
    let new = old.replace("auth_unix_rw = \"none\"", "auth_unix_rw = \"sasl\"");
    ensure!(old != new, "nothing to change in {}", settings.display());
    fs::write(&settings, new)?;
    let (lab, here) = (lane.lab, lane.here.clone());
    let play = Play::new(guest).undo(move || {
        let _ = fs::write(settings, old);
        let _ = lab.kill(&here, DAEMON);
        let _ = lab.start(&here, DAEMON);
    });
    lane.lab.kill(&lane.here, DAEMON)?;
    lane.lab.launch(&lane.here, DAEMON)?;
    let socket = lane.file(OWN)?;
    soon("libvirtd listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
    Ok(play)
}
