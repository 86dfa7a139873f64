//! The escaping writer that both metadata documents use: indentation, attributes in order, one text or children per element.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use std::io;

/// A document being written. Errors cannot occur: it is written to memory.
pub struct Document {
    writer: Writer<Vec<u8>>,
}

impl Document {
    /// An XML 1.0 document; `doctype` is what follows `<!DOCTYPE `.
    #[must_use]
    pub fn new(doctype: Option<&str>) -> Self {
        let mut document = Self { writer: Writer::new_with_indent(Vec::new(), b' ', 2) };
        // Without an encoding, which is UTF-8 then: crmsh gives the text to lxml as a string, and lxml refuses one that names an encoding.
        document.event(Event::Decl(BytesDecl::new("1.0", None, None)));
        if let Some(text) = doctype {
            document.event(Event::DocType(BytesText::from_escaped(text)));
        }
        document
    }

    /// An element with children, written by `children`.
    pub fn element(&mut self, name: &str, attributes: &[(&str, &str)], children: impl FnOnce(&mut Self)) {
        self.event(Event::Start(start(name, attributes)));
        children(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// An element without children.
    pub fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.event(Event::Empty(start(name, attributes)));
    }

    /// An element with a text.
    pub fn text(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        let _ = self.writer.create_element(name).with_attributes(attributes.iter().copied()).write_text_content(BytesText::new(text));
    }

    /// The document, with a newline at its end.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.writer.into_inner();
        bytes.push(b'\n');
        bytes
    }

    fn event(&mut self, event: Event<'_>) {
        let result: io::Result<()> = self.writer.write_event(event);
        debug_assert!(result.is_ok(), "writing to memory");
    }
}

fn start<'a>(name: &'a str, attributes: &[(&'a str, &'a str)]) -> BytesStart<'a> {
    BytesStart::new(name).with_attributes(attributes.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped() {
        let mut document = Document::new(None);
        document.element("a", &[("b", "\"<&>\"")], |a| {
            a.text("c", &[], "1 < 2 & \"x\"");
            a.empty("d", &[]);
        });
        let text = String::from_utf8(document.finish()).unwrap();
        let tree = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(tree.root_element().attribute("b"), Some("\"<&>\""));
        assert_eq!(tree.root_element().first_element_child().and_then(|c| c.text()), Some("1 < 2 & \"x\""));
        assert!(text.ends_with("</a>\n"));
    }
}
