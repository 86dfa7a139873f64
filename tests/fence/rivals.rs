//! The false answers of `fence_virsh` and `fence_virt`, run side by side with ours on the same hosts: what each says while the guest lives, or of a
//! host that cannot do anything. What the rival says is printed, and not judged: a newer one may be right.

use crate::ssh::{KEY, serve, shell};
use crate::stage::{FROM, Guest, PATIENCE, SOON, Says};
use anyhow::{Result, ensure};
use lab::layout::Network;
use lab::process::wait_until;
use lab::storage::{Fault, Reach};
use lab::{Lab, Output};
use std::fs;
use std::time::Duration;

/// The guest is `web1`; its cluster gives the agents one host (fence_virsh takes no more) or two.
fn ask(lab: &Lab, agent: &str, hosts: &str, action: &str, more: &[(&str, &str)]) -> Result<Output> {
    let base = [("action", action), ("ip", hosts), ("username", "root"), ("identity_file", KEY)];
    let text: String = base.iter().chain(more).map(|(name, value)| format!("{name}={value}\\n")).collect();
    lab.exec(FROM, &["sh", "-c", "printf %b \"$2\" | \"$1\"", "sh", agent, &text], Duration::from_secs(90))
}

/// A line of the table.
fn row(lab: &Lab, what: &str, action: &str, more: &[(&str, &str)], ours: impl FnOnce(Output) -> Result<()>) -> Result<()> {
    let theirs = ask(lab, "fence_virsh", "node1", action, more)?;
    let answer = ask(lab, "fence_kvmha", "node1,node2", action, more)?;
    let said = |output: &Output| {
        let text = if output.stdout.trim().is_empty() { output.stderr.trim() } else { output.stdout.trim() };
        format!("{} {}", output.code.unwrap_or(-1), text.lines().last().unwrap_or_default())
    };
    println!("  {what}: {action}: fence_virsh: {} | fence_kvmha: {}", said(&theirs), said(&answer));
    ours(answer)
}

const PLUG: (&str, &str) = ("plug", "web1");

/// The guest runs all the while, on node1 unless the row says otherwise.
pub fn false_answers(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    let guest = Guest::new(lab, "web1")?;
    println!();
    guest.run("node1")?;
    shell(lab, "node1", "mv /usr/bin/virsh /usr/bin/virsh.away")?;
    let monitor = row(lab, "no virsh on the host", "monitor", &[], |ours| ours.says(0, "").map(drop));
    let status = row(lab, "no virsh on the host", "status", &[PLUG], |ours| ours.says(0, "Status: ON\n").map(drop));
    shell(lab, "node1", "mv /usr/bin/virsh.away /usr/bin/virsh")?;
    monitor.and(status)?;
    shell(lab, "node1", "echo 'echo Maintenance on Sunday' >/root/.bashrc; cp /root/.bashrc /root/.profile")?;
    let status = row(lab, "a banner at login", "status", &[PLUG], |ours| ours.fails(&["node1"]).map(drop));
    shell(lab, "node1", "rm /root/.bashrc /root/.profile")?;
    status?;
    lab.kill("node1", "libvirtd")?;
    row(lab, "libvirt is down", "monitor", &[], |ours| ours.fails(&["node1"]).map(drop))?;
    row(lab, "libvirt is down", "off", &[PLUG], |ours| ours.fails(&["web1", "node1"]).map(drop))?;
    guest.lives("node1")?;
    lab.start("node1", "libvirtd")?;
    // A plug is a name, and not words for a shell.
    row(lab, "a plug with a command", "status", &[("plug", "web1; touch /tmp/was-run")], |ours| ours.fails(&["no host knows"]).map(drop))?;
    println!("    ran on the host: {}", shell(lab, "node1", "ls /tmp/was-run 2>/dev/null || echo nothing; rm -f /tmp/was-run")?.trim());
    // It is on another host than the one that fence_virsh knows.
    lab.check("node1", &["virsh", "-q", "migrate", "--live", "--p2p", "--unsafe", "web1", "qemu+tcp://node2/system"], SOON)?;
    row(lab, "it has moved", "status", &[PLUG, ("missing_as_off", "1")], |ours| ours.says(0, "Status: ON\n").map(drop))?;
    row(lab, "it has moved, missing_as_off=false", "status", &[PLUG, ("missing_as_off", "false")], |ours| {
        ours.says(0, "Status: ON\n").map(drop)
    })?;
    guest.lives("node2")?;
    row(lab, "nobody knows it, missing_as_off=false", "off", &[("plug", "typo"), ("missing_as_off", "false")], |ours| {
        ours.fails(&["no host knows"]).map(drop)
    })?;
    // It is defined and off where fence_virsh looks, and runs where it does not.
    guest.define("node1")?;
    row(lab, "it runs elsewhere than it is defined", "off", &[PLUG], |ours| ours.says(0, "Success: Powered OFF\n").map(drop))?;
    guest.is_off()?;
    lab.check("node1", &["virsh", "-q", "undefine", "web1"], SOON)?;
    // A transient guest does not come back.
    guest.run("node1")?;
    let theirs = ask(lab, "fence_virsh", "node1", "reboot", &[PLUG])?;
    let back = guest.places()?;
    println!("  a transient guest: reboot: fence_virsh: {} {}, then on {back:?}", theirs.code.unwrap_or(-1), theirs.stdout.trim());
    if back.is_empty() {
        guest.run("node1")?;
    }
    ask(lab, "fence_kvmha", "node1,node2", "reboot", &[PLUG])?.says(0, "Success: Rebooted\n")?;
    ensure!(guest.places()? == ["node1"], "the transient guest did not come back");
    Ok(())
}

/// What a guest needs to be held in the states that it passes otherwise: a device that reports its panic, sleep, and what is done then.
const HELD: [(&str, &str); 2] = [
    ("</devices>", "<panic model='isa'/></devices>"),
    ("<on_crash>destroy</on_crash>", "<on_crash>preserve</on_crash><pm><suspend-to-mem enabled='yes'/></pm>"),
];

fn redefine(lab: &Lab, changes: &[(&str, &str)]) -> Result<()> {
    let file = lab.guest_definition("web1");
    let text = changes.iter().fold(fs::read_to_string(&file)?, |text, (old, new)| text.replace(old, new));
    Ok(fs::write(file, text)?)
}

/// Has the guest write to one of its machine's ports, as its kernel would, and waits for the state that this leads to.
fn port(lab: &Lab, words: &str, state: &str) -> Result<()> {
    let write = format!("timeout 5 virsh -q qemu-monitor-command --hmp web1 'o {words}' || true");
    shell(lab, "node1", &write)?;
    let state_is = || shell(lab, "node1", "virsh domstate web1").is_ok_and(|text| text.trim() == state);
    ensure!(wait_until(SOON, Duration::from_millis(100), state_is), "it is not {state}");
    Ok(())
}

/// Crashed with its emulator left, asleep, and in a shutdown that does not end: an emulator lives, and that is on.
pub fn states_that_are_on(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    let guest = Guest::new(lab, "web1")?;
    redefine(lab, &HELD)?;
    println!();
    // The panic device's port; and ACPI's PM1 control register with S3 in it.
    for (words, state) in [("/1 0x505 1", "crashed"), ("/2 0x604 0x2400", "pmsuspended")] {
        guest.run("node1")?;
        port(lab, words, state)?;
        row(lab, state, "status", &[PLUG], |ours| ours.says(0, "Status: ON\n").map(drop))?;
        guest.lives("node1")?;
        row(lab, state, "off", &[PLUG], |ours| ours.says(0, "Success: Powered OFF\n").map(drop))?;
        guest.is_off()?;
    }
    // S5, with a disk that takes no write any more: the emulator ends when the disk lets it.
    redefine(lab, &[("/srv/vms/web1.img", "/srv/hang/web1.img")])?;
    guest.run("node1")?;
    lab.storage("node1", Fault::Hold(Reach::Everything))?;
    let outcome = (|| {
        port(lab, "/2 0x604 0x2000", "in shutdown")?;
        row(lab, "in shutdown", "status", &[PLUG], |ours| ours.says(0, "Status: ON\n").map(drop))?;
        row(lab, "in shutdown", "off", &[PLUG, ("power_timeout", "5")], |ours| {
            ensure!(ours.code == Some(1) && ours.stderr.contains("web1") && !ours.stdout.contains("Success"), "{ours:?}");
            Ok(())
        })?;
        guest.lives("node1")
    })();
    lab.storage("node1", Fault::None)?;
    outcome?;
    ensure!(wait_until(PATIENCE, Duration::from_millis(100), || guest.places().is_ok_and(|places| places.is_empty())), "it does not end");
    guest.is_off()
}

/// The daemon of fence_virt on node1, as it is on every host: it knows its own libvirt.
const VIRTD: &str = "head -c 64 /dev/urandom >/srv/vms/xvm.key
    printf 'fence_virtd { listener = \"tcp\"; backend = \"libvirt\"; module_path = \"%s\"; }
        listeners { tcp { key_file = \"/srv/vms/xvm.key\"; address = \"%s\"; } }
        backends { libvirt { uri = \"qemu:///system\"; } }' \
        \"$(dirname $(find /usr/lib /usr/lib64 -name virt.so -path '*fence-virt*' | head -n 1))\" $(getent hosts node1 | cut -d ' ' -f 1) >/run/fence_virt.conf
    fence_virtd -F -f /run/fence_virt.conf >/run/fence_virtd.log 2>&1 </dev/null & echo $! >/run/fence_virtd.pid; sleep 1; kill -0 $(cat /run/fence_virtd.pid)";

/// A guest that fence_virt's daemon does not know, or does not know any more, is OFF for it.
pub fn beside_fence_virt(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    shell(lab, "node1", VIRTD)?;
    let outcome = asked_of_virtd(lab);
    shell(lab, "node1", "kill $(cat /run/fence_virtd.pid); rm /run/fence_virt.conf /srv/vms/xvm.key")?;
    outcome
}

fn asked_of_virtd(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "web1")?;
    guest.run("node1")?;
    println!();
    let row = |what: &str, plug: &str, action: &str| -> Result<(Output, Output)> {
        // It takes no name.
        let address = Network::Cluster.address(1);
        let line = ["fence_virt", "-T", &address, "-k", "/srv/vms/xvm.key", "-t", "15", "-n", plug, "-o", action];
        let theirs = lab.exec(FROM, &line, PATIENCE)?;
        let ours = ask(lab, "fence_kvmha", "node1,node2", action, &[("plug", plug)])?;
        let said = |output: &Output| format!("{} {}", output.code.unwrap_or(-1), output.stdout.trim());
        println!("  {what}: {action}: fence_virt: {} | fence_kvmha: {}", said(&theirs), said(&ours));
        Ok((theirs, ours))
    };
    let (theirs, ours) = row("it runs", "web1", "status")?;
    ensure!(theirs.stdout.contains("Status: ON"), "the rival does not work here: {theirs:?}");
    ours.says(0, "Status: ON\n")?;
    row("nobody knows it", "typo", "status")?.1.fails(&["no host knows"])?;
    lab.check("node1", &["virsh", "-q", "migrate", "--live", "--p2p", "--unsafe", "web1", "qemu+tcp://node2/system"], SOON)?;
    row("it has moved", "web1", "status")?.1.says(0, "Status: ON\n")?;
    guest.lives("node2")?;
    // Left behind where it was, as an administrator might: off there, alive here.
    guest.define("node1")?;
    row("it runs elsewhere than it is defined", "web1", "off")?.1.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    lab.check("node1", &["virsh", "-q", "undefine", "web1"], SOON).map(drop)
}
