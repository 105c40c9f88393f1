"""What a ledger is known to have held, in a file beside it: the newest event that was committed to outlive a power cut.

SQLite drops the rest of a damaged write-ahead log without a word, and a lost ledger is made anew, empty. Either would
turn a `stop`, a claim or a reservation into nothing at all. Whoever opens the ledger looks here whether that event is
still in it. Written under the lock of the durable writers, after their commit: never ahead of what is on the disk.

A file that makes no sense says nothing, as after a power cut in the moment it was made. Standard library only.
"""

from __future__ import annotations

import os

from watchbill.ledger.chain import Tip

#: Beside the ledger; its lock is what durable writers queue on.
SUFFIX = ".queue"
_LENGTH = 20 + 1 + 64 + 1


def read(path: str) -> Tip | None:
    """The newest event that the ledger at `path` must have, if that is on record."""
    try:
        fd = os.open(path + SUFFIX, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, _LENGTH)
    except OSError:
        return None
    finally:
        os.close(fd)
    seq, hash = text[:20], text[21:85]
    if len(text) != _LENGTH or not seq.isdigit() or not hash.isalnum() or text[-1:] != b"\n":
        return None
    return Tip(int(seq), hash.decode("ascii", "replace"))


def write(fd: int, tip: Tip) -> None:
    """Put it on record, through the descriptor of the lock that is held. No more than a hint is lost if it fails."""
    try:
        os.pwrite(fd, b"%020d %s\n" % (tip.seq, tip.hash.encode()), 0)
    except OSError:
        pass
