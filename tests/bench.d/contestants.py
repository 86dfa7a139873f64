"""Prints the task of measure.py for one action of the agent: contestants.py ACTION RUNS.

ACTION: monitor; meta-data and validate-all (level 0), which need no guest; start; stop, which asks the guest, and destroy, a stop by force;
parts, the steps of which one monitor is made. Who starts a guest ends it, and the other way round: none finds what another left.
"""

import json
import sys

base = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
uri, config, socket = "qemu:///system", "/srv/vms/web1.xml", "/run/libvirt/libvirt-sock"
# As Pacemaker's executor calls a recurring monitor.
environment = base | {
    "OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1", "OCF_RESOURCE_INSTANCE": "web1",
    "OCF_RESOURCE_TYPE": "VirtualDomain", "OCF_EXIT_REASON_PREFIX": "ocf-exit-reason:", "OCF_RESKEY_crm_feature_set": "3.16.2",
    "OCF_RESKEY_config": config, "OCF_RESKEY_hypervisor": uri, "OCF_RESKEY_CRM_meta_timeout": "30000",
    "OCF_RESKEY_CRM_meta_interval": "10000", "OCF_RESKEY_CRM_meta_name": "monitor", "HA_LOGFACILITY": "daemon", "HA_debug": "0",
}
providers = {"ours": "kvmha", "virtualdomain": "heartbeat"}
client, wire, true = "/usr/local/bin/c-client", "/usr/local/bin/wire", {"argv": ["/bin/true"], "env": base}


def agent(who, action, **more):
    return {"argv": [f"/usr/lib/ocf/resource.d/{providers[who]}/VirtualDomain", action], "env": environment | more}


def both(action, **more):
    return {who: agent(who, action, **more) for who in providers}


def once(action):
    """start, stop or destroy, and beside it what undoes it, of everybody."""
    # A guest that is not there yet when it is asked to shut down does not hear it: it is once it writes to its disk.
    beats = f"touch /run/began; %s || exit 1; until [ {config.replace('.xml', '.img')} -nt /run/began ]; do sleep 0.05; done; sleep 0.5"
    contestants = {}
    for who in (*providers, "libvirt"):
        if who == "libvirt":
            env = base
            begin, end = [client, uri, "start", config], [client, uri, "stop" if action == "stop" else "destroy", "web1"]
        else:
            env = environment | {"OCF_RESKEY_CRM_meta_interval": "0", "OCF_RESKEY_CRM_meta_timeout": "90000", "OCF_RESKEY_CRM_meta_name": action}
            env |= {} if action == "stop" else {"OCF_RESKEY_force_stop": "true"}
            begin, end = agent(who, "start")["argv"], agent(who, "stop")["argv"]
        if action == "start":
            contestants[who] = {"argv": begin, "env": env, "after": end}
        else:
            contestants[who] = {"argv": end, "env": env, "before": ["/bin/sh", "-c", beats % " ".join(begin)] if action == "stop" else begin}
    return contestants


tasks = {
    "monitor": lambda: both("monitor") | {"c-client": {"argv": [client, uri, "monitor", "web1"], "env": base}, "wire": {"argv": [wire, socket, "web1"], "env": base}, "true": true},
    "meta-data": lambda: both("meta-data") | {"true": true},
    "validate-all": lambda: both("validate-all") | {"true": true},
    "start": lambda: once("start"), "stop": lambda: once("stop"), "destroy": lambda: once("destroy"),
    "parts": lambda: {"ours": agent("ours", "monitor"), "wire": {"argv": [wire, socket, "web1"], "env": base},
                      "wire-connect": {"argv": [wire, socket], "env": base}, "validate-all": agent("ours", "validate-all"), "true": true},
}
action = sys.argv[1]
series = ["wall", "cpu"] if action in ("start", "stop", "destroy") else ["cpu", "wall"]
print(json.dumps({"runs": int(sys.argv[2]), "series": series, "contestants": tasks[action]()}))
