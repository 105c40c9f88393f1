"""Hold an agent, or more: nothing of it fires until it is resumed. What runs now stops at its next effect.

Without an end, an agent, this host or the fleet is held by a gate file too: its timers then start nothing at all.

examples:
  watchbill pause bosun --reason "rewriting the tests"
  watchbill pause bosun --for 2h
  watchbill pause --repo acme/api --until 2026-11-24T09:00
  watchbill pause --account keychain:watchbill/anthropic
  watchbill pause --fleet
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Collection

from watchbill import gatefiles
from watchbill.cli import shared, times, whom
from watchbill.clock import moment
from watchbill.errors import Fixable
from watchbill.ledger import holds
from watchbill.ledger.holds import Hold

HELP = "hold an agent, a repository, an account, ..., or the whole fleet"


def arguments(parser: argparse.ArgumentParser) -> None:
    whom.arguments(parser)
    parser.add_argument("--reason", default="paused by hand", help="what `why` and `status` will say")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--for", dest="span", metavar="SPAN", help="30m, 2h, 3d; without it, until it is resumed")
    end.add_argument("--until", metavar="TIME", help="2026-11-24T09:00, or 09:00; in the fleet's time zone")
    parser.add_argument("--dry-run", action="store_true", help="say what would be held and hold nothing")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    scope, subject = whom.named(args, fleet)
    whom.checked(scope, subject, fleet)
    now = int(time.time())
    until = _end(args, fleet, now)
    text = f"until {moment(until)}" if until else "until it is resumed"
    file = gatefiles.path_of(fleet.home, scope, subject, fleet.host) if until is None else None
    if args.dry_run:
        print(f"would pause {whom.said(scope, subject)} {text}" + (f", by a hold and {file}" if file else ""))
        return 0
    reason = shared.words(args.reason)
    with fleet.ledger.transaction(durable=True):
        holds.add(fleet.ledger, Hold(0, scope, subject, "pause", reason, author(), now, until))
    print(f"{whom.said(scope, subject)}: paused {text}")
    if file:
        missing = gatefiles.put(file, f"{reason}: paused by {author()} at {moment(now)}", lambda: kept(fleet, file))
        print(missing, end="\n" if missing else "", file=sys.stderr)
    if scope == "fleet" and fleet.roster and fleet.roster.fleet.hosts > 1:
        print("the fleet's other hosts are not told; `watchbill stop` tells them", file=sys.stderr)
    return 0


def kept(fleet: shared.Opened, file: str, but: Collection[int] = ()) -> bool:
    """Whether a hold keeps this gate file. `but`: holds that do not count."""
    standing = [hold for hold in holds.standing(fleet.ledger, int(time.time())) if hold.id not in but]
    return file in gatefiles.wanted(fleet.home, standing, fleet.host)


def _end(args: argparse.Namespace, fleet: shared.Opened, now: int) -> int | None:
    """When it ends by itself, UTC epoch seconds."""
    zone = fleet.roster.fleet.timezone if fleet.roster else ""
    if args.span is not None:
        try:
            return now + times.seconds(args.span)
        except ValueError as error:
            what = f"--for {args.span!r} is no span of time"
            raise Fixable("WB-PAUSE-03", what, why=str(error), fix="30m, 2h or 3d") from error
    if args.until is None:
        return None
    fix = "--until 2026-11-24T09:00, --until 2026-11-24, or --until 09:00"
    try:
        until = times.moment(args.until, zone, now)
    except ValueError as error:
        raise Fixable("WB-PAUSE-04", f"--until {args.until!r} is no time", why=str(error), fix=fix) from error
    if until <= now:
        raise Fixable("WB-PAUSE-05", f"--until {args.until}: that is over, since {moment(until)}", fix=fix)
    return until


def author() -> str:
    """Who is typing."""
    try:
        return shared.words(getpass.getuser(), 200)
    except (KeyError, OSError):  # a user id without a name
        return "somebody"
