//! Entries of the fuzzing: what is read about a guest.
#![allow(clippy::unwrap_used, reason = "as in a test")]

use super::definition::{Definition, Identity, hint};
use super::migration::defects::Way;
use super::migration::policy::Policy;
use super::migration::preflight;
use super::options::Options;
use super::process::{self, Process, Status};
use super::record::{self, Record};
use super::resources;
use super::status_file::StatusFile;
use super::subnet::Subnet;
use super::uri::{self, Uri};
use super::{agent, files, host, locks, scope};
use crate::fuzzed::text;
use crate::uuid;
use std::path::Path;

pub use super::wire::fuzzed::wire;

/// The definition of a guest, and all that is read of it here.
pub fn definition(data: &[u8]) {
    // The mark at its end is no part of it, and is the same after it was made once more.
    let bare = files::bare(data);
    assert_eq!(files::bare(&files::marked(bare)), bare);
    text(data, |text| drop((host::owner(text), locks::image(text), locks::locks_devices(text, text), StatusFile::parse(text, 4711))));
    assert_ne!(hint::name(data).as_deref(), Some(""));
    let Ok(definition) = Definition::parse(Path::new("/srv/web1.xml"), data.to_vec()) else { return };
    let identity = &definition.identity;
    assert!(!identity.name.is_empty());
    assert!(identity.uuid.as_ref().is_none_or(|uuid| uuid::canonical(uuid).as_ref() == Some(uuid)));
    let (all, writable) = (definition.disks(), definition.writable_disks());
    assert!(writable.iter().all(|disk| all.contains(disk)));
    preflight::fuzzed::needs(&definition.xml, definition.platform());
    let _ = Way::of(&definition.xml, Policy::Plain, false);
    let _ = resources::Needs::of(&definition.xml);
    drop((agent::devices(&definition.xml), agent::is_closed(&definition.xml)));
    let _ = locks::unlocked(&definition.xml, &|_, volume| Ok(volume.into()));
    let _ = crate::storage::item::items(&definition.xml);
}

/// The state file of a resource, and the name of one.
pub fn state_file(data: &[u8]) {
    text(data, |text| {
        assert_eq!(record::instance_name(&record::file_name(text)).as_deref(), Some(text));
        let _ = record::instance_name(text);
        for look in text.lines().filter_map(files::parse) {
            assert_eq!(files::parse(&files::told(look)), Some(look));
        }
    });
    let Ok(record) = serde_json::from_slice::<Record>(data) else { return };
    let _ = record.trace();
    assert_eq!(serde_json::from_slice::<Record>(&serde_json::to_vec(&record).unwrap()).unwrap(), record);
}

/// A libvirt URI, an address for the guest's memory, a network.
pub fn uri(data: &[u8]) {
    text(data, |text| {
        if let Ok(uri) = Uri::parse(text) {
            assert_eq!(Uri::parse(&uri.to_string()), Ok(uri.clone()));
            let other = uri.on("node2", None, None);
            assert!(!other.is_local() && other.is_on("node2"));
            assert!(!uri.is_own_socket() || uri.is_local());
            let _ = super::wire::socket(&uri);
        }
        if let Ok(network) = Subnet::parse(text) {
            assert_eq!(Subnet::parse(&network.to_string()), Ok(network));
        }
        preflight::fuzzed::place(text);
        let _ = uri::on_network(text, "-mig");
    });
}

/// The words of `migrate_options`.
pub fn migrate_options(data: &[u8]) {
    text(data, |text| {
        if let Ok(options) = Options::parse(text) {
            let _ = options.parameters();
            // Once more is the same.
            assert_eq!(Options::parse(&format!("{text} {text}")), Ok(options));
        }
    });
}

/// The command line of a process, and what the kernel says of it.
pub fn command_line(data: &[u8]) {
    text(data, |text| {
        Status::parse(text);
        scope::may_be_of(text, "web1");
        scope::may_be_of("0::/machine.slice/machine-qemu\\x2d3\\x2dweb1.scope\n", text);
        scope::pid_files_guest(Path::new(text));
    });
    let process = Process { directory: "/nonexistent".into(), line: data.to_vec() };
    let (name, uuid) = ([b"-name", b"-uuid"]).map(|word| process::option(data, word)).into();
    let (Some(name), Some(uuid)) = (name, uuid) else { return };
    assert!(process.is_emulator());
    // The UUID decides, whatever the name is.
    let uuid = String::from_utf8_lossy(uuid).to_ascii_lowercase();
    assert!(process.runs(&Identity { name: "another".into(), uuid: Some(uuid) }));
    process::guest_name(name);
}
