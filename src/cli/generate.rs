//! The files of the contract, printed by the binary, so that no package can ship stale ones.

use super::{Command, manual};
use crate::fence;
use crate::log::plain;
use crate::ocf::{Version, document, page};
use anyhow::anyhow;
use clap::CommandFactory;
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
    for (name, shell, program, mut command) in [
        ("kvmha.bash", Shell::Bash, "kvmha", Command::command()),
        ("_kvmha", Shell::Zsh, "kvmha", Command::command()),
        ("kvmha.fish", Shell::Fish, "kvmha", Command::command()),
        ("fence_kvmha.bash", Shell::Bash, "fence_kvmha", fence::completable()),
        ("_fence_kvmha", Shell::Zsh, "fence_kvmha", fence::completable()),
        ("fence_kvmha.fish", Shell::Fish, "fence_kvmha", fence::completable()),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, program, &mut text);
        files.push((name, text));
    }
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|error| anyhow!("{} cannot be written: {}", path.display(), plain(&error)))?;
    }
    Ok(())
}
