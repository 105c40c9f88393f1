"""The hash chain over the ledger's events: each row's hash covers the one before it.

Standard library only: this module lies on the way to a refusal.
"""

import sqlite3
from collections.abc import Callable
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
    return digest(text)


def digest(text: str) -> str:
    return str(sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


class Tip(NamedTuple):
    """The newest event."""

    seq: int
    hash: str


def fill(connection: sqlite3.Connection) -> Tip | None:
    """Give every event of the open transaction its hash; the last of them, None when there are none."""
    fresh = connection.execute(
        "SELECT seq, at, kind, subject, body FROM events WHERE hash IS NULL ORDER BY seq"
    ).fetchall()
    if not fresh:
        return None
    last = connection.execute("SELECT hash FROM events WHERE seq < ? ORDER BY seq DESC LIMIT 1", (fresh[0][0],))
    row = last.fetchone()
    before = row[0] if row else GENESIS
    for event in fresh:
        before = link(before, event)
        connection.execute("UPDATE events SET hash = ? WHERE seq = ?", (before, event[0]))
    return Tip(fresh[-1][0], before)


def begins(connection: sqlite3.Connection) -> Tip:
    """What the first event that is still walked follows: the newest anchor, or nothing at all."""
    row = connection.execute("SELECT seq, hash FROM anchors ORDER BY seq DESC LIMIT 1").fetchone()
    return Tip(*row) if row else Tip(0, GENESIS)


def verify(connection: sqlite3.Connection, tick: Callable[[int], object] = lambda _seq: None) -> Break | None:
    """Walk the chain from the newest anchor; the first place where it does not hold, or None.

    `tick` is called every thousand events, with where the walk is.
    """
    seq, before = begins(connection)
    expected = seq + 1
    for *event, found in connection.execute(
        "SELECT seq, at, kind, subject, body, hash FROM events WHERE seq > ? ORDER BY seq", (seq,)
    ):
        seq = event[0]
        if seq % 1000 == 0:
            tick(seq)
        if seq != expected:
            return Break(seq, f"event {expected} is missing")
        if found is None:
            return Break(seq, "has no hash")
        if found != link(before, tuple(event)):
            return Break(seq, "was changed after it was written")
        before, expected = found, seq + 1
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    if last and last[0] >= expected:
        return Break(expected, f"event {expected} is missing, and all after it")
    return None
