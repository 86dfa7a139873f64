//! What fuzzing gives bytes to: an entry for each parser of what others wrote, told from the outside by name (`tests/fuzz`).
//!
//! An entry panics if the parser breaks a promise, beyond that it never panics itself: what was understood is written and understood the
//! same, a name is never empty, "there is no such guest" is said only when a daemon said it.

pub use crate::cli::fuzzed::fence_devices;
pub use crate::cluster::fuzzed::{cib, crm_mon, crm_simulate};
pub use crate::domain::fuzzed::{command_line, definition, migrate_options, state_file, uri, wire};
pub use crate::domain::migration::preflight::fuzzed::certificate;
pub use crate::fence::fuzzed::{fence_input, fence_note};
pub use crate::ocf::fuzzed::environment;
pub use crate::storage::fuzzed::{mountinfo, qemu_img, servers};

/// Gives `read` the bytes if they are text, as which most parsers get what they read.
pub(crate) fn text(data: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
}

/// Whether this is well-formed XML, by the parser that all of this program uses.
pub(crate) fn is_xml(text: &str) -> bool {
    roxmltree::Document::parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Its name and what it does.
    type Target = (&'static str, fn(&[u8]));

    macro_rules! targets {
        ($($name:ident)*) => { &[$((stringify!($name), super::$name as fn(&[u8]))),*] };
    }

    const TARGETS: &[Target] = targets!(
        certificate cib command_line crm_mon crm_simulate definition environment fence_devices fence_input fence_note migrate_options
        mountinfo qemu_img servers state_file uri wire
    );

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// The seeds of the fuzzing, and among them each input that once broke something.
    #[test]
    fn each_target_and_its_seeds() {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&room.join("targets")), known);
        assert_eq!(names(&room.join("seeds")), known);
        for (name, take) in TARGETS {
            let seeds: Vec<_> = fs::read_dir(room.join("seeds").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(!seeds.is_empty(), "{name}");
            seeds.iter().for_each(|seed| take(&fs::read(seed).unwrap()));
        }
    }
}
