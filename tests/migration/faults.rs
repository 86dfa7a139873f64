//! A fault at each phase of a move: then one copy of the guest runs, and nothing is left of the other.

use crate::relay::{self, Line, Moment};
use crate::stage::{Answer, HERE, Resource, SOON, THERE, soon};
use anyhow::{Context, Result, ensure};
use lab::layout::Network;
use lab::node::Terminal;
use lab::power::Power;
use lab::process::{wait_end, wait_until};
use lab::promise::BROKEN;
use lab::promised;
use lab::{Lab, Output, Watcher};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The timeout of migrate_to here, in seconds: longer than libvirt takes to give up a peer that says nothing (30 s).
const TIMEOUT: u64 = 50;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The agent is killed, as Pacemaker does it.
    Agent,
    /// The source's libvirt is killed and comes back.
    SourceLibvirt,
    /// The target's libvirt is killed and comes back.
    TargetLibvirt,
    /// Like [`Self::TargetLibvirt`], and its last message is lost with the connection.
    TargetWord,
    /// The target's libvirt hangs, for longer than libvirt waits, and goes on.
    TargetFrozen,
    /// The emulator at the source is killed: the guest is lost.
    SourceEmulator,
    /// The emulator at the target is killed.
    TargetEmulator,
    /// The network between the hosts is cut, and mended when the agent has answered.
    Network,
    /// The source loses its power.
    SourcePower,
    /// The target loses its power.
    TargetPower,
    /// What the target's libvirt and agent write to is full, and stays so.
    TargetFull,
}

/// Where a move writes at the target: status files, logs, sockets, state files. `/run` is a file system of its own; the others become one.
const WRITTEN: [&str; 2] = ["/var/log/libvirt", "/var/lib/libvirt/qemu"];

/// File systems at the target that can become full, until this is dropped.
struct Small<'a>(&'a Lab);

impl<'a> Small<'a> {
    fn begin(lab: &'a Lab) -> Result<Self> {
        let small = Self(lab);
        for path in WRITTEN {
            let script =
                format!("cp -a {path} /run/kept; mount -t tmpfs -o size=1m small {path}; cp -a /run/kept/. {path}; rm -r /run/kept");
            lab.check(THERE, &["sh", "-ec", &script], SOON)?;
        }
        Ok(small)
    }

    /// Fills them, to the last byte.
    fn fill(lab: &Lab) -> Result<()> {
        let mut script = "mount -o remount,size=$(df -B1 --output=used /run | tail -n 1) /run; ".to_owned();
        for path in ["/run"].iter().chain(&WRITTEN) {
            script += &format!(
                "dd if=/dev/zero of={path}/full bs=1k 2>/dev/null || true; if echo more 2>/dev/null >{path}/more; then exit 1; fi; "
            );
        }
        lab.check(THERE, &["sh", "-ec", &script], SOON).map(drop)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let script = format!("mount -o remount,size=256m /run; rm -f /run/full /run/more; umount -l {}", WRITTEN.join(" "));
        let _ = self.0.exec(THERE, &["sh", "-c", &script], SOON);
    }
}

/// A call of migrate_to that can be killed.
struct Call {
    child: Child,
    said: File,
    begin: Instant,
}

impl Call {
    fn start(guest: &Resource) -> Result<Self> {
        let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
        let words = guest.words(HERE, "migrate_to", TIMEOUT, &target);
        let mut command = guest.lab.enter(HERE, &words, Terminal::None)?;
        let said = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?).process_group(0);
        Ok(Self { begin: Instant::now(), child: command.spawn().context("failed to start the agent")?, said })
    }

    fn group(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    /// Waits for its end. `None`: it was killed.
    fn answer(mut self, name: &str) -> Result<Option<Answer>> {
        let Some(status) = wait_end(&mut self.child, Duration::from_secs(TIMEOUT + 5)) else {
            killpg(self.group()?, Signal::SIGKILL)?;
            self.child.wait()?;
            anyhow::bail!("{BROKEN}: migrate_to of {name} did not end in time");
        };
        let Some(code) = status.code().filter(|code| *code < 128) else { return Ok(None) };
        let mut stderr = String::new();
        self.said.rewind()?;
        self.said.read_to_string(&mut stderr)?;
        let output = Output { code: Some(code), stdout: String::new(), stderr, time: self.begin.elapsed() };
        Answer::of(format!("migrate_to of {name}"), &output, Duration::from_secs(TIMEOUT)).map(Some)
    }
}

/// One fault at one moment, with a guest that is new.
pub fn play(lab: &Lab, moment: Moment, fault: Fault) -> Result<()> {
    let name = format!("{moment:?}-{fault:?}").to_lowercase();
    // Slow enough that the middle can be met.
    let guest = Resource::new(lab, &name)?
        .with("remoteuri", relay::URI)
        .with("migrate_options", "--unsafe")
        .with("migration_speed", if moment == Moment::Perform { "20" } else { "0" });
    let boot = guest.boot(HERE)?;
    let _small = (fault == Fault::TargetFull).then(|| Small::begin(lab)).transpose()?;
    let watcher = Watcher::start(&lab.guest_image(&name))?;
    let (send, group) = std::sync::mpsc::channel::<Pid>();
    let resource = &guest;
    let strike = move |line: &Line| {
        let agent = group.recv_timeout(SOON).context("no agent")?;
        if moment == Moment::Perform {
            let flows = || resource.virsh(HERE, "domjobinfo", &[]).is_ok_and(|job| job.contains("Memory processed"));
            soon("memory flows", flows)?;
        }
        // A daemon that ends has not sent it.
        if (moment, fault) == (Moment::Finish, Fault::SourceLibvirt) {
            line.lose();
        }
        strike(resource, fault, agent, line)
    };
    let answer = relay::with(lab, [HERE, THERE], moment, strike, |line| {
        let call = Call::start(&guest)?;
        send.send(call.group()?).context("nobody waits for the agent")?;
        let answer = thread::scope(|scope| {
            if fault == Fault::TargetWord {
                scope.spawn(|| wait_until(SOON, Duration::from_millis(10), || line.fired()) && lab.start(THERE, "libvirtd").is_ok());
            }
            call.answer(&name)
        })?;
        ensure!(wait_until(SOON, Duration::from_millis(10), || line.fired()), "the moment did not come: {answer:?}");
        mend(lab, fault, line)?;
        judge(&guest, moment, fault, answer.as_ref(), boot).with_context(|| format!("migrate_to said {answer:?}"))
    });
    // For the next one, whatever became of this one.
    for node in [HERE, THERE] {
        lab.heal(node, Network::Cluster)?;
        if lab.power(node)? == Power::Off {
            lab.power_on(node)?;
        }
        lab.wait_libvirt(node)?;
    }
    answer?;
    let watch = watcher.stop();
    promised!(watch.two_writers.is_none(), "{:?}", watch.two_writers);
    Ok(())
}

fn strike(guest: &Resource, fault: Fault, agent: Pid, line: &Line) -> Result<()> {
    let lab = guest.lab;
    let restart = |node| lab.restart(node, "libvirtd");
    match fault {
        Fault::Agent => Ok(killpg(agent, Signal::SIGKILL)?),
        Fault::SourceLibvirt => restart(HERE),
        Fault::TargetLibvirt => restart(THERE),
        // It comes back when the source has heard that its connection is gone.
        Fault::TargetWord => {
            line.lose();
            lab.kill(THERE, "libvirtd")
        }
        Fault::TargetFrozen => lab.freeze(THERE, "libvirtd"),
        // When the source has heard of the end, libvirt may have ended it already, or does so at this moment.
        Fault::SourceEmulator => match lab.kill(HERE, &format!("guest:{}", guest.name)) {
            Err(_) if !guest.lives(HERE) => Ok(()),
            other => other,
        },
        Fault::TargetEmulator => lab.kill(THERE, &format!("guest:{}", guest.name)),
        Fault::Network => {
            line.cut();
            lab.cut(THERE, Network::Cluster)
        }
        Fault::SourcePower => lab.power_off(HERE),
        Fault::TargetPower => {
            line.cut();
            lab.power_off(THERE)
        }
        Fault::TargetFull => Small::fill(lab),
    }
}

/// What comes back by itself when the agent has answered.
fn mend(lab: &Lab, fault: Fault, line: &Line) -> Result<()> {
    match fault {
        Fault::Network => {
            line.mend();
            lab.heal(THERE, Network::Cluster)
        }
        Fault::TargetFrozen => lab.thaw(THERE, "libvirtd"),
        _ => Ok(()),
    }
}

/// Whether the guest must live on with its memory: all but its own emulator's end and its host's.
fn lives_on(moment: Moment, fault: Fault) -> bool {
    match fault {
        Fault::Agent | Fault::TargetFull => true,
        Fault::SourceEmulator | Fault::SourcePower => false,
        Fault::TargetEmulator | Fault::TargetPower => !matches!(moment, Moment::Finish | Moment::Finished | Moment::Confirm),
        // Memory flows without the daemon at the target: it is missed when it is to let the guest run.
        Fault::TargetFrozen => moment == Moment::Begin,
        Fault::SourceLibvirt | Fault::TargetLibvirt | Fault::TargetWord | Fault::Network => {
            !matches!(moment, Moment::Finish | Moment::Finished | Moment::Confirm)
        }
    }
}

/// What holds after every fault.
fn judge(guest: &Resource, moment: Moment, fault: Fault, answer: Option<&Answer>, boot: u64) -> Result<()> {
    let said_here = answer.and_then(|answer| answer.reason.as_deref()).is_some_and(|reason| reason.contains("still runs here"));
    let lost_there = matches!(fault, Fault::TargetEmulator | Fault::TargetPower) && matches!(moment, Moment::Finished | Moment::Confirm);
    match answer.map(|answer| answer.code) {
        // It had moved, and ended there.
        Some(0) if lost_there => restarted(guest, fault),
        Some(0) => arrived(guest, boot),
        Some(1) if said_here => stayed(guest, boot),
        // The next action finds what the first has left.
        None if fault == Fault::Agent => {
            let target = [("OCF_RESKEY_CRM_meta_migrate_target", THERE), ("OCF_RESKEY_CRM_meta_migrate_source", HERE)];
            let again = guest.call_with(HERE, "migrate_to", TIMEOUT, &target)?.is(0)?;
            arrived(guest, boot).with_context(|| format!("the second migrate_to said {again:?}"))
        }
        code => {
            promised!(!lives_on(moment, fault), "code {code:?}: nobody says that the guest runs");
            // libvirt here leaves its copy paused for good: that is shown.
            if (moment, fault) == (Moment::Finish, Fault::SourceLibvirt) {
                guest.call(HERE, "recurring", 20)?.says(190, &["paused (migrating)", "is not known"])?;
            }
            restarted(guest, fault)
        }
    }
}

/// It has moved.
fn arrived(guest: &Resource, boot: u64) -> Result<()> {
    guest.call_with(THERE, "migrate_from", 60, &[("OCF_RESKEY_CRM_meta_migrate_source", HERE)])?.is(0)?;
    if guest.lab.power(HERE)? == Power::On {
        guest.call(HERE, "stop", 60)?.is(0)?;
        guest.absent(HERE)?;
    }
    guest.beats(boot)?;
    promised!(guest.emulators(THERE)?.len() == 1, "not one emulator on {THERE}");
    Ok(())
}

/// It has not moved; nothing of it is left at the target, by itself.
fn stayed(guest: &Resource, boot: u64) -> Result<()> {
    guest.beats(boot)?;
    promised!(guest.emulators(HERE)?.len() == 1, "not one emulator on {HERE}");
    if guest.lab.power(THERE)? == Power::On {
        let nothing = || !guest.lives(THERE);
        promised!(wait_until(Duration::from_secs(10), Duration::from_millis(50), nothing), "a copy is left on {THERE}");
        guest.call(THERE, "monitor", 20)?.is(7)?;
    }
    guest.call(HERE, "recurring", 20)?.is(0)?;
    guest.beats(boot)
}

/// What Pacemaker does after a move that failed: stop on both, start on one.
fn restarted(guest: &Resource, fault: Fault) -> Result<()> {
    let lab = guest.lab;
    if fault == Fault::SourcePower {
        // It is fenced, and back.
        lab.power_off(HERE)?;
    }
    let on: Vec<&str> = [THERE, HERE].into_iter().filter(|node| lab.power(node).is_ok_and(|power| power == Power::On)).collect();
    for node in &on {
        guest.call(node, "stop", 60)?.is(0)?;
    }
    for node in &on {
        guest.absent(node)?;
    }
    let node = on.first().context("no node has power")?;
    let boot = guest.boot(node)?;
    thread::sleep(Duration::from_millis(500));
    guest.beats(boot)?;
    let copies: usize = on.iter().map(|node| guest.emulators(node).map_or(0, |list| list.len())).sum();
    promised!(copies == 1, "{copies} emulators");
    Ok(())
}

/// A module of scenarios for each moment.
macro_rules! moments {
    ($($module:ident: $moment:ident, $($name:ident $fault:ident),*;)*) => {
        $(
            #[doc = concat!("Faults at the moment ", stringify!($moment), ".")]
            pub mod $module {
                use super::{Fault, Moment, play};
                use anyhow::Result;
                use lab::Lab;
                $(
                    #[doc = concat!(stringify!($fault), " at ", stringify!($moment), ".")]
                    pub fn $name(lab: &Lab) -> Result<()> {
                        play(lab, Moment::$moment, Fault::$fault)
                    }
                )*
            }
        )*
    };
}

moments! {
    begin: Begin, agent Agent, source_libvirt SourceLibvirt, target_libvirt TargetLibvirt, target_frozen TargetFrozen,
        source_emulator SourceEmulator, network Network, source_power SourcePower, target_power TargetPower, target_full TargetFull;
    prepare: Prepare, agent Agent, source_libvirt SourceLibvirt, target_libvirt TargetLibvirt, target_frozen TargetFrozen,
        source_emulator SourceEmulator, target_emulator TargetEmulator, network Network, source_power SourcePower, target_power TargetPower, target_full TargetFull;
    perform: Perform, agent Agent, source_libvirt SourceLibvirt, target_libvirt TargetLibvirt, target_frozen TargetFrozen,
        source_emulator SourceEmulator, target_emulator TargetEmulator, network Network, source_power SourcePower, target_power TargetPower, target_full TargetFull;
    finish: Finish, agent Agent, source_libvirt SourceLibvirt, target_libvirt TargetLibvirt, target_frozen TargetFrozen,
        source_emulator SourceEmulator, target_emulator TargetEmulator, network Network, source_power SourcePower, target_power TargetPower, target_full TargetFull;
    finished: Finished, agent Agent, source_libvirt SourceLibvirt, target_libvirt TargetLibvirt, target_word TargetWord, target_frozen TargetFrozen,
        source_emulator SourceEmulator, target_emulator TargetEmulator, network Network, source_power SourcePower, target_power TargetPower, target_full TargetFull;
    confirm: Confirm, agent Agent, source_libvirt SourceLibvirt, target_libvirt TargetLibvirt, target_frozen TargetFrozen,
        source_emulator SourceEmulator, target_emulator TargetEmulator, network Network, source_power SourcePower, target_power TargetPower, target_full TargetFull;
}
