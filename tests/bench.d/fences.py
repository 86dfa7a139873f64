"""Prints the task of measure.py for `tests/bench fence`: fences.py ACTION RUNS TRANSPORT: tcp, tls, libssh or ssh.

The bare calls of libvirt are made by virsh. fence_virsh knows no other way than ssh. `ssh` is a login that does nothing.
"""

import json
import sys

action, runs, transport = sys.argv[1], int(sys.argv[2]), sys.argv[3]
env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}
parts = {
    "ssh": ("root@", "?keyfile=/root/.ssh/id&no_tty=1"),
    "libssh": ("root@", "?keyfile=/root/.ssh/id&sshauth=privkey&known_hosts=/root/.ssh/known_hosts"),
}
user, query = parts.get(transport, ("", ""))
uri = f"qemu+{transport}://{user}node1/system{query}"
plug = ["-n", "web1"] if action in ("status", "off") else []
bare = {"status": ["domstate", "web1"], "list": ["list", "--all"], "monitor": ["list", "--all"], "off": ["destroy", "web1"]}
contestants = {
    "ours": ["/usr/sbin/fence_kvmha", "-U", uri, "-o", action, *plug],
    "fence_virsh": ["/usr/sbin/fence_virsh", "-a", "node1", "-l", "root", "-k", "/root/.ssh/id", "-x", "-o", action, *plug],
    "libvirt": ["/usr/bin/virsh", "-q", "-c", uri, *bare[action]],
}
if transport in parts:
    contestants["ssh"] = ["/usr/bin/ssh", "-i", "/root/.ssh/id", "-o", "BatchMode=yes", "root@node1", "true"]
task = {name: {"argv": argv, "env": env} for name, argv in contestants.items()}
if action == "off":
    # Each contestant finds the guest running; libvirt may be at the end of the one before.
    virsh = "virsh -q -c qemu+tcp://node1/system"
    start = f"for try in $(seq 50); do {virsh} domstate web1 | grep -q running && exit 0; {virsh} start web1; sleep 0.1; done; exit 1"
    for contestant in task.values():
        contestant["before"] = ["/bin/sh", "-c", start]
print(json.dumps({"runs": runs, "contestants": task}))
