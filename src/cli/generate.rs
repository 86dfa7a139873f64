//! The files of the contract, printed by the binary, so that no package can ship stale ones.

use super::{completions, manual};
use crate::fence;
use crate::log::plain;
use crate::ocf::{Version, document, page};
use anyhow::anyhow;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Writes all of them to `directory`.
pub(super) fn run(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).map_err(|error| anyhow!("{} cannot be made: {}", directory.display(), plain(&error)))?;
    let mut files = vec![
        ("VirtualDomain-1.0.xml", document(Version::V1_0)),
        ("VirtualDomain-1.1.xml", document(Version::V1_1)),
        ("kvmha.8", manual::command()?.into_bytes()),
        ("ocf_kvmha_VirtualDomain.7", page().map_err(anyhow::Error::msg)?.into_bytes()),
        ("fence_kvmha.xml", fence::document()),
        ("fence_kvmha.8", manual::fence()?.into_bytes()),
    ];
    for (name, fences, shell) in [
        ("kvmha.bash", "fence_kvmha.bash", Shell::Bash),
        ("_kvmha", "_fence_kvmha", Shell::Zsh),
        ("kvmha.fish", "fence_kvmha.fish", Shell::Fish),
    ] {
        files.push((name, completions::named(shell)?.into_bytes()));
        files.push((fences, completions::plain(shell, &mut fence::completable(), "fence_kvmha")?.into_bytes()));
    }
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|error| anyhow!("{} cannot be written: {}", path.display(), plain(&error)))?;
    }
    Ok(())
}
