"""Claims a second, and a herd of claims at once.

A claim is what `reserve` writes in one transaction with synchronous=FULL: the claim row, a reservation against four
caps, and the chained events of both. Bare is one row inserted with BEGIN IMMEDIATE and synchronous=FULL.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from bench.many import together
from bench.table import Row, median
from watchbill.ledger import chain, claims, db, firings, reservations
from watchbill.ledger.db import Ledger, Refused
from watchbill.ledger.reservations import Subjects

_CAPS = {(scope, "usd"): 10**15 for scope in ("issue", "day", "fleet_day", "fleet_month")}
_WORST = {"usd": 1_700_000, "firings": 1}
_HERE = os.path.dirname(__file__)


@contextlib.contextmanager
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="watchbill-bench-") as root:
        yield root


def begun(ledger: Ledger, ids: list[str]) -> None:
    """Their firings, each of an agent of its own: what a claim's event refers to."""
    with ledger.transaction():
        for id in ids:
            firings.begin(ledger, firings.Firing(id, id, "implement", "h", "boot", 1, 7, None, 100, config="digest"))


def claim(ledger: Ledger, id: str, number: int, *, whole: bool = True) -> None:
    with ledger.transaction(durable=True):
        claims.intend(ledger, id, "h", 7, "acme/api", number, 1, "0" * 40)
        if whole:
            whose = Subjects(id, f"7#{number}", f"agent-{number % 8}", "2026-11-21", "2026-11")
            reservations.reserve(ledger, whose, _WORST, _CAPS, 100)


def ours(processes: int, each: int, *, whole: bool) -> float:
    """Claims a second."""
    with directory() as root:
        path = os.path.join(root, "ledger.db")
        ledger = db.open_ledger(path)
        begun(ledger, [f"f{p}-{n}" for p in range(processes) for n in range(each)])
        ledger.close()

        def work(process: int) -> int:
            mine = db.open_ledger(path)
            for n in range(each):
                claim(mine, f"f{process}-{n}", process * each + n, whole=whole)
            return each

        seconds, _ = together(processes, work)
        return processes * each / seconds


def bare(processes: int, each: int) -> float:
    """Inserts a second."""
    with directory() as root:
        path = os.path.join(root, "bare.db")
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE claims (id TEXT PRIMARY KEY, commit_id TEXT)")
        connection.close()

        def work(process: int) -> int:
            mine = sqlite3.connect(path, timeout=60, isolation_level=None)
            mine.execute("PRAGMA synchronous=FULL")
            for n in range(each):
                mine.execute("BEGIN IMMEDIATE")
                mine.execute("INSERT INTO claims VALUES (?, ?)", (f"f{process}-{n}", "0" * 40))
                mine.execute("COMMIT")
            return each

        seconds, _ = together(processes, work)
        return processes * each / seconds


def contested(total: int, processes: int = 8) -> dict[str, int]:
    """Everybody after the same issues: each is won once, and nobody ever hears `database is locked`."""
    with directory() as root:
        path = os.path.join(root, "ledger.db")
        db.open_ledger(path).close()
        counter = mmap.mmap(-1, 8)  # shared, and raced for on purpose

        def work(process: int) -> list[int]:
            mine, won, lost = db.open_ledger(path), 0, 0
            while (number := int.from_bytes(counter[:8], "big")) < total:
                try:
                    claim(mine, f"f{process}-{number}", number)
                    won += 1
                except Refused:
                    lost += 1
                if int.from_bytes(counter[:8], "big") == number:
                    counter[:8] = (number + 1).to_bytes(8, "big")
            return [won, lost]

        _, answers = together(processes, work)
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT COUNT(*), COUNT(DISTINCT number) FROM claims").fetchone()
        broken = chain.verify(connection)
        connection.close()
        won, lost = (sum(one) for one in zip(*answers, strict=True))
        assert broken is None, broken
        return {"claims": won, "refused": lost, "duplicates": rows[0] - rows[1], "unserved": total - rows[1]}


def herd(count: int, *, queue: bool) -> float:
    """Each opens the ledger, claims once and ends; the longest that one took, in seconds."""
    with directory() as root:
        path = os.path.join(root, "ledger.db")
        ledger = db.open_ledger(path)
        begun(ledger, [f"f{n}" for n in range(count)])
        ledger.close()

        def work(number: int) -> float:
            if not queue:  # plain busy_timeout
                db._queue = lambda _: contextlib.nullcontext()  # type: ignore[assignment,return-value]
            began = time.perf_counter()
            mine = db.open_ledger(path)
            claim(mine, f"f{number}", number)
            mine.close()
            return time.perf_counter() - began

        _, answers = together(count, work)
        return float(max(answers))


def peer(python: str, name: str, processes: int, each: int) -> float:
    """Claims a second of another program, in an interpreter that has it installed."""
    argv = [python, os.path.join(_HERE, "peers.py"), name, str(processes), str(each)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return 0.0
    return float(done.stdout)


def measure(rounds: int, *, quick: bool, peers: str | None) -> list[Row]:
    """Interleaved rounds, short and many: an fsync's time changes from one second to the next; medians of ratios."""
    rows, total, turns = [], 480, rounds if quick else 3 * rounds
    for processes in (1, 2, 8):
        each = total // processes
        found = [(ours(processes, each, whole=True), bare(processes, each)) for _ in range(turns)]
        rows.append(
            Row(
                f"claims, {processes} processes, to bare inserts",
                median((mine for mine, _ in found), 0),
                "a second",
                median(mine / floor for mine, floor in found),
                ">= 0.25",
            )
        )
    for name in ("huey", "agent-hub-mcp") if peers else ():
        assert peers is not None
        both = [(ours(8, total // 8, whole=False), peer(peers, name, 8, total // 8)) for _ in range(turns)]
        ratios = [mine / other for mine, other in both if other]
        if ratios:
            mine = median((mine for mine, _ in both), 0)
            rows.append(Row(f"bare claims, 8 processes, to {name}", mine, "a second", median(ratios), ">= 1"))
    waits = [(herd(50, queue=True), herd(50, queue=False)) for _ in range(rounds)]
    rows.append(
        Row(
            "worst of fifty one-shot claims, to plain busy_timeout",
            median((mine * 1000 for mine, _ in waits), 0),
            "ms",
            median(mine / plain for mine, plain in waits),
            "<= 0.35",
        )
    )
    seen = contested(4_000 if quick else 100_000)
    wrong = seen["duplicates"] + seen["unserved"]
    rows.append(Row(f"contested: duplicates or unserved of {seen['claims']:,} claims", wrong, "", wrong, "<= 0"))
    return rows
