//! The RPM package, by rpm itself, in a root with a database of its own.

use crate::built::{PATIENCE, VERSION, build, find, project, rpm};
use crate::deb::{astray, ordered, scribe};
use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::process::{check, run, run_command};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The paths that every installation has.
const FILES: [&str; 10] = [
    "/usr/libexec/kvmha/kvmha",
    "/usr/sbin/kvmha",
    "/usr/sbin/fence_kvmha",
    "/usr/lib/ocf/resource.d/kvmha/VirtualDomain",
    "/usr/lib/systemd/system/resource-agents-deps.target.d/50-kvmha.conf",
    "/usr/share/man/man7/ocf_kvmha_VirtualDomain.7.gz",
    "/usr/share/bash-completion/completions/kvmha",
    "/usr/share/bash-completion/completions/fence_kvmha",
    "/usr/share/doc/kvmha/kvmha.cdx.json",
    "/usr/share/licenses/kvmha/third-party-licences",
];

fn debuginfo() -> Result<PathBuf> {
    rpm()?;
    find(&format!("rpm/RPMS/{}", std::env::consts::ARCH), "kvmha-debuginfo-", ".rpm")
}

/// Source, program and debug information; what it needs is said.
pub fn complete(_: &Lab) -> Result<()> {
    let package = rpm()?;
    find("rpm/SRPMS", "kvmha-", ".src.rpm")?;
    let query = |what: &str, package: &Path| check(&["rpm", "--nosignature", "-qp", what, &package.to_string_lossy()], PATIENCE);
    let requires = query("--requires", &package)?;
    ensure!(requires.lines().any(|line| line == "libvirt-libs"), "it does not need libvirt: {requires}");
    let debug = query("--list", &debuginfo()?)?;
    ensure!(debug.contains("/usr/lib/debug/usr/libexec/kvmha/kvmha-"), "no debug information: {debug}");
    let files = query("--list", &package)?;
    for path in FILES {
        ensure!(files.lines().any(|line| line == path), "{path} is not in it:\n{files}");
    }
    Ok(())
}

/// What may be chosen from; in which order that is written says nothing.
fn choices(expression: &str) -> BTreeSet<&str> {
    expression.trim_matches(['(', ')']).split(" OR ").collect()
}

/// It says what it is linked with, and by what licences; its pages link to each other.
pub fn bundles(_: &Lab) -> Result<()> {
    let package = rpm()?;
    let folder = tempfile::tempdir()?;
    let line = format!("cd '{}' && rpm2cpio '{}' | cpio -idm --quiet", folder.path().display(), package.display());
    check(&["sh", "-c", &line], PATIENCE)?;
    let query = |what: &[&str]| check(&[&["rpm", "--nosignature", "-qp"], what, &[&package.to_string_lossy()]].concat(), PATIENCE);
    let (provides, licence) = (query(&["--provides"])?, query(&["--queryformat", "%{LICENSE}"])?);
    let doc = folder.path().join("usr/share/doc/kvmha");
    let bill: serde_json::Value = serde_json::from_slice(&fs::read(doc.join("kvmha.cdx.json"))?)?;
    let parts = bill["components"].as_array().context("no components")?;
    let word = |part: &serde_json::Value, name: &str| part[name].as_str().unwrap_or_default().to_owned();
    let linked: Vec<_> = parts.iter().filter(|part| part["scope"] == "required" && part["name"] != "rust-std").collect();
    ensure!(linked.len() > 30, "only {} packages", linked.len());
    for part in linked {
        let (name, version) = (word(part, "name"), word(part, "version"));
        let said = format!("bundled(crate({name})) = {version}");
        ensure!(provides.lines().any(|line| line == said), "{said} is not provided:\n{provides}");
        let expression = word(&part["licenses"][0], "expression");
        ensure!(
            licence.split(" AND ").any(|one| choices(one) == choices(&expression)),
            "{name} is {expression}, which is not in {licence}"
        );
    }
    let wrong = astray(&doc)?;
    ensure!(wrong.is_empty(), "{wrong:#?} lead nowhere");
    Ok(())
}

/// rpmlint has nothing to say that is not explained in packaging/kvmha.rpmlintrc.
pub fn linted(_: &Lab) -> Result<()> {
    let (reasons, package, debug) = (project().join("packaging/kvmha.rpmlintrc"), rpm()?, debuginfo()?);
    let words = ["rpmlint", "-r", &reasons.to_string_lossy(), &package.to_string_lossy(), &debug.to_string_lossy()];
    let output = run(&words, PATIENCE)?;
    let said = output.stdout.clone();
    ensure!(output.ok() && said.contains("2 packages and 0 specfiles checked; 0 errors, 0 warnings"), "rpmlint: {said}{}", output.stderr);
    Ok(())
}

/// Installed, upgraded, erased: the files come and go, the scripts succeed, and what a guest left in /run stays.
pub fn life(_: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let old = folder.path().join("old.rpm");
    fs::copy(rpm()?, &old)?;
    build("--prebuilt --revision 2 rpm", true)?;
    let arch = format!("rpm/RPMS/{}", std::env::consts::ARCH);
    let new = find(&arch, &format!("kvmha-{VERSION}-2."), ".rpm")?;
    let root = folder.path().join("root");
    // For the package's scripts: a shell with all they call.
    for folder in ["bin", "dev", "run/kvmha"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(root.join("dev/null"), "")?;
    fs::copy("/bin/busybox", root.join("bin/sh"))?;
    for name in ["basename", "grep", "sed", "timeout"] {
        symlink("sh", root.join("bin").join(name))?;
    }
    let name = root.to_string_lossy().into_owned();
    // --nodeps: nothing else is in this database.
    let rpm = |words: &[&str]| check(&[&["rpm", "--root", &name, "--nodeps", "--nosignature"], words].concat(), PATIENCE);
    let there = |path: &&str| fs::symlink_metadata(root.join(path.trim_start_matches('/'))).is_ok();
    check(&["rpm", "--root", &name, "--initdb"], PATIENCE)?;
    fs::create_dir_all(root.join("run/systemd/system"))?;
    fs::write(root.join("bin/systemctl"), scribe(true))?;
    fs::set_permissions(root.join("bin/systemctl"), Permissions::from_mode(0o755))?;
    rpm(&["-i", &old.to_string_lossy()])?;
    ordered(&fs::read_to_string(root.join("run/told"))?, true)?;
    ensure!(FILES.iter().all(there), "not everything is installed");
    let version = check(&[&*root.join("usr/libexec/kvmha/kvmha").to_string_lossy(), "--version"], PATIENCE)?;
    ensure!(version.lines().next() == Some(&format!("kvmha {VERSION}")), "{version}");
    let agent = fs::canonicalize(root.join("usr/lib/ocf/resource.d/kvmha/VirtualDomain"))?;
    ensure!(agent == fs::canonicalize(root.join("usr/libexec/kvmha/kvmha"))?, "the agent is {}", agent.display());
    rpm(&["-V", "kvmha"])?;
    // A guest whose emulator lives beside a Pacemaker: in this root no process is seen but these.
    for (pid, name) in [(4711, "pacemakerd"), (4712, "qemu-system-x86")] {
        fs::create_dir_all(root.join(format!("proc/{pid}")))?;
        fs::write(root.join(format!("proc/{pid}/comm")), format!("{name}\n"))?;
    }
    fs::write(root.join("run/kvmha/web1.json"), r#"{"name":"web1","pid":4712,"start":1}"#)?;
    rpm(&["-U", &new.to_string_lossy()])?;
    let installed = check(&["rpm", "--root", &name, "-qa", "--queryformat", "%{NAME}-%{VERSION}-%{RELEASE} "], PATIENCE)?;
    ensure!(installed.trim() == format!("kvmha-{VERSION}-2"), "after the upgrade: {installed}");
    ensure!(FILES.iter().all(there), "the upgrade took files away");
    let erase = ["rpm", "--root", &name, "--nodeps", "--nosignature", "-e", "kvmha"];
    let refused = run(&erase, PATIENCE)?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(!refused.ok() && said.contains("kvmha: not removed: Pacemaker has guests") && said.contains(": web1\n"), "rpm -e: {said}");
    ensure!(FILES.iter().all(there), "rpm -e was refused, and took files away");
    check(&[&["env", "KVMHA_REMOVE=yes"], &erase[..]].concat(), PATIENCE)?;
    ensure!(!FILES.iter().any(there), "erased as it was, and files are left");
    rpm(&["-i", &new.to_string_lossy()])?;
    fs::remove_dir_all(root.join("proc/4711"))?;
    rpm(&["-e", "kvmha"])?;
    ensure!(!FILES.iter().any(there), "erased, and files are left");
    for folder in ["usr/libexec/kvmha", "usr/lib/ocf/resource.d/kvmha", "usr/share/doc/kvmha", "usr/share/licenses/kvmha"] {
        ensure!(!root.join(folder).exists(), "{folder} is left");
    }
    ensure!(root.join("run/kvmha/web1.json").exists(), "a guest's state file is gone");
    Ok(())
}

/// Both packages are held by the same lines.
pub fn held_as_the_other(_: &Lab) -> Result<()> {
    let read = |name: &str, begin: &str, end: &str| -> Result<Vec<String>> {
        let text = fs::read_to_string(project().join("packaging").join(name))?;
        let part = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).with_context(|| format!("{name}: no {begin}"))?.0;
        Ok(part.trim().lines().map(|line| line.trim().to_owned()).collect())
    };
    let theirs = read("debian/kvmha.prerm", "set -e\n", "#DEBHELPER#")?;
    let mut ours = read("kvmha.spec", "%preun\n", "%postun")?;
    for line in &mut ours {
        *line = line.replace("\"$1\" = 0", "\"$1\" = remove");
    }
    ensure!(ours == theirs && ours.len() > 10, "%preun and prerm differ");
    Ok(())
}

/// RHEL 9, SLES 15 and Ubuntu 22.04 have a Python without `tomllib`; that of SLES is 3.6. What a module has got since then shows only there.
pub fn billed_by_an_old_python(_: &Lab) -> Result<()> {
    let read = "import ast, sys
tree = ast.parse(open(sys.argv[1]).read(), feature_version=(3, 6))
print(*[name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names])";
    let bill = project().join("packaging/bill");
    let modules = check(&["python3", "-c", read, &bill.to_string_lossy()], PATIENCE)?;
    ensure!(modules.contains("json") && !modules.contains("tomllib"), "packaging/bill imports {modules}");
    let spec = fs::read_to_string(project().join("packaging/kvmha.spec"))?;
    ensure!(spec.lines().any(|line| line.split_whitespace().eq(["BuildRequires:", "python3"])), "the spec wants a certain python3");
    Ok(())
}

/// openSUSE and SLES have other names for some packages than Fedora and RHEL.
pub fn named_as_each_distribution_has_them(_: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("kvmha.bundled"), "")?;
    let (sources, spec) = (format!("_sourcedir {}", folder.path().display()), project().join("packaging/kvmha.spec"));
    let query = |tag: &str| {
        let format = format!("[%{{{tag}}}\n]");
        check(&["rpmspec", "-q", "--define", &sources, "--queryformat", &format, &spec.to_string_lossy()], PATIENCE)
    };
    let (recommends, requires) = (query("RECOMMENDNAME")?, query("REQUIRENAME")?);
    let emulator = "(libvirt-daemon-kvm or libvirt-daemon-qemu)";
    for (said, name) in [(&recommends, emulator), (&requires, emulator), (&requires, "(iproute or iproute2)")] {
        ensure!(said.lines().any(|line| line == name), "{name} is not among these:\n{said}");
    }
    Ok(())
}

/// rpmbuild packs it also where the distribution wants a package of the sources, and no list that is empty: Fedora and RHEL.
pub fn built_as_on_fedora(_: &Lab) -> Result<()> {
    rpm()?;
    let (folder, built) = (tempfile::tempdir_in("/var/tmp")?, find("source", "kvmha-", ".tar.xz")?);
    let packages = built.parent().and_then(Path::parent).context("no folder of packages")?;
    let program = packages.join("deb/target/release/kvmha");
    let defines = [
        format!("_topdir {}", folder.path().display()),
        format!("_sourcedir {}", packages.join("source").display()),
        format!("prebuilt {}", program.display()),
        "_debugsource_packages 1".to_owned(),
        "_debuginfo_subpackages 1".to_owned(),
        "_empty_manifest_terminate_build 1".to_owned(),
    ];
    let spec = project().join("packaging/kvmha.spec");
    let mut words = vec!["rpmbuild", "-bb", "--nodeps", "--with", "prebuilt", "--without", "tests"];
    for define in &defines {
        words.extend(["--define", define.as_str()]);
    }
    words.push(spec.to_str().context("no path")?);
    let output = run(&words, PATIENCE)?;
    ensure!(output.ok(), "rpmbuild: {}", output.stderr.lines().rev().take(8).collect::<Vec<_>>().join("; "));
    let arch = folder.path().join("RPMS").join(std::env::consts::ARCH);
    let names: Vec<String> = fs::read_dir(arch)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ensure!(names.iter().any(|name| name.starts_with("kvmha-debuginfo-")) && names.len() == 2, "{names:?}");
    Ok(())
}

/// What builds it is there already where no dpkg and no apt can say so, or install it.
pub fn built_without_dpkg(_: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut path = Vec::new();
    for (number, place) in std::env::split_paths(&std::env::var_os("PATH").context("no PATH")?).enumerate() {
        let only = folder.path().join(number.to_string());
        fs::create_dir(&only)?;
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !["dpkg", "apt"].iter().any(|begin| name.to_string_lossy().starts_with(begin)) {
                symlink(entry.path(), only.join(name))?;
            }
        }
        path.push(if place.join("dpkg-query").exists() || place.join("apt-get").exists() { only } else { place });
    }
    let mut command = Command::new(project().join("packaging/build"));
    command.arg("source").env("PATH", std::env::join_paths(path)?).env("CARGO_TARGET_DIR", folder.path().join("target"));
    run_command(command, PATIENCE)?.success("packaging/build source")?;
    let made = folder.path().join(format!("target/packages/source/kvmha-{VERSION}.tar.xz"));
    ensure!(made.exists(), "there is no {}", made.display());
    Ok(())
}
