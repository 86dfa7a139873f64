//! Parameters in an administrator's hands: what the tools say of wrong ones, and what a change does to a guest that runs.

use crate::cluster::{OURS, Placed, all_well, cib, placed, settle, speaker};
use crate::stage::PATIENCE;
use anyhow::{Context, Result, ensure};
use lab::process::wait_until;
use lab::promised;
use lab::{Lab, Watcher};
use std::time::Duration;

/// Runs words; both outputs, and whether it succeeded.
fn said(lab: &Lab, words: &[&str]) -> Result<(bool, String)> {
    let output = lab.exec(&speaker(lab)?, words, PATIENCE)?;
    Ok((output.ok(), format!("{}\n{}", output.stdout, output.stderr)))
}

/// Wrong values are refused with our own text, and names that there are not by pcs itself; nothing gets into the CIB.
pub fn wrong_values(lab: &Lab) -> Result<()> {
    let before = cib(lab)?;
    let create = ["pcs", "resource", "create", "wrong", OURS];
    for (more, text) in [
        (&["config=vm.xml", "--agent-validation"][..], "config: \"vm.xml\" is not an absolute path"),
        (&["config=/x.xml", "pause_policy=panic", "--agent-validation"], "pause_policy: \"panic\" is none of ignore, degraded, fail"),
        (&["config=/x.xml", "migrate_options=--offline", "--agent-validation"], "--offline is refused: only running guests are moved"),
        (&["config=/x.xml", "stateless=1", "--agent-validation"], "stateless: needs backingfile"),
        (&["config=/x.xml", "configs=x"], "invalid resource option 'configs'"),
        (&[], "required resource option 'config' is missing"),
    ] {
        let (fine, text_seen) = said(lab, &[&create[..], more].concat())?;
        ensure!(!fine && text_seen.contains(text), "pcs resource create {more:?}: {text_seen}");
    }
    let validate = ["crm_resource", "--validate", "--class", "ocf", "--provider", "kvmha", "--agent", "VirtualDomain", "config=/x.xml"];
    for (value, text) in
        [("force_stop=Yes", "force_stop: \"Yes\" is no boolean"), ("snapshot=here", "snapshot: \"here\" is not an absolute path")]
    {
        let (fine, seen) = said(lab, &[&validate[..], &[value]].concat())?;
        ensure!(!fine && seen.contains(text), "crm_resource --validate {value}: {seen}");
    }
    let (fine, seen) = said(lab, &validate)?;
    ensure!(fine, "crm_resource --validate: {seen}");
    ensure!(cib(lab)? == before, "the CIB was changed");
    let (fine, seen) = said(lab, &["crm", "ra", "info", OURS])?;
    ensure!(
        fine && seen.contains("save_config_on_stop (boolean, [false]): Keep changes of the running guest in config"),
        "crm ra info: {seen}"
    );
    Ok(())
}

/// Every parameter but those that say which guest it is, all at once: the guest does not notice. A wrong one does not stop it either, and is
/// shown.
pub fn reloaded(lab: &Lab) -> Result<()> {
    placed(lab, &["reloaded"], &[], OURS)?;
    let guests = Placed::all(lab, &["reloaded"])?;
    let watcher = Watcher::start(&lab.guest_image("reloaded"))?;
    let update = ["pcs", "resource", "update", "reloaded"];
    let values = [
        "force_stop=false",
        "migration_transport=tcp",
        "migration_user=root",
        "migration_downtime=100",
        "migration_speed=100",
        "migration_network_suffix=-mig",
        "migrateuri=tcp://%n",
        "migrate_options=--unsafe --auto-converge",
        "monitor_scripts=/bin/true",
        "autoset_utilization_cpu=false",
        "autoset_utilization_host_memory=false",
        "autoset_utilization_hv_memory=false",
        "unset_utilization_cpu=true",
        "unset_utilization_host_memory=true",
        "unset_utilization_hv_memory=true",
        "migrateport=49200",
        "remoteuri=qemu+tcp://%n/system",
        "save_config_on_stop=true",
        "sync_config_on_stop=false",
        "snapshot=/srv/vms",
        "backingfile=/srv/vms/base.qcow2",
        "stateless=true",
        "copyindirs=/etc",
        "shutdown_mode=acpi",
        "start_resources=true",
        "pause_policy=fail",
        "outage_policy=stop",
        "outage_delay=5",
        "migration_check_interval=60",
        "guest_agent_failures=3",
        "migration_policy=converge",
        "migration_storage_check=proven",
        "migration_network=10.77.1.0/24",
    ];
    let (fine, seen) = said(lab, &[&update[..], &values].concat())?;
    ensure!(fine, "pcs resource update: {seen}");
    all_well(lab, &guests, OURS)?;
    let (fine, seen) = said(lab, &[&update[..], &["migration_speed=fast"]].concat())?;
    ensure!(fine, "pcs resource update: {seen}");
    settle(lab)?;
    let shown = || {
        said(lab, &["cibadmin", "--query", "--xpath", "//lrm_resource[@id='reloaded']"]).is_ok_and(|(_, text)| {
            text.contains("rc-code=\"190\"") && text.contains("migration_speed: &quot;fast&quot; is no whole number")
        })
    };
    ensure!(wait_until(PATIENCE, Duration::from_millis(200), shown), "the wrong value is not shown: {:?}", lab.membership());
    promised!(guests[0].emulator.alive(), "a wrong value has stopped the guest");
    let (fine, seen) = said(lab, &[&update[..], &["migration_speed=1000"]].concat())?;
    ensure!(fine, "pcs resource update: {seen}");
    settle(lab)?;
    let node = lab.membership()?.runs_on("reloaded").context("it does not run")?.to_owned();
    promised!(node == guests[0].node && guests[0].emulator.alive(), "it was restarted");
    promised!(watcher.wait_beat(PATIENCE) && watcher.snapshot().boots().len() == 1, "it was booted again");
    // For its end: nothing is to be saved.
    said(lab, &[&update[..], &["force_stop=true", "snapshot="]].concat())?;
    settle(lab)
}
