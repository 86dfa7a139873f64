//! The fence agent `fence_lab`: this program, called by that name, asks the power switch. For the lab only.

use crate::layout::{SWITCH_ADDRESS, SWITCH_PORT};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const METADATA: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Power switch of the kvmha lab">
  <longdesc>Asks the power switch of the lab to cut or give a node's power. For tests only.</longdesc>
  <vendor-url>https://localhost/</vendor-url>
  <parameters>
    <parameter name="action" unique="0" required="1"><getopt mixed="-o, --action=[action]"/><content type="string" default="reboot"/><shortdesc lang="en">Fencing action</shortdesc></parameter>
    <parameter name="plug" unique="0" required="0" obsoletes="port"><getopt mixed="-n, --plug=[node]"/><content type="string"/><shortdesc lang="en">Name of the node</shortdesc></parameter>
    <parameter name="port" unique="0" required="0" deprecated="1"><getopt mixed="-n, --plug=[node]"/><content type="string"/><shortdesc lang="en">Name of the node</shortdesc></parameter>
    <parameter name="ip" unique="0" required="0"><getopt mixed="-a, --ip=[address:port]"/><content type="string" default="10.77.0.254:7777"/><shortdesc lang="en">The power switch</shortdesc></parameter>
  </parameters>
  <actions>
    <action name="on" automatic="0"/>
    <action name="off"/>
    <action name="reboot"/>
    <action name="status"/>
    <action name="list"/>
    <action name="monitor"/>
    <action name="metadata"/>
  </actions>
</resource-agent>
"#;

/// Runs the agent; the exit code is the fence agents': 0 done (or on), 1 not done, 2 off.
#[must_use]
pub fn run(arguments: &[String]) -> u8 {
    match options(arguments).and_then(|options| act(&options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fence_lab: {error:#}");
            1
        }
    }
}

/// Words from the command line, or `name=value` lines from standard input as Pacemaker sends them.
fn options(arguments: &[String]) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    if arguments.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        for (name, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
            options.insert(name.to_owned(), value.to_owned());
        }
        return Ok(options);
    }
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, value.to_owned()),
            _ => (word.as_str(), words.next().with_context(|| format!("{word} needs a value"))?.clone()),
        };
        let name = match name {
            "-o" | "--action" => "action",
            "-n" | "--plug" => "plug",
            "-a" | "--ip" => "ip",
            _ => bail!("unknown option {name}"),
        };
        options.insert(name.to_owned(), value);
    }
    Ok(options)
}

fn act(options: &BTreeMap<String, String>) -> Result<u8> {
    let get = |name: &str| options.get(name).map(String::as_str);
    let switch = get("ip").map_or_else(|| format!("{SWITCH_ADDRESS}:{SWITCH_PORT}"), str::to_owned);
    let plug = || get("plug").or_else(|| get("port")).or_else(|| get("nodename")).context("no plug given");
    let power = |word: &str| -> Result<String> { ask(&switch, &format!("{word} {}", plug()?)) };
    match get("action").unwrap_or("reboot") {
        "metadata" | "meta-data" => {
            print!("{METADATA}");
            Ok(0)
        }
        "monitor" => ask(&switch, "list").map(|_| 0),
        "list" => {
            ask(&switch, "list")?.split_whitespace().for_each(|node| println!("{node},"));
            Ok(0)
        }
        "status" => Ok(if power("status")? == "on" { 0 } else { 2 }),
        "on" => power("on").map(|_| 0),
        "off" => {
            power("off")?;
            proven_off(&power("status")?)
        }
        "reboot" => {
            power("off")?;
            proven_off(&power("status")?)?;
            power("on").map(|_| 0)
        }
        other => bail!("unknown action {other}"),
    }
}

fn proven_off(status: &str) -> Result<u8> {
    if status == "off" { Ok(0) } else { bail!("the switch says the node is {status}") }
}

fn ask(switch: &str, line: &str) -> Result<String> {
    let address: SocketAddr = switch.parse().with_context(|| format!("not an address and a port: {switch}"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("failed to reach the power switch {switch}"))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer = answer.trim();
    match answer.split_once(' ') {
        _ if answer.is_empty() => bail!("no answer from the power switch to: {line}"),
        Some(("error", why)) => bail!("the power switch answered to {line}: {why}"),
        _ => Ok(answer.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_command_line() {
        let words: Vec<String> = ["-o", "off", "--plug=node1"].map(str::to_owned).to_vec();
        let options = options(&words).unwrap();
        assert_eq!((options["action"].as_str(), options["plug"].as_str()), ("off", "node1"));
    }

    #[test]
    fn metadata_is_xml() {
        roxmltree::Document::parse(METADATA).unwrap();
    }
}
