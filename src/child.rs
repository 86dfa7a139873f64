//! What this program does for itself in a process of its own, since it may hang in the kernel; no business of a person's.

use crate::domain::{definition, files, twin};
use crate::storage::{look, nonce};
use crate::{log, program};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Copies a definition to standard output.
    ReadDefinition,
    /// Sees whether a program can be executed.
    CheckProgram,
    /// Becomes a program.
    ExecProgram,
    /// Looks at what is under a guest.
    LookAtStorage,
    /// Changes files that belong to guests.
    Files,
    /// Leaves a proof in a folder, or takes it away.
    Nonce,
    /// Sees whether an emulator has a file open.
    Twin,
}

impl Work {
    /// The work that a word names.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            definition::READ_WORD => Self::ReadDefinition,
            program::CHECK_WORD => Self::CheckProgram,
            program::EXEC_WORD => Self::ExecProgram,
            look::WORD => Self::LookAtStorage,
            files::WORD => Self::Files,
            nonce::WORD => Self::Nonce,
            twin::WORD => Self::Twin,
            _ => return None,
        })
    }

    /// Does what the words after that one describe, and gives the code.
    #[must_use]
    pub fn run(self, words: &[OsString]) -> u8 {
        match self {
            Self::ReadDefinition => copy_definition(words),
            Self::CheckProgram => done(path(words).and_then(program::check)),
            Self::ExecProgram => become_program(words),
            Self::LookAtStorage => said(path(words).and_then(look::perform)),
            Self::Files => said(files::perform(words)),
            Self::Nonce => done(nonce::perform(words)),
            Self::Twin => done(twin::perform(words)),
        }
    }
}

/// The child's side of [`crate::domain::Definition::read`]. Its whole error text becomes part of the parent's.
fn copy_definition(words: &[OsString]) -> u8 {
    let mut out = io::stdout();
    match path(words).and_then(|path| definition::copy(path, &mut out)).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) => {
            log::complain(&log::plain(&error));
            if definition::is_final(&error) { definition::UNUSABLE } else { definition::UNREADABLE }
        }
    }
}

/// The child's side of [`program::run_apart`]; a program that cannot be started is 127, as in a shell.
fn become_program(words: &[OsString]) -> u8 {
    let error = match path(words) {
        Ok(path) => program::exec(path),
        Err(error) => error,
    };
    log::complain(&log::plain(&error));
    127
}

/// The only word.
fn path(words: &[OsString]) -> io::Result<&Path> {
    match words {
        [path] => Ok(Path::new(path)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "one path is wanted")),
    }
}

/// The code of work that has something to say.
fn said(result: io::Result<String>) -> u8 {
    done(result.and_then(|text| writeln!(io::stdout(), "{text}")))
}

/// The code of work; what went wrong becomes part of the parent's text.
fn done(result: io::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::complain(&log::plain(&error));
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_whether_it_could_be_done() {
        let code = |word: &str, words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            Work::of(word).map(|work| work.run(&words))
        };
        assert_eq!(code(program::CHECK_WORD, &["/bin/sh"]), Some(0));
        assert_eq!(code(program::CHECK_WORD, &["/nonexistent"]), Some(1));
        assert_eq!(code(program::EXEC_WORD, &["/nonexistent"]), Some(127));
        assert_eq!(code(definition::READ_WORD, &["/nonexistent"]), Some(definition::UNUSABLE));
        assert_eq!(code(definition::READ_WORD, &[]), Some(definition::UNREADABLE), "nothing is said of a definition");
        assert_eq!(code(look::WORD, &["/", "/"]), Some(1));
        assert_eq!(code("status", &[]), None);
    }
}
