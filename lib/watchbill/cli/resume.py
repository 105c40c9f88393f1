"""Lift what holds an agent, or the whole fleet.

examples:
  watchbill resume bosun
  watchbill resume --fleet
  watchbill resume --engine claude    it was parked: its account works again
"""

from __future__ import annotations

import argparse
import time

from watchbill.cli import shared
from watchbill.cli.pause import author, whom, whom_arguments
from watchbill.ledger import holds

HELP = "lift what holds an agent, or the whole fleet"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", nargs="?", help="its codename")
    whom_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be lifted and lift nothing")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    scope, subject = whom(args, fleet)
    now = int(time.time())
    standing = holds.standing(fleet.ledger, now)
    mine = [hold for hold in standing if (hold.scope, hold.subject) == (scope, subject)]
    for hold in mine:
        if args.dry_run:
            print(f"would lift: {hold.reason} ({hold.kind} by {hold.author})")
            continue
        with fleet.ledger.transaction(durable=True):
            holds.lift(fleet.ledger, hold.id, author(), now)
        print(f"{subject or 'the fleet'}: lifted: {hold.reason} ({hold.kind} by {hold.author})")
    if not mine:
        print(f"{subject or 'the fleet'}: nothing held it")
    for hold in standing:
        if hold.scope == "fleet" and scope == "agent":
            print(f"note: the whole fleet is still held: {hold.reason}; `watchbill resume --fleet` lifts that")
    return 0
