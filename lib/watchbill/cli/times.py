"""Times and spans as people type them, in a fleet's time zone."""

from __future__ import annotations

import re
import zoneinfo
from datetime import datetime, timedelta, tzinfo

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
#: Longer than anybody means, and still a date.
_LONGEST_S = 3650 * 86_400


def seconds(span: str) -> int:
    """30m, 2h, 3d, 2w, in seconds; ValueError for what is none, is nothing, or is longer than ten years."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", span.strip())
    if match is None:
        raise ValueError("it is no number of s, m, h, d or w")
    length = int(match[1]) * _UNITS[match[2]]
    if not 0 < length <= _LONGEST_S:
        raise ValueError("it is nothing" if length == 0 else "it is longer than ten years")
    return length


def moment(text: str, timezone: str, now: float) -> int:
    """2026-11-21T14:05, 2026-11-21 (its midnight), or 14:05 (the next there is), as UTC epoch seconds; what has an
    offset, by that. ValueError for what is none, or more than ten years away."""
    zone = _zone(timezone)
    clock = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", text.strip())
    if clock:
        return _next(int(clock[1]), int(clock[2]), zone, now)
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError as error:  # its words are about the format's name
        raise ValueError("" if "isoformat" in str(error) else str(error)) from error
    try:
        at = int((given if given.tzinfo or zone is None else given.replace(tzinfo=zone)).timestamp())
    except OverflowError as error:
        raise ValueError(str(error)) from error
    if abs(at - now) > _LONGEST_S:
        raise ValueError("it is more than ten years away")
    return at


def days_ago(days: int, timezone: str, now: float) -> int:
    """When the day began that was `days` days ago; 0: today. UTC epoch seconds."""
    zone = _zone(timezone)
    day = datetime.fromtimestamp(now, zone).date() - timedelta(days=days)
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def _next(hour: int, minute: int, zone: tzinfo | None, now: float) -> int:
    today = datetime.fromtimestamp(now, zone).replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    at = today.timestamp()
    return int(at if at > now else (today + timedelta(days=1)).timestamp())


def _zone(timezone: str) -> tzinfo | None:
    """None: the host's own."""
    return zoneinfo.ZoneInfo(timezone) if timezone else None
