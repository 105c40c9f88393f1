"""Fire one agent: what its timer runs, and its role script. Exactly one line on stdout.

examples:
  watchbill fire bosun
  watchbill fire bosun --dry-run      the real path, up to the first effect
  watchbill fire bosun --scheduled    as a timer: the host's shared poll may be up to a minute old
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from watchbill import wake  # standard library only: most firings end at a gate
from watchbill.errors import Fixable
from watchbill.home import find_home
from watchbill.ledger.firings import Firing
from watchbill.outcomes import Ending
from watchbill.reports import ending as told
from watchbill.woken import Options, refuse

if TYPE_CHECKING:
    import argparse

USAGE = "usage: fire AGENT [--scheduled] [--dry-run] [--json] [--home DIR]"


HELP = "fire one agent: what its timer runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """For the help, and for `watchbill --home DIR fire ...`; `watchbill fire` itself goes the short way, by `main`."""
    parser.add_argument("agent", help="its codename")
    parser.add_argument("--scheduled", action="store_true", help="started by a timer")
    parser.add_argument("--dry-run", action="store_true", help="stop before the first effect")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the line")


def run(args: argparse.Namespace) -> int:
    flags = [f"--{name.replace('_', '-')}" for name in ("scheduled", "dry_run", "json") if getattr(args, name)]
    return main([args.agent, *flags, *(["--home", args.home] if args.home else [])])


def main(argv: list[str], role: str | None = None) -> int:
    """Fire one agent; the exit status. `role` is what the started script is for, None for `watchbill fire`."""
    if "-h" in argv or "--help" in argv:
        print(f"{USAGE}\n\n{__doc__}")
        return 0
    options = parse(argv)
    if isinstance(options, str):
        print(options, file=sys.stderr)
        return 2
    try:
        return _fire(role, options)
    except Fixable as problem:  # there was no ledger to write it down in, or it is the ledger that failed
        print(problem, file=sys.stderr)
        return _unrecorded(role, options, Ending(problem.outcome, problem.what.splitlines()[0], problem.id))
    except KeyboardInterrupt:
        return _unrecorded(role, options, Ending("cancelled", "interrupted", "signal", 130))
    except Exception:  # outside the story, which catches its own
        from watchbill.cli.boundary import bug_report

        return _unrecorded(role, options, Ending("bug", f"the report is {bug_report()}", "bug"))


def _unrecorded(role: str | None, options: Options, end: Ending) -> int:
    """The one line of a firing that no ledger knows of."""
    now = int(time.time())
    row = Firing("", options.agent, role or "", "", "", 0, 0, None, now, now, end.outcome, end.exit, end.reason)
    logs = find_home(os.environ, options.home).logs
    told.tell(row, logs, json=options.json, scheduled=options.scheduled)
    return end.exit


def _fire(role: str | None, options: Options) -> int:
    past = wake.up(role, options)
    if isinstance(past, int):
        return past
    if isinstance(past, wake.Past):
        from watchbill import firing  # third-party from here on

        return firing.main(past.woken, past.roster, past.agent)
    print(past.problem, file=sys.stderr)
    if not options.dry_run:
        from watchbill import repair

        repair.the_dead_of_host(past.woken, past.roster)
    return refuse(past.woken, Ending(past.problem.outcome, past.problem.what.splitlines()[0], past.problem.id), [])


def leave(status: int) -> NoReturn:
    """End the process without tearing the interpreter down.

    The last connection to close would checkpoint the write-ahead log, with four to five fsyncs for a refusal's one
    row; left open, the log is simply continued by the next firing (https://sqlite.org/wal.html, "Checkpointing").
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # of what could not be written there is nothing more to say
            pass
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
        elif word.startswith("-") or agent is not None:
            return f"fire: what is {word!r}?\n{USAGE}"
        else:
            agent = word
    if agent is None:
        return f"fire: which agent?\n{USAGE}"
    return Options(agent, home=home, **found)
