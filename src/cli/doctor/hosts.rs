//! The libvirts of all nodes, as far as they can be asked from here.

use super::super::shell::{self, quoted};
use super::{Case, Found, Patient};
use crate::cluster::view::View;
use crate::deadline::Deadline;
use crate::domain::host::{self, About};
use crate::domain::migration::defects::{self, Defect, Versions, Way};
use crate::domain::{Definition, Error, Identity, Kind};
use crate::storage::item::items;
use crate::storage::{Item, Role};
use std::time::Duration;

/// For all of them, side by side. ssh takes its time.
const LIBVIRT: Duration = Duration::from_secs(15);

/// A libvirt, and what it says.
pub(super) struct Host {
    node: String,
    uri: String,
    answer: Result<About, Error>,
}

/// Asks this node's libvirt, and those of all others that are members, by the ways that the resources use.
pub(super) fn ask(here: &str, view: &View, guests: &[Case]) -> Vec<Host> {
    let mut places: Vec<(String, String)> = Vec::new();
    let mut add = |node: &str, uri: String| {
        if !places.iter().any(|(_, known)| *known == uri) {
            places.push((node.to_owned(), uri));
        }
    };
    let asked: Vec<_> = guests.iter().filter_map(|case| case.asked.as_ref().ok()).collect();
    if asked.is_empty() {
        add(here, "qemu:///system".into());
    }
    for asked in asked {
        add(here, asked.hypervisor().to_string());
        for node in view.online().filter(|node| *node != here && asked.reaches_others()) {
            add(node, asked.remote(node));
        }
    }
    let identities: Vec<Identity> = guests.iter().filter_map(identity).collect();
    let uris: Vec<String> = places.iter().map(|(_, uri)| uri.clone()).collect();
    let answers = host::about(&uris, &identities, &Deadline::after(LIBVIRT));
    places.into_iter().zip(answers).map(|((node, uri), answer)| Host { node, uri, answer }).collect()
}

fn identity(case: &Case) -> Option<Identity> {
    case.definition.as_ref().ok().map(|definition| definition.identity.clone())
}

fn answered(patient: &Patient) -> impl Iterator<Item = (&Host, &About)> {
    patient.hosts.iter().filter_map(|host| Some((host, host.answer.as_ref().ok()?)))
}

/// Whether the libvirt at this URI has answered.
pub(super) fn answers(patient: &Patient, uri: &str) -> bool {
    answered(patient).any(|(host, _)| host.uri == uri)
}

/// Those that cannot be asked: nothing can be started there, or moved there.
pub(super) fn reach(patient: &Patient, found: &mut Found) {
    for host in &patient.hosts {
        let Err(error) = &host.answer else { continue };
        let remedy = if error.kind == Kind::Unresponsive {
            // What its settings are does not matter then.
            format!(
                "see whether virsh -c {} list answers: if not, it is a packet filter between the nodes, or it hangs (on {}: systemctl restart \
                 virtqemud where that runs, else libvirtd; guests run on); if it does, an emulator may hang and hold up those who ask about it: \
                 virsh domstats of each guest",
                quoted(&host.uri),
                host.node
            )
        } else if host.node == patient.here {
            "start it: systemctl start virtqemud where that is enabled, else libvirtd".to_owned()
        } else {
            let transport =
                host.uri.split_once("://").and_then(|(scheme, _)| scheme.split_once('+')).map_or("tls", |(_, transport)| transport);
            match transport {
                "ssh" => {
                    format!(
                        "as root: ssh {} true has to work without a question (key in authorized_keys, host in known_hosts)",
                        quoted(&host.node)
                    )
                }
                "tcp" => {
                    format!(
                        "auth_tcp in libvirtd.conf of {node} (virtproxyd.conf where virtqemud runs), and there: {}; it is not encrypted",
                        listening("tcp"),
                        node = host.node
                    )
                }
                "tls" => format!("certificates of both nodes in /etc/pki, and on {}: {}", host.node, listening("tls")),
                _ => format!("virsh -c {} list shows why", quoted(&host.uri)),
            }
        };
        found.problem(format!("libvirt of {} cannot be asked: {error}", host.node), remedy);
    }
}

/// Has a libvirt listen for other nodes. systemd starts no socket of a service that is active, as libvirtd is where a guest runs, and
/// any socket that is left would start the service again meanwhile. A libvirtd that systemd starts by sockets does not look at `listen_tcp`.
fn listening(transport: &str) -> String {
    format!(
        "systemctl enable libvirtd-{transport}.socket; \
         systemctl stop libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket; \
         systemctl start libvirtd-{transport}.socket libvirtd.service (guests run on; where virtqemud runs: virtproxyd for libvirtd)"
    )
}

/// Versions that differ, and defects that matter here: of any two hosts, or of one if there is no other.
pub(super) fn versions(patient: &Patient, found: &mut Found) {
    let hosts: Vec<(&str, Versions)> =
        answered(patient).map(|(host, about)| (host.node.as_str(), Versions { libvirt: about.libvirt, qemu: about.qemu })).collect();
    let mut met: Vec<(&str, &str, &Defect, &str)> = Vec::new();
    for case in &patient.guests {
        let Ok(asked) = &case.asked else { continue };
        let (policy, tls) = asked.way();
        let way = Way::of(case.definition.as_ref().map_or("", |definition| &definition.xml), policy, tls);
        for (from, here) in &hosts {
            for (to, there) in hosts.iter().filter(|(to, _)| to != from || hosts.len() == 1) {
                for defect in defects::met(&way, here, there) {
                    // One guest, and one pair of hosts, is enough to know of it.
                    if !met.iter().any(|(_, _, known, _)| known.text == defect.text) {
                        met.push((from, to, defect, case.id()));
                    }
                }
            }
        }
    }
    for (from, to, defect, id) in met {
        let whose = if from == to { from.to_owned() } else { format!("{from} and {to}") };
        found.warning(format!("libvirt of {whose}: {} ({id})", defect.text), defect.remedy());
    }
    let mut all = answered(patient);
    let Some((first, about)) = all.next() else { return };
    for (host, other) in all.filter(|(_, other)| (other.libvirt, other.qemu) != (about.libvirt, about.qemu)) {
        found.warning(
            format!(
                "{} has libvirt {} with QEMU {}, {} has {} with {}: moving a guest back to the older one can fail",
                first.node, about.libvirt, about.qemu, host.node, other.libvirt, other.qemu
            ),
            "have the same versions on all nodes; meanwhile a machine type in the definitions that all of them have (kvmha check)",
        );
    }
}

/// Emulators that may not open each other's images on shared storage.
pub(super) fn owner(patient: &Patient, found: &mut Found) {
    let mut all = answered(patient).filter_map(|(host, about)| Some((host, about.owner.as_ref()?)));
    let Some((first, owner)) = all.next() else { return };
    for (host, other) in all.filter(|(_, other)| *other != owner) {
        found.problem(
            format!("emulators run as {owner} on {} and as {other} on {} (user:group)", first.node, host.node),
            "the same numbers for libvirt's user and group on all nodes (user and group in /etc/libvirt/qemu.conf, or usermod -u)",
        );
    }
}

/// Guests that a libvirt starts with its host, whatever Pacemaker says.
pub(super) fn autostart(patient: &Patient, found: &mut Found) {
    let identities: Vec<Identity> = patient.guests.iter().filter_map(identity).collect();
    for (host, about) in answered(patient) {
        let marked = identities.iter().zip(&about.guests).filter(|(_, held)| held.as_ref().is_some_and(|held| held.autostart));
        for (Identity { name, uuid }, _) in marked {
            found.problem(
                format!("libvirt of {} starts {name} with its host, wherever it runs", host.node),
                format!("virsh -c {} autostart --disable {}", quoted(&host.uri), shell::guest(name, uuid.as_deref())),
            );
        }
    }
}

/// Whether this node's libvirt has a definition of its own of a guest of the cluster.
pub(super) fn is_defined_here(patient: &Patient) -> bool {
    let here = answered(patient).filter(|(host, _)| host.node == patient.here);
    here.flat_map(|(_, about)| &about.guests).any(|held| held.as_ref().is_some_and(|held| held.persistent))
}

/// Guests that write to other disks than their next start would give them: a block copy or a snapshot has gone on elsewhere, or one was plugged in.
pub(super) fn disks(patient: &Patient, found: &mut Found) {
    let cases: Vec<(&Case, &Definition)> = patient.guests.iter().filter_map(|case| Some((case, case.definition.as_ref().ok()?))).collect();
    for (host, about) in answered(patient) {
        for ((case, definition), running) in cases.iter().zip(&about.running) {
            let Some(running) = running else { continue };
            for text in strayed(running, &definition.xml) {
                found.problem(
                    format!("{} runs on {} with {text}", case.id(), host.node),
                    format!(
                        "end the block job or merge the snapshot (virsh -c {0} blockjob, blockcommit --active --pivot), or have the definition say where the \
                         disk is: virsh -c {0} dumpxml --inactive --security-info {1} shows it",
                        quoted(&host.uri),
                        shell::guest(&definition.identity.name, definition.identity.uuid.as_deref())
                    ),
                );
            }
        }
    }
}

/// What a guest that runs writes to, and its definition does not name.
fn strayed(running: &str, definition: &str) -> Vec<String> {
    let written = |xml: &str| items(xml).into_iter().filter(|item| item.role == Role::Disk).collect::<Vec<Item>>();
    let named = written(definition);
    let strays = written(running).into_iter().filter_map(|item| match named.iter().find(|other| other.name == item.name) {
        Some(other) if other.source.is_same_name(&item.source) => None,
        Some(other) => Some(format!("{item}, and its definition says {}: its next start would take that, as it was", other.source)),
        None => Some(format!("{item}, which its definition does not name: its next start would be without it")),
    });
    strays.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, patient};
    use super::*;
    use crate::domain::Condition;
    use crate::domain::holding::Holding;
    use crate::domain::host::Version;

    #[test]
    fn a_name_is_a_word_in_a_remedy() {
        let resource = "<primitive id='rd' class='ocf' provider='kvmha' type='VirtualDomain'/>";
        let mut patient = patient(1, true, &[], resource);
        let xml = "<domain type='kvm'><name>R&amp;D</name></domain>";
        patient.guests[0].definition = Ok(Definition::parse("/x".as_ref(), xml.into()).unwrap());
        let held = Holding {
            condition: Condition::PAUSED_UNKNOWN,
            uuid: String::new(),
            persistent: true,
            autostart: true,
            saved: false,
            busy: None,
        };
        let about =
            About { libvirt: Version::of(9, 0), qemu: Version::of(7, 2), owner: None, guests: vec![Some(held)], running: Vec::new() };
        patient.hosts.push(Host { node: "node1".to_owned(), uri: "qemu+ssh://a/system?keyfile=b&c=d".to_owned(), answer: Ok(about) });
        let all = found(autostart, &patient);
        assert_eq!(all[0].1, "virsh -c 'qemu+ssh://a/system?keyfile=b&c=d' autostart --disable 'R&D'");
    }

    #[test]
    fn what_has_gone_on_elsewhere() {
        let xml = |disks: &str| format!("<domain><name>a</name><devices>{disks}</devices></domain>");
        let file = |name: &str, path: &str| format!("<disk type='file'><source file='{path}'/><target dev='{name}'/></disk>");
        let nbd = |port: &str| {
            format!("<disk type='network'><source protocol='nbd' name='x'><host name='h'{port}/></source><target dev='vdc'/></disk>")
        };
        let both = file("vda", "/srv/a") + &nbd("");
        assert_eq!(strayed(&xml(&both), &xml(&both)), [""; 0]);
        assert_eq!(strayed(&xml(&nbd(" port='10809'")), &xml(&nbd(""))), [""; 0], "libvirt adds the usual port");
        assert_eq!(strayed(&xml(""), &xml(&both)), [""; 0], "one that was taken away is lost by nobody");
        let media = "<disk type='file' device='cdrom'><source file='/iso/b'/><target dev='sda'/></disk>";
        assert_eq!(strayed(&xml(media), &xml("")), [""; 0], "it is only read");
        let moved = strayed(&xml(&(file("vda", "/srv/a.snap") + &file("vdb", "/srv/b"))), &xml(&both));
        assert!(moved.len() == 2 && moved[0].starts_with("vda (/srv/a.snap), and its definition says /srv/a: "), "{moved:?}");
        assert!(moved[1].starts_with("vdb (/srv/b), which its definition does not name"), "{moved:?}");
    }

    #[test]
    fn a_socket_is_started_when_its_service_is_not_active() {
        for transport in ["tcp", "tls"] {
            let socket = format!("libvirtd-{transport}.socket");
            let remedy = listening(transport);
            let lines: Vec<Vec<&str>> = remedy.split(';').map(|line| line.split_whitespace().collect()).collect();
            let at = |word: &str, unit: &str| lines.iter().position(|line| line.starts_with(&["systemctl", word]) && line.contains(&unit));
            assert!(!remedy.contains("--now") && at("enable", &socket).is_some(), "{remedy}");
            let starts = at("start", &socket);
            assert!(starts.is_some() && at("start", "libvirtd.service") == starts, "{remedy}");
            // Any socket that is left would start the service again meanwhile.
            for unit in ["libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket"] {
                assert!(at("stop", unit).is_some_and(|stops| Some(stops) < starts), "{unit}: {remedy}");
            }
        }
    }
}
