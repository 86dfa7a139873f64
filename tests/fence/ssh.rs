//! libvirt through ssh between nodes, with keys: what works, and what is said when it does not.

use crate::stage::{FROM, Guest, SOON, Says, Way, bare};
use anyhow::{Context, Result, ensure};
use lab::promised;
use lab::{Lab, Output};
use std::time::Duration;

/// The private key of the node from which all is asked.
pub const KEY: &str = "/root/.ssh/id_fence";

/// The hosts, as `ip` has them.
const HOSTS: &str = "node1,node2";

/// Lines for a shell in a node.
pub fn shell(lab: &Lab, node: &str, script: &str) -> Result<String> {
    lab.check(node, &["sh", "-ec", script], SOON).with_context(|| script.to_owned())
}

/// Has sshd run in the nodes of [`HOSTS`], reachable with [`KEY`]. What stands before the key in the hosts' list of keys is `limits`.
pub fn serve(lab: &Lab, limits: &str) -> Result<()> {
    let hosts: Vec<&str> = HOSTS.split(',').collect();
    lab.serve_ssh(FROM, KEY, &hosts, limits)?;
    lab.know_hosts(FROM, &hosts)
}

/// The agent with hosts and key as a device of `fence_virsh` has them.
fn call(lab: &Lab, action: &str, more: &[(&str, &str)]) -> Result<Output> {
    let base = [("action", action), ("ip", HOSTS), ("username", "root"), ("identity_file", KEY)];
    bare(lab, Way::Lines, &[&base[..], more].concat())
}

/// All actions with a key; it is the hosts' libvirt that answers, and the guest is really gone.
pub fn by_key(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    let guest = Guest::new(lab, "keyed")?;
    guest.run("node2")?;
    let plug = ("plug", "keyed");
    call(lab, "monitor", &[])?.says(0, "")?;
    call(lab, "status", &[plug])?.says(0, "Status: ON\n")?;
    call(lab, "reboot", &[plug])?.says(0, "Success: Rebooted\n")?;
    guest.lives("node2")?;
    call(lab, "off", &[plug])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}

/// A key that is good for libvirt and nothing else: whatever it is asked to run, the host runs libvirt's helper.
pub fn by_a_key_that_allows_nothing_else(lab: &Lab) -> Result<()> {
    serve(lab, "restrict,command=\"virt-ssh-helper qemu:///system\"")?;
    let guest = Guest::new(lab, "narrow")?;
    guest.run("node1")?;
    call(lab, "off", &[("plug", "narrow")])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()?;
    let login = lab.exec(FROM, &["ssh", "-n", "-o", "BatchMode=yes", "-i", KEY, "root@node1", "echo got in"], SOON)?;
    ensure!(!login.stdout.contains("got in"), "the key gives a shell: {login:?}");
    Ok(())
}

/// Each way in which ssh does not let it in is a failure with the host and ssh's own words, and nothing waits for a person.
pub fn not_let_in(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    let guest = Guest::new(lab, "locked")?;
    guest.run("node1")?;
    let off = |words: &[&str], more: &[(&str, &str)]| -> Result<()> {
        let output = call(lab, "off", &[&[("plug", "locked"), ("missing_as_off", "1")][..], more].concat())?;
        promised!(output.time < Duration::from_secs(60), "not in time: {output:?}");
        output.fails(words)?;
        guest.lives("node1")
    };
    shell(lab, FROM, "mv /root/.ssh/known_hosts /root/.ssh/known")?;
    off(&["node1", "Host key verification failed"], &[])?;
    shell(lab, FROM, "sed 's/ AAAA/ BBBB/' /root/.ssh/known >/root/.ssh/known_hosts")?;
    off(&["node1", "Host key verification failed"], &[])?;
    shell(
        lab,
        FROM,
        "mv /root/.ssh/known /root/.ssh/known_hosts; rm -f /root/.ssh/other*; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/other",
    )?;
    off(&["node1", "Permission denied"], &[("identity_file", "/root/.ssh/other")])?;
    off(&["identity_file", "does not exist"], &[("identity_file", "/root/.ssh/none")])?;
    off(&["node1", "ssh"], &[("ipport", "9")])?;
    off(&["node1"], &[("ssh_path", "/no/such/ssh")])
}

/// libvirt's own ssh, which starts no program: the same key, and the same care for the host's.
pub fn by_libssh(lab: &Lab) -> Result<()> {
    serve(lab, "")?;
    let guest = Guest::new(lab, "inner")?;
    guest.run("node1")?;
    let uri = format!("qemu+libssh://root@node1/system?keyfile={KEY}&sshauth=privkey&known_hosts=/root/.ssh/known_hosts");
    let call = |action| bare(lab, Way::Lines, &[("action", action), ("plug", "inner"), ("uri", &uri)]);
    shell(lab, FROM, "cp /root/.ssh/known_hosts /root/.ssh/known; : >/root/.ssh/known_hosts")?;
    call("off")?.fails(&["node1", "host key"])?;
    shell(lab, FROM, "mv /root/.ssh/known /root/.ssh/known_hosts")?;
    guest.lives("node1")?;
    call("monitor")?.says(0, "")?;
    call("off")?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}
