"""How a process keeps account of what it may spend: by reservation, and the two naive ways seen in the field."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from watchbill.ledger import db, reservations
from watchbill.ledger.reservations import AboveCap, Reservation, Spent, Subjects
from watchbill.money import UNITS

Used = Mapping[str, int]
Caps = Mapping[tuple[str, str], int]


class Books(Protocol):
    """`reserve` raises AboveCap; `settle` and `dead` say whether they recorded anything."""

    def reserve(self, whose: Subjects, worst: Used, caps: Caps) -> None: ...
    def settle(self, whose: Subjects, used: Used, basis: str) -> bool: ...
    def open_of(self, process: str) -> list[str]: ...
    def bury(self, firing: str, stream: Used, whole: bool) -> bool: ...


class Reserving:
    """Ours."""

    def __init__(self, root: str) -> None:
        self.ledger = db.open_ledger(os.path.join(root, "ledger.db"))

    def reserve(self, whose: Subjects, worst: Used, caps: Caps) -> None:
        with self.ledger.transaction(durable=True):
            reservations.reserve(self.ledger, whose, worst, caps, 0)

    def settle(self, whose: Subjects, used: Used, basis: str) -> bool:
        with self.ledger.transaction():
            return reservations.settle(self.ledger, whose.firing, used, basis, 1)

    def open_of(self, process: str) -> list[str]:
        rows = self.ledger._connection.execute(
            "SELECT firing FROM grants WHERE firing >= ? AND firing < ? AND settled_at IS NULL",
            (f"{process}-", f"{process}."),
        )
        return [row[0] for row in rows]

    def bury(self, firing: str, stream: Used, whole: bool) -> bool:
        """At what its stream shows; or at the whole reservation, of which an overspender's stream may show more."""
        with self.ledger.transaction():
            held = {r.unit: r.reserved for r in reservations.open_of(self.ledger, firing) if r.scope == "firing"}
            used = {unit: max(held.get(unit, 0), stream[unit]) for unit in UNITS} if whole else stream
            return bool(held) and reservations.settle(
                self.ledger, firing, used, "reservation" if whole else "engine", 2
            )


class _Key(NamedTuple):
    scope: str
    subject: str
    period: str
    unit: str


def keys(whose: Subjects) -> list[_Key]:
    against = (
        ("issue", whose.issue, ""),
        ("day", whose.agent, whose.day),
        ("fleet_day", "fleet", whose.day),
        ("fleet_month", "fleet", whose.month),
    )
    return [_Key(*which, unit) for which in against for unit in UNITS]


class CheckThenSpend:
    """Checked in SQLite before, added up in a transaction after: what several systems in the field do."""

    def __init__(self, root: str) -> None:
        path = os.path.join(root, "naive.db")
        self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS spend (key TEXT PRIMARY KEY, settled INTEGER)")

    def _settled(self, key: _Key) -> int:
        row = self.connection.execute("SELECT settled FROM spend WHERE key = ?", ("|".join(key),)).fetchone()
        return row[0] if row else 0

    def reserve(self, whose: Subjects, worst: Used, caps: Caps) -> None:
        for key in keys(whose):
            cap, settled = caps[key.scope, key.unit], self._settled(key)
            if settled + worst[key.unit] > cap:
                raise AboveCap(Reservation(whose.firing, *key, cap, worst[key.unit]), Spent(settled, 0))

    def settle(self, whose: Subjects, used: Used, basis: str) -> bool:  # noqa: ARG002
        self.connection.execute("BEGIN IMMEDIATE")
        for key in keys(whose):
            self.connection.execute(
                "INSERT INTO spend VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET settled = settled + excluded.settled",
                ("|".join(key), used[key.unit]),
            )
        self.connection.execute("COMMIT")
        return True

    def open_of(self, process: str) -> list[str]:  # noqa: ARG002
        return []

    def bury(self, firing: str, stream: Used, whole: bool) -> bool:  # noqa: ARG002
        return False


class JsonFile(CheckThenSpend):
    """One JSON file, read, added to and replaced: as the system closest to ours does it."""

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, "spend.json")

    def _read(self) -> dict[str, int]:
        try:
            with open(self.path, encoding="utf-8") as file:
                read: dict[str, int] = json.load(file)
                return read
        except FileNotFoundError:
            return {}

    def _settled(self, key: _Key) -> int:
        return self._read().get("|".join(key), 0)

    def settle(self, whose: Subjects, used: Used, basis: str) -> bool:  # noqa: ARG002
        all_of_it = self._read()
        for key in keys(whose):
            all_of_it["|".join(key)] = all_of_it.get("|".join(key), 0) + used[key.unit]
        aside = f"{self.path}.{os.getpid()}"
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(all_of_it, file)
        os.replace(aside, self.path)
        return True


BOOKS: dict[str, type[Reserving] | type[CheckThenSpend]] = {
    "reserve": Reserving,
    "check-then-spend": CheckThenSpend,
    "json-file": JsonFile,
}
