//! `kvmha storage`, `kvmha check` and validate-all: what is said to a person about a guest's storage.

use crate::same::{loose, nothing_left};
use anyhow::{Context, Result, ensure};
use kvmha::storage::kind::{Kind, TABLE, Tried};
use lab::guest::stopping_at_errors;
use lab::stage::{HERE, PATIENCE, Resource, SOON, THERE};
use lab::storage::Reach;
use lab::{Lab, StorageFault};

/// A command on a node: its code and what it said.
pub fn kvmha(guest: &Resource, words: &[&str]) -> Result<(Option<i32>, String)> {
    let config = format!("/srv/vms/{}.xml", guest.instance);
    let words: Vec<&str> = ["kvmha", words[0], &config].into_iter().chain(words[1..].iter().copied()).collect();
    let output = guest.lab.exec(HERE, &words, PATIENCE)?;
    Ok((output.code, output.stdout + &output.stderr))
}

/// A table for people; code 1 if the other node has another disk of that name.
pub fn table(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "tabled")?;
    let (code, text) = kvmha(&guest, &["storage"])?;
    ensure!(code == Some(0) && text.contains("/srv/vms/tabled.img") && text.contains("local file system"), "code {code:?}: {text}");
    ensure!(text.contains("error_policy"), "{text}");
    let to = ["storage", "--to", THERE, "--set", "migration_transport=tcp"];
    let (code, text) = kvmha(&guest, &to)?;
    ensure!(code == Some(0) && text.contains("the same") && text.contains("ON NODE2"), "code {code:?}: {text}");
    guest.edit(|text| text.replace("<source file='/srv/vms/", "<source file='/srv/mine/"))?;
    for node in [HERE, THERE] {
        lab.check(node, &["sh", "-c", "mkdir -p /srv/mine; truncate -s 1M /srv/mine/tabled.img"], SOON)?;
    }
    let (code, text) = kvmha(&guest, &to)?;
    ensure!(code == Some(1) && text.contains("ANOTHER"), "code {code:?}: {text}");
    let (code, text) = kvmha(&guest, &["storage", "--to", "nowhere", "--set", "migration_transport=tcp"])?;
    ensure!(code == Some(1) && text.contains("nowhere"), "code {code:?}: {text}");
    nothing_left(lab)
}

/// JSON, with what is known of each thing.
pub fn json(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "written")?;
    guest.edit(|text| {
        let cd = "<disk type='file' device='cdrom'><source file='/srv/vms/none.iso'/><target dev='hdc' bus='ide'/></disk>";
        text.replace("</devices>", &format!("{cd}</devices>")).replace("cache='none'", "cache='unsafe' error_policy='stop'")
    })?;
    let (code, text) = kvmha(&guest, &["storage", "--json", "--to", THERE, "--set", "migration_transport=tcp"])?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("no JSON")?;
    let [disk, media] = [0, 1].map(|at| &answer["storage"][at]);
    ensure!(code == Some(0) && answer["guest"] == "written" && answer["to"] == THERE, "code {code:?}: {text}");
    ensure!(disk["item"]["name"] == "vda" && disk["item"]["role"] == "disk" && disk["kind"] == "local file system", "{text}");
    ensure!(disk["same"]["proven"].is_string() && disk["identity"] == "local", "{text}");
    ensure!(disk["hazards"].as_array().is_some_and(|all| all.len() == 1 && all[0].to_string().contains("unsafe")), "{text}");
    ensure!(media["item"]["role"] == "media" && media["sight"]["missing"].is_string(), "{text}");
    Ok(())
}

/// Storage that does not answer: said, in time; and once for all who ask.
pub fn hung(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "hung")?;
    guest.edit(|text| text.replace("<source file='/srv/vms/", "<source file='/srv/hang/"))?;
    lab.storage(HERE, StorageFault::Hold(Reach::Everything))?;
    let outcome = (|| {
        for _ in 0..3 {
            let (code, text) = kvmha(&guest, &["storage"])?;
            ensure!(code == Some(1) && text.contains("hangs"), "code {code:?}: {text}");
        }
        let left = lab.processes(HERE, "kvmha")?.len();
        ensure!(left == 1, "{left} processes wait for the storage");
        Ok(())
    })();
    lab.storage(HERE, StorageFault::None)?;
    let gone = || lab.processes(HERE, "kvmha").is_ok_and(|left| left.is_empty());
    ensure!(lab::process::wait_until(PATIENCE, std::time::Duration::from_millis(50), gone), "what waited for the storage does not end");
    outcome
}

/// What will hurt is said by validate-all at level 10 and by `kvmha check`, and does not make them fail.
pub fn warnings(lab: &Lab) -> Result<()> {
    let guest = loose(&Resource::empty(lab, "warned")?);
    let answer = guest.call_with(HERE, "validate-all", 60, &[("OCF_CHECK_LEVEL", "10")])?.is(0)?;
    ensure!(answer.stderr.contains("vda (/srv/vms/warned.img): no error_policy"), "{}", answer.stderr);
    let (code, text) = kvmha(&guest, &["check", "--to", THERE, "--set", "migration_transport=tcp", "--set", "migrate_options=--unsafe"])?;
    ensure!(code == Some(0) && text.contains("no error_policy") && text.contains("is the same file on node2"), "code {code:?}: {text}");
    guest.edit(stopping_at_errors)?;
    let answer = guest.call_with(HERE, "validate-all", 60, &[("OCF_CHECK_LEVEL", "10")])?.is(0)?;
    ensure!(!answer.stderr.contains("error_policy"), "{}", answer.stderr);
    Ok(())
}

/// What an image is based on is found, also where the definition does not name it.
pub fn chain(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "based")?;
    let make = "cd /srv/vms && mv based.img base.img && mkdir -p /srv/base && cp base.img /srv/base/ && \
        qemu-img create -q -f qcow2 -F raw -b /srv/base/base.img based.img";
    lab.check(HERE, &["sh", "-c", make], SOON)?;
    guest.edit(|text| text.replace("type='raw'", "type='qcow2'"))?;
    let (code, text) = kvmha(&guest, &["storage", "--to", THERE, "--set", "migration_transport=tcp"])?;
    ensure!(code == Some(1) && text.contains("/srv/base/base.img") && text.contains("ANOTHER"), "code {code:?}: {text}");
    nothing_left(lab)
}

/// The manual says "real" of the kinds that this suite has, and of no others.
pub fn matrix(_: &Lab) -> Result<()> {
    // `same` and `other` have a folder of this machine's disk, and one of the lab's own FUSE file system.
    let here =
        [Kind::Local, Kind::Fuse, Kind::Loop, Kind::NetNbd, Kind::NetIscsi, Kind::NetNfs, Kind::NetRbd, Kind::Gluster, Kind::NetGluster];
    for row in TABLE {
        ensure!((row.tried == Tried::Real) == here.contains(&row.kind), "{} is said to be tried: {}", row.name, row.tried);
    }
    Ok(())
}
