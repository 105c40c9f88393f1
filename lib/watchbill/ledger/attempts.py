"""Table `attempts`: how often an input was tried, and from when it may be tried again."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Attempts(NamedTuple):
    """What is known of one (role, target, digest)."""

    tries: int
    next_at: int


def get(ledger: Ledger, role: str, target: str, digest: str) -> Attempts:
    row = ledger.row("attempt_get", role=role, target=target, digest=digest)
    return Attempts(*row) if row else Attempts(0, 0)


def put(ledger: Ledger, role: str, target: str, digest: str, tries: int, next_at: int) -> None:
    """So many tries have been made, by whichever host, and the next may come then."""
    ledger.write("attempt_put", role=role, target=target, digest=digest, count=tries, next_at=next_at)


def clear(ledger: Ledger, role: str, target: str) -> None:
    """The count ends where a person takes over: what they label again begins anew."""
    ledger.write("attempts_clear", role=role, target=target)
