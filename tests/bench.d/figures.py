"""Writes a benchmark's figures and prints its table: figures.py FOLDER NAME TITLE < results of measure.py.

The files are target/figures/NAME.json (CPU) and NAME-wall.json; a ratio is the median of ours / theirs, pair by pair.
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


def figure(key, unit, file):
    ours = results["ours"][key]
    rivals = {}
    for rival in (rival for rival in results if rival != "ours"):
        theirs = results[rival][key]
        rivals[rival] = summary(theirs) | {"ratio": statistics.median(a / b for a, b in zip(ours, theirs))}
    document = {"name": file, "unit": unit, "ours": summary(ours), "rivals": rivals}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{file}.json"), "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    return document


cpu, wall = figure("cpu", "s", name), figure("wall", "s", f"{name}-wall")
print(f"{title}, {cpu['ours']['runs']} runs each, medians; ratio: ours / theirs, run by run")
print(f"{'':16}{'CPU ms':>10}{'ratio':>10}{'wall ms':>10}{'ratio':>10}{'processes':>11}{'peak MiB':>10}")
for contestant, values in results.items():
    pick = (lambda document: document["ours"]) if contestant == "ours" else (lambda document: document["rivals"][contestant])
    ratio = lambda document: "" if contestant == "ours" else f"1/{1 / pick(document)['ratio']:.1f}" if pick(document)["ratio"] < 1 else f"{pick(document)['ratio']:.2f}"
    print(
        f"{contestant:16}{pick(cpu)['median'] * 1000:>10.2f}{ratio(cpu):>10}{pick(wall)['median'] * 1000:>10.2f}{ratio(wall):>10}"
        f"{values['processes']:>11}{values['memory'] / 1024:>10.1f}"
    )
