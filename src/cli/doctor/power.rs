//! What this node does with guests when it comes up and when it goes down, by its own files.

use super::{Found, Patient, hosts};
use crate::cluster::tool;
use crate::deadline::Deadline;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// For systemd to answer a question.
const SYSTEMD: Duration = Duration::from_secs(5);
/// What Pacemaker starts after, and ends before.
const DEPENDENCIES: &str = "resource-agents-deps.target";
/// What libvirt has its guests end after.
const GUESTS: &str = "virt-guest-shutdown.target";

/// QEMU's settings of libvirt, of libvirtd and virtqemud alike.
pub(super) const SETTINGS: &str = "etc/libvirt/qemu.conf";
/// What libvirt does with guests itself when the host goes down, from version 11 on; each is "none" for the system's daemon if nothing is said.
const AUTOMATIC: [&str; 3] = ["auto_shutdown_try_save", "auto_shutdown_try_shutdown", "auto_shutdown_poweroff"];

/// Whether systemd rules here, as sd_booted(3) asks.
fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The value that a shell's script is left with when it has read its own text and then its settings.
fn last<'a>(name: &str, script: &'a str, settings: &'a str) -> Option<&'a str> {
    let lines = script.lines().chain(settings.lines());
    let mut values = lines.filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    values.next_back().map(|value| value.trim().trim_matches(['"', '\'']))
}

/// The unit's own program: `ExecStart=/usr/lib/libvirt/libvirt-guests.sh start`.
fn program(unit: &str) -> Option<&Path> {
    unit.lines().find_map(|line| line.trim().strip_prefix("ExecStart=")).and_then(|line| line.split_whitespace().next()).map(Path::new)
}

/// It starts at boot what ran when the host went down, if it is enabled and told to: by `ON_BOOT` of its script, `start` in libvirt's source and
/// `ignore` in Debian, or of the file that the script reads after that. Any other word than `start` starts nothing.
pub(super) fn libvirt_guests(patient: &Patient, found: &mut Found) {
    if !is_booted() {
        return;
    }
    let units = Path::new("/etc/systemd/system");
    let wanted = fs::read_dir(units)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "wants"));
    // What cannot be read cannot be run either.
    let read = |unit: String| fs::read_to_string(program(&unit)?).ok();
    let Some(script) = wanted.filter_map(|path| fs::read_to_string(path.join("libvirt-guests.service")).ok()).find_map(read) else {
        return;
    };
    let settings = if script.contains("/default") { "/etc/default/libvirt-guests" } else { "/etc/sysconfig/libvirt-guests" };
    if last("ON_BOOT", &script, &fs::read_to_string(settings).unwrap_or_default()) == Some("start") {
        found.problem(
            format!(
                "libvirt-guests.service of {} is enabled: at boot it starts the guests that ran there, wherever they run now",
                patient.here
            ),
            format!(
                "ON_BOOT=ignore in {settings}, or systemctl disable libvirt-guests (not stop, and without --now: that shuts down every guest that runs here)"
            ),
        );
    }
}

/// The value of one of libvirt's settings, without its quotes.
pub(super) fn setting<'a>(name: &str, settings: &'a str) -> Option<&'a str> {
    let mut values = settings.lines().filter_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix('='));
    let value = values.next_back()?.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.split(*quote).next());
    Some(quoted.unwrap_or(value))
}

/// libvirt that ends guests itself, while Pacemaker still moves them: those it has a definition of, or all.
pub(super) fn auto_shutdown(patient: &Patient, found: &mut Found) {
    let settings = fs::read_to_string(Path::new("/").join(SETTINGS)).unwrap_or_default();
    ended(&settings, &patient.here, hosts::is_defined_here(patient), found);
}

/// `defined`: libvirt here has a definition of a guest of the cluster, which then is one of the persistent ones, and may be started again.
fn ended(settings: &str, node: &str, defined: bool, found: &mut Found) {
    let does = |name: &&str| match setting(name, settings) {
        None | Some("none") => false,
        Some("persistent") => defined,
        Some(_) => true,
    };
    let names: Vec<&str> = AUTOMATIC.into_iter().filter(does).collect();
    if names.is_empty() {
        return;
    }
    let names = names.join(" and ");
    let restored = defined && setting("auto_shutdown_restore", settings) != Some("0");
    let boot = if restored { ", and starts them again at boot, wherever they run then" } else { "" };
    found.problem(
        format!(
            "libvirt of {node} ends guests itself when the host goes down, while Pacemaker still moves them{boot}: {names} in qemu.conf"
        ),
        format!("{names} = \"none\" in /{SETTINGS}, then systemctl restart virtqemud where that runs, else libvirtd (guests run on)"),
    );
}

/// What systemd says of a unit's property; empty if it cannot be asked.
fn property(unit: &str, name: &str) -> String {
    tool::run("systemctl", &["show", "--property", name, "--value", unit], &Deadline::after(SYSTEMD)).unwrap_or_default().trim().to_owned()
}

/// Without the drop-in a host that is shut down ends libvirt, or the guests, while Pacemaker still moves them. libvirt puts a guest's scope before
/// its target, which orders nothing unless it is active: only what runs has a job when the host goes down.
pub(super) fn order(patient: &Patient, found: &mut Found) {
    if !is_booted() {
        return;
    }
    let places = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"]
        .map(|root| Path::new(root).join("systemd/system").join(format!("{DEPENDENCIES}.d")));
    let files = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let ordered = files.filter_map(|file| fs::read_to_string(file.path()).ok()).any(|text| text.contains(GUESTS));
    let (after, state) = (property(DEPENDENCIES, "After"), property(GUESTS, "ActiveState"));
    if !ordered {
        found.warning(
            format!("{} has no drop-in that has Pacemaker done before libvirt at shutdown: a shutdown may end guests instead of moving them", patient.here),
            format!("install 50-kvmha.conf to /usr/lib/systemd/system/{DEPENDENCIES}.d (make -C packaging install), then systemctl daemon-reload"),
        );
    } else if !after.is_empty() && !after.split_whitespace().any(|unit| unit == GUESTS) {
        found.warning(
            format!(
                "systemd of {} has not read the drop-in for {DEPENDENCIES} yet: a shutdown may end guests instead of moving them",
                patient.here
            ),
            "systemctl daemon-reload",
        );
    }
    if !state.is_empty() && state != "active" {
        found.warning(
            format!("{GUESTS} of {} is not active: a shutdown ends guests while Pacemaker still moves them", patient.here),
            format!("systemctl start {GUESTS}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_is_left_with() {
        let debian = "URIS=\"default\"\nON_BOOT=\"ignore\"\nON_SHUTDOWN=\"shutdown\"\ntest -f /x && . /x\n    if [ \"x$ON_BOOT\" != xstart ]; then\n";
        let source = debian.replace("ignore", "start");
        for (script, settings, value) in [
            (debian, "", Some("ignore")),
            (debian, "#ON_BOOT=start\n", Some("ignore")),
            (debian, "# what is done\nON_BOOT=start\n", Some("start")),
            (debian, "ON_BOOT='start'\nON_BOOT=ignore\n", Some("ignore")),
            (&source, "", Some("start")),
            (&source, "ON_BOOT_X=ignore\n", Some("start")),
            (&source, " ON_BOOT=\"ignore\" \n", Some("ignore")),
            ("", "", None),
        ] {
            assert_eq!(last("ON_BOOT", script, settings), value, "{settings:?}");
        }
    }

    #[test]
    fn a_setting_of_libvirts() {
        assert_eq!(setting("user", ""), None);
        assert_eq!(setting("user", "#user = \"root\"\nuser_x = 1\n"), None);
        assert_eq!(setting("user", " user=\"a\"\nuser = 'b' # not root\n"), Some("b"));
        assert_eq!(setting("auto_shutdown_restore", "auto_shutdown_restore = 0\n"), Some("0"));
        assert_eq!(setting("security_driver", "security_driver = [ \"none\" ]\n"), Some("[ \"none\" ]"));
    }

    #[test]
    fn libvirt_that_ends_guests_itself_is_found() {
        let said = |settings: &str, defined| {
            let mut found = Found::default();
            ended(settings, "node1", defined, &mut found);
            found.0.into_iter().map(|(_, text, remedy)| (text, remedy)).collect::<Vec<_>>()
        };
        assert_eq!(said("", true), []);
        assert_eq!(said("#auto_shutdown_try_shutdown = \"all\"\nauto_shutdown_poweroff = \"none\"\nauto_shutdown_restore = 1\n", true), []);
        let all = said("auto_shutdown_try_shutdown = \"all\"\nauto_shutdown_poweroff = \"transient\"\n", false);
        assert_eq!(all.len(), 1, "{all:?}");
        let (text, remedy) = &all[0];
        assert!(text.contains("node1") && text.contains("auto_shutdown_try_shutdown and auto_shutdown_poweroff"), "{text}");
        assert!(!text.contains("at boot"), "nothing is started that it has no definition of: {text}");
        assert!(remedy.contains("\"none\" in /etc/libvirt/qemu.conf") && remedy.contains("virtqemud"), "{remedy}");
        let persistent = "auto_shutdown_try_save = \"persistent\"\n";
        assert_eq!(said(persistent, false), [], "Pacemaker's guests are not persistent");
        assert!(said(persistent, true)[0].0.contains("starts them again at boot"));
        assert!(!said(&format!("{persistent}auto_shutdown_restore = 0\n"), true)[0].0.contains("at boot"));
    }

    #[test]
    fn what_a_unit_runs() {
        let unit =
            "[Service]\n# ExecStart=no\nEnvironmentFile=-/etc/default/libvirt-guests\nExecStart=/usr/lib/libvirt/libvirt-guests.sh start\n";
        assert_eq!(program(unit), Some(Path::new("/usr/lib/libvirt/libvirt-guests.sh")));
        assert_eq!(program("[Service]\n"), None);
    }
}
