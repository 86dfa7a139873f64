//! Carries the plan out: asks the cluster, strikes it, and heals it.

use crate::record::Recorder;
use anyhow::Result;
use lab::guest::on_hanging;
use lab::history::{FaultKind, Request};
use lab::plan::{GuestNumber, Round, What, Work};
use lab::process::{Identity, pids, replace};
use lab::program::under_test;
use lab::scene::Stage;
use lab::{GuestOptions, Lab, Output, placed};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Of one request: longer than `kvmha migrate` may take to take a move back.
pub const LIMIT: Duration = Duration::from_secs(260);

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
    pub foreign: Mutex<Vec<(GuestNumber, usize)>>,
    /// Guests that something asked for since the last rest may have left a constraint of.
    pub drawn: Mutex<BTreeSet<String>>,
    /// What was there and must not have been.
    pub left: Mutex<Vec<String>>,
}

impl<'a> Play<'a> {
    pub fn new(stage: &'a Stage, recorder: &'a Recorder, guests: u32, provider: &'a str) -> Self {
        let (upgrade, foreign, drawn, left) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { stage, recorder, guests, provider, upgrade, foreign, drawn, left }
    }

    pub fn lab(&self) -> &Lab {
        &self.stage.lab
    }

    pub fn names(&self) -> Vec<String> {
        (1..=self.guests).map(|number| GuestNumber(number).to_string()).collect()
    }

    /// Makes the guests. Every third has its disk on storage that can hang.
    pub fn make(&self) -> Result<()> {
        let mut xml = String::new();
        for (number, name) in (1..).zip(self.names()) {
            self.lab().guest_create(&name, &GuestOptions { beat: Duration::from_millis(50), ..GuestOptions::default() })?;
            if number % 3 == 0 {
                self.lab().guest_edit(&name, on_hanging)?;
                self.recorder.is_on_failing_storage(&name);
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
        self.said_on(node, line).is_some_and(|output| output.ok())
    }

    /// What a command has said on a node; nothing: it could not be run there.
    fn said_on(&self, node: &str, line: &str) -> Option<Output> {
        self.lab().exec(node, &line.split_whitespace().collect::<Vec<_>>(), LIMIT).ok()
    }

    /// Something that was asked for may leave a constraint of a guest.
    fn draw(&self, guest: &str) {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).insert(guest.to_owned());
    }

    /// This is there and must not be.
    pub fn leave(&self, what: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub fn ask(&self, request: Request, subject: &str, text: &str, line: &str) -> bool {
        self.recorder.operation(request, subject, text, || self.run(line))
    }

    fn step(&self, what: What, lasts: Duration) {
        match what {
            What::Work(work) => self.work(work, lasts),
            What::Fault(fault) => self.strike(fault, lasts),
        }
    }

    fn work(&self, work: Work, lasts: Duration) {
        let (text, subject) = (work.to_string(), work.subject());
        match work {
            Work::Move { guest, node } => {
                let line = format!("crm_resource --move --resource {guest} --node {node} --lifetime PT30S");
                self.draw(&subject);
                self.ask(Request::Harmless, &subject, &text, &line);
            }
            Work::Migrate { guest, node } => {
                let line = format!("kvmha migrate {guest} {node} --plain --timeout 40");
                // It is run where the guest is.
                let place = self.recorder.view().and_then(|view| view.runs_on(&subject).map(str::to_owned)).or_else(|| self.speaker());
                let ask = || place.is_some_and(|place| self.migrate(&place, &subject, &line));
                self.recorder.operation(Request::Harmless, &subject, &text, ask);
            }
            Work::Stop { guest } => {
                self.ask(Request::Stop, &subject, &text, &target_role(&subject, "Stopped"));
                thread::sleep(lasts);
                self.ask(Request::Start, &subject, &format!("start {guest}"), &target_role(&subject, "Started"));
            }
            Work::Standby { node } => {
                self.ask(Request::Harmless, &subject, &text, &format!("crm_standby --node {node} --update on"));
                thread::sleep(lasts);
                self.ask(Request::Harmless, &subject, &format!("{node} online"), &format!("crm_standby --node {node} --update off"));
            }
            Work::Change { guest, value } => {
                let line = format!("crm_resource --resource {guest} --set-parameter migration_downtime --parameter-value {value}");
                self.ask(Request::Change, &subject, &text, &line);
            }
            Work::Upgrade => {
                let _one = self.upgrade.lock().unwrap_or_else(PoisonError::into_inner);
                // Another file, as a package's new one is.
                self.recorder.operation(Request::Harmless, &subject, &text, || self.lab().install(&under_test()).is_ok());
            }
            Work::Repair { guest, node } => {
                let line = format!("kvmha repair {guest} --yes");
                self.recorder.told(Request::Harmless, &subject, &text, || {
                    let Some(output) = self.said_on(&node.to_string(), &line) else { return (Request::Harmless, false) };
                    // It says what it will do before it begins: it may have Pacemaker forget a failure, for which that may restart a guest.
                    let forgets = output.stdout.contains("have Pacemaker forget");
                    (if forgets { Request::Forget } else { Request::Harmless }, output.ok())
                });
            }
            Work::Cleanup { guest } => {
                self.ask(Request::Forget, &subject, &text, &format!("crm_resource --cleanup --resource {guest}"));
            }
            Work::Adopt { guest } => {
                let fault = self.recorder.fault(FaultKind::OtherAgent, &subject);
                let back = self.ask(Request::Harmless, &subject, &text, &format!("kvmha adopt --back {guest}"));
                if !(back && self.readopt(&subject)) {
                    self.foreign.lock().unwrap_or_else(PoisonError::into_inner).push((guest, fault));
                    return;
                }
                self.recorder.over(fault);
            }
            Work::Off { guest, node } => {
                let uris: Vec<String> = self.lab().node_names().iter().map(|node| format!("qemu+tcp://{node}/system")).collect();
                let line = format!("fence_kvmha --action=off --plug={guest} --uri={} --power-timeout=30", uris.join(","));
                self.recorder.operation(Request::Off, &subject, &text, || self.run_on(&node.to_string(), &line));
            }
        }
    }

    /// A `kvmha migrate` of a guest, on a node.
    pub fn migrate(&self, place: &str, guest: &str, line: &str) -> bool {
        let Some(output) = self.said_on(place, line) else { return false };
        // One that was killed with its node takes nothing back, and it says what it could not.
        if output.code.is_none_or(|code| code > 128) || output.stderr.contains(" is left") {
            self.draw(guest);
        }
        output.ok()
    }

    pub fn readopt(&self, name: &str) -> bool {
        let line = format!("kvmha adopt {name}");
        // Where a run was killed the next may begin at once, elsewhere ten minutes later: it says so.
        let anywhere = || self.lab().node_names().iter().any(|node| self.run_on(node, &line));
        self.recorder.operation(Request::Harmless, name, &format!("adopt {name}"), anywhere)
    }

    pub fn emulators(&self, name: &str) -> Vec<Identity> {
        let of = |node: String| self.lab().processes(&node, &format!("guest:{name}")).unwrap_or_default();
        self.lab().node_names().into_iter().flat_map(of).collect()
    }
}

pub fn target_role(name: &str, role: &str) -> String {
    format!("crm_resource --resource {name} --meta --set-parameter target-role --parameter-value {role}")
}

/// Processes of the nodes that carry an action for a guest out: whoever started them, this stands in their environment.
pub fn agents(lab: &Lab, guest: &str) -> Vec<i32> {
    let spaces = lab.spaces();
    let is_ours =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|space| spaces.iter().any(|(known, _)| *known == space));
    let word = format!("OCF_RESOURCE_INSTANCE={guest}");
    let has = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
    };
    pids().filter(has).filter(is_ours).collect()
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
