"""A unit as a property list of launchd's (launchd.plist(5)): the same bytes for the same unit. launchd is not asked.

What launchd's calendar cannot say is refused here, with words. It has one dictionary for each combination of minute,
hour, day, weekday and month, and no ranges. In a dictionary with a day and a weekday either of them counts; one with a
month and a weekday forgets the month (launchd-842, core.c, calendarinterval_setalarm).

Grids below an hour are kept in UTC (`Schedule.utc`), and launchd's calendar knows the host's zone only: their minutes
are shifted by what the zone's offset has beyond whole hours (30 in India, 45 in Nepal), which is exact in every zone
whose summer time differs by whole hours. In the one where it does not (Lord Howe Island, 30 minutes) a grid whose
period does not divide half an hour stands 30 minutes beside its place in summer, and keeps its period.
"""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timedelta, tzinfo
from functools import partial
from html import escape
from typing import NoReturn

from watchbill import render
from watchbill.errors import Fixable
from watchbill.schedulers import header
from watchbill.schedulers.base import Unit
from watchbill.schedulers.schedule import Entry, Schedule

#: Dictionaries a plist. No limit is documented; each is a timer of launchd's, and a page to read.
MOST_TIMES = 512
#: What a text of XML needs.
_text = partial(escape, quote=False)
#: The keys of one dictionary, in the order in which they are written.
KEYS = ("Month", "Day", "Weekday", "Hour", "Minute")
_LONGEST = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
#: Far beyond what a zone's table lists: there its rules for winter and summer hold, the same whatever today is.
_RULES = (datetime(2100, 1, 1, 12), datetime(2100, 7, 1, 12))
#: Neither XML 1.0 nor what `launchctl print` answers can carry these.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

#: No schedule of an agent's: whatever has it is started when its owner logs in, and when it is loaded.
AT_LOGIN = Schedule("at login")

Times = tuple[tuple[str, int], ...]


def content(unit: Unit, zone: tzinfo) -> bytes:
    """The plist, header included. `zone`: the host's. Fixable: launchd cannot be told this."""
    for text in (unit.name, unit.directory, unit.log, *unit.argv, *itertools.chain(*unit.environment)):
        if found := _CONTROL.search(text):
            what = f"agent {unit.agent}: {text!r} holds the character {found[0]!r}, which launchd cannot be told"
            raise Fixable("WB-SCHED-23", what, fix="take it out, in [schedule] of fleet.toml or of the path")
    values = {
        "description": _comment(unit.description),
        "label": _text(unit.name),
        "argv": [_text(word) for word in unit.argv],
        "directory": _text(unit.directory),
        "environment": [(_text(name), _text(value)) for name, value in unit.environment],
        "log": _text(unit.log),
        "calendar": calendar(unit, zone),
        "interval_s": None if unit.schedule.entries else unit.schedule.interval_s,
        "at_login": unit.schedule == AT_LOGIN,
    }
    body = render.unit("launchd", "agent.plist.j2", header="", **values)
    return render.unit("launchd", "agent.plist.j2", header=header.text(unit, body), **values).encode()


def calendar(unit: Unit, zone: tzinfo) -> list[Times]:
    """The dictionaries of StartCalendarInterval, each once. Fixable: it cannot be said, or takes too many."""
    schedule = unit.schedule
    shift = _beyond_hours(zone)[0] if schedule.utc else 0
    found: set[Times] = set()
    for entry in schedule.entries:
        axes = _axes(unit, _moved(entry, shift))
        count = 1
        for _, values in axes:
            count *= len(values)
        if count + len(found) > MOST_TIMES:
            _too_many(unit, axes)
        combined = (tuple(zip((name for name, _ in axes), times, strict=True)) for times in _combined(axes))
        found |= {times for times in combined if _comes(dict(times))}
    return sorted(found, key=lambda times: [dict(times).get(key, -1) for key in KEYS])


def lint(schedule: Schedule, zone: tzinfo) -> list[str]:
    """What launchd will do otherwise than systemd with this schedule, in words."""
    shifts = _beyond_hours(zone)
    if not schedule.utc or all(
        _moved(entry, shifts[0]).minute == _moved(entry, shift).minute for entry in schedule.entries for shift in shifts
    ):
        return []
    other = abs(shifts[1] - shifts[0])
    return [
        f"{schedule.text}: where clocks change by {other} minutes, launchd fires it {other} minutes beside its grid in "
        "summer; `every 15m` and `every 30m` are not affected"
    ]


def _beyond_hours(zone: tzinfo) -> list[int]:
    """The minutes of the zone's offsets beyond whole hours: in winter first, then in summer."""
    moments = [moment.replace(tzinfo=zone) for moment in _RULES]
    moments.sort(key=lambda moment: moment.dst() or timedelta())
    return [int((moment.utcoffset() or timedelta()).total_seconds()) // 60 % 60 for moment in moments]


def _moved(entry: Entry, minutes: int) -> Entry:
    """A grid of minutes in UTC, as it stands on a clock that is so many minutes ahead."""
    if not minutes or entry.minute is None:
        return entry
    return entry._replace(minute=frozenset((minute + minutes) % 60 for minute in entry.minute))


def _axes(unit: Unit, entry: Entry) -> list[tuple[str, list[int]]]:
    """What an entry constrains, and to which values; never nothing, for an empty dictionary is no calendar."""
    if entry.weekday is not None and entry.day is not None:
        _refuse(
            unit,
            "a day of the month and a weekday that must both hold: launchd fires on either",
            "30 9 1,15 * mon (either), or 30 9 1,15 * *, or 30 9 * * mon",
        )
    if entry.weekday is not None and entry.month is not None:
        _refuse(
            unit,
            "a month and a weekday together: launchd forgets the month",
            "30 9 * * mon (in every month), or 30 9 1,8,15,22 jan *",
        )
    values = (entry.month, entry.day, entry.weekday, entry.hour, entry.minute)
    axes = [(key, sorted(some)) for key, some in zip(KEYS, values, strict=True) if some is not None]
    return axes or [("Minute", list(range(60)))]


def _combined(axes: list[tuple[str, list[int]]]) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*(values for _, values in axes))


def _comes(times: dict[str, int]) -> bool:
    """Not 31 September, which some months of a schedule leave over: launchd-842 would look for it for ever."""
    return times.get("Day", 1) <= _LONGEST.get(times.get("Month", 1), 31)


def _too_many(unit: Unit, axes: list[tuple[str, list[int]]]) -> NoReturn:
    product = " x ".join(f"{len(values)} of {name.lower()}" for name, values in axes)
    what = f"launchd needs one dictionary for each of {product}, and more than {MOST_TIMES} are not written"
    _refuse(unit, what, "*/30 9-17 * * mon-fri (90 of them), every 20m, or hourly")


def _refuse(unit: Unit, what: str, right: str) -> NoReturn:
    raise Fixable(
        "WB-SCHED-22",
        f"agent {unit.agent}, schedule {unit.schedule.text!r}: {what}",
        why="on this host launchd starts the agents, and its calendar knows less than cron's",
        fix=f"right would be: {right}",
    )


def _comment(text: str) -> str:
    """Foreign words inside a comment of XML: no two hyphens, none at the end, nothing that is no character."""
    return re.sub(r"-(?=-|$)", "- ", _CONTROL.sub(" ", text)).strip()
