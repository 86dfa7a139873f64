//! Disks that QEMU reaches by itself, on real servers in a third node: a guest starts, moves, and is started again where its node was lost.

use crate::other::refused;
use crate::same::{comes_back, loose, moves, strict};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::layout::Network;
use lab::servers::{self, TARGET};
use lab::stage::{HERE, PATIENCE, Resource, SOON, THERE};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The node with the servers, and a second address of it.
const STORE: &str = "node3";
const SECOND: &str = "10.77.1.33";
/// Where nodes have a GlusterFS volume mounted.
const VOLUME: &str = "/srv/gluster";

fn on_network(guest: &Resource, protocol: &str, name: &str, host: &str, port: impl Into<Option<u16>>) -> Result<()> {
    let port = port.into();
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
    comes_back(lab)
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

/// NFS, by nfs-ganesha and QEMU's libnfs.
pub fn nfs(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::new(lab, "nfs")?);
    let _server = servers::nfs(lab, STORE)?;
    on_network(&guest, "nfs", "/srv/vms/nfs.img", &Network::Storage.address(3), None)?;
    shown_as_the_same(&guest)?;
    whole_life(&guest)
}

/// A guest whose image is a file of the GlusterFS volume `vms`, which both nodes have mounted. The heartbeat is read from the brick.
fn on_gluster<'a>(lab: &'a Lab, name: &str, empty: bool) -> Result<Resource<'a>> {
    let guest = if empty { Resource::empty(lab, name)? } else { Resource::new(lab, name)? };
    for node in [HERE, THERE] {
        mount(lab, node, "vms")?;
    }
    let copy = format!("cp /srv/vms/{name}.img {VOLUME}/ && ln -f /srv/vms/bricks/vms/{name}.img /srv/vms/{name}.img");
    lab.check(HERE, &["sh", "-c", &copy], SOON)?;
    Ok(loose(&guest))
}

/// Mounts a volume in a node, in the place of the one that is mounted there.
fn mount(lab: &Lab, node: &str, volume: &str) -> Result<()> {
    let server = Network::Storage.address(3);
    let words = format!("mkdir -p {VOLUME}; umount {VOLUME} 2>/dev/null; mount -t glusterfs {server}:/{volume} {VOLUME}");
    lab.check(node, &["sh", "-c", &words], PATIENCE).map(drop)
}

/// The mounts and bricks of GlusterFS, which go when this is dropped.
struct Bricks<'a>(&'a Lab);

impl Drop for Bricks<'_> {
    fn drop(&mut self) {
        for node in [HERE, THERE] {
            let _ = self.0.exec(node, &["umount", "--lazy", VOLUME], SOON);
        }
        let _ = std::fs::remove_dir_all(self.0.layout().shared().join("bricks"));
    }
}

/// GlusterFS, mounted; then another volume in its place.
pub fn gluster_mounted(lab: &Lab) -> Result<()> {
    let _bricks = Bricks(lab);
    let _server = servers::gluster(lab, STORE, &Network::Storage.address(3))?;
    let guest = on_gluster(lab, "gluster", false)?;
    let mounted = |guest: &Resource| guest.edit(|text| text.replace("<source file='/srv/vms/", &format!("<source file='{VOLUME}/")));
    mounted(&guest)?;
    shown_as_the_same(&guest)?;
    whole_life(&guest)?;
    let guest = on_gluster(lab, "volumes", true)?;
    mounted(&guest)?;
    guest.begin(HERE)?;
    mount(lab, THERE, "other")?;
    lab.check(THERE, &["cp", "/srv/vms/volumes.img", VOLUME], SOON)?;
    refused(&guest, &["another folder"])?;
    guest.with("force_stop", "true").end(THERE, 60).map(drop)
}

/// GlusterFS by QEMU itself.
pub fn gluster(lab: &Lab) -> Result<()> {
    let _bricks = Bricks(lab);
    let _server = servers::gluster(lab, STORE, &Network::Storage.address(3))?;
    let guest = on_gluster(lab, "direct", false)?;
    on_network(&guest, "gluster", "vms/direct.img", &Network::Storage.address(3), 24007)?;
    shown_as_the_same(&guest)?;
    whole_life(&guest)
}

/// RBD by QEMU, on a small Ceph. The heartbeat is read from a copy of the image, which is made again and again.
pub fn rbd(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::new(lab, "rbd")?);
    let address = Network::Storage.address(3);
    let _server = servers::ceph(lab, STORE, "rbd", &address)?;
    on_network(&guest, "rbd", &format!("{}/rbd", servers::POOL), &address, 6789)?;
    shown_as_the_same(&guest)?;
    let copy = format!("rbd export --no-progress {}/rbd - >/srv/vms/rbd.copy && mv /srv/vms/rbd.copy /srv/vms/rbd.img", servers::POOL);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = lab.exec(STORE, &["sh", "-c", &copy], SOON);
                thread::sleep(Duration::from_millis(200));
            }
        });
        let outcome = whole_life(&guest);
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

/// `kvmha storage --to` says that the other node has the same disk.
fn shown_as_the_same(guest: &Resource) -> Result<()> {
    let config = format!("/srv/vms/{}.xml", guest.instance);
    let words = ["kvmha", "storage", &config, "--to", THERE, "--set", "migration_transport=tcp"];
    let said = guest.lab.check(HERE, &words, PATIENCE)?;
    ensure!(said.contains("the same"), "{said}");
    Ok(())
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
