"""Table `polls`: what this host last learnt from outside, and who is asking right now."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from watchbill.ledger.db import Ledger


class Poll(NamedTuple):
    """The answer to one question."""

    query: str
    validator: str | None  # ETag
    fetched_ms: int  # UTC epoch ms when the asking began; 0: never answered
    body: Any  # decoded JSON, None when never answered
    refreshing_by: str | None  # firing
    refreshing_until: int | None


def get(ledger: Ledger, query: str) -> Poll:
    row = ledger.row("poll_get", query=query)
    if row is None:
        return Poll(query, None, 0, None, None, None)
    query, validator, fetched_ms, body, by, until = row
    return Poll(query, validator, fetched_ms, json.loads(body) if body else None, by, until)


def take(ledger: Ledger, query: str, by: str, now: int, until: int) -> bool:
    """Become the one who refreshes; False while another does."""
    return ledger.write("poll_take", query=query, by=by, now=now, until=until) == 1


def put(ledger: Ledger, query: str, by: str, validator: str | None, fetched_ms: int, body: Any) -> bool:
    """False when the right to refresh had passed to another: that one's answer is newer."""
    return (
        ledger.write("poll_put", query=query, by=by, validator=validator, fetched_ms=fetched_ms, body=json.dumps(body))
        == 1
    )


def give_back_all(ledger: Ledger, by: str) -> None:
    """Whatever a firing was asking about: it has ended, or owns what it asked about."""
    ledger.write("poll_give_back_all", by=by)


def give_back(ledger: Ledger, query: str, by: str) -> None:
    ledger.write("poll_give_back", query=query, by=by)
