//! What was seen of a cluster from outside, from its beginning to its end: what [`crate::judge`] knows, and nothing else.
//!
//! All times are seconds since the history began, by the observer's clock: the moment at which something was *seen*, never before it was so.

use serde::Serialize;
use std::fmt;

/// All that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// What the guests wrote.
    pub guests: Vec<Guest>,
    /// What the agent was asked by Pacemaker, and answered.
    pub actions: Vec<Action>,
    /// What was asked of the cluster.
    pub operations: Vec<Operation>,
    /// What was done to it.
    pub faults: Vec<Fault>,
    /// Nodes whose power was cut by request of a fence agent.
    pub fencings: Vec<Fencing>,
    /// The emulators.
    pub emulators: Vec<Emulator>,
    /// Guests that Pacemaker did not run though it had nothing left to do, before failures were forgotten; and those that it runs and that write
    /// nothing.
    pub down: Vec<Down>,
    /// When all was healed and the cluster had nothing left to do.
    pub rests: Vec<Rest>,
    /// What is there after the end and must not be.
    pub left: Vec<String>,
}

/// A guest, by its own records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its boots, in the order in which they were seen.
    pub boots: Vec<Boot>,
    /// Why two writers must have been at work, if so, and when that was seen at the latest.
    pub two_writers: Option<(f64, String)>,
    /// Records that it was told to be on the disk and that are not.
    pub lost: u64,
    /// Looks at its disk that failed, of which nothing is known.
    pub unread: u64,
    /// When its kernel said on the console that it is broken.
    pub panics: Vec<f64>,
    /// Whether its disk is on the storage that hangs and fails.
    pub on_failing_storage: bool,
    /// Whether its agent promises to let it go on when the storage that has paused it has room again.
    pub resumes: bool,
    /// Whether it is to run at the end.
    pub wanted: bool,
    /// Whether it writes at the end.
    pub beats: bool,
}

/// A boot of a guest.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Boot {
    /// Its id.
    pub id: u64,
    /// When its first record was seen.
    pub first: f64,
    /// When its last was.
    pub last: f64,
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// As the action's success is.
    Done,
    /// In any other way.
    Failed,
    /// Pacemaker's timeout ended it.
    Late,
}

/// An action of the agent as Pacemaker saw it.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    /// The guest.
    pub guest: String,
    /// Where.
    pub node: String,
    /// `start`, `stop`, `monitor`, `migrate_to`...
    pub name: String,
    /// When it was asked for.
    pub begin: f64,
    /// When its answer was known.
    pub end: f64,
    /// When it was asked for last and not known yet.
    pub unanswered: f64,
    /// The answer.
    pub outcome: Outcome,
    /// In Pacemaker's words, with the exit reason.
    pub text: String,
}

impl Action {
    /// Whether the answer is that the guest is not there, in Pacemaker's words.
    #[must_use]
    pub fn says_absent(&self) -> bool {
        self.text.starts_with("not running")
    }
}

/// What was asked of the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// What.
    pub request: Request,
    /// The guest or the node.
    pub subject: String,
    /// In words.
    pub text: String,
    /// When it was asked.
    pub begin: f64,
    /// When it was answered.
    pub end: f64,
    /// Whether the answer was a success.
    pub ok: bool,
}

/// The kind of an operation, as far as it matters who ended a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Request {
    /// A guest is to be stopped, or stopped and started.
    Stop,
    /// A guest is to be started.
    Start,
    /// The fence agent under test is to turn a guest off.
    Off,
    /// Failures are to be forgotten, of a guest or of all (no subject).
    Forget,
    /// A parameter changes that needs no restart.
    Change,
    /// A change that costs no guest its memory: a move, a node in standby, another agent.
    Harmless,
}

/// What was done to the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The node or the guest; empty: all of it.
    pub subject: String,
    /// When it began.
    pub begin: f64,
    /// When it was over.
    pub end: f64,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FaultKind {
    /// A node lost its power.
    PowerCut,
    /// A node's cable was cut.
    NetworkCut,
    /// A node could send and not hear, or hear and not send.
    NetworkOneWay,
    /// A node's corosync did not answer.
    CorosyncFrozen,
    /// A node's libvirtd was killed, and started again.
    DaemonKilled,
    /// A node's libvirtd did not answer.
    DaemonFrozen,
    /// A node's storage did not answer.
    StorageFrozen,
    /// The storage took no more writes, from no node.
    StorageFull,
    /// A node's clock was wrong.
    ClockJump,
    /// A guest's emulator was killed.
    EmulatorKilled,
    /// A guest's emulator was stopped.
    EmulatorFrozen,
    /// The agent was killed while it worked for a guest.
    AgentKilled,
    /// A guest's definition was not there.
    ConfigGone,
    /// The fence device refused, or did not answer.
    FenceFails,
    /// The fence device did what it was asked, and said an error, or nothing.
    FenceLies,
    /// Another agent than the one under test looked after a guest.
    OtherAgent,
    /// The others have lost a node from their membership, whatever the reason.
    NodeLost,
    /// The cluster had no quorum.
    NoQuorum,
}

/// A node that was fenced.
#[derive(Clone, Debug, Serialize)]
pub struct Fencing {
    /// The node.
    pub node: String,
    /// When its power was asked to be cut.
    pub asked: f64,
    /// When that was said to be done, if it was.
    pub done: Option<f64>,
}

/// A guest that Pacemaker does not run, or that writes nothing though it does.
#[derive(Clone, Debug, Serialize)]
pub struct Down {
    /// The guest.
    pub guest: String,
    /// When that was seen.
    pub at: f64,
    /// How one stands that Pacemaker runs and that has written nothing for [`SILENT`]: in libvirt's words, or that its emulator is stopped.
    pub silent: Option<String>,
}

/// A guest that is killed or paused is noticed by its monitor, and goes on or is booted anew, within so many seconds on a busy machine.
pub const SILENT: f64 = 60.0;

/// A moment in which the cluster had come to rest.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rest {
    /// When.
    pub at: f64,
    /// Guests that did not write to their disks: for them it was none.
    pub but_for: Vec<String>,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.silent {
            None => write!(f, "{} does not run", self.guest),
            Some(how) => write!(f, "{} runs for Pacemaker and writes nothing: {how}", self.guest),
        }
    }
}

/// A process that ran a guest.
#[derive(Clone, Debug, Serialize)]
pub struct Emulator {
    /// The guest.
    pub guest: String,
    /// Where.
    pub node: String,
    /// Pid and start time.
    pub process: String,
    /// Whether it waited for the memory of another: no guest was booted in it but by a reset.
    pub incoming: bool,
    /// When it was seen first.
    pub first: f64,
    /// When any thread of it was seen last.
    pub last: f64,
}

impl History {
    /// Whether the last that was done with a guest on a node was a stop by the agent under test, and it was done: nothing is left there then.
    #[must_use]
    pub fn ends_with_a_stop(&self, guest: &str, node: &str) -> bool {
        let of_both = self.actions.iter().filter(|action| action.guest == guest && action.node == node);
        let Some(last) = of_both.max_by(|a, b| a.begin.total_cmp(&b.begin)) else { return false };
        let is_other = |fault: &Fault| fault.kind == FaultKind::OtherAgent && fault.subject == guest;
        last.name == "stop"
            && last.outcome == Outcome::Done
            && !self.faults.iter().any(|fault| is_other(fault) && fault.begin <= last.end && fault.end >= last.begin)
    }

    /// Lines of all that happened between two moments, in their order.
    #[must_use]
    pub fn timeline(&self, from: f64, to: f64) -> Vec<String> {
        let mut lines: Vec<(f64, String)> = Vec::new();
        for guest in &self.guests {
            for boot in &guest.boots {
                lines.push((boot.first, format!("guest   {} boot {:016x}: first record", guest.name, boot.id)));
                lines.push((boot.last, format!("guest   {} boot {:016x}: last record", guest.name, boot.id)));
            }
            lines.extend(guest.panics.iter().map(|at| (*at, format!("guest   {}: its kernel panics", guest.name))));
            lines.extend(guest.two_writers.iter().map(|(at, why)| (*at, format!("guest   {} has two writers: {why}", guest.name))));
        }
        for action in &self.actions {
            let what = format!("{} {} on {}", action.name, action.guest, action.node);
            lines.push((action.begin, format!("action  {what}")));
            lines.push((action.end, format!("action  {what}: {}", action.text)));
        }
        for operation in &self.operations {
            lines.push((operation.begin, format!("asked   {}", operation.text)));
            lines.push((operation.end, format!("asked   {}: {}", operation.text, if operation.ok { "ok" } else { "failed" })));
        }
        for fault in &self.faults {
            lines.push((fault.begin, format!("fault   {:?} {}", fault.kind, fault.subject)));
            lines.push((fault.end, format!("fault   {:?} {}: over", fault.kind, fault.subject)));
        }
        for fencing in &self.fencings {
            lines.push((fencing.asked, format!("fencing {} asked", fencing.node)));
            lines.extend(fencing.done.map(|at| (at, format!("fencing {} done", fencing.node))));
        }
        lines.extend(self.down.iter().map(|down| (down.at, format!("guest   {down}, and the cluster rests"))));
        for rest in &self.rests {
            let but_for = if rest.but_for.is_empty() { String::new() } else { format!(", but for {}", rest.but_for.join(", ")) };
            lines.push((rest.at, format!("the cluster rests{but_for}")));
        }
        for emulator in &self.emulators {
            let what = format!("process {} of {} on {}", emulator.process, emulator.guest, emulator.node);
            lines.push((emulator.first, format!("{what}: seen first")));
            lines.push((emulator.last, format!("{what}: seen last")));
        }
        lines.retain(|(at, _)| (from..=to).contains(at));
        lines.sort_by(|a, b| a.0.total_cmp(&b.0));
        lines.into_iter().map(|(at, text)| format!("{at:8.2} {text}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_stop_of_ours_nothing_is_left() {
        let action = |name: &str, node: &str, begin: f64| Action {
            guest: "vm1".to_owned(),
            node: node.to_owned(),
            name: name.to_owned(),
            begin,
            end: begin + 1.0,
            unanswered: begin,
            outcome: Outcome::Done,
            text: String::new(),
        };
        let actions =
            vec![action("start", "node1", 1.0), action("stop", "node1", 5.0), action("stop", "node2", 2.0), action("start", "node2", 6.0)];
        let mut history = History { actions, ..History::default() };
        let ends = |history: &History| ["node1", "node2", "node3"].map(|node| history.ends_with_a_stop("vm1", node));
        assert_eq!(ends(&history), [true, false, false]);
        assert!(!history.ends_with_a_stop("vm2", "node1"));
        // The other agent knows nothing of our files.
        let (kind, subject) = (FaultKind::OtherAgent, "vm1".to_owned());
        history.faults.push(Fault { kind, subject, begin: 3.0, end: 5.5 });
        assert_eq!(ends(&history), [false; 3]);
        history.faults[0].end = 4.0;
        history.actions[1].outcome = Outcome::Failed;
        assert_eq!(ends(&history), [false; 3]);
    }
}
