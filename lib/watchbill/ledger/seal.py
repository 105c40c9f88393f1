"""The seal on the holds: a hold that a damaged disk swallowed must not look like one that ended.

SQLite notices a page that makes no sense, not a byte inside a value, or an index entry that is gone: a `fleet` that has
become `gleet` holds nobody. So whoever writes a hold also writes a digest of all that then stood, and whoever reads
them compares. Both are small: what was over when the last hold was written is not in it. A row changed by hand, past
this program, breaks the seal openly (a trigger empties it) and is read as it is. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from watchbill.ledger import chain, problems

# Columns of the query `holds_standing`.
_ID, _UNTIL, _HEALS, _LIFTED_AT, _EASES_UNTIL = 0, 7, 9, 13, 14


class Table(Protocol):
    """What is needed of a Ledger."""

    path: str

    def rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]: ...

    def write(self, name: str, /, **values: Any) -> int: ...


def standing(ledger: Table, now: int) -> list[tuple[Any, ...]]:
    """The rows of `holds_standing` at `now`, if they are what was written; else Fixable, held."""
    found = ledger.rows("seal_get")
    since, digest = found[0] if found else (0, None)
    rows = ledger.rows("holds_standing", now=min(now, since))  # also after the clock was set back
    whole = (digest is None and bool(found)) or _digest(rows, since) == (digest or _digest([], since))
    if not whole:
        why = "its holds are not those that were written: a byte of them was changed behind the program's back"
        raise problems.unreadable(ledger.path, why)
    return sorted(row for row in rows if _stands(row, now))


def close(ledger: Table) -> None:
    """Seal what stands now; inside the transaction that changed it."""
    newest = ledger.rows("hold_newest")
    since = newest[0][0] if newest else 0
    rows = ledger.rows("holds_standing", now=since)
    ledger.write("seal_put", since=since, digest=_digest(rows, since))


def _stands(row: tuple[Any, ...], at: int) -> bool:
    """Whether `holds_standing` would list this row at that time."""
    if row[_LIFTED_AT] is None:
        return row[_UNTIL] is None or row[_UNTIL] > at or row[_HEALS] == 1
    return row[_EASES_UNTIL] is not None and row[_EASES_UNTIL] > at


def _digest(rows: Iterable[tuple[Any, ...]], since: int) -> str:
    listed = sorted((row for row in rows if _stands(row, since)), key=lambda row: int(row[_ID]))
    return chain.digest(repr(listed))
