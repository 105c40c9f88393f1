"""What the tables say about one issue over all its firings, with the times; for people who ask what happened."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from watchbill.ledger.db import Ledger


class Done(NamedTuple):
    """One effect on an issue."""

    firing: str  # for which; after a crash a later firing does it in this one's name
    generation: int
    kind: str  # "label active", "claim ref to pr", "pull request", ..., see effects.perform
    intent: dict[str, Any]
    receipt: dict[str, Any] | None  # None: not known to have happened
    at: int  # UTC epoch seconds of the receipt, else of the intent


def effects(ledger: Ledger, repo_id: int, number: int) -> list[Done]:
    """Everything done outside for an issue, in the order in which it was intended."""
    # Keys begin "repository id/number/"; "0" is the character after "/".
    found = ledger.rows("effects_on_issue", prefix=f"{repo_id}/{number}/", beyond=f"{repo_id}/{number}0")
    return [
        Done(firing, int(key.split("/")[2]), kind, json.loads(intent), json.loads(receipt) if receipt else None,
             received_at or intended_at)
        for _, key, firing, kind, intent, receipt, intended_at, received_at in sorted(found)
    ]  # fmt: skip


def issues(ledger: Ledger, repo_id: int) -> list[int]:
    """The issues of a repository that firings of this host have had."""
    return sorted(number for (number,) in ledger.rows("claims_ever_won", repo_id=repo_id))
