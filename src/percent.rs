//! `%` and two hexadecimal digits for a byte, as in URIs. Who writes it knows which bytes stand for themselves.

/// The text with all bytes escaped but those that are `plain`.
#[must_use]
pub fn encode(text: &str, plain: impl Fn(u8) -> bool) -> String {
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

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
    use super::{decode, encode};

    #[test]
    fn what_was_escaped_comes_back() {
        for (text, plain) in [("", ""), ("a b", "a b"), ("web%2f1%3A0", "web/1:0"), ("100%25", "100%"), ("%c3%BC", "\u{fc}")] {
            assert_eq!(decode(text).as_deref(), Some(plain), "{text}");
            assert_eq!(decode(&encode(plain, |byte| byte.is_ascii_alphanumeric())).as_deref(), Some(plain));
        }
        assert_eq!(encode("a b/\u{fc}", |byte| byte.is_ascii_alphanumeric() || byte == b'/'), "a%20b/%C3%BC");
    }

    #[test]
    fn what_nobody_has_escaped_is_refused() {
        for text in ["%", "%4", "a%", "%zz", "%+f", "%-1", "% 1", "%ff", "%\u{fc}", "%1\u{fc}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
