//! The entry of the fuzzing: a daemon that says whatever it likes.
#![allow(clippy::unwrap_used, reason = "as in a test")]

use super::message::{HEAD, NO_DOMAIN};
use super::{Call, Conversation, Deadline, SYSTEM, Trouble};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// More than this does not fit into the socket before somebody reads.
const LONGEST: usize = 64 * 1024;

/// A daemon that says these bytes, whatever it is asked, and no more.
pub fn wire(data: &[u8]) {
    let conversation = || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(data.get(..LONGEST).unwrap_or(data)).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        Conversation {
            stream: ours,
            peer: Path::new("fuzzed"),
            deadline: Deadline::after(Duration::from_secs(5)),
            serial: 0,
            unread: Vec::new(),
        }
    };
    match conversation().about(SYSTEM, Call::Name("web1")) {
        Ok(Some(answer)) => assert_eq!(answer.name, "web1"),
        // The third answer has to say it.
        Ok(None) => assert!(messages(data).any(denies), "no daemon said that there is no such guest"),
        Err(trouble) => assert!(!matches!(trouble, Trouble::Unreachable(_))),
    }
    let _ = conversation().size(SYSTEM, Call::Uuid(&[7; 16]));
    let _ = conversation().ping(SYSTEM, "web1", 1);
    let _ = conversation().turn(SYSTEM);
}

/// The messages in what a daemon says, by their lengths.
fn messages(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_be_bytes(*data.first_chunk()?)).ok()?;
        let (message, rest) = data.split_at_checked(length).filter(|_| length >= HEAD)?;
        data = rest;
        Some(message)
    })
}

/// Whether a message is an error in answer to the third call, a look-up by name, with the number for "no such domain".
fn denies(message: &[u8]) -> bool {
    let words: Vec<u32> = message.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
    let code = u32::try_from(NO_DOMAIN).unwrap();
    matches!(words[..], [_, 0x2000_8086, 1, 23, 1, 3, 1, said, ..] if said == code)
}
