//! Starts that fail, and what is said about it; the scripts that have a word in a start.

use crate::stage::{HERE, Resource, THERE};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::layout::Network;
use lab::promised;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

/// "At once": far from the timeouts given here, also on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(30);

/// libvirt refuses: its own words are the reason.
pub fn refused(lab: &Lab) -> Result<()> {
    let disk = Resource::empty(lab, "diskless")?;
    fs::remove_file(lab.guest_image("diskless"))?;
    disk.call(HERE, "start", 90)?.says(1, &["diskless", "/srv/vms/diskless.img", "No such file or directory"])?.at_once(AT_ONCE)?;

    let emulator = Resource::empty(lab, "emulatorless")?;
    emulator.edit(|text| text.replace("/usr/bin/qemu-system-x86_64", "/usr/bin/no-such-emulator"))?;
    emulator.call(HERE, "start", 90)?.says(1, &["emulatorless", "/usr/bin/no-such-emulator"])?.at_once(AT_ONCE)?;
    emulator.call_with(HERE, "validate-all", 30, &[("OCF_CHECK_LEVEL", "10")])?.says(5, &["/usr/bin/no-such-emulator"])?;

    let kvm = Resource::empty(lab, "kvmless")?;
    kvm.edit(|text| text.replace("<domain type='qemu'>", "<domain type='kvm'>"))?;
    kvm.call(HERE, "start", 90)?.says(1, &["kvmless", "kvm"])?.at_once(AT_ONCE)?;

    let schema = Resource::empty(lab, "senseless")?;
    schema.edit(|text| text.replace("<vcpu>1</vcpu>", "<vcpu>many</vcpu>"))?;
    schema.call(HERE, "start", 90)?.says(1, &["senseless", "vcpu"])?.at_once(AT_ONCE)?;
    for guest in [disk, emulator, kvm, schema] {
        guest.absent(HERE)?;
        guest.call(HERE, "monitor", 20)?.is(7)?;
        guest.call(HERE, "stop", 20)?.is(0)?;
    }
    Ok(())
}

/// QEMU itself refuses, after it was started.
pub fn emulator_exits(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "stillborn")?;
    guest.edit(|text| {
        let line = "<qemu:commandline><qemu:arg value='-no-such-option'/></qemu:commandline></domain>";
        let head = "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>";
        text.replace("<domain type='qemu'>", head).replace("</domain>", line)
    })?;
    guest.call(HERE, "start", 90)?.says(1, &["stillborn", "no-such-option"])?.at_once(AT_ONCE)?;
    guest.absent(HERE)?;
    Ok(())
}

/// A guest that runs and soon ends by itself: a start that still waits for its scripts sees it.
pub fn dies_at_once(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "mayfly")?.with("monitor_scripts", "/bin/false");
    // Without an initrd the kernel panics, and its reboot is the end.
    guest.edit(|text| text.replace("    <initrd>/boot/initrd</initrd>\n", "").replace("<on_reboot>restart<", "<on_reboot>destroy<"))?;
    guest.call(HERE, "start", 120)?.says(1, &["mayfly", "gone"])?.at_once(Duration::from_secs(90))?;
    guest.absent(HERE)?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    Ok(())
}

/// The guest powers itself off, or its emulator dies, after a good start: monitor says so.
pub fn dies_later(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "ephemeral")?;
    guest.boot(HERE)?;
    guest.virsh(HERE, "shutdown", &[])?;
    crate::stage::soon("the guest is gone", || !guest.lives(HERE))?;
    // A busy libvirt notices some milliseconds later.
    crate::stage::soon("monitor says 7", || guest.call(HERE, "recurring", 20).is_ok_and(|answer| answer.code == 7))?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    ensure!(!guest.record(HERE)?.exists(), "stop left the state file");
    Ok(())
}

/// Scripts hold a start until they agree, or until the deadline; their output is the reason.
pub fn scripts(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "scripted")?;
    let script = |name: &str, text: &str| -> Result<String> {
        let path = lab.path_in(HERE, &format!("/tmp/{name}"))?;
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(format!("/tmp/{name}"))
    };
    let (good, bad) = (script("good", "exit 0")?, script("bad", "echo the service does not answer; exit 3")?);
    let hung = script("hung", "sleep 100")?;
    let late = script("late", "test -e /tmp/ready || { echo not yet; exit 1; }")?;
    let stop = |guest: &Resource| guest.with("force_stop", "true").end(HERE, 20);

    for (scripts, says) in [
        (bad.clone(), &["/tmp/bad", "3", "the service does not answer"][..]),
        (format!("{good} {bad}"), &["/tmp/bad"]),
        ("/tmp/no-such-script".to_owned(), &["/tmp/no-such-script", "No such file"]),
        (hung, &["/tmp/hung", "in time"]),
    ] {
        let guest = guest.with("monitor_scripts", &scripts);
        guest.call(HERE, "start", 5)?.says(1, says)?;
        promised!(guest.lives(HERE), "a script that fails is no reason to end the guest");
        guest.call(HERE, "recurring", 5)?.says(1, says)?;
        // Whether the guest is there is not the scripts' business.
        guest.call(HERE, "status", 8)?.is(0)?;
        stop(&guest)?;
    }
    let guest = guest.with("monitor_scripts", &format!("{good}  {late}"));
    thread::scope(|scope| -> Result<()> {
        let start = scope.spawn(|| guest.call(HERE, "start", 60));
        thread::sleep(Duration::from_secs(3));
        ensure!(!start.is_finished(), "the start did not wait for its script");
        fs::write(lab.path_in(HERE, "/tmp/ready")?, "")?;
        start.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0)?;
        Ok(())
    })?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    // No script runs for a guest that is not there.
    stop(&guest)?;
    guest.with("monitor_scripts", &bad).call(HERE, "recurring", 20)?.is(7)?;
    Ok(())
}

/// Another guest has the disk open: who it is is said; and when it lets go in time, the start goes on.
pub fn disk_is_locked(lab: &Lab) -> Result<()> {
    let holder = Resource::empty(lab, "holder")?.with("force_stop", "true");
    let second = Resource::empty(lab, "second")?.with("force_stop", "true");
    second.edit(|text| text.replace("/srv/vms/second.img", "/srv/vms/holder.img"))?;
    holder.begin(HERE)?;
    second.call(HERE, "start", 10)?.says(1, &["second", "of holder has /srv/vms/holder.img open here"])?;
    second.absent(HERE)?;
    thread::scope(|scope| -> Result<()> {
        let start = scope.spawn(|| second.call(HERE, "start", 90));
        thread::sleep(Duration::from_secs(3));
        holder.end(HERE, 30)?;
        start.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0)?;
        Ok(())
    })?;
    promised!(second.lives(HERE), "start said 0, but nothing runs");
    second.end(HERE, 30)?;
    Ok(())
}

/// A block device that nothing locks: validate-all at level 10 says so, and is content; with a lock manager that has a folder for its locks there is
/// nothing to say.
pub fn disk_without_lock(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "unlocked")?;
    let level = [("OCF_CHECK_LEVEL", "10")];
    let said = guest.call_with(HERE, "validate-all", 30, &level)?.is(0)?.stderr;
    ensure!(!said.contains("no lock protects"), "of an image file that QEMU locks: {said}");
    guest.edit(|text| {
        text.replace("<disk type='file'", "<disk type='block'")
            .replace("<source file='/srv/vms/unlocked.img'/>", "<source dev='/dev/mapper/lun'/>")
    })?;
    let said = guest.call_with(HERE, "validate-all", 30, &level)?.is(0)?.stderr;
    ensure!(said.contains("no lock protects vda (/dev/mapper/lun) of unlocked"), "not warned: {said}");
    let [settings, lockd] = ["/etc/libvirt/qemu.conf", "/etc/libvirt/qemu-lockd.conf"].map(|path| lab.path_in(HERE, path));
    let (settings, lockd) = (settings?, lockd?);
    let (old, old_lockd) = (fs::read_to_string(&settings)?, fs::read_to_string(&lockd)?);
    fs::write(&settings, format!("{old}\nlock_manager = \"lockd\"\n"))?;
    let by_node = guest.call_with(HERE, "validate-all", 30, &level);
    fs::write(&lockd, format!("{old_lockd}\nfile_lockspace_dir = \"/srv/vms/locks\"\n"))?;
    let by_folder = guest.call_with(HERE, "validate-all", 30, &level);
    fs::write(&settings, old)?;
    fs::write(&lockd, old_lockd)?;
    let said = by_node?.is(0)?.stderr;
    ensure!(said.contains("no lock protects vda"), "a lock on a node of /dev is taken for one that other hosts see: {said}");
    let said = by_folder?.is(0)?.stderr;
    ensure!(!said.contains("no lock protects"), "warned in spite of a lock manager: {said}");
    Ok(())
}

/// Both nodes start it at the same time, as a resource does that is there twice: it runs on one of them, the other one says so and keeps
/// nothing of it. Nothing locks its disk. Pacemaker's tools are stubs, as there is no Pacemaker here.
pub fn on_two_nodes_at_once(lab: &Lab) -> Result<()> {
    let more = [in_a_cluster(lab)?];
    let guest = Resource::empty(lab, "twofold")?.with("migration_transport", "tcp").with("force_stop", "true");
    guest.edit(|text| text.replace("</disk>", "<shareable/></disk>"))?;
    for delay in [0, 0, 0, 0, 50, 200] {
        let answers = thread::scope(|scope| -> Result<_> {
            let there = scope.spawn(|| guest.call_with(THERE, "start", 60, &more));
            thread::sleep(Duration::from_millis(delay));
            let here = guest.call_with(HERE, "start", 60, &more)?;
            Ok([(HERE, THERE, here), (THERE, HERE, there.join().map_err(|_| anyhow::anyhow!("panicked"))??)])
        })?;
        let codes = [0, 1].map(|at| answers[at].2.code);
        promised!(codes != [0, 0], "never twice: it was started on both nodes");
        let mut runs = None;
        for (node, other, answer) in answers {
            if answer.code == 0 {
                ensure!(guest.virsh(node, "domstate", &[])? == "running", "it does not run on {node}");
                runs = Some(node);
            } else {
                answer.says(1, &["start of twofold refused: twofold is on", other])?;
                guest.absent(node)?;
                ensure!(!guest.record(node)?.exists(), "the start left {}", guest.record(node)?.display());
            }
        }
        guest.end(runs.context("both have given way")?, 30)?;
    }
    Ok(())
}

/// The URI of the other nodes is an address of this one: the paused copy that the start finds there is its own. By the same address the
/// other node finds the guest, and does not start it.
pub fn by_an_address_of_its_own(lab: &Lab) -> Result<()> {
    let more = [in_a_cluster(lab)?];
    let uri = format!("qemu+tcp://{}/system", Network::Cluster.address(1));
    let guest = Resource::empty(lab, "addressed")?.with("remoteuri", &uri).with("force_stop", "true");
    guest.call_with(HERE, "start", 60, &more)?.is(0)?;
    guest.call_with(THERE, "start", 60, &more)?.says(1, &["start of addressed refused: addressed is on node1, running"])?;
    guest.end(HERE, 30).map(drop)
}

/// Pacemaker's tools, as stubs that know of two nodes; what finds them.
fn in_a_cluster(lab: &Lab) -> Result<(&'static str, &'static str)> {
    for node in [HERE, THERE] {
        let folder = lab.path_in(node, "/tmp/stub")?;
        fs::create_dir_all(&folder)?;
        for (name, script) in [("crm_node", "printf '1 node1 member\\n2 node2 member\\n'"), ("crm_mon", "exit 102")] {
            fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n"))?;
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o755))?;
        }
    }
    Ok(("PATH", "/tmp/stub:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
}
