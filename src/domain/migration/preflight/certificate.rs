//! From when until when the certificates of a PEM file are valid, and for which hosts; nothing else is read of them (RFC 5280, sections 4.1
//! and 4.2.1.6).

use std::net::IpAddr;
use time::{Date, Month, PrimitiveDateTime, Time};

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const OCTETS: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;

/// `id-ce-subjectAltName`, 2.5.29.17.
const ALTERNATIVES: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What is read of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// The first moment, in seconds since 1970.
    pub(super) from: i64,
    /// The last one.
    pub(super) until: i64,
    /// The hosts it is for, by name.
    names: Vec<String>,
    /// The hosts it is for, by address.
    addresses: Vec<IpAddr>,
}

/// Each certificate of a PEM file, in their order; `None` if there is none, or one that is not understood.
pub(super) fn read(pem: &str) -> Option<Vec<Certificate>> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let all: Option<Vec<Certificate>> =
        blocks.map(|block| Certificate::read(&decode(block.split_once("-----END CERTIFICATE-----")?.0)?)).collect();
    all.filter(|all| !all.is_empty())
}

impl Certificate {
    /// Certificate, TBSCertificate: version if it is there, serial number, algorithm, issuer, validity, subject, key, extensions.
    fn read(der: &[u8]) -> Option<Self> {
        let mut rest = inside(inside(der, SEQUENCE)?, SEQUENCE)?;
        if rest.first() == Some(&VERSION) {
            rest = element(rest)?.2;
        }
        for _ in 0..3 {
            rest = element(rest)?.2;
        }
        let (_, validity, rest) = element(rest)?;
        let (from, validity) = moment(validity)?;
        let (until, _) = moment(validity)?;
        let (_, subject, rest) = element(rest)?;
        let extensions = elements(rest)?.into_iter().find(|(tag, _)| *tag == EXTENSIONS).map(|(_, content)| content);
        let alternatives = extensions.map(alternatives).unwrap_or_else(|| Some(Vec::new()))?;
        let mut certificate = Self { from, until, names: Vec::new(), addresses: Vec::new() };
        for (tag, content) in alternatives {
            match tag {
                DNS_NAME => certificate.names.extend(String::from_utf8(content.to_vec())),
                ADDRESS => certificate.addresses.extend(address(content)),
                _ => {}
            }
        }
        // As GnuTLS, which QEMU is built with: the common name counts if there is no other (`gnutls_x509_crt_check_hostname2`).
        if certificate.names.is_empty() {
            certificate.names.extend(common_name(subject)?);
        }
        Some(certificate)
    }

    /// Whether it is one of the host that was asked for as `host`, as GnuTLS sees it: a misplaced address counts as a name, and a star
    /// stands for the first label of three or more.
    pub(super) fn is_of(&self, host: &str) -> bool {
        let fits = |name: &String| match (name.strip_prefix("*."), host.split_once('.')) {
            (Some(end), Some((_, domain))) => end.contains('.') && end.eq_ignore_ascii_case(domain),
            _ => name.eq_ignore_ascii_case(host),
        };
        host.parse().is_ok_and(|address| self.addresses.contains(&address)) || self.names.iter().any(fits)
    }

    /// The hosts it is for, for people.
    pub(super) fn hosts(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<String> = self.names.iter().filter(|name| !name.is_empty()).cloned().chain(addresses).collect();
        if all.is_empty() { "no host".to_owned() } else { all.join(", ") }
    }
}

/// The content of an element of this kind at the beginning.
fn inside(der: &[u8], wanted: u8) -> Option<&[u8]> {
    let (tag, content, _) = element(der)?;
    (tag == wanted).then_some(content)
}

/// All elements, each with its tag and its content.
fn elements(mut der: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (tag, content, rest) = element(der)?;
        all.push((tag, content));
        der = rest;
    }
    Some(all)
}

/// The names in the extension that has them; none if there is no such extension. An extension: its kind, whether it must be understood,
/// and its value.
fn alternatives(extensions: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    for (_, extension) in elements(inside(extensions, SEQUENCE)?)? {
        let parts = elements(extension)?;
        if parts.first() == Some(&(OBJECT, ALTERNATIVES)) {
            let (_, value) = parts.into_iter().find(|(tag, _)| *tag == OCTETS)?;
            return elements(inside(value, SEQUENCE)?);
        }
    }
    Some(Vec::new())
}

/// The last common name of a subject: sets of pairs, each a kind and a text. The inner `None` stands for a text of another kind than UTF-8.
fn common_name(subject: &[u8]) -> Option<Option<String>> {
    let mut name = None;
    for (tag, set) in elements(subject)? {
        for (_, pair) in elements(set).filter(|_| tag == SET)? {
            if let [(OBJECT, COMMON_NAME), (_, text)] = elements(pair)?.as_slice() {
                name = String::from_utf8(text.to_vec()).ok();
            }
        }
    }
    Some(name)
}

/// An address of four or sixteen bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The element at the beginning: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk::<2>()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// A time at the start, in seconds since 1970, and what follows it. `YYMMDDHHMMSSZ` until 2049, else with four digits of the year.
fn moment(der: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(der)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, text) = match tag {
        UTC_TIME => text.split_at_checked(2)?,
        GENERALIZED_TIME => text.split_at_checked(4)?,
        _ => return None,
    };
    let year: i32 = year.parse().ok()?;
    let year = if tag == UTC_TIME { year + if year < 50 { 2000 } else { 1900 } } else { year };
    let part = |at: usize| text.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let clock = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some((PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp(), rest))
}

/// Base64, with whatever white space.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl req -x509 -newkey ed25519 -nodes -subj /CN=a -days 20000`; one time of each kind.
    const PEM: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBLjCB4aADAgECAhR4A4dmb8PNeEDws5SXHqK3sBaefzAFBgMrZXAwDDEKMAgG\n\
        A1UEAwwBYTAgFw0yNjExMjUyMTQ4MTdaGA8yMDgxMDgyODIxNDgxN1owDDEKMAgG\n\
        A1UEAwwBYTAqMAUGAytlcAMhAMbDcYoA1w8KoNQcRQoAivUFvT59hQkJ5fn4hHKV\n\
        AHBKo1MwUTAdBgNVHQ4EFgQUNY0lox1WF+uxrWXGFwBCKH6LKNMwHwYDVR0jBBgw\n\
        FoAUNY0lox1WF+uxrWXGFwBCKH6LKNMwDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXAD\n\
        QQABeBT2kkPNkSGCxRDZwBQTILZyt8N2WUdo87GRz/GFAQzghhtPKFCMK628hNmm\n\
        uwBQmuNRzpFEMxY9PoNYTWEO\n\
        -----END CERTIFICATE-----";

    /// Made like [`PEM`], with `-subj /O=x/CN=old.example` and
    /// `-addext subjectAltName=DNS:node2,DNS:*.ha.example,IP:192.0.2.7,IP:fd00::7,email:a@b.c`.
    const NAMES: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBnDCCAU6gAwIBAgIUULH6BY00KDFyAdalqB7nDtF33MUwBQYDK2VwMCIxCjAI\n\
        BgNVBAoMAXgxFDASBgNVBAMMC29sZC5leGFtcGxlMCAXDTI2MTEyNjAxMjM1MloY\n\
        DzIwODEwODI5MDEyMzUyWjAiMQowCAYDVQQKDAF4MRQwEgYDVQQDDAtvbGQuZXhh\n\
        bXBsZTAqMAUGAytlcAMhAMIsCIGioQdhxdrcJJJMKewR66Tk7GXXzGttqit+9oJ1\n\
        o4GTMIGQMB0GA1UdDgQWBBQjGM8gbtaIRzGPA9Ou55+FAUUd1jAfBgNVHSMEGDAW\n\
        gBQjGM8gbtaIRzGPA9Ou55+FAUUd1jAPBgNVHRMBAf8EBTADAQH/MD0GA1UdEQQ2\n\
        MDSCBW5vZGUyggwqLmhhLmV4YW1wbGWHBMAAAgeHEP0AAAAAAAAAAAAAAAAAAAeB\n\
        BWFAYi5jMAUGAytlcANBAEozO3pKpyACSUOwnW1hjtFJjFWMHAqiq2lz9FgqPOl8\n\
        2kM5NpaLWEOFdlkUFk9eKrh119+I3nbHw5khSh/eggw=\n\
        -----END CERTIFICATE-----";

    #[test]
    fn when_a_certificate_is_valid() {
        let certificate = Certificate { from: 1_795_643_297, until: 3_523_643_297, names: vec!["a".into()], addresses: Vec::new() };
        assert_eq!(read(PEM), Some(vec![certificate]));
        assert_eq!(read(&format!("some words\n{PEM}\n{PEM}")).map(|all| all.len()), Some(2));
    }

    #[test]
    fn whom_a_certificate_is_for() {
        let certificate = read(NAMES).unwrap().remove(0);
        for host in ["node2", "NODE2", "a.ha.example", "192.0.2.7", "fd00::7", "fd00:0::7"] {
            assert!(certificate.is_of(host), "{host}");
        }
        for host in ["", "node", "node22", "old.example", "ha.example", "a.b.ha.example", "192.0.2.8", "a@b.c"] {
            assert!(!certificate.is_of(host), "{host}");
        }
        assert_eq!(certificate.hosts(), "node2, *.ha.example, 192.0.2.7, fd00::7");
        // Without other names it is the common one.
        let plain = read(PEM).unwrap().remove(0);
        assert!(plain.is_of("a") && !plain.is_of("b"));
        let wide = Certificate { names: vec!["*.example".into()], ..plain };
        assert!(!wide.is_of("a.example"));
        for names in [Vec::new(), vec![String::new()]] {
            assert_eq!(Certificate { names, ..wide.clone() }.hosts(), "no host");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn anything_at_all_is_read_without_harm() {
        crate::mangled::texts(&[PEM, NAMES], 4000, |text| read(text).is_some());
    }

    #[test]
    fn moments() {
        let of = |tag: u8, text: &str| moment(&[&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()).map(|(time, _)| time);
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (UTC_TIME, "500101000000Z", -631_152_000),
            (GENERALIZED_TIME, "20000229000001Z", 951_782_401),
            (GENERALIZED_TIME, "21000301000000Z", 4_107_542_400),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(of(tag, text), Some(expected), "{text}");
        }
        for (tag, text) in
            [(UTC_TIME, "001301000000Z"), (UTC_TIME, "7001010000Z"), (GENERALIZED_TIME, "21000229000000Z"), (SET, "700101000000Z")]
        {
            assert_eq!(of(tag, text), None, "{text}");
        }
    }
}
