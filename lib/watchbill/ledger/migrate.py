"""Creating and upgrading the ledger: numbered files, their digests on record, a backup before every upgrade."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sqlite3
import time
from typing import NamedTuple

from watchbill.errors import Fixable

_SCHEMA = os.path.join(os.path.dirname(__file__), "schema")


class Migration(NamedTuple):
    """One file of schema/."""

    number: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration, in order."""
    found = []
    for name in sorted(os.listdir(_SCHEMA)):
        match = re.fullmatch(r"(\d{4})_\w+\.sql", name)
        assert match, f"schema/{name}: not NNNN_name.sql"
        with open(os.path.join(_SCHEMA, name), encoding="utf-8") as file:
            found.append(Migration(int(match[1]), name, file.read()))
    return found


def create(path: str) -> None:
    """A new, empty ledger. Made aside and linked into place, so that two first firings cannot both half-make it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if sqlite3.sqlite_version_info < (3, 37):
        raise Fixable(
            "WB-LEDGER-05",
            f"SQLite {sqlite3.sqlite_version} is too old: STRICT tables need 3.37",
            fix="use a Python built with a newer SQLite",
        )
    aside = f"{path}.new-{os.getpid()}"
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        connection = sqlite3.connect(aside, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _apply(connection, migrations())
        finally:
            connection.close()
        try:
            os.link(aside, path)
        except FileExistsError:
            pass  # another firing was first
    except sqlite3.DatabaseError as error:
        raise Fixable(
            "WB-LEDGER-03", f"{path}: the ledger cannot be made", why=str(error), fix="see `df -h`", outcome="held"
        ) from error
    finally:
        os.unlink(aside)


def upgrade(path: str, connection: sqlite3.Connection, wanted: int) -> None:
    """Bring an older ledger to this program's schema, after a backup beside it; by one firing, while others wait."""
    lock = os.open(path + ".upgrade", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found < wanted:  # else another firing was first
            backup = f"{path}.before-{wanted:04d}-{int(time.time())}"
            connection.execute("VACUUM INTO ?", (backup,))
            os.chmod(backup, 0o600)
            _apply(connection, [m for m in migrations() if m.number > found])
    finally:
        os.close(lock)  # closing is what releases it


def _apply(connection: sqlite3.Connection, pending: list[Migration]) -> None:
    for migration in pending:
        # executescript commits what is open, so the transaction is part of the script.
        connection.executescript(
            "BEGIN IMMEDIATE;\n"
            + migration.text
            + f"\nINSERT INTO migrations VALUES ({migration.number}, '{migration.name}', '{migration.digest}',"
            + f" {int(time.time())});\nPRAGMA user_version={migration.number};\nCOMMIT;"
        )
