//! `%` and two hexadecimal digits for a byte, as in URIs: how it is read. Who writes it knows which bytes stand for themselves.

/// The text that was escaped; `None` if what follows a `%` are no two digits, or what comes out is no text.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        // It takes a sign, too.
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn what_was_escaped_comes_back() {
        for (text, plain) in [("", ""), ("a b", "a b"), ("web%2f1%3A0", "web/1:0"), ("100%25", "100%"), ("%c3%BC", "\u{fc}")] {
            assert_eq!(decode(text).as_deref(), Some(plain), "{text}");
        }
    }

    #[test]
    fn what_nobody_has_escaped_is_refused() {
        for text in ["%", "%4", "a%", "%zz", "%+f", "%-1", "% 1", "%ff", "%\u{fc}", "%1\u{fc}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
