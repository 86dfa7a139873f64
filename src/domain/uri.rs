//! libvirt connection URIs: `driver[+transport]://[user@][host][:port]/path[?query]` (libvirt `docs/uri.rst`), and the two
//! that a migration needs, made from the local one.

use crate::percent;
use std::fmt;
use std::net::IpAddr;

/// A libvirt URI, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    driver: String,
    transport: Option<String>,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
}

impl Default for Uri {
    /// The libvirt of this host that runs the guests of all users: `qemu:///system`.
    fn default() -> Self {
        Self {
            driver: "qemu".to_owned(),
            transport: None,
            user: None,
            host: String::new(),
            port: None,
            path: "system".to_owned(),
            query: None,
        }
    }
}

impl Uri {
    /// Reads a URI of the QEMU driver, the one that runs KVM guests.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no libvirt URI such as qemu:///system");
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (scheme, None),
        };
        if driver != "qemu" {
            return Err(format!("{text:?}: driver {driver:?} is not supported, only qemu is"));
        }
        if transport.is_some_and(|transport| !is_transport(transport)) {
            return Err(wrong());
        }
        let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let (user, server) = match authority.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, authority),
        };
        let (host, port) = split_port(server).ok_or_else(wrong)?;
        Ok(Self {
            driver: driver.into(),
            transport: transport.map(Into::into),
            user: user.map(Into::into),
            host: host.into(),
            port,
            path: path.into(),
            query: query.map(Into::into),
        })
    }

    /// The host, as written; empty for this one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, as written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The way to it, as written.
    #[must_use]
    pub fn transport(&self) -> Option<&str> {
        self.transport.as_deref()
    }

    /// The user, as written.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What is asked for of that libvirt, without the slash: `system`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The parameters, as written.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Whether it says itself that the daemon and its emulators are on this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.host.as_str(), "" | "localhost" | "::1") || self.host.starts_with("127.")
    }

    /// Whether it leads to the libvirt of a user, not to that of the host.
    #[must_use]
    pub fn is_session(&self) -> bool {
        self.path == "session"
    }

    /// Whether libvirt's own socket on this host is what it leads to: no host is named, and neither a transport, a socket nor a command
    /// that could lead elsewhere.
    #[must_use]
    pub fn is_own_socket(&self) -> bool {
        let elsewhere = |pair: &str| ["socket", "command"].contains(&pair.split('=').next().unwrap_or_default());
        self.host.is_empty()
            && matches!(self.transport.as_deref(), None | Some("unix"))
            && !self.query.iter().flat_map(|query| query.split(['&', ';'])).any(elsewhere)
    }

    /// Whether it leads to the libvirt of whatever host it is used on: libvirt's own socket there, by whatever name, or the host's name for itself
    /// without a port, which could be that of a tunnel.
    #[must_use]
    pub fn is_wherever_used(&self) -> bool {
        if !self.host.is_empty() {
            return self.is_local() && self.port.is_none() && self.transport() != Some("ext");
        }
        let socket = self.query.iter().flat_map(|query| query.split(['&', ';'])).find_map(|pair| pair.strip_prefix("socket="));
        let socket = socket.and_then(percent::decode);
        let is_libvirts = |path: &str| ["/run/libvirt/", "/var/run/libvirt/"].iter().any(|folder| path.starts_with(folder));
        self.is_own_socket() || matches!(self.transport(), None | Some("unix")) && socket.as_deref().is_some_and(is_libvirts)
    }

    /// Whether the daemon and its emulators are on this host, called `here`, so that `/proc` is a witness.
    #[must_use]
    pub fn is_on(&self, here: &str) -> bool {
        let (host, here) = (self.host.to_ascii_lowercase(), here.to_ascii_lowercase());
        let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let same = if host.contains('.') && here.contains('.') { host == here } else { short(&host) == short(&here) };
        // An address has dots too, but no host is called by a number.
        self.is_local() || !here.is_empty() && host.parse::<IpAddr>().is_err() && same
    }

    /// Whether it leads to the libvirt of this host, called `here`, for certain: not by a socket, a command or a port, which could be those
    /// of a tunnel.
    #[must_use]
    pub fn is_own(&self, here: &str) -> bool {
        let is_named = !here.is_empty() && self.host.eq_ignore_ascii_case(here);
        self.is_wherever_used() || is_named && self.port.is_none() && self.transport() != Some("ext")
    }

    /// The URI of the same libvirt on `target`: with `transport` and `user` if given, else the ones this URI has; `host` as
    /// [`on_network`] makes it. Port, path and query stay.
    #[must_use]
    pub fn on(&self, host: &str, transport: Option<&str>, user: Option<&str>) -> Self {
        // unix is a transport to this host only.
        let kept = self.transport.as_deref().filter(|transport| *transport != "unix");
        Self {
            transport: transport.or(kept).map(Into::into),
            user: user.or(self.user.as_deref()).map(Into::into),
            host: host.into(),
            ..self.clone()
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.driver)?;
        if let Some(transport) = &self.transport {
            write!(f, "+{transport}")?;
        }
        write!(f, "://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}", bracketed(&self.host))?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.path)?;
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        Ok(())
    }
}

/// Whether `text` can be the transport of a URI.
#[must_use]
pub fn is_transport(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The name of `node` on a network of its own: `suffix` goes before the first dot (`node2.example.com` -> `node2-mig.example.com`).
#[must_use]
pub fn on_network(node: &str, suffix: &str) -> String {
    match node.split_once('.') {
        Some((short, domain)) => format!("{short}{suffix}.{domain}"),
        None => format!("{node}{suffix}"),
    }
}

/// Where the guest's memory goes: the address of `host` for QEMU, with libvirt choosing the port unless one is given.
#[must_use]
pub fn migration(host: &str, port: Option<u16>) -> String {
    let host = bracketed(host);
    port.map_or_else(|| format!("tcp://{host}"), |port| format!("tcp://{host}:{port}"))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Host and port. Brackets are around an address, and nowhere in a name.
fn split_port(server: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = split(server)?;
    (!host.contains(['[', ']']) && (!host.is_empty() || !server.starts_with('['))).then_some((host, port))
}

fn split(server: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = server.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?.parse().ok()?))),
        };
    }
    match server.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((server, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(hypervisor: &str, transport: Option<&str>, user: Option<&str>, suffix: &str, node: &str) -> String {
        Uri::parse(hypervisor).unwrap().on(&on_network(node, suffix), transport, user).to_string()
    }

    #[test]
    fn brackets_are_around_an_address() {
        assert_eq!(Uri::parse("qemu+tls://[fd00::2]:1/system").unwrap().host(), "fd00::2");
        for host in ["[[]", "[", "]", "a]", "a[b", "[a", "[]", "[]:22"] {
            assert!(Uri::parse(&format!("qemu+tls://{host}/system")).is_err(), "{host}");
        }
    }

    #[test]
    fn mangled_uris() {
        let samples = [
            "qemu+tls://root@host-a.example:16514/system?no_verify=1&keyfile=/a",
            "qemu:///system",
            "qemu+ssh://[fe80::1%25eth0]:22/system",
        ];
        crate::mangled::texts(&samples, 4000, |text| {
            let uri = Uri::parse(text);
            // What was understood is written so that it is understood again.
            uri.as_ref().is_ok_and(|uri| Uri::parse(&uri.to_string()).is_ok_and(|again| again == *uri)) || {
                assert!(uri.is_err(), "{text:?}");
                false
            }
        });
    }

    #[test]
    fn a_socket_of_its_own_or_one_that_leads_elsewhere() {
        let own = |text: &str| Uri::parse(text).unwrap().is_own_socket();
        for text in ["qemu:///system", "qemu+unix:///system", "qemu+unix:///system?mode=direct", "qemu:///session"] {
            assert!(own(text), "{text}");
        }
        for text in [
            "qemu+unix:///system?socket=/run/to-hosta",
            "qemu:///system?mode=direct&socket=/run/to-hosta",
            "qemu+ext:///system?command=/usr/local/bin/to-hosta",
            "qemu+ext:///system",
            "qemu:///system?command=x",
            "qemu+ssh://hosta/system",
            "qemu://hosta/system",
        ] {
            assert!(!own(text), "{text}");
        }
    }

    #[test]
    fn the_libvirt_of_wherever_it_is_used() {
        let wherever = |text: &str| Uri::parse(text).unwrap().is_wherever_used();
        for text in [
            "qemu:///system",
            "qemu+unix:///system",
            "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
            "qemu+unix:///system?mode=direct&socket=%2Fvar%2Frun%2Flibvirt%2Fvirtqemud-sock",
            "qemu+ssh://localhost/system",
            "qemu+tcp://127.0.0.1/system",
            "qemu+tls://[::1]/system",
        ] {
            assert!(wherever(text), "{text}");
        }
        for text in [
            "qemu+tls://hosta/system",
            "qemu+unix:///system?socket=/run/to-hosta",
            "qemu+ext:///system?command=/usr/local/bin/to-hosta",
            "qemu+ssh://localhost:2222/system",
            "qemu+tcp://127.0.0.1:17000/system",
            "qemu+ext://localhost/system?command=/usr/local/bin/to-hosta",
        ] {
            assert!(!wherever(text), "{text}");
        }
    }

    #[test]
    fn the_libvirt_of_this_host_for_certain() {
        let own = |text: &str| Uri::parse(text).unwrap().is_own("node1.example.com");
        for text in ["qemu:///system", "qemu+ssh://localhost/system", "qemu+ssh://root@Node1.example.com/system"] {
            assert!(own(text), "{text}");
        }
        for text in [
            "qemu+ssh://node1/system",
            "qemu+ssh://node2.example.com/system",
            "qemu+tcp://node1.example.com:17000/system",
            "qemu+tcp://127.0.0.1:17000/system",
            "qemu+unix:///system?socket=/run/to-node2",
            "qemu+ext://node1.example.com/system?command=/usr/local/bin/to-node2",
            "qemu+tcp://10.77.0.1/system",
        ] {
            assert!(!own(text), "{text}");
        }
        assert!(!Uri::parse("qemu+ext:///system?command=x").unwrap().is_own(""));
    }

    #[test]
    fn remote_uris_are_the_incumbents_but_for_its_mistakes() {
        let cases = [
            (("qemu:///system", None, None, "", "node2"), "qemu://node2/system"),
            (("qemu:///system", Some("ssh"), None, "", "node2"), "qemu+ssh://node2/system"),
            (("qemu:///system", Some("ssh"), Some("mig"), "", "node2"), "qemu+ssh://mig@node2/system"),
            (("qemu:///system", Some("ssh"), None, "-mig", "node2"), "qemu+ssh://node2-mig/system"),
            (("qemu:///system", Some("ssh"), None, "-mig", "node2.example.com"), "qemu+ssh://node2-mig.example.com/system"),
            (("qemu+tcp://node1:9999/system", None, None, "", "node2"), "qemu+tcp://node2:9999/system"),
            (("qemu:///system?socket=/x", None, None, "", "node2"), "qemu://node2/system?socket=/x"),
            // Here the incumbent wrote qemu+tcp+ssh://, and lost the user.
            (("qemu+tcp://node1:9999/system", Some("ssh"), None, "", "node2"), "qemu+ssh://node2:9999/system"),
            (("qemu+ssh://root@node1/system", None, None, "", "node2"), "qemu+ssh://root@node2/system"),
            (("qemu+unix:///system", None, None, "", "node2"), "qemu://node2/system"),
            (("qemu:///system", Some("tcp"), None, "", "fd00::2"), "qemu+tcp://[fd00::2]/system"),
        ];
        for ((hypervisor, transport, user, suffix, node), expected) in cases {
            assert_eq!(remote(hypervisor, transport, user, suffix, node), expected);
        }
    }

    #[test]
    fn migration_uris() {
        assert_eq!(migration("node2-mig", Some(49160)), "tcp://node2-mig:49160");
        assert_eq!(migration("node2-mig", None), "tcp://node2-mig");
        assert_eq!(migration("fd00::2", None), "tcp://[fd00::2]");
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "qemu",
            "qemu:/system",
            "qemu://host",
            "qemu+://host/system",
            "xen:///",
            "qemu:///a b",
            "qemu://h:99999/system",
            "qemu://h:x/system",
        ] {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn on_this_host_or_not() {
        let on = |text: &str| Uri::parse(text).unwrap().is_on("node1.example.com");
        for here in [
            "qemu:///system",
            "qemu+unix:///system?socket=/x",
            "qemu+tcp://localhost/system",
            "qemu+tcp://127.0.0.1/system",
            "qemu+tcp://node1/system",
            "qemu+tls://Node1.example.com/system",
        ] {
            assert!(on(here), "{here}");
        }
        assert!(!on("qemu+tcp://node2/system"));
        assert!(!on("qemu+tcp://node1.example.org/system"));
        assert!(!on("qemu+tcp://10.77.0.1/system"));
        assert!(!Uri::parse("qemu+tcp://node2/system").unwrap().is_on(""));
    }
}
