//! `snapshot`: the guest's memory outlives a stop, and never meets disks that it does not belong to.

use crate::props::shared;
use crate::stage::{HERE, Resource, SOON, THERE};
use anyhow::{Result, ensure};
use lab::Lab;
use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

fn state(lab: &Lab, name: &str) -> PathBuf {
    shared(lab, &format!("{name}.state"))
}

fn guest<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    Ok(Resource::new(lab, name)?.with("snapshot", "/srv/vms"))
}

/// Like [`guest`], but it does not beat, where that does not matter.
fn still<'a>(lab: &'a Lab, name: &str) -> Result<Resource<'a>> {
    Ok(Resource::empty(lab, name)?.with("snapshot", "/srv/vms"))
}

/// The states that were set aside.
fn outdated(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let names = fs::read_dir(lab.layout().shared())?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|entry| entry.starts_with(&format!("{name}.state.outdated-"))).collect())
}

/// The same boot goes on after stop and start, on another node too; the state is used up.
pub fn stopped_and_gone_on(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "paused")?;
    let boot = guest.boot(HERE)?;
    guest.beats(boot)?;
    for (from, to) in [(HERE, HERE), (HERE, THERE)] {
        guest.end(from, 90)?;
        ensure!(state(lab, "paused").exists(), "stop has not saved the state");
        ensure!(!guest.console(HERE)?.contains("init: power button"), "it was shut down");
        guest.begin(to)?;
        guest.beats(boot)?;
        let left = fs::read_dir(lab.layout().shared())?.flatten().any(|entry| entry.file_name().to_string_lossy().contains(".state"));
        ensure!(!left, "the state is still there");
        guest.call(to, "recurring", 20)?.is(0)?;
    }
    // force_stop wins over what cannot go with it, so that the guest can be stopped.
    guest.with("force_stop", "true").call(HERE, "start", 20)?.says(6, &["snapshot", "force_stop"])?;
    guest.with("force_stop", "true").end(THERE, 60)?;
    ensure!(!state(lab, "paused").exists(), "a forced stop has saved it");
    Ok(())
}

/// A guest whose monitor script has failed is not saved; one whose script succeeds again is.
pub fn failed_by_a_script(lab: &Lab) -> Result<()> {
    let (guest, text) = (still(lab, "scripted")?, state(lab, "scripted"));
    let (good, bad) = (guest.with("monitor_scripts", "/bin/true"), guest.with("monitor_scripts", "/bin/true /bin/false"));
    good.begin(HERE)?;
    bad.call(HERE, "recurring", 20)?.says(1, &["monitor script /bin/false"])?;
    good.call(HERE, "recurring", 20)?.is(0)?;
    good.end(HERE, 90)?;
    ensure!(text.exists(), "it was not saved, though its script had succeeded since");
    good.begin(HERE)?;
    bad.call(HERE, "recurring", 20)?.is(1)?;
    bad.end(HERE, 25)?;
    ensure!(!text.exists(), "the memory of a guest that had failed was saved");
    // One that is to start must be well too.
    bad.call(HERE, "start", 20)?.is(1)?;
    bad.end(HERE, 25)?;
    ensure!(!text.exists(), "the memory of a guest whose start had failed was saved");
    Ok(())
}

/// A state that cannot be written: the guest is shut down.
pub fn cannot_be_saved(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "unsaved")?.with("snapshot", "/srv/no-such-folder");
    guest.boot(HERE)?;
    guest.end(HERE, 90)?;
    ensure!(guest.console(HERE)?.contains("init: power button"), "it was not asked to shut down");
    Ok(())
}

/// A state that cannot be restored stays, the guest is not booted, and a person is told what to do.
pub fn cannot_be_restored(lab: &Lab) -> Result<()> {
    let guest = still(lab, "broken")?;
    fs::write(state(lab, "broken"), "no state of a guest")?;
    let file = "/srv/vms/broken.state";
    for _ in 0..2 {
        guest.call(HERE, "start", 60)?.says(1, &[file, "remove it"])?;
        guest.absent(HERE)?;
        ensure!(fs::read(state(lab, "broken"))? == b"no state of a guest", "it was touched");
    }
    // Another guest's is not taken either.
    let other = still(lab, "other")?;
    other.begin(HERE)?;
    other.end(HERE, 90)?;
    fs::rename(state(lab, "other"), state(lab, "broken"))?;
    guest.call(HERE, "start", 60)?.says(1, &[file, "another guest"])?;
    for name in ["broken", "other"] {
        ensure!(lab.processes(HERE, &format!("guest:{name}"))?.is_empty(), "{name} runs");
    }
    fs::remove_file(state(lab, "broken"))?;
    guest.begin(HERE)?;
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// The disk was written after the state: on another node, or by a person. Memory and disk would not belong together.
pub fn older_than_the_disk(lab: &Lab) -> Result<()> {
    let guest = still(lab, "older")?;
    guest.begin(HERE)?;
    guest.end(HERE, 90)?;
    let image = File::options().write(true).open(lab.guest_image("older"))?;
    image.set_times(FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(60)))?;
    guest.call(HERE, "start", 60)?.says(1, &["/srv/vms/older.state", "older.img", "remove it"])?;
    guest.absent(HERE)?;
    ensure!(state(lab, "older").exists(), "the state was removed");
    Ok(())
}

/// As [`older_than_the_disk`], where the disk is a volume of a pool, and where it was plugged in while the guest ran: only the state knows it. A
/// volume that is not found may be younger.
pub fn older_than_what_it_is_compared_with(lab: &Lab) -> Result<()> {
    let later = |name: &str| -> Result<()> {
        let image = File::options().write(true).open(lab.guest_image(name))?;
        Ok(image.set_times(FileTimes::new().set_modified(SystemTime::now() + Duration::from_secs(60)))?)
    };
    let guest = still(lab, "pooled")?;
    guest.edit(|text| {
        let text = text.replace("<disk type='file'", "<disk type='volume'");
        text.replace("<source file='/srv/vms/pooled.img'/>", "<source pool='vms' volume='pooled.img'/>")
    })?;
    let pool = |words: &[&str]| lab.check(HERE, &[&["virsh", "-q"], words].concat(), SOON);
    pool(&["pool-create-as", "vms", "dir", "--target", "/srv/vms"])?;
    guest.begin(HERE)?;
    guest.end(HERE, 90)?;
    later("pooled")?;
    guest.call(HERE, "start", 60)?.says(1, &["/srv/vms/pooled.state", "pooled.img", "remove it"])?;
    pool(&["pool-destroy", "vms"])?;
    guest.call(HERE, "start", 60)?.says(1, &["/srv/vms/pooled.state", "pooled.img of the pool vms cannot be told"])?;
    guest.absent(HERE)?;
    let (guest, plugged) = (still(lab, "plugged")?, still(lab, "plug")?);
    guest.begin(HERE)?;
    let image = format!("/srv/vms/{}.img", plugged.instance);
    guest.virsh(HERE, "attach-disk", &[&image, "vdb", "--live", "--targetbus", "virtio", "--driver", "qemu", "--subdriver", "raw"])?;
    guest.end(HERE, 90)?;
    later("plug")?;
    guest.call(HERE, "start", 60)?.says(1, &["/srv/vms/plugged.state", "plug.img", "remove it"])?;
    guest.absent(HERE)
}

/// `snapshot` was unset for a time, and the guest ran: when it is set again, or the guest is seen to run, the old state is set aside at once, not
/// only by the next stop, which a lost node does not live to see.
pub fn set_again_while_it_runs(lab: &Lab) -> Result<()> {
    let guest = still(lab, "again")?.with("migration_transport", "tcp").with("migrate_options", "--unsafe");
    guest.begin(HERE)?;
    let mut count = 0;
    let mut aside = |node: &str, action: &str| -> Result<()> {
        count += 1;
        fs::write(state(lab, "again"), count.to_string())?;
        guest.with("snapshot", "").call(node, action, 60)?.is(0)?;
        ensure!(state(lab, "again").exists(), "{action} without snapshot has touched it");
        guest.call(node, action, 60)?.is(0)?;
        let kept = outdated(lab, "again")?;
        ensure!(!state(lab, "again").exists() && kept.len() == count, "{action}: {kept:?}");
        Ok(())
    };
    aside(HERE, "reload-agent")?;
    aside(HERE, "start")?;
    guest.call_with(HERE, "migrate_to", 120, &[("OCF_RESKEY_CRM_meta_migrate_target", THERE)])?.is(0)?;
    aside(THERE, "migrate_from")?;
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.with("force_stop", "true").end(THERE, 60).map(drop)
}

/// A guest that ran on without its state makes that one useless: kept under another name, and the new one is saved.
pub fn ran_on_without_it(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "ranon")?;
    let boot = guest.boot(HERE)?;
    fs::write(state(lab, "ranon"), "old")?;
    guest.end(HERE, 90)?;
    let kept = outdated(lab, "ranon")?;
    ensure!(kept.len() == 1 && fs::read(shared(lab, &kept[0]))? == b"old", "the old one was not kept: {kept:?}");
    guest.begin(HERE)?;
    guest.beats(boot)?;
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// A file of texts in another language, as `msgfmt` makes it (GNU gettext, "The Format of GNU MO Files"); `texts` are in order.
fn catalogue(texts: &[(&str, &str)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or_default().to_le_bytes();
    let (count, mut tables, mut strings) = (texts.len(), Vec::new(), Vec::new());
    for text in texts.iter().map(|(own, _)| own).chain(texts.iter().map(|(_, other)| other)) {
        tables.extend([number(text.len()), number(28 + 16 * count + strings.len())].concat());
        strings.extend([text.as_bytes(), b"\0"].concat());
    }
    let head = [0x9504_12de, 0, count, 28, 28 + 8 * count, 0, 0].map(number).concat();
    [head, tables, strings].concat()
}

/// As [`not_written_to_its_end`], where libvirt says it in Japanese, as a daemon does to which systemd hands the language of the host.
pub fn not_written_to_its_end_in_japanese(lab: &Lab) -> Result<()> {
    let texts = [
        ("", "Content-Type: text/plain; charset=UTF-8\n"),
        ("operation failed: %s", "操作に失敗しました: %s"),
        ("save image is incomplete", "保存イメージが不完全です"),
    ];
    let folder = lab.path_in(HERE, "/usr/share/locale/ja/LC_MESSAGES")?;
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("libvirt.mo"), catalogue(&texts))?;
    // A language counts in every locale but C.
    lab.kill(HERE, "libvirtd")?;
    lab.check(HERE, &["sh", "-c", "cd / && LANG=C.UTF-8 LANGUAGE=ja libvirtd --listen --daemon"], SOON)?;
    let result = not_written_to_its_end(lab);
    let kept = outdated(lab, "partial")?.concat();
    let said = lab.exec(HERE, &["virsh", "save-image-dumpxml", &format!("/srv/vms/{kept}")], SOON)?.stderr;
    lab.restart(HERE, "libvirtd")?;
    result?;
    ensure!(said.contains("保存イメージが不完全です"), "libvirt speaks no Japanese: {said}");
    Ok(())
}

/// A host that was lost while it saved leaves a state that libvirt has marked so: the guest is booted, nothing is deleted.
pub fn not_written_to_its_end(lab: &Lab) -> Result<()> {
    let guest = still(lab, "partial")?;
    guest.begin(HERE)?;
    guest.end(HERE, 90)?;
    let mut bytes = fs::read(state(lab, "partial"))?;
    ensure!(bytes.starts_with(b"LibvirtQemudSave"), "not a state of libvirt");
    bytes.splice(..16, *b"LibvirtQemudPart");
    fs::write(state(lab, "partial"), &bytes)?;
    guest.begin(HERE)?;
    let kept = outdated(lab, "partial")?;
    ensure!(kept.len() == 1 && fs::read(shared(lab, &kept[0]))? == bytes, "it was not kept: {kept:?}");
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// A start that restored the guest and got no further: stop ends the copy, and the memory is there for the next start. One that an earlier
/// start used stays used.
pub fn restored_and_never_let_run(lab: &Lab) -> Result<()> {
    let guest = guest(lab, "halfway")?;
    let boot = guest.boot(HERE)?;
    guest.beats(boot)?;
    let used = shared(lab, "halfway.state.restored");
    for restoring in [true, false] {
        guest.begin(HERE)?;
        let record = lab.check(HERE, &["sh", "-c", "cat /run/kvmha/halfway.json"], Duration::from_secs(10))?;
        guest.end(HERE, 90)?;
        // What is there between the request to restore it and the one to let it run.
        lab.check(HERE, &["virsh", "-q", "restore", "--paused", "/srv/vms/halfway.state"], Duration::from_secs(60))?;
        fs::rename(state(lab, "halfway"), &used)?;
        let record = record.replace("\"creating\":false", "\"creating\":true");
        let record = record.replace("\"restoring\":false", &format!("\"restoring\":{restoring}"));
        let script = format!("umask 077; echo '{record}' >/run/kvmha/halfway.json");
        lab.check(HERE, &["sh", "-c", &script], Duration::from_secs(10))?;
        guest.call(HERE, "stop", 60)?.is(0)?;
        guest.absent(HERE)?;
        ensure!(state(lab, "halfway").exists() == restoring, "restoring {restoring}: the state is wrong");
        ensure!(used.exists() != restoring, "restoring {restoring}: the used state is wrong");
        if restoring {
            guest.begin(HERE)?;
            guest.beats(boot)?;
        }
    }
    guest.begin(HERE)?;
    ensure!(!used.exists() && !state(lab, "halfway").exists(), "a used state is still there");
    ensure!(outdated(lab, "halfway")?.len() == 1, "the used state was not kept");
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}
