"""Moves a guest back and forth between two nodes of the lab and measures each move: migrate.py LAB-COMMAND... < {"runs": N}.

Contestants take turns, so that each has the same guest, direction by direction: our migrate_to, that of VirtualDomain, and bare libvirt
peer-to-peer (virsh migrate --live --p2p). After our own, migrate_from and stop are called as Pacemaker does; they are not measured.
"""

import json
import subprocess
import sys
import time

lab = sys.argv[1:]
runs = json.load(sys.stdin)["runs"]
config = "/srv/vms/web1.xml"
agents = {"ours": "kvmha", "virtualdomain": "heartbeat"}


def node(name, *argv):
    return subprocess.run([*lab, "exec", name, "--", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def agent(which, name, action, **meta):
    environment = {
        "OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": "web1", "OCF_RESOURCE_TYPE": "VirtualDomain", "HA_LOGFACILITY": "daemon",
        "OCF_RESKEY_config": config, "OCF_RESKEY_hypervisor": "qemu:///system", "OCF_RESKEY_migration_transport": "tcp",
        "OCF_RESKEY_migrate_options": "--unsafe", "OCF_RESKEY_CRM_meta_timeout": "120000",
    } | {f"OCF_RESKEY_CRM_meta_{key}": value for key, value in meta.items()}
    words = [f"{key}={value}" for key, value in environment.items()]
    return node(name, "env", *words, f"/usr/lib/ocf/resource.d/{agents[which]}/VirtualDomain", action)


def must(result, what):
    if result.returncode != 0:
        sys.exit(f"{what}: code {result.returncode}: {result.stdout.decode(errors='replace')}")


def move(contestant, here, there):
    begin = time.monotonic()
    if contestant == "libvirt":
        result = node(here, "virsh", "--quiet", "migrate", "--live", "--p2p", "--abort-on-error", "--unsafe", "web1", f"qemu+tcp://{there}/system")
    else:
        result = agent(contestant, here, "migrate_to", migrate_target=there)
    wall = time.monotonic() - begin
    must(result, contestant)
    if contestant == "ours":
        must(agent("ours", there, "migrate_from", migrate_source=here), "migrate_from")
        must(agent("ours", here, "stop"), "stop")
    return wall


names = ["ours", "virtualdomain", "libvirt"]
results = {name: {"wall": []} for name in names}
must(agent("ours", "node1", "start"), "start")
time.sleep(5)  # let the guest boot: it is quiet then
here, there = "node1", "node2"
for turn in range(runs):
    at = turn % len(names)
    for name in names[at:] + names[:at]:
        results[name]["wall"].append(move(name, here, there))
        here, there = there, here
json.dump(results, sys.stdout)
