"""What a firing may cost, and whether that fits: pure, in every unit.

Money is an integer number of micro-dollars. What gates, reserve, settle and the reports share. Standard library only:
this module lies on the way to a refusal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchbill.compiled import Cap

UNITS = ("usd", "tokens", "turns", "firings")
MICRO = 1_000_000


class Standing(NamedTuple):
    """A cap, whose it is, and what already stands against it."""

    cap: Cap
    subject: str  # the agent, the issue, or "fleet"
    period: str  # "2026-11-21", "2026-11", or "" for ever
    settled: int
    reserved: int


def usd(micro: int) -> str:
    """Micro-dollars as people write them; never rounded down to nothing."""
    if 0 < micro < 10_000:
        return f"${micro / MICRO:.4f}"
    return f"${micro / MICRO:.2f}"


def amount(unit: str, number: int) -> str:
    """A number in its unit, for a sentence."""
    return usd(number) if unit == "usd" else f"{number} {unit}"


def worst_case(caps: Iterable[Cap], headroom_micro: int = 0) -> dict[str, int]:
    """The most one firing can cost, by unit: its firing cap plus one request of headroom.

    An engine stops after a request, not within one. A unit without a firing cap is not in the answer: the roster
    refuses any other cap in such a unit. One firing is always one firing.
    """
    worst = {cap.unit: cap.limit for cap in caps if cap.scope == "firing"}
    if "usd" in worst:
        worst["usd"] += headroom_micro
    worst["firings"] = 1
    return worst


def period(scope: str, now: float, timezone: str) -> str:
    """The day or month that a cap's scope counts in, in the fleet's time zone; '' for scopes that last."""
    if scope in ("day", "fleet_day"):
        return "{:04d}-{:02d}-{:02d}".format(*_local(now, timezone)[:3])
    if scope == "fleet_month":
        return "{:04d}-{:02d}".format(*_local(now, timezone)[:2])
    return ""


def _local(now: float, timezone: str) -> tuple[int, ...]:
    if timezone == "UTC":
        return tuple(time.gmtime(now))
    if not timezone:  # the host's own zone
        return tuple(time.localtime(now))
    import datetime
    import zoneinfo  # only where a fleet names a zone of its own: it costs some milliseconds

    return tuple(datetime.datetime.fromtimestamp(now, zoneinfo.ZoneInfo(timezone)).timetuple())


def above(standing: Standing, worst: Mapping[str, int]) -> bool:
    """Whether one more firing could exceed this cap."""
    return standing.settled + standing.reserved + worst.get(standing.cap.unit, 0) > standing.cap.limit
