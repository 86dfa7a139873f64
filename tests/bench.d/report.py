"""One report of the figures of a folder: report.py FOLDER. Prints Markdown, and writes FOLDER/report.md and FOLDER/report.svg.

Each figure is a file as figures.py writes it. The plot shows medians on a logarithmic scale, ours and the rivals', one row per contestant;
second looks at the same runs (NAME-wall, NAME-cpu), and the steps of a monitor, are in the tables only.
"""

import glob
import json
import math
import os
import subprocess
import sys
from xml.sax.saxutils import escape

folder = sys.argv[1]


def said(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as text:
        models = [line.split(":", 1)[1].strip() for line in text if line.startswith("model name")]
    packages = ("libvirt-daemon", "qemu-system-x86", "pacemaker", "resource-agents", "fence-agents")
    lines = said("dpkg-query", "-W", "-f=${Package} ${Version}\n", *packages).splitlines()
    return f"{len(models)} x {models[0] if models else 'unknown'}, Linux {os.uname().release}; " + ", ".join(lines)


def load():
    figures = []
    for path in glob.glob(os.path.join(folder, "*.json")):
        with open(path, encoding="utf-8") as text:
            figure = json.load(text)
        # Chaos counts violations: it has a table of its own.
        if figure["unit"] == "s":
            figures.append(figure)
    return sorted(figures, key=lambda figure: figure["name"])


def ratio(value):
    return f"1/{1 / value:.1f}" if 0 < value < 0.5 else f"{value:.2f}"


def rows(figures):
    for figure in figures:
        yield figure["name"], "ours", figure["ours"], ""
        for rival, values in figure["rivals"].items():
            yield figure["name"], rival, values, ratio(values["ratio"])


def markdown(figures):
    lines = [machine(), "", "| figure | | median ms | p99 ms | min ms | max ms | runs | ours / theirs |", "|---|---|---|---|---|---|---|---|"]
    last, kinds = None, {figure["name"]: figure.get("of", "") for figure in figures}
    for name, who, values, share in rows(figures):
        # Of fewer than 100 runs the 99th percentile is the longest, which has a column of its own.
        cells = ["" if key == "p99" and values["runs"] < 100 else f"{values[key] * 1000:.2f}" for key in ("median", "p99", "min", "max")]
        lines.append(f"| {f'{name} ({kinds[name]})' if name != last else ''} | {who} | {' | '.join(cells)} | {values['runs']} | {share} |")
        last = name
    for figure in figures:
        if "parts" in figure:
            lines += ["", f"{figure['name']}: CPU, the differences of programs run side by side", "", "| part | ms |", "|---|---|"]
            lines += [f"| {words} | {seconds * 1000:.2f} |" for words, seconds in figure["parts"].items()]
        if "share" in figure:
            keys = list(dict.fromkeys(key for share in figure["share"].values() for key in share if key != "writes"))
            lines += ["", f"{figure['name']}: percent of one core, and CIB writes", "", f"| | {' | '.join(keys)} | writes |", "|---|" + "---|" * (len(keys) + 1)]
            for who, share in figure["share"].items():
                lines.append(f"| {who} | " + " | ".join(f"{share[key] * 100:.1f}" if key in share else "" for key in keys) + f" | {share['writes']} |")
    return "\n".join(lines) + "\n"


def time(seconds):
    if seconds >= 100:
        return f"{seconds:.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def plot(figures):
    names = {figure["name"] for figure in figures}
    second = lambda name: any(name.endswith(end) and name.removesuffix(end) in names for end in ("-wall", "-cpu"))
    shown = [figure for figure in figures if "parts" not in figure and not second(figure["name"])]
    kinds = {figure["name"]: {"cpu": "CPU time", "wall": "time", "pause": "guest's pause"}.get(figure.get("of"), "") for figure in shown}
    bars = [(name, who, values["median"]) for name, who, values, _ in rows(shown) if values["median"] > 0]
    low = math.floor(min(math.log10(value) for _, _, value in bars))
    high = math.ceil(max(math.log10(value) for _, _, value in bars))
    left, width, step, gap, top = 290, 560, 17, 9, 34
    place = lambda value: left + (math.log10(value) - low) / max(1, high - low) * width
    parts, y, last = [], top, None
    for name, who, value in bars:
        if name != last:
            y += gap if last else 0
            parts.append(f'<text x="12" y="{y + 12}"><tspan font-weight="bold">{escape(name)}</tspan> <tspan fill="#777">{escape(kinds[name])}</tspan></text>')
        last = name
        colour = "#1f6f8b" if who == "ours" else "#b9c0c6"
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(who)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 1}" width="{max(1.0, place(value) - left):.1f}" height="{step - 3}" fill="{colour}"/>')
        parts.append(f'<text x="{max(left, place(value)) + 5:.1f}" y="{y + 12}">{time(value)}</text>')
        y += step
    lines = []
    for power in range(low, high + 1):
        x = place(10**power)
        lines.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{y + 4}" stroke="#e3e6e8"/>')
        lines.append(f'<text x="{x:.1f}" y="20" text-anchor="middle" fill="#555">{time(10**power)}</text>')
    size = f'width="{left + width + 90}" height="{y + 14}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="DejaVu Sans, Verdana, sans-serif" font-size="11" fill="#222">'
    return head + '<rect width="100%" height="100%" fill="#fff"/>' + "".join(lines + parts) + "</svg>\n"


figures = load()
if not figures:
    sys.exit(f"report.py: no figures in {folder}: run tests/bench first")
text = markdown(figures)
for name, content in (("report.md", text), ("report.svg", plot(figures))):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        out.write(content)
print(text, end="")
