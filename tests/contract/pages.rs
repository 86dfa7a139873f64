//! The pages of the manual: links lead somewhere, pictures are current, and the commands and options that they name exist.

#[path = "../operator/commands.rs"]
mod manual;

use manual::{OTHERS, UNTRIED, WITH_THE_GUIDE};
use std::fs;
use std::path::{Path, PathBuf};

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
            let Some((file, anchor)) = link.split_once('#').filter(|(file, _)| !file.contains("://")) else { continue };
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let anchors = anchors(&fs::read_to_string(target).unwrap());
            assert!(anchors.iter().any(|known| known == anchor), "{}: {link}: there are only {anchors:?}", page.display());
        }
    }
}

/// By which the headings of a page are reached.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let plain = |heading: String| heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter)).collect::<String>();
    headings.map(|heading| plain(heading).replace(' ', "-")).collect()
}

/// Each line that a page has a reader type is run by the suite `operator`, as it stands, or has a reason not to be.
#[test]
fn commands_are_tried() {
    let folder = fs::read_dir(project().join("docs")).unwrap().flatten().map(|entry| format!("docs/{}", entry.file_name().display()));
    let pages: Vec<String> = folder.filter(|name| name.ends_with(".md")).chain(["README.md".to_owned()]).collect();
    let (mut followed, mut typed) = (Vec::new(), Vec::new());
    for name in pages {
        let text = fs::read_to_string(project().join(&name)).unwrap();
        let known = WITH_THE_GUIDE.iter().chain(&OTHERS).any(|(page, _)| *page == name);
        let (all, marks) = (manual::commands(&text), text.matches("\n```sh").count());
        assert!(known || all.is_empty(), "tests/operator follows {name} nowhere: {all:?}");
        assert_eq!(marks, text.matches("\n```sh\n").count(), "{name}: a block of shell is called otherwise");
        // The README has the same lines for two tools, of which a reader has one.
        let indented = text.split("\n\n").find(|part| part.starts_with("    ") && known && name != "README.md");
        assert_eq!(indented, None, "{name}: commands stand in a block of shell, anything else in one without a name");
        typed.extend(all);
        followed.extend(known.then_some(name));
    }
    assert_eq!(followed.len(), WITH_THE_GUIDE.len() + OTHERS.len(), "a page is gone, and these are there: {followed:?}");
    for (line, why) in UNTRIED {
        assert!(typed.iter().any(|typed| typed == line), "no page says any more: {line}");
        assert!(!why.is_empty(), "{line}: why not?");
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
            // The help of the help is none.
            if *word == "help" {
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
    let words: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help").collect();
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

/// The page has each difference from VirtualDomain as the manual has it, and no other.
#[test]
fn the_differences_are_those_of_the_manual() {
    let page = fs::read_to_string(project().join("docs/from-virtualdomain.md")).unwrap();
    let (_, list) = page.split_once("\n1. ").unwrap();
    let list = format!("1. {}", list.split_whitespace().collect::<Vec<_>>().join(" "));
    let wanted = kvmha::ocf::differences::DIFFERENCES.iter().map(|known| format!("{}. {}", known.number, known.text));
    assert_eq!(list, wanted.collect::<Vec<_>>().join(" "));
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
