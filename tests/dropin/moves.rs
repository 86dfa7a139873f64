//! The parameters of a move, each seen by what becomes of a real one.

use crate::stage::{HERE, Resource, SOON, THERE};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::promised;
use std::fs;

const TARGET: [(&str, &str); 1] = [("OCF_RESKEY_CRM_meta_migrate_target", THERE)];

/// A guest that runs here and may be moved.
fn guest<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let guest = Resource::empty(lab, name)?.with("migrate_options", "--unsafe");
    guest.begin(HERE)?;
    Ok(guest)
}

/// The move succeeds; and back, for the next.
fn moves(guest: &Resource) -> Result<()> {
    guest.call_with(HERE, "migrate_to", 60, &TARGET)?.is(0)?;
    promised!(guest.lives(THERE) && !guest.lives(HERE), "it is not there alone");
    guest.call(HERE, "stop", 60)?.is(0)?;
    let back = guest.with("migration_network_suffix", "").with("migrateuri", "").with("remoteuri", "qemu+tcp://%n/system");
    back.call_with(THERE, "migrate_to", 60, &[("OCF_RESKEY_CRM_meta_migrate_target", HERE)])?.is(0)?;
    back.call(THERE, "stop", 60)?.is(0)?;
    Ok(())
}

/// The move fails because of what is named, and the guest runs on here.
fn fails(guest: &Resource, names: &[&str]) -> Result<()> {
    guest.call_with(HERE, "migrate_to", 60, &TARGET)?.says(1, names)?;
    promised!(guest.lives(HERE), "it does not run here any more");
    Ok(())
}

/// `migration_transport`, `migration_user`, `remoteuri`, `migration_network_suffix`: the way to the target's libvirt.
pub fn the_way_to_the_target(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "wayto")?;
    // Without a transport it is TLS, which the lab's libvirts do not speak.
    fails(&guest, &["wayto still runs here", "qemu://node2/system"])?;
    let tcp = guest.with("migration_transport", "tcp");
    moves(&tcp)?;
    fails(&tcp.with("migration_network_suffix", "-mig"), &["qemu+tcp://node2-mig/system"])?;
    fails(&guest.with("migration_transport", "ssh").with("migration_user", "nobody"), &["qemu+ssh://nobody@node2/system"])?;
    moves(&guest.with("remoteuri", "qemu+tcp://%n/system").with("migration_transport", "ssh"))?;
    fails(&guest.with("remoteuri", "qemu+tcp://%n.nowhere/system"), &["qemu+tcp://node2.nowhere/system"])?;
    // A name of its own for the target.
    let hosts = lab.path_in(HERE, "/etc/hosts")?;
    let text = fs::read_to_string(&hosts)?;
    let line = text.lines().find(|line| line.split_whitespace().any(|word| word == THERE)).unwrap_or_default().to_owned();
    fs::write(&hosts, format!("{text}\n{}\n", line.replace(THERE, "node2-mig")))?;
    moves(&tcp.with("migration_network_suffix", "-mig"))?;
    fs::write(&hosts, text)?;
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// `migrateuri`, `migrateport`, `migrate_options`: the way of the memory.
pub fn the_way_of_the_memory(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "wayof")?.with("migration_transport", "tcp");
    fails(&guest.with("migrateuri", "tcp://%n.nowhere:49300"), &["node2.nowhere"])?;
    fails(&guest.with("migrate_options", "--unsafe --migrateuri tcp://%n.elsewhere:49300"), &["node2.elsewhere"])?;
    moves(&guest.with("migrateuri", "tcp://%n:49300"))?;
    // Without the suffix the port means nothing; with it the emulator at the target has to listen there, where somebody else does.
    let listener =
        ["python3", "-c", "import socket,time\ns=socket.socket(socket.AF_INET6)\ns.bind(('::',49301))\ns.listen()\ntime.sleep(600)"];
    let mut taken = lab.enter(THERE, &listener, lab::node::Terminal::None)?.spawn()?;
    let hosts = lab.path_in(HERE, "/etc/hosts")?;
    let text = fs::read_to_string(&hosts)?;
    let line = text.lines().find(|line| line.split_whitespace().any(|word| word == THERE)).unwrap_or_default().to_owned();
    fs::write(&hosts, format!("{text}\n{}\n", line.replace(THERE, "node2-mig")))?;
    let port = guest.with("migrateport", "49301");
    let outcome = moves(&port).and_then(|()| fails(&port.with("migration_network_suffix", "-mig"), &["wayof still runs here"]));
    fs::write(&hosts, text)?;
    for process in lab.processes(THERE, "python3.11")?.into_iter().chain(lab.processes(THERE, "python3")?) {
        let ours = lab::process::arguments(process.pid).iter().any(|word| word.contains("49301"));
        ensure!(!ours || process.end(SOON).is_ok(), "the listener does not end");
    }
    let _ = taken.kill();
    let _ = taken.wait();
    outcome?;
    moves(&port.with("migrateport", "49302"))?;
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// `migration_speed` and `migration_downtime`: what libvirt is told. A memory that is let through too slowly does not arrive in time.
pub fn speed_and_downtime(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "slow")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    let boot = guest.boot(HERE)?;
    let slow = guest.with("migration_speed", "1").with("migration_downtime", "1234");
    slow.call_with(HERE, "migrate_to", 14, &TARGET)?.says(1, &["slow still runs here", "did not end in time"])?;
    ensure!(guest.virsh(HERE, "migrate-getmaxdowntime", &[])? == "1234", "libvirt was not told the downtime");
    guest.beats(boot)?;
    guest.call_with(HERE, "migrate_to", 120, &TARGET)?.is(0)?;
    guest.beats(boot)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.with("force_stop", "true").end(THERE, 60)?;
    Ok(())
}
