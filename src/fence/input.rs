//! What the agent is told: `key=value` lines on standard input, or, if there are any words on the command line, those instead.

use super::action::ACTIONS;
use super::options::{Row, row_of};
use super::table::TABLE;
use crate::deadline::Deadline;
use crate::parameter::Kind;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::time::Duration;

/// The most that is read from standard input, in bytes. Pacemaker sends some hundred.
const LONGEST: u64 = 1024 * 1024;

/// How long standard input may stay open; a person may be typing.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Values by the names of the table.
    pub(super) values: BTreeMap<String, String>,
    /// What was odd; never holds a value, which may be a secret.
    pub(super) oddities: Vec<String>,
    /// Whether the input ends in the middle of a line, so that its last value may be another than was meant.
    pub(super) cut: bool,
}

/// Reads the command line, or standard input if it is empty.
///
/// # Errors
/// The command line is wrong, or the input cannot be read or is not believed: what a person is told of it.
pub(super) fn read(words: &[OsString]) -> Result<Given, String> {
    if words.is_empty() { parse(&standard_input()?) } else { command_line(words) }
}

fn standard_input() -> Result<Vec<u8>, String> {
    let read = Deadline::after(PATIENCE).run(|| {
        let mut bytes = Vec::new();
        std::io::stdin().take(LONGEST + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    match read {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(format!("standard input cannot be read: {error}")),
        None => Err(format!("standard input did not end within {} s", PATIENCE.as_secs())),
    }
}

/// Understands standard input. Lines are trimmed, and those that begin with `#` are comments. One pair of double quotes around a value is
/// removed. Where a key comes again its last value counts; of `uri` all do, of two different plugs the one that is not the node's name, and of
/// the action the one under its own name. A key that nobody knows is ignored, and noted as an oddity.
///
/// # Errors
/// It is too long, or no text, or has two plugs that are not the node's name. Nothing of it is then believed.
pub(super) fn parse(bytes: &[u8]) -> Result<Given, String> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err("standard input is longer than 1 MiB".into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("standard input is not valid UTF-8 at byte {}", error.valid_up_to()))?;
    if text.contains('\0') {
        return Err("standard input holds a NUL".into());
    }
    let mut given = Given { cut: !text.is_empty() && !text.ends_with('\n'), ..Given::default() };
    let mut plugs: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut action, mut option) = (None, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            given.oddities.push(format!("line {} of the input is no key=value and is ignored", number + 1));
            continue;
        };
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        match row_of(key) {
            Some(row) => {
                if row.parameter.name == "plug" && !value.is_empty() {
                    plugs.insert(key, value);
                }
                option |= key == "option";
                if key == "action" {
                    action = Some(value);
                }
                given.take(row, value);
            }
            None => {
                let key: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
                given.oddities.push(format!("unknown option {key:?} is ignored"));
            }
        }
    }
    // Pacemaker strips `action` from a device's own parameters, not its older name `option` (`append_config_arg` in its
    // `lib/fencing/st_actions.c`), and passes that beside the action that it wants: a monitor would turn the guest off.
    if let Some(action) = action.filter(|_| option) {
        given.values.insert("action".to_owned(), action.to_owned());
        given.oddities.push("option is ignored: action says what is done".to_owned());
    }
    // Pacemaker passes the node's name as plug (since 3.0.1; as port before) also to a device that has a port (plug) of its own
    // (`make_args` in its `lib/fencing/st_actions.c`), in any order. What the device says is meant.
    let mut plugs: Vec<&str> = plugs.into_values().collect();
    plugs.sort_unstable();
    plugs.dedup();
    if plugs.len() > 1 {
        let all = plugs.join(", ");
        let node = given.values.get("nodename").map_or("", String::as_str);
        plugs.retain(|plug| *plug != node);
        let [plug] = plugs[..] else { return Err(format!("plug and port name different guests ({all}); nothing is done")) };
        given.values.insert("plug".to_owned(), plug.to_owned());
    }
    Ok(given)
}

impl Given {
    fn take(&mut self, row: &Row, value: &str) {
        let name = row.parameter.name;
        match self.values.get_mut(name) {
            // A host more is a host more to ask.
            Some(old) if name == "uri" => *old = format!("{old} {value}"),
            _ => drop(self.values.insert(name.to_owned(), value.to_owned())),
        }
    }
}

fn command_line(words: &[OsString]) -> Result<Given, String> {
    let program = OsString::from("fence_kvmha");
    let matches = command().try_get_matches_from(std::iter::once(&program).chain(words)).map_err(|error| error.to_string())?;
    let mut given = Given::default();
    for row in TABLE {
        for value in matches.get_many::<String>(row.parameter.name).into_iter().flatten() {
            given.take(row, value);
        }
    }
    Ok(given)
}

/// The command line, made from the table.
#[must_use]
pub fn command() -> Command {
    let command = Command::new("fence_kvmha")
        .about(super::metadata::SHORT)
        .long_about(super::metadata::LONG)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(format!(
            "Actions:\n{}\nWithout an action it is {}: the guest is ended, and started again.\n\n\
            The code is 0 if it was done, or the guest is on; 2 for the status of a guest that is off; 1 for everything else, also what \
            could not be told.\n\nExamples:\n  fence_kvmha --uri=qemu+tls://hosta/system,qemu+tls://hostb/system --plug=node1 \
            --action=status\n  kvmha fence convert --help",
            ACTIONS.iter().map(|row| format!("  {:<14}{}\n", row.word, row.text)).collect::<String>(),
            row_of("action").and_then(|row| row.parameter.default).unwrap_or_default(),
        ))
        .disable_help_flag(true)
        .disable_version_flag(true);
    TABLE.iter().fold(command, |command, row| command.arg(argument(row)))
}

/// The same for the completions of shells, which are told the words that an option takes. A call is not: a wrong one is answered in Pacemaker's words.
#[must_use]
pub fn completable() -> Command {
    TABLE.iter().filter(|row| !words(row).is_empty()).fold(command(), |command, row| {
        command.mut_arg(row.parameter.name, |argument| argument.value_parser(PossibleValuesParser::new(words(row))))
    })
}

/// The words that an option takes; none if it takes others too.
fn words(row: &Row) -> Vec<&'static str> {
    match row.parameter.kind {
        _ if row.parameter.name == "action" => ACTIONS.iter().map(|row| row.word).collect(),
        Kind::Select(words) => words.to_vec(),
        _ => Vec::new(),
    }
}

/// What a person reads of an option: its words, default and choices. clap is not told them, or what was not given would be given.
fn help(row: &Row) -> String {
    let parameter = &row.parameter;
    let words = words(row);
    let default = parameter.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let choices = if words.is_empty() { String::new() } else { format!(" [possible values: {}]", words.join(", ")) };
    format!("{}{default}{choices}", parameter.short)
}

fn argument(row: &Row) -> Arg {
    let parameter = &row.parameter;
    let mut argument = Arg::new(parameter.name).long(row.long()).help(help(row)).action(ArgAction::Append);
    // The names of standard input, spelled as they are there, are taken as well.
    argument = argument.aliases(row.names().filter(|name| *name != row.long()));
    if let Some(letter) = row.letter {
        argument = argument.short(letter);
    }
    if row.value.is_empty() {
        argument = argument.num_args(0..=1).require_equals(true).default_missing_value("1").value_name("true/false");
    } else {
        argument = argument.num_args(1).value_name(row.value);
    }
    if parameter.kind == Kind::Text {
        argument = argument.allow_hyphen_values(true);
    }
    argument.hide(!row.advertised)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(given: &'a Given, name: &str) -> Option<&'a str> {
        given.values.get(name).map(String::as_str)
    }

    fn line(words: &[&str]) -> Result<Given, String> {
        read(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn mangled_input() {
        let sample =
            "# a comment\naction=off\nplug=web1\nuri=\"qemu+tls://a/system\"\n uri = qemu:///system \nnodename=x\npower_timeout=20\n";
        let mut counts = [0; 2];
        crate::mangled::mangled(&[sample], 4000, |bytes| counts[usize::from(parse(bytes).is_ok())] += 1);
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }

    #[test]
    fn lines() {
        let text = "# a comment\n\n  action = off\naction=\"status\"\nport=\"web1\"\npasswd=a=b\nnodename=n1\nunheard_timeout=5\nnothing\n\
        uri=a\nuri=b\nmissing-as-off=0\n";
        let given = parse(text.as_bytes()).unwrap();
        assert_eq!(value(&given, "action"), Some("status"), "the last counts, and `action ` is another key");
        assert_eq!(value(&given, "plug"), Some("web1"));
        assert_eq!(value(&given, "password"), Some("a=b"));
        assert_eq!(value(&given, "nodename"), Some("n1"));
        assert_eq!(value(&given, "uri"), Some("a b"));
        assert_eq!(value(&given, "missing_as_off"), Some("0"));
        assert_eq!(given.oddities.len(), 3, "{:?}", given.oddities);
        assert!(!given.cut);
    }

    /// Pacemaker strips `action` from a device's own parameters, and passes the older name on beside its own `action`.
    #[test]
    fn an_older_name_of_the_action_is_none_beside_it() {
        for text in ["action=monitor\noption=off\n", "option=off\naction=monitor\n", "option=off\naction=\"monitor\"\noption=reboot\n"] {
            let given = parse(text.as_bytes()).unwrap();
            assert_eq!((value(&given, "action"), given.oddities.len()), (Some("monitor"), 1), "{text:?}: {:?}", given.oddities);
        }
        let given = parse(b"option=off\noption=status\n").unwrap();
        assert_eq!((value(&given, "action"), given.oddities.len()), (Some("status"), 0));
    }

    /// As Pacemaker 3.0.1 sends it for a device with port=guest1 and pcmk_host_list=node1, in either order.
    #[test]
    fn the_devices_own_plug_counts() {
        for text in ["nodename=node1\nport=guest1\nplug=node1\n", "plug=node1\nport=guest1\nnodename=node1\n"] {
            assert_eq!(value(&parse(text.as_bytes()).unwrap(), "plug"), Some("guest1"));
        }
        assert_eq!(value(&parse(b"nodename=node1\nport=node1\nplug=node1\n").unwrap(), "plug"), Some("node1"));
        assert_eq!(value(&parse(b"nodename=node1\nport=Node1\nplug=node1\n").unwrap(), "plug"), Some("Node1"));
        assert_eq!(value(&parse(b"plug=guest1\nport=\nnodename=node1\nplug=guest1\n").unwrap(), "plug"), Some("guest1"));
        assert_eq!(value(&parse(b"plug=a\nplug=b\n").unwrap(), "plug"), Some("b"), "the last, as of any key");
        for text in ["nodename=node1\nport=guest1\nplug=guest2\n", "port=guest1\nplug=guest2\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_not_told() {
        let given = parse(b"pasword=Geheim\nGeheim\n").unwrap();
        assert!(!given.oddities.concat().contains("Geheim"), "{:?}", given.oddities);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert!(parse(b"action=off\nplug=a\0b\n").is_err());
        assert!(parse(b"action=off\nplug=\xff\n").is_err());
        assert!(parse(&vec![b'a'; 1024 * 1024 + 1]).is_err());
        let mut long = b"plug=".to_vec();
        long.resize(1024 * 1024 - 1, b'a');
        long.push(b'\n');
        assert_eq!(value(&parse(&long).unwrap(), "plug").map(str::len), Some(1024 * 1024 - 6));
        assert!(parse(b"action=off\nplug=web1").unwrap().cut);
        assert_eq!(parse(b"").unwrap(), Given::default());
        assert_eq!(value(&parse(b"plug=\"\n").unwrap(), "plug"), Some("\""));
    }

    #[test]
    fn long_short_and_standard_input_are_the_same() {
        let long = line(&["--action", "off", "--plug=web1", "--missing-as-off", "--power-timeout=7", "--uri=a", "--uri", "b", "--ssh=0"]);
        let short = line(&["-o", "off", "-n", "web1", "--missing_as_off", "--power_timeout", "7", "-U", "a", "-U", "b", "-x=0"]);
        let lines = parse(b"action=off\nport=web1\nmissing_as_off=1\npower_timeout=7\nuri=a\nuri=b\nsecure=0\n");
        assert_eq!(long, lines);
        assert_eq!(short, lines);
        assert_eq!(value(&line(&["-v", "-o", "list"]).unwrap(), "verbose"), Some("1"));
        assert_eq!(value(&line(&["-vv", "-p", "-secret"]).unwrap(), "password"), Some("-secret"));
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for words in [&["--unheard-of"][..], &["off"], &["-o"], &["--missing-as-off", "0"]] {
            assert!(line(words).is_err(), "{words:?}");
        }
        command().debug_assert();
        completable().debug_assert();
    }
}
