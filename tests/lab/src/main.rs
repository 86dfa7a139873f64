//! The command `lab`: a Pacemaker cluster with KVM guests on one machine. Called as `fence_lab` it is the lab's fence agent.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for a person")]

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lab::heartbeat::{Disk, Ring};
use lab::layout::{DEFAULT_NAME, Network};
use lab::node::Terminal;
use lab::power::{Fault, Power};
use lab::storage::Reach;
use lab::{GuestOptions, Lab, Options, StorageFault, Watch, Watcher, cluster, demo, fence, platform, supervise};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A Pacemaker cluster with KVM guests on one machine: real corosync, pacemaker, libvirtd and QEMU, each node in namespaces of its own.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Cli {
    /// Name of the lab; labs of different names run side by side
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    /// State folder [default: /tmp/kvmha-lab/NAME]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Words,
}

#[derive(Subcommand)]
enum Words {
    /// Bring the lab up, or back up; returns when all nodes are online and can be fenced
    Up(Up),
    /// Take everything away: processes, networks, mounts, the state folder
    Down,
    /// Show nodes, resources and guests
    Status,
    /// Run a command in a node; its output and exit code are passed on
    Exec(Exec),
    /// Replace the binary under test in all nodes
    Install {
        /// The binary, or a folder with `kvmha` in it
        path: PathBuf,
    },
    /// Cut or give a node's power
    Power { action: PowerAction, node: String },
    /// Cut a node's cable
    Cut(Cable),
    /// Mend a node's cable
    Heal(Cable),
    /// Stop a daemon of a node with SIGSTOP (also `guest:NAME`, the emulator of a guest)
    Freeze(Daemon),
    /// Let a frozen daemon go on
    Thaw(Daemon),
    /// Kill a daemon of a node with SIGKILL
    Kill(Daemon),
    /// Start a daemon of a node that is gone
    Start(Daemon),
    /// Let a node's /srv/hang, the shared folder once more, hang or fail
    #[command(subcommand)]
    Storage(Storage),
    /// Set how the power switch answers fence agents
    FenceFault {
        kind: FaultKind,
        /// Seconds, for `slow`
        seconds: Option<u64>,
    },
    /// Guests: image and definition on the shared storage
    #[command(subcommand)]
    Guest(Guest),
    /// Read a guest's heartbeat from its disk
    Heartbeat(Heartbeat),
    /// Tell the main job as a story, in a lab of its own: placed, live-migrated, failed over
    Demo(Demo),
}

#[derive(Args)]
struct Up {
    /// Number of nodes
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// The binary under test, or a folder with `kvmha` in it
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Without corosync and Pacemaker: nodes with libvirt alone
    #[arg(long)]
    bare: bool,
    /// The system that the nodes run: host, debian13, or the absolute path of a root
    #[arg(long, value_name = "NAME")]
    platform: Option<String>,
    /// Seconds the cluster may take
    #[arg(long, default_value_t = 90)]
    limit: u64,
}

#[derive(Args)]
struct Demo {
    /// The binary under test, or a folder with `kvmha` in it
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    /// Leave the lab up to look at it
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
struct Exec {
    /// For a shell: the terminal's kind and a prompt that names the node
    #[arg(short, long, conflicts_with = "all")]
    terminal: bool,
    /// Run it in all nodes that have power; the worst exit code counts
    #[arg(long)]
    all: bool,
    /// Seconds the command may take, with --all
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// The node (not with --all), and after `--` the command
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "NODE -- COMMAND")]
    words: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PowerAction {
    Off,
    On,
    Cycle,
    Status,
}

#[derive(Args)]
struct Cable {
    node: String,
    /// The storage network's instead of the cluster network's
    #[arg(long)]
    storage: bool,
}

impl Cable {
    fn network(&self) -> Network {
        if self.storage { Network::Storage } else { Network::Cluster }
    }
}

#[derive(Args)]
struct Daemon {
    node: String,
    /// libvirtd, virtlogd, corosync, pacemakerd, pacemaker-controld, ...
    daemon: String,
}

#[derive(Subcommand)]
enum Storage {
    /// Answer nothing: whoever accesses it hangs in the kernel and cannot be killed
    Hold {
        node: String,
        /// Only what changes something
        #[arg(long)]
        writes: bool,
    },
    /// Fail
    Error {
        node: String,
        /// Only what changes something
        #[arg(long)]
        writes: bool,
        /// The number of the error: 5 is EIO, 28 ENOSPC, 116 ESTALE
        #[arg(long, default_value_t = 5)]
        number: u16,
    },
    /// Answer late
    Delay { node: String, milliseconds: u32 },
    /// Work again; what was held is carried out now
    Release { node: String },
}

#[derive(Clone, Copy, ValueEnum)]
enum FaultKind {
    None,
    Refuse,
    Hang,
    Slow,
}

#[derive(Subcommand)]
enum Guest {
    /// Make a guest's image and definition, /srv/vms/NAME.xml in the nodes
    Create {
        #[arg(value_name = "NAME")]
        guest: String,
        /// Memory in MiB, at least 72
        #[arg(long, default_value_t = 80)]
        memory: u32,
        /// Ignore the power button: a graceful shutdown does nothing
        #[arg(long)]
        deaf: bool,
        /// Milliseconds between two beats
        #[arg(long, default_value_t = 20)]
        beat: u64,
        /// MiB of its memory that it changes as fast as it can
        #[arg(long, default_value_t = 0)]
        busy: u32,
        /// Give it a network card: it is host N of the guests' network (10.77.2.N) and echoes on port 7
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=253))]
        card: Option<u32>,
        /// MiB of its memory that hold a pattern; with a card it says its checksum on port 8
        #[arg(long, default_value_t = 0)]
        pattern: u32,
    },
    /// Print a guest's definition
    Xml {
        #[arg(value_name = "NAME")]
        guest: String,
    },
    /// Say on which nodes a guest is
    Where {
        #[arg(value_name = "NAME")]
        guest: String,
    },
    /// Remove a guest's files
    Remove {
        #[arg(value_name = "NAME")]
        guest: String,
    },
}

#[derive(Args)]
struct Heartbeat {
    guest: String,
    /// Watch for so many seconds: gaps, pauses, reboots, two writers
    #[arg(long, value_name = "SECONDS")]
    watch: Option<f64>,
    /// The same until standard input ends
    #[arg(long, conflicts_with = "watch")]
    while_input: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

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
            return Ok(ExitCode::SUCCESS);
        }
        Words::Down => {
            Lab::down(&cli.name, state)?;
            return Ok(ExitCode::SUCCESS);
        }
        Words::Demo(Demo { agent, keep }) => {
            // Not the default lab, which may be somebody's.
            let name = if cli.name == DEFAULT_NAME { demo::NAME.to_owned() } else { cli.name };
            let story = demo::Story { name, state: cli.state, agent, keep };
            return Ok(match supervise::supervised(|| demo::clean(&story))? {
                Some(code) => ExitCode::from(code),
                None => ExitCode::from(u8::from(!demo::tell(&story)?)),
            });
        }
        _ => {}
    }
    let lab = Lab::open(&cli.name, state)?;
    match cli.command {
        Words::Up(_) | Words::Down | Words::Demo(_) => {}
        Words::Status => status(&lab)?,
        Words::Exec(exec) => return self::exec(&lab, &exec),
        Words::Install { path } => lab.install(&path)?,
        Words::Power { action, node } => match action {
            PowerAction::Off => lab.power_off(&node)?,
            PowerAction::On => lab.power_on(&node)?,
            PowerAction::Cycle => {
                lab.power_off(&node)?;
                lab.power_on(&node)?;
            }
            PowerAction::Status => println!("{}", power(&lab, &node)?),
        },
        Words::Cut(cable) => lab.cut(&cable.node, cable.network())?,
        Words::Heal(cable) => lab.heal(&cable.node, cable.network())?,
        Words::Freeze(Daemon { node, daemon }) => lab.freeze(&node, &daemon)?,
        Words::Thaw(Daemon { node, daemon }) => lab.thaw(&node, &daemon)?,
        Words::Kill(Daemon { node, daemon }) => lab.kill(&node, &daemon)?,
        Words::Start(Daemon { node, daemon }) => lab.start(&node, &daemon)?,
        Words::Storage(storage) => {
            let reach = |writes: bool| if writes { Reach::Writes } else { Reach::Everything };
            match storage {
                Storage::Hold { node, writes } => lab.storage(&node, StorageFault::Hold(reach(writes)))?,
                Storage::Error { node, writes, number } => lab.storage(&node, StorageFault::Error(reach(writes), number))?,
                Storage::Delay { node, milliseconds } => lab.storage(&node, StorageFault::Delay(milliseconds))?,
                Storage::Release { node } => lab.storage(&node, StorageFault::None)?,
            }
        }
        Words::FenceFault { kind, seconds } => lab.fence_fault(match kind {
            FaultKind::None => Fault::None,
            FaultKind::Refuse => Fault::Refuse,
            FaultKind::Hang => Fault::Hang,
            FaultKind::Slow => Fault::Slow(seconds.context("slow needs a number of seconds")?),
        })?,
        Words::Guest(guest) => self::guest(&lab, guest)?,
        Words::Heartbeat(heartbeat) => self::heartbeat(&lab, &heartbeat)?,
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
