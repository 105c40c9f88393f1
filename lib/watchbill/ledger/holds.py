"""Table `holds`: reasons not to fire."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Hold(NamedTuple):
    """One standing hold."""

    id: int
    scope: str  # fleet | host | repo | issue | agent | role | engine | account | model | github
    subject: str  # "" for the whole fleet
    kind: str  # pause | stop | rate_limit | base_red | breaker | ...
    reason: str
    author: str
    since: int
    until: int | None  # None: until somebody lifts it
    evidence: str | None = None


def add(ledger: Ledger, hold: Hold) -> None:
    """`hold.id` is given by the ledger."""
    fields = hold._asdict()
    del fields["id"]
    ledger.write("hold_add", **fields)


def standing(ledger: Ledger, now: int) -> list[Hold]:
    return [Hold(*row) for row in ledger.rows("holds_standing", now=now)]


def lift(ledger: Ledger, id: int, by: str, at: int) -> bool:
    """False when somebody else lifted it first."""
    return ledger.write("hold_lift", id=id, by=by, at=at) == 1
