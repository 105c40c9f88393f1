"""Agents do not wake in the same minute: `every` and `hourly` are shifted by whole minutes, each agent's always by the
same. Exact clock times are kept. Pure."""

from __future__ import annotations

import hashlib

from watchbill.schedulers.base import Unit
from watchbill.schedulers.moments import Entry, Schedule
from watchbill.schedulers.slots import Mask

_HOUR_MIN = 60


def shifted(schedule: Schedule, agent: str) -> Schedule:
    """The agent's own grid: `every 20m` is minutes 7, 27, 47 for one, 12, 32, 52 for another.

    The minute alone moves, by less than the period and less than an hour: `every 6h` stays at hours 0, 6, 12 and 18.
    An interval is left as it is: it begins when its timer is loaded, and that is spread already.
    """
    if not schedule.spread or not schedule.entries:
        return schedule
    period_min = schedule.interval_s // 60 if schedule.interval_s else _HOUR_MIN
    shift = _hash(agent) % min(period_min, _HOUR_MIN)
    return schedule._replace(entries=tuple(_later(entry, shift) for entry in schedule.entries))


def delay_s(unit: Unit) -> int:
    """How much later it is started than its slot, where we start it ourselves: always by the same."""
    return _hash(f"{unit.agent} delay") % (unit.delay_s + 1)


def slots(schedule: Schedule, agent: str) -> tuple[Mask, ...]:
    """The agent's own schedule as `slots.due` reads it; empty when it is not on the calendar."""
    return tuple(
        (
            int(schedule.utc),
            _mask(entry.minute, range(60)),
            _mask(entry.hour, range(24)),
            _mask(entry.day, range(1, 32)),
            _mask(entry.month, range(1, 13)),
            _mask(entry.weekday, range(7)),
        )
        for entry in shifted(schedule, agent).entries
    )


def _later(entry: Entry, shift: int) -> Entry:
    if entry.minute is None:
        return entry
    return entry._replace(minute=frozenset(minute + shift for minute in entry.minute))


def _mask(values: frozenset[int] | None, every: range) -> int:
    return sum(1 << value for value in (every if values is None else values))


def _hash(agent: str) -> int:
    return int.from_bytes(hashlib.sha256(agent.encode()).digest()[:8], "big")
