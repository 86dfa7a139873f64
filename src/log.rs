//! Logging as the cluster's shell agents do it with `ocf_log` (resource-agents `heartbeat/ocf-shellfuncs`): the same variables
//! say where messages go, so they stand where an operator looks for them.
//!
//! A terminal on standard input: standard error. Otherwise syslog if `HA_LOGFACILITY` is set and not `none`, and `HA_LOGFILE` if
//! set, and standard error if neither is; `HA_DEBUGLOG` gets everything. Debug messages only if `HA_debug` is set and not 0; they
//! do not go to `HA_LOGFILE`, and to standard error only if there is no `HA_DEBUGLOG` either.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// The levels of `ocf_log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The reason of a failure.
    Error,
    /// Odd, but handled.
    Warning,
    /// What this process changed.
    Info,
    /// What it asked and how long that took.
    Debug,
}

/// Where messages go; filled at the edge from the environment.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `VirtualDomain(web1)`: program and resource instance.
    pub tag: String,
    /// `HA_LOGFACILITY`: a syslog facility, or nothing.
    pub facility: Option<String>,
    /// `HA_LOGFILE`.
    pub file: Option<PathBuf>,
    /// `HA_DEBUGLOG`.
    pub debug_file: Option<PathBuf>,
    /// `HA_debug`.
    pub debug: bool,
}

type Syslog = syslog::Logger<syslog::LoggerBackend, syslog::Formatter3164>;

static SETTINGS: OnceLock<Settings> = OnceLock::new();
static OFFSET: OnceLock<UtcOffset> = OnceLock::new();
static SYSLOG: OnceLock<Option<Mutex<Syslog>>> = OnceLock::new();

/// Says where messages go. Only the first call counts. Called before there are threads: the local time can only be asked for then.
pub fn init(settings: Settings) {
    if settings.facility.is_none() || settings.file.is_some() || settings.debug_file.is_some() {
        let _ = OFFSET.set(local_offset());
    }
    let _ = SETTINGS.set(settings);
}

fn local_offset() -> UtcOffset {
    UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC)
}

/// The reason of a failure. `exit_reason` writes it too; nothing else should.
pub fn error(text: impl Display) {
    write(Level::Error, &text.to_string(), true);
}

/// Odd, but handled.
pub fn warning(text: impl Display) {
    write(Level::Warning, &text.to_string(), true);
}

/// What this process changed.
pub fn info(text: impl Display) {
    write(Level::Info, &text.to_string(), true);
}

/// What was asked, and the answer. The text is made only if it is wanted.
pub fn debug(text: impl FnOnce() -> String) {
    if SETTINGS.get().is_some_and(|settings| settings.debug) {
        write(Level::Debug, &text(), true);
    }
}

/// One line on standard error for the person or program that called; a closed pipe is no error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The system's text of an error, without Rust's "(os error 2)".
#[must_use]
pub fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Prints the exit reason, last, as Pacemaker reads it: the last line on standard error that starts with the prefix
/// (`parse_exit_reason_from_stderr` in pacemaker's `lib/services/services_linux.c`); and logs it, as `ocf_exit_reason` does.
pub fn exit_reason(prefix: &str, text: &str) {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    write(Level::Error, &line, false);
    complain(&format!("{prefix}{line}"));
}

fn write(level: Level, text: &str, on_stderr: bool) {
    #[cfg(test)]
    if crate::simulation::is_on() {
        return crate::simulation::tell(|| format!("{level:?}: {text}"));
    }
    let settings = SETTINGS.get_or_init(Settings::default);
    let word = match level {
        Level::Error => "ERROR",
        Level::Warning => "WARNING",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
    };
    let message = format!("{word}: {text}");
    let tag = format!("{}[{}]", settings.tag, process::id());
    if io::stdin().is_terminal() {
        if on_stderr {
            complain(&format!("{tag}: {message}"));
        }
        return;
    }
    let facility = settings.facility.as_deref().filter(|name| *name != "none");
    if let Some(name) = facility {
        to_syslog(name, &settings.tag, level, &message);
    }
    if let Some(path) = &settings.file
        && level != Level::Debug
    {
        append(path, &format!("{} {tag}:    {message}\n", timestamp()));
    }
    if let Some(path) = &settings.debug_file
        && settings.file.as_ref() != Some(path)
    {
        append(path, &format!("{tag}:\t{} {message}\n", timestamp()));
    }
    let filed = if level == Level::Debug { &settings.debug_file } else { &settings.file };
    if facility.is_none() && filed.is_none() && on_stderr {
        complain(&format!("{} {message}", timestamp()));
    }
}

/// Whatever goes wrong with logging must not hurt the action: a socket that does not take the message in time loses it.
fn to_syslog(facility: &str, tag: &str, level: Level, message: &str) {
    let logger = SYSLOG.get_or_init(|| {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
        socket.connect("/dev/log").ok()?;
        let formatter = syslog::Formatter3164 {
            facility: syslog::Facility::from_str(facility).unwrap_or(syslog::Facility::LOG_DAEMON),
            hostname: None,
            process: tag.to_owned(),
            pid: process::id(),
        };
        Some(Mutex::new(syslog::Logger::new(syslog::LoggerBackend::Unix(socket), formatter)))
    });
    if let Some(logger) = logger {
        let mut logger = logger.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = match level {
            Level::Error => logger.err(message),
            Level::Warning => logger.warning(message),
            Level::Info => logger.info(message),
            Level::Debug => logger.debug(message),
        };
    }
}

fn append(path: &Path, line: &str) {
    // A FIFO that nobody reads must not be waited for.
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path) {
        let _ = file.write_all(line.as_bytes());
    }
}

/// The local time as `ocf_log` writes it: `Nov 23 21:40:25`.
fn timestamp() -> String {
    let now = OffsetDateTime::now_utc().to_offset(*OFFSET.get_or_init(local_offset));
    now.format(&format_description!("[month repr:short] [day] [hour]:[minute]:[second]")).unwrap_or_default()
}
