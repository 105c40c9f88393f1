"""What firings cost, and what those at work have used so far: tables `firings` and `meters`, as `spend` reads them."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Billed(NamedTuple):
    """A firing whose engine started."""

    id: str
    agent: str
    role: str
    started: int
    ended: int | None
    repo_id: int | None
    repo: str | None
    number: int | None
    pull_request: int | None
    cost_micro: int | None
    cost_basis: str | None  # see engines/bill.py
    engine: str
    account: str | None
    model: str | None
    tokens: int | None
    turns: int | None


class Running(NamedTuple):
    """A firing that has not ended, and its meter; the meter is None while nothing was heard."""

    id: str
    agent: str
    host: str
    pid: int
    started: int
    repo_id: int | None
    repo: str | None
    number: int | None
    engine: str | None
    account: str | None
    model: str | None
    cost_micro: int | None  # so far; None also when dollars are not known yet
    tokens: int | None
    turns: int | None
    basis: str | None
    heard_at: int | None


def since(ledger: Ledger, at: int) -> list[Billed]:
    """Of firings that began at that time or later, oldest first; also of those that still run, without a cost."""
    return [Billed(*row) for row in ledger.rows("firings_that_spent", since=at)]


def running(ledger: Ledger) -> list[Running]:
    """Of every host that this ledger has, oldest first."""
    return sorted((Running(*row) for row in ledger.rows("firings_running")), key=lambda row: (row.started, row.id))
