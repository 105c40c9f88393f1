"""Table `effects`: an intent before, a receipt after, one row a thing done outside."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from watchbill.ledger.db import Ledger


class Effect(NamedTuple):
    """One row."""

    key: str
    firing: str
    kind: str
    intent: dict[str, Any]
    receipt: dict[str, Any] | None  # None: not known to have happened


def _effect(row: tuple[Any, ...]) -> Effect:
    key, firing, kind, intent, receipt = row
    return Effect(key, firing, kind, json.loads(intent), json.loads(receipt) if receipt else None)


def intend(ledger: Ledger, key: str, firing: str, kind: str, intent: dict[str, Any], at: int) -> None:
    """db.Refused when the key is there already."""
    ledger.write("effect_intend", key=key, firing=firing, kind=kind, intent=json.dumps(intent), at=at)


def receive(ledger: Ledger, key: str, receipt: dict[str, Any], at: int) -> None:
    ledger.write("effect_receive", key=key, receipt=json.dumps(receipt), at=at)


def get(ledger: Ledger, key: str) -> Effect | None:
    row = ledger.row("effect_get", key=key)
    return _effect(row) if row else None


def of_firing(ledger: Ledger, firing: str) -> list[Effect]:
    return [_effect(row) for row in ledger.rows("effects_of_firing", firing=firing)]
