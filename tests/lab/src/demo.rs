//! The main job as a story: a cluster forms, Pacemaker places a guest, the guest is live-migrated, the node under it loses power, it runs
//! again elsewhere. Each step counts only if the guest's heartbeat proves it.

use crate::cluster::{Lab, Options};
use crate::guest::GuestOptions;
use crate::process::tail;
use crate::promised;
use crate::watch::NEAR;
use crate::watcher::Watcher;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The name of the demo's lab when none is given: it is taken down at the end, so it must not be one that somebody uses.
pub const NAME: &str = "demo";
const GUEST: &str = "web1";
/// Of one step; far more than it takes, for a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// What is told.
#[derive(Clone, Debug)]
pub struct Story {
    /// The lab's name.
    pub name: String,
    /// Its state folder, if not the usual one.
    pub state: Option<PathBuf>,
    /// The binary under test.
    pub agent: PathBuf,
    /// Whether the lab stays up afterwards.
    pub keep: bool,
}

/// Takes away what [`tell`] has made, unless it is to stay.
pub fn clean(story: &Story) -> Result<()> {
    if story.keep { Ok(()) } else { Lab::down(&story.name, story.state.as_deref()) }
}

/// Tells the story, a line for each step as it happens. Says whether every step was proven.
pub fn tell(story: &Story) -> Result<bool> {
    let mut teller = Teller { begin: Instant::now(), step: "the cluster forms", figures: Vec::new() };
    // One that was kept, or left by a demo that was killed: the story begins with nothing.
    Lab::down(&story.name, story.state.as_deref())?;
    let result = teller.chapters(story);
    if let Err(error) = &result {
        println!("\nFAILED: {}: {error:#}", teller.step);
        if let Ok(lab) = Lab::open(&story.name, story.state.as_deref()) {
            show_logs(&lab);
        }
    } else {
        println!("\nProven by the guest's own heartbeat on its disk:");
        for (what, figure) in &teller.figures {
            println!("  {what:58} {figure:>10}");
        }
    }
    if story.keep {
        let lab = format!("{} --name {}", std::env::current_exe()?.display(), story.name);
        println!("\nThe lab is still up. To look at it:  {lab} status");
        println!("                                     {lab} exec -t node1 -- bash        (crm_mon, pcs, virsh)");
        println!("                                     {lab} heartbeat {GUEST} --watch 10");
        println!("To end it:                           {lab} down");
    }
    Ok(result.is_ok())
}

struct Teller {
    begin: Instant,
    step: &'static str,
    figures: Vec<(&'static str, String)>,
}

impl Teller {
    fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.begin.elapsed().as_secs_f64());
    }

    fn chapters(&mut self, story: &Story) -> Result<()> {
        self.say("three nodes are made: corosync, pacemaker, libvirtd and QEMU in namespaces of their own");
        let options = Options {
            name: story.name.clone(),
            state: story.state.clone(),
            agent: Some(story.agent.clone()),
            progress: true,
            ..Options::default()
        };
        let lab = Lab::up(&options)?;
        self.say("the cluster has formed");
        self.figures.push(("cluster formed, from nothing", seconds(self.begin.elapsed())));

        self.step = "Pacemaker places the guest";
        lab.guest_create(GUEST, &GuestOptions::default())?;
        let watcher = Watcher::start(&lab.guest_image(GUEST))?;
        let home = self.place(&lab, &watcher)?;

        self.step = "the guest is live-migrated";
        let target = lab.node_names().into_iter().find(|node| *node != home).context("there is no other node")?;
        self.migrate(&lab, &watcher, &home, &target)?;

        self.step = "the node loses power, the guest runs again elsewhere";
        self.cut_power(&lab, &watcher, &target)?;
        let watch = watcher.stop();
        ensure!(watch.errors.0 == 0, "the heartbeat could not be read: {}", watch.errors.1);
        Ok(())
    }

    /// Gives the guest to Pacemaker, as an administrator does. The node it runs on.
    fn place(&mut self, lab: &Lab, watcher: &Watcher) -> Result<String> {
        let asked = Instant::now();
        let config = format!("config=/srv/vms/{GUEST}.xml");
        // --unsafe: to libvirt a folder that is bound into each node is no shared storage, and it would refuse to migrate. On NFS, Ceph,
        // GlusterFS or a SAN it knows better, and the option must not be set.
        let words = ["pcs", "resource", "create", GUEST, "ocf:kvmha:VirtualDomain", &config, "migration_transport=tcp"];
        let more = ["migrate_options=--unsafe", "op", "monitor", "interval=10s", "timeout=30s", "meta", "allow-migrate=true"];
        let words = [&words[..], &more[..]].concat();
        self.say(&words.join(" "));
        lab.check("node1", &words, LIMIT)?;
        let membership = lab.wait_membership(LIMIT, |seen| seen.runs_on(GUEST).is_some())?;
        let node = membership.runs_on(GUEST).unwrap_or_default().to_owned();
        ensure!(watcher.wait(LIMIT, |watch| !watch.beats.is_empty()), "the guest does not write to its disk");
        let watch = watcher.snapshot();
        let first = watch.beats.first().map_or(asked, |beat| beat.at);
        self.say(&format!("Pacemaker has placed {GUEST} on {node}, it runs: boot {}", boot_name(&watch.boots())));
        self.figures.push(("placed: request to first heartbeat", seconds(first.saturating_duration_since(asked))));
        one_place(lab, &node)?;
        Ok(node)
    }

    fn migrate(&mut self, lab: &Lab, watcher: &Watcher, home: &str, target: &str) -> Result<()> {
        // It should have booted, and be at work.
        ensure!(watcher.wait(LIMIT, |watch| watch.beats.len() > 2 * NEAR), "the guest does not write to its disk");
        let before = watcher.snapshot().newest().context("no heartbeat")?;
        let asked = Instant::now();
        self.say(&format!("crm_resource --move --resource {GUEST} --node {target}"));
        lab.check(home, &["crm_resource", "--move", "--resource", GUEST, "--node", target], LIMIT)?;
        lab.wait_membership(LIMIT, |seen| seen.runs_on(GUEST) == Some(target))?;
        let shown = Instant::now();
        let sequence = watcher.snapshot().newest().map_or(0, |beat| beat.record.sequence);
        // The pause is measured by the beats before and after it.
        let goes_on = |limit: u64| watcher.wait(LIMIT, |watch| watch.newest().is_some_and(|beat| beat.record.sequence > sequence + limit));
        ensure!(goes_on(2 * NEAR as u64), "the guest does not go on");
        let watch = watcher.snapshot();
        let after = watch.newest().context("no heartbeat")?;
        promised!(watch.two_writers.is_none(), "two copies wrote: {:?}", watch.two_writers);
        promised!(watch.boots().len() == 1 && after.record.boot == before.record.boot, "the guest was started anew: {:x?}", watch.boots());
        one_place(lab, target)?;
        let (total, pause) = (seconds(shown - asked), watch.pause_between(asked, shown));
        let beats = (before.record.sequence, after.record.sequence);
        self.say(&format!("{GUEST} was live-migrated from {home} to {target} in {total}, and paused for {pause:.0} ms"));
        self.say(&format!("it is the same: its boot goes on, from heartbeat {} to {}", beats.0, beats.1));
        self.figures.push(("live migration: request to Pacemaker showing it there", total));
        self.figures.push(("  pause that the guest itself had", format!("{pause:.0} ms")));
        // The constraint that a move leaves would call the guest back to a node that is about to fail.
        lab.check(home, &["crm_resource", "--clear", "--resource", GUEST], LIMIT)?;
        lab.check(home, &["crm_resource", "--wait", "--timeout", "60s"], LIMIT)?;
        Ok(())
    }

    fn cut_power(&mut self, lab: &Lab, watcher: &Watcher, node: &str) -> Result<()> {
        let before = watcher.snapshot().boots();
        let cut = Instant::now();
        lab.power_off(node)?;
        self.say(&format!("{node} has lost its power, and {GUEST} with it"));
        ensure!(watcher.wait(LIMIT, |watch| watch.boots().len() > before.len()), "the guest is not started again");
        let found = watcher.snapshot().reboot_after(cut).context("no heartbeat of a new boot")?;
        let membership = lab.wait_membership(LIMIT, |seen| seen.runs_on(GUEST).is_some_and(|now| now != node))?;
        let now = membership.runs_on(GUEST).unwrap_or_default().to_owned();
        ensure!(watcher.wait_beat(LIMIT), "the guest does not go on");
        let watch = watcher.snapshot();
        promised!(watch.two_writers.is_none(), "two copies wrote: {:?}", watch.two_writers);
        promised!(watch.boots().len() == before.len() + 1, "the guest was started more than once: {:x?}", watch.boots());
        let fenced = std::fs::read_to_string(lab.layout().switch_log())?.contains(&format!("off {node}: ok"));
        promised!(fenced, "{node} was not fenced before the guest was started again");
        one_place(lab, &now)?;
        let time = seconds(found.at.saturating_duration_since(cut));
        self.say(&format!(
            "{node} was fenced, {GUEST} runs again on {now}, first heartbeat {time} after the cut: boot {}",
            boot_name(&watch.boots())
        ));
        self.figures.push(("failover: power cut to first heartbeat of the new boot", time));
        Ok(())
    }
}

/// The guest must have one emulator in all nodes, on this one.
fn one_place(lab: &Lab, node: &str) -> Result<()> {
    let places = lab.guest_where(GUEST)?;
    let one = matches!(&places[..], [place] if place.node == node && place.processes.len() == 1);
    promised!(one, "{GUEST} should be on {node} alone: {places:?}");
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn boot_name(boots: &[u64]) -> String {
    boots.last().map_or_else(String::new, |boot| format!("{boot:016x}"))
}

/// What a person would look at first.
fn show_logs(lab: &Lab) {
    for node in 1..=lab.nodes() {
        for (log, lines) in [("/var/log/pacemaker/pacemaker.log", 10), ("/var/log/messages", 10)] {
            println!("--- node{node}:{log}\n{}", tail(&lab.layout().on_disk(node, log), lines));
        }
    }
    println!("--- power switch\n{}", tail(&lab.layout().switch_log(), 10));
}
