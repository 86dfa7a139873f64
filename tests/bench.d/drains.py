"""The figures of `tests/bench drain`: drains.py FOLDER GUESTS OURS THEIRS, the results of drain.py for both agents. Prints the table.

drain-GUESTS is the whole time without migration-limit, drain-GUESTS-limited with it; NAME-pause the longest pauses of the guests that beat.
"""

import json
import sys

from figures import figure

folder, guests = sys.argv[1:3]
seen = {}
for who, path in zip(("ours", "virtualdomain"), sys.argv[3:]):
    with open(path, encoding="utf-8") as text:
        seen[who] = json.load(text)
print(f"a node drained of {guests} guests by Pacemaker")
print(f"{'':32}{'time':>9}{'longest pause':>15}{'peak of moves':>15}{'restarted':>11}{'left':>6}{'failures':>10}")
for way, name in zip(seen["ours"], (f"drain-{guests}", f"drain-{guests}-limited")):
    for who, ways in seen.items():
        one = ways[way]
        pauses = [pause for pause in one["pauses"].values() if pause is not None]
        worst = f"{max(pauses) * 1000:.0f} ms" if pauses else "?"
        print(f"{who + ', ' + way:32}{one['wall']:>7.1f} s{worst:>15}{one['peak']:>15}{len(one['rebooted']):>11}{len(one['left']):>6}{one['failed']:>10}")
    figure(folder, name, "wall", {who: [ways[way]["wall"]] for who, ways in seen.items()}, peaks={who: ways[way]["peak"] for who, ways in seen.items()})
    pauses = {who: [pause for pause in ways[way]["pauses"].values() if pause is not None] for who, ways in seen.items()}
    if all(pauses.values()):
        figure(folder, f"{name}-pause", "pause", pauses)
