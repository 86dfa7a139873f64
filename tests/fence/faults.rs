//! Hosts that cannot be asked: never "off", and an answer in time with the host's name.

use crate::stage::{FROM, Guest, POOL, SOON, Says, Way, bare, fence};
use anyhow::{Result, anyhow, ensure};
use lab::layout::Network;
use lab::promised;
use lab::{Lab, Output};
use std::thread;
use std::time::Duration;

/// Pacemaker's default for a fence action.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Not the default of 5 s, to save time.
const SHORT: (&str, &str) = ("login_timeout", "2");

fn in_time(output: Output) -> Result<Output> {
    promised!(output.time < TIMEOUT, "not in time: {output:?}");
    Ok(output)
}

/// Everything that is asked while one host is out of reach.
fn all_actions(lab: &Lab, host: &str) -> Result<()> {
    let guest = Guest::new(lab, "gone")?;
    for action in ["status", "off", "on", "reboot"] {
        in_time(guest.fence(action, &[("missing_as_off", "1"), SHORT])?)?.fails(&["gone", host])?;
    }
    for action in ["monitor", "list", "list-status"] {
        in_time(fence(lab, Way::Lines, &[("action", action), SHORT])?)?.fails(&[host])?;
    }
    Ok(())
}

/// The guest could be on the host that is cut off.
pub fn host_cut_off(lab: &Lab) -> Result<()> {
    lab.cut("node2", Network::Cluster)?;
    all_actions(lab, "node2")
}

/// Its libvirt is there and does not answer.
pub fn host_frozen(lab: &Lab) -> Result<()> {
    lab.freeze("node2", "libvirtd")?;
    all_actions(lab, "node2")
}

/// The guest is ended where it is found, but that is no success while it could run on another host as well.
pub fn host_cut_off_after_a_kill(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "killed")?;
    guest.run("node1")?;
    lab.cut("node2", Network::Cluster)?;
    guest.fence("status", &[])?.says(0, "Status: ON\n")?;
    in_time(guest.fence("off", &[])?)?.fails(&["killed", "node2"])?;
    guest.is_off()?;
    lab.heal("node2", Network::Cluster)?;
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n").map(drop)
}

/// Under Pacemaker the options' limits do not count, but there is an answer before Pacemaker would end the agent.
pub fn host_cut_off_under_pacemaker(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "watched")?;
    guest.run("node1")?;
    lab.cut("node2", Network::Cluster)?;
    let call = ["env", "PCMK_service=pacemaker-fenced", "fence_kvmha", "-U", POOL, "-n", "watched", "-o"];
    for action in ["off", "status"] {
        in_time(lab.exec(FROM, &[&call[..], &[action]].concat(), TIMEOUT * 2)?)?.fails(&["watched", "node2"])?;
    }
    guest.is_off()
}

/// fence_virsh's monitor is content with an ssh login; this one is not.
pub fn daemon_gone(lab: &Lab) -> Result<()> {
    fence(lab, Way::Lines, &[("action", "monitor")])?.says(0, "")?;
    lab.kill("node1", "libvirtd")?;
    fence(lab, Way::Lines, &[("action", "monitor")])?.fails(&["node1"]).map(drop)
}

/// A libvirt that is restarted meanwhile is waited for, where the guest is and where it is not.
pub fn daemon_restarts(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "patient")?;
    for restarted in ["node2", "node1"] {
        guest.run("node1")?;
        lab.kill(restarted, "libvirtd")?;
        let output = thread::scope(|scope| -> Result<_> {
            let starting = scope.spawn(|| {
                thread::sleep(Duration::from_secs(3));
                lab.start(restarted, "libvirtd")
            });
            let output = guest.fence("off", &[]);
            starting.join().map_err(|_| anyhow!("the daemon's thread panicked"))??;
            output
        })?;
        output.says(0, "Success: Powered OFF\n")?;
        guest.is_off()?;
    }
    Ok(())
}

/// The socket for readers is there, and nobody can be ended through it: the monitor says so, not the first `off`.
pub fn readers_only(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "read")?;
    guest.run(FROM)?;
    let socket = |name| format!("qemu+unix:///system?socket=/run/libvirt/{name}");
    let call = |action, name| bare(lab, Way::Lines, &[("action", action), ("plug", "read"), ("uri", &socket(name))]);
    call("monitor", "libvirt-sock")?.says(0, "")?;
    call("status", "libvirt-sock-ro")?.says(0, "Status: ON\n")?;
    call("monitor", "libvirt-sock-ro")?.fails(&["right to end a guest", "read only access"])?;
    call("off", "libvirt-sock-ro")?.fails(&["read", "read only access"])?;
    guest.lives(FROM)
}

/// An `off` that did not see the end of its destroy stands against every later "off" on this node, until a person has looked.
pub fn end_not_seen(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "unseen")?;
    guest.run("node1")?;
    // The daemon stops while it is about to end the guest: what a destroy that never answers looks like from here.
    lab.freeze("node1", "guest:unseen")?;
    let output = guest.fence("off", &[("power_timeout", "3"), ("disable_timeout", "0")])?;
    ensure!(output.code == Some(1) && output.stderr.contains("not proven") && output.stderr.contains("/run/kvmha/fence/"), "{output:?}");
    // libvirt ends it after all, in its own time.
    let gone = lab::process::wait_until(SOON, Duration::from_millis(100), || guest.places().is_ok_and(|places| places.is_empty()));
    ensure!(gone, "libvirt did not end it");
    // Within 30 s of the beginning that was an ordinary end; later nothing proves it.
    guest.fence("off", &[])?.says(0, "Success: Already OFF\n")?;
    let end = "{\"host\":\"qemu+tcp://node1/system\",\"begun\":1000}";
    let script = &format!("cd /run/kvmha/fence && sed -i 's#\"ends\":\\[[^]]*\\]#\"ends\":[{end}]#' *.json && cat *.json");
    let note = lab.check(FROM, &["sh", "-c", script], SOON)?;
    ensure!(note.contains("\"begun\":1000"), "{note}");
    for action in ["off", "status", "on", "reboot"] {
        guest.fence(action, &[("missing_as_off", "1")])?.fails(&["unseen", "/run/kvmha/fence/"])?;
    }
    // Nor does the end of a later run, elsewhere or on the same host.
    for node in ["node2", "node1"] {
        guest.run(node)?;
        for _ in 0..2 {
            guest.fence("off", &[("missing_as_off", "1")])?.fails(&["unseen", "node1", "/run/kvmha/fence/"])?;
            guest.is_off()?;
        }
    }
    lab.check(FROM, &["rm", "-r", "/run/kvmha/fence"], SOON)?;
    guest.fence("off", &[("missing_as_off", "1")])?.says(0, "Success: Already OFF\n").map(drop)
}
