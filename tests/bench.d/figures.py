"""Writes a benchmark's figures and prints its table: figures.py FOLDER NAME TITLE < results. Also a module for what makes figures otherwise.

The results are {CONTESTANT: {"cpu": [...], "wall": [...]...}}, one of them "ours". Each series becomes a file: NAME.json is the first, and
others are NAME-wall.json, NAME-cpu.json, and for a pause NAME with "pause" for "migrate".
A ratio is the median of ours / theirs, run by run, and a difference that of ours - theirs.
"""

import json
import math
import os
import statistics
import sys


def summary(values):
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[math.ceil(len(ordered) * 0.99) - 1],
        "min": ordered[0],
        "max": ordered[-1],
        "runs": len(ordered),
    }


def tail(runs):
    """What the value under "p99" is to be called in a table: of fewer than 100 runs it is the longest."""
    return "p99" if runs >= 100 else "max"


def compared(ours, theirs):
    """The summary of a rival's series, with ours beside it."""
    ratio = statistics.median(a / max(b, 1e-6) for a, b in zip(ours, theirs))
    return summary(theirs) | {"ratio": ratio, "difference": statistics.median(a - b for a, b in zip(ours, theirs))}


def figure(folder, name, of, series, **more):
    """Writes the figure of a series per contestant; `of` says what was measured (cpu, wall, pause), and `more` goes into the file."""
    rivals = {rival: compared(series["ours"], values) for rival, values in series.items() if rival != "ours"}
    document = {"name": name, "unit": "s", "of": of, "ours": summary(series["ours"]), "rivals": rivals} | more
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1)
        out.write("\n")
    return document


def cells(document, contestant):
    of = document["ours"] if contestant == "ours" else document["rivals"][contestant]
    ratio = of.get("ratio")
    words = "" if ratio is None else f"1/{1 / ratio:.1f}" if 0 < ratio < 0.5 else f"{ratio:.2f}"
    return f"{of['median'] * 1000:>12.2f}{of['p99'] * 1000:>10.2f}{words:>8}"


def main(folder, name, title):
    results = json.load(sys.stdin)
    series = [key for key in results["ours"] if key in ("cpu", "wall", "pause")]
    files = {key: name if key == series[0] else name.replace("migrate", "pause") if key == "pause" else f"{name}-{key}" for key in series}
    documents = {key: figure(folder, files[key], key, {who: values[key] for who, values in results.items()}) for key in series}
    counts = [key for key in ("processes", "faults", "memory") if key in results["ours"]]
    runs = len(results["ours"][series[0]])
    print(f"{title}, {runs} runs each, medians; ratio: ours / theirs, run by run")
    print(f"{'':16}" + "".join(f"{key.upper() if key == 'cpu' else key:>9} ms{tail(runs):>10}{'ratio':>8}" for key in series) + "".join(f"{key:>11}" for key in counts))
    for contestant, values in results.items():
        row = "".join(cells(documents[key], contestant) for key in series)
        print(f"{contestant:16}{row}" + "".join(f"{values[key] / 1024:>7.1f} MiB" if key == "memory" else f"{values[key]:>11.0f}" for key in counts))
    for rival, values in documents["wall"]["rivals"].items() if series[0] == "wall" else ():
        print(f"ours - {rival}, run by run: {values['difference'] * 1000:.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
