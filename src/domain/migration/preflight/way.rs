//! The way that the memory takes: whether this host can reach the place at the target at all. Nothing listens there before the move, so a
//! target that answers "nobody here" is reached; one that says nothing, or that there is no way, is behind a firewall or not routed to.
//!
//! An emulator that waits for another guest's memory takes whoever connects first for its source, and that guest's move fails
//! (`migration_ioc_process_incoming` in QEMU's `migration/migration.c`). So nobody connects while one is awaited there.

use super::Check;
use super::target::{Target, unanswered};
use crate::deadline::{Deadline, Task};
use crate::domain::{Condition, Uri, ffi};
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;
use virt::connect::Connect;
use virt::sys;

const NAME: &str = "ports";

/// libvirt's last port for memory (`migration_port_max` in `qemu.conf`): it takes the first that is free, so that this one is the last on which
/// anybody listens.
const LAST_PORT: u16 = 49215;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(2500);

/// After what silence the question is put once more. The kernel sends a SYN again after one and three seconds (RFC 6298), which is too seldom for a
/// network that loses many.
const AGAIN: Duration = Duration::from_millis(250);

/// How long one connection is tried: not long enough for the kernel to send a second SYN, which could come when the port is in use.
const ONE: Duration = Duration::from_millis(900);

/// What is kept of it for looking at the other addresses of a name, of which the first kept silent.
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
    let (name, tried) = (format!("{host}:{}", port.unwrap_or(LAST_PORT)), port.unwrap_or(LAST_PORT));
    match target.there.call("asking who is awaited", deadline, is_any_awaited) {
        Ok(false) => {}
        Ok(true) => return vec![Check::ok(NAME, format!("{name} was not tried: another guest is on its way there"))],
        Err(error) => return vec![unanswered(NAME, &error)],
    }
    let limit = deadline.within(PATIENCE);
    // The resolver has no time limit of the caller's.
    let answer = Task::start(move || reach(&host, tried, &limit.before(LAST)));
    let text = match answer.wait(&limit) {
        Some(Ok(())) => return vec![Check::ok(NAME, format!("{name} is reached"))],
        Some(Err(error)) if error.kind() == ErrorKind::TimedOut => "no answer".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "no answer".to_owned(),
    };
    // A port or an address that libvirt chooses may be another one.
    let text = format!("{name}, where the memory is to go, is not reached: {text}");
    vec![if port.is_some() { Check::refuse(NAME, text, ADVICE) } else { Check::warning(NAME, text, ADVICE) }]
}

/// Whether an emulator waits for the memory of a guest there. What cannot be told of one is not told of it.
fn is_any_awaited(connect: &Connect) -> Result<bool, virt::error::Error> {
    let awaited = |condition| matches!(condition, Condition::PAUSED_MIGRATION | Condition::PAUSED_STARTING_UP);
    let paused = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_PAUSED)?;
    Ok(paused.iter().any(|domain| ffi::state(domain).is_ok_and(awaited)))
}

/// Whether one of the addresses answers, as QEMU tries them all: each in a task of its own, since one may keep silent. Those that do are asked
/// over and over, as a lost SYN is no firewall.
fn reach(host: &str, port: u16, limit: &Deadline) -> Result<(), Error> {
    let connect = |address: SocketAddr| {
        Task::start(move || match TcpStream::connect_timeout(&address, ONE) {
            Err(error) if error.kind() == ErrorKind::TimedOut => None,
            // Somebody has said that nobody listens.
            Err(error) if error.kind() != ErrorKind::ConnectionRefused => Some(Err(error)),
            _ => Some(Ok(())),
        })
    };
    let mut silent: Vec<_> = (host, port).to_socket_addrs()?.map(|address| (address, Vec::new())).collect();
    let mut last = Error::other("the name has no address");
    while !silent.is_empty() {
        let round = limit.within(AGAIN);
        for (address, tasks) in &mut silent {
            tasks.push(connect(*address));
        }
        let mut still = Vec::new();
        for (address, tasks) in silent {
            match tasks.iter().find_map(|task| task.wait(&round).flatten()) {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => last = error,
                None => still.push((address, tasks)),
            }
        }
        silent = still;
        // A task that could not be made is not waited for above.
        if !silent.is_empty() && !round.pause(AGAIN) && limit.expired() {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Err(last)
}

/// The host and the port that the memory goes to, as far as they are known, if it goes by TCP.
pub(super) fn place(target: &Target, deadline: &Deadline) -> Option<(String, Option<u16>)> {
    match &target.plan.migrate_uri {
        Some(uri) => place_of(uri),
        // Then libvirt there says its own name, or `migration_host` of its qemu.conf, of which nothing is known here.
        None => Some((target.there.call("asking the name", deadline, Connect::hostname).ok()?, None)),
    }
}

/// Host and port of a migration URI, if memory goes by TCP: `tcp://HOST[:PORT]`, and `tcp:HOST` as of old.
pub(super) fn place_of(uri: &str) -> Option<(String, Option<u16>)> {
    let rest = uri.strip_prefix("tcp:")?;
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
    use super::*;

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
            assert_eq!(place_of(uri), expected.map(|(host, port): (&str, Option<u16>)| (host.to_owned(), port)), "{uri}");
        }
    }
}
