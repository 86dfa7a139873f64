//! What an image is based on, where the definition does not say: `qemu-img` reads it.

use super::item::{Item, Role, Source};
use crate::deadline::Deadline;
use crate::program::{self, Outcome};
use serde::Deserialize;
use std::path::Path;

/// One image of the chain, as `qemu-img info --output=json` writes it.
#[derive(Deserialize)]
struct Image {
    /// The file's name, or QEMU's own word for something else.
    filename: String,
}

/// What the image of `item` at `path`, which was seen to answer, is based on, from the next to the last.
///
/// # Errors
/// Why that cannot be told.
pub fn read(item: &Item, path: &Path, deadline: &Deadline) -> Result<Vec<Item>, String> {
    // -U: a guest may have it open.
    let words = ["info".as_ref(), "-U".as_ref(), "--backing-chain".as_ref(), "--output=json".as_ref(), path.as_os_str()];
    let finished = program::run("qemu-img", &words, deadline).map_err(|error| format!("qemu-img cannot be started: {error}"))?;
    match finished.outcome {
        Outcome::Exited(0) => parse(item, &finished.stdout),
        Outcome::Exited(_) => Err(finished.complaint()),
        Outcome::Late => Err("what it is based on does not answer".to_owned()),
    }
}

pub(super) fn parse(item: &Item, text: &[u8]) -> Result<Vec<Item>, String> {
    let images: Vec<Image> = serde_json::from_slice(text).map_err(|error| format!("the answer of qemu-img makes no sense: {error}"))?;
    let role = if item.role == Role::Media { Role::Media } else { Role::Backing };
    let based = images.into_iter().skip(1).map(|image| {
        let source = if image.filename.starts_with('/') { Source::Path(image.filename.into()) } else { Source::Other(image.filename) };
        Item { role, source, chain_unknown: false, ..item.clone() }
    });
    Ok(based.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::item::items;

    const XML: &str = "<domain><devices><disk type='file'><driver name='qemu' type='qcow2'/><source file='/srv/a.qcow2'/>\
        <target dev='vda'/></disk></devices></domain>";

    #[test]
    fn a_chain_of_files_and_others() {
        let item = &items(XML)[0];
        assert!(item.chain_unknown);
        let text = br#"[{"filename": "/srv/a.qcow2", "format": "qcow2"}, {"filename": "/srv/b.img"}, {"filename": "nbd://store/c"}]"#;
        let based = parse(item, text).unwrap();
        let said: Vec<String> = based.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["vda (/srv/b.img)", "vda (nbd://store/c)"]);
        assert!(based.iter().all(|item| item.role == Role::Backing && !item.chain_unknown));
        assert!(parse(item, b"[").is_err());
    }
}
