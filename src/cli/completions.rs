//! The completions of the shells: clap's own, and the names of resources and nodes, which only the cluster knows. Where there is no cluster there are
//! no names, and nobody waits for them.

use super::Command;
use clap::{Arg, ArgAction, CommandFactory};
use clap_complete::Shell;

/// What prints them, in a shell's words: an answer that does not come soon is none.
const RESOURCES: &str = "timeout 2 crm_resource --list-raw 2>/dev/null";
const NODES: &str = "timeout 2 crm_node --list 2>/dev/null";

/// Whose names a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Resources,
    Nodes,
}

impl Names {
    /// By what the command line calls it.
    fn of(argument: &Arg) -> Option<Self> {
        let named = argument.get_value_names().and_then(|names| names.first()).map_or(argument.get_id().as_str(), |name| name.as_str());
        match named.to_uppercase().as_str() {
            "NODE" => Some(Self::Nodes),
            name if name.starts_with("RESOURCE") => Some(Self::Resources),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::Nodes => "nodes",
        }
    }
}

/// A word of the command that has names after it.
struct Word {
    name: String,
    /// Options that a value follows, and whose name that is.
    valued: Vec<(String, Option<Names>)>,
    /// What stands there without an option: how it is called, and whose name it is.
    places: Vec<(String, Option<Names>)>,
    /// Whether the last of them may be there again.
    again: bool,
}

fn words(command: &clap::Command) -> Vec<Word> {
    let of = |word: &clap::Command| {
        let takes = |argument: &&Arg| matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
        let options = word.get_opts().filter(takes).filter_map(|option| Some((format!("--{}", option.get_long()?), Names::of(option))));
        let places: Vec<&Arg> = word.get_positionals().collect();
        Word {
            name: word.get_name().to_owned(),
            valued: options.collect(),
            again: places.last().is_some_and(|last| matches!(last.get_action(), ArgAction::Append)),
            places: places.into_iter().map(|place| (place.get_id().to_string(), Names::of(place))).collect(),
        }
    };
    let has_names = |word: &Word| word.valued.iter().chain(&word.places).any(|(_, names)| names.is_some());
    command.get_subcommands().map(of).filter(has_names).collect()
}

/// A program's script as clap makes it.
pub(super) fn plain(shell: Shell, command: &mut clap::Command, program: &str) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, program, &mut text);
    Ok(String::from_utf8(text)?)
}

/// The script of `kvmha`, with names.
pub(super) fn named(shell: Shell) -> anyhow::Result<String> {
    let mut command = Command::command();
    let (text, words) = (plain(shell, &mut command, "kvmha")?, words(&command));
    Ok(match shell {
        Shell::Bash => bash(&text, &words),
        Shell::Zsh => zsh(&text, &words),
        Shell::Fish => fish(&text, &words),
        _ => text,
    })
}

/// The names are put where clap's function would put options, or nothing.
fn bash(text: &str, words: &[Word]) -> String {
    let join = |all: Vec<&str>| all.join(" ");
    let mut cases = String::new();
    for Word { name, valued, places, again } in words {
        let options = join(valued.iter().map(|(option, _)| option.as_str()).collect());
        let nodes = join(valued.iter().filter(|(_, names)| *names == Some(Names::Nodes)).map(|(option, _)| option.as_str()).collect());
        let places = join(places.iter().map(|(_, names)| names.map_or("none", Names::word)).collect());
        cases.push_str(&format!(
            "        {name}) valued=\" {options} \" nodes=\" {nodes} \" places=({places}) again={} ;;\n",
            u8::from(*again)
        ));
    }
    let functions = format!(
        r#"
_kvmha_resources() {{
    {RESOURCES}
}}

_kvmha_nodes() {{
    local name
    {NODES} | while read -r _ name _; do printf '%s\n' "$name"; done
}}

_kvmha_names() {{
    local valued="" nodes="" places=() again=0 word="" last="" number=0
    case "${{COMP_WORDS[1]}}" in
{cases}    esac
    for word in "${{COMP_WORDS[@]:2:COMP_CWORD-2}}"; do
        if [[ -n "$last" ]]; then
            last=""
        elif [[ "$valued" == *" $word "* ]]; then
            last="$word"
        elif [[ "$word" != -* ]]; then
            ((number += 1))
        fi
    done
    if [[ -n "$last" ]]; then
        if [[ "$nodes" == *" $last "* ]]; then _kvmha_nodes; fi
        return 0
    fi
    if ((again && number >= ${{#places[@]}})); then number=$((${{#places[@]}} - 1)); fi
    case "${{places[number]:-}}" in
        resources) _kvmha_resources ;;
        nodes) _kvmha_nodes ;;
    esac
}}

_kvmha_with_names() {{
    _kvmha "$@"
    if ((COMP_CWORD < 2)) || [[ "$2" == -* ]]; then return 0; fi
    local name found=()
    while read -r name; do
        if [[ "$name" == "$2"* ]]; then found+=("$name"); fi
    done < <(_kvmha_names)
    if ((${{#found[@]}})); then COMPREPLY=("${{found[@]}}"); fi
    return 0
}}
"#
    );
    let (begin, end) = text.split_at(text.rfind("\nif [[").unwrap_or(text.len()));
    format!("{begin}{functions}{}", end.replace("complete -F _kvmha ", "complete -F _kvmha_with_names "))
}

/// Where clap's function looks for files, the names come before.
fn zsh(text: &str, words: &[Word]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut within: Option<&Word> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('(').and_then(|line| line.strip_suffix(')')) {
            within = words.iter().find(|word| word.name == name);
        }
        let is_place = |id: &str| ["':", "'::", "'*::"].iter().any(|begin| line.starts_with(&format!("{begin}{id} -- ")));
        let is_option = |option: &str| line.trim_start_matches(['\'', '*']).starts_with(&format!("{option}=["));
        let names = within.and_then(|word| {
            let place = word.places.iter().find(|(id, _)| is_place(id));
            place.or_else(|| word.valued.iter().find(|(option, _)| is_option(option))).and_then(|(_, names)| *names)
        });
        lines.push(match names {
            Some(names) => line.replace(":_default'", &format!(":_kvmha_{}'", names.word())),
            None => line.to_owned(),
        });
    }
    let functions = format!(
        r#"
_kvmha_resources() {{
    local -a names
    names=(${{(f)"$({RESOURCES})"}})
    compadd -a names || _default
}}

_kvmha_nodes() {{
    local -a names
    local id name state
    {NODES} | while read -r id name state; do names+=("$name"); done
    compadd -a names || _default
}}
"#
    );
    let text = lines.join("\n") + "\n";
    let (begin, end) = text.split_at(text.rfind("\nif [").unwrap_or(text.len()));
    format!("{begin}{functions}{end}")
}

/// fish has them beside what clap's lines give.
fn fish(text: &str, words: &[Word]) -> String {
    let mut text = format!(
        "{text}\nfunction __kvmha_resources\n    {RESOURCES}\nend\n\nfunction __kvmha_nodes\n    {NODES} | string replace -rf '^\\S+\\s+(\\S+).*' '$1'\nend\n\n\
         # How many words stand before this one that are no options.\nfunction __kvmha_words\n    count (string match -v -- '-*' (commandline -opc))\nend\n\n"
    );
    for Word { name, valued, places, .. } in words {
        let condition = format!("__fish_kvmha_using_subcommand {name}");
        for (option, names) in valued {
            if let Some(names) = names {
                let option = option.trim_start_matches('-');
                text.push_str(&format!("complete -c kvmha -n \"{condition}\" -l {option} -r -a \"(__kvmha_{})\"\n", names.word()));
            }
        }
        for (at, (_, names)) in places.iter().enumerate() {
            let Some(names) = names else { continue };
            // The program and its word come first.
            let number = at + 2;
            let more = match (at + 1 == places.len(), at) {
                (true, 0) => String::new(),
                (true, _) => format!("; and test (__kvmha_words) -ge {number}"),
                (false, _) => format!("; and test (__kvmha_words) -eq {number}"),
            };
            text.push_str(&format!("complete -c kvmha -n \"{condition}{more}\" -a \"(__kvmha_{})\"\n", names.word()));
        }
    }
    text
}
