"""Table `decisions`: every gate's and every candidate's verdict, with its numbers; also when it let pass."""

import json
from typing import Any, NamedTuple

from watchbill.ledger.db import Ledger


class Decision(NamedTuple):
    """One verdict."""

    step: str  # gates | look | reserve | claim | ...
    subject: str  # a gate's name, or acme/api#41
    verdict: str  # pass | refuse | take | skip | lost
    reason_id: str  # stable, kebab-case
    reason: str  # a sentence with the numbers in it
    numbers: dict[str, Any] = {}
    firing: str = ""
    at: int = 0


def add(ledger: Ledger, firing: str, at: int, decision: Decision) -> None:
    ledger.write(
        "decision_add",
        firing=firing,
        at=at,
        step=decision.step,
        subject=decision.subject,
        verdict=decision.verdict,
        reason_id=decision.reason_id,
        reason=decision.reason,
        numbers=json.dumps(decision.numbers, sort_keys=True),
    )


def _decision(row: tuple[Any, ...]) -> Decision:
    firing, at, step, subject, verdict, reason_id, reason, numbers = row
    return Decision(step, subject, verdict, reason_id, reason, json.loads(numbers), firing, at)


def of_firing(ledger: Ledger, firing: str) -> list[Decision]:
    return [_decision(row) for row in ledger.rows("decisions_of_firing", firing=firing)]


def on(ledger: Ledger, subject: str, until: int, count: int = 20) -> list[Decision]:
    """Newest first, none later than `until`."""
    return [_decision(row) for row in ledger.rows("decisions_on_subject", subject=subject, until=until, count=count)]
