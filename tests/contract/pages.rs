//! The pages of the manual below `docs`: every exit reason stands there, and nothing that no source says; links lead somewhere; pictures are current.

use std::fs;
use std::path::{Path, PathBuf};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The models are tests that have files of their own.
fn is_model(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("model" | "model.rs")))
}

/// All sources of the rooms whose sentences become exit reasons, without their tests and without what breaks a long line.
fn sources() -> Vec<String> {
    let mut folders = vec![project().join("src/ocf"), project().join("src/domain")];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !is_model(&path) {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
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
    for listed in page.lines().filter_map(|line| line.strip_prefix("- `")?.strip_suffix('`')) {
        for part in listed.split('…').map(str::trim).filter(|part| part.len() > 3) {
            assert!(sources.iter().any(|text| text.contains(part)), "docs/exit-reasons.md has {listed:?}, but nothing says {part:?}");
        }
    }
}

#[test]
fn pictures_are_what_their_texts_say() {
    let output = std::process::Command::new("python3").arg(project().join("docs/pictures/draw")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<PathBuf> = fs::read_dir(project().join("docs")).unwrap().flatten().map(|entry| entry.path()).collect();
    pages.push(project().join("README.md"));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let file = link.split('#').next().unwrap_or_default();
            let there = file.is_empty() || file.starts_with("https://") || page.parent().is_some_and(|folder| folder.join(file).exists());
            assert!(there, "{}: {link} leads nowhere", page.display());
        }
    }
}

/// What `--help` says of these words.
fn help(words: &[&str]) -> Option<String> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kvmha")).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All pages, the manual pages as a reader sees them, and the texts of `--help`.
fn texts() -> Vec<(String, String)> {
    let mut pages: Vec<PathBuf> = fs::read_dir(project().join("docs")).unwrap().flatten().map(|entry| entry.path()).collect();
    pages.extend(["README.md", "packaging/README.md", "CHANGELOG.md"].map(|name| project().join(name)));
    pages.extend(["kvmha.8", "fence_kvmha.8", "ocf_kvmha_VirtualDomain.7"].map(|name| project().join("metadata").join(name)));
    let read = |page: &PathBuf| (page.display().to_string(), fs::read_to_string(page).unwrap());
    let plain = |text: String| text.replace("\\*(Aq", "'").replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "");
    let pages = pages.iter().filter(|page| page.is_file()).map(read);
    pages.map(|(name, text)| (name, plain(text))).collect()
}

/// A command of ours in a text: the words up to one that is no word or option of it.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let begins = text.lines().flat_map(|line| {
        let line = line.trim_start();
        let quoted = line.split('`').skip(1).step_by(2).filter(|part| part.starts_with("kvmha "));
        let whole = line.starts_with("kvmha ").then_some(line);
        quoted.chain(whole)
    });
    begins.map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1).collect()).collect()
}

#[test]
fn commands_in_the_pages_exist() {
    let top = help(&[]).unwrap();
    let known: Vec<&str> = top.lines().filter(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next()).collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in texts() {
        for command in commands(&text) {
            let Some(word) = command.first().filter(|word| word.chars().all(|letter| letter.is_ascii_lowercase())) else { continue };
            if !known.contains(word) {
                wrong.push(format!("{page}: kvmha {}: there is no {word}", command.join(" ")));
                continue;
            }
            let words: &[&str] = if command.get(1) == Some(&"convert") { &[word, "convert"] } else { &[word] };
            let text = help(words).unwrap();
            for option in command.iter().filter(|part| part.starts_with("--")) {
                let option = option.split(['=', ';', ',', ')', ']']).next().unwrap_or_default();
                let has = text.split(|letter: char| letter.is_whitespace() || "[],=".contains(letter)).any(|part| part == option);
                if !has {
                    wrong.push(format!("{page}: kvmha {}: it has no {option}", command.join(" ")));
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} commands are found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_word_has_examples_and_a_section_of_the_manual() {
    let manual = fs::read_to_string(project().join("metadata/kvmha.8")).unwrap();
    let top = help(&[]).unwrap();
    let list = top.split_once("Commands:\n").and_then(|(_, rest)| rest.split_once("\n\n")).unwrap().0;
    let words: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(words.len() > 10, "{top}");
    let mut all: Vec<Vec<&str>> = vec![vec![]];
    all.extend(words.iter().map(|word| vec![*word]));
    all.push(vec!["fence", "convert"]);
    for words in all {
        let text = help(&words).unwrap();
        assert!(text.contains("\nExamples:\n  "), "kvmha {} --help has no example: {text}", words.join(" "));
        assert!(
            words.first() == Some(&"generate") || words == ["fence"] || text.contains("code is"),
            "kvmha {} --help says no code: {text}",
            words.join(" ")
        );
        let title = format!(".SH \"{}\"\n", words.join(" ").to_uppercase());
        assert!(words.is_empty() || manual.contains(&title), "kvmha(8) has no section {title}");
    }
}

#[test]
fn manual_pages_name_only_pages_that_there_are() {
    let ours = ["kvmha(8)", "fence_kvmha(8)", "ocf_kvmha_VirtualDomain(7)"];
    let others = ["pcs(8)", "crm(8)", "crm_mon(8)", "stonith_admin(8)", "virsh(1)"];
    for (page, text) in texts().into_iter().filter(|(page, _)| page.contains("/metadata/")) {
        let words =
            text.split([' ', '\n', ',', ';', '"']).filter(|word| word.ends_with("(7)") || word.ends_with("(8)") || word.ends_with("(1)"));
        for word in words {
            assert!(ours.contains(&word) || others.contains(&word), "{page} names {word}");
        }
    }
}

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

/// What stands in the metadata of the fence agent for Pacemaker stands in the manual and in `--help` for a person.
#[test]
fn a_person_is_told_the_actions_and_defaults_of_the_fence_agent() {
    let metadata = fs::read_to_string(project().join("metadata/fence_kvmha.xml")).unwrap();
    let tree = roxmltree::Document::parse(&metadata).unwrap();
    let (_, page) = texts().into_iter().find(|(page, _)| page.ends_with("fence_kvmha.8")).unwrap();
    let (page, help) = (page.replace('\n', " "), help(&["fence"]).unwrap());
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let parameters = tree.descendants().filter(|node| node.has_tag_name("parameter") && node.attribute("deprecated").is_none());
    let mut seen = 0;
    for node in parameters {
        let content = node.children().find(|child| child.has_tag_name("content")).unwrap();
        let (short, name) = (node.children().find(|child| child.has_tag_name("shortdesc")).unwrap(), node.attribute("name").unwrap());
        for text in [&page, &help] {
            // What stands behind the option's own words, up to the next option.
            let (_, rest) = text.split_once(short.text().unwrap()).unwrap_or_else(|| panic!("{name}: {text}"));
            let rest = rest.split(".TP").next().unwrap().split(" -").next().unwrap();
            if let Some(default) = content.attribute("default") {
                assert!(rest.contains(&format!("[default: {default}]")), "{name}: {rest}");
                seen += 1;
            }
            for word in content.children().filter_map(|child| child.attribute("value")) {
                assert!(rest.contains(word) && rest.contains("[possible values: "), "{name}: {word}: {rest}");
            }
        }
    }
    assert!(seen > 20, "{seen}");
    for action in tree.descendants().filter(|node| node.has_tag_name("action")).filter_map(|node| node.attribute("name")) {
        for (name, text) in [("page", &page), ("help", &help)] {
            let list =
                text.split_once("[possible values: ").and_then(|(_, rest)| rest.split_once(']')).unwrap_or_else(|| panic!("{name}")).0;
            assert!(list.split(", ").any(|word| word == action), "{name} has no action {action}: {list}");
        }
    }
}

/// A timer that is dead writes nothing, and its last file says for ever that all is well.
#[test]
fn the_metrics_page_has_its_units_and_looks_at_their_age() {
    let page = fs::read_to_string(project().join("docs/metrics.md")).unwrap();
    for part in ["kvmha-metrics.service", "kvmha-metrics.timer", "OnCalendar=", "Type=oneshot", "node_textfile_mtime_seconds"] {
        assert!(page.contains(part), "docs/metrics.md has no {part}");
    }
}
