//! Entries of the fuzzing: what is read before a move.

use super::needs::Needs;
use super::{certificate, way};
use crate::domain::definition::Platform;

/// The certificates of a PEM file.
pub fn certificate(data: &[u8]) {
    crate::fuzzed::text(data, |text| {
        for certificate in certificate::read(text).into_iter().flatten() {
            certificate.is_of("node2.example.com");
            assert!(!certificate.hosts().is_empty());
        }
    });
}

/// What the definition needs of a host.
pub(in crate::domain) fn needs(xml: &str, platform: Platform) {
    let needs = Needs::of(xml, platform);
    assert!(needs.cpu.is_none_or(|(element, _)| xml.contains(&element)));
}

/// Where the memory goes.
pub(in crate::domain) fn place(text: &str) {
    assert!(way::place_of(text).is_none_or(|(host, _)| !host.is_empty()));
}
