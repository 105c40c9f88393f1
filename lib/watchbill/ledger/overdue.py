"""Table `overdue`: agents whose timer is silent, one row an episode."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Episode(NamedTuple):
    """One that is not over."""

    agent: str
    slot: int  # the first that passed without a firing, UTC epoch seconds
    noticed_at: int
    firing: str  # who noticed
    why: str


class Last(NamedTuple):
    """An agent's newest firing on a host, times in UTC epoch seconds."""

    started: int
    ended: int | None
    due: int | None


def open_ones(ledger: Ledger, host: str) -> dict[str, Episode]:
    """By agent."""
    return {row[0]: Episode(*row) for row in ledger.rows("overdue_open", host=host)}


def begin(ledger: Ledger, host: str, episode: Episode) -> bool:
    """False when somebody else noticed first."""
    return ledger.write("overdue_begin", host=host, **episode._asdict()) == 1


def end(ledger: Ledger, host: str, agent: str, at: int) -> None:
    """It fired again at that time, or is not to fire any more."""
    ledger.write("overdue_end", host=host, agent=agent, at=at)


def last_of(ledger: Ledger, host: str, agent: str, now: int) -> Last | None:
    """As far as it began before now: a clock that was ahead once must not hide an agent until then."""
    row = ledger.row("overdue_last", host=host, agent=agent, now=now)
    return Last(*row) if row else None


def freed_at(ledger: Ledger, host: str, agent: str) -> int:
    """When a pause or a stop of it was last lifted, UTC epoch seconds; 0: never."""
    row = ledger.row("overdue_freed", host=host, agent=agent)
    return int(row[0]) if row and row[0] is not None else 0


def last_before(ledger: Ledger, host: str, id: str) -> int | None:
    """When the newest firing of anybody began whose id is smaller, UTC epoch seconds."""
    row = ledger.row("overdue_before", host=host, id=id)
    return int(row[0]) if row else None
