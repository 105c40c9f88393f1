"""Compile the roster, and bring the system's timers to what it says. An invalid roster changes nothing.

examples:
  watchbill apply
  watchbill apply --agent bosun
  watchbill apply --prune         also remove the timers of agents that are not in the roster any more
  watchbill apply --dry-run

Twice does no more than once. A firing that runs is left alone, and so is an agent that somebody paused by `launchctl`
or `systemctl`: `watchbill resume` ends that. A change that the system does not take is taken back.
"""

from __future__ import annotations

import argparse
import sys
import time

from watchbill import compiled
from watchbill.cli import fires, shared
from watchbill.cli.whom import guess
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.outcomes import EXIT
from watchbill.reports.ending import printable
from watchbill.roster import compile_roster, read_roster
from watchbill.schedulers import applying, registry, systemd, units
from watchbill.schedulers import survey as surveying
from watchbill.schedulers.applying import Done

HELP = "compile the roster and install its timers"
#: Words for what was done, and for what would be.
_DONE = {
    "add": ("added", "add"),
    "change": ("changed", "change"),
    "restore": ("put back as it was applied", "put back"),
    "arm": ("armed", "arm"),
    "remove": ("removed", "remove"),
    "prune": ("removed", "remove"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agent", metavar="NAME", help="the timer of this agent and no other")
    parser.add_argument("--prune", action="store_true", help="remove the timers of agents that are gone")
    parser.add_argument("--dry-run", action="store_true", help="check and say, write nothing")


def run(args: argparse.Namespace) -> int:
    with shared.files_at_fault():
        return _apply(args, shared.home_of(args))


def _apply(args: argparse.Namespace, home: Home) -> int:
    before = compiled.load(home.roster)
    after = read_roster(home.root) if args.dry_run else compile_roster(home.root)
    _check_agent(args.agent, home, after)
    same = before is not None and before.digest == after.digest
    said = "is up to date" if same else "would be compiled" if args.dry_run else "compiled"
    print(
        f"roster {after.digest[:12]} {said}: {shared.count(len(after.agents), 'agent')},"
        f" {shared.count(len(after.fleet.repos), 'repository', 'repositories')}"
    )
    if args.dry_run:
        return _rehearse(args, home, after)
    status = told(applying.apply(home, after, _say, only=args.agent, prune=args.prune), home, after)
    if registry.chosen(after.fleet.timers.use) is systemd and systemd.lingering() is False:
        _say("timers stop when you log out: `loginctl enable-linger` keeps them")
    return status


def _check_agent(name: str | None, home: Home, roster: Compiled) -> None:
    known = sorted({*roster.agents, *applying.installed(home)})
    if name is not None and name not in known:
        fix = f"one of: {', '.join(known)}{guess(name, known)}"
        raise Fixable("WB-SCHED-03", f"no agent is called {name!r}", fix=fix)


def _rehearse(args: argparse.Namespace, home: Home, roster: Compiled) -> int:
    survey = surveying.take(home, roster)
    for one in survey.agents.values():
        if args.agent in (None, one.agent) and one.change in _DONE and (args.prune or one.change != "prune"):
            print(f"would {_DONE[one.change][1]} {one.name}")
    if survey.problem:
        print(survey.problem, file=sys.stderr)
        return EXIT["unavailable"]
    return 0


def told(done: list[Done], home: Home, roster: Compiled | None) -> int:
    """A line for everything that was not already so; the exit status."""
    now = time.time()
    wanted = units.of_roster(home, roster) if roster else {}
    for one in done:
        if one.ended == "done":
            then = f"; next {fires.text(wanted[one.agent].schedule, now, 1)}" if one.agent in wanted else ""
            print(f"{one.agent}: timer {_DONE[one.change][0]}{'; ' + printable(one.what) if one.what else then}")
        elif one.what:
            print(f"{one.agent}: {printable(one.what)}", file=sys.stderr if one.ended == "failed" else sys.stdout)
    if roster is not None and not any(one.ended in ("done", "failed", "deferred") for one in done):
        print("no timer had to change")
    ends = {one.ended for one in done}
    return EXIT["unavailable"] if "failed" in ends else EXIT["running"] if "deferred" in ends else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
