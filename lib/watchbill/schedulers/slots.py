"""The slot that a timer's firing is for: the latest time of the agent's schedule that is not after now.

It lies on the way to a refusal: a schedule arrives as bit masks, made when the roster was compiled (`spread.slots`),
and nothing but `time` is imported. Wall times are the host's, with the policy of `moments`: what the spring change
skips is no slot, and of an hour that comes twice the first is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

#: Of one entry: in UTC (1) or the host's zone (0), then bits of minutes, hours, days of the month, months (bit 1 is
#: January) and weekdays (bit 0 is Sunday).
Mask = tuple[int, ...]
_DAY_S = 86_400
#: The most by which clocks are set back at once, as far as the tz database knows for this century: and some more.
_REPEATED_S = 3 * 3600
_HORIZON_DAYS = 41 * 366


def due(slots: tuple[Mask, ...], now: float) -> int | None:
    """UTC epoch seconds; None when there is no schedule on the calendar, or never was such a day."""
    found = [slot for mask in slots if (slot := _latest(mask, int(now))) is not None]
    return max(found, default=None)


def _latest(mask: Mask, now: int) -> int | None:
    utc = bool(mask[0])
    start = now if utc else now + time.localtime(now).tm_gmtoff + _REPEATED_S
    for wall in _walls(mask, start):
        slot = wall if utc else _instant(wall)
        if slot is not None and slot <= now:
            return slot
    return None


def _walls(mask: Mask, start: int) -> Iterator[int]:
    """The entry's wall times from `start` backwards, each as if the wall showed UTC."""
    _, minutes, hours, days, months, weekdays = mask
    day, second = start - start % _DAY_S, start % _DAY_S
    oldest = day - _HORIZON_DAYS * _DAY_S
    while day > oldest:
        of = time.gmtime(day)
        if not months >> of.tm_mon & 1:
            day -= of.tm_mday * _DAY_S  # the last day of the month before
        else:
            if days >> of.tm_mday & 1 and weekdays >> (of.tm_wday + 1) % 7 & 1:
                yield from _times(minutes, hours, day, second)
            day -= _DAY_S
        second = _DAY_S - 1


def _times(minutes: int, hours: int, day: int, second: int) -> Iterator[int]:
    for hour in range(second // 3600, -1, -1):
        if hours >> hour & 1:
            last = second % 3600 // 60 if hour == second // 3600 else 59
            for minute in range(last, -1, -1):
                if minutes >> minute & 1:
                    yield day + hour * 3600 + minute * 60


def _instant(wall: int) -> int | None:
    """When the host's clock first shows this; None: it never does, the spring change skips it."""
    offsets = {time.localtime(wall + aside).tm_gmtoff for aside in (-_DAY_S, _DAY_S)}
    moments = sorted(wall - offset for offset in offsets)
    return next((one for one in moments if one + time.localtime(one).tm_gmtoff == wall), None)
