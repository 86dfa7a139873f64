//! `kvmha migrate`, and the set-up in which a move that fails costs the guest nothing.

use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::node::Terminal;
use lab::placed::{Guest, OPERATIONS, until};
use lab::process::wait_end;
use lab::promised;
use lab::scene::{LIMIT, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;

pub fn constraints(stage: &Stage) -> Result<String> {
    stage.check("cibadmin --query --scope constraints")
}

/// `kvmha migrate` moves the guest live and leaves no constraint.
pub fn moved_by_hand(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let target = guest.other_node()?;
    // However the node is spelled.
    let output = lab.exec(&guest.node()?, &["kvmha", "migrate", "vm1", &target.to_uppercase(), "--plain"], LIMIT)?;
    ensure!(output.code == Some(0) && output.stdout.contains(&format!("vm1 is on {target}")), "{output:?}");
    stage.settle()?;
    guest.is_on(&target)?;
    stage.no_failures()?;
    ensure!(!constraints(&stage)?.contains("vm1"), "a constraint is left");
    let value = stage.check("attrd_updater --query --all --name kvmha-move-vm1")?;
    ensure!(value.contains("moved to="), "{value}");
    // From a node that has nothing to do with it; and when there is nothing to do.
    let third = lab.node_names().into_iter().find(|node| *node != target).context("no node")?;
    let output = lab.exec(&third, &["kvmha", "migrate", "vm1", &target], LIMIT)?;
    ensure!(output.code == Some(0), "{output:?}");
    guest.end(1).map(drop)
}

/// What a program is told of signals at a terminal. A shell has what it starts in the background ignore SIGINT, this suite too.
pub const TERMINAL: &[&str] = &["env", "--default-signal=INT,HUP"];

/// `kvmha migrate` that is sent a signal while memory flows: what it answers.
fn signalled(stage: &Stage, before: &[&str], [source, target]: [&str; 2], signal: Signal) -> Result<Option<i32>> {
    let lab = &stage.lab;
    let words = [before, &["kvmha", "migrate", "vm1", target, "--plain"]].concat();
    let mut child = lab.enter(source, &words, Terminal::None)?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // As with a terminal that is closed: nobody reads any more.
    drop(child.stderr.take());
    let jobs =
        || lab.exec(source, &["virsh", "-q", "domjobinfo", "vm1"], LIMIT).is_ok_and(|output| output.stdout.contains("Memory processed"));
    until("memory flows", jobs)?;
    // The command itself, below the program that has entered the node.
    let found = lab.processes(source, "kvmha")?;
    let command = found.iter().find(|process| lab::process::arguments(process.pid).get(1).is_some_and(|word| word == "migrate"));
    kill(Pid::from_raw(command.context("the command does not run")?.pid), signal)?;
    let code = wait_end(&mut child, LIMIT).context("the command does not end")?.code();
    stage.settle()?;
    Ok(code)
}

/// The guest is where it was, in its first boot, managed, and nothing draws it away.
pub fn left_alone(stage: &Stage, guest: &Guest, source: &str) -> Result<()> {
    guest.is_on(source)?;
    guest.goes_on()?;
    guest.boots(1)?;
    stage.no_failures()?;
    ensure!(!constraints(stage)?.contains("vm1"), "a constraint is left");
    let configured = stage.check("cibadmin --query --scope resources")?;
    ensure!(!configured.contains("is-managed"), "it is not managed any more: {configured}");
    Ok(())
}

/// The change of a parameter does not restart it.
fn is_reloaded(stage: &Stage, guest: &Guest, source: &str) -> Result<()> {
    stage.check("pcs resource update vm1 migration_speed=100")?;
    stage.settle()?;
    left_alone(stage, guest, source)
}

/// Ctrl-C in the middle.
pub fn taken_back(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=1", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let code = signalled(&stage, TERMINAL, [&source, &target], Signal::SIGINT)?;
    ensure!(code == Some(1), "code {code:?}");
    left_alone(&stage, &guest, &source)?;
    is_reloaded(&stage, &guest, &source)?;
    guest.end(1).map(drop)
}

/// The terminal closes in the middle: as Ctrl-C. With nohup it goes on.
pub fn terminal_closed(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=10", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let code = signalled(&stage, TERMINAL, [&source, &target], Signal::SIGHUP)?;
    ensure!(code == Some(1), "code {code:?}");
    left_alone(&stage, &guest, &source)?;
    let code = signalled(&stage, &["nohup"], [&source, &target], Signal::SIGHUP)?;
    ensure!(code == Some(0), "nohup: code {code:?}");
    left_alone(&stage, &guest, &target)?;
    guest.end(1).map(drop)
}

/// Asked for while Pacemaker moves it elsewhere: that move is not overruled, which would restart the guest.
pub fn one_after_the_other(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=10", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let third = lab.node_names().into_iter().find(|node| ![&source, &target].contains(&node)).context("no node")?;
    guest.request_move(&target)?;
    let jobs =
        || lab.exec(&source, &["virsh", "-q", "domjobinfo", "vm1"], LIMIT).is_ok_and(|output| output.stdout.contains("Memory processed"));
    until("memory flows", jobs)?;
    // Where the guest will be when that has ended.
    let output = lab.exec(&target, &["kvmha", "migrate", "vm1", &third, "--plain"], LIMIT)?;
    ensure!(output.code == Some(0) && output.stderr.contains("waiting for its end"), "{output:?}");
    guest.clear()?;
    stage.settle()?;
    guest.is_on(&third)?;
    stage.no_failures()?;
    guest.end(1).map(drop)
}

/// Somebody rules the target out while the guest moves there: Pacemaker starts it elsewhere, and the command does not wait for what will not be.
pub fn overruled(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=1", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let mut command = lab.enter(&source, &["kvmha", "migrate", "vm1", &target, "--plain"], Terminal::None)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let jobs =
        || lab.exec(&source, &["virsh", "-q", "domjobinfo", "vm1"], LIMIT).is_ok_and(|output| output.stdout.contains("Memory processed"));
    until("memory flows", jobs)?;
    let never = format!("<rsc_location id=\"never\" rsc=\"vm1\" node=\"{target}\" score=\"-INFINITY\"/>");
    lab.check(&stage.speaker()?, &["cibadmin", "--create", "--scope", "constraints", "--xml-text", &never], LIMIT)?;
    lab.check(&source, &["virsh", "-q", "migrate-setspeed", "vm1", "1000"], LIMIT)?;
    let code = wait_end(&mut child, LIMIT).context("the command does not end")?.code();
    ensure!(code == Some(1), "code {code:?}");
    stage.settle()?;
    ensure!(guest.node()? != target, "it is on {target}");
    ensure!(!constraints(&stage)?.contains("cli-prefer"), "a constraint is left");
    lab.check(&stage.speaker()?, &["cibadmin", "--delete", "--xml-text", "<rsc_location id=\"never\"/>"], LIMIT)?;
    stage.settle()?;
    let boots = guest.watcher.snapshot().boots().len();
    guest.end(boots).map(drop)
}

/// Pacemaker loses sight of a guest: it is to go elsewhere while it moves to a node to which it has moved before. Pacemaker takes the old
/// migrate_from for the new move's, and, since a stop came after that, the guest for gone from there (`unpack_migrate_to_success` in its
/// `lib/pengine/unpack.c`): it starts it elsewhere, without a stop. The starts are refused, until that of the node that it has come to.
pub fn lost_sight_of(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed_with(&stage, "vm1", "migration_speed=10", OPERATIONS)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let third = lab.node_names().into_iter().find(|node| ![&source, &target].contains(&node)).context("no node")?;
    let wish = |node: &str| -> Result<()> {
        let constraint = format!("<constraints><rsc_location id=\"wish\" rsc=\"vm1\" node=\"{node}\" score=\"INFINITY\"/></constraints>");
        let words = ["cibadmin", "--modify", "--allow-create", "--scope", "constraints", "--xml-text", &constraint];
        lab.check(&stage.speaker()?, &words, LIMIT).map(drop)
    };
    for node in [&target, &source] {
        wish(node)?;
        stage.wait(|seen| seen.runs_on("vm1") == Some(node))?;
        stage.settle()?;
    }
    wish(&target)?;
    let jobs =
        || lab.exec(&source, &["virsh", "-q", "domjobinfo", "vm1"], LIMIT).is_ok_and(|output| output.stdout.contains("Memory processed"));
    until("memory flows", jobs)?;
    wish(&third)?;
    let reason = stage.failure("vm1", "start_0")?;
    ensure!(reason.starts_with(&format!("start of vm1 refused: vm1 is on {target}, running")), "{reason}");
    stage.settle()?;
    ensure!(guest.node()? == target, "Pacemaker does not know where it is");
    guest.is_on(&target)?;
    guest.goes_on()?;
    guest.boots(1)?;
    lab.check(&stage.speaker()?, &["cibadmin", "--delete", "--xml-text", "<rsc_location id=\"wish\"/>"], LIMIT)?;
    stage.settle()?;
    guest.end(1).map(drop)
}

/// A node leaves the cluster, nobody fences it, and its guest runs on: the cluster would start a second one.
pub fn left_and_runs(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let node = guest.node()?;
    stage.check("pcs property set stonith-enabled=false")?;
    stage.settle()?;
    lab.kill(&node, "corosync")?;
    let reason = stage.failure("vm1", "start_0")?;
    ensure!(reason.starts_with(&format!("start of vm1 refused: vm1 is on {node}, running")), "{reason}");
    guest.is_on(&node)?;
    // pacemakerd tries to join it again. Who is not there yet would be fenced.
    lab.start(&node, "corosync")?;
    stage.all_online()?;
    stage.check("pcs property set stonith-enabled=true")?;
    stage.wait(|seen| seen.runs_on("vm1") == Some(&node))?;
    stage.settle()?;
    guest.is_on(&node)?;
    guest.goes_on()?;
    guest.end(1).map(drop)
}

/// A move that cannot work is not asked for: no failed action, no restart.
pub fn refused_before(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let guest = Guest::placed(&stage, "vm1")?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    lab.kill(&target, "libvirtd")?;
    let output = lab.exec(&source, &["kvmha", "migrate", "vm1", &target], LIMIT);
    let back = lab.start(&target, "libvirtd");
    let output = output?;
    back?;
    ensure!(output.code == Some(1) && output.stderr.contains("cannot be moved"), "{output:?}");
    let output = lab.exec(&source, &["kvmha", "migrate", "nobody", &target], LIMIT)?;
    ensure!(output.code == Some(1) && output.stderr.contains("no resource nobody"), "{output:?}");
    stage.settle()?;
    guest.is_on(&source)?;
    stage.no_failures()?;
    guest.end(1).map(drop)
}

/// `op migrate_to on-fail=block`: a move that fails leaves the guest alone, and a clean-up gives it back to Pacemaker, without a restart.
pub fn blocked_and_healed(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    let operations = OPERATIONS.replace("migrate_to timeout=120s", "migrate_to timeout=30s on-fail=block");
    let guest = Guest::placed_with(&stage, "vm1", "", &operations)?;
    let (source, target) = (guest.node()?, guest.other_node()?);
    let fences = stage.fences();
    lab.kill(&target, "libvirtd")?;
    guest.request_move(&target)?;
    stage.failure("vm1", "migrate_to_0")?;
    lab.start(&target, "libvirtd")?;
    // In the log: of a move Pacemaker 2.1.5 does not keep the reason.
    let log = stage.log(&source)?;
    ensure!(log.contains("vm1 still runs here, not moved to"), "no reason: {log}");
    stage.settle()?;
    guest.is_on(&source)?;
    guest.goes_on()?;
    guest.boots(1)?;
    guest.clear()?;
    stage.check("crm_resource --cleanup --resource vm1")?;
    stage.wait(|seen| seen.runs_on("vm1") == Some(&source) && seen.failures.is_empty())?;
    stage.settle()?;
    guest.goes_on()?;
    // And now it goes.
    guest.move_to(&target)?;
    stage.settle()?;
    guest.is_on(&target)?;
    promised!(stage.fences() == fences, "a node was fenced");
    guest.end(1).map(drop)
}
