//! The process table: which processes are emulators, and of which guest.

use super::definition::Identity;
use super::scope;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Programs of QEMU that run no guest, by what the kernel keeps of a program's name: 15 characters.
const HELPERS: &[&str] = &["qemu-ga", "qemu-img", "qemu-io", "qemu-nbd", "qemu-pr-helper", "qemu-storage-da"];

/// A process as far as it says what it runs.
pub(super) struct Process {
    /// Its folder in `/proc`.
    pub(super) directory: PathBuf,
    /// Its command line, or that of a thread if its leader has ended; empty for the kernel's threads and for what is exiting.
    pub(super) line: Vec<u8>,
}

/// Where the process table is. One that is not mounted looks like one without processes, and one that hides those of others (`hidepid`) like
/// one of a host without guests; neither proves anything.
///
/// # Errors
/// It does not show this process, or the first one.
pub(super) fn table() -> io::Result<&'static Path> {
    let place = Path::new("/proc");
    let hides = ["self/stat", "1/stat"].into_iter().find(|file| !place.join(file).exists());
    match hides {
        Some(file) => Err(io::Error::other(format!("there is no {}: not mounted, or not all are shown", place.join(file).display()))),
        None => Ok(place),
    }
}

/// The folder of a process.
pub(super) fn directory(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Where the files lead that a process has open, by its folder. The leader's are gone when it has ended; the threads have the same.
pub(super) fn open_files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let threads = fs::read_dir(directory.join("task")).into_iter().flatten().flatten();
    let files = threads.flat_map(|thread| fs::read_dir(thread.path().join("fd")).into_iter().flatten().flatten());
    files.filter_map(|file| fs::read_link(file.path()).ok())
}

/// Whether what a link of `/proc/PID/fd` leads to may be a disk: not the pid file, memory, or the variables of a firmware.
pub(super) fn is_disk(link: &Path) -> bool {
    let other = ["/run", "/proc", "/dev/shm", "/dev/hugepages", "/var/lib/libvirt/qemu"];
    !is_memory(link) && !other.iter().any(|folder| link.starts_with(folder))
}

/// Whether a link of `/proc/PID/fd` means memory: `memfd_create`, or System V's.
fn is_memory(link: &Path) -> bool {
    link.to_str().is_some_and(|link| link.starts_with("/memfd:") || link.starts_with("/SYSV"))
}

/// Whether a file is open for reading and writing, by its `/proc/PID/fdinfo`: the flags stand there in octal, the access in the last two bits.
pub(super) fn may_write(about: &str) -> bool {
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 == 0o2)
}

/// Whether a process whose command line does not come may be an emulator, by what the kernel says without its memory. Every process may be
/// one, unless all of this holds: neither its name nor its program is QEMU's, libvirt has given it neither a control group nor a pid file, and
/// it has no virtual machine of KVM open. What cannot be read does not count as an answer.
pub(super) fn may_be_emulator(directory: &Path) -> bool {
    let (name, groups) = (fs::read_to_string(directory.join("comm")), fs::read_to_string(directory.join("cgroup")));
    let (program, files) = (fs::read_link(directory.join("exe")), fs::read_dir(directory.join("fd")));
    let (Ok(name), Ok(groups), Ok(program), Ok(mut files)) = (name, groups, program, files) else { return true };
    let is_ones = |name: &str| name.contains("qemu") || name.contains("kvm");
    let is_ones_file = |file: &Path| scope::pid_files_guest(file).is_some() || file.as_os_str() == "anon_inode:kvm-vm";
    is_ones(&name)
        || is_ones(&program.file_name().unwrap_or_default().to_string_lossy())
        || scope::is_libvirts(&groups)
        || files.any(|file| file.and_then(|file| fs::read_link(file.path())).is_ok_and(|file| is_ones_file(&file)))
}

/// What an emulator's command line shows of its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// The guest's name.
    pub(super) name: String,
    /// Whether it was started to take in a guest that ran before, by a move or from a saved state (`-incoming`).
    pub(super) incoming: bool,
}

/// What the process shows if it is an emulator; nothing once its memory is gone. May block: see [`super::walk`].
pub(super) fn shown(pid: i32) -> Option<Shown> {
    Process::read(directory(pid)).ok()??.shown()
}

impl Process {
    /// `None` if it has ended in the meantime. May block: see [`super::walk`].
    pub(super) fn read(directory: PathBuf) -> io::Result<Option<Self>> {
        let line = match fs::read(directory.join("cmdline")) {
            Ok(line) if line.is_empty() => threads_line(&directory),
            Ok(line) => line,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self { directory, line }))
    }

    /// What it shows if it is an emulator.
    pub(super) fn shown(&self) -> Option<Shown> {
        let name = String::from_utf8_lossy(&guest_name(option(&self.line, b"-name")?)).into_owned();
        Some(Shown { name, incoming: option(&self.line, b"-incoming").is_some() })
    }

    /// Whether it is an emulator that libvirt has started, or what is left of one.
    pub(super) fn is_emulator(&self) -> bool {
        option(&self.line, b"-name").is_some() && option(&self.line, b"-uuid").is_some() || self.is_exiting_emulator()
    }

    /// Whether it is an emulator, started by libvirt, of this guest.
    ///
    /// libvirt always gives `-name guest=NAME,...` and `-uuid UUID` (`qemuBuildNameCommandLine`, `qemuBuildCommandLine`). The same
    /// UUID is the same guest, whoever runs it. The same name alone is not if the process belongs to another libvirt: a user's, which
    /// the path of its master key shows, or one in a container, which has its own process numbers.
    pub(super) fn runs(&self, identity: &Identity) -> bool {
        let (Some(name), Some(uuid)) = (option(&self.line, b"-name"), option(&self.line, b"-uuid")) else {
            return self.is_exiting_emulator() && self.may_have_run(&identity.name);
        };
        let uuid = String::from_utf8_lossy(uuid).to_ascii_lowercase();
        if identity.uuid.as_deref() == Some(uuid.as_str()) {
            return true;
        }
        guest_name(name) == identity.name.as_bytes() && !is_users(&self.line) && !self.is_in_container()
    }

    /// Whether it is an emulator that is about to end: its memory is gone and its command line with it (`exit_mm`), but writes
    /// may be pending (`exit_aio`, `exit_files`).
    fn is_exiting_emulator(&self) -> bool {
        let is_named = || {
            let name = fs::read_to_string(self.directory.join("comm")).unwrap_or_default();
            let name = name.trim_end();
            (name.starts_with("qemu") || name == "kvm") && !HELPERS.contains(&name)
        };
        // The kernel's threads have no command line either, whatever they are called; their parent is kthreadd, process 2.
        self.line.is_empty()
            && is_named()
            && Status::read(&self.directory).is_some_and(|status| status.parent != 2)
            && self.has_live_thread()
    }

    /// Whether a thread is not a zombie yet: one that is has nothing pending any more.
    fn has_live_thread(&self) -> bool {
        let threads = fs::read_dir(self.directory.join("task")).into_iter().flatten().flatten();
        threads.filter_map(|thread| Status::read(&thread.path())).any(|status| !matches!(status.state, 'Z' | 'X'))
    }

    /// Whether nothing speaks against an exiting emulator having run the guest: the pid file that it has open is of its own guest and no
    /// other; when its files are closed its control group is left.
    fn may_have_run(&self, name: &str) -> bool {
        let guests = self.pid_files_guests();
        if !guests.is_empty() {
            return guests.iter().any(|guest| guest == name);
        }
        scope::may_be_of(&fs::read_to_string(self.directory.join("cgroup")).unwrap_or_default(), name)
    }

    /// The guests whose pid files it has open, one at most; none if its files are closed.
    fn pid_files_guests(&self) -> Vec<String> {
        open_files(&self.directory).filter_map(|file| scope::pid_files_guest(&file)).collect()
    }

    /// Whether it has a number in a namespace of process numbers below this one.
    fn is_in_container(&self) -> bool {
        let status = fs::read_to_string(self.directory.join("status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("NSpid:")).is_some_and(|numbers| numbers.split_whitespace().count() > 1)
    }
}

/// Whether an error of a file in `/proc/PID` says that the process has ended.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// The command line of a process whose leader has ended, from a thread that has not.
fn threads_line(process: &Path) -> Vec<u8> {
    if Status::read(process).is_none_or(|status| status.state != 'Z') {
        return Vec::new();
    }
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    threads.map(|thread| fs::read(thread.path().join("cmdline")).unwrap_or_default()).find(|line| !line.is_empty()).unwrap_or_default()
}

/// The word after `name` on a command line.
pub(super) fn option<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut words = line.split(|byte| *byte == 0);
    words.find(|word| *word == name)?;
    words.next()
}

/// Whether a command line is that of an emulator of a user's own libvirt.
fn is_users(line: &[u8]) -> bool {
    let key = line.split(|byte| *byte == 0).find(|word| contains(word, b"/master-key.aes"));
    key.is_some_and(|key| contains(key, b"/.config/libvirt/"))
}

/// The name in the value of QEMU's `-name`: `guest=NAME,debug-threads=on`, or the bare name; a comma is written twice.
pub(super) fn guest_name(value: &[u8]) -> Vec<u8> {
    let value = value.strip_prefix(b"guest=").unwrap_or(value);
    let mut name = Vec::new();
    let mut bytes = value.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte == b',' && bytes.next_if_eq(&&b',').is_none() {
            break;
        }
        name.push(*byte);
    }
    name
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The fields of `/proc/PID/stat` that matter here.
pub(super) struct Status {
    /// The letter of its state: R, S, D, Z and so on.
    pub(super) state: char,
    /// Its parent.
    pub(super) parent: i32,
    /// Whether it ends: `PF_EXITING` of Linux's `include/linux/sched.h`, which is set before its memory is let go (`do_exit`).
    pub(super) is_exiting: bool,
    /// When it started, in clock ticks since boot.
    pub(super) start: u64,
}

impl Status {
    /// Of a process or a thread, by its folder; `None` if there is none.
    pub(super) fn read(process: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(process.join("stat")).ok()?)
    }

    /// From the text of the file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // The program's name stands in parentheses and may hold anything.
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags: u64 = fields.nth(4)?.parse().ok()?;
        let start = fields.nth(12)?.parse().ok()?;
        Some(Self { state, parent, is_exiting: flags & 0x4 != 0, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "c7a5fdbd-cdaf-9455-926a-d65c16db1809";

    #[test]
    fn what_may_be_a_disk() {
        for disk in ["/srv/a.img", "/dev/vg/a", "/var/lib/libvirt/images/a.qcow2", "socket:[12]"] {
            assert!(is_disk(Path::new(disk)), "{disk}");
        }
        for other in [
            "/run/libvirt/qemu/web1.pid",
            "/var/lib/libvirt/qemu/nvram/web1_VARS.fd",
            "/memfd:pc.ram (deleted)",
            "/SYSV00000000 (deleted)",
            "/dev/shm/a",
            "/dev/hugepages/libvirt/qemu/1-web1/a",
            "/proc/1/mem",
        ] {
            assert!(!is_disk(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn what_a_process_has_open_to_write() {
        // Of an emulator: its disk with O_DIRECT, its log, a definition that is only read.
        assert!(may_write("pos:\t0\nflags:\t02140002\nmnt_id:\t214\n"));
        assert!(!may_write("pos:\t0\nflags:\t0102001\nmnt_id:\t214\n"));
        assert!(!may_write("pos:\t0\nflags:\t0100000\n"));
        assert!(!may_write(""));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(open_files(Path::new("/proc/self")).any(|open| open == file.path()));
    }

    fn identity(name: &str, uuid: Option<&str>) -> Identity {
        Identity { name: name.into(), uuid: uuid.map(Into::into) }
    }

    fn line(words: &[&str]) -> Vec<u8> {
        words.join("\0").into_bytes()
    }

    fn runs(line: &[u8], identity: &Identity) -> bool {
        Process { directory: "/proc/self".into(), line: line.to_vec() }.runs(identity)
    }

    #[test]
    fn mangled_stat() {
        let samples = ["4711 (qemu (x) ) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 815 20 21"];
        crate::mangled::texts(&samples, 4000, |text| Status::parse(text).is_some());
    }

    #[test]
    fn an_emulator_is_known_by_name_and_uuid() {
        let web1 = line(&["/usr/bin/qemu-system-x86_64", "-name", "guest=web1,debug-threads=on", "-S", "-uuid", UUID, ""]);
        assert!(runs(&web1, &identity("web1", Some(UUID))));
        assert!(runs(&web1, &identity("web1", None)));
        assert!(runs(&web1, &identity("renamed", Some(UUID))));
        assert!(!runs(&web1, &identity("web", None)));
        assert!(!runs(&web1, &identity("web1-test", None)));
        assert!(!runs(&line(&["grep", "-name", "guest=web1"]), &identity("web1", None)));
        assert!(!runs(b"", &identity("web1", None)));
        let comma = line(&["qemu", "-name", "guest=a,,b,debug-threads=on", "-uuid", UUID]);
        assert!(runs(&comma, &identity("a,b", None)));
        assert!(!runs(&comma, &identity("a", None)));
    }

    #[test]
    fn a_users_guest_of_the_same_name_is_another() {
        let key = "{\"id\":\"masterKey0\",\"file\":\"/home/u/.config/libvirt/qemu/lib/domain-1-web1/master-key.aes\"}";
        let theirs = line(&["qemu", "-name", "guest=web1", "-object", key, "-uuid", "00000000-0000-0000-0000-000000000001"]);
        assert!(!runs(&theirs, &identity("web1", Some(UUID))));
        // The same UUID is the same guest, whoever runs it.
        assert!(runs(&theirs, &identity("web1", Some("00000000-0000-0000-0000-000000000001"))));
        let key = "{\"id\":\"masterKey0\",\"file\":\"/var/lib/libvirt/qemu/domain-1-web1/master-key.aes\"}";
        let ours = line(&["qemu", "-name", "guest=web1", "-object", key, "-uuid", "00000000-0000-0000-0000-000000000001"]);
        assert!(runs(&ours, &identity("web1", Some(UUID))));
    }

    #[test]
    fn stat_with_a_nasty_name() {
        let status = Status::parse("7 (a) R (b) Z 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0").unwrap();
        assert_eq!((status.state, status.parent, status.start), ('Z', 1, 4711));
        assert!(Status::parse("7 (a").is_none());
    }

    /// A process whose command line is gone, as the kernel shows it: one thread, which has not ended.
    fn exiting(comm: &str, groups: &str, files: &[&str]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let stat = format!("7 ({comm}) Z 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0");
        fs::create_dir_all(place.path().join("task/8/fd")).unwrap();
        fs::write(place.path().join("task/8/stat"), stat.replace(" Z ", " D ")).unwrap();
        fs::write(place.path().join("stat"), stat).unwrap();
        fs::write(place.path().join("comm"), format!("{comm}\n")).unwrap();
        fs::write(place.path().join("cgroup"), groups).unwrap();
        for (number, file) in files.iter().enumerate() {
            std::os::unix::fs::symlink(file, place.path().join(format!("task/8/fd/{number}"))).unwrap();
        }
        place
    }

    #[test]
    fn whose_an_emulator_was_that_ends() {
        let runs = |comm: &str, groups: &str, files: &[&str]| {
            let place = exiting(comm, groups, files);
            let process = Process { directory: place.path().into(), line: Vec::new() };
            let runs = process.runs(&identity("web1", Some(UUID)));
            assert!(!runs || process.is_emulator());
            runs
        };
        let scope = |name: &str| format!("0::/machine.slice/machine-qemu\\x2d3\\x2d{name}.scope/libvirt/emulator\n");
        let (own, another) = ("/run/libvirt/qemu/web1.pid", "/run/libvirt/qemu/db.pid");
        // Nothing says whose it was.
        for comm in ["qemu-system-x86", "qemu-kvm", "kvm", "qemu-x86_64"] {
            assert!(runs(comm, "0::/\n", &[]), "{comm}");
        }
        assert!(runs("qemu-system-x86", "0::/\n", &["/srv/vms/db.img", "socket:[1]"]));
        assert!(runs("qemu-system-x86", &scope("web1"), &[]));
        assert!(runs("qemu-system-x86", "0::/\n", &[own]));
        assert!(runs("qemu-system-x86", &scope("db"), &[own]));
        assert!(runs("qemu-system-x86", "0::/\n", &[another, own]));
        // Another guest's, and what is no emulator.
        assert!(!runs("qemu-system-x86", "0::/\n", &["/dev/null", another]));
        assert!(!runs("qemu-system-x86", &scope("db"), &[]));
        assert!(!runs("qemu-system-x86", &scope("prod\\x2dweb1"), &[]));
        for comm in ["qemu-img", "qemu-io", "qemu-nbd", "qemu-ga", "qemu-pr-helper", "qemu-storage-da", "sleep"] {
            assert!(!runs(comm, "0::/\n", &[]), "{comm}");
        }
    }
}
