//! How the guests of a cluster are moved: a choice for all of them, which a guest that comes to them shares.

use crate::cluster::cib::Primitive;
use crate::domain::migration::preflight;
use crate::domain::options::Options;

/// The parameters that say so. What migrate_options has is a matter of the guest, but for the encryption; and so is a port for its memory: two guests
/// that have the same cannot be moved at the same time.
const NAMES: &[&str] = &["migration_transport", "migration_user", "migration_network_suffix", "migration_network", MIGRATEURI, "remoteuri"];

const MIGRATEURI: &str = "migrateuri";

/// The way, as parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    given: Vec<(&'static str, String)>,
    /// Whether it is that of guests that are there.
    pub(super) taken: bool,
}

impl Default for Way {
    /// What works with nothing set up but what the guides say: libvirt without certificates, and ssh.
    fn default() -> Self {
        Self { given: vec![("migration_transport", "ssh".to_owned())], taken: false }
    }
}

impl Way {
    /// That of these guests, if all that say how to reach other nodes say the same.
    pub(super) fn of(guests: &[Primitive]) -> Self {
        let mut ways = guests.iter().filter(|guest| reaches_others(guest)).map(said);
        let Some(first) = ways.next().filter(|way| way.iter().all(|(_, value)| is_word(value))) else { return Self::default() };
        if ways.all(|way| way == first) { Self { given: first, taken: true } } else { Self::default() }
    }

    /// The parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.given.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))
    }

    /// The parameters as words of a command.
    pub(super) fn words(&self) -> String {
        let bare = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.+:@,%=".contains(c));
        let word = |(name, value): &(&str, String)| if bare(value) { format!("{name}={value}") } else { format!("'{name}={value}'") };
        self.given.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

fn value<'a>(guest: &'a Primitive, name: &str) -> Option<&'a str> {
    guest.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn reaches_others(guest: &Primitive) -> bool {
    ["migration_transport", "remoteuri"].iter().any(|name| value(guest, name).is_some())
}

/// What the parameters of a guest say.
fn said(guest: &Primitive) -> Vec<(&'static str, String)> {
    let is_shared = |name: &str, value: &str| name != MIGRATEURI || !preflight::names_port(value);
    let known = NAMES.iter().filter_map(|name| Some((*name, value(guest, name)?)));
    let mut said: Vec<_> = known.filter(|(name, value)| is_shared(name, value)).map(|(name, value)| (name, value.to_owned())).collect();
    let options = value(guest, "migrate_options").and_then(|text| Options::parse(text).ok());
    if options.is_some_and(|options| options.is_encrypted()) {
        said.push(("migrate_options", "--tls".to_owned()));
    }
    said
}

/// Whether it can be one word of a command, between quotes at most.
fn is_word(value: &str) -> bool {
    value.chars().all(|c| c.is_ascii_graphic() && c != '\'')
}
