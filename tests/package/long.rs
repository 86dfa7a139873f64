//! What takes long: the packages as they are given away, and new roots of two releases.

use crate::built::{PATIENCE, VERSION, build, deb, find, newer, project};
use anyhow::{Context, Result, ensure};
use lab::process::{check, run_command};
use lab::{Lab, platform};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// A root from a slow mirror, and libvirt for it.
const LIMIT: Duration = Duration::from_secs(1200);

const GUIDE: &str = include_str!("../../docs/two-node.md");

/// In a root with nothing in it apt installs the file and what it needs, the program runs and is upgraded; what is removed is gone, installed
/// again it is as before, and a purge leaves nothing.
fn root(release: &str) -> Result<()> {
    let package = deb()?;
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let path = folder.path().join("root").to_string_lossy().into_owned();
    check(&["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--skip=cleanup/apt/lists", release, &path], LIMIT)
        .with_context(|| format!("no root of {release}"))?;
    fs::write(format!("{path}/usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n")?;
    check(&["chmod", "755", &format!("{path}/usr/sbin/policy-rc.d")], PATIENCE)?;
    fs::copy(&package, format!("{path}/kvmha.deb"))?;
    fs::copy(newer(&package, folder.path())?, format!("{path}/newer.deb"))?;
    let shell = |line: &str| check(&["chroot", &path, "sh", "-c", line], LIMIT);
    let list = "find /usr /etc -name '*kvmha*' -o -path '*kvmha*'";
    // The first line of the guide: the release has all that it names.
    let named = GUIDE.lines().find(|line| line.starts_with("apt install pacemaker")).context("the guide installs no Pacemaker")?;
    shell(&named.replacen("apt install", "apt-get install --simulate", 1))?;
    // And all that the suites of kvmha-tests need.
    let control = fs::read_to_string(project().join("packaging/debian/control"))?;
    let tests = control.split("Package: kvmha-tests\n").nth(1).and_then(|part| part.split_once("\nDepends:")).context("no kvmha-tests")?.1;
    let tests = tests.split("\nDescription:").next().unwrap_or_default();
    let needs: Vec<&str> = tests.split(',').map(str::trim).filter(|need| !need.starts_with("kvmha") && !need.starts_with('$')).collect();
    ensure!(needs.len() > 20, "kvmha-tests' dependencies are not understood any more: {tests}");
    shell(&format!("apt-get satisfy --simulate --no-install-recommends '{}'", needs.join(", ")))?;
    let apt = |line: &str| shell(&format!("DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends {line} 2>&1"));
    let installed = |version: &str| -> Result<String> {
        ensure!(shell("dpkg-query -W -f '${Version}' kvmha")? == version, "{release}: {version} is not installed");
        let said = shell("kvmha --version")?;
        ensure!(said.lines().next() == Some(&format!("kvmha {VERSION}")) && said.contains("\nruns with libvirt "), "{release}: {said}");
        ensure!(shell("/usr/lib/ocf/resource.d/kvmha/VirtualDomain meta-data")?.contains("<resource-agent"), "{release}: no metadata");
        ensure!(shell("dpkg --verify kvmha && dpkg-query -W -f '${Status}' libvirt0")?.contains("ok installed"), "{release}: no libvirt0");
        shell(list)
    };
    let (first, second) = (format!("{VERSION}-1"), format!("{VERSION}-2"));
    apt("install /kvmha.deb")?;
    let files = installed(&first)?;
    ensure!(files.lines().count() > 10, "{release}: the test does not see what is installed");
    apt("install /newer.deb")?;
    ensure!(installed(&second)? == files, "{release}: the upgrade has other files");
    apt("remove kvmha")?;
    ensure!(shell("command -v kvmha || echo none")?.trim() == "none", "{release}: removed, and still there");
    apt("install /kvmha.deb")?;
    ensure!(installed(&first)? == files, "{release}: installed again it has other files");
    apt("purge kvmha")?;
    let left = shell(list)?;
    ensure!(left.trim().is_empty(), "{release}: left behind: {left}");
    Ok(())
}

pub fn debian12(_: &Lab) -> Result<()> {
    root("bookworm")
}

pub fn debian13(_: &Lab) -> Result<()> {
    root("trixie")
}

/// The manual's guide to a cluster of two nodes, followed with this package on nodes that have nothing but the release.
fn guide(platform: &str) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--test", "operator", "--", "--lab", "pkgguide", "the_two_node_guide"]).current_dir(project());
    command.env("KVMHA_PLATFORM", platform).env("KVMHA_PACKAGE", deb()?);
    let said = run_command(command, LIMIT)?.success(&format!("the guide on {platform}"))?;
    ensure!(said.contains("1 passed; 0 failed"), "the guide was not followed: {said}");
    Ok(())
}

pub fn guide_on_debian12(_: &Lab) -> Result<()> {
    guide(platform::DEBIAN_12)
}

pub fn guide_on_debian13(_: &Lab) -> Result<()> {
    guide(platform::DEBIAN_13)
}

/// Two builds in two folders are the same byte for byte, optimised as they are given away, the suites with them.
pub fn same_twice(_: &Lab) -> Result<()> {
    given_away()?;
    build("--twice --prebuilt rpm", false)
}

/// Built twice, once for all scenarios.
fn given_away() -> Result<()> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT.get_or_init(|| build("--twice deb", false).map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Whether a file has the folder in it that it was built in.
fn is_bound(file: &Path) -> Result<bool> {
    let (content, here) = (fs::read(file).with_context(|| file.display().to_string())?, project().to_string_lossy().into_owned());
    Ok(content.windows(here.len()).any(|part| part == here.as_bytes()))
}

/// The programs of both packages, unpacked below a folder, have nothing of the builder's machine in them.
fn are_free(root: &Path) -> Result<()> {
    for name in ["kvmha", "tests/lab", "tests/lifecycle", "tests/fence"] {
        let file = root.join("usr/libexec/kvmha").join(name);
        ensure!(!is_bound(&file)?, "{name} has the path {} in it", project().display());
    }
    Ok(())
}

/// The suites of the package find the program that is installed beside them, and test it; lintian has nothing to say of them.
pub fn gate(_: &Lab) -> Result<()> {
    given_away()?;
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let tests = find("deb", "kvmha-tests_", ".deb")?;
    for package in [&find("deb", "kvmha_", ".deb")?, &tests] {
        check(&["dpkg-deb", "-x", &package.to_string_lossy(), &folder.path().to_string_lossy()], PATIENCE)?;
    }
    are_free(folder.path())?;
    for (suite, scenario) in [("lifecycle", "life::normal"), ("fence", "protocol::metadata")] {
        let mut command = Command::new(folder.path().join("usr/libexec/kvmha/tests").join(suite));
        command.args(["--lab", "pkggate", scenario]).current_dir("/").env_remove("KVMHA_LAB").env_remove("KVMHA_BINARY");
        let said = run_command(command, LIMIT)?.success(suite)?;
        ensure!(said.contains("1 passed; 0 failed"), "{suite}: {said}");
    }
    let words = ["lintian", "--allow-root", "--display-info", "--fail-on=error,warning,info", &tests.to_string_lossy()];
    let said = check(&words, PATIENCE)?;
    ensure!(said.trim().is_empty(), "lintian: {said}");
    Ok(())
}

/// rpmbuild compiles it by itself, the suites too.
pub fn compiled_by_rpmbuild(_: &Lab) -> Result<()> {
    build("rpm", false)?;
    let folder = tempfile::tempdir_in("/var/tmp")?;
    for name in ["kvmha", "kvmha-tests"] {
        let package = find(&format!("rpm/RPMS/{}", std::env::consts::ARCH), &format!("{name}-{VERSION}-1."), ".rpm")?;
        let line = format!("cd '{}' && rpm2cpio '{}' | cpio -idm --quiet", folder.path().display(), package.display());
        check(&["sh", "-c", &line], PATIENCE)?;
        if name == "kvmha-tests" {
            let reasons = project().join("packaging/kvmha-tests.rpmlintrc");
            let said = check(&["rpmlint", "-r", &reasons.to_string_lossy(), &package.to_string_lossy()], PATIENCE)?;
            ensure!(said.contains("0 errors, 0 warnings"), "rpmlint: {said}");
        }
    }
    are_free(folder.path())
}
