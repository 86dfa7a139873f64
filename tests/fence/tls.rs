//! libvirt through TLS with certificates.

use crate::ssh::shell;
use crate::stage::{FROM, Guest, Says, Way, bare};
use anyhow::Result;
use lab::Lab;

/// The host; the others of the pool are not asked here.
const HOST: &str = "node1";
const URI: (&str, &str) = ("uri", "qemu+tls://node1/system");

/// An authority, a certificate of the host and one of who asks: `ca`, `server`, `client`, each `.pem` and `.key`, in a folder that all nodes see.
pub const MAKE: &str = include_str!("pki.sh");
/// Where the host's libvirt looks for them, and where a client's does.
pub const HOST_HAS: &str = "mkdir -p /etc/pki/CA /etc/pki/libvirt/private; cd /srv/vms/pki; cp ca.pem /etc/pki/CA/cacert.pem
    cp server.pem /etc/pki/libvirt/servercert.pem; cp server.key /etc/pki/libvirt/private/serverkey.pem";

pub const CLIENT_HAS: &str = "mkdir -p /etc/pki/CA /etc/pki/libvirt/private; cd /srv/vms/pki; cp ca.pem /etc/pki/CA/cacert.pem
    cp client.pem /etc/pki/libvirt/clientcert.pem; cp client.key /etc/pki/libvirt/private/clientkey.pem";
/// Takes it away again.
pub const NOBODY_HAS: &str = "rm -rf /etc/pki/CA /etc/pki/libvirt /srv/vms/pki";

/// Has the host's libvirt start anew with another line in its configuration.
pub fn configure(lab: &Lab, name: &str, value: &str) -> Result<()> {
    shell(
        lab,
        HOST,
        &format!("cp /etc/libvirt/libvirtd.conf /root/libvirtd.conf; sed -i 's/^{name} =.*/{name} = {value}/' /etc/libvirt/libvirtd.conf"),
    )?;
    restart(lab)
}

fn restart(lab: &Lab) -> Result<()> {
    lab.kill(HOST, "libvirtd")?;
    lab.start(HOST, "libvirtd")?;
    lab.wait_libvirt(HOST)
}

/// Takes that back.
pub fn restore(lab: &Lab) -> Result<()> {
    shell(lab, HOST, "mv /root/libvirtd.conf /etc/libvirt/libvirtd.conf")?;
    restart(lab)
}

/// With a certificate it is let in; without one, or with one of another authority, it says so.
pub fn by_certificate(lab: &Lab) -> Result<()> {
    shell(lab, HOST, MAKE)?;
    shell(lab, HOST, HOST_HAS)?;
    configure(lab, "listen_tls", "1")?;
    let outcome = certified(lab);
    restore(lab)?;
    shell(lab, FROM, NOBODY_HAS)?;
    outcome
}

fn certified(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "sealed")?;
    guest.run(HOST)?;
    let call = |action| bare(lab, Way::Lines, &[("action", action), ("plug", "sealed"), URI]);
    call("off")?.fails(&["node1", "certificate"])?;
    shell(lab, FROM, CLIENT_HAS)?;
    shell(
        lab,
        FROM,
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout /dev/null -out /etc/pki/CA/cacert.pem 2>/dev/null",
    )?;
    call("off")?.fails(&["node1", "certificate"])?;
    guest.lives(HOST)?;
    shell(lab, FROM, "cp /srv/vms/pki/ca.pem /etc/pki/CA/cacert.pem")?;
    call("monitor")?.says(0, "")?;
    call("off")?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}
