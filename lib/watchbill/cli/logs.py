"""What an agent's firings wrote: their notes, and whatever its timer caught of stdout and stderr.

examples:
  watchbill logs bosun
  watchbill logs bosun -f            and what comes from now on
  watchbill logs 01kj4               one firing, by the beginning of its id
  watchbill logs bosun -n 1000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import datetime

from watchbill import evidence as blobs
from watchbill import logs
from watchbill.cli import shared
from watchbill.cli.whom import guess
from watchbill.errors import Fixable
from watchbill.ledger import evidence, firings
from watchbill.logs import Entry
from watchbill.schedulers import zone

HELP = "what an agent, or one firing, wrote"
#: Of an agent, when no number is given; one firing is shown whole.
_USUAL = 100
_FOLLOW_S = 0.2
#: Of a line on a terminal; a pipe gets all of it.
_WIDEST = 4000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="AGENT|FIRING", help="its codename, or a firing's id or the beginning of it")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    parser.add_argument("-n", "--lines", type=_count, metavar="N", help=f"the last N lines (an agent's: {_USUAL})")
    parser.add_argument("--json", action="store_true", help="one JSON object; with --follow one a line")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    agent, firing = _named(fleet, args.subject)
    path = os.path.join(fleet.home.logs, f"{agent}.log")
    tail = logs.Tail(path) if args.follow else None  # first: what is written while we read is told twice, not never
    try:
        found = [entry for entry in _read(path) if firing in (None, entry.firing)]
        most = args.lines if args.lines is not None else None if firing else _USUAL
        shown = _last(found, most)
        if tail is None and args.json:
            shared.print_json(_whole(fleet, path, agent, firing, shown))
            return 0
        _print(shown, args.json)
        if firing and tail is None:
            _where(fleet, path, firing, bool(found))
        if tail is not None:
            _follow(tail, firing, args.json)
    except KeyboardInterrupt:  # how a person ends it
        return 130
    finally:
        if tail is not None:
            tail.close()
    return 0


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def _named(fleet: shared.Opened, subject: str) -> tuple[str, str | None]:
    """An agent, and the one firing of it that is meant. Ids begin with a digit, names with a letter."""
    if subject[:1].isdigit():
        firing = shared.firing_id(fleet.ledger, subject)
        row = firings.get(fleet.ledger, firing)
        assert row is not None
        return row.agent, firing
    names = {name.removesuffix(".log") for name in _listed(fleet.home.logs) if name.endswith(".log")}
    names |= set(fleet.roster.agents if fleet.roster else ())
    if subject not in names:
        fix = f"one of: {', '.join(sorted(names)) or 'none'}{guess(subject, sorted(names))}"
        raise Fixable("WB-LOGS-01", f"no agent is called {subject!r}, and no firing begins so", fix=fix)
    return subject, None


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> list[Entry]:
    try:
        return logs.read(path)
    except OSError as error:
        fix = f"ls -l {os.path.dirname(path)}"
        raise Fixable("WB-LOGS-02", f"{path} cannot be read", why=str(error), fix=fix, outcome="unavailable") from error


def _last(found: list[Entry], most: int | None) -> list[Entry]:
    """The last so many lines; an entry that is cut keeps its end."""
    if most is None:
        return found
    shown: list[Entry] = []
    for entry in reversed(found):
        if most <= 0:
            break
        shown.append(entry._replace(lines=entry.lines[-most:]))
        most -= len(shown[-1].lines)
    return shown[::-1]


def _print(shown: Iterable[Entry], as_json: bool) -> None:
    here = zone.local()
    for entry in shown:
        if as_json:
            print(json.dumps({"at": entry.at or None, "firing": entry.firing or None, "text": "\n".join(entry.lines)}))
            continue
        when = f"{datetime.fromtimestamp(entry.at, here):%Y-%m-%d %H:%M:%S}" if entry.at else "-"
        head = f"{when} {entry.firing or '-'} "
        for number, line in enumerate(entry.lines):
            print(f"{head if number == 0 else ' ' * 4}{_shown(line)}")
    sys.stdout.flush()


def _shown(line: str) -> str:
    """Nothing in it moves a cursor, colours or hides anything."""
    if sys.stdout.isatty() and len(line) > _WIDEST:
        line = f"{line[:_WIDEST]} ... ({len(line) - _WIDEST} characters more)"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)


def _whole(fleet: shared.Opened, path: str, agent: str, firing: str | None, shown: list[Entry]) -> dict[str, object]:
    return {
        "agent": agent,
        "firing": firing,
        "files": logs.files(path),
        "entries": [{"at": e.at or None, "firing": e.firing or None, "text": "\n".join(e.lines)} for e in shown],
        "evidence": _evidence(fleet, firing) if firing else [],
    }


def _evidence(fleet: shared.Opened, firing: str) -> list[dict[str, object]]:
    found = evidence.of_firing(fleet.ledger, firing)
    return [{"kind": one.kind, "path": blobs.blob_path(fleet.home, one.digest), "size": one.size} for one in found]


def _where(fleet: shared.Opened, path: str, firing: str, any_lines: bool) -> None:
    """Where the rest of a firing lies; words, so on stderr."""
    if not any_lines:
        print(f"{path} and its older files hold nothing of {firing}", file=sys.stderr)
    for one in _evidence(fleet, firing):
        print(f"{one['kind']}: {one['path']}", file=sys.stderr)
    engine = os.path.join(fleet.home.worktrees, firing, "engine.log")
    if os.path.exists(engine):
        print(f"its engine's output: {engine}", file=sys.stderr)


def _follow(tail: logs.Tail, firing: str | None, as_json: bool) -> None:
    while True:
        _print([entry for entry in tail.more() if firing in (None, entry.firing)], as_json)
        time.sleep(_FOLLOW_S)
