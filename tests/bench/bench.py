"""`make bench`: whole processes against the bare interpreter, as ratios within one run.

Machines are noisy: every round runs each command once, interleaved, and the table shows the median of the ratios to
that round's floor. `--json` prints the same as one object; `--rounds N` takes more rounds (at least five).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from support.fleet import LABEL, Fleet, agent, fleet
from watchbill import roles

_COLUMNS = (("cpu_ms", 8), ("cpu_ratio", 9), ("wall_ms", 9), ("wall_ratio", 9))
FLOOR = [sys.executable, "-I", "-c", "import sqlite3, json"]


class Took(NamedTuple):
    """One run of one command."""

    cpu_s: float
    wall_s: float


class Case(NamedTuple):
    """A command to be measured."""

    name: str
    goal: str  # DESIGN section 17, as a ratio to the floor
    run: Callable[[], Took]


def timed(argv: list[str], environment: dict[str, str], status: int) -> Took:
    """CPU (with children) and wall time of one process; its exit status is part of what is measured."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == status, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return Took(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def cases(it: Fleet) -> list[Case]:
    """What is measured, on a fleet with one held agent, one with nothing to do, and one with an issue a round."""
    script, environment = roles.script_of("implement"), it.environment()

    def firing(name: str, status: int, *argv: str) -> Took:
        return timed([sys.executable, "-I", script, name, *argv], environment, status)

    def whole() -> Took:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        return firing("bosun", 0)

    return [
        Case("bare interpreter", "1", lambda: timed(FLOOR, environment, 0)),
        Case("refused firing", "<= 1.8", lambda: firing("held", 75, "--scheduled")),
        Case("idle firing, poll fresh", "<= 2.2", lambda: firing("idle", 0, "--scheduled")),
        Case("whole firing, scripted", "", whole),
    ]


def measure(it: Fleet, rounds: int) -> list[dict[str, object]]:
    """One row a case: medians over the rounds."""
    assert it.run("apply").returncode == 0
    assert it.run("pause", "held").returncode == 0
    it.fire("idle")  # refreshes the poll that the idle firings read
    measured = cases(it)
    took: dict[str, list[Took]] = {case.name: [] for case in measured}
    for number in range(rounds + 1):
        for case in measured:
            one = case.run()
            if number:  # the first round warms the caches
                took[case.name].append(one)
    floor = took[measured[0].name]
    rows: list[dict[str, object]] = []
    for case in measured:
        mine = took[case.name]
        ratios = [one.cpu_s / base.cpu_s for one, base in zip(mine, floor, strict=True)]
        walls = [one.wall_s / base.wall_s for one, base in zip(mine, floor, strict=True)]
        rows.append({
            "case": case.name,
            "cpu_ms": round(statistics.median(one.cpu_s for one in mine) * 1000, 1),
            "wall_ms": round(statistics.median(one.wall_s for one in mine) * 1000, 1),
            "cpu_ratio": round(statistics.median(ratios), 2),
            "wall_ratio": round(statistics.median(walls), 2),
            "goal": case.goal,
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    idle = {**agent(), "labels": {"takes": "agent:nothing"}}
    with tempfile.TemporaryDirectory(prefix="watchbill-bench-") as root:
        os.environ["HOME"] = root
        with fleet(Path(root), {"bosun": agent(), "idle": idle, "held": agent()}) as it:
            rows = measure(it, max(5, args.rounds))
    if args.json:
        print(json.dumps({"schema": 1, "rows": rows}))
        return 0
    print(f"{'':26}{'cpu ms':>8}{'x floor':>9}{'wall ms':>9}{'x floor':>9}   goal")
    for row in rows:
        cells = "".join(f"{row[key]:>{width}}" for key, width in _COLUMNS)
        print(f"{row['case']:26}{cells}   {row['goal']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
