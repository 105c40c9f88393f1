"""Rows of `evidence` of kind `session`: conversations that an engine could go on with."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from watchbill.ledger.db import Ledger


class Left(NamedTuple):
    """One row."""

    firing: str
    digest: str  # of the conversation's bytes in blobs/
    summary: dict[str, Any]
    at: int  # UTC epoch seconds


def of_generation(ledger: Ledger, host: str, repo_id: int, number: int, generation: int) -> Left | None:
    """The newest that the winner of a generation left on this host."""
    row = ledger.row("session_of_generation", host=host, repo_id=repo_id, number=number, generation=generation)
    return Left(row[0], row[1], json.loads(row[2]), row[3]) if row else None
