"""Is the ledger what was written? The file, the tables, the chain, the sums, and every row against its last event.

Read-only, in one read transaction, so that it may run while the fleet does. What no event says cannot be compared: the
columns that are checked stand in checks.sql, and what was pruned is out of reach.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from watchbill.errors import Fixable
from watchbill.ledger import chain, migrate, seal
from watchbill.ledger.db import Ledger, load_queries


class Break(NamedTuple):
    """Something that is not what was written."""

    table: str  # or `file`
    row: str  # its key, as a person would name it
    what: str


class Seen(NamedTuple):
    """What there was to look at."""

    events: int
    firings: int
    anchored: int  # the last event that the newest anchor stands for; 0 without one
    breaks: tuple[Break, ...]  # at most `most`, the first first


Tick = Callable[[str, int, int], object]  # what is looked at; how far it is, of how much


def verify(ledger: Ledger, tick: Tick = lambda *_: None, most: int = 20) -> Seen:
    """Everything, from the file up; a page that cannot be read is a break as well."""
    breaks: list[Break] = []
    with ledger.snapshot() as connection:
        for look in _LOOKS:
            try:
                for found in look(ledger, connection, tick):
                    breaks.append(found)
                    if len(breaks) == most:
                        break
            except sqlite3.DatabaseError as error:
                breaks.append(Break("file", look.__name__.strip("_"), str(error)))
            except Fixable as problem:
                breaks.append(Break("file", look.__name__.strip("_"), problem.why or problem.what))
            if len(breaks) >= most:
                break
        try:
            counts = [connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in ("events", "firings")]
            anchored = chain.begins(connection).seq
        except sqlite3.DatabaseError:
            counts, anchored = [0, 0], 0
    return Seen(counts[0], counts[1], anchored, tuple(breaks))


def _file(_ledger: Ledger, connection: sqlite3.Connection, tick: Tick) -> Iterator[Break]:
    tick("pages", 0, 1)
    for (said,) in connection.execute("PRAGMA integrity_check(5)"):
        if said != "ok":
            yield Break("file", "integrity_check", " ".join(said.split()))


def _schema(_ledger: Ledger, connection: sqlite3.Connection, _tick: Tick) -> Iterator[Break]:
    found, wanted = {row[:2]: row[2] for row in migrate.schema(connection)}, migrate.wanted()
    for kind, name, text in wanted:
        if (kind, name) not in found:
            yield Break("sqlite_schema", name, f"the {kind} is missing")
        elif found.pop((kind, name)) != text:
            yield Break("sqlite_schema", name, f"the {kind} is not as the migrations made it")
    for kind, name in found:
        if not name.startswith("sqlite_"):
            yield Break("sqlite_schema", name, f"no migration made this {kind}")
    files = [(m.number, m.name, m.digest) for m in migrate.migrations()]
    applied = connection.execute("SELECT number, name, digest FROM migrations ORDER BY number").fetchall()
    for wrong in sorted(set(files) ^ set(applied)):
        yield Break("migrations", wrong[1], "was applied in another form than the file has now")


def _chain(_ledger: Ledger, connection: sqlite3.Connection, tick: Tick) -> Iterator[Break]:
    total = connection.execute("SELECT MAX(seq) FROM events").fetchone()[0] or 0
    broken = chain.verify(connection, lambda seq: tick("events", seq, total))
    if broken is not None:
        yield Break("events", str(broken.seq), broken.what)


def _seal(ledger: Ledger, _connection: sqlite3.Connection, _tick: Tick) -> Iterator[Break]:
    try:
        seal.standing(ledger, 0)
    except Fixable as problem:
        yield Break("holds", "seal", problem.why)


def _rows(_ledger: Ledger, connection: sqlite3.Connection, tick: Tick) -> Iterator[Break]:
    yield from rows(connection, tick)


def rows(connection: sqlite3.Connection, tick: Tick = lambda *_: None) -> Iterator[Break]:
    """Every row that does not agree with the events on it, or with the rows that it is summed up from."""
    anchor = connection.execute("SELECT seq, before FROM anchors ORDER BY seq DESC LIMIT 1").fetchone() or (0, 0)
    checks = _checks()
    for number, (name, text) in enumerate(checks.items()):
        tick("rows", number, len(checks))
        table = name.partition("_")[0]
        values = {"anchored": anchor[0], "before": anchor[1]}
        try:
            for subject, what in connection.execute(text, {k: v for k, v in values.items() if f":{k}" in text}):
                yield Break(table, str(subject), what)
        except sqlite3.DatabaseError as error:
            yield Break(table, name, str(error))


def _checks() -> dict[str, str]:
    with open(os.path.join(os.path.dirname(__file__), "checks.sql"), encoding="utf-8") as file:
        return load_queries(file.read())


_LOOKS = (_file, _schema, _chain, _seal, _rows)
