"""Moves a guest back and forth between two nodes of the lab and measures each move: migrate.py LAB-COMMAND... < {"runs": N, "guest": NAME}.

Contestants take turns, so that each has the same guest, direction by direction: our migrate_to, that of VirtualDomain, bare libvirt
peer-to-peer (virsh migrate --live --p2p), and ours with migration_policy=plain, which asks of libvirt what the bare one does: what ours takes longer
than that is its policy's doing, which wants a shorter pause. After our own, migrate_from and stop are called as Pacemaker does; they are not measured.

Of each move: the wall time of the command, and the pause that the guest's heartbeat shows.
"""

import json
import random
import subprocess
import sys
import time

lab = sys.argv[1:]
task = json.load(sys.stdin)
runs, guest = task["runs"], task["guest"]
config = f"/srv/vms/{guest}.xml"
agents = {"ours": "kvmha", "ours-plain": "kvmha", "virtualdomain": "heartbeat"}
# So many beats before and after a pause tell how far the guest's clock and the world's are apart.
BEATS = 15


def node(name, *argv):
    return subprocess.run([*lab, "exec", name, "--", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def agent(which, name, action, **meta):
    environment = {
        "OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": guest, "OCF_RESOURCE_TYPE": "VirtualDomain", "HA_LOGFACILITY": "daemon",
        "OCF_RESKEY_config": config, "OCF_RESKEY_hypervisor": "qemu:///system", "OCF_RESKEY_migration_transport": "tcp",
        "OCF_RESKEY_migrate_options": "--unsafe", "OCF_RESKEY_CRM_meta_timeout": "120000",
    } | {f"OCF_RESKEY_CRM_meta_{key}": value for key, value in meta.items()}
    if which == "ours-plain":
        environment["OCF_RESKEY_migration_policy"] = "plain"
    words = [f"{key}={value}" for key, value in environment.items()]
    return node(name, "env", *words, f"/usr/lib/ocf/resource.d/{agents[which]}/VirtualDomain", action)


def must(result, what):
    if result.returncode != 0:
        sys.exit(f"{what}: code {result.returncode}: {result.stdout.decode(errors='replace')}")
    return result.stdout.decode(errors="replace")


def beats(more):
    """Waits until the guest has beaten so many times more. A busy guest beats when it comes to it."""
    first, limit = None, time.monotonic() + 60
    while time.monotonic() < limit:
        seen = subprocess.run([*lab, "heartbeat", guest, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        now = json.loads(seen.stdout)["ring"]["newest"]["sequence"] if seen.returncode == 0 else None
        first = now if first is None else first
        if first is not None and now >= first + more:
            return
        time.sleep(0.1)
    sys.exit(f"{guest} does not beat")


def move(contestant, here, there):
    watch = subprocess.Popen([*lab, "heartbeat", guest, "--while-input", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    beats(BEATS)
    begin = time.monotonic()
    if contestant == "libvirt":
        result = node(here, "virsh", "--quiet", "migrate", "--live", "--p2p", "--abort-on-error", "--unsafe", guest, f"qemu+tcp://{there}/system")
    else:
        result = agent(contestant, here, "migrate_to", migrate_target=there)
    wall = time.monotonic() - begin
    must(result, contestant)
    beats(BEATS)
    seen = json.loads(watch.communicate()[0])
    if seen["two_writers"] or len(seen["boots"]) != 1 or not seen["worst_pause"]:
        sys.exit(f"{contestant}: {seen}")
    if contestant.startswith("ours"):
        must(agent("ours", there, "migrate_from", migrate_source=here), "migrate_from")
        must(agent("ours", here, "stop"), "stop")
    return {"wall": wall, "pause": seen["worst_pause"]["pause_ms"] / 1000}


names = ["ours", "virtualdomain", "libvirt", "ours-plain"]
results = {name: {"wall": [], "pause": []} for name in names}
must(agent("ours", "node1", "start"), "start")
beats(1)
time.sleep(5)  # it is quiet then
here, there = "node1", "node2"
orders = random.Random(1)  # as in measure.py
for _ in range(runs):
    for name in orders.sample(names, len(names)):
        for key, value in move(name, here, there).items():
            results[name][key].append(value)
        here, there = there, here
must(agent("ours", here, "stop"), "stop")
json.dump(results, sys.stdout)
