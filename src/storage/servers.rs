//! The servers of disks that the emulator reaches over the network: whether one answers, and whether another node reaches the same by the
//! words of the definition.

use super::finding::Same;
use crate::deadline::{Deadline, Task, Unanswered};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long one server may take to take a connection.
const CONNECTING: Duration = Duration::from_secs(2);

/// The ports that QEMU's drivers take where the definition has none.
const PORTS: &[(&str, u16)] =
    &[("iscsi", 3260), ("gluster", 24007), ("rbd", 6789), ("nfs", 2049), ("ssh", 22), ("http", 80), ("https", 443)];

/// How long the resolver may take.
const RESOLVING: Duration = Duration::from_secs(2);

/// Compares what `hosts` (`NAME`, `NAME:PORT` or a socket's path) mean here and on the node called `node`, whose table of hosts may be known.
#[must_use]
pub fn compare(hosts: &[String], table: Option<&str>, node: &str, deadline: &Deadline) -> Same {
    if hosts.is_empty() {
        return Same::Unknown("names no server, each node takes its own".to_owned());
    }
    let mut unknown = None;
    for host in hosts {
        match server(host, table, node, deadline) {
            Same::Proven(_) => {}
            Same::Different(text) => return Same::Different(text),
            Same::Alike(text) | Same::Unknown(text) => unknown = Some(text),
        }
    }
    unknown.map_or_else(|| Same::Proven(format!("is at the same address for {node}")), Same::Unknown)
}

/// Whether one of `hosts` takes a connection; `None` if that cannot be told: there is none that could be tried, or a name is not resolved, or this
/// host had no thread to try it. NBD servers are not tried: `qemu-nbd` ends when its last client leaves, which would be this one.
///
/// # Errors
/// A sentence about one, where none does.
#[must_use]
pub fn answers(protocol: &str, hosts: &[String], deadline: &Deadline) -> Option<Result<(), String>> {
    answers_by(resolve, protocol, hosts, deadline)
}

/// The same by this resolver.
fn answers_by(
    resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    protocol: &str,
    hosts: &[String],
    deadline: &Deadline,
) -> Option<Result<(), String>> {
    let usual = PORTS.iter().find(|(known, _)| *known == protocol).map(|(_, port)| *port);
    let hosts = if protocol == "nbd" { &[] } else { hosts };
    let (mut last, mut is_told) = (None, true);
    for host in hosts {
        let port = port(host).or(usual);
        if port.is_none() && !host.starts_with('/') {
            continue;
        }
        match try_one(resolve, host, port.unwrap_or_default(), deadline) {
            Some(Ok(())) => return Some(Ok(())),
            Some(Err(text)) => last = Some(Err(format!("{host}{text}"))),
            None => is_told = false,
        }
    }
    last.filter(|_| is_told)
}

/// Whether this one takes a connection, or what follows its name in a sentence; `None`: nobody has asked it.
fn try_one(
    resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    host: &str,
    port: u16,
    deadline: &Deadline,
) -> Option<Result<(), String>> {
    let (place, name) = (host.to_owned(), name(host).to_owned());
    if host.starts_with('/') {
        let limit = deadline.within(CONNECTING);
        return told(Task::start(move || UnixStream::connect(place).map(drop)).answer(&limit));
    }
    // Apart from the server: a name server that is slow says nothing about it.
    let addresses = Task::start(move || resolve(&name, port)).wait(&deadline.within(RESOLVING))?.ok()?;
    let limit = deadline.within(CONNECTING);
    told(Task::start(move || connect(&addresses, limit.left())).answer(&limit))
}

/// What a try says of a server. Who could not be sent has not asked it.
fn told(answer: Result<io::Result<()>, Unanswered>) -> Option<Result<(), String>> {
    match answer {
        Ok(answer) => Some(answer.map_err(|error| format!(": {error}"))),
        Err(Unanswered::Late) => Some(Err(" does not answer".to_owned())),
        Err(Unanswered::Never) => None,
    }
}

/// The port in `HOST:PORT` and `[HOST]:PORT`.
pub(super) fn port(host: &str) -> Option<u16> {
    let rest = host.strip_prefix('[').map_or(host, |rest| rest.rsplit(']').next().unwrap_or_default());
    let (before, port) = rest.rsplit_once(':')?;
    if before.contains(':') { None } else { port.parse().ok() }
}

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (name, port).to_socket_addrs().map(Iterator::collect)
}

fn connect(addresses: &[SocketAddr], patience: Duration) -> io::Result<()> {
    let mut last = io::Error::other("has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, patience) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn server(host: &str, table: Option<&str>, node: &str, deadline: &Deadline) -> Same {
    if host.starts_with('/') {
        return Same::Different(format!("is another one on {node}: {host} is a socket of each node's own"));
    }
    let name = name(host);
    let own = || Same::Different(format!("is another one on {node}: {name} is each node itself"));
    if let Ok(address) = name.parse::<IpAddr>() {
        return if address.is_loopback() || address.is_unspecified() { own() } else { Same::Proven(String::new()) };
    }
    let (wanted, task_name) = (table.map(|table| addresses(table, name)).unwrap_or_default(), (name.to_owned(), 0));
    let here: Vec<IpAddr> =
        Task::start(move || task_name.to_socket_addrs().map(|all| all.map(|one| one.ip()).collect()).unwrap_or_default())
            .wait(&deadline.within(RESOLVING))
            .unwrap_or_default();
    if here.iter().chain(&wanted).any(IpAddr::is_loopback) {
        return own();
    }
    by_addresses(name, node, &here, &wanted)
}

/// By all addresses that the name has here and on the node. Which of them QEMU takes is not known: it tries one after the other.
fn by_addresses(name: &str, node: &str, here: &[IpAddr], there: &[IpAddr]) -> Same {
    let (Some(one), Some(other)) = (here.first(), there.first()) else {
        return Same::Unknown(format!("is at {name}, and each node finds the address by itself"));
    };
    let lacking: Vec<&IpAddr> = here.iter().filter(|address| !there.contains(address)).collect();
    match lacking.first() {
        None => Same::Proven(String::new()),
        Some(_) if lacking.len() == here.len() => Same::Different(format!("is another one on {node}: {name} is {other} there, {one} here")),
        Some(address) => Same::Unknown(format!("is at {name}, which is {address} too here, and not on {node}")),
    }
}

/// The name or address without the port.
pub(super) fn name(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

/// What a table of hosts says of a name, see hosts(5).
pub(super) fn addresses(table: &str, name: &str) -> Vec<IpAddr> {
    let lines = table.lines().map(|line| line.split('#').next().unwrap_or_default());
    let about = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    about.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &str, table: Option<&str>) -> Same {
        compare(&[host.to_owned()], table, "node2", &Deadline::after(Duration::from_secs(60)))
    }

    #[test]
    fn what_the_words_of_a_definition_mean_on_two_nodes() {
        for host in ["10.0.0.1", "10.0.0.1:3260", "[fd00::1]:3260", "fd00::1"] {
            assert!(matches!(said(host, None), Same::Proven(_)), "{host}");
        }
        for host in ["127.0.0.1:10809", "[::1]:3260", "/run/nbd.sock", "localhost:10809", "0.0.0.0"] {
            assert!(matches!(said(host, None), Same::Different(_)), "{host}");
        }
        assert!(matches!(said("name.invalid:3260", Some("10.0.0.1 other")), Same::Unknown(_)));
        assert!(matches!(compare(&[], None, "node2", &Deadline::after(Duration::from_secs(1))), Same::Unknown(_)));
        let all = ["10.0.0.1".to_owned(), "name.invalid".to_owned()];
        assert!(matches!(compare(&all, None, "node2", &Deadline::after(Duration::from_secs(60))), Same::Unknown(_)));
    }

    #[test]
    fn one_address_of_several_does_not_make_another_server() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let said = |here: &[&str], there: &[&str]| by_addresses("store", "node2", &all(here), &all(there));
        let (six, four, other) = ("fd00::9", "10.1.0.9", "10.1.0.8");
        for (here, there) in [(vec![four], vec![four]), (vec![six, four], vec![four, six]), (vec![four], vec![six, four])] {
            assert!(matches!(said(&here, &there), Same::Proven(_)), "{here:?} {there:?}");
        }
        let partly = Same::Unknown("is at store, which is fd00::9 too here, and not on node2".into());
        assert_eq!(said(&[six, four], &[four]), partly, "both families here, and one there");
        assert_eq!(said(&[four, six], &[other, four]), partly);
        for (here, there) in [(vec![six, four], vec![other]), (vec![four], vec![other, six])] {
            assert!(matches!(said(&here, &there), Same::Different(_)), "{here:?} {there:?}");
        }
        for (here, there) in [(vec![], vec![four]), (vec![four], vec![]), (vec![], vec![])] {
            assert!(matches!(said(&here, &there), Same::Unknown(_)), "{here:?} {there:?}");
        }
    }

    #[test]
    fn a_table_of_hosts() {
        let table = "127.0.0.1 localhost\n10.1.0.9\tstore-s store # the old: nas\nfd00::9 Store\n";
        let expected: Vec<IpAddr> = vec!["10.1.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        assert_eq!(addresses(table, "store"), expected);
        assert_eq!(addresses(table, "nas"), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_server_answers_if_it_takes_a_connection() {
        let soon = Deadline::after(Duration::from_secs(20));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        assert_eq!(answers("iscsi", &["/no/such/socket".into(), open.clone()], &soon), Some(Ok(())));
        assert_eq!(answers("nbd", std::slice::from_ref(&open), &soon), None);
        drop(listener);
        let refused = answers("iscsi", std::slice::from_ref(&open), &soon).unwrap().unwrap_err();
        assert!(refused.starts_with(&open), "{refused}");
        assert_eq!(answers("rbd", &[], &soon), None, "the cluster's own file names them");
        assert_eq!(answers("vxhs", &["10.0.0.1".into()], &soon), None, "its port is not known");
    }

    /// Neither what this host lacks nor the name server is the server's silence.
    #[test]
    fn who_was_not_asked_has_not_kept_silent() {
        let (soon, late) = (Deadline::after(Duration::from_secs(20)), Deadline::after(Duration::from_millis(50)));
        let hosts = ["store".to_owned()];
        assert_eq!(answers("iscsi", &["name.invalid".to_owned()], &soon), None);
        assert_eq!(answers_by(|_, _| panic!("on purpose"), "iscsi", &hosts, &soon), None);
        let slow = |_: &str, _| {
            let _ = Deadline::after(Duration::from_secs(60)).pause(Duration::from_secs(60));
            Ok(Vec::new())
        };
        assert_eq!(answers_by(slow, "iscsi", &hosts, &late), None);
        assert_eq!(told(Err(Unanswered::Never)), None);
        assert_eq!(told(Err(Unanswered::Late)), Some(Err(" does not answer".to_owned())));
        // One of two that could not be asked may be the one that answers.
        let one = |name: &str, _| match name {
            "lost" => Err(io::Error::other("no name server")),
            _ => std::net::TcpListener::bind("127.0.0.1:0")?.local_addr().map(|address| vec![address]),
        };
        assert!(matches!(answers_by(one, "iscsi", &hosts, &soon), Some(Err(_))), "refused");
        for hosts in [["lost", "store"], ["store", "lost"]] {
            assert_eq!(answers_by(one, "iscsi", &hosts.map(str::to_owned), &soon), None, "{hosts:?}");
        }
    }

    #[test]
    fn ports() {
        assert_eq!(port("10.0.0.1:3260"), Some(3260));
        assert_eq!(port("[fd00::1]:3260"), Some(3260));
        for without in ["10.0.0.1", "fd00::1", "[fd00::1]", "name"] {
            assert_eq!(port(without), None, "{without}");
        }
    }
}
