//! A place between the source's libvirt and the target's, where the messages of a move are seen, held and lost: so a fault comes at the very
//! moment that is meant.
//!
//! Peer-to-peer, the source's libvirt sends the target two requests (libvirt's `src/remote/remote_protocol.x`): prepare and finish. What is
//! before, between and after them are the five phases.

use anyhow::{Context, Result, bail};
use lab::Lab;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

/// The URI of the target's libvirt as the source reaches it through a relay.
pub const URI: &str = "qemu+unix:///system?socket=/run/between.sock";

/// `REMOTE_PROC_DOMAIN_MIGRATE_PREPARE3_PARAMS`
const PREPARE: u32 = 303;
/// `REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS`
const FINISH: u32 = 306;
/// `VIR_NET_CALL` and `VIR_NET_REPLY`, the kinds of a message.
const CALL: u32 = 0;
const REPLY: u32 = 1;

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The source has begun; the target has heard nothing.
    Begin,
    /// The target is prepared; the source has not heard.
    Prepare,
    /// Memory flows.
    Perform,
    /// All memory is there; the target was not told to let the guest run.
    Finish,
    /// The guest runs at the target; the source has not heard.
    Finished,
    /// The source has heard, and is about to end its copy.
    Confirm,
}

impl Moment {
    /// The procedure and kind of the message at which the moment is, and whether the message is passed on before the fault.
    fn message(self) -> (u32, u32, bool) {
        match self {
            Self::Begin => (PREPARE, CALL, false),
            Self::Prepare => (PREPARE, REPLY, false),
            Self::Perform => (PREPARE, REPLY, true),
            Self::Finish => (FINISH, CALL, false),
            Self::Finished => (FINISH, REPLY, false),
            Self::Confirm => (FINISH, REPLY, true),
        }
    }
}

/// What a fault does to the relay itself.
#[derive(Debug, Default)]
pub struct Line {
    /// Nothing gets through any more, and nobody hears that it does not.
    dead: AtomicBool,
    over: AtomicBool,
    fired: AtomicBool,
    /// The message is not passed on, and both sides hear that the connection is gone.
    lost: AtomicBool,
}

impl Line {
    /// Cuts it.
    pub fn cut(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Loses the message of the moment with its connection.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Mends it: for new connections.
    pub fn mend(&self) {
        self.dead.store(false, Ordering::SeqCst);
    }

    /// Whether the moment has come.
    pub fn fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }
}

/// Runs `body` with a relay from `source` to the libvirt of `target`; `fault` is called once, at the moment.
pub fn with<T>(
    lab: &Lab,
    [source, target]: [&str; 2],
    moment: Moment,
    fault: impl FnOnce(&Line) -> Result<()> + Send,
    body: impl FnOnce(&Line) -> Result<T>,
) -> Result<T> {
    let socket = lab.path_in(source, "/run/between.sock")?;
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).context("failed to bind the relay")?;
    listener.set_nonblocking(true)?;
    let line = Line::default();
    let fault = Mutex::new(Some(fault));
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let fire = || {
        let taken = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fault) = taken {
            if let Err(error) = fault(&line) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            line.fired.store(true, Ordering::SeqCst);
        }
    };
    // The daemon's socket is asked for at each connection: the node may have lost its power in between.
    let daemon = || -> Result<PathBuf> { lab.path_in(target, "/run/libvirt/libvirt-sock") };
    let result = thread::scope(|scope| {
        let relay = Relay { line: &line, moment, fire: &fire };
        scope.spawn(move || {
            // Asked for again and again: a node that loses its power takes the socket's name along, so nobody could wake this.
            while !relay.line.over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => relay.join(scope, client, daemon),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let result = body(&line);
        line.over.store(true, Ordering::SeqCst);
        result
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        bail!("the fault itself failed: {error:#}");
    }
    result
}

struct Relay<'env, F> {
    line: &'env Line,
    moment: Moment,
    fire: &'env F,
}

impl<F> Clone for Relay<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Relay<'_, F> {}

impl<'env, F: Fn() + Sync> Relay<'env, F> {
    fn join<'scope>(self, scope: &'scope Scope<'scope, 'env>, client: UnixStream, daemon: impl Fn() -> Result<PathBuf>)
    where
        'env: 'scope,
    {
        if self.line.dead.load(Ordering::SeqCst) {
            // Kept open, so that nobody hears that nothing gets through.
            scope.spawn(move || self.sink(client));
            return;
        }
        let Ok(server) = daemon().and_then(|path| Ok(UnixStream::connect(path)?)) else { return };
        // What a listener gives that does not wait does not wait either, on some systems.
        let _ = client.set_nonblocking(false);
        let pair = [client.try_clone(), server.try_clone()];
        let [Ok(from), Ok(to)] = pair else { return };
        scope.spawn(move || self.pump(from, to));
        scope.spawn(move || self.pump(server, client));
    }

    /// Reads all of it, unless the relay is over.
    fn read(self, from: &mut UnixStream, mut buffer: &mut [u8]) -> io::Result<()> {
        from.set_read_timeout(Some(Duration::from_millis(100)))?;
        while !buffer.is_empty() {
            match from.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => buffer = &mut buffer[length..],
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.line.over.load(Ordering::SeqCst) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what comes and gives nothing, until the other end gives up.
    fn sink(self, mut client: UnixStream) {
        while self.read(&mut client, &mut [0]).is_ok() {}
    }

    /// Passes messages on, one at a time. Ends both sides with either, unless the line is dead.
    fn pump(self, mut from: UnixStream, mut to: UnixStream) {
        let mut pass = || -> io::Result<bool> {
            let mut length = [0; 4];
            self.read(&mut from, &mut length)?;
            let mut message = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
            self.read(&mut from, &mut message)?;
            let word = |at: usize| message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes);
            let (procedure, kind, first) = self.moment.message();
            let here = word(8) == procedure && word(12) == kind;
            if here && !first {
                (self.fire)();
            }
            if self.line.dead.load(Ordering::SeqCst) || here && self.line.lost.load(Ordering::SeqCst) {
                return Ok(false);
            }
            to.write_all(&length)?;
            to.write_all(&message)?;
            if here && first {
                (self.fire)();
            }
            Ok(!self.line.dead.load(Ordering::SeqCst))
        };
        while pass().is_ok_and(|goes_on| goes_on) {}
        if self.line.dead.load(Ordering::SeqCst) {
            // Nobody hears of it until the one who waits gives up.
            return self.sink(from);
        }
        for side in [&from, &to] {
            let _ = side.shutdown(Shutdown::Both);
        }
    }
}
