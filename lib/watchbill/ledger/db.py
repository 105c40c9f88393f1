"""The ledger's one seam: open, read by name, write in a transaction.

Every statement lives in `queries.sql`, every table in `schema/`. Writes happen in `BEGIN IMMEDIATE` only: a deferred
transaction that upgrades fails at once under load, whatever the busy timeout. Standard library only: this module lies
on the way to a refusal.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from watchbill.ledger import chain, problems, seal, witness
from watchbill.ledger.turns import turn

#: The schema this program knows: the number of the last file in schema/.
VERSION = 7
#: The release of the library that this Python was built with.
SQLITE = sqlite3.sqlite_version_info
#: For how long another process may keep the ledger locked; read when it is needed.
BUSY_S = 15.0
# SQLite's primary result codes (https://sqlite.org/rescode.html).
_ERROR, _PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _FULL, _CANTOPEN = 1, 3, 5, 6, 8, 10, 13, 14
_UNUSABLE = {
    _PERM: "may not be used",
    _READONLY: "may not be written",
    _IOERR: "cannot be read or written",
    _FULL: "cannot be written",
    _CANTOPEN: "cannot be opened",
}
_HERE = os.path.dirname(__file__)


def load_queries(text: str) -> dict[str, str]:
    """Named blocks: `-- name: what it is for` and the statement below it."""
    parts = re.split(r"^-- (\w+): .*$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (body.strip() for body in parts[2::2]), strict=True))


def _read_queries() -> dict[str, str]:
    return load_queries(_text_of_queries())


def _text_of_queries() -> str:
    with open(os.path.join(_HERE, "queries.sql"), encoding="utf-8") as file:
        return file.read()


class _Queries(dict[str, str]):
    """The same, each found when it is wanted: a refusal wants ten of some two hundred."""

    def __init__(self) -> None:
        self._text = "\n" + _text_of_queries()

    def __missing__(self, name: str) -> str:
        start = self._text.index("\n", self._text.index(f"\n-- {name}: ") + 1)
        end = self._text.find("\n-- ", start)
        self[name] = self._text[start : end if end > 0 else None].strip()
        return self[name]


class Refused(Exception):
    """The database itself says no: a constraint or a trigger; its text says which."""


class Ledger:
    """A connection to one host's ledger."""

    _file: tuple[int, int] | None = None  # device and inode of what was opened
    _holds_moved = False

    def __init__(self, path: str, connection: sqlite3.Connection, file: tuple[int, int] | None = None) -> None:
        self.path = path
        self._connection = connection
        self._queries = _Queries()
        self._inside = False
        self._file = file

    def rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of a named query. A read that fails raises Fixable with outcome "held": never an empty answer."""
        with translated(self.path, self._connection):
            return self._connection.execute(self._queries[name], values).fetchall()

    def row(self, name: str, /, **values: Any) -> tuple[Any, ...] | None:
        """The first row of a named query."""
        found = self.rows(name, **values)
        return found[0] if found else None

    def write(self, name: str, /, **values: Any) -> int:
        """Run a named statement inside a transaction; the number of rows it changed.

        A constraint that says no raises Refused: the table's module knows what that means.
        """
        assert self._inside, f"{name}: a write outside transaction()"
        self._holds_moved |= name.startswith("hold_")
        with translated(self.path, self._connection):
            return self._connection.execute(self._queries[name], values).rowcount

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing, serialised with every other writer of this host.

        `durable`: committed with synchronous=FULL, for what must survive a power cut (a claim's intent, a
        reservation, a hold), and witnessed: see witness.py. Those writers queue on a kernel lock first: SQLite's busy
        handler is not fair, and under a herd a process can win nothing for seconds.
        """
        if self._inside:  # joined to the transaction that is already open
            yield
            return
        with translated(self.path, self._connection), _queue(self.path if durable else None) as queue:
            if queue is not None:
                self._is_still_there()
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            self._inside, self._holds_moved = True, False
            try:
                yield
                if self._holds_moved:
                    seal.close(self)
                tip = chain.fill(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._inside = False
            if queue is not None and tip is not None:
                witness.write(queue, tip)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """One read transaction, for the modules of this package: whatever is read inside is of one moment."""
        with translated(self.path, self._connection):
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Empty the write-ahead log into the file, as far as that keeps nobody waiting."""
        with translated(self.path, self._connection):
            self._connection.execute("PRAGMA busy_timeout=200")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")

    def _is_still_there(self) -> None:
        """What is written to a file that has lost its name is lost with it."""
        if self._file is not None and _identity(self.path) != self._file:
            raise problems.replaced(self.path)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _queue(path: str | None) -> Iterator[int | None]:
    """The lock of the durable writers, as its descriptor. BUSY_S is how long they wait, as for SQLite's own lock."""
    if path is None:
        yield None
        return
    with turn(path, witness.SUFFIX, BUSY_S) as lock:
        yield lock


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def translated(path: str, connection: sqlite3.Connection | None = None) -> Iterator[None]:
    """SQLite's errors as what they mean to an operator, by their code and never by their words."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        if "damaged" in str(error):  # what a trigger of ours says of a row that contradicts itself
            raise problems.unreadable(path, str(error)) from error
        raise Refused(str(error)) from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
            raise problems.unreadable(path, str(error)) from error  # the module's own: a text that is no UTF-8
        code = getattr(error, "sqlite_errorcode", _ERROR) & 0xFF
        if code in (_BUSY, _LOCKED):
            raise problems.locked(path, BUSY_S, str(error)) from error
        if code in _UNUSABLE:
            raise problems.unusable(path, _UNUSABLE[code], str(error)) from error
        if code == _ERROR and not _schema_is_damaged(connection):
            raise  # a mistake of ours
        raise problems.unreadable(path, str(error)) from error


def _schema_is_damaged(connection: sqlite3.Connection | None) -> bool:
    """Of a statement that does not fit the tables: is that the tables' fault?"""
    if connection is None:
        return False
    from watchbill.ledger import migrate

    try:
        return migrate.schema(connection) != migrate.wanted()
    except sqlite3.DatabaseError:
        return True


def open_ledger(path: str) -> Ledger:
    """Open, creating or migrating as needed. Raises Fixable when it cannot be used (held) or is newer (invalid)."""
    if os.path.islink(path):
        if not os.path.exists(path):
            raise problems.unusable(path, "cannot be opened", "it links to what is not there, as a disk that is away")
        path = os.path.realpath(path)  # SQLite keeps its log beside the file, not beside a link to it
    known = witness.read(path)
    file = _identity(path)
    if file is None:
        file = _create(path, known)
    with translated(path):
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, cached_statements=256)
    try:
        with translated(path, connection):
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA cell_size_check=ON")  # a page that makes no sense is noticed when it is read
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found != VERSION:
                _upgrade(path, connection, found)
            if known is not None and not _has(connection, known):
                raise problems.lost(path, f"event {known.seq} was committed, and is not in it")
    except BaseException:
        connection.close()
        raise
    return Ledger(path, connection, file)


@contextmanager
def as_it_lies(path: str) -> Iterator[Ledger | None]:
    """To read only, whatever its version: nothing is made or upgraded. None: there is none."""
    if not os.path.exists(path):
        yield None
        return
    with translated(path):
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        yield Ledger(path, connection)
    finally:
        connection.close()


def _create(path: str, known: chain.Tip | None) -> tuple[int, int] | None:
    if known is not None:
        raise problems.lost(path, "it is gone")
    from watchbill.ledger import migrate

    with translated(path):
        migrate.create(path)
    return _identity(path)


def _upgrade(path: str, connection: sqlite3.Connection, found: int) -> None:
    if found > VERSION:
        raise problems.newer(path, found, VERSION)
    if found <= 0:
        raise problems.empty(path)
    from watchbill.ledger import migrate

    migrate.upgrade(path, connection, VERSION, BUSY_S)


def _has(connection: sqlite3.Connection, known: chain.Tip) -> bool:
    """Whether an event is in the ledger, or was pruned from it."""
    row = connection.execute("SELECT hash FROM events WHERE seq = ?", (known.seq,)).fetchone()
    return row == (known.hash,) or (row is None and chain.begins(connection).seq >= known.seq)
