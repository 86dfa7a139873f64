//! The command `lab`: a Pacemaker cluster with KVM guests on one machine. Called as `fence_lab` it is the lab's fence agent.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for a person")]

mod words;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lab::heartbeat::{Disk, Ring};
use lab::layout::DEFAULT_NAME;
use lab::node::Terminal;
use lab::power::{Fault, Power};
use lab::storage::Reach;
use lab::{GuestOptions, Lab, Options, StorageFault, Watch, Watcher, cluster, demo, fence, platform, supervise};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use words::{Cli, Daemon, Demo, Exec, FaultKind, Guest, Heartbeat, InLab, PowerAction, Storage, Up, Words};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.first().is_some_and(|name| name.rsplit('/').next() == Some("fence_lab")) {
        return ExitCode::from(fence::run(&words[1..]));
    }
    let done = match cluster::hidden(words.get(1..).unwrap_or_default()) {
        Some(result) => result.map(|()| ExitCode::SUCCESS),
        None => run(Cli::parse()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    let state = cli.state.as_deref();
    match cli.command {
        Words::Up(Up { nodes, agent, bare, platform, limit }) => {
            let (limit, platform) = (Duration::from_secs(limit), platform.or_else(platform::of_environment));
            Lab::up(&Options { name: cli.name, state: cli.state, nodes, agent, bare, platform, progress: true, limit, clock: false })?;
            Ok(ExitCode::SUCCESS)
        }
        Words::Down => {
            Lab::down(&cli.name, state)?;
            Ok(ExitCode::SUCCESS)
        }
        Words::Demo(Demo { agent, keep }) => {
            // Not the default lab, which may be somebody's.
            let name = if cli.name == DEFAULT_NAME { demo::NAME.to_owned() } else { cli.name };
            let story = demo::Story { name, state: cli.state, agent, keep };
            Ok(match supervise::supervised(|| demo::clean(&story))? {
                Some(code) => ExitCode::from(code),
                None => ExitCode::from(u8::from(!demo::tell(&story)?)),
            })
        }
        Words::InLab(word) => work(&Lab::open(&cli.name, state)?, word),
    }
}

/// Carries out a word in a lab that is there.
fn work(lab: &Lab, word: InLab) -> Result<ExitCode> {
    match word {
        InLab::Status => status(lab)?,
        InLab::Exec(exec) => return self::exec(lab, &exec),
        InLab::Install { path } => lab.install(&path)?,
        InLab::Power { action, node } => match action {
            PowerAction::Off => lab.power_off(&node)?,
            PowerAction::On => lab.power_on(&node)?,
            PowerAction::Cycle => {
                lab.power_off(&node)?;
                lab.power_on(&node)?;
            }
            PowerAction::Status => println!("{}", power(lab, &node)?),
        },
        InLab::Cut(cable) => lab.cut(&cable.node, cable.network())?,
        InLab::Heal(cable) => lab.heal(&cable.node, cable.network())?,
        InLab::Freeze(Daemon { node, daemon }) => lab.freeze(&node, &daemon)?,
        InLab::Thaw(Daemon { node, daemon }) => lab.thaw(&node, &daemon)?,
        InLab::Kill(Daemon { node, daemon }) => lab.kill(&node, &daemon)?,
        InLab::Start(Daemon { node, daemon }) => lab.start(&node, &daemon)?,
        InLab::Storage(storage) => {
            let reach = |writes: bool| if writes { Reach::Writes } else { Reach::Everything };
            match storage {
                Storage::Hold { node, writes } => lab.storage(&node, StorageFault::Hold(reach(writes)))?,
                Storage::Error { node, writes, number } => lab.storage(&node, StorageFault::Error(reach(writes), number))?,
                Storage::Delay { node, milliseconds } => lab.storage(&node, StorageFault::Delay(milliseconds))?,
                Storage::Release { node } => lab.storage(&node, StorageFault::None)?,
            }
        }
        InLab::FenceFault { kind, seconds } => lab.fence_fault(match kind {
            FaultKind::None => Fault::None,
            FaultKind::Refuse => Fault::Refuse,
            FaultKind::Hang => Fault::Hang,
            FaultKind::Lie => Fault::Lie,
            FaultKind::Mute => Fault::Mute,
            FaultKind::Slow => Fault::Slow(seconds.context("slow needs a number of seconds")?),
        })?,
        InLab::Guest(guest) => self::guest(lab, guest)?,
        InLab::Heartbeat(heartbeat) => self::heartbeat(lab, &heartbeat)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn power(lab: &Lab, node: &str) -> Result<&'static str> {
    Ok(if lab.power(node)? == Power::On { "on" } else { "off" })
}

fn exec(lab: &Lab, exec: &Exec) -> Result<ExitCode> {
    // clap leaves the `--` in when it comes after the first word.
    let skip = |words: &[String]| words.iter().skip(usize::from(words.first().is_some_and(|w| w == "--"))).cloned().collect::<Vec<_>>();
    if !exec.all {
        let (node, command) = exec.words.split_first().context("no node given")?;
        let command = skip(command);
        ensure!(!command.is_empty(), "no command given");
        match lab.exec_here(node, &command, if exec.terminal { Terminal::Shared } else { Terminal::None })? {}
    }
    let (command, mut worst) = (skip(&exec.words), 0);
    for node in lab.node_names() {
        if lab.power(&node)? == Power::Off {
            println!("--- {node}: no power");
            continue;
        }
        let output = lab.exec(&node, &command, Duration::from_secs(exec.limit))?;
        println!("--- {node}");
        print!("{}", output.stdout);
        eprint!("{}", output.stderr);
        worst = worst.max(output.code.unwrap_or(124));
    }
    Ok(ExitCode::from(u8::try_from(worst).unwrap_or(1)))
}

fn status(lab: &Lab) -> Result<()> {
    if lab.bare() {
        for node in lab.node_names() {
            println!("{node:12} power {:4} bare", power(lab, &node)?);
        }
        return guests(lab);
    }
    let membership = lab.membership();
    for node in lab.node_names() {
        let member = membership.as_ref().ok().and_then(|m| m.nodes.iter().find(|member| member.name == node));
        let seen = match member {
            Some(member) if member.unclean => "unclean",
            Some(member) if member.pending => "pending",
            Some(member) if member.online => "online",
            Some(_) => "offline",
            None => "unknown",
        };
        println!("{node:12} power {:4} {seen}", power(lab, &node)?);
    }
    match &membership {
        Ok(membership) => {
            let dc = membership.dc.as_deref().unwrap_or("none");
            println!("{:12} DC {dc}, {}", "cluster", if membership.quorum { "quorum" } else { "no quorum" });
            for resource in &membership.resources {
                let failed = if resource.failed { " FAILED" } else { "" };
                println!("{:12} {} {} {}{failed}", resource.id, resource.agent, resource.role, resource.nodes.join(" "));
            }
        }
        Err(error) => println!("{:12} no answer: {error:#}", "cluster"),
    }
    guests(lab)
}

fn guests(lab: &Lab) -> Result<()> {
    for guest in lab.guests()? {
        let image = lab.guest_image(&guest);
        let beat = match Ring::read(&image) {
            Ok(ring) => format!(
                "boot {} beat {} {:.1} s ago",
                ring.newest.boot_name(),
                ring.newest.sequence,
                Disk::open(&image)?.age()?.as_secs_f64()
            ),
            Err(_) => "no heartbeat yet".to_owned(),
        };
        println!("{guest:12} guest, {}: {beat}", places(lab, &guest)?);
    }
    Ok(())
}

fn places(lab: &Lab, guest: &str) -> Result<String> {
    let places = lab.guest_where(guest)?;
    let text = places.iter().map(|place| {
        let state = place.libvirt.as_deref().unwrap_or("unknown to libvirt");
        format!("{} {state} ({} process{})", place.node, place.processes.len(), if place.processes.len() == 1 { "" } else { "es" })
    });
    Ok(if places.is_empty() { "nowhere".to_owned() } else { text.collect::<Vec<_>>().join(", ") })
}

fn guest(lab: &Lab, guest: Guest) -> Result<()> {
    match guest {
        Guest::Create { guest, memory, deaf, beat, busy, card, pattern } => {
            lab.guest_create(&guest, &GuestOptions { memory, deaf, beat: Duration::from_millis(beat), busy, card, pattern })?;
        }
        Guest::Xml { guest } => {
            print!("{}", std::fs::read_to_string(lab.guest_definition(&guest)).with_context(|| format!("there is no guest {guest}"))?);
        }
        Guest::Where { guest } => println!("{}", places(lab, &guest)?),
        Guest::Remove { guest } => lab.guest_remove(&guest)?,
    }
    Ok(())
}

fn heartbeat(lab: &Lab, heartbeat: &Heartbeat) -> Result<()> {
    let image = lab.guest_image(&heartbeat.guest);
    if let Some(seconds) = heartbeat.watch {
        let watcher = Watcher::start(&image)?;
        std::thread::park_timeout(Duration::try_from_secs_f64(seconds)?);
        return show_watch(&watcher.stop(), heartbeat.json);
    }
    if heartbeat.while_input {
        let watcher = Watcher::start(&image)?;
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        return show_watch(&watcher.stop(), heartbeat.json);
    }
    let ring = Ring::read(&image)?;
    let age = Disk::open(&image)?.age()?.as_secs_f64();
    if heartbeat.json {
        println!("{}", json!({ "age_s": age, "boot": ring.newest.boot_name(), "ring": ring }));
        return Ok(());
    }
    println!("boot {} beat {} {age:.3} s ago, {} failed writes", ring.newest.boot_name(), ring.newest.sequence, ring.newest.errors);
    println!("in the ring: {} beats, {} lost, boots {}", ring.beats, ring.lost, ring.boots.join(" "));
    ring.two_writers.iter().for_each(|why| println!("TWO WRITERS: {why}"));
    Ok(())
}

fn show_watch(watch: &Watch, as_json: bool) -> Result<()> {
    let boots: Vec<String> = watch.boots().iter().map(|boot| format!("{boot:016x}")).collect();
    let beats = watch.beats.len().saturating_sub(1);
    if as_json {
        let value = json!({
            "beats": beats, "samples": watch.samples, "worst_look_ms": watch.worst_look.as_secs_f64() * 1e3, "boots": boots,
            "worst_gap": watch.worst_gap(), "worst_pause": watch.worst_pause(), "two_writers": watch.two_writers, "errors": watch.errors.0,
        });
        println!("{value}");
        return Ok(());
    }
    println!("{beats} beats in {} looks, boots {}", watch.samples, boots.join(" "));
    if let Some(gap) = watch.worst_gap() {
        println!("worst gap {:.0} ms at {:.2} s, after beat {}", gap.wall_ms, gap.begin, gap.after);
    }
    if let Some(pause) = watch.worst_pause() {
        println!("worst pause {:.0} ms at {:.2} s, after beat {}", pause.pause_ms.unwrap_or(0.0), pause.begin, pause.after);
    }
    watch.two_writers.iter().for_each(|why| println!("TWO WRITERS: {why}"));
    Ok(())
}
