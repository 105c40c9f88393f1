"""Refuses while this host is not fit to work: too little room, too much load, too little left in its battery.

Floors are absolute, not shares: a tenth of a small disk is no room, and a tenth of a large one is a lot.
"""

from __future__ import annotations

from collections.abc import Mapping

from watchbill.compiled import Agent, Host
from watchbill.fitness import Condition
from watchbill.gates.snapshot import Refusal, Snapshot


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    if not agent.engine:
        return None  # it needs next to nothing, and what it tidies away is what makes room
    return problem(snapshot.limits, snapshot.condition)


def problem(limits: Host, seen: Condition) -> Refusal | None:
    """The first thing that is beyond its limit; `engine` asks once more right before it starts."""
    if _below(seen.free_bytes, limits.min_free_bytes):
        return _refusal(
            "unfit-disk",
            f"{_size(seen.free_bytes)} are free where the home lies, fewer than {_size(limits.min_free_bytes)}",
            "min_free",
            {"free_bytes": seen.free_bytes, "min_free_bytes": limits.min_free_bytes},
        )
    if _below(seen.free_inodes, limits.min_inodes):
        return _refusal(
            "unfit-inodes",
            f"{seen.free_inodes} inodes are free where the home lies, fewer than {limits.min_inodes}",
            "min_inodes",
            {"free_inodes": seen.free_inodes, "min_inodes": limits.min_inodes},
        )
    if limits.max_load_ppm and seen.load_ppm is not None and seen.load_ppm > limits.max_load_ppm:
        return _refusal(
            "unfit-load",
            f"the load is {seen.load_ppm / 1e6:.2f} a processor, more than {limits.max_load_ppm / 1e6:.2f}",
            "max_load",
            {"load_ppm": seen.load_ppm, "max_load_ppm": limits.max_load_ppm},
        )
    if _below(seen.battery_pct, limits.min_battery_pct):
        return _refusal(
            "unfit-battery",
            f"its battery has {seen.battery_pct} % left, less than {limits.min_battery_pct} %",
            "min_battery",
            {"battery_pct": seen.battery_pct, "min_battery_pct": limits.min_battery_pct},
        )
    return None


def _below(found: int | None, least: int) -> bool:
    return found is not None and found < least


def _refusal(reason_id: str, what: str, key: str, numbers: Mapping[str, int | None]) -> Refusal:
    return Refusal("held", reason_id, f"this host is unfit: {what} ([host] {key})", numbers)


def _size(count: int | None) -> str:
    """Bytes as people read them, never rounded up."""
    number, unit = count or 0, "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number // 1000, larger
    return f"{number} {unit}"
