//! Case files: reading them, and writing back what was seen. The format is described in `tests/contract/main.rs`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One line that is expected of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `| text`: exactly this line.
    Line(String),
    /// `~ text`: a line with this text in it.
    Contains(String),
    /// `...`: any lines, or none.
    Anything,
}

/// Where an expected text is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Stdout,
    Stderr,
    /// A file in the scratch folder.
    Left(String),
}

impl Place {
    fn head(&self) -> String {
        match self {
            Self::Stdout => "stdout".into(),
            Self::Stderr => "stderr".into(),
            Self::Left(name) => format!("left {name}"),
        }
    }
}

/// What is made in the scratch folder before the call.
#[derive(Clone, Debug)]
pub enum Made {
    File(String, Vec<u8>),
    Program(String, Vec<u8>),
    Folder(String),
    Fifo(String),
    /// A file of this many MiB without contents.
    Sparse(String, u64),
    /// A symbolic link to the program under test.
    Link(String),
    /// A socket that takes connections and never answers.
    Mute(String),
}

/// One case: a call and what is expected of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub call: Vec<OsString>,
    pub environment: Vec<(String, OsString)>,
    pub made: Vec<Made>,
    pub stdin: Vec<u8>,
    pub closed_stdout: bool,
    pub within: Duration,
    pub code: i32,
    pub stdout_file: Option<PathBuf>,
    pub outputs: Vec<(Place, Vec<Expected>)>,
}

/// The text of one case: everything but its outputs, and whether it stands for several.
struct Text {
    head: Vec<String>,
    outputs: Vec<(Place, Vec<Expected>)>,
    rows: Vec<Vec<String>>,
}

/// A case file.
pub struct File {
    path: PathBuf,
    common: Vec<String>,
    texts: Vec<Text>,
}

impl File {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (mut common, mut texts) = (Vec::new(), Vec::<Text>::new());
        for line in text.lines() {
            if line.starts_with("case ") {
                texts.push(Text { head: Vec::new(), outputs: Vec::new(), rows: Vec::new() });
            }
            match texts.last_mut() {
                Some(text) => text.add(line),
                None => common.push(line.to_owned()),
            }
        }
        Self { path: path.to_owned(), common, texts }
    }

    /// The cases, each with the number of its text in the file. `dir` is asked for the scratch folder of each.
    pub fn cases(&self, mut dir: impl FnMut() -> PathBuf) -> Vec<(usize, PathBuf, Case)> {
        let mut cases = Vec::new();
        for (number, text) in self.texts.iter().enumerate() {
            let rows = if text.rows.is_empty() { vec![Vec::new()] } else { text.rows.clone() };
            for row in rows {
                let dir = dir();
                let fill = |line: &str| {
                    let filled = line.replace("{version}", env!("CARGO_PKG_VERSION"));
                    row.iter().enumerate().fold(filled, |line, (at, value)| line.replace(&format!("{{{}}}", at + 1), value))
                };
                let placed = |line: &String| fill(line).replace("{dir}", &dir.to_string_lossy());
                let lines: Vec<String> = self.common.iter().chain(&text.head).map(placed).collect();
                let mut case = parse(&lines).unwrap_or_else(|line| panic!("{}: not understood: {line}", self.path.display()));
                let filled = |expected: &Expected| match expected {
                    Expected::Line(text) => Expected::Line(fill(text)),
                    Expected::Contains(text) => Expected::Contains(fill(text)),
                    Expected::Anything => Expected::Anything,
                };
                case.outputs =
                    text.outputs.iter().map(|(place, expected)| (place.clone(), expected.iter().map(filled).collect())).collect();
                cases.push((number, dir, case));
            }
        }
        cases
    }

    /// Puts what was seen into the case with this number. Lines that were expected loosely and fit stay as they are; a text that
    /// stands for several cases is left alone.
    pub fn bless(&mut self, number: usize, seen: &[(Place, Vec<String>)]) -> bool {
        let Some(text) = self.texts.get_mut(number).filter(|text| text.rows.is_empty()) else { return false };
        for (place, lines) in seen {
            let old = text.outputs.iter().position(|(known, _)| known == place);
            let expected = old.map_or(&[][..], |at| &text.outputs[at].1);
            if fits(expected, lines) {
                continue;
            }
            let loose = |at: usize, line: &String| match expected.get(at) {
                Some(Expected::Contains(part)) if expected.len() == lines.len() && line.contains(part) => Expected::Contains(part.clone()),
                _ => Expected::Line(line.clone()),
            };
            let new = lines.iter().enumerate().map(|(at, line)| loose(at, line)).collect();
            match old {
                Some(at) => text.outputs[at].1 = new,
                None => text.outputs.push((place.clone(), new)),
            }
        }
        text.outputs.retain(|(place, expected)| !expected.is_empty() || matches!(place, Place::Left(_)));
        true
    }

    pub fn write(&self) {
        let mut out = self.common.join("\n") + "\n";
        for (at, text) in self.texts.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            out += &(text.head.join("\n") + "\n");
            for (place, expected) in &text.outputs {
                let _ = writeln!(out, "{}", place.head());
                for line in expected {
                    let _ = match line {
                        Expected::Line(text) => writeln!(out, "{}", format!("| {text}").trim_end()),
                        Expected::Contains(text) => writeln!(out, "~ {text}"),
                        Expected::Anything => writeln!(out, "..."),
                    };
                }
            }
        }
        fs::write(&self.path, out).unwrap();
    }
}

impl Text {
    fn add(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let content = |line: &str| line.get(2..).unwrap_or_default().to_owned();
        if let Some(row) = line.strip_prefix("each ") {
            self.rows.push(row.split(" | ").map(|value| value.trim().to_owned()).collect());
        }
        let place = match line.split_once(' ') {
            Some(("left", name)) => Some(Place::Left(name.to_owned())),
            None if line == "stdout" => Some(Place::Stdout),
            None if line == "stderr" => Some(Place::Stderr),
            _ => None,
        };
        match (place, self.outputs.last_mut()) {
            (Some(place), _) => self.outputs.push((place, Vec::new())),
            (None, Some((_, lines))) => lines.push(match line.get(..1) {
                Some("|") => Expected::Line(content(line)),
                Some("~") => Expected::Contains(content(line)),
                _ if line == "..." => Expected::Anything,
                _ => panic!("the outputs stand at the end of a case: {line}"),
            }),
            (None, None) => self.head.push(line.to_owned()),
        }
    }
}

/// Whether `lines` are as expected.
pub fn fits(expected: &[Expected], lines: &[String]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((Expected::Anything, after)), _) => (0..=lines.len()).any(|at| fits(after, &lines[at..])),
        (Some((Expected::Line(text), after)), Some((line, rest))) => text.trim_end() == line.trim_end() && fits(after, rest),
        (Some((Expected::Contains(text), after)), Some((line, rest))) => line.contains(text.as_str()) && fits(after, rest),
        (Some(_), None) => false,
    }
}

/// Everything of a case but its outputs.
fn parse(lines: &[String]) -> Result<Case, String> {
    let mut case = Case {
        name: String::new(),
        call: Vec::new(),
        environment: Vec::new(),
        made: Vec::new(),
        stdin: Vec::new(),
        closed_stdout: false,
        within: Duration::from_secs(30),
        code: -1,
        stdout_file: None,
        outputs: Vec::new(),
    };
    let mut into_stdin = false;
    for line in lines.iter().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = || rest.to_owned();
        let mut set = |name: String, value: &str| {
            case.environment.retain(|(known, _)| *known != name);
            case.environment.push((name, OsString::from_vec(unescape(value))));
        };
        match (word, rest.split_once('=')) {
            ("case", _) => case.name = name(),
            ("each", _) => {}
            ("call", _) => case.call = rest.split(' ').map(|word| OsString::from_vec(unescape(word))).collect(),
            ("env", Some((name, value))) => set(name.to_owned(), value),
            ("with", Some((name, value))) => set(format!("OCF_RESKEY_{name}"), value),
            ("meta", Some((name, value))) => set(format!("OCF_RESKEY_CRM_meta_{name}"), value),
            ("file", _) => case.made.push(Made::File(name(), Vec::new())),
            ("program", _) => case.made.push(Made::Program(name(), Vec::new())),
            ("folder", _) => case.made.push(Made::Folder(name())),
            ("fifo", _) => case.made.push(Made::Fifo(name())),
            ("sparse", _) => {
                let (name, size) = rest.split_once(' ').ok_or(line)?;
                case.made.push(Made::Sparse(name.to_owned(), size.parse().map_err(|_| line)?));
            }
            ("link", _) => case.made.push(Made::Link(name())),
            ("mute", _) => case.made.push(Made::Mute(name())),
            ("stdin", _) => {}
            ("|", _) => {
                let text = [unescape(rest), b"\n".to_vec()].concat();
                match case.made.last_mut() {
                    Some(Made::File(_, content) | Made::Program(_, content)) if !into_stdin => content.extend(text),
                    _ if into_stdin => case.stdin.extend(text),
                    _ => return Err(line.clone()),
                }
            }
            ("closed", _) if rest == "stdout" => case.closed_stdout = true,
            ("within", _) => case.within = Duration::from_millis(rest.parse().map_err(|_| line)?),
            ("code", _) => case.code = rest.parse().map_err(|_| line)?,
            ("stdout-is", _) => case.stdout_file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(rest)),
            _ => return Err(line.clone()),
        }
        into_stdin = word == "stdin" || into_stdin && word == "|";
    }
    if case.name.is_empty() || case.call.is_empty() || case.code < 0 {
        return Err(format!("case {} needs call and code", case.name));
    }
    Ok(case)
}

/// `\x41` is the byte 0x41.
fn unescape(text: &str) -> Vec<u8> {
    let mut pieces = text.split("\\x");
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    bytes
}
