//! The Debian package in a node of the lab, which has libvirt and Pacemaker's tools.

use crate::built::{PATIENCE, VERSION, deb, find, newer, project};
use anyhow::{Context, Result, ensure};
use lab::process::{check, run};
use lab::promised;
use lab::stage::{self, AGENT, HERE, Resource};
use lab::{Lab, Output};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A person at a shell.
const TYPE: &str = include_str!("type.py");

/// What belongs to a node's disk; what dpkg, man-db and syslog keep for themselves is theirs.
const DISK: [&str; 3] = ["/usr", "/etc", "/var"];
const THEIRS: [&str; 4] = ["/var/lib/dpkg/", "/var/cache/", "/var/log/", "/var/lib/systemd/"];

/// Runs a line in the node, by its shell.
fn shell(lab: &Lab, line: &str) -> Result<Output> {
    lab.exec(HERE, &["sh", "-c", line], PATIENCE)
}

/// Like [`shell`], and it must succeed; its standard output.
fn ok(lab: &Lab, line: &str) -> Result<String> {
    shell(lab, line)?.success(line)
}

/// Installs a package file; what dpkg said.
fn install(lab: &Lab, package: &Path) -> Result<String> {
    fs::copy(package, lab.layout().shared().join("kvmha.deb"))?;
    // The image of a container may leave manuals out.
    let line = "rm -f /etc/dpkg/dpkg.cfg.d/*; DEBIAN_FRONTEND=noninteractive dpkg -i /srv/vms/kvmha.deb 2>&1";
    let said = ok(lab, line)?;
    fs::remove_file(lab.layout().shared().join("kvmha.deb"))?;
    Ok(said)
}

/// Takes a package away that a scenario has installed, and its guests.
pub fn tidy(lab: &Lab) -> Result<()> {
    shell(lab, "kill $(cat /run/pacemakerd.pid); rm -f /run/pacemakerd* /usr/local/bin/cibadmin")?;
    ok(lab, "if dpkg-query -W kvmha >/dev/null 2>&1; then dpkg --purge kvmha; fi")?;
    stage::tidy(lab)
}

/// A `systemctl` that writes down its words, beside which Pacemaker runs, or does not.
pub fn scribe(runs: bool) -> String {
    format!("#!/bin/sh\necho \"$*\" >>/run/told\ncase \"$*\" in *is-active*) exit {} ;; esac\n", u8::from(!runs) * 3)
}

/// What a package has to have systemd do when it is installed, in the words of its scripts.
pub fn ordered(told: &str, runs: bool) -> Result<()> {
    let mut wanted = vec!["--system daemon-reload", "--system --quiet is-active resource-agents-deps.target"];
    wanted.extend(runs.then_some("--system start virt-guest-shutdown.target"));
    ensure!(told.lines().collect::<Vec<_>>() == wanted, "systemd is told {told:?}, not {wanted:?}");
    Ok(())
}

/// Everything on the node's own disk but what is theirs.
fn disk(lab: &Lab) -> Result<BTreeSet<PathBuf>> {
    let (mut all, mut left) = (BTreeSet::new(), DISK.map(PathBuf::from).to_vec());
    while let Some(path) = left.pop() {
        let upper = lab.layout().on_disk(lab.number(HERE)?, &path.to_string_lossy());
        for entry in fs::read_dir(&upper)?.flatten() {
            let path = path.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(path.clone());
                // A folder of the system below, in which something has changed.
                if path.is_dir() {
                    continue;
                }
            }
            if !THEIRS.iter().any(|theirs| path.starts_with(theirs.trim_end_matches('/'))) {
                all.insert(path);
            }
        }
    }
    Ok(all)
}

/// All the files that belong to a build are there, and the debug information is that of the program.
pub fn complete(_: &Lab) -> Result<()> {
    let package = deb()?;
    let debug = find("deb", "kvmha-dbgsym_", "deb")?;
    for end in [".dsc", ".debian.tar.xz", ".orig.tar.xz", ".changes", ".buildinfo"] {
        find("deb", "kvmha_", end)?;
    }
    let folder = tempfile::tempdir()?;
    let (package, root) = (package.to_string_lossy(), folder.path().to_string_lossy());
    check(&["dpkg-deb", "-x", &package, &root], PATIENCE)?;
    let notes = check(&["readelf", "-n", &format!("{root}/usr/libexec/kvmha/kvmha")], PATIENCE)?;
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).context("the program has no build id")?;
    let files = check(&["dpkg-deb", "-c", &debug.to_string_lossy()], PATIENCE)?;
    ensure!(files.contains(&format!(".build-id/{}/{}.debug", &id[..2], &id[2..])), "no debug information for {id}:\n{files}");
    // Nothing of the builder's machine.
    let program = fs::read(folder.path().join("usr/libexec/kvmha/kvmha"))?;
    let here = project().to_string_lossy().into_owned();
    ensure!(!program.windows(here.len()).any(|part| part == here.as_bytes()), "the program has the path {here} in it");
    Ok(())
}

/// What the suites of kvmha-tests need of a machine is what that package depends on.
pub fn suites_have_what_they_need(_: &Lab) -> Result<()> {
    let read = |name: &str| fs::read_to_string(project().join(name)).with_context(|| name.to_owned());
    let (prepare, control) = (read("tests/prepare")?, read("packaging/debian/control")?);
    let section = control.split("\n\n").find(|part| part.starts_with("Package: kvmha-tests\n")).context("there is no kvmha-tests")?;
    let depends =
        section.split_once("\nDepends:").and_then(|(_, rest)| rest.split_once("\nDescription:")).context("it depends on nothing")?.0;
    let depends: BTreeSet<&str> = depends.split([',', '|']).filter_map(|part| part.split_whitespace().next()).collect();
    let list = prepare.split_once("packages=(\n").and_then(|(_, rest)| rest.split_once("\n)")).context("tests/prepare has no list")?.0;
    let mut needed = Vec::new();
    for group in list.split("\t# ").skip(1) {
        let (what, names) = group.split_once('\n').context("a group without packages")?;
        // Those of suites that are not in the package, of the packages themselves and of the benchmark.
        if ["dropin", "storage suite", "the packages", "completions", "the benchmark"].iter().any(|other| what.contains(other)) {
            continue;
        }
        needed.extend(names.split_whitespace());
    }
    ensure!(needed.len() > 20, "tests/prepare is not understood any more: {needed:?}");
    // Essential; for programs that are compiled on the spot from the tree.
    let missing: Vec<&&str> =
        needed.iter().filter(|name| !depends.contains(**name) && !["util-linux", "libvirt-dev", "make"].contains(name)).collect();
    ensure!(missing.is_empty(), "kvmha-tests does not depend on {missing:?}");
    Ok(())
}

/// lintian has nothing to say that is not explained in the package's overrides. Rust's texts stand in the binary one after the other, with
/// nothing between: whether words of two of them look like one that is misspelt changes with every build, so no override can fit.
pub fn linted(_: &Lab) -> Result<()> {
    let (package, debug) = (deb()?, find("deb", "kvmha-dbgsym_", "deb")?);
    let files = [package.to_string_lossy(), debug.to_string_lossy()];
    let [package, debug] = files.each_ref().map(AsRef::as_ref);
    let hints = ["--display-info", "--fail-on=error,warning,info", "--suppress-tags=spelling-error-in-binary"];
    let words = [&["lintian", "--allow-root"], &hints[..], &[package, debug]].concat();
    let output = run(&words, PATIENCE)?;
    let said = output.stdout.clone();
    output.success("lintian")?;
    ensure!(said.trim().is_empty(), "lintian: {said}");
    Ok(())
}

/// The licences and the bill of materials name what Cargo.lock does, and nothing else.
pub fn listed(_: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    check(&["dpkg-deb", "-x", &deb()?.to_string_lossy(), &folder.path().to_string_lossy()], PATIENCE)?;
    let read = |name: &str| check(&["zcat", &folder.path().join("usr/share/doc/kvmha").join(name).to_string_lossy()], PATIENCE);
    let bill: serde_json::Value = serde_json::from_str(&read("kvmha.cdx.json.gz")?)?;
    ensure!(bill["bomFormat"] == "CycloneDX" && bill["metadata"]["component"]["version"] == VERSION, "{}", bill["metadata"]);
    let licences = read("third-party-licences.gz")?;
    let lock = fs::read_to_string(project().join("Cargo.lock"))?;
    let components = bill["components"].as_array().context("no components")?;
    let mut linked = 0;
    for part in components.iter().filter(|part| part["name"] != "rust-std") {
        let (name, version) = (part["name"].as_str().unwrap_or_default(), part["version"].as_str().unwrap_or_default());
        let sum = part["hashes"][0]["content"].as_str().with_context(|| format!("{name} has no checksum"))?;
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        let (_, rest) = lock.split_once(&entry).with_context(|| format!("{name} {version} is not in Cargo.lock"))?;
        ensure!(rest.split("\n\n").next().is_some_and(|rest| rest.contains(sum)), "{name}: {sum} is not its checksum");
        let licence = part["licenses"][0]["expression"].as_str().unwrap_or_default();
        if part["scope"] == "required" {
            linked += 1;
            ensure!(licences.contains(&format!("\n{name} {version}: {licence}\n")), "{name} {version}: {licence}: not among the licences");
            ensure!(licences.contains(&format!("{name} (")), "{name}: no text of its licence");
        }
    }
    // Those that this project names itself.
    for name in ["anyhow", "clap", "libc", "nix", "roxmltree", "serde_json", "syslog", "virt", "virt-sys"] {
        ensure!(components.iter().any(|part| part["name"] == name && part["scope"] == "required"), "{name} is missing");
    }
    ensure!(!components.iter().any(|part| part["name"] == "lab" || part["name"] == "windows-sys"), "what is not in the program");
    ensure!(linked > 30, "only {linked} packages");
    Ok(())
}

/// The pages below a folder that lead nowhere there, with what they name.
pub fn astray(folder: &Path) -> Result<Vec<String>> {
    let mut pages = vec![folder.join("README.md")];
    pages.extend(
        fs::read_dir(folder.join("docs"))?.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("md".as_ref())),
    );
    ensure!(pages.len() > 5, "only {pages:?}");
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.contains("://") && !page.with_file_name(file).exists() {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    Ok(wrong)
}

/// Whoever reads the README where the package puts it finds the pages that it names.
pub fn pages_link_to_each_other(_: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    check(&["dpkg-deb", "-x", &deb()?.to_string_lossy(), &folder.path().to_string_lossy()], PATIENCE)?;
    let wrong = astray(&folder.path().join("usr/share/doc/kvmha"))?;
    ensure!(wrong.is_empty(), "{wrong:#?} lead nowhere");
    Ok(())
}

/// debian/copyright has every package of vendor/ by its licence, and every licence that it names in full or by its place.
pub fn copyright_is_whole(_: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    check(&["dpkg-deb", "-x", &deb()?.to_string_lossy(), &folder.path().to_string_lossy()], PATIENCE)?;
    let text = fs::read_to_string(folder.path().join("usr/share/doc/kvmha/copyright"))?;
    let field = |stanza: &str, name: &str| {
        let (_, rest) = format!("\n{stanza}").split_once(&format!("\n{name}: ")).map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        let lines = rest.lines().enumerate().take_while(|(at, line)| *at == 0 || line.starts_with(' '));
        Some(lines.map(|(_, line)| line.trim().to_owned()).collect::<Vec<_>>())
    };
    let stanzas: Vec<&str> = text.split("\n\n").collect();
    let lock = fs::read_to_string(project().join("Cargo.lock"))?;
    for package in lock.split("[[package]]\n").skip(1).filter(|package| package.contains("\nsource = ")) {
        let word = |name: &str| {
            package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"')).unwrap_or_default()
        };
        let files = format!("vendor/{}-{}/*", word("name"), word("version"));
        let own = |stanza: &&&str| field(stanza, "Files").is_some_and(|all| all.contains(&files));
        let stanza = stanzas.iter().find(own).with_context(|| format!("{files} is not in it"))?;
        let licence =
            field(stanza, "License").and_then(|lines| lines.into_iter().next()).with_context(|| format!("{files} has no licence"))?;
        for term in licence.replace(", and ", " or ").split(" or ") {
            let full = |stanza: &&str| {
                field(stanza, "Files").is_none() && field(stanza, "License").is_some_and(|lines| lines.len() > 1 && lines[0] == term)
            };
            ensure!(stanzas.iter().any(full), "{files} is {licence}, and what {term} is does not stand there");
        }
    }
    let nix = stanzas.iter().find(|stanza| stanza.contains(" vendor/nix-") || stanza.contains("Files: vendor/nix-")).context("no nix")?;
    ensure!(field(nix, "License") == Some(vec!["MIT".to_owned()]), "nix is {nix}");
    Ok(())
}

/// Pacemaker, man, the shells and systemd find what is for them.
pub fn at_home(lab: &Lab) -> Result<()> {
    install(lab, &deb()?)?;
    let said = ok(lab, "kvmha --version")?;
    ensure!(said.lines().next() == Some(&format!("kvmha {VERSION}")), "{said}");
    let agents = ok(lab, "crm_resource --list-agents ocf:kvmha")?;
    ensure!(agents.split_whitespace().any(|word| word == "VirtualDomain"), "crm_resource --list-agents ocf:kvmha: {agents}");
    let metadata = ok(lab, "crm_resource --show-metadata ocf:kvmha:VirtualDomain")?;
    ensure!(metadata.contains("migration_policy"), "{metadata}");
    ensure!(ok(lab, "fence_kvmha --action=metadata")?.contains("<resource-agent name=\"fence_kvmha\""), "no metadata of fence_kvmha");
    for (page, text) in [("7 ocf_kvmha_VirtualDomain", "migration_transport"), ("8 fence_kvmha", "--missing-as-off"), ("8 kvmha", "adopt")]
    {
        let shown = ok(lab, &format!("MANWIDTH=200 man --no-hyphenation --pager=cat {page}"))?;
        ensure!(shown.contains(text), "man {page} does not show {text}:\n{shown}");
    }
    for line in [
        "test -s /usr/lib/systemd/system/resource-agents-deps.target.d/50-kvmha.conf",
        "test -s /usr/share/doc/kvmha/examples/polkit-fence_kvmha.rules",
        "cd / && dpkg --verify kvmha",
    ] {
        ok(lab, line)?;
    }
    // Before it is first needed there is nothing at run time, and no rule is in effect.
    ok(lab, "! test -e /run/kvmha && ! ls /etc/polkit-1/rules.d | grep kvmha").map(drop)
}

/// systemd hears of the drop-in, and starts its target where Pacemaker runs already: it would be started at the next boot only.
pub fn in_force_at_once(lab: &Lab) -> Result<()> {
    let package = deb()?;
    let place = lab.layout().shared().join("systemctl");
    let tell = |runs: bool| -> Result<()> {
        fs::write(&place, scribe(runs))?;
        ok(lab, "rm -f /run/told; mkdir -p /run/systemd/system; install -m 755 /srv/vms/systemctl /usr/local/bin/systemctl")?;
        install(lab, &package)?;
        ordered(&ok(lab, "cat /run/told")?, runs)
    };
    let told = tell(true).and_then(|()| tell(false));
    ok(lab, "rm -f /usr/local/bin/systemctl /run/told; rmdir /run/systemd/system")?;
    fs::remove_file(&place)?;
    told
}

/// A shell, the line that a person's set-up has for completions, and whether it tells what a word does.
const SHELLS: [(&[&str], &str, bool); 2] = [
    (
        &["bash", "--norc", "--noprofile", "-i"],
        ". /usr/share/bash-completion/completions/kvmha; . /usr/share/bash-completion/completions/fence_kvmha",
        false,
    ),
    (&["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D", true),
];

/// Words and options are completed where the shells look for that by themselves: in bash and zsh as somebody types, in fish by its own question.
pub fn completed(lab: &Lab) -> Result<()> {
    install(lab, &deb()?)?;
    for (shell, line, tells) in SHELLS {
        let type_in = |keys: &str, words: &[&str]| {
            let begin = ["python3", "-c", TYPE, line, keys];
            lab.check(HERE, &[&begin, words, &["--"], shell].concat(), PATIENCE).with_context(|| format!("{}: {keys}", shell[0]))
        };
        let both: &[&str] = if tells { &["migrate ", "migrations ", "List the results"] } else { &["migrate ", "migrations"] };
        type_in(r"kvmha mi\t\t\t", both)?;
        type_in(r"kvmha status --wa\t", &["kvmha status --watch"])?;
        type_in(r"kvmha fence c\t", &["kvmha fence convert"])?;
        type_in(r"kvmha agent rel\t", &["kvmha agent reload-agent"])?;
        type_in(r"fence_kvmha --missing\t", &["fence_kvmha --missing-as-off"])?;
        type_in(r"fence_kvmha --action val\t", &["fence_kvmha --action validate-all"])?;
    }
    for (line, wanted) in [
        ("kvmha mi", &["migrate\tHave Pacemaker move", "migrations\tList the results"][..]),
        ("kvmha status --", &["--json\t", "--watch\t"]),
        ("kvmha fence ", &["convert\tPrint the devices"]),
        ("fence_kvmha --missing", &["--missing-as-off"]),
        ("fence_kvmha --action ", &["off", "list-status", "validate-all"]),
    ] {
        let said = lab.check(HERE, &["fish", "--private", "-c", &format!("complete -C '{line}'")], PATIENCE)?;
        ensure!(wanted.iter().all(|word| said.contains(word)), "fish completes {line:?} by {said:?}");
    }
    Ok(())
}

/// A guest under the agent of the package is not touched by an upgrade, nor by removal and purge, and is known afterwards. While Pacemaker has it
/// under the agent, which it would miss, the package is not removed.
pub fn guest_runs_on(lab: &Lab) -> Result<()> {
    let package = deb()?;
    let folder = tempfile::tempdir()?;
    let upgrade = newer(&package, folder.path())?;
    install(lab, &package)?;
    let guest = Resource::new(lab, "kept")?;
    let boot = guest.boot(HERE)?;
    let emulators = guest.emulators(HERE)?;
    let same = |when: &str| -> Result<()> {
        guest.beats(boot).with_context(|| when.to_owned())?;
        promised!(guest.emulators(HERE)? == emulators, "{when}: another emulator");
        Ok(())
    };
    install(lab, &upgrade)?;
    let version = ok(lab, "dpkg-query -W -f '${Version}' kvmha")?;
    ensure!(version == format!("{VERSION}-2"), "{version} is installed");
    same("after the upgrade")?;
    guest.call(HERE, "recurring", 60)?.is(0)?;
    // A stub of Pacemaker: its name alone.
    ok(lab, "cp /bin/sleep /run/pacemakerd && { /run/pacemakerd 3000 >/dev/null 2>&1 & echo $! >/run/pacemakerd.pid; }")?;
    install(lab, &package)?;
    install(lab, &upgrade)?;
    same("after an upgrade beside Pacemaker")?;
    for word in ["--remove", "--purge"] {
        let refused = shell(lab, &format!("dpkg {word} kvmha 2>&1"))?;
        let told = ["kvmha: not removed: Pacemaker has guests", ": kept\n", "kvmha adopt --back --all", "KVMHA_REMOVE=yes"];
        ensure!(!refused.ok() && told.iter().all(|part| refused.stdout.contains(part)), "dpkg {word}: {refused:?}");
        let status = ok(lab, "dpkg-query -W -f '${Status}' kvmha")?;
        ensure!(status.ends_with(" ok installed"), "dpkg {word} was refused, and did something: {status}");
        guest.call(HERE, "recurring", 60)?.is(0)?;
        same(&format!("after a dpkg {word} that was refused"))?;
    }
    let gone = |line: &str| -> Result<String> {
        let said = ok(lab, &format!("{line} kvmha 2>&1"))?;
        ensure!(!said.contains("not removed") && shell(lab, &format!("test -e {AGENT}"))?.code == Some(1), "{line}: {said}");
        same(&format!("after {line}"))?;
        ensure!(guest.record(HERE)?.exists(), "{line} took the guest's state file away");
        install(lab, &package)?;
        same("installed again")?;
        guest.call(HERE, "recurring", 60)?.is(0)?;
        Ok(said)
    };
    for word in ["--remove", "--purge"] {
        gone(&format!("KVMHA_REMOVE=yes dpkg {word}"))?;
    }
    // A stub that knows a configuration in which all guests have the other agent by now, and a device has the fence agent; a node that is off has the
    // history of before. It is as strict as a cibadmin will be that has lost its `--local`, which Pacemaker 3 hides and does not look at.
    let stub = "#!/bin/sh\ncase \"$*\" in *--local*) exit 64 ;; *' /cib/configuration//*'*provider*) exit 105 ;; esac\n";
    fs::write(lab.layout().shared().join("cibadmin"), stub)?;
    ok(lab, "install -m 755 /srv/vms/cibadmin /usr/local/bin/cibadmin && rm /srv/vms/cibadmin")?;
    let said = gone("dpkg --remove")?;
    ensure!(said.contains("kvmha: the cluster fences by fence_kvmha"), "nothing is said of the fence agent: {said}");
    ok(lab, "rm /usr/local/bin/cibadmin")?;
    guest.end(HERE, 90)?;
    ok(lab, "dpkg --purge kvmha")?;
    install(lab, &package)?;
    guest.begin(HERE)?;
    ok(lab, "kill $(cat /run/pacemakerd.pid); rm /run/pacemakerd /run/pacemakerd.pid")?;
    // A Pacemaker that is down, and would miss it when it comes back.
    let configuration = "/var/lib/pacemaker/cib/cib.xml";
    ok(lab, &format!("mkdir -p $(dirname {configuration}) && echo '<primitive id=\"kept\" provider=\"kvmha\"/>' >{configuration}"))?;
    let refused = shell(lab, "dpkg --remove kvmha 2>&1")?;
    ensure!(!refused.ok() && refused.stdout.contains(": kept\n"), "dpkg --remove beside a Pacemaker that is down: {refused:?}");
    ok(lab, &format!("rm {configuration}"))?;
    // Nobody is there who would miss the agent.
    let said = ok(lab, "dpkg --purge kvmha 2>&1")?;
    ensure!(said.contains("Purging") && guest.lives(HERE), "{said}");
    install(lab, &package)?;
    guest.end(HERE, 90).map(drop)
}

/// What is purged is gone, also what an action, the manual and an upgrade have made.
pub fn nothing_left(lab: &Lab) -> Result<()> {
    let package = deb()?;
    // What dpkg and man keep by themselves is there before.
    install(lab, &package)?;
    ok(lab, "dpkg --purge kvmha")?;
    let before = disk(lab)?;
    let folder = tempfile::tempdir()?;
    install(lab, &package)?;
    ensure!(disk(lab)?.len() > before.len() + 10, "the test does not see what is installed");
    install(lab, &newer(&package, folder.path())?)?;
    ok(lab, "kvmha --help && man --pager=cat 8 kvmha")?;
    ok(lab, "dpkg --remove kvmha")?;
    ensure!(shell(lab, "kvmha --version")?.code == Some(127), "it is still there");
    ok(lab, "dpkg --purge kvmha")?;
    let left: Vec<PathBuf> = disk(lab)?.difference(&before).cloned().collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(shell(lab, "dpkg-query -W kvmha")?.code == Some(1), "dpkg still knows it");
    Ok(())
}
