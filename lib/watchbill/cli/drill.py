"""Prove that a stop stops: sleeping dummies with child trees, real claims, a real `stop --now`, and what was left.

No account and no fleet is needed, and none is touched: everything happens in a temporary directory, on a practice
forge, and is gone afterwards. Each dummy has a child that ignores SIGTERM, one that left its session and its parent,
and one that keeps stdout open. It takes about ten seconds.

examples:
  watchbill drill
  watchbill drill --agents 10
  watchbill drill --json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from watchbill import money, process, roles, stopping
from watchbill.cli import checkout, shared, stage, stop
from watchbill.cli.stage import Stage, Told
from watchbill.errors import Fixable
from watchbill.outcomes import EXIT
from watchbill.stopping import Book, Order, Stopped, Word

HELP = "prove that a stop stops, on sleeping dummies"

_NAME = "acme/drill"
_MOST = 50
_AWAKE_S = 120.0  # until all dummies are at work, on a busy machine
_HEADINGS = ("agent", "pids before", "pids after", "gone after", "became", "billed", "claim", "work kept")
_DUMMY = """
import os, signal, subprocess, sys, time
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
subprocess.Popen([sys.executable, "-I", "-S", "-c", DEAF], stdout=subprocess.DEVNULL)
subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"])
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(3600)
os.wait()
print('{"type": "usage", "input_tokens": 1000, "output_tokens": 100, "cost_usd": 0.10}', flush=True)
with open("asleep", "w") as file:
    file.write("half of the work\\n")
time.sleep(3600)
"""
_WORKS = [
    {"write": {"path": "awake", "content": "done\n"}},
    {"usage": {"input_tokens": 1000, "output_tokens": 100, "cost_usd": 0.01}},
]


class Drilled(NamedTuple):
    """What was done and seen."""

    stopped: Stopped
    told: dict[str, str]  # repository -> "" when the other hosts could read the stop there
    held: Told  # a firing while the stop stood
    resumed: int  # exit status of `resume --fleet`
    through: Told  # a firing after it

    def wrong(self, agents: int) -> list[str]:
        """What did not go as promised; nothing: it is proven."""
        rows = [one for one in self.stopped.firings if one.firing is not None]
        found = {
            f"{agents} dummies were at work, and {len(rows)} were stopped": len(rows) != agents,
            "something was still there": bool(self.stopped.left) or any(one.left for one in rows),
            "it took longer than ten seconds": self.stopped.seconds > 10,
            "not everything was billed": not self.stopped.proven or not all(one.cost_micro for one in rows),
            "not every claim was released": any(one.claim != "released" for one in rows),
            "not all work was kept": not all(one.kept for one in rows),
            "the repositories were not told": any(self.told.values()),
            f"a firing was not held: {self.held.answer.get('outcome')}": self.held.answer.get("outcome") != "held",
            f"resume ended with {self.resumed}": self.resumed != 0,
            f"nothing went through afterwards: {self.through.answer.get('outcome')}":
                self.through.answer.get("outcome") != "pull_request",
        }  # fmt: skip
        return [words for words, so in found.items() if so]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agents", type=int, default=3, metavar="N", help="how many dummies (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    stage.end_cleanly()
    if not 1 <= args.agents <= _MOST:
        raise Fixable("WB-DRILL-01", f"--agents {args.agents}", fix=f"from 1 to {_MOST}")
    drilled = play(args.agents)
    wrong = drilled.wrong(args.agents)
    if args.json:
        shared.print_json(as_object(drilled, wrong))
    else:
        shared.print_table(_HEADINGS, _rows(drilled))
        print("\n".join(_lines(drilled, wrong)))
    return EXIT["needs_human"] if wrong else 0


def play(agents: int) -> Drilled:
    """Set the stage, wait until every dummy is at work, stop them, look what is left; nothing of it stays."""
    root = tempfile.mkdtemp(prefix="watchbill-drill-")
    try:
        with _stage(root, agents) as built, _dummies(built, agents):
            return _stop(built)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _stage(root: str, agents: int) -> Iterator[Stage]:
    bare = os.path.join(root, "drill.git")
    checkout.make_bare(bare, {"README.md": "# drill\n"}, "Begin")
    caps = {"firing_usd": 0.50, "day_usd": 5}
    dummy = {"use": "command", "argv": [sys.executable, "-I", "-S", "-c", _DUMMY]}
    crew: dict[str, dict[str, Any]] = {
        name: {"role": "implement", "engine": dummy, "timeout": "10m", "caps": caps} for name in _names(agents)
    }
    engine = {"use": "scripted", "steps": _WORKS}
    crew["mate"] = {"role": "implement", "engine": engine, "timeout": "10m", "caps": caps}
    first, *more = ({"title": f"Drill {n}", "body": "", "labels": ["agent:implement"]} for n in range(agents))
    built = stage.build(root, _NAME, bare, first, ["true"], {"fleet_day_usd": 100}, crew, *more)
    try:
        yield built
    finally:
        built.practice.close()


def _names(agents: int) -> list[str]:
    return [f"dummy{n + 1}" for n in range(agents)]


@contextlib.contextmanager
def _dummies(built: Stage, agents: int) -> Iterator[None]:
    """All at work; whatever happens, none of them is left."""
    _say(f"{shared.count(agents, 'dummy', 'dummies')} with their child trees begin to work ...")
    started = stage.start(built, _names(agents))
    try:
        until = time.monotonic() + _AWAKE_S
        while len(_asleep(built)) < agents:
            for name, runner in started.items():
                if runner.poll() is not None:
                    raise stage.last_words(stage.finish({name: runner})[0])
            if time.monotonic() > until:
                what = f"only {len(_asleep(built))} of {agents} dummies were at work after {_AWAKE_S:.0f} s"
                raise Fixable("WB-DRILL-02", what, fix="fewer --agents", outcome="unavailable")
            time.sleep(0.05)
        yield
    finally:
        for runner in started.values():
            with contextlib.suppress(ProcessLookupError):
                if runner.poll() is None:
                    process.end_tree(process.identity(runner.pid))
            runner.communicate()


def _asleep(built: Stage) -> list[str]:
    root = built.home.worktrees
    ids = os.listdir(root) if os.path.isdir(root) else []
    return [id for id in ids if os.path.exists(os.path.join(root, id, "tree", "asleep"))]


def _stop(built: Stage) -> Drilled:
    """The very story of `watchbill stop --now`, then `resume --fleet`."""
    _say("watchbill stop --now")
    order = Order("a drill", "watchbill drill", int(time.time()), None)
    roster = stopping.roster_of(built.home)
    book = Book(built.home, order, roster)
    word = Word(built.home, book, roster)
    book.wait()
    stopped = stopping.everything(built.home, order, roster, _say, book)
    told = word.told()
    _say("a firing while the stop stands ...")
    (held,) = stage.fire(built, ["dummy1"])
    _say("watchbill resume --fleet, and a firing after it ...")
    watchbill = os.path.join(roles.beside("bin"), "watchbill")
    resumed = subprocess.run(
        [sys.executable, watchbill, "resume", "--fleet"],
        env=stage.environment_of(built), stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    (through,) = stage.fire(built, ["mate"])
    return Drilled(stopped, told, held, resumed.returncode, through)


def as_object(drilled: Drilled, wrong: list[str]) -> dict[str, Any]:
    """The proof for programs."""
    return {
        "proven": not wrong,
        "wrong": wrong,
        "seconds": round(drilled.stopped.seconds, 2),
        "left": list(drilled.stopped.left),
        "dummies": [stop.became_object(one) for one in drilled.stopped.firings],
        "held": drilled.held.answer,
        "after": drilled.through.answer,
    }


def _rows(drilled: Drilled) -> list[tuple[object, ...]]:
    return [
        (one.agent, _pids(one.pids), _pids(one.left), f"{one.seconds:.1f} s", one.how, stop.billed(one), one.claim,
         one.kept)
        for one in drilled.stopped.firings
    ]  # fmt: skip


def _pids(pids: tuple[int, ...]) -> str:
    return " ".join(map(str, pids)) or "none"


def _lines(drilled: Drilled, wrong: list[str]) -> list[str]:
    held, through = drilled.held.answer, drilled.through.answer
    cost = money.usd(round((through.get("cost_usd") or 0) * money.MICRO))
    lines = [
        f"while it stood   {drilled.held.agent}: {held.get('outcome')} ({drilled.held.status}): {held.get('reason')}",
        f"after the resume {drilled.through.agent}: {through.get('outcome')} for #{through.get('number')} ({cost})",
    ]
    if wrong:
        return [*lines, *(f"NOT PROVEN: {words}" for words in wrong)]
    return [*lines, f"proven: nothing ran {drilled.stopped.seconds:.1f} s after it was told to end"]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
