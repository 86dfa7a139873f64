//! What is in the way of a move is named before the guest is touched; and what was moved can be looked up.

use crate::stage::{HERE, Resource, SOON, THERE};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::promised;
use std::time::Duration;

fn mover<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    Ok(Resource::empty(lab, name)?.with("migration_transport", "tcp").with("migrate_options", "--unsafe"))
}

fn refused(guest: &Resource, says: &[&str]) -> Result<()> {
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    let before = guest.emulators(HERE)?;
    guest
        .call_with(HERE, "migrate_to", 30, &target)?
        .says(1, &["still runs here, not moved to"])?
        .says(1, says)?
        .at_once(Duration::from_secs(15))?;
    promised!(guest.emulators(HERE)? == before && !before.is_empty(), "the guest was touched");
    guest.absent(THERE)
}

/// `kvmha check` on the source: code and output.
fn check(guest: &Resource, more: &[&str]) -> Result<(Option<i32>, String)> {
    let config = format!("/srv/vms/{}.xml", guest.instance);
    let mut words =
        vec!["kvmha", "check", config.as_str(), "--to", THERE, "--set", "migration_transport=tcp", "--set", "migrate_options=--unsafe"];
    words.extend(more);
    let output = guest.lab.exec(HERE, &words, SOON)?;
    Ok((output.code, output.stdout + &output.stderr))
}

/// Another guest there has this one's UUID; a definition there has its name and another UUID.
pub fn name_and_uuid(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "original")?;
    guest.begin(HERE)?;
    let double = Resource::empty(lab, "double")?;
    let uuid = guest.virsh(HERE, "domuuid", &[])?;
    let old = double_uuid(&double)?;
    double.edit(|text| text.replace(&old, &uuid))?;
    lab.check(THERE, &["virsh", "define", "/srv/vms/double.xml"], SOON)?;
    refused(&guest, &["UUID", "double"])?;
    let (code, text) = check(&guest, &[])?;
    ensure!(code == Some(1) && text.contains("refuse") && text.contains("double"), "code {code:?}: {text}");
    lab.check(THERE, &["virsh", "undefine", "double"], SOON)?;
    let twin = Resource::empty(lab, "twin")?;
    twin.edit(|text| text.replace("<name>twin<", "<name>original<"))?;
    lab.check(THERE, &["virsh", "define", "/srv/vms/twin.xml"], SOON)?;
    refused(&guest, &["another guest called original"])?;
    lab.check(THERE, &["virsh", "undefine", "original"], SOON)?;
    let (code, text) = check(&guest, &[])?;
    ensure!(code == Some(0) && !text.contains("refuse"), "code {code:?}: {text}");
    Ok(())
}

fn double_uuid(guest: &Resource) -> Result<String> {
    let text = std::fs::read_to_string(guest.lab.guest_definition(&guest.instance))?;
    let rest = text.split_once("<uuid>").context("no UUID")?.1;
    Ok(rest.split_once("</uuid>").context("no UUID")?.0.to_owned())
}

/// A network that only the source has, and one that is not active at the target.
pub fn network(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "wired")?;
    guest.edit(|text| text.replace("</devices>", "<interface type='network'><source network='lan'/></interface></devices>"))?;
    let network = "<network><name>lan</name><forward mode='bridge'/><bridge name='lo'/></network>";
    for node in [HERE, THERE] {
        lab.check(node, &["sh", "-c", &format!("echo \"{network}\" >/run/lan.xml")], SOON)?;
    }
    let (code, text) = check(&guest, &["--json"])?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("no JSON")?;
    let checks = answer["checks"].as_array().context("no checks")?;
    let lan = checks.iter().find(|check| check["name"] == "network").context("the network was not looked at")?;
    ensure!(code == Some(1) && lan["verdict"] == "refuse" && answer["verdict"] == "refuse", "code {code:?}: {text}");
    lab.check(THERE, &["virsh", "net-define", "/run/lan.xml"], SOON)?;
    let (code, text) = check(&guest, &[])?;
    ensure!(code == Some(1) && text.contains("lan is not active"), "code {code:?}: {text}");
    lab.check(THERE, &["virsh", "net-start", "lan"], SOON)?;
    let (code, text) = check(&guest, &[])?;
    ensure!(code == Some(0) && text.contains("lan is active"), "code {code:?}: {text}");
    lab.check(THERE, &["virsh", "net-destroy", "lan"], SOON)?;
    lab.check(THERE, &["virsh", "net-undefine", "lan"], SOON)?;
    Ok(())
}

/// A machine type that the target's emulator has not got, and a target that is not there.
pub fn machine_and_target(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "machinist")?;
    guest.edit(|text| text.replace("machine='pc'", "machine='pc-i440fx-99.9'"))?;
    let (code, text) = check(&guest, &[])?;
    ensure!(code == Some(1) && text.contains("machine"), "code {code:?}: {text}");
    let output =
        lab.exec(HERE, &["kvmha", "check", "/srv/vms/machinist.xml", "--to", "nowhere", "--set", "migration_transport=tcp"], SOON)?;
    ensure!(output.code == Some(1) && output.stdout.contains("refuse"), "{output:?}");
    for (words, code) in [(vec!["--set", "migration_transport"], 1), (vec!["--set", "migration_policy=hope"], 1), (vec!["--unheard-of"], 2)]
    {
        let (said, text) = check(&guest, &words)?;
        ensure!(said == Some(code), "{words:?}: code {said:?}: {text}");
    }
    Ok(())
}

/// A disk on a file system that libvirt takes for this host's own: `--unsafe`, or no move; said before the guest is touched.
pub fn unsafe_place(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "homely")?.with("migrate_options", "");
    guest.begin(HERE)?;
    refused(&guest, &["storage: vda", "unsafe"])?;
    let (code, text) = check(&guest, &["--set", "migrate_options="])?;
    ensure!(code == Some(1) && text.contains("unsafe"), "code {code:?}: {text}");
    Ok(())
}

/// What is under way with the guest, for which libvirt moves nothing: a copy of a disk that is ready and was never ended, a snapshot of
/// which only the note is left, a backup. A backup that ends is waited for.
pub fn jobs(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "laden")?;
    guest.begin(HERE)?;
    let is_refused = |says: &str| -> Result<()> {
        refused(&guest, &["job: ", says])?;
        let (code, text) = check(&guest, &[])?;
        ensure!(code == Some(1) && text.contains(says), "code {code:?}: {text}");
        Ok(())
    };
    guest.virsh(HERE, "blockcopy", &["vda", "/srv/vms/laden.copy", "--format", "raw", "--wait"])?;
    is_refused("vda has a block job")?;
    guest.virsh(HERE, "blockjob", &["vda", "--abort"])?;
    // Its client never ends a pull.
    let backup = "<domainbackup mode='pull'><server transport='unix' socket='/run/laden.nbd'/><disks><disk name='vda' backup='yes' type='file'>\
                  <scratch file='/srv/vms/laden.scratch'/></disk></disks></domainbackup>";
    lab.check(HERE, &["sh", "-c", &format!("echo \"{backup}\" >/run/backup.xml")], SOON)?;
    guest.virsh(HERE, "backup-begin", &["/run/backup.xml"])?;
    is_refused("a backup is under way")?;
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    std::thread::scope(|scope| -> Result<()> {
        let ends = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            guest.virsh(HERE, "domjobabort", &[])
        });
        guest.call_with(HERE, "migrate_to", 60, &target)?.is(0)?;
        ends.join().map_err(|_| anyhow::anyhow!("panicked"))?.map(drop)
    })?;
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.end(THERE, 60)?;
    guest.begin(HERE)?;
    guest.virsh(HERE, "snapshot-create-as", &["one", "--disk-only", "--diskspec", "vda,file=/srv/vms/laden.one"])?;
    is_refused("guest with snapshots")?;
    guest.virsh(HERE, "snapshot-delete", &["one", "--metadata"])?;
    let (code, text) = check(&guest, &[])?;
    ensure!(code == Some(0) && text.contains("none is under way"), "code {code:?}: {text}");
    Ok(())
}

/// Each move is kept with its numbers, and listed.
pub fn records(lab: &Lab) -> Result<()> {
    let guest = mover(lab, "recorded")?;
    guest.begin(HERE)?;
    let target = |node| [("OCF_RESKEY_CRM_meta_migrate_target", node), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    guest.call_with(HERE, "migrate_to", 30, &target("nowhere"))?.is(1)?;
    guest.call_with(HERE, "migrate_to", 60, &target(THERE))?.is(0)?;
    let listed = lab.check(HERE, &["kvmha", "migrations", "recorded", "--json"], SOON)?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    ensure!(listed[0]["moved"] == false && listed[0]["reason"].as_str().is_some_and(|text| text.contains("nowhere")), "{listed}");
    ensure!(listed[1]["moved"] == true && listed[1]["to"] == THERE, "{listed}");
    for number in ["total_ms", "pause_ms", "bytes", "passes"] {
        ensure!(listed[1][number].as_u64().is_some_and(|number| number > 0), "no {number}: {listed}");
    }
    let table = lab.check(HERE, &["kvmha", "migrations"], SOON)?;
    ensure!(table.contains("PAUSE MS") && table.contains("recorded") && table.contains("moved"), "{table}");
    ensure!(lab.check(HERE, &["kvmha", "migrations", "nobody"], SOON)?.lines().count() == 1, "a guest that never moved is listed");
    Ok(())
}
