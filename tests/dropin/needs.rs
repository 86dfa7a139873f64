//! `start_resources`, `backingfile`, `stateless`, `copyindirs`: what a guest needs is there when it starts.

use crate::props::{PATH, shared, stand_in};
use crate::stage::{HERE, Resource, SOON, THERE, together};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::process::replace;
use lab::promised;
use std::fs;
use std::os::unix::fs::MetadataExt;

const NETWORK: &str = "<network><name>front</name><bridge name='front0'/></network>";
const POOL: &str = "<pool type='dir'><name>vms</name><target><path>/srv/vms</path></target></pool>";

/// Makes libvirt of a node know a network and a pool, neither active.
fn define(lab: &Lab, node: &str) -> Result<()> {
    for (word, name, text) in [("net-define", "network.xml", NETWORK), ("pool-define", "pool.xml", POOL)] {
        replace(&shared(lab, name), text)?;
        lab.check(node, &["virsh", "-q", word, &format!("/srv/vms/{name}")], SOON)?;
    }
    Ok(())
}

fn active(lab: &Lab, node: &str) -> Result<(bool, bool)> {
    let list = |word: &str, name: &str| -> Result<bool> {
        Ok(lab.check(node, &["virsh", "-q", word, "--name"], SOON)?.split_whitespace().any(|known| known == name))
    };
    Ok((list("net-list", "front")?, list("pool-list", "vms")?))
}

/// A guest with an interface in the network and its disk in the pool.
fn guest<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let guest = Resource::empty(lab, name)?;
    guest.edit(|text| {
        let text = text.replace("<disk type='file'", "<disk type='volume'");
        let text = text.replace(&format!("<source file='/srv/vms/{name}.img'/>"), &format!("<source pool='vms' volume='{name}.img'/>"));
        text.replace("<memballoon", "<interface type='network'><source network='front'/></interface>\n    <memballoon")
    })?;
    Ok(guest.with("migration_transport", "tcp").with("migrate_options", "--unsafe"))
}

/// Not active, not asked for: the guest does not start. Asked for: it does. Not there: a reason.
pub fn networks_and_pools(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "needy")?;
    let asking = guest.with("start_resources", "true");
    asking.call(HERE, "start", 60)?.says(1, &["needy", "vms"])?;
    guest.absent(HERE)?;
    define(lab, HERE)?;
    guest.call(HERE, "start", 60)?.is(1)?;
    ensure!(active(lab, HERE)? == (false, false), "started without being asked");
    asking.begin(HERE)?;
    ensure!(active(lab, HERE)? == (true, true), "not started");
    // Active ones are fine, too.
    asking.with("force_stop", "true").end(HERE, 60)?;
    asking.begin(HERE)?;
    asking.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// Before a move they are started at the target; if that is not possible the guest stays, and runs.
pub fn at_the_target(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "needymove")?.with("start_resources", "true");
    define(lab, HERE)?;
    guest.begin(HERE)?;
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE)];
    guest.call_with(HERE, "migrate_to", 60, &target)?.says(1, &["needymove still runs here", "vms"])?;
    promised!(guest.lives(HERE), "it does not run here any more");
    define(lab, THERE)?;
    guest.call_with(HERE, "migrate_to", 120, &target)?.is(0)?;
    ensure!(active(lab, THERE)? == (true, true), "not started at the target");
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    ensure!(guest.lives(THERE), "it is not there");
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.with("force_stop", "true").end(THERE, 60)?;
    Ok(())
}

/// Two guests come at once to a target where what they need is not active: each finds it so, and only one can start it.
pub fn two_at_once(lab: &Lab) -> Result<()> {
    let guests =
        ["first", "second"].map(|name| guest(lab, name).map(|guest| guest.with("start_resources", "true").with("force_stop", "true")));
    let guests = guests.into_iter().collect::<Result<Vec<_>>>()?;
    for node in [HERE, THERE] {
        define(lab, node)?;
    }
    guests.iter().try_for_each(|guest| guest.begin(HERE).map(drop))?;
    ensure!(active(lab, THERE)? == (false, false), "it is active there already");
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE)];
    type Task<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;
    let moves = guests.iter().map(|guest| -> Task { Box::new(move || guest.call_with(HERE, "migrate_to", 120, &target)?.is(0).map(drop)) });
    together(moves.collect())?;
    ensure!(active(lab, THERE)? == (true, true), "not started at the target");
    for guest in &guests {
        guest.call(HERE, "stop", 60)?.is(0)?;
        guest.end(THERE, 60)?;
    }
    Ok(())
}

/// A pool that is active is not lost by a start: one whose folder is away is left alone if it knows the volume, and where it has to be read anew, and
/// cannot be for a moment, it is started again.
pub fn pool_that_cannot_be_read(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "pooled")?.with("start_resources", "true").with("force_stop", "true");
    guest.edit(|text| {
        let text = text.replace("<disk type='file'", "<disk type='volume'");
        text.replace("<source file='/srv/vms/pooled.img'/>", "<source pool='later' volume='pooled.img'/>")
    })?;
    let shell = |script: &str| lab.check(HERE, &["sh", "-ec", script], SOON);
    let pool = "<pool type='dir'><name>later</name><target><path>/run/later</path></target></pool>";
    shell(&format!("mkdir /run/later; echo \"{pool}\" >/run/later.xml; virsh -q pool-define /run/later.xml; virsh -q pool-start later"))?;
    let (take, give) = (|| shell("mv /run/later /run/away"), || shell("mv /run/away /run/later"));
    let is_active = || -> Result<bool> { Ok(shell("virsh -q pool-list --name")?.contains("later")) };
    // What comes into it by another way than libvirt's is not known to it.
    shell("cp /srv/vms/pooled.img /run/later")?;
    take()?;
    std::thread::scope(|scope| -> Result<()> {
        let call = scope.spawn(|| guest.call(HERE, "start", 60));
        std::thread::sleep(std::time::Duration::from_secs(4));
        give()?;
        call.join().map_err(|_| anyhow::anyhow!("panicked"))??.is(0).map(drop)
    })?;
    ensure!(is_active()?, "it is not active any more");
    guest.end(HERE, 60)?;
    take()?;
    let refused = guest.call(HERE, "start", 60);
    give()?;
    refused?.is(1)?;
    ensure!(is_active()?, "it was refreshed");
    guest.begin(HERE)?;
    guest.end(HERE, 60)?;
    shell("virsh -q pool-destroy later; virsh -q pool-undefine later; rm -r /run/later /run/later.xml").map(drop)
}

/// A guest whose disk is an image on a base.
fn thin<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    let guest = Resource::empty(lab, name)?;
    guest.edit(|text| text.replace("type='raw' cache='none'", "type='qcow2'").replace(&format!("{name}.img"), &format!("{name}.qcow2")))?;
    lab.check(HERE, &["qemu-img", "create", "-q", "-f", "qcow2", "/srv/vms/base.qcow2", "8M"], SOON)?;
    Ok(guest.with("backingfile", "/srv/vms/base.qcow2").with("force_stop", "true"))
}

fn inode(lab: &Lab, name: &str) -> Result<u64> {
    Ok(fs::metadata(shared(lab, &format!("{name}.qcow2"))).context("there is no image")?.ino())
}

/// The image is made once, with its base and the base's format, and then kept.
pub fn image_on_a_base(lab: &Lab) -> Result<()> {
    let guest = thin(lab, "thin")?;
    guest.with("backingfile", "/srv/vms/no-base").call(HERE, "start", 60)?.says(1, &["/srv/vms/no-base"])?;
    guest.absent(HERE)?;
    guest.begin(HERE)?;
    let about = lab.check(HERE, &["qemu-img", "info", "-U", "/srv/vms/thin.qcow2"], SOON)?;
    ensure!(about.contains("backing file: /srv/vms/base.qcow2") && about.contains("backing file format: qcow2"), "{about}");
    let made = inode(lab, "thin")?;
    ensure!(guest.virsh(HERE, "dominfo", &[])?.contains("Persistent:     no"), "the guest is not transient");
    guest.end(HERE, 60)?;
    guest.begin(HERE)?;
    ensure!(inode(lab, "thin")? == made, "it was made again");
    guest.end(HERE, 60)?;
    ensure!(inode(lab, "thin")? == made, "stop has touched it");
    Ok(())
}

/// Without state it is made at each start, and one that cannot be made leaves the old one.
pub fn image_anew(lab: &Lab) -> Result<()> {
    let guest = thin(lab, "anew")?.with("stateless", "true");
    guest.begin(HERE)?;
    let made = inode(lab, "anew")?;
    // A second start of a guest that runs touches nothing.
    guest.call(HERE, "start", 60)?.is(0)?;
    ensure!(inode(lab, "anew")? == made, "the image of a guest that runs was replaced");
    guest.end(HERE, 60)?;
    guest.begin(HERE)?;
    let again = inode(lab, "anew")?;
    ensure!(again != made, "it was not made anew");
    guest.end(HERE, 60)?;
    guest.with("backingfile", "/srv/vms/no-base").call(HERE, "start", 60)?.is(1)?;
    ensure!(inode(lab, "anew")? == again, "a start that failed has touched it");
    // One that a copy on another node has open keeps its lock, and so keeps a second copy from being started.
    guest.begin(HERE)?;
    let open = inode(lab, "anew")?;
    guest.call(THERE, "start", 20)?.says(1, &["/srv/vms/anew.qcow2", "lock"])?;
    guest.absent(THERE)?;
    ensure!(inode(lab, "anew")? == open && guest.lives(HERE), "the image of a guest that runs elsewhere was replaced");
    guest.end(HERE, 60)?;
    // What is no image is a person's.
    fs::write(shared(lab, "anew.qcow2"), "no image")?;
    guest.call(HERE, "start", 20)?.says(1, &["/srv/vms/anew.qcow2", "remove it"])?;
    fs::remove_file(shared(lab, "anew.qcow2"))?;
    guest.begin(HERE)?;
    guest.end(HERE, 60).map(drop)
}

/// What is to be copied is copied into a new image, before it is in its place; a failure leaves none.
pub fn copied_in_by_a_stand_in_for_virt_copy_in(lab: &Lab) -> Result<()> {
    let guest = thin(lab, "filled")?.with("copyindirs", "/etc/hosts /etc/apt");
    guest.call(HERE, "start", 60)?.says(5, &["copyindirs", "virt-copy-in"])?;
    guest.absent(HERE)?;
    stand_in(lab, HERE, "virt-copy-in", "echo \"$@\" >>/srv/vms/copied.log; exit $(cat /srv/vms/copied.code)")?;
    let call = |action: &str| guest.call_with(HERE, action, 60, &[("PATH", PATH)]);
    fs::write(shared(lab, "copied.code"), "3")?;
    call("start")?.says(1, &["copyindirs", "3"])?;
    ensure!(inode(lab, "filled").is_err(), "an image without the copies is there");
    fs::write(shared(lab, "copied.code"), "0")?;
    call("start")?.is(0)?;
    let log = fs::read_to_string(shared(lab, "copied.log"))?;
    let last = log.lines().last().unwrap_or_default();
    ensure!(last == "--format=qcow2 -a /srv/vms/filled.qcow2.new /etc/hosts /etc/apt /", "{last}");
    guest.end(HERE, 60)?;
    call("start")?.is(0)?;
    ensure!(fs::read_to_string(shared(lab, "copied.log"))? == log, "copied into an image that was there");
    guest.end(HERE, 60)?;
    Ok(())
}
