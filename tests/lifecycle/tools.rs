//! The agent beside others: the incumbent, ocf-tester, strace.

use crate::stage::{AGENT, Agent, HERE, Resource, SOON};
use anyhow::{Result, ensure};
use lab::Lab;
use std::fs;
use std::time::Duration;

/// A guest that `ocf:heartbeat:VirtualDomain` has started is taken over where it runs; and the other way round.
pub fn incumbent(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "takeover")?;
    let theirs = |action: &str| {
        let mut words = Resource { agent: Agent::Theirs, ..guest.clone() }.words(HERE, action, 60, &[]);
        for name in ["autoset_utilization_cpu", "autoset_utilization_host_memory", "autoset_utilization_hv_memory"] {
            words.insert(1, format!("OCF_RESKEY_{name}=false"));
        }
        lab.exec(HERE, &words, Duration::from_secs(60))
    };
    theirs("start")?.success("the incumbent's start")?;
    for action in ["monitor", "recurring", "status", "start"] {
        guest.call(HERE, action, 20)?.is(0)?;
    }
    theirs("monitor")?.success("the incumbent's monitor")?;
    guest.end(HERE, 90)?;
    ensure!(theirs("monitor")?.code == Some(7), "the incumbent still sees it");
    // It presses the button once only, so the guest has to hear it.
    guest.boot(HERE)?;
    theirs("monitor")?.success("the incumbent's monitor")?;
    theirs("stop")?.success("the incumbent's stop")?;
    guest.call(HERE, "recurring", 20)?.is(7)?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    Ok(())
}

/// The test tool of resource-agents finds nothing to complain of.
pub fn ocf_tester(lab: &Lab) -> Result<()> {
    let _guest = Resource::new(lab, "tested")?;
    let config = "config=/srv/vms/tested.xml";
    let words = ["ocf-tester", "-n", "tested", "-o", config, "-o", "hypervisor=qemu:///system", "-o", "force_stop=true", AGENT];
    let output = lab.exec(HERE, &words, Duration::from_secs(300))?;
    let said = format!("{}\n{}", output.stdout.trim(), output.stderr.trim());
    ensure!(output.ok() && said.contains("passed all tests"), "code {:?}: {said}", output.code);
    // The first check is made as nobody.
    let complaints: Vec<&str> = said.lines().filter(|line| ["rror", "failed", "denied"].iter().any(|word| line.contains(word))).collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// A healthy monitor is one process that asks libvirt's socket: no child, no thread, no look at the shared storage, no libvirt.
pub fn light_monitor(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "light")?;
    guest.begin(HERE)?;
    guest.call(HERE, "recurring", 20)?.is(0)?;
    let mut words = guest.words(HERE, "recurring", 20, &[]);
    let at = words.iter().position(|word| word == AGENT).unwrap_or_default();
    words.splice(at..at, ["strace", "-f", "-s", "300", "-o", "/tmp/trace"].map(str::to_owned));
    lab.exec(HERE, &words, SOON)?.success("monitor under strace")?;
    let trace = fs::read_to_string(lab.path_in(HERE, "/tmp/trace")?)?;
    let calls = |name: &str| trace.lines().filter(|line| line.contains(&format!(" {name}("))).collect::<Vec<_>>();
    for name in ["clone", "clone3", "fork", "vfork"] {
        ensure!(calls(name).is_empty(), "monitor starts a process or a thread: {:?}", calls(name));
    }
    ensure!(calls("execve").len() == 1, "monitor runs programs: {:?}", calls("execve"));
    ensure!(calls("connect").iter().any(|line| line.contains("libvirt-sock")), "monitor does not ask libvirt: {:?}", calls("connect"));
    for word in ["light.xml", "/srv/vms", "libvirt.so"] {
        // The environment names the file; strace shows only that it is there.
        let touched: Vec<&str> = trace.lines().filter(|line| line.contains(word) && !line.contains("execve")).collect();
        // The state file names the file; reading it is no access to it.
        let opened: Vec<&&str> = touched.iter().filter(|line| !line.contains(" read(") && !line.contains(" write(")).collect();
        ensure!(opened.is_empty(), "monitor touches {word}: {opened:?}");
    }
    Ok(())
}
