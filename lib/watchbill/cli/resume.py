"""Lift what holds an agent, or more. It fires again when its schedule says so, or at once by `watchbill fire`.

examples:
  watchbill resume bosun
  watchbill resume --fleet            also a stop, on every host of the fleet
  watchbill resume --engine claude    it was parked: its account works again
  watchbill resume --hold 12          this one and no other, as `watchbill status` numbers them

Its gate file goes too, whoever made it; and an agent whose timer was stopped, disabled or removed behind our back fires
by itself again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from watchbill import gatefiles
from watchbill import holds as matching
from watchbill.cli import shared, whom
from watchbill.cli.pause import author, kept
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
    gone = {hold.id for hold in mine}
    file = gatefiles.path_of(fleet.home, scope, subject, fleet.host)
    free = not mine and not (file and os.path.exists(file))
    if free:
        whom.checked(scope, subject, fleet)  # of what nobody knows, the name is likelier wrong than free
    for hold in mine:
        _lift(args, fleet, hold, now)
    statuses = [_remove(args, fleet, file, mine) if file else 0]
    rearmed = _rearm(args, fleet, subject) if scope == "agent" else None
    if free and rearmed is None:
        print(f"{whom.said(scope, subject)}: nothing held it")
    statuses += [rearmed or 0, _withdraw(args, fleet, mine) if scope == "fleet" else 0]
    _say_rest(fleet, scope, subject, now, gone)
    return next((status for status in statuses if status), 0)


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
    file = gatefiles.path_of(fleet.home, mine[0].scope, mine[0].subject, fleet.host)
    status = _remove(args, fleet, file, mine) if file and gatefiles.projects(mine[0]) else 0
    _say_rest(fleet, mine[0].scope, mine[0].subject, now, {args.hold})
    return status


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


def _remove(args: argparse.Namespace, fleet: shared.Opened, path: str, lifted: list[Hold]) -> int:
    """Take the gate file away, unless another hold keeps it; the exit status. `lifted`: what is, or would be."""
    gone = {hold.id for hold in lifted}
    there = os.path.exists(path)
    if args.dry_run:
        if there and not kept(fleet, path, gone):
            print(f"would remove {path}")
        return 0
    why = gatefiles.remove(path, lambda: kept(fleet, path, gone))
    if why:
        print(why, file=sys.stderr)
        return EXIT["needs_human"]
    if there and not os.path.exists(path) and not any(gatefiles.projects(hold) for hold in lifted):
        print(f"{path}: removed; no hold stood for it")
    return 0


def _rearm(args: argparse.Namespace, fleet: shared.Opened, agent: str) -> int | None:
    """Let a timer that was stopped, disabled or removed behind our back fire again; None: it was not."""
    from watchbill.schedulers import manifest

    if fleet.roster is None or agent not in manifest.read(fleet.home).agents:
        return None  # nothing was ever brought to the system for it: nothing to ask
    from watchbill.schedulers import applying, survey

    try:
        seen = survey.take(fleet.home, fleet.roster)
        if seen.problem:
            raise seen.problem
        if agent not in seen.agents or not seen.agents[agent].paused:
            return None
        how, name = seen.agents[agent].what, seen.scheduler.name
        if args.dry_run:
            print(f"would let the timer of {agent} fire again, paused outside: {how}")
            return 0
        outcome = applying.rearm(fleet.home, fleet.roster, agent)
    except (Fixable, OSError) as problem:
        print(f"whether the timer of {agent} was paused outside cannot be told:\n{problem}", file=sys.stderr)
        return EXIT["unavailable"]
    if outcome is not None:
        print(f"the timer of {agent} stays paused outside ({how}): {outcome.what}", file=sys.stderr)
        return EXIT["unavailable"]
    print(f"{agent}: its timer ({name}) fires again; it had been paused outside: {how}")
    return 0


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
    every = fleet.home.gate()
    named = gatefiles.path_of(fleet.home, scope, subject, fleet.host) == every
    if not named and os.path.exists(every) and not kept(fleet, every):
        print(f"still: the file {every} holds every agent; `{gatefiles.lifting(every)}` removes it")


def _keeps(hold: Hold, agent: Agent | None, host: str, whole: tuple[str, str], now: int) -> bool:
    if (hold.scope, hold.subject) == whole:
        return hold.lifted_at is None
    if agent is None:
        return hold.lifted_at is None and (hold.scope, hold.subject) in (("fleet", ""), ("host", host))
    of_agent = {pair for use in (None, *agent.uses) for pair in matching.subjects_of(agent, host, use).items()}
    of_agent |= {("repo", repo) for repo in agent.repos}
    return (hold.scope, hold.subject) in of_agent and bool(matching.heeded([hold], agent.name, now))
