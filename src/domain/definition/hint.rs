//! The guest's name in a definition that is not understood as a whole: what can be seen of it up to where it breaks off.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The name that a definition gives its guest, if all of it is there. It need not be well-formed behind it, nor declare its prefixes.
pub(crate) fn name(text: &[u8]) -> Option<String> {
    let mut reader = Reader::from_reader(text);
    reader.config_mut().check_end_names = false;
    let (mut open, mut name): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
    loop {
        let event = reader.read_event().ok()?;
        let is_name = open.iter().map(Vec::as_slice).eq([&b"domain"[..], b"name"]);
        match event {
            Event::Start(tag) => open.push(tag.name().as_ref().to_vec()),
            Event::End(_) if is_name => return (!name.is_empty()).then(|| decoded(name)),
            Event::End(_) => drop(open.pop()),
            Event::Text(part) if is_name => name.extend_from_slice(&part),
            Event::CData(part) if is_name => name.extend_from_slice(&part),
            Event::GeneralRef(part) if is_name => {
                let character = match &*part {
                    b"amp" => '&',
                    b"lt" => '<',
                    b"gt" => '>',
                    b"quot" => '"',
                    b"apos" => '\'',
                    _ => part.resolve_char_ref().ok()??,
                };
                name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// As UTF-8, or, where it is not that, as ISO-8859-1.
fn decoded(name: Vec<u8>) -> String {
    String::from_utf8(name).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_can_be_seen() {
        for (text, seen) in [
            (&b"<domain type='kvm'><name>web1</name><qemu:commandline/></domain>"[..], "web1"),
            (b"<?xml version='1.0'?>\n<!-- <name>old</name> -->\n<domain>\n <uuid>x</uuid>\n <name>web1</name>\n <dev", "web1"),
            (b"<domain><metadata><x:vm><name>other</name></x:vm></metadata><name>web1</name>", "web1"),
            (b"<domain><name>a&amp;b &lt;c&gt;&#33;</name>", "a&b <c>!"),
            (b"<?xml version='1.0' encoding='ISO-8859-1'?><domain><name>M\xfcller</name></domain>", "M\u{fc}ller"),
            (b"<!DOCTYPE d [<!ENTITY a 'b'>]><domain><name>web1</name></domain>", "web1"),
        ] {
            assert_eq!(name(text).as_deref(), Some(seen), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_name_that_cannot() {
        for text in [
            &b""[..],
            b"not xml",
            b"\0\0\0",
            b"<domain/>",
            b"<domain><name/></domain>",
            b"<domain><name></name></domain>",
            b"<domain><name>web",
            b"<domain><name>web1</na",
            b"<domain><!-- <name>web1</name></domain>",
            b"<domain><name>&web;1</name></domain>",
            b"<network><name>web1</name></network>",
            b"<name>web1</name>",
        ] {
            assert_eq!(name(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
