"""Tables `grants`, `reservations` and `spend`: money is reserved before it is spent, and settled after."""

from collections.abc import Mapping
from typing import NamedTuple

from watchbill.errors import Fixable
from watchbill.ledger.db import Ledger, Refused
from watchbill.money import UNITS

#: What a firing is settled at that never ran its engine.
NOTHING: Mapping[str, int] = dict.fromkeys(UNITS, 0)


class Subjects(NamedTuple):
    """Whose caps one firing counts against, and in which day and month."""

    firing: str
    issue: str
    agent: str
    day: str
    month: str


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
    """The database refused a reservation; what stood against its cap at that moment."""

    def __init__(self, wanted: Reservation, standing: Spent) -> None:
        super().__init__(f"{wanted.scope} {wanted.unit}")
        self.wanted = wanted
        self.standing = standing


def reserve(
    ledger: Ledger, whose: Subjects, worst: Mapping[str, int], caps: Mapping[tuple[str, str], int], at: int
) -> None:
    """Reserve a firing's worst case, by unit, against every cap, by (scope, unit): all of it or nothing.

    Where there is no cap it is counted all the same. Raises AboveCap; the caller's transaction is then to be rolled
    back. db.Refused when the firing holds something already.
    """
    row = ledger.row("grant_next", firing=whose.firing)
    assert row is not None
    for unit in UNITS:
        reserved = worst.get(unit, 0)
        try:
            ledger.write(
                "reserve",
                firing=whose.firing,
                issue=whose.issue,
                agent=whose.agent,
                day=whose.day,
                month=whose.month,
                unit=unit,
                reserved=reserved,
                firing_cap=caps.get(("firing", unit)),
                issue_cap=caps.get(("issue", unit)),
                day_cap=caps.get(("day", unit)),
                fleet_day_cap=caps.get(("fleet_day", unit)),
                fleet_month_cap=caps.get(("fleet_month", unit)),
                **{"try": row[0]},
            )
        except Refused as error:
            if "above the cap" in str(error):
                raise _above(ledger, whose, unit, reserved, caps) from error
            raise
    ledger.write("grant", firing=whose.firing, at=at, **{"try": row[0]})


def _above(ledger: Ledger, whose: Subjects, unit: str, reserved: int, caps: Mapping[tuple[str, str], int]) -> AboveCap:
    """Which cap it was: read in the transaction that was refused, so that the numbers are those it was refused by."""
    against = {
        "firing": (whose.firing, ""),
        "issue": (whose.issue, ""),
        "day": (whose.agent, whose.day),
        "fleet_day": ("fleet", whose.day),
        "fleet_month": ("fleet", whose.month),
    }
    for scope, (subject, period) in against.items():
        cap, standing = caps.get((scope, unit)), spent(ledger, scope, subject, period, unit)
        if cap is not None and standing.settled + standing.reserved + reserved > cap:
            return AboveCap(Reservation(whose.firing, scope, subject, period, unit, cap, reserved), standing)
    raise AssertionError(f"{whose}: refused above a cap in {unit}, and no cap says so")


def settle(ledger: Ledger, firing: str, used: Mapping[str, int], basis: str, at: int) -> bool:
    """What was really used, in every unit, against every cap; also above what was reserved.

    Accepted once: False when nothing was open, and then nothing changes.
    """
    figures = {unit: used[unit] for unit in UNITS}
    return ledger.write("settle", firing=firing, basis=basis, at=at, **figures) == 1


def open_of(ledger: Ledger, firing: str) -> list[Reservation]:
    """What a firing still holds."""
    return [Reservation(*row) for row in ledger.rows("reservations_open", firing=firing)]


def of_firing(ledger: Ledger, firing: str) -> list[Reservation]:
    """All it ever held, try by try."""
    return [Reservation(*row) for row in ledger.rows("reservations_of_firing", firing=firing)]


def spent(ledger: Ledger, scope: str, subject: str, period: str, unit: str) -> Spent:
    """What stands against a cap of an issue, an agent's day, or the fleet's day or month.

    Raises Fixable (held) when the row is damaged: never a smaller sum than was written.
    """
    row = ledger.row("spend_of", scope=scope, subject=subject, period=period, unit=unit)
    if row is None:
        return Spent(0, 0)
    settled, reserved, echo = row
    if echo != settled + 3 * reserved:
        raise Fixable(
            "WB-LEDGER-01",
            f"{ledger.path}: the ledger cannot be read",
            why=f"what is spent on {scope} {subject} {period} ({unit}) is not what was written there",
            fix="stop the timers, keep a copy, and see `watchbill ledger verify`; until then every agent is held",
            outcome="held",
        )
    return Spent(settled, reserved)
