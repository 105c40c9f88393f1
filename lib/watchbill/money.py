"""What a firing may cost, and whether that fits: pure, in every unit.

Money is an integer number of micro-dollars. What gates, reserve, settle and the reports share. Standard library only:
this module lies on the way to a refusal.
"""

import time
from collections.abc import Callable, Iterable, Mapping
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


def share(limit: int, hosts: int) -> int:
    """One host's part of a fleet's cap, where hosts share no ledger (`[fleet] hosts`).

    Rounded down, also to nothing: the parts together never exceed the whole. A cap of fewer units than there are
    hosts is for the roster to point out, not for this to exceed.
    """
    return limit // max(1, hosts)


def period(scope: str, now: float, timezone: str) -> str:
    """The day or month that a cap's scope counts in, in the fleet's time zone; '' for scopes that last.

    What is spent stands under this name. When a clock is set back across midnight, by hand or by the zone's own rules,
    the name is that of the day before again, and with it all that was spent on that day: its cap does not begin anew,
    and what the new day has had stays the new day's.
    """
    return _named(scope, _clock_of(timezone)(now))


def period_end(scope: str, now: float, timezone: str) -> int | None:
    """The first moment after `now` outside of its day or month: UTC epoch seconds; None for scopes that last.

    Asked of the zone itself, second by second, never by adding 24 hours: days have 23 or 25, begin at 01:00, or are
    left out. Where a zone's clock goes back across midnight, the day is over at the first of the two midnights.
    """
    name, clock = period(scope, now, timezone), _clock_of(timezone)
    if not name:
        return None
    before, after = int(now), int(now) + _LONGEST_S[scope]
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _named(scope, clock(middle)) == name else (before, middle)
    # A clock that goes back across midnight has two midnights, at most some hours apart; that was either of them.
    early = range(max(int(now) + 1, after - _SET_BACK_S), after, _STEP_S)
    first = next((moment for moment in early if _named(scope, clock(moment)) != name), after)
    while first - 1 > now and _named(scope, clock(first - 1)) != name:
        first -= 1
    return first


#: No day and no month is longer; how far zones set clocks back at most, and how short the time between is at least.
_LONGEST_S = {"day": 49 * 3600, "fleet_day": 49 * 3600, "fleet_month": 33 * 86400}
_SET_BACK_S = 3 * 3600
_STEP_S = 30


def _named(scope: str, local: time.struct_time) -> str:
    if scope in ("day", "fleet_day"):
        return f"{local.tm_year:04d}-{local.tm_mon:02d}-{local.tm_mday:02d}"
    if scope == "fleet_month":
        return f"{local.tm_year:04d}-{local.tm_mon:02d}"
    return ""


def _clock_of(timezone: str) -> Callable[[float], time.struct_time]:
    """From UTC epoch seconds to what a clock on the wall shows."""
    if timezone == "UTC":
        return time.gmtime
    if not timezone:  # the host's own zone
        return time.localtime
    import datetime
    import zoneinfo  # only where a fleet names a zone of its own: it costs some milliseconds

    zone = zoneinfo.ZoneInfo(timezone)
    return lambda now: datetime.datetime.fromtimestamp(now, zone).timetuple()


def above(standing: Standing, worst: Mapping[str, int]) -> bool:
    """Whether one more firing could exceed this cap."""
    return standing.settled + standing.reserved + worst.get(standing.cap.unit, 0) > standing.cap.limit
