"""Which scheduler there is on this host. To add one: its module, its test, its line here."""

from __future__ import annotations

import sys

from watchbill.errors import Fixable
from watchbill.schedulers import launchd, loop, systemd, zone
from watchbill.schedulers.base import Scheduler

SCHEDULERS: dict[str, Scheduler] = {"systemd": systemd, "launchd": launchd, "loop": loop}


def chosen(use: str) -> Scheduler:
    """The one that `[schedule] use` names; `auto`: this system's own."""
    return SCHEDULERS[("launchd" if sys.platform == "darwin" else "systemd") if use == "auto" else use]


def go_by_its_clock(use: str) -> None:
    """Times are the scheduler's from here on, and not those of the shell that this was typed in."""
    zone.adopt(chosen(use).timezone())


def usable(use: str) -> Scheduler:
    """The same; Fixable when it is not to be had here."""
    scheduler = chosen(use)
    if problem := scheduler.unavailable():
        raise Fixable(problem.id, problem.what, why=problem.why, fix=problem.fix, outcome="unavailable")
    return scheduler
