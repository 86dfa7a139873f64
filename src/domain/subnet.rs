//! A network, and the address of a host in it: over it the memory of a guest is sent.

use crate::deadline::Deadline;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// A network by address and length of its prefix: `10.1.2.0/24`, `fd00:1::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix: u32,
}

impl Subnet {
    /// Reads `ADDRESS/PREFIX`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network such as 10.1.2.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u32 = prefix.parse().ok().filter(|prefix| digits && *prefix <= longest).ok_or_else(wrong)?;
        Ok(Self { address, prefix })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => u128::from(address),
        };
        let same = self.address.is_ipv4() == address.is_ipv4();
        let differ = bits(self.address) ^ bits(address);
        same && (self.prefix == 0 || differ >> (128 - self.prefix) == 0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why an address was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfound {
    /// A sentence.
    pub text: String,
    /// Whether the resolver has failed or was late, which says nothing of the host. Else the name has no address in the network.
    pub is_unresolved: bool,
}

impl Unfound {
    /// This error, of the parameter that asks for the address.
    #[must_use]
    pub fn of(self, parameter: &str) -> Self {
        Self { text: format!("{parameter}: {}", self.text), ..self }
    }
}

/// The address of `host` in `network`, among all that its name stands for (hosts file, DNS).
///
/// # Errors
/// The name stands for nothing, or for no address in the network; or there was no answer in time.
pub fn address_in(host: &str, network: Subnet, deadline: &Deadline) -> Result<IpAddr, Unfound> {
    address_by(|name| Ok((name, 0).to_socket_addrs()?.map(|socket| socket.ip()).collect()), host, network, deadline)
}

/// Like [`address_in`], by this resolver.
pub(crate) fn address_by(
    resolve: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    host: &str,
    network: Subnet,
    deadline: &Deadline,
) -> Result<IpAddr, Unfound> {
    let name = host.to_owned();
    // The resolver has no time limit of the caller's.
    let found = deadline.run(move || resolve(&name));
    let unresolved = |text: &str| Unfound { text: format!("the name {host} is not resolved{text}"), is_unresolved: true };
    let found = found.ok_or_else(|| unresolved(" in time"))?.map_err(|error| unresolved(&format!(": {error}")))?;
    let address = found.into_iter().find(|address| network.holds(*address));
    address.ok_or_else(|| Unfound { text: format!("the name {host} has no address in {network}"), is_unresolved: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let holds = |network: &str, address: &str| Subnet::parse(network).unwrap().holds(address.parse().unwrap());
        assert!(holds("10.1.2.0/24", "10.1.2.255") && holds("10.1.2.9/32", "10.1.2.9") && holds("0.0.0.0/0", "8.8.8.8"));
        assert!(holds("fd00:1::/64", "fd00:1::5") && !holds("fd00:1::/64", "fd00:1:0:1::5"));
        assert!(!holds("10.1.2.0/24", "10.1.3.1") && !holds("0.0.0.0/0", "::1"));
        for wrong in ["", "10.1.2.0", "10.1.2.0/33", "10.1.2.0/", "10.1.2.0/+8", "x/8", "fd00::/129"] {
            assert!(Subnet::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_address_in_a_network() {
        let deadline = Deadline::after(std::time::Duration::from_secs(60));
        let find = |network: &str| address_in("127.0.0.1", Subnet::parse(network).unwrap(), &deadline);
        assert_eq!(find("127.0.0.0/8"), Ok("127.0.0.1".parse().unwrap()));
        let unfound = find("10.0.0.0/8").unwrap_err();
        assert!(unfound.text.contains("no address in 10.0.0.0/8") && !unfound.is_unresolved, "{unfound:?}");
    }

    #[test]
    fn mangled_networks() {
        crate::mangled::texts(&["10.1.2.0/24", "fd00:1:2::/48"], 4000, |text| Subnet::parse(text).is_ok());
    }
}
