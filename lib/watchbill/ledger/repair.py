"""A damaged ledger made into one that can be used: every row that can be read, table by table, in a new file.

What was lost cannot be known, so nothing may spend until a person has looked: the new ledger begins with a hold on the
whole fleet. Sums are never smaller than what is left to add up. The damaged file is kept beside it.
"""

from __future__ import annotations

import glob
import os
import pathlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, NamedTuple

from watchbill.ledger import chain, db, migrate, problems, seal, verify, witness
from watchbill.ledger.turns import turn

#: The bytes of a header that are the same in every ledger of ours (https://sqlite.org/fileformat.html, "The Database
#: Header"); without them SQLite does not look at the rest.
_HEADER = {0: b"SQLite format 3\0\x10\x00\x02\x02\x00\x40\x20\x20", 44: b"\0\0\0\x04", 52: b"\0" * 4 + b"\0\0\0\x01",
           64: b"\0" * 28}  # fmt: skip


class Saved(NamedTuple):
    """What became of one table."""

    table: str
    rows: int
    lost: int | None  # by the ledger's own account; None: nobody can say how many there were
    why: str  # empty when every row was read


class Repaired(NamedTuple):
    """What was done."""

    damaged: str  # where the damaged ledger lies now
    tables: tuple[Saved, ...]
    anchored: int  # the chain begins anew after this event; 0: it is whole


def repair(path: str, author: str, now: int, alone: Callable[[], None] = lambda: None) -> Repaired:
    """Replace the ledger at `path`. `alone` raises if a firing of this host is live; from then on none can reserve.

    Nothing is changed until the new one is complete; killed at any point, either is there, or every agent is held.
    """
    path = os.path.realpath(path)
    with turn(path, witness.SUFFIX, db.BUSY_S) as lock:
        alone()
        damaged = migrate.unused(f"{path}.damaged-{now}")
        work = f"{path}.repair-{os.getpid()}"
        known = witness.read(path)
        try:
            _copy(path, work)
            fresh = f"{work}-new"
            os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            migrate.make(fresh)
            with closing(sqlite3.connect(fresh, isolation_level=None)) as into:
                tables, anchored = _fill(work, into, known, author, now)
                sealed = db.Ledger(fresh, into)
                with sealed.transaction():
                    seal.close(sealed)
                into.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                tip = chain.Tip(*into.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone())
            _replace(path, fresh, damaged)
            witness.write(lock, tip)
        except sqlite3.DatabaseError as error:
            with db.translated(path):
                raise error
        except OSError as error:
            raise problems.unusable(path, "cannot be repaired", str(error)) from error
        finally:
            _sweep(path)
    return Repaired(damaged, tables, anchored)


@contextmanager
def _log_kept(path: str) -> Iterator[None]:
    """While somebody reads, nobody who closes the ledger empties its log and removes it. Nothing is changed by us."""
    with ExitStack() as stack:
        with suppress(sqlite3.DatabaseError):  # gone, or too damaged to be opened: then nobody else opens it either
            reader = sqlite3.connect(f"{pathlib.Path(path).as_uri()}?mode=ro", uri=True, isolation_level=None)
            stack.callback(reader.close)
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        yield


def _copy(path: str, work: str) -> None:
    """Work on a copy: opening a ledger changes it. Its header is given back what is the same in every ledger."""
    with _log_kept(path):
        for suffix in ("", "-wal"):
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, work + suffix)
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(work)) as connection:
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        return
    with open(work, "r+b") as file:
        for offset, data in _HEADER.items():
            file.seek(offset)
            file.write(data)


def _fill(
    work: str, into: sqlite3.Connection, known: chain.Tip | None, author: str, now: int
) -> tuple[tuple[Saved, ...], int]:
    """Every row that can be read, past the triggers, which would write history a second time; then the hold."""
    triggers = into.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    names = [row[0] for row in into.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    into.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:
        into.execute(f"DROP TRIGGER {name}")
    into.execute("DELETE FROM seals")
    kept = [name for name in names if name not in ("migrations", "seals") and not name.startswith("sqlite_")]
    tables = tuple(_witnessed(into, _save(work, into, name), known) for name in kept)
    _sums(into)
    for _, text in triggers:
        into.execute(text)
    wrong = next(verify.rows(into), None)
    anchored = _anchor(into, wrong is not None, author, now)
    what = "; ".join(f"{t.table}: {_how_many(t)}" for t in tables if t.why) or "every row could be read"
    if wrong is not None:
        what += f"; {wrong.table} {wrong.row} {wrong.what}"
    into.execute(
        "INSERT INTO holds (scope, subject, kind, reason, author, since) VALUES ('fleet', '', 'repaired', ?, ?, ?)",
        (f"the ledger was repaired ({what}); look before you resume", author, now),
    )
    chain.fill(into)
    into.execute("COMMIT")
    return tables, anchored


def _how_many(table: Saved) -> str:
    return f"{'an unknown number' if table.lost is None else table.lost} lost, {table.rows} saved"


def _save(work: str, into: sqlite3.Connection, table: str) -> Saved:
    """One table, from both ends and around what cannot be read."""
    wanted = [row[1] for row in into.execute(f"PRAGMA table_info({table})")]
    rows, why = 0, ""
    try:
        with closing(sqlite3.connect(work, isolation_level=None)) as damaged:
            damaged.text_factory = lambda data: data.decode("utf-8", "replace")
            there = [row[1] for row in damaged.execute(f"PRAGMA table_info({table})")]
            columns = [name for name in wanted if name in there]
            if not columns:
                return Saved(table, 0, None, "the table itself cannot be found")
            put = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            for row, problem in _readable(damaged, table, columns):
                why = why or problem
                if row is not None:
                    try:
                        into.execute(put, row)
                    except (sqlite3.Error, UnicodeError) as error:
                        why = why or f"a row makes no sense: {error}"
    except sqlite3.DatabaseError as error:
        why = why or str(error)
    rows = into.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    return Saved(table, rows, None if why else 0, why)


def _readable(
    damaged: sqlite3.Connection, table: str, columns: list[str]
) -> Iterator[tuple[tuple[Any, ...] | None, str]]:
    """Rows, and what stood in the way of the others: forward, backward, then row by row over the gap."""
    listed = ", ".join(columns)
    key = _key(damaged, table)
    problem = ""
    for order in ("ASC", "DESC"):
        try:
            for row in damaged.execute(f"SELECT {listed} FROM {table} NOT INDEXED ORDER BY {key} {order}"):
                yield row, ""
        except (sqlite3.DatabaseError, UnicodeError) as error:
            problem = str(error)
            yield None, problem
        if not problem:
            return
    for row in _one_by_one(damaged, table, listed):
        yield row, ""


def _key(damaged: sqlite3.Connection, table: str) -> str:
    keys = sorted((row[5], row[1]) for row in damaged.execute(f"PRAGMA table_info({table})") if row[5])
    return ", ".join(name for _, name in keys) or "rowid"


def _one_by_one(damaged: sqlite3.Connection, table: str, listed: str) -> Iterator[tuple[Any, ...]]:
    """Of a table with row numbers, each by its own; a page that cannot be read costs only what is on it."""
    with suppress(sqlite3.DatabaseError):
        most = damaged.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        last = most[0] if most else 0
        with suppress(sqlite3.DatabaseError):
            last = max(last, damaged.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()[0] or 0)
        for number in range(1, min(last, 10_000_000) + 1):
            with suppress(sqlite3.DatabaseError, UnicodeError):
                yield from damaged.execute(f"SELECT {listed} FROM {table} NOT INDEXED WHERE rowid = ?", (number,))


def _witnessed(into: sqlite3.Connection, saved: Saved, known: chain.Tip | None) -> Saved:
    """Of the events it is known how many there were: they are numbered, and the newest is on record beside them."""
    if saved.table != "events":
        return saved
    last, count, first = into.execute(
        "SELECT COALESCE(MAX(seq), 0), COUNT(*), COALESCE(MIN(seq), 1) - 1 FROM events"
    ).fetchone()
    lost = max(last, known.seq if known else 0) - count - min(first, chain.begins(into).seq)
    if lost <= 0:
        return saved
    return saved._replace(lost=lost, why=saved.why or "what was committed last is not there")


def _sums(into: sqlite3.Connection) -> None:
    """Spend, made to agree with what is left. Whatever was once reserved or settled counts: never less than before."""
    orphan = "NOT EXISTS (SELECT 1 FROM grants AS g WHERE g.firing = r.firing AND g.try = r.try)"
    into.execute(f"UPDATE reservations AS r SET settled = COALESCE(settled, reserved) WHERE {orphan}")
    into.execute(
        "CREATE TEMP TABLE told AS SELECT scope, subject, period, unit, SUM(total) AS total, SUM(done) AS done,"
        " SUM(open) AS open FROM ("
        "   SELECT scope, subject, period, unit, settled + reserved AS total, 0 AS done, 0 AS open FROM spend"
        "   UNION ALL SELECT scope, subject, period, unit, 0, settled, 0 FROM spend_carried"
        "   UNION ALL SELECT scope, subject, period, unit, 0, COALESCE(settled, 0),"
        "                    CASE WHEN settled IS NULL THEN reserved ELSE 0 END"
        "             FROM reservations WHERE scope <> 'firing')"
        " GROUP BY scope, subject, period, unit"
    )
    into.execute("DELETE FROM spend")
    into.execute("DELETE FROM spend_carried")
    into.execute(
        "INSERT INTO spend (scope, subject, period, unit, settled, reserved, echo)"
        " SELECT scope, subject, period, unit, MAX(total - open, done), open,"
        " MAX(total - open, done) + 3 * open FROM told WHERE total + done + open > 0"
    )
    into.execute(f"DELETE FROM reservations AS r WHERE {orphan}")
    into.execute(
        "INSERT INTO spend_carried SELECT * FROM ("
        "   SELECT scope, subject, period, unit, s.settled - COALESCE((SELECT SUM(r.settled) FROM reservations AS r"
        "     WHERE r.scope = s.scope AND r.subject = s.subject AND r.period = s.period AND r.unit = s.unit), 0)"
        "   AS rest"
        "   FROM spend AS s) WHERE rest <> 0"
    )
    into.execute("DROP TABLE told")


def _anchor(into: sqlite3.Connection, contradicts: bool, author: str, now: int) -> int:
    """Where the chain does not hold any more it begins anew, after the last event that was saved."""
    last = into.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    if last is None or (not contradicts and chain.verify(into) is None):
        return 0
    if last[1] is None:
        into.execute("UPDATE events SET hash = ? WHERE seq = ?", (chain.GENESIS, last[0]))
        last = last[0], chain.GENESIS
    if chain.begins(into).seq < last[0]:
        into.execute("INSERT INTO anchors VALUES (?, ?, ?, ?, ?, ?)", (*last, now, now + 1, 0, f"repair by {author}"))
    return int(last[0])


def _replace(path: str, fresh: str, damaged: str) -> None:
    """In an order in which a kill leaves the damaged ledger, or one that its witness refuses, or the new one."""
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            os.link(path + suffix, damaged + suffix)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)
    os.rename(fresh, path)


def _sweep(path: str) -> None:
    """Remove the working copies, also those of a repair that was killed."""
    for name in glob.glob(f"{glob.escape(path)}.repair-*"):
        with suppress(FileNotFoundError):
            os.unlink(name)
