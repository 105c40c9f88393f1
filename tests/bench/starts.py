"""Whole processes against the bare interpreter: refused, idle and whole firings.

Every round runs each command once, interleaved; a row is the median of the ratios to that round's floor.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.table import Row, median
from support.fleet import LABEL, Fleet, agent, fleet
from watchbill import roles

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
        Case("bare interpreter", "", lambda: timed(FLOOR, environment, 0)),
        Case("refused firing", "<= 1.8", lambda: firing("held", 75, "--scheduled")),
        Case("idle firing, poll fresh", "<= 2.2", lambda: firing("idle", 0, "--scheduled")),
        Case("whole firing, scripted", "", whole),
    ]


def measure(rounds: int) -> list[Row]:
    """CPU time, with children, as a ratio to the bare interpreter's."""
    idle = {**agent(), "labels": {"takes": "agent:nothing"}}
    with tempfile.TemporaryDirectory(prefix="watchbill-bench-") as root:
        os.environ["HOME"] = root
        with fleet(Path(root), {"bosun": agent(), "idle": idle, "held": agent()}) as it:
            return _measured(it, rounds)


def _measured(it: Fleet, rounds: int) -> list[Row]:
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
    rows = []
    for case in measured:
        mine = took[case.name]
        ratio = median(one.cpu_s / base.cpu_s for one, base in zip(mine, floor, strict=True))
        rows.append(Row(case.name, median((one.cpu_s * 1000 for one in mine), 1), "ms CPU", ratio, case.goal))
    return rows
