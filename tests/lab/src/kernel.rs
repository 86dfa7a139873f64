//! What a guest boots: the distribution's cloud kernel, and an initrd with one static program and a few modules.
//!
//! The kernel is downloaded once and kept in a cache, which `down` leaves alone.

use crate::process::{check, run};
use anyhow::{Context, Result, ensure};
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The init program's source; compiled on the machine that runs the lab.
const INIT: &str = include_str!("../guest/init.c");
/// Where downloads and what is made of them stay between runs, when `KVMHA_LAB_CACHE` says nothing else.
const CACHE: &str = "/var/cache/kvmha-lab";
/// The package whose dependency is the newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
const LIMIT: Duration = Duration::from_secs(300);

/// Modules for a virtio disk and network card on PCI, the channel of a guest agent, and the power button: without `button` and `evdev` a
/// guest does not see `virsh shutdown`. Those which a kernel has built in are not looked for.
const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "failover",
    "net_failover",
    "virtio_net",
    "button",
    "evdev",
];

/// The file of a kernel's folder in the cache that says which modules were looked for.
const LIST: &str = "modules.list";

/// Puts `vmlinuz` and `initrd` into `folder`.
pub fn provide(folder: &Path) -> Result<()> {
    if folder.join("vmlinuz").exists()
        && folder.join("initrd").exists()
        && fs::read_to_string(folder.join("init.c")).is_ok_and(|c| c == INIT)
    {
        return Ok(());
    }
    let (cache, _lock) = cache()?;
    let kernel = kernel(&cache).context("failed to provide the guest's kernel")?;
    let initrd = initrd(&cache, &kernel).context("failed to build the guest's initrd")?;
    fs::create_dir_all(folder)?;
    fs::copy(kernel.join("vmlinuz"), folder.join("vmlinuz"))?;
    fs::copy(initrd, folder.join("initrd"))?;
    fs::write(folder.join("init.c"), INIT)?;
    Ok(())
}

/// The folder in which downloads and what is made of them are kept, and the lock for who changes something there.
pub fn cache() -> Result<(PathBuf, Flock<File>)> {
    let cache = std::env::var_os("KVMHA_LAB_CACHE").map_or_else(|| PathBuf::from(CACHE), PathBuf::from);
    fs::create_dir_all(&cache).with_context(|| format!("failed to make {}", cache.display()))?;
    let lock = crate::power::lock(&cache.join("lock"))?;
    Ok((cache, lock))
}

/// The folder of a kernel in the cache: `vmlinuz` and `modules/*.ko`. Downloaded if there is none; one that is there is good enough, and
/// asking apt takes longer than building all the rest.
fn kernel(cache: &Path) -> Result<PathBuf> {
    // One of an older lab may lack modules.
    let is_whole =
        |path: &PathBuf| path.join("vmlinuz").exists() && fs::read_to_string(path.join(LIST)).is_ok_and(|list| list == MODULES.join(" "));
    let mut ready: Vec<PathBuf> = fs::read_dir(cache)?.flatten().map(|entry| entry.path()).filter(is_whole).collect();
    ready.sort();
    if let Some(newest) = ready.pop() {
        return Ok(newest);
    }
    // The package lists may be missing (a fresh machine's often are) or old: then they name a version that the archive has no more.
    if let Some(package) = newest_package()?
        && let Ok(kernel) = fetch(cache, &package)
    {
        return Ok(kernel);
    }
    check(&["apt-get", "update"], LIMIT)?;
    fetch(cache, &newest_package()?.with_context(|| format!("apt-cache knows no {META_PACKAGE}"))?)
}

/// What the package lists say; none when they know nothing.
fn newest_package() -> Result<Option<String>> {
    let known = run(&["apt-cache", "depends", META_PACKAGE], LIMIT)?;
    let mut names = known.stdout.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.find(|name| name.starts_with("linux-image-")).map(str::to_owned))
}

fn fetch(cache: &Path, package: &str) -> Result<PathBuf> {
    let work = tempfile::tempdir_in(cache)?;
    let path = work.path().to_string_lossy();
    // As root apt would drop to a user that may not write here.
    let download = format!("cd '{path}' && apt-get -o APT::Sandbox::User=root download '{package}' && dpkg-deb -x ./*.deb tree");
    check(&["sh", "-c", &download], LIMIT)?;
    let image = fs::read_dir(work.path().join("tree/boot"))?.flatten().map(|entry| entry.path());
    let image = image.into_iter().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    let ready = work.path().join("ready");
    fs::create_dir_all(ready.join("modules"))?;
    fs::copy(image.context("the package holds no vmlinuz")?, ready.join("vmlinuz"))?;
    let files = check(&["find", &format!("{path}/tree"), "-name", "*.ko*"], LIMIT)?;
    for file in files.lines().map(Path::new) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((stem, packed)) = name.split_once(".ko") else { continue };
        if !MODULES.contains(&stem.replace('-', "_").as_str()) {
            continue;
        }
        let target = ready.join("modules").join(&name);
        fs::copy(file, &target)?;
        // Debian 12 ships them plain, Debian 13 compressed.
        if packed == ".xz" {
            check(&["xz", "-d", &target.to_string_lossy()], LIMIT)?;
        }
    }
    ensure!(fs::read_dir(ready.join("modules"))?.count() > 0, "{package} holds none of the modules {MODULES:?}");
    fs::write(ready.join(LIST), MODULES.join(" "))?;
    let target = cache.join(package);
    let _ = fs::remove_dir_all(&target);
    fs::rename(&ready, &target)?;
    Ok(target)
}

/// Builds the initrd if the one in the cache is not of this source and this kernel.
fn initrd(cache: &Path, kernel: &Path) -> Result<PathBuf> {
    let (initrd, mark) = (kernel.join("initrd"), kernel.join("init.c"));
    if initrd.exists() && fs::read_to_string(&mark).is_ok_and(|old| old == INIT) {
        return Ok(initrd);
    }
    let work = tempfile::tempdir_in(cache)?;
    let root = work.path().join("root");
    for name in ["proc", "dev", "sys", "modules"] {
        fs::create_dir_all(root.join(name))?;
    }
    let source = work.path().join("init.c");
    fs::write(&source, INIT)?;
    let program = root.join("init");
    check(&["gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-o", &program.to_string_lossy(), &source.to_string_lossy()], LIMIT)?;
    for module in fs::read_dir(kernel.join("modules"))?.flatten() {
        fs::copy(module.path(), root.join("modules").join(module.file_name()))?;
    }
    let pack = format!("cd '{}' && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1 >../initrd", root.display());
    check(&["sh", "-c", &pack], LIMIT)?;
    fs::copy(work.path().join("initrd"), &initrd)?;
    fs::write(mark, INIT)?;
    Ok(initrd)
}
