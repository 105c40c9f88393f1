"""Others' claims a second: run with an interpreter that has them; NAME PROCESSES EACH. Each as it ships."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from bench.many import together


def huey(root: str, processes: int, each: int) -> float:
    """Its queue in SQLite: enqueued before, taken off by many; synchronous as SQLite has it, FULL."""
    from huey.storage import SqliteStorage

    path = os.path.join(root, "huey.db")
    storage = SqliteStorage("bench", filename=path, timeout=60)
    for _ in range(processes * each):
        storage.enqueue(b"0" * 40)
    storage.close()

    def work(_: int) -> int:
        mine = SqliteStorage("bench", filename=path, timeout=60)
        return sum(mine.dequeue() is not None for _ in range(each))

    seconds, _ = together(processes, work)
    return processes * each / seconds


def agent_hub(root: str, processes: int, each: int) -> float:
    """Its claim with its audit row, committed, as the losing path forgets to."""
    from agent_hub import storage

    path = os.path.join(root, "hub.db")
    storage.run_migration = _tables
    connection = storage.init_db(path)
    wanted = [
        {"round_id": "r", "task_id": "t", "agent_id": f"a{p}", "goal": "g"}
        for p in range(processes)
        for _ in range(each)
    ]
    ids = [one["id"] for one in storage.create_assignments(connection, wanted)]
    connection.close()

    def work(process: int) -> int:
        mine = storage.get_db(path)
        mine.execute("PRAGMA busy_timeout=60000")
        for id in ids[process * each : (process + 1) * each]:
            assert storage.claim_assignment(mine, id, f"a{process}")
            mine.commit()
        return each

    seconds, _ = together(processes, work)
    return processes * each / seconds


def _tables(connection: Any) -> None:
    """The two tables that a claim writes: the wheel comes without its migrations."""
    connection.executescript(
        """
        CREATE TABLE agents (id TEXT PRIMARY KEY);
        CREATE TABLE assignments (id TEXT PRIMARY KEY, round_id TEXT, task_id TEXT, agent_id TEXT, goal TEXT,
          status TEXT, claimed_at TEXT, lease_expires_at TEXT, started_at TEXT, completed_at TEXT, created_at TEXT,
          updated_at TEXT);
        CREATE INDEX assignments_of_an_agent ON assignments (agent_id, status);
        CREATE TABLE audit_events (id TEXT PRIMARY KEY, event_type TEXT, agent_id TEXT, round_id TEXT,
          assignment_id TEXT, task_id TEXT, details_json TEXT, created_at TEXT);
        """
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="watchbill-bench-") as root:
        measured = {"huey": huey, "agent-hub-mcp": agent_hub}[sys.argv[1]]
        print(measured(root, int(sys.argv[2]), int(sys.argv[3])))
