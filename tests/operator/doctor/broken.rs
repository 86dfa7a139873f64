//! Set-ups that are broken on purpose, how each is mended, and what finds it.

/// What is done to a node.
pub enum Do {
    /// A line for its shell.
    Line(&'static str, &'static str),
    /// Its libvirtd dies.
    Kill(&'static str),
    /// And comes back.
    Start(&'static str),
    /// It stands still.
    Freeze(&'static str),
    /// And goes on.
    Thaw(&'static str),
    /// Its clock is so many seconds ahead.
    Ahead(&'static str, i64),
}
use Do::{Ahead, Freeze, Kill, Line, Start, Thaw};

/// A set-up that is wrong.
pub struct Broken {
    pub make: &'static [Do],
    pub mend: &'static [Do],
    /// The checks that find it, with a part of the text and of the remedy.
    pub found: &'static [(&'static str, &'static str, &'static str)],
}

const CLEAN: Do = Line(
    "node1",
    "cibadmin --delete --xml-text '<primitive id=\"bad\"/>' && crm_resource --refresh --force --resource bad >/dev/null 2>&1; true",
);

/// A resource that is wrong in ways that do not hide each other. It is never started.
const BAD: Do = Line(
    "node1",
    r#"cibadmin --create --scope resources --xml-text '<primitive id="bad" class="ocf" provider="kvmha" type="VirtualDomain">
       <instance_attributes id="bad-i"><nvpair id="bad-c" name="config" value="/srv/vms/web1.xml"/></instance_attributes>
       <operations><op id="bad-m" name="migrate_to" interval="0s" timeout="30s" on-fail="ignore"/><op id="bad-s" name="stop" interval="0s" on-fail="block"/></operations>
       <meta_attributes id="bad-t"><nvpair id="bad-r" name="target-role" value="Stopped"/></meta_attributes></primitive>'"#,
);

/// Never started either. Two monitors, of which the more thorough one is no other's but its own.
pub const HASTY: &str = r#"<primitive id="hasty" class="ocf" provider="kvmha" type="VirtualDomain">
    <instance_attributes id="hasty-i"><nvpair id="hasty-c" name="config" value="/srv/vms/hasty.xml"/></instance_attributes>
    <operations>
      <op id="hasty-slow" name="monitor" interval="60s" timeout="5s"/>
      <op id="hasty-fast" name="monitor" interval="10s" timeout="5s" on-fail="ignore" start-delay="1s">
        <instance_attributes id="hasty-p"><nvpair id="hasty-l" name="OCF_CHECK_LEVEL" value="10"/></instance_attributes></op>
      <op id="hasty-stop" name="stop" interval="0s" timeout="20s" on-fail="block"/>
      <op id="hasty-to" name="migrate_to" interval="0s" timeout="30s" on-fail="ignore"/></operations>
    <meta_attributes id="hasty-t"><nvpair id="hasty-r" name="target-role" value="Stopped"/></meta_attributes></primitive>"#;

const LOCKLESS: Do = Line(
    "node1",
    r#"cibadmin --create --scope resources --xml-text '<primitive id="bad" class="ocf" provider="kvmha" type="VirtualDomain">
       <instance_attributes id="bad-i"><nvpair id="bad-c" name="config" value="/srv/vms/lockless.xml"/></instance_attributes>
       <meta_attributes id="bad-t"><nvpair id="bad-r" name="target-role" value="Stopped"/><nvpair id="bad-a" name="allow-migrate" value="true"/></meta_attributes></primitive>'"#,
);

/// It is never started: nobody asks it.
const RECORDED: Do = Line(
    "node1",
    r#"cibadmin --create --scope resources --xml-text '<primitive id="fence-bad" class="stonith" type="fence_kvmha">
       <instance_attributes id="fence-bad-i"><nvpair id="fence-bad-u" name="uri" value="qemu+tcp://hosta/system"/>
       <nvpair id="fence-bad-f" name="fenced_hosts" value="hosta:node1"/></instance_attributes>
       <meta_attributes id="fence-bad-t"><nvpair id="fence-bad-r" name="target-role" value="Stopped"/></meta_attributes></primitive>'"#,
);

/// Not started either. The libvirts answer, and the guests are none that they know.
macro_rules! device {
    ($parameters:literal) => {
        Line(
            "node1",
            concat!(
                r#"cibadmin --create --scope resources --xml-text '<primitive id="fence-bad" class="stonith" type="fence_kvmha">
                <instance_attributes id="fence-bad-i"><nvpair id="fence-bad-u" name="uri" value="qemu+tcp://node1/system,qemu+tcp://node2/system"/>"#,
                $parameters,
                r#"</instance_attributes>
                <meta_attributes id="fence-bad-t"><nvpair id="fence-bad-r" name="target-role" value="Stopped"/></meta_attributes></primitive>'"#
            ),
        )
    };
}

const NO_DEVICE: Do = Line("node1", "cibadmin --delete --xml-text '<primitive id=\"fence-bad\"/>'");

const CLONED: Do = Line(
    "node1",
    r#"cibadmin --create --scope resources --xml-text '<clone id="bads"><primitive id="bad" class="ocf" provider="kvmha" type="VirtualDomain">
       <instance_attributes id="bad-i"><nvpair id="bad-c" name="config" value="/srv/vms/nowhere.xml"/></instance_attributes></primitive>
       <meta_attributes id="bad-t"><nvpair id="bad-r" name="target-role" value="Stopped"/></meta_attributes></clone>'"#,
);

const MANY: Do = Line(
    "node1",
    r#"for n in 1 2 3 4; do cibadmin --create --scope resources --xml-text "<primitive id='many$n' class='ocf' provider='kvmha' type='VirtualDomain'>
       <instance_attributes id='many$n-i'><nvpair id='many$n-c' name='config' value='/srv/vms/many$n.xml'/></instance_attributes>
       <meta_attributes id='many$n-t'><nvpair id='many$n-r' name='target-role' value='Stopped'/><nvpair id='many$n-a' name='allow-migrate' value='true'/></meta_attributes></primitive>"; done"#,
);

/// A node with systemd, the drop-in and a `systemctl` that says nothing yet, of which nothing is found.
pub const ORDERED: &str = "mkdir -p /run/systemd/system /etc/systemd/system/resource-agents-deps.target.d /usr/local/bin && \
    echo After=virt-guest-shutdown.target >/etc/systemd/system/resource-agents-deps.target.d/50-kvmha.conf && \
    printf '#!/bin/sh\\n' >/usr/local/bin/systemctl && chmod 755 /usr/local/bin/systemctl";

pub const UNORDERED: &str = "rm -r /usr/local/bin/systemctl /etc/systemd/system/resource-agents-deps.target.d && rmdir /run/systemd/system";

pub const BROKEN: &[Broken] = &[
    Broken {
        make: &[Line("node1", "crm_attribute --name stonith-enabled --update false")],
        mend: &[Line("node1", "crm_attribute --name stonith-enabled --update true")],
        found: &[("fencing", "stonith-enabled=false", "--name stonith-enabled --update true")],
    },
    Broken {
        make: &[Line("node1", "crm_resource --resource fence --set-parameter pcmk_host_list --parameter-value 'node1 node2'")],
        mend: &[Line("node1", "crm_resource --resource fence --set-parameter pcmk_host_list --parameter-value 'node1 node2 node3'")],
        found: &[("fencing", "no fence device can fence node3", "pcmk_host_list")],
    },
    Broken {
        make: &[Line("node1", "crm_resource --resource fence --meta --set-parameter target-role --parameter-value Stopped")],
        mend: &[Line("node1", "crm_resource --resource fence --meta --delete-parameter target-role")],
        found: &[("fencing", "no fence device can fence node1", "disabled")],
    },
    Broken {
        make: &[RECORDED],
        mend: &[NO_DEVICE],
        found: &[("record of fencing", "fence-bad has fenced_hosts, and stonith-action=reboot", "--name stonith-action --update off")],
    },
    // A slip in a name, which is "off"; and the name of nobody without missing_as_off.
    Broken {
        make: &[device!(
            r#"<nvpair id="fence-bad-m" name="missing_as_off" value="1"/>
               <nvpair id="fence-bad-p" name="pcmk_host_map" value="node1:gest1;node9:guest9"/>"#
        )],
        mend: &[NO_DEVICE],
        found: &[(
            "plugs of fence_kvmha",
            "node1 is online, and its plug gest1 at fence-bad is off, asked from node1",
            "--set-parameter pcmk_host_map --parameter-value 'node9:guest9;node1:GUEST'",
        )],
    },
    Broken {
        make: &[device!(r#"<nvpair id="fence-bad-p" name="pcmk_host_list" value="node2"/>"#)],
        mend: &[NO_DEVICE],
        found: &[("plugs of fence_kvmha", "node2 is online, and its plug node2 at fence-bad is no guest's", "node2:GUEST")],
    },
    Broken {
        make: &[device!(r#"<nvpair id="fence-bad-m" name="missing_as_off" value="1"/>"#)],
        mend: &[NO_DEVICE],
        found: &[("fence_kvmha", "fence-bad has missing_as_off=1 and neither", "node1:GUEST;node2:GUEST;node3:GUEST")],
    },
    Broken {
        make: &[device!(r#"<nvpair id="fence-bad-p" name="port" value="guest1"/>"#)],
        mend: &[NO_DEVICE],
        found: &[("fence_kvmha", "fence-bad has the plug guest1 for every node", "--set-parameter pcmk_host_list --parameter-value NODE")],
    },
    Broken {
        make: &[device!(
            r#"<nvpair id="fence-bad-p" name="pcmk_host_list" value="node1"/><nvpair id="fence-bad-d" name="delay" value="soon"/>"#
        )],
        mend: &[NO_DEVICE],
        found: &[("plugs of fence_kvmha", "fence-bad cannot work as it is configured: delay", "man fence_kvmha")],
    },
    Broken {
        make: &[Line("node1", "crm_attribute --name no-quorum-policy --update ignore")],
        mend: &[Line("node1", "crm_attribute --name no-quorum-policy --delete")],
        found: &[("without quorum", "no-quorum-policy=ignore", "--name no-quorum-policy --update stop")],
    },
    Broken {
        make: &[Line("node1", "crm_attribute --name maintenance-mode --update true")],
        mend: &[Line("node1", "crm_attribute --name maintenance-mode --delete")],
        found: &[("maintenance", "in maintenance mode", "--name maintenance-mode --update false")],
    },
    Broken {
        make: &[Line("node1", "crm_resource --resource web1 --meta --set-parameter is-managed --parameter-value false")],
        mend: &[Line("node1", "crm_resource --resource web1 --meta --delete-parameter is-managed")],
        found: &[("maintenance", "web1 has is-managed=false", "--delete-parameter is-managed")],
    },
    // What a run that was killed leaves is for the command alone: deleting it may restart the guest.
    Broken {
        make: &[Line(
            "node1",
            r#"cibadmin --modify --allow-create --scope resources --xml-text '<primitive id="web1"><meta_attributes id="web1-kvmha-adopt" score="INFINITY">
               <nvpair id="web1-kvmha-adopt-maintenance" name="maintenance" value="true"/>
               <nvpair id="web1-kvmha-adopt-goal" name="kvmha-adopt" value="heartbeat"/></meta_attributes></primitive>'"#,
        )],
        mend: &[Line("node1", "cibadmin --delete --xml-text '<meta_attributes id=\"web1-kvmha-adopt\"/>'")],
        found: &[("maintenance", "web1 was left by a kvmha adopt", "kvmha adopt --back web1; nothing else")],
    },
    Broken {
        make: &[Line(
            "node1",
            r#"cibadmin --modify --allow-create --scope resources --xml-text '<primitive id="web1"><meta_attributes id="web1-kvmha-migrate" score="INFINITY">
               <nvpair id="web1-kvmha-migrate-is-managed" name="is-managed" value="false"/></meta_attributes></primitive>'"#,
        )],
        mend: &[Line("node1", "cibadmin --delete --xml-text '<meta_attributes id=\"web1-kvmha-migrate\"/>'")],
        found: &[("maintenance", "web1 was left by a kvmha migrate", "kvmha migrate web1 NODE; nothing else")],
    },
    Broken {
        make: &[Line("node1", "crm_attribute --type rsc_defaults --name is-managed --update false")],
        // Where there are two sets, the guide's pcs wants to be told which.
        mend: &[Line(
            "node1",
            "crm_attribute --type rsc_defaults --name is-managed --delete && cibadmin --delete --xml-text '<meta_attributes id=\"rsc-options\"/>'",
        )],
        found: &[("maintenance", "Pacemaker leaves web1 alone, though that is not set for it alone", "rsc_defaults")],
    },
    // Only the file: what runs is left alone.
    Broken {
        make: &[Line("node1", "sed -i 's/provider: corosync_votequorum/&\\n\\ttwo_node: 1/' /etc/corosync/corosync.conf")],
        mend: &[Line("node1", "sed -i '/two_node/d' /etc/corosync/corosync.conf")],
        found: &[("quorum", "two_node: 1 with 3 nodes", "remove two_node")],
    },
    Broken {
        make: &[Line("node1", "sed -i 's/provider: corosync_votequorum/provider: none/' /etc/corosync/corosync.conf")],
        mend: &[Line("node1", "sed -i 's/provider: none/provider: corosync_votequorum/' /etc/corosync/corosync.conf")],
        found: &[("quorum", "counts no votes", "provider: corosync_votequorum")],
    },
    Broken {
        make: &[Line("node1", "cp /etc/hosts /tmp/hosts && sed -i '/ node3$/d' /etc/hosts")],
        mend: &[Line("node1", "cp /tmp/hosts /etc/hosts")],
        found: &[("names", "node3 cannot be resolved on node1", "/etc/hosts"), ("libvirt", "libvirt of node3", "libvirtd-tcp.socket")],
    },
    // As Debian's installer writes it.
    Broken {
        make: &[Line("node1", "cp /etc/hosts /tmp/hosts && sed -i '1i 127.0.1.1 node1' /etc/hosts")],
        mend: &[Line("node1", "cp /tmp/hosts /etc/hosts")],
        found: &[("names", "node1 is 127.0.1.1 on node1", "in the place of 127.0.1.1")],
    },
    Broken {
        make: &[MANY],
        mend: &[Line(
            "node1",
            "for n in 1 2 3 4; do cibadmin --delete --xml-text \"<primitive id='many$n'/>\"; crm_resource --refresh --force --resource many$n >/dev/null 2>&1; done; true",
        )],
        found: &[
            ("moves at once", "5 guests can be moved", "migration-limit"),
            ("definitions", "many1 cannot be started on node1", "storage that every node has"),
            ("live migration", "many2 says neither migration_transport", "--set-parameter migration_transport --parameter-value ssh"),
        ],
    },
    Broken {
        make: &[BAD],
        mend: &[CLEAN],
        found: &[
            ("one resource each", "web1 and bad have the same config", "maintenance-mode --update true && pcs resource delete --force bad"),
            ("monitor", "bad has no recurring monitor", "name=\"monitor\" interval=\"10s\""),
            ("timeouts", "bad: migrate_to has 30 s, 120 s", "<op id=\"bad-m\" timeout=\"120s\"/>"),
            ("timeouts", "bad: start has 20 s, 90 s", "name=\"start\" interval=\"0s\" timeout=\"90s\""),
            ("on-fail", "bad: migrate_to has on-fail=ignore", "<op id=\"bad-m\" on-fail=\"block\"/>"),
            ("on-fail", "bad: stop has on-fail=block", "on-fail=\"fence\""),
            ("live migration", "bad has not allow-migrate", "--set-parameter allow-migrate --parameter-value true"),
        ],
    },
    Broken {
        make: &[Line("node1", "crm_attribute --type rsc_defaults --name resource-stickiness --update 0")],
        mend: &[Line("node1", "crm_attribute --type rsc_defaults --name resource-stickiness --update 100")],
        found: &[(
            "stickiness",
            "web1 has no resource-stickiness",
            "--resource web1 --meta --set-parameter resource-stickiness --parameter-value 100",
        )],
    },
    Broken { make: &[LOCKLESS], mend: &[CLEAN], found: &[("disk locks", "bad: nothing locks vda (/dev/nothing)", "lock_manager")] },
    Broken {
        make: &[Line("node1", "sed -i \"s/cache='none'/cache='unsafe'/\" /srv/vms/web1.xml")],
        mend: &[Line("node1", "sed -i \"s/cache='unsafe'/cache='none'/\" /srv/vms/web1.xml")],
        found: &[("storage", "vda (/srv/vms/web1.img) of web1: cache='unsafe'", "cache='none'")],
    },
    // Each node has a file of that name.
    Broken {
        make: &[
            Line("node2", "mkdir /srv/own && truncate -s 1M /srv/own/web1.img"),
            Line("node3", "mkdir /srv/own && truncate -s 1M /srv/own/web1.img"),
            Line(
                "node1",
                "mkdir /srv/own && truncate -s 1M /srv/own/web1.img && sed -i s,/srv/vms/web1.img,/srv/own/web1.img, /srv/vms/web1.xml",
            ),
        ],
        mend: &[
            Line("node1", "sed -i s,/srv/own/web1.img,/srv/vms/web1.img, /srv/vms/web1.xml && rm -r /srv/own"),
            Line("node2", "rm -r /srv/own"),
            Line("node3", "rm -r /srv/own"),
        ],
        found: &[("storage", "of node1, and node2 has not the same", "pcs constraint location web1 avoids node2")],
    },
    Broken {
        make: &[Line(
            "node1",
            "mkdir /srv/read && mount --bind /srv/vms /srv/read && mount -o remount,bind,ro /srv/read && \
             sed -i s,/srv/vms/web1.img,/srv/read/web1.img, /srv/vms/web1.xml",
        )],
        mend: &[Line("node1", "sed -i s,/srv/read/web1.img,/srv/vms/web1.img, /srv/vms/web1.xml && umount /srv/read && rmdir /srv/read")],
        found: &[("storage", "its file system is mounted read-only", "mount it rw again")],
    },
    // Its guest runs, paused, on web1's image: a snapshot or a block copy has gone on there.
    Broken {
        make: &[
            Line("node2", "virsh -q create --paused /srv/vms/strayed-runs.xml"),
            Line(
                "node1",
                r#"cibadmin --create --scope resources --xml-text '<primitive id="bad" class="ocf" provider="kvmha" type="VirtualDomain">
                   <instance_attributes id="bad-i"><nvpair id="bad-c" name="config" value="/srv/vms/strayed.xml"/>
                   <nvpair id="bad-m" name="migration_transport" value="tcp"/></instance_attributes>
                   <meta_attributes id="bad-t"><nvpair id="bad-r" name="is-managed" value="false"/></meta_attributes></primitive>'"#,
            ),
        ],
        mend: &[Line("node2", "virsh -q destroy strayed"), CLEAN],
        found: &[("disks", "bad runs on node2 with vda (/srv/vms/web1.img), and its definition says /srv/vms/old.img", "blockcommit")],
    },
    Broken {
        make: &[CLONED],
        mend: &[Line(
            "node1",
            "cibadmin --delete --xml-text '<clone id=\"bads\"/>' && crm_resource --refresh --force --resource bad >/dev/null 2>&1; true",
        )],
        found: &[("parameters", "bad is part of a clone", "out of it")],
    },
    Broken {
        make: &[Line("node1", "crm_resource --resource web1 --set-parameter force_stop --parameter-value perhaps")],
        mend: &[Line("node1", "crm_resource --resource web1 --delete-parameter force_stop")],
        found: &[("parameters", "web1: force_stop", "crm_resource --resource web1 --set-parameter NAME")],
    },
    // Nobody may log in, and there are no certificates.
    Broken {
        make: &[Line("node1", "crm_resource --resource web1 --set-parameter migration_transport --parameter-value ssh")],
        mend: &[Line("node1", "crm_resource --resource web1 --set-parameter migration_transport --parameter-value tcp")],
        found: &[("libvirt", "libvirt of node2 cannot be asked", "ssh node2 true"), ("libvirt", "libvirt of node3", "ssh node3 true")],
    },
    Broken {
        make: &[Line("node1", "crm_resource --resource web1 --set-parameter migration_transport --parameter-value tls")],
        mend: &[Line("node1", "crm_resource --resource web1 --set-parameter migration_transport --parameter-value tcp")],
        found: &[("libvirt", "libvirt of node2 cannot be asked", "certificates of both nodes")],
    },
    Broken {
        make: &[Line("node1", "crm_resource --ban --resource web1 --node node2 --lifetime PT1H")],
        mend: &[Line("node1", "crm_resource --clear --resource web1")],
        found: &[("constraints", "cli-ban-web1-on-node2", "crm_resource --clear")],
    },
    Broken {
        make: &[Line("node2", "virsh -q define /srv/vms/web1.xml && virsh -q autostart web1")],
        mend: &[Line("node2", "virsh -q undefine web1")],
        found: &[("autostart", "libvirt of node2 starts web1", "autostart --disable web1")],
    },
    Broken {
        make: &[Line(
            "node1",
            "mkdir -p /run/systemd/system /etc/systemd/system/multi-user.target.wants && echo ON_BOOT=start >/etc/default/libvirt-guests && \
             ln -sf /lib/systemd/system/libvirt-guests.service /etc/systemd/system/multi-user.target.wants/",
        )],
        mend: &[Line("node1", "rmdir /run/systemd/system")],
        found: &[
            ("libvirt-guests", "is enabled", "ON_BOOT=ignore in /etc/default/libvirt-guests, or"),
            ("shutdown order", "node1 has no drop-in", "50-kvmha.conf"),
        ],
    },
    Broken {
        make: &[Line("node1", "echo 'auto_shutdown_try_shutdown = \"all\"' >>/etc/libvirt/qemu.conf")],
        mend: &[Line("node1", "sed -i /^auto_shutdown/d /etc/libvirt/qemu.conf")],
        found: &[(
            "auto_shutdown",
            "libvirt of node1 ends guests itself",
            "auto_shutdown_try_shutdown = \"none\" in /etc/libvirt/qemu.conf",
        )],
    },
    // A stub of systemctl: no node has systemd. The package was installed while Pacemaker ran.
    Broken {
        make: &[
            Line("node1", ORDERED),
            Line("node1", "echo '[ $5 = virt-guest-shutdown.target ] && echo inactive || echo sysinit.target' >>/usr/local/bin/systemctl"),
        ],
        mend: &[Line("node1", UNORDERED)],
        found: &[
            ("shutdown order", "systemd of node1 has not read the drop-in", "systemctl daemon-reload"),
            ("shutdown order", "virt-guest-shutdown.target of node1 is not active", "systemctl start virt-guest-shutdown.target"),
        ],
    },
    // What Pacemaker does on that node then has its time.
    Broken {
        make: &[Ahead("node2", 3600), Line("node1", "crm_resource --refresh --resource web1 --node node2 >/dev/null 2>&1")],
        mend: &[Ahead("node2", 0), Line("node1", "crm_resource --refresh --resource web1 --node node2 >/dev/null 2>&1")],
        found: &[("clocks", "the clock of node2 is, or was, at least 3", "chrony")],
    },
    Broken {
        make: &[Kill("node2")],
        mend: &[Start("node2")],
        found: &[(
            "libvirt",
            "libvirt of node2 cannot be asked",
            "auth_tcp in libvirtd.conf of node2 (virtproxyd.conf where virtqemud runs)",
        )],
    },
    Broken {
        make: &[Freeze("node2")],
        mend: &[Thaw("node2")],
        found: &[("libvirt", "libvirt of node2 cannot be asked", "systemctl restart virtqemud where")],
    },
    Broken {
        make: &[Kill("node1")],
        mend: &[Start("node1")],
        found: &[("libvirt", "libvirt of node1 cannot be asked", "systemctl start virtqemud where")],
    },
    Broken {
        make: &[Kill("node2"), Line("node2", "sed -i 's/^user = .*/user = \"+65534\"/' /etc/libvirt/qemu.conf"), Start("node2")],
        mend: &[Kill("node2"), Line("node2", "sed -i 's/^user = .*/user = \"root\"/' /etc/libvirt/qemu.conf"), Start("node2")],
        found: &[("emulator's user", "+65534:+0 on node2", "/etc/libvirt/qemu.conf")],
    },
];
