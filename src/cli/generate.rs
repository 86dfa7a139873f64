//! The files of the contract, printed by the binary, so that no package can ship stale ones.

use super::Command;
use crate::fence;
use crate::ocf::{Version, document, page};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Writes all of them to `directory`.
pub(super) fn run(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let command_page = manual()?;
    let mut fence_page = Vec::new();
    clap_mangen::Man::new(fence::command()).section("8").render(&mut fence_page)?;
    let mut files = vec![
        ("VirtualDomain-1.0.xml", document(Version::V1_0)),
        ("VirtualDomain-1.1.xml", document(Version::V1_1)),
        ("kvmha.8", command_page),
        ("ocf_kvmha_VirtualDomain.7", page().map_err(anyhow::Error::msg)?.into_bytes()),
        ("fence_kvmha.xml", fence::document()),
        ("fence_kvmha.8", fence_page),
    ];
    for (name, shell) in [("kvmha.bash", Shell::Bash), ("_kvmha", Shell::Zsh), ("kvmha.fish", Shell::Fish)] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Command::command(), "kvmha", &mut text);
        files.push((name, text));
    }
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// The manual page of the command, with a section for each of its words.
fn manual() -> anyhow::Result<Vec<u8>> {
    let mut command = Command::command();
    // Gives each word its full name, and the options that all have.
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).section("8").render(&mut page)?;
    for word in command.get_subcommands() {
        let man = clap_mangen::Man::new(word.clone());
        let mut parts = Vec::new();
        man.render_description_section(&mut parts)?;
        man.render_synopsis_section(&mut parts)?;
        if word.get_arguments().next().is_some() {
            man.render_options_section(&mut parts)?;
        }
        if word.get_after_help().is_some() {
            man.render_extra_section(&mut parts)?;
        }
        let text = String::from_utf8(parts).context("the manual is no text")?;
        // What would be sections of a page of its own are parts of one here.
        let text = text.replace("\n.SH ", "\n.SS ").replace(".SS EXTRA", ".SS EXAMPLES AND CODES");
        let text = text.strip_prefix(".SH ").map_or_else(|| text.clone(), |rest| format!(".SS {rest}"));
        page.extend_from_slice(format!(".SH \"{}\"\n{text}", word.get_name().to_uppercase()).as_bytes());
    }
    Ok(page)
}
