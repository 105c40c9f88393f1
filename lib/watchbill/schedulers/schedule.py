"""The schedule grammar: what a person writes, read into a record that the launchd and systemd compilers share.

    every 20m · every 6h · hourly · hourly :17 · daily 07:30 · daily 9:00,17:30 · weekdays 09:00 · weekends 10:00 ·
    mon,thu 14:00 · mon-fri 08:00 · five cron fields (minute hour day month weekday) · manual

Rules, in one place:

- An `every` whose period divides the hour or the day is a grid on the clock (`every 20m` is minutes 0, 20, 40): only
  calendar times are caught up after sleep. Other periods (`every 90m`) count from when the timer was loaded.
- Times are wall time in the host's zone. A time that the spring change skips is skipped; in the hour that the autumn
  change repeats a time fires once, at its first occurrence. Grids shorter than an hour run in UTC and notice neither.
- In cron, a day and a weekday that are both given mean either (two entries), unless one of the two fields begins with
  `*` (`*/2`): then both must hold. That is what Debian's cron does (crontab(5), "Note: The day of a command's
  execution"), and a `Schedule` says it without a special case.

Pure; standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple, NoReturn

EXAMPLES = "every 20m, hourly :17, daily 07:30, weekdays 09:00, mon,thu 14:00, */30 9-17 * * mon-fri, manual"
MIN_PERIOD_S = 60  # a firing is a whole process with a look at GitHub
MAX_PERIOD_S = 31 * 86_400

#: cron counts Sunday as 0, and so does launchd
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_UNIT_WORDS = {word: word[0] for word in ("min", "mins", "minute", "minutes", "hour", "hours", "day", "days")}
#: 29 February meets a given weekday at least once in 40 years
_HORIZON_DAYS = 41 * 366


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


def check(text: str) -> Schedule:
    """Read one schedule. ValueError: a sentence with the text, what is wrong in it, and a right example."""
    words = " ".join(text.lower().split())
    first = words.split(" ", 1)[0]
    if words == "manual":
        return Schedule(words)
    if not words:
        _bad(text, "it is empty", EXAMPLES)
    if first == "every":
        return _every(text, words)
    if first == "hourly":
        return _hourly(text, words)
    if first[0].isdigit() or first[0] == "*":
        return _cron(text, words)
    return _days(text, words)


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


def _bad(text: str, what: str, right: str) -> NoReturn:
    raise ValueError(f"schedule {text!r}: {what}; right would be: {right}")


def _every(text: str, words: str) -> Schedule:
    match = re.fullmatch(r"every ([0-9]{1,6}) ?([a-z]+)", words)
    if match is None:
        _bad(text, "'every' wants a number and a unit (m, h or d)", "every 20m")
    unit = _UNIT_WORDS.get(match[2], match[2])
    if unit not in _UNITS:
        _bad(text, f"{match[2]!r} is not a unit (m, h or d)", f"every {int(match[1]) or 20}m")
    period = int(match[1]) * _UNITS[unit]
    if period < MIN_PERIOD_S:
        _bad(text, "a period must be at least one minute", "every 20m")
    if period > MAX_PERIOD_S:
        _bad(text, "a period may be at most 31 days", "0 9 1 * * (the first of each month at 09:00)")
    minutes, rest = divmod(period, 60)
    if rest == 0 and minutes < 60 and 60 % minutes == 0:
        return Schedule(words, (Entry(minute=frozenset(range(0, 60, minutes))),), period, spread=True, utc=True)
    if period % 3600 == 0 and 86_400 % period == 0:
        hours = frozenset(range(0, 24, period // 3600))
        return Schedule(words, (Entry(frozenset({0}), _unless_all(hours, 24)),), period, spread=True)
    return Schedule(words, (), period, spread=True)


def _hourly(text: str, words: str) -> Schedule:
    match = re.fullmatch(r"hourly(?: (?:at )?:?([0-9]{1,2}))?", words)
    if match is None or int(match[1] or 0) > 59:
        _bad(text, "after 'hourly' comes nothing, or the minute (00 to 59)", "hourly :17")
    return Schedule(words, (Entry(minute=frozenset({int(match[1] or 0)})),), spread=match[1] is None)


def _days(text: str, words: str) -> Schedule:
    named, _, at = words.partition(" ")
    weekday = _weekdays(text, named)
    at = at.removeprefix("at ")
    if not at:
        _bad(text, f"{named!r} wants a time of day", f"{named} 09:00")
    hours_of: dict[int, set[int]] = {}
    for one in re.split(r" ?, ?", at):
        match = re.fullmatch(r"([0-9]{1,2}):([0-9][0-9])", one)
        if match is None or int(match[1]) > 23 or int(match[2]) > 59:
            _bad(text, f"{one!r} is not a time of day (00:00 to 23:59)", f"{named} 09:00")
        hours_of.setdefault(int(match[2]), set()).add(int(match[1]))
    entries = (Entry(frozenset({m}), frozenset(hours), weekday=weekday) for m, hours in sorted(hours_of.items()))
    return Schedule(words, tuple(entries))


def _weekdays(text: str, named: str) -> frozenset[int] | None:
    known = {"daily": None, "weekdays": frozenset(range(1, 6)), "weekends": frozenset({0, 6})}
    if named in known:
        return known[named]
    found: set[int] = set()
    for part in named.split(","):
        ends = [_day(text, word) for word in part.split("-")]
        if len(ends) > 2:
            _bad(text, f"{part!r} has more than two ends", "mon-fri 08:00")
        last = ends[-1] + 7 if ends[-1] < ends[0] else ends[-1]  # fri-mon goes over the week's end
        found |= {day % 7 for day in range(ends[0], last + 1)}
    return _unless_all(found, 7)


def _day(text: str, word: str) -> int:
    full = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
    if word in full:
        return full.index(word)
    if word not in _DAYS:
        what = f"{word!r} is no day (mon to sun) and no word of the grammar" if word else "a day is missing"
        _bad(text, what, EXAMPLES)
    return _DAYS.index(word)


class _Field(NamedTuple):
    """One of cron's five."""

    name: str
    low: int
    high: int  # as cron accepts it: weekday 7 is Sunday again
    words: tuple[str, ...] = ()  # names for low, low + 1, ...


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _DAYS),
)


def _cron(text: str, words: str) -> Schedule:
    fields = words.split()
    right = "30 9 * * mon-fri"
    if len(fields) != 5:
        _bad(text, f"a cron line has five fields (minute hour day month weekday), this has {len(fields)}", right)
    minute, hour, day, month, weekday = (_cron_field(text, *pair) for pair in zip(_FIELDS, fields, strict=True))
    if day and month and all(d > _LONGEST.get(m, 31) for d in day for m in month):
        _bad(text, "that day never comes in that month", "0 9 1 feb *")
    both = day is not None and weekday is not None
    if both and not (fields[2].startswith("*") or fields[4].startswith("*")):
        return Schedule(words, (Entry(minute, hour, day, month), Entry(minute, hour, None, month, weekday)))
    either_way = (fields[2], fields[4])
    if not any(field.startswith("*") for field in either_way):  # `1-31` or a weekday: every day
        day = weekday = None
    return Schedule(words, (Entry(minute, hour, day, month, weekday),))


def _cron_field(text: str, field: _Field, written: str) -> frozenset[int] | None:
    found: set[int] = set()
    for part in written.split(","):
        found.update(_cron_part(text, field, part))
    if field.name == "weekday":
        found = {value % 7 for value in found}
        return _unless_all(found, 7)
    return _unless_all(found, field.high - field.low + 1)


def _cron_part(text: str, field: _Field, part: str) -> range:
    match = re.fullmatch(r"(\*|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]{1,4}))?", part)
    place = f"in the field {field.name}"
    if match is None or (match[1] == "*" and match[2]):
        _bad(text, f"{place} {part!r} is not a number, a range, a list or a step", "*/15 9-17 * * mon,thu")
    whole = match[1] == "*"
    low = field.low if whole else _cron_value(text, field, match[1])
    high = field.high if whole else _cron_value(text, field, match[2] or match[1])
    if field.name == "weekday":
        high = 6 if whole else 7 if match[2] and high < low and high == 0 else high  # fri-sun
    if match[3] and not whole and not match[2]:
        _bad(text, f"{place} the step of {part!r} wants a range", _line(field, f"{low}-{field.high}/{match[3]}"))
    if high < low:
        _bad(text, f"{place} {part!r} runs backwards", _line(field, f"{match[2]}-{match[1]}"))
    step = int(match[3] or 1)
    if step == 0 or step > field.high:
        _bad(text, f"{place} the step {step} is not between 1 and {field.high}", "*/15 * * * *")
    return range(low, high + 1, step)


def _line(field: _Field, written: str) -> str:
    """A whole cron line with one field filled in, as an example."""
    return " ".join(written if one is field else "*" for one in _FIELDS)


def _cron_value(text: str, field: _Field, word: str) -> int:
    if word in field.words:
        return field.words.index(word) + field.low
    if not (word.isascii() and word.isdigit()) or not field.low <= int(word) <= field.high:
        names = f" or {field.words[0]}-{field.words[-1]}" if field.words else ""
        what = f"in the field {field.name} {word!r} is not within {field.low}-{field.high}{names}"
        _bad(text, what, "30 9 * * mon-fri")
    return int(word)


def _unless_all(values: set[int] | frozenset[int], size: int) -> frozenset[int] | None:
    return None if len(values) == size else frozenset(values)
