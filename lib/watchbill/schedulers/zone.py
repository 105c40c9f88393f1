"""The host's time zone, with its rules for summer and winter: what both systems' calendars go by."""

from __future__ import annotations

import os
import time
import zoneinfo
from datetime import UTC, tzinfo

_LOCALTIME = "/etc/localtime"


def adopt(named: str | None) -> None:
    """Let this process go by the zone that a scheduler's calendar goes by, whatever its own shell says.

    `named`: as TZ; None: the host's.
    """
    if named is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = named
    time.tzset()


def local() -> tzinfo:
    """By TZ, else by /etc/localtime (tzset(3), localtime(5)); UTC where there is neither."""
    named = os.environ.get("TZ", "").lstrip(":")
    try:
        if os.path.isabs(named):
            return _of_file(named)
        if named:
            return zoneinfo.ZoneInfo(named)
        return _of_host()
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return UTC


def _of_host() -> tzinfo:
    name = os.path.realpath(_LOCALTIME).partition("/zoneinfo/")[2].removeprefix("posix/").removeprefix("right/")
    try:
        return zoneinfo.ZoneInfo(name)  # it keeps those that were asked for
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # a file of its own, that has no name
        return _of_file(_LOCALTIME)


def _of_file(path: str) -> tzinfo:
    with open(path, "rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=os.path.basename(path))
