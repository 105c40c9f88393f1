"""A ledger with rows in its tables, and what breaks it: flipped bytes, other mounts, processes that are killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.ledgers import firing
from watchbill.ledger import claims, decisions, effects, evidence, firings, holds, reservations, steps
from watchbill.ledger.db import Ledger
from watchbill.ledger.decisions import Decision
from watchbill.ledger.evidence import Evidence
from watchbill.ledger.firings import Used
from watchbill.ledger.holds import Hold
from watchbill.ledger.reservations import NOTHING, Subjects
from watchbill.outcomes import Ending

DAY = 86400


def begin(ledger: Ledger, agent: str, number: int, at: int, generation: int = 1) -> str:
    """A firing that has won an issue, and is at work; its id."""
    row = firing(agent=agent, started=at)
    with ledger.transaction(durable=True):
        firings.begin(ledger, row)
        whose = Subjects(row.id, f"7#{number}", agent, f"day {at // DAY}", "2026-11")
        reservations.reserve(ledger, whose, {"usd": 1500, "tokens": 50}, {("day", "usd"): 10**6}, at)
        claims.intend(ledger, row.id, "h1", 7, "acme/api", number, generation, f"c{at}")
        decisions.add(ledger, row.id, at, Decision("gates", "held", "pass", "held-passes", "", {}))
        steps.begin(ledger, row.id, 1, "claim", at * 1000)
    with ledger.transaction():
        claims.win(ledger, row.id, 7, number, f"c{at}", at + 1)
        firings.target(ledger, row.id, 7, "acme/api", number, f"watchbill/issue-{number}", generation)
        effects.intend(ledger, f"7/{number}/{generation}/publish/0", row.id, "publish", {"head": "a"}, at + 2)
    return row.id


def end(ledger: Ledger, id: str, number: int, at: int, generation: int = 1) -> None:
    """It has spent less than it might, and is over."""
    with ledger.transaction(durable=True):
        effects.receive(ledger, f"7/{number}/{generation}/publish/0", {"verdict": "ok"}, at)
        evidence.add(ledger, Evidence(id, "diff", f"{number:02x}" * 32, 5, {}, at))
        reservations.settle(ledger, id, {**NOTHING, "usd": 700 + number, "tokens": 30, "firings": 1}, "engine", at)
        claims.end(ledger, id, "ended", "pr", f"e{at}", at)
        firings.end(ledger, id, Ending("pull_request", f"opened #{number}", "opened"), at, Used(700 + number, "engine"))


def live(ledger: Ledger, firings_: int = 6, at: int = 1000) -> None:
    """Firings that ended, one that has not, holds that stand and holds that were lifted."""
    for n in range(firings_):
        id = begin(ledger, f"agent{n % 3}", n, at + 10 * n)
        end(ledger, id, n, at + 10 * n + 5)
    begin(ledger, "bosun", 99, at + 10 * firings_)
    with ledger.transaction(durable=True):
        holds.add(ledger, Hold(0, "agent", "mate", "pause", "lunch", "ann", at, at + 10**9))
        holds.add(ledger, Hold(0, "fleet", "", "stop", "panic", "ann", at, None))
        holds.add(ledger, Hold(0, "repo", "acme/api", "pause", "freeze", "bob", at, None))
        holds.add(ledger, Hold(0, "engine", "codex", "auth", "401", "bosun", at, None))
    with ledger.transaction(durable=True):
        holds.lift(ledger, 3, "bob", at + 7)


def settled_file(ledger: Ledger) -> Path:
    """Everything in the one file, as after the last process has left; its path."""
    ledger.checkpoint()
    ledger.close()
    path = Path(ledger.path)
    assert not path.with_name("ledger.db-wal").exists()
    return path


def pages(path: Path, tables: list[str]) -> dict[int, str]:
    """Every page of these tables and of their indexes (by number, from 1), with whose it is."""
    with closing(sqlite3.connect(path)) as connection:
        every = connection.execute("SELECT rootpage, name, tbl_name FROM sqlite_master WHERE rootpage > 0").fetchall()
    roots = [(root, name) for root, name, table in every if table in tables]
    data = path.read_bytes()
    found: dict[int, str] = {}
    while roots:
        number, name = roots.pop()
        found[number] = name
        page = data[(number - 1) * 4096 : number * 4096]
        if page[0] in (2, 5):  # an inner page: its children (https://sqlite.org/fileformat.html, "B-tree Pages")
            cells = [int.from_bytes(page[12 + 2 * i : 14 + 2 * i]) for i in range(int.from_bytes(page[3:5]))]
            roots += [(int.from_bytes(page[c : c + 4]), name) for c in cells] + [(int.from_bytes(page[8:12]), name)]
    return found


def in_memory(data: bytes) -> Ledger:
    """A ledger of these bytes, without a file; as good as one for what reading makes of them."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data[:18] + b"\x01\x01" + data[20:])  # in memory there is no write-ahead log
    connection.execute("PRAGMA cell_size_check=ON")
    return Ledger("/in/memory/ledger.db", connection)


def private_mounts(*argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount what it likes, and nobody else sees it; skips where that is forbidden."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        text = "missing: unshare with user namespaces (util-linux, kernel.unprivileged_userns_clone)"
        if os.environ.get("WATCHBILL_REQUIRE"):
            pytest.fail(text)
        pytest.skip(text)
    return subprocess.run([unshare, "-rm", "sh", "-euc", *argv], text=True, capture_output=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, check=False)  # fmt: skip


def python(source: str, *argv: str) -> list[str]:
    """A few lines of Python as an own process."""
    return [sys.executable, "-c", source, *argv]
