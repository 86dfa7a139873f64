//! Disks that QEMU reaches by itself, on real servers in a third node: a guest starts, moves, and is started again where its node was lost.

use crate::other::refused;
use crate::same::{loose, moves, strict};
use crate::servers::{self, TARGET};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::layout::Network;
use lab::process::wait_until;
use lab::stage::{HERE, PATIENCE, Resource, SOON, THERE};
use std::time::Duration;

/// The node with the servers, and a second address of it.
const STORE: &str = "node3";
const SECOND: &str = "10.77.1.33";

fn on_network(guest: &Resource, protocol: &str, name: &str, host: &str, port: u16) -> Result<()> {
    guest.edit(|text| servers::on_network(text, &guest.instance, protocol, name, host, port))
}

/// Starts, moves with the strictest check, loses its node, is started again.
fn whole_life(guest: &Resource) -> Result<()> {
    let lab = guest.lab;
    let boot = guest.boot(HERE)?;
    moves(&strict(guest), Some(boot))?;
    lab.power_off(THERE)?;
    let next = guest.boot(HERE)?;
    ensure!(next != boot, "it was not started again");
    guest.beats(next)?;
    guest.with("force_stop", "true").end(HERE, 60)?;
    lab.power_on(THERE)?;
    lab.wait_libvirt(THERE)?;
    // Its cards have new addresses, and the other node would go on with the old ones for a while.
    lab.check(HERE, &["ip", "neigh", "flush", "all"], SOON)?;
    let uri = format!("qemu+tcp://{THERE}/system");
    let reached = || lab.exec(HERE, &["virsh", "-q", "-c", &uri, "version"], SOON).is_ok_and(|output| output.ok());
    ensure!(wait_until(PATIENCE, Duration::from_millis(100), reached), "{THERE} is not reached from {HERE}");
    Ok(())
}

/// NBD, by qemu-nbd.
pub fn nbd(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::new(lab, "nbd")?);
    let address = Network::Storage.address(3);
    let _server = servers::nbd(lab, STORE, "/srv/vms/nbd.img", "vm", &address)?;
    on_network(&guest, "nbd", "vm", &address, 10809)?;
    whole_life(&guest)
}

/// iSCSI, by tgt and QEMU's libiscsi.
pub fn iscsi(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::new(lab, "iscsi")?);
    let _server = servers::iscsi(lab, STORE, "/srv/vms/iscsi.img")?;
    on_network(&guest, "iscsi", &format!("{TARGET}/1"), &Network::Storage.address(3), 3260)?;
    whole_life(&guest)
}

/// One name for two servers: each node's table of hosts says another.
pub fn two_servers_of_one_name(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::empty(lab, "split")?);
    lab.check(STORE, &["sh", "-c", &format!("ip addr add {SECOND}/24 dev {} || true", Network::Storage.interface())], SOON)?;
    let first = Network::Storage.address(3);
    let other = lab.guest_image("split").with_extension("other");
    std::fs::copy(lab.guest_image("split"), &other).context("no second image")?;
    let _one = servers::nbd(lab, STORE, "/srv/vms/split.img", "vm", &first)?;
    let _two = servers::nbd(lab, STORE, "/srv/vms/split.other", "vm", SECOND)?;
    for (node, address) in [(HERE, first.as_str()), (THERE, SECOND)] {
        lab.check(node, &["sh", "-c", &format!("sed -i '/ san$/d' /etc/hosts; echo {address} san >>/etc/hosts")], SOON)?;
    }
    on_network(&guest, "nbd", "vm", "san", 10809)?;
    guest.begin(HERE)?;
    refused(&guest, &["nbd://san:10809/vm", SECOND])
}
