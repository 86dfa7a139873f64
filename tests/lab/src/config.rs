//! The texts of the daemons' configuration, as a node finds them at its first start. What each setting is for stands beside it.

use crate::layout::{GUEST_BRIDGE, Network, SHARED, SWITCH_ADDRESS, node_name};
use std::fmt::Write as _;

/// A file of a node: path, text.
pub type Text = (&'static str, String);

/// All files of node `node` in a cluster of `nodes`.
#[must_use]
pub fn files(node: u32, nodes: u32) -> Vec<Text> {
    vec![
        ("/etc/hosts", hosts(nodes)),
        ("/etc/hostname", format!("{}\n", node_name(node))),
        ("/etc/resolv.conf", String::new()),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n".to_owned()),
        ("/etc/machine-id", format!("{:032x}\n", 0x6b76_6d68_6100_0000_u64 + u64::from(node))),
        ("/etc/corosync/corosync.conf", corosync(nodes)),
        ("/etc/libvirt/libvirtd.conf", libvirtd(node)),
        ("/etc/libvirt/qemu.conf", qemu(node)),
        ("/var/lib/pacemaker/cib/cib.xml", cib(nodes)),
    ]
}

fn hosts(nodes: u32) -> String {
    let mut text = format!("127.0.0.1 localhost\n{SWITCH_ADDRESS} switch\n");
    for node in 1..=nodes {
        for network in Network::ALL {
            let _ = writeln!(text, "{} {}", network.address(node), network.host(node));
        }
    }
    text
}

/// `sched_rr: no`: on few cores corosync at real-time priority and libvirtd's probing of QEMU at the first start are in each other's way
/// (seen: 10 s until the membership stood). `two_node`: as `pcs cluster setup` writes it for two, either half has quorum.
fn corosync(nodes: u32) -> String {
    let mut text = String::from(
        "totem {\n\tversion: 2\n\tcluster_name: lab\n\ttransport: knet\n\ttoken: 1000\n\tcrypto_cipher: none\n\tcrypto_hash: none\n}\n\
         system {\n\tsched_rr: no\n\tmove_to_root_cgroup: no\n}\n\
         quorum {\n\tprovider: corosync_votequorum\n",
    );
    text.push_str(if nodes == 2 { "\ttwo_node: 1\n}\n" } else { "}\n" });
    text.push_str(
        "logging {\n\tto_stderr: no\n\tto_syslog: no\n\tto_logfile: yes\n\tlogfile: /var/log/corosync/corosync.log\n\ttimestamp: hires\n}\n\
         nodelist {\n",
    );
    for node in 1..=nodes {
        let (address, name) = (Network::Cluster.address(node), node_name(node));
        let _ = write!(text, "\tnode {{\n\t\tring0_addr: {address}\n\t\tname: {name}\n\t\tnodeid: {node}\n\t}}\n");
    }
    text.push_str("}\n");
    text
}

/// `host_uuid`: all nodes are one machine, and libvirt refuses to migrate a guest "to the same host".
fn libvirtd(node: u32) -> String {
    format!(
        "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"{}\"\nauth_tcp = \"none\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
         host_uuid = \"6b766d68-6100-4000-8000-{node:012}\"\n",
        Network::Cluster.address(node)
    )
}

/// `max_core`: a hard limit once lowered cannot be raised without CAP_SYS_RESOURCE, and libvirt 11 tries to.
fn qemu(node: u32) -> String {
    let address = Network::Cluster.address(node);
    format!(
        "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ndynamic_ownership = 0\nremember_owner = 0\nnamespaces = []\n\
         cgroup_controllers = []\nmax_core = 0\nmigration_address = \"{address}\"\nmigration_host = \"{address}\"\nstdio_handler = \"logd\"\n"
    )
}

/// The cluster's configuration before its first start.
///
/// `dc-deadtime`: every election waits for it; the default of 20 s would make a cold start three times as long. The fence device and the
/// stickiness are in it from the first moment, so no node runs a guest before it can be fenced.
fn cib(nodes: u32) -> String {
    let hosts: Vec<String> = (1..=nodes).map(node_name).collect();
    format!(
        r#"<cib crm_feature_set="3.0.14" validate-with="pacemaker-3.0" epoch="1" num_updates="0" admin_epoch="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="cib-bootstrap-options">
        <nvpair id="cib-bootstrap-options-dc-deadtime" name="dc-deadtime" value="4s"/>
        <nvpair id="cib-bootstrap-options-stonith-enabled" name="stonith-enabled" value="true"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources>
      <primitive id="fence" class="stonith" type="fence_lab">
        <instance_attributes id="fence-instance_attributes">
          <nvpair id="fence-instance_attributes-pcmk_host_list" name="pcmk_host_list" value="{}"/>
        </instance_attributes>
        <operations>
          <op id="fence-monitor-interval-30s" name="monitor" interval="30s" timeout="20s"/>
        </operations>
      </primitive>
    </resources>
    <constraints/>
    <rsc_defaults>
      <meta_attributes id="rsc-options">
        <nvpair id="rsc-options-resource-stickiness" name="resource-stickiness" value="100"/>
      </meta_attributes>
    </rsc_defaults>
  </configuration>
  <status/>
</cib>
"#,
        hosts.join(" ")
    )
}

/// The definition of a guest.
#[derive(Clone, Debug)]
pub struct GuestText<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UUID.
    pub uuid: &'a str,
    /// Memory in MiB.
    pub memory: u32,
    /// Words for its kernel besides the usual ones.
    pub arguments: &'a str,
    /// The number of its host in [`Network::Guests`], if it has a network card.
    pub card: Option<u32>,
}

/// What a guest's kernel leaves out on its way up: without KVM that is a quarter of what a boot costs, and the suites boot hundreds. It is not moved to
/// a random place, patches and splits none of its pages, measures no delay, tests no cipher, and looks for no further serial line and no IPv6.
const QUICK: &str =
    "nokaslr noreplace-smp rodata=off no_timer_check lpj=4000000 cryptomgr.notests 8250.nr_uarts=1 ipv6.disable=1 mitigations=off";

/// The XML of a guest. `pti=on`: its kernel changes page tables, and with it the emulated CPU forgets what it may write without saying so, whenever
/// it is entered. QEMU before 9.0 does not take that back itself when it asks what was written (`cpu_physical_memory_sync_dirty_bitmap`), so that
/// writes were lost in a move; there is nothing of the kind with KVM. `cache='none'`: what the guest has written is on the shared storage
/// and nowhere else, so it may migrate.
#[must_use]
pub fn guest(guest: &GuestText<'_>) -> String {
    let GuestText { name, uuid, memory, arguments, card } = guest;
    let card = card.map(|host| {
        format!(
            r"
    <interface type='bridge'>
      <mac address='52:54:00:77:02:{host:02x}'/>
      <source bridge='{GUEST_BRIDGE}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>"
        )
    });
    let card = card.unwrap_or_default();
    format!(
        r"<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>/boot/vmlinuz</kernel>
    <initrd>/boot/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 {QUICK} pti=on {arguments}</cmdline>
  </os>
  <features>
    <acpi/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='{SHARED}/{name}.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>{card}
    <serial type='pty'>
      <log file='/var/log/libvirt/console-{name}.log' append='on'/>
      <target port='0'/>
    </serial>
    <console type='pty'/>
    <memballoon model='none'/>
  </devices>
</domain>
"
    )
}
