//! `kvmha repair`: what is left is cleaned up, and a guest that runs is not touched; and `kvmha metrics`, of the same guests.

use crate::seen::{kvmha, says};
use anyhow::{Context, Result, anyhow, ensure};
use lab::Lab;
use lab::placed::{Guest, OPERATIONS, until};
use lab::process::{Identity, replace, wait_until};
use lab::promised;
use lab::scene::{LIMIT, Stage};
use nix::sys::signal::Signal;
use std::time::Duration;
use std::{fs, thread};

/// A definition of the guest without its disk: a second copy of it can do no harm.
pub fn harmless(lab: &Lab, name: &str) -> Result<()> {
    let xml = fs::read_to_string(lab.guest_definition(name))?;
    let (begin, rest) = xml.split_once("<disk").context("no disk")?;
    let (_, end) = rest.split_once("</disk>").context("no disk")?;
    replace(&lab.guest_definition(name).with_file_name("copy.xml"), &format!("{begin}{end}"))
}

/// A copy that stands still is ended, one that runs is not, and nothing without being told to.
pub fn copies_and_files(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    for any in [&node, &other] {
        says(&kvmha(lab, any, "repair vm1 --yes")?, 0, &["nothing to repair"])?;
    }
    harmless(lab, "vm1")?;
    let lives = || lab.processes(&other, "guest:vm1").map(|found| !found.is_empty());
    // It runs: no program can say which of the two is right.
    lab.check(&other, &["virsh", "-q", "create", "/srv/vms/copy.xml"], LIMIT)?;
    for any in [&node, &other] {
        says(&kvmha(lab, any, "repair vm1 --yes")?, 1, &["by hand: vm1 runs on", "virsh destroy vm1"])?;
    }
    promised!(lives()?, "a copy that runs was ended");
    lab.check(&other, &["virsh", "-q", "suspend", "vm1"], LIMIT)?;
    // It stands still; where it is not, it can only be said.
    says(&kvmha(lab, &node, "repair vm1 --yes")?, 1, &[&format!("run kvmha repair vm1 on {other}")])?;
    says(&kvmha(lab, &other, "repair vm1")?, 1, &["end the copy of vm1", "stands still (paused (user))", &node, "--yes"])?;
    promised!(lives()?, "it was ended without --yes");
    says(&kvmha(lab, &other, "repair vm1 --yes")?, 0, &["done: end the copy of vm1"])?;
    ensure!(!lives()?, "it is still there");
    guest.goes_on()?;
    // The one that is left is not ended because it stands still.
    lab.check(&node, &["virsh", "-q", "suspend", "vm1"], LIMIT)?;
    let last = kvmha(lab, &node, "repair vm1 --yes");
    let here = lab.processes(&node, "guest:vm1")?;
    lab.check(&node, &["virsh", "-q", "resume", "vm1"], LIMIT)?;
    ensure!(here.len() == 1 && !last?.stdout.contains("end the copy"), "the last copy was touched");
    // A state file of a guest that is not there.
    let (from, to) = (lab.path_in(&node, "/run/kvmha/vm1.json")?, lab.path_in(&other, "/run/kvmha/vm1.json")?);
    lab.check(&other, &["mkdir", "-p", "-m", "700", "/run/kvmha"], LIMIT)?;
    fs::copy(&from, &to)?;
    says(&kvmha(lab, &other, "repair vm1")?, 1, &["remove the state file of vm1"])?;
    ensure!(to.exists(), "it was removed without --yes");
    says(&kvmha(lab, &other, "repair vm1 --yes")?, 0, &["done: remove the state file"])?;
    ensure!(!to.exists() && from.exists(), "the wrong file is gone");
    // One of another guest, which is not here: the definition says which is meant.
    let old = [("\"name\":\"vm1\"", "\"name\":\"before\""), ("\"pid\":", "\"pid\":9")];
    let record = fs::read_to_string(&from)?;
    replace(&from, &old.iter().fold(record, |record, (was, is)| record.replace(was, is)))?;
    says(&kvmha(lab, &node, "where vm1")?, 0, &[&format!("vm1 is on {node}")])?;
    guest.is_on(&node)?;
    guest.goes_on()?;
    fs::remove_file(lab.guest_definition("vm1").with_file_name("copy.xml"))?;
    guest.end(1).map(drop)
}

/// A copy that was seen to stand still and runs by the time it would be ended: it is not.
pub fn a_copy_that_begins_to_run(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    harmless(lab, "vm1")?;
    lab.check(&other, &["virsh", "-q", "create", "--paused", "/srv/vms/copy.xml"], LIMIT)?;
    let copy = lab.processes(&other, "guest:vm1")?;
    // What it says it will do is said between its two looks; in the second one this node comes first, and the other then does not answer.
    let (began, line) = (
        lab.layout().shared().join("began"),
        "kvmha repair vm1 --yes 2>&1 | while read -r line; do touch /srv/vms/began; echo \"$line\"; done",
    );
    // A machine that is busy may be too late for the moment.
    let mut said = String::new();
    for _ in 0..3 {
        let _ = fs::remove_file(&began);
        said = thread::scope(|scope| {
            let repair = scope.spawn(|| lab.exec(&other, &["sh", "-c", line], LIMIT));
            let frozen = wait_until(LIMIT, Duration::from_millis(2), || began.exists() || repair.is_finished()) && began.exists();
            lab.freeze(&node, "libvirtd")?;
            thread::sleep(Duration::from_secs(4));
            let resumed = lab.check(&other, &["virsh", "-q", "resume", "vm1"], LIMIT);
            lab.thaw(&node, "libvirtd")?;
            let said = repair.join().map_err(|_| anyhow::anyhow!("panicked"))??.stdout;
            ensure!(frozen && resumed.is_ok(), "the moment was missed: {resumed:?}: {said}");
            Ok(said)
        })?;
        promised!(lab.processes(&other, "guest:vm1")? == copy, "a copy that runs was ended: {said}");
        lab.check(&other, &["virsh", "-q", "suspend", "vm1"], LIMIT)?;
        if said.contains("not seen to stand still any more") {
            break;
        }
    }
    ensure!(said.contains("not seen to stand still any more, and the copy here was left as it was"), "{said}");
    let _ = fs::remove_file(began);
    says(&kvmha(lab, &other, "repair vm1 --yes")?, 0, &["done: end the copy of vm1"])?;
    fs::remove_file(lab.guest_definition("vm1").with_file_name("copy.xml"))?;
    guest.is_on(&node)?;
    guest.goes_on()?;
    guest.end(1).map(drop)
}

fn is_held(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("State:\tT"))
}

/// Does something while an emulator of vm1 is held and libvirt waits for it, and ends that with a signal.
fn while_held(lab: &Lab, node: &str, emulator: Identity, ends: Signal, work: impl FnOnce() -> Result<()>) -> Result<()> {
    // What libvirt is busy with as long as the emulator says nothing.
    let waits = ["timeout", "60", "virsh", "-q", "qemu-monitor-command", "vm1", "--hmp", "info status"];
    thread::scope(|scope| {
        emulator.signal(Signal::SIGSTOP);
        let waiting = scope.spawn(|| lab.exec(node, &waits, LIMIT));
        thread::sleep(Duration::from_secs(2));
        let outcome = if waiting.is_finished() { Err(anyhow!("nothing waits for it")) } else { work() };
        emulator.signal(ends);
        outcome
    })
}

/// A copy that was held, so that libvirt waits for it, as migrate_to leaves it: it is ended if the guest runs elsewhere, and else it is left held.
pub fn a_copy_that_is_held(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    harmless(lab, "vm1")?;
    // libvirt goes on to say "running" of one that ran.
    for (paused, shown) in [(&["--paused"][..], "paused (user), held"), (&[], "running (booted), held")] {
        lab.check(&other, &[&["virsh", "-q", "create"], paused, &["/srv/vms/copy.xml"]].concat(), LIMIT)?;
        let copy = *lab.processes(&other, "guest:vm1")?.first().context("no copy")?;
        while_held(lab, &other, copy, Signal::SIGKILL, || {
            ensure!(is_held(copy.pid), "it is not held");
            says(&kvmha(lab, &other, "repair vm1")?, 1, &["end the copy of vm1", "--yes"])?;
            says(&kvmha(lab, &other, "where vm1")?, 2, &[shown])?;
            says(&kvmha(lab, &other, "repair vm1 --yes")?, 0, &["done: end the copy of vm1"])?;
            ensure!(lab.processes(&other, "guest:vm1")?.is_empty(), "the copy is left");
            Ok(())
        })?;
        guest.goes_on()?;
    }
    // The last one is neither ended nor let go on.
    lab.check(&node, &["virsh", "-q", "suspend", "vm1"], LIMIT)?;
    let last = *lab.processes(&node, "guest:vm1")?.first().context("no guest")?;
    while_held(lab, &node, last, Signal::SIGCONT, || {
        says(&kvmha(lab, &node, "status")?, 0, &["paused (user), held"])?;
        says(&kvmha(lab, &node, "repair vm1 --yes")?, 1, &["by hand: vm1 is held on this node", "crm_resource --restart --resource vm1"])?;
        ensure!(is_held(last.pid), "it was let go on");
        Ok(())
    })?;
    lab.check(&node, &["virsh", "-q", "resume", "vm1"], LIMIT)?;
    fs::remove_file(lab.guest_definition("vm1").with_file_name("copy.xml"))?;
    guest.is_on(&node)?;
    guest.goes_on()?;
    guest.end(1).map(drop)
}

/// The terminal goes away while a copy is held that is about to be ended: it is ended all the same, for held it would stand still for good.
pub fn interrupted_while_it_holds(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    harmless(lab, "vm1")?;
    lab.check(&other, &["virsh", "-q", "create", "--paused", "/srv/vms/copy.xml"], LIMIT)?;
    let copy = *lab.processes(&other, "guest:vm1")?.first().context("no copy")?;
    let is_held = || is_held(copy.pid);
    let said = thread::scope(|scope| -> Result<_> {
        let repair = scope.spawn(|| kvmha(lab, &other, "repair vm1 --yes"));
        let held = wait_until(LIMIT, Duration::from_micros(200), || is_held() || repair.is_finished()) && !repair.is_finished();
        for process in lab.processes(&other, "kvmha")? {
            process.signal(Signal::SIGHUP);
        }
        ensure!(held, "it was not seen to be held");
        repair.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })?;
    says(&said, 0, &["done: end the copy of vm1"])?;
    ensure!(lab.processes(&other, "guest:vm1")?.is_empty(), "the copy is left: {said:?}");
    fs::remove_file(lab.guest_definition("vm1").with_file_name("copy.xml"))?;
    guest.is_on(&node)?;
    guest.goes_on()?;
    guest.end(1).map(drop)
}

/// The agent is killed in mid-move, and the target's libvirt with it: the move fails, and nobody is there to take its mark away.
pub fn a_move_mark(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let operations = OPERATIONS.replace("migrate_to timeout=120s", "migrate_to timeout=120s on-fail=block");
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=1 migration_policy=plain", &operations)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let record = lab.path_in(&source, "/run/kvmha/vm1.json")?;
    let is_marked = || {
        let text = fs::read_to_string(&record).unwrap_or_default();
        serde_json::from_str(&text).is_ok_and(|record: serde_json::Value| record["moving"].is_string())
    };
    guest.request_move(&target)?;
    until("the move is under way", &is_marked)?;
    thread::sleep(Duration::from_secs(1));
    let agents = lab.processes(&source, "kvmha")?;
    ensure!(agents.iter().any(|agent| agent.signal(Signal::SIGKILL)), "no agent is there: {agents:?}");
    lab.kill(&target, "libvirtd")?;
    stage.failure("vm1", "migrate_to_0")?;
    lab.start(&target, "libvirtd")?;
    guest.clear()?;
    stage.settle()?;
    guest.is_on(&source)?;
    ensure!(is_marked(), "somebody has taken the mark away");
    says(&kvmha(lab, &source, "where vm1")?, 0, &["a move whose end is not known"])?;
    says(&kvmha(lab, &source, "repair vm1")?, 1, &["forget that a move of vm1 was begun", "--yes"])?;
    ensure!(is_marked(), "it was taken away without --yes");
    says(&kvmha(lab, &source, "repair vm1 --yes")?, 0, &["done: forget that a move"])?;
    ensure!(!is_marked(), "the mark is still there");
    stage.settle()?;
    guest.is_on(&source)?;
    guest.goes_on()?;
    stage.no_failures()?;
    guest.end(1).map(drop)
}

/// A move that failed and is blocked, of a guest that has come by one: given back to Pacemaker without a restart.
pub fn a_failed_move(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let operations = OPERATIONS.replace("migrate_to timeout=120s", "migrate_to timeout=30s on-fail=block");
    let guest = Guest::placed_with(&stage, "vm1", "", &operations)?;
    guest.move_to(&guest.other_node()?)?;
    stage.settle()?;
    guest.clear()?;
    stage.settle()?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    lab.kill(&target, "libvirtd")?;
    guest.request_move(&target)?;
    stage.failure("vm1", "migrate_to_0")?;
    // As long as a node cannot be asked nothing is done.
    let unsure = kvmha(lab, &source, "repair vm1 --yes");
    lab.start(&target, "libvirtd")?;
    says(&unsure?, 1, &[&format!("by hand: {target} cannot be asked")])?;
    stage.settle()?;
    says(&kvmha(lab, &source, "repair vm1 --yes")?, 1, &["by hand: crm_resource --clear --resource vm1"])?;
    guest.clear()?;
    stage.settle()?;
    // Pacemaker brings what an action has noted of itself into the CIB in its own time.
    let noted = "kvmha_guest_last_move_success{resource=\"vm1\"} 0";
    until("the failed move is noted", || metrics(lab, &source).is_ok_and(|text| text.contains(noted)))?;
    let text = metrics(lab, &source)?;
    for line in ["kvmha_up 1", "kvmha_cluster_quorum 1", "kvmha_guest_failed{resource=\"vm1\"} 1", noted] {
        ensure!(text.lines().any(|found| found == line), "{line:?} is not in: {text}");
    }
    says(&kvmha(lab, &source, "doctor --quiet")?, 1, &["vm1 is blocked"])?;
    // Without the failure Pacemaker would move it, or stop it, at once.
    for (begin, end, said) in [
        (
            format!("pcs node standby {source}"),
            format!("crm_attribute --node {source} --name standby --delete"),
            format!("{source} is in standby: crm_attribute --node {source} --name standby --delete first"),
        ),
        (
            "crm_resource --resource vm1 --meta --set-parameter target-role --parameter-value Stopped".to_owned(),
            "crm_resource --resource vm1 --meta --set-parameter target-role --parameter-value Started".to_owned(),
            "Pacemaker would stop it, for it has target-role=Stopped: crm_resource --resource vm1 --meta --set-parameter target-role"
                .to_owned(),
        ),
    ] {
        stage.check(&begin)?;
        stage.settle()?;
        let output = kvmha(lab, &source, "repair vm1 --yes");
        guest.is_on(&source)?;
        guest.boots(1)?;
        says(&output?, 1, &["by hand: vm1 has failed, and without that Pacemaker would", &said])?;
        stage.check(&end)?;
        stage.settle()?;
    }
    says(&kvmha(lab, &source, "repair vm1")?, 1, &["have Pacemaker forget the failure of vm1", "--yes"])?;
    says(&kvmha(lab, &source, "repair vm1 --yes")?, 0, &["done: have Pacemaker forget"])?;
    stage.settle()?;
    guest.is_on(&source)?;
    guest.goes_on()?;
    guest.boots(1)?;
    stage.no_failures()?;
    is_reloaded(&guest, &source)?;
    let text = metrics(lab, &source)?;
    for line in [
        format!("kvmha_guest_started{{resource=\"vm1\",node=\"{source}\"}} 1"),
        format!("kvmha_guest_running{{resource=\"vm1\",node=\"{source}\"}} 1"),
        format!("kvmha_migration_last_success{{guest=\"vm1\",to=\"{target}\"}} 0"),
        "kvmha_guest_failed{resource=\"vm1\"} 0".to_owned(),
    ] {
        ensure!(text.lines().any(|found| found == line), "{line:?} is not in: {text}");
    }
    guest.end(1).map(drop)
}

/// A parameter is changed, and the guest does not notice; nothing is left of what Pacemaker had to forget for that.
fn is_reloaded(guest: &Guest, node: &str) -> Result<()> {
    let cib = guest.stage.check("cibadmin --query")?;
    for left in ["vm1-kvmha-", "fail-count-vm1", "last-failure-vm1"] {
        ensure!(!cib.contains(left), "{left} is left: {cib}");
    }
    guest.stage.check("pcs resource update vm1 migration_speed=100")?;
    guest.stage.settle()?;
    guest.is_on(node)?;
    guest.goes_on()?;
    guest.boots(1)?;
    guest.stage.no_failures()
}

/// A refresh by hand of a guest that runs: Pacemaker did not expect to find it, and would restart it at the next change of a parameter.
pub fn found_by_a_refresh(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let node = guest.node()?;
    stage.check("crm_resource --refresh --force --resource vm1")?;
    stage.wait(|seen| seen.runs_on("vm1") == Some(&node))?;
    stage.settle()?;
    says(&kvmha(lab, &node, "repair vm1")?, 1, &["forget that it did not expect to find vm1", "--yes"])?;
    says(&kvmha(lab, &guest.other_node()?, "repair vm1 --yes")?, 0, &["nothing to repair"])?;
    says(&kvmha(lab, &node, "repair vm1 --yes")?, 0, &["done: have Pacemaker forget that it did not expect"])?;
    says(&kvmha(lab, &node, "repair vm1 --yes")?, 0, &["nothing to repair"])?;
    is_reloaded(&guest, &node)?;
    // What a run that was killed has left.
    let set = "<primitive id=\"vm1\"><meta_attributes id=\"vm1-kvmha-repair\" score=\"INFINITY\"><nvpair id=\"vm1-kvmha-repair-timeout\" \
               name=\"failure-timeout\" value=\"1s\"/></meta_attributes></primitive>";
    lab.check(&node, &["cibadmin", "--modify", "--allow-create", "--scope", "resources", "--xml-text", set], LIMIT)?;
    stage.settle()?;
    says(&kvmha(lab, &node, "doctor --quiet")?, 1, &["left by a kvmha repair that did not end", "kvmha repair vm1 --yes"])?;
    says(&kvmha(lab, &node, "repair vm1 --yes")?, 0, &["done"])?;
    is_reloaded(&guest, &node)?;
    guest.end(1).map(drop)
}

/// What is written for Prometheus, by a file; its form is looked at too.
fn metrics(lab: &Lab, node: &str) -> Result<String> {
    says(&kvmha(lab, node, "metrics --output /run/kvmha.prom")?, 0, &[])?;
    let text = fs::read_to_string(lab.path_in(node, "/run/kvmha.prom")?)?;
    let mut known = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => known.extend(rest.strip_suffix(" gauge").map(str::to_owned)),
            None if line.starts_with("# HELP ") => {}
            None => {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
                ensure!(known.last().is_some_and(|last| last == name) && value.is_some(), "not the text format: {line:?}");
            }
        }
    }
    known.sort();
    let count = known.len();
    known.dedup();
    ensure!(known.len() == count && count > 5, "a metric stands twice: {known:?}");
    Ok(text)
}
