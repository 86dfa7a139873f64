//! Programs run with a time limit, and processes told apart for certain: pids are reused, so a pid is kept with its start time.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A process, for certain: its pid and the moment it started (field 22 of `/proc/PID/stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pid in this PID namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Identity {
    /// The process with this pid, if there is one; a zombie is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (state, _, start) = stat(&format!("/proc/{pid}/stat"))?;
        // The machine's PID 1 may reap slowly: a zombie has done all it will ever do.
        if matches!(state, 'Z' | 'X') { None } else { Some(Self { pid, start }) }
    }

    /// This process as the `/proc` mounted here names it. In a new PID namespace that still shows the old `/proc` this is the outer pid.
    pub fn own() -> Result<Self> {
        let (_, pid, start) = stat("/proc/self/stat").context("failed to read /proc/self/stat")?;
        Ok(Self { pid, start })
    }

    /// Whether it still lives.
    #[must_use]
    pub fn alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// A file as the process sees it, as this machine reaches it.
    #[must_use]
    pub fn path_in(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Sends a signal, if it still lives. Says whether it did.
    pub fn signal(&self, signal: Signal) -> bool {
        self.alive() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Kills it and waits until it is gone.
    pub fn end(&self, limit: Duration) -> Result<()> {
        self.signal(Signal::SIGKILL);
        if wait_until(limit, Duration::from_millis(2), || !self.alive()) {
            return Ok(());
        }
        bail!("process {} is still there {:.0} s after SIGKILL", self.pid, limit.as_secs_f64())
    }

    /// The one written to `path` by [`Identity::save`].
    #[must_use]
    pub fn load(path: &Path) -> Option<Self> {
        fs::read_to_string(path).ok()?.parse().ok()
    }

    /// Writes it to a file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        replace(path, &format!("{self}\n"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

impl FromStr for Identity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (pid, start) = text.trim().split_once(' ').context("not a pid and a start time")?;
        Ok(Self { pid: pid.parse()?, start: start.parse()? })
    }
}

/// State, pid and start time out of a `stat` file. The name between the parentheses may hold anything, so count from its end.
fn stat(path: &str) -> Option<(char, i32, u64)> {
    let text = fs::read_to_string(path).ok()?;
    let (head, tail) = (text.split_once(' ')?.0, text.rsplit_once(')')?.1);
    let fields: Vec<&str> = tail.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, head.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// Every pid of this machine that `/proc` shows.
pub fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The arguments of a process; empty when it is gone or a kernel thread.
#[must_use]
pub fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).filter(|part| !part.is_empty()).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code, 128 + N after signal N; `None` when the time limit ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub time: Duration,
}

impl Output {
    /// Whether the exit code is 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The standard output of a program that succeeded; else an error that quotes it.
    pub fn success(self, what: &str) -> Result<String> {
        if self.ok() {
            return Ok(self.stdout);
        }
        let late = || format!("did not end within {:.1} s", self.time.as_secs_f64());
        let end = self.code.map_or_else(late, |code| format!("exit code {code}"));
        let said = if self.stderr.trim().is_empty() { self.stdout.trim() } else { self.stderr.trim() };
        bail!("{what}: {end}: {said}")
    }
}

/// Runs a program with a time limit, its output kept.
///
/// The output goes to files, not pipes: a child in D state (storage that hangs) keeps a pipe open for ever, and so would its reader wait.
pub fn run<S: AsRef<str>>(argv: &[S], limit: Duration) -> Result<Output> {
    let (program, arguments) = argv.split_first().context("no program to run")?;
    let mut command = Command::new(program.as_ref());
    command.args(arguments.iter().map(AsRef::as_ref));
    run_command(command, limit)
}

/// As [`run`], for a command that is already put together.
pub fn run_command(mut command: Command, limit: Duration) -> Result<Output> {
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
    let begin = Instant::now();
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("failed to run {name}"))?;
    let status = wait_end(&mut child, limit);
    if status.is_none() {
        // The whole group: nsenter's child is the one that does the work.
        if let Ok(group) = i32::try_from(child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        wait_end(&mut child, Duration::from_secs(1));
    }
    let code = status.and_then(|s| s.code().or_else(|| s.signal().map(|signal| 128 + signal)));
    Ok(Output { code, stdout: content(&stdout), stderr: content(&stderr), time: begin.elapsed() })
}

/// Runs a program that must succeed; its standard output.
pub fn check<S: AsRef<str>>(argv: &[S], limit: Duration) -> Result<String> {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    run(argv, limit)?.success(&words.join(" "))
}

/// All of a file which a child has written through the same offset: so read by position.
fn content(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().map_or(0, |m| usize::try_from(m.len()).unwrap_or(0))];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// Starts a program that outlives this one: own session, adopted by the machine's PID 1, output appended to `log`.
pub fn spawn_free(argv: &[&str], log: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(log).with_context(|| format!("failed to open {}", log.display()))?;
    let mut command = Command::new("setsid");
    command.arg("--fork").args(argv).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).current_dir("/");
    let status = command.status().with_context(|| format!("failed to run setsid for {}", argv.join(" ")))?;
    if status.success() { Ok(()) } else { bail!("failed to start {}: {status}", argv.join(" ")) }
}

/// Asks `done` again and again, first after `step` and then ever less often (but at least every 50 ms), until it says yes or the time is up.
pub fn wait_until(limit: Duration, step: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    let mut pause = step;
    loop {
        if done() {
            return true;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(pause.min(left));
        pause = (pause + pause / 2).min(Duration::from_millis(50).max(step));
    }
}

/// Waits for the end of a child; `None`: it had none in this time.
pub fn wait_end(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(limit, Duration::from_millis(1), || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    status
}

/// Writes a file whole or not at all: readers see the old or the new text.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text).with_context(|| format!("failed to write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("failed to rename to {}", path.display()))
}

/// The last `lines` lines of a file; empty when it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_code_and_limit() {
        let output = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], Duration::from_secs(10)).unwrap();
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(3), "out\n", "err\n"));
        let late = run(&["sh", "-c", "sleep 60"], Duration::from_millis(50)).unwrap();
        assert!(late.code.is_none() && late.time < Duration::from_secs(30));
        assert_eq!(run(&["sh", "-c", "kill -9 $$"], Duration::from_secs(10)).unwrap().code, Some(137));
    }

    #[test]
    fn identity_is_more_than_a_pid() {
        let own = Identity::own().unwrap();
        assert!(own.alive());
        assert!(!Identity { start: own.start + 1, ..own }.alive());
        assert_eq!(own.to_string().parse::<Identity>().unwrap(), own);
    }
}
