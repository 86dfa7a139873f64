//! The copy-on-write image of a guest (`backingfile`): made on top of its base by qemu-img, filled by virt-copy-in.

use super::files;
use super::locks;
use super::{Definition, Error, Kind, Result};
use crate::deadline::Deadline;
use crate::log;
use crate::program::{self, Outcome};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How an overlay is made.
#[derive(Clone, Debug)]
pub struct Recipe<'a> {
    /// What it is made on.
    pub base: &'a Path,
    /// Whether one that is there is replaced.
    pub stateless: bool,
    /// What is copied to its root.
    pub copies: &'a [PathBuf],
    /// The program qemu-img.
    pub qemu_img: &'a Path,
    /// The program virt-copy-in; needed if something is copied.
    pub copy_in: Option<&'a Path>,
}

/// Where the overlay of a definition is: beside it, named like it up to the first dot.
///
/// `ocf:heartbeat:VirtualDomain` cuts the whole path at its first dot, so that `/etc/vm.d/a.xml` gives `/etc/vm.qcow2`; where the
/// definition has that one as a disk, it is meant.
#[must_use]
pub fn place(definition: &Definition) -> PathBuf {
    let path = &definition.path;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let right = path.with_file_name(format!("{stem}.qcow2"));
    let text = path.to_string_lossy();
    let theirs = PathBuf::from(format!("{}.qcow2", text.split('.').next().unwrap_or_default()));
    let disks = definition.disks();
    if disks.contains(&theirs) && !disks.contains(&right) { theirs } else { right }
}

/// Makes the overlay if it is to be made. It appears whole, with everything copied in, or not at all.
///
/// # Errors
/// A program failed: the text has what it said. An overlay that was there is as it was then.
pub fn prepare(definition: &Definition, recipe: &Recipe<'_>, deadline: &Deadline) -> Result<()> {
    let place = place(definition);
    let there = files::look(&[&place], deadline)?.first().copied().flatten().is_some_and(|look| look.length > 0);
    if there && !recipe.stateless {
        return Ok(());
    }
    if there {
        insist_on_its_lock(&place, recipe, deadline)?;
    }
    let format = format(recipe, deadline)?;
    let mut new = place.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let (base, image) = (recipe.base.as_os_str(), new.as_os_str());
    let words =
        ["create".as_ref(), "-q".as_ref(), "-f".as_ref(), "qcow2".as_ref(), "-F".as_ref(), OsStr::new(&format), "-b".as_ref(), base, image];
    said(recipe.qemu_img, &words, deadline)
        .map_err(|error| error.context(format_args!("image {} on {}", place.display(), recipe.base.display())))?;
    if let (Some(copy_in), false) = (recipe.copy_in, recipe.copies.is_empty()) {
        let mut words: Vec<&OsStr> = vec!["--format=qcow2".as_ref(), "-a".as_ref(), image];
        words.extend(recipe.copies.iter().map(|path| path.as_os_str()));
        words.push("/".as_ref());
        said(copy_in, &words, deadline).map_err(|error| error.context("copyindirs"))?;
    }
    files::rename(&new, &place, deadline)?;
    log::info(format_args!("image {} made on {}", place.display(), recipe.base.display()));
    Ok(())
}

/// An emulator that runs elsewhere has the image open, and its lock would refuse this start; a new image in its place has none.
///
/// # Errors
/// The lock is held, in QEMU's words; or the image cannot be looked at.
fn insist_on_its_lock(place: &Path, recipe: &Recipe<'_>, deadline: &Deadline) -> Result<()> {
    let words = ["info".as_ref(), "-f".as_ref(), "qcow2".as_ref(), place.as_os_str()];
    said(recipe.qemu_img, &words, deadline).map(drop).map_err(|error| {
        let error = error.context(format_args!("image {}", place.display()));
        if locks::is_held(&error) { error } else { Error::new(error.kind, format!("{}; remove it to have it made anew", error.text)) }
    })
}

/// The format of the base: qemu-img wants to be told, so that nothing the guest writes can ever change what it is taken for.
fn format(recipe: &Recipe<'_>, deadline: &Deadline) -> Result<String> {
    let words = ["info".as_ref(), "-U".as_ref(), "--output=json".as_ref(), recipe.base.as_os_str()];
    let text =
        said(recipe.qemu_img, &words, deadline).map_err(|error| error.context(format_args!("backingfile {}", recipe.base.display())))?;
    let about: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let format = about.get("format").and_then(|format| format.as_str());
    format
        .map(Into::into)
        .ok_or_else(|| Error::new(Kind::Refused, format!("backingfile {}: qemu-img does not know its format", recipe.base.display())))
}

/// Runs a program that must succeed; its standard output.
fn said(program: &Path, words: &[&OsStr], deadline: &Deadline) -> Result<String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let finished = program::run(program, words, deadline).map_err(|error| Error::new(Kind::Refused, format!("{name}: {error}")))?;
    match finished.outcome {
        Outcome::Exited(0) => Ok(String::from_utf8_lossy(&finished.stdout).into_owned()),
        Outcome::Exited(_) => Err(Error::new(Kind::Refused, format!("{name} {}: {}", finished.outcome, finished.complaint()))),
        Outcome::Late => Err(Error::new(Kind::TimedOut, format!("{name} {}", finished.outcome))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_overlay_is() {
        let cases = [
            ("/srv/vms/web1.xml", "", "/srv/vms/web1.qcow2"),
            ("/srv/vms/web1.prod.xml", "", "/srv/vms/web1.qcow2"),
            ("/etc/vm.d/a.xml", "", "/etc/vm.d/a.qcow2"),
            ("/etc/vm.d/a.xml", "/etc/vm.d/a.qcow2", "/etc/vm.d/a.qcow2"),
            ("/etc/vm.d/a.xml", "/etc/vm.qcow2", "/etc/vm.qcow2"),
        ];
        for (config, disk, overlay) in cases {
            let xml = format!("<domain><name>a</name><devices><disk><source file='{disk}'/></disk></devices></domain>");
            let definition = Definition::parse(Path::new(config), xml.into_bytes()).unwrap();
            assert_eq!(place(&definition), Path::new(overlay), "{config} {disk}");
        }
    }
}
