"""What `apply` would change. Reads the whole roster and says everything that is wrong with it; writes nothing.

example: watchbill plan
"""

from __future__ import annotations

import argparse

from watchbill import compiled
from watchbill.cli import shared
from watchbill.roster import read_roster

HELP = "check the roster and show what apply would change"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    home = shared.home_of(args)
    wanted = read_roster(home.root)
    applied = compiled.load(home.roster)
    rows = []
    for name in sorted({*wanted.agents, *(applied.agents if applied else ())}):
        new, old = wanted.agents.get(name), applied.agents.get(name) if applied else None
        change = "none" if new == old else "remove" if new is None else "add" if old is None else "change"
        agent = new or old
        assert agent is not None
        rows.append({"agent": name, "role": agent.role, "schedule": agent.schedule, "change": change})
    fleet_changes = applied is None or applied.fleet != wanted.fleet
    if args.json:
        shared.print_json({"digest": wanted.digest, "fleet_changes": fleet_changes, "agents": rows})
        return 0
    shared.print_table(("agent", "role", "schedule", "change"), [tuple(row.values()) for row in rows])
    return 0
