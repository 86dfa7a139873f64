//! Words of a command that a person is to type: the name of a guest may hold what a shell, or virsh, takes for something else.
//!
//! The names of resources need nothing of that: they are ids of XML.

/// Whether no shell sees more in it than the text.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.,:/+=@%".contains(&byte))
}

/// A word for a shell.
pub(super) fn quoted(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A guest, as a word for virsh. virsh reads a bare number as a domain ID; such a guest is named by UUID.
pub(super) fn guest(name: &str, uuid: Option<&str>) -> String {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    quoted(uuid.filter(|_| is_number).unwrap_or(name))
}

/// virsh at this libvirt, which it asks by itself if it is the usual one.
pub(super) fn virsh(uri: &str) -> String {
    if uri == "qemu:///system" { "virsh".to_owned() } else { format!("virsh -c {}", quoted(uri)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("uri=qemu+ssh://root@a:22/system"), "uri=qemu+ssh://root@a:22/system");
        assert_eq!(quoted("a;b"), "'a;b'");
        assert_eq!(quoted("it's $(x)"), "'it'\\''s $(x)'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn words_for_virsh() {
        assert_eq!((guest("R&D", Some("u-u")), guest("web1", None)), ("'R&D'".to_owned(), "web1".to_owned()));
        assert_eq!((guest("5", Some("u-u")), guest("5", None)), ("u-u".to_owned(), "5".to_owned()));
        assert_eq!(virsh("qemu:///system"), "virsh");
        assert_eq!(virsh("qemu:///embed?root=/a b"), "virsh -c 'qemu:///embed?root=/a b'");
    }
}
