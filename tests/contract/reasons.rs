//! `docs/exit-reasons.md`: every exit reason stands there, nothing that no source says, and one is looked up in one place.

use crate::pages::project;
use std::fs;
use std::path::Path;

/// The sections of the page that the reasons below are looked up in.
const STANDS: &str = "The guest stands still";
const LEFT: &str = "A move that was left in the middle";
const DISK: &str = "A disk cannot be read (outage_policy)";
const START: &str = "A start that did not work";
const SAVED: &str = "A saved state (snapshot)";
const GONE: &str = "The emulator is not gone, or cannot be seen";
const AGENT: &str = "The guest's agent";
const PARAMETER: &str = "A parameter";

/// The models are tests that have files of their own.
fn is_model(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("model" | "model.rs")))
}

/// All sources of the rooms whose sentences become exit reasons, and of what says how a program ended, without their tests and without what breaks a
/// long line.
fn sources() -> Vec<String> {
    let programs = fs::read_to_string(project().join("src/program.rs")).unwrap();
    sources_below(&["src/ocf", "src/domain"]).into_iter().chain([programs]).collect()
}

fn sources_below(folders: &[&str]) -> Vec<String> {
    let mut folders: Vec<_> = folders.iter().map(|folder| project().join(folder)).collect();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !is_model(&path) {
                let text = fs::read_to_string(&path).unwrap();
                // Also tests whose helpers others use.
                let tests =
                    ["mod ", "pub(in crate::ocf) mod ", "pub(super) mod "].map(|begin| text.find(&format!("#[cfg(test)]\n{begin}")));
                let text = tests.into_iter().flatten().min().map_or(text.as_str(), |end| &text[..end]);
                let mut parts = text.split("\\\n");
                let first = parts.next().unwrap_or_default().to_owned();
                texts.push(parts.fold(first, |text, part| text + part.trim_start()));
            }
        }
    }
    texts
}

/// The literals with which failures and errors are made, `…` for what is put in.
fn reasons(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for begin in ["Failure::generic(", "Error::new("] {
        for rest in text.split(begin).skip(1) {
            let mut rest = rest.trim_start();
            if rest.starts_with("Kind::") {
                rest = rest.split_once(',').map_or("", |(_, rest)| rest).trim_start();
            }
            rest = rest.trim_start_matches('&');
            rest = rest.strip_prefix("format!(").unwrap_or(rest).trim_start();
            let Some(literal) = rest.strip_prefix('"') else { continue };
            let end = literal.char_indices().find(|(at, letter)| *letter == '"' && !literal[..*at].ends_with('\\')).map(|(at, _)| at);
            found.extend(end.map(|end| with_dots(&literal[..end])).filter(|reason| reason.chars().any(char::is_alphabetic)));
        }
    }
    found
}

fn with_dots(literal: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for letter in literal.chars() {
        match letter {
            '{' => {
                inside = true;
                text.push('…');
            }
            '}' => inside = false,
            letter if !inside => text.push(letter),
            _ => {}
        }
    }
    text
}

#[test]
fn every_exit_reason_is_explained() {
    let page = fs::read_to_string(project().join("docs/exit-reasons.md")).unwrap();
    let sources = sources();
    let reasons: Vec<String> = sources.iter().flat_map(|text| reasons(text)).collect();
    assert!(reasons.len() > 50, "the sources are not understood any more: {reasons:?}");
    let missing: Vec<&String> = reasons.iter().filter(|reason| !page.contains(&format!("- `{reason}`"))).collect();
    assert!(missing.is_empty(), "docs/exit-reasons.md does not have: {missing:#?}");
    let said = |part: &str| sources.iter().any(|text| text.contains(part)) || COMPOSED.iter().any(|(reason, ..)| reason.contains(part));
    for (_, listed) in listed(&page) {
        for part in listed.split('…').map(str::trim).filter(|part| part.len() > 3) {
            assert!(said(part), "docs/exit-reasons.md has {listed:?}, but nothing says {part:?}");
        }
    }
}

/// Reasons that the agent puts together from parts: what Pacemaker shows, the parts as the sources have them, and the section that it is
/// looked up in.
const COMPOSED: &[(&str, &[&str], &str)] = &[
    ("web1 is paused (watchdog)", &["{name} is {condition}", "\"watchdog\""], STANDS),
    ("web1 is paused (crashed)", &["{name} is {condition}", "\"crashed\""], STANDS),
    ("web1 is paused (unknown)", &["{name} is {condition}", "\"unknown\""], STANDS),
    ("web1 is paused (api error)", &["{name} is {condition}", "\"api error\""], STANDS),
    ("web1 is crashed (panicked)", &["{name} is {condition}", "\"panicked\""], STANDS),
    ("web1 is pmsuspended (unknown)", &["{name} is {condition}", "\"pmsuspended\""], STANDS),
    ("web1 is paused (post-copy failed)", &["{name} is {condition}", "\"post-copy failed\""], LEFT),
    ("web1 is running (post-copy failed)", &["{name} is {condition}", "\"post-copy failed\""], LEFT),
    (
        "web1 is running (post-copy failed), part of its memory has not come",
        &["{name} is {condition}, part of its memory has not come"],
        LEFT,
    ),
    (
        "web1 is paused (migrating), the end of its move to qemu+ssh://node2/system is not known",
        &["the end of its move to {uri} is not known"],
        LEFT,
    ),
    ("web1 is paused (I/O error)", &["{name} is {condition}", "\"I/O error\""], DISK),
    ("web1 is paused (I/O error); its storage answers", &["\"its storage answers\""], DISK),
    (
        "web1 is paused (I/O error); its storage answers, but it is not let go on: without fencing another node may have run it in the meantime",
        &["its storage answers, but it is not let go on: {text}", "without fencing another node may have run it in the meantime"],
        DISK,
    ),
    (
        "web1 is paused (I/O error); its storage answers, but it was let go on 3 times in 10 min: that is left to a person",
        &["its storage answers, but it was let go on {OFTEN} times in {} min: that is left to a person"],
        DISK,
    ),
    ("web1 is paused (I/O error); it was to go on, and is not seen to", &["it was to go on, and is not seen to"], DISK),
    ("web1 is paused (I/O error); libvirt does not say what its disks are", &["libvirt does not say what its disks are"], DISK),
    ("web1 is paused (I/O error); vda (/srv/vms/web1.img) cannot be read: input/output error", &["{item} cannot be read: {text}"], DISK),
    ("web1 is paused (I/O error); vda (/srv/vms/web1.img) does not answer", &["{item} does not answer"], DISK),
    (
        "web1 is paused (I/O error); whether vda (/srv/vms/web1.img) answers cannot be told",
        &["whether {item} answers cannot be told"],
        DISK,
    ),
    (
        "web1 is paused (I/O error); vda (/srv/vms/web1.img) cannot be read: input/output error (outage_policy=stop)",
        &["{trouble} (outage_policy=stop)"],
        DISK,
    ),
    (
        "web1 is paused (I/O error); vda (/srv/vms/web1.img) does not answer (outage_policy=relocate, node2 reads its disks)",
        &["(outage_policy=relocate, {node} reads its disks)"],
        DISK,
    ),
    (
        "web1 is paused (I/O error); vda (/srv/vms/web1.img) does not answer; it stays here: node2 gives no answer about its disks",
        &["{trouble}; it stays here: {text}", "{node} gives no answer about its disks"],
        DISK,
    ),
    (
        "start of web1 refused: vda (/srv/vms/web1.img) cannot be read: no such file or directory",
        &["start of {} refused: {text}", "{} cannot be read: {text}"],
        DISK,
    ),
    ("start of web1 refused: vda (/srv/vms/web1.img) does not answer", &["start of {} refused: {text}", "{} does not answer"], DISK),
    (
        "start of web1 refused: web1 is on node2, running (booted)",
        &["start of {name} refused: {why}", "{guest} is on {node}{other}, {condition}"],
        START,
    ),
    (
        "start of web1 refused: its UUID is that of web2, which is on node2, running (booted)",
        &["start of {name} refused: {why}", "its UUID is that of {name}, which is on {node}, {condition}"],
        START,
    ),
    (
        "start of web1: its holder cannot be told: creating web1: internal error: Failed to get \"write\" lock",
        &["its holder cannot be told", "start of {name}"],
        START,
    ),
    (
        "start of web1: emulator 4711 of web2 has /srv/vms/web1.img open here: creating web1: internal error: Failed to get \"write\" lock",
        &["emulator {pid} of {guest} has {image} open here"],
        START,
    ),
    (
        "start of web1: no emulator here has /srv/vms/web1.img open: another host's, or its lock has not yet run out: creating web1: ...",
        &["no emulator here has {image} open: another host's, or its lock has not yet run out"],
        START,
    ),
    (
        "start of web1: /srv/vms/web1.save cannot be restored: operation failed; remove it to boot web1 without it",
        &["{} cannot be restored: {}; remove it to boot {name} without it"],
        SAVED,
    ),
    (
        "start of web1: /srv/vms/web1.save is older than /srv/vms/web1.img: remove it to boot web1 without it",
        &["{} is older than {}: remove it"],
        SAVED,
    ),
    (
        "a guest has come here that may be this resource's: config /srv/vms/web1.xml: line 1",
        &["a guest has come here that may be this resource's"],
        GONE,
    ),
    (
        "the agent of web1 is silent, and its disks and network stand still, 3 monitors long: no answer",
        &["is silent, and its disks and network stand still"],
        AGENT,
    ),
    ("force_stop: \"perhaps\" is no boolean, use true or false", &["{}: {}"], PARAMETER),
    ("migration_policy: \"fast\" is none of plain, gentle, converge, postcopy", &["{}: {}"], PARAMETER),
    ("hypervisor: qemu+ssh://node2/system is not on this host, node1", &["hypervisor: {} is not on this host, {}"], PARAMETER),
];

/// The reasons of the page, each with the title of its section.
fn listed(page: &str) -> Vec<(&str, &str)> {
    let sections = page.split("\n## ").skip(1);
    sections
        .flat_map(|section| {
            let title = section.lines().next().unwrap_or_default();
            section.lines().filter_map(move |line| Some((title, line.strip_prefix("- `")?.strip_suffix('`')?)))
        })
        .collect()
}

/// How much of a listed reason a person finds again in one that is shown: its letters, if all of its parts are there in their order.
fn found(listed: &str, shown: &str) -> Option<usize> {
    let mut rest = shown;
    for part in listed.split('…') {
        rest = rest.split_once(part)?.1;
    }
    Some(listed.replace('…', "").len())
}

#[test]
fn a_reason_is_looked_up_in_one_place() {
    let page = fs::read_to_string(project().join("docs/exit-reasons.md")).unwrap();
    let (sources, mut wrong) = (sources_below(&["src"]), Vec::new());
    for (shown, parts, section) in COMPOSED {
        for part in *parts {
            assert!(sources.iter().any(|text| text.contains(part)), "{shown}: no source has {part:?} any more");
        }
        let entries: Vec<_> =
            listed(&page).into_iter().filter_map(|(title, listed)| Some((found(listed, shown)?, title, listed))).collect();
        let best = entries.iter().map(|(letters, ..)| *letters).max();
        let places: Vec<_> = entries.iter().filter(|(letters, ..)| Some(*letters) == best).collect();
        if places.is_empty() || places.iter().any(|(_, title, _)| title != section) {
            wrong.push(format!("{shown:?} belongs to {section:?}: {places:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Without proof Pacemaker starts what its probes do not see, and restarts what has come by a move; the doctor advises the same.
#[test]
fn nobody_is_told_to_have_a_failure_forgotten_by_hand() {
    for name in ["docs/exit-reasons.md", "docs/operation.md"] {
        let page = fs::read_to_string(project().join(name)).unwrap();
        let told: Vec<_> = page.lines().filter(|line| line.contains("cleanup") && !line.contains("by hand")).collect();
        assert!(told.is_empty(), "{name}: {told:#?}");
        assert!(page.contains("kvmha repair"), "{name}");
    }
}

#[test]
fn a_group_of_reasons_holds_what_its_remedy_mends() {
    let page = fs::read_to_string(project().join("docs/exit-reasons.md")).unwrap();
    let group = |of: &str| {
        let at = page.find(of).unwrap_or_else(|| panic!("{of}"));
        let (begin, end) = (page[..at].rfind("\n## ").unwrap(), page[at..].find("\n## ").map_or(page.len(), |end| at + end));
        page[begin..end].to_owned()
    };
    // A libvirt that has a definition is well: its restart mends nothing.
    let persistent = group("- `libvirt also has a persistent definition of it`");
    assert!(!persistent.contains("systemctl") && persistent.contains("virsh undefine"), "{persistent}");
    assert!(!group("- `it wants a … (SASL)").contains("systemctl"), "a password is not mended by a restart");
    assert!(!group("- `the URI has a NUL in it`").contains("systemctl"), "a wrong parameter is not mended by a restart");
    assert!(group("- `libvirt gave no answer within … s`").contains("systemctl"), "where it does not answer");
}
