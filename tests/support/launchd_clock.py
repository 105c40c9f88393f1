"""When launchd starts a unit: its calendar rules, as launchd.plist(5) and the code of launchd-842 (core.c) have them.

- StartCalendarInterval: each dictionary is an alarm of its own for its next wall time; a key that is missing is any. A
  dictionary with Weekday goes by Weekday, Hour and Minute alone, and with Day besides by whichever comes first
  (calendarinterval_setalarm, cronemu_wday, cronemu).
- The wall time is made an instant by mktime(3) with tm_isdst = -1: what does not exist is moved on by the gap; of what
  comes twice the first is meant; and the next alarm is looked for from the wall clock of the one before.
- StartInterval counts from when the unit was loaded.
- Asleep: calendar alarms that passed ring once at waking up, intervals are lost. Off: both are lost, and at the next
  login intervals count anew.
- Alarms that ring while the unit runs are lost. Several at one instant are one start.

Written against those sources, not against a Mac: what today's launchd does when clocks change is not documented.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

_MINUTE = timedelta(minutes=1)


class Away(NamedTuple):
    """The machine did not run."""

    start: datetime
    end: datetime
    off: bool  # else it was asleep


def fires(
    plist: Mapping[str, Any],
    loaded: datetime,
    until: datetime,
    zone: tzinfo,
    away: Sequence[Away] = (),
    run: timedelta = timedelta(0),
    count: int | None = None,
) -> list[datetime]:
    """The starts after `loaded` and not after `until`, at most `count`, in UTC. `run`: how long each of them takes."""
    said = plist.get("StartCalendarInterval", [])
    alarms = [_calendar(times, loaded, until, zone, away) for times in ([said] if isinstance(said, dict) else said)]
    alarms.append(_intervals(plist.get("StartInterval"), loaded, until, away))
    started: list[datetime] = []
    for instant in heapq.merge(*alarms):
        if not started or (instant >= started[-1] + run and instant != started[-1]):
            started.append(instant)
        if len(started) == count:
            break
    return started


def _intervals(period_s: int | None, loaded: datetime, until: datetime, away: Sequence[Away]) -> Iterator[datetime]:
    if not period_s:
        return
    instant = loaded.astimezone(UTC)
    while (instant := instant + timedelta(seconds=period_s)) <= until:
        missed = next((one for one in away if one.start < instant <= one.end), None)
        if missed is None:
            yield instant
        elif missed.off:
            instant = missed.end.astimezone(UTC)


def _calendar(
    times: Mapping[str, int], loaded: datetime, until: datetime, zone: tzinfo, away: Sequence[Away]
) -> Iterator[datetime]:
    wall = loaded.astimezone(zone).replace(tzinfo=None, fold=0)
    last = loaded.astimezone(UTC)
    while True:
        wall = _next(times, wall)
        instant = _mktime(wall, zone)
        if instant > until:
            return
        if instant <= last:  # the hour that comes twice, the second time
            continue
        last = instant
        missed = next((one for one in away if one.start < instant <= one.end), None)
        if missed is None:
            yield instant
        elif not missed.off:
            yield missed.end.astimezone(UTC)


def _next(times: Mapping[str, int], wall: datetime) -> datetime:
    """The next wall time of one dictionary, after this one."""
    by_weekday = {key: value for key, value in times.items() if key in ("Weekday", "Hour", "Minute")}
    by_day = {key: value for key, value in times.items() if key != "Weekday"}
    if "Weekday" not in times:
        return _search(by_day, wall)
    if "Day" not in times:
        return _search(by_weekday, wall)
    return min(_search(by_weekday, wall), _search(by_day, wall))


def _search(times: Mapping[str, int], wall: datetime) -> datetime:
    """Days first, then hours, then minutes, as launchd goes about it."""
    start = wall.replace(second=0, microsecond=0) + _MINUTE
    day = start.date()
    hours = [times["Hour"]] if "Hour" in times else range(24)
    minutes = [times["Minute"]] if "Minute" in times else range(60)
    for _ in range(41 * 366):  # 29 February
        if _on(times, day):
            for hour in hours:
                for minute in minutes:
                    at = datetime(day.year, day.month, day.day, hour, minute)
                    if at >= start:
                        return at
        day += timedelta(days=1)
    raise AssertionError(f"{times} never comes")


def _on(times: Mapping[str, int], day: date) -> bool:
    return (
        times.get("Month", day.month) == day.month
        and times.get("Day", day.day) == day.day
        and times.get("Weekday", day.isoweekday() % 7) % 7 == day.isoweekday() % 7
    )


def _mktime(wall: datetime, zone: tzinfo) -> datetime:
    """PEP 495's fold=0 is just that: before the gap's offset is used in it, and the first of two."""
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
