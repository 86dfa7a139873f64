//! Entries of the fuzzing: what the fence agent is told, and what it has noted.
#![allow(clippy::unwrap_used, reason = "as in a test")]

use super::note::Note;
use super::options;
use super::{address, input, told};
use crate::domain::Uri;
use crate::fuzzed::text;

/// Standard input, the values that it gives, and the URIs that are made from them.
pub fn fence_input(data: &[u8]) {
    let Ok(given) = input::parse(data) else { return };
    let (values, faults) = options::read(&given.values);
    assert!(faults.iter().all(|fault| !fault.text.is_empty()));
    tells_no_secret(data);
    for host in &values.ip {
        let _ = Uri::parse(&address::from_address(host, &values));
    }
    for uri in values.uri.iter().filter_map(|uri| Uri::parse(uri).ok()) {
        // What is added for ssh leaves the host as it is.
        let more = Uri::parse(&address::with_key(&uri.to_string(), &values)).unwrap();
        assert_eq!((more.host(), more.user()), (uri.host(), uri.user()));
        address::login(&uri, &values);
    }
}

/// Neither what is odd nor what is wrong nor the values themselves show a password that is given behind all that.
fn tells_no_secret(data: &[u8]) {
    const SECRET: &str = "x7Vq2-Geheim-pL9";
    let Ok(given) = input::parse(&[data, b"\npassword=", SECRET.as_bytes(), b"\n"].concat()) else { return };
    let (values, faults) = options::read(&given.values);
    assert_eq!(values.password.as_ref().map(|password| password.0.as_str()), Some(SECRET));
    let said = format!("{:?} {faults:?} {values:?}", given.oddities);
    assert!(!said.contains(SECRET) || String::from_utf8_lossy(data).contains(SECRET));
}

/// A note about an end that was begun, or what another node tells of such.
pub fn fence_note(data: &[u8]) {
    text(data, |text| drop(told::read(text)));
    let Ok(note) = serde_json::from_slice::<Note>(data) else { return };
    assert_eq!(serde_json::from_slice::<Note>(&serde_json::to_vec(&note).unwrap()).unwrap(), note);
    let mut again = note.clone();
    let open = again.is_open();
    again.begin(&note.host);
    again.quiet(&note.host);
    again.ended(&note.host, &note.ends);
    // Neither the beginning of another end nor a word of the host takes away what is not proven.
    assert!(!open || again.is_open());
}
