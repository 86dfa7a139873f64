"""The monitors of many guests on one node: scale.py prepare N, then scale.py measure N. Run inside a node of the lab by tests/bench.

The guests are real to libvirt and the kernel, and cost next to nothing: 2 MiB of memory, no devices, a firmware that halts the CPU at its first
instructions. They are resources of the cluster (maintenance mode keeps Pacemaker's own monitors out at first), each with its utilization
attributes as they should be.

measure prints a JSON object: per contestant what its monitors took when each guest has one every 10 s, spread evenly, called as
pacemaker-execd calls them. That is the bench's own schedule, since the incumbent would not keep Pacemaker's. ours is then also measured
under Pacemaker itself ("pacemaker").
"""

import glob
import json
import os
import re
import selectors
import subprocess
import sys
import time

INTERVAL = 10
FOLDER = "/run/scale"
# mov al,30h; out 43h,al; mov al,1; out 40h,al; mov al,0; out 40h,al: the timer, which ticks after a reset, becomes one that ends; cli; hlt.
HALT = bytes.fromhex("b030e643b001e640b000e640faf4ebfd")
# Rounds of 10 s: ours looks at a guest's size once a minute.
ROUNDS = {"ours": 6, "virtualdomain": 1}
# At most so many at the same time: an executor knows no such limit, but who falls behind only falls behind further by more of them.
SIDE_BY_SIDE = 4
# Who is so far behind its schedule, in seconds, leaves out what is left of it.
BEHIND = 90
PROVIDERS = {"ours": "kvmha", "virtualdomain": "heartbeat"}
DAEMONS = ("libvirtd", "pacemaker-based", "pacemaker-execd", "pacemaker-controld")


def tool(*words, text=None):
    return subprocess.run(words, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def definition(number, folder=FOLDER):
    return f"""<domain type='qemu'>
  <name>tiny{number}</name>
  <uuid>11111111-2222-4333-8444-{number:012}</uuid>
  <memory unit='MiB'>2</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='isapc'>hvm</type>
    <loader type='rom'>{folder}/halt.bin</loader>
  </os>
  <clock offset='utc'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def resource(number):
    name = f"tiny{number}"
    pair = lambda key, value: f'<nvpair id="{name}-{key}" name="{key}" value="{value}"/>'
    return (
        f'<primitive id="{name}" class="ocf" provider="kvmha" type="VirtualDomain">'
        f'<instance_attributes id="{name}-attributes">{pair("config", f"{FOLDER}/{name}.xml")}{pair("hypervisor", "qemu:///system")}</instance_attributes>'
        f'<utilization id="{name}-utilization">{pair("cpu", 1)}{pair("host_memory", 2)}{pair("hv_memory", 2)}</utilization>'
        f'<operations><op id="{name}-monitor" name="monitor" interval="{INTERVAL}s" timeout="30s"/></operations></primitive>'
    )


def prepare(count):
    os.makedirs(FOLDER)
    with open(f"{FOLDER}/halt.bin", "wb") as rom:
        rom.write(bytes(65536 - len(HALT)) + HALT)
    for number in range(count):
        with open(f"{FOLDER}/tiny{number}.xml", "w", encoding="utf-8") as out:
            out.write(definition(number))
    tool("virsh", "-q", text="".join(f"create {FOLDER}/tiny{number}.xml\n" for number in range(count)))
    running = tool("virsh", "-q", "list", "--name", "--state-running").split()
    if len(running) != count:
        sys.exit(f"scale.py: {len(running)} of {count} guests run")
    tool("crm_attribute", "--name", "maintenance-mode", "--update", "true")
    # The load of the machine is not this node's alone, and Pacemaker would wait for it to go down.
    tool("crm_attribute", "--name", "load-threshold", "--update", "10000%")
    with open(f"{FOLDER}/resources.xml", "w", encoding="utf-8") as out:
        out.write("<resources>" + "".join(resource(number) for number in range(count)) + "</resources>")
    tool("cibadmin", "--modify", "--allow-create", "-o", "resources", "--xml-file", f"{FOLDER}/resources.xml")
    tool("crm_resource", "--wait", "--timeout", "600")


def environment(number):
    # As pacemaker-execd of 2.1.5 calls a recurring monitor.
    meta = {"on_node": "node1", "on_node_uuid": "1", "timeout": "30000", "interval": f"{INTERVAL}000", "name": "monitor"}
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_INSTANCE": f"tiny{number}", "OCF_RESOURCE_TYPE": "VirtualDomain", "OCF_EXIT_REASON_PREFIX": "ocf-exit-reason:",
        "OCF_RESKEY_crm_feature_set": "3.16.2", "OCF_RESKEY_config": f"{FOLDER}/tiny{number}.xml", "OCF_RESKEY_hypervisor": "qemu:///system",
        "HA_LOGFACILITY": "daemon", "HA_debug": "0",
    } | {f"OCF_RESKEY_CRM_meta_{key}": value for key, value in meta.items()}


def daemons():
    """CPU seconds of the daemons so far, and of the children that pacemaker-execd has waited for."""
    tick, seconds = os.sysconf("SC_CLK_TCK"), dict.fromkeys((*DAEMONS, "children"), 0.0)
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8") as stat, open(path.replace("stat", "cmdline"), encoding="utf-8") as words:
                fields, program = stat.read().rsplit(")", 1)[1].split(), os.path.basename(words.read().split("\0")[0])
        except OSError:
            continue  # it ended
        if program in DAEMONS:
            seconds[program] += (int(fields[11]) + int(fields[12])) / tick
            if program == "pacemaker-execd":
                seconds["children"] += (int(fields[13]) + int(fields[14])) / tick
    return seconds


def written():
    """How often the CIB was written: changes of the configuration, and of the status since then."""
    cib = tool("cibadmin", "--query").splitlines()[0]
    return tuple(int(re.search(f' {word}="(\\d+)"', cib).group(1)) for word in ("epoch", "num_updates"))


class Window:
    """What daemons took in a stretch of time."""

    def __enter__(self):
        self.cib, self.before, self.begin = written(), daemons(), time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.begin
        self.daemons = {name: seconds - self.before[name] for name, seconds in daemons().items()}
        epoch, updates = written()
        self.writes = updates - self.cib[1] if epoch == self.cib[0] else epoch - self.cib[0]


def monitors(who, count, rounds):
    """Runs them by the schedule; for each round the CPU seconds of all of them, and of each monitor the time from when it was due.

    Where some were left out, the CPU seconds are those of all at the same price.
    """
    program = f"/usr/lib/ocf/resource.d/{PROVIDERS[who]}/VirtualDomain"
    environments = [environment(number) for number in range(count)]
    devnull = os.open(os.devnull, os.O_RDWR)
    files = [(os.POSIX_SPAWN_DUP2, devnull, fd) for fd in (0, 1, 2)]
    poll, cpu, wall, begin = selectors.DefaultSelector(), [0.0] * rounds, [], time.monotonic()
    due = [(begin + turn * INTERVAL + number * INTERVAL / count, turn, number) for turn in range(rounds) for number in range(count)]
    due.reverse()
    while due or poll.get_map():
        full = len(poll.get_map()) >= SIDE_BY_SIDE
        patience = max(0.0, due[-1][0] - time.monotonic()) if due and not full else None
        for key, _ in poll.select(patience):
            pid, at, turn = key.data
            _, status, usage = os.wait4(pid, 0)
            wall.append(time.monotonic() - at)
            cpu[turn] += usage.ru_utime + usage.ru_stime
            poll.unregister(key.fd)
            os.close(key.fd)
            if os.waitstatus_to_exitcode(status) != 0:
                sys.exit(f"{program}: exit code {os.waitstatus_to_exitcode(status)}")
        if due and time.monotonic() - due[-1][0] > BEHIND:
            due.clear()
        while due and due[-1][0] <= time.monotonic() and len(poll.get_map()) < SIDE_BY_SIDE:
            at, turn, number = due.pop()
            pid = os.posix_spawn(program, [program, "monitor"], environments[number], file_actions=files)
            poll.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, at, turn))
    os.close(devnull)
    return {"cpu": [seconds * rounds * count / len(wall) for seconds in cpu], "wall": wall, "run": len(wall)}


def measure(count):
    results = {}
    with Window() as idle:
        time.sleep(2 * INTERVAL)
    for who, rounds in ROUNDS.items():
        # The first: state files are written, attributes are looked at. Ours does that again after ten minutes.
        first = monitors("ours", count, 1)["cpu"][0] if who == "ours" else None
        with Window() as window:
            seen = monitors(who, count, rounds)
        results[who] = seen | {"first": first, "seconds": window.seconds, "daemons": window.daemons, "writes": window.writes}
    tool("crm_attribute", "--name", "maintenance-mode", "--update", "false")
    tool("crm_resource", "--wait", "--timeout", "600")
    time.sleep(2 * INTERVAL)
    with Window() as window:
        time.sleep(6 * INTERVAL)
    results["pacemaker"] = {"seconds": window.seconds, "daemons": window.daemons, "writes": window.writes}
    results["idle"] = {"seconds": idle.seconds, "daemons": idle.daemons, "writes": idle.writes}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    {"prepare": prepare, "measure": measure}[sys.argv[1]](int(sys.argv[2]))
