//! The least rights: a user of its own, a key that is good for libvirt alone, and libvirt's access control by polkit.

use crate::ssh::{KEY, serve, shell};
use crate::stage::{FROM, Guest, Says, Way, bare};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::tls::Pki;

/// The host; its polkit and libvirt are the real ones.
const HOST: &str = "node1";
const RULES: &str = include_str!("../../packaging/polkit-fence_kvmha.rules");

const SET_UP: &str = "id fence >/dev/null 2>&1 || useradd --create-home --shell /bin/sh --password '*' fence
    mkdir -p -m 755 /home/fence/.ssh /run/dbus /etc/polkit-1/rules.d
    sed 's/^.*ssh-ed25519/restrict,command=\"virt-ssh-helper qemu:\\/\\/\\/system\" ssh-ed25519/' /root/.ssh/authorized_keys >/home/fence/.ssh/authorized_keys
    chown -R fence /home/fence
    cat /srv/vms/fence.rules >/etc/polkit-1/rules.d/50-fence_kvmha.rules
    [ -e /run/dbus/pid ] && kill -0 $(cat /run/dbus/pid) || dbus-daemon --system --fork
    setsid /usr/lib/polkit-1/polkitd --no-debug >/dev/null 2>&1 </dev/null & echo $! >/run/polkitd.pid";

/// The host's bus and polkit, until this is dropped. libvirtd ends when it loses the bus, and starts anew without it.
struct Polkit<'a>(&'a Lab);

impl<'a> Polkit<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let polkit = Self(lab);
        shell(lab, HOST, SET_UP)?;
        Ok(polkit)
    }
}

impl Drop for Polkit<'_> {
    fn drop(&mut self) {
        let _ = self.0.kill(HOST, "libvirtd");
        let _ = shell(self.0, HOST, "kill $(cat /run/polkitd.pid) $(cat /run/dbus/pid); rm -f /run/dbus/pid");
        let _ = self.0.start(HOST, "libvirtd");
    }
}

/// With the rules of the example it does its work on the guests they allow, and is refused, in words, on any other.
pub fn by_polkit(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    std::fs::write(lab.guest_definition("x").with_file_name("fence.rules"), RULES)?;
    let (ours, other) = (Guest::new(lab, "vm1")?, Guest::new(lab, "private")?);
    let pki = Pki::new(lab)?;
    pki.for_libvirt(HOST)?;
    pki.for_libvirt(FROM)?;
    let _polkit = Polkit::start(lab)?;
    let _asks = lab.reconfigure(HOST, &[("access_drivers", "[ \"polkit\" ]"), ("listen_tls", "1")])?;
    limited(lab, &ours, &other)?;
    from_the_network(lab)
}

fn limited(lab: &Lab, ours: &Guest<'_>, other: &Guest<'_>) -> Result<()> {
    ours.run(HOST)?;
    other.run(HOST)?;
    let call = |action, plug| {
        // Several questions to polkit stand before the first answer.
        let base = [("ip", HOST), ("username", "fence"), ("identity_file", KEY), ("login_timeout", "20"), ("shell_timeout", "20")];
        bare(lab, Way::Lines, &[&base[..], &[("action", action), ("plug", plug)]].concat())
    };
    call("monitor", "vm1")?.says(0, "")?;
    call("reboot", "vm1")?.says(0, "Success: Rebooted\n")?;
    ours.lives(HOST)?;
    call("off", "vm1")?.says(0, "Success: Powered OFF\n")?;
    ours.is_off()?;
    // Nor is one that was saved beyond its rights.
    ours.define(HOST)?;
    ours.virsh(HOST, &["start"])?;
    ours.booted(None)?;
    ours.virsh(HOST, &["managedsave"])?;
    call("off", "vm1")?.says(0, "Success: Already OFF\n")?;
    let info = ours.virsh(HOST, &["dominfo"])?;
    ensure!(info.lines().any(|line| line.starts_with("Managed save:") && line.ends_with(" no")), "its memory is kept: {info}");
    // It is not allowed to see this one, which is not the same as that there is none.
    call("off", "private")?.fails(&["private", "access denied"])?;
    call("status", "private")?.fails(&["private", "access denied"])?;
    other.lives(HOST)?;
    // Without the right to change anything the monitor says so.
    shell(
        lab,
        HOST,
        "sed -i 's/org.libvirt.api.connect.write/org.libvirt.api.connect.none/' /etc/polkit-1/rules.d/50-fence_kvmha.rules; sleep 1",
    )?;
    call("monitor", "vm1")?.fails(&["right to end a guest", "access denied"]).map(drop)
}

/// polkit knows a caller by its process on the host. One that comes by tls or tcp has none, and is refused, whoever it is.
fn from_the_network(lab: &Lab) -> Result<()> {
    for uri in ["qemu+tls://node1/system", "qemu+tcp://node1/system"] {
        let options = [("uri", uri), ("action", "status"), ("plug", "vm1"), ("login_timeout", "20"), ("shell_timeout", "20")];
        bare(lab, Way::Lines, &options)?.fails(&["node1", "access denied"])?;
    }
    Ok(())
}
