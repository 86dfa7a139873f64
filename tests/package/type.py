"""Types into an interactive shell as a person does: type.py LINE KEYS WORD... -- SHELL WORD...

LINE is given to the shell first, KEYS are typed then (\\t: the tabulator), and each WORD has to be shown within half a minute.
"""

import os
import pty
import select
import sys
import time

line, keys, *words = sys.argv[1 : sys.argv.index("--")]
shell = sys.argv[sys.argv.index("--") + 1 :]
child, terminal = pty.fork()
if child == 0:
    os.environ.update(TERM="dumb", PS1="", PROMPT="", COLUMNS="200")
    os.execvp(shell[0], shell)


def wait_for(wanted):
    """Reads until all of these were shown; what was shown."""
    seen, end = "", time.monotonic() + 30
    while not all(word in seen for word in wanted):
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit(f"{wanted} not shown within 30 s: {seen!r}")
        seen += os.read(terminal, 4096).decode(errors="replace")


# The sum is not in what is typed, so it is no echo.
os.write(terminal, f"{line}; echo ready $((20 + 22))\n".encode())
wait_for(["ready 42"])
os.write(terminal, keys.replace("\\t", "\t").encode())
wait_for(words)
os.kill(child, 9)
