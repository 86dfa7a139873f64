//! The definition of a guest: the libvirt XML in the file `config` names. Read and understood here; written by `ocf/keeping.rs`.

pub(super) mod hint;

use super::{Connection, Error, Kind};
use crate::deadline::Deadline;
use crate::program::{self, Outcome};
use crate::uuid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use super::platform::Platform;

/// The longest definition that is read, in bytes: libvirt takes no longer text over its protocol (`REMOTE_STRING_MAX` and
/// `VIR_NET_MESSAGE_STRING_MAX` in libvirt's `src/rpc/virnetprotocol.x`).
pub const LONGEST: u64 = 4 * 1024 * 1024;

/// The word by which this program calls itself to read a definition in a process of its own.
pub const READ_WORD: &str = "read-definition";

/// Codes of the reading child: what is there is no definition, or is not there; and: reading failed, which may pass.
pub const UNUSABLE: u8 = 1;
/// See [`UNUSABLE`].
pub const UNREADABLE: u8 = 3;

/// Which guest: what `config`, the state file or the daemon says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// libvirt's name.
    pub name: String,
    /// In lower case with dashes. Absent if the definition has none: libvirt then makes one at each start.
    pub uuid: Option<String>,
}

impl Identity {
    /// Whether the guest that was seen under this name, with this UUID, is another one.
    #[must_use]
    pub fn is_another(&self, uuid: &str) -> bool {
        self.uuid.as_ref().is_some_and(|wanted| wanted != uuid)
    }
}

/// A definition that was read.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Where it is.
    pub path: PathBuf,
    /// Which guest it defines.
    pub identity: Identity,
    /// The text.
    pub xml: String,
}

impl Definition {
    /// That of the guest called `name` as it runs at `host`; `None` if it does not.
    ///
    /// # Errors
    /// libvirt's.
    pub fn running(host: &Connection, name: &str, deadline: &Deadline) -> Result<Option<Self>, Error> {
        let Some(guest) = host.guest(name, deadline)? else { return Ok(None) };
        let xml = guest.call("asking for the definition of", deadline, |domain| Ok(domain.xml_desc(0)?))?;
        Self::parse(Path::new(name), xml.into_bytes()).map(Some)
    }

    /// Reads and understands the definition at `path`.
    ///
    /// # Errors
    /// `Definition` if the file cannot be had or is no definition of a guest; `TimedOut` if it could not be read in time.
    pub fn read(path: &Path, deadline: &Deadline) -> Result<Self, Error> {
        Self::parse(path, Self::text(path, deadline)?)
    }

    /// The name that the file at `path` gives its guest, as far as it can be seen where [`Definition::read`] does not understand it: one that is cut
    /// off, or of which libvirt thinks otherwise, which takes a prefix that was not declared, and other character sets.
    #[must_use]
    pub fn name_in(path: &Path, deadline: &Deadline) -> Option<String> {
        hint::name(&Self::text(path, deadline).ok()?)
    }

    /// What is in the file at `path`.
    ///
    /// It is read by a child process, since it may lie on storage that hangs: a process with a thread stuck in the kernel cannot exit, and
    /// Pacemaker would wait for it. A child that is stuck is left behind.
    ///
    /// # Errors
    /// As for [`Definition::read`].
    pub(in crate::domain) fn text(path: &Path, deadline: &Deadline) -> Result<Vec<u8>, Error> {
        let file = path.display();
        let finished = program::run_self(&[OsStr::new(READ_WORD), path.as_os_str()], deadline)
            .map_err(|error| Error::new(Kind::Internal, format!("config {file}: reader cannot be started: {error}")))?;
        match finished.outcome {
            Outcome::Late => {
                Err(Error::new(Kind::TimedOut, format!("config {file} could not be read in time, its storage does not answer")))
            }
            Outcome::Exited(0) => Ok(finished.stdout),
            Outcome::Exited(code) if code != i32::from(UNUSABLE) => {
                let text = finished.complaint();
                Err(Error::new(Kind::Internal, format!("config {file} cannot be read at the moment (code {code}): {text}")))
            }
            Outcome::Exited(_) => Err(Error::new(Kind::Definition, format!("config {file}: {}", finished.complaint()))),
        }
    }

    /// Understands the text of the definition at `path`.
    ///
    /// # Errors
    /// `Definition`: not UTF-8, not XML, a document type (which could define entities without end), no `domain`, no name.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let wrong = |text: &str| Error::new(Kind::Definition, format!("config {}: {text}", path.display()));
        let xml = String::from_utf8(bytes).map_err(|_| wrong("not valid UTF-8"))?;
        let identity = identity(&xml).map_err(|text| wrong(&text))?;
        Ok(Self { path: path.to_owned(), identity, xml })
    }

    /// What the guest needs of its host.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::of(&self.xml)
    }

    /// The files that its disks are, images and block devices.
    #[must_use]
    pub fn disks(&self) -> Vec<PathBuf> {
        let Ok(document) = roxmltree::Document::parse(&self.xml) else { return Vec::new() };
        sources(document.descendants().filter(|node| node.has_tag_name("disk")))
    }

    /// As [`Definition::disks`], but only those that the guest can write to.
    #[must_use]
    pub fn writable_disks(&self) -> Vec<PathBuf> {
        let Ok(document) = roxmltree::Document::parse(&self.xml) else { return Vec::new() };
        sources(writable(&document))
    }

    /// The volumes of libvirt's pools that it can write to, each by its pool's name and its own.
    #[must_use]
    pub fn writable_volumes(&self) -> Vec<(String, String)> {
        let Ok(document) = roxmltree::Document::parse(&self.xml) else { return Vec::new() };
        let sources = writable(&document).filter_map(|disk| disk.children().find(|child| child.has_tag_name("source")));
        sources.filter_map(|source| Some((source.attribute("pool")?.to_owned(), source.attribute("volume")?.to_owned()))).collect()
    }

    /// The disks that only this guest can write to, if there are any and all of them are files or devices of this host by their paths. One
    /// without a medium is none.
    #[must_use]
    pub fn local_disks(&self) -> Option<Vec<PathBuf>> {
        let document = roxmltree::Document::parse(&self.xml).ok()?;
        let has = |disk: &roxmltree::Node<'_, '_>, name: &str| disk.children().any(|child| child.has_tag_name(name));
        let own = || writable(&document).filter(|disk| has(disk, "source") && !has(disk, "shareable"));
        let (disks, count) = (sources(own()), own().count());
        (count > 0 && disks.len() == count).then_some(disks)
    }
}

fn writable<'a>(document: &'a roxmltree::Document<'a>) -> impl Iterator<Item = roxmltree::Node<'a, 'a>> {
    let disks = document.descendants().filter(|node| node.has_tag_name("disk"));
    disks.filter(|disk| disk.attribute("device") != Some("cdrom") && !disk.children().any(|child| child.has_tag_name("readonly")))
}

fn sources<'a>(disks: impl Iterator<Item = roxmltree::Node<'a, 'a>>) -> Vec<PathBuf> {
    let sources = disks.filter_map(|disk| disk.children().find(|child| child.has_tag_name("source")));
    sources.filter_map(|source| source.attribute("file").or_else(|| source.attribute("dev"))).map(PathBuf::from).collect()
}

/// The identity a definition gives.
fn identity(xml: &str) -> Result<Identity, String> {
    let document = roxmltree::Document::parse(xml).map_err(|error| match error {
        roxmltree::Error::DtdDetected => "a document type definition is not allowed".to_owned(),
        error => format!("not well-formed XML: {error}"),
    })?;
    let root = document.root_element();
    if root.tag_name().name() != "domain" {
        return Err(format!("not the definition of a guest: the root element is <{}>, not <domain>", root.tag_name().name()));
    }
    let child = |name: &str| root.children().find(|node| node.has_tag_name(name));
    let name = child("name").and_then(|node| node.text()).unwrap_or_default();
    if name.is_empty() {
        return Err("the guest has no <name>".into());
    }
    let uuid = match child("uuid").and_then(|node| node.text()) {
        Some(text) => Some(uuid::canonical(text).ok_or_else(|| format!("<uuid> {:?} is no UUID", text.trim()))?),
        None => None,
    };
    Ok(Identity { name: name.to_owned(), uuid })
}

/// Whether an error of [`copy`] says something about the file, and not about the storage it is on.
#[must_use]
pub fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, Other, PermissionDenied};
    // A socket cannot be opened at all: "no such device or address".
    error.raw_os_error() == Some(nix::libc::ENXIO)
        || matches!(error.kind(), InvalidFilename | NotFound | NotADirectory | IsADirectory | PermissionDenied | Other)
}

/// The child's side of [`Definition::read`]: copies the file to `out`.
///
/// # Errors
/// What is wrong with the file.
pub fn copy(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let other = |text: &str| io::Error::other(text.to_owned());
    // A FIFO must not be waited for.
    let file = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(other("is a directory"));
    }
    if !metadata.is_file() {
        return Err(other("is not a regular file"));
    }
    if metadata.len() > LONGEST {
        return Err(other("is larger than 4 MiB, the longest text libvirt takes"));
    }
    if metadata.len() == 0 {
        return Err(other("is empty"));
    }
    io::copy(&mut file.take(LONGEST), out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(xml: &str) -> Result<String, String> {
        identity(xml).map(|identity| identity.name)
    }

    /// It may be anybody's file: it is read or refused, and nothing else happens.
    #[test]
    fn mangled_definitions() {
        let sample = "<?xml version='1.0'?><!-- a guest --><domain type='kvm'><name>web1</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>\
            <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/q</emulator><disk type='file' device='disk'>\
            <source file='/srv/&lt;a&gt;.img'/><target dev='vda'/></disk><disk type='file' device='cdrom'><source file='/b'/></disk></devices></domain>";
        let mut counts = [0; 2];
        crate::mangled::mangled(&[sample], 4000, |bytes| {
            let read = Definition::parse(Path::new("/x.xml"), bytes.to_vec());
            let _ = hint::name(bytes);
            counts[usize::from(read.is_ok())] += 1;
            match read {
                Ok(definition) => {
                    assert!(!definition.identity.name.is_empty());
                    drop((definition.platform(), definition.disks(), definition.writable_disks()));
                }
                Err(error) => assert_eq!(error.kind, Kind::Definition),
            }
        });
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }

    #[test]
    fn names_as_the_incumbent_found_them_and_those_it_did_not() {
        let cases = [
            ("<domain type='kvm'>\n  <name>web1</name>\n</domain>", "web1"),
            ("<domain><name>web1</name></domain>", "web1"),
            ("<domain><name>a&amp;b</name> tail</domain>", "a&b"),
            ("<domain><name>a b; rm -rf $HOME `id` 'x' \"y\"</name></domain>", "a b; rm -rf $HOME `id` 'x' \"y\""),
            ("<domain><metadata><x:vm xmlns:x='u'><name>other</name></x:vm></metadata><name>web1</name></domain>", "web1"),
            ("<?xml version='1.0'?><!-- <name>old</name> --><domain><!-- <name>old</name> --><name>web1</name></domain>", "web1"),
        ];
        for (xml, name) in cases {
            assert_eq!(name_of(xml).as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_no_definition() {
        let bomb = "<!DOCTYPE d [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><domain><name>&b;</name></domain>";
        for (xml, text) in [
            ("", "not well-formed"),
            ("not xml", "not well-formed"),
            ("<domain><name>web1</name>", "not well-formed"),
            ("<network><name>web1</name></network>", "root element is <network>"),
            ("<domain/>", "no <name>"),
            ("<domain><name/></domain>", "no <name>"),
            ("<domain><name>a</name><uuid>1234</uuid></domain>", "no UUID"),
            (bomb, "document type"),
        ] {
            let error = identity(xml).unwrap_err();
            assert!(error.contains(text), "{xml}: {error}");
        }
    }

    #[test]
    fn disks_and_those_that_are_written() {
        let xml = "<domain><name>a</name><devices>\
            <disk type='file'><source file='/a.img'/></disk>\
            <disk type='file' device='cdrom'><source file='/b.iso'/></disk>\
            <disk type='file'><source file='/c.img'/><readonly/></disk>\
            <disk type='block'><source dev='/dev/d'/></disk>\
            <disk type='volume'><source pool='p' volume='f'/></disk>\
            <disk type='volume'><source pool='p' volume='g'/><readonly/></disk>\
            <disk type='network'><source protocol='rbd' name='e'/></disk></devices></domain>";
        let definition = Definition::parse(Path::new("/a.xml"), xml.into()).unwrap();
        assert_eq!(definition.writable_volumes(), [("p".to_owned(), "f".to_owned())]);
        assert_eq!(definition.disks(), ["/a.img", "/b.iso", "/c.img", "/dev/d"].map(PathBuf::from));
        assert_eq!(definition.writable_disks(), ["/a.img", "/dev/d"].map(PathBuf::from));
    }
}
