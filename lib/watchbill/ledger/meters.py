"""Table `meters`: what a run had used when it was last heard. Bills a firing that is killed."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Meter(NamedTuple):
    """The running total of one firing's engine."""

    firing: str
    cost_micro: int | None  # None: not known yet
    tokens: int
    turns: int
    basis: str  # as engines.base.Result.basis
    at: int
    final: int = 0  # 1: the run has ended, and this is what it is charged


def put(ledger: Ledger, meter: Meter) -> None:
    ledger.write("meter_put", **meter._asdict())


def get(ledger: Ledger, firing: str) -> Meter | None:
    row = ledger.row("meter_get", firing=firing)
    return Meter(*row) if row else None
