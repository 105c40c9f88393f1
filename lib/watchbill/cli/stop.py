"""Stop the whole fleet: nothing fires until it is resumed. With --now also what is running is ended, on record.

The stop is a hold in the ledger of this host, and a ref in each repository, where the other hosts read it within
minutes. Without --now what runs stops by itself, within seconds of work by engine or checks, or at its next effect.

examples:
  watchbill stop --reason "the bill looks wrong"
  watchbill stop --now                 nothing of this host's firings runs ten seconds later; paid-for work is kept
  watchbill stop --for 2h
  watchbill resume --fleet             lifts it, here and in the repositories
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from watchbill import money, stopping
from watchbill.cli import shared, times
from watchbill.cli.pause import author
from watchbill.clock import moment
from watchbill.errors import Fixable
from watchbill.outcomes import EXIT
from watchbill.reports.ending import printable
from watchbill.runners import Live
from watchbill.stopping import Became, Book, Order, Stopped, Word

HELP = "stop everything, with --now also what is running"
_LIVE = ("agent", "firing", "issue", "pid", "step", "since", "spent")
_BECAME = ("agent", "firing", "issue", "pid", "became", "after", "outcome", "billed", "claim", "work kept")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--now", action="store_true", help="end what is running, within ten seconds, and bill it")
    parser.add_argument("--reason", default="stopped by hand", help="what `why`, `status` and the other hosts will say")
    parser.add_argument("--for", dest="span", metavar="SPAN", help="30m, 2h, 3d; without it, until it is resumed")
    parser.add_argument("--dry-run", action="store_true", help="say what runs and would be stopped; stop nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    if args.now:  # whoever watches may go away in the middle; what was begun is brought to its end
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    home = shared.home_of(args)
    now = int(time.time())
    order = Order(shared.words(args.reason), author(), now, _until(args.span, now))
    roster = stopping.roster_of(home)
    book = Book(home, None if args.dry_run else order, roster)
    word = None if args.dry_run else Word(home, book, roster)
    try:
        on_time = book.wait(stopping.LEDGER_S if args.now else None)
        if not args.json:
            _table(_LIVE, [_live(live) for live in book.live])
        if args.dry_run:
            return _dry_run(args, book)
        if not on_time or book.problem is not None:
            _say("the hold could not be written yet; what runs is looked for without the ledger" if args.now else "")
        stopped = stopping.everything(home, order, roster, _say, book) if args.now else None
    except KeyboardInterrupt:
        stands = "the stop stands" if book.wait(0) and book.problem is None else "nothing is held"
        _say(f"interrupted: {stands}; `watchbill stop --now` goes on")
        return 130
    told, order = word.told() if word else {}, book.order or order
    if roster is None or not roster.agents:
        _say("no roster says which repositories there are: the other hosts are not told")
    problem = stopped.problem if stopped else book.problem
    _say(book.unshut)
    if args.json:
        with _listening(sys.stdout):
            shared.print_json(as_object(order, book.live, stopped, told, problem))
    elif stopped:
        _table(_BECAME, [_became(one) for one in stopped.firings])
    return _last_words(order, book.live, stopped, told, problem)


def _until(span: str | None, now: int) -> int | None:
    try:
        return now + times.seconds(span) if span is not None else None
    except ValueError as error:
        raise Fixable(
            "WB-STOP-02", f"--for {span!r} is no span of time", why=str(error), fix="30m, 2h or 3d"
        ) from error


def _dry_run(args: argparse.Namespace, book: Book) -> int:
    if book.problem is not None:
        raise book.problem
    if args.json:
        shared.print_json({"dry_run": True, "running": [_live_object(live) for live in book.live]})
    _say(f"would hold the fleet{' and end what is running' if args.now else ''}; nothing was changed")
    return 0


def _last_words(
    order: Order, live: tuple[Live, ...], stopped: Stopped | None, told: dict[str, str], problem: Fixable | None
) -> int:
    """What a person has to know, and the exit status: 0 only when the hold stands, nothing runs, and all is billed."""
    for repo, why in told.items():
        if why:
            _say(f"{repo}: the other hosts are not told there: {printable(why)}")
    if problem is not None:
        ended = " What ran was ended all the same." if stopped and not stopped.left else ""
        _say(str(problem))
        _say(f"there is NO hold, and nothing could be written down.{ended}")
        return EXIT["needs_human"]
    end = f"until {moment(order.until)}" if order.until else "until `watchbill resume --fleet`"
    _say(f"the fleet is stopped {end}")
    if stopped is None:
        if live:
            _say("what runs stops by itself, at its next beat or effect; `watchbill stop --now` ends it")
        return 0
    if stopped.left:
        _say(f"STILL RUNNING: pids {', '.join(map(str, stopped.left))}")
    for one in stopped.firings:
        if not one.billed:
            _say(f"NOT BILLED: firing {one.firing} of {one.agent}")
    for issue, why in stopped.unreleased.items():
        _say(f"{issue}: not released: {printable(why)}; the next firing after the stop gives it back")
    if stopped.proven and not stopped.firings:
        _say("nothing was running")
    elif stopped.proven:
        _say(f"nothing runs any more, {stopped.seconds:.1f} s after it was told to end; everything is billed")
    return 0 if stopped.proven else EXIT["needs_human"]


def as_object(
    order: Order, live: tuple[Live, ...], stopped: Stopped | None, told: dict[str, str], problem: Fixable | None
) -> dict[str, Any]:
    """Documented in docs/programs.md."""
    return {
        "held": problem is None,
        "problem": problem.what if problem else None,
        "reason": order.reason,
        "author": order.author,
        "since": order.since,
        "until": order.until,
        "running": [_live_object(one) for one in live],
        "repositories": [{"repo": repo, "told": not why, "reason": why or None} for repo, why in told.items()],
        "stopped": [became_object(one) for one in stopped.firings] if stopped else None,
        "left": list(stopped.left) if stopped else None,
        "seconds": round(stopped.seconds, 2) if stopped else None,
    }


def _live_object(live: Live) -> dict[str, Any]:
    said = {key: value for key, value in live._asdict().items() if key not in ("who", "spent_micro")}
    spent = None if live.spent_micro is None else live.spent_micro / money.MICRO
    return {**said, "pid": live.who.pid, "spent_usd": spent}


def became_object(one: Became) -> dict[str, Any]:
    said = {key: value for key, value in one._asdict().items() if key not in ("cost_micro", "basis", "how")}
    cost = None if one.cost_micro is None else one.cost_micro / money.MICRO
    return {
        **said,
        "pids": list(one.pids),
        "left": list(one.left),
        "became": one.how,
        "seconds": round(one.seconds, 2),
        "cost_usd": cost,
        "cost_basis": one.basis,
    }


def _live(live: Live) -> tuple[object, ...]:
    spent = None if live.spent_micro is None else money.usd(live.spent_micro)
    return (live.agent, live.firing, live.issue, live.who.pid, live.step, shared.ago(live.since), spent)


def _became(one: Became) -> tuple[object, ...]:
    return (one.agent, one.firing, one.issue, one.pid, one.how, f"{one.seconds:.1f} s", one.outcome, billed(one),
            one.claim, one.kept)  # fmt: skip


def billed(one: Became) -> str:
    """$0.41 (engine)."""
    if not one.billed:
        return "NO"
    return "nothing" if one.cost_micro is None else f"{money.usd(one.cost_micro)} ({one.basis})"


def _table(headings: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with _listening(sys.stdout):
        if rows:
            shared.print_table(headings, rows)


def _say(text: str) -> None:
    with _listening(sys.stderr):
        if text:
            print(text, file=sys.stderr)


@contextlib.contextmanager
def _listening(stream: TextIO) -> Iterator[None]:
    """Nobody reads any more (`| head`, a terminal that is gone): that is no reason to stop stopping."""
    try:
        yield
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
