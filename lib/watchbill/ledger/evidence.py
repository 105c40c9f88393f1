"""Table `evidence`: typed records of what happened; the bytes lie in blobs/ under their digest."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from watchbill.ledger.db import Ledger


class Evidence(NamedTuple):
    """One row."""

    firing: str
    kind: str  # diff | check | base_check | cost | transcript | kept | scan | brief
    digest: str  # sha256
    size: int  # bytes
    summary: dict[str, Any]
    at: int


def add(ledger: Ledger, record: Evidence) -> None:
    ledger.write("evidence_add", **{**record._asdict(), "summary": json.dumps(record.summary, sort_keys=True)})


def of_firing(ledger: Ledger, firing: str) -> list[Evidence]:
    return [
        Evidence(f, kind, digest, size, json.loads(summary), at)
        for f, kind, digest, size, summary, at in ledger.rows("evidence_of_firing", firing=firing)
    ]
