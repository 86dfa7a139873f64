//! The table of options: one row describes one, for standard input, command line, metadata and manual.
//!
//! Names, short letters and defaults are those of fence-agents' `lib/fencing.py`, so that a device of `fence_virsh` or `fence_xvm`
//! is changed into one of this agent by its address alone.

use super::options::{Effect, Options, Row, Secret, uuid};
use crate::parameter::{Change, Concerns, Kind, Parameter, Sharing, boolean, integer, set};
use std::time::Duration;

type Setter = fn(&mut Options, &str) -> Result<(), String>;

/// A row with the most frequent properties; the others are changed at the row.
const fn row(name: &'static str, value: &'static str, kind: Kind, default: Option<&'static str>, short: &'static str, set: Setter) -> Row {
    let (sharing, change, concerns) = (Sharing::Shared, Change::Reloads, Concerns::Other);
    let parameter = Parameter { name, kind, required: false, sharing, change, concerns, default, short, long: "", set };
    Row { parameter, letter: None, value, obsoletes: None, aliases: &[], advertised: true, effect: Effect::Works }
}

/// A time in seconds, a day at most.
const SECONDS: Kind = Kind::Seconds { min: 0, max: 86400 };

fn seconds(value: &str) -> Result<Duration, String> {
    integer(value, 0, 86400).map(Duration::from_secs)
}

/// A value as it is written.
fn text<T: for<'a> From<&'a str>>(value: &str) -> Result<T, String> {
    Ok(value.into())
}

/// Words between commas or blanks.
fn list(value: &str) -> Result<Vec<String>, String> {
    Ok(value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).map(Into::into).collect())
}

/// Pairs between semicolons, commas or blanks.
fn pairs(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| matches!(c, ';' | ',') || c.is_whitespace()).filter(|pair| !pair.is_empty())
}

/// Marks an option of another fence agent that has nothing to act on here. The value is not looked at and not kept.
macro_rules! without_effect {
    ($why:literal) => {
        |values, _| {
            values.without_effect.push($why.into());
            Ok(())
        }
    };
}

/// The options, in the order of metadata and manual.
pub(super) static TABLE: &[Row] = &[
    Row {
        letter: Some('o'),
        aliases: &["option"],
        ..row("action", "action", Kind::Text, Some("reboot"), "Fencing action", |values, value| {
            values.action = value.to_lowercase();
            Ok(())
        })
    },
    Row {
        letter: Some('n'),
        obsoletes: Some("port"),
        aliases: &["domain"],
        ..row(
            "plug",
            "guest",
            Kind::Text,
            None,
            "Name or UUID of the guest, or several with plug_separator between",
            set!(plug = Some(text)),
        )
    },
    Row {
        advertised: false,
        ..row("nodename", "node", Kind::Text, None, "Name of the node to fence, used when no plug is given", set!(nodename = Some(text)))
    },
    Row {
        letter: Some('U'),
        aliases: &["uris", "hypervisor_uri"],
        ..row(
            "uri",
            "uri",
            Kind::Text,
            None,
            "libvirt URIs of all hosts on which the guest could be, with commas or blanks between",
            set!(uri = list),
        )
    },
    Row {
        letter: Some('a'),
        obsoletes: Some("ipaddr"),
        ..row(
            "ip",
            "host",
            Kind::Text,
            None,
            "Addresses of all hosts on which the guest could be, instead of or beside uri; reached by ssh",
            set!(ip = list),
        )
    },
    Row {
        letter: Some('u'),
        ..row(
            "ipport",
            "port",
            Kind::Integer { min: 1, max: 65535 },
            None,
            "TCP port at the hosts of ip, unless it is the usual one",
            |values, value| {
                values.ipport = u16::try_from(integer(value, 1, 65535)?).ok();
                Ok(())
            },
        )
    },
    Row {
        letter: Some('l'),
        obsoletes: Some("login"),
        ..row("username", "name", Kind::Text, None, "User at the hosts of ip, and for libvirts that want a password", |values, value| {
            let starts = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            if !starts || !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                return Err(format!("{value:?} is no user name"));
            }
            values.username = Some(value.to_owned());
            Ok(())
        })
    },
    Row {
        letter: Some('k'),
        ..row("identity_file", "file", Kind::Text, None, "Private key for ssh", |values, value| {
            if !value.starts_with('/') {
                return Err(format!("{value:?} is not an absolute path"));
            }
            values.identity_file = Some(value.into());
            Ok(())
        })
    },
    Row {
        letter: Some('p'),
        obsoletes: Some("passwd"),
        ..row(
            "password",
            "password",
            Kind::Text,
            None,
            "Password for hosts whose libvirt wants one (SASL); not for ssh",
            |values, value| {
                values.password = Some(Secret(value.to_owned()));
                Ok(())
            },
        )
    },
    Row {
        letter: Some('S'),
        obsoletes: Some("passwd_script"),
        ..row("password_script", "program", Kind::Text, None, "Program that prints the password", |values, value| {
            if !value.starts_with('/') {
                return Err(format!("{value:?} is not the absolute path of a program"));
            }
            values.password_script = Some(value.into());
            Ok(())
        })
    },
    Row {
        letter: Some('x'),
        obsoletes: Some("secure"),
        ..row("ssh", "", Kind::Boolean, Some("1"), "Reach the hosts of ip by ssh; otherwise by libvirt's own TLS", set!(ssh = boolean))
    },
    row("ssh_path", "path", Kind::Text, None, "The ssh program", set!(ssh_path = Some(text))),
    row(
        "uuid_map",
        "map",
        Kind::Text,
        None,
        "UUIDs of guests: name:uuid pairs with semicolons, commas or blanks between; a guest of that name with another UUID is refused",
        |values, value| {
            for pair in pairs(value) {
                let (name, number) = pair.split_once([':', '=']).ok_or_else(|| format!("{pair:?} is not name:uuid"))?;
                let number = uuid(number).ok_or_else(|| format!("{number:?} is no UUID"))?;
                if values.uuid_map.insert(name.to_owned(), number).is_some() {
                    return Err(format!("{name:?} stands there twice"));
                }
            }
            Ok(())
        },
    ),
    row("use_uuid", "", Kind::Boolean, Some("0"), "Take a plug only if it is a UUID", set!(use_uuid = boolean)),
    row(
        "missing_as_off",
        "",
        Kind::Boolean,
        Some("0"),
        "Take a guest for off if every host was reachable and none knows it; otherwise that is a failure",
        set!(missing_as_off = boolean),
    ),
    row(
        "fenced_hosts",
        "map",
        Kind::Text,
        None,
        "Hosts that this cluster fences: host:node pairs with semicolons, commas or blanks between. Such a host may be out of reach if \
         Pacemaker turned it off within fenced_within and it was not seen up since. Only for hosts whose devices cut the power: after \
         fabric fencing the guests run on",
        |values, value| {
            for pair in pairs(value) {
                // An IPv6 address has colons of its own.
                let (host, node) = pair.rsplit_once([':', '=']).ok_or_else(|| format!("{pair:?} is not host:node"))?;
                if host.is_empty() || node.is_empty() {
                    return Err(format!("{pair:?} is not host:node"));
                }
                let host = host.trim_start_matches('[').trim_end_matches(']');
                if values.fenced_hosts.insert(host.to_owned(), node.to_owned()).is_some() {
                    return Err(format!("{host:?} stands there twice"));
                }
            }
            Ok(())
        },
    ),
    row(
        "fenced_within",
        "seconds",
        Kind::Seconds { min: 1, max: 86400 },
        Some("600"),
        "How long Pacemaker's record that a host of fenced_hosts was turned off counts",
        set!(fenced_within = seconds),
    ),
    Row {
        letter: Some('m'),
        ..row(
            "method",
            "method",
            Kind::Select(&["onoff", "cycle"]),
            Some("onoff"),
            "Method to fence; both end the guest, prove it off and start it again",
            |_, _| Ok(()),
        )
    },
    row("delay", "seconds", SECONDS, Some("0"), "Wait X seconds before fencing is started", set!(delay = seconds)),
    row(
        "power_timeout",
        "seconds",
        SECONDS,
        Some("40"),
        "Test X seconds for status change after ON/OFF; libvirt needs up to 15 to end a guest by force. Ignored under Pacemaker, see disable_timeout",
        set!(power_timeout = seconds),
    ),
    row("power_wait", "seconds", SECONDS, Some("0"), "Wait X seconds after issuing ON/OFF", set!(power_wait = seconds)),
    row(
        "shell_timeout",
        "seconds",
        SECONDS,
        Some("5"),
        "Wait X seconds for the answer of a host. Ignored under Pacemaker, see disable_timeout",
        set!(shell_timeout = seconds),
    ),
    row(
        "login_timeout",
        "seconds",
        SECONDS,
        Some("5"),
        "Wait X seconds for the connection to a host. Ignored under Pacemaker, see disable_timeout",
        set!(login_timeout = seconds),
    ),
    row(
        "disable_timeout",
        "true/false",
        Kind::Boolean,
        None,
        "Ignore login_timeout, shell_timeout and power_timeout, and use 8, 7 and 38 seconds (default: true when run from Pacemaker)",
        set!(disable_timeout = Some(boolean)),
    ),
    row("retry_on", "attempts", Kind::Integer { min: 0, max: 100 }, Some("1"), "Count of attempts to retry power on", |values, value| {
        values.retry_on = u32::try_from(integer(value, 0, 100)?).unwrap_or(0);
        Ok(())
    }),
    Row {
        letter: Some('C'),
        ..row("separator", "char", Kind::Text, Some(","), "Separator for CSV created by operation list", set!(separator = text))
    },
    row("plug_separator", "char", Kind::Text, Some(","), "Separator between several plugs", set!(plug_separator = text)),
    Row { letter: Some('v'), ..row("verbose", "", Kind::Boolean, Some("0"), "Verbose mode", set!(verbose = boolean)) },
    row(
        "verbose_level",
        "level",
        Kind::Integer { min: 0, max: 100 },
        None,
        "Level of detail; any but 0 is verbose mode",
        |values, value| {
            values.verbose |= integer(value, 0, 100)? > 0;
            Ok(())
        },
    ),
    Row {
        letter: Some('D'),
        obsoletes: Some("debug"),
        ..row("debug_file", "file", Kind::Text, None, "Write debug information to given file", set!(debug_file = Some(text)))
    },
    Row {
        letter: Some('q'),
        ..row("quiet", "", Kind::Boolean, Some("0"), "Nothing on standard error; the reasons are in the system log", set!(quiet = boolean))
    },
    Row {
        letter: Some('V'),
        ..row("version", "", Kind::Boolean, Some("0"), "Display version information and exit", set!(version = boolean))
    },
    Row { letter: Some('h'), ..row("help", "", Kind::Boolean, Some("0"), "Display help and exit", set!(help = boolean)) },
    // Options of fence_virsh and of the library that nothing here depends on. A device that is carried over keeps working, and says so.
    Row {
        letter: Some('c'),
        obsoletes: Some("cmd_prompt"),
        effect: Effect::None,
        ..row(
            "command_prompt",
            "prompt",
            Kind::Text,
            None,
            "Ignored: no shell is used on the hosts",
            without_effect!("command_prompt is not used: there is no shell on the hosts"),
        )
    },
    Row {
        effect: Effect::None,
        ..row(
            "ssh_options",
            "options",
            Kind::Text,
            None,
            "Ignored: use the ssh configuration of this node's root",
            without_effect!("ssh_options is not used: put them into the ssh configuration of the user that runs the agent"),
        )
    },
    Row {
        obsoletes: Some("sudo"),
        effect: Effect::None,
        ..row("use_sudo", "", Kind::Boolean, Some("0"), "Ignored: the user needs libvirt's permission, not root's", |values, value| {
            if boolean(value)? {
                values.without_effect.push("use_sudo is not used: the user needs libvirt's permission (polkit), not root's".into());
            }
            Ok(())
        })
    },
    Row { advertised: false, effect: Effect::None, ..row("sudo_path", "path", Kind::Text, None, "Ignored, as use_sudo", |_, _| Ok(())) },
    Row {
        advertised: false,
        effect: Effect::None,
        ..row("stonith_status_sleep", "seconds", SECONDS, None, "Ignored: the hosts are asked at once and often", |_, _| Ok(()))
    },
    Row {
        letter: Some('4'),
        effect: Effect::None,
        ..row("inet4_only", "", Kind::Boolean, Some("0"), "Ignored. To force IPv4 or IPv6, give addresses", |values, value| {
            if boolean(value)? {
                values.without_effect.push("inet4_only is not used: give an address instead of a name".into());
            }
            Ok(())
        })
    },
    Row {
        letter: Some('6'),
        effect: Effect::None,
        ..row("inet6_only", "", Kind::Boolean, Some("0"), "Ignored. To force IPv4 or IPv6, give addresses", |values, value| {
            if boolean(value)? {
                values.without_effect.push("inet6_only is not used: give an address instead of a name".into());
            }
            Ok(())
        })
    },
    Row {
        advertised: false,
        effect: Effect::Refused,
        ..row("port_as_ip", "", Kind::Boolean, Some("0"), "Refused: a guest is not its host", |_, value| {
            if boolean(value)? {
                return Err("a guest is not the host it runs on: give the hosts with uri or ip".into());
            }
            Ok(())
        })
    },
];
