"""Locks that the kernel releases when their holder dies, however it dies.

The gate only probes, with fcntl: this module lies on the way to a refusal, and filelock (which brings asyncio along)
is imported by whoever really takes a lock. Descriptors are not inherited (PEP 446), so no engine or git left behind
keeps a dead firing's lock. Lock files stay where they are: one that is unlinked under flock(2) lets two hold it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from watchbill.errors import Fixable

_POLL_S = 0.005


class Busy(Exception):
    """Another process holds the lock at this path."""


@contextmanager
def agent_lock(path: str, timeout_s: float = 0.2) -> Iterator[None]:
    """One firing an agent a host. Busy when held; the short wait is for probes, which hold it for an instant."""
    with _held(path, timeout_s):
        yield


@contextmanager
def mirror_lock(path: str, timeout_s: float) -> Iterator[None]:
    """One writer a mirror. Busy when it was not to be had in time."""
    with _held(path, timeout_s):
        yield


def held(path: str) -> bool:
    """Does another process hold it? Only looks: no file is made, nobody is kept waiting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)  # releases it
    return False


@contextmanager
def _held(path: str, timeout_s: float) -> Iterator[None]:
    from filelock import Timeout, UnixFileLock

    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    lock: Any = UnixFileLock(path, timeout=timeout_s)
    try:
        lock.acquire(poll_interval=_POLL_S)
    except Timeout as busy:
        raise Busy(path) from busy
    try:
        _is_of_the_kernel(lock, path)
        yield
    finally:
        lock.release()


def _is_of_the_kernel(lock: Any, path: str) -> None:
    """Where flock(2) is missing, filelock turns itself into a file that outlives its holder: not what we promise."""
    if type(lock).__name__ != "UnixFileLock":
        raise Fixable("WB-LOCK-01", f"{path}: its file system has no kernel locks",
                      fix="put WATCHBILL_HOME on a local disk", outcome="unavailable")  # fmt: skip
