"""Table `steps`: the timeline of a firing."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Step(NamedTuple):
    """One row."""

    ordinal: int
    name: str
    started_ms: int
    duration_ms: int | None  # None: still in it, or the firing died in it
    verdict: str | None  # ok | ended | failed
    detail: str | None


def begin(ledger: Ledger, firing: str, ordinal: int, name: str, started_ms: int) -> None:
    ledger.write("step_begin", firing=firing, ordinal=ordinal, name=name, started_ms=started_ms)


def end(ledger: Ledger, firing: str, ordinal: int, duration_ms: int, verdict: str, detail: str | None) -> None:
    ledger.write("step_end", firing=firing, ordinal=ordinal, duration_ms=duration_ms, verdict=verdict, detail=detail)


def of_firing(ledger: Ledger, firing: str) -> list[Step]:
    return [Step(*row) for row in ledger.rows("steps_of_firing", firing=firing)]
