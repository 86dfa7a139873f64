//! A node's PID 1: builds the node's file system around itself, starts the daemons, and then reaps what dies.
//!
//! It is started by `unshare` in new namespaces and still sees the host's files. Its root becomes a tmpfs with overlays over the host's
//! `/etc`, `/var` and `/usr`, or another system's; what the node changes there, or in its own `/root`, stays in the state folder over a
//! power cycle, as on a disk.

use crate::clock;
use crate::cluster::Lab;
use crate::config;
use crate::coverage;
use crate::layout::{BOOT, Layout, SHARED, node_name};
use crate::network;
use crate::process::{Identity, check};
use crate::storage;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, chroot, pivot_root, sethostname};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// There when a node has its own root and its daemons, but for the cluster's, are started: before that, entering it would show the host's files.
pub const READY: &str = "/run/lab-ready";

/// The search path in a node.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A daemon of a node and how it is started.
#[derive(Clone, Copy, Debug)]
pub struct Daemon {
    /// The name of its program.
    pub name: &'static str,
    /// The line for the shell that starts it.
    pub line: &'static str,
}

/// The daemons, in the order of their start. corosync puts itself into the background when it is ready for pacemakerd.
pub const DAEMONS: &[Daemon] = &[
    // Without a /dev/log the messages of resource agents are lost.
    Daemon { name: "syslogd", line: "exec busybox syslogd -n -O /var/log/messages -S" },
    Daemon { name: "virtlogd", line: "exec virtlogd" },
    Daemon { name: "libvirtd", line: "exec libvirtd --listen" },
    // Tried again, as systemd does (Restart=on-failure).
    Daemon { name: "corosync", line: "for try in 1 2 3; do corosync && exec pacemakerd; sleep 1; done" },
];

/// How a daemon that is gone is started again in a running node.
#[must_use]
pub fn restart_line(daemon: &str) -> Option<&'static str> {
    match daemon {
        "corosync" => Some("exec corosync"),
        "pacemakerd" => Some("exec pacemakerd"),
        _ => DAEMONS.iter().find(|d| d.name == daemon).map(|d| d.line),
    }
}

/// So long a node takes from power to its cluster when it starts again: longer than its power switch to say so, as any machine. A node that
/// is back in the cluster before the word of its own fencing is there takes it for its own, and pacemakerd ends for good ("We were allegedly just
/// fenced"); that word may be as late as the next membership, if another node is lost at the same time.
const BOOT_TIME: Duration = Duration::from_secs(5);

/// Runs a node: never returns unless it cannot.
pub fn run(state: &Path, node: u32, nodes: u32) -> Result<()> {
    let layout = Layout { state: state.to_owned() };
    let lab = Lab::open("", Some(state))?;
    let bare = lab.bare();
    // The /proc seen here is still the host's, and so is the pid.
    let own = Identity::own()?;
    umask(Mode::from_bits_truncate(0o022));
    // Soft only: see `max_core` in the configuration of QEMU.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    own.save(&layout.node_process(node))?;
    build_root(&layout, node, lab.root()).context("failed to build the node's root")?;
    enter_root(&layout.node(node).join("root"))?;
    sethostname(node_name(node)).context("failed to set the host name")?;
    let again = !first_start(node, nodes)?;
    network::configure_node(node).context("failed to set up the network")?;
    storage::mount()?;
    let (cluster, others): (Vec<&Daemon>, Vec<&Daemon>) = DAEMONS.iter().partition(|daemon| daemon.name == "corosync");
    for daemon in others {
        start(daemon)?;
    }
    fs::write(READY, "")?;
    if again {
        std::thread::sleep(BOOT_TIME);
    }
    for daemon in cluster.into_iter().filter(|_| !bare) {
        start(daemon)?;
    }
    println!("{} is up", node_name(node));
    loop {
        // PID 1 inherits every orphan of the node.
        if waitpid(None::<Pid>, None) == Err(Errno::ECHILD) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn start(daemon: &Daemon) -> Result<()> {
    start_line(daemon.name, daemon.line)
}

/// Starts a program of the node in the background; what it says is in `/var/log/lab-NAME.log`.
pub fn start_line(name: &str, line: &str) -> Result<()> {
    let log = File::options().create(true).append(true).open(format!("/var/log/lab-{name}.log"))?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
    coverage::tell(&mut command);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    command.spawn().with_context(|| format!("failed to start {name}"))?;
    Ok(())
}

/// `base` is the root of the system that the node runs.
fn build_root(layout: &Layout, node: u32, base: &Path) -> Result<()> {
    let folder = layout.node(node);
    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    mount_on(Some("tmpfs"), &root, "tmpfs", "size=64m,mode=755")?;
    for name in ["proc", "sys", "dev", "run", "tmp", "root", "home", "mnt", "media", "opt", "srv/vms", "srv/hang", "boot", ".old"] {
        fs::create_dir_all(root.join(name))?;
    }
    for entry in fs::read_dir(base)?.flatten() {
        // bin, sbin, lib, lib64, ...: links into /usr.
        if let Ok(target) = fs::read_link(entry.path())
            && target.starts_with("usr")
        {
            symlink(target, root.join(entry.file_name()))?;
        }
    }
    for name in ["etc", "var", "usr"] {
        let (upper, work) = (folder.join("upper").join(name), folder.join("work").join(name));
        for path in [&upper, &work, &root.join(name)] {
            fs::create_dir_all(path)?;
        }
        let lower = base.join(name);
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount_on(Some("overlay"), &root.join(name), "overlay", &options).context(
            "the state folder must be on a file system that can be an overlay's upper layer: not itself an overlay (see --state)",
        )?;
    }
    // Empty at first: what the machine's root has there (keys, above all) is none of a node's business.
    let home = folder.join("upper/root");
    fs::create_dir_all(&home)?;
    fs::set_permissions(&home, Permissions::from_mode(0o700))?;
    bind(&home, &root.join("root"))?;
    bind(&layout.shared(), &root.join(SHARED.trim_start_matches('/')))?;
    bind(&layout.boot(), &root.join(BOOT.trim_start_matches('/')))?;
    if let Some(folder) = coverage::folder() {
        let place = root.join(coverage::PLACE.trim_start_matches('/'));
        fs::create_dir_all(&place)?;
        bind(&folder, &place)?;
    }
    build_dev(&root.join("dev"))?;
    mount_on(Some("proc"), &root.join("proc"), "proc", "")?;
    // Only this, no cgroups below it: libvirt then does not use any.
    mount_on(Some("sysfs"), &root.join("sys"), "sysfs", "")?;
    mount_on(Some("tmpfs"), &root.join("run"), "tmpfs", "size=256m,mode=755")?;
    mount_on(Some("tmpfs"), &root.join("tmp"), "tmpfs", "size=256m,mode=1777")?;
    for name in ["lock", "user", "resource-agents", "libvirt", "lock/subsys"] {
        fs::create_dir_all(root.join("run").join(name))?;
    }
    fs::set_permissions(root.join("run/lock"), Permissions::from_mode(0o1777))?;
    copy_if_changed(&layout.program(), &root.join("usr/sbin/fence_lab"))?;
    copy_if_changed(&layout.hangfs(), &root.join(storage::PROGRAM.trim_start_matches('/')))?;
    if layout.clock().exists() {
        clock::install(&layout.clock(), &root)?;
    }
    if layout.agent().exists() {
        install_agent(&layout.agent(), &root)?;
    }
    Ok(())
}

/// No /dev/kvm: libvirt then offers emulation only, and does not trip over a KVM that cannot run guests.
fn build_dev(dev: &Path) -> Result<()> {
    mount_on(Some("tmpfs"), dev, "tmpfs", "size=1m,mode=755")?;
    let devices: [(&str, u64, u64); 8] = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("fuse", 10, 229),
        ("loop-control", 10, 237),
    ];
    for (name, major, minor) in devices {
        mknod(&dev.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
        fs::set_permissions(dev.join(name), Permissions::from_mode(0o666))?;
    }
    for number in 0..16 {
        mknod(&dev.join(format!("loop{number}")), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(7, number))?;
    }
    for name in ["net", "pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    mknod(&dev.join("net/tun"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200))?;
    mount_on(Some("devpts"), &dev.join("pts"), "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5")?;
    // Some 10s of MB for the shared-memory rings of corosync and Pacemaker.
    mount_on(Some("tmpfs"), &dev.join("shm"), "tmpfs", "size=512m,mode=1777")?;
    mount_on(Some("mqueue"), &dev.join("mqueue"), "mqueue", "")?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(link))?;
    }
    Ok(())
}

fn mount_on(source: Option<&str>, target: &Path, kind: &str, options: &str) -> Result<()> {
    let data = if options.is_empty() { None } else { Some(options) };
    mount(source, target, Some(kind), MsFlags::empty(), data).with_context(|| format!("failed to mount {kind} on {}", target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to bind {} to {}", source.display(), target.display()))
}

fn enter_root(root: &Path) -> Result<()> {
    chdir(root)?;
    pivot_root(".", ".old").context("failed to change the root")?;
    chroot(".")?;
    chdir("/")?;
    umount2("/.old", MntFlags::MNT_DETACH).context("failed to let go of the host's root")?;
    fs::remove_dir("/.old")?;
    Ok(())
}

/// Writes the configuration on the node's first start; later ones find what the node has made of it. Whether this is the first.
fn first_start(node: u32, nodes: u32) -> Result<bool> {
    let marker = Path::new("/etc/kvmha-lab");
    if marker.exists() {
        return Ok(false);
    }
    for (path, text) in config::files(node, nodes) {
        // Links (resolv.conf, machine-id) would lead elsewhere.
        let _ = fs::remove_file(path);
        fs::write(path, text).with_context(|| format!("failed to write {path}"))?;
    }
    let cib = "/var/lib/pacemaker/cib/cib.xml";
    fs::set_permissions(cib, Permissions::from_mode(0o600))?;
    check(&["chown", "hacluster:haclient", cib], Duration::from_secs(10))?;
    // They would need dnsmasq and iptables.
    for entry in fs::read_dir("/etc/libvirt/qemu/networks/autostart").into_iter().flatten().flatten() {
        fs::remove_file(entry.path())?;
    }
    fs::create_dir_all("/var/log/corosync")?;
    fs::write(marker, "")?;
    Ok(true)
}

/// Puts the binary under test where packages put it, below `root`: one file and its names. A running one is not disturbed.
pub fn install_agent(binary: &Path, root: &Path) -> Result<()> {
    let usr = root.join("usr");
    copy_if_changed(binary, &usr.join("libexec/kvmha/kvmha"))?;
    let links = [
        ("sbin/kvmha", "../libexec/kvmha/kvmha"),
        ("sbin/fence_kvmha", "../libexec/kvmha/kvmha"),
        ("lib/ocf/resource.d/kvmha/VirtualDomain", "../../../../libexec/kvmha/kvmha"),
    ];
    for (link, target) in links {
        let link = usr.join(link);
        if fs::read_link(&link).is_ok_and(|old| old == Path::new(target)) {
            continue;
        }
        fs::create_dir_all(link.parent().context("a link without a folder")?)?;
        let _ = fs::remove_file(&link);
        symlink(target, &link).with_context(|| format!("failed to make the link {}", link.display()))?;
    }
    Ok(())
}

/// Copies a program by way of a new file, so that one that runs keeps its own. The time of the source is kept to know it again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let source = fs::metadata(from).with_context(|| format!("failed to read {}", from.display()))?;
    if fs::metadata(to).is_ok_and(|old| old.len() == source.len() && old.modified().ok() == source.modified().ok()) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file without a folder")?)?;
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("failed to copy {} to {}", from.display(), new.display()))?;
    fs::set_permissions(&new, Permissions::from_mode(0o755))?;
    File::options().write(true).open(&new)?.set_modified(source.modified()?)?;
    fs::rename(&new, to).with_context(|| format!("failed to rename to {}", to.display()))
}
