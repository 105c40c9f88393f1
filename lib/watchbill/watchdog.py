"""The watchdog of one firing: a small process that ends it when it takes longer than it may.

Run by path as `python -I -S watchdog.py PID STARTED BOOT LEFT GRACE FIRING LOG`; it leaves when its stdin ends, which
is when the runner does. After LEFT seconds the runner gets SIGALRM, and again every sixth of GRACE: it ends as by
SIGTERM (signals.py). After GRACE more it is killed, with its tree: the next firing finds it dead and settles for it.

A process of its own, and no thread: a runner that is stopped, or hangs in a regular expression or in the kernel's
arms, ends no thread's wait either. launchd has no limit on a job's time, so nothing else would end such a firing
there. Seconds are of a clock that stands still while the host sleeps (select(2) on CLOCK_MONOTONIC), as systemd's are.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

if __name__ == "__main__":
    # Appended, so that nothing beside the package can stand in for a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from watchbill import process
from watchbill.process import Identity

_ALRM, _KILL, _STOP = 14, 9, 19 if sys.platform == "linux" else 17  # the module `signal` is slow to import
_CALLS = 6
#: In the environment of everything that a firing starts: as engines/keeper.py has it.
_MARKER = "WATCHBILL_FIRING"


def main(args: list[str]) -> None:
    runner = Identity(int(args[0]), int(args[1]), args[2])
    left_s, grace_s, firing, log = float(args[3]), float(args[4]), args[5], args[6]
    if _ended_within(left_s):
        return
    for _ in range(_CALLS):
        process.tell(runner, _ALRM)
        if _ended_within(grace_s / _CALLS):
            return
    _say(log, firing, f"killed by its watchdog, with its tree: it still ran {grace_s:g} s after its deadline")
    _kill(runner, firing)


def _ended_within(seconds: float) -> bool:
    """Whether the runner leaves in this time: then its end of our stdin is closed."""
    return bool(select.select([0], [], [], max(seconds, 0))[0])


def _kill(runner: Identity, firing: str) -> None:
    """The whole tree, the runner last; first it is stopped, so that it starts nothing more."""
    process.tell(runner, _STOP)
    for pid in process.children(runner.pid):
        if pid != os.getpid():
            with contextlib.suppress(OSError):
                process.end_tree(process.identity(pid))
    process.end_marked(_MARKER, firing)
    process.tell(runner, _KILL)


def _say(log: str, firing: str, text: str) -> None:
    with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:
        file.write(f"{int(time.time())} {firing} {text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
