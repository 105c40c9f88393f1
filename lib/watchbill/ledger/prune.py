"""Old history goes; what reports and proofs need stays, and the chain still holds.

Stays whatever its age: spend (with what its pruned reservations had settled, in `spend_carried`), every issue's newest
won claim with its firing's row, the effects of that generation, attempts, holds that stand, and everything of a firing
that has not ended, holds a claim or has an open reservation. In short transactions, each of which leaves a ledger that
verifies, so that it may be killed at any point and no writer waits for it longer than for another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from watchbill.ledger import claims, effects
from watchbill.ledger.db import Ledger

#: A transaction ends after so long; then it is the others' turn, for longer: SQLite has who waits look again only now
#: and then.
_SLICE_S = 0.008
_PAUSE_S = 0.02
#: What a firing leaves behind, besides its own row and its claim; each a statement `prune_<name>`.
_LEFT = ("steps", "decisions", "evidence", "reservations", "grants", "meters", "claims", "firing")
#: A file of bytes that no row names may belong to a row that is just being written.
_YOUNG_S = 86400


class Pruned(NamedTuple):
    """What went, or would go."""

    events: int
    firings: int
    holds: int
    base_checks: int
    blobs: int
    blob_bytes: int
    free_pages: int  # of the file, to be used again


def prune(
    ledger: Ledger, blobs: str, before: int, now: int, who: str, *, dry_run: bool = False,
    tick: Callable[[str, int], object] = lambda *_: None, spared: frozenset[str] = frozenset(),
) -> Pruned:  # fmt: skip
    """Remove what ended before `before` (UTC epoch seconds); `blobs` is the directory of the evidence's bytes.

    `spared`: firings that left something which nobody has looked after yet, and whose history says what it is.
    """
    events = _anchor(ledger, before, now, who, dry_run)
    before = min(before, _anchored(ledger)) if not dry_run else before
    firings = _firings(ledger, before, spared, dry_run, tick)
    rows = _count(ledger, "holds", before), _count(ledger, "base_checks", before)
    if not dry_run:
        with ledger.transaction(durable=True):
            ledger.write("hold_prune", before=before)
            ledger.write("prune_base_checks", before=before)
        _events(ledger, tick)
    files, size = _blobs(ledger, blobs, now, dry_run)
    return Pruned(events, firings, *rows, files, size, 0 if dry_run else _checkpoint(ledger))


def _anchored(ledger: Ledger) -> int:
    row = ledger.row("anchor_newest")
    return row[1] if row else 0


def _anchor(ledger: Ledger, before: int, now: int, who: str, dry_run: bool) -> int:
    """Let one row stand for the events older than `before`, without gaps, from the beginning; how many."""
    if dry_run:
        _, _, count = _prefix(ledger, before)
        return count
    with ledger.transaction():
        pass  # events that somebody wrote past this program get their place in the chain
    with ledger.transaction(durable=True):  # another prune may be at it
        seq, hash, count = _prefix(ledger, before)
        if count:
            ledger.write("anchor_put", seq=seq, hash=hash, at=now, before=before, count=count, who=who)
    return count


def _prefix(ledger: Ledger, before: int) -> tuple[int, str, int]:
    """The last of the events that may go, its hash, and how many there are beyond the newest anchor."""
    newest = ledger.row("anchor_newest")
    first = ledger.row("event_first_since", after=newest[0] if newest else 0, before=before)
    last = ledger.row("event_before", seq=first[0]) if first else ledger.row("event_last")
    if last is None or (newest and last[0] <= newest[0]):
        return 0, "", 0
    return last[0], last[1], int(last[0]) - (newest[0] if newest else 0)


def _events(ledger: Ledger, tick: Callable[[str, int], object]) -> None:
    """Delete what the newest anchor stands for; also what an earlier prune that was killed left of it."""
    newest = ledger.row("anchor_newest")
    gone, more = 0, newest is not None
    while more and newest is not None:
        with _slice(ledger) as goes_on:
            while more and goes_on():
                deleted = ledger.write("prune_events", seq=newest[0], most=200)
                gone, more = gone + deleted, deleted > 0
        tick("events", gone)


def _firings(
    ledger: Ledger, before: int, spared: frozenset[str], dry_run: bool, tick: Callable[[str, int], object]
) -> int:
    """The firings that ended before, with all they left; how many rows of `firings` went."""
    after, gone = "", 0
    while found := [row[0] for row in ledger.rows("prune_candidates", after=after, before=before, most=200)]:
        ids, done = [id for id in found if id not in spared], 0
        while done < len(ids):
            if dry_run:
                gone += sum(bool(ledger.row("prune_would", firing=id)) for id in ids)
                done = len(ids)
                continue
            with _slice(ledger) as goes_on:
                while done < len(ids) and goes_on():
                    gone += _firing(ledger, ids[done])
                    done += 1
            tick("firings", gone)
        after = found[-1]
    return gone


def _firing(ledger: Ledger, id: str) -> int:
    """One firing; 1 if its own row went, 0 if it stays for the sake of its claim."""
    for effect in effects.of_firing(ledger, id):
        repo_id, number, generation = effect.key.split("/")[:3]
        newest = claims.last_won(ledger, int(repo_id), int(number))
        if newest is not None and newest.generation > int(generation):
            ledger.write("prune_effect", key=effect.key)
    for name in _LEFT:
        changed = ledger.write(f"prune_{name}", firing=id)
    return changed


@contextmanager
def _slice(ledger: Ledger) -> Iterator[Callable[[], bool]]:
    """A short transaction, and a pause after it in which others get theirs."""
    with ledger.transaction():
        until = time.monotonic() + _SLICE_S
        yield lambda: time.monotonic() < until
    time.sleep(_PAUSE_S)


def _count(ledger: Ledger, table: str, before: int) -> int:
    row = ledger.row(f"prune_count_{table}", before=before)
    return int(row[0]) if row else 0


def _blobs(ledger: Ledger, root: str, now: int, dry_run: bool) -> tuple[int, int]:
    """Bytes that no row names any more: how many files, how large. Whoever names them again writes them again."""
    count = size = 0
    for path, digest in list(_files(root)):
        try:
            found = os.stat(path)
            if found.st_mtime > now - _YOUNG_S:
                continue
            if dry_run:
                gone = not _referenced(ledger, digest)
            else:
                with ledger.transaction():  # nobody can come to name it meanwhile
                    gone = not _referenced(ledger, digest)
                    if gone:
                        os.unlink(path)
        except FileNotFoundError:
            continue
        count, size = count + gone, size + gone * found.st_size
    return count, size


def _referenced(ledger: Ledger, digest: str) -> bool:
    return bool(ledger.row("evidence_with", digest=digest) or ledger.row("base_check_with", digest=digest))


def _files(root: str) -> Iterator[tuple[str, str]]:
    """Every file below blobs/ with the digest that it is named by; a half-written one has a suffix."""
    for directory, _, names in os.walk(root):
        for name in names:
            yield os.path.join(directory, name), name.partition(".")[0]


def _checkpoint(ledger: Ledger) -> int:
    """Empty the write-ahead log, if nobody reads; the pages of the file that are free."""
    with ledger.snapshot() as connection:
        free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    ledger.checkpoint()
    return free
