"""Table `programs`: which version an engine's program said that it is, and which file said so."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Known(NamedTuple):
    """One row."""

    path: str  # as it is started; with the layer of isolation before it, where that is one
    file: str  # which file that was: another one is asked again
    version: str  # dotted, as it was printed
    asked_at: int  # UTC epoch seconds


def put(ledger: Ledger, known: Known) -> None:
    ledger.write("program_put", **known._asdict())


def get(ledger: Ledger, path: str) -> Known | None:
    row = ledger.row("program_get", path=path)
    return Known(*row) if row else None
