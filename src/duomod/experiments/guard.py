"""Ends the steps of a process that was killed. Run as a script, with nothing but the standard library.

Reads ``+<number>`` and ``-<number>`` lines: process groups that have begun and ended. When the writer is gone, however
it ended, the leaders of the groups left are asked to stop (a training saves its state); then the rest is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

#: Seconds that a step has to finish what it is at: a training the running step or validation.
GRACE = 60.0


def end(groups: Iterable[int], grace: float = GRACE) -> None:
    """Ask the leaders of process groups to stop, wait for them, then kill all that is left of the groups."""
    groups = list(groups)
    for leader in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(leader, signal.SIGTERM)
    latest = time.monotonic() + grace
    while any(_is_running(leader) for leader in groups) and time.monotonic() < latest:
        time.sleep(0.05)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A zombie has ended; nobody may be there to collect it.
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return not Path("/proc/self/stat").exists()
    return text[text.rindex(")") + 2] != "Z"


def main() -> None:
    """Keep account of the groups until the writer is gone."""
    # Ctrl-C in a terminal and the end of a session reach everyone in it; this process must outlive the others.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    end(groups)


if __name__ == "__main__":
    main()
