"""What one monitor is made of: parts.py FOLDER < results of measure.py for `contestants.py parts`.

Each part is the difference of two programs that were run side by side, the median over the turns. Prints a table and writes the figure
monitor-parts with "parts" in it.
"""

import json
import statistics
import sys

from figures import figure

PARTS = [
    ("a process at all: /bin/true", "true", None),
    ("our program: loading, environment, parameters", "validate-all", "true"),
    ("the connection: connect, authentication, open, close", "wire-connect", "true"),
    ("the question: look up, state", "wire", "wire-connect"),
]
cpu = {who: values["cpu"] for who, values in json.load(sys.stdin).items()}


def part(more, less):
    return statistics.median(a - b for a, b in zip(cpu[more], cpu[less] if less else [0.0] * len(cpu[more])))


rows = [(words, part(more, less)) for words, more, less in PARTS]
whole = statistics.median(cpu["ours"])
rows += [("the rest: state file, notes, deadlines", whole - sum(seconds for _, seconds in rows)), ("one monitor", whole)]
figure(sys.argv[1], "monitor-parts", "cpu", cpu, parts=dict(rows))
print("one monitor by parts, CPU")
for words, seconds in rows:
    print(f"{words:56}{seconds * 1000:>8.2f} ms{seconds / whole * 100:>6.0f} %")
