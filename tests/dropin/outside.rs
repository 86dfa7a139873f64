//! `kvmha adopt --from-libvirt`: a guest that libvirt runs comes under the cluster, and does not stop.

use crate::cluster::{check, cib, configure, primitive, settle};
use crate::stage::{HERE, PATIENCE, Resource};
use anyhow::{Result, ensure};
use lab::process::wait_until;
use lab::promised;
use lab::scene::LIMIT;
use lab::{Lab, Watcher};
use std::time::Duration;

/// A guest that libvirt runs outside the cluster: the commands that are printed put it there, word by word, and it runs on.
pub fn comes_in(lab: &Lab) -> Result<()> {
    for (name, tool, other) in [("outpcs", "pcs ", "crm "), ("outcrm", "crm ", "pcs ")] {
        let guest = Resource::new(lab, name)?;
        let adopt = || lab.exec(HERE, &["kvmha", "adopt", "--from-libvirt", name], PATIENCE);
        let refused = |reason: &str| -> Result<()> {
            let output = adopt()?;
            ensure!(!output.ok() && output.stderr.contains(reason), "not {reason:?}: {}", output.stderr);
            Ok(())
        };
        refused("has no guest")?;
        lab.check(HERE, &["virsh", "-q", "define", &format!("/srv/vms/{name}.xml")], PATIENCE)?;
        refused("shut off")?;
        lab.check(HERE, &["virsh", "-q", "start", name], PATIENCE)?;
        lab.check(HERE, &["virsh", "-q", "autostart", name], PATIENCE)?;
        let watcher = Watcher::start(&lab.guest_image(name))?;
        ensure!(watcher.wait_beat(LIMIT), "it does not beat");
        // What lies where the definition is to be may be newer than what runs.
        refused(&format!("/srv/vms/{name}.xml is there already"))?;
        let (definition, elsewhere) = (lab.guest_definition(name), lab.guest_definition(name).with_file_name("elsewhere.xml"));
        std::fs::rename(&definition, &elsewhere)?;
        // A resource that means it, by a definition in a file of another name; it leaves the guest alone.
        check(lab, "pcs property set maintenance-mode=true")?;
        let unmanaged = "<nvpair id='e-m' name='is-managed' value='false'/>";
        configure(lab, &format!("<resources>{}</resources>", primitive("elsewhere", "kvmha", unmanaged)))?;
        refused("in the cluster already: resource elsewhere has config=/srv/vms/elsewhere.xml")?;
        check(lab, "pcs resource delete --force elsewhere")?;
        check(lab, "crm_resource --refresh --force --resource elsewhere")?;
        check(lab, "pcs property set maintenance-mode=")?;
        settle(lab)?;
        std::fs::remove_file(&elsewhere)?;
        if name == "outpcs" {
            costs_the_guest_something(lab, refused)?;
        }
        let before = cib(lab)?;
        let script = adopt()?.success("adopt --from-libvirt")?;
        ensure!(cib(lab)? == before, "printing has changed the CIB");
        let chosen: Vec<&str> = script.lines().filter(|line| !line.starts_with('#') && !line.starts_with(other)).collect();
        ensure!(chosen.iter().filter(|line| line.starts_with(tool)).count() == 2, "{script}");
        // The lab's nodes have no ssh; who comes later is moved as those that are there.
        let shared = script.contains("migration_transport=tcp") && script.contains("as the other guests of the cluster are");
        ensure!(shared || name == "outpcs", "{script}");
        let chosen = chosen.join("\n").replace("migration_transport=ssh", "migration_transport=tcp");
        lab.check(HERE, &["sh", "-ec", &chosen], LIMIT)?;
        settle(lab)?;
        let seen = lab.membership()?;
        ensure!(seen.runs_on(name) == Some(HERE) && seen.failures.is_empty(), "{seen:?}");
        ensure!(guest.virsh(HERE, "dominfo", &[])?.contains("Autostart:      disable"), "libvirt would still start it");
        refused("already")?;
        check(lab, &format!("pcs resource update {name} migration_speed=50"))?;
        settle(lab)?;
        promised!(watcher.wait_beat(LIMIT) && watcher.snapshot().boots().len() == 1, "it was restarted");
        ensure!(!cib(lab)?.contains("name=\"is-managed\" value=\"false\""), "Pacemaker does not look after it");
    }
    Ok(())
}

/// Where Pacemaker would stop or move what comes under it, that is said, and nothing printed.
fn costs_the_guest_something(lab: &Lab, refused: impl Fn(&str) -> Result<()>) -> Result<()> {
    let ban = format!("<rsc_location id='out' rsc-pattern='^out' node='{HERE}' score='-INFINITY'/>");
    for (begin, reason, end) in [
        (&["pcs", "node", "standby", HERE][..], "is in standby: crm_attribute --node", &["pcs", "node", "unstandby", HERE][..]),
        (
            &["pcs", "property", "set", "symmetric-cluster=false"],
            "(symmetric-cluster=false): pcs constraint location",
            &["pcs", "property", "set", "symmetric-cluster="],
        ),
        (
            &["cibadmin", "--create", "--scope", "constraints", "--xml-text", &ban],
            "by a constraint with a pattern",
            &["cibadmin", "--delete", "--xml-text", "<rsc_location id='out'/>"],
        ),
    ] {
        lab.check(HERE, begin, PATIENCE)?;
        // Not after the cluster has settled: an asymmetric one has no fence device.
        let mut said = Ok(());
        wait_until(LIMIT, Duration::from_secs(1), || {
            said = refused(reason);
            said.is_ok()
        });
        said?;
        lab.check(HERE, end, PATIENCE)?;
        settle(lab)?;
    }
    Ok(())
}
