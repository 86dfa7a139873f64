//! What the scenarios play on: a guest and the resource that means it, calls of the agent as Pacemaker makes them, and the truth about
//! the guest from `/proc`, libvirt and the heartbeat.

use crate::heartbeat::Ring;
use crate::process::{Identity, wait_until};
use crate::promise::BROKEN;
use crate::promised;
use crate::{GuestOptions, Lab, Output};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Where packages put the agent.
pub const AGENT: &str = "/usr/lib/ocf/resource.d/kvmha/VirtualDomain";

/// Which agent is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// `ocf:kvmha:VirtualDomain`.
    #[default]
    Ours,
    /// `ocf:heartbeat:VirtualDomain`.
    Theirs,
}

impl Agent {
    /// The one that the environment variable `AGENT_UNDER_TEST` names, `ours` or `theirs`; ours without it.
    pub fn under_test() -> Result<Self> {
        match std::env::var("AGENT_UNDER_TEST").as_deref() {
            Err(_) | Ok("ours") => Ok(Self::Ours),
            Ok("theirs") => Ok(Self::Theirs),
            Ok(other) => bail!("AGENT_UNDER_TEST is ours or theirs, not {other}"),
        }
    }

    /// Its provider.
    #[must_use]
    pub fn provider(self) -> &'static str {
        match self {
            Self::Ours => "kvmha",
            Self::Theirs => "heartbeat",
        }
    }
}
/// Most of it happens here.
pub const HERE: &str = "node1";
/// The other node.
pub const THERE: &str = "node2";
/// For commands that are not under test.
pub const SOON: Duration = Duration::from_secs(30);
/// What a guest may take to boot or to die on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A resource of the cluster that is not there, and the guest it means.
#[derive(Clone)]
pub struct Resource<'a> {
    /// Where it all happens.
    pub lab: &'a Lab,
    /// The resource's name, and that of the guest's files.
    pub instance: String,
    /// What libvirt calls the guest.
    pub name: String,
    /// Its parameters: `config` and what was added.
    pub parameters: Vec<(String, String)>,
    /// Whose agent it has.
    pub agent: Agent,
}

impl<'a> Resource<'a> {
    /// A resource and its guest, which beats and obeys the power button.
    pub fn new(lab: &'a Lab, name: &str) -> Result<Self> {
        Self::with_options(lab, name, &GuestOptions::default())
    }

    /// As [`Resource::new`], but the guest ignores the power button.
    pub fn deaf(lab: &'a Lab, name: &str) -> Result<Self> {
        Self::with_options(lab, name, &GuestOptions { deaf: true, ..GuestOptions::default() })
    }

    fn with_options(lab: &'a Lab, name: &str, options: &GuestOptions) -> Result<Self> {
        lab.guest_create(name, options)?;
        Ok(Self::unmade(lab, name, &format!("/srv/vms/{name}.xml")))
    }

    /// As [`Resource::new`], but the guest has no kernel: it starts at once, costs little, ignores the power button and never beats.
    pub fn empty(lab: &'a Lab, name: &str) -> Result<Self> {
        let resource = Self::new(lab, name)?;
        resource.edit(|text| {
            let lines = text.lines().filter(|line| !["<kernel>", "<initrd>", "<cmdline>"].iter().any(|tag| line.contains(tag)));
            lines.collect::<Vec<_>>().join("\n").replace("<memory unit='MiB'>80<", "<memory unit='MiB'>32<")
        })?;
        Ok(resource)
    }

    /// A resource without a guest made for it.
    pub fn unmade(lab: &'a Lab, name: &str, config: &str) -> Self {
        let parameters = vec![("config".to_owned(), config.to_owned())];
        Self { lab, instance: name.to_owned(), name: name.to_owned(), parameters, agent: Agent::Ours }
    }

    /// This resource with one parameter set.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.parameters.retain(|(known, _)| known != name);
        other.parameters.push((name.to_owned(), value.to_owned()));
        other
    }

    /// Changes the definition.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) -> Result<()> {
        self.lab.guest_edit(&self.instance, change)
    }

    /// Calls an action as Pacemaker does; a monitor that is to be no probe is called `recurring`.
    pub fn call(&self, node: &str, action: &str, seconds: u64) -> Result<Answer> {
        self.call_with(node, action, seconds, &[])
    }

    /// As [`Resource::call`], with more variables.
    pub fn call_with(&self, node: &str, action: &str, seconds: u64, more: &[(&str, &str)]) -> Result<Answer> {
        let words = self.words(node, action, seconds, more);
        let output = self.lab.exec(node, &words, Duration::from_secs(seconds + 5))?;
        Answer::of(format!("{action} of {} on {node} in {seconds} s", self.instance), &output, Duration::from_secs(seconds))
    }

    /// The command line of a call: `env`, the variables that pacemaker-execd sets, and the agent.
    pub fn words(&self, node: &str, action: &str, seconds: u64, more: &[(&str, &str)]) -> Vec<String> {
        let (action, interval) = if action == "recurring" { ("monitor", "10000") } else { (action, "0") };
        let timeout = (seconds * 1000).to_string();
        let usual = [
            ("OCF_ROOT", "/usr/lib/ocf"),
            ("OCF_RA_VERSION_MAJOR", "1"),
            ("OCF_RA_VERSION_MINOR", "1"),
            ("OCF_RESOURCE_INSTANCE", self.instance.as_str()),
            ("OCF_RESOURCE_TYPE", "VirtualDomain"),
            ("OCF_RESOURCE_PROVIDER", self.agent.provider()),
            ("OCF_EXIT_REASON_PREFIX", "ocf-exit-reason:"),
            ("OCF_RESKEY_crm_feature_set", "3.16.2"),
            ("OCF_RESKEY_CRM_meta_name", action),
            ("OCF_RESKEY_CRM_meta_on_node", node),
            ("OCF_RESKEY_CRM_meta_interval", interval),
            ("OCF_RESKEY_CRM_meta_timeout", timeout.as_str()),
            ("HA_LOGFACILITY", "daemon"),
            ("HA_debug", "0"),
        ];
        let mut words = vec!["env".to_owned()];
        words.extend(usual.iter().chain(more).map(|(name, value)| format!("{name}={value}")));
        words.extend(self.parameters.iter().map(|(name, value)| format!("OCF_RESKEY_{name}={value}")));
        words.extend([AGENT.replace("kvmha", self.agent.provider()), action.to_owned()]);
        words
    }

    /// Starts the guest and waits for its first beat; its boot.
    pub fn boot(&self, node: &str) -> Result<u64> {
        let before = self.ring().ok().map(|ring| ring.newest.boot);
        self.call(node, "start", 90)?.is(0)?;
        promised!(self.lives(node), "start said 0, but no emulator of {} is on {node}", self.name);
        let mut now = None;
        let new = wait_until(PATIENCE, Duration::from_millis(20), || {
            now = self.ring().ok().map(|ring| ring.newest.boot).filter(|boot| Some(*boot) != before);
            now.is_some()
        });
        ensure!(new, "{} was started and does not beat", self.name);
        now.context("no beat")
    }

    /// Starts a guest that does not beat.
    pub fn begin(&self, node: &str) -> Result<()> {
        self.call(node, "start", 90)?.is(0)?;
        promised!(self.lives(node), "start said 0, but no emulator of {} is on {node}", self.name);
        Ok(())
    }

    /// Stops the guest: 0 in time, and then nothing of it may be left.
    pub fn end(&self, node: &str, seconds: u64) -> Result<Answer> {
        let emulators = self.emulators(node)?;
        ensure!(!emulators.is_empty(), "no emulator of {} is on {node}", self.name);
        let answer = self.call(node, "stop", seconds)?.is(0)?;
        for emulator in emulators {
            promised!(gone(emulator), "stop said 0, but emulator {} of {} is left", emulator.pid, self.name);
        }
        self.absent(node)?;
        ensure!(!self.record(node)?.exists(), "stop left {}", self.record(node)?.display());
        Ok(answer)
    }

    /// The guest beats, and it is this boot of it.
    pub fn beats(&self, boot: u64) -> Result<()> {
        let before = self.ring()?.newest;
        let on = wait_until(SOON, Duration::from_millis(20), || self.ring().is_ok_and(|ring| ring.newest.sequence > before.sequence + 2));
        ensure!(on, "{} does not beat any more", self.name);
        let ring = self.ring()?;
        let words = self.lab.last_words(&self.instance, ring.boots.len());
        ensure!(ring.newest.boot == boot || words.is_empty(), "{} was booted again{words}", self.name);
        promised!(ring.newest.boot == boot, "{} was booted again", self.name);
        promised!(ring.two_writers.is_none(), "{}: {:?}", self.name, ring.two_writers);
        Ok(())
    }

    /// No emulator of the guest is on the node.
    pub fn absent(&self, node: &str) -> Result<()> {
        let left = self.emulators(node)?;
        promised!(left.is_empty(), "an emulator of {} is on {node}: {left:?}", self.name);
        Ok(())
    }

    /// An action has said that the guest is not there: it must not come later either, by a request that is still under way.
    pub fn stays_absent(&self, node: &str, time: Duration) -> Result<()> {
        let came = wait_until(time, Duration::from_millis(100), || self.lives(node));
        promised!(!came, "never twice: {} appeared on {node} after it was said to be stopped", self.name);
        Ok(())
    }

    /// Whether an emulator of the guest is on the node.
    pub fn lives(&self, node: &str) -> bool {
        self.emulators(node).is_ok_and(|emulators| !emulators.is_empty())
    }

    /// The guest's emulators on a node, of whatever libvirt says.
    pub fn emulators(&self, node: &str) -> Result<Vec<Identity>> {
        self.lab.processes(node, &format!("guest:{}", self.name))
    }

    /// The heartbeat.
    pub fn ring(&self) -> Result<Ring> {
        Ring::read(&self.lab.guest_image(&self.instance))
    }

    /// The state file.
    pub fn record(&self, node: &str) -> Result<PathBuf> {
        self.lab.path_in(node, &format!("/run/kvmha/{}.json", self.instance))
    }

    /// Runs `virsh` in a node: the word, the guest, more.
    pub fn virsh(&self, node: &str, word: &str, more: &[&str]) -> Result<String> {
        let mut words = vec!["virsh", "-q", "-c", "qemu:///system", word, &self.name];
        words.extend(more);
        Ok(self.lab.check(node, &words, SOON)?.trim().to_owned())
    }

    /// What the guest has said on its console.
    pub fn console(&self, node: &str) -> Result<String> {
        Ok(self.lab.console(self.lab.number(node)?, &self.instance))
    }
}

/// What an action said.
#[derive(Debug)]
pub struct Answer {
    what: String,
    /// The exit code.
    pub code: i32,
    /// The exit reason.
    pub reason: Option<String>,
    /// All of standard error.
    pub stderr: String,
    /// How long it took.
    pub time: Duration,
}

impl Answer {
    /// Of a call that had `timeout`. What holds for every call is looked at here: an end in time; one reason, last, if and only if it failed.
    pub fn of(what: String, output: &Output, timeout: Duration) -> Result<Self> {
        let (code, stderr) = (output.code, output.stderr.trim_end());
        let Some(code) = code.filter(|_| output.time < timeout) else {
            bail!("{BROKEN}: {what}: not in time, {:.1} s: code {code:?}: {stderr}", output.time.as_secs_f64())
        };
        let reasons: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("ocf-exit-reason:")).collect();
        let reason = reasons.last().map(|reason| (*reason).to_owned());
        let right = match code {
            0 | 7 => reasons.is_empty(),
            _ => reasons.len() == 1 && stderr.lines().last().is_some_and(|line| line.starts_with("ocf-exit-reason:")),
        };
        ensure!(right, "{what}: code {code} does not go with: {stderr}");
        Ok(Self { what, code, reason, stderr: stderr.to_owned(), time: output.time })
    }

    /// It has this code.
    pub fn is(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "{}: code {}, not {code}, after {:.1} s: {}",
            self.what,
            self.code,
            self.time.as_secs_f64(),
            self.stderr
        );
        Ok(self)
    }

    /// It has this code, and each of these is in the reason.
    pub fn says(self, code: i32, parts: &[&str]) -> Result<Self> {
        let answer = self.is(code)?;
        let reason = answer.reason.as_deref().unwrap_or_default();
        for part in parts {
            ensure!(reason.to_lowercase().contains(&part.to_lowercase()), "{}: the reason does not say {part:?}: {reason}", answer.what);
        }
        Ok(answer)
    }

    /// It did not use up its time.
    pub fn at_once(self, limit: Duration) -> Result<Self> {
        ensure!(self.time < limit, "{}: took {:.1} s: {}", self.what, self.time.as_secs_f64(), self.stderr);
        Ok(self)
    }
}

/// Whether a process and each of its threads are gone; a zombie leader with threads that live is not gone, its own rest is.
pub fn gone(process: Identity) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten();
    let alive = |path: PathBuf| {
        let Ok(text) = fs::read_to_string(path.join("stat")) else { return false };
        text.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    };
    let mut threads = threads.map(|thread| thread.path());
    !process.alive() && (Identity::of(process.pid).is_some() || !threads.any(alive))
}

/// A daemon that is frozen until this is dropped.
pub struct Frozen<'a>(&'a Lab, &'a str);

impl<'a> Frozen<'a> {
    /// Freezes a node's libvirtd.
    pub fn libvirt(lab: &'a Lab, node: &'a str) -> Result<Self> {
        lab.freeze(node, "libvirtd")?;
        Ok(Self(lab, node))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = self.0.thaw(self.1, "libvirtd");
    }
}

/// Makes calls at the same time; the first error of all.
pub fn together(calls: Vec<Box<dyn FnOnce() -> Result<()> + Send + '_>>) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = calls.into_iter().map(|call| scope.spawn(call)).collect();
        let ends: Vec<Result<()>> = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("panicked"))).collect();
        let errors: Vec<String> = ends.into_iter().filter_map(|end| end.err().map(|error| format!("{error:#}"))).collect();
        ensure!(errors.is_empty(), "{}", errors.join("\n"));
        Ok(())
    })
}

/// Whether `done` says yes within the time.
pub fn soon(what: &str, done: impl FnMut() -> bool) -> Result<()> {
    ensure!(wait_until(SOON, Duration::from_millis(10), done), "not within {} s: {what}", SOON.as_secs());
    Ok(())
}

/// Sends a signal to processes of a node.
pub fn signal(processes: &[Identity], signal: Signal) -> Result<()> {
    ensure!(!processes.is_empty() && processes.iter().all(|process| process.signal(signal)), "nothing there for {signal}");
    Ok(())
}

/// After each scenario: every libvirt answers, no guest is anywhere, no file of one, no state file.
pub fn tidy(lab: &Lab) -> Result<()> {
    lab.node_names().iter().try_for_each(|node| tidy_node(lab, node))?;
    lab.guests_clear()
}

/// Takes the hooks and state files of a node away.
pub fn tidy_node(lab: &Lab, node: &str) -> Result<()> {
    for path in ["/etc/libvirt/hooks/qemu", "/run/kvmha"] {
        let path = lab.path_in(node, path)?;
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
    }
    Ok(())
}
