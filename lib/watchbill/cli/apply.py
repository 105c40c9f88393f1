"""Compile the roster that the firings read. An invalid one changes nothing.

example: watchbill apply

The timers themselves are not installed by this version: `watchbill fire AGENT` is what a timer has to run.
"""

from __future__ import annotations

import argparse
import sys

from watchbill import compiled
from watchbill.cli import shared
from watchbill.roster import compile_roster, read_roster

HELP = "compile the roster that the firings read"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="check and say, write nothing")


def run(args: argparse.Namespace) -> int:
    home = shared.home_of(args)
    before = compiled.load(home.roster)
    after = read_roster(home.root) if args.dry_run else compile_roster(home.root)
    same = before is not None and before.digest == after.digest
    said = "is up to date" if same else "would be compiled" if args.dry_run else "compiled"
    print(
        f"roster {after.digest[:12]} {said}: {shared.count(len(after.agents), 'agent')},"
        f" {shared.count(len(after.fleet.repos), 'repository', 'repositories')}"
    )
    print(f"next: watchbill fire {next(iter(after.agents))} --dry-run", file=sys.stderr)
    return 0
