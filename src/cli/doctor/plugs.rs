//! The devices of `fence_kvmha`: is each plug that of the node's own guest? A plug that is nobody's is "off" with `missing_as_off`, and nothing else
//! shows it before a node is lost: the device's monitor and the fencer's list are content.

use super::super::shell::quoted;
use super::{Found, Patient};
use crate::cluster::view::View;
use crate::deadline::{Deadline, Task};
use crate::fence::{Device, Said, fixed_plug};
use crate::parameter;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// For all devices, side by side.
const DEVICES: Duration = Duration::from_secs(25);
/// How much later their answers may come.
const GRACE: Duration = Duration::from_secs(1);
/// So many of them at one time: sshd drops logins that are under way beyond ten (`MaxStartups`).
const LANES: usize = 4;
/// For Pacemaker to say once more who is online.
const ONLINE: Duration = Duration::from_secs(5);
/// Where Pacemaker keeps the values that `cibsecret` has taken out of the configuration, and what stands there in their place
/// (`pcmk__substitute_secrets` in its `lib/common/cib_secrets.c`).
const SECRETS: &str = "/var/lib/pacemaker/lrm/secrets";
const SECRET: &str = "lrm://";

type Parameters = BTreeMap<String, String>;

/// The devices, by their names.
fn devices(patient: &Patient) -> Vec<(String, Parameters)> {
    let devices = patient.cib.resources().into_iter().filter(|device| device.agent == "stonith:fence_kvmha");
    devices.map(|device| (device.id, device.parameters)).collect()
}

/// What a device is said to be for.
enum For {
    /// These nodes, with their plugs.
    Nodes(Vec<(String, String)>),
    /// Every node whose name a guest has.
    Namesakes,
}

/// Nodes and plugs of a `pcmk_host_map` (`build_port_aliases` in Pacemaker's `daemons/fenced/fenced_commands.c`; a backslash as up to 2.1).
fn mapped(text: &str) -> Vec<(String, String)> {
    let (mut pairs, mut node, mut word) = (Vec::new(), None, String::new());
    let mut letters = text.chars().chain([';']);
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            ':' | '=' if node.is_none() => node = Some(std::mem::take(&mut word)),
            ';' | ' ' | '\t' | '\n' => {
                let plug = std::mem::take(&mut word);
                pairs.extend(node.take().filter(|node| !node.is_empty() && !plug.is_empty()).map(|node| (node, plug)));
            }
            letter => word.push(letter),
        }
    }
    pairs
}

/// The nodes that are online and that the device says it is for.
fn purpose(parameters: &Parameters, online: &[String]) -> For {
    let value = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let (map, list) = (value("pcmk_host_map").map(mapped), value("pcmk_host_list"));
    let check = value("pcmk_host_check").unwrap_or_default();
    if map.is_none() && list.is_none() && !check.eq_ignore_ascii_case("none") {
        return For::Namesakes;
    }
    let all = map.is_none() && list.is_none();
    let listed: Vec<&str> = list.into_iter().flat_map(|list| list.split([',', ';', ' ', '\t', '\n'])).collect();
    // Pacemaker minds no case of a node's name.
    let plug = |node: &String| {
        let own = map.iter().flatten().find(|(known, _)| known.eq_ignore_ascii_case(node)).map(|(_, plug)| plug.clone());
        let is_its = all || listed.iter().any(|known| known.eq_ignore_ascii_case(node));
        own.or_else(|| is_its.then(|| node.clone())).map(|plug| (node.clone(), plug))
    };
    For::Nodes(online.iter().filter_map(plug).collect())
}

/// What a device's parameters say that no question shows: it would call a node off, or end a guest, that is not the one to be fenced.
pub(super) fn configured(patient: &Patient, found: &mut Found) {
    let nodes: Vec<String> = patient.view.nodes.iter().map(|node| node.name.clone()).collect();
    let all = nodes.iter().map(|node| format!("{node}:GUEST")).collect::<Vec<_>>().join(";");
    for (id, parameters) in devices(patient) {
        let set =
            |name: &str, value: &str| format!("crm_resource --resource {id} --set-parameter {name} --parameter-value {}", quoted(value));
        let map = || format!("{}, with each node's guest for GUEST", set("pcmk_host_map", &all));
        let is_set = |name: &str| parameters.get(name).is_some_and(|value| !value.is_empty());
        let listed = is_set("pcmk_host_list") || is_set("pcmk_host_map");
        let check = parameters.get("pcmk_host_check").map(|check| check.to_ascii_lowercase());
        let claims_all = check.as_deref().is_some_and(|check| ["status", "none"].contains(&check));
        let blind = parameters.get("missing_as_off").is_some_and(|value| parameter::boolean(&value.to_lowercase()) == Ok(true));
        if let Some((_, plug)) = fixed_plug(&parameters) {
            let count = match purpose(&parameters, &nodes) {
                For::Nodes(nodes) => nodes.len(),
                For::Namesakes => nodes.len(),
            };
            if !listed || count > 1 || claims_all {
                found.problem(
                    format!(
                        "{id} has the plug {plug} for every node, and is not for one node alone: it ends that guest whichever node is to be fenced"
                    ),
                    format!("{}, with the node whose guest it is for NODE", set("pcmk_host_list", "NODE")),
                );
            }
        } else if blind && !listed && check.as_deref().is_none_or(|check| check != "dynamic-list") {
            // Where nothing is set and a list fails at first, the fencer goes by the status (`dynamic_list_search_cb`), for which "off" is "can be
            // fenced".
            found.problem(
                format!(
                    "{id} has missing_as_off=1 and neither pcmk_host_map nor pcmk_host_list: it may claim any node, and call it off while it runs"
                ),
                map(),
            );
        } else if blind && claims_all {
            found.problem(
                format!(
                    "{id} has missing_as_off=1 and a pcmk_host_check that has it claim every node: one that is not in its list is \"off\""
                ),
                set("pcmk_host_check", "static-list"),
            );
        }
    }
}

/// Asks each device about the guest of each node that is online.
pub(super) fn asked(patient: &Patient, found: &mut Found) {
    let online: Vec<String> = patient.view.online().map(str::to_owned).collect();
    // One plug for all nodes says nothing of any: it is found above.
    let is_single = |parameters: &Parameters| match purpose(parameters, &online) {
        For::Nodes(nodes) => nodes.len() == 1,
        For::Namesakes => false,
    };
    let devices = devices(patient).into_iter().filter(|(_, parameters)| fixed_plug(parameters).is_none() || is_single(parameters));
    let devices: Vec<(String, Parameters)> = devices.collect();
    let answers = ask(&devices, &online);
    let doubted = answers.values().flat_map(|answer| answer.iter().flatten()).any(|(.., said)| matches!(said, Said::Off | Said::Nobody(_)));
    // A node that has gone meanwhile is off rightly.
    let left = if doubted { View::query(&Deadline::after(ONLINE)).ok() } else { None };
    let is_here = |node: &str| left.as_ref().is_none_or(|view| view.online().any(|name| name == node));
    for (id, parameters) in &devices {
        match answers.get(id) {
            None => untold(patient, id, &format!("no answer within {} s", DEVICES.as_secs()), found),
            Some(Err(Trouble::Unfit(text))) => found.problem(
                format!("{id} cannot work as it is configured: {text}"),
                format!("crm_resource --resource {id} --set-parameter NAME --parameter-value VALUE, as man fence_kvmha has it"),
            ),
            Some(Err(Trouble::Untold(text))) => untold(patient, id, text, found),
            Some(Ok(nodes)) => {
                nodes
                    .iter()
                    .filter(|(node, ..)| is_here(node))
                    .for_each(|(node, plug, said)| judge(patient, (id, parameters), (node, plug), said, found));
            }
        }
    }
}

fn untold(patient: &Patient, id: &str, text: &str, found: &mut Found) {
    found.warning(
        format!("whether the plugs of {id} are right cannot be told from {}: {text}", patient.here),
        format!("see that {} reaches every host of {id}: virsh -c URI list, as root, for each of its uri", patient.here),
    );
}

fn judge(patient: &Patient, (id, parameters): (&str, &Parameters), (node, plug): (&str, &str), said: &Said, found: &mut Found) {
    let here = &patient.here;
    let remedy = || {
        if let Some((name, _)) = fixed_plug(parameters) {
            return format!(
                "crm_resource --resource {id} --set-parameter {name} --parameter-value GUEST, with the name of {node}'s guest (virsh list on its host)"
            );
        }
        let map = parameters.get("pcmk_host_map").map(|map| mapped(map)).unwrap_or_default();
        let others = map.into_iter().filter(|(known, _)| !known.eq_ignore_ascii_case(node)).map(|(node, plug)| format!("{node}:{plug}"));
        let map = others.chain([format!("{node}:GUEST")]).collect::<Vec<_>>().join(";");
        format!(
            "crm_resource --resource {id} --set-parameter pcmk_host_map --parameter-value {}, with the name of {node}'s guest for GUEST (virsh list on \
             its host)",
            quoted(&map)
        )
    };
    match said {
        Said::On => {}
        Said::Off => found.problem(
            format!(
                "{node} is online, and its plug {plug} at {id} is off, asked from {here}: it is the wrong one, or the host of {node} is not among \
                 those that are asked, and {node} would pass for fenced while it runs"
            ),
            remedy(),
        ),
        Said::Nobody(text) => found.problem(
            format!(
                "{node} is online, and its plug {plug} at {id} is no guest's, asked from {here}, so that {node} cannot be fenced by it: {text}"
            ),
            remedy(),
        ),
        Said::Unknown(text) => untold(patient, id, &format!("{node}: {text}"), found),
    }
}

/// Why a device has given no answer.
enum Trouble {
    /// Its parameters.
    Unfit(String),
    /// A host.
    Untold(String),
}

/// What a device says of the nodes that it is for.
type Answer = Result<Vec<(String, String, Said)>, Trouble>;

/// Asks all of them; who is late is left out.
fn ask(devices: &[(String, Parameters)], online: &[String]) -> BTreeMap<String, Answer> {
    let deadline = Deadline::after(DEVICES);
    let (give, answers) = mpsc::channel();
    let lanes = (0..LANES.min(devices.len())).map(|lane| {
        let own: Vec<(String, Parameters)> = devices.iter().skip(lane).step_by(LANES).cloned().collect();
        let (give, online) = (give.clone(), online.to_vec());
        Task::start(move || {
            for (id, parameters) in own {
                let answer = look(&with_secrets(&id, parameters), &online, &deadline);
                // The receiver is gone when the time is over.
                let _ = give.send((id, answer));
            }
        })
    });
    let lanes: Vec<Task<()>> = lanes.collect();
    // What was not answered in time is said so there, a moment after that.
    let late = Deadline::after(deadline.left() + GRACE);
    for lane in lanes {
        let _ = lane.wait(&late);
    }
    answers.try_iter().collect()
}

fn look(parameters: &Parameters, online: &[String], deadline: &Deadline) -> Answer {
    let device = Device::new(parameters).map_err(Trouble::Unfit)?;
    let nodes = match purpose(parameters, online) {
        For::Nodes(nodes) => nodes,
        For::Namesakes => {
            let guests = device.guests(deadline).map_err(Trouble::Untold)?;
            let named = online.iter().filter(|node| guests.iter().any(|guest| guest.eq_ignore_ascii_case(node)));
            named.map(|node| (node.clone(), node.clone())).collect()
        }
    };
    let said = device.look(&nodes, deadline);
    Ok(nodes.into_iter().zip(said).map(|((node, plug), said)| (node, plug, said)).collect())
}

fn with_secrets(id: &str, mut parameters: Parameters) -> Parameters {
    for (name, value) in parameters.iter_mut().filter(|(_, value)| *value == SECRET) {
        if let Ok(secret) = fs::read_to_string(Path::new(SECRETS).join(id).join(name)) {
            secret.trim_end().clone_into(value);
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, patient};
    use super::*;

    fn device(parameters: &[(&str, &str)]) -> String {
        let pairs: String = parameters.iter().map(|(name, value)| format!("<nvpair id='{name}' name='{name}' value='{value}'/>")).collect();
        format!(
            "<primitive id='vmfence' class='stonith' type='fence_kvmha'><instance_attributes id='i'>{pairs}</instance_attributes></primitive>"
        )
    }

    #[test]
    fn a_map_as_pacemaker_reads_it() {
        let pair = |node: &str, plug: &str| (node.to_owned(), plug.to_owned());
        assert_eq!(mapped("node1:guest1;node2=guest2 node3:3,4"), [pair("node1", "guest1"), pair("node2", "guest2"), pair("node3", "3,4")]);
        assert_eq!(mapped(" ;node1:;:guest;lonely;; node2:a\\ b"), [pair("node2", "a b")]);
        assert_eq!(mapped(""), []);
    }

    #[test]
    fn which_nodes_a_device_is_for() {
        let online = ["node1", "Node2", "node3"].map(str::to_owned);
        let of = |pairs: &[(&str, &str)]| {
            let parameters = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            match purpose(&parameters, &online) {
                For::Nodes(nodes) => nodes.into_iter().map(|(node, plug)| format!("{node}={plug}")).collect::<Vec<_>>().join(" "),
                For::Namesakes => "namesakes".to_owned(),
            }
        };
        assert_eq!(of(&[("pcmk_host_map", "node1:guest1;node2:guest2;node9:guest9")]), "node1=guest1 Node2=guest2");
        assert_eq!(of(&[("pcmk_host_list", "node1,node3")]), "node1=node1 node3=node3");
        assert_eq!(of(&[("pcmk_host_list", "node1 node3"), ("pcmk_host_map", "node1:guest1")]), "node1=guest1 node3=node3");
        assert_eq!(of(&[("pcmk_host_check", "none")]), "node1=node1 Node2=Node2 node3=node3");
        assert_eq!([of(&[]), of(&[("pcmk_host_check", "status")])], ["namesakes", "namesakes"]);
    }

    #[test]
    fn parameters_with_which_a_wrong_guest_is_off() {
        let said = |pairs: &[(&str, &str)]| found(configured, &patient(2, true, &[], &device(pairs)));
        let map = ("pcmk_host_map", "node1:guest1;node2:guest2");
        for right in
            [&[("missing_as_off", "1"), map][..], &[], &[("missing_as_off", "0")], &[("plug", "guest1"), ("pcmk_host_list", "node1")]]
        {
            assert_eq!(said(right), [], "{right:?}");
        }
        let [(text, remedy)] = &said(&[("missing_as_off", "Yes")])[..] else { panic!() };
        assert!(text.starts_with("vmfence has missing_as_off=1 and neither"), "{text}");
        assert!(remedy.contains("--set-parameter pcmk_host_map --parameter-value 'node1:GUEST;node2:GUEST'"), "{remedy}");
        let [(text, remedy)] = &said(&[("missing_as_off", "1"), map, ("pcmk_host_check", "status")])[..] else { panic!() };
        assert!(
            text.contains("claim every node") && remedy.ends_with("--set-parameter pcmk_host_check --parameter-value static-list"),
            "{text}"
        );
        for fixed in [&[("port", "guest1")][..], &[("plug", "guest1"), map], &[("port", "guest1"), ("pcmk_host_check", "none")]] {
            let [(text, remedy)] = &said(fixed)[..] else { panic!("{fixed:?}") };
            assert!(
                text.contains("has the plug guest1 for every node") && remedy.contains("pcmk_host_list --parameter-value NODE"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_plug_that_is_not_on_is_a_wrong_one() {
        let patient = patient(2, true, &[], "");
        let parameters = Parameters::from([("pcmk_host_map".to_owned(), "node1:gest1;node2:guest2".to_owned())]);
        let of = |said: Said| {
            let mut found = Found::default();
            judge(&patient, ("vmfence", &parameters), ("node1", "gest1"), &said, &mut found);
            found.0.pop()
        };
        assert_eq!(of(Said::On), None);
        let (level, text, remedy) = of(Said::Off).unwrap();
        assert!(
            level == super::super::Level::Problem
                && text.starts_with("node1 is online, and its plug gest1 at vmfence is off, asked from node1"),
            "{text}"
        );
        assert!(remedy.contains("pcmk_host_map --parameter-value 'node2:guest2;node1:GUEST'"), "{remedy}");
        let (level, text, _) = of(Said::Nobody("gest1: no host knows it".into())).unwrap();
        assert!(
            level == super::super::Level::Problem && text.contains("is no guest's") && text.ends_with("gest1: no host knows it"),
            "{text}"
        );
        let (level, text, _) = of(Said::Unknown("hosta is silent".into())).unwrap();
        assert!(level == super::super::Level::Warning && text.ends_with("cannot be told from node1: node1: hosta is silent"), "{text}");
    }

    #[test]
    fn devices_are_asked_with_their_own_parameters() {
        let nowhere = ("uri", "qemu+unix:///system?socket=/nonexistent");
        let said = |pairs: &[(&str, &str)]| found(asked, &patient(2, true, &[], &device(pairs)));
        let [(first, _), (second, _)] = &said(&[nowhere, ("pcmk_host_map", "node1:guest1;node2:guest2")])[..] else { panic!() };
        assert!(first.contains("cannot be told from node1: node1: guest1: ") && second.contains("node2: guest2: "), "{first}\n{second}");
        let [(text, _)] = &said(&[nowhere])[..] else { panic!() };
        assert!(text.contains("cannot be told"), "{text}");
        let [(text, remedy)] = &said(&[("pcmk_host_list", "node1")])[..] else { panic!() };
        assert!(text.contains("cannot work as it is configured: no host is given") && remedy.contains("man fence_kvmha"), "{text}");
        assert_eq!(said(&[nowhere, ("plug", "guest1")]), [], "that is found by its parameters");
    }
}
