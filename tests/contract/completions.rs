//! The names that the shells complete: real shells, and stubs of Pacemaker's tools, for there is no cluster here. A shell that is not installed is
//! left out; the suite `package` has all of them, and somebody who types.

use crate::pages::project;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A folder with the tools, as Pacemaker answers them; or fails, where it does not run.
fn tools(there: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let resources = "echo web1; echo web2; echo fence";
    let nodes = "echo '1 node1 member'; echo '2 node2 lost'";
    for (name, answer) in [("crm_resource", resources), ("crm_node", nodes)] {
        let path = folder.path().join(name);
        let text = if there { answer } else { "echo 'Could not connect' >&2; exit 102" };
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// What a shell says with these tools; `None` if there is no such shell.
fn say(shell: &[&str], script: &str, tools: &Path) -> Option<String> {
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let output = match Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(script).env("PATH", path).env("HOME", tools).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{}: {error}", shell[0]),
    };
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Lines that are typed so far, and what may be completed then.
const LINES: &[(&str, &[&str])] = &[
    ("check w", &["web1", "web2"]),
    ("check web1 --to ", &["node1", "node2"]),
    ("check --to node2 w", &["web1", "web2"]),
    ("migrate w", &["web1", "web2"]),
    ("migrate web1 n", &["node1", "node2"]),
    ("where web", &["web1", "web2"]),
    ("where web1 --node node", &["node1", "node2"]),
    ("repair web2", &["web2"]),
    ("storage web1 --to node2", &["node2"]),
    ("adopt web1 web", &["web1", "web2"]),
];

#[test]
fn bash_completes_names() {
    for there in [true, false] {
        let tools = tools(there);
        for (line, wanted) in LINES {
            let mut words: Vec<&str> = std::iter::once("kvmha").chain(line.trim_end().split(' ')).collect();
            if line.ends_with(' ') {
                words.push("");
            }
            let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
            let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            let script = format!(
                ". {}/metadata/kvmha.bash; COMP_WORDS=({quoted}) COMP_CWORD={}; _kvmha_with_names kvmha '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                project().display(),
                words.len() - 1
            );
            let Some(said) = say(&["bash", "--norc", "--noprofile"], &script, tools.path()) else { return };
            let said: Vec<&str> = said.lines().collect();
            if there {
                assert_eq!(said, *wanted, "kvmha {line}");
            } else {
                assert!(said.iter().all(|word| !wanted.contains(word)), "kvmha {line}: {said:?}");
            }
        }
    }
}

#[test]
fn fish_completes_names() {
    for there in [true, false] {
        let tools = tools(there);
        // One shell for all of them: it takes its time to start.
        let asked: String = LINES.iter().map(|(line, _)| format!("; complete -C 'kvmha {line}'; echo --")).collect();
        let script = format!("source {}/metadata/kvmha.fish{asked}", project().display());
        let Some(said) = say(&["fish", "--private", "--no-config"], &script, tools.path()) else { return };
        for ((line, wanted), said) in LINES.iter().zip(said.split("--\n")) {
            let said: Vec<&str> = said.lines().map(|line| line.split('\t').next().unwrap_or_default()).collect();
            assert!(wanted.iter().all(|word| said.contains(word) == there), "kvmha {line}: {said:?}");
        }
    }
}

/// Its completion system wants somebody who types: here its functions are called, and who would offer the names prints them.
#[test]
fn zsh_has_functions_for_names() {
    let text = fs::read_to_string(project().join("metadata/_kvmha")).unwrap();
    for line in
        ["':node -- The node it is to be moved to:_kvmha_nodes'", "':resource -- The resource:_kvmha_resources'", ":NODE:_kvmha_nodes'"]
    {
        assert!(text.contains(line), "{line}");
    }
    for (there, resources, nodes) in [(true, "web1\nweb2\nfence\n", "node1\nnode2\n"), (false, "", "")] {
        let tools = tools(there);
        for (function, wanted) in [("_kvmha_resources", resources), ("_kvmha_nodes", nodes)] {
            let script = format!(
                "compdef() {{ }}; _default() {{ }}; compadd() {{ (( $#names )) && print -l -- $names }}; source {}/metadata/_kvmha; {function}",
                project().display()
            );
            let Some(said) = say(&["zsh", "-f"], &script, tools.path()) else { return };
            assert_eq!(said, wanted, "{function}");
        }
    }
}
