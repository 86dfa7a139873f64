//! Entries of the fuzzing: what the kernel, `qemu-img` and a definition say of storage.
#![allow(clippy::unwrap_used, reason = "as in a test")]

use super::item::{Item, Role, Source};
use super::look::Facts;
use super::{chain, mounts, servers};
use crate::fuzzed::text;

/// The kernel's table of mounts.
pub fn mountinfo(data: &[u8]) {
    text(data, |text| {
        for mount in text.lines().filter_map(mounts::parse) {
            assert!(mount.options.split(',').all(|option| option.contains('=') || mount.has(option)));
            let _ = mount.value("vers");
        }
    });
}

/// What `qemu-img` says of an image, and a child of this program of a file.
pub fn qemu_img(data: &[u8]) {
    let item = Item {
        name: "vda".into(),
        role: Role::Disk,
        source: Source::Path("/srv/web1.qcow2".into()),
        shareable: false,
        cache: None,
        error_policy: None,
        chain_unknown: true,
        optional: false,
        fleeting: false,
    };
    for based in chain::parse(&item, data).into_iter().flatten() {
        assert!(based.role == Role::Backing && !based.chain_unknown);
    }
    if let Ok(facts) = serde_json::from_slice::<Facts>(data) {
        assert_eq!(serde_json::from_slice::<Facts>(&serde_json::to_vec(&facts).unwrap()).unwrap(), facts);
    }
}

/// A server of a disk, and a table of hosts.
pub fn servers(data: &[u8]) {
    text(data, |text| {
        let host = text.lines().next().unwrap_or_default();
        servers::port(host);
        assert!(host.contains(servers::name(host)));
        servers::addresses(text, host);
        let _ = super::nonce::made(host);
    });
}
