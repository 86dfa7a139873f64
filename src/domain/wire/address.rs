//! Where the daemon of a URI listens.

use crate::domain::Uri;
use crate::percent;
use std::path::{Path, PathBuf};

/// Where libvirt's sockets are. libvirt says `/var/run`, which is the same place everywhere by now.
const FOLDER: &str = "/run/libvirt";

/// The socket of the daemon that libvirt would ask for a URI, or `None` if that is nothing for this file: a remote host, another driver
/// or transport, the session daemon, a parameter not known here.
///
/// `qemu:///system` and `qemu+unix:///system`, with `socket=` and `mode=`. Without them the choice is that of `remoteGetUNIXSocket` in
/// libvirt's `src/remote/remote_sockets.c`: the socket of the modular daemon if it exists, or else that of libvirtd. When neither
/// exists libvirt's build decides, and asking gives [`Trouble::Unreachable`](super::Trouble::Unreachable) either way.
#[must_use]
pub fn socket(uri: &Uri) -> Option<PathBuf> {
    let names_no_host = uri.user().is_none() && uri.host().is_empty() && uri.port().is_none();
    if !names_no_host || uri.path() != "system" || !matches!(uri.transport(), None | Some("unix")) {
        return None;
    }
    let (mut named, mut mode) = (None, "auto");
    for part in uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=')? {
            ("socket", value) => named = Some(PathBuf::from(plain(value)?)),
            ("mode", value) => mode = value,
            _ => return None,
        }
    }
    let (direct, legacy) = (Path::new(FOLDER).join("virtqemud-sock"), Path::new(FOLDER).join("libvirt-sock"));
    match (named, mode) {
        (Some(named), "auto" | "legacy" | "direct") => named.is_absolute().then_some(named),
        (None, "direct") => Some(direct),
        (None, "auto") if direct.exists() => Some(direct),
        (None, "auto" | "legacy") => Some(legacy),
        _ => None,
    }
}

/// A value of a URI's query without its `%` escapes.
fn plain(value: &str) -> Option<String> {
    percent::decode(value).filter(|text| !text.contains(['\0', '#']))
}
