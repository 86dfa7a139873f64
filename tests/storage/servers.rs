//! Real servers of disks in a node of the lab, and definitions with disks that QEMU gets from them by itself.

use anyhow::{Result, ensure};
use lab::Lab;
use lab::process::wait_until;
use lab::stage::{PATIENCE, SOON};
use std::time::Duration;

/// The iSCSI target.
pub const TARGET: &str = "iqn.2026-01.lab:vms";

/// A server's program in a node, which ends when this is dropped.
pub struct Server<'a> {
    lab: &'a Lab,
    node: &'a str,
    program: &'static str,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        for process in self.lab.processes(self.node, self.program).unwrap_or_default() {
            let _ = process.end(SOON);
        }
    }
}

impl Server<'_> {
    /// It answers nothing, and its connections stay.
    pub fn freeze(&self) -> Result<()> {
        self.lab.freeze(self.node, self.program)
    }

    /// It goes on.
    pub fn thaw(&self) -> Result<()> {
        self.lab.thaw(self.node, self.program)
    }
}

/// Serves an image that all nodes see, by NBD.
pub fn nbd<'a>(lab: &'a Lab, node: &'a str, image: &str, export: &str, address: &str) -> Result<Server<'a>> {
    let words = ["qemu-nbd", "--fork", "-f", "raw", "-x", export, "-b", address, "-p", "10809", "-t", "-e", "8", "--cache=none", image];
    lab.check(node, &words, SOON)?;
    Ok(Server { lab, node, program: "qemu-nbd" })
}

/// Serves an image that all nodes see, by iSCSI: LUN 1 of [`TARGET`].
pub fn iscsi<'a>(lab: &'a Lab, node: &'a str, image: &str) -> Result<Server<'a>> {
    lab.check(node, &["tgtd"], SOON)?;
    let server = Server { lab, node, program: "tgtd" };
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

/// A definition of the lab's whose disk is a server's.
pub fn on_network(definition: &str, guest: &str, protocol: &str, name: &str, host: &str, port: u16) -> String {
    let image = format!("<source file='/srv/vms/{guest}.img'/>");
    let source = format!("<source protocol='{protocol}' name='{name}'><host name='{host}' port='{port}'/></source>");
    definition.replace("<disk type='file'", "<disk type='network'").replace(&image, &source)
}
