//! `kvmha adopt --from-libvirt`: the commands that put a guest under the cluster that libvirt runs outside of it.
//!
//! Pacemaker asks all nodes about a new resource before it does anything with it, and finds this one running where it is. Nothing is
//! changed here; what is printed was checked against the cluster, the guest and the agent's own rules.

use super::super::overview::is_guest;
use super::super::print;
use super::entrant::Entrant;
use super::way::Way;
use crate::cluster::cib::{Cib, Primitive};
use crate::cluster::own_name;
use crate::cluster::view::View;
use crate::deadline::Deadline;
use crate::domain::definition::{Definition, Identity};
use crate::domain::{Connection, files, status};
use crate::ocf::{self, Asked};
use crate::storage::{finding, hazards};
use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the questions may take together.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long Pacemaker's scheduler may take.
const FORESIGHT: Duration = Duration::from_secs(20);

const URI: &str = "qemu:///system";

/// What is known of the guest.
struct Guest {
    definition: Definition,
    persistent: bool,
    autostart: bool,
    /// What is to be said of its storage.
    warnings: Vec<String>,
}

/// Prints the commands for `domain`, whose definition is to be in the file `config`.
///
/// # Errors
/// Why the guest cannot be put under the cluster as it is.
pub(super) fn run(domain: &str, config: &str) -> anyhow::Result<()> {
    let deadline = Deadline::after(PATIENCE);
    ensure!(config.starts_with('/'), "{config:?} is not an absolute path");
    plain(config)?;
    let guest = look(domain, config, &deadline)?;
    let name = resource_name(domain)?;
    let view = View::query(&deadline).context("Pacemaker does not run on this node")?;
    let cib = Cib::query(&deadline)?;
    ensure!(!cib.has(&name), "the cluster's configuration has something called {name} already");
    let guests: Vec<Primitive> = cib.resources().into_iter().filter(is_guest).collect();
    if let Some(resource) = guests.iter().find(|resource| is_it(resource, &guest.definition.identity, config, &deadline)) {
        let path = resource.parameters.get("config").map(String::as_str).unwrap_or_default();
        bail!("{domain} seems to be in the cluster already: resource {} has config={path}", resource.id);
    }
    // The first command writes it anew, and nobody knows whether this one is older.
    let there = files::look(&[Path::new(config)], &deadline)?.pop().flatten().is_some();
    ensure!(!there, "{config} is there already: move it away, or name another file with --config");
    let movable = movable(&guest.definition.xml);
    let way = Way::of(&guests);
    let mut parameters: BTreeMap<String, String> =
        [("config", config), ("hypervisor", URI)].map(|(name, value)| (name.into(), value.into())).into();
    parameters.extend(way.parameters());
    if let Some(fault) = ocf::faults(&parameters).first() {
        bail!("{fault}");
    }
    let live = movable.is_none().to_string();
    let node = own_name(&deadline)?;
    let meta = meta(&live);
    let entrant = Entrant { name: &name, node: &node, meta: &meta };
    entrant.is_welcome(&view, &cib, &Deadline::after(FORESIGHT))?;
    print(&format!("{}\n", script(&guest, &name, domain, config, movable.as_deref(), &way, &view)));
    Ok(())
}

/// Whether a resource means this guest: by its own definition, whatever the file is called, or by the file.
fn is_it(resource: &Primitive, guest: &Identity, config: &str, deadline: &Deadline) -> bool {
    let path = resource.parameters.get("config").map(PathBuf::from).unwrap_or_default();
    let asked = Asked::new(Some(&resource.id), &resource.parameters, "", *deadline);
    // What it has seen running may be another one than the next start would bring.
    let means = asked.is_ok_and(|asked| {
        let mut meant = asked.identity().into_iter().chain(asked.definition().ok().map(|definition| definition.identity));
        meant.any(|other| other.name == guest.name || other.uuid.is_some() && other.uuid == guest.uuid)
    });
    means || path == Path::new(config) || path.file_stem().is_some_and(|stem| *stem == *guest.name)
}

/// The guest, if it runs here.
fn look(domain: &str, config: &str, deadline: &Deadline) -> anyhow::Result<Guest> {
    let connection = Connection::open(URI, deadline)?;
    let identity = Identity { name: domain.to_owned(), uuid: None };
    let Some((condition, _)) = status::ask_through(&connection, &identity, deadline)? else {
        bail!("libvirt on this node has no guest {domain}; run this where the guest runs");
    };
    ensure!(condition.runs(), "{domain} is {condition}; only a guest that runs here can be taken over without stopping it");
    let guest = connection.guest(domain, deadline)?.with_context(|| format!("{domain} is gone"))?;
    let (xml, persistent, autostart) = guest.call("reading the definition of", deadline, |domain| {
        let persistent = domain.is_persistent()?;
        let autostart = persistent && domain.autostart()?;
        Ok((domain.xml_desc(virt::sys::VIR_DOMAIN_XML_INACTIVE)?, persistent, autostart))
    })?;
    let definition = Definition::parse(Path::new(config), xml.into_bytes())?;
    let findings = finding::look(&definition.xml, &|pool, volume| connection.volume(pool, volume, deadline), deadline);
    let of = |finding: &finding::Finding| {
        hazards::warnings(finding).into_iter().map(|text| format!("{}: {text}", finding.item)).collect::<Vec<_>>()
    };
    Ok(Guest { warnings: findings.iter().flat_map(of).collect(), definition, persistent, autostart })
}

/// The meta attributes of the resource, but for the one by which Pacemaker only looks at it. What else is said of stickiness in the CIB need not
/// concern this resource, and may be nothing.
fn meta(live: &str) -> [(&'static str, &str); 2] {
    [("allow-migrate", live), ("resource-stickiness", "INFINITY")]
}

/// The resource is called like the guest, which must be possible in the CIB: an XML id.
fn resource_name(domain: &str) -> anyhow::Result<String> {
    let right = domain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    ensure!(right, "a resource cannot be called {domain:?}: use letters, digits, - _ and . in the guest's name, beginning with a letter");
    Ok(domain.to_owned())
}

/// The path stands in commands as it is, so it must be one word for a shell, for pcs and for crm.
fn plain(config: &str) -> anyhow::Result<()> {
    let right = config.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '+' | ':' | '@' | ','));
    ensure!(right, "the path {config:?} would have to be quoted: use letters, digits and / - _ . + : @ , in it");
    Ok(())
}

/// A line of the script that is no command, whatever is in a name of the guest's.
fn comment(begin: &str, text: &str) -> String {
    format!("# {begin}{}", text.replace(|c: char| c.is_control(), "?"))
}

/// Why the guest cannot be moved live, if it cannot.
fn movable(xml: &str) -> Option<String> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let device = document.descendants().find(|node| node.has_tag_name("hostdev"))?;
    Some(format!("it has a device of this host ({})", device.attribute("type").unwrap_or("hostdev")))
}

fn script(guest: &Guest, name: &str, domain: &str, config: &str, fixed: Option<&str>, way: &Way, view: &View) -> String {
    let mut lines = vec![format!("# {domain} runs on this node. These commands put it under the cluster; none of them stops it.")];
    let nodes: Vec<&str> = view.nodes.iter().map(|node| node.name.as_str()).collect();
    lines.push(format!("# Every node that may run it ({}) must have these, under the same names:", nodes.join(", ")));
    lines.push(format!("#   {config}"));
    lines.extend(guest.definition.disks().iter().map(|disk| comment("  ", &disk.display().to_string())));
    lines.extend(guest.warnings.iter().map(|text| comment("Beware: ", text)));
    if let Some(reason) = fixed {
        lines.push(format!("# It is not moved live: {reason}."));
    }
    lines.push(String::new());
    lines.push("# 1. the definition, with its passwords".into());
    lines.push(format!("(umask 077 && virsh -c {URI} dumpxml --inactive --security-info {domain} >{config})"));
    if guest.autostart {
        lines.push("# 2. libvirt must not start it by itself, or it may run twice".into());
        lines.push(format!("virsh -c {URI} autostart --disable {domain}"));
    } else {
        lines.push("# 2. libvirt does not start it by itself: nothing to do".into());
    }
    if guest.persistent {
        lines.push(format!("#    libvirt keeps its definition; from now on the guest is changed in {config}"));
    }
    let parameters = format!("config={config} hypervisor={URI} {}", way.words());
    // An NFS 4 server keeps the locks of a node that was lost for 90 s, and the first start after that has to wait for them: one that fails bans
    // the node (start-failure-is-fatal), which may be the last one.
    let operations = "op start timeout=150s op stop timeout=90s op monitor interval=10s timeout=30s op migrate_to timeout=120s op migrate_from timeout=60s";
    let live = fixed.is_none().to_string();
    let meta = meta(&live).map(|(name, value)| format!("{name}={value} ")).concat() + "is-managed=false";
    lines.push("# 3. the resource, which Pacemaker only looks at yet".into());
    lines.push(if way.taken {
        "#    It is moved as the other guests of the cluster are. A port for the memory (migrateport, or in migrateuri) is each guest's own"
            .into()
    } else {
        "#    migration_transport is how libvirt reaches the other nodes: ssh (root must be able to log in without a question), tls, tcp"
            .into()
    });
    lines.push("#    with pcs:".into());
    lines.push(format!("pcs resource create {name} ocf:kvmha:VirtualDomain {parameters} {operations} meta {meta}"));
    lines.push("#    or with crm:".into());
    lines.push(format!("crm configure primitive {name} ocf:kvmha:VirtualDomain params {parameters} {operations} meta {meta}"));
    lines.push("# 4. it must be found running, on one node: \"Started\" and this node's name".into());
    lines.push("crm_resource --wait".into());
    lines.push(format!("crm_resource --locate --resource {name}"));
    lines.push("# 5. now Pacemaker looks after it".into());
    lines.push(format!("pcs resource manage {name} --monitor"));
    lines.push("#    or with crm:".into());
    lines.push(format!("crm resource manage {name}"));
    lines.push("#    and forgets that it did not expect to find it: else the next change of a parameter would restart the guest".into());
    lines.push("crm_resource --wait".into());
    lines.push(format!("kvmha repair {name} --yes"));
    lines.push(
        "# 6. resource-stickiness=INFINITY keeps it on this node as long as the node may run it. When it may be moved for other reasons:"
            .into(),
    );
    lines.push(format!("#   crm_resource --resource {name} --meta --set-parameter resource-stickiness --parameter-value 100"));
    lines.push("#    or, if the cluster has a default for it:".into());
    lines.push(format!("#   crm_resource --resource {name} --meta --delete-parameter resource-stickiness"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_resource_can_have() {
        assert_eq!(resource_name("web-1.prod").ok().as_deref(), Some("web-1.prod"));
        for name in ["1web", "a b", "web;reboot", "", "$(id)"] {
            assert!(resource_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn paths_that_no_shell_changes() {
        assert!(plain("/srv/vms/web-1_a.b@c.xml").is_ok());
        for path in ["/srv/my guests/a.xml", "/srv/$(id).xml", "/srv/a;b", "/srv/a'b", "/srv/~a", "/srv/a*", "/srv/a\nb", "/srv/\u{e4}"] {
            assert!(plain(path).is_err(), "{path}");
        }
    }

    #[test]
    fn it_stays_where_it_is_until_somebody_says_otherwise() {
        let text = printed(&Way::default());
        let created: Vec<&str> = text.lines().filter(|line| line.contains(" meta allow-migrate=true ")).collect();
        assert_eq!(created.len(), 2);
        assert!(created.iter().all(|line| line.contains(" resource-stickiness=INFINITY is-managed=false")), "{text}");
        assert!(text.contains("\n# Beware: nvram: a local file system: it is here only\n"), "{text}");
        // Else the first change of a parameter, migration_transport for one, would restart it.
        let at = |word: &str| text.find(word).unwrap_or_default();
        assert!(at("\nkvmha repair web1 --yes") > at("crm resource manage web1"), "{text}");
    }

    /// What is printed for web1.
    fn printed(way: &Way) -> String {
        let definition = Definition::parse(Path::new("/srv/vms/web1.xml"), b"<domain><name>web1</name></domain>".to_vec()).unwrap();
        let warnings = vec!["nvram: a local file system: it is here only".to_owned()];
        let guest = Guest { definition, persistent: true, autostart: false, warnings };
        let view = View {
            controller: None,
            quorum: true,
            maintenance: false,
            fencing: true,
            nodes: Vec::new(),
            resources: Vec::new(),
            failures: Vec::new(),
        };
        script(&guest, "web1", "web1", "/srv/vms/web1.xml", None, way, &view)
    }

    #[test]
    fn a_comment_is_one_line() {
        assert_eq!(comment("Beware: ", "vda (/srv/a\nreboot): b"), "# Beware: vda (/srv/a?reboot): b");
    }

    #[test]
    fn the_guide_has_the_same_resource() {
        const GUIDE: &str = include_str!("../../../docs/two-node.md");
        let resource = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("pcs resource create web1 ")).unwrap_or_default();
            line.split_once(" meta ").unwrap_or_default().0.to_owned()
        };
        let text = resource(&printed(&Way::default()));
        assert_eq!(text, resource(GUIDE));
        assert!(text.contains(" migration_transport=ssh ") && text.contains(" op start timeout=150s "), "{text}");
    }

    /// Guests of the cluster, each with these parameters.
    fn way(guests: &[&[(&str, &str)]]) -> Way {
        let guest = |(number, given): (usize, &&[(&str, &str)])| Primitive {
            id: format!("vm{number}"),
            agent: "ocf:heartbeat:VirtualDomain".to_owned(),
            parameters: given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Primitive::default()
        };
        Way::of(&guests.iter().enumerate().map(guest).collect::<Vec<_>>())
    }

    #[test]
    fn it_is_moved_as_the_other_guests_are() {
        let ssh = "migration_transport=ssh";
        let tls = [("migration_transport", "tls"), ("migration_network", "10.1.2.0/24"), ("config", "/srv/vms/a.xml")];
        for (guests, words) in [
            (&[][..], ssh),
            (&[&[("config", "/srv/vms/a.xml")][..]], ssh),
            (&[&tls], "migration_transport=tls migration_network=10.1.2.0/24"),
            (&[&tls, &[("snapshot", "/srv")], &tls], "migration_transport=tls migration_network=10.1.2.0/24"),
            (&[&tls, &tls[..1]], ssh),
            (&[&[("remoteuri", "qemu+tls://%n/system?no_verify=1")]], "'remoteuri=qemu+tls://%n/system?no_verify=1'"),
            (&[&[("migration_transport", "tcp"), ("migration_user", ""), ("migrateport", "49160")]], "migration_transport=tcp"),
            // A port for the memory is each guest's own.
            (
                &[
                    &[("migration_transport", "tcp"), ("migrateport", "49160")],
                    &[("migration_transport", "tcp"), ("migrateuri", "tcp://%n-mig:49161")],
                    &[("migration_transport", "tcp"), ("migrateuri", "rdma://%n:49162")],
                ],
                "migration_transport=tcp",
            ),
            (&[&[("migration_transport", "tcp"), ("migrateuri", "tcp://%n-mig")]], "migration_transport=tcp migrateuri=tcp://%n-mig"),
            // Of these options only that is no matter of a guest alone.
            (
                &[&[("migration_transport", "tcp"), ("migrate_options", "--unsafe --tls --bandwidth=9")]],
                "migration_transport=tcp migrate_options=--tls",
            ),
            // What cannot be one word of a command is nobody's choice to be copied.
            (&[&[("remoteuri", "qemu://%n/system?a='b'")]], ssh),
        ] {
            let way = way(guests);
            assert_eq!(way.words(), words, "{guests:?}");
            assert_eq!(way.taken, words != ssh, "{guests:?}");
            let text = printed(&way);
            assert_eq!(text.matches(&format!(" hypervisor=qemu:///system {words} op start ")).count(), 2, "{text}");
        }
    }

    #[test]
    fn what_keeps_a_guest_on_its_host() {
        assert_eq!(movable("<domain><devices/></domain>"), None);
        assert!(movable("<domain><devices><hostdev type='pci'/></devices></domain>").is_some_and(|text| text.contains("pci")));
    }
}
