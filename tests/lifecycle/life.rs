//! The ordinary life of a guest: probe, start, monitor, stop, each twice.

use crate::stage::{Answer, HERE, Resource, THERE};
use anyhow::{Result, ensure};
use lab::Lab;
use lab::process::replace;
use lab::promised;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// All actions in the order of a life, each twice.
pub fn normal(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "normal")?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    guest.call(HERE, "recurring", 20)?.is(7)?;
    guest.call(HERE, "status", 20)?.is(7)?;
    let boot = guest.boot(HERE)?;
    guest.call(HERE, "start", 60)?.is(0)?;
    guest.beats(boot)?;
    promised!(guest.emulators(HERE)?.len() == 1, "the second start started another one");
    for action in ["monitor", "recurring", "status", "reload-agent", "validate-all"] {
        guest.call(HERE, action, 20)?.is(0)?;
    }
    let record = guest.record(HERE)?;
    let mode = |path: &std::path::Path| fs::metadata(path).map(|about| about.permissions().mode() & 0o777);
    ensure!(mode(&record)? & 0o077 == 0, "the state file is not root's alone");
    ensure!(mode(&lab.path_in(HERE, "/run/kvmha")?)? == 0o700, "/run/kvmha is not root's alone");
    ensure!(guest.virsh(HERE, "dominfo", &[])?.contains("Persistent:     no"), "the guest is not transient");
    guest.end(HERE, 60)?;
    ensure!(guest.console(HERE)?.contains("init: power button"), "the guest was not asked to shut down");
    guest.call(HERE, "stop", 60)?.is(0)?;
    guest.call(HERE, "recurring", 20)?.is(7)?;
    guest.call(HERE, "monitor", 20)?.is(7)?;
    ensure!(!guest.virsh(HERE, "list --all", &[]).is_ok_and(|list| list.contains("normal")), "stop left a definition");
    let again = guest.boot(HERE)?;
    ensure!(again != boot, "started again, but not booted again");
    guest.with("force_stop", "true").end(HERE, 60)?;
    Ok(())
}

/// What was never started can be stopped, on every node.
pub fn never_started(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "never")?;
    for node in [HERE, THERE] {
        guest.call(node, "stop", 60)?.is(0)?.at_once(Duration::from_secs(30))?;
        guest.call(node, "monitor", 20)?.is(7)?;
    }
    Ok(())
}

/// A guest that ignores the power button is ended by force, in time.
pub fn deaf(lab: &Lab) -> Result<()> {
    let guest = Resource::deaf(lab, "deaf")?;
    guest.boot(HERE)?;
    guest.end(HERE, 20)?;
    let boot = guest.boot(HERE)?;
    guest.beats(boot)?;
    // Asking first would take until 40 s before the end of the time.
    guest.with("force_stop", "true").end(HERE, 90)?.at_once(Duration::from_secs(40))?;
    Ok(())
}

/// The time is too short for asking.
pub fn deaf_in_no_time(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "hasty")?;
    guest.begin(HERE)?;
    guest.end(HERE, 5)?;
    Ok(())
}

/// There is no guest agent to answer: ACPI comes second.
pub fn agent_mode_without_agent(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "agentless")?.with("shutdown_mode", "agent");
    guest.boot(HERE)?;
    guest.end(HERE, 60)?;
    ensure!(guest.console(HERE)?.contains("init: power button"), "the guest was not asked by ACPI");
    Ok(())
}

/// A caller that sets nothing but `config`, as a person or drbd-reactor does.
pub fn no_variables(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "plain")?;
    let call = |action: &str| {
        let words = ["env", "OCF_RESKEY_config=/srv/vms/plain.xml", crate::stage::AGENT, action];
        let timeout = Duration::from_secs(90);
        Answer::of(format!("{action} without variables"), &lab.exec(HERE, &words, timeout)?, timeout)
    };
    call("monitor")?.is(7)?;
    call("start")?.is(0)?;
    promised!(guest.lives(HERE), "start said 0, but nothing runs");
    call("start")?.is(0)?;
    call("monitor")?.is(0)?;
    call("status")?.is(0)?;
    call("stop")?.is(0)?;
    guest.absent(HERE)?;
    call("stop")?.is(0)?;
    call("monitor")?.is(7)?;
    Ok(())
}

/// A name that a shell would take apart.
pub fn nasty_name(lab: &Lab) -> Result<()> {
    let name = r#"a b; touch owned `id` 'q' "d" & | <x> * \ ü -c"#;
    let mut guest = Resource::new(lab, "nasty")?;
    let escaped = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    guest.edit(|text| text.replace("<name>nasty</name>", &format!("<name>{escaped}</name>")))?;
    guest.name = name.to_owned();
    // The path of the definition, too.
    let config = lab.layout().shared().join("na $(id) 'st' y.xml");
    replace(&config, &fs::read_to_string(lab.guest_definition("nasty"))?)?;
    let guest = guest.with("config", "/srv/vms/na $(id) 'st' y.xml");
    guest.call(HERE, "monitor", 20)?.is(7)?;
    let boot = guest.boot(HERE)?;
    ensure!(guest.virsh(HERE, "domstate", &[])? == "running", "libvirt has it under another name");
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.call(HERE, "start", 20)?.is(0)?;
    guest.beats(boot)?;
    guest.end(HERE, 60)?;
    ensure!(guest.console(HERE)?.contains("init: power button"), "the guest was not asked to shut down");
    ensure!(!lab.path_in(HERE, "/owned")?.exists(), "a shell took the name apart");
    Ok(())
}

/// Two guests on one node, one named as the other begins.
pub fn names_that_begin_alike(lab: &Lab) -> Result<()> {
    let (one, other) = (Resource::empty(lab, "alike")?, Resource::empty(lab, "alike-test")?);
    other.begin(HERE)?;
    one.call(HERE, "monitor", 20)?.is(7)?;
    one.call(HERE, "stop", 20)?.is(0)?;
    promised!(other.lives(HERE), "the stop of alike ended alike-test");
    one.begin(HERE)?;
    one.with("force_stop", "true").end(HERE, 20)?;
    other.call(HERE, "recurring", 20)?.is(0)?;
    other.with("force_stop", "true").end(HERE, 20)?;
    Ok(())
}

/// While it boots a guest does not hear the button yet: the request has to be repeated.
pub fn stopped_while_it_boots(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "young")?;
    guest.begin(HERE)?;
    guest.end(HERE, 90)?;
    ensure!(guest.console(HERE)?.contains("init: power button"), "the guest was ended by force");
    Ok(())
}
