//! What of a guest lies on storage, as its definition says.

use crate::uuid;
use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What a thing is for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A disk that it writes to.
    Disk,
    /// A disk, CD or floppy that it only reads.
    Media,
    /// What an image is based on.
    Backing,
    /// Its firmware's variables.
    Nvram,
    /// The state of its emulated TPM.
    Tpm,
    /// A folder of the host.
    Folder,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file, block device or folder of the host.
    Path(PathBuf),
    /// A volume of one of libvirt's pools.
    Volume {
        /// The pool's name.
        pool: String,
        /// The volume's name.
        volume: String,
    },
    /// A disk that the emulator reaches by itself.
    Network {
        /// libvirt's name of the protocol.
        protocol: String,
        /// The export, target or image.
        name: String,
        /// The servers, `HOST` or `HOST:PORT`; a socket's path.
        hosts: Vec<String>,
    },
    /// Something that this program does not know: libvirt's word for it.
    Other(String),
}

impl Source {
    /// Whether both name the same thing. How many of a network disk's servers are listed, and whether the usual port is written out, makes no
    /// difference: libvirt adds both to the definition of a guest that runs.
    #[must_use]
    pub fn is_same_name(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Network { protocol, name, .. }, Self::Network { protocol: other_protocol, name: other_name, .. }) => {
                (protocol, name) == (other_protocol, other_name)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Volume { pool, volume } => write!(f, "{pool}/{volume}"),
            Self::Network { protocol, name, hosts } => write!(f, "{protocol}://{}/{}", hosts.join(","), name.trim_start_matches('/')),
            Self::Other(word) => write!(f, "{word}"),
        }
    }
}

/// Where libvirt keeps the states of emulated TPMs, each in a folder called by its guest's UUID (`qemuTPMEmulatorInitPaths`).
const TPM_STATES: &str = "/var/lib/libvirt/swtpm";

/// Where libvirt keeps the variables of firmwares, called by their guests' names.
const VARIABLES: &str = "/var/lib/libvirt/qemu/nvram";

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What the guest calls it (`vda`), or what it is.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it is.
    pub source: Source,
    /// Whether other guests may write to it at the same time.
    pub shareable: bool,
    /// libvirt's cache mode, if the definition has one.
    pub cache: Option<String>,
    /// What is done about a write that fails, if the definition says so.
    pub error_policy: Option<String>,
    /// Whether it may be based on others that the definition does not name.
    pub chain_unknown: bool,
    /// Whether libvirt may start, or restore, the guest without it (`startupPolicy`).
    pub optional: bool,
    /// Whether libvirt removes it when a guest ends that is not defined there, as those of the cluster are (`qemuTPMEmulatorCleanupHost`).
    pub fleeting: bool,
}

impl Item {
    /// Whether a move on another thing of this name would harm the guest.
    #[must_use]
    pub fn matters(&self) -> bool {
        matches!(self.role, Role::Disk | Role::Backing)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.source)
    }
}

/// What of the guest with this definition lies on storage; it was understood before. The running guest's definition names its images'
/// backing files too.
#[must_use]
pub fn items(xml: &str) -> Vec<Item> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let root = document.root_element();
    let mut items = Vec::new();
    for device in root.children().filter(|node| node.has_tag_name("devices")).flat_map(|devices| devices.children()) {
        match device.tag_name().name() {
            "disk" => disk(device, &mut items),
            "filesystem" => {
                let name = child(device, "target").and_then(|target| target.attribute("dir")).unwrap_or("filesystem");
                items.extend(of(device).map(|source| Item { role: Role::Folder, ..plain(name, source) }));
            }
            "tpm" => items.extend(tpm(device, root)),
            _ => {}
        }
    }
    items.extend(nvram(root));
    items
}

/// Where the variables of its firmware are: where the definition says, or in libvirt's own place (`qemuDomainNVRAMPathFormat`).
fn nvram(root: Node<'_, '_>) -> Option<Item> {
    let os = child(root, "os")?;
    let (loader, nvram) = (child(os, "loader"), child(os, "nvram"));
    let says = |node: Option<Node<'_, '_>>, word: &str, value: &str| node.and_then(|node| node.attribute(word)) == Some(value);
    let flash = os.attribute("firmware") == Some("efi") || says(loader, "type", "pflash");
    // One that is writable itself has them in it; one without a state has none.
    let without = says(loader, "readonly", "no") || says(loader, "stateless", "yes");
    let text = nvram.and_then(|nvram| nvram.text()).map(str::trim).filter(|text| !text.is_empty());
    let named = text.map(|path| Source::Path(path.into())).or_else(|| of(nvram?));
    let own = || {
        let name = child(root, "name").and_then(|name| name.text()).map(str::trim)?;
        let end = if says(nvram.filter(|nvram| nvram.has_attribute("format")).or(loader), "format", "qcow2") { "qcow2" } else { "fd" };
        (flash && !without).then(|| Source::Path(PathBuf::from(VARIABLES).join(format!("{name}_VARS.{end}"))))
    };
    Some(Item { role: Role::Nvram, ..plain("nvram", named.or_else(own)?) })
}

fn disk(disk: Node<'_, '_>, items: &mut Vec<Item>) {
    let Some(source) = of(disk) else { return };
    let name = child(disk, "target").and_then(|target| target.attribute("dev")).unwrap_or("disk");
    let driver = |word: &str| child(disk, "driver").and_then(|driver| driver.attribute(word)).map(str::to_owned);
    let reads = matches!(disk.attribute("device"), Some("cdrom" | "floppy")) || child(disk, "readonly").is_some();
    let optional = child(disk, "source").is_some_and(|source| matches!(source.attribute("startupPolicy"), Some("optional" | "requisite")));
    items.push(Item {
        role: if reads { Role::Media } else { Role::Disk },
        shareable: child(disk, "shareable").is_some(),
        cache: driver("cache"),
        error_policy: driver("error_policy"),
        // An empty element is the chain's end.
        chain_unknown: child(disk, "backingStore").is_none() && driver("type").is_some_and(|format| format != "raw"),
        optional,
        ..plain(name, source)
    });
    let mut next = child(disk, "backingStore");
    while let Some(backing) = next {
        let role = if reads { Role::Media } else { Role::Backing };
        items.extend(of(backing).map(|source| Item { role, optional, ..plain(name, source) }));
        next = child(backing, "backingStore");
    }
}

/// Where the state of an emulated TPM is: where the definition says, which libvirt knows since 10.10, or in its own place. Without a UUID each
/// start makes a new one.
fn tpm(device: Node<'_, '_>, root: Node<'_, '_>) -> Option<Item> {
    let backend = child(device, "backend").filter(|backend| backend.attribute("type") == Some("emulator"))?;
    let named = child(backend, "source").and_then(|source| source.attribute("path")).map(PathBuf::from);
    let uuid = child(root, "uuid").and_then(|uuid| uuid.text()).and_then(uuid::canonical);
    let path = named.or_else(|| Some(PathBuf::from(TPM_STATES).join(uuid?)))?;
    let fleeting = backend.attribute("persistent_state") != Some("yes");
    Some(Item { role: Role::Tpm, fleeting, ..plain("tpm", Source::Path(path)) })
}

/// Where a device, or what it is based on, is.
fn of(device: Node<'_, '_>) -> Option<Source> {
    let source = child(device, "source")?;
    let get = |word: &str| source.attribute(word).map(str::to_owned);
    match device.attribute("type").unwrap_or_default() {
        "file" => get("file").map(|path| Source::Path(path.into())),
        "block" => get("dev").map(|path| Source::Path(path.into())),
        "mount" | "dir" => get("dir").map(|path| Source::Path(path.into())),
        "volume" => Some(Source::Volume { pool: get("pool")?, volume: get("volume")? }),
        "network" => Some(Source::Network {
            protocol: get("protocol")?,
            name: get("name").unwrap_or_default(),
            hosts: source.children().filter(|node| node.has_tag_name("host")).filter_map(host).collect(),
        }),
        other => Some(Source::Other(other.to_owned())),
    }
}

fn host(node: Node<'_, '_>) -> Option<String> {
    if let Some(socket) = node.attribute("socket") {
        return Some(socket.to_owned());
    }
    let name = node.attribute("name")?;
    Some(match node.attribute("port") {
        Some(port) if name.contains(':') => format!("[{name}]:{port}"),
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    })
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn plain(name: &str, source: Source) -> Item {
    Item {
        name: name.to_owned(),
        role: Role::Disk,
        source,
        shareable: false,
        cache: None,
        error_policy: None,
        chain_unknown: false,
        optional: false,
        fleeting: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain><os><nvram>/var/lib/nvram/a.fd</nvram></os><devices>
        <disk type='file' device='disk'><driver type='qcow2' cache='writeback' error_policy='stop'/><source file='/srv/a.qcow2'/>
          <backingStore type='file'><format type='raw'/><source file='/srv/base.img'/><backingStore/></backingStore><target dev='vda'/></disk>
        <disk type='block' device='disk'><source dev='/dev/vg/a'/><target dev='vdb'/><shareable/></disk>
        <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='sda'/></disk>
        <disk type='file' device='cdrom'><target dev='sdb'/></disk>
        <disk type='volume'><source pool='vms' volume='a'/><target dev='vdc'/></disk>
        <disk type='network'><source protocol='iscsi' name='iqn.2026-01.x:a/1'><host name='10.0.0.1' port='3260'/></source><target dev='vdd'/></disk>
        <disk type='network'><source protocol='nbd' name='x'><host transport='unix' socket='/run/nbd'/></source><target dev='vde'/></disk>
        <filesystem type='mount'><source dir='/srv/share'/><target dir='share'/></filesystem>
        </devices></domain>";

    #[test]
    fn everything_that_lies_on_storage() {
        let said: Vec<String> = items(XML).iter().map(|item| format!("{:?} {item}", item.role)).collect();
        assert_eq!(
            said,
            [
                "Disk vda (/srv/a.qcow2)",
                "Backing vda (/srv/base.img)",
                "Disk vdb (/dev/vg/a)",
                "Media sda (/iso/a.iso)",
                "Disk vdc (vms/a)",
                "Disk vdd (iscsi://10.0.0.1:3260/iqn.2026-01.x:a/1)",
                "Disk vde (nbd:///run/nbd/x)",
                "Folder share (/srv/share)",
                "Nvram nvram (/var/lib/nvram/a.fd)",
            ]
        );
        let first = &items(XML)[0];
        assert_eq!((first.cache.as_deref(), first.error_policy.as_deref(), first.shareable), (Some("writeback"), Some("stop"), false));
        assert!(items(XML)[2].shareable);
        assert_eq!(items("no definition"), []);
    }

    #[test]
    fn the_variables_of_a_firmware() {
        let of = |os: &str| {
            let found = items(&format!("<domain><name>a</name>{os}<devices/></domain>"));
            found.iter().map(|item| format!("{:?} {item}", item.role)).collect::<Vec<_>>()
        };
        let own = ["Nvram nvram (/var/lib/libvirt/qemu/nvram/a_VARS.fd)"];
        for os in [
            "<os firmware='efi'><type>hvm</type></os>",
            "<os><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader></os>",
            "<os firmware='efi'><loader secure='yes'/><nvram template='/usr/share/OVMF/OVMF_VARS.fd'/></os>",
        ] {
            assert_eq!(of(os), own, "{os}");
        }
        for os in [
            "",
            "<os><type>hvm</type></os>",
            "<os firmware='bios'/>",
            "<os><loader type='rom'>/usr/share/seabios/bios.bin</loader></os>",
            "<os><loader readonly='no' type='pflash'>/srv/a.fd</loader></os>",
            "<os firmware='efi'><loader stateless='yes'/></os>",
        ] {
            assert_eq!(of(os), [""; 0], "{os}");
        }
        assert_eq!(of("<os firmware='efi'><nvram>/srv/a.fd</nvram></os>"), ["Nvram nvram (/srv/a.fd)"]);
        assert_eq!(of("<os firmware='efi'><nvram type='file'><source file='/srv/b.fd'/></nvram></os>"), ["Nvram nvram (/srv/b.fd)"]);
        assert_eq!(of("<os firmware='efi'><loader format='qcow2'/></os>"), ["Nvram nvram (/var/lib/libvirt/qemu/nvram/a_VARS.qcow2)"]);
    }

    #[test]
    fn the_state_of_a_tpm() {
        let of = |uuid: &str, backend: &str| {
            let found = items(&format!("<domain>{uuid}<devices><tpm model='tpm-crb'>{backend}</tpm></devices></domain>"));
            found.iter().map(|item| format!("{:?} {item}", item.role)).collect::<Vec<_>>()
        };
        let uuid = "<uuid>6B766D68-0000-4000-8000-000000000001</uuid>";
        let emulated = "<backend type='emulator' version='2.0'/>";
        assert_eq!(of(uuid, emulated), ["Tpm tpm (/var/lib/libvirt/swtpm/6b766d68-0000-4000-8000-000000000001)"]);
        let bare = "<uuid> 6b766d6800004000\n8000000000000001 </uuid>";
        assert_eq!(of(bare, emulated), of(uuid, emulated), "libvirt reads it without dashes too, and names the folder with them");
        assert_eq!(of("<uuid>../../../srv</uuid>", emulated), [""; 0]);
        assert_eq!(of("", emulated), [""; 0], "each start makes a new one");
        let fleeting = |backend: &str| items(&format!("<domain>{uuid}<devices><tpm>{backend}</tpm></devices></domain>"))[0].fleeting;
        assert!(fleeting(emulated) && fleeting("<backend type='emulator' persistent_state='no'/>"));
        assert!(!fleeting("<backend type='emulator' persistent_state='yes'/>"));
        assert_eq!(of(uuid, "<backend type='emulator'><source type='dir' path='/srv/tpm/a'/></backend>"), ["Tpm tpm (/srv/tpm/a)"]);
        assert_eq!(of(uuid, "<backend type='passthrough'><device path='/dev/tpm0'/></backend>"), [""; 0]);
    }
}
