//! What becomes of an option of another fence agent here, for devices that are carried over.

use super::options::{Effect, read, row_of};
use std::collections::BTreeMap;

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It keeps its value under this name.
    As(&'static str),
    /// It has nothing to act on here, and why. The sentence never holds the value, which may be a secret.
    Dropped(String),
    /// There is no such option.
    Unknown,
}

/// What becomes of the option `name` with `value`.
///
/// # Errors
/// There is such an option, but it does not take that value.
pub fn carried(name: &str, value: &str) -> Result<Carried, String> {
    let Some(row) = row_of(name) else { return Ok(Carried::Unknown) };
    let name = row.parameter.name;
    let (mut options, faults) = read(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
    if let Some(fault) = faults.first() {
        return Err(fault.text.clone());
    }
    if let Some(reason) = options.without_effect.pop() {
        return Ok(Carried::Dropped(reason));
    }
    // It has no word to say for this value.
    if row.effect != Effect::Works {
        return Ok(Carried::Dropped(format!("{name} has no effect here")));
    }
    Ok(Carried::As(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_options() {
        assert_eq!(carried("ipaddr", "hosta"), Ok(Carried::As("ip")));
        assert_eq!(carried("login", "root"), Ok(Carried::As("username")));
        assert_eq!(carried("multicast_address", "225.0.0.12"), Ok(Carried::Unknown));
        assert!(carried("username", "-oProxyCommand=x").is_err());
        for name in ["passwd", "use_sudo", "stonith_status_sleep", "inet4_only"] {
            let Ok(Carried::Dropped(reason)) = carried(name, "1") else { panic!("{name}") };
            assert!(!reason.is_empty(), "{name}");
        }
        let Ok(Carried::Dropped(reason)) = carried("password", "Geheim") else { panic!() };
        assert!(!reason.contains("Geheim"));
    }
}
