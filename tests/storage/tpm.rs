//! The state of an emulated TPM, which each node has for itself unless its folder is shared.

use crate::command::kvmha;
use crate::same::{comes_back, loose, moves, nothing_left};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::process::wait_until;
use lab::stage::{HERE, Resource, SOON, THERE};
use std::time::Duration;

/// Where libvirt keeps the states.
const STATES: &str = "/var/lib/libvirt/swtpm";

/// A node that never had the guest.
const THIRD: &str = "node3";

/// A guest with a TPM.
fn sealed<'a>(lab: &'a Lab, name: &str, backend: &str) -> Result<Resource<'a>> {
    let guest = Resource::empty(lab, name)?;
    let tpm = format!("<tpm model='tpm-tis'><backend type='emulator' version='2.0'{backend}/></tpm></devices>");
    guest.edit(|text| text.replace("</devices>", &tpm))?;
    Ok(loose(&guest))
}

fn uuid(guest: &Resource) -> Result<String> {
    let text = std::fs::read_to_string(guest.lab.guest_definition(&guest.instance))?;
    Ok(text.split_once("<uuid>").and_then(|(_, rest)| rest.split_once('<')).context("no UUID")?.0.to_owned())
}

/// The sum of what the TPM keeps, as it lies on a node; `None` if there is nothing.
fn state(guest: &Resource, node: &str) -> Result<Option<String>> {
    let file = format!("{STATES}/{}/tpm2/tpm2-00.permall", uuid(guest)?);
    let output = guest.lab.exec(node, &["sha256sum", &file], SOON)?;
    Ok(output.ok().then(|| output.stdout.split_whitespace().next().unwrap_or_default().to_owned()))
}

/// What is said of it before a guest is started.
pub fn described(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "sealed")?;
    let tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'></backend></tpm></devices>";
    guest.edit(|text| text.replace("</devices>", tpm))?;
    let uuid = uuid(&guest)?;
    lab.check(HERE, &["mkdir", "-p", &format!("{STATES}/{uuid}")], SOON)?;
    let to = ["storage", "--json", "--to", THERE, "--set", "migration_transport=tcp"];
    let said = || -> Result<serde_json::Value> {
        let (code, text) = kvmha(&guest, &to)?;
        let answer: serde_json::Value = serde_json::from_str(&text).context("no JSON")?;
        ensure!(code == Some(0) && answer["storage"][1]["item"]["role"] == "tpm", "code {code:?}: {text}");
        Ok(answer["storage"][1].clone())
    };
    let tpm = said()?;
    ensure!(tpm["same"]["different"].is_string() && tpm["hazards"].to_string().contains("an empty TPM"), "{tpm}");
    let (code, text) = kvmha(&guest, &["check", "--to", THERE, "--set", "migration_transport=tcp", "--set", "migrate_options=--unsafe"])?;
    ensure!(code == Some(0) && text.contains("/var/lib/libvirt/swtpm is another folder there"), "code {code:?}: {text}");
    guest.edit(|text| text.replace(" version='2.0'>", " version='2.0'><source type='dir' path='/srv/vms/sealed.tpm'/>"))?;
    lab.check(HERE, &["mkdir", "-p", "/srv/vms/sealed.tpm"], SOON)?;
    let tpm = said()?;
    lab.check(HERE, &["rmdir", "/srv/vms/sealed.tpm"], SOON)?;
    ensure!(tpm["same"]["proven"].is_string(), "{tpm}");
    nothing_left(lab)
}

/// It goes with the guest in a move, and stays where it was too. A node that has to start the guest without it makes a new one.
pub fn goes_along(lab: &Lab) -> Result<()> {
    let guest = sealed(lab, "sealed", " persistent_state='yes'")?;
    guest.begin(HERE)?;
    ensure!(state(&guest, HERE)?.is_some(), "it has no TPM");
    moves(&guest, None)?;
    let kept = state(&guest, THERE)?;
    ensure!(kept.is_some() && kept == state(&guest, HERE)?, "the TPM did not come along");
    lab.power_off(THERE)?;
    let outcome = (|| {
        guest.begin(THIRD)?;
        let other = state(&guest, THIRD)?;
        ensure!(other.is_some() && other != kept, "where does it have the TPM from?");
        guest.with("force_stop", "true").end(THIRD, 60)?;
        ensure!(state(&guest, THIRD)?.is_some(), "the state of the TPM was removed");
        Ok(())
    })();
    comes_back(lab)?;
    outcome
}

/// Without `persistent_state` libvirt removes it when the guest ends: said before.
pub fn forgotten(lab: &Lab) -> Result<()> {
    let guest = sealed(lab, "forgetful", "")?;
    let warning = "no persistent_state='yes': libvirt removes the state of the TPM";
    let answer = guest.call_with(HERE, "validate-all", 60, &[("OCF_CHECK_LEVEL", "10")])?.is(0)?;
    ensure!(answer.stderr.contains(warning), "{}", answer.stderr);
    guest.begin(HERE)?;
    ensure!(state(&guest, HERE)?.is_some(), "it has no TPM");
    guest.with("force_stop", "true").end(HERE, 60)?;
    ensure!(state(&guest, HERE)?.is_none(), "it is kept by now: {warning}");
    guest.edit(|text| text.replace("version='2.0'/>", "version='2.0' persistent_state='yes'/>"))?;
    let answer = guest.call_with(HERE, "validate-all", 60, &[("OCF_CHECK_LEVEL", "10")])?.is(0)?;
    ensure!(!answer.stderr.contains("persistent_state"), "{}", answer.stderr);
    Ok(())
}

/// A folder that both nodes have, and that libvirt does not know to be shared: the move is refused, because it would fail and libvirt would
/// remove the state, as the last move here shows.
pub fn of_both_nodes(lab: &Lab) -> Result<()> {
    let guest = sealed(lab, "entwined", " persistent_state='yes'")?;
    for node in [HERE, THERE] {
        lab.check(node, &["sh", "-c", &format!("mkdir -p /srv/vms/states {STATES} && mount --bind /srv/vms/states {STATES}")], SOON)?;
    }
    let outcome = (|| {
        guest.begin(HERE)?;
        ensure!(state(&guest, THERE)?.is_some(), "the folder is not shared");
        let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
        guest
            .call_with(HERE, "migrate_to", 60, &target)?
            .says(1, &["still runs here, not moved to", "storage: tpm", "would fail, and cost the TPM its state"])?;
        ensure!(state(&guest, HERE)?.is_some(), "the state of the TPM is gone");
        guest
            .with("migration_storage_check", "off")
            .call_with(HERE, "migrate_to", 60, &target)?
            .says(1, &["still runs here, not moved to"])?;
        // The target cleans up after the source has said how it ended.
        let removed = wait_until(SOON, Duration::from_millis(100), || state(&guest, HERE).is_ok_and(|state| state.is_none()));
        ensure!(removed, "libvirt keeps it by now: it need not be refused");
        nothing_left(lab)
    })();
    let ended = guest.with("force_stop", "true").call(HERE, "stop", 60)?.is(0).map(drop);
    for node in [HERE, THERE] {
        lab.check(node, &["umount", STATES], SOON)?;
    }
    std::fs::remove_dir_all(lab.layout().shared().join("states"))?;
    outcome.and(ended)
}
