//! What becomes of a device's parameters.

use super::super::doctor::seconds;
use super::super::shell::quoted;
use super::{Agent, Device};
use crate::domain::Uri;
use crate::fence::{Carried, carried};
use crate::parameter;

/// A device as it is to be.
#[derive(Debug, Default)]
pub(in crate::cli) struct Converted {
    pub(super) parameters: Vec<(String, String)>,
    pub(super) remarks: Vec<String>,
}

/// What fence_virt's client needs to find its daemon, and nothing else does (`agents/virt/client/options.c` in fence-agents).
const OF_FENCE_VIRTD: &[&str] = &[
    "multicast_address",
    "ip_family",
    "ipaddr",
    "ipport",
    "ip",
    "key_file",
    "hash",
    "auth",
    "retrans",
    "interface",
    "serial_device",
    "serial_params",
    "channel_address",
    "vsock",
    "timeout",
];

/// What off and reboot may take, in seconds (docs/fencing.md).
const NEEDED: u64 = 60;

/// Where the hosts have to be filled in.
const UNKNOWN_HOST: &str = "qemu+ssh://HOST/system";

/// The new device.
pub(in crate::cli) fn convert(device: &Device, uri: Option<&str>) -> Converted {
    let mut converted = Converted { remarks: device.remarks.clone(), ..Converted::default() };
    for (name, value) in &device.parameters {
        converted.take(device.agent, name, value);
    }
    if let Some(uri) = uri {
        converted.lead_to(uri);
    }
    let hosts: usize = ["uri", "ip"].iter().filter_map(|name| converted.get(name)).map(|list| list.split(',').count()).sum();
    match hosts {
        0 => {
            converted.parameters.insert(0, ("uri".into(), UNKNOWN_HOST.into()));
            converted.remark("no host is known from it: put all hosts on which the guests could run in the place of HOST (--uri)");
        }
        1 => converted.remark("it knows one host; add every other on which the guests could run, or \"off\" is as blind as before"),
        _ => {}
    }
    if device.agent != Agent::Virsh && converted.get("missing_as_off").is_none() {
        converted.parameters.push(("missing_as_off".into(), "1".into()));
        converted.remark("missing_as_off=1: a guest that it did not know was off for it too; here all hosts have to say so");
    }
    let blind = converted.get("missing_as_off").is_some_and(|value| parameter::boolean(&value.to_lowercase()) == Ok(true));
    if blind && converted.get("pcmk_reboot_action").is_none() {
        converted
            .remark("if another cluster starts these guests again, as one with ocf:kvmha:VirtualDomain does, add pcmk_reboot_action=off");
    }
    converted.limit_to_nodes(blind);
    // External/libvirt has libvirt log in too, which asks nobody either.
    if device.agent != Agent::External {
        converted.remark_keys();
    }
    converted
}

impl Converted {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn remark(&mut self, text: &str) {
        self.remarks.push(text.to_owned());
    }

    fn set(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.parameters.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Has it ask these hosts, in the place of those that the old device names.
    fn lead_to(&mut self, uris: &str) {
        let user = self.get("username").map(str::to_owned);
        // The user of ip is in none of uri.
        let with_user = |text: &str| match Uri::parse(text) {
            Ok(uri) if uri.transport() == Some("ssh") && uri.user().is_none() => uri.on(uri.host(), None, user.as_deref()).to_string(),
            _ => text.to_owned(),
        };
        let uris: Vec<String> = uris.split(',').map(|text| with_user(text.trim())).collect();
        if user.is_some_and(|user| !uris.iter().any(|uri| uri.contains(&format!("://{user}@")))) {
            self.remark("username is not carried over: it was for ssh, which none of these URIs needs, or they have another");
        }
        if self.get("ipport").is_some() {
            self.remark("ipport is not carried over: a port stands in the URI itself (qemu+ssh://HOST:PORT/system)");
        }
        self.parameters.retain(|(name, _)| !matches!(name.as_str(), "uri" | "ip" | "ipport" | "username" | "ssh"));
        self.parameters.insert(0, ("uri".into(), uris.join(",")));
    }

    /// Says for which nodes it is, or has a person say so. `blind`: a guest that nobody knows is off.
    fn limit_to_nodes(&mut self, blind: bool) {
        if blind && self.get("pcmk_host_check").is_some_and(|check| !check.eq_ignore_ascii_case("static-list")) {
            self.parameters.retain(|(name, _)| name != "pcmk_host_check");
            self.remark("pcmk_host_check is not carried over: with missing_as_off it goes by its list of nodes alone");
        }
        if self.get("pcmk_host_map").is_some() || self.get("pcmk_host_list").is_some() {
            return;
        }
        if self.get("plug").is_some() {
            self.set("pcmk_host_list", "NODE");
            self.remark(
                "it has one plug and is for no node: it would end that guest whichever node is to be fenced; put the node whose guest it is in the \
                 place of NODE",
            );
        } else if blind {
            self.set("pcmk_host_map", "NODE:GUEST");
            self.remark(
                "it has no host map, without which a node whose name no host knows would be \"off\": put each node and its guest in the place of \
                 NODE:GUEST, with semicolons between; kvmha doctor asks whether they are right",
            );
        } else {
            self.remark("it has no host map; pcmk_host_map=\"NODE:GUEST;...\" pcmk_host_check=static-list is recommended");
        }
    }

    /// That nobody is asked any more whether the key of a host is the right one.
    fn remark_keys(&mut self) {
        let port = self.get("ipport").map(|port| format!("-p {} ", quoted(port))).unwrap_or_default();
        let by_ssh = self.get("ssh").is_none_or(|value| parameter::boolean(&value.to_lowercase()) != Ok(false));
        let addresses = self.get("ip").filter(|_| by_ssh).into_iter().flat_map(|list| list.split(',')).map(|host| host.trim().to_owned());
        let uris = self.get("uri").into_iter().flat_map(|list| list.split(',')).filter_map(|uri| Uri::parse(uri.trim()).ok());
        let of_uris = uris.filter(|uri| uri.transport() == Some("ssh")).map(|uri| uri.host().to_owned());
        let hosts: Vec<String> = addresses.chain(of_uris).filter(|host| !host.is_empty()).map(|host| quoted(&host)).collect();
        if !hosts.is_empty() {
            let hosts = hosts.join(" ");
            self.remarks.push(format!(
                "an ssh key of a host that root does not know is a failure, where fence_virsh said yes to it; on every node: ssh-keyscan {port}{hosts} \
                 >>/root/.ssh/known_hosts, and compare the keys with those of the hosts"
            ));
        }
    }

    /// One parameter of the old device. No remark holds a value: it may be a secret.
    fn take(&mut self, agent: Agent, name: &str, value: &str) {
        match (agent, name) {
            (_, "action" | "option") => self.remark("action is not carried over: Pacemaker decides what is done (pcmk_reboot_action=off)"),
            (_, "pcmk_off_timeout" | "pcmk_reboot_timeout") if seconds(value).is_none_or(|time| time < NEEDED) => {
                self.remarks.push(format!(
                    "{name} is not carried over: below {NEEDED} s, which is Pacemaker's default, it would kill the agent before that says why it failed"
                ));
            }
            (_, _) if name.starts_with("pcmk_") => self.set(name, value),
            (Agent::Virt, "debug") => {
                self.remark("debug is not carried over: it is a level there, and here the name of a file (debug_file)");
            }
            (Agent::External, "hostlist") => {
                let hosts = value.split([',', ' ', '\t']).filter(|word| !word.is_empty());
                let pairs: Vec<String> =
                    hosts.map(|word| if word.contains(':') { word.to_owned() } else { format!("{word}:{word}") }).collect();
                self.set("pcmk_host_map", &pairs.join(";"));
                self.set("pcmk_host_check", "static-list");
            }
            (Agent::External, "hypervisor_uri") if value.starts_with("qemu") => self.set("uri", value),
            (Agent::External, "hypervisor_uri") => {
                self.remark("hypervisor_uri is of another driver than qemu, which is the only one supported");
            }
            (Agent::External, "reset_method" | "reboot_method") => {
                if value != "power_cycle" {
                    self.remark("reset_method is not carried over: a guest is never asked to reboot, but ended, proven off and started");
                }
            }
            (Agent::Virt, _) if OF_FENCE_VIRTD.contains(&name) => {
                self.remarks.push(format!("{name} is not carried over: it is about fence_virtd, which is not needed"));
            }
            (Agent::Virsh, "missing_as_off") => match carried(name, value) {
                Ok(Carried::As(_)) if matches!(value.to_lowercase().as_str(), "0" | "no" | "false" | "off") => {
                    self.set(name, value);
                    self.remark(
                        "missing_as_off was on, whatever its value said: fence_virsh looks only whether it is there; now it is off",
                    );
                }
                other => self.carry(name, value, other),
            },
            _ => self.carry(name, value, carried(name, value)),
        }
    }

    fn carry(&mut self, name: &str, value: &str, outcome: Result<Carried, String>) {
        match outcome {
            Ok(Carried::As(new)) => self.set(new, value),
            Ok(Carried::Dropped(reason)) => self.remarks.push(format!("{name} is not carried over: {reason}")),
            Ok(Carried::Unknown) => self.remarks.push(format!("{name} is not carried over: there is no such option")),
            Err(_) => self.remarks.push(format!("{name} is not carried over: its value is not one that fence_kvmha takes")),
        }
    }
}
