"""What `apply` would change. Reads the whole roster and says everything that is wrong with it; writes nothing.

examples:
  watchbill plan
  watchbill plan --diff        what would change in the units, line by line
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Iterator
from typing import Any

from watchbill import compiled
from watchbill.cli import fires, shared
from watchbill.compiled import Agent, Compiled
from watchbill.reports.ending import printable
from watchbill.roster import read_roster
from watchbill.schedulers import spread, units
from watchbill.schedulers import survey as surveying
from watchbill.schedulers.schedule import check
from watchbill.schedulers.survey import Seen, Survey

HELP = "check the roster and show what apply would change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--diff", action="store_true", help="also what would change in the units' files")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    home = shared.home_of(args)
    wanted = read_roster(home.root)
    applied = compiled.load(home.roster)
    with shared.files_at_fault():
        survey = surveying.take(home, wanted)
    rows = list(_rows(wanted, applied, survey, time.time()))
    problem = survey.problem
    if args.json:
        shared.print_json(
            {
                "digest": wanted.digest,
                "fleet_changes": applied is None or applied.fleet != wanted.fleet,
                "scheduler": survey.scheduler.name,
                "scheduler_problem": problem and problem.what,
                "agents": rows,
                "notes": [{"agent": agent, "text": text} for agent, text in units.surprises(wanted)],
            }
        )
        return 0
    shared.print_table(
        ("agent", "role", "schedule", "next", "roster", "timer", "apply would"),
        [
            (
                one["agent"],
                one["role"],
                one["schedule"],
                one["next_text"],
                one["change"],
                _timer(one),
                one["timer_change"],
            )
            for one in rows
        ],
    )
    if args.diff:
        for one in survey.agents.values():
            sys.stdout.writelines(_diff(one))
    for agent, text in units.surprises(wanted):
        print(f"note: {agent + ': ' if agent else ''}{text}", file=sys.stderr)
    if problem:
        print(f"timers are not known: {problem}", file=sys.stderr)
    return 0


def _timer(row: dict[str, Any]) -> str:
    return f"{row['timer']}: {row['timer_what']}" if row["timer_what"] else str(row["timer"])


def _rows(wanted: Compiled, applied: Compiled | None, survey: Survey, now: float) -> Iterator[dict[str, Any]]:
    before = applied.agents if applied else {}
    for name in sorted({*wanted.agents, *before, *survey.agents}):
        new, old = wanted.agents.get(name), before.get(name)
        seen = survey.agents.get(name)
        agent = new or old
        schedule = spread.shifted(check(agent.schedule), name) if agent else check("manual")
        upcoming = [*(fires.epochs(schedule, now) if new else []), None, None, None][:3]
        yield {
            "agent": name,
            "role": agent.role if agent else None,
            "schedule": agent.schedule if agent else _of_unit(seen),
            "change": _change(new, old),
            "unit": seen.name if seen else None,
            "timer": seen.state if seen else "manual",
            "timer_what": seen.what if seen else "",
            "timer_change": seen.change if seen else "none",
            "next": upcoming[0],
            "next_2": upcoming[1],
            "next_3": upcoming[2],
            "next_text": fires.text(schedule, now) if new else "-" if seen and seen.unit else "never",
        }


def _of_unit(seen: Seen | None) -> str | None:
    """Of what is no agent's."""
    return seen.unit.schedule.text if seen and seen.unit else None


def _change(new: Agent | None, old: Agent | None) -> str:
    if new == old:
        return "none"
    return "remove" if new is None else "add" if old is None else "change"


def _diff(seen: Seen) -> Iterator[str]:
    """As `diff -u` says it; of what is removed only the names."""
    disk = {file.path: file.content for file in seen.disk}
    for file in seen.wanted if seen.change in ("add", "change", "restore") else ():
        old, new = (
            [printable(line) + "\n" for line in content.decode("utf-8", "replace").splitlines()]
            for content in (disk.get(file.path, b""), file.content)
        )
        yield from difflib.unified_diff(old, new, file.path if file.path in disk else "/dev/null", file.path)
    if seen.change in ("remove", "prune"):
        yield from (f"--- {file.path}\n+++ /dev/null\n" for file in seen.disk)
