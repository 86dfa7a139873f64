"""The figures of `tests/bench scale`: scales.py FOLDER GUESTS < results of scale.py. Prints the table.

scale-GUESTS is the CPU time of the monitors of all guests in one interval of 10 s, scale-GUESTS-wall the time of each from when it was due.
A contestant that falls behind leaves monitors out; its CPU time and shares are then those of all of them.
"share" in the file is in parts of one core: of the agent's processes, and of libvirtd above what it takes when nobody asks.
"""

import json
import sys

from figures import figure, summary

folder, guests = sys.argv[1], int(sys.argv[2])
INTERVAL, AGAIN = 10, 600
results = json.load(sys.stdin)
idle = results.pop("idle")
pacemaker = results.pop("pacemaker")


def above_idle(window, daemon, seconds=None):
    """Share of a core that a daemon took more than when nobody asked, as if it had all been done in `seconds`, and nothing left out."""
    took = window["daemons"][daemon] - idle["daemons"][daemon] / idle["seconds"] * window["seconds"]
    return max(0.0, took / (seconds or window["seconds"]))


shares = {}
for who, seen in results.items():
    rounds = len(seen["cpu"])
    due = INTERVAL * seen["run"] / guests
    shares[who] = {
        "agent": sum(seen["cpu"]) / rounds / INTERVAL,
        "libvirtd": above_idle(seen, "libvirtd", due),
        "cib": above_idle(seen, "pacemaker-based", due),
        "writes": seen["writes"],
    }
    # What is done anew after ten minutes was not in these rounds.
    if seen["first"] is not None:
        shares[who]["attributes"] = max(0.0, seen["first"] - sum(seen["cpu"]) / rounds) / AGAIN
shares["pacemaker"] = {
    "agent": pacemaker["daemons"]["children"] / pacemaker["seconds"],
    "libvirtd": above_idle(pacemaker, "libvirtd"),
    "cib": above_idle(pacemaker, "pacemaker-based"),
    "executor": above_idle(pacemaker, "pacemaker-execd"),
    "controller": above_idle(pacemaker, "pacemaker-controld"),
    "writes": pacemaker["writes"],
}
figure(folder, f"scale-{guests}", "cpu", {who: seen["cpu"] for who, seen in results.items()}, share=shares)
figure(folder, f"scale-{guests}-wall", "wall", {who: seen["wall"] for who, seen in results.items()})

print(f"the monitors of {guests} guests on one node, each every {INTERVAL} s, by the bench's own schedule; percent of one core")
print(f"{'':16}{'agent':>9}{'libvirtd':>10}{'CIB daemon':>12}{'CIB writes':>12}{'median':>12}{'p99':>12}{'max':>12}")
for who, seen in results.items():
    share, wall = shares[who], summary(seen["wall"])
    times = "".join(" " * 12 if key == "p99" and wall["runs"] < 100 else f"{wall[key] * 1000:>9.1f} ms" for key in ("median", "p99", "max"))
    print(f"{who:16}{share['agent'] * 100:>9.1f}{share['libvirtd'] * 100:>10.1f}{share['cib'] * 100:>12.1f}{share['writes']:>12}{times}")
if "attributes" in shares["ours"]:
    print(f"ours, looking at its attributes in the CIB every ten minutes: {shares['ours']['attributes'] * 100:.1f} on top")
share = shares["pacemaker"]
print(
    f"ours under Pacemaker itself: agent {share['agent'] * 100:.1f}, libvirtd {share['libvirtd'] * 100:.1f}, executor {share['executor'] * 100:.1f}, "
    f"controller {share['controller'] * 100:.1f}, CIB daemon {share['cib'] * 100:.1f}; {share['writes']} CIB writes in {pacemaker['seconds']:.0f} s"
)
theirs = results["virtualdomain"]
if max(theirs["wall"]) > INTERVAL:
    print(
        f"virtualdomain does not keep the schedule on this machine: {theirs['run']} of {guests} were run, the last {max(theirs['wall']):.0f} s after "
        "it was due; its shares are what it would take"
    )
