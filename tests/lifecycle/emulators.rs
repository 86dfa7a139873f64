//! Emulators that were hurt, or do not show what they are.

use crate::stage::{HERE, Resource, gone, signal};
use crate::states::uuid;
use anyhow::{Context, Result, ensure};
use lab::promised;
use lab::{Lab, Output};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

/// The emulator is stopped from outside: it lives, and ends only by SIGKILL.
pub fn stopped(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "stopped")?;
    guest.boot(HERE)?;
    signal(&guest.emulators(HERE)?, Signal::SIGSTOP)?;
    let answer = guest.call(HERE, "recurring", 10)?;
    ensure!(matches!(answer.code, 0 | 1), "monitor says {} of a guest that is there", answer.code);
    // It cannot hear that it is to shut down.
    guest.end(HERE, 120)?.at_once(Duration::from_secs(45))?;
    Ok(())
}

/// As before, but with libvirt frozen too: nobody but the agent can end it.
pub fn stopped_and_libvirt_frozen(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "stuck")?;
    guest.begin(HERE)?;
    let _frozen = crate::stage::Frozen::libvirt(lab, HERE)?;
    signal(&guest.emulators(HERE)?, Signal::SIGSTOP)?;
    guest.call(HERE, "recurring", 10)?.is(0)?;
    guest.end(HERE, 10)?;
    Ok(())
}

/// The emulator is killed.
pub fn killed(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "killed")?;
    let boot = guest.boot(HERE)?;
    let emulators = guest.emulators(HERE)?;
    signal(&emulators, Signal::SIGKILL)?;
    crate::stage::soon("the emulator is gone", || emulators.iter().all(|emulator| gone(*emulator)))?;
    // A busy libvirt notices some milliseconds later.
    crate::stage::soon("monitor says 7", || guest.call(HERE, "recurring", 20).is_ok_and(|answer| answer.code == 7))?;
    guest.call(HERE, "stop", 20)?.is(0)?;
    ensure!(guest.boot(HERE)? != boot, "not booted again");
    guest.with("force_stop", "true").end(HERE, 30)?;
    Ok(())
}

/// A process table that is not mounted, or that hides the processes of others, shows no emulator, and proves nothing: with libvirt gone too the
/// guest is not taken for stopped.
pub fn process_table_not_there(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "unseen")?;
    let boot = guest.boot(HERE)?;
    lab.kill(HERE, "libvirtd")?;
    let asked = ["monitor", "stop"].map(|action| {
        let hidden = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"].map(str::to_owned);
        let words = [hidden.to_vec(), guest.words(HERE, action, 20, &[])].concat();
        lab.exec(HERE, &words, Duration::from_secs(30))
    });
    let seen = guest.call(HERE, "monitor", 20);
    lab.start(HERE, "libvirtd")?;
    for output in asked {
        let output = output?;
        ensure!(output.code == Some(1) && output.stderr.contains("process table cannot be read"), "{output:?}");
    }
    seen?.is(0)?;
    guest.beats(boot)?;
    guest.end(HERE, 60).map(drop)
}

/// An agent with process numbers of its own, as in a container, sees libvirt run a guest and no emulator: with libvirt gone that it sees none proves
/// nothing, and with libvirt there the guest is stopped as ever. A guest whose emulator was seen, and is gone, is called stopped without libvirt.
pub fn never_seen(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "inside")?.with("force_stop", "true");
    let inside = |action: &str, seconds: u64| -> Result<Output> {
        let words = [["unshare", "--pid", "--fork", "--mount-proc"].map(str::to_owned).to_vec(), guest.words(HERE, action, seconds, &[])];
        lab.exec(HERE, &words.concat(), Duration::from_secs(seconds + 5))
    };
    let ok = |action: &str| inside(action, 60)?.success(action).map(drop);
    ok("start")?;
    ok("recurring")?;
    lab.kill(HERE, "libvirtd")?;
    let answers = ["recurring", "monitor", "stop"].map(|action| inside(action, 10));
    lab.start(HERE, "libvirtd")?;
    for answer in answers {
        let answer = answer?;
        promised!(guest.lives(HERE), "its emulator is gone");
        promised!(!matches!(answer.code, Some(0 | 7)), "called stopped while its emulator lives: {answer:?}");
        ensure!(answer.stderr.contains("was never seen on this host"), "{answer:?}");
    }
    ok("recurring")?;
    ok("stop")?;
    guest.absent(HERE)?;
    guest.begin(HERE)?;
    let emulators = guest.emulators(HERE)?;
    lab.kill(HERE, "libvirtd")?;
    signal(&emulators, Signal::SIGKILL)?;
    crate::stage::soon("the emulator is gone", || emulators.iter().all(|emulator| gone(*emulator)))?;
    let answers = [guest.call(HERE, "recurring", 20), guest.call(HERE, "stop", 20)];
    lab.start(HERE, "libvirtd")?;
    let [monitor, stop] = answers;
    monitor?.is(7)?;
    stop?.is(0).map(drop)
}

/// A program whose command line does not come, as when its memory is locked while storage hangs; ended when this is dropped.
struct Silent<'a>(&'a Lab, &'a str);

impl<'a> Silent<'a> {
    fn start(lab: &'a Lab, program: &'a str) -> Result<Self> {
        Self::start_with(lab, program, "/dev/null")
    }

    /// The emulator of a guest `other`, as libvirt keeps it: with its pid file open, and a status file that gives this UUID.
    fn emulator(lab: &'a Lab, uuid: &str) -> Result<Self> {
        let silent = Self::start_with(lab, "/run/qemu-other", "/run/libvirt/qemu/other.pid")?;
        let script = "printf \"<domstatus pid='%s'><domain><name>other</name><uuid>%s</uuid></domain></domstatus>\" \
            \"$(cat /run/qemu-other.pid)\" \"$1\" >/run/libvirt/qemu/other.xml";
        lab.check(HERE, &["sh", "-c", script, "sh", uuid], crate::stage::SOON)?;
        Ok(silent)
    }

    fn start_with(lab: &'a Lab, program: &'a str, file: &str) -> Result<Self> {
        let script = "cp \"$(command -v sleep)\" \"$1\" && mkfifo \"$1.line\" && { \"$1\" 600 >/dev/null 2>&1 </dev/null 9>>\"$2\" & } && \
            echo $! >\"$1.pid\" && sleep 0.5 && mount --bind \"$1.line\" /proc/$!/cmdline";
        let silent = Self(lab, program);
        lab.check(HERE, &["sh", "-c", script, "sh", program, file], crate::stage::SOON)?;
        Ok(silent)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let script = "kill $(cat \"$1.pid\"); rm -f \"$1\" \"$1.line\" \"$1.pid\" /run/libvirt/qemu/other.pid /run/libvirt/qemu/other.xml";
        let _ = self.0.check(HERE, &["sh", "-c", script, "sh", self.1], crate::stage::SOON);
    }
}

/// A guest's real emulator, by its number in the node, whose command line does not come; it does again when this is dropped.
struct Silenced<'a>(&'a Lab, String);

impl<'a> Silenced<'a> {
    fn now(guest: &Resource<'a>) -> Result<Self> {
        let record = fs::read_to_string(guest.record(HERE)?)?;
        let rest = record.split_once("\"pid\":").context("no process")?.1;
        let silenced = Self(guest.lab, rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default().to_owned());
        silenced.run("mkfifo /run/line && mount --bind /run/line \"/proc/$1/cmdline\"")?;
        Ok(silenced)
    }

    fn run(&self, script: &str) -> Result<()> {
        self.0.check(HERE, &["sh", "-c", script, "sh", &self.1], crate::stage::SOON).map(drop)
    }
}

impl Drop for Silenced<'_> {
    fn drop(&mut self) {
        let _ = self.run("umount \"/proc/$1/cmdline\"; rm /run/line");
    }
}

/// A process whose command line cannot be had keeps nobody from proving that a guest is gone, unless it may be an emulator.
pub fn command_line_that_does_not_come(lab: &Lab) -> Result<()> {
    let guest = Resource::empty(lab, "proven")?.with("force_stop", "true");
    guest.begin(HERE)?;
    {
        let _silent = Silent::start(lab, "/run/backup")?;
        guest.end(HERE, 30)?;
        guest.call(HERE, "monitor", 20)?.is(7)?;
    }
    let _silent = Silent::start(lab, "/run/qemu-other")?;
    guest.call(HERE, "monitor", 20)?.says(1, &["does not show its command line, and may be an emulator"])?;
    guest.call(HERE, "stop", 10)?.is(1)?;
    Ok(())
}

/// The emulator of another guest that does not show its command line costs the guests beside it nothing: they are stopped, and called
/// stopped, while it hangs; so is its own. But one that may be the guest itself, renamed, is waited for.
pub fn another_emulator_is_silent(lab: &Lab) -> Result<()> {
    let named = |name: &str| Ok::<_, anyhow::Error>(Resource::empty(lab, name)?.with("force_stop", "true"));
    let (guest, other) = (named("beside")?, named("silent")?);
    guest.begin(HERE)?;
    other.begin(HERE)?;
    {
        let _silenced = Silenced::now(&other)?;
        guest.call(HERE, "recurring", 20)?.is(0)?;
        guest.end(HERE, 30)?;
        for action in ["monitor", "recurring"] {
            guest.call(HERE, action, 20)?.is(7)?;
        }
        guest.begin(HERE)?;
        guest.end(HERE, 30)?;
        // The process that was seen last counts without it.
        other.end(HERE, 30)?;
    }
    {
        let _silent = Silent::emulator(lab, "00000000-0000-4000-8000-000000000001")?;
        guest.call(HERE, "monitor", 20)?.is(7)?;
        // Nor does it cost a stop its time that no resource has it.
        guest.begin(HERE)?;
        let emulators = guest.emulators(HERE)?;
        signal(&emulators, Signal::SIGKILL)?;
        crate::stage::soon("the emulator is gone", || emulators.iter().all(|emulator| gone(*emulator)))?;
        guest.call(HERE, "stop", 30)?.is(0)?.at_once(Duration::from_secs(25))?;
    }
    let _silent = Silent::emulator(lab, &uuid(&guest)?)?;
    let answers = [guest.call(HERE, "monitor", 20)?, guest.call(HERE, "stop", 10)?];
    promised!(answers.iter().all(|answer| answer.code == 1), "called stopped, and its emulator may live under another name");
    Ok(())
}

/// While libvirt is away the emulator that was seen last is witness enough, whatever else may be one.
pub fn seen_while_a_process_is_silent(lab: &Lab) -> Result<()> {
    let guest = Resource::new(lab, "witness")?;
    let boot = guest.boot(HERE)?;
    {
        let _silent = Silent::start(lab, "/run/qemu-other")?;
        lab.kill(HERE, "libvirtd")?;
        let seen = guest.call(HERE, "recurring", 20);
        lab.start(HERE, "libvirtd")?;
        seen?.is(0)?;
    }
    guest.beats(boot)?;
    guest.end(HERE, 60).map(drop)
}
