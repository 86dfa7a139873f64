//! Real servers of disks in a node of the lab, and definitions with disks that QEMU gets from them by itself.

use crate::Lab;
use crate::process::{replace, wait_until};
use crate::stage::{PATIENCE, SOON};
use anyhow::{Result, ensure};
use std::time::Duration;

/// The iSCSI target.
pub const TARGET: &str = "iqn.2026-01.lab:vms";

/// What nfs-ganesha serves: the folder that all nodes see, by NFS 3, which is what QEMU speaks, and 4.
const GANESHA: &str = "NFS_CORE_PARAM { Protocols = 3, 4; Enable_NLM = false; Enable_RQUOTA = false; }
NFSV4 { Graceless = true; RecoveryBackend = fs; }
EXPORT { Export_Id = 1; Path = /srv/vms; Pseudo = /vms; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Transports = TCP;
	FSAL { Name = VFS; } }
";

/// A server in a node, whose programs end when this is dropped.
pub struct Server<'a> {
    lab: &'a Lab,
    node: &'a str,
    programs: &'static [&'static str],
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        for program in self.programs {
            for process in self.lab.processes(self.node, program).unwrap_or_default() {
                let _ = process.end(SOON);
            }
        }
    }
}

impl Server<'_> {
    /// It answers nothing, and its connections stay.
    pub fn freeze(&self) -> Result<()> {
        self.programs.iter().try_for_each(|program| self.lab.freeze(self.node, program))
    }

    /// It goes on.
    pub fn thaw(&self) -> Result<()> {
        self.programs.iter().try_for_each(|program| self.lab.thaw(self.node, program))
    }
}

/// Serves an image that all nodes see, by NBD.
pub fn nbd<'a>(lab: &'a Lab, node: &'a str, image: &str, export: &str, address: &str) -> Result<Server<'a>> {
    let words = ["qemu-nbd", "--fork", "-f", "raw", "-x", export, "-b", address, "-p", "10809", "-t", "-e", "8", "--cache=none", image];
    lab.check(node, &words, SOON)?;
    Ok(Server { lab, node, programs: &["qemu-nbd"] })
}

/// Serves an image that all nodes see, by iSCSI: LUN 1 of [`TARGET`].
pub fn iscsi<'a>(lab: &'a Lab, node: &'a str, image: &str) -> Result<Server<'a>> {
    lab.check(node, &["tgtd"], SOON)?;
    let server = Server { lab, node, programs: &["tgtd"] };
    let administer = |words: &[&str]| lab.check(node, &[&["tgtadm", "--lld", "iscsi"], words].concat(), SOON);
    let mut last = None;
    let ready = wait_until(PATIENCE, Duration::from_millis(200), || {
        last = Some(administer(&["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET]));
        last.as_ref().is_some_and(Result::is_ok)
    });
    ensure!(ready, "tgtd does not answer: {last:?}");
    administer(&["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", image])?;
    administer(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"])?;
    Ok(server)
}

/// Serves the folder that all nodes see, by NFS: nfs-ganesha, with the port mapper that QEMU's client asks for the ports.
pub fn nfs<'a>(lab: &'a Lab, node: &'a str) -> Result<Server<'a>> {
    replace(&lab.path_in(node, "/run/ganesha.conf")?, GANESHA)?;
    let begin = "mkdir -p /run/rpcbind /run/ganesha /var/lib/nfs/ganesha && rpcbind -w && \
        ganesha.nfsd -f /run/ganesha.conf -L /var/log/lab-ganesha.log -p /run/ganesha.pid";
    lab.check(node, &["sh", "-c", begin], SOON)?;
    let server = Server { lab, node, programs: &["ganesha.nfsd", "rpcbind"] };
    let ready = || lab.exec(node, &["rpcinfo", "-t", "localhost", "nfs", "3"], SOON).is_ok_and(|output| output.ok());
    ensure!(wait_until(PATIENCE, Duration::from_millis(200), ready), "ganesha.nfsd does not answer");
    Ok(server)
}

/// Serves two GlusterFS volumes of one brick each, `vms` and `other`, whose files lie below `/srv/vms/bricks`.
pub fn gluster<'a>(lab: &'a Lab, node: &'a str, address: &str) -> Result<Server<'a>> {
    lab.check(node, &["sh", "-c", "rm -rf /var/lib/glusterd/vols; mkdir -p /srv/vms/bricks /run/gluster && glusterd"], SOON)?;
    let server = Server { lab, node, programs: &["glusterd", "glusterfsd"] };
    for volume in ["vms", "other"] {
        let brick = format!("{address}:/srv/vms/bricks/{volume}");
        let mut last = None;
        let made = wait_until(PATIENCE, Duration::from_millis(500), || {
            last = Some(lab.exec(node, &["gluster", "--mode=script", "volume", "create", volume, &brick, "force"], PATIENCE));
            matches!(&last, Some(Ok(output)) if output.ok())
        });
        ensure!(made, "glusterd does not make a volume: {last:?}");
        lab.check(node, &["gluster", "--mode=script", "volume", "start", volume], PATIENCE)?;
    }
    Ok(server)
}

/// The pool of [`ceph`].
pub const POOL: &str = "vms";

/// A small Ceph, one monitor and one store whose objects are in memory, with an image made from the guest's. Nobody has to say who he is.
pub fn ceph<'a>(lab: &'a Lab, node: &'a str, guest: &str, address: &str) -> Result<Server<'a>> {
    let id = "6b766d68-0000-4000-8000-000000000000";
    // The locks of a node that was lost stay for 30 s otherwise. Without the last lines a monitor ends where the machine's disk is nearly full.
    let configuration = format!(
        "[global]\nfsid = {id}\nmon host = {address}\nmon initial members = a\n\
        auth cluster required = none\nauth service required = none\nauth client required = none\n\
        osd pool default size = 1\nosd pool default min size = 1\nmon allow pool size one = true\nosd crush chooseleaf type = 0\n\
        osd objectstore = memstore\nmemstore device bytes = 268435456\nms bind ipv6 = false\n\
        osd client watch timeout = 5\nmon data avail warn = 0\nmon data avail crit = 0\n"
    );
    lab.check(node, &["mkdir", "-p", "/etc/ceph"], SOON)?;
    replace(&lab.path_in(node, "/etc/ceph/ceph.conf")?, &configuration)?;
    let server = Server { lab, node, programs: &["ceph-osd", "ceph-mon"] };
    let begin = format!(
        "cd /var/lib/ceph && rm -rf mon/ceph-a osd/ceph-0 && mkdir -p /run/ceph mon/ceph-a osd/ceph-0 && exec >/var/log/lab-ceph.log 2>&1 &&
        ceph-mon --mkfs -i a --fsid {id} && ceph-mon -i a --public-addr {address} && ceph osd new {id} &&
        ceph-osd -i 0 --mkfs --osd-uuid {id} && ceph-osd -i 0 && ceph osd pool create {POOL} 8 &&
        rbd import --no-progress --dest-pool {POOL} /srv/vms/{guest}.img {guest}"
    );
    lab.check(node, &["sh", "-c", &begin], PATIENCE)?;
    Ok(server)
}

/// A definition of the lab's whose disk is a server's. With NFS libvirt takes no port.
pub fn on_network(definition: &str, guest: &str, protocol: &str, name: &str, host: &str, port: Option<u16>) -> String {
    let image = format!("<source file='/srv/vms/{guest}.img'/>");
    let port = port.map(|port| format!(" port='{port}'")).unwrap_or_default();
    let source = format!("<source protocol='{protocol}' name='{name}'><host name='{host}'{port}/></source>");
    definition.replace("<disk type='file'", "<disk type='network'").replace(&image, &source)
}
