"""`watchbill fire AGENT`, and every role script: what the timer runs.

Standard library only at the top: most firings end at a gate.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from watchbill import wake
from watchbill.errors import Fixable
from watchbill.outcomes import EXIT, Ending
from watchbill.woken import Options, refuse

USAGE = "usage: fire AGENT [--scheduled] [--dry-run] [--json] [--home DIR]"


def main(argv: list[str], role: str | None = None) -> int:
    """Fire one agent; the exit status. `role` is what the started script is for, None for `watchbill fire`."""
    options = parse(argv)
    if isinstance(options, str):
        print(options, file=sys.stderr)
        return 2
    try:
        return _fire(role, options)
    except Fixable as problem:  # there was no ledger to write it down in, or it is the ledger that failed
        print(problem, file=sys.stderr)
        return EXIT[problem.outcome]


def _fire(role: str | None, options: Options) -> int:
    past = wake.up(role, options)
    if isinstance(past, int):
        return past
    if isinstance(past, wake.Past):
        from watchbill import firing  # third-party from here on

        return firing.main(past.woken, past.roster, past.agent)
    print(past.problem, file=sys.stderr)
    if not options.dry_run:
        from watchbill import settle

        settle.the_dead_of_host(past.woken, past.roster)
    return refuse(past.woken, Ending(past.problem.outcome, past.problem.what.splitlines()[0], past.problem.id), [])


def leave(status: int) -> NoReturn:
    """End the process without tearing the interpreter down.

    The last connection to close would checkpoint the write-ahead log, with four to five fsyncs for a refusal's one
    row; left open, the log is simply continued by the next firing (https://sqlite.org/wal.html, "Checkpointing").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def parse(argv: list[str]) -> Options | str:
    """Options, or what is wrong. By hand: argparse alone costs more than the ledger."""
    flags = {"--scheduled": "scheduled", "--dry-run": "dry_run", "--json": "json"}
    found: dict[str, bool] = {}
    agent = home = None
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word in flags:
            found[flags[word]] = True
        elif word == "--home" and rest:
            home = rest.pop(0)
        elif word.startswith("--home="):
            home = word.removeprefix("--home=")
        elif word in ("-h", "--help"):
            return f"{USAGE}\nexample: watchbill fire bosun"
        elif word.startswith("-") or agent is not None:
            return f"fire: what is {word!r}?\n{USAGE}"
        else:
            agent = word
    if agent is None:
        return f"fire: which agent?\n{USAGE}"
    return Options(agent, home=home, **found)
