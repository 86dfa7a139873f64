"""Runs commands in turn and measures each run; prints a JSON object per contestant. Run inside a node of the lab by tests/bench.

Standard input: JSON {"runs": N, "contestants": {NAME: {"argv": [...], "env": {...}, "before": [...], "after": [...]}}}. What stands in
"before", if anything, is run first each time, and "after" behind it; they are not measured. "series" says which of cpu and wall comes first.
CPU is user + system time of the process and the children it waited for (wait4), in seconds. Memory is the peak resident size in KiB
as time(1) sees it: for a child of this program the kernel would count this program's own size in. Faults are pages that the kernel gave.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

task = json.load(sys.stdin)
names = list(task["contestants"])
results = {name: {key: [] for key in (*task.get("series", ["cpu", "wall"]), "faults")} for name in names}


def aside(contestant, when):
    if when in contestant:
        subprocess.run(contestant[when], env=contestant["env"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def run(contestant):
    aside(contestant, "before")
    devnull = os.open(os.devnull, os.O_RDWR)
    begin = time.monotonic()
    pid = os.posix_spawn(
        contestant["argv"][0],
        contestant["argv"],
        contestant["env"],
        file_actions=[(os.POSIX_SPAWN_DUP2, devnull, fd) for fd in (0, 1, 2)],
    )
    os.close(devnull)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - begin
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{contestant['argv']}: exit code {os.waitstatus_to_exitcode(status)}")
    aside(contestant, "after")
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "faults": usage.ru_minflt}


def watched(contestant, *watcher):
    """What a program that runs a contestant and watches it writes into the file that its last option names."""
    aside(contestant, "before")
    with tempfile.NamedTemporaryFile() as report:
        words = [*watcher, report.name, *contestant["argv"]]
        subprocess.run(words, env=contestant["env"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        aside(contestant, "after")
        return report.read().decode(errors="replace")


def memory(contestant):
    """Peak resident size of one run, in KiB."""
    return int(watched(contestant, "/usr/bin/time", "-f", "%M", "-o").split()[-1])


def processes(contestant):
    """Processes started by one run, the first included, as strace counts them."""
    trace = watched(contestant, "/usr/bin/strace", "-f", "-qq", "-e", "trace=fork,vfork,clone,clone3,execve", "-o")
    return len({line.split()[0] for line in trace.splitlines()})


# What takes seconds is not done more often than it says something.
several = 1 if any(when in contestant for contestant in task["contestants"].values() for when in ("before", "after")) else 5
for name in names:  # page cache and lazy set-up are not what is compared
    for _ in range(min(several, 3)):
        run(task["contestants"][name])
# Every contestant comes after every other, so that what one leaves warm or busy is shared fairly; the orders are always the same.
orders = random.Random(1)
for _ in range(task["runs"]):
    for name in orders.sample(names, len(names)):
        for key, value in run(task["contestants"][name]).items():
            results[name][key].append(value)
for name in names:
    results[name]["faults"] = statistics.median(results[name]["faults"])
    results[name]["memory"] = max(memory(task["contestants"][name]) for _ in range(several))
    results[name]["processes"] = processes(task["contestants"][name])
json.dump(results, sys.stdout)
