//! What changes in the configuration, and what must not.

use anyhow::{Context, Result, ensure};
use lab::placed::{Guest, OPERATIONS, PARAMETERS, until};
use lab::scene::Stage;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// A parameter that only matters for the next move does not cost the guest a restart.
pub fn reload(stage: &Stage) -> Result<String> {
    const TOLD: &str = "VirtualDomain(vm1)";
    let guest = Guest::placed(stage, "vm1")?;
    let node = guest.node()?;
    let reloads = || {
        let log = stage.log(&node).unwrap_or_default();
        log.lines().filter(|line| line.contains(TOLD) && line.contains("parameters reloaded")).count()
    };
    let before = reloads();
    stage.check("pcs resource update vm1 migration_speed=100")?;
    until("reload-agent is called", || reloads() > before)?;
    ensure!(guest.runs(1)? == node, "it is somewhere else");
    stage.no_failures()?;
    // And it works with the new value.
    let target = guest.other_node()?;
    guest.move_to(&target)?;
    guest.runs(1)?;
    stage.no_failures()?;
    guest.end(1)?;
    Ok(String::new())
}

/// A resource gets another name while Pacemaker keeps its hands off: the guest is the new one's then, and the stop of what is left of the old
/// one does not end it.
pub fn renamed(stage: &Stage) -> Result<String> {
    let guest = Guest::placed(stage, "vm1")?;
    let node = guest.node()?;
    stage.check("pcs property set maintenance-mode=true")?;
    stage.check("cibadmin --delete --xpath //primitive[@id=\"vm1\"]")?;
    let line = format!(
        "pcs resource create vm2 ocf:kvmha:VirtualDomain config=/srv/vms/vm1.xml {PARAMETERS} {OPERATIONS} meta allow-migrate=true"
    );
    stage.check(&line)?;
    stage.wait(|seen| seen.runs_on("vm2") == Some(node.as_str())).context("the probe of the new name does not find the guest")?;
    stage.check("pcs property set maintenance-mode=false")?;
    stage.settle()?;
    stage.wait(|seen| seen.resources.iter().all(|resource| resource.id != "vm1")).context("the old name is not forgotten")?;
    stage.no_failures()?;
    guest.goes_on()?;
    guest.boots(1)?;
    guest.is_on(&node)?;
    // It is the new one's in earnest: with that it ends.
    guest.end_as("vm2", 1)?;
    Ok(String::new())
}

/// Nothing changes, so nothing is written: neither configuration nor status.
pub fn quiet(stage: &Stage) -> Result<String> {
    const MONITORS: usize = 3;
    let shared = stage.lab.layout().shared();
    // A monitor that finds nothing new leaves no trace; so it calls something that does.
    let (script, trace) = (shared.join("count"), shared.join("count.log"));
    fs::write(&script, "#!/bin/sh\necho >>/srv/vms/count.log\n")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let operations = "op start timeout=60s op stop timeout=60s op monitor interval=5s timeout=30s";
    let guest = Guest::placed_with(stage, "vm1", "monitor_scripts=/srv/vms/count", operations)?;
    let monitors = || fs::read_to_string(&trace).map_or(0, |text| text.lines().count());
    // The first monitor's result is news.
    let first = monitors();
    until("monitor runs", || monitors() > first)?;
    stage.settle()?;
    let (before, begin) = (version(stage)?, monitors());
    until("monitor runs", || monitors() >= begin + MONITORS)?;
    let after = version(stage)?;
    ensure!(before == after, "the CIB has changed from {before} to {after}");
    guest.end(1)?;
    fs::remove_file(script)?;
    fs::remove_file(trace)?;
    Ok(format!("{MONITORS} monitors, CIB {after} throughout"))
}

/// What every change of the CIB raises.
fn version(stage: &Stage) -> Result<String> {
    let text = stage.check("cibadmin --query")?;
    let document = roxmltree::Document::parse(&text)?;
    let word = |name| document.root_element().attribute(name).with_context(|| format!("the CIB has no {name}"));
    Ok(format!("{}.{}.{}", word("admin_epoch")?, word("epoch")?, word("num_updates")?))
}
