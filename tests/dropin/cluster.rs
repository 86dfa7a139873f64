//! Guests in the hands of the cluster under one agent or the other, and `kvmha adopt` watched.

use crate::stage::{HERE, PATIENCE, Resource};
use anyhow::{Context, Result, ensure};
use lab::heartbeat::Ring;
use lab::node::Terminal;
use lab::process::{Identity, arguments, replace, wait_end, wait_until};
use lab::promised;
use lab::scene::{LIMIT, Stage};
use lab::{GuestOptions, Lab, Membership, Output};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

pub const THEIRS: &str = "ocf:heartbeat:VirtualDomain";
pub const OURS: &str = "ocf:kvmha:VirtualDomain";

/// Makes guests, those that beat first, and has the cluster run them under an agent.
pub fn placed(lab: &Lab, beating: &[&str], empty: &[&str], agent: &str) -> Result<()> {
    for name in beating {
        lab.guest_create(name, &GuestOptions::default())?;
    }
    for name in empty {
        Resource::empty(lab, name)?;
    }
    let provider = agent.split(':').nth(1).context("no provider")?;
    let names: Vec<&str> = beating.iter().chain(empty).copied().collect();
    let xml: String = names.iter().map(|name| primitive(name, provider, "")).collect();
    configure(lab, &format!("<resources>{xml}</resources>"))?;
    for name in &names {
        let runs = wait_until(LIMIT, Duration::from_millis(100), || lab.membership().is_ok_and(|seen| seen.runs_on(name).is_some()));
        ensure!(runs, "{name} does not run: {:?}", lab.membership());
    }
    for name in beating {
        let beats = wait_until(LIMIT, Duration::from_millis(50), || Ring::read(&lab.guest_image(name)).is_ok());
        ensure!(beats, "{name} does not beat");
    }
    settle(lab)
}

/// A resource of a guest, with more meta attributes.
pub fn primitive(name: &str, provider: &str, meta: &str) -> String {
    let operations = [
        ["start", "0s", "90s"],
        ["stop", "0s", "60s"],
        ["monitor", "10s", "20s"],
        ["migrate_to", "0s", "120s"],
        ["migrate_from", "0s", "60s"],
    ];
    lab::placed::primitive(name, provider, &[("force_stop", "true")], meta, &operations)
}

/// Puts resources into the CIB.
pub fn configure(lab: &Lab, xml: &str) -> Result<()> {
    replace(&lab.layout().shared().join("resources.xml"), xml)?;
    let words = ["cibadmin", "--modify", "--allow-create", "--scope", "resources", "--xml-file", "/srv/vms/resources.xml"];
    lab.check(&speaker(lab)?, &words, PATIENCE).map(drop)
}

/// A node that is in the cluster.
pub fn speaker(lab: &Lab) -> Result<String> {
    Stage::of(lab).speaker()
}

/// Waits until all nodes are there and the cluster has nothing left to do.
pub fn settle(lab: &Lab) -> Result<()> {
    let stage = Stage::of(lab);
    stage.all_online()?;
    stage.settle()
}

/// Changes the place of a parameter or an agent in the CIB; its text.
pub fn cib(lab: &Lab) -> Result<String> {
    lab.check(&speaker(lab)?, &["cibadmin", "--query", "--scope", "configuration"], PATIENCE)
}

/// Every guest is where it was, by Pacemaker and by its process, under this agent, looked after, and nothing of a change is left.
pub fn all_well(lab: &Lab, guests: &[Placed], agent: &str) -> Result<()> {
    settle(lab)?;
    let seen = lab.membership()?;
    ensure!(seen.failures.is_empty(), "failed actions: {:?}", seen.failures);
    for guest in guests {
        let (name, node) = (&guest.name, &guest.node);
        ensure!(seen.runs_on(name) == Some(node), "{name} should be on {node}: {:?}", seen.resources);
        ensure!(agent_of(&seen, name) == agent, "{name} is {}", agent_of(&seen, name));
        promised!(guest.emulator.alive(), "the emulator of {name} is gone: it was stopped");
    }
    nothing_left(lab)
}

/// No resource is in maintenance, or marked.
pub fn nothing_left(lab: &Lab) -> Result<()> {
    let text = cib(lab)?;
    ensure!(!text.contains("kvmha-adopt") && !text.contains("name=\"maintenance\""), "something is left in the CIB: {text}");
    Ok(())
}

fn agent_of<'a>(seen: &'a Membership, name: &str) -> &'a str {
    seen.resources.iter().find(|resource| resource.id == name).map_or("gone", |resource| resource.agent.as_str())
}

/// Where a guest is, and its emulator.
pub struct Placed {
    pub name: String,
    pub node: String,
    pub emulator: Identity,
}

impl Placed {
    pub fn all(lab: &Lab, names: &[&str]) -> Result<Vec<Self>> {
        let seen = lab.membership()?;
        let one = |name: &&str| -> Result<Self> {
            let node = seen.runs_on(name).with_context(|| format!("{name} does not run"))?.to_owned();
            let emulator = *lab.processes(&node, &format!("guest:{name}"))?.first().context("no emulator")?;
            Ok(Self { name: (*name).to_owned(), node, emulator })
        };
        names.iter().map(one).collect()
    }
}

/// Runs `kvmha adopt`.
pub fn adopt(lab: &Lab, words: &[&str]) -> Result<Output> {
    let words: Vec<&str> = ["kvmha", "adopt"].iter().chain(words).copied().collect();
    lab.exec(&speaker(lab)?, &words, Duration::from_secs(600))
}

/// Runs `kvmha adopt` on a node, and does something as soon as it prints a line with `line` in it. Its code, if it lived to say one, and
/// everything it said.
pub fn adopt_until(lab: &Lab, node: &str, words: &[&str], line: &str, act: impl FnMut() -> Result<()>) -> Result<(Option<i32>, String)> {
    let words: Vec<&str> = ["kvmha", "adopt"].iter().chain(words).copied().collect();
    said_until(lab, node, &words, line, act)
}

/// Like [`adopt_until`], of any command that calls it.
pub fn said_until(lab: &Lab, node: &str, words: &[&str], line: &str, mut act: impl FnMut() -> Result<()>) -> Result<(Option<i32>, String)> {
    let mut child = lab.enter(node, words, Terminal::None)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    let mut acted = false;
    for heard in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let heard = heard?;
        said.push_str(&heard);
        said.push('\n');
        if !acted && heard.contains(line) {
            acted = true;
            act()?;
        }
    }
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut said)?;
    }
    let status = wait_end(&mut child, LIMIT).with_context(|| format!("kvmha adopt does not end: {said}"))?;
    ensure!(acted, "kvmha adopt did not say {line:?}: {said}");
    Ok((status.code(), said))
}

/// Kills the `kvmha adopt` that runs on a node.
pub fn kill_adopt(lab: &Lab, node: &str) -> Result<()> {
    signal_adopt(lab, node, Signal::SIGKILL)
}

/// Sends a signal to the `kvmha adopt` that runs on a node.
pub fn signal_adopt(lab: &Lab, node: &str, signal: Signal) -> Result<()> {
    let running = lab.processes(node, "kvmha")?;
    let adopting: Vec<_> = running.into_iter().filter(|process| arguments(process.pid).iter().any(|word| word == "adopt")).collect();
    ensure!(!adopting.is_empty(), "kvmha adopt does not run");
    ensure!(adopting.iter().all(|process| process.signal(signal)), "{signal} cannot be sent to it");
    Ok(())
}

/// A node other than these.
pub fn other_than(lab: &Lab, nodes: &[&str]) -> Result<String> {
    lab.node_names().into_iter().find(|node| !nodes.contains(&node.as_str())).context("there is no other node")
}

/// Runs a line, words separated by blanks, that must succeed.
pub fn check(lab: &Lab, line: &str) -> Result<String> {
    let node = speaker(lab).unwrap_or_else(|_| HERE.to_owned());
    lab.check(&node, &line.split_whitespace().collect::<Vec<_>>(), PATIENCE)
}
