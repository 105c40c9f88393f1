"""`make caps N=64 [SEED=0]`: all caps and units under fire; then the two naive ways, and by how much they overshoot.

Prints one object with --json, else a few lines; exit status 1 when the promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

from caps import world
from caps.books import BOOKS, Reserving, keys
from caps.judge import Judge, Key
from caps.worker import Worker
from watchbill.ledger import chain
from watchbill.ledger.reservations import Subjects
from watchbill.money import UNITS

_LONGEST_S = 300
#: Whoever follows so many times as many as began is not killed any more: it comes to an end also where no cap holds.
_MOST_LIVES = 4


def fight(root: str, kind: str, phases: list[world.Phase], n: int, seed: int, kills: float) -> int:
    """Run it with `n` processes; whoever is killed is followed by another. The number of those killed."""
    BOOKS[kind](root)  # the file is there before many want it
    died, names, until = 0, 0, time.monotonic() + _LONGEST_S
    running: set[int] = set()
    try:
        while running or names < n + died:
            while names < n + died:
                likely = kills if names < _MOST_LIVES * n else 0.0
                running.add(_start(root, f"p{names:04d}", seed, kind, likely, phases))
                names += 1
            pid, status = os.wait()
            running.discard(pid)
            died += os.WIFSIGNALED(status)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise SystemExit(f"a process ended with {os.WEXITSTATUS(status)}")
            assert time.monotonic() < until, "it does not come to an end"
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return died


def _start(root: str, name: str, seed: int, kind: str, kills: float, phases: list[world.Phase]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        Worker(root, name, seed, kind, kills).work(phases)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(9)


def truth(root: str) -> tuple[dict[str, dict[str, int]], dict[Key, int], set[Key]]:
    """By the processes' own files: what each firing spent, what that makes for each cap, and which caps were full."""
    firings: dict[str, dict[str, int]] = {}
    sums: dict[Key, int] = defaultdict(int)
    full: set[Key] = set()
    for name in os.listdir(root):
        if not name.endswith(".truth"):
            continue
        with open(os.path.join(root, name), encoding="utf-8") as file:
            for line in file:
                what, *fields = line.rstrip("\n").split("|")
                if what == "full":
                    full.add(Key(*fields))
                    continue
                whose, used = Subjects(*fields[:5]), dict(zip(UNITS, map(int, fields[5:]), strict=True))
                mine = firings.setdefault(whose.firing, dict.fromkeys(UNITS, 0))
                mine.update({unit: mine[unit] + used[unit] for unit in UNITS})
                for key in keys(whose):
                    sums[Key(*key)] += used[key.unit]
    return firings, sums, full


def ours(n: int, seed: int, kills: float) -> dict[str, Any]:
    """Every scope and unit, judged."""
    with tempfile.TemporaryDirectory(prefix="watchbill-caps-") as root:
        began = time.monotonic()
        died = fight(root, "reserve", world.phases(), n, seed, kills)
        undertaker = Worker(root, "undertaker", seed, "reserve", 0)
        assert isinstance(undertaker.books, Reserving)
        connection = undertaker.books.ledger._connection
        while connection.execute("SELECT 1 FROM grants WHERE settled_at IS NULL").fetchone():
            undertaker.bury_the_dead()
        judge = Judge(world.REQUEST)
        judge.replay(connection.execute("SELECT seq, kind, subject, body FROM events ORDER BY seq"))
        firings, _, full = truth(root)
        sums = connection.execute("SELECT scope, subject, period, unit, settled, reserved FROM spend").fetchall()
        used = judge.at_the_end(firings, sums, full)
        broken = chain.verify(connection)
        undertaker.books.ledger.close()
    return {
        "processes": n,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "grants": judge.grants,
        "killed": died,
        "most_live": judge.most_live,
        "full": sorted({f"{key.scope} {key.unit}" for key in full}),
        "worst_utilisation": round(used, 3),
        "violations": judge.violations[:20] + ([str(broken)] if broken else []),
    }


def naive(kind: str, n: int, seed: int, kills: float) -> dict[str, Any]:
    """Only the fleet's day: how far what was truly spent went beyond the cap, and what the books say of it."""
    phases = world.phases(("fleet_day",))
    with tempfile.TemporaryDirectory(prefix="watchbill-caps-") as root:
        fight(root, kind, phases, n, seed, kills)
        _, sums, _ = truth(root)
        over = {}
        for phase in phases:
            cap = phase.caps()["fleet_day", phase.unit]
            key = next(k for k in keys(phase.subjects("", 0, 0)) if (k.scope, k.unit) == ("fleet_day", phase.unit))
            recorded = BOOKS[kind](root)._settled(key)  # type: ignore[union-attr]
            over[phase.unit] = (sums[Key(*key)] - cap, cap, recorded)
    return {
        "books": kind,
        "overshoot_percent": {unit: round(100 * beyond / cap, 1) for unit, (beyond, cap, _) in over.items()},
        "recorded_percent": {unit: round(100 * recorded / cap, 1) for unit, (_, cap, recorded) in over.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=float, default=0.03, help="how likely a firing is killed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = ours(args.n, args.seed, args.kills)
    result["naive"] = [naive(kind, args.n, args.seed, args.kills) for kind in ("check-then-spend", "json-file")]
    if args.json:
        print(json.dumps(result))
    else:
        tell(result)
    return 1 if result["violations"] or result["worst_utilisation"] < 0.95 else 0


def tell(result: dict[str, Any]) -> None:
    print(
        f"{result['processes']} processes, {result['grants']} grants, {result['killed']} killed, at most"
        f" {result['most_live']} live at once, {result['seconds']} s: {len(result['violations'])} violations;"
        f" {len(result['full'])} caps used up, the worst to {100 * result['worst_utilisation']:.1f} %"
    )
    for violation in result["violations"]:
        print(f"  {violation}")
    for one in result["naive"]:
        beyond = ", ".join(f"{unit} {percent:+.1f} %" for unit, percent in one["overshoot_percent"].items())
        books = ", ".join(f"{unit} {percent:.0f} %" for unit, percent in one["recorded_percent"].items())
        print(f"naive, {one['books']}: beyond the cap by {beyond}; recorded {books} of it")


if __name__ == "__main__":
    sys.exit(main())
