"""Refuses when one more firing could exceed a cap of the agent's day, the fleet's day or the fleet's month."""

from __future__ import annotations

from watchbill import money
from watchbill.compiled import Agent
from watchbill.gates.snapshot import Refusal, Snapshot
from watchbill.money import Standing

_SPAN = {"day": "today", "fleet_day": "today", "fleet_month": "this month"}


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    if not agent.engine:
        return None  # a role without an engine spends nothing
    worst = money.worst_case(agent.caps)
    for standing in snapshot.caps:
        if money.above(standing, worst):
            return refusal(standing, worst[standing.cap.unit])
    return None


def refusal(standing: Standing, worst: int) -> Refusal:
    """The sentence with the numbers; `reserve` says the same when the cap was reached after the gates."""
    cap = standing.cap
    span = _SPAN.get(cap.scope, "for this issue")
    return Refusal(
        "capped",
        f"capped-{cap.scope.replace('_', '-')}-{cap.unit}",
        f"{standing.subject} has {money.amount(cap.unit, standing.settled)} spent and"
        f" {money.amount(cap.unit, standing.reserved)} reserved {span} of {money.amount(cap.unit, cap.limit)};"
        f" a firing may need {money.amount(cap.unit, worst)}",
        {
            "cap": cap.limit,
            "unit": cap.unit,
            "scope": cap.scope,
            "settled": standing.settled,
            "reserved": standing.reserved,
            "worst": worst,
            "period": standing.period,
        },
    )
