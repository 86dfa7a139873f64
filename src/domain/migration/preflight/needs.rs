//! What a guest needs of a host, read from its definition.

use crate::domain::definition::Platform;
use roxmltree::{Document, Node};

/// What a guest needs of a host, as far as its definition says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) platform: Platform,
    /// The `<cpu>` element, and its mode.
    pub(super) cpu: Option<(String, String)>,
    /// Greatest memory in KiB.
    pub(super) memory: u64,
    /// libvirt's networks by name.
    pub(super) networks: Vec<String>,
    /// Bridges by name.
    pub(super) bridges: Vec<String>,
    /// Storage pools by name.
    pub(super) pools: Vec<String>,
    /// Firmware: its path.
    pub(super) loader: Option<String>,
    /// Whether it has a folder of the host by virtiofs, with a virtiofsd of libvirt's.
    pub(super) virtiofs: bool,
    /// What surely keeps it from being moved, each with what to do.
    pub(super) blockers: Vec<(String, &'static str)>,
    /// What may keep it from being moved, or be missed after it.
    pub(super) doubts: Vec<(String, &'static str)>,
}

impl Needs {
    /// Of a guest with this definition; it was understood before.
    pub(super) fn of(xml: &str, platform: Platform) -> Self {
        let mut needs = Self { platform, ..Self::default() };
        let Ok(document) = Document::parse(xml) else { return needs };
        let root = document.root_element();
        let child = |node: Node<'_, '_>, name: &str| node.children().find(|child| child.has_tag_name(name)).map(|child| child.id());
        let get = |path: &[&str]| path.iter().try_fold(root, |node, name| child(node, name).and_then(|id| document.get_node(id)));
        let text =
            |path: &[&str]| get(path).and_then(|node| node.text().map(|text| text.trim().to_owned())).filter(|text| !text.is_empty());
        if let Some(cpu) = get(&["cpu"]) {
            needs.cpu = Some((xml[cpu.range()].to_owned(), cpu.attribute("mode").unwrap_or("custom").to_owned()));
        }
        needs.memory = get(&["memory"]).map_or(0, kibibytes);
        needs.loader = text(&["os", "loader"]);
        let has_unfixed_tsc = get(&["cpu"]).is_some_and(|cpu| {
            let mut features =
                cpu.children().filter(|feature| feature.has_tag_name("feature") && feature.attribute("name") == Some("invtsc"));
            features.any(|feature| matches!(feature.attribute("policy"), None | Some("require" | "force")))
        }) && !get(&["clock"]).is_some_and(|clock| {
            clock
                .children()
                .any(|timer| timer.attribute("name") == Some("tsc") && timer.attribute("frequency").is_some_and(|text| text != "0"))
        });
        if has_unfixed_tsc {
            needs.blockers.push(("the CPU feature invtsc without a frequency of the TSC".to_owned(), TSC));
        }
        let devices = get(&["devices"]);
        for device in devices.iter().flat_map(|node| node.children()).filter(Node::is_element) {
            needs.device(device);
        }
        if get(&["launchSecurity"]).is_some() {
            needs
                .blockers
                .push(("encrypted memory (launchSecurity)".to_owned(), "such a guest cannot be moved live; stop and start it elsewhere"));
        }
        needs
    }

    fn device(&mut self, device: Node<'_, '_>) {
        let source = device.children().find(|child| child.has_tag_name("source"));
        let of_source = |name: &str| source.and_then(|source| source.attribute(name)).map(str::to_owned);
        let push = |list: &mut Vec<String>, value: Option<String>| list.extend(value.filter(|value| !list.contains(value)));
        match (device.tag_name().name(), device.attribute("type").unwrap_or_default()) {
            ("interface", "network") => push(&mut self.networks, of_source("network")),
            ("interface", "bridge") => push(&mut self.bridges, of_source("bridge")),
            ("interface", "hostdev") => self.doubts.push(("a host's network device (interface hostdev)".to_owned(), HOST_DEVICE)),
            // Of whatever type.
            ("disk", _) if device.children().any(|child| child.has_tag_name("transient")) => {
                self.blockers.push(("a transient disk".to_owned(), "such a guest cannot be moved live; stop and start it elsewhere"));
            }
            ("disk", "volume") => push(&mut self.pools, of_source("pool")),
            ("hostdev", kind) => {
                let what = format!("host device ({} {kind})", device.attribute("mode").unwrap_or_default());
                if device.attribute("mode") == Some("capabilities") {
                    self.blockers.push((what, "take the device out of the guest before it is moved"));
                } else {
                    self.doubts.push((what, HOST_DEVICE));
                }
            }
            ("interface", "vdpa") => self.doubts.push(("a vDPA device (interface vdpa)".to_owned(), HOST_DEVICE)),
            ("filesystem", _) => {
                let driver = device.children().find(|child| child.has_tag_name("driver")).and_then(|driver| driver.attribute("type"));
                self.virtiofs |= driver == Some("virtiofs") && of_source("socket").is_none();
                self.doubts.push(("a folder of the host (filesystem)".to_owned(), "unmount it in the guest, or use shared storage for it"));
            }
            ("shmem", _) if device.attribute("role") != Some("master") => {
                self.blockers.push((
                    "memory shared with other guests (shmem) in another role than master".to_owned(),
                    "take it out of the guest before it is moved",
                ));
            }
            ("shmem", _) => {
                self.doubts.push(("memory shared with the host (shmem)".to_owned(), "take it out of the guest before it is moved"));
            }
            _ => {}
        }
    }
}

const TSC: &str = "give the guest a <timer name='tsc' frequency='...'/>, or take invtsc out of its CPU; either when it is started next";
const HOST_DEVICE: &str = "QEMU refuses most of them; take it out of the guest, or give it a failover partner";

/// The content of an element like `<memory unit='MiB'>80</memory>`, in KiB (libvirt's `virParseScaledValue`).
fn kibibytes(node: Node<'_, '_>) -> u64 {
    let amount: u64 = node.text().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => amount / 1024,
        "KB" => amount.saturating_mul(1000) / 1024,
        "M" | "MiB" => amount.saturating_mul(1024),
        "MB" => amount.saturating_mul(1_000_000) / 1024,
        "G" | "GiB" => amount.saturating_mul(1024 * 1024),
        "GB" => amount.saturating_mul(1_000_000_000) / 1024,
        "T" | "TiB" => amount.saturating_mul(1024 * 1024 * 1024),
        "TB" => amount.saturating_mul(1_000_000_000_000) / 1024,
        _ => amount,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm'><name>a</name><memory unit='GiB'>2</memory>
        <os><loader>/usr/share/OVMF/OVMF_CODE.fd</loader><nvram>/var/lib/nvram/a.fd</nvram></os>
        <cpu mode='custom' match='exact'><model>EPYC</model></cpu>
        <devices>
          <interface type='network'><source network='default'/></interface><interface type='network'><source network='default'/></interface>
          <interface type='bridge'><source bridge='br7'/></interface>
          <disk type='volume' device='disk'><source pool='vms' volume='a'/></disk>
          <disk type='file' device='cdrom'><source file='/iso/a.iso'/></disk>
          <hostdev mode='subsystem' type='pci'/><hostdev mode='capabilities' type='storage'/>
          <filesystem type='mount'/>
        </devices></domain>";

    #[test]
    fn everything_that_is_needed() {
        let needs = Needs::of(XML, Platform::default());
        assert_eq!(
            (needs.memory, needs.networks, needs.bridges, needs.pools),
            (2 * 1024 * 1024, vec!["default".to_owned()], vec!["br7".to_owned()], vec!["vms".to_owned()])
        );
        assert_eq!(needs.cpu, Some(("<cpu mode='custom' match='exact'><model>EPYC</model></cpu>".to_owned(), "custom".to_owned())));
        assert_eq!((needs.blockers.len(), needs.doubts.len()), (1, 2));
    }

    /// What libvirt refuses (`qemuMigrationSrcIsAllowed`), and the same where it does not.
    #[test]
    fn what_libvirt_does_not_move() {
        let of = |inside: &str| Needs::of(&format!("<domain>{inside}</domain>"), Platform::default());
        let blockers = |inside: &str| of(inside).blockers.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        let invtsc = "<cpu><feature policy='require' name='invtsc'/></cpu>";
        assert!(blockers(invtsc)[0].contains("invtsc"));
        assert!(blockers(&format!("{invtsc}<clock><timer name='tsc' frequency='3000000000'/></clock>")).is_empty());
        assert!(blockers("<cpu><feature policy='disable' name='invtsc'/></cpu>").is_empty());
        assert!(blockers("<devices><disk type='file'><transient/></disk></devices>")[0].contains("transient"));
        for role in ["", "role='peer'"] {
            assert!(blockers(&format!("<devices><shmem name='a' {role}/></devices>"))[0].contains("shmem"), "{role}");
        }
        assert!(blockers("<devices><shmem name='a' role='master'/></devices>").is_empty());
        let virtiofs = |source: &str| {
            of(&format!("<devices><filesystem type='mount'><driver type='virtiofs'/><source {source}/></filesystem></devices>")).virtiofs
        };
        assert!(virtiofs("dir='/srv'") && !virtiofs("socket='/run/fs'"));
    }

    #[test]
    fn units_of_memory() {
        for (text, expected) in
            [("<m>5</m>", 5), ("<m unit='MiB'>3</m>", 3072), ("<m unit='b'>4096</m>", 4), ("<m unit='GB'>1</m>", 976_562), ("<m>x</m>", 0)]
        {
            assert_eq!(kibibytes(Document::parse(text).unwrap().root_element()), expected, "{text}");
        }
    }
}
