"""How this host is: room on its disk, load, battery. Reads only what was asked for; standard library only.

What cannot be read is None, and no reason for anything: a host is not unfit because it has no battery.
"""

import os
from typing import NamedTuple

from watchbill.compiled import Host

#: Linux. macOS tells its battery only to a program of its own, and nothing is started on the way to a refusal.
POWER = "/sys/class/power_supply"


class Condition(NamedTuple):
    """How it was just now."""

    free_bytes: int | None = None  # that a person without privileges may use, where the home lies
    free_inodes: int | None = None  # the same; None also where the file system has no such limit
    load_ppm: int | None = None  # the load average of a minute for each processor that we may use, in millionths
    battery_pct: int | None = None  # what is left; None also while it is on mains


def read(place: str, wanted: Host, power: str = POWER) -> Condition:
    """What `wanted` has a limit for. `place`: a path on the file system that is meant."""
    free_bytes, free_inodes = _room(place) if wanted.min_free_bytes or wanted.min_inodes else (None, None)
    return Condition(
        free_bytes if wanted.min_free_bytes else None,
        free_inodes if wanted.min_inodes else None,
        _load_ppm() if wanted.max_load_ppm else None,
        _battery_pct(power) if wanted.min_battery_pct else None,
    )


def _room(place: str) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(place)
    except OSError:
        return None, None
    # btrfs and others make inodes as they are needed, and report that there are none at all.
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def _load_ppm() -> int | None:
    try:
        return int(os.getloadavg()[0] * 1_000_000 / processors())
    except OSError:
        return None


def processors() -> int:
    """Those this process may run on: a container may have fewer than its host."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _battery_pct(power: str) -> int | None:
    """The mean of its batteries, while the host lives on them."""
    left = []
    try:
        names = os.listdir(power)
    except OSError:
        return None
    for name in sorted(names):
        kind = _word(power, name, "type")
        if kind in ("Mains", "USB") and _word(power, name, "online") == "1":
            return None
        if kind != "Battery" or _word(power, name, "scope") == "Device":  # of a mouse, say
            continue
        charge = _word(power, name, "capacity")
        if _word(power, name, "status") == "Discharging" and charge.isdecimal():
            left.append(int(charge))
    return sum(left) // len(left) if left else None


def _word(*parts: str) -> str:
    try:
        with open("/".join(parts), encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""
