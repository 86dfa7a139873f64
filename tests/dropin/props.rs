//! What the scenarios of this suite need besides the stage.

use crate::stage::{self, SOON};
use anyhow::Result;
use lab::Lab;
use lab::process::replace;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A folder of programs that take the place of others, in a node.
pub const PROGRAMS: &str = "/run/stand-ins";

/// The PATH with those programs.
pub const PATH: &str = "/run/stand-ins:/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts a program in the place of one that is not installed.
pub fn stand_in(lab: &Lab, node: &str, name: &str, script: &str) -> Result<()> {
    let folder = lab.path_in(node, PROGRAMS)?;
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    replace(&path, &format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

/// Does something while a node does not have a program.
pub fn without<T>(lab: &Lab, node: &str, program: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let away = format!("{program}.away");
    lab.check(node, &["mv", program, &away], stage::PATIENCE)?;
    let result = act();
    lab.check(node, &["mv", &away, program], stage::PATIENCE)?;
    result
}

/// A file of the shared folder as this machine sees it.
pub fn shared(lab: &Lab, name: &str) -> PathBuf {
    lab.layout().shared().join(name)
}

/// After each scenario: no resource but the fence device, no stand-in, no network or pool, and what the stage wants.
pub fn tidy(lab: &Lab) -> Result<()> {
    let ours = |id: &str| id != "fence";
    let speaker = crate::cluster::speaker(lab)?;
    lab.exec(&speaker, &["cibadmin", "--delete", "--xml-text", "<clone id='clones'/>"], stage::PATIENCE)?;
    let seen = lab.membership()?;
    let all: Vec<&str> = seen.resources.iter().map(|resource| resource.id.as_str()).filter(|id| ours(id)).collect();
    // Stopped first: one that a probe has found, and that is deleted while it runs, Pacemaker stops without any parameter (it knows only
    // those of a start or a reload then), VirtualDomain refuses that, and its node is fenced.
    for id in &all {
        let words = ["crm_resource", "--resource", id, "--meta", "--set-parameter", "target-role", "--parameter-value", "Stopped"];
        lab.exec(&speaker, &words, stage::PATIENCE)?;
    }
    // One that is in nobody's hands stays.
    let _ = lab.wait_membership(stage::PATIENCE * 2, |seen| all.iter().all(|id| seen.runs_on(id).is_none()));
    for id in &all {
        let xml = format!("<primitive id='{id}'/>");
        lab.check(&speaker, &["cibadmin", "--delete", "--force", "--xml-text", &xml], stage::PATIENCE)?;
    }
    lab.wait_membership(stage::PATIENCE * 2, |seen| seen.resources.iter().all(|resource| !ours(&resource.id)))?;
    lab.check(&speaker, &["crm_resource", "--cleanup"], stage::PATIENCE)?;
    for node in lab.node_names() {
        let _ = fs::remove_dir_all(lab.path_in(&node, PROGRAMS)?);
        for (list, end, undefine) in [("net-list", "net-destroy", "net-undefine"), ("pool-list", "pool-destroy", "pool-undefine")] {
            for name in lab.check(&node, &["virsh", "-q", list, "--all", "--name"], SOON)?.split_whitespace() {
                lab.exec(&node, &["virsh", "-q", end, name], SOON)?;
                lab.exec(&node, &["virsh", "-q", undefine, name], SOON)?;
            }
        }
    }
    stage::tidy(lab)
}
