"""Hold an agent, or the whole fleet: nothing of it fires until it is resumed. What runs now stops at its next effect.

examples:
  watchbill pause bosun --reason "rewriting the tests"
  watchbill pause bosun --for 2h
  watchbill pause --fleet
"""

from __future__ import annotations

import argparse
import getpass
import re
import time

from watchbill.cli import shared
from watchbill.clock import moment
from watchbill.errors import Fixable
from watchbill.ledger import holds
from watchbill.ledger.holds import Hold

HELP = "hold an agent, or the whole fleet"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", nargs="?", help="its codename")
    whom_arguments(parser)
    parser.add_argument("--reason", default="paused by hand", help="what `why` and `status` will say")
    parser.add_argument("--for", dest="span", metavar="SPAN", help="30m, 2h, 3d; without it, until it is resumed")
    parser.add_argument("--dry-run", action="store_true", help="say what would be held and hold nothing")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    scope, subject = whom(args, fleet)
    now = int(time.time())
    until = now + seconds(args.span) if args.span else None
    end = f"until {moment(until)}" if until else "until it is resumed"
    if args.dry_run:
        print(f"would pause {subject or 'the fleet'} {end}")
        return 0
    with fleet.ledger.transaction(durable=True):
        holds.add(fleet.ledger, Hold(0, scope, subject, "pause", args.reason, author(), now, until))
    print(f"{subject or 'the fleet'}: paused {end}")
    return 0


def whom_arguments(parser: argparse.ArgumentParser) -> None:
    """What else than an agent can be held and resumed."""
    parser.add_argument("--fleet", action="store_true", help="every agent")
    parser.add_argument("--engine", metavar="NAME", help="every agent that uses this engine")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="this repository")


def whom(args: argparse.Namespace, fleet: shared.Opened) -> tuple[str, str]:
    """The scope and subject that were named; an agent that nobody knows is an error, not a hold."""
    if sum((args.fleet, args.agent is not None, args.engine is not None, args.repo is not None)) != 1:
        raise Fixable(
            "WB-PAUSE-01", f"{args.verb} what?", fix=f"`watchbill {args.verb} AGENT` or `watchbill {args.verb} --fleet`"
        )
    if args.fleet:
        return "fleet", ""
    if args.engine:
        return "engine", args.engine
    if args.repo:
        return "repo", args.repo
    known = sorted(fleet.roster.agents) if fleet.roster else []
    if args.agent not in known:
        raise Fixable("WB-PAUSE-02", f"no agent is called {args.agent!r}", fix=f"one of: {', '.join(known) or 'none'}")
    return "agent", args.agent


def seconds(span: str) -> int:
    match = re.fullmatch(r"(\d+)([smhd])", span)
    if not match:
        raise Fixable("WB-PAUSE-03", f"--for {span!r} is no span of time", fix="30m, 2h or 3d")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "somebody"
