//! Block devices: loop devices that each node knows by the same name.

use crate::other::refused;
use crate::same::{loose, moves, nothing_left, strict};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::promised;
use lab::stage::{HERE, Resource, SOON, THERE};
use lab::storage::{Fault, Reach};
use std::time::Duration;

/// What the device is called on both nodes.
const NAME: &str = "/dev/san/lun";

/// Its name with the WWID.
const WWID: &str = "/dev/disk/by-id/wwn-0x6b766d6800000002";

/// Loop devices that are taken away when this is dropped.
struct Loops<'a> {
    lab: &'a Lab,
    devices: Vec<String>,
}

impl Loops<'_> {
    /// Makes one of a file that the first node sees; its name, which all nodes have.
    fn add(&mut self, file: &str) -> Result<String> {
        let device = self.lab.check(HERE, &["losetup", "--find", "--show", file], SOON)?.trim().to_owned();
        self.devices.push(device.clone());
        Ok(device)
    }

    /// Gives it the name on a node.
    fn name(&self, node: &str, device: &str) -> Result<()> {
        self.link(node, device, NAME)
    }

    fn link(&self, node: &str, device: &str, name: &str) -> Result<()> {
        self.lab.check(node, &["sh", "-c", &format!("mkdir -p $(dirname {name}) && ln -sfn {device} {name}")], SOON).map(drop)
    }
}

impl Drop for Loops<'_> {
    fn drop(&mut self) {
        // It is taken away by the kernel when the last emulator has closed it.
        for device in &self.devices {
            let _ = self.lab.exec(HERE, &["losetup", "--detach", device], SOON);
        }
    }
}

fn on_device(guest: &Resource) -> Result<()> {
    called(guest, NAME)
}

fn called(guest: &Resource, name: &str) -> Result<()> {
    let image = format!("<source file='/srv/vms/{}.img'/>", guest.instance);
    guest.edit(|text| text.replace("<disk type='file'", "<disk type='block'").replace(&image, &format!("<source dev='{name}'/>")))
}

/// The same device: it moves. Nothing but its contents speaks for it, so the strictest check refuses it.
pub fn same(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::new(lab, "lun")?);
    on_device(&guest)?;
    let mut loops = Loops { lab, devices: Vec::new() };
    let device = loops.add("/srv/vms/lun.img")?;
    for node in [HERE, THERE] {
        loops.name(node, &device)?;
    }
    let boot = guest.boot(HERE)?;
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    strict(&guest).call_with(HERE, "migrate_to", 60, &target)?.says(1, &["still runs here", NAME])?;
    moves(&guest, Some(boot))?;
    nothing_left(lab)?;
    guest.with("force_stop", "true").end(THERE, 60)?;
    Ok(())
}

/// The definition at the target is on storage that hangs: what is there of the device is seen all the same.
pub fn definition_hangs(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::empty(lab, "both")?).with("config", "/srv/hang/both.xml");
    let disk = format!("<disk type='block' device='disk'><source dev='{NAME}'/><target dev='vdb' bus='virtio'/></disk></devices>");
    guest.edit(|text| text.replace("</devices>", &disk))?;
    lab.check(HERE, &["truncate", "-s", "1M", "/srv/vms/more.img"], SOON)?;
    let mut loops = Loops { lab, devices: Vec::new() };
    let device = loops.add("/srv/vms/more.img")?;
    for node in [HERE, THERE] {
        loops.name(node, &device)?;
    }
    guest.begin(HERE)?;
    lab.storage(THERE, Fault::Hold(Reach::Everything))?;
    let words =
        ["kvmha", "check", "/srv/hang/both.xml", "--to", THERE, "--set", "migration_transport=tcp", "--set", "migrate_options=--unsafe"];
    let said = lab.exec(HERE, &words, Duration::from_secs(60));
    lab.storage(THERE, Fault::None)?;
    let said = said?.stdout;
    ensure!(said.contains("same contents") && !said.contains("cannot be looked at there"), "{said}");
    ensure!(said.lines().any(|line| line.trim_start().starts_with("config") && line.contains("warning")), "{said}");
    guest.with("force_stop", "true").end(HERE, 60)?;
    lab.check(HERE, &["rm", "/srv/vms/more.img"], SOON).map(drop)
}

/// A device that holds an image with a size of its own, qcow2 or LUKS, which is what libvirt calls the volume's capacity: it is the same
/// device all the same.
pub fn formatted(lab: &Lab) -> Result<()> {
    let mut loops = Loops { lab, devices: Vec::new() };
    // qcow2 is smaller than what it holds, so that the device is made larger; LUKS fills the file.
    for (name, format, options, size) in
        [("qcow", "qcow2", "-f qcow2", "8M"), ("luks", "raw", "-f luks --object secret,id=key,data=x -o key-secret=key,iter-time=10", "+0")]
    {
        let guest = Resource::empty(lab, name)?;
        let file = format!("/srv/vms/{name}.img");
        let make = format!("rm {file} && qemu-img create -q {options} {file} 4M && truncate -s {size} {file}");
        lab.check(HERE, &["sh", "-c", &make], SOON)?;
        let device = loops.add(&file)?;
        for node in [HERE, THERE] {
            loops.name(node, &device)?;
            loops.link(node, &device, WWID)?;
        }
        let outcome = (|| {
            on_device(&guest)?;
            if format != "raw" {
                guest.edit(|text| text.replace("type='raw'", &format!("type='{format}'")))?;
            }
            guest.begin(HERE)?;
            moves(&loose(&guest), None)?;
            guest.with("force_stop", "true").end(THERE, 60)?;
            // By its name with the WWID that is proven.
            guest.edit(|text| text.replace(NAME, WWID))?;
            guest.begin(HERE)?;
            moves(&strict(&guest), None)?;
            nothing_left(lab)?;
            guest.with("force_stop", "true").end(THERE, 60).map(drop)
        })();
        forget_wwid(lab)?;
        outcome?;
    }
    Ok(())
}

/// Takes the name with the WWID away.
fn forget_wwid(lab: &Lab) -> Result<()> {
    for node in [HERE, THERE] {
        lab.check(node, &["sh", "-c", &format!("rm {WWID}; rmdir --ignore-fail-on-non-empty /dev/disk/by-id")], SOON)?;
    }
    Ok(())
}

/// Two devices of one name: of the same size with other contents, of another size, and none.
pub fn other(lab: &Lab) -> Result<()> {
    let mut loops = Loops { lab, devices: Vec::new() };
    for (name, contents, size) in [("one", "one", "1M"), ("two", "two", "1M"), ("three", "one", "2M")] {
        let make = format!("truncate -s {size} /srv/vms/{name}.lun; echo {contents} | dd of=/srv/vms/{name}.lun conv=notrunc status=none");
        lab.check(HERE, &["sh", "-c", &make], SOON)?;
    }
    let devices = ["one", "two", "three"].iter().map(|name| loops.add(&format!("/srv/vms/{name}.lun"))).collect::<Result<Vec<_>>>()?;
    for (guest, there, says) in [("contents", 1, "other contents there"), ("size", 2, "2097152 bytes there")] {
        loops.name(HERE, &devices[0])?;
        loops.name(THERE, &devices[there])?;
        let guest = loose(&Resource::empty(lab, guest)?);
        on_device(&guest)?;
        guest.begin(HERE)?;
        refused(&guest, &[NAME, says])?;
        if guest.lives(THERE) {
            guest.with("force_stop", "true").end(THERE, 60)?;
        }
    }
    let guest = loose(&Resource::empty(lab, "none")?);
    on_device(&guest)?;
    guest.begin(HERE)?;
    lab.check(THERE, &["rm", NAME], SOON)?;
    let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
    guest.call_with(HERE, "migrate_to", 60, &target)?.says(1, &["still runs here", NAME, "is not there"])?;
    promised!(guest.lives(HERE), "the guest was touched");
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// A clone of the device has its name there: what is read of both is the same, and the device itself is there too by its WWID. That is no proof,
/// but a definition that calls it by the WWID is.
pub fn clone(lab: &Lab) -> Result<()> {
    let (guest, named) = (strict(&Resource::empty(lab, "cloned")?), strict(&Resource::empty(lab, "named")?));
    on_device(&guest)?;
    called(&named, WWID)?;
    lab.check(HERE, &["cp", "/srv/vms/cloned.img", "/srv/vms/clone.img"], SOON)?;
    let mut loops = Loops { lab, devices: Vec::new() };
    let (device, clone) = (loops.add("/srv/vms/cloned.img")?, loops.add("/srv/vms/clone.img")?);
    for (node, called) in [(HERE, &device), (THERE, &clone)] {
        loops.name(node, called)?;
        loops.link(node, &device, WWID)?;
    }
    let outcome = (|| {
        guest.begin(HERE)?;
        refused(&guest, &[NAME, "same contents", WWID])?;
        guest.with("force_stop", "true").end(THERE, 60)?;
        named.begin(HERE)?;
        moves(&named, None)?;
        nothing_left(lab)?;
        named.with("force_stop", "true").end(THERE, 60).map(drop)
    })();
    forget_wwid(lab)?;
    outcome
}
