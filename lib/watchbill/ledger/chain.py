"""The hash chain over the ledger's events: each row's hash covers the one before it.

Standard library only: this module lies on the way to a refusal.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

# hashlib loads OpenSSL, which alone costs a refused firing a tenth of its time; CPython's own modules are the same
# function (hashlib falls back to them itself: Lib/hashlib.py).
try:
    from _sha2 import sha256  # 3.12 and newer
except ImportError:
    try:
        from _sha256 import sha256  # 3.11
    except ImportError:
        from hashlib import sha256

GENESIS = "0" * 64


class Break(NamedTuple):
    """Where a chain does not hold."""

    seq: int
    what: str


def link(before: str, row: tuple[Any, ...]) -> str:
    """The hash of an event row (seq, at, kind, subject, body), given the hash before it."""
    seq, at, kind, subject, body = row
    text = "\x1f".join((before, str(seq), str(at), kind, subject, body))
    return str(sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def fill(connection: sqlite3.Connection) -> None:
    """Give every event of the open transaction its hash."""
    fresh = connection.execute(
        "SELECT seq, at, kind, subject, body FROM events WHERE hash IS NULL ORDER BY seq"
    ).fetchall()
    if not fresh:
        return
    last = connection.execute("SELECT hash FROM events WHERE seq < ? ORDER BY seq DESC LIMIT 1", (fresh[0][0],))
    row = last.fetchone()
    before = row[0] if row else GENESIS
    for event in fresh:
        before = link(before, event)
        connection.execute("UPDATE events SET hash = ? WHERE seq = ?", (before, event[0]))


def verify(connection: sqlite3.Connection) -> Break | None:
    """Walk the chain; the first place where it does not hold, or None."""
    before = GENESIS
    expected = None
    for *event, found in connection.execute("SELECT seq, at, kind, subject, body, hash FROM events ORDER BY seq"):
        seq = event[0]
        if expected is not None and seq != expected:
            return Break(seq, f"event {expected} is missing")
        if found is None:
            return Break(seq, "has no hash")
        if found != link(before, tuple(event)):
            return Break(seq, "was changed after it was written")
        before, expected = found, seq + 1
    return None
