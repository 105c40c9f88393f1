"""Is everything there that the fleet needs, in your shell and where the scheduler starts it? Each finding with its fix.

examples:
  watchbill doctor
  watchbill doctor --here     only as your shell has it, without starting anything of the scheduler's
  watchbill doctor --json

Two columns: every check is made in your shell, and again in a unit that the scheduler starts like a firing, which goes
away again. What only your shell knows (a PATH, a variable with a token, an agent for keys) is found so before a firing
misses it. Isolation: from inside each layer that works on this host, every way out that we know of is tried. It works
without a fleet, too. Exit status 78 when something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from watchbill import signals
from watchbill.cli import shared
from watchbill.compiled import Compiled
from watchbill.doctor import columns, once, second
from watchbill.doctor.finding import Finding, Look, of_problem, roster_of, shell_of
from watchbill.errors import Fixable
from watchbill.home import Home, find_home
from watchbill.ledger import db
from watchbill.outcomes import EXIT

HELP = "what is missing or wrong on this host, in your shell and for the scheduler, and its fix"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--here", action="store_true", help="only in this shell: no second column")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    home = find_home(os.environ, args.home)
    roster, problems = _fleet(home)
    it = Look(home, roster, "shell", shell_of(os.environ))
    with _tidily():
        mine = columns.seen_by(it)
        theirs = second.Seen(None, None, "none", "--here") if args.here else second.by_scheduler(home, roster)
    both = columns.merged(mine.findings, theirs.column.findings if theirs.column else None)
    found = _in_order([*_of_fleet(home, roster, problems), *both, *once.look(it)])
    wrong = sum(finding.state == "wrong" for finding in found)
    if args.json:
        whole = {"home": home.root, "ok": not wrong, "scheduler": {"name": theirs.name, "how": theirs.how,
                 "why": theirs.why}, "findings": [one._asdict() for one in found]}  # fmt: skip
        shared.print_json({**whole, "probes": _probes(mine)})
    else:
        _print(found)
        if theirs.why and not args.here:
            print(f"the scheduler's column is {_HOW[theirs.how]}: {theirs.why}", file=sys.stderr)
        print(
            f"{shared.count(wrong, 'thing is', 'things are')} wrong" if wrong else "nothing is wrong", file=sys.stderr
        )
    return EXIT["invalid"] if wrong else 0


@contextlib.contextmanager
def _tidily() -> Iterator[None]:
    """Whoever asks us to end, also by closing the terminal, is obeyed when what was begun is taken away again."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in signals.asking() if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_HOW = {"imitated": "imitated, with the variables that a unit has", "none": "empty"}


def _in_order(found: list[Finding]) -> list[Finding]:
    """Together what is of one check, in the order in which the checks came."""
    checks = list(dict.fromkeys(one.check for one in found))
    return sorted(found, key=lambda one: checks.index(one.check))


def _probes(mine: columns.Column) -> list[dict[str, Any]]:
    return [{"layer": layer.name, **tried._asdict()} for layer in mine.layers for tried in layer.tried]


def _print(found: list[Finding]) -> None:
    """In a pipe a line has its fix; on a terminal that is too wide."""
    rows = [(one.check, one.subject, *_states(one), one.what) for one in found]
    if not sys.stdout.isatty():
        shared.print_table((), [(*row, one.id, one.fix) for row, one in zip(rows, found, strict=True)])
        return
    shared.print_table(("check", "subject", "shell", "scheduler", "what"), rows)
    for one in found:
        if one.fix is not None:
            print(f"\n{one.subject}: {one.what}\n  fix: {one.fix}")


def _states(one: Finding) -> tuple[str | None, str | None]:
    return (
        None if one.where == "scheduler" else one.state,
        None if one.where == "shell" else one.state,
    )


def _fleet(home: Home) -> tuple[Compiled | None, tuple[Fixable, ...]]:
    """Its roster, and why it or its ledger cannot be read."""
    roster, problems = None, []
    if os.path.isdir(home.root):
        try:
            roster = roster_of(home)
        except Fixable as problem:
            problems.append(problem)
        try:
            if os.path.exists(home.ledger):
                db.open_ledger(home.ledger).close()
        except Fixable as problem:
            problems.append(problem)
    return roster, tuple(problems)


def _of_fleet(home: Home, roster: Compiled | None, problems: tuple[Fixable, ...]) -> Iterator[Finding]:
    """Is there one, and can its roster and ledger be read?"""
    for problem in problems:
        yield of_problem("fleet", home.root, "wrong", problem)
    if problems:
        return
    if roster is None:
        fix = "`watchbill demo` makes one to look at; else set WATCHBILL_HOME or give --home"
        yield Finding("fleet", home.root, "note", "there is no fleet here", fix=fix)
    else:
        yield Finding("fleet", home.root, "ok", f"{shared.count(len(roster.agents), 'agent')} in the roster")
