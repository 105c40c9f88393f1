"""What a firing asks of the ledger, at a thousand and at a million rows of history."""

from __future__ import annotations

import itertools
import os
import sqlite3
import statistics
import time
from collections.abc import Callable

from bench.claiming import begun, claim, directory
from bench.table import Row
from watchbill.ledger import db as ledger_db
from watchbill.ledger import decisions, firings, holds, reservations
from watchbill.ledger.db import Ledger
from watchbill.ledger.decisions import Decision
from watchbill.ledger.firings import Firing
from watchbill.outcomes import Ending

_NOW = 1_800_000_000
#: Rows of one firing of the past, and how many firings of it are of this week, however long the history is.
_ROWS, _RECENT = 20, 40
_numbers = itertools.count()

_PAST = """
CREATE TEMP TABLE past AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {firings})
SELECT i, printf('%012x', i) AS id, 'agent-' || (i % 8) AS agent, 1 + i % 5000 AS number,
       {now} - CASE WHEN i < {recent} THEN i * 60 ELSE 30 * 86400 + i * 60 END AS at FROM n;
CREATE TEMP TABLE four AS SELECT column1 AS j, column2 AS scope FROM
  (VALUES (0, 'issue'), (1, 'day'), (2, 'fleet_day'), (3, 'fleet_month'));
INSERT INTO firings (id, agent, role, host, boot, pid, pid_started, started, ended, outcome, exit, reason, reason_id,
                     config, repo_id, repo, number, cost_micro, cost_basis, engine, tokens, turns)
SELECT id, agent, 'implement', 'h', 'b', 1, 1, at, at + 50, 'pull_request', 0, 'done', 'done', 'digest', 7, 'acme/api',
       number, 400000, 'engine', 'claude', 90000, 30 FROM past;
INSERT INTO decisions (firing, at, step, subject, verdict, reason_id, reason, numbers)
SELECT id, at, 'gates', 'acme/api#' || (number + j), 'pass', 'held-passes', '', '{{}}' FROM past, four;
INSERT INTO claims (repo_id, repo, number, generation, firing, host, intended, tip, record, state, won_at, ended_at)
SELECT 7, 'acme/api', number, 1 + i / 5000, id, 'h', 'c', 'c', 'pr', 'ended', at, at + 50 FROM past;
INSERT INTO grants SELECT id, 1, at, at + 50, 'engine', 400000, 90000, 30, 1 FROM past;
INSERT INTO reservations
SELECT id, 1, unit, scope, CASE j WHEN 0 THEN '7#' || number WHEN 1 THEN agent ELSE 'fleet' END,
       CASE j WHEN 0 THEN '' WHEN 3 THEN strftime('%Y-%m', at, 'unixepoch') ELSE date(at, 'unixepoch') END,
       40000000, 1, 1, 'engine' FROM past, four, (SELECT 'usd' AS unit UNION ALL SELECT 'firings');
INSERT INTO spend (scope, subject, period, unit, settled, echo) SELECT scope, subject, period, unit, COUNT(*), COUNT(*)
  FROM reservations WHERE true GROUP BY 1, 2, 3, 4;
INSERT INTO events (at, kind, subject, body, hash)
SELECT at, 'evidence', id, '{{"kind":"check","size":4711}}', hex(randomblob(32)) FROM past, four;
INSERT INTO events (at, kind, subject, body, hash)
SELECT at, 'firing ended', id, '{{"cost_micro":400000}}', hex(randomblob(32)) FROM past
"""


def with_history(path: str, rows: int) -> Ledger:
    """A ledger with so many rows behind it."""
    ledger = ledger_db.open_ledger(path)
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:  # the past is written as it would lie there, not as it came about
        connection.execute(f"DROP TRIGGER {name}")
    for statement in _PAST.format(firings=rows // _ROWS, recent=_RECENT, now=_NOW).split(";\n"):
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return ledger


def refusal(ledger: Ledger) -> None:
    """What the gates read, and the row of a firing that they refuse."""
    holds.standing(ledger, _NOW)
    firings.live(ledger, "h")
    for scope, subject, period in (
        ("day", "agent-1", "2027-01-15"), ("fleet_day", "fleet", "2027-01-15"), ("fleet_month", "fleet", "2027-01")
    ):  # fmt: skip
        reservations.spent(ledger, scope, subject, period, "usd")
    id = f"r{next(_numbers)}"
    row = Firing(id, "agent-1", "implement", "h", "b", 1, 7, None, _NOW, config="digest")
    with ledger.transaction():
        firings.refuse(ledger, row, Ending("capped", "the day's cap is reached", "capped-day-usd"), _NOW)
        for gate in ("held", "running", "capped"):
            decisions.add(ledger, id, _NOW, Decision("gates", gate, "pass", f"{gate}-passes", ""))


def claiming(ledger: Ledger) -> None:
    """Claim and reserve, lose, settle."""
    id = f"c{next(_numbers)}"
    begun(ledger, [id])
    claim(ledger, id, 10**6 + next(_numbers))
    with ledger.transaction():
        reservations.settle(ledger, id, reservations.NOTHING, "lost", _NOW)


def spending(ledger: Ledger) -> None:
    """What `watchbill spend` reads of a week, and what stands against a cap."""
    assert len(ledger.rows("firings_that_spent", since=_NOW - 7 * 86400)) == _RECENT
    reservations.spent(ledger, "day", "agent-1", "2027-01-15", "usd")


def measure(rounds: int, *, quick: bool) -> list[Row]:
    """Interleaved batches; the median of a batch's ratio to the same batch on the small ledger."""
    large = 100_000 if quick else 1_000_000
    with directory() as root:
        few = with_history(os.path.join(root, "few.db"), 1000)
        many = with_history(os.path.join(root, "many.db"), large)
        rows = []
        for name, work in (("refusal", refusal), ("claim", claiming), ("spend", spending)):
            taken = [(_batch(work, few), _batch(work, many)) for _ in range(4 * rounds + 1)][1:]
            rows.append(
                Row(
                    f"{name} queries, {large:,} rows of history to 1,000",
                    round(statistics.median(one for _, one in taken) * 1e6),
                    "us",
                    round(statistics.median(one for _, one in taken) / statistics.median(one for one, _ in taken), 2),
                    "<= 1.2",
                )
            )
        few.close()
        many.close()
    return rows


def _batch(work: Callable[[Ledger], None], ledger: Ledger, count: int = 50) -> float:
    """Seconds of CPU and waiting for one, as the median of so many."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        work(ledger)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
