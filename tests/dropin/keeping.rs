//! `save_config_on_stop` and `sync_config_on_stop`: what was changed while the guest ran is there at its next start.

use crate::cluster::{configure, primitive, settle};
use crate::props::{PATH, shared, stand_in, without};
use crate::stage::{HERE, PATIENCE, Resource, THERE, soon};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::node::Terminal;
use lab::process::replace;
use lab::promised;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Changes the guest while it runs.
fn title(guest: &Resource, node: &str, text: &str) -> Result<()> {
    guest.virsh(node, "desc", &["--live", "--title", text]).map(drop)
}

fn config(guest: &Resource) -> Result<String> {
    Ok(fs::read_to_string(guest.lab.guest_definition(&guest.instance))?)
}

/// By monitor, not by a probe, and by stop; the file keeps owner and mode, the one before is kept.
pub fn saved_by_monitor_and_stop(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "kept")?.with("save_config_on_stop", "true").with("force_stop", "true");
    let (path, before) = (lab.guest_definition("kept"), config(&guest)?);
    fs::set_permissions(&path, Permissions::from_mode(0o640))?;
    chown(&path, Some(0), Some(7))?;
    guest.begin(HERE)?;
    title(&guest, HERE, "once")?;
    let started = config(&guest)?;
    guest.call(HERE, "monitor", 20)?.is(0)?;
    ensure!(config(&guest)? == started, "a probe has saved the definition");
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(config(&guest)?.contains("<title>once</title>"), "monitor has not saved the change");
    let original = shared(lab, "kept.xml.original");
    ensure!(fs::read_to_string(&original)? == before, "the first copy is not what was there");
    for path in [&path, &original] {
        let about = fs::metadata(path)?;
        ensure!((about.mode() & 0o777, about.gid()) == (0o640, 7), "{}: mode {:o}, group {}", path.display(), about.mode(), about.gid());
    }
    // Nothing new: not even touched.
    let inode = fs::metadata(&path)?.ino();
    guest.call(HERE, "recurring", 20)?.is(0)?;
    ensure!(fs::metadata(&path)?.ino() == inode, "monitor has written what was there");
    title(&guest, HERE, "twice")?;
    guest.end(HERE, 60)?;
    ensure!(config(&guest)?.contains("<title>twice</title>"), "stop has not saved the change");
    ensure!(fs::read_to_string(&original)? == before, "the first copy was overwritten");
    ensure!(fs::read_to_string(shared(lab, "kept.xml.previous"))?.contains("<title>once</title>"), "the one before is not kept");
    let stopped = fs::metadata(&path)?.ino();
    guest.call(HERE, "stop", 20)?.is(0)?;
    guest.call(HERE, "recurring", 20)?.is(7)?;
    ensure!(fs::metadata(&path)?.ino() == stopped, "a guest that is not there was saved");
    guest.begin(HERE)?;
    ensure!(guest.virsh(HERE, "desc", &["--title"])? == "twice", "the next start does not know the change");
    guest.end(HERE, 60)?;
    Ok(())
}

/// migrate_to saves at the source, migrate_from at the target.
pub fn around_a_move(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "keptmove")?.with("save_config_on_stop", "true");
    let guest = guest.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    guest.begin(HERE)?;
    title(&guest, HERE, "at the source")?;
    guest.call_with(HERE, "migrate_to", 120, &[("OCF_RESKEY_CRM_meta_migrate_target", THERE)])?.is(0)?;
    ensure!(config(&guest)?.contains("at the source"), "migrate_to has not saved the change");
    title(&guest, THERE, "at the target")?;
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    ensure!(config(&guest)?.contains("at the target"), "migrate_from has not saved the change");
    guest.call(HERE, "stop", 60)?.is(0)?;
    ensure!(guest.lives(THERE), "it is not there");
    guest.with("force_stop", "true").end(THERE, 60)?;
    Ok(())
}

/// A state file at the target that is an old one, of another guest: the one that has come is seen. And without one at the source its
/// emulator is noted when it is moved.
pub fn an_old_state_file_at_the_target(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "renewed")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    guest.begin(HERE)?;
    let (from, to) = (guest.record(HERE)?, guest.record(THERE)?);
    let record = fs::read_to_string(&from)?;
    let old = record.replace("\"name\":\"renewed\"", "\"name\":\"before\"");
    ensure!(old != record, "the state file is another one by now: {record}");
    lab.check(THERE, &["mkdir", "-p", "-m", "700", "/run/kvmha"], PATIENCE)?;
    fs::write(&to, old.replace("\"pid\":", "\"pid\":9"))?;
    fs::remove_file(&from)?;
    guest.call_with(HERE, "migrate_to", 120, &[("OCF_RESKEY_CRM_meta_migrate_target", THERE)])?.is(0)?;
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    ensure!(guest.lives(THERE), "it is not there");
    ensure!(fs::read_to_string(&to)?.contains("\"name\":\"renewed\""), "the old state file is still there");
    let noted: serde_json::Value = serde_json::from_slice(&fs::read(&from)?)?;
    ensure!(noted["pid"].is_i64(), "its emulator was not noted: {noted}");
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.with("force_stop", "true").end(THERE, 60)?;
    Ok(())
}

/// Without the parameter nobody writes to the file.
pub fn not_without_being_asked(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "unkept")?.with("force_stop", "true");
    let before = config(&guest)?;
    guest.begin(HERE)?;
    title(&guest, HERE, "changed")?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.with("save_config_on_stop", "false").end(HERE, 60)?;
    ensure!(config(&guest)? == before, "the definition was written");
    Ok(())
}

/// Where `/run` has no room for the definition, that is said, and the one that was noted before is not taken for it.
pub fn not_saved_in_full(lab: &Lab) -> Result<()> {
    const RUN: &str = "/run/kvmha";
    let guest = Resource::empty(lab, "roomless")?.with("save_config_on_stop", "true").with("force_stop", "true");
    let fill = format!("mkdir -p {RUN} && chmod 700 {RUN} && mount -t tmpfs -o size=64k,mode=700 tmpfs {RUN}");
    lab.check(HERE, &["sh", "-c", &fill], PATIENCE)?;
    let log = || fs::read(lab.layout().on_disk(1, "/var/log/messages")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let run = || -> Result<()> {
        guest.begin(HERE)?;
        // A person has changed the file meanwhile.
        let edited = format!("{}<!-- edited -->\n", config(&guest)?);
        fs::write(lab.guest_definition("roomless"), &edited)?;
        title(&guest, HERE, "too much")?;
        lab.exec(HERE, &["dd", "if=/dev/zero", &format!("of={RUN}/fill"), "bs=1k", "count=100"], PATIENCE)?;
        let before = log()?.len();
        guest.call(HERE, "stop", 60)?.is(0)?;
        guest.absent(HERE)?;
        ensure!(config(&guest)? == edited, "an older definition was written");
        let said = log()?.get(before..).unwrap_or_default().to_owned();
        ensure!(said.contains("definition of roomless is not saved: /run/kvmha/roomless.xml cannot be written"), "not said: {said}");
        Ok(())
    };
    let result = run();
    lab.check(HERE, &["umount", "--lazy", RUN], PATIENCE)?;
    result
}

/// A definition that was lost while the guest ran is there again, and nobody but root may read it.
pub fn config_lost(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "lost")?.with("save_config_on_stop", "true").with("force_stop", "true");
    guest.begin(HERE)?;
    let path = lab.guest_definition("lost");
    fs::remove_file(&path)?;
    guest.end(HERE, 60)?;
    ensure!(config(&guest)?.contains("<name>lost</name>"), "it is not there");
    ensure!(fs::metadata(&path)?.mode() & 0o077 == 0, "others may read the passwords in it");
    Ok(())
}

/// A stop with the parameters of an old probe, whose `config` is another resource's by now, as Pacemaker calls it where the guest has come by a
/// move: its own guest is ended and saved to its own file, the other one and its file are left alone.
pub fn config_is_another_resources(lab: &Lab) -> Result<()> {
    let [one, two] = ["one", "two"].map(|name| Resource::empty(lab, name));
    let (one, two) = (one?.with("force_stop", "true").with("save_config_on_stop", "true"), two?.with("force_stop", "true"));
    let old = one.with("config", "/srv/vms/two.xml");
    one.begin(HERE)?;
    two.begin(HERE)?;
    title(&one, HERE, "changed")?;
    let (emulators, definition) = (two.emulators(HERE)?, config(&two)?);
    // A glance does not know better either.
    old.call(HERE, "monitor", 20)?.is(0)?;
    old.end(HERE, 60)?;
    promised!(two.emulators(HERE)? == emulators, "the guest of another resource was ended");
    ensure!(config(&two)? == definition, "the definition of another resource was overwritten");
    ensure!(config(&one)?.contains("<title>changed</title>"), "its own was not saved");
    // Nor while it is moved, or started: its state file says so.
    let state = lab.path_in(HERE, "/run/kvmha/two.json")?;
    let record = fs::read_to_string(&state)?;
    one.begin(HERE)?;
    for (was, under_way) in [("\"moving\":null", "\"moving\":\"qemu+tcp://node2/system\""), ("\"creating\":false", "\"creating\":true")] {
        ensure!(record.contains(was), "the state file is another one by now: {record}");
        replace(&state, &record.replace(was, under_way))?;
        old.call(HERE, "stop", 60)?.is(0)?;
        promised!(two.emulators(HERE)? == emulators, "the guest of another resource was ended, with {under_way}");
        one.absent(HERE)?;
        one.begin(HERE)?;
    }
    replace(&state, &record)?;
    // A libvirt that was given wrongly then is no reason to fail.
    one.with("hypervisor", "qemu:/system").call(HERE, "stop", 60)?.is(0)?;
    one.absent(HERE)?;
    one.begin(HERE)?;
    one.with("hypervisor", "qemu+tcp://node9/system").call(HERE, "stop", 60)?.is(0)?;
    one.absent(HERE)?;
    // Another path to the same guest is what a person has set: there it is saved.
    let moved = lab.guest_definition("moved");
    fs::copy(lab.guest_definition("one"), &moved)?;
    let (before, elsewhere) = (config(&one)?, one.with("config", "/srv/vms/moved.xml"));
    one.begin(HERE)?;
    title(&one, HERE, "at its new place")?;
    elsewhere.call(HERE, "monitor", 20)?.is(0)?;
    elsewhere.call(HERE, "stop", 60)?.is(0)?;
    let saved = fs::read_to_string(&moved)?;
    fs::remove_file(&moved)?;
    ensure!(saved.contains("<title>at its new place</title>") && config(&one)? == before, "it was saved to the old place");
    // Without a state file, as where a move has failed before it came here, Pacemaker's configuration says that `config` is an old one.
    configure(lab, &primitive("one", "kvmha", "<nvpair id='one-meta-target-role' name='target-role' value='Stopped'/>"))?;
    settle(lab)?;
    old.call(HERE, "stop", 60)?.is(0)?;
    promised!(two.emulators(HERE)? == emulators, "the guest of another resource was ended without a state file");
    // An old path to the same guest is not what a person has set: it is saved where Pacemaker's configuration says.
    fs::copy(lab.guest_definition("one"), &moved)?;
    one.begin(HERE)?;
    title(&one, HERE, "at its own place")?;
    elsewhere.call(HERE, "stop", 60)?.is(0)?;
    one.absent(HERE)?;
    let saved = fs::read_to_string(&moved)?;
    fs::remove_file(&moved)?;
    ensure!(
        config(&one)?.contains("<title>at its own place</title>") && !saved.contains("at its own place"),
        "it was saved to an old place"
    );
    two.end(HERE, 60)?;
    // What another guest's definition is in by now is not overwritten.
    let (path, text) = (lab.guest_definition("one"), config(&two)?);
    one.begin(HERE)?;
    fs::write(&path, &text)?;
    one.end(HERE, 60)?;
    ensure!(fs::read_to_string(&path)? == text, "another guest's definition was overwritten");
    Ok(())
}

/// As before, but what is on record of the other resource has no emulator: a start or a move of its was begun, and what runs was not seen
/// by it. It is not spared, and called stopped, for the sake of that.
pub fn config_is_that_of_one_which_nobody_has_seen(lab: &Lab) -> Result<()> {
    let [one, two] = ["seen", "unseen"].map(|name| Resource::empty(lab, name));
    let (one, two) = (one?.with("force_stop", "true"), two?);
    let old = one.with("config", "/srv/vms/unseen.xml");
    let state = lab.path_in(HERE, "/run/kvmha/unseen.json")?;
    for (what, value) in [("moving", serde_json::json!("qemu+tcp://node2/system")), ("creating", true.into())] {
        one.begin(HERE)?;
        two.begin(HERE)?;
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&state)?)?;
        for (name, value) in [("pid", serde_json::Value::Null), ("start", serde_json::Value::Null), (what, value)] {
            ensure!(
                record.as_object_mut().and_then(|record| record.insert(name.to_owned(), value)).is_some(),
                "no {name} in the state file"
            );
        }
        replace(&state, &record.to_string())?;
        old.call(HERE, "stop", 40)?.is(0)?;
        one.absent(HERE)?;
        two.absent(HERE)?;
    }
    // Nothing of that name is here: it is not waited for.
    one.begin(HERE)?;
    let begin = Instant::now();
    old.call(HERE, "stop", 40)?.is(0)?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "it took {} s", begin.elapsed().as_secs());
    one.absent(HERE)?;
    Ok(fs::remove_file(state)?)
}

/// A stop with the parameters of an old probe and without a state file, as where the guest has come by a move while libvirt was silent:
/// what Pacemaker's configuration names by now is ended, also where the state file is of another that is gone.
pub fn config_is_older_than_what_came(lab: &Lab) -> Result<()> {
    let [one, two] = ["older", "newer"].map(|name| Resource::empty(lab, name));
    let (one, two) = (one?.with("force_stop", "true"), two?);
    let xml = primitive("older", "kvmha", "<nvpair id='older-meta-target-role' name='target-role' value='Stopped'/>");
    configure(lab, &xml.replace("/older.xml", "/newer.xml"))?;
    settle(lab)?;
    let create = || lab.check(HERE, &["virsh", "-q", "create", "/srv/vms/newer.xml"], PATIENCE);
    // Restored, its emulator is one that takes a guest in, as after a move.
    let come = || {
        create()?;
        two.virsh(HERE, "save", &["/srv/vms/newer.state"])?;
        lab.check(HERE, &["sh", "-c", "virsh -q restore /srv/vms/newer.state && rm /srv/vms/newer.state"], PATIENCE)
    };
    come()?;
    one.call(HERE, "stop", 60)?.is(0)?;
    two.absent(HERE)?;
    one.begin(HERE)?;
    one.virsh(HERE, "destroy", &[])?;
    come()?;
    one.call(HERE, "stop", 60)?.is(0)?;
    two.absent(HERE)?;
    // A person runs it, and this resource is yet to take it over.
    create()?;
    let emulators = two.emulators(HERE)?;
    one.call(HERE, "stop", 60)?.is(0)?;
    ensure!(two.emulators(HERE)? == emulators, "the guest of a person was ended");
    two.virsh(HERE, "destroy", &[])?;
    // Its own guest is here, and what is configured runs for another resource.
    two.begin(HERE)?;
    let emulators = two.emulators(HERE)?;
    one.begin(HERE)?;
    one.end(HERE, 60)?;
    one.call(HERE, "stop", 60)?.is(0)?;
    ensure!(two.emulators(HERE)? == emulators, "the guest of another resource was ended");
    two.with("force_stop", "true").end(HERE, 60).map(drop)
}

/// The state file is of a guest that has ended by itself, and the one that `config` names has come since, which nobody has seen yet: it may
/// be this resource's, as after a move into a node whose state file is old, and is ended.
pub fn config_names_what_came_since(lab: &Lab) -> Result<()> {
    let [first, second] = ["first", "second"].map(|name| Resource::empty(lab, name));
    let (first, second) = (first?.with("force_stop", "true"), second?);
    first.begin(HERE)?;
    first.virsh(HERE, "destroy", &[])?;
    lab.check(HERE, &["virsh", "-q", "create", "/srv/vms/second.xml"], PATIENCE)?;
    ensure!(second.lives(HERE), "it was not created");
    first.with("config", "/srv/vms/second.xml").call(HERE, "stop", 60)?.is(0)?;
    second.absent(HERE)
}

/// What was saved comes to the other node, which starts the guest from its own copy.
pub fn distributed_by_csync2(lab: &Lab) -> Result<()> {
    const CONFIG: &str = "/etc/kvm/twin.xml";
    let guest = Resource::empty(lab, "twin")?;
    let definition = config(&guest)?;
    let group = format!("nossl * *;\ngroup guests {{ host {HERE} {THERE}; key /etc/csync2.key; include {CONFIG}; }}\n");
    let files = [("/etc/csync2.cfg", &group), ("/etc/csync2.key", &"k".repeat(64)), (CONFIG, &definition)];
    for node in [HERE, THERE] {
        lab.check(node, &["mkdir", "-p", "/etc/kvm", "/var/lib/csync2"], PATIENCE)?;
        for (path, text) in &files {
            lab.check(node, &["sh", "-c", "printf %s \"$2\" >\"$1\"; chmod 600 \"$1\"", "sh", path, text], PATIENCE)?;
        }
        // The copies are the same now: only what comes later is a change.
        lab.check(node, &["csync2", "-cIr", "/"], PATIENCE)?;
    }
    let mut server =
        lab.enter(THERE, &["csync2", "-ii"], Terminal::None)?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let there = || lab.check(THERE, &["cat", CONFIG], PATIENCE);
    let run = || -> Result<()> {
        soon("csync2 listens", || {
            lab.exec(HERE, &["bash", "-c", &format!(": </dev/tcp/{THERE}/30865")], PATIENCE).is_ok_and(|output| output.ok())
        })?;
        let guest = guest.with("config", CONFIG).with("sync_config_on_stop", "true").with("force_stop", "true");
        guest.begin(HERE)?;
        title(&guest, HERE, "by monitor")?;
        guest.call(HERE, "recurring", 60)?.is(0)?;
        ensure!(there()?.contains("<title>by monitor</title>"), "the change that monitor saw has not come: {}", there()?);
        title(&guest, HERE, "by stop")?;
        guest.end(HERE, 60)?;
        guest.begin(THERE)?;
        ensure!(guest.virsh(THERE, "desc", &["--title"])? == "by stop", "it was not started from what stop has distributed");
        guest.end(THERE, 60).map(drop)
    };
    let result = run();
    server.kill()?;
    server.wait()?;
    result
}

/// What was saved is distributed once for each change; that it cannot be is no failure.
pub fn distributed_by_a_stand_in_for_csync2(lab: &Lab) -> Result<()> {
    stand_in(lab, HERE, "csync2", "echo \"$@\" >>/srv/vms/csync2.log; exit $(cat /srv/vms/csync2.code)")?;
    let guest = Resource::empty(lab, "synced")?.with("sync_config_on_stop", "true").with("force_stop", "true");
    let log = || fs::read_to_string(shared(lab, "csync2.log")).unwrap_or_default();
    let call = |action: &str| guest.call_with(HERE, action, 60, &[("PATH", PATH)]);
    fs::write(shared(lab, "csync2.code"), "0")?;
    call("start")?.is(0)?;
    let begun = log().lines().count();
    title(&guest, HERE, "one")?;
    call("recurring")?.is(0)?;
    call("recurring")?.is(0)?;
    ensure!(log().lines().count() == begun + 1, "not once for one change: {}", log());
    ensure!(log().lines().all(|line| line == "-x /srv/vms/synced.xml"), "{}", log());
    fs::write(shared(lab, "csync2.code"), "1")?;
    title(&guest, HERE, "two")?;
    call("stop")?.is(0)?;
    ensure!(log().lines().count() == begun + 2 && config(&guest)?.contains("two"), "stop has not distributed it");
    guest.absent(HERE)
}

/// A host without csync2 does not start such a guest, but stops and monitors it; the definition is saved all the same.
pub fn without_csync2(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "unsynced")?.with("force_stop", "true");
    let synced = guest.with("sync_config_on_stop", "true");
    without(lab, HERE, "/usr/sbin/csync2", || {
        synced.call_with(HERE, "validate-all", 20, &[("OCF_CHECK_LEVEL", "10")])?.says(5, &["csync2 is not installed"])?;
        synced.call(HERE, "start", 20)?.says(5, &["csync2"])?;
        guest.absent(HERE)?;
        synced.call(HERE, "monitor", 20)?.is(7)?;
        synced.call(HERE, "stop", 20)?.is(0)?;
        guest.begin(HERE)?;
        title(&guest, HERE, "changed")?;
        synced.call(HERE, "recurring", 20)?.is(0)?;
        ensure!(config(&guest)?.contains("changed"), "monitor has not saved the change");
        synced.end(HERE, 60).map(drop)
    })
}
