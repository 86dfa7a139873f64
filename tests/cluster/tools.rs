//! What administrators' tools make of the agent, and a guest's quiet life.

use anyhow::{Context, Result, ensure};
use lab::Output;
use lab::placed::{Guest, OPERATIONS};
use lab::scene::{LIMIT, Stage};
use roxmltree::Document;

const README: &str = include_str!("../../README.md");

/// The example of the README that begins with these words, as one line for a shell.
fn example(begin: &str) -> Result<String> {
    let (_, rest) = README.split_once(&format!("    {begin}")).with_context(|| format!("the README has no example: {begin}"))?;
    let mut line = begin.to_owned();
    for part in rest.lines() {
        match part.trim_end().strip_suffix('\\') {
            Some(part) => line.push_str(part),
            None => {
                line.push_str(part);
                break;
            }
        }
    }
    Ok(line)
}

/// It succeeded and had nothing to object to.
fn content(output: Output, line: &str) -> Result<String> {
    let said = format!("{}{}", output.stdout, output.stderr);
    // pcs has nobody to ask for the other nodes' state in the lab, and says so.
    let objection = said.lines().find(|text| {
        let text = text.to_lowercase();
        ["warning", "error", "unknown", "invalid", "deprecated"].iter().any(|word| text.contains(word))
    });
    let objection = objection.map(str::to_owned);
    let text = output.success(line)?;
    ensure!(objection.is_none(), "{line}: {}", objection.unwrap_or_default());
    Ok(text)
}

/// Makes the resource of an example of the README, runs it and takes it away.
fn work(stage: &Stage, begin: &str) -> Result<()> {
    // The lab's nodes have no ssh.
    let line = example(begin)?.replace("migration_transport=ssh", "migration_transport=tcp");
    let guest = Guest::files(stage, "web1")?;
    content(stage.lab.exec(&stage.speaker()?, &["sh", "-c", &line], LIMIT)?, &line)?;
    guest.runs(1)?;
    stage.no_failures()?;
    guest.end(1).map(drop)
}

pub fn pcs(stage: &Stage) -> Result<String> {
    let line = "pcs resource describe ocf:kvmha:VirtualDomain";
    let text = stage.check(line)?;
    // A name is followed by a colon up to pcs 0.11, and stands alone since.
    for word in ["config (required)", "migration_transport", "shutdown_mode", "migrate_to", "reload-agent"] {
        ensure!(text.lines().any(|line| line.trim_start().starts_with(word)), "{line} does not show {word}:\n{text}");
    }
    let line = "crm_resource --validate --class ocf --provider kvmha --agent VirtualDomain --option config=/srv/vms/web1.xml";
    content(stage.run(line)?, line)?;
    let wrong = stage.run(&format!("{line} --option force_stop=perhaps"))?;
    ensure!(wrong.code == Some(6), "force_stop=perhaps should be refused as not configured: {wrong:?}");
    work(stage, "pcs resource create web1")?;
    Ok(String::new())
}

pub fn crmsh(stage: &Stage) -> Result<String> {
    let line = "crm ra info ocf:kvmha:VirtualDomain";
    let output = stage.run(line)?;
    let said = format!("{}{}", output.stdout, output.stderr);
    for word in ["config* (string", "migration_transport (string", "monitor       depth=0 timeout=30s interval=10s"] {
        ensure!(said.contains(word), "{line} does not show {word}:\n{said}");
    }
    work(stage, "crm configure primitive web1")?;
    Ok(String::new())
}

pub fn placed(stage: &Stage) -> Result<String> {
    let guest = Guest::placed(stage, "vm1")?;
    let node = guest.node()?;
    stage.no_failures()?;
    let text = stage.check("cibadmin --query --scope status")?;
    let document = Document::parse(&text)?;
    for state in document.descendants().filter(|element| element.has_tag_name("node_state")) {
        let name = state.attribute("uname").unwrap_or_default();
        let probes = state.descendants().filter(|element| element.attribute("operation_key") == Some("vm1_monitor_0"));
        let codes: Vec<&str> = probes.filter_map(|probe| probe.attribute("rc-code")).collect();
        // Where it was started, the start has taken the probe's place.
        ensure!(codes == ["7"] || (name == node && codes.is_empty()), "the probe on {name} said {codes:?}");
    }
    guest.end(1)?;
    Ok(String::new())
}

/// A configuration written for `ocf:heartbeat:VirtualDomain` works with one word changed.
pub fn drop_in(stage: &Stage) -> Result<String> {
    let guest = Guest::files(stage, "vm1")?;
    let parameters = "hypervisor=qemu:///system force_stop=false autoset_utilization_cpu=false autoset_utilization_hv_memory=false";
    for (agent, boots) in [("ocf:heartbeat:VirtualDomain", 1), ("ocf:kvmha:VirtualDomain", 2)] {
        guest.give(agent, parameters, OPERATIONS).with_context(|| agent.to_owned())?;
        guest.runs(boots).with_context(|| agent.to_owned())?;
        let target = guest.other_node()?;
        guest.move_to(&target).with_context(|| agent.to_owned())?;
        guest.runs(boots).with_context(|| agent.to_owned())?;
        stage.no_failures()?;
        if boots == 1 {
            stage.check("pcs resource delete vm1")?;
            stage.settle()?;
            guest.is_nowhere()?;
        }
    }
    guest.end(2)?;
    Ok(String::new())
}
