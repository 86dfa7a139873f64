//! A storage pool, which `start_resources` has libvirt read anew, lies on storage that hangs.

use crate::stage::{HERE, Resource, SOON};
use crate::storage::{Faulty, nothing_stays};
use anyhow::{Result, ensure};
use lab::Lab;

/// libvirt is not asked for the guest: it would wait for the pool with the guest locked, and no stop could be proven. So the node is not fenced.
pub fn not_read_anew(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "pooled")?.with("start_resources", "true").with("force_stop", "true");
    guest.edit(|text| {
        let text = text.replace("<disk type='file'", "<disk type='volume'");
        text.replace("<source file='/srv/vms/pooled.img'/>", "<source pool='slow' volume='pooled.img'/>")
    })?;
    let shell = |script: &str| lab.check(HERE, &["sh", "-ec", script], SOON);
    let pool = "<pool type='dir'><name>slow</name><target><path>/srv/hang/slow</path></target></pool>";
    shell(&format!("mkdir /srv/hang/slow; echo \"{pool}\" >/run/slow.xml; virsh -q pool-define /run/slow.xml; virsh -q pool-start slow"))?;
    // What comes into it by another way than libvirt's is not known to it.
    shell("cp /srv/vms/pooled.img /srv/hang/slow")?;
    let held = Faulty::hold(lab, HERE)?;
    guest.call(HERE, "start", 40)?.says(1, &["storage pool slow"])?;
    ensure!(!guest.record(HERE)?.exists(), "libvirt was asked for the guest");
    // Once more: libvirt still reads the pool, and does not even say what it knows of it.
    guest.call(HERE, "start", 40)?.says(1, &["storage pool slow"])?;
    guest.call(HERE, "stop", 40)?.is(0)?;
    drop(held);
    nothing_stays(lab, HERE)?;
    guest.begin(HERE)?;
    guest.end(HERE, 60)?;
    shell("virsh -q pool-destroy slow; virsh -q pool-undefine slow; rm -r /srv/hang/slow /run/slow.xml").map(drop)
}
