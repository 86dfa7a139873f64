//! Carries the plan out: asks the cluster, strikes it, and heals it.

use crate::plan::{Round, What};
use crate::record::Recorder;
use anyhow::Result;
use lab::guest::on_hanging;
use lab::history::{FaultKind, Request};
use lab::layout::Network;
use lab::power::Fault as FenceFault;
use lab::process::{Identity, pids, replace, wait_until};
use lab::program::under_test;
use lab::scene::Stage;
use lab::storage::{Fault as StorageFault, Reach};
use lab::{GuestOptions, Lab, placed};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};
use std::fmt::Write as _;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Of one request: longer than `kvmha migrate` may take to take a move back.
pub const LIMIT: Duration = Duration::from_secs(260);

/// No space left on device.
const FULL: StorageFault = StorageFault::Error(Reach::Writes, 28);

/// The incumbent, in Pacemaker's words.
pub const THEIRS: &str = "heartbeat";

/// The cluster, and who looks at it.
pub struct Play<'a> {
    pub stage: &'a Stage,
    pub recorder: &'a Recorder,
    pub guests: u32,
    /// The provider of the agent under test.
    pub provider: &'a str,
    /// One at a time replaces the binary.
    upgrade: Mutex<()>,
    /// Guests that another agent looks after for now, with what the history calls it.
    pub foreign: Mutex<Vec<(u32, usize)>>,
}

impl<'a> Play<'a> {
    pub fn new(stage: &'a Stage, recorder: &'a Recorder, guests: u32, provider: &'a str) -> Self {
        Self { stage, recorder, guests, provider, upgrade: Mutex::default(), foreign: Mutex::default() }
    }

    pub fn lab(&self) -> &Lab {
        &self.stage.lab
    }

    pub fn names(&self) -> Vec<String> {
        (1..=self.guests).map(guest_name).collect()
    }

    /// Makes the guests. Every third has its disk on storage that can hang.
    pub fn make(&self) -> Result<()> {
        let mut xml = String::new();
        for (number, name) in (1..).zip(self.names()) {
            self.lab().guest_create(&name, &GuestOptions { beat: Duration::from_millis(50), ..GuestOptions::default() })?;
            if number % 3 == 0 {
                self.lab().guest_edit(&name, on_hanging)?;
            }
            let _ = write!(xml, "{}", primitive(&name, self.provider));
        }
        // Pacemaker does one thing at a time on a busy machine; here they are to meet.
        self.stage.check("crm_attribute --type crm_config --name load-threshold --update 10000%")?;
        replace(&self.lab().layout().shared().join("resources.xml"), &format!("<resources>{xml}</resources>"))?;
        self.stage.check("cibadmin --modify --allow-create --scope resources --xml-file /srv/vms/resources.xml")?;
        for name in self.names() {
            self.stage.wait(|seen| seen.runs_on(&name).is_some())?;
        }
        Ok(())
    }

    /// All of a round at its times, side by side; then the cluster is left alone until it rests.
    pub fn round(&self, round: &Round) -> Result<()> {
        thread::scope(|scope| {
            for step in round {
                scope.spawn(|| {
                    thread::sleep(step.after);
                    self.step(step.what, step.lasts);
                });
            }
        });
        self.rest()
    }

    /// A node that can carry a command out, by what is known.
    fn speaker(&self) -> Option<String> {
        let view = self.recorder.view()?;
        let good = |name: &String| view.nodes.iter().any(|node| node.name == *name && node.online && !node.unclean);
        view.dc.clone().filter(good).or_else(|| self.lab().node_names().into_iter().find(good))
    }

    fn run(&self, line: &str) -> bool {
        let Some(node) = self.speaker() else { return false };
        self.run_on(&node, line)
    }

    pub fn run_on(&self, node: &str, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.lab().exec(node, &words, LIMIT).is_ok_and(|output| output.ok())
    }

    pub fn ask(&self, request: Request, subject: &str, text: &str, line: &str) -> bool {
        self.recorder.operation(request, subject, text, || self.run(line))
    }

    fn step(&self, what: What, lasts: Duration) {
        let text = what.to_string();
        match what {
            What::Move { guest, node } => {
                let name = guest_name(guest);
                let line = format!("crm_resource --move --resource {name} --node node{node} --lifetime PT30S");
                self.ask(Request::Harmless, &name, &text, &line);
            }
            What::Migrate { guest, node } => {
                let name = guest_name(guest);
                let line = format!("kvmha migrate {name} node{node} --plain --timeout 40");
                // It is run where the guest is.
                let place = self.recorder.view().and_then(|view| view.runs_on(&name).map(str::to_owned)).or_else(|| self.speaker());
                let ask = || place.is_some_and(|place| self.run_on(&place, &line));
                self.recorder.operation(Request::Harmless, &name, &text, ask);
            }
            What::Stop { guest } => {
                let name = guest_name(guest);
                self.ask(Request::Stop, &name, &text, &target_role(&name, "Stopped"));
                thread::sleep(lasts);
                self.ask(Request::Start, &name, &format!("start {name}"), &target_role(&name, "Started"));
            }
            What::Standby { node } => {
                let node = format!("node{node}");
                self.ask(Request::Harmless, &node, &text, &format!("crm_standby --node {node} --update on"));
                thread::sleep(lasts);
                self.ask(Request::Harmless, &node, &format!("{node} online"), &format!("crm_standby --node {node} --update off"));
            }
            What::Change { guest, value } => {
                let name = guest_name(guest);
                let line = format!("crm_resource --resource {name} --set-parameter migration_downtime --parameter-value {value}");
                self.ask(Request::Change, &name, &text, &line);
            }
            What::Upgrade => {
                let _one = self.upgrade.lock().unwrap_or_else(PoisonError::into_inner);
                // Another file, as a package's new one is.
                self.recorder.operation(Request::Harmless, "", &text, || self.lab().install(&under_test()).is_ok());
            }
            What::Repair { guest, node } => {
                let name = guest_name(guest);
                let (node, line) = (format!("node{node}"), format!("kvmha repair {name}"));
                // It says what it would do: it may have Pacemaker forget a failure, for which that may restart a guest.
                let said = self.lab().exec(&node, &["kvmha", "repair", &name], LIMIT).map(|output| output.stdout).unwrap_or_default();
                let request = if said.contains("have Pacemaker forget") { Request::Forget } else { Request::Harmless };
                self.recorder.operation(request, &name, &text, || self.run_on(&node, &format!("{line} --yes")));
            }
            What::Cleanup { guest } => {
                let name = guest_name(guest);
                self.ask(Request::Forget, &name, &text, &format!("crm_resource --cleanup --resource {name}"));
            }
            What::Adopt { guest } => {
                let name = guest_name(guest);
                let fault = self.recorder.fault(FaultKind::OtherAgent, &name);
                let back = self.ask(Request::Harmless, &name, &text, &format!("kvmha adopt --back {name}"));
                if !(back && self.readopt(&name)) {
                    self.foreign.lock().unwrap_or_else(PoisonError::into_inner).push((guest, fault));
                    return;
                }
                self.recorder.over(fault);
            }
            What::Off { guest, node } => {
                let name = guest_name(guest);
                let uris: Vec<String> = self.lab().node_names().iter().map(|node| format!("qemu+tcp://{node}/system")).collect();
                let line = format!("fence_kvmha --action=off --plug={name} --uri={} --power-timeout=30", uris.join(","));
                self.recorder.operation(Request::Off, &name, &text, || self.run_on(&format!("node{node}"), &line));
            }
            fault => self.strike(fault, lasts),
        }
    }

    pub fn readopt(&self, name: &str) -> bool {
        let line = format!("kvmha adopt {name}");
        // Where a run was killed the next may begin at once, elsewhere ten minutes later: it says so.
        let anywhere = || self.lab().node_names().iter().any(|node| self.run_on(node, &line));
        self.recorder.operation(Request::Harmless, name, &format!("adopt {name}"), anywhere)
    }

    /// A fault, from its beginning to its end.
    fn strike(&self, what: What, lasts: Duration) {
        let (lab, recorder) = (self.lab(), self.recorder);
        let during = |kind: FaultKind, subject: &str, begin: &dyn Fn() -> bool, end: &dyn Fn()| {
            let fault = recorder.fault(kind, subject);
            if !begin() {
                recorder.withdrawn(fault);
                return;
            }
            thread::sleep(lasts);
            end();
            recorder.over(fault);
        };
        let frozen = |kind: FaultKind, subject: &str, processes: Vec<Identity>| {
            let send = |signal| processes.iter().filter(|process| process.signal(signal)).count() > 0;
            during(kind, subject, &|| send(Signal::SIGSTOP), &|| {
                send(Signal::SIGCONT);
            });
        };
        let daemon = |node: &str, name: &str| lab.processes(node, name).unwrap_or_default();
        match what {
            What::PowerCut { node } => {
                let node = format!("node{node}");
                during(FaultKind::PowerCut, &node, &|| lab.power_off(&node).is_ok(), &|| {});
            }
            What::NetworkCut { node } => {
                let node = format!("node{node}");
                during(FaultKind::NetworkCut, &node, &|| lab.cut(&node, Network::Cluster).is_ok(), &|| {
                    let _ = lab.heal(&node, Network::Cluster);
                });
            }
            What::NetworkOneWay { node, deaf } => {
                let node = format!("node{node}");
                let wall = |word: &str| {
                    let side = if deaf { "INPUT -i" } else { "OUTPUT -o" };
                    let line = format!("iptables --wait 5 {word} {side} {} -j DROP", Network::Cluster.interface());
                    self.run_on(&node, &line)
                };
                during(FaultKind::NetworkOneWay, &node, &|| wall("-A"), &|| {
                    wall("-D");
                });
            }
            What::FreezeCorosync { node } => {
                let node = format!("node{node}");
                frozen(FaultKind::CorosyncFrozen, &node, daemon(&node, "corosync"));
            }
            What::FreezeDaemon { node } => {
                let node = format!("node{node}");
                frozen(FaultKind::DaemonFrozen, &node, daemon(&node, "libvirtd"));
            }
            What::KillDaemon { node } => {
                let node = format!("node{node}");
                during(FaultKind::DaemonKilled, &node, &|| lab.kill(&node, "libvirtd").is_ok(), &|| {
                    let _ = lab.launch(&node, "libvirtd");
                });
            }
            What::FreezeStorage { node } => {
                let node = format!("node{node}");
                let hold = || lab.storage(&node, StorageFault::Hold(Reach::Everything)).is_ok();
                during(FaultKind::StorageFrozen, &node, &hold, &|| {
                    let _ = lab.storage(&node, StorageFault::None);
                });
            }
            What::FillStorage => {
                let all = |fault| self.lab().node_names().iter().filter(|node| lab.storage(node, fault).is_ok()).count() > 0;
                during(FaultKind::StorageFull, "", &|| all(FULL), &|| {
                    all(StorageFault::None);
                });
            }
            What::JumpClock { node, ahead } => {
                let node = format!("node{node}");
                during(FaultKind::ClockJump, &node, &|| lab.set_clock(&node, ahead.into()).is_ok(), &|| {
                    let _ = lab.set_clock(&node, 0);
                });
            }
            What::KillEmulator { guest } => {
                let emulators = self.emulators(&guest_name(guest));
                let kill = || emulators.iter().filter(|emulator| emulator.signal(Signal::SIGKILL)).count() > 0;
                during(FaultKind::EmulatorKilled, &guest_name(guest), &kill, &|| {});
            }
            What::FreezeEmulator { guest } => frozen(FaultKind::EmulatorFrozen, &guest_name(guest), self.emulators(&guest_name(guest))),
            What::KillAgent { guest } => {
                let name = guest_name(guest);
                during(FaultKind::AgentKilled, &name, &|| kill_agent(&name), &|| {});
            }
            What::HideConfig { guest } => {
                let config = lab.guest_definition(&guest_name(guest));
                let hidden = config.with_extension("hidden");
                during(FaultKind::ConfigGone, &guest_name(guest), &|| fs::rename(&config, &hidden).is_ok(), &|| {
                    let _ = fs::rename(&hidden, &config);
                });
            }
            What::FailFencing | What::HangFencing => {
                let how = if what == What::FailFencing { FenceFault::Refuse } else { FenceFault::Hang };
                during(FaultKind::FenceFails, "", &|| lab.fence_fault(how).is_ok(), &|| {
                    let _ = lab.fence_fault(FenceFault::None);
                });
            }
            _ => {}
        }
    }

    pub fn emulators(&self, name: &str) -> Vec<Identity> {
        let of = |node: String| self.lab().processes(&node, &format!("guest:{name}")).unwrap_or_default();
        self.lab().node_names().into_iter().flat_map(of).collect()
    }
}

pub fn guest_name(guest: u32) -> String {
    format!("vm{guest}")
}

pub fn target_role(name: &str, role: &str) -> String {
    format!("crm_resource --resource {name} --meta --set-parameter target-role --parameter-value {role}")
}

/// Processes that carry an action for a guest out: whoever started them, this stands in their environment.
pub fn agents(guest: &str) -> Vec<i32> {
    let word = format!("OCF_RESOURCE_INSTANCE={guest}");
    let has = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
    };
    pids().filter(has).collect()
}

/// Kills an agent with its process group, as Pacemaker does; waits for one for a while.
fn kill_agent(guest: &str) -> bool {
    wait_until(Duration::from_secs(3), Duration::from_millis(10), || {
        let groups = agents(guest).into_iter().filter_map(|pid| getpgid(Some(Pid::from_raw(pid))).ok());
        groups.filter(|group| group.as_raw() > 1 && killpg(*group, Signal::SIGKILL).is_ok()).count() > 0
    })
}

fn primitive(name: &str, provider: &str) -> String {
    // The incumbent has no such thing: a guest that full storage has paused stays so.
    let resume: &[(&str, &str)] = if provider == THEIRS { &[] } else { &[("outage_policy", "resume")] };
    let operations = [
        ["start", "0s", "60s"],
        ["stop", "0s", "60s"],
        ["monitor", "10s", "30s"],
        ["migrate_to", "0s", "60s"],
        ["migrate_from", "0s", "60s"],
    ];
    placed::primitive(name, provider, resume, "", &operations)
}
