"""Tables `reservations` and `spend`: money is reserved before it is spent, and settled after."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Reservation(NamedTuple):
    """One row: a firing's worst case against one cap."""

    firing: str
    scope: str  # firing | issue | day | fleet_day | fleet_month
    subject: str
    period: str
    unit: str  # usd (micro-dollars) | tokens | turns | firings
    cap: int | None  # None: only counted
    reserved: int
    settled: int | None = None
    basis: str | None = None


class Spent(NamedTuple):
    """What stands against one cap."""

    settled: int
    reserved: int


class AboveCap(Exception):
    """The database refused a reservation."""

    def __init__(self, wanted: Reservation) -> None:
        super().__init__(f"{wanted.scope} {wanted.unit}")
        self.wanted = wanted


def reserve(ledger: Ledger, wanted: Reservation, at: int) -> None:
    """Raises AboveCap; the caller's transaction is then to be rolled back."""
    try:
        ledger.write(
            "reserve",
            firing=wanted.firing,
            scope=wanted.scope,
            subject=wanted.subject,
            period=wanted.period,
            unit=wanted.unit,
            cap=wanted.cap,
            reserved=wanted.reserved,
            at=at,
        )
    except sqlite3.IntegrityError as error:
        if "above the cap" in str(error):
            raise AboveCap(wanted) from error
        raise


def open_of(ledger: Ledger, firing: str) -> list[Reservation]:
    return [Reservation(*row) for row in ledger.rows("reservations_open", firing=firing)]


def of_firing(ledger: Ledger, firing: str) -> list[Reservation]:
    return [Reservation(*row) for row in ledger.rows("reservations_of_firing", firing=firing)]


def settle(ledger: Ledger, firing: str, unit: str, settled: int, basis: str, at: int) -> None:
    """Against every cap of that unit; always accepted, also above what was reserved."""
    ledger.write("settle", firing=firing, unit=unit, settled=settled, basis=basis, at=at)


def spent(ledger: Ledger, scope: str, subject: str, period: str, unit: str) -> Spent:
    row = ledger.row("spend_of", scope=scope, subject=subject, period=period, unit=unit)
    return Spent(*row) if row else Spent(0, 0)
