//! `kvmha status` and `kvmha where`: what is shown is what is.

use crate::repair::harmless;
use anyhow::{Context, Result, ensure};
use lab::placed::{Guest, OPERATIONS, PARAMETERS, until};
use lab::scene::{LIMIT, Stage};
use lab::{Lab, Output, promised};
use serde_json::Value;
use std::fs;

/// Runs `kvmha` in a node.
pub fn kvmha(lab: &Lab, node: &str, line: &str) -> Result<Output> {
    let words: Vec<&str> = std::iter::once("kvmha").chain(line.split_whitespace()).collect();
    lab.exec(node, &words, LIMIT)
}

/// The JSON that a line gives, whatever its code.
pub fn json(lab: &Lab, node: &str, line: &str) -> Result<Value> {
    let output = kvmha(lab, node, line)?;
    serde_json::from_str(&output.stdout).with_context(|| format!("kvmha {line}: {output:?}"))
}

/// The one guest that `kvmha status` has.
fn seen(lab: &Lab, node: &str) -> Result<Value> {
    let mut seen = json(lab, node, "status --json")?;
    ensure!(seen["guests"].as_array().is_some_and(|guests| guests.len() == 1), "{seen}");
    Ok(seen["guests"][0].take())
}

/// It has this code, and each of these in what it says.
pub fn says(output: &Output, code: i32, parts: &[&str]) -> Result<()> {
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(output.code == Some(code), "code {:?}, not {code}: {said}", output.code);
    ensure!(!said.contains('\x1b'), "colours in a pipe: {said:?}");
    for part in parts {
        ensure!(said.contains(part), "{part:?} is not in: {said}");
    }
    Ok(())
}

/// A cluster without guests, a guest that nobody has, a reader that goes away, a node without Pacemaker.
pub fn without_guests(lab: &Lab) -> Result<()> {
    says(&kvmha(lab, "node1", "status")?, 0, &["no guest in this cluster"])?;
    says(&kvmha(lab, "node1", "storage")?, 0, &["no guest in this cluster"])?;
    says(&kvmha(lab, "node1", "where nobody")?, 2, &["no resource nobody"])?;
    says(&kvmha(lab, "node1", "status --watch 0")?, 2, &["0 is not in 1..=3600"])?;
    let line = "kvmha status --json --watch 1 | head -n 1; echo ${PIPESTATUS[0]}";
    let output = lab.exec("node1", &["bash", "-c", line], LIMIT)?;
    says(&output, 0, &["\"guests\":[]", "\n0\n"])?;
    ensure!(output.stderr.is_empty(), "{output:?}");
    // Where Pacemaker is not installed.
    let output = lab.exec("node1", &["env", "PATH=/nowhere", "/usr/sbin/kvmha", "status"], LIMIT)?;
    says(&output, 1, &["crm_node is not installed"])?;
    Ok(())
}

/// Where it is, since when, how it came there, and what has failed: the same from every node.
pub fn followed_from_node_to_node(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let first = guest.node()?;
    let target = guest.other_node()?;
    let mut since = 0;
    for node in lab.node_names() {
        let vm1 = seen(lab, &node)?;
        ensure!(vm1["nodes"] == serde_json::json!([first]) && vm1["role"] == "Started" && vm1["guest"] == "vm1", "{vm1}");
        ensure!(vm1["copies"][0]["node"] == first.as_str() && vm1["copies"][0]["runs"] == true, "{vm1}");
        ensure!(vm1["last_move"].is_null() && vm1["last_failure"].is_null() && vm1["failed"] == false, "{vm1}");
        since = vm1["since"].as_u64().context("since when?")?;
        says(&kvmha(lab, &node, "where vm1")?, 0, &[&format!("vm1 is on {first}")])?;
    }
    says(&kvmha(lab, &first, "status")?, 0, &["RESOURCE", "vm1", "running (unpaused)"])?;
    guest.move_to(&target)?;
    stage.settle()?;
    let vm1 = seen(lab, &first)?;
    ensure!(
        vm1["last_move"]["moved"] == true && vm1["last_move"]["from"] == first.as_str() && vm1["last_move"]["to"] == target.as_str(),
        "{vm1}"
    );
    ensure!(vm1["since"].as_u64().is_some_and(|now| now >= since), "{vm1}");
    let place = json(lab, &target, "where vm1 --json")?;
    let here = &place["places"][0];
    ensure!(place["verdict"] == "one" && here["here"] == true && here["runs"] == true && here["record"]["name"] == "vm1", "{place}");
    ensure!(here["emulators"][0]["since"].is_u64(), "{place}");
    // An emulator that hangs while a tool waits for its answer: libvirt then keeps its job to itself, and says all the same where it is.
    lab.freeze(&target, "guest:vm1")?;
    let question =
        "(timeout 60 virsh -q domstats --balloon --block vm1 >/dev/null 2>&1 </dev/null &) ; sleep 1; timeout 2 virsh -q dommemstat vm1";
    let silent = lab.exec(&target, &["sh", "-c", question], LIMIT);
    let hung = json(lab, &first, "where vm1 --json");
    lab.thaw(&target, "guest:vm1")?;
    let (silent, hung) = (silent?, hung?);
    ensure!(silent.code == Some(124), "libvirt still answers: {silent:?}");
    ensure!(hung["verdict"] == "one", "{hung}");
    // An emulator that is gone at once: Pacemaker starts it again, and the failure is shown with its reason.
    for process in lab.processes(&target, "guest:vm1")? {
        process.signal(nix::sys::signal::Signal::SIGKILL);
    }
    until("the failure is shown", || seen(lab, &first).is_ok_and(|vm1| vm1["last_failure"]["action"] == "vm1_monitor_10000"))?;
    guest.runs(2)?;
    guest.end(2).map(drop)
}

/// What is under all guests, at once; one whose definition cannot be read does not keep the others from being shown.
pub fn storage_of_all(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    says(&kvmha(lab, &node, "storage")?, 0, &["GUEST", "vm1", "/srv/vms/vm1.img", "yes"])?;
    says(&kvmha(lab, &node, &format!("storage --to {other}"))?, 0, &[&format!("ON {}", other.to_uppercase()), "the same"])?;
    stage.check("pcs resource create --disabled lost ocf:kvmha:VirtualDomain config=/srv/vms/lost.xml --force")?;
    let both = kvmha(lab, &node, "storage");
    let answer = json(lab, &node, "storage --json");
    stage.check("pcs resource delete lost")?;
    says(&both?, 1, &["vm1", "/srv/vms/vm1.img", "lost: ", "/srv/vms/lost.xml"])?;
    let answer = answer?;
    let of = |resource: &str| answer["guests"].as_array().and_then(|all| all.iter().find(|one| one["resource"] == resource)).cloned();
    let (vm1, lost) = (of("vm1").context("no vm1")?, of("lost").context("no lost")?);
    ensure!(vm1["guest"] == "vm1" && vm1["storage"][0]["kind"].is_string() && vm1["error"].is_null(), "{vm1}");
    ensure!(lost["error"].as_str().is_some_and(|text| text.contains("lost.xml")) && lost["storage"].is_null(), "{lost}");
    guest.end(1).map(drop)
}

/// One, two, none, and a node that cannot be asked; by name, by resource and by definition.
pub fn copies_are_counted(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (node, other) = (guest.node()?, guest.other_node()?);
    // A second copy by hand, without the disk: it can do no harm.
    harmless(lab, "vm1")?;
    let copy = lab.guest_definition("vm1").with_file_name("copy.xml");
    lab.check(&other, &["virsh", "-q", "create", "/srv/vms/copy.xml"], LIMIT)?;
    let counted = says(&kvmha(lab, &node, "where vm1")?, 2, &["vm1 is on", &node, " and ", &other]);
    let shown = seen(lab, &other);
    lab.check(&other, &["virsh", "-q", "destroy", "vm1"], LIMIT)?;
    fs::remove_file(copy)?;
    counted?;
    let shown = shown?;
    ensure!(shown["copies"].as_array().is_some_and(|copies| copies.len() == 2), "{shown}");
    // This host by its whole name, and by an address that is the same for all nodes: one copy is one, but nobody else was asked.
    let address = lab.check(&node, &["getent", "ahostsv4", &node], LIMIT)?;
    let address = address.split_whitespace().next().context("the node has no address")?.to_owned();
    let hosts = lab.path_in(&node, "/etc/hosts")?;
    let before = fs::read_to_string(&hosts)?;
    fs::write(&hosts, format!("{before}{address} {node}.example.com\n"))?;
    let named = kvmha(lab, &node, &format!("where vm1 --node {node}.example.com"));
    fs::write(&hosts, before)?;
    says(&named?, 0, &[&format!("vm1 is on {node}\n")])?;
    for uri in [format!("qemu+tcp://{node}/system"), format!("qemu+tcp://{address}/system")] {
        for from in [&node, &other] {
            let said = kvmha(lab, from, &format!("where vm1 --set remoteuri={uri}"))?;
            says(&said, 2, &["vm1 is on ", "not everybody could be asked", "itself was not asked"])?;
            ensure!(!said.stdout.contains(" and node"), "one copy is taken for several: {said:?}");
        }
        let said = kvmha(lab, &node, &format!("repair vm1 --set remoteuri={uri}"))?;
        promised!(!said.stdout.contains("virsh destroy"), "the only copy is to be ended: {said:?}");
    }
    // A libvirt that does not answer may have one.
    lab.kill(&other, "libvirtd")?;
    let unsure = says(&kvmha(lab, &node, "where vm1")?, 2, &[&format!("vm1 is on {node}"), "not everybody", "cannot be asked"]);
    let blind = says(&kvmha(lab, &other, "where vm1")?, 0, &[&format!("vm1 is on {node}")]);
    lab.start(&other, "libvirtd")?;
    unsure?;
    // Of its own processes a node knows without libvirt.
    blind?;
    says(&kvmha(lab, &node, "where /srv/vms/vm1.xml --set migration_transport=tcp")?, 0, &["vm1 is on"])?;
    says(&kvmha(lab, &node, "where /srv/vms/vm1.xml")?, 2, &["do not say how to reach"])?;
    says(&kvmha(lab, &node, "where vm1 --set migration_speed=fast")?, 2, &["migration_speed"])?;
    stage.check("pcs resource disable vm1")?;
    until("vm1 is nowhere", || kvmha(lab, &node, "where vm1").is_ok_and(|output| output.code == Some(1)))?;
    stage.settle()?;
    let vm1 = seen(lab, &node)?;
    ensure!(vm1["role"] == "Stopped" && vm1["nodes"] == serde_json::json!([]) && vm1["since"].is_u64(), "{vm1}");
    guest.end(1).map(drop)
}

/// A resource that is named otherwise than its guest, and a node that cannot read the definition: what that node asks for is a guess, and
/// that nobody has it says nothing.
pub fn guessed_where_the_definition_cannot_be_read(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::files(&stage, "vm1")?;
    let (definition, volume) = (lab.guest_definition("vm1"), lab.guest_definition("vm1").with_file_name("volume.xml"));
    fs::copy(&definition, &volume)?;
    stage.check(&format!("pcs resource create db ocf:kvmha:VirtualDomain config=/srv/vms/volume.xml {PARAMETERS} {OPERATIONS}"))?;
    let tried = (|| {
        let seen = stage.wait(|seen| seen.runs_on("db").is_some())?;
        let node = seen.runs_on("db").context("db does not run")?.to_owned();
        let other = lab.node_names().into_iter().find(|other| *other != node).context("no other node")?;
        stage.settle()?;
        says(&kvmha(lab, &other, "where db")?, 0, &["vm1 is on", &node])?;
        fs::remove_file(&volume)?;
        let guessed = (kvmha(lab, &other, "where db")?, kvmha(lab, &other, "status")?);
        // Where it runs its state file says what is meant.
        let known = kvmha(lab, &node, "where db")?;
        fs::copy(&definition, &volume)?;
        says(&guessed.0, 2, &["volume was found nowhere", "volume is a guess"])?;
        says(&guessed.1, 0, &["db: its definition cannot be read here: that it is volume is a guess"])?;
        says(&known, 0, &["vm1 is on", &node])
    })();
    stage.check("pcs resource delete --force db")?;
    stage.settle()?;
    fs::remove_file(volume)?;
    tried?;
    drop(guest);
    lab.guest_remove("vm1")
}
