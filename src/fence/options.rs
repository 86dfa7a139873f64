//! The values that the options of the fence agent fill, and how they are read; each option is described in [`super::table`] alone.

use super::table::TABLE;
use crate::parameter::{self, Fault, Kind, Parameter};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The values of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// What is to be done, in lower case.
    pub(super) action: String,
    /// The guests, as written.
    pub(super) plug: Option<String>,
    /// The node's name that the cluster has, used when there is no plug.
    pub(super) nodename: Option<String>,
    /// libvirt URIs, as written.
    pub(super) uri: Vec<String>,
    /// Host names or addresses, from which URIs are made.
    pub(super) ip: Vec<String>,
    /// Port at these hosts.
    pub(super) ipport: Option<u16>,
    /// User at these hosts, and for SASL at all.
    pub(super) username: Option<String>,
    /// Password for SASL.
    pub(super) password: Option<Secret>,
    /// A program that prints it.
    pub(super) password_script: Option<PathBuf>,
    /// Private key.
    pub(super) identity_file: Option<PathBuf>,
    /// Whether these hosts are reached by ssh, or by TLS.
    pub(super) ssh: bool,
    /// The ssh program.
    pub(super) ssh_path: Option<String>,
    /// Guests whose UUID is known.
    pub(super) uuid_map: BTreeMap<String, String>,
    /// Whether a plug has to be a UUID.
    pub(super) use_uuid: bool,
    /// Whether a guest that no host knows is off.
    pub(super) missing_as_off: bool,
    /// Hosts that are fenced by this cluster, with the names of their nodes.
    pub(super) fenced_hosts: BTreeMap<String, String>,
    /// How old the record of their fencing may be.
    pub(super) fenced_within: Duration,
    /// Wait before off and reboot.
    pub(super) delay: Duration,
    /// For the end or start of a guest.
    pub(super) power_timeout: Duration,
    /// Wait after the end or start.
    pub(super) power_wait: Duration,
    /// For one question.
    pub(super) shell_timeout: Duration,
    /// For a connection.
    pub(super) login_timeout: Duration,
    /// Whether the three before are without effect; `None`: as the caller decides.
    pub(super) disable_timeout: Option<bool>,
    /// How often a start is tried again.
    pub(super) retry_on: u32,
    /// Between the fields of list.
    pub(super) separator: String,
    /// Between plugs.
    pub(super) plug_separator: String,
    /// Whether debug messages are wanted.
    pub(super) verbose: bool,
    /// Where they go.
    pub(super) debug_file: Option<PathBuf>,
    /// Nothing on standard error.
    pub(super) quiet: bool,
    /// Print the version.
    pub(super) version: bool,
    /// Print the usage.
    pub(super) help: bool,
    /// Options given that are without effect here, with the reason.
    pub(super) without_effect: Vec<String>,
}

/// A text that no log, no message and no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What an option does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// What its text says.
    Works,
    /// Nothing: there is nothing that it could act on.
    None,
    /// It makes the call fail where it is set.
    Refused,
}

/// How an option is written, beside what its value is.
pub(super) struct Row {
    /// Name on standard input, kind, default, texts and setter.
    pub(super) parameter: Parameter<Options>,
    /// The letter on the command line.
    pub(super) letter: Option<char>,
    /// What stands for the value in a usage text.
    pub(super) value: &'static str,
    /// The older name, which is still advertised: Pacemaker and pcs know some of them.
    pub(super) obsoletes: Option<&'static str>,
    /// Further names that are taken.
    pub(super) aliases: &'static [&'static str],
    /// Whether the metadata has it.
    pub(super) advertised: bool,
    /// What it does.
    pub(super) effect: Effect,
}

impl Row {
    /// All names on standard input.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.parameter.name).chain(self.obsoletes).chain(self.aliases.iter().copied())
    }

    /// The long option: the name with dashes.
    pub(super) fn long(&self) -> String {
        self.parameter.name.replace('_', "-")
    }
}

/// The row with this name on standard input; dashes and underscores are the same, as in fencing.py.
pub(super) fn row_of(name: &str) -> Option<&'static Row> {
    let name = name.replace('-', "_");
    TABLE.iter().find(|row| row.names().any(|known| known == name))
}

/// Reads the values. The words of a boolean are taken in any case, and a time may end in `s`.
pub(super) fn read(given: &BTreeMap<String, String>) -> (Options, Vec<Fault>) {
    let table = || TABLE.iter().map(|row| &row.parameter);
    let mut given = given.clone();
    for row in table() {
        let Some(value) = given.get_mut(row.name) else { continue };
        match row.kind {
            Kind::Boolean => *value = value.to_lowercase(),
            Kind::Seconds { .. } => *value = value.strip_suffix(['s', 'S']).unwrap_or(value).to_owned(),
            Kind::Text | Kind::Integer { .. } | Kind::Select(_) => {}
        }
    }
    let (mut values, faults) = parameter::read(table(), &given);
    // A device of fence_virsh has it for ssh.
    let by_ssh = values.uri.iter().all(|uri| uri.starts_with("qemu+ssh://")) && (values.ip.is_empty() || values.ssh);
    if by_ssh && (values.password.is_some() || values.password_script.is_some()) {
        values
            .without_effect
            .push("the password is not used: ssh wants a key (identity_file); libvirt asks for one over TLS and tcp only".into());
    }
    (values, faults)
}

/// The text of a UUID in libvirt's form; `None` if it is none, or has more in it than that.
pub(super) fn uuid(text: &str) -> Option<String> {
    crate::uuid::canonical(text).filter(|_| text.len() <= 36 && !text.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> (Options, Vec<Fault>) {
        read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_table_is_in_order() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(Row::names).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a name stands twice");
        let mut letters: Vec<char> = TABLE.iter().filter_map(|row| row.letter).collect();
        let all = letters.len();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), all, "a letter stands twice");
        for row in TABLE {
            let name = row.parameter.name;
            assert!(
                row.names().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')),
                "{name}"
            );
            assert!(!row.parameter.short.is_empty() && !row.parameter.short.ends_with('.'), "{name}");
            assert_eq!(row.value.is_empty(), row.parameter.kind == Kind::Boolean && name != "disable_timeout", "{name}");
        }
        let (options, faults) = of(&[]);
        assert!(faults.is_empty(), "the defaults are right: {faults:?}");
        assert_eq!((options.action.as_str(), options.ssh, options.missing_as_off), ("reboot", true, false));
        assert!(options.without_effect.is_empty());
    }

    #[test]
    fn the_texts_say_what_has_no_effect() {
        for row in TABLE {
            let says = |words: &str| row.parameter.short.starts_with(words);
            let said = match (says("Ignored"), says("Refused")) {
                (true, _) => Effect::None,
                (_, true) => Effect::Refused,
                _ => Effect::Works,
            };
            assert_eq!(said, row.effect, "{}", row.parameter.name);
        }
    }

    #[test]
    fn old_and_new_names_are_one_option() {
        for (old, new) in [
            ("ipaddr", "ip"),
            ("login", "username"),
            ("passwd", "password"),
            ("passwd_script", "password_script"),
            ("port", "plug"),
            ("domain", "plug"),
            ("secure", "ssh"),
            ("debug", "debug_file"),
            ("cmd_prompt", "command_prompt"),
            ("sudo", "use_sudo"),
            ("option", "action"),
            ("power-timeout", "power_timeout"),
        ] {
            assert_eq!(row_of(old).unwrap().parameter.name, new);
            assert_eq!(row_of(new).unwrap().parameter.name, new);
        }
        assert!(row_of("unheard_of").is_none());
    }

    #[test]
    fn booleans_are_read_by_their_value() {
        for (word, value) in [("false", false), ("0", false), ("No", false), ("OFF", false), ("1", true), ("Yes", true), ("TRUE", true)] {
            assert_eq!(of(&[("missing_as_off", word)]).0.missing_as_off, value, "{word}");
        }
        let (options, faults) = of(&[("missing_as_off", "maybe")]);
        assert!(!options.missing_as_off && faults.len() == 1);
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            ("delay", "soon"),
            ("power_timeout", "-1"),
            ("ipport", "0"),
            ("method", "pull"),
            ("username", "-oProxyCommand=x"),
            ("identity_file", "id_rsa"),
            ("password_script", "echo Geheim"),
            ("uuid_map", "web1"),
            ("uuid_map", "web1:7"),
            ("fenced_hosts", "hosta"),
            ("fenced_hosts", "hosta:"),
            ("fenced_hosts", "a:n;a:m"),
            ("fenced_within", "0"),
            ("fenced_within", "86401"),
            ("port_as_ip", "1"),
            ("retry_on", "x"),
        ] {
            assert_eq!(of(&[(name, value)]).1.iter().map(|fault| fault.name).collect::<Vec<_>>(), [name], "{name}={value}");
        }
        assert_eq!(of(&[("delay", "5s")]).0.delay, Duration::from_secs(5));
        assert!(of(&[("ssh", "maybe")]).0.ssh, "a wrong value leaves the default");
    }

    #[test]
    fn secrets_are_not_shown() {
        let (options, _) = of(&[("password", "Geheim1"), ("password_script", "/usr/bin/tell")]);
        assert!(!format!("{options:?}").contains("Geheim"));
        assert_eq!(options.without_effect.len(), 1);
        let (options, _) = of(&[("password", "Geheim1"), ("uri", "qemu+ssh://a/system,qemu+tls://b/system")]);
        assert!(options.without_effect.is_empty() && options.password == Some(Secret("Geheim1".into())));
    }

    #[test]
    fn uuids() {
        let text = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";
        assert_eq!(uuid(text).as_deref(), Some(text));
        assert_eq!(uuid("C7A5FDBDCDAF9455926AD65C16DB1809").as_deref(), Some(text));
        assert_eq!(uuid("web1"), None);
        assert_eq!(uuid("--------------------------------c7a5fdbdcdaf9455926ad65c16db1809"), None);
        let (options, _) = of(&[("uuid_map", "web1:C7A5FDBDCDAF9455926AD65C16DB1809; db1=c7a5fdbd-cdaf-9455-926a-d65c16db180a")]);
        assert_eq!(options.uuid_map.get("web1").map(String::as_str), Some(text));
        assert_eq!(options.uuid_map.len(), 2);
    }
}
