//! URIs from what the options say: as they are written, or from addresses as fence_virsh has them.

use super::options::Options;
use crate::domain::Uri;
use crate::domain::ffi::Login;
use crate::percent;

/// A URI for an address, as fence_virsh means it.
pub(super) fn from_address(address: &str, options: &Options) -> String {
    let transport = if options.ssh { "+ssh" } else { "" };
    let user = options.username.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let host = if address.contains(':') && !address.starts_with('[') { format!("[{address}]") } else { address.to_owned() };
    let port = options.ipport.map(|port| format!(":{port}")).unwrap_or_default();
    with_key(&format!("qemu{transport}://{user}{host}{port}/system"), options)
}

/// The URI with what ssh needs: the key and the program, if given, and no questions asked (libvirt `docs/uri.rst`).
pub(super) fn with_key(uri: &str, options: &Options) -> String {
    if !uri.starts_with("qemu+ssh://") {
        return uri.to_owned();
    }
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let key = options.identity_file.as_ref().map(|file| ("keyfile", file.to_string_lossy().into_owned()));
    let program = options.ssh_path.as_ref().map(|path| ("command", path.clone()));
    let mut text = uri.to_owned();
    for (name, value) in [key, program, Some(("no_tty", "1".to_owned()))].into_iter().flatten().filter(|(name, _)| !has(name)) {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&format!("{name}={}", escaped(&value)));
    }
    text
}

/// A value for the query of a URI.
fn escaped(value: &str) -> String {
    percent::encode(value, |byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte))
}

/// Who asks, for a libvirt that wants a name and a password. One that is reached by ssh has asked for a key.
pub(super) fn login(uri: &Uri, options: &Options) -> Login {
    if !matches!(uri.transport(), None | Some("tls" | "tcp" | "unix")) {
        return Login::default();
    }
    Login {
        name: uri.user().map(Into::into).or_else(|| options.username.clone()),
        password: options.password.as_ref().map(|password| password.0.clone()),
    }
}
