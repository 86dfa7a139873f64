//! The way that the memory takes: whether this host can reach the place at the target at all. Nothing listens there before the move, so a
//! target that answers "nobody here" is reached; one that says nothing, or that there is no way, is behind a firewall or not routed to.
//!
//! An emulator that waits for another guest's memory takes whoever connects first for its source, and that guest's move fails
//! (`migration_ioc_process_incoming` in QEMU's `migration/migration.c`). So nobody connects while one is awaited there.

use super::Check;
use super::target::{Target, unanswered};
use crate::deadline::{Deadline, Task};
use crate::domain::{Condition, Uri, ffi};
use std::io::{self, Error, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;
use virt::connect::Connect;
use virt::sys;

const NAME: &str = "ports";

/// libvirt's last port for memory (`migration_port_max` in `qemu.conf`): it takes the first that is free, so that this one is the last on which
/// anybody listens.
const LAST_PORT: u16 = 49215;

/// How long an answer may take, once it is known whom to ask.
const PATIENCE: Duration = Duration::from_millis(2500);

/// After what silence the question is put once more. The kernel sends a SYN again after one and three seconds (RFC 6298), which is too seldom for a
/// network that loses many.
const AGAIN: Duration = Duration::from_millis(250);

/// How long one connection is tried: not long enough for the kernel to send a second SYN, which could come when the port is in use.
const ONE: Duration = Duration::from_millis(900);

/// What is kept of the time for saying what was found.
const LAST: Duration = Duration::from_millis(300);

const ADVICE: &str = "open the ports of qemu.conf for this host there (libvirt's are 49152 to 49215), or see migration_network";

/// The question of the preflight.
pub(super) fn question(target: &Target, deadline: &Deadline) -> Vec<Check> {
    let here = Uri::parse(target.here.uri()).is_ok_and(|uri| uri.is_own_socket());
    // Tunnelled memory goes by the connection that stands. From another host than the guest's nothing can be said.
    if !here || target.plan.options.flags & sys::VIR_MIGRATE_TUNNELLED != 0 {
        return Vec::new();
    }
    let Some((host, port)) = place(target, deadline) else { return Vec::new() };
    let is_awaited = || target.there.call("asking who is awaited", deadline, is_any_awaited);
    vec![look(&host, port, resolve, is_awaited, deadline)]
}

/// The name is resolved first: that may take long, and whoever began to wait for a guest in the meantime must be known of.
fn look(
    host: &str,
    port: Option<u16>,
    resolve: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    is_awaited: impl FnOnce() -> crate::domain::Result<bool>,
    deadline: &Deadline,
) -> Check {
    let tried = port.unwrap_or(LAST_PORT);
    let (name, limit, place) = (format!("{host}:{tried}"), deadline.before(LAST), host.to_owned());
    // The resolver has no time limit of the caller's, and asks a second name server after 5 seconds.
    let unresolved = |text: &str| Err(Obstacle::Untold(Error::other(format!("the name is not resolved{text}"))));
    let addresses = match limit.run(move || resolve(&place, tried)) {
        Some(Ok(addresses)) => addresses,
        Some(Err(error)) => return verdict(&name, port.is_some(), unresolved(&format!(": {error}"))),
        None => return verdict(&name, port.is_some(), unresolved(" in time")),
    };
    match is_awaited() {
        Ok(false) => verdict(&name, port.is_some(), reach(addresses, connect, &limit)),
        Ok(true) => Check::ok(NAME, format!("{name} was not tried: another guest is on its way there")),
        Err(error) => unanswered(NAME, &error),
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

/// Why a place is not reached.
#[derive(Debug)]
enum Obstacle {
    /// Its addresses were tried to the end, or somebody has said that there is no way.
    Closed(Error),
    /// It was not tried as it would have to be.
    Untold(Error),
}

/// What follows of a try. `is_sure`: a port or an address that libvirt chooses may be another one.
fn verdict(name: &str, is_sure: bool, answer: Result<(), Obstacle>) -> Check {
    let closed = |text: &str| {
        let text = format!("{name}, where the memory is to go, is not reached: {text}");
        if is_sure { Check::refuse(NAME, text, ADVICE) } else { Check::warning(NAME, text, ADVICE) }
    };
    let untold =
        |text: &str| Check::warning(NAME, format!("whether {name}, where the memory is to go, is reached cannot be told: {text}"), "");
    match answer {
        Ok(()) => Check::ok(NAME, format!("{name} is reached")),
        Err(Obstacle::Closed(error)) if error.kind() == ErrorKind::TimedOut => closed("no answer"),
        Err(Obstacle::Closed(error)) => closed(&error.to_string()),
        Err(Obstacle::Untold(error)) => untold(&error.to_string()),
    }
}

/// Whether an emulator waits for the memory of a guest there. One whose state cannot be read is not counted.
fn is_any_awaited(connect: &Connect) -> Result<bool, virt::error::Error> {
    let awaited = |condition| matches!(condition, Condition::PAUSED_MIGRATION | Condition::PAUSED_STARTING_UP);
    let paused = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_PAUSED)?;
    Ok(paused.iter().any(|domain| ffi::state(domain).is_ok_and(awaited)))
}

/// Whether one of the addresses answers, as QEMU tries them all.
fn reach(addresses: Vec<SocketAddr>, connect: fn(SocketAddr) -> Task<Tried>, deadline: &Deadline) -> Result<(), Obstacle> {
    let (limit, is_whole) = (deadline.within(PATIENCE), deadline.left() >= PATIENCE);
    match reach_one(addresses, connect, &limit) {
        Err(Obstacle::Closed(error)) if error.kind() == ErrorKind::TimedOut && !is_whole => Err(no_time()),
        reached => reached,
    }
}

/// There was not enough time to say anything.
fn no_time() -> Obstacle {
    Obstacle::Untold(Error::other("there was no time to try it"))
}

/// An address that keeps silent.
struct Silent {
    address: SocketAddr,
    tasks: Vec<Task<Tried>>,
    /// Whether it has let one try pass to its end.
    tried: bool,
}

/// What became of one try: nothing was heard, or somebody has answered.
type Tried = Option<Result<(), Error>>;

/// Each is asked in a task of its own, since one may keep silent. Those that do are asked over and over, as a lost SYN is no firewall.
fn reach_one(addresses: Vec<SocketAddr>, connect: fn(SocketAddr) -> Task<Tried>, limit: &Deadline) -> Result<(), Obstacle> {
    let mut silent: Vec<Silent> = addresses.into_iter().map(|address| Silent { address, tasks: Vec::new(), tried: false }).collect();
    let mut obstacle = None;
    while !silent.is_empty() {
        let round = limit.within(AGAIN);
        for one in &mut silent {
            one.tasks.push(connect(one.address));
        }
        let mut still = Vec::new();
        for mut one in silent {
            let answers: Vec<Tried> = one.tasks.iter().filter_map(|task| task.wait(&round)).collect();
            one.tried |= answers.iter().any(Option::is_none);
            match answers.into_iter().flatten().next() {
                Some(Ok(())) => return Ok(()),
                // QEMU may get through by an address of which nothing is known.
                Some(Err(error)) if is_no_way(&error) => obstacle = obstacle.or(Some(Obstacle::Closed(error))),
                Some(Err(error)) => obstacle = Some(Obstacle::Untold(error)),
                None => still.push(one),
            }
        }
        silent = still;
        // A task that could not be made is not waited for above.
        if !silent.is_empty() && !round.pause(AGAIN) && limit.expired() {
            return Err(match obstacle {
                Some(untold @ Obstacle::Untold(_)) => untold,
                _ if silent.iter().all(|one| one.tried) => Obstacle::Closed(ErrorKind::TimedOut.into()),
                _ => no_time(),
            });
        }
    }
    Err(obstacle.unwrap_or_else(|| Obstacle::Untold(Error::other("the name has no address"))))
}

fn connect(address: SocketAddr) -> Task<Tried> {
    Task::start(move || match TcpStream::connect_timeout(&address, ONE) {
        Err(error) if error.kind() == ErrorKind::TimedOut => None,
        // Somebody has said that nobody listens.
        Err(error) if error.kind() != ErrorKind::ConnectionRefused => Some(Err(error)),
        _ => Some(Ok(())),
    })
}

/// Whether somebody has said that there is no way, or may not be: this host's routes and firewall, a router, or the firewall there. All others may
/// be this host's trouble of the moment.
fn is_no_way(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied)
}

/// The host and the port that the memory goes to, as far as they are known, if it goes by TCP.
pub(super) fn place(target: &Target, deadline: &Deadline) -> Option<(String, Option<u16>)> {
    match &target.plan.migrate_uri {
        Some(uri) => place_of(uri),
        // Then libvirt there says its own name, or `migration_host` of its qemu.conf, of which nothing is known here.
        None => Some((target.there.call("asking the name", deadline, Connect::hostname).ok()?, None)),
    }
}

/// Whether a migration URI names a port, which one guest's memory has to itself.
#[must_use]
pub fn names_port(uri: &str) -> bool {
    let place = uri.split_once(':').and_then(|(_, rest)| host_and_port(rest));
    place.is_some_and(|(_, port)| port.is_some())
}

/// Host and port of a migration URI, if memory goes by TCP: `tcp://HOST[:PORT]`, and `tcp:HOST` as of old.
pub(super) fn place_of(uri: &str) -> Option<(String, Option<u16>)> {
    uri.strip_prefix("tcp:").and_then(host_and_port)
}

/// Like [`place_of`], of what comes after the scheme.
fn host_and_port(rest: &str) -> Option<(String, Option<u16>)> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let rest = rest.split(['/', '?']).next()?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (rest, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn only_what_was_tried_is_refused() {
        let closed = |kind: ErrorKind| Err(Obstacle::Closed(kind.into()));
        let untold = || Err(Obstacle::Untold(Error::other("failed to lookup address information: Temporary failure in name resolution")));
        let says = |is_sure, answer| verdict("node2:49160", is_sure, answer).verdict;
        assert_eq!(says(true, Ok(())), Verdict::Ok);
        for kind in [ErrorKind::TimedOut, ErrorKind::HostUnreachable] {
            assert_eq!(says(true, closed(kind)), Verdict::Refuse, "{kind}");
            assert_eq!(says(false, closed(kind)), Verdict::Warning, "{kind}");
        }
        assert_eq!(says(true, untold()), Verdict::Warning);
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    /// It answers when nobody waits for that any more.
    fn silent<T: Send + 'static>(answer: T) -> T {
        let _ = soon().pause(Duration::from_secs(60));
        answer
    }

    #[test]
    fn a_name_without_an_answer_and_a_try_without_time_say_nothing() {
        let late = || Deadline::after(Duration::from_millis(50));
        let said = |resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>, deadline: Deadline| {
            let check = look("node2", Some(1), resolve, || Ok(false), &deadline);
            assert_eq!(check.verdict, Verdict::Warning, "{}", check.text);
            check.text
        };
        assert!(said(|_, _| resolve("name.invalid", 1), soon()).contains("the name is not resolved: "));
        assert!(said(|_, _| silent(Ok(Vec::new())), Deadline::after(LAST + LAST)).ends_with("the name is not resolved in time"));
        assert!(said(|_, _| Ok(Vec::new()), soon()).ends_with("the name has no address"));
        let nobody = || vec!["192.0.2.1:1".parse().unwrap()];
        assert!(matches!(reach(nobody(), |_| Task::start(|| silent(None)), &late()), Err(Obstacle::Untold(_))));
        assert!(matches!(reach(nobody(), |_| Task::start(|| None), &late()), Err(Obstacle::Untold(_))), "one SYN was not enough");
    }

    /// It is another guest's memory that is awaited there by the time the name is resolved.
    #[test]
    fn who_begins_to_wait_while_the_name_is_resolved_is_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, awaited) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let begins = Arc::clone(&awaited);
        let slow = move |_: &str, _| {
            begins.store(true, Ordering::SeqCst);
            Ok(vec![address])
        };
        let check = look("node2", Some(address.port()), slow, || Ok(awaited.load(Ordering::SeqCst)), &soon());
        assert!(check.text.contains("was not tried"), "{}", check.text);
        assert_eq!(listener.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        assert_eq!(look("node2", Some(address.port()), move |_, _| Ok(vec![address]), || Ok(false), &soon()).verdict, Verdict::Ok);
    }

    #[test]
    fn who_says_that_nobody_listens_is_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(reach_one(vec![address], connect, &soon()).is_ok());
    }

    #[test]
    fn where_the_memory_goes() {
        let cases = [
            ("tcp://node2", Some(("node2", None))),
            ("tcp://node2:49160", Some(("node2", Some(49160)))),
            ("tcp:node2:49160", Some(("node2", Some(49160)))),
            ("tcp://[fd00::2]:1/", Some(("fd00::2", Some(1)))),
            ("tcp://[fd00::2]", Some(("fd00::2", None))),
            ("rdma://node2:1", None),
            ("unix:///run/a.sock", None),
            ("tcp://node2:http", None),
            ("tcp://", None),
        ];
        for (uri, expected) in cases {
            let port = expected.is_some_and(|(_, port): (&str, Option<u16>)| port.is_some());
            assert_eq!(names_port(uri), port || uri == "rdma://node2:1", "{uri}");
            assert_eq!(place_of(uri), expected.map(|(host, port): (&str, Option<u16>)| (host.to_owned(), port)), "{uri}");
        }
    }
}
