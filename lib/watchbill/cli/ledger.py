"""The ledger itself: is it what was written, what is in it, a copy of it, what is old in it, and what is left of it.

examples:
  watchbill ledger verify
  watchbill ledger export --table spend
  watchbill ledger backup /var/backups/watchbill.db
  watchbill ledger prune --keep 90d --dry-run
  watchbill ledger repair
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable

from watchbill import compiled, lock
from watchbill.cli import shared
from watchbill.cli.pause import author
from watchbill.clock import moment
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.ledger import db, export, prune, repair, verify
from watchbill.ledger.db import Ledger
from watchbill.outcomes import EXIT
from watchbill.reports.ending import printable

HELP = "check, prune, export, copy or repair the ledger"
_KEEP_S = 90 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    one = words.add_parser("verify", help="the file, the chain of events, the sums, and every row against its events")
    one.add_argument("--json", action="store_true", help="one JSON object with a schema version")
    one = words.add_parser("prune", help="remove what is old; what reports and proofs need stays")
    one.add_argument("--keep", metavar="SPAN", help="how far back to keep (default: [ledger] keep, else 90d)")
    one.add_argument("--dry-run", action="store_true", help="say what would go and remove nothing")
    one.add_argument("--json", action="store_true", help="one JSON object with a schema version")
    one = words.add_parser("export", help="every row as a line of JSON")
    one.add_argument("--table", action="append", metavar="T", help="only this table; may be given again")
    one.add_argument("--since", metavar="SPAN", help="only rows made or changed in the last 7d, 12h, ...")
    one = words.add_parser("backup", help="a checked copy, while the fleet runs")
    one.add_argument("file", nargs="?", help="a new file (default: beside the ledger, named by the time)")
    one = words.add_parser("repair", help="save what can be read of a damaged ledger, and hold the fleet")
    one.add_argument("--dry-run", action="store_true", help="only say whether it may be done now")


def run(args: argparse.Namespace) -> int:
    home = shared.home_of(args)
    if args.word == "repair":
        return _repair(home, args.dry_run)
    ledger = db.open_ledger(home.ledger)
    words: dict[str, Callable[[], int]] = {
        "verify": lambda: _verify(ledger, args.json),
        "prune": lambda: _prune(ledger, home, args),
        "export": lambda: _export(ledger, args),
        "backup": lambda: _backup(ledger, args.file),
    }
    return words[args.word]()


def _verify(ledger: Ledger, as_json: bool) -> int:
    seen = verify.verify(ledger, _progress)
    _progress("", 0, 0)
    if as_json:
        shared.print_json({
            "ok": not seen.breaks, "events": seen.events, "firings": seen.firings, "anchored": seen.anchored,
            "breaks": [one._asdict() for one in seen.breaks],
        })  # fmt: skip
    elif not seen.breaks:
        begins = f"from event {seen.anchored + 1} on" if seen.anchored else "from the first"
        print(f"{shared.count(seen.events, 'event')}, chained {begins}; {shared.count(seen.firings, 'firing')};"
              " every row is what was written")  # fmt: skip
    for one in seen.breaks if not as_json else ():
        print(printable(f"{one.table} {one.row}: {one.what}"))
    if not seen.breaks:
        return 0
    first = seen.breaks[0]
    print(f"WB-LEDGER-09: {ledger.path}: {printable(f'{first.table} {first.row}: {first.what}')}\n"
          "  fix: `watchbill stop` while you look; `watchbill ledger repair` makes a whole one of what can be read",
          file=sys.stderr)  # fmt: skip
    return EXIT["needs_human"]


def _kept_s(home: Home) -> int:
    """By the roster, as it was last compiled."""
    roster = compiled.load(home.roster)
    return roster.fleet.ledger_keep_s if roster else _KEEP_S


def _prune(ledger: Ledger, home: Home, args: argparse.Namespace) -> int:
    now = int(time.time())
    before = now - (_kept_s(home) if args.keep is None else _seconds(args.keep, "--keep"))
    gone = prune.prune(
        ledger, home.blobs, before, now, author(), dry_run=args.dry_run, tick=lambda what, n: _progress(what, n, 0),
        spared=frozenset(os.listdir(home.worktrees) if os.path.isdir(home.worktrees) else ()),
    )  # fmt: skip
    _progress("", 0, 0)
    if args.json:
        shared.print_json({"before": before, "dry_run": args.dry_run, **gone._asdict()})
        return 0
    print(f"{'would remove' if args.dry_run else 'removed'} what ended before {moment(before)}:"
          f" {shared.count(gone.firings, 'firing')} with all they left, {shared.count(gone.events, 'event')},"
          f" {shared.count(gone.holds, 'hold')}, {shared.count(gone.base_checks, 'cached check')},"
          f" {shared.count(gone.blobs, 'file')} of evidence ({gone.blob_bytes} bytes)")  # fmt: skip
    return 0


def _export(ledger: Ledger, args: argparse.Namespace) -> int:
    known = export.tables(ledger)
    for name in args.table or ():
        if name not in known:
            raise Fixable("WB-LEDGER-10", f"no table is called {name!r}", fix=f"one of: {', '.join(known)}")
    since = None if args.since is None else int(time.time()) - _seconds(args.since, "--since")
    for row in export.rows(ledger, args.table or known, since):
        print(json.dumps(row))
    return 0


def _backup(ledger: Ledger, file: str | None) -> int:
    target = os.path.abspath(file) if file else f"{ledger.path}.backup-{int(time.time())}"
    if os.path.exists(target):
        raise Fixable("WB-LEDGER-11", f"{target} is there already", fix="give the name of a new file")
    export.backup(ledger, target)
    print(target)
    return 0


def _repair(home: Home, dry_run: bool) -> int:
    def alone() -> None:
        live = [name.removesuffix(".lock") for name in _names(home.locks) if lock.held(os.path.join(home.locks, name))]
        if live:
            raise Fixable("WB-LEDGER-12", f"{', '.join(live)}: a firing is live on this host",
                          fix="`watchbill stop --now` ends what runs; then try again", outcome="held")  # fmt: skip

    alone()
    if dry_run:
        print("no firing is live: it may be repaired now")
        return 0
    done = repair.repair(home.ledger, author(), int(time.time()), alone)
    for table in done.tables:
        if table.rows or table.why:
            lost = "" if not table.why else f", {'some' if table.lost is None else table.lost} lost: {table.why}"
            print(printable(f"{table.table}: {table.rows} saved{lost}"))
    if done.anchored:
        print(f"the chain of events begins anew after event {done.anchored}")
    print(f"the damaged ledger is {done.damaged}; every agent is held until `watchbill resume --fleet`")
    return 0


def _names(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(".lock"))
    except FileNotFoundError:
        return []


def _seconds(span: str, flag: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([smhd])", span)
    if not match:
        raise Fixable("WB-LEDGER-13", f"{flag} {span!r} is no span of time", fix="90d, 12h or 30m")
    return int(match[1]) * _UNITS[match[2]]


def _progress(what: str, done: int, total: int) -> None:
    """One line on a terminal, over and over; nothing when nobody looks."""
    if sys.stderr.isatty():
        share = f" {100 * done // total} %" if total else f" {done}" if done else ""
        print(f"\r\033[K{what}{share}", end="", file=sys.stderr, flush=True)
