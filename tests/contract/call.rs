//! Making the call of a case, and judging what came of it.

use crate::case::{Case, Made, Place, fits};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kvmha");

/// Where a program that counts what it runs through leaves its counts (`tests/run --coverage`): the only variable of the test's own.
pub fn counts() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE")
}

/// What came of a call.
pub struct Seen {
    pub outputs: Vec<(Place, Vec<String>)>,
    /// What is not as expected, code and outputs.
    pub complaints: Vec<String>,
    /// Whether only the texts of outputs are not as expected.
    pub can_bless: bool,
}

/// Makes the call of `case` in the scratch folder `dir`.
pub fn make(case: &Case, dir: &Path) -> Seen {
    let _sockets: Vec<UnixListener> = case.made.iter().filter_map(|made| prepare(made, dir)).collect();
    let before = states();
    let mut command = Command::new(PROGRAM);
    // A link that was made is executed itself, any other word is only the name that is called by.
    if Path::new(&case.call[0]).starts_with(dir) {
        command = Command::new(&case.call[0]);
    } else {
        command.arg0(&case.call[0]);
    }
    command.args(&case.call[1..]).env_clear().envs(counts()).envs(case.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(dir).process_group(0).stdin(Stdio::piped()).stderr(Stdio::piped());
    // With the reader's end of the pipe dropped at once, every write fails.
    command.stdout(if case.closed_stdout { Stdio::from(io::pipe().unwrap().1) } else { Stdio::piped() });
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    drop(command);
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    // A program that does not read its input is right not to.
    let _ = child.stdin.take().unwrap().write_all(&case.stdin);
    let mut complaints = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > case.within {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            complaints.push(format!("no end within {} ms", case.within.as_millis()));
            break child.wait().unwrap();
        }
        thread::sleep(Duration::from_millis(2));
    };
    let mut text = |what: &str, reader: Option<JoinHandle<Vec<u8>>>| match reader.map(|reader| finish(reader, Duration::from_secs(2))) {
        Some(None) => {
            complaints.push(format!("{what} is held open by a process that was left behind"));
            Vec::new()
        }
        Some(Some(bytes)) => bytes,
        None => Vec::new(),
    };
    let (stdout, stderr) = (text("stdout", stdout), text("stderr", stderr));
    let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
    if code != case.code {
        complaints.push(format!("code {code}, not {}", case.code));
    }
    complaints.extend(invariants(case, code, &stderr));
    if states() != before {
        complaints.push("a state file was left in /run/kvmha".into());
    }
    let readable = |bytes: &[u8]| lines(bytes, child.id(), dir);
    let mut outputs = vec![(Place::Stderr, readable(&stderr))];
    match &case.stdout_file {
        Some(path) if fs::read(path).ok().as_ref() != Some(&stdout) => {
            complaints.push(format!("stdout is not {}, which kvmha generate writes", path.display()));
        }
        Some(_) => {}
        None => outputs.insert(0, (Place::Stdout, readable(&stdout))),
    }
    outputs.extend(left(case, dir).into_iter().map(|(name, bytes)| (Place::Left(name), readable(&bytes))));
    let can_bless = complaints.is_empty();
    let expected = |place: &Place| case.outputs.iter().find(|(known, _)| known == place).map_or(&[][..], |(_, lines)| lines);
    for (place, _) in case.outputs.iter().filter(|(place, _)| outputs.iter().all(|(known, _)| known != place)) {
        complaints.push(format!("{place:?}: not there"));
    }
    for (place, lines) in outputs.iter().filter(|(place, lines)| !fits(expected(place), lines)) {
        complaints.push(format!("{place:?}: expected {:#?}, got {lines:#?}", expected(place)));
    }
    Seen { outputs, complaints, can_bless }
}

/// What holds for every call of the agent, whatever the case says: one reason, the last line, exactly if the action failed.
fn invariants(case: &Case, code: i32, stderr: &[u8]) -> Vec<String> {
    let by_word = case.call.get(1).is_some_and(|word| word == "agent");
    if Path::new(&case.call[0]).file_name() != Some(OsStr::new("VirtualDomain")) && !by_word {
        return Vec::new();
    }
    let named = case.environment.iter().find(|(name, value)| name == "OCF_EXIT_REASON_PREFIX" && !value.is_empty());
    let prefix = named.map_or(&b"ocf-exit-reason:"[..], |(_, value)| value.as_bytes());
    let lines: Vec<&[u8]> = stderr.strip_suffix(b"\n").unwrap_or(stderr).split(|byte| *byte == b'\n').collect();
    let reasons = lines.iter().filter(|line| line.starts_with(prefix)).count();
    let mut complaints = Vec::new();
    match code {
        0 | 7 if reasons != 0 => complaints.push("success and 'not running' have no exit reason".to_owned()),
        1 | 2 | 4 | 5 | 6 if reasons != 1 => complaints.push(format!("{reasons} exit reasons, not 1")),
        _ => {}
    }
    if reasons > 0 && !lines.last().is_some_and(|line| line.starts_with(prefix)) {
        complaints.push("the exit reason is not the last line".into());
    }
    complaints
}

/// Makes one thing in the scratch folder.
fn prepare(made: &Made, dir: &Path) -> Option<UnixListener> {
    match made {
        Made::File(name, content) => fs::write(dir.join(name), content).unwrap(),
        Made::Program(name, content) => {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(dir.join(name)).unwrap();
            file.write_all(content).unwrap();
        }
        Made::Folder(name) => fs::create_dir(dir.join(name)).unwrap(),
        Made::Fifo(name) => nix::unistd::mkfifo(&dir.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        Made::Sparse(name, size) => File::create(dir.join(name)).unwrap().set_len(size << 20).unwrap(),
        Made::Link(name) => symlink(PROGRAM, dir.join(name)).unwrap(),
        Made::Mute(name) => return Some(UnixListener::bind(dir.join(name)).unwrap()),
    }
    None
}

/// The files in the scratch folder that the call has made.
fn left(case: &Case, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let known = |name: &str| {
        case.made.iter().any(|made| match made {
            Made::File(made, _) | Made::Program(made, _) | Made::Sparse(made, _) => made == name,
            Made::Folder(made) | Made::Fifo(made) | Made::Link(made) | Made::Mute(made) => made == name,
        })
    };
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> =
        names.filter(|name| !known(name)).map(|name| (name.clone(), fs::read(dir.join(name)).unwrap_or_default())).collect();
    files.sort();
    files
}

/// The state files of this suite's resources. The note of who was here at the first probe is meant to stay, and is taken away.
fn states() -> Vec<String> {
    let names = fs::read_dir("/run/kvmha").into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names = names.filter(|name| name.starts_with("default") || name.starts_with("contract"));
    let (notes, states): (Vec<_>, _) = names.partition(|name| name.ends_with(".strangers"));
    // Another call may have taken it.
    notes.iter().for_each(|name| drop(fs::remove_file(Path::new("/run/kvmha").join(name))));
    states
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn finish(reader: JoinHandle<Vec<u8>>, time: Duration) -> Option<Vec<u8>> {
    let begin = Instant::now();
    while !reader.is_finished() {
        if begin.elapsed() > time {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
    reader.join().ok()
}

/// The lines of an output, with what differs from call to call replaced: `{dir}`, `{pid}`, `{time}`.
fn lines(bytes: &[u8], pid: u32, dir: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace(&*dir.to_string_lossy(), "{dir}").replace(&format!("[{pid}]"), "[{pid}]");
    text.lines().map(without_time).collect()
}

/// `Nov 23 21:40:25` becomes `{time}`.
fn without_time(line: &str) -> String {
    const SHAPE: &[u8] = b"Aaa 00 00:00:00";
    let is_time = |window: &[u8]| {
        window.iter().zip(SHAPE).all(|(byte, shape)| match shape {
            b'A' => byte.is_ascii_uppercase(),
            b'a' => byte.is_ascii_lowercase(),
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
    };
    match line.as_bytes().windows(SHAPE.len()).position(is_time) {
        Some(at) => format!("{}{{time}}{}", &line[..at], &line[at + SHAPE.len()..]),
        None => line.to_owned(),
    }
}
