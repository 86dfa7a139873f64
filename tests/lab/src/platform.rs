//! The system that the nodes run: the machine's own, or another release whose root is in a folder.

use crate::init::PATH;
use crate::kernel::cache;
use crate::process::check;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that names a platform for labs that say nothing else.
pub const VARIABLE: &str = "KVMHA_PLATFORM";

/// Debian 13: libvirt 11.3, QEMU 10.0, Pacemaker 3.0.
pub const DEBIAN_13: &str = "debian13";
/// Debian 12: libvirt 9.0, QEMU 7.2, Pacemaker 2.1.5; with nothing in it but what a node needs.
pub const DEBIAN_12: &str = "debian12";

/// What a node needs of its release; in the last line for what the suites fence, dropin and operator do in it.
const PACKAGES: &str = "corosync,pacemaker,pacemaker-cli-utils,resource-agents,pcs,crmsh,libvirt-daemon-system,libvirt-clients,\
                        qemu-system-x86,qemu-utils,qemu-block-extra,iproute2,iptables,busybox-static,procps,util-linux,python3,strace,\
                        openssh-client,openssh-server,openssl,dbus-daemon,polkitd,sasl2-bin,libsasl2-modules,fence-virt,fence-virtd,csync2,libsqlite3-0,dnsmasq-base";
/// The packages of `fence_virsh`, and of the fence agents that the manual names: since Debian 13 each has one of its own, and the old one has the
/// needs of all.
const FENCE_AGENTS: [(&str, &str); 2] =
    [("bookworm", "fence-agents"), ("trixie", "fence-agents-virsh,fence-agents-apc-snmp,fence-agents-ipmilan")];
/// In a root, of what packages it was made.
const MARK: &str = "etc/lab-packages";
/// Seen: 59 s from a near mirror.
const LIMIT: Duration = Duration::from_secs(1200);

/// The platform that the environment names.
#[must_use]
pub fn of_environment() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())
}

/// The root of a platform, made if it is one that the lab can make and it is not there yet; `None` is the machine's own.
pub fn root(platform: Option<&str>) -> Result<Option<PathBuf>> {
    let root = match platform {
        None | Some("host") => return Ok(None),
        Some(DEBIAN_13) => debian("trixie", DEBIAN_13)?,
        Some(DEBIAN_12) => debian("bookworm", DEBIAN_12)?,
        Some(path) if path.starts_with('/') => PathBuf::from(path),
        Some(other) => bail!("there is no platform {other}: host, {DEBIAN_12}, {DEBIAN_13} or the absolute path of a root"),
    };
    ensure!(Path::new(&root).join("usr/sbin/libvirtd").exists(), "{} is not the root of a node: it has no libvirtd", root.display());
    let links = ["bin", "lib", "sbin"].iter().all(|name| fs::read_link(root.join(name)).is_ok());
    ensure!(links, "{} has /bin, /lib and /sbin of its own: they must be links to /usr", root.display());
    Ok(Some(root))
}

/// Makes a root of a Debian release in the cache.
fn debian(suite: &str, name: &str) -> Result<PathBuf> {
    let (cache, _lock) = cache()?;
    let root = cache.join(name);
    let agents = FENCE_AGENTS.iter().find(|(release, _)| *release == suite).map_or("", |(_, packages)| packages);
    let packages = format!("{PACKAGES},{agents}");
    if fs::read_to_string(root.join(MARK)).is_ok_and(|made_of| made_of == packages) {
        return Ok(root);
    }
    let there = PATH.split(':').any(|folder| Path::new(folder).join("mmdebstrap").exists());
    ensure!(there, "not installed: mmdebstrap ({VARIABLE}={name} tests/prepare installs it)");
    let work = tempfile::tempdir_in(&cache)?;
    let new = work.path().join("root");
    let (include, target) = (format!("--include={packages}"), new.to_string_lossy());
    let mut words = vec!["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--aptopt=APT::Install-Recommends \"false\""];
    let leave = ["man", "doc", "locale"].map(|folder| format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    words.extend(leave.iter().map(String::as_str));
    words.extend([include.as_str(), suite, &target]);
    check(&words, LIMIT).with_context(|| format!("failed to make a root of {suite}"))?;
    fs::write(new.join(MARK), packages)?;
    if root.exists() {
        fs::rename(&root, work.path().join("old"))?;
    }
    fs::rename(&new, &root)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_that_are_none() {
        assert_eq!(root(None).unwrap(), None);
        assert_eq!(root(Some("host")).unwrap(), None);
        for wrong in ["debian", "debian13/", "/dev", "."] {
            assert!(root(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
