"""The ledger's one seam: open, read by name, write in a transaction.

Every statement lives in `queries.sql`, every table in `schema/`. Writes happen in `BEGIN IMMEDIATE` only: a deferred
transaction that upgrades fails at once under load, whatever the busy timeout. Standard library only: this module lies
on the way to a refusal.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from watchbill.errors import Fixable
from watchbill.ledger import chain

#: The schema this program knows: the number of the last file in schema/.
VERSION = 2
BUSY_S = 15.0
_HERE = os.path.dirname(__file__)


def load_queries(text: str) -> dict[str, str]:
    """Named blocks: `-- name: what it is for` and the statement below it."""
    parts = re.split(r"^-- (\w+): .*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (body.strip() for body in parts[2::2]), strict=True))


def _read_queries() -> dict[str, str]:
    with open(os.path.join(_HERE, "queries.sql"), encoding="utf-8") as file:
        return load_queries(file.read())


class Ledger:
    """A connection to one host's ledger."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._queries = _read_queries()
        self._inside = False

    def rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of a named query. A read that fails raises Fixable with outcome "held": never an empty answer."""
        with _translated(self.path):
            return self._connection.execute(self._queries[name], values).fetchall()

    def row(self, name: str, /, **values: Any) -> tuple[Any, ...] | None:
        """The first row of a named query."""
        found = self.rows(name, **values)
        return found[0] if found else None

    def write(self, name: str, /, **values: Any) -> int:
        """Run a named statement inside a transaction; the number of rows it changed.

        A constraint that says no raises sqlite3.IntegrityError: the table's module knows what that means.
        """
        assert self._inside, f"{name}: a write outside transaction()"
        with _translated(self.path):
            return self._connection.execute(self._queries[name], values).rowcount

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing, serialised with every other writer of this host.

        `durable`: committed with synchronous=FULL, for what must survive a power cut (a claim's intent, a
        reservation). Those writers queue on a kernel lock first: SQLite's busy handler is not fair, and under a herd a
        process can win nothing for seconds.
        """
        if self._inside:  # joined to the transaction that is already open
            yield
            return
        with _translated(self.path), _queue(self.path if durable else None):
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            self._inside = True
            try:
                yield
                chain.fill(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._inside = False

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _queue(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    lock = os.open(path + ".queue", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)  # closing is what releases it


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """SQLite's errors as what they mean to an operator. A ledger that cannot be read means held, never free."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise Fixable(
                "WB-LEDGER-02",
                f"{path}: another process kept the ledger locked for {BUSY_S:.0f} s",
                why=text,
                fix="find it with `fuser " + path + "` and let it finish; nothing was written",
                outcome="held",
            ) from error
        if "full" in text or "disk I/O" in text or "readonly" in text or "unable to open" in text:
            raise Fixable(
                "WB-LEDGER-03",
                f"{path}: the ledger cannot be written",
                why=text,
                fix=f"see `df -h {os.path.dirname(path)}` and the permissions of that directory; nothing was written",
                outcome="held",
            ) from error
        if isinstance(error, sqlite3.OperationalError) and ("no such" in text or "syntax" in text):
            raise  # a mistake of ours
        raise Fixable(
            "WB-LEDGER-01",
            f"{path}: the ledger cannot be read",
            why=text,
            fix=f"stop the timers, keep a copy, and try `sqlite3 {path} .recover`; until then every agent is held",
            outcome="held",
        ) from error


def open_ledger(path: str) -> Ledger:
    """Open, creating or migrating as needed. Raises Fixable when it cannot be used (held) or is newer (invalid)."""
    if not os.path.exists(path):
        from watchbill.ledger import migrate

        migrate.create(path)
    with _translated(path):
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, cached_statements=256)
        try:
            connection.execute("PRAGMA synchronous=NORMAL")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if 0 < found < VERSION:
                from watchbill.ledger import migrate

                migrate.upgrade(path, connection, VERSION)
                found = connection.execute("PRAGMA user_version").fetchone()[0]
        except BaseException:
            connection.close()
            raise
    if found > VERSION:
        connection.close()
        raise Fixable(
            "WB-LEDGER-04",
            f"{path}: written by a newer Watchbill (schema {found}; this one knows {VERSION})",
            fix="upgrade this program; two versions on one ledger would each misread the other",
        )
    if found == 0:
        connection.close()
        raise Fixable(
            "WB-LEDGER-01",
            f"{path}: the ledger cannot be read",
            why="it is empty: whatever was in it is lost, holds and spend included",
            fix=f"put a backup in its place, or begin anew, without its holds and spend: rm {path}*",
            outcome="held",
        )
    return Ledger(path, connection)
