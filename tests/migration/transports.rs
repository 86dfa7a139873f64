//! How the target's libvirt is reached and how the memory gets there: ssh, TLS, and what is said when either would not work. By tcp and by a
//! socket of its own (unix) all the other scenarios move.

use crate::relay;
use crate::stage::{Answer, HERE, Resource, SOON, THERE};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::tls::{Certificate, Pki, QEMU};
use std::time::Duration;

fn shell(lab: &Lab, node: &str, script: &str) -> Result<String> {
    lab.check(node, &["sh", "-ec", script], SOON).with_context(|| script.to_owned())
}

fn migrate_to(guest: &Resource) -> Result<Answer> {
    guest.call_with(HERE, "migrate_to", 60, &[("OCF_RESKEY_CRM_meta_migrate_target", THERE)])
}

fn arrived(guest: &Resource, boot: u64) -> Result<()> {
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.absent(HERE)?;
    guest.beats(boot)
}

/// By ssh with a key; a host key that nobody knows is said before the guest is touched.
pub fn ssh(lab: &Lab) -> Result<()> {
    lab.serve_ssh(HERE, "/root/.ssh/id_ed25519", &[THERE], "")?;
    let guest = Resource::new(lab, "shelled")?.with("migration_transport", "ssh").with("migrate_options", "--unsafe");
    let boot = guest.boot(HERE)?;
    migrate_to(&guest)?.says(1, &["still runs here", "qemu+ssh://node2/system", "host key"])?;
    guest.beats(boot)?;
    lab.know_hosts(HERE, &[THERE])?;
    migrate_to(&guest)?.is(0)?;
    let outcome = arrived(&guest, boot);
    shell(lab, THERE, "kill $(cat /run/sshd.pid); rm -r /root/.ssh")?;
    shell(lab, HERE, "rm -r /root/.ssh")?;
    outcome
}

/// The target's libvirt is restarted when the move is wanted: it is waited for.
pub fn refused_for_a_moment(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "patient")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    restarted(lab, &guest, &[THERE])
}

/// So it is, and the libvirt here, where a storage pool is to be started there first.
pub fn refused_before_its_pool(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "stored")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    guest.edit(|text| {
        let text = text.replace("<disk type='file'", "<disk type='volume'");
        text.replace("<source file='/srv/vms/stored.img'/>", "<source pool='vms' volume='stored.img'/>")
    })?;
    let pool = "<pool type='dir'><name>vms</name><target><path>/srv/vms</path></target></pool>";
    for node in [HERE, THERE] {
        shell(lab, node, &format!("echo \"{pool}\" >/run/pool.xml; virsh -q pool-define /run/pool.xml"))?;
    }
    restarted(lab, &guest.with("start_resources", "true"), &[HERE, THERE])?;
    guest.with("force_stop", "true").end(THERE, 60)?;
    for node in [HERE, THERE] {
        shell(lab, node, "virsh -q pool-destroy vms; virsh -q pool-undefine vms")?;
    }
    Ok(())
}

/// Moves it while the libvirt of these nodes is restarted.
fn restarted(lab: &Lab, guest: &Resource, nodes: &[&str]) -> Result<()> {
    let boot = guest.boot(HERE)?;
    nodes.iter().try_for_each(|node| lab.kill(node, "libvirtd"))?;
    let moved = std::thread::scope(|scope| {
        let comes = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            nodes.iter().try_for_each(|node| lab.start(node, "libvirtd"))
        });
        let moved = migrate_to(guest);
        comes.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        moved
    });
    moved?.is(0)?;
    arrived(guest, boot)
}

/// The connection and the memory by TLS. What is missing, has expired or is of another host is named before the guest is touched.
pub fn tls(lab: &Lab) -> Result<()> {
    let pki = Pki::new(lab)?;
    pki.for_libvirt(THERE)?;
    let _listens = lab.reconfigure(THERE, &[("listen_tls", "1")])?;
    by_tls(lab, &pki)
}

fn by_tls(lab: &Lab, pki: &Pki) -> Result<()> {
    let guest = Resource::new(lab, "sealed")?.with("migration_transport", "tls").with("migrate_options", "--unsafe --tls");
    let boot = guest.boot(HERE)?;
    let refused = |parts: &[&str]| -> Result<()> {
        migrate_to(&guest)?.says(1, &["still runs here"])?.says(1, parts)?;
        guest.absent(THERE)?;
        guest.beats(boot)
    };
    refused(&["qemu+tls://node2/system", "certificate"])?;
    pki.for_libvirt(HERE)?;
    refused(&["tls:", QEMU, "is not here"])?;
    pki.for_qemu(HERE, Certificate::Good)?;
    refused(&["tls:", QEMU, "is not there"])?;
    pki.for_qemu(THERE, Certificate::Expired)?;
    refused(&["tls:", "server-cert.pem there has expired 1 day ago"])?;
    // One of another host: QEMU says no to it, and so does the preflight where it knows what QEMU will ask for.
    pki.for_qemu(THERE, Certificate::Other)?;
    refused(&["TLS"])?;
    let named = guest.with("migrateuri", "tcp://%n");
    migrate_to(&named)?.says(1, &["still runs here", "server-cert.pem there is for node1, and the memory is sent to node2"])?;
    let set = ["migration_transport=tls", "migrateuri=tcp://%n", "migrate_options=--unsafe --tls --tls-destination node1"];
    let words = [["kvmha", "check", "/srv/vms/sealed.xml", "--to", THERE].as_slice(), &set.map(|value| ["--set", value]).concat()].concat();
    let checked = lab.check(HERE, &words, SOON)?;
    ensure!(checked.contains("the certificates are there on both hosts and valid"), "{checked}");
    pki.for_qemu(THERE, Certificate::Good)?;
    migrate_to(&named)?.is(0)?;
    arrived(&guest, boot)
}

/// A firewall at the target that takes the connection to libvirt and not the memory is named before the guest is touched.
pub fn filtered(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "walled")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    let boot = guest.boot(HERE)?;
    let known = guest.with("migrateuri", "tcp://%n:49160");
    let wall = |rule: &str| shell(lab, THERE, &format!("iptables {rule}")).map(drop);
    let ports = "INPUT -p tcp --dport 49152:49215 -j";
    wall(&format!("-A {ports} DROP"))?;
    let silent = migrate_to(&known);
    wall(&format!("-R {} REJECT --reject-with icmp-admin-prohibited", ports.replace("INPUT", "INPUT 1")))?;
    let words =
        ["kvmha", "check", "/srv/vms/walled.xml", "--to", THERE, "--set", "migration_transport=tcp", "--set", "migrate_options=--unsafe"];
    let warned = lab.exec(HERE, &words, SOON);
    let refused = migrate_to(&known);
    wall("-D INPUT 1")?;
    // A network that loses the first three SYNs is no firewall.
    wall(&format!("-A {} DROP", ports.replace(" -j", " --syn -j")))?;
    wall(&format!("-I {} ACCEPT", ports.replace(" -j", " --syn -m statistic --mode nth --every 4 --packet 3 -j")))?;
    let lossy = lab.exec(HERE, &[words.as_slice(), &["--set", "migrateuri=tcp://%n:49160"]].concat(), SOON);
    wall("-D INPUT 1")?;
    wall("-D INPUT 1")?;
    let lossy = lossy?;
    ensure!(lossy.stdout.contains("node2:49160 is reached"), "{lossy:?}");
    for answer in [silent?, refused?] {
        answer.says(1, &["still runs here", "ports: node2:49160"])?;
    }
    // Of a port that libvirt will choose nothing is sure.
    let warned = warned?;
    ensure!(warned.code == Some(0) && warned.stdout.contains("node2:49215, where the memory is to go"), "{warned:?}");
    guest.beats(boot)?;
    migrate_to(&known)?.is(0)?;
    arrived(&guest, boot)
}

/// A name server that says nothing is no firewall: nothing is sure then, and a move would not be refused.
pub fn slow_names(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "named")?.with("force_stop", "true");
    guest.boot(HERE)?;
    shell(lab, HERE, "cp /etc/resolv.conf /run/resolv.conf; echo nameserver 192.0.2.1 >/etc/resolv.conf")?;
    let set =
        ["migration_transport=tcp", "migrateuri=tcp://far.example.com:49160", "migrate_options=--unsafe"].map(|value| ["--set", value]);
    let words = [["kvmha", "check", "/srv/vms/named.xml", "--to", THERE].as_slice(), &set.concat()].concat();
    let said = lab.exec(HERE, &words, Duration::from_secs(60));
    shell(lab, HERE, "cat /run/resolv.conf >/etc/resolv.conf")?;
    let said = said?;
    ensure!(said.code == Some(0) && said.stdout.contains("far.example.com:49160") && said.stdout.contains("cannot be told"), "{said:?}");
    guest.end(HERE, 60).map(drop)
}

/// At the moment when an emulator at the target waits for the memory of one guest, another is asked whether it could move there, through the same
/// port: whoever connects first would be taken for the source.
pub fn another_is_awaited(lab: &Lab) -> Result<()> {
    let asked = Resource::new(lab, "asked")?.with("force_stop", "true");
    asked.boot(HERE)?;
    let coming = Resource::new(lab, "coming")?.with("remoteuri", relay::URI).with("migrate_options", "--unsafe").with("force_stop", "true");
    for uri in ["tcp://%n", "tcp://%n:49152"] {
        let coming = coming.with("migrateuri", uri);
        let boot = coming.boot(HERE)?;
        let uri = format!("migrateuri={uri}");
        let set = ["migration_transport=tcp", "migrate_options=--unsafe", &uri].map(|value| ["--set", value]).concat();
        let words = [["kvmha", "check", "/srv/vms/asked.xml", "--to", THERE].as_slice(), &set].concat();
        let ask = |_: &relay::Line| {
            let said = lab.check(HERE, &words, SOON)?;
            ensure!(said.contains("another guest is on its way there"), "{said}");
            Ok(())
        };
        relay::with(lab, [HERE, THERE], relay::Moment::Prepare, ask, |line| {
            migrate_to(&coming)?.is(0)?;
            ensure!(line.fired(), "it was not asked");
            Ok(())
        })?;
        arrived(&coming, boot)?;
        coming.end(THERE, 60)?;
    }
    asked.end(HERE, 60).map(drop)
}

/// What the agent remembers has no room any more from the middle of a move on: that it was under way cannot be overwritten, and the stop that
/// Pacemaker sends the source afterwards does not end the guest where it has come to.
pub fn no_room_for_its_end(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "noted")?.with("remoteuri", relay::URI).with("migrate_options", "--unsafe");
    shell(lab, HERE, "mkdir -p -m 700 /run/kvmha; mount -t tmpfs -o size=64k,mode=700 tmpfs /run/kvmha")?;
    let boot = guest.boot(HERE)?;
    let fill = |_: &relay::Line| {
        shell(lab, HERE, "! dd if=/dev/zero of=/run/kvmha/rest bs=4k 2>/run/full; grep 'No space left' /run/full").map(drop)
    };
    relay::with(lab, [HERE, THERE], relay::Moment::Prepare, fill, |line| {
        migrate_to(&guest)?.is(0)?;
        ensure!(line.fired(), "it was not filled");
        arrived(&guest, boot)
    })?;
    shell(lab, HERE, "umount /run/kvmha")?;
    guest.end(THERE, 60).map(drop)
}

/// The memory by a socket in a folder that both hosts see, as a proxy between them would have it.
pub fn unix(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "piped")?
        .with("migration_transport", "tcp")
        .with("migrateuri", "unix:///srv/vms/piped.sock")
        .with("migrate_options", "--unsafe");
    let boot = guest.boot(HERE)?;
    migrate_to(&guest.with("migrateuri", "unix:///srv/nowhere/piped.sock"))?.says(1, &["still runs here", "/srv/nowhere/piped.sock"])?;
    guest.beats(boot)?;
    migrate_to(&guest)?.is(0)?;
    arrived(&guest, boot)?;
    guest.end(THERE, 60).map(drop)
}
