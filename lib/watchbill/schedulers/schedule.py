"""The schedule grammar: what a person writes, read into a record that the launchd and systemd compilers share.

    every 20m · every 6h · hourly · hourly :17 · daily 07:30 · daily 9:00,17:30 · weekdays 09:00 · weekends 10:00 ·
    mon,thu 14:00 · mon-fri 08:00 · five cron fields (minute hour day month weekday) · manual

Rules, in one place:

- An `every` whose period divides the hour or the day is a grid on the clock (`every 20m` is minutes 0, 20, 40): only
  calendar times are caught up after sleep. Other periods (`every 90m`) count from when the timer was loaded.
- Times are wall time in the host's zone; what becomes of them when clocks change is said in `moments`.
- In cron, a day and a weekday that are both given mean either (two entries), unless one of the two fields begins with
  `*` (`*/2`): then both must hold. That is what Debian's cron does (crontab(5), "Note: The day of a command's
  execution"), and a `Schedule` says it without a special case.

A mistake is a ValueError whose sentence has the text, the place in it, what is wrong there, and a right example:

    schedule 'daily 25:00': at '25:00', character 7: is not a time of day (00:00 to 23:59); right would be: daily 09:00

Pure; standard library only.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple, NoReturn

from watchbill.schedulers.moments import Change, Entry, Schedule, crowds, lint, next_fires

__all__ = ["EXAMPLES", "Change", "Entry", "Schedule", "check", "crowds", "lint", "next_fires"]

EXAMPLES = "every 20m, hourly :17, daily 07:30, weekdays 09:00, mon,thu 14:00, */30 9-17 * * mon-fri, manual"
MIN_PERIOD_S = 60  # a firing is a whole process with a look at GitHub
MAX_PERIOD_S = 31 * 86_400

#: cron counts Sunday as 0, and so does launchd
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FULL_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_UNIT_WORDS = {word: word[0] for word in ("min", "mins", "minute", "minutes", "hour", "hours", "day", "days")}
#: Words that a schedule may begin with, and how it then goes on.
_FIRST = {"every": "every 20m", "hourly": "hourly :17", "manual": "manual"} | {
    word: f"{word} 09:00" for word in ("daily", "weekdays", "weekends", *_DAYS, *_FULL_DAYS)
}
_SHOWN = 100


class _Written(NamedTuple):
    """A text as it was written, and lower case with single spaces; `start` of a part is its place in the latter."""

    text: str
    words: str


def check(text: str) -> Schedule:
    """Read one schedule. ValueError: a sentence with the text, the place, what is wrong there, and a right example."""
    it = _Written(text, " ".join("".join(c.lower() if c.isascii() else c for c in text).split()))
    first = it.words.split(" ", 1)[0]
    if it.words == "manual":
        return Schedule(it.words)
    if not it.words:
        _bad(it, 0, "", "there is nothing", "every 20m")
    if first == "every":
        return _every(it)
    if first == "hourly":
        return _hourly(it)
    if first[0].isdigit() or first[0] == "*":
        return _cron(it)
    return _days(it)


def _bad(it: _Written, start: int, part: str, what: str, right: str) -> NoReturn:
    """`part` of the words, from `start` on, is wrong; empty: something is missing there."""
    shown = it.text if len(it.text) <= _SHOWN else f"{it.text[:_SHOWN]}..."
    place = f"at {part[:_SHOWN]!r}, character {_column(it, start)}" if part else (
        f"at its end, after character {len(it.text.rstrip())}" if it.words else "at its beginning")  # fmt: skip
    raise ValueError(f"schedule {shown!r}: {place}: {what}; right would be: {right}")


def _missing(it: _Written, start: int, what: str, right: str) -> NoReturn:
    rest = it.words[start:].lstrip()
    _bad(it, len(it.words) - len(rest), rest, f"{what} is missing" + (" before it" if rest else ""), right)


def _column(it: _Written, start: int) -> int:
    """Where the text as written has this character of the words; the first is 1."""
    leading = len(it.text) - len(it.text.lstrip())
    kept = [n for n, c in enumerate(it.text) if n >= leading and not (c.isspace() and it.text[n + 1 : n + 2].isspace())]
    return kept[start] + 1


def _every(it: _Written) -> Schedule:
    match = re.fullmatch(r"every ([0-9]{1,6}) ?([a-z]+)", it.words)
    if match is None:
        rest = it.words.removeprefix("every").lstrip()
        _bad(it, 6, rest, "after 'every' comes a number and a unit (m, h or d)", "every 20m")
    unit = _UNIT_WORDS.get(match[2], match[2])
    if unit not in _UNITS:
        period = int(match[1]) if MIN_PERIOD_S <= int(match[1]) * 60 <= MAX_PERIOD_S else 20
        _bad(it, match.start(2), match[2], "is not a unit (m, h or d)", f"every {period}m")
    period_s = int(match[1]) * _UNITS[unit]
    written = it.words[match.start(1) :]
    if period_s < MIN_PERIOD_S:
        _bad(it, match.start(1), written, "a period must be at least one minute", "every 1m")
    if period_s > MAX_PERIOD_S:
        what = "a period may be at most 31 days; on the first of each month at 09:00 is a cron line"
        _bad(it, match.start(1), written, what, "0 9 1 * *")
    minutes, rest_s = divmod(period_s, 60)
    if rest_s == 0 and minutes < 60 and 60 % minutes == 0:
        entry = Entry(minute=frozenset(range(0, 60, minutes)))
        return Schedule(it.words, (entry,), period_s, spread=True, utc=True)
    if period_s % 3600 == 0 and 86_400 % period_s == 0:
        hours = frozenset(range(0, 24, period_s // 3600))
        return Schedule(it.words, (Entry(frozenset({0}), _unless_all(hours, 24)),), period_s, spread=True)
    return Schedule(it.words, (), period_s, spread=True)


def _hourly(it: _Written) -> Schedule:
    match = re.fullmatch(r"hourly(?: (?:at )?:?([0-9]{1,2}))?", it.words)
    if match is None or int(match[1] or 0) > 59:
        rest = it.words.removeprefix("hourly").lstrip()
        _bad(it, 7, rest, "after 'hourly' comes nothing, or the minute (00 to 59)", "hourly :17")
    return Schedule(it.words, (Entry(minute=frozenset({int(match[1] or 0)})),), spread=match[1] is None)


def _days(it: _Written) -> Schedule:
    named, _, at = it.words.partition(" ")
    weekday = _weekdays(it, named)
    at = at.removeprefix("at ")
    start = len(it.words) - len(at)
    if at in ("", "at"):
        _bad(it, 0, "", f"after {named!r} comes a time of day", f"{named} 09:00")
    hours_of: dict[int, set[int]] = {}
    for one in at.split(","):
        match = re.fullmatch(r" ?([0-9]{1,2}):([0-9][0-9]) ?", one)
        if not one.strip():
            _missing(it, start, "a time of day", f"{named} 09:00")
        if match is None or int(match[1]) > 23 or int(match[2]) > 59:
            inner, right = start + len(one) - len(one.lstrip()), f"{named} {_time_like(one)}"
            _bad(it, inner, one.strip(), "is not a time of day (00:00 to 23:59)", right)
        hours_of.setdefault(int(match[2]), set()).add(int(match[1]))
        start += len(one) + 1
    entries = (Entry(frozenset({m}), frozenset(hours), weekday=weekday) for m, hours in sorted(hours_of.items()))
    return Schedule(it.words, tuple(entries))


def _time_like(written: str) -> str:
    """What was perhaps meant: `7.30`, `730`, `9am`, `5 pm`."""
    match = re.match(r" ?([0-9]{1,2})(?:[.:h]?([0-5][0-9]))? ?(am|pm)?(?![0-9:])", written, re.ASCII)
    if match is None:
        return "09:00"
    hour = int(match[1]) % 12 + (12 if match[3] == "pm" else 0) if match[3] else int(match[1])
    return f"{hour:02}:{match[2] or '00'}" if hour < 24 else "09:00"


def _weekdays(it: _Written, named: str) -> frozenset[int] | None:
    known = {"daily": None, "weekdays": frozenset(range(1, 6)), "weekends": frozenset({0, 6})}
    if named in known:
        return known[named]
    found: set[int] = set()
    start = 0
    for part in named.split(","):
        ends = []
        inner = start
        for word in part.split("-"):
            ends.append(_day(it, inner, word, whole=word == named))
            inner += len(word) + 1
        if len(ends) > 2:
            _bad(it, start, part, "has more than two ends", "mon-fri 08:00")
        last = ends[-1] + 7 if ends[-1] < ends[0] else ends[-1]  # fri-mon goes over the week's end
        found |= {day % 7 for day in range(ends[0], last + 1)}
        start += len(part) + 1
    return _unless_all(found, 7)


def _day(it: _Written, start: int, word: str, whole: bool) -> int:
    if word in _FULL_DAYS:
        return _FULL_DAYS.index(word)
    if word in _DAYS:
        return _DAYS.index(word)
    if not word:
        _missing(it, start, "a day", "mon,thu 14:00")
    near = difflib.get_close_matches(word.lstrip("@"), _FIRST if whole else (*_DAYS, *_FULL_DAYS), n=1)
    right = (_FIRST[near[0]] if whole else f"{near[0]} 09:00") if near else "mon,thu 14:00"
    what = "is no day (mon to sun) and no word of the grammar" if whole else "is no day (mon to sun)"
    _bad(it, start, word, what, right)


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


def _cron(it: _Written) -> Schedule:
    fields = it.words.split()
    if re.fullmatch(r"[0-9]+[a-z]+|[0-9]+:[0-9]+", fields[0], re.ASCII):  # `20m`, `09:00`: a word before it is missing
        what = "no schedule begins so: a period comes after 'every', a time of day after 'daily' or days"
        _bad(it, 0, fields[0], what, f"daily {_time_like(fields[0])}" if ":" in fields[0] else "every 20m")
    if len(fields) != 5:
        what = f"a cron line has five fields (minute hour day month weekday), this has {len(fields)}"
        sixth = " ".join(fields[5:])
        _bad(it, len(" ".join(fields[:5])) + 1, sixth, what, "30 9 * * mon-fri")
    starts = [len(" ".join(fields[:n])) + (n > 0) for n in range(5)]
    read = (_cron_field(it, *triple) for triple in zip(starts, _FIELDS, fields, strict=True))
    minute, hour, day, month, weekday = read
    if day and month and all(d > _LONGEST.get(m, 31) for d in day for m in month):
        _bad(it, starts[2], f"{fields[2]} {fields[3]}", "that day never comes in that month", "0 9 1 feb *")
    both = day is not None and weekday is not None
    if both and not (fields[2].startswith("*") or fields[4].startswith("*")):
        return Schedule(it.words, (Entry(minute, hour, day, month), Entry(minute, hour, None, month, weekday)))
    either_way = (fields[2], fields[4])
    if not any(field.startswith("*") for field in either_way):  # `1-31` or a weekday: every day
        day = weekday = None
    return Schedule(it.words, (Entry(minute, hour, day, month, weekday),))


def _cron_field(it: _Written, start: int, field: _Field, written: str) -> frozenset[int] | None:
    found: set[int] = set()
    for part in written.split(","):
        if not part:
            _missing(it, start, f"the {field.name} in a list", _line(field, _PLAIN[field.name]))
        found.update(_cron_part(it, start, field, part))
        start += len(part) + 1
    if field.name == "weekday":
        found = {value % 7 for value in found}
        return _unless_all(found, 7)
    return _unless_all(found, field.high - field.low + 1)


def _cron_part(it: _Written, start: int, field: _Field, part: str) -> range:
    match = re.fullmatch(r"(\*|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]{1,4}))?", part, re.ASCII)
    if match is None or (match[1] == "*" and match[2]):
        what = f"the {field.name} is not a number, a range, a list or a step"
        _bad(it, start, part, what, _line(field, _PLAIN[field.name]))
    whole = match[1] == "*"
    low = field.low if whole else _cron_value(it, start, field, match[1])
    second = start + max(match.start(2), 0)
    high = field.high if whole else _cron_value(it, second, field, match[2] or match[1])
    if field.name == "weekday":
        high = 6 if whole else 7 if match[2] and high < low and high == 0 else high  # fri-sun
    if match[3] and not whole and not match[2]:
        right = _line(field, f"{low}-{field.high}/{_step_like(match[3], field)}")
        _bad(it, start, part, f"the step of the {field.name} wants a range", right)
    if high < low:
        right = _line(field, f"{low}-{field.high},{field.low}-{high}")
        _bad(it, start, part, f"the {field.name} runs backwards", right)
    step = int(match[3] or 1)
    if step == 0 or step > field.high:
        what = f"the step of the {field.name} is not between 1 and {field.high}"
        _bad(it, start + match.start(3), match[3], what, _line(field, f"*/{_step_like(match[3], field)}"))
    return range(low, high + 1, step)


#: Of each field something right, to show.
_PLAIN = {"minute": "*/15", "hour": "9-17", "day": "1,15", "month": "jan-jun", "weekday": "mon-fri"}


def _step_like(written: str, field: _Field) -> int:
    return int(written) if 0 < int(written) <= field.high else 2


def _line(field: _Field, written: str) -> str:
    """A whole cron line with one field filled in, as an example."""
    before = {"minute": "", "hour": "0 ", "day": "0 9 ", "month": "0 9 1 ", "weekday": "30 9 * * "}[field.name]
    return f"{before}{written}{' *' * (4 - len(before.split()))}"


def _cron_value(it: _Written, start: int, field: _Field, word: str) -> int:
    if word in field.words:
        return field.words.index(word) + field.low
    if not (word.isascii() and word.isdigit()) or not field.low <= int(word) <= field.high:
        names = f" or {field.words[0]}-{field.words[-1]}" if field.words else ""
        what = f"the {field.name} is not within {field.low}-{field.high}{names}"
        _bad(it, start, word, what, _line(field, _PLAIN[field.name]))
    return int(word)


def _unless_all(values: set[int] | frozenset[int], size: int) -> frozenset[int] | None:
    return None if len(values) == size else frozenset(values)
