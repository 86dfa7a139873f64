//! What the manual has a reader type: the lines of its blocks of shell. All are run as they stand, but for those that are named here.

/// The pages that are followed with the guide to two nodes, from which they are reached, and their texts.
pub const WITH_THE_GUIDE: [(&str, &str); 4] = [
    ("docs/two-node.md", include_str!("../../docs/two-node.md")),
    ("docs/fencing.md", include_str!("../../docs/fencing.md")),
    ("docs/operation.md", include_str!("../../docs/operation.md")),
    ("docs/metrics.md", include_str!("../../docs/metrics.md")),
];

/// Those that are followed with a guest that another agent had before, in this order.
pub const OTHERS: [(&str, &str); 3] = [
    ("docs/from-virtualdomain.md", include_str!("../../docs/from-virtualdomain.md")),
    ("README.md", include_str!("../../README.md")),
    ("docs/migration.md", include_str!("../../docs/migration.md")),
];

/// Lines that are not run, and why not.
pub const UNTRIED: [(&str, &str); 9] = [
    (
        "apt install pacemaker corosync pcs fence-agents libvirt-daemon-system libvirt-clients qemu-system-x86 nfs-common openssh-server chrony",
        "the lab's nodes have it; `debian12` and `debian13` of the suite package have apt resolve it in new roots",
    ),
    ("apt install nfs-kernel-server && mkdir -p /vms", "a third machine, whose kernel is a server of NFS"),
    ("mount /srv/vms", "needs that server; the lab's shared folder is there instead"),
    ("passwd hacluster", "asks for a password, which is for pcsd"),
    ("pcs host auth node1 node2 -u hacluster", "asks pcsd on both nodes, a service of systemd"),
    ("pcs cluster setup house node1 node2 --start --enable --wait --force", "has pcsd and systemd start the cluster; the lab's is there"),
    ("journalctl -t 'VirtualDomain(web1)' -t fence_kvmha", "needs journald; that the agent writes under this name is checked"),
    ("systemctl daemon-reload", "needs systemd as process 1; what the units run is run"),
    ("systemctl enable --now kvmha-metrics.timer", "the same; systemd's own tool has looked at both units before"),
];

/// The commands of a page, or of a part of it, without remarks; lines that are continued are one.
pub fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let whole: String = blocks.map(|(block, _)| block.replace("\\\n", " ") + "\n").collect();
    let bare = whole.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    bare.filter(|line| !line.is_empty()).collect()
}
