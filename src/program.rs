//! Running another program with a deadline: an argument list, no shell, and an end that comes whatever the program does.

mod left;

use crate::deadline::Deadline;
use left::Note;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How much of a program's output is kept, in bytes, if the caller says nothing else; the rest is read and dropped.
const KEPT: usize = 16 * 1024 * 1024;

/// Between two looks at a child that an earlier call left behind.
const LOOK: Duration = Duration::from_millis(100);

/// How a program ended.
#[derive(Debug)]
pub enum Outcome {
    /// It exited with this code; a signal N is 128 + N, as in a shell.
    Exited(i32),
    /// It was still running at the deadline; it and its process group were killed. It may be stuck in the kernel and live on.
    Late,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Late => f.write_str("did not end in time"),
        }
    }
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to standard output, as much of it as the caller wanted kept.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, as much of it as the caller wanted kept.
    pub stderr: Vec<u8>,
    /// Whether it wrote more to standard output than was kept.
    pub cut: bool,
}

impl Finished {
    /// Whether it exited with 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Exited(0))
    }

    /// What it wrote to standard error, without the white space around it.
    #[must_use]
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

/// Runs `program` with `arguments` until it exits or the deadline comes. Standard input is empty, the environment is this process's.
///
/// A program that blocks in the kernel (storage that hangs) is left behind: it holds none of this process's pipes, so the caller
/// of this process does not wait for it.
///
/// # Errors
/// The program could not be started.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S], deadline: &Deadline) -> io::Result<Finished> {
    run_keeping(KEPT, program, arguments, deadline)
}

/// Like [`run`], for a program that may have more to say: `most` bytes of each output are kept.
///
/// # Errors
/// The program could not be started.
pub fn run_keeping<S: AsRef<OsStr>>(most: usize, program: impl AsRef<OsStr>, arguments: &[S], deadline: &Deadline) -> io::Result<Finished> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, most, deadline).map(|(finished, _)| finished)
}

/// This program again, as a child, for work that may hang in the kernel. As long as a child with the same arguments that an earlier call
/// left behind is there, no other is started: it would hang on the same thing. This call is then late too.
///
/// # Errors
/// The program could not be started.
pub fn run_self<S: AsRef<OsStr>>(arguments: &[S], deadline: &Deadline) -> io::Result<Finished> {
    run_self_about(arguments, arguments, deadline)
}

/// Like [`run_self`], but the guard's key is `about`, not all arguments: for calls with different arguments that would hang on the same thing.
///
/// # Errors
/// The program could not be started.
pub fn run_self_about<S: AsRef<OsStr>>(arguments: &[S], about: &[S], deadline: &Deadline) -> io::Result<Finished> {
    run_noted(arguments, &Note::of(about), deadline)
}

fn run_noted<S: AsRef<OsStr>>(arguments: &[S], note: &Note, deadline: &Deadline) -> io::Result<Finished> {
    while note.holds() {
        if !deadline.pause(LOOK) {
            return Ok(Finished { outcome: Outcome::Late, stdout: Vec::new(), stderr: Vec::new(), cut: false });
        }
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0("kvmha").args(arguments);
    let (finished, left) = run_command(command, KEPT, deadline)?;
    if let Some(child) = left {
        note.write(child);
    }
    Ok(finished)
}

/// The word by which this program calls itself to become another one.
pub const EXEC_WORD: &str = "exec-program";

/// Runs a program that may lie on storage that hangs: a child of this program looks for it and becomes it, since whoever starts a
/// program waits until it is loaded. A program that cannot be started exits with 127 and says why, as in a shell.
///
/// One that was left behind is in the way of the next for the same `owner` only: the environment names what it hangs on.
///
/// # Errors
/// The child could not be started.
pub fn run_apart(program: &str, owner: &str, deadline: &Deadline) -> io::Result<Finished> {
    run_noted(&[EXEC_WORD, program], &Note::of(&[EXEC_WORD, program, owner]), deadline)
}

/// The word by which this program calls itself to see whether another one can be executed.
pub const CHECK_WORD: &str = "check-program";

/// Whether `program` can be executed, as far as its permissions say.
///
/// # Errors
/// Why it cannot.
pub fn check(program: &Path) -> io::Result<()> {
    if program.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    access(program, AccessFlags::X_OK).map_err(io::Error::from)
}

/// Becomes `program`; returns only if that fails.
pub fn exec(program: impl AsRef<OsStr>) -> io::Error {
    Command::new(program).exec()
}

/// Runs a command; what it said, and the child if it was late.
fn run_command(mut command: Command, most: usize, deadline: &Deadline) -> io::Result<(Finished, Option<left::Child>)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let mut output = Pipe::new(child.stdout.take(), most)?;
    let mut errors = Pipe::new(child.stderr.take(), most)?;
    let finished =
        |outcome, output: Pipe<_>, errors: Pipe<_>| Finished { outcome, cut: output.cut, stdout: output.kept, stderr: errors.kept };
    loop {
        // The program's end is seen by the end of its pipes, or, when something it left behind keeps them open, by asking.
        wait_readable(&output, &errors, deadline.left().min(Duration::from_millis(50)));
        output.drain();
        errors.drain();
        if let Some(status) = child.try_wait()? {
            output.drain();
            errors.drain();
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            return Ok((finished(Outcome::Exited(code), output, errors), None));
        }
        if output.ended() && errors.ended() && !deadline.expired() {
            let _ = deadline.pause(Duration::from_millis(1));
        }
        if deadline.expired() {
            // While it is still there for certain.
            let late = left::Child::of(child.id());
            end(&mut child);
            return Ok((finished(Outcome::Late, output, errors), late));
        }
    }
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.try_wait();
}

fn wait_readable(output: &Pipe<impl Read + AsFd>, errors: &Pipe<impl Read + AsFd>, time: Duration) {
    let mut wanted: Vec<PollFd<'_>> = [output.descriptor(), errors.descriptor()]
        .into_iter()
        .flatten()
        .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
        .collect();
    if !wanted.is_empty() {
        let _ = poll(&mut wanted, PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO));
    }
}

/// One of the program's outputs, read without waiting.
struct Pipe<R> {
    from: Option<R>,
    most: usize,
    kept: Vec<u8>,
    cut: bool,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(from: Option<R>, most: usize) -> io::Result<Self> {
        if let Some(from) = &from {
            fcntl(from.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno: Errno| io::Error::from(errno))?;
        }
        Ok(Self { from, most, kept: Vec::new(), cut: false })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(AsFd::as_fd)
    }

    fn ended(&self) -> bool {
        self.from.is_none()
    }

    fn drain(&mut self) {
        let mut buffer = [0; 65536];
        while let Some(from) = &mut self.from {
            match from.read(&mut buffer) {
                Ok(0) => self.from = None,
                Ok(length) => {
                    let read = &buffer[..length];
                    let (fits, rest) = read.split_at(length.min(self.most.saturating_sub(self.kept.len())));
                    self.kept.extend_from_slice(fits);
                    self.cut |= !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.from = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str, budget: Duration) -> Finished {
        run("/bin/sh", &["-c", script], &Deadline::after(budget)).unwrap()
    }

    #[test]
    fn code_and_both_outputs() {
        let finished = shell("echo out; echo err >&2; exit 7", Duration::from_secs(60));
        assert!(matches!(finished.outcome, Outcome::Exited(7)));
        assert_eq!((finished.stdout.as_slice(), finished.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert!(matches!(shell("kill -9 $$", Duration::from_secs(60)).outcome, Outcome::Exited(137)));
    }

    #[test]
    fn arguments_are_no_shell_words() {
        let finished = run("/bin/echo", &["$(id)", "; id", "a b"], &Deadline::after(Duration::from_secs(60))).unwrap();
        assert_eq!(finished.stdout, b"$(id) ; id a b\n");
    }

    #[test]
    fn much_output_does_not_block() {
        for (length, kept, cut) in [(20_000_000, KEPT, true), (KEPT + 1, KEPT, true), (KEPT, KEPT, false), (7, 7, false)] {
            let finished = shell(&format!("head -c {length} /dev/zero"), Duration::from_secs(60));
            assert_eq!((finished.stdout.len(), finished.cut), (kept, cut), "{length}");
        }
    }

    #[test]
    fn a_late_program_and_its_children_are_killed() {
        let begin = Instant::now();
        let finished = shell("sleep 3600 & echo $!; sleep 3600", Duration::from_millis(300));
        assert!(matches!(finished.outcome, Outcome::Late));
        assert!(begin.elapsed() < Duration::from_secs(60));
        let grandchild: i32 = String::from_utf8(finished.stdout).unwrap().trim().parse().unwrap();
        let deadline = Deadline::after(Duration::from_secs(30));
        let lives = || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
        while lives() && deadline.pause(Duration::from_millis(10)) {}
        assert!(!lives());
    }

    #[test]
    fn a_daemon_left_behind_does_not_delay() {
        let begin = Instant::now();
        let finished = shell("setsid sleep 5 & exit 3", Duration::from_secs(60));
        assert!(matches!(finished.outcome, Outcome::Exited(3)));
        assert!(begin.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_program_that_is_not_there() {
        assert_eq!(
            run("/no/such/program", &[""; 0], &Deadline::after(Duration::from_secs(1))).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
