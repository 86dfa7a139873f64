//! What goes in and what comes out, whatever the guests do.

use crate::stage::{FROM, Guest, POOL, SOON, Says, Way, bare, fence, lines};
use anyhow::{Result, ensure};
use lab::Lab;
use std::fs;
use std::time::Duration;

const COMMITTED: &str = include_str!("../../metadata/fence_kvmha.xml");

/// The document is the committed one, for every way to ask for it, and fence-agents' schema takes it.
pub fn metadata(lab: &Lab) -> Result<()> {
    for action in ["metadata", "meta-data", "manpage", "METADATA"] {
        for way in [Way::Lines, Way::Long, Way::Short] {
            bare(lab, way, &[("action", action)])?.says(0, COMMITTED)?;
        }
    }
    // As Pacemaker asks: without a newline at the end it would be as good.
    lines(lab, "action=metadata")?.says(0, COMMITTED)?;
    // Of the package fence-agents, which tests/prepare installs.
    let schema = "/usr/share/cluster/relaxng/metadata.rng";
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("metadata.xml");
    fs::write(&path, COMMITTED)?;
    lab::process::check(&["xmllint", "--nonet", "--noout", "--relaxng", schema, path.to_string_lossy().as_ref()], SOON).map(drop)
}

/// Lines, long and short options have the same effect.
pub fn three_ways(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "ways")?;
    guest.define("node1")?;
    let plug = ("plug", "ways");
    for way in [Way::Lines, Way::Long, Way::Short] {
        let call = |action| fence(lab, way, &[("action", action), plug, ("unheard_of", "1")][..if way == Way::Lines { 3 } else { 2 }]);
        call("status")?.says(2, "Status: OFF\n")?;
        call("on")?.says(0, "Success: Powered ON\n")?;
        call("on")?.says(0, "Success: Already ON\n")?;
        call("status")?.says(0, "Status: ON\n")?;
        call("reboot")?.says(0, "Success: Rebooted\n")?;
        guest.lives("node1")?;
        call("off")?.says(0, "Success: Powered OFF\n")?;
        call("OFF")?.says(0, "Success: Already OFF\n")?;
        call("monitor")?.says(0, "")?;
        call("validate-all")?.says(0, "")?;
        call("list")?.says(0, &format!("ways,{}\n", guest.virsh("node1", &["domuuid"])?.trim()))?;
    }
    // Older names, as they stand in a device of fence_virsh.
    let old =
        [("action", "status"), ("port", "ways"), ("login", "root"), ("passwd", "Geheim"), ("secure", "1"), ("debug", "/tmp/fence.log")];
    let output = fence(lab, Way::Lines, &old)?.says(2, "Status: OFF\n")?;
    let log = lab.check(FROM, &["cat", "/tmp/fence.log", "/var/log/messages"], SOON)?;
    ensure!(!output.stderr.contains("Geheim") && !log.contains("Geheim"), "a password was told");
    guest.is_off()
}

/// Input that is damaged, or options that are wrong: a failure, and the guest lives.
pub fn nonsense_is_never_an_action(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "target")?;
    guest.run("node1")?;
    let off = format!("uri={POOL}\\nplug=target\\naction=off\\n");
    for text in [
        format!("{off}x=\\0000\\n"),
        format!("{off}x=\\0377\\n"),
        off.trim_end_matches("\\n").to_owned(),
        format!("{off}missing_as_off=maybe\\n"),
        format!("{off}power_timeout=soon\\n").replace("power_timeout", "delay"),
        format!("{off}action=of\\n"),
        format!("{off}uri=nonsense\\n"),
        format!("{off}port_as_ip=1\\n"),
        String::new(),
        "\\n".to_owned(),
        off.replace("plug=", "plague="),
    ] {
        lab_failure(&lines(lab, &text)?, &text)?;
    }
    let long = "head -c 1100000 /dev/zero | tr '\\0' a";
    let script = format!("( printf 'uri={POOL}\\nplug=target\\naction=off\\nx='; {long}; echo ) | fence_kvmha");
    lab_failure(&lab.exec(FROM, &["sh", "-c", &script], SOON)?, "1 MiB")?;
    guest.lives("node1")
}

fn lab_failure(output: &lab::Output, text: &str) -> Result<()> {
    ensure!(output.code == Some(1) && output.stdout.is_empty() && output.stderr.contains("fence_kvmha: "), "{text}: {output:?}");
    Ok(())
}

/// `delay` delays off, and nothing that only asks.
pub fn delay(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "late")?;
    guest.run("node2")?;
    let delay = [("delay", "3")];
    let wait = Duration::from_secs(3);
    ensure!(guest.fence("status", &delay)?.says(0, "Status: ON\n")?.time < wait, "status was delayed");
    ensure!(guest.fence("monitor", &delay)?.says(0, "")?.time < wait, "monitor was delayed");
    ensure!(guest.fence("off", &delay)?.says(0, "Success: Powered OFF\n")?.time >= wait, "off was not delayed");
    guest.is_off()
}

/// All guests of all hosts, also those with a blank in their name; and what is wrong when a host is missing.
pub fn list_of_the_pool(lab: &Lab) -> Result<()> {
    let (one, two) = (Guest::new(lab, "one")?, Guest::new(lab, "two")?);
    one.run("node1")?;
    two.define("node2")?;
    let text = fs::read_to_string(lab.guest_definition("two"))?;
    let uuid = "11111111-2222-4333-8444-555555555555";
    let id = two.virsh("node2", &["domuuid"])?.trim().to_owned();
    let file = lab.guest_definition("blank");
    fs::write(&file, text.replace("<name>two<", "<name>a b<").replace(&id, uuid))?;
    lab.check("node3", &["virsh", "-q", "define", "/srv/vms/blank.xml"], SOON)?;
    let first = one.virsh("node1", &["domuuid"])?.trim().to_owned();
    fence(lab, Way::Long, &[("action", "list")])?.says(0, &format!("a b,{uuid}\none,{first}\ntwo,{id}\n"))?;
    let status = format!("a b;{uuid};OFF\none;{first};ON\ntwo;{id};OFF\n");
    fence(lab, Way::Short, &[("action", "list-status"), ("separator", ";")])?.says(0, &status)?;
    // What status does not call off is not called so here either: an end that was not seen, and a move that may have led out of sight.
    for open in ["\"ends\":[{\"host\":\"qemu+tcp://node2/system\",\"begun\":1000}]", "\"left\":\"qemu+tcp://node2/system\",\"ends\":[]"] {
        let note = format!("{{\"name\":\"two\",\"uuid\":\"{id}\",\"host\":\"qemu+tcp://node2/system\",\"xml\":null,{open}}}");
        let script = "mkdir -p /run/kvmha/fence && printf %s \"$1\" >/run/kvmha/fence/note.json";
        lab.check(FROM, &["sh", "-c", script, "sh", &note], SOON)?;
        two.fence("status", &[])?.fails(&["two", "node2"])?;
        let output = fence(lab, Way::Long, &[("action", "list-status")])?;
        output.says(0, &format!("a b,{uuid},OFF\none,{first},ON\ntwo,{id},UNKNOWN\n"))?;
    }
    lab.check(FROM, &["rm", "-r", "/run/kvmha/fence"], SOON)?;
    lab.kill("node2", "libvirtd")?;
    let output = fence(lab, Way::Lines, &[("action", "list-status")])?;
    output.says(1, &format!("a b,{uuid},UNKNOWN\none,{first},ON\n"))?.fails(&["node2"])?;
    Ok(())
}

/// What Pacemaker passes when the device has `pcmk_host_argument=none`: the node's name.
pub fn node_name_without_plug(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "named")?;
    guest.run("node1")?;
    fence(lab, Way::Lines, &[("action", "off")])?.fails(&["plug"])?;
    fence(lab, Way::Lines, &[("action", "off"), ("nodename", "named")])?.says(0, "Success: Powered OFF\n")?;
    guest.is_off()
}
