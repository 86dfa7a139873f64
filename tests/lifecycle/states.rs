//! Guests in other states than running, definitions that were left.

use crate::stage::{HERE, Resource, THERE, signal};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::process::Identity;
use lab::promised;
use nix::sys::signal::Signal;
use std::fs;
use std::thread;
use std::time::Duration;

/// A paused guest is there; asking it to shut down is no use.
pub fn paused(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "paused")?;
    let boot = guest.boot(HERE)?;
    guest.virsh(HERE, "suspend", &[])?;
    for action in ["recurring", "monitor", "status", "start"] {
        guest.call(HERE, action, 20)?.is(0)?;
    }
    // What runs in it cannot answer, and that is no fault of its own; a monitor that fails would end it.
    let asked = guest.with("monitor_scripts", "/bin/false");
    for action in ["recurring", "monitor", "start"] {
        asked.call(HERE, action, 20)?.is(0)?;
    }
    ensure!(guest.virsh(HERE, "domstate", &[])? == "paused", "an action resumed what a person had paused");
    guest.virsh(HERE, "resume", &[])?;
    asked.call(HERE, "recurring", 20)?.says(1, &["/bin/false"])?;
    guest.beats(boot)?;
    guest.virsh(HERE, "suspend", &[])?;
    guest.end(HERE, 120)?.at_once(Duration::from_secs(60))?;
    Ok(())
}

/// The definition asks for a guest that stays when it has crashed.
pub fn crashed(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "crashed")?;
    guest.edit(|text| {
        let device = "<panic model='isa'/></devices>";
        text.replace("<on_crash>destroy<", "<on_crash>preserve<").replace("</devices>", device)
    })?;
    guest.boot(HERE)?;
    // What the guest's kernel would do in a panic: it writes to the port of the device.
    let output = guest.virsh(HERE, "qemu-monitor-command", &["--hmp", "o/b 0x505 1"])?;
    ensure!(output.is_empty(), "the monitor says {output}");
    crate::stage::soon("the guest has crashed", || guest.virsh(HERE, "domstate", &[]).is_ok_and(|state| state == "crashed"))?;
    for action in ["recurring", "monitor", "status"] {
        guest.call(HERE, action, 20)?.says(1, &["crashed"])?;
    }
    guest.call(HERE, "start", 20)?.says(1, &["crashed"])?;
    guest.end(HERE, 120)?.at_once(Duration::from_secs(60))?;
    Ok(())
}

/// A definition that was left from before the cluster: it stays, but the host does not start the guest by itself.
pub fn leftover_definition(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "leftover")?;
    lab.check(HERE, &["virsh", "define", "/srv/vms/leftover.xml"], crate::stage::SOON)?;
    guest.virsh(HERE, "autostart", &[])?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    guest.begin(HERE)?;
    let about = guest.virsh(HERE, "dominfo", &[])?;
    ensure!(about.contains("Autostart:      disable"), "the host would still start it: {about}");
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.with("force_stop", "true").end(HERE, 30)?;
    ensure!(guest.virsh(HERE, "domstate", &[])? == "shut off", "the definition is lost");
    ensure!(guest.virsh(HERE, "dominfo", &[])?.contains("Autostart:      disable"), "autostart is on again");
    guest.call(HERE, "recurring", 20)?.is(7)?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    Ok(())
}

/// As [`leftover_definition`], of one that runs already when the resource is made for it: after a power cut its host would start it beside the copy
/// that the cluster has started elsewhere.
pub fn autostart_of_one_that_runs(lab: &Lab) -> Result<()> {
    for (name, action) in [("taken-a", "monitor"), ("taken-b", "recurring"), ("taken-c", "start")] {
        let guest = Resource::empty(lab, name)?;
        lab.check(HERE, &["virsh", "define", &format!("/srv/vms/{name}.xml")], crate::stage::SOON)?;
        guest.virsh(HERE, "autostart", &[])?;
        guest.virsh(HERE, "start", &[])?;
        guest.call(HERE, action, 20)?.is(0)?;
        let about = guest.virsh(HERE, "dominfo", &[])?;
        ensure!(about.contains("Autostart:      disable"), "the host would still start it after {action}: {about}");
        guest.with("force_stop", "true").end(HERE, 30)?;
        ensure!(guest.virsh(HERE, "domstate", &[])? == "shut off", "the definition is lost");
    }
    Ok(())
}

/// It sleeps by its own power management: it is there, and no action ends it or wakes it but a stop, which has it shut down.
pub fn asleep(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "asleep")?.with("monitor_scripts", "/bin/true");
    let boot = guest.boot(HERE)?;
    sleep(&guest)?;
    let asked = guest.with("monitor_scripts", "/bin/false");
    asked.call(HERE, "recurring", 20)?.says(190, &["pmsuspended"])?;
    for action in ["monitor", "status", "start"] {
        asked.call(HERE, action, 20)?.is(0)?;
    }
    guest.with("pause_policy", "ignore").call(HERE, "recurring", 20)?.is(0)?;
    ensure!(guest.virsh(HERE, "domstate", &[])? == "pmsuspended", "an action woke it");
    guest.virsh(HERE, "dompmwakeup", &[])?;
    crate::stage::soon("it is awake", || guest.virsh(HERE, "domstate", &[]).is_ok_and(|state| state == "running"))?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    // Its kernel did not ask for the sleep, so it begins anew: the machine does so that finds nowhere to go on.
    crate::stage::soon("it beats again", || guest.ring().is_ok_and(|ring| ring.newest.boot != boot))?;
    sleep(&guest)?;
    guest.end(HERE, 120)?.at_once(Duration::from_secs(60))?;
    ensure!(guest.console(HERE)?.contains("power button"), "it was not asked to shut down");
    Ok(())
}

/// Has the guest write to the port of its sleep control, as its kernel would: S3.
fn sleep(guest: &Resource) -> Result<()> {
    let output = guest.virsh(HERE, "qemu-monitor-command", &["--hmp", "o/w 0x604 0x2400"])?;
    ensure!(output.is_empty(), "the monitor says {output}");
    crate::stage::soon("it sleeps", || guest.virsh(HERE, "domstate", &[]).is_ok_and(|state| state == "pmsuspended"))
}

/// `config` names libvirt's own file of the persistent definition, as many clusters have it.
pub fn config_of_libvirt_itself(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "inside")?;
    lab.check(HERE, &["virsh", "define", "/srv/vms/inside.xml"], crate::stage::SOON)?;
    let config = "/etc/libvirt/qemu/inside.xml";
    let file = lab.path_in(HERE, config)?;
    let text = fs::read_to_string(&file)?;
    let guest = guest.with("config", config).with("force_stop", "true");
    for round in 1..=2 {
        guest.begin(HERE)?;
        ensure!(file.exists(), "round {round}: start deleted {config}");
        guest.call(HERE, "recurring", 20)?.is(0)?;
        guest.end(HERE, 30)?;
        ensure!(fs::read_to_string(&file).ok().as_ref() == Some(&text), "round {round}: {config} was changed or deleted");
    }
    // A definition libvirt no longer has: the file is still good enough.
    fs::rename(&file, file.with_extension("kept"))?;
    guest.virsh(HERE, "undefine", &[])?;
    fs::rename(file.with_extension("kept"), &file)?;
    guest.begin(HERE)?;
    guest.end(HERE, 30)?;
    ensure!(fs::read_to_string(&file).ok().as_ref() == Some(&text), "{config} was changed or deleted");
    fs::remove_file(&file)?;
    Ok(())
}

/// A guest's UUID by its definition.
pub fn uuid(guest: &Resource) -> Result<String> {
    let text = fs::read_to_string(guest.lab.guest_definition(&guest.instance))?;
    let rest = text.split_once("<uuid>").context("no UUID")?.1;
    Ok(rest.split_once('<').context("no end of the UUID")?.0.to_owned())
}

/// A guest, and a resource whose definition has that guest's UUID under another name.
fn twins<'a>(lab: &'a Lab, name: &str, copy: &str) -> Result<(Resource<'a>, Resource<'a>)> {
    let (guest, copy) = (Resource::new(lab, name)?, Resource::empty(lab, copy)?.with("force_stop", "true"));
    let (old, new) = (uuid(&copy)?, uuid(&guest)?);
    copy.edit(|text| text.replace(&old, &new))?;
    Ok((guest, copy))
}

/// A definition that was copied, UUID included: what runs is the other guest, which no action of the copy's takes for its own, or ends.
pub fn uuid_of_another(lab: &Lab) -> Result<()> {
    let (guest, copy) = twins(lab, "original", "copied")?;
    let boot = guest.boot(HERE)?;
    let not_here = || {
        copy.call(HERE, "monitor", 20)?.is(7)?;
        copy.call(HERE, "recurring", 20)?.is(7)?;
        copy.call(HERE, "stop", 20)?.is(0)?;
        guest.beats(boot)
    };
    not_here()?;
    let start = copy.call(HERE, "start", 20)?;
    start.says(1, &["start of copied refused", "its UUID is that of original, which runs here"])?;
    not_here()?;
    // The other one's state file speaks for it when libvirt cannot be asked, and libvirt when that is gone. With neither it may be this guest,
    // renamed, which is not held against it later.
    lab.kill(HERE, "libvirtd")?;
    not_here()?;
    fs::remove_file(guest.record(HERE)?)?;
    copy.call(HERE, "recurring", 8)?.is(0)?;
    guest.beats(boot)?;
    lab.start(HERE, "libvirtd")?;
    not_here()?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.end(HERE, 60)?;
    copy.begin(HERE)?;
    copy.end(HERE, 30).map(drop)
}

/// A definition that was renamed while its guest ran, which nobody here has seen: it is the resource's own, by its disks. It is not called gone,
/// and a stop ends it.
pub fn uuid_of_one_that_was_renamed(lab: &Lab) -> Result<()> {
    let (guest, renamed) = (Resource::empty(lab, "before")?, Resource::empty(lab, "renamed")?.with("force_stop", "true"));
    guest.begin(THERE)?;
    let text = fs::read_to_string(lab.guest_definition("before"))?;
    renamed.edit(|_| text.replace("<name>before<", "<name>renamed<"))?;
    // Also of one that has come by a move.
    let target = format!("qemu+tcp://{HERE}/system");
    lab.check(THERE, &["virsh", "-q", "migrate", "--live", "--p2p", "--unsafe", "before", &target], crate::stage::PATIENCE)?;
    guest.call(THERE, "stop", 20)?.is(0)?;
    renamed.call(HERE, "monitor", 8)?.says(1, &["libvirt does not run renamed, but"])?;
    promised!(guest.lives(HERE), "monitor has ended it");
    renamed.call(HERE, "start", 20)?.is(1)?;
    promised!(guest.lives(HERE), "start has ended it");
    let emulators = guest.emulators(HERE)?;
    renamed.call(HERE, "stop", 30)?.is(0)?;
    promised!(emulators.into_iter().all(crate::stage::gone), "stop said 0, and it lives");
    Ok(())
}

/// libvirt does not know a guest any more whose emulator is well, as after a restart that could not read its state: that is shown, and costs
/// the guest nothing.
pub fn lost_by_libvirt(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "forgotten")?;
    let boot = guest.boot(HERE)?;
    lose(lab, &guest)?;
    guest.call(HERE, "recurring", 20)?.says(190, &["of forgotten runs, but libvirt does not know it"])?;
    for action in ["monitor", "status"] {
        guest.call(HERE, action, 20)?.is(0)?;
    }
    guest.beats(boot)?;
    // One that was told to end is not well, and one that nobody has seen here is not known to be.
    let emulators = guest.emulators(HERE)?;
    let record = guest.record(HERE)?;
    let away = record.with_extension("away");
    fs::rename(&record, &away)?;
    guest.call(HERE, "recurring", 20)?.says(1, &["libvirt does not run forgotten"])?;
    fs::rename(&away, &record)?;
    signal(&emulators, Signal::SIGSTOP)?;
    // Of two signals the kernel hands out the lower number first, and this one is to stay where it is.
    crate::stage::soon("it stands still", || emulators.iter().all(|emulator| stands_still(*emulator)))?;
    signal(&emulators, Signal::SIGTERM)?;
    guest.call(HERE, "recurring", 20)?.says(1, &["libvirt does not run forgotten"])?;
    guest.end(HERE, 60).map(drop)
}

/// Whether each thread of a process is stopped.
fn stands_still(process: Identity) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten();
    let mut texts = threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    texts.all(|text| text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')))
}

/// Makes libvirt forget a guest that runs.
fn lose(lab: &Lab, guest: &Resource) -> Result<()> {
    lab.kill(HERE, "libvirtd")?;
    fs::remove_file(lab.path_in(HERE, &format!("/run/libvirt/qemu/{}.xml", guest.name))?)?;
    lab.start(HERE, "libvirtd")
}

/// What a probe cannot tell at first it asks again: Pacemaker takes a guest whose probe has failed for one that runs, and ends it everywhere.
pub fn unsettled_probe(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "lingering")?;
    guest.begin(HERE)?;
    lose(lab, &guest)?;
    fs::remove_file(guest.record(HERE)?)?;
    let emulators = guest.emulators(HERE)?;
    guest.call(HERE, "recurring", 20)?.says(1, &["libvirt does not run lingering"])?;
    thread::scope(|scope| -> Result<()> {
        let probe = scope.spawn(|| guest.call(HERE, "monitor", 60));
        thread::sleep(Duration::from_secs(8));
        ensure!(!probe.is_finished(), "the probe did not wait");
        signal(&emulators, Signal::SIGKILL)?;
        probe.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(7)?.at_once(Duration::from_secs(45))?;
        Ok(())
    })
}
