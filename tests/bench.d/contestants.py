"""Prints the task of measure.py for `tests/bench monitor`: contestants.py RUNS."""

import json
import sys

base = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
# As Pacemaker's executor calls a recurring monitor.
agent = base | {
    "OCF_ROOT": "/usr/lib/ocf", "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1", "OCF_RESOURCE_INSTANCE": "web1",
    "OCF_RESOURCE_TYPE": "VirtualDomain", "OCF_EXIT_REASON_PREFIX": "ocf-exit-reason:", "OCF_RESKEY_crm_feature_set": "3.16.2",
    "OCF_RESKEY_config": "/srv/vms/web1.xml", "OCF_RESKEY_hypervisor": "qemu:///system", "OCF_RESKEY_CRM_meta_timeout": "30000",
    "OCF_RESKEY_CRM_meta_interval": "10000", "OCF_RESKEY_CRM_meta_name": "monitor", "HA_LOGFACILITY": "daemon", "HA_debug": "0",
}
print(json.dumps({"runs": int(sys.argv[1]), "contestants": {
    "ours": {"argv": ["/usr/lib/ocf/resource.d/kvmha/VirtualDomain", "monitor"], "env": agent},
    "virtualdomain": {"argv": ["/usr/lib/ocf/resource.d/heartbeat/VirtualDomain", "monitor"], "env": agent},
    "c-client": {"argv": ["/usr/local/bin/c-client", "qemu:///system", "web1"], "env": base},
    "true": {"argv": ["/bin/true"], "env": base},
}}))
