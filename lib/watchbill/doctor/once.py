"""What is looked at once, because it is the same wherever one looks from, or is the scheduler's only."""

from __future__ import annotations

from watchbill.doctor import columns, machine, modes, timers
from watchbill.doctor.columns import Check
from watchbill.doctor.finding import Finding, Look

CHECKS: tuple[tuple[str, Check], ...] = (
    ("files", modes.look),
    ("clock", machine.clock),
    ("disk", machine.room),
    ("WSL", machine.guest),
    ("timers", timers.look),
)


def look(it: Look) -> list[Finding]:
    return [finding for name, check in CHECKS for finding in columns.within(columns.CHECK_S, name, check, it)]
