//! The faults of the plan, each from its beginning to its end.

use crate::play::{Play, agents};
use lab::history::FaultKind;
use lab::layout::Network;
use lab::plan::Fault;
use lab::power::Fault as FenceFault;
use lab::process::{Identity, wait_until};
use lab::storage::Reach;
use lab::{Lab, StorageFault};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};
use std::fs;
use std::thread;
use std::time::Duration;

/// No space left on device.
const FULL: StorageFault = StorageFault::Error(Reach::Writes, 28);

impl Play<'_> {
    pub fn strike(&self, fault: Fault, lasts: Duration) {
        let (lab, subject) = (self.lab(), fault.subject());
        let during = |kind: FaultKind, begin: &dyn Fn() -> bool, end: &dyn Fn()| self.during(kind, &subject, lasts, begin, end);
        let frozen = |kind: FaultKind, processes: Vec<Identity>| {
            let send = |signal| processes.iter().filter(|process| process.signal(signal)).count() > 0;
            during(kind, &|| send(Signal::SIGSTOP), &|| {
                send(Signal::SIGCONT);
            });
        };
        let daemon = |name: &str| lab.processes(&subject, name).unwrap_or_default();
        match fault {
            Fault::PowerCut { .. } => during(FaultKind::PowerCut, &|| lab.power_off(&subject).is_ok(), &|| {}),
            Fault::NetworkCut { .. } => during(FaultKind::NetworkCut, &|| lab.cut(&subject, Network::Cluster).is_ok(), &|| {
                let _ = lab.heal(&subject, Network::Cluster);
            }),
            Fault::NetworkOneWay { deaf, .. } => {
                let wall = |word: &str| {
                    let side = if deaf { "INPUT -i" } else { "OUTPUT -o" };
                    let line = format!("iptables --wait 5 {word} {side} {} -j DROP", Network::Cluster.interface());
                    self.run_on(&subject, &line)
                };
                during(FaultKind::NetworkOneWay, &|| wall("-A"), &|| {
                    wall("-D");
                });
            }
            Fault::FreezeCorosync { .. } => frozen(FaultKind::CorosyncFrozen, daemon("corosync")),
            Fault::FreezeDaemon { .. } => frozen(FaultKind::DaemonFrozen, daemon("libvirtd")),
            Fault::KillDaemon { .. } => during(FaultKind::DaemonKilled, &|| lab.kill(&subject, "libvirtd").is_ok(), &|| {
                let _ = lab.launch(&subject, "libvirtd");
            }),
            Fault::FreezeStorage { .. } => {
                let hold = || lab.storage(&subject, StorageFault::Hold(Reach::Everything)).is_ok();
                during(FaultKind::StorageFrozen, &hold, &|| {
                    let _ = lab.storage(&subject, StorageFault::None);
                });
            }
            Fault::FillStorage => {
                let all = |fault| lab.node_names().iter().filter(|node| lab.storage(node, fault).is_ok()).count() > 0;
                during(FaultKind::StorageFull, &|| all(FULL), &|| {
                    all(StorageFault::None);
                });
            }
            Fault::JumpClock { ahead, .. } => during(FaultKind::ClockJump, &|| lab.set_clock(&subject, ahead.into()).is_ok(), &|| {
                let _ = lab.set_clock(&subject, 0);
            }),
            Fault::KillEmulator { .. } => {
                let emulators = self.emulators(&subject);
                let kill = || emulators.iter().filter(|emulator| emulator.signal(Signal::SIGKILL)).count() > 0;
                during(FaultKind::EmulatorKilled, &kill, &|| {});
            }
            Fault::FreezeEmulator { .. } => frozen(FaultKind::EmulatorFrozen, self.emulators(&subject)),
            Fault::KillAgent { .. } => during(FaultKind::AgentKilled, &|| kill_agent(lab, &subject), &|| {}),
            Fault::HideConfig { .. } => {
                let config = lab.guest_definition(&subject);
                let hidden = config.with_extension("hidden");
                during(FaultKind::ConfigGone, &|| fs::rename(&config, &hidden).is_ok(), &|| {
                    let _ = fs::rename(&hidden, &config);
                });
            }
            Fault::FailFencing => self.trouble_fencing(FaultKind::FenceFails, FenceFault::Refuse, lasts),
            Fault::HangFencing => self.trouble_fencing(FaultKind::FenceFails, FenceFault::Hang, lasts),
            Fault::LieFencing { mute } => {
                self.trouble_fencing(FaultKind::FenceLies, if mute { FenceFault::Mute } else { FenceFault::Lie }, lasts);
            }
        }
    }

    /// One that could not begin was none.
    fn during(&self, kind: FaultKind, subject: &str, lasts: Duration, begin: &dyn Fn() -> bool, end: &dyn Fn()) {
        let fault = self.recorder.fault(kind, subject);
        if !begin() {
            self.recorder.withdrawn(fault);
            return;
        }
        thread::sleep(lasts);
        end();
        self.recorder.over(fault);
    }

    fn trouble_fencing(&self, kind: FaultKind, how: FenceFault, lasts: Duration) {
        let lab = self.lab();
        self.during(kind, "", lasts, &|| lab.fence_fault(how).is_ok(), &|| {
            let _ = lab.fence_fault(FenceFault::None);
        });
    }
}

/// Kills an agent with its process group, as Pacemaker does; waits for one for a while.
fn kill_agent(lab: &Lab, guest: &str) -> bool {
    wait_until(Duration::from_secs(3), Duration::from_millis(10), || {
        let groups = agents(lab, guest).into_iter().filter_map(|pid| getpgid(Some(Pid::from_raw(pid))).ok());
        groups.filter(|group| group.as_raw() > 1 && killpg(*group, Signal::SIGKILL).is_ok()).count() > 0
    })
}
