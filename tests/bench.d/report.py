"""One report of the figures of a folder: report.py FOLDER. Prints Markdown, and writes FOLDER/report.md and FOLDER/report.svg.

Each figure is a file as figures.py writes it. The plot shows medians on a logarithmic scale, ours and the rivals', one row per contestant.
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
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path, encoding="utf-8") as text:
            figure = json.load(text)
        # Chaos counts violations: it has a table of its own.
        if figure["unit"] == "s":
            figures.append(figure)
    return figures


def ratio(value):
    return f"1/{1 / value:.1f}" if 0 < value < 0.5 else f"{value:.2f}"


def rows(figures):
    for figure in figures:
        yield figure["name"], "ours", figure["ours"], ""
        for rival, values in figure["rivals"].items():
            yield figure["name"], rival, values, ratio(values["ratio"])


def markdown(figures):
    lines = [machine(), "", "| figure | | median ms | p99 ms | min ms | max ms | runs | ours / theirs |", "|---|---|---|---|---|---|---|---|"]
    last = None
    for name, who, values, share in rows(figures):
        cells = [f"{values[key] * 1000:.2f}" for key in ("median", "p99", "min", "max")]
        lines.append(f"| {name if name != last else ''} | {who} | {' | '.join(cells)} | {values['runs']} | {share} |")
        last = name
    return "\n".join(lines) + "\n"


def plot(figures):
    bars = [(name, who, values["median"]) for name, who, values, _ in rows(figures) if values["median"] > 0]
    low = math.floor(min(math.log10(value) for _, _, value in bars))
    high = math.ceil(max(math.log10(value) for _, _, value in bars))
    left, width, height = 260, 520, 18
    place = lambda value: left + (math.log10(value) - low) / max(1, high - low) * width
    parts = []
    for power in range(low, high + 1):
        x = place(10**power)
        parts.append(f'<line x1="{x:.1f}" y1="20" x2="{x:.1f}" y2="{30 + height * len(bars)}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="14" text-anchor="middle">{10**power * 1000:g} ms</text>')
    for row, (name, who, value) in enumerate(bars):
        y = 26 + row * height
        label = f"{name}: {who}"
        colour = "#2a6f97" if who == "ours" else "#bbb"
        parts.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{max(1.0, place(value) - left):.1f}" height="{height - 5}" fill="{colour}"/>')
        parts.append(f'<text x="{max(left, place(value)) + 4:.1f}" y="{y + 11}">{value * 1000:.4g}</text>')
    size = f'width="{left + width + 80}" height="{40 + height * len(bars)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">' + "".join(parts) + "</svg>\n"


figures = load()
if not figures:
    sys.exit(f"report.py: no figures in {folder}: run tests/bench monitor, migrate or fence first")
text = markdown(figures)
for name, content in (("report.md", text), ("report.svg", plot(figures))):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        out.write(content)
print(text, end="")
