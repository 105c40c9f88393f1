"""Lift what holds an agent, or more. It fires again when its schedule says so, or at once by `watchbill fire`.

examples:
  watchbill resume bosun
  watchbill resume --fleet            also a stop, on every host of the fleet
  watchbill resume --engine claude    it was parked: its account works again
  watchbill resume --hold 12          this one and no other, as `watchbill status` numbers them
"""

from __future__ import annotations

import argparse
import sys
import time

from watchbill import holds as matching
from watchbill.cli import shared, whom
from watchbill.cli.pause import author
from watchbill.clock import SystemClock
from watchbill.compiled import Agent
from watchbill.errors import Fixable
from watchbill.ledger import holds, streaks
from watchbill.ledger.holds import Hold
from watchbill.outcomes import EXIT
from watchbill.reports.ending import printable

HELP = "lift what holds an agent, a repository, an account, ..., or the whole fleet"
#: What `stop` sets, here and on other hosts.
_STOPS = ("stop", "stop_elsewhere")


def arguments(parser: argparse.ArgumentParser) -> None:
    whom.arguments(parser)
    parser.add_argument("--hold", type=int, metavar="ID", help="this one and no other")
    parser.add_argument("--dry-run", action="store_true", help="say what would be lifted and lift nothing")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    now = int(time.time())
    standing = [hold for hold in holds.standing(fleet.ledger, now) if hold.lifted_at is None]
    if args.hold is not None:
        return _one(args, fleet, standing, now)
    scope, subject = whom.named(args, fleet)
    mine = [hold for hold in standing if (hold.scope, hold.subject) == (scope, subject)]
    if not mine:
        whom.checked(scope, subject, fleet)  # of what nobody knows, the name is likelier wrong than free
        print(f"{whom.said(scope, subject)}: nothing held it")
    for hold in mine:
        _lift(args, fleet, hold, now)
    status = _withdraw(args, fleet, mine) if scope == "fleet" else 0
    _say_rest(fleet, scope, subject, now, {hold.id for hold in mine})
    return status


def _one(args: argparse.Namespace, fleet: shared.Opened, standing: list[Hold], now: int) -> int:
    named = any(getattr(args, name) for name in ("agent", "fleet", "host", "repo", "issue", "role", "engine", "account",
                                                 "model", "github"))  # fmt: skip
    if named:
        raise Fixable("WB-PAUSE-01", "resume what?", why="--hold names one already", fix="`watchbill resume --hold ID`")
    mine = [hold for hold in standing if hold.id == args.hold]
    if not mine:
        why = "it was lifted, is over, or never was"
        raise Fixable("WB-PAUSE-06", f"no hold {args.hold} stands", why=why, fix="`watchbill status` numbers them")
    _lift(args, fleet, mine[0], now)
    if mine[0].kind in _STOPS:
        print("it may stand in the repositories still: `watchbill resume --fleet` withdraws it there", file=sys.stderr)
    _say_rest(fleet, mine[0].scope, mine[0].subject, now, {args.hold})
    return 0


def _lift(args: argparse.Namespace, fleet: shared.Opened, hold: Hold, now: int) -> None:
    name = whom.said(hold.scope, hold.subject)
    what = printable(f"{hold.reason} ({hold.kind} by {hold.author})")
    whoever = hold.heals and hold.scope != "agent"
    at_once = "; it is tried at once, by everybody, and not by one firing first" if whoever else ""
    if args.dry_run:
        print(f"would lift: {name}: {what}{at_once}")
        return
    with fleet.ledger.transaction(durable=True):
        lifted = holds.lift(fleet.ledger, hold.id, author(), now)
        if lifted and hold.kind == "breaker":
            streaks.over(fleet.ledger, hold.scope, hold.subject)
    print(f"{name}: lifted: {what}{at_once}" if lifted else f"{name}: somebody else was first to lift: {what}")


def _withdraw(args: argparse.Namespace, fleet: shared.Opened, lifted: list[Hold]) -> int:
    """Take a stop back in the repositories, where other hosts read it; the exit status."""
    if fleet.roster is None or not fleet.roster.agents:
        return 0
    if args.dry_run:
        print(f"would withdraw a stop, where one stands, from {', '.join(fleet.roster.fleet.repos)}")
        return 0
    from watchbill import elsewhere
    from watchbill.ports import Ports

    agent = next(iter(fleet.roster.agents.values()))
    told = elsewhere.withdraw(Ports(fleet.home, fleet.roster.fleet, agent, SystemClock(), fleet.ledger))
    failed = {repo: why for repo, why in told.items() if why}
    for repo, why in failed.items():
        print(f"{repo}: a stop may stand there still: {printable(why)}", file=sys.stderr)
    if failed:
        print("a host that reads one there stays held: `watchbill resume --fleet` again, when they answer",
              file=sys.stderr)  # fmt: skip
    return EXIT["unavailable"] if failed and any(hold.kind in _STOPS for hold in lifted) else 0


def _say_rest(fleet: shared.Opened, scope: str, subject: str, now: int, gone: set[int]) -> None:
    """What else keeps it from firing, and the command against that. `gone`: holds that are, or would be, lifted."""
    agent = fleet.roster.agents.get(subject) if scope == "agent" and fleet.roster else None
    for hold in holds.standing(fleet.ledger, now):
        if hold.id in gone or not _keeps(hold, agent, fleet.host, (scope, subject), now):
            continue
        by = "" if hold.lifted_at is not None else f"; `{whom.lifting(hold, fleet.host)}` lifts that"
        print(f"still: {printable(matching.said(hold, agent.name if agent else '', now))}{by}")


def _keeps(hold: Hold, agent: Agent | None, host: str, whole: tuple[str, str], now: int) -> bool:
    if (hold.scope, hold.subject) == whole:
        return hold.lifted_at is None
    if agent is None:
        return hold.lifted_at is None and (hold.scope, hold.subject) in (("fleet", ""), ("host", host))
    of_agent = {pair for use in (None, *agent.uses) for pair in matching.subjects_of(agent, host, use).items()}
    of_agent |= {("repo", repo) for repo in agent.repos}
    return (hold.scope, hold.subject) in of_agent and bool(matching.heeded([hold], agent.name, now))
