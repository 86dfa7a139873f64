//! From when until when the certificates of a PEM file are valid; nothing else is read of them (RFC 5280, section 4.1).

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first and the last moment of one certificate, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

/// Of each certificate of a PEM file, in their order; `None` if there is none, or one that is not understood.
pub(super) fn read(pem: &str) -> Option<Vec<Validity>> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let all: Option<Vec<Validity>> = blocks.map(|block| validity(&decode(block.split_once("-----END CERTIFICATE-----")?.0)?)).collect();
    all.filter(|all| !all.is_empty())
}

/// Certificate, TBSCertificate: version if it is there, serial number, algorithm, issuer, validity.
fn validity(der: &[u8]) -> Option<Validity> {
    let mut rest = inside(inside(der)?)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (from, rest) = moment(inside(rest)?)?;
    let (until, _) = moment(rest)?;
    Some(Validity { from, until })
}

/// The content of a sequence at the begin.
fn inside(der: &[u8]) -> Option<&[u8]> {
    let (tag, content, _) = element(der)?;
    (tag == SEQUENCE).then_some(content)
}

/// The element at the begin: its tag, its content, and what follows it.
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

/// A time at the begin, in seconds since 1970, and what follows it. `YYMMDDHHMMSSZ` until 2049, else with four digits of the year.
fn moment(der: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(der)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, text) = match tag {
        UTC_TIME => text.split_at_checked(2)?,
        GENERALIZED_TIME => text.split_at_checked(4)?,
        _ => return None,
    };
    let year: i64 = year.parse().ok()?;
    let year = if tag == UTC_TIME { year + if year < 50 { 2000 } else { 1900 } } else { year };
    let part = |at: usize| text.get(at..at + 2)?.parse::<i64>().ok();
    let [month, day, hour, minute, second] = [part(0)?, part(2)?, part(4)?, part(6)?, part(8)?];
    Some((days(year, month, day)? * 86400 + hour * 3600 + minute * 60 + second, rest))
}

/// Days since 1970 of a day in the calendar of now.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE.get(usize::try_from(month - 1).ok()?)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let past = |year: i64| (year - 1) * 365 + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    Some(past(year) - past(1970) + before + i64::from(leap && month > 2) + day - 1)
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

    #[test]
    fn when_a_certificate_is_valid() {
        assert_eq!(read(PEM), Some(vec![Validity { from: 1_795_643_297, until: 3_523_643_297 }]));
        assert_eq!(read(&format!("some words\n{PEM}\n{PEM}")).map(|all| all.len()), Some(2));
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
        crate::mangled::texts(&[PEM], 4000, |text| read(text).is_some());
    }

    #[test]
    fn the_calendar() {
        for (date, expected) in
            [((1970, 1, 1), 0), ((2000, 2, 29), 11016), ((2000, 3, 1), 11017), ((2026, 1, 1), 20454), ((2100, 3, 1), 47541)]
        {
            assert_eq!(days(date.0, date.1, date.2), Some(expected), "{date:?}");
        }
        assert_eq!(days(2000, 13, 1), None);
    }
}
