//! libvirt through TLS with certificates.

use crate::ssh::shell;
use crate::stage::{FROM, Guest, Says, Way, bare};
use anyhow::Result;
use lab::Lab;
use lab::tls::{AUTHORITIES, Pki};

/// The host; the others of the pool are not asked here.
const HOST: &str = "node1";
const URI: (&str, &str) = ("uri", "qemu+tls://node1/system");

/// With a certificate it is let in; without one, or with one of another authority, it says so.
pub fn by_certificate(lab: &Lab) -> Result<()> {
    let pki = Pki::new(lab)?;
    pki.for_libvirt(HOST)?;
    let _listens = lab.reconfigure(HOST, &[("listen_tls", "1")])?;
    certified(lab, &pki)
}

fn certified(lab: &Lab, pki: &Pki) -> Result<()> {
    let guest = Guest::new(lab, "sealed")?;
    guest.run(HOST)?;
    let call = |action| bare(lab, Way::Lines, &[("action", action), ("plug", "sealed"), URI]);
    call("off")?.fails(&["node1", "certificate"])?;
    pki.for_libvirt(FROM)?;
    let other =
        format!("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout /dev/null -out {AUTHORITIES}/cacert.pem");
    shell(lab, FROM, &other)?;
    call("off")?.fails(&["node1", "certificate"])?;
    guest.lives(HOST)?;
    pki.for_libvirt(FROM)?;
    call("monitor")?.says(0, "")?;
    call("off")?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}
