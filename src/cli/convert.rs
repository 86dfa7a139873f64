//! `kvmha fence convert`: fence devices of other agents for KVM guests, written anew for `fence_kvmha`. Nothing is changed; what is
//! printed is for a person to read and then to run.

mod converted;

use super::shell::{is_plain, quoted};
use crate::deadline::Deadline;
use crate::log;
use crate::program::{self, Outcome};
use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use converted::Converted;
pub(super) use converted::convert;
use roxmltree::{Document, Node};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// For Pacemaker to print its configuration.
const ASKING: Duration = Duration::from_secs(30);

/// The command line.
#[derive(Args)]
#[command(after_help = "The code is 0 if devices were printed, 1 if there is none to print.\n\nExamples:\n  kvmha fence convert\n  \
        kvmha fence convert vmfence --uri qemu+tls://hosta/system,qemu+tls://hostb/system")]
pub(super) struct Words {
    /// Devices to convert [default: all of the cluster that can be]
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// Read the configuration from this file (as cibadmin --query prints it) instead of from the cluster
    #[arg(long, value_name = "FILE")]
    cib: Option<PathBuf>,
    /// Agent of a device that is in no configuration: fence_virsh, fence_xvm, fence_virt or external/libvirt
    #[arg(long, value_name = "AGENT", requires = "parameters", conflicts_with_all = ["cib", "devices"])]
    agent: Option<String>,
    /// Its parameters
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., requires = "agent")]
    parameters: Vec<String>,
    /// libvirt URIs of all hosts, with commas between, instead of what the device says
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
}

/// The agents that can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    Virsh,
    /// `fence_xvm` and `fence_virt`, one program.
    Virt,
    External,
}

fn agent_of(kind: &str) -> Option<Agent> {
    match kind {
        "fence_virsh" => Some(Agent::Virsh),
        "fence_xvm" | "fence_virt" => Some(Agent::Virt),
        "external/libvirt" => Some(Agent::External),
        _ => None,
    }
}

/// A device as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    id: String,
    kind: String,
    agent: Agent,
    parameters: Vec<(String, String)>,
    interval: String,
    /// Whether it is in the configuration.
    is_there: bool,
    /// What in the configuration was not understood or hangs on the device's name.
    remarks: Vec<String>,
}

/// The text to print.
pub(super) fn run(words: &Words) -> anyhow::Result<String> {
    let devices = match &words.agent {
        Some(kind) => vec![spoken(kind, &words.parameters)?],
        None => {
            let text = match &words.cib {
                Some(path) => {
                    std::fs::read_to_string(path).map_err(|error| anyhow!("{} cannot be read: {}", path.display(), log::plain(&error)))?
                }
                None => query()?,
            };
            configured(&text, &words.devices)?
        }
    };
    Ok(devices.iter().map(|device| print(device, &convert(device, words.uri.as_deref()))).collect::<Vec<_>>().join("\n"))
}

fn query() -> anyhow::Result<String> {
    let finished = program::run("cibadmin", &["--query"], &Deadline::after(ASKING)).context("the cluster cannot be asked: cibadmin")?;
    match finished.outcome {
        Outcome::Exited(0) => Ok(String::from_utf8_lossy(&finished.stdout).into_owned()),
        Outcome::Exited(code) => {
            bail!("the cluster cannot be asked: cibadmin ended with {code}: {}", String::from_utf8_lossy(&finished.stderr).trim())
        }
        Outcome::Late => bail!("the cluster gave no answer within {} s", ASKING.as_secs()),
    }
}

/// A device from the command line.
fn spoken(kind: &str, words: &[String]) -> anyhow::Result<Device> {
    let agent = agent_of(kind.trim_start_matches("stonith:"))
        .with_context(|| format!("{kind:?} cannot be converted, only fence_virsh, fence_xvm, fence_virt and external/libvirt can"))?;
    let pair = |word: &String| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let parameters = words.iter().map(|word| pair(word).with_context(|| format!("{word:?} is not key=value")));
    let parameters = parameters.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Device { id: "fence".into(), kind: kind.into(), agent, parameters, interval: "60s".into(), is_there: false, remarks: Vec::new() })
}

/// The devices of a configuration: those that were asked for, or all that can be converted.
pub(super) fn configured(text: &str, wanted: &[String]) -> anyhow::Result<Vec<Device>> {
    let document = Document::parse(text).context("the configuration is no XML")?;
    let primitives: Vec<Node<'_, '_>> = document
        .descendants()
        .filter(|element| element.has_tag_name("primitive") && element.attribute("class") == Some("stonith"))
        .collect();
    for id in wanted {
        let primitive = primitives.iter().find(|primitive| primitive.attribute("id") == Some(id));
        let primitive = primitive.with_context(|| format!("there is no fence device {id:?} in the configuration"))?;
        let kind = primitive.attribute("type").unwrap_or_default();
        ensure!(agent_of(kind).is_some(), "{id} is a device of {kind}, which cannot be converted");
    }
    let asked_for = |id: &str| wanted.is_empty() || wanted.iter().any(|word| word == id);
    let devices: Vec<Device> =
        primitives.into_iter().filter_map(|primitive| device(&document, primitive)).filter(|device| asked_for(&device.id)).collect();
    ensure!(!devices.is_empty(), "the configuration has no device of fence_virsh, fence_xvm, fence_virt or external/libvirt");
    Ok(devices)
}

fn device(document: &Document<'_>, primitive: Node<'_, '_>) -> Option<Device> {
    let (id, kind) = (primitive.attribute("id")?, primitive.attribute("type")?);
    let agent = agent_of(kind)?;
    let children = |name: &'static str| primitive.children().filter(move |element| element.has_tag_name(name));
    let (mut parameters, mut remarks) = (Vec::new(), Vec::new());
    for set in children("instance_attributes") {
        if set.attribute("id-ref").is_some() || set.children().any(|child| child.has_tag_name("rule")) {
            remarks.push("some of its parameters are shared with others or have rules, and were not read".into());
            continue;
        }
        for pair in set.children().filter(|element| element.has_tag_name("nvpair")) {
            match (pair.attribute("name"), pair.attribute("value")) {
                // The first set has precedence.
                (Some(name), Some(value)) if !parameters.iter().any(|(known, _)| known == name) => {
                    parameters.push((name.to_owned(), value.to_owned()));
                }
                (Some(_), Some(_)) => {}
                _ => remarks.push("a parameter is a reference, and was not read".into()),
            }
        }
    }
    if children("meta_attributes").any(|set| set.has_children()) {
        remarks.push("its meta attributes have to be repeated manually".into());
    }
    let clone = primitive.parent_element().filter(|parent| parent.has_tag_name("clone"));
    if clone.is_some() {
        remarks.push("it is cloned, which a fence device need not be: any node may use it".into());
    }
    let names = |element: &Node<'_, '_>| {
        let listed = |name: &str| element.attribute(name).is_some_and(|text| text.split(',').any(|word| word.trim() == id));
        (element.has_tag_name("fencing-level") && listed("devices"))
            || (element.tag_name().name().starts_with("rsc_") && element.attributes().any(|attribute| attribute.value() == id))
    };
    if document.descendants().any(|element| names(&element)) {
        remarks.push("constraints or fencing levels name it, and have to be changed manually".into());
    }
    let operations = children("operations").flat_map(|operations| operations.children());
    let monitor =
        operations.filter(|operation| operation.attribute("name") == Some("monitor")).find_map(|monitor| monitor.attribute("interval"));
    Some(Device { id: id.into(), kind: kind.into(), agent, parameters, interval: monitor.unwrap_or("60s").into(), is_there: true, remarks })
}

/// Remarks and both lines, for a shell, and how the old device goes.
pub(super) fn print(device: &Device, converted: &Converted) -> String {
    // A name may hold anything; a comment ends with its line.
    let comment = |text: &str| format!("# {}\n", text.replace(char::is_control, " "));
    let mut text = comment(&format!("{}: {} -> fence_kvmha", device.id, device.kind));
    text.extend(converted.remarks.iter().map(|remark| comment(remark)));
    let new = format!("{}-kvmha", device.id);
    let words = |quote: fn(&str) -> String| {
        converted.parameters.iter().map(|(name, value)| format!(" {}", quoted(&format!("{name}={}", quote(value))))).collect::<String>()
    };
    let operation = format!("op monitor interval={} timeout=60s", quoted(&device.interval));
    let _ = writeln!(text, "pcs stonith create {} fence_kvmha{} {operation}", quoted(&new), words(str::to_owned));
    // crmsh takes the words apart once more.
    let crm = words(|value| if is_plain(value) { value.to_owned() } else { format!("\"{}\"", value.replace('"', "\\\"")) });
    let _ = writeln!(text, "crm configure primitive {} stonith:fence_kvmha params{crm} {operation}", quoted(&new));
    if device.is_there {
        text += &comment("one of these; when the new device has fenced a node the old one has to go, which Pacemaker would go on using:");
        // No shell is to do it by the way: until then it is the only one that is known to work.
        text += &comment(&format!("pcs stonith delete {}", quoted(&device.id)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_refused() {
        for (text, wanted) in
            [("", ""), ("<cib/>", ""), ("<cib/>", "x"), ("<primitive class=\"stonith\" type=\"fence_apc\" id=\"x\"/>", "x")]
        {
            let wanted: Vec<String> = Some(wanted).filter(|word| !word.is_empty()).map(str::to_owned).into_iter().collect();
            assert!(configured(text, &wanted).is_err(), "{text}");
        }
        assert!(spoken("fence_apc", &[]).is_err());
        assert!(spoken("fence_virsh", &["ip".into()]).is_err());
    }
}
