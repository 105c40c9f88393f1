"""Ledgers and rows for tests."""

from __future__ import annotations

import itertools
from pathlib import Path

from watchbill.ledger import db
from watchbill.ledger.db import Ledger
from watchbill.ledger.firings import Firing

_numbers = itertools.count(1)


def new_ledger(tmp_path: Path) -> Ledger:
    return db.open_ledger(str(tmp_path / "home" / "ledger.db"))


def firing(agent: str = "bosun", id: str | None = None, host: str = "h1", pid: int = 1, started: int = 100) -> Firing:
    """A row as `wake` would write it."""
    return Firing(
        id or f"f{next(_numbers):04d}", agent, "implement", host, "boot", pid, 7, None, started, config="digest"
    )
