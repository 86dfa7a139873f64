//! What names a guest beside the command line of its emulator, which is gone while the emulator ends: the control group that libvirt
//! gives it, and its pid file.
//!
//! Either counts only if it is there. Without them the guest is not known, and the emulator may be any guest's.

use std::path::Path;

/// From this length on a machine's name may have been cut: libvirt stops at 64 characters and drops a dash or dot at the end.
const CUT: usize = 63;

/// Whether nothing in the text of a `/proc/PID/cgroup` speaks against the process being an emulator of the guest `name`.
pub(super) fn may_be_of(groups: &str, name: &str) -> bool {
    let mut machines = groups.split(['/', '\n']).filter_map(machine).peekable();
    machines.peek().is_none() || machines.any(|machine| fits(&machine, name))
}

/// Whether a `/proc/PID/cgroup` shows a process in a control group that libvirt has made for an emulator.
pub(super) fn is_libvirts(groups: &str) -> bool {
    groups.split(['/', '\n']).any(|group| machine(group).is_some())
}

/// The machine that a control group was made for by libvirt's driver for QEMU: `machine-qemu\x2d3\x2dweb1.scope` under systemd
/// (`virSystemdMakeScopeName`), `qemu-3-web1.libvirt-qemu` without (`virCgroupNewDomainPartition`).
fn machine(group: &str) -> Option<String> {
    let group = group.trim_end_matches(" (deleted)");
    match group.strip_prefix("machine-").and_then(|group| group.strip_suffix(".scope")) {
        Some(scope) => Some(unescaped(scope)).filter(|machine| machine.starts_with("qemu")),
        None => group.strip_suffix(".libvirt-qemu").map(str::to_owned),
    }
}

/// Without systemd's way of writing what is special to it: `\x2d` is a dash.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[2..]);
            }
            None => plain.push_str(part),
        }
    }
    plain
}

/// Whether a machine's name may have been made from a guest's: `qemu-ID-NAME`, with a user's name or a driver's between `qemu` and the
/// number for some (`virDomainDriverGenerateMachineName`), and without the number in old versions. Of a name only letters, digits, and
/// some of its dashes and dots are kept, which ones depends on the version; so only letters and digits are compared. If there is more than one
/// way to read it, each counts.
fn fits(machine: &str, name: &str) -> bool {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let name = plain(name);
    if machine.len() >= CUT || name.is_empty() {
        return true;
    }
    let words: Vec<&str> = machine.split('-').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let begins = |at: usize| at == 0 || at == 1 && words[0] == "qemu" || is_number(words[at - 1]);
    (0..words.len()).any(|at| begins(at) && plain(&words[at..].concat()) == name)
}

/// The guest whose pid file a link of `/proc/PID/fd` is. libvirt opens it for the emulator, which keeps it open, and locked, until it ends
/// (`virPidFileAcquirePath` in `virExec`): `/run/libvirt/qemu/NAME.pid`, a user's in the folder `run` beside it.
pub(super) fn pid_files_guest(link: &Path) -> Option<String> {
    let text = link.to_str()?;
    let (directory, file) = text.strip_suffix(" (deleted)").unwrap_or(text).rsplit_once('/')?;
    let is_libvirts = directory.ends_with("/libvirt/qemu") || directory.ends_with("/libvirt/qemu/run");
    file.strip_suffix(".pid").filter(|_| is_libvirts).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name as libvirt 11 makes it of a guest's (`virDomainMachineNameAppendValid`).
    fn made(begin: &str, name: &str) -> String {
        let mut machine = begin.to_owned();
        let mut skip = true;
        for letter in name.chars() {
            if machine.len() >= 64 {
                break;
            }
            let special = matches!(letter, '.' | '-');
            if special && !skip || letter.is_ascii_alphanumeric() {
                machine.push(letter);
            }
            skip = special || skip && !letter.is_ascii_alphanumeric();
        }
        machine.trim_end_matches(['-', '.']).to_owned()
    }

    fn scope(machine: &str) -> String {
        format!("0::/machine.slice/machine-{}.scope/libvirt/emulator\n", machine.replace('-', "\\x2d"))
    }

    #[test]
    fn every_guest_may_have_its_own() {
        let long = "x-".repeat(40);
        for name in [
            "web1",
            "web_1",
            "a--b",
            "-a.-",
            "5",
            "5-x",
            "3-web1",
            "a-7",
            "\u{fc}ber",
            "\u{fc}",
            ".",
            "qemu-3-web1",
            "qemu",
            &long,
            &long[1..],
        ] {
            for begin in ["qemu-3-", "qemu-some-user-12-", "qemu-embed-0badcafe-1-", "qemu-"] {
                let machine = made(begin, name);
                assert!(may_be_of(&scope(&machine), name), "{machine} of {name}");
                assert!(may_be_of(&format!("4:memory:/machine/{machine}.libvirt-qemu/emulator\n2:cpu:/\n"), name), "{machine} of {name}");
                assert!(may_be_of(&format!("0::/machine.slice/machine-{}.scope (deleted)\n", machine.replace('-', "\\x2d")), name));
            }
            assert!(may_be_of(&format!("4:memory:/machine/{name}.libvirt-qemu\n"), name), "{name} as old versions write it");
        }
    }

    #[test]
    fn a_guest_has_not_anothers() {
        for (machine, name) in [
            ("qemu-3-db", "web1"),
            ("qemu-3-prod-web1", "web1"),
            ("qemu-3-web1", "prod-web1"),
            ("qemu-3-web11", "web1"),
            ("qemu-3-web1", "web11"),
            ("qemu-31-web1", "1-web1"),
            ("qemu-user-3-prod-web1", "web1"),
        ] {
            assert!(!may_be_of(&scope(machine), name), "{machine} of {name}");
            assert!(!may_be_of(&format!("4:memory:/machine/{machine}.libvirt-qemu/emulator\n"), name), "{machine} of {name}");
        }
    }

    #[test]
    fn who_is_in_no_scope_may_be_anyones() {
        for groups in
            ["", "0::/\n", "0::/system.slice/libvirtd.service\n", "9:name=systemd:/user.slice/session-3.scope\n0::/machine.slice\n"]
        {
            assert!(may_be_of(groups, "web1") && !is_libvirts(groups), "{groups}");
        }
        // One group that fits is enough.
        assert!(may_be_of("9:cpu:/machine/qemu-2-db.libvirt-qemu\n8:memory:/machine/qemu-3-web1.libvirt-qemu\n", "web1"));
    }

    #[test]
    fn pid_files_as_libvirt_names_them() {
        let guest = |link: &str| pid_files_guest(Path::new(link));
        assert_eq!(guest("/run/libvirt/qemu/web1.pid").as_deref(), Some("web1"));
        assert_eq!(guest("/run/libvirt/qemu/web1.pid (deleted)").as_deref(), Some("web1"));
        // Seen from outside of its mount namespace, and a user's.
        assert_eq!(guest("/libvirt/qemu/a.pid.pid").as_deref(), Some("a.pid"));
        assert_eq!(guest("/run/user/1000/libvirt/qemu/run/web1.pid").as_deref(), Some("web1"));
        for other in ["/run/web1.pid", "/run/libvirt/qemu/web1.xml", "/var/lib/libvirt/qemu/nvram/web1.pid", "socket:[4711]", "web1.pid"] {
            assert_eq!(guest(other), None, "{other}");
        }
    }
}
