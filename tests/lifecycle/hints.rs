//! The definition goes or changes under a running guest; the state file is lost or lies.

use crate::stage::{HERE, Resource, THERE};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use std::fs;

/// The file is gone while the guest runs: that is no reason to lose sight of the guest.
pub fn config_lost_while_running(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "lost")?;
    let boot = guest.boot(HERE)?;
    let file = lab.guest_definition("lost");
    fs::rename(&file, file.with_extension("away"))?;
    for action in ["recurring", "monitor", "status"] {
        guest.call(HERE, action, 20)?.is(0)?;
    }
    guest.beats(boot)?;
    guest.end(HERE, 60)?;
    // Nothing runs any more: and now nothing is known.
    guest.call(HERE, "monitor", 20)?.is(7)?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    guest.call(HERE, "start", 20)?.says(5, &["/srv/vms/lost.xml"])?;
    Ok(())
}

/// As before, and the state file is gone too: the guest is named like its file.
pub fn config_and_record_lost(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "adrift")?;
    guest.begin(HERE)?;
    let file = lab.guest_definition("adrift");
    fs::rename(&file, file.with_extension("away"))?;
    fs::remove_file(guest.record(HERE)?)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.call(HERE, "monitor", 20)?.is(0)?;
    guest.with("force_stop", "true").end(HERE, 30)?;
    Ok(())
}

/// A stop without any parameter, as Pacemaker calls it for what was deleted from its configuration while it ran and was only found by a probe.
pub fn no_parameters_at_a_stop(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "bereft")?;
    guest.begin(HERE)?;
    let mut words = guest.with("force_stop", "true").words(HERE, "stop", 30, &[]);
    words.retain(|word| !word.starts_with("OCF_RESKEY_config=") && !word.starts_with("OCF_RESKEY_force_stop="));
    let output = lab.exec(HERE, &words, std::time::Duration::from_secs(60))?;
    ensure!(output.code == Some(0), "{output:?}");
    guest.absent(HERE)?;
    // Nothing is known any more.
    let output = lab.exec(HERE, &words, std::time::Duration::from_secs(60))?;
    ensure!(output.code == Some(6) && output.stderr.contains("config: required parameter not set"), "{output:?}");
    Ok(())
}

/// The file was never there, as on a node that the resource is not for.
pub fn config_never_there(lab: &Lab) -> Result<()> {
    let guest = Resource::unmade(lab, "nowhere", "/srv/vms/nowhere.xml");
    for node in [HERE, THERE] {
        guest.call(node, "stop", 20)?.is(0)?;
        guest.call(node, "monitor", 20)?.is(7)?;
        guest.call(node, "start", 20)?.says(5, &["/srv/vms/nowhere.xml", "No such file"])?;
        guest.call(node, "migrate_from", 20)?.is(1)?;
        guest.call_with(node, "migrate_to", 20, &[("OCF_RESKEY_CRM_meta_migrate_target", "node2")])?.is(1)?;
    }
    Ok(())
}

/// The file is there, and not understood as a whole: the name in it counts all the same, also where neither file nor resource is called so.
pub fn config_not_understood(lab: &Lab) -> Result<()> {
    let mut guest = Resource::empty(lab, "drift")?.with("config", "/srv/vms/101.xml").with("force_stop", "true");
    guest.instance = "alias".to_owned();
    let good = fs::read_to_string(lab.guest_definition("drift"))?;
    let file = lab.layout().shared().join("101.xml");
    let behind_the_name = good.find("</name>").context("no name")? + "</name>".len();
    let texts = [
        // libvirt takes this one.
        good.replace("</devices>", "</devices>\n<qemu:commandline/>"),
        good[..behind_the_name].to_owned(),
    ];
    for text in texts {
        fs::write(&file, &text)?;
        lab.check(HERE, &["virsh", "-q", "create", "/srv/vms/drift.xml"], crate::stage::SOON)?;
        // Started by hand: nobody here has seen it.
        ensure!(!guest.record(HERE)?.exists(), "there is a state file");
        for action in ["monitor", "recurring"] {
            guest.call(HERE, action, 20)?.is(0)?;
        }
        fs::remove_file(guest.record(HERE)?)?;
        guest.end(HERE, 30)?;
        guest.call(HERE, "monitor", 20)?.is(7)?;
        guest.call(HERE, "stop", 20)?.is(0)?;
        guest.call(HERE, "start", 20)?.says(5, &["not well-formed"])?;
    }
    Ok(())
}

/// The file names another guest now: the one that runs is the one that was started.
pub fn config_names_another(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "before")?.with("config", "/srv/vms/shared.xml");
    let other = Resource::empty(lab, "after")?;
    let file = lab.layout().shared().join("shared.xml");
    fs::copy(lab.guest_definition("before"), &file)?;
    let boot = guest.boot(HERE)?;
    fs::copy(lab.guest_definition("after"), &file)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.beats(boot)?;
    guest.end(HERE, 60)?;
    other.absent(HERE)?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    // From now on it is the other one.
    guest.call(HERE, "start", 60)?.is(0)?;
    guest.absent(HERE)?;
    ensure!(other.lives(HERE), "the file's guest was not started");
    guest.with("force_stop", "true").call(HERE, "stop", 30)?.is(0)?;
    other.absent(HERE)?;
    Ok(())
}

/// The state file is a hint: without it everything works, and it is made again.
pub fn record_lost_or_nonsense(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "hinted")?;
    guest.begin(HERE)?;
    let record = guest.record(HERE)?;
    let good = fs::read_to_string(&record).context("start has written no state file")?;
    ensure!(good.contains("hinted"), "the state file does not name the guest: {good}");
    fs::remove_file(&record)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(fs::read_to_string(&record).ok().as_ref() == Some(&good), "monitor did not write it again");
    for nonsense in ["", "{", "[]", "\0\0\0", "{\"name\":7}"] {
        fs::write(&record, nonsense)?;
        guest.call(HERE, "recurring", 20)?.is(0)?;
        ensure!(fs::read_to_string(&record).ok().as_ref() == Some(&good), "monitor left {nonsense:?}");
    }
    fs::write(&record, "nonsense")?;
    guest.with("force_stop", "true").end(HERE, 30)?;
    Ok(())
}

/// A state file of a guest that was: it says nothing about the one that is, nor about who has its number now.
pub fn record_is_old(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "old")?;
    guest.begin(HERE)?;
    let record = guest.record(HERE)?;
    let old = fs::read_to_string(&record)?;
    guest.with("force_stop", "true").end(HERE, 30)?;
    fs::write(&record, &old)?;
    guest.call(HERE, "recurring", 20)?.is(7)?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    // The number belongs to another process by now; its start time tells.
    let daemon = lab.check(HERE, &["pidof", "libvirtd"], crate::stage::SOON)?;
    let mut parts = old.split("\"pid\":");
    let (head, tail) = (parts.next().unwrap_or_default(), parts.next().context("no pid in the state file")?);
    let rest = tail.split_once(',').context("no start in the state file")?.1;
    fs::write(&record, format!("{head}\"pid\":{},{rest}", daemon.trim()))?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    lab.wait_libvirt(HERE)?;
    ensure!(lab.check(HERE, &["pidof", "libvirtd"], crate::stage::SOON)? == daemon, "stop ended a process that is no emulator");
    Ok(())
}
