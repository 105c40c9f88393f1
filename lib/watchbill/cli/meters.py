"""Running firings, what each has set aside, and what its meter says: for `status` and `spend`."""

from __future__ import annotations

from typing import Any

from watchbill.ledger import bills, reservations
from watchbill.ledger.bills import Running
from watchbill.ledger.db import Ledger


def running(ledger: Ledger) -> list[tuple[Running, dict[str, int]]]:
    """Each with what it has reserved, by unit: empty before it reserves. Dollars are micro-dollars."""
    return [
        (row, {one.unit: one.reserved for one in reservations.open_of(ledger, row.id) if one.scope == "firing"})
        for row in bills.running(ledger)
    ]


def as_object(row: Running, reserved: dict[str, int]) -> dict[str, Any]:
    """One element of the list `running` in JSON."""
    return {
        "firing": row.id,
        "agent": row.agent,
        "host": row.host,
        "pid": row.pid,
        "repo": row.repo,
        "number": row.number,
        "engine": row.engine,
        "account": row.account,
        "started": row.started,
        "reserved_micro": reserved.get("usd"),
        "reserved_tokens": reserved.get("tokens"),
        "reserved_turns": reserved.get("turns"),
        "so_far_micro": row.cost_micro,
        "so_far_tokens": row.tokens,
        "so_far_turns": row.turns,
        "basis": row.basis,
        "heard_at": row.heard_at,
    }
