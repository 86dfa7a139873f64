//! A socket between the agent and libvirt, for what has to happen at the moment when an action asks.

use anyhow::{Context, Result};
use lab::Lab;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Its path in the node.
pub const SOCKET: &str = "/run/between.sock";

/// The question at which it strikes, the decisive one of an action, on a node where the guest lives or not; numbers are of
/// `remote_procedure` in libvirt's `src/remote/remote_protocol.x`.
fn decisive(action: &str, lives: bool) -> &'static [u32] {
    const LOOK_UP: u32 = 23;
    const STATE: u32 = 212;
    const CREATE: u32 = 10;
    const DESTROY: u32 = 12;
    const SHUT_DOWN: u32 = 258;
    const MOVE: u32 = 305;
    const CAPABILITIES: u32 = 342;
    match (action, lives) {
        ("validate-all", _) => &[CAPABILITIES],
        ("start", false) => &[CREATE],
        ("stop", true) => &[SHUT_DOWN, DESTROY],
        ("migrate_to", true) => &[MOVE],
        (_, true) => &[STATE],
        (_, false) => &[LOOK_UP],
    }
}

/// What happens to libvirtd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// It is killed.
    Kill,
    /// It is killed and comes back a second later.
    Restart,
}

/// The socket, as long as it is there.
pub struct Between {
    shared: Arc<Shared>,
    socket: PathBuf,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    lab: Lab,
    node: String,
    daemon: PathBuf,
    stroke: Stroke,
    /// The questions waited for; none when it is not armed.
    armed: Mutex<&'static [u32]>,
    /// Why the stroke did not come.
    missed: Mutex<Option<String>>,
    over: AtomicBool,
}

impl Shared {
    fn wait_for(&self, questions: &'static [u32]) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = questions;
    }

    /// Whether this is the question that was waited for; it is so once.
    fn is_moment(&self, question: u32) -> bool {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = armed.contains(&question);
        if moment {
            *armed = &[];
        }
        moment
    }
}

impl Between {
    pub fn new(lab: &Lab, node: &str, stroke: Stroke) -> Result<Self> {
        let socket = lab.path_in(node, SOCKET)?;
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).context("failed to bind the socket between")?;
        let shared = Arc::new(Shared {
            lab: lab.clone(),
            node: node.to_owned(),
            daemon: lab.path_in(node, "/run/libvirt/libvirt-sock")?,
            stroke,
            armed: Mutex::new(&[]),
            missed: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let listening = Arc::clone(&shared);
        let listening = Some(thread::spawn(move || listen(&listener, &listening)));
        Ok(Self { shared, socket, listening })
    }

    /// The next decisive question of this action is the moment.
    pub fn arm(&self, action: &str, lives: bool) {
        *self.shared.missed.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(format!("none of the questions {:?} was asked, so nothing happened to libvirtd", decisive(action, lives)));
        self.shared.wait_for(decisive(action, lives));
    }

    /// Why nothing happened to libvirtd while the action ran, if so: then its answer says nothing about that.
    pub fn missed(&self) -> Option<String> {
        self.shared.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The action is over: libvirt comes back, and nothing happens any more.
    pub fn heal(&self) -> Result<()> {
        self.shared.wait_for(&[]);
        let Shared { lab, node, .. } = &*self.shared;
        if lab.processes(node, "libvirtd")?.is_empty() {
            // The restart may be under way.
            let _ = lab.launch(node, "libvirtd");
        }
        lab.wait_libvirt(node)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn listen(listener: &UnixListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        // A daemon that is gone: the client sees its connection end.
        let Ok(server) = UnixStream::connect(&shared.daemon) else { continue };
        let (Ok(from), Ok(to)) = (server.try_clone(), client.try_clone()) else { return };
        let (back, forth) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || relay(from, to, &back, false));
        thread::spawn(move || relay(client, server, &forth, true));
    }
}

/// Passes messages on, one at a time; strikes behind one that was waited for.
fn relay(mut from: UnixStream, mut to: UnixStream, shared: &Arc<Shared>, asks: bool) {
    let mut pass = || -> io::Result<()> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length).saturating_sub(4) as usize];
        from.read_exact(&mut message)?;
        let number = message.get(8..12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        to.write_all(&length)?;
        to.write_all(&message)?;
        // The question is on its way when the daemon dies.
        if asks && number.is_some_and(|number| shared.is_moment(number)) {
            strike(shared);
        }
        Ok(())
    };
    while pass().is_ok() {}
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn strike(shared: &Arc<Shared>) {
    let killed = shared.lab.kill(&shared.node, "libvirtd");
    *shared.missed.lock().unwrap_or_else(PoisonError::into_inner) = killed.err().map(|error| format!("libvirtd was not killed: {error:#}"));
    if shared.stroke == Stroke::Restart {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            let _ = shared.lab.launch(&shared.node, "libvirtd");
        });
    }
}
