//! One row describes one parameter: its name, kind, default, texts and setter. Parser, metadata and manual are views of it.

use std::collections::BTreeMap;
use std::fmt;

/// What a value may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number from `min` to `max`.
    Integer {
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// A time in whole seconds, from `min` to `max`.
    Seconds {
        /// The shortest.
        min: u64,
        /// The longest.
        max: u64,
    },
    /// See [`boolean`].
    Boolean,
    /// One of these words.
    Select(&'static [&'static str]),
}

/// Whether changing a parameter of a live resource restarts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The new value is used from the next action on.
    Reloads,
    /// The parameter says which guest this is, or how it is created.
    Restarts,
}

/// Whether two resources may have the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They may.
    Shared,
    /// They may not.
    Unique,
}

/// What a parameter is about, which decides what can be done without its right value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Which guest it is.
    Guest,
    /// Which libvirt runs the guest.
    Libvirt,
    /// Where and how the guest is moved.
    Move,
    /// Anything else.
    Other,
}

/// One row of a table of parameters that fills a `T`.
pub struct Parameter<T: 'static> {
    /// The name, as users write it.
    pub name: &'static str,
    /// What a value may look like.
    pub kind: Kind,
    /// Whether the parameter must be given.
    pub required: bool,
    /// Whether two resources may have the same value.
    pub sharing: Sharing,
    /// What a change of a live resource's value means.
    pub change: Change,
    /// What it is about.
    pub concerns: Concerns,
    /// The value when none is given, as text; it goes through `set` like any other, so the documented default is the real one.
    pub default: Option<&'static str>,
    /// One line for lists, without a full stop.
    pub short: &'static str,
    /// The manual's text.
    pub long: &'static str,
    /// Puts a value that is right for `kind` into the struct; the error says what is wrong with it.
    pub set: fn(&mut T, &str) -> Result<(), String>,
}

/// A setter for [`Parameter::set`]: what a function makes of the value goes into the field, or its error is the answer.
macro_rules! set {
    ($($field:ident).+ = Some($read:expr)) => {
        |values, value| {
            values.$($field).+ = Some($read(value)?);
            Ok(())
        }
    };
    ($($field:ident).+ = $read:expr) => {
        |values, value| {
            values.$($field).+ = $read(value)?;
            Ok(())
        }
    };
}
pub(crate) use set;

/// A value that was refused: which parameter, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The parameter.
    pub name: &'static str,
    /// What the parameter is about.
    pub concerns: Concerns,
    /// What is wrong, for a person.
    pub text: String,
    /// Whether the parameter was not given at all.
    pub missing: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

/// Fills a `T` from `given`, by the rows of `table`; names that are in no row are ignored. An empty value is an absent one.
///
/// Every wrong value is reported; its parameter then keeps its default, so that an action that must not fail for a wrong word
/// (stop) can go on.
pub fn read<'a, T: Default + 'static>(
    table: impl IntoIterator<Item = &'a Parameter<T>>,
    given: &BTreeMap<String, String>,
) -> (T, Vec<Fault>) {
    let mut values = T::default();
    let mut faults = Vec::new();
    for row in table {
        let fault = |text, missing| Fault { name: row.name, concerns: row.concerns, text, missing };
        if let Some(default) = row.default
            && let Err(text) = check(row.kind, default).and_then(|()| (row.set)(&mut values, default))
        {
            faults.push(fault(format!("default {default:?}: {text}"), false));
        }
        match given.get(row.name).map(String::as_str) {
            None | Some("") => {
                if row.required {
                    faults.push(fault("required parameter not set".into(), true));
                }
            }
            Some(value) => {
                if let Err(text) = check(row.kind, value).and_then(|()| (row.set)(&mut values, value)) {
                    faults.push(fault(text, false));
                }
            }
        }
    }
    (values, faults)
}

/// Whether a value is right for its kind.
///
/// # Errors
/// What is wrong with it.
pub fn check(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Text => Ok(()),
        Kind::Boolean => boolean(value).map(|_| ()),
        Kind::Integer { min, max } | Kind::Seconds { min, max } => integer(value, min, max).map(|_| ()),
        Kind::Select(words) if words.contains(&value) => Ok(()),
        Kind::Select(words) => Err(none_of(value, words)),
    }
}

/// The words of choices that are listed by their words, for [`Kind::Select`]; `N` is the number of them.
#[must_use]
pub const fn words<T, const N: usize>(names: &[(&'static str, T)]) -> [&'static str; N] {
    assert!(names.len() == N, "as many words as names");
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = names[at].0;
        at += 1;
    }
    words
}

/// The choice of a word.
///
/// # Errors
/// None of `names` has it.
pub fn choice<T: Copy>(names: &[(&'static str, T)], word: &str) -> Result<T, String> {
    let known = names.iter().find(|(name, _)| *name == word);
    known.map(|(_, choice)| *choice).ok_or_else(|| none_of(word, &names.iter().map(|(name, _)| *name).collect::<Vec<_>>()))
}

fn none_of(word: &str, words: &[&str]) -> String {
    format!("{word:?} is none of {}", words.join(", "))
}

/// A boolean word. True are the words `ocf_is_true` takes (resource-agents `ocf-shellfuncs`), false their opposites, however they are written: the
/// shell agents take every other word for false.
///
/// # Errors
/// Any other word, also `Yes` and `y`, which those take silently for false.
pub fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "true" | "1" | "YES" | "TRUE" | "True" | "ja" | "on" | "ON" => Ok(true),
        no if ["no", "n", "false", "f", "off", "nein", "0"].iter().any(|word| no.eq_ignore_ascii_case(word)) => Ok(false),
        other => Err(format!("{other:?} is no boolean, use true or false")),
    }
}

/// A whole number in decimal digits.
///
/// # Errors
/// Anything but digits, or a number outside `min` to `max`.
pub fn integer(value: &str, min: u64, max: u64) -> Result<u64, String> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{value:?} is no whole number"));
    }
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{value} is not from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Values {
        port: u64,
        name: String,
    }

    const TABLE: &[Parameter<Values>] = &[
        Parameter {
            name: "port",
            kind: Kind::Integer { min: 1, max: 65535 },
            required: false,
            sharing: Sharing::Shared,
            change: Change::Reloads,
            concerns: Concerns::Other,
            default: Some("80"),
            short: "",
            long: "",
            set: |values, value| {
                values.port = integer(value, 1, 65535)?;
                Ok(())
            },
        },
        Parameter {
            name: "name",
            kind: Kind::Text,
            required: true,
            sharing: Sharing::Shared,
            change: Change::Restarts,
            concerns: Concerns::Other,
            default: None,
            short: "",
            long: "",
            set: |values, value| {
                value.clone_into(&mut values.name);
                Ok(())
            },
        },
    ];

    fn read_pairs(pairs: &[(&str, &str)]) -> (Values, Vec<Fault>) {
        read(TABLE, &pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn defaults_and_values() {
        let (values, faults) = read_pairs(&[("name", "web1"), ("unheard_of", "x")]);
        assert_eq!((values.port, values.name.as_str(), faults.len()), (80, "web1", 0));
    }

    #[test]
    fn a_wrong_value_is_named_and_leaves_the_default() {
        for wrong in ["0", "65536", "-1", " 1", "1x", "99999999999999999999999"] {
            let (values, faults) = read_pairs(&[("name", "web1"), ("port", wrong)]);
            assert_eq!(values.port, 80);
            assert_eq!(faults.len(), 1, "{wrong}");
            assert_eq!(faults[0].name, "port");
        }
    }

    #[test]
    fn empty_is_absent() {
        let (values, faults) = read_pairs(&[("name", ""), ("port", "")]);
        assert_eq!(values.port, 80);
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), ["name: required parameter not set"]);
        assert!(faults[0].missing);
    }

    #[test]
    fn choices() {
        const NAMES: &[(&str, u8)] = &[("one", 1), ("two", 2)];
        const WORDS: &[&str] = &words::<_, 2>(NAMES);
        assert_eq!(WORDS, ["one", "two"]);
        assert_eq!(choice(NAMES, "two"), Ok(2));
        assert_eq!(choice(NAMES, "Two"), Err("\"Two\" is none of one, two".into()));
        assert_eq!(choice(NAMES, "Two").err(), check(Kind::Select(WORDS), "Two").err());
    }

    #[test]
    fn booleans() {
        for word in ["yes", "true", "1", "YES", "TRUE", "True", "ja", "on", "ON"] {
            assert_eq!(boolean(word), Ok(true), "{word}");
        }
        for word in ["no", "false", "0", "NO", "FALSE", "False", "nein", "off", "OFF", "No", "Off", "n", "N", "f", "F", "oFF", "Nein"] {
            assert_eq!(boolean(word), Ok(false), "{word}");
        }
        for word in ["Yes", "On", "y", "t", "none", "00", "2", "", " true", "wahr"] {
            assert!(boolean(word).is_err(), "{word}");
        }
    }
}
