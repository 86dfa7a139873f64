"""Drains a node of many guests, by Pacemaker, and measures it: drain.py PROVIDER GUESTS LAB-COMMAND... Run on a fresh lab of two nodes.

Three of the guests boot and beat, so that their pauses are seen; the others are those of scale.py, which halt at once. All are started by
Pacemaker on node1; then node1 becomes standby, and the time runs until node2 has them all and the cluster is idle; the same back, as it
has now with migration-limit set. Prints a JSON object per drain: "wall", "pauses" (the longest of each guest that beats), "peak" (so many
moves at the same moment, in migrate_to on the source), and what failed.
"""

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

from scale import HALT, definition

provider, guests, lab = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
BEATING = min(3, guests)
FOLDER = "/srv/vms"
LIMIT = 2
# Run on the source until its input ends: at most so many resources were in migrate_to at the same moment.
COUNT = """
import glob, re, select, sys
peak = 0
while not select.select([sys.stdin], [], [], 0.1)[0]:
    moving = set()
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if b"\\0migrate_to" in open(path, "rb").read():
                moving |= set(re.findall(rb"OCF_RESOURCE_INSTANCE=([^\\0]+)", open(path.replace("cmdline", "environ"), "rb").read()))
        except OSError:
            pass
    peak = max(peak, len(moving))
print(peak)
"""


def node(name, *words, text=None, check=True):
    done = subprocess.run([*lab, "exec", name, "--", *words], input=text, stdout=subprocess.PIPE, text=True, check=False)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(words)}: code {done.returncode}: {done.stdout}")
    return done.stdout


def names():
    return [f"web{number}" for number in range(BEATING)] + [f"tiny{number}" for number in range(guests - BEATING)]


def resource(name):
    pair = lambda key, value: f'<nvpair id="{name}-{key}" name="{key}" value="{value}"/>'
    operation = lambda action, interval, seconds: f'<op id="{name}-{action}" name="{action}" interval="{interval}s" timeout="{seconds}s"/>'
    values = {"config": f"{FOLDER}/{name}.xml", "hypervisor": "qemu:///system", "migration_transport": "tcp", "migrate_options": "--unsafe"}
    return (
        f'<primitive id="{name}" class="ocf" provider="{provider}" type="VirtualDomain">'
        f'<instance_attributes id="{name}-attributes">{"".join(pair(*item) for item in values.items())}</instance_attributes>'
        f'<meta_attributes id="{name}-meta">{pair("allow-migrate", "true")}{pair("resource-stickiness", 100)}</meta_attributes><operations>'
        + operation("start", 0, 180) + operation("stop", 0, 180) + operation("monitor", 10, 60) + operation("migrate_to", 0, 300)
        + operation("migrate_from", 0, 300) + "</operations></primitive>"
    )


def where():
    """The node of each guest, as the cluster has it."""
    status = ElementTree.fromstring(node("node2", "crm_mon", "-1", "--output-as=xml"))
    return {each.get("id"): [at.get("name") for at in each.iter("node")] for each in status.iter("resource") if each.get("id") in names()}


def idle(seconds):
    node("node2", "crm_resource", "--wait", "--timeout", str(seconds))


def prepare():
    node("node1", "python3", "-c", f"open('{FOLDER}/halt.bin', 'wb').write(bytes.fromhex('{HALT.hex()}').rjust(65536, bytes(1)))")
    for number in range(guests - BEATING):
        node("node1", "sh", "-c", f"cat >{FOLDER}/tiny{number}.xml", text=definition(number, FOLDER))
    for number in range(BEATING):
        subprocess.run([*lab, "guest", "create", f"web{number}"], check=True)
    node("node1", "crm_standby", "--node", "node2", "-v", "on")
    # The load of the machine is not this node's alone, and Pacemaker would move fewer at a time.
    node("node1", "crm_attribute", "--name", "load-threshold", "--update", "10000%")
    node("node1", "sh", "-c", "cat >/run/resources.xml", text="<resources>" + "".join(map(resource, names())) + "</resources>")
    node("node1", "cibadmin", "--modify", "--allow-create", "-o", "resources", "--xml-file", "/run/resources.xml")
    idle(900)
    if any(at != ["node1"] for at in where().values()):
        sys.exit(f"drain.py: not all guests run on node1: {where()}")
    # One that is moved before it beats shows nothing.
    for name in names()[:BEATING]:
        limit = time.monotonic() + 120
        while subprocess.run([*lab, "heartbeat", name], capture_output=True, check=False).returncode != 0:
            if time.monotonic() > limit:
                sys.exit(f"drain.py: {name} does not beat")
            time.sleep(0.5)
    node("node1", "crm_standby", "--node", "node2", "-v", "off")
    idle(100)


def drain(here, there):
    watches = {
        name: subprocess.Popen([*lab, "heartbeat", name, "--while-input", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in names()[:BEATING]
    }
    time.sleep(3)
    counter = subprocess.Popen([*lab, "exec", here, "--", "python3", "-c", COUNT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    begin = time.monotonic()
    node(here, "crm_standby", "--node", here, "-v", "on")
    while not all(at == [there] for at in where().values()) and time.monotonic() < begin + 900:
        time.sleep(0.3)
    idle(900)
    wall = time.monotonic() - begin
    peak = int(counter.communicate("end\n")[0])
    places = where()
    left = sorted(name for name, at in places.items() if at != [there])
    pauses, rebooted = {}, []
    for name, watch in watches.items():
        seen = json.loads(watch.communicate()[0])
        pauses[name] = seen["worst_pause"]["pause_ms"] / 1000 if seen["worst_pause"] else None
        rebooted += [name] * (len(seen["boots"]) != 1 or bool(seen["two_writers"]))
    failed = node(there, "crm_mon", "-1", "--output-as=xml").count("<failure ")
    node(there, "crm_standby", "--node", here, "-v", "off")
    idle(300)
    return {"wall": wall, "pauses": pauses, "peak": peak, "left": left, "rebooted": rebooted, "failed": failed}


prepare()
results = {"unlimited": drain("node1", "node2")}
node("node1", "crm_attribute", "--name", "migration-limit", "--update", str(LIMIT))
results[f"migration-limit={LIMIT}"] = drain("node2", "node1")
json.dump(results, sys.stdout)
