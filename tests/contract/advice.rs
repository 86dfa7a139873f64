//! What the pages tell a person to type does no harm.

use crate::pages::project;
use std::fs;
use std::path::PathBuf;

/// `systemctl disable --now` runs its ExecStop, which shuts down every guest of the host, those of the cluster too (ON_SHUTDOWN of its script).
#[test]
fn nobody_is_told_to_stop_libvirt_guests() {
    let (mut files, mut folders) = (vec![project().join("README.md")], vec![project().join("src"), project().join("docs")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    assert!(files.len() > 100, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let told = ["--now libvirt-guests", "stop libvirt-guests", "libvirt-guests stop", "libvirt-guests.service --now"];
        assert!(!told.iter().any(|line| text.contains(line)), "{}", file.display());
    }
}

/// The pages that a person follows.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages: Vec<PathBuf> = fs::read_dir(project().join("docs")).unwrap().flatten().map(|entry| entry.path()).collect();
    pages.push(project().join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|end| end == "md"));
    pages.into_iter().map(|page| (page.clone(), fs::read_to_string(page).unwrap())).collect()
}

/// Without `--security-info` libvirt leaves the passwords of the consoles out, and the guest has none after its next start.
#[test]
fn a_definition_is_written_with_its_passwords() {
    let pages = pages();
    let lines = || pages.iter().flat_map(|(page, text)| text.lines().filter(|line| line.contains("dumpxml")).map(move |line| (page, line)));
    assert!(lines().count() > 1, "nobody is told to write a definition");
    for (page, line) in lines() {
        let right = line.contains("--security-info") && line.contains("umask 077");
        assert!(right, "{}: {line}", page.display());
    }
}

/// libvirt's plain tcp asks nobody for a name: it is for the lab.
#[test]
fn nobody_is_told_to_move_guests_over_plain_tcp() {
    for (page, text) in pages().iter().filter(|(page, _)| !page.ends_with("chaos.md")) {
        assert!(!text.contains("migration_transport=tcp"), "{}", page.display());
    }
}

/// Pacemaker's probe would find a guest that runs already, and the next change of a parameter would restart it.
#[test]
fn a_guest_is_down_before_pacemaker_gets_it() {
    let mut seen = 0;
    for (page, text) in pages() {
        let text = text.replace("\\\n", " ");
        let makes =
            |line: &str| ["pcs resource create ", "crm configure primitive "].iter().any(|begin| line.trim_start().starts_with(begin));
        let Some(line) = text.lines().find(|line| makes(line) && line.contains("VirtualDomain")) else { continue };
        let before = text.split(line).next().unwrap_or_default();
        let told = before.contains("virsh shutdown") || before.contains("--from-libvirt");
        assert!(told, "{}: nothing before {line}", page.display());
        seen += 1;
    }
    assert!(seen > 1, "only {seen} pages make a resource");
}

/// A timer that is dead writes nothing, and its last file says for ever that all is well.
#[test]
fn the_metrics_page_has_its_units_and_looks_at_their_age() {
    let page = fs::read_to_string(project().join("docs/metrics.md")).unwrap();
    for part in ["kvmha-metrics.service", "kvmha-metrics.timer", "OnCalendar=", "Type=oneshot", "node_textfile_mtime_seconds"] {
        assert!(page.contains(part), "docs/metrics.md has no {part}");
    }
}
