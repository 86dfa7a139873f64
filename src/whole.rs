//! A file that is written whole or not at all, for root alone: who reads it meanwhile, or after an end in the middle, finds the old one or none.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Writes the file `path`, whose folder is made if it is not there.
///
/// # Errors
/// It is not written, and what was there is left.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A temporary file has mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(contents)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_its_owner_reads_it_and_nothing_else_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("kvmha/notes/web1");
        for text in ["old", "new"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::create_dir(root.path().join("folder")).unwrap();
        assert!(write(&root.path().join("folder"), b"new").is_err());
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!((left(path.parent().unwrap()), left(root.path())), (1, 2));
    }
}
