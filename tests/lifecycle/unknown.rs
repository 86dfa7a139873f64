//! A guest is moved to a node where its definition is not there or another one, and where no name tells whose it is.

use crate::moving::{migrate_to, mover};
use crate::stage::{HERE, Resource, SOON, THERE, soon};
use anyhow::{Context, Result, ensure};
use lab::process::replace;
use lab::{Lab, promised};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// A guest that is called neither like its file nor like its resource, and the file is each node's own. The first of the pair is the one
/// that knows where its disk is.
fn stray(lab: &Lab) -> Result<(Resource<'_>, Resource<'_>)> {
    let home = mover(lab, "stray")?;
    let mut guest = home.with("config", "/etc/domain.xml");
    guest.instance = "vm-stray".to_owned();
    let _ = fs::remove_file(lab.path_in(THERE, "/etc/domain.xml")?);
    replace(&lab.path_in(HERE, "/etc/domain.xml")?, &fs::read_to_string(lab.guest_definition("stray"))?)?;
    guest.begin(HERE)?;
    soon("it beats", || home.ring().is_ok())?;
    Ok((home, guest))
}

/// The target's agent would not know which guest has come: it is not moved there. What is in the file there decides.
pub fn at_the_target(lab: &Lab) -> Result<()> {
    let (home, guest) = stray(lab)?;
    let boot = home.ring()?.newest.boot;
    let good = fs::read_to_string(lab.guest_definition("stray"))?;
    let config = lab.path_in(THERE, "/etc/domain.xml")?;
    let stays = |says: &[&str]| -> Result<()> {
        migrate_to(&guest, HERE, THERE, 30)?.says(1, &["stray still runs here", "/etc/domain.xml"])?.says(1, says)?;
        guest.absent(THERE)?;
        home.beats(boot)
    };
    stays(&["is not there on node2", "would not be known"])?;
    let words =
        ["kvmha", "check", "/etc/domain.xml", "--to", THERE, "--set", "migration_transport=tcp", "--set", "migrate_options=--unsafe"];
    let said = lab.exec(HERE, &words, SOON)?;
    let row = said.stdout.lines().find(|line| line.trim_start().starts_with("config"));
    ensure!(said.code == Some(1) && row.is_some_and(|row| row.contains("refuse")), "{said:?}");
    replace(&config, &good.replace("<name>stray<", "<name>other<"))?;
    stays(&["names other"])?;
    replace(&config, good.split_at(good.find("<name>").context("no name")?).0)?;
    stays(&["is no definition of a guest"])?;
    fs::remove_file(&config)?;
    no_folder_of_both(lab)?;
    // The way round a refusal: the file is not looked at.
    migrate_to(&guest.with("migration_storage_check", "off"), HERE, THERE, 60)?.is(0)?;
    replace(&config, &good)?;
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    guest.call(HERE, "stop", 30)?.is(0)?;
    home.beats(boot)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    guest.absent(THERE)
}

/// Without a disk no folder is known to be the same on both nodes: libvirt there reads the folder of the file.
fn no_folder_of_both(lab: &Lab) -> Result<()> {
    let home = Resource::empty(lab, "bare")?;
    home.edit(|text| {
        let disk = text.find("<disk").zip(text.find("</disk>"));
        disk.map_or_else(|| text.to_owned(), |(from, to)| format!("{}{}", &text[..from], &text[to + "</disk>".len()..]))
    })?;
    let mut guest = home
        .with("migration_transport", "tcp")
        .with("migrate_options", "--unsafe")
        .with("config", "/etc/bare/domain.xml")
        .with("force_stop", "true");
    guest.instance = "vm-bare".to_owned();
    let (here, there) = (lab.path_in(HERE, "/etc/bare")?, lab.path_in(THERE, "/etc/bare")?);
    [&here, &there].into_iter().try_for_each(fs::create_dir_all)?;
    let good = fs::read_to_string(lab.guest_definition("bare"))?;
    replace(&here.join("domain.xml"), &good)?;
    guest.begin(HERE)?;
    let refused = |says: &str| migrate_to(&guest, HERE, THERE, 30)?.says(1, &["bare still runs here", says]).map(drop);
    refused("/etc/bare/domain.xml is not there on node2")?;
    replace(&there.join("domain.xml"), &good.replace("<name>bare<", "<name>other<"))?;
    refused("/etc/bare/domain.xml on node2 names other")?;
    guest.absent(THERE)?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    [&here, &there].into_iter().try_for_each(|folder| Ok(fs::remove_dir_all(folder)?))
}

/// The file is lost at the target when the guest has been moved there already: nobody there can say that it does not run.
pub fn when_it_has_come(lab: &Lab) -> Result<()> {
    let (home, guest) = stray(lab)?;
    let boot = home.ring()?.newest.boot;
    let good = fs::read_to_string(lab.guest_definition("stray"))?;
    let config = lab.path_in(THERE, "/etc/domain.xml")?;
    replace(&config, &good)?;
    migrate_to(&guest, HERE, THERE, 60)?.is(0)?;
    fs::remove_file(&config)?;
    let is_not_passed_over = || -> Result<()> {
        let answer = guest.call(THERE, "stop", 10)?;
        promised!(answer.code != 0, "stop said 0, and the guest runs");
        answer.says(1, &["stray", "has come here by a move", "/etc/domain.xml"]).map(drop)
    };
    // As when the source has lost its power.
    is_not_passed_over()?;
    // A probe is asked of every node, before anything is mounted there, and with a path that was mistyped.
    guest.call(THERE, "monitor", 20)?.is(7)?;
    // As after a move that has failed at its end.
    guest.call_with(THERE, "migrate_from", 10, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.says(1, &["/etc/domain.xml"])?;
    guest.call(HERE, "stop", 30)?.is(0)?;
    is_not_passed_over()?;
    home.beats(boot)?;
    // Another resource has seen it: then it is that one's.
    home.call(THERE, "monitor", 20)?.is(0)?;
    guest.call(THERE, "monitor", 20)?.is(7)?;
    guest.call(THERE, "stop", 20)?.is(0)?;
    home.beats(boot)?;
    fs::remove_file(home.record(THERE)?)?;
    // With the file it is known again.
    replace(&config, &good)?;
    guest.call(THERE, "stop", 60)?.is(0)?;
    guest.absent(THERE)
}

/// A resource with a mistyped `config` on a node to which a person has moved a guest before: its stop says 0, if Pacemaker's status says that it has
/// never run anywhere. Who was not here yet when the resource was probed may be its. Pacemaker's tool is a stub, as there is no Pacemaker here.
pub fn when_it_was_here_before(lab: &Lab) -> Result<()> {
    let home = mover(lab, "before")?;
    let boot = home.boot(HERE)?;
    home.virsh(HERE, "migrate", &["--live", "--p2p", "--unsafe", &format!("qemu+tcp://{THERE}/system")])?;
    home.absent(HERE)?;
    let folder = lab.path_in(THERE, "/tmp/stub")?;
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cibadmin"), "#!/bin/sh\ncat /tmp/stub/status.xml\n")?;
    fs::set_permissions(folder.join("cibadmin"), Permissions::from_mode(0o755))?;
    let status = |operations: &str| {
        let entries = format!("<lrm_resource id='typo'>{operations}</lrm_resource>");
        let node = format!("<node_state uname='{THERE}'><lrm><lrm_resources>{entries}</lrm_resources></lrm></node_state>");
        fs::write(folder.join("status.xml"), format!("<cib><status>{node}</status></cib>"))
    };
    let refused = "<lrm_rsc_op operation='start' rc-code='5'/>";
    let typo = Resource::unmade(lab, "typo", "/srv/vms/not-there.xml");
    let path = ("PATH", "/tmp/stub:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let call = |action: &str, seconds: u64| typo.call_with(THERE, action, seconds, &[path]);
    let doubts = || call("stop", 10)?.says(1, &["before", "has come here by a move", "not-there.xml"]).map(drop);
    status(refused)?;
    doubts()?;
    call("monitor", 20)?.is(7)?;
    call("start", 10)?.is(5)?;
    for _ in 0..2 {
        call("stop", 20)?.is(0)?;
    }
    // A refresh has Pacemaker forget all, and the node probed anew: who has come since the first probe may be the resource's all the same.
    let later = mover(lab, "later")?;
    let boot_of_later = later.boot(HERE)?;
    later.virsh(HERE, "migrate", &["--live", "--p2p", "--unsafe", &format!("qemu+tcp://{THERE}/system")])?;
    call("monitor", 20)?.is(7)?;
    let answer = call("stop", 10)?;
    promised!(answer.code != 0, "called stopped, and a guest has come since it was probed first");
    answer.says(1, &["later", "has come here by a move"])?;
    later.beats(boot_of_later)?;
    later.call(THERE, "stop", 60)?.is(0)?;
    call("stop", 20)?.is(0)?;
    // The same of a move whose arrival was awaited before the first probe that could not read the definition.
    let awaited = Resource::unmade(lab, "awaited", "/srv/vms/not-there.xml");
    let of_awaited = |action: &str, seconds: u64| awaited.call_with(THERE, action, seconds, &[path]);
    of_awaited("migrate_from", 10)?.is(1)?;
    of_awaited("monitor", 20)?.is(7)?;
    fs::write(folder.join("status.xml"), fs::read_to_string(folder.join("status.xml"))?.replace("'typo'", "'awaited'"))?;
    let answer = of_awaited("stop", 10)?;
    promised!(answer.code != 0, "called stopped, and its guest may have come");
    answer.says(1, &["before", "has come here by a move"])?;
    for ran in ["<lrm_rsc_op operation='migrate_from' rc-code='1'/>", "<lrm_rsc_op operation='start' rc-code='0'/>"] {
        status(&format!("{refused}{ran}"))?;
        doubts()?;
    }
    fs::remove_file(folder.join("status.xml"))?;
    doubts()?;
    fs::remove_file(folder.join("cibadmin"))?;
    doubts()?;
    home.beats(boot)?;
    home.call(THERE, "stop", 60)?.is(0).map(drop)
}
