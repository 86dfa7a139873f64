"""Writes a benchmark's figures and prints its table: figures.py FOLDER NAME TITLE < results.

The results are {CONTESTANT: {"wall": [...], "cpu": [...]...}}, one of them "ours". Each series becomes a file: NAME.json is the CPU time
where there is one, else the wall time; the other is NAME-wall.json, and for a pause NAME with "pause" for "migrate".
A ratio is the median of ours / theirs, run by run, and a difference that of ours - theirs.
"""

import json
import os
import statistics
import sys

folder, name, title = sys.argv[1:]
results = json.load(sys.stdin)


def summary(values):
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "min": ordered[0],
        "max": ordered[-1],
        "runs": len(ordered),
    }


def figure(key, file):
    ours = results["ours"][key]
    rivals = {}
    for rival in (rival for rival in results if rival != "ours"):
        theirs = results[rival][key]
        rivals[rival] = summary(theirs) | {"ratio": statistics.median(a / max(b, 1e-6) for a, b in zip(ours, theirs)), "difference": statistics.median(a - b for a, b in zip(ours, theirs))}
    document = {"name": file, "unit": "s", "ours": summary(ours), "rivals": rivals}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{file}.json"), "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    return document


def cells(document, contestant):
    of = document["ours"] if contestant == "ours" else document["rivals"][contestant]
    ratio = of.get("ratio")
    words = "" if ratio is None else f"1/{1 / ratio:.1f}" if ratio < 0.5 else f"{ratio:.2f}"
    return f"{of['median'] * 1000:>12.2f}{of['p99'] * 1000:>10.2f}{words:>8}"


def file(key):
    if key == series[0]:
        return name
    return name.replace("migrate", "pause") if key == "pause" else f"{name}-{key}"


series = [key for key in ("cpu", "wall", "pause") if key in results["ours"]]
documents = {key: figure(key, file(key)) for key in series}
counts = [key for key in ("processes", "memory") if key in results["ours"]]
print(f"{title}, {len(results['ours'][series[0]])} runs each, medians; ratio: ours / theirs, run by run")
print(f"{'':16}" + "".join(f"{key.upper() if key == 'cpu' else key:>9} ms{'p99':>10}{'ratio':>8}" for key in series) + "".join(f"{key:>11}" for key in counts))
for contestant, values in results.items():
    row = "".join(cells(documents[key], contestant) for key in series)
    print(f"{contestant:16}{row}" + "".join(f"{values[key]:>11}" if key == "processes" else f"{values[key] / 1024:>7.1f} MiB" for key in counts))
for rival, values in documents["wall"]["rivals"].items() if "pause" in series else ():
    print(f"ours - {rival}, run by run: {values['difference'] * 1000:.0f} ms")
