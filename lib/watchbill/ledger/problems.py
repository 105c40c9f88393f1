"""What can be wrong with a ledger, in an operator's words. One that cannot be used means held, never free.

Standard library only: this module lies on the way to a refusal.
"""

from __future__ import annotations

import os

from watchbill.errors import Fixable

#: With fewer bytes free than this, that is why.
_LITTLE = 1 << 16
#: What `ledger repair` is for.
_REPAIR = "`watchbill ledger repair` saves what can be read, and holds the fleet until you have looked"


def unreadable(path: str, why: str) -> Fixable:
    return Fixable("WB-LEDGER-01", f"{path}: the ledger cannot be read", why=why, fix=_REPAIR, outcome="held")


def empty(path: str) -> Fixable:
    return Fixable(
        "WB-LEDGER-01",
        f"{path}: the ledger cannot be read",
        why="it is empty: whatever was in it is lost, holds and spend included",
        fix=f"put a backup in its place, or begin anew, without its holds and spend: {_anew(path)}",
        outcome="held",
    )


def locked(path: str, seconds: float, why: str) -> Fixable:
    return Fixable(
        "WB-LEDGER-02",
        f"{path}: another process kept the ledger locked for {seconds:g} s",
        why=why,
        fix=f"find it with `fuser {path}` and let it finish; nothing was written",
        outcome="held",
    )


def unusable(path: str, how: str, why: str) -> Fixable:
    """`how`: cannot be written, may not be opened, ..."""
    parent = os.path.dirname(path)
    return Fixable(
        "WB-LEDGER-03",
        f"{path}: the ledger {how}{_room(parent)}",
        why="a directory lies in its place" if os.path.isdir(path) else why,
        fix=f"see `df -h {parent}` and `ls -la {parent}`; nothing was written, and the next firing tries again",
        outcome="held",
    )


def _anew(path: str) -> str:
    """Not `rm ledger.db*`: that takes the backups along."""
    return f"rm -f {path} {path}-wal {path}-shm {path}.queue"


def _room(directory: str) -> str:
    """SQLite says only `disk I/O error` when there is no room for its shared memory."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return ""
    free = disk.f_bavail * disk.f_frsize
    return f" (the disk is full: {free} bytes are free)" if free < _LITTLE else ""


def newer(path: str, found: int, known: int) -> Fixable:
    return Fixable(
        "WB-LEDGER-04",
        f"{path}: written by a newer Watchbill (schema {found}; this one knows {known})",
        fix="upgrade this program; two versions on one ledger would each misread the other",
    )


def network(path: str, kind: str) -> Fixable:
    return Fixable(
        "WB-LEDGER-06",
        f"{path}: the ledger would lie on a network file system ({kind})",
        why="SQLite's locks and write-ahead log need a local disk; two hosts would lose each other's holds and spend",
        fix="set WATCHBILL_HOME to a directory on a local disk; each host has a ledger of its own",
    )


def lost(path: str, why: str) -> Fixable:
    return Fixable(
        "WB-LEDGER-07",
        f"{path}: the ledger has lost what was written last",
        why=f"{why}: its file or its write-ahead log was removed, cut short, or put back from a backup",
        fix="`watchbill ledger repair` goes on from what is there, and holds the fleet until you have looked;"
        f" to begin anew, without its holds and spend: {_anew(path)}",
        outcome="held",
    )


def replaced(path: str) -> Fixable:
    return Fixable(
        "WB-LEDGER-08",
        f"{path}: the ledger was replaced or removed while this process had it open",
        fix="nothing was written; the next firing opens what is there now",
        outcome="held",
    )
