//! One sequence: steps drawn from its seed, and what must be true after each.

use anyhow::{Context, Result, bail};
use lab::Lab;
use lab::node::Terminal;
use lab::process::Identity;
use lab::promised;
use lab::random::Random;
use lab::stage::{Answer, Resource, tidy_node};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// The timeout of every action, in seconds.
const TIMEOUT: u64 = 8;

/// How long is watched at the end for a guest that must not come.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How long an emulator that is being ended may be seen after an action.
const GOING: Duration = Duration::from_secs(3);

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// An action, carried out whole.
    Call(&'static str),
    /// An action that is killed with its process group, as Pacemaker does it, somewhere in its first half second.
    Killed(&'static str),
    /// Something that happens to libvirtd.
    FreezeDaemon,
    ThawDaemon,
    KillDaemon,
    StartDaemon,
    /// Something that happens to the definition and the state file.
    HideConfig,
    ShowConfig,
    LoseRecord,
    SpoilRecord,
    /// Something that happens to the emulator.
    KillEmulator,
    FreezeEmulator,
    ThawEmulator,
    /// Something that a person does.
    Suspend,
    Resume,
    Destroy,
}

use Step::*;

/// Drawn from with equal chance; what is in it more than once comes more often.
const STEPS: &[Step] = &[
    Call("start"),
    Call("start"),
    Call("start"),
    Call("stop"),
    Call("stop"),
    Call("recurring"),
    Call("recurring"),
    Call("recurring"),
    Call("monitor"),
    Call("monitor"),
    Call("status"),
    Killed("start"),
    Killed("stop"),
    Killed("recurring"),
    FreezeDaemon,
    ThawDaemon,
    ThawDaemon,
    KillDaemon,
    StartDaemon,
    StartDaemon,
    HideConfig,
    ShowConfig,
    LoseRecord,
    SpoilRecord,
    KillEmulator,
    FreezeEmulator,
    ThawEmulator,
    Suspend,
    Resume,
    Destroy,
];

/// How many actions were called, and how late the latest was.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    calls: usize,
    killed: usize,
    latest: Duration,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.killed += other.killed;
        self.latest = self.latest.max(other.latest);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.latest.as_secs_f64() / Duration::from_secs(TIMEOUT).as_secs_f64() * 100.0;
        write!(f, "{} actions, {} more that were killed; latest answer: {share:.0} % of its timeout", self.calls, self.killed)
    }
}

/// A sequence on a node of its own.
pub struct Sequence<'a> {
    lab: &'a Lab,
    node: String,
    name: String,
    random: Random,
    pub steps: Vec<String>,
    pub tally: Tally,
}

impl<'a> Sequence<'a> {
    pub fn new(lab: &'a Lab, node: &str, seed: u64) -> Self {
        let (node, name) = (node.to_owned(), format!("s{seed}"));
        Self { lab, node, name, random: Random::new(seed), steps: Vec::new(), tally: Tally::default() }
    }

    /// Plays it, and takes away what it left.
    pub fn run(&mut self) -> Result<()> {
        let guest = Resource::empty(self.lab, &self.name)?;
        let guest = if self.random.below(2) == 0 { guest.with("force_stop", "true") } else { guest };
        let outcome = self.play(&guest).and_then(|()| self.end(&guest));
        let tidied = self.tidy(&guest);
        outcome.and(tidied)
    }

    fn play(&mut self, guest: &Resource) -> Result<()> {
        // What was said to be stopped must not come back by itself.
        let mut stopped = true;
        // Of a start that did not come to its end the guest may be there and have never run.
        let mut unfinished = false;
        for _ in 0..6 + self.random.below(7) {
            let step = self.random.pick(STEPS);
            let before = guest.emulators(&self.node)?;
            promised!(!stopped || before.is_empty(), "never twice: it came after it was said to be stopped");
            match step {
                Call(action) => {
                    let code = self.call(guest, action, &before)?;
                    stopped = match action {
                        "start" => false,
                        "stop" => code == 0,
                        _ => stopped,
                    };
                    unfinished = match action {
                        "start" => code != 0,
                        "stop" => unfinished && code != 0,
                        _ => unfinished,
                    };
                    if (action, code) == ("recurring", 1) && !unfinished {
                        self.excuse(guest, &before)?;
                    }
                }
                Killed(action) => {
                    self.kill(guest, action)?;
                    stopped &= action != "start";
                    unfinished |= action == "start";
                }
                fault => {
                    let done = self.strike(guest, fault);
                    self.steps.push(format!("{fault:?}{}", if done { "" } else { " (not possible)" }));
                }
            }
        }
        Ok(())
    }

    /// Calls an action; its code, if all that it says is true.
    fn call(&mut self, guest: &Resource, action: &str, before: &[Identity]) -> Result<i32> {
        let limit = Duration::from_secs(TIMEOUT);
        let begin = Instant::now();
        let output = self.lab.exec(&self.node, &guest.words(&self.node, action, TIMEOUT, &[]), limit + Duration::from_secs(5))?;
        let said = output.stderr.trim().to_owned();
        self.steps.push(format!("{action}: {:?} after {:.1} s {said}", output.code, begin.elapsed().as_secs_f64()));
        self.tally.calls += 1;
        self.tally.latest = self.tally.latest.max(output.time);
        let answer = Answer::of(action.to_owned(), &output, limit)?;
        let after = guest.emulators(&self.node)?;
        match (action, answer.code) {
            ("stop", 0) | (_, 7) => promised!(after.is_empty(), "{action} says {} and its emulator is there", answer.code),
            ("start", 0) => promised!(!after.is_empty(), "start says 0 and there is no emulator"),
            (_, 0) => promised!(!before.is_empty() || !after.is_empty(), "{action} says 0 and there is no emulator"),
            (_, 1 | 5) => {}
            (_, code) => bail!("{action} says {code}"),
        }
        if action != "stop" {
            // A start may end what another start left, which never ran.
            let ended = before.iter().any(|emulator| !after.contains(emulator));
            promised!(!ended || action == "start" && !after.is_empty(), "{action} ended the emulator");
        }
        Ok(answer.code)
    }

    /// A recurring monitor has said 1, and Pacemaker would end the guest. No row of the answers of the agent has that for a guest that was
    /// started and is whole, whatever became of libvirt, its files or its emulator here: so its emulator must have been about to go.
    fn excuse(&self, guest: &Resource, before: &[Identity]) -> Result<()> {
        let lives = || guest.emulators(&self.node).is_ok_and(|after| after.iter().any(|emulator| before.contains(emulator)));
        if lives() {
            thread::sleep(GOING);
            promised!(!lives(), "a needless kill: monitor says 1, and the same emulator was there before and stays");
        }
        Ok(())
    }

    /// Calls an action and kills it.
    fn kill(&mut self, guest: &Resource, action: &str) -> Result<()> {
        let time = Duration::from_millis(self.random.below(500));
        let mut command = self.lab.enter(&self.node, &guest.words(&self.node, action, TIMEOUT, &[]), Terminal::None)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().context("failed to call the agent")?;
        thread::sleep(time);
        killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
        child.wait()?;
        self.steps.push(format!("{action}, killed after {} ms", time.as_millis()));
        self.tally.killed += 1;
        Ok(())
    }

    /// Whether it could be done; what cannot be, since it is so already, is left out.
    fn strike(&self, guest: &Resource, fault: Step) -> bool {
        let (lab, node) = (self.lab, self.node.as_str());
        let config = lab.guest_definition(&guest.instance);
        let hidden = config.with_extension("hidden");
        let signal =
            |signal| guest.emulators(node).is_ok_and(|found| !found.is_empty() && found.iter().all(|emulator| emulator.signal(signal)));
        let virsh = |word: &str| {
            let words = ["timeout", "2", "virsh", "-q", word, &guest.name];
            lab.exec(node, &words, Duration::from_secs(4)).is_ok_and(|output| output.ok())
        };
        match fault {
            FreezeDaemon => lab.freeze(node, "libvirtd").is_ok(),
            ThawDaemon => lab.thaw(node, "libvirtd").is_ok(),
            KillDaemon => lab.kill(node, "libvirtd").is_ok(),
            StartDaemon => lab.launch(node, "libvirtd").is_ok(),
            HideConfig => fs::rename(&config, &hidden).is_ok(),
            ShowConfig => fs::rename(&hidden, &config).is_ok(),
            LoseRecord => guest.record(node).is_ok_and(|record| fs::remove_file(record).is_ok()),
            SpoilRecord => guest.record(node).is_ok_and(|record| record.exists() && fs::write(record, "{\"name\":").is_ok()),
            KillEmulator => signal(Signal::SIGKILL),
            FreezeEmulator => signal(Signal::SIGSTOP),
            ThawEmulator => signal(Signal::SIGCONT),
            Suspend => virsh("suspend"),
            Resume => virsh("resume"),
            Destroy => virsh("destroy"),
            Call(_) | Killed(_) => false,
        }
    }

    /// Everything is well again: a stop must be 0, and nothing may come after it by itself; then a start and a monitor must be 0 too.
    fn end(&mut self, guest: &Resource) -> Result<()> {
        self.heal(guest)?;
        let output = self.lab.exec(&self.node, &guest.words(&self.node, "stop", 40, &[]), Duration::from_secs(45))?;
        self.steps.push(format!("the last stop: {:?} {}", output.code, output.stderr.trim()));
        Answer::of("the last stop".to_owned(), &output, Duration::from_secs(40))?.is(0)?;
        guest.absent(&self.node)?;
        guest.stays_absent(&self.node, AFTERWARDS)?;
        guest.begin(&self.node)?;
        guest.call(&self.node, "recurring", 20)?.is(0)?;
        guest.with("force_stop", "true").end(&self.node, 40).map(drop)
    }

    fn heal(&self, guest: &Resource) -> Result<()> {
        self.strike(guest, ShowConfig);
        if !self.strike(guest, ThawDaemon) {
            self.lab.launch(&self.node, "libvirtd")?;
        }
        self.lab.wait_libvirt(&self.node)
    }

    fn tidy(&self, guest: &Resource) -> Result<()> {
        self.heal(guest)?;
        self.lab.node_clear(&self.node)?;
        tidy_node(self.lab, &self.node)?;
        for path in [self.lab.guest_definition(&guest.instance), self.lab.guest_image(&guest.instance)] {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}
