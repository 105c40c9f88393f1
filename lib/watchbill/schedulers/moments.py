"""When a schedule fires: calendar entries against wall time, and what the changes of the clock do to them.

The policy for summer and winter time, the same on every system:

- Times are wall time in the host's zone. A time that the spring change skips is skipped that day, and not made up
  for; in the hour that the autumn change repeats, a time fires once, at its first occurrence. systemd does that
  (measured with 252: `02:30 Europe/Berlin` is left out in spring, once in autumn); cron would run it late.
- Grids shorter than an hour run in UTC and notice neither change. Grids of whole hours go by the wall: in autumn one of
  their periods is an hour longer, in spring an hour shorter, or longer where the skipped hour was one of theirs.
- Intervals without entries count seconds, and no clock.

`lint` says what of this will surprise somebody, with the date. Pure but for the clock that `lint` reads when it is
given none; standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from typing import NamedTuple

#: 29 February meets a given weekday at least once in 40 years
_HORIZON_DAYS = 41 * 366
_LINT_DAYS = 6 * 366
_CROWD = 10
#: Periods that divide the hour or the day, in minutes.
_GRIDS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)


class Entry(NamedTuple):
    """Calendar times: every field that is given must hold. None: any."""

    minute: frozenset[int] | None = None  # 0-59
    hour: frozenset[int] | None = None  # 0-23
    day: frozenset[int] | None = None  # of the month, 1-31
    month: frozenset[int] | None = None  # 1-12
    weekday: frozenset[int] | None = None  # 0 is Sunday, 6 Saturday


class Schedule(NamedTuple):
    """When an agent fires. No entry and no interval: only by hand."""

    text: str  # lower case, single spaces
    entries: tuple[Entry, ...] = ()  # any of these
    interval_s: int | None = None  # the period of an `every`; without entries it counts from the timer's start
    spread: bool = False  # may be shifted by whole minutes an agent (`every`, `hourly`); exact clock times are kept
    utc: bool = False  # the entries are in UTC: a grid shorter than an hour, which has no hole when clocks change


class Change(NamedTuple):
    """A change of the clock: on this day these wall times do not exist, or come twice."""

    day: date
    first: time  # of the hour in question
    last: time  # just after it; midnight is 00:00
    gap: bool  # True: skipped, in spring; False: repeated, in autumn


def next_fires(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The next `count` times strictly after `after`, in its zone; fewer when the dates run out, none for `manual`.

    `after` must carry its zone. For an interval without entries they are counted from `after` itself: when the timer
    was loaded is not known here.
    """
    zone = after.tzinfo
    if zone is None:
        raise ValueError("next_fires needs a time with a zone")
    start = after.astimezone(UTC)
    if not schedule.entries:
        period = schedule.interval_s
        steps = range(1, count + 1) if period else range(0)
        return [(start + timedelta(seconds=(period or 0) * n)).astimezone(zone) for n in steps]
    found: list[datetime] = []
    walls = _walls(schedule.entries, (start if schedule.utc else after).replace(tzinfo=None, fold=0))
    for wall in walls if count > 0 else ():
        moment = wall.replace(tzinfo=UTC if schedule.utc else zone)
        instant = moment.astimezone(UTC)
        exists = instant.astimezone(moment.tzinfo).replace(tzinfo=None, fold=0) == wall
        if not exists or instant <= start:
            continue
        found.append(instant.astimezone(zone))
        if len(found) == count:
            break
    return found


def _walls(entries: tuple[Entry, ...], after: datetime) -> Iterator[datetime]:
    """Wall times from the day of `after` on, in order, each once; the changes of the clock are the caller's."""
    for offset in range(_HORIZON_DAYS):
        try:
            day = after.date() + timedelta(days=offset)
        except OverflowError:
            return
        times = {at for entry in entries if _on(entry, day) for at in _times_of(entry)}
        for at in sorted(times):
            yield datetime.combine(day, at)


def _on(entry: Entry, day: date) -> bool:
    return (
        (entry.month is None or day.month in entry.month)
        and (entry.day is None or day.day in entry.day)
        and (entry.weekday is None or day.isoweekday() % 7 in entry.weekday)
    )


def _times_of(entry: Entry) -> Iterator[time]:
    for hour in range(24) if entry.hour is None else entry.hour:
        for minute in range(60) if entry.minute is None else entry.minute:
            yield time(hour, minute)


def lint(schedule: Schedule, zone: tzinfo, now: datetime | None = None) -> list[str]:
    """What is allowed and will surprise somebody, a sentence each. `now` with a zone; None: the clock's."""
    if not schedule.entries:
        return [_uncaught(schedule)] if schedule.interval_s else []
    if schedule.utc or schedule.spread:
        return []
    today = (now or datetime.now(UTC)).astimezone(zone).date()
    found = []
    for gap in (True, False):
        said = next((text for change in _changes(zone, today) if change.gap is gap
                     if (text := _met(schedule, change, zone))), None)  # fmt: skip
        found += [said] if said else []
    return found


def crowds(agents: Mapping[str, Schedule]) -> list[str]:
    """Times that more than ten agents want exactly: `every` and `hourly` would be shared out, these are kept."""
    wanting: dict[tuple[Entry, ...], list[str]] = {}
    for name, schedule in sorted(agents.items()):
        if schedule.entries and not schedule.spread:
            wanting.setdefault(schedule.entries, []).append(name)
    return [
        f"{len(names)} agents ({', '.join(names[:3])}, ...) fire in the same minute, by {agents[names[0]].text!r}:"
        f" exact times are kept; write `every 1d` or `hourly` and each gets a minute of its own"
        for names in wanting.values()
        if len(names) > _CROWD
    ]


def _uncaught(schedule: Schedule) -> str:
    return (
        f"{schedule.text!r} divides neither the hour nor the day, so it counts from when the timer was loaded, and a"
        f" time that passes while this host sleeps or is off is not caught up; {_nearest(schedule.interval_s or 0)} is"
    )


def _nearest(period_s: int) -> str:
    """The calendar's nearest to a period; of two the longer, which fires less often."""
    days, rest = divmod(period_s, 86_400)
    if rest == 0 and days % 7 == 0:
        return "'0 9 1 * *' (the first of each month)" if days >= 28 else "'mon 09:00' (once a week)"
    if rest == 0 and days > 1:
        return f"'0 9 */{min(days, 15)} * *' (counted from the first of each month)"
    minutes = min(reversed(_GRIDS), key=lambda grid: abs(grid * 60 - period_s))
    return f"'every {minutes}m'" if minutes < 60 else f"'every {minutes // 60}h'"


def _met(schedule: Schedule, change: Change, zone: tzinfo) -> str | None:
    """The sentence, when a time of the schedule lies in the hour that this change skips or repeats."""
    until = change.last if change.last > change.first else time.max  # over midnight: what is left of this day
    hours = [entry for entry in schedule.entries if entry.hour is not None and _on(entry, change.day)]
    times = sorted(at for entry in hours for at in _times_of(entry) if change.first <= at < until)
    if not times:
        return None
    at, day = f"{times[0]:%H:%M}", f"{change.day:%A}, {change.day.isoformat()}"
    what = (
        f"does not exist on {day}, when clocks go forward: that day it is skipped"
        if change.gap
        else f"comes twice on {day}, when clocks go back: it fires at the first only"
    )
    return f"{at} in {zone} {what}; times before {change.first:%H:%M} and from {change.last:%H:%M} on are not touched"


@cache
def _changes(zone: tzinfo, first: date) -> tuple[Change, ...]:
    """Changes of the zone's clock in the next six years."""
    found = []
    midnight = datetime(first.year, first.month, first.day, tzinfo=UTC)
    for day in range(_LINT_DAYS):
        low, high = midnight + timedelta(days=day), midnight + timedelta(days=day + 1)
        before, after = (at.astimezone(zone).utcoffset() or timedelta() for at in (low, high))
        if before == after:
            continue
        while high - low > timedelta(minutes=1):
            middle = low + (high - low) / 2
            low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
        moment = high.replace(second=0, microsecond=0, tzinfo=None)
        ends = sorted((moment + before, moment + after))
        found.append(Change(ends[0].date(), ends[0].time(), ends[1].time(), after > before))
    return tuple(found)
