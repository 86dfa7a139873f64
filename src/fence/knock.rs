//! Whether a host that gave libvirt no answer answers at all: with nothing but a connection to the port that libvirt's goes to.

use crate::deadline::{Deadline, Task};
use crate::domain::Uri;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// What a host gets for that. Its kernel answers alone; the first packet may be lost, and the next one comes after 1 s.
const KNOCK: Duration = Duration::from_secs(2);

/// Whether something at the host of `uri` takes a connection, or refuses one: a daemon that hangs takes them without a word, as systemd does for
/// one that is not started yet. `false`: nothing is heard, or nobody knows the port.
pub(super) fn is_heard(uri: &Uri, deadline: &Deadline) -> bool {
    let Some(port) = port(uri) else { return false };
    let (host, limit) = (uri.host().to_owned(), deadline.within(KNOCK));
    let addresses = limit.run(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    addresses.is_some_and(|addresses| any_answers(addresses.unwrap_or_default(), limit))
}

/// Whether one of these does. All are tried at once: each may need all of the time, and one that is dead must not use up what the others
/// need.
fn any_answers(addresses: Vec<SocketAddr>, limit: Deadline) -> bool {
    let answers = move |address| match TcpStream::connect_timeout(&address, limit.left().max(Duration::from_millis(1))) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
    };
    let knocks: Vec<_> = addresses.into_iter().map(|address| Task::start(move || answers(address))).collect();
    knocks.iter().any(|knock| knock.wait(&limit) == Some(true))
}

/// The port that its connections go to (libvirt `docs/remote.rst`); a transport of the user's own has none.
fn port(uri: &Uri) -> Option<u16> {
    let usual = match uri.transport() {
        None | Some("tls") => 16514,
        Some("tcp") => 16509,
        Some("ssh" | "libssh" | "libssh2") => 22,
        _ => return None,
    };
    (!uri.host().is_empty()).then(|| uri.port().unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::super::host::Host;
    use super::super::limits::Limits;
    use super::super::options::Options;
    use super::super::sight::Target;
    use super::super::verdict::Answer;
    use super::*;
    use std::net::TcpListener;

    /// A host with a good record of its being off, unless it was seen up.
    fn host(uri: &str, notes: &std::path::Path) -> Host {
        let time = Duration::from_millis(300);
        let mut options = Options { fenced_within: Duration::from_secs(600), ..Options::default() };
        options.fenced_hosts.insert(Uri::parse(uri).unwrap().host().to_owned(), "node-a".into());
        let mut host = Host::new(uri, Limits { login: time, shell: time, power: time, record: None }, &options).unwrap();
        host.notes = notes.to_owned();
        host.record = |_, since, _| match since.seen {
            Some(_) => Err("node-a was seen up after it was fenced".into()),
            None => Ok(1),
        };
        host
    }

    fn target() -> Target {
        Target { word: "web1".into(), name: Some("web1".into()), uuid: None }
    }

    #[test]
    fn ports_of_libvirt() {
        for (uri, wanted) in [
            ("qemu://a/system", Some(16514)),
            ("qemu+tls://a/system", Some(16514)),
            ("qemu+tcp://a/system", Some(16509)),
            ("qemu+tcp://a:7/system", Some(7)),
            ("qemu+ssh://a/system", Some(22)),
            ("qemu+libssh://[fd00::2]/system", Some(22)),
            ("qemu+ext://a/system?command=/x", None),
            ("qemu:///system", None),
        ] {
            assert_eq!(port(&Uri::parse(uri).unwrap()), wanted, "{uri}");
        }
    }

    #[test]
    fn a_port_that_is_taken_or_refused_is_heard() {
        let heard = |port| {
            is_heard(&Uri::parse(&format!("qemu+tcp://127.0.0.1:{port}/system")).unwrap(), &Deadline::after(Duration::from_secs(60)))
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(heard(port), "nobody accepts, the kernel answers");
        drop(listener);
        assert!(heard(port), "refused");
    }

    #[test]
    fn an_address_that_is_dead_leaves_time_for_the_next() {
        // Its queue is full: the kernel drops what comes, as the network does for a host that is gone.
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::listen(&dead, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let (silent, good) = (dead.local_addr().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut queue = Vec::new();
        while let Ok(one) = TcpStream::connect_timeout(&silent, Duration::from_millis(200)) {
            queue.push(one);
        }
        assert!(!any_answers(vec![silent], Deadline::after(Duration::from_millis(300))));
        assert!(any_answers(vec![silent, good.local_addr().unwrap()], Deadline::after(Duration::from_secs(2))));
        assert!(!any_answers(Vec::new(), Deadline::after(Duration::from_secs(2))));
    }

    /// Fails if the record is taken without a look at the port.
    #[test]
    fn a_host_that_takes_a_connection_and_says_nothing_is_not_off() {
        let (folder, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let host = host(&format!("qemu+tcp://127.0.0.1:{}/system", listener.local_addr().unwrap().port()), folder.path());
        for word in ["its port", "seen up"] {
            let answer = host.look(&target(), &Deadline::after(Duration::from_secs(5)));
            assert!(matches!(&answer, Answer::Unknown(text) if text.contains(word)), "{word}: {answer:?}");
        }
    }

    /// Fails if a connection that libvirt took is not taken for a sign of life.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn a_host_that_has_just_taken_a_connection_is_not_off() {
        use crate::domain::ffi::simulated;
        use crate::simulation::hosts::{Happens, World};
        const URI: &str = "qemu+tcp://127.0.0.1/system";
        simulated::install();
        let folder = crate::simulation::folder();
        let create = || {
            let _ = std::fs::remove_dir_all(folder.path());
            let mut world = World::new(&[URI], true);
            world.may = |_, happens| happens == Happens::Freezes(0);
            world
        };
        let act = || match host(URI, folder.path()).look(&target(), &Deadline::after(Duration::from_secs(60))) {
            Answer::Unknown(text) if text.contains("seen up") => "unknown".into(),
            other => format!("{other:?}"),
        };
        let answers = crate::simulation::explore(1, create, act, |_, _| Ok(()));
        let mut answers = answers.keys();
        assert!(answers.next().is_some_and(|answer| answer.starts_with("Defined")));
        assert_eq!(answers.collect::<Vec<_>>(), ["unknown"]);
    }
}
