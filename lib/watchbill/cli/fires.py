"""When an agent fires next, as people and programs read it."""

from __future__ import annotations

from datetime import datetime

from watchbill.schedulers import zone
from watchbill.schedulers.schedule import Schedule, next_fires


def epochs(schedule: Schedule, now: float, count: int = 3) -> list[int]:
    """The next times, UTC epoch seconds; none where a period begins when it is loaded."""
    if not schedule.entries:
        return []
    return [int(one.timestamp()) for one in next_fires(schedule, datetime.fromtimestamp(now, zone.local()), count)]


def text(schedule: Schedule, now: float, count: int = 3) -> str:
    """`Mon 23 Nov 07:30, Tue 24 Nov 07:30 CET`: each day is named once, today's not at all."""
    if not schedule.entries:
        return "by hand" if schedule.interval_s is None else "counted from when it is loaded"
    here = zone.local()
    words, last = [], datetime.fromtimestamp(now, here)
    for one in (datetime.fromtimestamp(at, here) for at in epochs(schedule, now, count)):
        words.append(f"{one:%H:%M}" if one.date() == last.date() else f"{one:%a %d %b %H:%M}")
        last = one
    return f"{', '.join(words)} {last.tzname()}" if words else "never"
