"""Table `claims`: what this host intends, owns and owned: within a host, the truth about who owns an issue."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Claim(NamedTuple):
    """One row."""

    id: int
    repo_id: int
    repo: str
    number: int
    generation: int
    firing: str
    host: str
    intended: str  # commit id written down before it is pushed
    tip: str | None  # the claim ref as we last moved it
    record: str  # active | published | pr | released: the state of the record at `tip`
    state: str  # intended | won | lost | superseded | ended
    won_at: int | None
    ended_at: int | None


def intend(
    ledger: Ledger, firing: str, host: str, repo_id: int, repo: str, number: int, generation: int, intended: str
) -> None:
    """db.Refused when a live claim of this host stands on the issue."""
    ledger.write(
        "claim_intend",
        firing=firing,
        host=host,
        repo_id=repo_id,
        repo=repo,
        number=number,
        generation=generation,
        intended=intended,
    )


def win(ledger: Ledger, firing: str, repo_id: int, number: int, tip: str, at: int) -> None:
    assert ledger.write("claim_win", firing=firing, repo_id=repo_id, number=number, tip=tip, at=at) == 1


def lose(ledger: Ledger, firing: str, repo_id: int, number: int, at: int) -> None:
    ledger.write("claim_lose", firing=firing, repo_id=repo_id, number=number, at=at)


def intend_next(ledger: Ledger, firing: str, intended: str) -> bool:
    """False when the row is not ours to move any more (superseded)."""
    return ledger.write("claim_intend_next", firing=firing, intended=intended) == 1


def advance(ledger: Ledger, firing: str, tip: str, record: str) -> bool:
    return ledger.write("claim_advance", firing=firing, tip=tip, record=record) == 1


def end(ledger: Ledger, firing: str, state: str, record: str, tip: str | None, at: int) -> bool:
    return ledger.write("claim_end", firing=firing, state=state, record=record, tip=tip, at=at) == 1


def still_won(ledger: Ledger, firing: str) -> bool:
    """Whether a firing's claim is its own by this host's account."""
    row = of_firing(ledger, firing)
    return row is not None and row.state == "won"


def unresolved(ledger: Ledger, firing: str) -> bool:
    """Whether a commit was intended that is not known to have become the tip."""
    row = of_firing(ledger, firing)
    return row is not None and row.state == "won" and row.intended != row.tip


def live_on(ledger: Ledger, repo_id: int, number: int) -> Claim | None:
    row = ledger.row("claim_live_on", repo_id=repo_id, number=number)
    return Claim(*row) if row else None


def of_firing(ledger: Ledger, firing: str) -> Claim | None:
    row = ledger.row("claim_of_firing", firing=firing)
    return Claim(*row) if row else None


def last_won(ledger: Ledger, repo_id: int, number: int) -> Claim | None:
    row = ledger.row("claim_last_won", repo_id=repo_id, number=number)
    return Claim(*row) if row else None


def live(ledger: Ledger, host: str) -> list[Claim]:
    return [Claim(*row) for row in ledger.rows("claims_live", host=host)]


def live_elsewhere(ledger: Ledger, host: str) -> list[Claim]:
    """Rows of another host id, as a copied or moved home brings them along."""
    return [Claim(*row) for row in ledger.rows("claims_live_elsewhere", host=host)]
