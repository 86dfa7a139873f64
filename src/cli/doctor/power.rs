//! What this node does with guests when it comes up and when it goes down, by its own files.

use super::{Found, Patient};
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
    fn what_a_unit_runs() {
        let unit =
            "[Service]\n# ExecStart=no\nEnvironmentFile=-/etc/default/libvirt-guests\nExecStart=/usr/lib/libvirt/libvirt-guests.sh start\n";
        assert_eq!(program(unit), Some(Path::new("/usr/lib/libvirt/libvirt-guests.sh")));
        assert_eq!(program("[Service]\n"), None);
    }
}
