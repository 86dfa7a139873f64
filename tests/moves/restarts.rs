//! `kvmha migrate` and what could make it cost a restart: what Pacemaker would do is looked at before, and what is under way is not let go of.

use crate::pacemaker::{TERMINAL, constraints, left_alone};
use anyhow::{Context, Result, ensure};
use lab::node::Terminal;
use lab::placed::{Guest, OPERATIONS, until};
use lab::scene::{LIMIT, Stage};
use lab::{Lab, Output};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// `kvmha migrate` that goes on while the test does.
struct Running<'a> {
    stage: &'a Stage,
    source: String,
    child: Child,
}

impl<'a> Running<'a> {
    fn begin(stage: &'a Stage, before: &[&str], name: &str, [source, target]: [&str; 2]) -> Result<Self> {
        let words = [before, &["kvmha", "migrate", name, target, "--plain"]].concat();
        let mut command = stage.lab.enter(source, &words, Terminal::None)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        Ok(Self { stage, source: source.to_owned(), child })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let found = self.stage.lab.processes(&self.source, "kvmha")?;
        let command = found.iter().find(|process| lab::process::arguments(process.pid).get(1).is_some_and(|word| word == "migrate"));
        Ok(kill(Pid::from_raw(command.context("the command does not run")?.pid), signal)?)
    }

    /// Its code, and what it has said of what went wrong.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        // A move is taken back for three minutes at most.
        let status = lab::process::wait_end(&mut self.child, LIMIT * 2).context("the command does not end")?;
        let mut said = String::new();
        self.child.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
        Ok((status.code(), said))
    }
}

fn memory_flows(lab: &Lab, node: &str, name: &str) -> Result<()> {
    until("memory flows", || {
        lab.exec(node, &["virsh", "-q", "domjobinfo", name], LIMIT).is_ok_and(|output| output.stdout.contains("Memory processed"))
    })
}

fn kvmha(lab: &Lab, node: &str, line: &str) -> Result<Output> {
    let words: Vec<&str> = std::iter::once("kvmha").chain(line.split_whitespace()).collect();
    lab.exec(node, &words, LIMIT)
}

/// How a command is begun that takes a stub for one of Pacemaker's tools.
const STUB: &[&str] = &["env", "PATH=/srv/vms/stub:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

/// Makes the stub; its folder.
fn stub(lab: &Lab, name: &str, script: &str) -> Result<PathBuf> {
    let folder = lab.layout().shared().join("stub");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// The request is carried out, and its answer is lost: the move that is under way is taken back. The tool is a stub, as no real one can be made
/// to lose its answer.
pub fn a_stub_of_crm_resource_gives_no_answer(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=1", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let folder = stub(lab, "crm_resource", "/usr/sbin/crm_resource \"$@\" || exit\n[ \"$1\" != --move ] || exit 124")?;
    let command = Running::begin(&stage, STUB, "vm1", [&source, &target])?;
    let (code, said) = command.end()?;
    fs::remove_dir_all(&folder)?;
    ensure!(code == Some(1) && said.contains("taking it back"), "code {code:?}: {said}");
    stage.settle()?;
    left_alone(&stage, &guest, &source)?;
    guest.end(1).map(drop)
}

/// Pacemaker's answer fails once in the middle of a move: that is no news, and the move ends as if nothing had been. The one that fails is a
/// stub, as no real one can be made to fail just then.
pub fn a_stub_of_crm_mon_fails_once(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=10", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let folder = stub(
        lab,
        "crm_mon",
        "[ -e /srv/vms/stub/fail ] && mv /srv/vms/stub/fail /srv/vms/stub/failed && exit 1\nexec /usr/sbin/crm_mon \"$@\"",
    )?;
    let command = Running::begin(&stage, STUB, "vm1", [&source, &target])?;
    memory_flows(lab, &source, "vm1")?;
    fs::write(folder.join("fail"), "")?;
    let (code, said) = command.end()?;
    let failed = folder.join("failed").exists();
    fs::remove_dir_all(&folder)?;
    ensure!(failed, "crm_mon did not fail");
    ensure!(code == Some(0), "code {code:?}: {said}");
    stage.settle()?;
    left_alone(&stage, &guest, &target)?;
    guest.end(1).map(drop)
}

/// Pacemaker begins a move only when all has ended that is under way: another guest's long one too, for which is waited.
pub fn after_another_guests(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let slow = Guest::placed_with(&stage, "vm2", "migration_speed=1", OPERATIONS)?;
    let from = slow.node()?;
    slow.request_move(&slow.other_node()?)?;
    memory_flows(lab, &from, "vm2")?;
    let begun = Instant::now();
    let command = Running::begin(&stage, &[], "vm1", [&source, &target])?;
    // Longer than the 20 s that it waits for a Pacemaker that is at rest.
    thread::sleep(Duration::from_secs(24).saturating_sub(begun.elapsed()));
    ensure!(lab.guest_where("vm1")?.iter().all(|place| place.node == source), "vm1 did not have to wait");
    lab.check(&from, &["virsh", "-q", "migrate-setspeed", "vm2", "1000"], LIMIT)?;
    let (code, said) = command.end()?;
    ensure!(code == Some(0), "code {code:?}: {said}");
    slow.clear()?;
    stage.settle()?;
    left_alone(&stage, &guest, &target)?;
    slow.end(1)?;
    guest.end(1).map(drop)
}

/// A move fails, and the failure is left; from the same node the next one fails too. Of the guest that was then restarted there it is not said
/// that it was moved.
pub fn a_failure_that_follows_another(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=10", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    for boots in 2..4 {
        if guest.node()? != source {
            let output = kvmha(lab, &guest.node()?, &format!("migrate vm1 {source} --plain"))?;
            ensure!(output.code == Some(0), "{output:?}");
            stage.settle()?;
        }
        let command = Running::begin(&stage, &[], "vm1", [&source, &target])?;
        memory_flows(lab, &source, "vm1")?;
        lab.check(&source, &["virsh", "-q", "domjobabort", "vm1"], LIMIT)?;
        let (code, said) = command.end()?;
        ensure!(code == Some(1) && said.contains("was not moved"), "code {code:?}: {said}");
        guest.runs(boots)?;
        ensure!(!constraints(&stage)?.contains("vm1"), "a constraint is left");
    }
    guest.end(3).map(drop)
}

/// What Pacemaker would answer with a stop, of this guest or of another resource, or would take back, is not asked for.
pub fn foreseen(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let refused = |what: &str| -> Result<()> {
        stage.settle()?;
        let before = guest.node()?;
        let asked = kvmha(lab, &before, &format!("check vm1 --to {target}"))?;
        ensure!(asked.code == Some(1) && asked.stdout.contains(what), "{what}: {asked:?}");
        let output = kvmha(lab, &before, &format!("migrate vm1 {target}"))?;
        ensure!(output.code == Some(1) && output.stderr.contains(what), "{what}: {output:?}");
        stage.settle()?;
        guest.is_on(&before)?;
        guest.goes_on()?;
        guest.boots(1)?;
        ensure!(!constraints(&stage)?.contains("cli-"), "a constraint is left");
        Ok(())
    };
    stage.check("pcs resource meta vm1 resource-stickiness=0")?;
    stage.check(&format!("pcs constraint location vm1 prefers {source}=50"))?;
    refused(&format!("it would not stay on {target}: when the constraint of the move is gone, Pacemaker would take it to {source}"))?;
    stage.check(&format!("pcs constraint remove location-vm1-{source}-50"))?;
    stage.check("pcs resource meta vm1 resource-stickiness=")?;
    stage.settle()?;
    // One that goes where it goes, and cannot be moved live.
    stage.check("pcs resource create aside ocf:pacemaker:Dummy")?;
    stage.check("pcs constraint colocation add aside with vm1")?;
    stage.wait(|seen| seen.runs_on("aside") == Some(&source))?;
    refused("Pacemaker would stop aside for it")?;
    stage.check("pcs resource delete aside")?;
    stage.settle()?;
    // In a group after one that cannot be moved live. That it gets into it may cost a restart.
    stage.check("pcs resource create first ocf:pacemaker:Dummy")?;
    stage.check("pcs resource group add both first vm1")?;
    stage.settle()?;
    guest.goes_on()?;
    let boots = guest.watcher.snapshot().boots().len();
    let target = guest.other_node()?;
    let asked = kvmha(lab, &guest.node()?, &format!("migrate vm1 {target}"))?;
    stage.settle()?;
    ensure!(asked.code == Some(1) && asked.stderr.contains("Pacemaker would stop it and start it on"), "{asked:?}");
    guest.goes_on()?;
    guest.boots(boots)?;
    // pcs stops what it deletes, and so what stands behind it.
    stage.check("pcs resource delete first")?;
    stage.settle()?;
    guest.goes_on()?;
    let (boots, target) = (guest.watcher.snapshot().boots().len(), guest.other_node()?);
    // Only Pacemaker's own word for it counts, wherever it is said.
    stage.check("pcs resource meta vm1 allow-migrate=")?;
    let asked = kvmha(lab, &guest.node()?, &format!("migrate vm1 {target}"))?;
    ensure!(asked.code == Some(1) && asked.stderr.contains("allow-migrate"), "{asked:?}");
    stage.check("pcs resource defaults update allow-migrate=yes")?;
    stage.settle()?;
    let asked = kvmha(lab, &guest.node()?, &format!("migrate vm1 {target} --plain"));
    stage.check("pcs resource meta vm1 allow-migrate=true")?;
    stage.check("pcs resource defaults update allow-migrate=")?;
    let asked = asked?;
    ensure!(asked.code == Some(0), "{asked:?}");
    stage.settle()?;
    guest.is_on(&target)?;
    guest.end(boots).map(drop)
}

/// From a node that is not the guest's only other things could be looked at. And Ctrl-C before anything was asked for.
pub fn nothing_asked(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    for node in lab.node_names().iter().filter(|node| **node != source) {
        let output = kvmha(lab, node, &format!("migrate vm1 {target}"))?;
        ensure!(output.code == Some(1) && output.stderr.contains(&format!("vm1 is on {source}: run it there")), "{node}: {output:?}");
        let output = kvmha(lab, node, &format!("check vm1 --to {target} --json"))?;
        let said: serde_json::Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
        ensure!(said["runs_here"] == false, "{node}: {said}");
    }
    let output = kvmha(lab, &source, &format!("check vm1 --to {target} --json"))?;
    let said: serde_json::Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(said["runs_here"] == true && output.code == Some(0), "{said}");
    let output = kvmha(lab, &source, "migrate vm1 nowhere")?;
    ensure!(output.code == Some(1) && output.stderr.contains("there is no node nowhere"), "{output:?}");
    // The target keeps the preflight waiting.
    lab.freeze(&target, "libvirtd")?;
    let command = Running::begin(&stage, TERMINAL, "vm1", [&source, &target]);
    thread::sleep(Duration::from_secs(3));
    let interrupted = command.as_ref().map_err(|error| anyhow::anyhow!("{error}")).and_then(|command| command.signal(Signal::SIGINT));
    lab.thaw(&target, "libvirtd")?;
    interrupted?;
    let (code, said) = command?.end()?;
    ensure!(code == Some(1) && !said.contains("taking it back"), "code {code:?}: {said}");
    ensure!(said.contains("nothing was asked for") || said.contains("cannot be moved"), "{said}");
    stage.settle()?;
    left_alone(&stage, &guest, &source)?;
    guest.end(1).map(drop)
}

/// A move is taken back while one node has not got the agent, which it says each time it is asked; and the guest ends meanwhile.
/// Pacemaker gets it back all the same, and starts it.
pub fn ended_while_held(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=1", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let third = lab.node_names().into_iter().find(|node| ![&source, &target].contains(&node)).context("no node")?;
    let folder = "/usr/lib/ocf/resource.d/kvmha";
    lab.check(&third, &["mount", "-t", "tmpfs", "none", folder], LIMIT)?;
    let held = held_and_ended(&stage, [&source, &target]);
    lab.check(&third, &["umount", folder], LIMIT)?;
    held?;
    let said = stage.log(&third)?.to_lowercase();
    ensure!(said.contains(&format!("result of probe operation for vm1 on {third}: not installed")), "{third} has the agent");
    guest.runs(2)?;
    let configured = stage.check("cibadmin --query --scope resources")?;
    ensure!(!configured.contains("is-managed"), "it is not managed any more: {configured}");
    ensure!(!constraints(&stage)?.contains("vm1"), "a constraint is left");
    guest.end(2).map(drop)
}

fn held(stage: &Stage) -> Result<()> {
    until("it is held", || stage.check("cibadmin --query --scope resources").is_ok_and(|text| text.contains("is-managed")))
}

fn held_and_ended(stage: &Stage, [source, target]: [&str; 2]) -> Result<()> {
    let command = Running::begin(stage, TERMINAL, "vm1", [source, target])?;
    memory_flows(&stage.lab, source, "vm1")?;
    command.signal(Signal::SIGINT)?;
    held(stage)?;
    stage.lab.check(source, &["virsh", "-q", "destroy", "vm1"], LIMIT)?;
    let (code, said) = command.end()?;
    ensure!(code == Some(1), "code {code:?}: {said}");
    Ok(())
}

/// The command is killed while it takes a move back: the next one ends the hold, and first what would have Pacemaker begin the move again.
pub fn killed_while_held(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=1", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let command = Running::begin(&stage, TERMINAL, "vm1", [&source, &target])?;
    memory_flows(lab, &source, "vm1")?;
    // It cannot end the move as long as libvirt does not answer.
    lab.freeze(&source, "libvirtd")?;
    let killed = command.signal(Signal::SIGINT).and_then(|()| held(&stage)).and_then(|()| command.signal(Signal::SIGKILL));
    lab.thaw(&source, "libvirtd")?;
    killed?;
    let (code, said) = command.end()?;
    ensure!(code != Some(0) && code != Some(1), "it was not killed: code {code:?}: {said}");
    ensure!(constraints(&stage)?.contains("cli-prefer-vm1"), "the constraint was gone already");
    lab.check(&source, &["virsh", "-q", "domjobabort", "vm1"], LIMIT)?;
    let output = kvmha(lab, &source, &format!("migrate vm1 {source}"))?;
    ensure!(output.code == Some(0) && output.stderr.contains("an earlier run has left vm1"), "{output:?}");
    stage.settle()?;
    left_alone(&stage, &guest, &source)?;
    guest.end(1).map(drop)
}
