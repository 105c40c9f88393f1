"""Time, passed in: the core is given a clock and never asks the system for one.

Standard library only: this module lies on the way to a refusal.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the program may know about time."""

    def now(self) -> float:
        """UTC epoch in seconds; the ledger keeps `int(now())`."""

    def elapsed(self) -> float:
        """Seconds on this host's own clock that counts sleep and never jumps; comparable within one boot only."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


def moment(at: int) -> str:
    """A point in time as people write it, in this host's zone: 2026-11-21 14:05:09 +0100."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


class SystemClock:
    """The clock of this host."""

    def now(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        # CLOCK_BOOTTIME counts suspend (clock_gettime(2)); macOS' CLOCK_MONOTONIC does too (its man page).
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
