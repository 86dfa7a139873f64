//! Certificates for libvirt's own connections and for QEMU's memory. That a daemon looks for them is a line of its configuration:
//! [`Lab::reconfigure`].

use crate::cluster::Lab;
use crate::layout::{Network, node_name};
use crate::process::run_command;
use crate::stage::SOON;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Makes them; wants openssl.
const MAKE: &str = include_str!("../tls/pki.sh");

/// Where a node has the certificates of its authorities, of libvirt's connections, and of QEMU's memory.
pub const AUTHORITIES: &str = "/etc/pki/CA";
/// See [`AUTHORITIES`].
pub const LIBVIRT: &str = "/etc/pki/libvirt";
/// See [`AUTHORITIES`].
pub const QEMU: &str = "/etc/pki/qemu";

/// Which certificate a node gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// One that is good for every node, by name and by address.
    Good,
    /// Like [`Self::Good`], but it has expired a day ago.
    Expired,
    /// One that is good for the first node alone, and by its name.
    Other,
}

impl Certificate {
    fn file(self) -> &'static str {
        match self {
            Self::Good => "node.pem",
            Self::Expired => "old.pem",
            Self::Other => "other.pem",
        }
    }
}

/// An authority of a lab, and its certificates. What the nodes have of it is taken away when this is dropped.
#[derive(Debug)]
pub struct Pki<'a> {
    lab: &'a Lab,
    folder: TempDir,
}

impl<'a> Pki<'a> {
    /// A new authority; no node knows it.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let names = (1..=lab.nodes()).map(|node| format!("DNS:{},IP:{}", node_name(node), Network::Cluster.address(node)));
        let mut command = Command::new("sh");
        command.args(["-ec", MAKE, "sh", &names.collect::<Vec<_>>().join(","), &format!("DNS:{}", node_name(1))]);
        command.current_dir(folder.path());
        run_command(command, SOON)?.success("certificates for the lab")?;
        Ok(Self { lab, folder })
    }

    /// Puts the good certificate where a node's libvirt looks for that of a server and that of a client.
    pub fn for_libvirt(&self, node: &str) -> Result<()> {
        self.put(node, "ca.pem", &format!("{AUTHORITIES}/cacert.pem"))?;
        ["server", "client"].iter().try_for_each(|role| {
            self.put(node, Certificate::Good.file(), &format!("{LIBVIRT}/{role}cert.pem"))?;
            self.put(node, "node.key", &format!("{LIBVIRT}/private/{role}key.pem"))
        })
    }

    /// Puts a certificate where a node's QEMU looks for that of a server and that of a client, when memory flows.
    pub fn for_qemu(&self, node: &str, which: Certificate) -> Result<()> {
        self.put(node, "ca.pem", &format!("{QEMU}/ca-cert.pem"))?;
        ["server", "client"].iter().try_for_each(|role| {
            self.put(node, which.file(), &format!("{QEMU}/{role}-cert.pem"))?;
            self.put(node, "node.key", &format!("{QEMU}/{role}-key.pem"))
        })
    }

    fn put(&self, node: &str, file: &str, place: &str) -> Result<()> {
        let target = self.lab.path_in(node, place)?;
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
        fs::copy(self.folder.path().join(file), &target).map(drop).with_context(|| format!("failed to put {file} to {place} of {node}"))
    }
}

impl Drop for Pki<'_> {
    fn drop(&mut self) {
        for node in self.lab.node_names() {
            for place in [AUTHORITIES, LIBVIRT, QEMU] {
                // A node without power, or one that has none.
                let _ = self.lab.path_in(&node, place).map(fs::remove_dir_all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::check;

    #[test]
    fn each_certificate_is_what_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", MAKE, "sh", "DNS:node1,IP:10.77.0.1,DNS:node2", "DNS:node1"]).current_dir(folder.path());
        run_command(command, SOON).unwrap().success("certificates").unwrap();
        let is = |file: &str, question: &[&str]| {
            let file = folder.path().join(file).to_string_lossy().into_owned();
            let words = [&["openssl", "x509", "-noout", "-in", &file], question].concat();
            check(&words, SOON).unwrap_or_default()
        };
        for (file, host, good) in
            [("node.pem", "node2", true), ("old.pem", "node2", true), ("other.pem", "node2", false), ("other.pem", "node1", true)]
        {
            assert_eq!(is(file, &["-checkhost", host]).contains("does match"), good, "{file} {host}");
        }
        assert!(is("node.pem", &["-checkip", "10.77.0.1"]).contains("does match"));
        for (file, good) in [("node.pem", true), ("old.pem", false), ("other.pem", true)] {
            assert_eq!(is(file, &["-checkend", "0"]).contains("will not expire"), good, "{file}");
        }
    }
}
