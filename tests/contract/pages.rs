//! The pages of the manual below `docs`: every exit reason stands there, and nothing that no source says; links lead somewhere; pictures are current.

use std::fs;
use std::path::{Path, PathBuf};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
            } else if path.extension().is_some_and(|end| end == "rs") {
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
