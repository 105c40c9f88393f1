"""One after the other: a kernel lock that is waited for, but not for ever. Standard library only.

A blocking flock(2) has no end: one process that was stopped in the middle would keep a whole fleet waiting, without a
word. So it is asked for again and again, at first every millisecond.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from watchbill.ledger import problems

_FIRST_S, _LONGEST_S = 0.001, 0.003


@contextmanager
def turn(path: str, suffix: str, wait_s: float) -> Iterator[int]:
    """Hold the lock that lies beside the ledger at `path`; its descriptor. Fixable, held, when it is not to be had."""
    try:
        lock = os.open(path + suffix, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise problems.unusable(path, "cannot be written", str(error)) from error
    try:
        until, pause = time.monotonic() + wait_s, _FIRST_S
        while not _taken(lock):
            if time.monotonic() >= until:
                raise problems.locked(path + suffix, wait_s, "it is what whoever writes to the ledger waits for")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_S)
        yield lock
    finally:
        os.close(lock)  # closing is what releases it


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
