//! The manual pages `kvmha(8)` and `fence_kvmha(8)`, from the definitions of their command lines.

use super::Command;
use crate::fence;
use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What there is beside the command line, of `kvmha(8)`: section, and its items.
const BESIDE: &[(&str, &[(&str, &str)])] = &[
    (
        "ENVIRONMENT",
        &[
            (
                "NO_COLOR",
                "If it is set, and not empty, there are no colours. There are none either where standard output is no terminal, or a dumb one.",
            ),
            ("OCF_RESKEY_*", "Parameters of kvmha agent; no other word of the command reads them."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/run/kvmha",
                "What the agents of this node know of their guests. It is empty after a boot. Do not remove anything in it manually, unless a message says so.",
            ),
            ("/run/kvmha/migrations", "The newest moves that began on this node, a file each: kvmha migrations."),
        ],
    ),
];

/// The page of the command, with a section for each of its words, and for those of `kvmha fence`.
pub(super) fn command() -> anyhow::Result<String> {
    let mut command = Command::command();
    // Gives each word its full name, and the options that all have.
    command.build();
    let mut page = head(&command)?;
    let words = words(&command);
    let mut list = Roff::new();
    list.control("SH", ["COMMANDS"]).text([roman("Each has a section of its own below.")]);
    for word in &words {
        list.control("TP", []).text([bold(name(word))]).text([roman(word.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
    page.push_str(&list.to_roff());
    page.push_str(&help(&command)?.unwrap_or_default());
    for word in words {
        let mut parts = usage(word);
        let man = Man::new(word.clone());
        let mut text = Vec::new();
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        parts.push_str(&String::from_utf8(text).context("the manual is no text")?);
        parts.push_str(&help(word)?.unwrap_or_default());
        // What would be sections of a page of its own are parts of one here.
        let title = name(word).split_once(' ').map_or_else(String::new, |(_, rest)| rest.to_uppercase());
        page.push_str(&format!(".SH \"{title}\"\n{}", parts.replace(".SH ", ".SS ")));
    }
    for (section, items) in BESIDE {
        let mut part = Roff::new();
        part.control("SH", [*section]);
        for (term, text) in *items {
            part.control("TP", []).text([bold(*term)]).text([roman(*text)]);
        }
        page.push_str(&part.to_roff());
    }
    page.push_str(&see_also(&[("ocf_kvmha_VirtualDomain", 7), ("fence_kvmha", 8), ("pcs", 8), ("crm_mon", 8), ("virsh", 1)]));
    Ok(page)
}

/// The page of the fence agent.
pub(super) fn fence() -> anyhow::Result<String> {
    let command = fence::command();
    let mut page = head(&command)?;
    page.push_str(&help(&command)?.unwrap_or_default());
    page.push_str(&see_also(&[("kvmha", 8), ("ocf_kvmha_VirtualDomain", 7), ("pcs", 8), ("stonith_admin", 8)]));
    Ok(page)
}

/// Title, name, synopsis, description and options.
fn head(command: &clap::Command) -> anyhow::Result<String> {
    let (mut begin, mut rest) = (Vec::new(), Vec::new());
    let man = Man::new(command.clone()).section("8").manual("kvmha");
    man.render_title(&mut begin)?;
    man.render_name_section(&mut begin)?;
    man.render_description_section(&mut rest)?;
    man.render_options_section(&mut rest)?;
    let [begin, rest] = [begin, rest].map(String::from_utf8);
    Ok(begin.context("the manual is no text")? + &usage(command) + &rest.context("the manual is no text")?)
}

/// All words that do something, those of words too.
fn words(command: &clap::Command) -> Vec<&clap::Command> {
    // What prints help is no subject of its own.
    let real = command.get_subcommands().filter(|word| word.get_name() != "help");
    real.flat_map(|word| [vec![word], words(word)].concat()).collect()
}

/// As it is called: `kvmha fence convert`.
fn name(word: &clap::Command) -> String {
    word.get_bin_name().unwrap_or_else(|| word.get_name()).to_owned()
}

/// How it is called, as `--help` says it: clap_mangen's own leaves the values of options out.
fn usage(command: &clap::Command) -> String {
    let text = command.clone().render_usage().to_string();
    let mut part = Roff::new();
    part.control("SH", ["SYNOPSIS"]);
    for (number, line) in text.trim_start_matches("Usage:").lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        if number > 0 {
            part.control("br", []);
        }
        part.text([bold(line)]);
    }
    part.to_roff()
}

/// Codes and examples, if it has any.
fn help(command: &clap::Command) -> anyhow::Result<Option<String>> {
    if command.get_after_help().is_none() {
        return Ok(None);
    }
    let mut text = Vec::new();
    Man::new(command.clone()).render_extra_section(&mut text)?;
    let text = String::from_utf8(text).context("the manual is no text")?;
    Ok(Some(text.replace(".SH EXTRA", ".SH \"CODES AND EXAMPLES\"")))
}

fn see_also(pages: &[(&str, u8)]) -> String {
    let mut part = Roff::new();
    part.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (number, (page, section)) in pages.iter().enumerate() {
        let comma = if number > 0 { ", " } else { "" };
        line.extend([roman(comma), bold(*page), roman(format!("({section})"))]);
    }
    part.text(line);
    part.to_roff()
}
