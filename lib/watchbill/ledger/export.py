"""Everything in the ledger, or what is new in it: flat objects of one moment; and a copy of the whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from watchbill.errors import Fixable
from watchbill.ledger import chain, migrate
from watchbill.ledger.db import Ledger, translated

#: The column that says when a row was made or last changed, as SQL that yields UTC epoch seconds. A table that is not
#: here has no time: its rows are always given.
_WHEN = {
    "firings": "COALESCE(ended, started)",
    "steps": "started_ms / 1000",
    "decisions": "at",
    "claims": "COALESCE(ended_at, won_at, 9e18)",
    "effects": "COALESCE(received_at, intended_at)",
    "grants": "COALESCE(settled_at, at)",
    "holds": "COALESCE(lifted_at, 9e18)",
    "evidence": "at",
    "base_checks": "at",
    "polls": "fetched_ms / 1000",
    "events": "at",
    "meters": "at",
    "programs": "asked_at",
}


def tables(ledger: Ledger) -> list[str]:
    """Every table, in the order of their names."""
    with ledger.snapshot() as connection:
        return [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
            )
        ]


def rows(ledger: Ledger, names: list[str], since: int | None = None) -> Iterator[dict[str, Any]]:
    """Every row of these tables as an object with its table's name, all of one moment; `since`: UTC epoch seconds."""
    with ledger.snapshot() as connection:
        for name in names:
            recent = f" WHERE {_WHEN[name]} >= {since}" if since is not None and name in _WHEN else ""
            found = connection.execute(f"SELECT * FROM {name}{recent}")
            columns = [column[0] for column in found.description]
            for row in found:
                yield {"table": name, **dict(zip(columns, row, strict=True))}


def backup(ledger: Ledger, target: str) -> None:
    """Copy the whole ledger, of one moment, while the fleet runs, to a new file `target`; then check the copy."""
    with translated(ledger.path):
        migrate.copy(ledger._connection, ledger.path, target)
    with translated(target), closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as copy:
        said = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
        broken = chain.verify(copy)
    if said != "ok" or broken is not None:
        why = said if broken is None else f"event {broken.seq} {broken.what}"
        fix = "`watchbill ledger verify` says what is wrong with the ledger itself"
        raise Fixable("WB-LEDGER-09", f"{target}: the copy is not whole", why=why, fix=fix, outcome="needs_human")
