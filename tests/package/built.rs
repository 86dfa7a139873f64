//! The packages themselves: built once for all scenarios of a run.

use anyhow::{Context, Result, ensure};
use lab::process::{check, run_command};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// A compilation on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);
/// Any other command.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder of `target`.
fn target() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    project().join(folder)
}

/// Runs `packaging/build` with these words, separated by blanks; `quick`: not optimised, and without the suites.
pub fn build(words: &str, quick: bool) -> Result<()> {
    let mut command = Command::new(project().join("packaging/build"));
    command.args(words.split_whitespace()).env_remove("SOURCE_DATE_EPOCH").env_remove("DEB_BUILD_OPTIONS");
    if quick {
        command.arg("--no-tests").env("DEB_BUILD_OPTIONS", "noopt");
    }
    run_command(command, LIMIT)?.success(&format!("packaging/build {words}")).map(drop)
}

/// The one file of a folder of packages, `deb` or below `rpm`, whose name has this begin and this end.
pub fn find(folder: &str, begin: &str, end: &str) -> Result<PathBuf> {
    let folder = target().join("packages").join(folder);
    let names = fs::read_dir(&folder).with_context(|| format!("there is no {}", folder.display()))?.flatten();
    let fits = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin) && name.to_string_lossy().ends_with(end))
    };
    let found: Vec<PathBuf> = names.map(|entry| entry.path()).filter(fits).collect();
    ensure!(found.len() == 1, "{begin}*{end} in {}: {found:?}", folder.display());
    Ok(found[0].clone())
}

/// What was built once stays; an error too.
fn once(cell: &'static OnceLock<Result<(), String>>, words: &str) -> Result<()> {
    cell.get_or_init(|| build(words, true).map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// The Debian package.
pub fn deb() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    once(&BUILT, "deb")?;
    find("deb", "kvmha_", ".deb")
}

/// The RPM package, with the same program in it, and the folder it is in.
pub fn rpm() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    deb()?;
    once(&BUILT, "--prebuilt rpm")?;
    find(&format!("rpm/RPMS/{}", std::env::consts::ARCH), &format!("kvmha-{VERSION}-1."), ".rpm")
}

/// The Debian package once more, of the next version.
pub fn newer(deb: &Path, folder: &Path) -> Result<PathBuf> {
    let (tree, new) = (folder.join("tree"), folder.join("newer.deb"));
    check(&["dpkg-deb", "-R", &deb.to_string_lossy(), &tree.to_string_lossy()], PATIENCE)?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let changed = text.replace(&format!("Version: {VERSION}-1\n"), &format!("Version: {VERSION}-2\n"));
    ensure!(text != changed, "no version {VERSION}-1 in {text}");
    fs::write(&control, changed)?;
    check(&["dpkg-deb", "--root-owner-group", "-Znone", "-b", &tree.to_string_lossy(), &new.to_string_lossy()], PATIENCE)?;
    Ok(new)
}
