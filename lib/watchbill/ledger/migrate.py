"""Creating and upgrading the ledger: numbered files, their digests on record, a backup before every upgrade."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sqlite3
import time
from contextlib import closing
from typing import NamedTuple

from watchbill.errors import Fixable
from watchbill.ledger import problems
from watchbill.ledger.turns import turn

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
    if sqlite3.sqlite_version_info < (3, 37):
        raise Fixable(
            "WB-LEDGER-05",
            f"SQLite {sqlite3.sqlite_version} is too old: STRICT tables need 3.37",
            fix="use a Python built with a newer SQLite",
        )
    aside = f"{path}.new-{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        refuse_network(path)
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise problems.unusable(path, "cannot be made", str(error)) from error
    try:
        make(aside)
        try:
            os.link(aside, path)
        except FileExistsError:
            pass  # another firing was first
    finally:
        os.unlink(aside)


def make(path: str) -> None:
    """All tables, in the file at `path`, which is there and empty."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _apply(connection, migrations())


def upgrade(path: str, connection: sqlite3.Connection, wanted: int, wait_s: float) -> None:
    """Bring an older ledger to this program's schema, after a backup beside it; by one firing, while others wait."""
    with turn(path, ".upgrade", 4 * wait_s):
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found >= wanted:
            return  # another firing was first
        recorded = connection.execute("SELECT MAX(number) FROM migrations").fetchone()[0]
        if recorded != found:
            raise problems.unreadable(path, f"it says that its schema is {found}, and that {recorded} was applied")
        copy(connection, path, unused(f"{path}.before-{wanted:04d}-{int(time.time())}"))
        _apply(connection, [m for m in migrations() if m.number > found])


def copy(connection: sqlite3.Connection, path: str, target: str) -> None:
    """A copy of the whole ledger at `path`, of one moment, that has its name only when it is complete and on the disk.

    Only its owner may read it. Fixable, held, when there is no room for it, and then nothing of it is left.
    """
    aside = f"{target}.part"
    try:
        os.close(os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
        try:
            connection.execute("VACUUM INTO ?", (aside,))
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
            os.rename(aside, target)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        raise problems.unusable(path, "cannot be copied", str(error)) from error


def unused(name: str) -> str:
    """This name, or one like it, that no file has: two upgrades may begin within one second."""
    return next(n for n in (name, *(f"{name}-{i}" for i in range(1, 10_000))) if not os.path.exists(n))


def schema(connection: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    """Every table, index and trigger, as it was written down."""
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


@functools.cache
def wanted() -> list[tuple[str, str, str | None]]:
    """The same of a ledger that the migrations have just made."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _apply(connection, migrations())
        return schema(connection)


#: File systems whose locks or shared memory do not reach from host to host, as /proc/self/mountinfo names them.
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|ncpfs|lustre|beegfs|gfs2|ocfs2|gpfs|glusterfs"
    r"|fuse\.(sshfs|glusterfs|ceph|s3fs|rclone|gcsfuse|davfs2?|smbnetfs|mfs|juicefs|.*nfs)"
)


def refuse_network(path: str, mounts: str = "/proc/self/mountinfo") -> None:
    """Fixable, invalid, when the directory of `path` lies on a network file system. Where nobody can say: passes."""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return  # macOS
    where = os.path.realpath(os.path.dirname(path))
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        at = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split()[4])
        if len(at) >= len(best) and (where == at or where.startswith(at.rstrip("/") + "/")):
            best, kind = at, right.split()[0]
    if _NETWORK.fullmatch(kind):
        raise problems.network(path, kind)


def _apply(connection: sqlite3.Connection, pending: list[Migration]) -> None:
    for migration in pending:
        # executescript commits what is open, so the transaction is part of the script.
        connection.executescript(
            "BEGIN IMMEDIATE;\n"
            + migration.text
            + f"\nINSERT INTO migrations VALUES ({migration.number}, '{migration.name}', '{migration.digest}',"
            + f" {int(time.time())});\nPRAGMA user_version={migration.number};\nCOMMIT;"
        )
