//! Guests as targets of Pacemaker's fencer.

use crate::stage::{FROM, Guest, PATIENCE, POOL, SOON, Says, wander};
use anyhow::{Context, Result, ensure};
use lab::layout::Network;
use lab::process::wait_until;
use lab::promised;
use lab::{Lab, Output};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const MANUAL: &str = include_str!("../../docs/fencing.md");

/// For the cluster to come to rest.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a line of words on the node from which all is asked.
fn ask(lab: &Lab, line: &str) -> Result<Output> {
    lab.exec(FROM, &line.split_whitespace().collect::<Vec<_>>(), LIMIT)
}

fn check(lab: &Lab, line: &str) -> Result<String> {
    ask(lab, line)?.success(line)
}

/// The lists and descriptions that an administrator looks at have the agent.
pub fn known_to_the_tools(lab: &Lab) -> Result<()> {
    let installed = check(lab, "stonith_admin --list-installed")?;
    ensure!(installed.lines().any(|line| line.trim() == "fence_kvmha"), "not installed: {installed}");
    let metadata = check(lab, "stonith_admin --metadata --agent fence_kvmha")?;
    ensure!(metadata.contains("<parameter name=\"fenced_hosts\""), "{metadata}");
    let text = check(lab, "pcs stonith describe fence_kvmha")?;
    // A name is followed by a colon up to pcs 0.11, and stands alone since.
    for word in ["fenced_hosts", "missing_as_off", "uri", "plug"] {
        ensure!(text.lines().any(|line| line.trim_start().starts_with(word)), "pcs does not show {word}:\n{text}");
    }
    let output = ask(lab, "crm ra info stonith:fence_kvmha")?;
    let text = format!("{}{}", output.stdout, output.stderr);
    for word in ["uri (string", "missing_as_off (boolean", "fenced_within (second, [600])"] {
        ensure!(text.contains(word), "crmsh does not show {word}:\n{text}");
    }
    Ok(())
}

/// The first command of the manual that begins with these words, as one line for a shell.
fn example(begin: &str) -> Result<String> {
    let (before, _) = MANUAL.split_once(&format!("\n{begin}")).with_context(|| format!("docs/fencing.md has no example: {begin}"))?;
    let mut line = String::new();
    for part in MANUAL[before.len() + 1..].lines() {
        match part.trim().strip_suffix('\\') {
            Some(part) => line.push_str(part),
            None => {
                line.push_str(part.trim());
                break;
            }
        }
    }
    Ok(line)
}

/// Makes the device of the manual, with this cluster's hosts and nodes put in, and waits until it is started.
fn device(lab: &Lab, more: &str) -> Result<()> {
    let mut line = example("pcs stonith create vmfence fence_kvmha ")?;
    ensure!(line.contains(" missing_as_off=1 pcmk_reboot_action=off"), "it is not for transient guests: {line}");
    for (theirs, ours) in
        [("qemu+tls://hosta/system,qemu+tls://hostb/system", POOL), ("node1:guest1;node2:guest2", "vmnode:web1;other:web2")]
    {
        ensure!(line.contains(theirs), "the manual's example has no {theirs}: {line}");
        line = line.replace(theirs, ours);
    }
    // The lab's guests are started by nobody else.
    let line = line.replace(" pcmk_reboot_action=off", "");
    let line = format!("{line} {more} op monitor interval=30s timeout=60s");
    let output = lab.exec(FROM, &["sh", "-c", &line], LIMIT)?;
    let said = format!("{}{}", output.stdout, output.stderr);
    output.success(&line)?;
    ensure!(!said.contains("Error") && !said.contains("invalid"), "{said}");
    started(lab)
}

fn started(lab: &Lab) -> Result<()> {
    lab.wait_membership(LIMIT, |seen| seen.runs_on("vmfence").is_some()).context("the device does not start")?;
    let failures = lab.membership()?.failures;
    ensure!(!failures.iter().any(|failure| failure.operation.starts_with("vmfence")), "{failures:?}");
    Ok(())
}

/// The fencer's history of a target, newest first.
fn history(lab: &Lab, target: &str) -> Result<String> {
    check(lab, &format!("stonith_admin --history={target} --verbose"))
}

/// `stonith_admin` has the fencer turn a guest off, on, and off and on.
pub fn fenced_by_pacemaker(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "web1")?;
    device(lab, "")?;
    let list = check(lab, "stonith_admin --list=vmnode")?;
    ensure!(list.contains("vmfence"), "the device is not for vmnode: {list}");
    let first = guest.run("node1")?;
    check(lab, "stonith_admin --reboot vmnode")?;
    let second = guest.booted(Some(first))?;
    guest.lives("node1")?;
    check(lab, "stonith_admin --fence vmnode")?;
    guest.is_off()?;
    check(lab, "stonith_admin --unfence vmnode")?;
    guest.booted(Some(second))?;
    guest.lives("node1")?;
    let history = history(lab, "vmnode")?;
    for action in ["reboot", "turning off", "unfencing"] {
        ensure!(history.contains(&format!("{action} of vmnode successful")), "{history}");
    }
    promised!(lab.membership()?.online() == 3, "a node was fenced");
    Ok(())
}

/// The same device, made with crmsh.
pub fn crmsh(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "web1")?;
    guest.run("node2")?;
    let line = format!(
        "crm configure primitive vmfence stonith:fence_kvmha params uri={POOL} missing_as_off=1 pcmk_host_map=vmnode:web1 \
         pcmk_host_check=static-list op monitor interval=30s timeout=60s"
    );
    let output = ask(lab, &line)?;
    ensure!(output.code == Some(0) && !output.stderr.contains("ERROR"), "{output:?}");
    started(lab)?;
    check(lab, "stonith_admin --fence vmnode")?;
    guest.is_off()
}

/// A device of fence_virsh in the cluster is printed as one of ours, and what is printed works with both tools.
pub fn converted(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "web1")?;
    for begin in ["pcs stonith create old-kvmha", "crm configure primitive old-kvmha"] {
        check(
            lab,
            "pcs stonith create old fence_virsh ip=node1 username=root password=Geheim pcmk_host_map=vmnode:web1;other:web2 --disabled",
        )?;
        let text = check(lab, &format!("kvmha fence convert old --uri {POOL}"))?;
        ensure!(!text.contains("Geheim"), "a password is told: {text}");
        let line = |begin: &str| text.lines().find(|line| line.starts_with(begin)).with_context(|| format!("no {begin}: {text}"));
        lab.check(FROM, &["sh", "-c", line(begin)?], LIMIT)?;
        lab.wait_membership(LIMIT, |seen| seen.runs_on("old-kvmha").is_some()).context("the device does not start")?;
        let last = line("# pcs stonith delete ")?.trim_start_matches("# ");
        lab.check(FROM, &["sh", "-c", last], LIMIT)?;
        let left = check(lab, "pcs stonith config")?;
        ensure!(!left.contains("fence_virsh"), "the old device is left: {left}");
        guest.run("node2")?;
        check(lab, "stonith_admin --fence vmnode")?;
        guest.is_off()?;
        check(lab, "pcs stonith delete old-kvmha")?;
    }
    Ok(())
}

/// `kvmha doctor` asks a device for the guest of each node that is online, from wherever it is called, and turns nothing off. Here a node has a guest
/// as its plug that is none of its own; the device is disabled, so that nobody fences by it.
pub fn plugs_that_the_doctor_asks(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "web1")?;
    let first = guest.run("node2")?;
    check(lab, &format!("pcs stonith create vmfence fence_kvmha uri={POOL} missing_as_off=1 pcmk_host_map=node1:web1 --disabled"))?;
    let found = |map: &str| -> Result<Vec<String>> {
        check(lab, &format!("crm_resource --resource vmfence --set-parameter pcmk_host_map --parameter-value {map}"))?;
        let output = ask(lab, "kvmha doctor --json")?;
        let answer: Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
        let all = answer["findings"].as_array().with_context(|| format!("{output:?}"))?;
        let ours = all.iter().filter(|finding| finding["check"].as_str().is_some_and(|check| check.contains("fence_kvmha")));
        Ok(ours.map(|finding| finding["text"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let right = found("node1:web1")?;
    ensure!(right.is_empty(), "{right:?}");
    // A slip in one letter, another guest's case, and a node that is not there.
    for (map, said) in
        [("node1:wub1", "its plug wub1 at vmfence is off, asked from node3"), ("node1:Web1", "its plug Web1 at vmfence is no guest's")]
    {
        let wrong = found(map)?;
        ensure!(wrong.len() == 1 && wrong[0].starts_with("node1 is online, and ") && wrong[0].contains(said), "{map}: {wrong:?}");
    }
    ensure!(found("elsewhere:wub1")?.is_empty(), "a node that is not in the cluster is asked for");
    guest.lives("node2")?;
    promised!(guest.beat() == Some(first), "it was started anew");
    guest.virsh("node2", &["destroy"])?;
    let off = found("node1:web1")?;
    ensure!(off.len() == 1 && off[0].contains("its plug web1 at vmfence is off"), "{off:?}");
    Ok(())
}

/// The fencer's "off" of a guest that moves to and fro.
pub fn fenced_while_it_wanders(lab: &Lab) -> Result<()> {
    device(lab, "")?;
    for phase in [300, 900, 1500] {
        let guest = Guest::new(lab, "web1")?;
        guest.run("node1")?;
        let enough = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let moving = scope.spawn(|| wander(lab, "web1", "node1", &enough));
            thread::sleep(Duration::from_millis(phase));
            let output = ask(lab, "stonith_admin --fence vmnode");
            let places = guest.places()?;
            enough.store(true, Ordering::Relaxed);
            let _ = moving.join();
            let output = output?;
            ensure!(output.code == Some(0), "{output:?}");
            promised!(places.is_empty(), "{output:?}, but it lives on {places:?}");
            guest.is_off()
        })?;
        lab.guests_clear()?;
    }
    Ok(())
}

/// An end that one node has begun and not seen stands against every "off" of the others, which Pacemaker asks next, until the note is removed.
pub fn end_not_seen_by_another_node(lab: &Lab) -> Result<()> {
    let guest = Guest::new(lab, "web1")?;
    guest.run("node1")?;
    lab.freeze("node1", "guest:web1")?;
    guest.fence("off", &[("power_timeout", "3"), ("disable_timeout", "0")])?.fails(&["not proven"])?;
    ensure!(
        wait_until(SOON, Duration::from_millis(100), || guest.places().is_ok_and(|places| places.is_empty())),
        "libvirt did not end it"
    );
    let words = ["env", "PCMK_service=pacemaker-fenced", "fence_kvmha", "-U", POOL, "-n", "web1", "--missing-as-off=1", "-o"];
    let call = |node: &str, action| lab.exec(node, &[&words[..], &[action]].concat(), LIMIT);
    for action in ["off", "status", "on"] {
        let said = call("node2", action)?.fails(&["web1", "node3", "/run/kvmha/fence/", "fence_kvmha -o tell"])?;
        promised!(!said.stdout.contains("OFF"), "{said:?}");
    }
    ensure!(!check(lab, "cibadmin --query")?.contains("kvmha-unseen-ends"), "it stands in the CIB");
    lab.check(FROM, &["rm", "-r", "/run/kvmha/fence"], SOON)?;
    call("node2", "off")?.fails(&["node3"])?;
    // The words of the message.
    lab.exec(FROM, &["fence_kvmha", "-o", "tell"], LIMIT)?.says(0, "Success: Told\n")?;
    call("node2", "off")?.says(0, "Success: Already OFF\n")?;
    call(FROM, "off")?.says(0, "Success: Already OFF\n")?;
    lab.check("node1", &["attrd_updater", "--name", "kvmha-unseen-ends", "--private", "--update", "node1 boot,web1 u h 1"], SOON)?;
    call("node2", "off")?.fails(&["node1"])?;
    lab.exec("node1", &["fence_kvmha", "-o", "tell"], LIMIT)?.says(0, "Success: Told\n")?;
    call("node2", "off")?.says(0, "Success: Already OFF\n").map(drop)
}

/// A host that has no power: a failure, unless the operator lets the cluster's record stand for its answer, and the record is good.
pub fn host_turned_off(lab: &Lab) -> Result<()> {
    const MAP: (&str, &str) = ("fenced_hosts", "node1:node1;node2:node2;node3:node3");
    const QUICK: (&str, &str) = ("login_timeout", "2");
    const MISSING: (&str, &str) = ("missing_as_off", "1");
    let guest = Guest::new(lab, "web1")?;
    check(lab, "crm_attribute --type crm_config --name stonith-action --update off")?;
    guest.run("node2")?;
    // Its libvirt was reached from here before, and this was written down.
    guest.fence("status", &[MAP])?.says(0, "Status: ON\n")?;
    // Nobody has fenced it yet: that it is silent is no proof.
    lab.fence_fault(lab::power::Fault::Refuse)?;
    lab.power_off("node2")?;
    // Soon, before Pacemaker gives up.
    let soon = [QUICK, MISSING, ("shell_timeout", "1"), ("power_timeout", "1")];
    guest.fence("off", &soon)?.fails(&["web1", "node2"])?;
    guest.fence("off", &[&soon[..], &[MAP]].concat())?.fails(&["web1", "node2"])?;
    lab.fence_fault(lab::power::Fault::None)?;
    let gone = || -> Result<bool> { Ok(history(lab, "node2")?.contains("turn") && !unclean(lab)?) };
    ensure!(wait_until(LIMIT, Duration::from_millis(500), || gone().unwrap_or(false)), "the cluster does not fence node2");
    // Without the operator's word a host out of reach is a failure still.
    guest.fence("off", &[QUICK, MISSING])?.fails(&["web1", "node2"])?;
    crate::stage::fence(lab, crate::stage::Way::Lines, &[("action", "monitor"), QUICK])?.fails(&["node2"])?;
    // With it the record counts, in every action.
    guest.fence("off", &[QUICK, MISSING, MAP])?.says(0, "Success: Already OFF\n")?;
    guest.fence("status", &[QUICK, MISSING, MAP])?.says(2, "Status: OFF\n")?;
    crate::stage::fence(lab, crate::stage::Way::Lines, &[("action", "monitor"), QUICK, MAP])?.says(0, "")?;
    // It says nothing of a guest that nobody knows, of another host, or when it is old.
    guest.fence("off", &[QUICK, MAP])?.fails(&["web1"])?;
    guest.fence("off", &[QUICK, MISSING, ("fenced_hosts", "node2:node1")])?.fails(&["node2"])?;
    guest.fence("off", &[QUICK, MISSING, ("fenced_hosts", "node2:nobody")])?.fails(&["node2", "no record"])?;
    thread::sleep(Duration::from_secs(2));
    guest.fence("off", &[QUICK, MISSING, MAP, ("fenced_within", "1")])?.fails(&["node2", "ago"])?;
    // Pacemaker may rely on it as well.
    device(lab, &format!("fenced_hosts='{}'", MAP.1))?;
    check(lab, "stonith_admin --fence vmnode")?;
    // It was seen up since: the record is out of date.
    let seen = "date +%s | tr -d '\\n' >/run/kvmha/fence/qemu_tcp___node2_system.seen";
    lab.check(FROM, &["sh", "-c", &format!("ls /run/kvmha/fence/*node2*.seen && {seen}")], SOON)?;
    guest.fence("off", &[QUICK, MISSING, MAP])?.fails(&["node2", "seen up"])?;
    lab.check(FROM, &["rm", "/run/kvmha/fence/qemu_tcp___node2_system.seen"], SOON)?;
    guest.fence("off", &[QUICK, MISSING, MAP])?.says(0, "Success: Already OFF\n")?;
    // Somebody refuses at its address: that is no silence, whatever the record says, and is remembered.
    let refused = refusing(lab, 2, || guest.fence("off", &[QUICK, MISSING, MAP]))?.fails(&["node2", "Connection refused"])?;
    ensure!(!refused.stderr.contains("seen up"), "the record was asked for one who refuses: {refused:?}");
    guest.fence("off", &[QUICK, MISSING, MAP])?.fails(&["node2", "seen up"])?;
    // Cut off after it came back: the old record does not count, with or without what was seen from here.
    lab.power_on("node2")?;
    lab.wait_membership(LIMIT, |seen| seen.online() == 3).context("node2 does not come back")?;
    lab.kill("node2", "libvirtd")?;
    guest.fence("off", &[QUICK, MISSING, MAP])?.fails(&["node2", "Connection refused"])?;
    lab.start("node2", "libvirtd")?;
    guest.fence("off", &[QUICK, MISSING])?.says(0, "Success: Already OFF\n").map(drop)
}

/// Does something while the switch has the address of a node without power, at which nobody listens.
fn refusing<T>(lab: &Lab, number: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (address, bridge) = (Network::Cluster.address(number), Network::Cluster.bridge());
    let change = |word| lab.switch().inside(&["ip", "addr", word, &format!("{address}/24"), "dev", bridge]);
    change("add")?;
    let outcome = work();
    change("del")?;
    for node in lab.node_names().iter().filter(|node| **node != format!("node{number}")) {
        lab.check(node, &["ip", "neigh", "flush", "to", &address], SOON)?;
    }
    outcome
}

/// Whether some node has still to be fenced.
fn unclean(lab: &Lab) -> Result<bool> {
    Ok(check(lab, "crm_mon --one-shot --output-as=xml")?.contains("unclean=\"true\""))
}

/// All nodes are back, the device is gone, and no guest is left.
pub fn tidy(lab: &Lab) -> Result<()> {
    lab.fence_fault(lab::power::Fault::None)?;
    for node in lab.node_names() {
        if lab.power(&node)? != lab::power::Power::On {
            lab.power_on(&node)?;
        }
    }
    lab.wait_membership(LIMIT, |seen| seen.online() == 3 && seen.runs_on("fence").is_some()).context("nodes are missing")?;
    let _ = ask(lab, "pcs stonith delete vmfence")?;
    ask(lab, "crm_attribute --type crm_config --name stonith-action --delete")?;
    for node in lab.node_names() {
        lab.check(&node, &["rm", "-rf", "/run/kvmha"], SOON)?;
    }
    ask(lab, "crm_resource --cleanup")?;
    lab.guests_clear()?;
    lab.wait_membership(PATIENCE, |seen| seen.runs_on("vmfence").is_none()).map(drop)
}
