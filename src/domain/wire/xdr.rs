//! What libvirt's messages are made of: XDR (RFC 4506), as far as seven calls need it. Nothing here can panic or allocate more than it is given.

use crate::uuid;

/// Everything is made of units of four bytes; a string is filled up with zeros.
const UNIT: usize = 4;

/// Puts values one after another.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn signed(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: &[u8; uuid::LENGTH]) {
        self.0.extend_from_slice(value);
    }

    /// A string, as it is; the caller sees to it that it is short.
    pub(super) fn string(&mut self, value: &str) {
        self.number(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(UNIT), 0);
    }
}

/// Takes values one after another; `None` when what is left is not such a value.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*value)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn signed(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Option<[u8; uuid::LENGTH]> {
        self.array()
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (padded, rest) = self.0.split_at_checked(length.checked_next_multiple_of(UNIT)?)?;
        let (value, padding) = padded.split_at_checked(length)?;
        self.0 = rest;
        padding.iter().all(|&byte| byte == 0).then_some(value)
    }

    /// A value that may be left out: a number 0 or 1 says which. The outer `None` is a mistake, the inner one "left out".
    pub(super) fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.number()? {
            0 => Some(None),
            1 => value(self).map(Some),
            _ => None,
        }
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.signed(-1);
        writer.string("web12");
        writer.uuid(&[7; uuid::LENGTH]);
        writer.number(1);
        writer.string("");
        assert_eq!(writer.0.len(), 4 + 4 + 8 + 16 + 4 + 4);
        let mut reader = Reader(&writer.0);
        assert_eq!(reader.signed(), Some(-1));
        assert_eq!(reader.string(), Some(&b"web12"[..]));
        assert_eq!(reader.end(), None);
        assert_eq!(reader.uuid(), Some([7; uuid::LENGTH]));
        assert_eq!(reader.optional(Reader::string), Some(Some(&b""[..])));
        assert_eq!(reader.end(), Some(()));
        assert_eq!(reader.number(), None);
    }

    #[test]
    fn lengths_and_flags_are_checked() {
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff]).string(), None, "longer than anything");
        assert_eq!(Reader(&[0, 0, 0, 2, b'a', b'b']).string(), None, "padding cut off");
        assert_eq!(Reader(&[0, 0, 0, 2, b'a', b'b', 0, 1]).string(), None, "padding is not zero");
        assert_eq!(Reader(&[0, 0, 0, 2]).optional(Reader::number), None, "neither 0 nor 1");
    }
}
