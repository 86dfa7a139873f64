//! The UUID of a guest, as libvirt reads and writes it.

use std::fmt::Write as _;

/// Bytes of one (`VIR_UUID_BUFLEN` of libvirt's `include/libvirt/libvirt-host.h`).
pub const LENGTH: usize = 16;

/// From its text. Dashes and blanks are ignored wherever they stand, as libvirt does (`virUUIDParse` of its `src/util/viruuid.c`).
#[must_use]
pub fn parse(text: &str) -> Option<[u8; LENGTH]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|digit| *digit != '-' && !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 2 * LENGTH)
}

/// Its text in lower case with dashes, as libvirt writes it.
#[must_use]
pub fn text(uuid: &[u8; LENGTH]) -> String {
    uuid.iter().enumerate().fold(String::new(), |mut text, (at, byte)| {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        // Writing into a string cannot fail.
        let _ = write!(text, "{dash}{byte:02x}");
        text
    })
}

/// A text of one in lower case with dashes.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    parse(text).map(|uuid| self::text(&uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_libvirt_reads_them() {
        let bytes = [0xc7, 0xa5, 0xfd, 0xbd, 0xcd, 0xaf, 0x94, 0x55, 0x92, 0x6a, 0xd6, 0x5c, 0x16, 0xdb, 0x18, 0x09];
        let text = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";
        assert_eq!(super::text(&bytes), text);
        for written in
            [text, " C7A5FDBDCDAF9455926AD65C16DB1809\n", "c7a5fdbd-CDAF 9455-926ad65c16db1809", "-c7-a5fdbdcdaf9455926ad65c16db1809"]
        {
            assert_eq!(parse(written), Some(bytes), "{written:?}");
            assert_eq!(canonical(written).as_deref(), Some(text), "{written:?}");
        }
        for wrong in
            ["", "c7a5fdbd-cdaf-9455-926a-d65c16db180", "c7a5fdbd-cdaf-9455-926a-d65c16db18099", "g7a5fdbd-cdaf-9455-926a-d65c16db1809"]
        {
            assert_eq!(canonical(wrong), None, "{wrong:?}");
        }
        assert_eq!(canonical("c7a5fdbd-cdaf-9455-926a-d65c16db18é"), None);
        assert_eq!(canonical("+7a5fdbd-cdaf-9455-926a-d65c16db1809"), None);
    }
}
