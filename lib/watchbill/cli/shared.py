"""What the verbs share: the home, the roster as it stands, times and tables as people read them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from watchbill import compiled
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home, existing_home
from watchbill.host import host_id
from watchbill.ledger import db, firings
from watchbill.ledger.db import Ledger
from watchbill.reports.ending import printable

SCHEMA = 1


class Opened(NamedTuple):
    """A fleet, opened for reading or for a word from a person."""

    home: Home
    ledger: Ledger
    roster: Compiled | None  # None: there is none that compiles
    host: str


def home_of(args: argparse.Namespace) -> Home:
    return existing_home(os.environ, args.home)


def opened(args: argparse.Namespace) -> Opened:
    """The fleet of --home. The roster is the compiled one, or read from its sources when it is not up to date."""
    home = home_of(args)
    ledger = db.open_ledger(home.ledger)
    return Opened(home, ledger, _roster(home), host_id(home.host))


def _roster(home: Home) -> Compiled | None:
    known = compiled.load(home.roster)
    if compiled.is_current(known, home.root):
        return known
    from watchbill.roster import read_roster

    try:
        return read_roster(home.root)
    except Fixable as problem:
        print(f"the roster is invalid, nothing will be claimed:\n{problem}", file=sys.stderr)
        return known


def firing_id(ledger: Ledger, text: str) -> str:
    """A firing by its id or the beginning of it."""
    found = firings.like(ledger, text)
    if len(found) == 1 or text in found:
        return text if text in found else found[0]
    what = "more than one firing begins" if found else "no firing begins"
    raise Fixable(
        "WB-SHOW-01", f"{what} with {text!r}", fix="`watchbill status` lists the last ones", outcome="invalid"
    )


def words(text: str, most: int = 2000) -> str:
    """What a person typed, as every ledger, terminal and other host can hold it: a stop must not fail for a byte."""
    sound = os.fsencode(text).decode("utf-8", "replace")
    return " ".join("".join(one if one.isprintable() else " " for one in sound).split())[:most]


def ago(then: int | None, now: float | None = None) -> str:
    """3m ago; - for never."""
    if then is None:
        return "-"
    seconds = int((time.time() if now is None else now) - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{max(seconds, 0)}s ago"


def count(number: int, one: str, many: str = "") -> str:
    """1 agent, 2 agents."""
    return f"{number} {one if number == 1 else many or one + 's'}"


@contextmanager
def files_at_fault() -> Iterator[None]:
    """What the disk refuses is for a person to mend, and no bug of ours."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename or 'a file of the fleet'}: {error.strerror or error}"
        fix = "see `ls -la` and `df -h` of it, mend that, then the same again"
        raise Fixable("WB-HOME-02", what, fix=fix, outcome="unavailable") from error


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps({"schema": SCHEMA, **value}, indent=1))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned on a terminal, tab-separated when piped."""
    texts = [["-" if cell is None else printable(" ".join(str(cell).split())) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts:
            print("\t".join(row))
        return
    widths = [max(len(line[i]) for line in [list(headings), *texts]) for i in range(len(headings))]
    for line in [[h.upper() for h in headings], *texts]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
